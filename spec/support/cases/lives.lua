-- Cases (spec/support/api_cases.lua): how long entries live: touch, expire, expireAt, persist.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local nothing, report = group.nothing, group.report

case("touch only lengthens, expire sets, persist takes the end away", function(bed)
    local cache, FOREVER = bed.cache, require("redcache").FOREVER
    local function lives(from, to)
        local left = cache:ttl("k")
        assert.is_true(left > from and left <= to, left)
    end
    cache:set("k", 1, 10)
    assert.is_true(cache:touch("k", 5))
    lives(5, 10)
    assert.is_true(cache:touch("k", 50))
    lives(40, 50)
    assert.is_true(cache:touch("k")) -- the cache's ttl
    lives(290, 300)
    assert.is_true(cache:expire("k", 20))
    lives(10, 20)
    assert.is_true(cache:expireAt("k", os.time() + 100))
    lives(80, 100)
    assert.is_true(cache:persist("k"))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:touch("k", 5))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:expire("k", 5))
    lives(0, 5)
    assert.is_true(cache:touch("k", FOREVER))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:expireAt("k", 1))
    assert.is_nil((cache:get("k")))
end)

case("what lives longer keeps its grace window behind its life", function(bed)
    local cache = bed.open({ grace = 100 })
    cache:set("k", 1, 10)
    assert.is_true(cache:touch("k", 30))
    local left = bed.redis:call("PTTL", "app:k")
    assert.is_true(left > 120000 and left <= 130000, left)
    assert.is_true(cache:expire("k", 0.05))
    bed.wait_until(function() return select(3, cache:get("k")) == "stale" end, 5, "the window")
end)

case("a load, its end and 'no such thing' have no life to change", function(bed)
    local cache, other = bed.cache, bed.other()
    local function change_all(key)
        return { other:touch(key), other:expire(key, 60), other:expireAt(key, os.time() + 60),
            other:persist(key) }
    end
    local NONE = { false, false, false, false }
    assert.same(NONE, change_all("k"))
    cache:remember("k", 60, function()
        assert.same(NONE, change_all("k"))
        return 1
    end)
    assert.same({ true, true, true, true }, change_all("k"))
    cache:remember("none", 60, nothing)
    assert.same(NONE, change_all("none"))
    cache:remember("failed", 60, function() error("no", 0) end, { errorTtl = 5 })
    assert.same(NONE, change_all("failed"))
    bed.redis:call("SET", "app:text", "")
    assert.same({ true, true, true, true }, change_all("text"))
end)

case("wrong lives are told, and nothing is sent", function(bed)
    local cache = bed.cache
    local sent = cache:stats().requests
    for _, ttl in ipairs({ 0, -1, 0 / 0, "60" }) do
        assert.equal("badTtl", report(cache:touch("k", ttl)).code)
        assert.equal("badTtl", report(cache:expire("k", ttl)).code)
    end
    assert.equal("badTtl", report(cache:expire("k")).code)
    for text, fn in pairs({
        ["bad argument 'key' to touch"] = function() cache:touch(1) end,
        ["bad argument 'key' to expire"] = function() cache:expire({}, 1) end,
        ["bad argument 'key' to expireAt"] = function() cache:expireAt(nil, 1) end,
        ["bad argument 'key' to persist"] = function() cache:persist() end,
        ["bad argument 'at' to expireAt: seconds since 1970"] = function()
            cache:expireAt("k", os.time() * 1000)
        end,
        ["unknown option 'ttl' to persist"] = function() cache:persist("k", { ttl = 1 }) end,
    }) do
        local ok, message = pcall(fn)
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
    assert.equal(sent, cache:stats().requests)
end)

case("a near copy lives as long as its entry does now", function(bed)
    local cache, other = bed.open({ near = true }), bed.other()
    local function is_near() return ({ near = true, l0 = true })[select(3, cache:get("k"))] end
    cache:set("k", 1, 60)
    bed.wait_until(is_near, 5, "a near copy")
    assert.is_true(cache:expire("k", 0.1))
    bed.wait_until(function() return cache:get("k") == nil end, 5, "its end")
    cache:set("k", 1, 0.5)
    bed.wait_until(is_near, 5, "a near copy")
    assert.is_true(other:touch("k", 60))
    bed.pause(0.6)
    assert.equal(1, (cache:get("k")))
end)

return cases
