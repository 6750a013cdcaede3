-- run - 1,000 coroutines of one runner that read through two connections, near cache off, against
-- redis-benchmark's GETs of the same keys.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local process = require("spec.support.process")

local COROUTINES, KEYS = bench.sized(1000, 50), 1000
local VALUE_BYTES = 100
local READS = bench.sized(1000, 10) -- of each coroutine, per round: a third of a second
local REQUESTS = bench.sized(1000000, 25600)

local function fill(cache)
    local keys, values = {}, {}
    for i = 1, KEYS do
        -- The names redis-benchmark asks for.
        keys[i] = ("key:%012d"):format(i - 1)
        values[keys[i]] = bench.text(VALUE_BYTES)
        assert(cache:set(keys[i], values[keys[i]], redcache.FOREVER))
    end
    return keys, values
end

local function read(cache, keys, values, at)
    for _ = 1, READS do
        at = at % KEYS + 1
        local key = keys[at]
        if cache:get(key) ~= values[key] then
            error("another value was expected")
        end
    end
end

local function ours(cache, keys, values)
    collectgarbage()
    local before = clock.now()
    redcache.run(function()
        for i = 1, COROUTINES do
            redcache.spawn(read, cache, keys, values, i * 617)
        end
    end)
    return { rate = COROUTINES * READS / (clock.now() - before) / 1000 }
end

local function theirs(redis)
    local ended = process.run({
        "redis-benchmark", "-h", "127.0.0.1", "-p", redis.port, "-c", 50, "-P", 256, "-t", "get",
        "-r", KEYS, "-d", VALUE_BYTES, "--csv", "-n", REQUESTS,
    })
    local rate = ended.out:match('"GET","([%d.]+)"')
    if rate == nil then
        error("redis-benchmark failed: " .. ended.out .. ended.err)
    end
    return { rate = tonumber(rate) / 1000 }
end

local function measure(redis, rounds)
    local cache = redcache.new({ url = redis:url(), codec = "raw", near = false,
        scheduler = "coroutine" })
    local keys, values = fill(cache)
    local samples = bench.side_by_side({
        { "coroutines", function() return ours(cache, keys, values) end },
        { "redis-benchmark", function() return theirs(redis) end },
    }, rounds)
    cache:close()
    return samples
end

bench.run({
    name = "run",
    measure = measure,
    figures = { { name = "rate", unit = "1000 reads/s" } },
    ratios = {
        { of = "coroutines", to = "redis-benchmark", figure = "rate",
            at_least = { idle = 0.95, busy = 0.95 } },
    },
})
