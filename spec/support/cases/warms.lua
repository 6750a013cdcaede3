-- Cases (spec/support/api_cases.lua): filling a cache from an iterator.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case

-- An iterator of `count` keys; what it has given so far.
local function numbers(count)
    local given = { count = 0 }
    return function()
        if given.count == count then return nil end
        given.count = given.count + 1
        return "k" .. given.count, given.count, given.count == 1 and 20 or nil
    end, given
end

case("warm stores what an iterator gives, in batches, and tells how far it is", function(bed)
    local cache, told = bed.cache, {}
    local stored, failed, err = cache:warm((numbers(2500)), {
        ttl = 60, progress = function(...) told[#told + 1] = { ... } end,
    })
    assert.same({ 2500, {} }, { stored, failed })
    assert.is_nil(err)
    assert.same({ { 1000, 1000 }, { 2000, 2000 }, { 2500, 2500 } }, told)
    assert.same({ k1 = 1, k2500 = 2500 }, (cache:getMulti({ "k1", "k2500", "k2501" })))
    local own, all = bed.redis:call("PTTL", "app:k1"), bed.redis:call("PTTL", "app:k2")
    assert.is_true(own <= 20000 and all > 20000 and all <= 60000)
    assert.same({ 2, {} }, { cache:warm({ a = 1, b = 2 }) })
    assert.same({ 0, {} }, { cache:warm({}) })
end)

case("warm tells by key what it could not store, and goes on", function(bed)
    local stored, failed, err = bed.cache:warm({ a = 1, b = print, c = 3 }, { batch = 1 })
    assert.equal(2, stored)
    assert.equal("encode", failed.b.code)
    assert.is_nil(err)
    assert.same({ a = 1, c = 3 }, (bed.cache:getMulti({ "a", "b", "c" })))
end)

case("warm keeps to its rate, and ends when it is told to", function(bed)
    local took, stored = bed.time(function()
        return bed.cache:warm((numbers(60)), { rate = 100 })
    end)
    assert.equal(60, stored)
    -- Six batches of ten, with a tenth of a second between two.
    assert.is_true(took >= 0.45, "it took " .. took)
    local iterator, given = numbers(1000)
    stored = bed.cache:warm(iterator, { batch = 10, progress = function(count)
        return count < 30
    end })
    assert.same({ 30, 30 }, { stored, given.count })
    -- The fastest of some: the machine may do something else for half a second.
    local at_once = math.huge
    for _ = 1, 10 do
        at_once = math.min(at_once, (bed.time(function() bed.cache:warm((numbers(60))) end)))
        if at_once < took then break end
    end
    assert.is_true(at_once < took)
end)

case("warm ends where a whole batch fails", function(bed)
    local cache = bed.open({ commandTimeout = 0.2 })
    cache:get("k")
    bed.silence(true)
    local iterator, given = numbers(1000)
    local stored, failed, err = cache:warm(iterator, { batch = 10 })
    bed.silence(false)
    assert.same({ 0, 10 }, { stored, given.count })
    assert.equal(err.code, failed.k1.code)
    assert.is_not_nil(({ timeout = 1, unavailable = 1, outcomeUnknown = 1 })[err.code], err.code)
end)

case("bad arguments of warm raise, and nothing is sent", function(bed)
    local cache = bed.cache
    cache:get("k")
    local before = cache:stats().requests
    local function raises(text, ...) group.raises(text, cache.warm, cache, ...) end
    raises("bad argument 'iterator' to warm", "k")
    raises("bad argument 'opts' to warm", {}, 5)
    raises("bad option 'rate'", {}, { rate = 0 })
    raises("bad option 'batch'", {}, { batch = 0.5 })
    raises("bad option 'progress'", {}, { progress = 1 })
    raises("bad option 'ttl'", {}, { ttl = -1 })
    raises("keys are strings", function() return 1, 2 end)
    raises("no value for 'k'", function() return "k" end)
    raises("up", function() error("up") end)
    assert.equal(before, cache:stats().requests)
end)

return cases
