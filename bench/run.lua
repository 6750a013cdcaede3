-- run - 1,000 coroutines of one runner that read random keys of 100,000 through two connections,
-- near cache off, against as many goroutines of Go clients that pipeline what is asked at once, and
-- against redis-benchmark's GETs of the same keys.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local benchmark = require("bench.support.benchmark")
local clock = require("spec.support.clock")
local peer = require("bench.support.peer")
local warm = require("bench.support.warm")

local COROUTINES, KEYS = bench.sized(1000, 50), bench.sized(100000, 1000)
local VALUE_BYTES = 100
local READS = bench.sized(1000, 10) -- of each coroutine, per round: half a second
local REQUESTS = bench.sized(1000000, 25600)
local TIMEOUT = 20 -- of a call: a busy machine is to be slow, not wrong

local function read(cache, keys)
    local random = math.random
    for _ = 1, READS do
        local value = cache:get(keys[random(KEYS)])
        if value == nil or #value ~= VALUE_BYTES then
            error("a hit was expected")
        end
    end
end

local function read_at_once(cache, keys)
    redcache.run(function()
        for _ = 1, COROUTINES do
            redcache.spawn(read, cache, keys)
        end
    end)
end

local function ours(cache, keys)
    collectgarbage()
    local cpu, before = bench.processor(), clock.now()
    read_at_once(cache, keys)
    local count = COROUTINES * READS
    return { rate = count / (clock.now() - before) / 1000,
        cpu = (bench.processor() - cpu) / count * 1e6 }
end

local function measure(redis, rounds, args)
    local peers = peer.open(args, redis)
    local cache = redcache.new({ url = redis:url(), codec = "raw", near = false,
        scheduler = "coroutine", commandTimeout = TIMEOUT })
    local keys = benchmark.keys(KEYS)
    warm.fill(cache, keys, VALUE_BYTES, redcache.FOREVER)
    local asked = { goroutines = COROUTINES, calls = READS, keys = KEYS, bytes = VALUE_BYTES }
    local pipelines = { clients = 50, pipeline = 256, keys = KEYS, bytes = VALUE_BYTES,
        requests = REQUESTS }
    local samples = bench.side_by_side({
        { "coroutines", function() return ours(cache, keys) end, count = function()
            return function() read_at_once(cache, keys) end, COROUTINES * READS
        end },
        peers:side("rueidis", "rueidis.callers", asked),
        peers:side("go-redis", "goredis.callers", asked),
        benchmark.side("redis-benchmark", redis, pipelines),
        benchmark.side("valkey-benchmark", redis, pipelines),
    }, rounds)
    cache:close()
    peers:close()
    return samples
end

bench.run({
    name = "run",
    measure = measure,
    figures = {
        { name = "rate", unit = "1000 reads/s" }, { name = "cpu", unit = "us of a processor" },
    },
    ratios = {
        { of = "coroutines", to = "rueidis", figure = "rate", at_least = bench.both(3) },
        { of = "coroutines", to = "rueidis", figure = "cpu", at_most = bench.both(0.2) },
        { of = "coroutines", to = "go-redis", figure = "rate" },
        { of = "coroutines", to = "go-redis", figure = "cpu" },
        { of = "coroutines", to = "redis-benchmark", figure = "rate", at_least = bench.both(0.8) },
        { of = "coroutines", to = "valkey-benchmark", figure = "rate" },
    },
})
