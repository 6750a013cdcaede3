-- Cases (spec/support/api_cases.lua): incr, decr, incrFloat.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local nothing, report = group.nothing, group.report

case("a counter begins with init and its ttl, and keeps that ttl", function(bed)
    local cache = bed.cache
    assert.equal(1, (cache:incr("n")))
    assert.equal("1", bed.redis:call("GET", "app:n"))
    assert.is_true(cache:ttl("n") > 290 and cache:ttl("n") <= 300)
    assert.equal(7, (cache:incr("n", 6, { ttl = 9, init = 100 })))
    assert.is_true(cache:ttl("n") > 290)
    assert.equal(5, (cache:decr("n", 2)))
    assert.equal(15, (cache:incr("m", 5, { ttl = 0.5, init = 10 })))
    local left = bed.redis:call("PTTL", "app:m")
    assert.is_true(left > 0 and left <= 500, left)
    assert.equal(-1, (cache:decr("f", nil, { ttl = require("redcache").FOREVER })))
    assert.equal(-1, bed.redis:call("PTTL", "app:f"))
end)

case("a counter stays within its bounds, and tells what it is", function(bed)
    local cache = bed.cache
    assert.equal(10, (cache:incr("n", 1, { init = 9, max = 10 })))
    local value, err = cache:incr("n", 1, { max = 10 })
    assert.same({ code = "bound" }, report(value, err))
    assert.equal(10, err.value)
    assert.equal("could not count 'n': it would leave its bounds", err.message)
    assert.equal("bound", report(cache:decr("n", 10, { min = 1 })).code)
    value, err = cache:incr("none", 5, { max = 4 })
    assert.same({ code = "bound" }, report(value, err))
    assert.is_nil(err.value)
    assert.same({ "10", 0 }, { bed.redis:call("GET", "app:n"),
        bed.redis:call("EXISTS", "app:none") })
end)

case("a counter is exact in all of its 64 bits", function(bed)
    local cache, most = bed.cache, 9223372036854775807LL
    assert.is_true(cache:incr("n", most) == most)
    assert.is_true(cache:decr("n") == most - 1)
    assert.is_true(cache:incr("n", 1, { max = 2 ^ 53 - 1 }) == nil)
    assert.equal("9223372036854775806", bed.redis:call("GET", "app:n"))
    assert.equal("redis", report(cache:incr("n", 2)).code)
    assert.equal("9223372036854775806", bed.redis:call("GET", "app:n"))
    local low = cache:decr("n", most - 1)
    assert.equal(0, low)
    assert.is_true(cache:incr("n", 2 ^ 53 - 1) == 2 ^ 53 - 1)
    assert.is_true(cache:incr("n", 2) == 9007199254740993LL)
end)

case("a counter may have a fraction", function(bed)
    local cache = bed.cache
    assert.equal(0.5, (cache:incrFloat("f", 0.5)))
    assert.equal(-1.25, (cache:incrFloat("f", -1.75)))
    assert.equal("bound", report(cache:incrFloat("f", 2, { max = 0.7 })).code)
    assert.equal(2.75, (cache:incrFloat("g", nil, { init = 1.75 })))
    assert.equal("redis", report(cache:incr("f")).code)
end)

case("a counter takes the place of a load and of nothing, never of a value", function(bed)
    local cache = bed.cache
    cache:set("value", { 1 })
    cache:set("text", "text")
    assert.equal("redis", report(cache:incr("value")).code)
    assert.equal("redis", report(cache:incr("text", 1, { init = 5 })).code)
    assert.same({ 1 }, (cache:get("value")))
    cache:remember("no", 60, nothing)
    assert.equal(1, (cache:incr("no")))
    -- What was being loaded is not stored over it.
    cache:remember("load", 60, function()
        assert.equal(1, (bed.other():incr("load")))
        return "loaded"
    end)
    assert.equal("1", bed.redis:call("GET", "app:load"))
end)

case("what merely begins like a load or like nothing is a text, and stays", function(bed)
    local head = "\251\1\4\0" .. ("\0"):rep(20)
    for i, text in ipairs({ "\251\1\2", "\251\1\4", head .. "x", "\251\1\3\1" .. head:sub(5) }) do
        bed.redis:call("SET", "app:k", text, "PX", 60000)
        assert.equal("redis", report(bed.cache:incr("k")).code, i)
        assert.equal(text, bed.redis:call("GET", "app:k"))
    end
    bed.redis:call("SET", "app:k", head)
    assert.equal("redis", report(bed.cache:incr("k")).code)
    bed.redis:call("SET", "app:k", head, "PX", 60000)
    assert.equal(1, (bed.cache:incr("k")))
end)

case("wrong counts are errors that name the argument, and send nothing", function(bed)
    local cache, least = bed.cache, -0x7fffffffffffffffLL - 1LL
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to incr"] = function() cache:incr(1) end,
        ["bad argument 'n' to incr: whole number"] = function() cache:incr("n", 1.5) end,
        ["bad argument 'n' to incrFloat: finite"] = function() cache:incrFloat("n", 1 / 0) end,
        ["bad argument 'key' to decr"] = function() cache:decr(nil, 1) end,
        ["bad argument 'n' to decr"] = function() cache:decr("n", least) end,
        ["with init it is beyond 64 bits"] = function()
            cache:incr("n", 9223372036854775807LL, { init = 1 })
        end,
        ["bad option 'init' to incr: whole"] = function() cache:incr("n", 1, { init = 0.5 }) end,
        ["bad option 'min' to incr: it is above max"] = function()
            cache:incr("n", 1, { min = 2, max = 1 })
        end,
        ["bad option 'ttl' to decr"] = function() cache:decr("n", 1, { ttl = 0 }) end,
        ["unknown option 'maximum' to incr"] = function() cache:incr("n", 1, { maximum = 1 }) end,
    }) do
        group.raises(text, fn)
    end
    assert.equal("tooLarge", report(cache:incr(("x"):rep(70000))).code)
    assert.equal(sent, cache:stats().requests)
end)

case("codec number reads counters as numbers, and what is no number as a miss", function(bed)
    local cache = bed.open({ codec = "number" })
    cache:incr("n", 41)
    assert.same({ value = 41, source = "redis" }, report(cache:get("n")))
    assert.equal(42, (cache:incr("n")))
    for _, value in ipairs({ 0, -7, 1.5, 1e300, 2 ^ 53, 9223372036854775807LL }) do
        assert.is_true(cache:set("v", value))
        assert.is_true(cache:get("v") == value)
    end
    assert.equal("encode", report(cache:set("v", "7")).code)
    bed.redis:call("SET", "app:v", "7 days")
    assert.same({}, report(cache:get("v")))
    assert.equal("text", cache:namespace("in", { codec = "raw" }):set("k", "text")
        and bed.other():namespace("in"):get("k"))
    assert.is_false((pcall(bed.open, { codec = "number", plain = false })))
    assert.is_false((pcall(bed.open, { codec = "number", grace = 1 })))
end)

case("near copies of a counter follow it", function(bed)
    local near = bed.open({ near = true, codec = "number" })
    near:incr("n", 5)
    bed.wait_until(function() return select(3, near:get("n")) ~= "redis" end, 5, "a near copy")
    assert.equal(6, (near:incr("n")))
    assert.equal(6, (near:get("n")))
    bed.other():incr("n")
    bed.wait_until(function() return near:get("n") == 7 end, 5, "the news")
end)

return cases
