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
    assert.is_true(cache:expireAt("k", bed.redis:call("TIME")[1] + 100))
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

case("touchMulti and expireMulti treat every key by itself", function(bed)
    local cache, FOREVER = bed.cache, require("redcache").FOREVER
    local function lives(key, from, to)
        local left = cache:ttl(key)
        assert.is_true(left > from and left <= to, key .. ": " .. tostring(left))
    end
    cache:setMulti({ a = 1, b = 2, c = 3 }, 20)
    cache:remember("none", 60, nothing)
    local found, failed = cache:touchMulti({ "a", "b", "missing", "none", "a" })
    assert.same({ a = true, b = true, missing = false, none = false }, found)
    assert.same({}, failed)
    lives("a", 290, 300)
    lives("c", 10, 20)
    assert.same({ { a = true, c = true }, {} }, { cache:touchMulti({ "a", "c" }, 50) })
    lives("a", 290, 300)
    lives("c", 40, 50)
    found, failed = cache:expireMulti({ a = 10, b = FOREVER, missing = 5, c = 0 })
    assert.same({ a = true, b = true, missing = false }, found)
    assert.same({ "badTtl", "c" }, { failed.c.code, failed.c.key })
    lives("a", 0, 10)
    lives("c", 40, 50)
    assert.equal(FOREVER, cache:ttl("b"))
    assert.same({ { b = true }, {} }, { cache:touchMulti({ b = 5 }) })
    assert.equal(FOREVER, cache:ttl("b"))
    assert.same({ { a = true }, {} }, { cache:expireMulti({ "a" }, FOREVER) })
    assert.equal(FOREVER, cache:ttl("a"))
    found, failed = cache:touchMulti({ "a", "b" }, -1)
    assert.same({ {}, "badTtl", "badTtl" }, { found, failed.a.code, failed.b.code })
    local long = ("x"):rep(70000)
    found, failed = cache:touchMulti({ "a", long })
    assert.same({ { a = true }, "tooLarge" }, { found, failed[long].code })
    cache:remember("load", 60, function()
        assert.same({ load = false }, (bed.other():expireMulti({ "load" }, 60)))
        return 1
    end)
end)

case("lives of thousands of keys are changed in one call", function(bed)
    local cache, map, keys = bed.cache, {}, {}
    for i = 1, 9000 do
        keys[i] = "k" .. i
        map[keys[i]] = i
    end
    assert.is_true((cache:setMulti(map, 10)))
    local found, failed = cache:expireMulti(keys, 60)
    assert.same({}, failed)
    local count = 0
    for _, one in pairs(found) do count = count + (one and 1 or 0) end
    assert.equal(9000, count)
    assert.is_true(cache:ttl("k1") > 10 and cache:ttl("k9000") > 10)
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
        ["bad argument 'keys' to touchMulti: list of strings"] = function()
            cache:touchMulti("k")
        end,
        ["got number at 2"] = function() cache:expireMulti({ "k", 2 }, 60) end,
        ["bad argument 'keys' to expireMulti: list of strings or map"] = function()
            cache:expireMulti({ k = 1, [3] = 1 })
        end,
        ["bad argument 'ttl' to touchMulti: nil expected"] = function()
            cache:touchMulti({ k = 1 }, 60)
        end,
        ["unknown option 'grace' to expireMulti"] = function()
            cache:expireMulti({ "k" }, 60, { grace = 1 })
        end,
        ["unknown option 'ttl' to persist"] = function() cache:persist("k", { ttl = 1 }) end,
    }) do
        group.raises(text, fn)
    end
    local long = ("x"):rep(70000)
    assert.equal("tooLarge", report(cache:touch(long)).code)
    assert.equal("tooLarge", report(cache:persist(long)).code)
    assert.same({ { {}, {} }, { {}, {} } },
        { { cache:touchMulti({}) }, { cache:expireMulti({}, 60) } })
    assert.equal(sent, cache:stats().requests)
end)

case("a near copy lives as long as its entry does now", function(bed)
    local cache, other = bed.open({ near = true }), bed.other()
    local function is_near() return ({ near = true, l0 = true })[select(3, cache:get("k"))] end
    cache:set("k", 1, 60)
    bed.wait_until(is_near, 5, "a near copy")
    assert.is_true(cache:expire("k", 0.1))
    bed.wait_until(function() return cache:get("k") == nil end, 5, "its end")
    -- Again where all that took longer than the first life.
    bed.wait_until(function()
        cache:set("k", 1, 1)
        local is_kept
        bed.wait_until(function()
            is_kept = is_near()
            return is_kept or not cache:exists("k")
        end, 5, "a near copy")
        return is_kept and other:touch("k", 60)
    end, 30, "a longer life")
    bed.pause(1.1)
    assert.equal(1, (cache:get("k")))
    bed.wait_until(is_near, 5, "a near copy")
    assert.same({ k = true }, (other:expireMulti({ k = 0.1 })))
    bed.wait_until(function() return cache:get("k") == nil end, 5, "its end")
end)

return cases
