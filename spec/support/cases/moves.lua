-- Cases (spec/support/api_cases.lua): rename, copy. The hash tags are for clusters.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local nothing, report = group.nothing, group.report

local A, B = "{t}:a", "{t}:b"

case("rename moves a value with its life, over what stands there", function(bed)
    local cache = bed.cache
    cache:set(A, { 1 }, 50)
    cache:set(B, "old", 500)
    assert.same({ value = true }, report(cache:rename(A, B)))
    assert.is_nil((cache:get(A)))
    assert.same({ 1 }, (cache:get(B)))
    local left = cache:ttl(B)
    assert.is_true(left > 40 and left <= 50, left)
    assert.same({ value = false, source = "absent" }, report(cache:rename(A, B)))
    assert.same({ 1 }, (cache:get(B)))
    assert.same({ value = true }, report(cache:rename(B, B)))
    assert.same({ 1 }, (cache:get(B)))
end)

case("copy leaves the value where it is, too", function(bed)
    local cache = bed.open({ grace = 100 })
    cache:set(A, "v", 50)
    assert.same({ value = true }, report(cache:copy(A, B)))
    assert.same({ "v", "v" }, { (cache:get(A)), (cache:get(B)) })
    local left = bed.redis:call("PTTL", "app:" .. B)
    assert.is_true(left > 140000 and left <= 150000, left)
    assert.same({ value = false, source = "absent" }, report(cache:copy("{t}:c", B)))
    assert.same({ value = true }, report(cache:copy(A, A)))
    assert.equal("v", (cache:get(B)))
end)

case("with nx a value that stands at the other key stays", function(bed)
    local cache = bed.cache
    cache:setMulti({ [A] = 1, [B] = 2 })
    for _, method in ipairs({ "rename", "copy" }) do
        assert.same({ value = false, source = "taken" },
            report(cache[method](cache, A, B, { nx = true })))
        assert.same({ value = false, source = "taken" },
            report(cache[method](cache, A, A, { nx = true })))
    end
    assert.same({ 1, 2 }, { (cache:get(A)), (cache:get(B)) })
    cache:delete(B)
    cache:remember(B, 60, nothing)
    assert.same({ value = true }, report(cache:copy(A, B, { nx = true })))
    assert.equal(1, (cache:get(B)))
    assert.same({ value = true }, report(cache:rename(A, "{t}:c", { nx = true })))
end)

case("a load is no value to move, and is void where a value comes", function(bed)
    local cache, other = bed.cache, bed.other()
    cache:set(A, "moved")
    local value, err, source, flag = cache:remember(B, 60, function()
        for _, method in ipairs({ "rename", "copy" }) do
            assert.same({ value = false, source = "absent" },
                report(other[method](other, B, "{t}:c")))
        end
        assert.is_true((other:rename(A, B, { nx = true })))
        return "loaded"
    end)
    -- The newer value is what the caller gets, and what stays.
    assert.same({ value = "moved" }, { value = value, code = err and err.code })
    assert.is_true(source ~= "loader" or flag == "unstored")
    assert.equal("moved", (cache:get(B)))
    cache:remember(A, 60, nothing)
    assert.same({ value = false, source = "absent" }, report(cache:copy(A, B)))
    bed.redis:call("SET", "app:" .. A, "")
    assert.same({ value = true }, report(cache:rename(A, B)))
    assert.equal("", (cache:get(B)))
end)

case("near copies of both keys follow a move at once", function(bed)
    local cache = bed.open({ near = true })
    for i = 1, 20 do
        cache:setMulti({ [A] = i, [B] = -i })
        assert.same({ i, -i }, { (cache:get(A)), (cache:get(B)) })
        assert.is_true((cache:copy(A, B)))
        assert.equal(i, (cache:get(B)))
        assert.is_true((cache:rename(A, B)))
        assert.is_nil((cache:get(A)))
        assert.equal(i, (cache:get(B)))
    end
    bed.other():set(A, "other")
    bed.wait_until(function() return cache:get(A) == "other" end, 5, "the news")
    assert.is_true((bed.other():rename(A, B)))
    bed.wait_until(function() return cache:get(B) == "other" and cache:get(A) == nil end, 5,
        "the news")
end)

case("wrong moves are errors that name the argument, and send nothing", function(bed)
    local cache, long = bed.cache, ("x"):rep(70000)
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'from' to rename: string"] = function() cache:rename(nil, "b") end,
        ["bad argument 'to' to rename: string"] = function() cache:rename("a", { nx = true }) end,
        ["bad argument 'to' to copy: string expected, got nil"] = function() cache:copy("a") end,
        ["unknown option 'ttl' to copy"] = function() cache:copy("a", "b", { ttl = 1 }) end,
        ["bad option 'nx' to rename"] = function() cache:rename("a", "b", { nx = 1 }) end,
        ["bad argument 'opts' to rename"] = function() cache:rename("a", "b", 60) end,
    }) do
        group.raises(text, fn)
    end
    assert.same({ code = "tooLarge" }, report(cache:rename(long, "b")))
    assert.same({ code = "tooLarge" }, report(cache:copy("a", long)))
    assert.equal(sent, cache:stats().requests)
end)

return cases
