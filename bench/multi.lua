-- multi - getMulti of 1,000 keys in one Lua state, near cache off, against redis-benchmark's GETs.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local benchmark = require("bench.support.benchmark")
local clock = require("spec.support.clock")

local KEYS = 1000
local VALUE_BYTES = 100
local SECONDS = bench.sized(0.5, 0.02) -- per side and round
local REQUESTS = bench.sized(400000, 6400)

local function fill(redis, cache)
    local keys, map = {}, {}
    for i = 1, KEYS do
        local value = bench.text(VALUE_BYTES)
        keys[i] = bench.text(16)
        map[keys[i]] = value
        -- The names redis-benchmark asks for.
        redis:call("SET", ("key:%012d"):format(i - 1), value)
    end
    assert(cache:setMulti(map, redcache.FOREVER))
    return keys, map
end

local function ours(cache, keys, map)
    local calls = 0
    collectgarbage()
    local before = clock.now()
    local elapsed
    repeat
        local values, failed = cache:getMulti(keys)
        assert(next(failed) == nil and values[keys[1]] == map[keys[1]])
        calls = calls + 1
        elapsed = clock.now() - before
    until elapsed >= SECONDS
    return { rate = calls * KEYS / elapsed / 1000 }
end

local function measure(redis, rounds)
    local cache = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench",
        near = false })
    local keys, map = fill(redis, cache)
    local samples = bench.side_by_side({
        { "getMulti", function() return ours(cache, keys, map) end },
        benchmark.side("redis-benchmark", redis, { clients = 50, pipeline = 64, keys = KEYS,
            bytes = VALUE_BYTES, requests = REQUESTS }),
    }, rounds)
    cache:close()
    return samples
end

bench.run({
    name = "multi",
    measure = measure,
    figures = { { name = "rate", unit = "1000 keys/s" } },
    ratios = {
        { of = "getMulti", to = "redis-benchmark", figure = "rate",
            at_least = { idle = 0.8, busy = 0.8 } },
    },
})
