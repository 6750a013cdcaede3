-- misses - remember() of what nobody has: one caller, lists of 100, 500 callers at once; against
-- dcbickfo/redcache, which loads behind a lock as we do, and for 500 against the server alone: the
-- commands of the same load, sent again behind each other by a client that looks at no answer.
-- What one miss takes in PINGs: bench/miss.lua.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local peer = require("bench.support.peer")
local replay = require("bench.support.replay")

local KEY_BYTES, VALUE_BYTES, TTL = 16, 100, 600
local CALLS = bench.sized(1500, 50) -- per side and round, of one caller
local LIST, LISTS = 100, bench.sized(60, 5)
local CALLERS = bench.sized(500, 50)
local EACH = bench.sized(40, 4) -- calls of each of them

local value = bench.text(VALUE_BYTES)

local function load_one()
    return value
end

local function load_many(keys)
    local values = {}
    for _, key in ipairs(keys) do values[key] = value end
    return values
end

local function miss(cache, key)
    local _, _, source, flag = cache:remember(key, TTL, load_one)
    return source == "loader" and flag == nil or error("a stored load was expected")
end

local function miss_lists(cache)
    local lists = {}
    for i = 1, LISTS do lists[i] = bench.texts(LIST, KEY_BYTES) end
    collectgarbage()
    local before = clock.now()
    for _, list in ipairs(lists) do
        local values = cache:rememberMulti(list, TTL, load_many)
        if values[list[1]] ~= value then error("a load was expected") end
    end
    return { ns = (clock.now() - before) / (LISTS * LIST) * 1e9 }
end

local function work(cache, keys, first)
    for i = first + 1, first + EACH do
        miss(cache, keys[i])
    end
end

-- Thousands of misses per second, and microseconds of a processor of each.
local function miss_at_once(cache)
    local count = CALLERS * EACH
    local keys = bench.texts(count, KEY_BYTES)
    collectgarbage()
    local cpu, before = bench.processor(), clock.now()
    redcache.run(function()
        for i = 0, CALLERS - 1 do
            redcache.spawn(work, cache, keys, i * EACH)
        end
    end)
    return { rate = count / (clock.now() - before) / 1e3,
        cpu = (bench.processor() - cpu) / count * 1e6 }
end

-- The namespace is warm: it has missed before, so every load asks for value or lease at once.
local function open(redis, options)
    options.url, options.codec, options.namespace = redis:url(), "raw", "bench"
    return redcache.new(options)
end

local function record(redis)
    local cache = redcache.new({ url = redis:url() .. "/1", codec = "raw", namespace = "bench",
        scheduler = "coroutine" })
    miss_at_once(cache)
    local recorded = replay.record(redis, function() miss_at_once(cache) end)
    cache:close()
    return recorded
end

local function measure(redis, rounds, args)
    local peers = peer.open(args, redis)
    local blocking = open(redis, {})
    local coroutines = open(redis, { scheduler = "coroutine" })
    local without = open(redis, { scheduler = "coroutine", near = false })
    local recorded = record(redis)
    local count = CALLERS * EACH
    print(("%.2f commands of a miss are replayed"):format(recorded.commands / count))
    local samples = bench.side_by_side({
        { "miss", function()
            return bench.latency(function(key) return miss(blocking, key) end,
                bench.texts(CALLS, KEY_BYTES), CALLS)
        end },
        peers:side("Go redcache miss", "goredcache.miss", { calls = CALLS, bytes = VALUE_BYTES }),
        { "rememberMulti", function() return miss_lists(blocking) end },
        peers:side("Go redcache GetMulti", "goredcache.missMany",
            { calls = LISTS, list = LIST, bytes = VALUE_BYTES }),
        { "500 coroutines", function() return miss_at_once(coroutines) end },
        { "500 coroutines, near = false", function() return miss_at_once(without) end },
        { "the same commands replayed", function()
            return { rate = count / recorded:run() / 1e3 }
        end },
        peers:side("500 goroutines", "goredcache.callersMiss",
            { goroutines = CALLERS, calls = EACH, bytes = VALUE_BYTES }),
    }, rounds)
    recorded:close()
    for _, cache in ipairs({ blocking, coroutines, without }) do cache:close() end
    peers:close()
    return samples
end

local function both(limit)
    return { idle = limit, busy = limit }
end

bench.run({
    name = "misses",
    measure = measure,
    figures = {
        { name = "p50", unit = "us" }, { name = "p99", unit = "us" },
        { name = "ns", unit = "ns/key" },
        { name = "rate", unit = "1000 misses/s" }, { name = "cpu", unit = "us of a processor" },
    },
    ratios = {
        { of = "miss", to = "Go redcache miss", figure = "p50", at_most = { idle = 0.3 } },
        { of = "rememberMulti", to = "Go redcache GetMulti", figure = "ns", at_most = both(0.2) },
        { of = "500 coroutines", to = "500 goroutines", figure = "rate", at_least = both(4) },
        { of = "500 coroutines", to = "500 goroutines", figure = "cpu", at_most = both(0.2) },
        { of = "500 coroutines", to = "the same commands replayed", figure = "rate",
            at_least = both(0.8) },
        { of = "500 coroutines, near = false", to = "500 coroutines", figure = "rate" },
    },
})
