-- Cases (spec/support/api_cases.lua): the form of the answers of getMulti and rememberMulti: values
-- by key or by position, in a new table or the caller's.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local nothing = group.nothing

-- Where values come from: the option near, by the source that get tells.
local PLACES = { redis = false, near = { l0 = false }, l0 = true }

-- Waits until these keys are read from that place.
local function bring(bed, cache, keys, place)
    bed.wait_until(function()
        for _, key in ipairs(keys) do
            if select(3, cache:get(key)) ~= place then return false end
        end
        return true
    end, 5, "values from " .. place)
end

-- By each of the two calls and from each place, of a cache that has 1 under "a", false under "b",
-- "no such thing" under "n", and nothing under "m".
local function each_call(bed, fn)
    for place, near in pairs(PLACES) do
        local cache = bed.open({ near = near })
        cache:setMulti({ a = 1, b = false }, 60)
        cache:remember("n", 60, nothing, { negativeTtl = 60 })
        bring(bed, cache, { "a", "b", "n" }, place)
        fn("getMulti from " .. place, function(keys, opts) return cache:getMulti(keys, opts) end)
        fn("rememberMulti from " .. place, function(keys, opts)
            return cache:rememberMulti(keys, 60, function()
                return {}, "there is none"
            end, opts)
        end)
    end
end

local KEYS = { "m", "a", "n", "b", "a" }

case("with list = true values stand where their keys do", function(bed)
    each_call(bed, function(name, call)
        local values, failed, negatives = call(KEYS, { list = true })
        assert.same({ [2] = 1, [4] = false, [5] = 1 }, values, name)
        assert.equal(failed.m and "loaderFailed", failed.m and failed.m.code, name)
        assert.is_nil(failed.a, name)
        assert.same({ n = true }, negatives, name)
        assert.same({ a = 1, b = false }, (call(KEYS, { list = false })), name)
        assert.same({ 1 }, (call({ "a" }, { list = true, timeout = 5, fresh = true })), name)
        assert.same({}, (call({}, { list = true })), name)
    end)
end)

case("with into the caller's table takes the values, and keeps what else it holds", function(bed)
    each_call(bed, function(name, call)
        local into = { a = "old", m = "old", n = "old", z = "other" }
        local values, _, negatives = call(KEYS, { into = into })
        assert.equal(into, values, name)
        assert.same({ a = 1, b = false, z = "other" }, into, name)
        assert.same({ n = true }, negatives, name)
        local list = { "old", "old", "old", "old", "old", "other" }
        assert.equal(list, (call(KEYS, { into = list, list = true, timeout = 5 })), name)
        assert.same({ nil, 1, nil, false, 1, "other" }, list, name)
    end)
end)

case("rememberMulti gives what it has loaded in the form that is wanted", function(bed)
    local cache = bed.cache
    local function load(keys)
        local values = {}
        for _, key in ipairs(keys) do values[key] = key ~= "n" and key or nil end
        return values
    end
    local values, failed, negatives = cache:rememberMulti({ "a", "n", "b" }, 60, load,
        { list = true })
    assert.same({ { "a", nil, "b" }, {}, { n = true } }, { values, failed, negatives })
    local into = { c = "old", x = 1 }
    values, failed = cache:rememberMulti({ "a", "c" }, 60, load, { into = into })
    assert.equal(into, values)
    assert.same({ { a = "a", c = "c", x = 1 }, {} }, { into, failed })
    assert.same({ "a", "b", "c" }, (cache:getMulti({ "a", "b", "c" }, { list = true })))
end)

case("a form that cannot be is an error, and nothing is sent", function(bed)
    local cache, keys = bed.cache, { "a" }
    local sent, into = cache:stats().requests, { a = "old" }
    for method, call in pairs({
        getMulti = function(opts) cache:getMulti(keys, opts) end,
        rememberMulti = function(opts) cache:rememberMulti(keys, 60, group.never, opts) end,
    }) do
        for text, opts in pairs({
            ["bad option 'list' to %s: true or false expected, got 1"] = { list = 1 },
            ["bad option 'into' to %s: table expected, got true"] = { into = true },
            ["bad option 'list' to %s: true or false expected"] = { list = {}, into = into },
            ["bad option 'into' to %s: it is the list of keys"] = { into = keys },
            ["bad option 'into' to %s: it is the list of"] = { into = keys, list = true },
            ["unknown option 'lists' to %s"] = { lists = true, into = into },
        }) do
            local ok, message = pcall(call, opts)
            assert.is_false(ok)
            assert.matches(text:format(method), message, 1, true)
            assert.matches("forms%.lua:%d+: ", message)
        end
    end
    group.raises("unknown option 'list' to get: it is an option of getMulti and rememberMulti",
        function() cache:get("a", { list = true }) end)
    group.raises("list of strings expected, got number at 2", function()
        cache:getMulti({ "a", 2 }, { into = into })
    end)
    assert.equal(sent, cache:stats().requests)
    assert.same({ a = "old" }, into)
    assert.same({ "a" }, keys)
    -- Of keys in L0 none is looked at, but for being there.
    for place, near in pairs(PLACES) do
        cache = bed.open({ near = near })
        cache:set("a", 1, 60)
        bring(bed, cache, { "a" }, place)
        group.sends_at_most(bed, cache, 0, function()
            for _, bad in ipairs({ 2, {}, true }) do
                local ok, message = pcall(function()
                    cache:getMulti({ "a", bad }, { list = true })
                end)
                assert.is_false(ok)
                assert.matches("forms.lua:%d+: bad argument 'keys' to getMulti: list of strings"
                    .. " expected, got " .. type(bad) .. " at 2", message)
            end
            group.raises("list of strings expected", function()
                cache:getMulti("a", { list = true })
            end)
        end)
    end
end)

return cases
