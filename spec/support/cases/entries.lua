-- Cases (spec/support/api_cases.lua): one entry: get, set, delete, exists, ttl, plain text.

local assert = require("luassert")
local ffi = require("ffi")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, nothing, report = group.never, group.nothing, group.report

case("get tells a value from a miss, and delete a key from none", function(bed)
    assert.same({}, report(bed.cache:get("k")))
    assert.is_true(bed.cache:set("k", { 1, x = "y" }, 60))
    assert.same({ value = { 1, x = "y" }, source = "redis" }, report(bed.cache:get("k")))
    assert.equal(1, bed.redis:call("EXISTS", "app:k"))
    assert.is_true((bed.cache:delete("k")))
    assert.is_false((bed.cache:delete("k")))
    assert.same({}, report(bed.cache:get("k")))
end)

case("exists and ttl tell of values alone", function(bed)
    local cache = bed.cache
    assert.is_false((cache:exists("k")))
    assert.is_nil(cache:ttl("k"))
    cache:set("k", 1, 60)
    assert.is_true((cache:exists("k")))
    assert.is_true(cache:ttl("k") > 50 and cache:ttl("k") <= 60)
    cache:set("k", 1, require("redcache").FOREVER)
    assert.equal(require("redcache").FOREVER, cache:ttl("k"))
    assert.equal(-1, bed.redis:call("PTTL", "app:k"))
    cache:remember("n", 60, nothing)
    assert.same({ false, true }, { cache:exists("n") })
end)

case("a value is gone after its ttl", function(bed)
    local value
    local took = bed.time(function()
        bed.cache:set("k", 1, 0.3)
        value = bed.cache:get("k")
    end)
    assert.is_true(value == 1 or took >= 0.3, took)
    bed.wait_until(function() return bed.cache:get("k") == nil end, 2, "the end of the value")
end)

case("a bad ttl is refused before anything happens", function(bed)
    for _, ttl in ipairs({ 0, -1, 0 / 0, math.huge, "60" }) do
        assert.equal("badTtl", report(bed.cache:set("k", 1, ttl)).code)
        assert.equal("badTtl", report(bed.cache:remember("k", ttl, never)).code)
        assert.equal("badTtl", report(bed.cache:put("k", ttl, never)).code)
    end
end)

case("bad arguments and options are errors that name them", function(bed)
    for text, fn in pairs({
        ["bad argument 'key' to get"] = function() bed.cache:get(1) end,
        ["bad argument 'value' to set"] = function() bed.cache:set("k", nil) end,
        ["bad argument 'fn' to remember"] = function() bed.cache:remember("k", 60, 1) end,
        ["unknown option 'leasettl' to remember: did you mean 'leaseTtl'?"] = function()
            bed.cache:remember("k", 60, never, { leasettl = 1 })
        end,
        ["bad option 'timeout' to get"] = function() bed.cache:get("k", { timeout = -1 }) end,
    }) do
        local ok, message = pcall(fn)
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
end)

case("values of any type come back as they went in, by every way", function(bed)
    local values = {
        true, false, "", "text", "a\0b\r\n\255", ("x"):rep(100000), 0, -1, 1.5, 1e300, 2 ^ 53,
        math.huge, {}, { 1, 2, 3 }, { a = { b = { c = false } } }, { [2.5] = 1 }, { 1, nil, 3 },
    }
    local reader = bed.other()
    for i, value in ipairs(values) do
        assert.is_true(bed.cache:set("s" .. i, value))
        assert.same({ value = value, source = "redis" }, report(reader:get("s" .. i)))
        assert.same({ value = value, source = "loader" },
            report(bed.cache:remember("r" .. i, 60, function() return value end)))
        assert.same({ value = value, source = "redis" },
            report(reader:remember("r" .. i, 60, never)))
    end
    for _, value in ipairs({ 9007199254740993LL, 18446744073709551615ULL }) do
        bed.cache:set("k", value)
        local got = reader:get("k")
        assert.equal(ffi.typeof(value), ffi.typeof(got))
        assert.is_true(got == value)
    end
end)

case("json and raw keep what they can say and refuse the rest", function(bed)
    local json, raw = bed.open({ codec = "json" }), bed.open({ codec = "raw" })
    assert.is_true(json:set("j", { a = { 1, "\0" } }))
    assert.same({ a = { 1, "\0" } }, (json:get("j")))
    assert.equal("encode", report(json:set("j", print)).code)
    assert.is_true(raw:set("r", "a\0\255"))
    assert.equal("a\0\255", (raw:get("r")))
    assert.equal("encode", report(raw:set("r", {})).code)
end)

case("a large value goes both ways", function(bed)
    local large = ("redcache"):rep(400000)
    assert.is_true(bed.cache:set("k", large))
    assert.is_true(bed.other():get("k") == large)
    assert.equal("tooLarge", report(bed.cache:set("k", large:rep(3))).code)
end)

return cases
