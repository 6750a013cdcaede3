-- Cases (spec/support/api_cases.lua): what is kept near.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, report = group.never, group.report

case("a near value is served from memory until Redis says it changed", function(bed)
    local cache = bed.open({ near = true })
    assert.equal("loader", report(cache:remember("k", 60, function() return { "v" } end)).source)
    bed.wait_until(function()
        return ({ near = 1, l0 = 1 })[select(3, cache:get("k"))]
    end, 2, "a near hit")
    assert.same({ value = { "v" }, source = "l0" }, report(cache:remember("k", 60, never)))
    assert.same({ value = { "v" }, source = "l0" }, report(cache:get("k")))
    bed.redis:call("DEL", "app:k")
    -- The push has to arrive while the caller does something else.
    bed.wait_until(function() return cache:get("k") == nil end, 0.9, "the invalidation")
    assert.is_nil((cache:get("k", { fresh = true })))
end)

case("a caller's own write is seen at once, near or not", function(bed)
    local cache = bed.open({ near = true })
    for i = 1, 100 do
        cache:set("k", i, 60)
        assert.equal(i, (cache:get("k")))
        assert.equal(i, (cache:get("k")))
    end
    cache:delete("k")
    assert.is_nil((cache:get("k")))
end)

return cases
