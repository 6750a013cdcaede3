-- Cases (spec/support/api_cases.lua): calls with many keys.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local nothing, report = group.nothing, group.report

case("getMulti, setMulti and deleteMulti treat every key by itself", function(bed)
    local cache = bed.cache
    assert.same({ true, {} }, { cache:setMulti({ a = 1, b = false, c = { "x" } }, 60) })
    cache:remember("n", 60, nothing)
    local values, failed, negatives = cache:getMulti({ "a", "b", "c", "n", "missing", "a" })
    assert.same({ a = 1, b = false, c = { "x" } }, values)
    assert.same({}, failed)
    assert.same({ n = true }, negatives)
    local ok
    ok, failed = cache:setMulti({ d = 1, e = print }, { d = 60 })
    assert.is_false(ok)
    assert.equal("encode", failed.e.code)
    assert.equal(4, cache:deleteMulti({ "a", "b", "c", "d", "missing" }))
    assert.same({ {}, {}, { n = true } }, { cache:getMulti({ "a", "b", "c", "d", "n" }) })
    assert.same({ {}, {}, {} }, { cache:getMulti({}) })
end)

case("exists counts the values under a list of keys", function(bed)
    local cache = bed.cache
    cache:setMulti({ a = 1, b = false, c = ("x"):rep(5000) }, 60)
    cache:remember("none", 60, nothing)
    bed.redis:call("SET", "app:text", "")
    bed.redis:call("SET", "app:newer", "\251\1\1\99" .. ("\0"):rep(20) .. "x")
    assert.equal(4, (cache:exists({ "a", "b", "c", "none", "text", "missing", "newer", "a" })))
    assert.equal(0, (cache:exists({})))
    assert.equal(1, (cache:exists({ "a" })))
    assert.is_true((cache:exists("a")))
    cache:remember("load", 60, function()
        assert.equal(1, (bed.other():exists({ "load", "a" })))
        return 1
    end)
    -- What never expires is no load, whatever it looks like.
    bed.redis:call("SET", "app:k", "\251\1\4" .. ("\0"):rep(21))
    assert.equal(0, (cache:exists({ "k" })))
    assert.equal(1, (bed.open({ plain = true, codec = "raw" }):exists({ "k", "missing" })))
    local sent = cache:stats().requests
    local count, err = cache:exists({ "a", ("x"):rep(70000) })
    assert.same({ code = "tooLarge" }, report(count, err))
    for text, fn in pairs({
        ["bad argument 'key' to exists: string or list"] = function() cache:exists(1) end,
        ["list of strings expected, got number at 2"] = function() cache:exists({ "a", 2 }) end,
        ["unknown option 'near' to exists"] = function()
            cache:exists({ "a" }, { near = false })
        end,
        ["bad argument 'opts' to exists"] = function() cache:exists("a", "b") end,
    }) do
        group.raises(text, fn)
    end
    assert.equal(sent, cache:stats().requests)
end)

case("thousands of keys go in one call, and come back near as well", function(bed)
    local cache, map, keys = bed.open({ near = true }), {}, {}
    for i = 1, 3000 do
        keys[i] = "k" .. i
        map[keys[i]] = i
    end
    assert.is_true((cache:setMulti(map, 60)))
    local values, failed = cache:getMulti(keys)
    assert.same({}, failed)
    local wrong = 0
    for key, value in pairs(map) do wrong = wrong + (values[key] == value and 0 or 1) end
    assert.equal(0, wrong)
    local few = { "k1", "k2", "k3" }
    assert.same({ k1 = 1, k2 = 2, k3 = 3 }, (cache:getMulti(few)))
    bed.wait_until(function()
        return ({ l0 = 1, near = 1 })[select(3, cache:get("k1"))]
    end, 2, "a near hit") -- a cluster's masters are asked first
    assert.equal(3000, cache:deleteMulti(keys))
    assert.is_nil((cache:get("k1")))
end)

case("namespaces are prefixes with options of their own", function(bed)
    local inner = bed.cache:namespace("users", { ttl = 7, codec = "raw" })
    inner:set("k", "v")
    assert.equal(1, bed.redis:call("EXISTS", "app/users:k"))
    assert.is_true(bed.redis:call("PTTL", "app/users:k") <= 7000)
    assert.is_nil((bed.cache:get("k")))
    assert.equal("v", (inner:get("k")))
    assert.equal("encode", report(inner:set("k", 1)).code)
end)

return cases
