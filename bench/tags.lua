-- tags - what three tags cost a hit that never leaves this machine: near hits without L0, and L0
-- hits, of entries with three tags and of the same without any, in turns.
--
-- Both sides read as many keys of one cache, and as long ones (a lookup's time depends on that), so
-- they differ in the entries alone.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local warm = require("bench.support.warm")

local KEYS, TAGS = 1000, 100 -- keys of each side; tags that they share
local PASSES = bench.sized(100, 2) -- over the keys, per side and round
local VALUE_BYTES = 100
local TTL = 600

local function fill(cache)
    local sides = { bare = {}, tagged = {} }
    for i = 1, KEYS do
        local value = bench.text(VALUE_BYTES)
        sides.bare[i], sides.tagged[i] = "bare:" .. i, "tags:" .. i
        assert(cache:set(sides.bare[i], value, TTL))
        assert(cache:set(sides.tagged[i], value, TTL, { tags = {
            "a:" .. i % TAGS, "b:" .. i % TAGS, "all",
        } }))
    end
    return sides
end

-- Nanoseconds of a hit.
local function read(cache, keys)
    local began = clock.now()
    for _ = 1, PASSES do
        for i = 1, KEYS do
            if cache:get(keys[i]) == nil then
                error("a hit was expected")
            end
        end
    end
    return { ns = (clock.now() - began) / PASSES / KEYS * 1e9 }
end

-- A cache of its own for each kind of hit; the sides of it in turns.
local function measure(redis, rounds)
    local sides, caches = {}, {}
    for _, source in ipairs({ "near", "l0" }) do
        local cache = redcache.new({ url = redis:url(), near = { l0 = source == "l0" } })
        local keys = fill(cache)
        caches[#caches + 1] = cache
        for _, side in ipairs({ "bare", "tagged" }) do
            warm.warm(cache, keys[side], source)
            table.insert(sides, { source .. ", " .. side, function()
                return read(cache, keys[side])
            end })
        end
    end
    local samples = bench.side_by_side(sides, rounds)
    for _, cache in ipairs(caches) do
        cache:close()
    end
    return samples
end

bench.run({
    name = "tags",
    measure = measure,
    figures = { { name = "ns", unit = "ns" } },
    ratios = {
        { of = "near, tagged", to = "near, bare", figure = "ns",
            at_most = { idle = 1.3, busy = 1.3 } },
        { of = "l0, tagged", to = "l0, bare", figure = "ns",
            at_most = { idle = 1.3, busy = 1.3 } },
    },
})
