-- batches - rememberMulti of 100 keys, near cache off: a key of a batch of hits, and one of a batch
-- of misses, against a remember of each key by itself.
-- The loader does nothing. Each kind has a cache of its own, which knows what to expect: hits are
-- asked for by GET, misses by SET NX GET.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")

local KEYS = 100
local BATCHES = bench.sized(15, 2) -- per side and round
local KEY_BYTES = 16
local VALUE_BYTES = 100
local TTL = 60

local function open(redis)
    return redcache.new({ url = redis:url(), codec = "raw", namespace = "bench", near = false })
end

-- fn(keys) of each of some batches of keys: microseconds a key.
local function per_key(batches, fn)
    collectgarbage()
    local took = clock.time(function()
        for _, keys in ipairs(batches) do fn(keys) end
    end)
    return { key = took / (#batches * KEYS) * 1e6 }
end

local function new_batches()
    local batches = {}
    for i = 1, BATCHES do batches[i] = bench.texts(KEYS, KEY_BYTES) end
    return batches
end

local function measure(redis, rounds)
    local value = bench.text(VALUE_BYTES)
    local function one() return value end
    local function all(keys)
        local values = {}
        for i = 1, #keys do values[keys[i]] = value end
        return values
    end
    local stored, caches = new_batches(), {}

    local function many(cache, fn)
        return function(keys)
            local values, failed = cache:rememberMulti(keys, TTL, fn)
            assert(next(failed) == nil and values[keys[KEYS]] == value)
        end
    end
    local function single(cache, fn)
        return function(keys)
            for i = 1, #keys do
                assert(cache:remember(keys[i], TTL, fn) == value)
            end
        end
    end
    for i = 1, 4 do caches[i] = open(redis) end
    per_key(stored, many(caches[1], all))
    -- What each expects next.
    per_key(stored, many(caches[1], error))
    per_key(stored, single(caches[2], error))
    local samples = bench.side_by_side({
        { "hit of many", function() return per_key(stored, many(caches[1], error)) end },
        { "hit", function() return per_key(stored, single(caches[2], error)) end },
        { "miss of many", function() return per_key(new_batches(), many(caches[3], all)) end },
        { "miss", function() return per_key(new_batches(), single(caches[4], one)) end },
    }, rounds)
    for i = 1, 4 do caches[i]:close() end
    return samples
end

bench.run({
    name = "batches",
    measure = measure,
    figures = { { name = "key", unit = "us" } },
    ratios = {
        { of = "hit of many", to = "hit", figure = "key", at_most = { idle = 0.5, busy = 0.5 } },
        { of = "miss of many", to = "miss", figure = "key", at_most = { idle = 0.5, busy = 0.5 } },
    },
})
