-- memory - what a read costs on a store in this process, through the public calls, with the near
-- cache off: the price of the engine itself. 1,000 keys in random order, values of 100 bytes.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local hot_loop = require("bench.support.hot_loop")
local threads = require("spec.support.threads")

local KEYS, KEY_BYTES, VALUE_BYTES = 1000, 16, 100
local PASSES = bench.sized(100, 2) -- over all keys, per side and round
local THREADS, SECONDS = 4, bench.sized(0.3, 0.02)
local TTL = 3600

local REMEMBER = "value = subject:remember(key, 3600, extra)"
local GET = "value = subject:get(key)"
local ABSENT = "value = subject:get(key) == nil"

local function never()
    error("the loader ran")
end

local function nanoseconds(run)
    return function()
        return { time = hot_loop.time(run, PASSES) }
    end
end

-- Every miss is of a new key: remember runs the loader, and stores.
local function miss(cache)
    local values = bench.texts(100, VALUE_BYTES)
    local made = 0
    return function()
        local keys = bench.texts(bench.sized(2000, 50), KEY_BYTES)
        local function loader()
            made = made + 1
            return values[made % #values + 1]
        end
        return { time = bench.latency(function(key)
            return cache:remember(key, TTL, loader)
        end, keys, #keys).p50 * 1000 }
    end
end

-- Runs in every thread: reads random keys of the one client they share.
local function reader(thread)
    local params, now = thread.params, require("spec.support.clock").now
    local keys = params.keys
    local cache = require("redcache").new({ codec = "raw", near = false })
    if thread.index == 1 then
        for _, key in ipairs(keys) do assert(cache:set(key, key .. params.filler)) end
    end
    local made = {}
    for round = 1, params.rounds do
        local count, at = 0, thread.index * 37
        thread.barrier()
        local start = now()
        local last
        repeat
            for _ = 1, 100 do
                at = at % #keys + 1
                if not cache:get(keys[at]) then error("a hit was expected") end
            end
            count = count + 100
            last = now()
        until last >= start + params.seconds
        thread.barrier()
        made[round] = count / (last - start)
    end
    cache:close()
    return made
end

-- Reads per second of `count` threads together.
local function together(count, keys, rounds)
    local results = threads.run({
        main = reader, count = count, timeout = 60 + rounds * SECONDS * 10,
        params = { keys = keys, filler = bench.text(VALUE_BYTES - KEY_BYTES), seconds = SECONDS,
            rounds = rounds },
    })
    local sample = { name = count == 1 and "1 thread" or count .. " threads", rounds = {} }
    for round = 1, rounds do
        local sum = 0
        for _, made in ipairs(results) do sum = sum + made[round] end
        sample.rounds[round] = { rate = sum / 1000 }
    end
    return sample
end

local function measure(_, rounds)
    local cache = redcache.new({ near = false, codec = "raw" })
    local keys, absent = bench.texts(KEYS, KEY_BYTES), bench.texts(KEYS, KEY_BYTES + 1)
    local values = bench.texts(KEYS, VALUE_BYTES)
    for i, key in ipairs(keys) do assert(cache:set(key, values[i], TTL)) end
    local order, nowhere = hot_loop.shuffled(keys, 1), hot_loop.shuffled(absent, 1)
    local samples = bench.side_by_side({
        { "remember, hit", nanoseconds(hot_loop.new("remember", REMEMBER, order, cache, never)) },
        { "get, hit", nanoseconds(hot_loop.new("get", GET, order, cache)) },
        { "get, nothing there", nanoseconds(hot_loop.new("absent", ABSENT, nowhere, cache)) },
        { "remember, miss", miss(cache) },
    }, rounds)
    cache:close()
    samples[#samples + 1] = together(1, keys, rounds)
    samples[#samples + 1] = together(THREADS, keys, rounds)
    return samples
end

bench.run({
    name = "memory",
    measure = measure,
    figures = {
        { name = "time", unit = "ns" },
        { name = "rate", unit = "1000 reads/s" },
    },
    ratios = {
        { of = THREADS .. " threads", to = "1 thread", figure = "rate" },
    },
    limits = {
        { of = "remember, hit", figure = "time", at_most = { idle = 1000, busy = 1000 } },
    },
})
