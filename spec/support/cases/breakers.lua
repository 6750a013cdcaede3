-- Cases (spec/support/api_cases.lua): circuit breakers by hand.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, within = group.raises, group.report, group.within

-- With breakers, and known to all of its servers.
local function open(bed)
    local cache = bed.open({ breaker = true })
    for i = 1, 30 do assert(cache:set("k" .. i, i)) end
    return cache
end

local function states(cache)
    local seen = {}
    for _, breaker in pairs(cache:breaker()) do seen[breaker.state] = true end
    return seen
end

case("a breaker that is held open lets no call through, and is closed by hand", function(bed)
    local cache = open(bed)
    assert.same({ closed = true }, states(cache))
    for _, breaker in pairs(cache:breaker("open")) do
        assert.same({ state = "open", cause = "it was opened by hand" }, breaker)
    end
    local before = cache:stats()
    within(5, function()
        for i = 1, 30 do
            local value, err = cache:get("k" .. i)
            assert.is_nil(value)
            assert.equal("unavailable", err.code)
            assert.matches("is open: it was opened by hand", err.message, 1, true)
        end
    end)
    assert.matches("it was opened by hand", cache:explain("k1").text, 1, true)
    bed.pause(0.6) -- twice what a breaker waits before it is probed
    local after = cache:stats()
    assert.same({ before.breakerProbes, before.breakersOpen },
        { after.breakerProbes, after.breakersOpen })
    assert.is_false(cache:health().ready)
    assert.same("loaded", (cache:remember("k1", 60, function() return "loaded" end)))
    cache:breaker("close")
    assert.same({ closed = true }, states(cache))
    for i = 1, 30 do assert.equal(i, (cache:get("k" .. i))) end
    assert.equal(0, cache:stats().breakersOpen)
    cache:breaker("auto")
end)

case("a breaker that is let go is closed by probes", function(bed)
    local cache = open(bed)
    cache:breaker("open")
    local opened = cache:stats().breakersOpen
    assert.is_true(opened >= 1)
    cache:breaker("auto")
    bed.wait_until(function() return cache:stats().breakersOpen == 0 end, 5, "its end")
    for i = 1, 30 do assert.equal(i, (cache:get("k" .. i))) end
    assert.is_true(cache:stats().breakerProbes >= 3)
end)

case("the breaker of one server is held by its address", function(bed)
    local cache = open(bed)
    local address = next(cache:breaker())
    for name, breaker in pairs(cache:breaker("open", address)) do
        assert.equal(name == address and "open" or "closed", breaker.state)
    end
    assert.equal(1, cache:stats().breakersOpen)
    local held, err = cache:breaker("open", "nowhere:1")
    assert.is_nil(held)
    assert.equal("unavailable", err.code)
    assert.equal("could not hold the breaker of 'nowhere:1': there is no such server", err.message)
    assert.equal("closed", cache:breaker("close", address)[address].state)
    cache:breaker("auto")
end)

case("bad arguments of breaker raise, and so does a cache without one", function(bed)
    local cache = open(bed)
    for _, bad in ipairs({ "closed", 1, true, {} }) do
        raises("bad argument 'state' to breaker", cache.breaker, cache, bad)
    end
    raises("bad argument 'address' to breaker", cache.breaker, cache, "open", 1)
    assert.same({ closed = true }, states(cache))
    local plain = bed.open({ breaker = false })
    raises("redcache.new had breaker = false", plain.breaker, plain, "open")
    cache:close()
    assert.equal("closed", report(cache:breaker("open")).code)
end)

return cases
