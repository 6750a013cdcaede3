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
local TIMEOUT = 20 -- of a call: a busy machine is to be slow, not wrong
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
    local _, err, source, flag = cache:remember(key, TTL, load_one)
    if source ~= "loader" or flag ~= nil then
        error(("a stored load was expected: %s, %s, %s"):format(source, flag, err))
    end
end

-- What is run and how many misses that makes, of keys that nobody has asked for.

local function miss_all(cache)
    local keys = bench.texts(CALLS, KEY_BYTES)
    return function()
        for i = 1, CALLS do miss(cache, keys[i]) end
    end, CALLS
end

local function miss_lists(cache)
    local lists = {}
    for i = 1, LISTS do lists[i] = bench.texts(LIST, KEY_BYTES) end
    return function()
        for _, list in ipairs(lists) do
            local values = cache:rememberMulti(list, TTL, load_many)
            if values[list[1]] ~= value then error("a load was expected") end
        end
    end, LISTS * LIST
end

local function work(cache, keys, first)
    for i = first + 1, first + EACH do
        miss(cache, keys[i])
    end
end

local function miss_at_once(cache)
    local keys = bench.texts(CALLERS * EACH, KEY_BYTES)
    return function()
        redcache.run(function()
            for i = 0, CALLERS - 1 do
                redcache.spawn(work, cache, keys, i * EACH)
            end
        end)
    end, CALLERS * EACH
end

-- Thousands of misses per second, nanoseconds of each, and microseconds of a processor.
local function timed(run, count)
    collectgarbage()
    local cpu, before = bench.processor(), clock.now()
    run()
    local seconds = clock.now() - before
    return { rate = count / seconds / 1e3, ns = seconds / count * 1e9,
        cpu = (bench.processor() - cpu) / count * 1e6 }
end

-- The namespace is warm: it has missed before, so every load asks for value or lease at once.
local function open(redis, options)
    options.url = redis:url() .. (options.url or "")
    options.codec, options.namespace, options.commandTimeout = "raw", "bench", TIMEOUT
    return redcache.new(options)
end

local function record(redis)
    local cache = open(redis, { url = "/1", scheduler = "coroutine" })
    miss_at_once(cache)()
    local recorded = replay.record(redis, (miss_at_once(cache)))
    cache:close()
    return recorded
end

-- A side of ours: prepare(cache) -> what is run, how many misses that makes.
local function side(name, cache, prepare)
    return { name, function()
        return timed(prepare(cache))
    end, count = function()
        return prepare(cache)
    end }
end

local function measure(redis, rounds, args)
    local peers = peer.open(args, redis)
    local blocking = open(redis, {})
    local coroutines = open(redis, { scheduler = "coroutine" })
    local without = open(redis, { scheduler = "coroutine", near = false })
    local recorded = record(redis)
    local count = CALLERS * EACH
    print(("%.2f commands of a miss are replayed"):format(recorded.commands / count))
    local single = side("miss", blocking, miss_all)
    single[2] = function()
        return bench.latency(function(key) return miss(blocking, key) end,
            bench.texts(CALLS, KEY_BYTES), CALLS)
    end
    local samples = bench.side_by_side({
        single,
        peers:side("Go redcache miss", "goredcache.miss", { calls = CALLS, bytes = VALUE_BYTES }),
        side("rememberMulti", blocking, miss_lists),
        peers:side("Go redcache GetMulti", "goredcache.missMany",
            { calls = LISTS, list = LIST, bytes = VALUE_BYTES }),
        side("500 coroutines", coroutines, miss_at_once),
        side("500 coroutines, near = false", without, miss_at_once),
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
        { of = "rememberMulti", to = "Go redcache GetMulti", figure = "ns",
            at_most = bench.both(0.2) },
        { of = "500 coroutines", to = "500 goroutines", figure = "rate", at_least = bench.both(4) },
        { of = "500 coroutines", to = "500 goroutines", figure = "cpu", at_most = bench.both(0.2) },
        { of = "500 coroutines", to = "the same commands replayed", figure = "rate",
            at_least = bench.both(0.8) },
        { of = "500 coroutines, near = false", to = "500 coroutines", figure = "rate" },
    },
})
