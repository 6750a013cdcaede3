-- codecs - what it costs to turn a value into bytes and back.
-- usage: script/lua bench/codecs.lua [SEED]
-- Random values, 1,000 of each shape; every codec runs ROUNDS times in turn, the median is shown.
-- string.buffer is there for comparison only: its decoder may not be fed with untrusted bytes.

local bench = require "bench.support.bench"
local clock = require "spec.support.clock"
local serializer = require "redcache.serializer"

local ROUNDS = bench.sized(7, 1)
local CALLS = bench.sized(20000, 200)
local VALUES = bench.sized(1000, 100)

local random = math.random
math.randomseed(tonumber(arg[1]) or os.time())

local function word(len)
    local chars = {}
    for i = 1, len do
        chars[i] = string.char(random(97, 122))
    end
    return table.concat(chars)
end

local function list(len, make)
    local values = {}
    for i = 1, len do
        values[i] = make()
    end
    return values
end

local function small()
    return { name = word(5), age = random(100) }
end

local function nested() -- 20 fields
    return {
        id = random(1e9), name = word(12), email = word(20), active = random() < 0.5,
        score = random() * 100, created = random(2 ^ 31), updated = random(2 ^ 31),
        tags = { word(4), word(6), word(5) },
        address = {
            street = word(18), city = word(8), zip = word(5),
            position = { lat = random() * 90, lon = random() * 180 },
        },
        settings = { theme = word(5), lang = word(2), mail = random() < 0.5, page = random(1000) },
    }
end

local SHAPES = {
    { "{name, age}", small },
    { "20 fields, nested", nested },
    { "100 integers", function() return list(100, function() return random(1e6) end) end },
    { "100 words", function() return list(100, function() return word(8) end) end },
}
SHAPES[5] = { "all four, mixed", function() return SHAPES[random(4)][2]() end }

local CODECS = {}

local function add(name, encode, decode)
    CODECS[#CODECS + 1] = { name, encode, decode }
end

local function add_ours(name)
    local codec = serializer.resolve(name)
    if codec then
        local encode, decode = codec.encode, codec.decode
        add("redcache " .. name, function(value)
            return select(2, encode(value))
        end, function(bytes)
            return select(2, decode(bytes))
        end)
    end
end

local function add_other(name, encode, decode)
    local ok, library = pcall(require, name)
    if ok then
        add(name, library[encode], library[decode])
    end
end

add_ours("msgpack")
add_ours("json")
add_other("cjson", "encode", "decode")
add_other("MessagePack", "pack", "unpack")
add_other("string.buffer", "encode", "decode")

local function nanoseconds(run, inputs)
    for i = 1, CALLS / 10 do
        run(inputs[i % VALUES + 1])
    end
    collectgarbage()
    local start = clock.now()
    for i = 1, CALLS do
        run(inputs[i % VALUES + 1])
    end
    return (clock.now() - start) / CALLS * 1e9
end

local function median(samples)
    table.sort(samples)
    return samples[math.ceil(#samples / 2)]
end

local function measure(values)
    local encoded, encode_times, decode_times = {}, {}, {}
    for c, codec in ipairs(CODECS) do
        encoded[c], encode_times[c], decode_times[c] = {}, {}, {}
        for i, value in ipairs(values) do
            encoded[c][i] = codec[2](value)
        end
    end
    for round = 1, ROUNDS do
        for c, codec in ipairs(CODECS) do
            encode_times[c][round] = nanoseconds(codec[2], values)
            decode_times[c][round] = nanoseconds(codec[3], encoded[c])
        end
    end
    return encode_times, decode_times, encoded
end

print(("%-20s %-18s %10s %10s %10s"):format("value", "codec", "encode ns", "decode ns", "bytes"))
for _, shape in ipairs(SHAPES) do
    local encode_times, decode_times, encoded = measure(list(VALUES, shape[2]))
    for c, codec in ipairs(CODECS) do
        local bytes = #table.concat(encoded[c]) / VALUES
        print(("%-20s %-18s %10.0f %10.0f %10.0f"):format(shape[1], codec[1],
            median(encode_times[c]), median(decode_times[c]), bytes))
    end
end
