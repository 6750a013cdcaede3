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
    -- The push has to arrive while the caller does something else; without it the copy would be
    -- good for a minute.
    bed.wait_until(function() return cache:get("k") == nil end, 10, "the invalidation")
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

case("the keys that are hit most are told", function(bed)
    local cache = bed.open({ near = true })
    local below = cache:namespace("below")
    assert.same({}, cache.near:hot())
    assert.is_true(cache:set("often", 1) and cache:set("seldom", 1) and below:set("most", 1))
    for i = 1, 20000 do
        below:get("most")
        if i % 2 == 0 then cache:get("often") end
        if i % 10 == 0 then cache:get("seldom") end
    end
    local keys = {}
    for i, one in ipairs(cache.near:hot(3)) do keys[i] = one.key end
    assert.same({ "often", "seldom" }, keys)
    local hot = below.near:hot(1)
    assert.equal("most", hot[1].key)
    -- A minute may end meanwhile; and the first hit that is counted of a cache object which was
    -- open before somebody asked stands for 8,192.
    assert.is_true(hot[1].hits > 8000 and hot[1].hits < 20000 + 8192 + 128, hot[1].hits)
    assert.equal(1, #cache.near:hot(1))
    assert.is_nil((bed.open({ near = false }).near:hot()))
end)

case("a wrong number of hot keys is told", function(bed)
    local cache = bed.open({ near = true })
    for _, n in ipairs({ 0, 101, 1.5, -1, "3", false, {}, 0 / 0 }) do
        group.raises("bad argument 'n' to hot: integer from 1 to 100", function()
            cache.near:hot(n)
        end)
    end
end)

-- Changes a key and reads it once, again and again, until it is left out. How often that was.
local function change_until_avoided(cache, key, most)
    for i = 1, most do
        cache:set(key, i)
        assert.equal(i, (cache:get(key)))
        if cache.near:stats().avoided > 0 then return i end
    end
end

case("with selective a key that changes more often than it is read is left out", function(bed)
    local cache = bed.open({ near = { selective = true } })
    local changes = change_until_avoided(cache, "k", 200)
    assert.is_true(changes ~= nil and changes > 8, changes)
    for i = 1, 5 do
        cache:set("k", i)
        local value, _, source = cache:get("k")
        assert.same({ i, "redis" }, { value, source })
        assert.same({ i, "redis" }, { (cache:get("k")), (select(3, cache:get("k"))) })
    end
    assert.is_true(cache.near:stats().avoided >= 15)
    local told = cache:explain("k")
    assert.same({ "redis", "avoided" }, { told.source, told.why })
    assert.is_false(told.near.there)
    assert.matches("changed more often", told.text)
    -- One whose copies are read stays.
    for i = 1, 30 do
        cache:set("read", i)
        bed.wait_until(function()
            cache:get("read")
            local value, _, source = cache:get("read")
            return value == i and source ~= "redis"
        end, 5, "a near copy")
    end
end)

case("without selective no key is left out", function(bed)
    assert.is_nil(change_until_avoided(bed.open({ near = true }), "k", 40))
end)

return cases
