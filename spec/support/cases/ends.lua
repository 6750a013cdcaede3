-- Cases (spec/support/api_cases.lua): timeouts, cancelling, closing.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, report, within = group.never, group.report, group.within

case("a call ends in time while Redis is silent, and all is well afterwards", function(bed)
    bed.cache:set("k", 1)
    bed.silence(true)
    within(1.5, function()
        assert.equal("timeout", report(bed.cache:get("k", { timeout = 0.1 })).code)
    end)
    bed.silence(false)
    bed.wait_until(function() return bed.cache:get("k") == 1 end, 10, "Redis' answer")
end)

case("cancel ends a load from within", function(bed)
    local count
    assert.equal("cancelled", report(bed.cache:remember("k", 60, function()
        count = bed.cache:cancel(7)
        return "v"
    end, { cancelTag = 7 })).code)
    assert.equal(1, count)
    assert.equal(0, bed.cache:cancel(7))
    assert.is_false((bed.cache:exists("k")))
end)

case("a closed cache says so, and another one can be opened", function(bed)
    for i = 1, 5 do
        local cache = bed.other()
        assert.is_true(cache:set("k", i))
        local lock = assert(cache:tryLock("job"))
        local inner = cache:namespace("inner")
        assert.is_true(cache:close())
        assert.is_true(cache:close())
        for _, call in ipairs({
            { cache:get("k") }, { cache:set("k", 1) }, { cache:remember("k", 60, never) },
            { inner:get("k") }, { cache:tryLock("job") }, { cache:stats() }, { cache:health() },
        }) do
            assert.is_nil(call[1])
            assert.equal("closed", call[2].code)
        end
        assert.is_false(lock:valid())
        assert.equal(i, (bed.cache:get("k")))
        assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
    end
end)

case("a cache closed in a loader leaves no lease", function(bed)
    local cache = bed.other()
    local result = report(cache:remember("k", 60, function()
        cache:close()
        return "v"
    end))
    assert.equal("v", result.value)
    bed.wait_until(function() return bed.redis:call("EXISTS", "app:k") == 0 end, 2, "its end")
    assert.equal("w", (bed.cache:remember("k", 60, function() return "w" end)))
end)

case("stats count, and health knows the server", function(bed)
    bed.cache:set("k", 1)
    bed.cache:get("k")
    local stats, health = bed.cache:stats(), bed.cache:health()
    assert.equal(1, stats.hits)
    assert.is_true(stats.requests >= 2 and stats.bytesOut > 0 and stats.bytesIn > 0)
    assert.equal(0, stats.inFlight)
    assert.is_true(health.ready)
    assert.equal(0, health.down)
    assert.equal("", health.cause)
end)

return cases
