-- Cases (spec/support/api_cases.lua): delete and deleteMulti with soft = true.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, nothing, report = group.never, group.nothing, group.report

local SOFT = { soft = true }

case("a soft delete makes an entry stale: readers get it, one loads", function(bed)
    local options = { grace = 100, background = false }
    local cache, other = bed.open(options), bed.other(options)
    cache:set("k", "old", 60)
    assert.same({ value = true }, report(cache:delete("k", SOFT)))
    local left = bed.redis:call("PTTL", "app:k")
    assert.is_true(left > 90000 and left <= 100000, left)
    assert.same({ value = "old", source = "stale" }, report(other:get("k")))
    assert.equal(0, cache:ttl("k"))
    assert.equal("new", (cache:remember("k", 60, function()
        assert.same({ value = "old", source = "stale" }, report(other:remember("k", 60, never)))
        return "new"
    end)))
    assert.same({ value = "new", source = "redis" }, report(other:get("k")))
    -- What is stale already stays so for no longer.
    assert.is_true((cache:expire("k", 0.01)))
    bed.pause(0.05)
    left = bed.redis:call("PTTL", "app:k")
    assert.is_true((cache:delete("k", SOFT)))
    assert.is_true(bed.redis:call("PTTL", "app:k") <= left)
    -- What lives for ever has an end then.
    assert.is_true((cache:persist("k")))
    assert.is_true((cache:delete("k", SOFT)))
    assert.same({ value = "new", source = "stale" }, report(cache:get("k")))
    assert.is_true(bed.redis:call("PTTL", "app:k") <= 100000)
end)

case("a soft delete of what has no grace window deletes it", function(bed)
    local cache, other = bed.cache, bed.other()
    cache:set("k", 1, 60)
    cache:remember("none", 60, nothing)
    bed.redis:call("SET", "app:text", "")
    for _, key in ipairs({ "k", "none", "text" }) do
        assert.same({ value = true }, report(cache:delete(key, SOFT)))
        assert.equal(0, bed.redis:call("EXISTS", "app:" .. key))
        assert.same({ value = false }, report(cache:delete(key, SOFT)))
    end
    bed.open({ grace = 10 }):set("k", 1, require("redcache").FOREVER)
    assert.is_true((cache:delete("k", SOFT)))
    assert.equal(0, bed.redis:call("EXISTS", "app:k"))
    assert.same({ value = true }, { value = cache:set("k", 1), nil })
    assert.same({ value = true }, report(cache:delete("k", { soft = false })))
    -- A load is void.
    local _, _, _, flag = cache:remember("load", 60, function()
        assert.is_true((other:delete("load", SOFT)))
        return "loaded"
    end)
    assert.equal("unstored", flag)
    assert.is_nil((cache:get("load")))
end)

case("a refresh and a put that began before a soft delete store nothing", function(bed)
    local options = { grace = 100, background = false }
    local cache, other = bed.open(options), bed.other(options)
    cache:set("k", "old", 60)
    cache:delete("k", SOFT)
    assert.same({ value = "too late", source = "loader", flag = "unstored" },
        report(cache:remember("k", 60, function()
            assert.is_true((other:delete("k", SOFT)))
            return "too late"
        end)))
    assert.same({ value = "old", source = "stale" }, report(other:get("k")))
    assert.same({ code = "lockLost" }, report(cache:put("k", 60, function()
        assert.equal(1, (other:deleteMulti({ "k", "missing" }, SOFT)))
        return "too late"
    end)))
    assert.same({ value = "old", source = "stale" }, report(other:get("k")))
    assert.equal("new", (cache:remember("k", 60, function() return "new" end)))
    -- With reloads the load begins again, as behind a delete.
    cache:delete("k", SOFT)
    local runs = 0
    assert.same({ value = 2, source = "loader" }, report(cache:remember("k", 60, function()
        runs = runs + 1
        if runs == 1 then other:delete("k", SOFT) end
        return runs
    end, { reloads = 3 })))
    assert.equal(2, (other:get("k")))
end)

case("deleteMulti with soft treats each key by what stands there", function(bed)
    local cache, graced, keys = bed.cache, bed.open({ grace = 100 }), {}
    for i = 1, 9000 do keys[i] = "k" .. i end
    graced:setMulti({ k1 = 1, k2 = 2 }, 60)
    cache:setMulti({ k3 = 3, k8999 = 4 }, 60)
    assert.equal(4, (cache:deleteMulti(keys, SOFT)))
    local values = graced:getMulti({ "k1", "k2", "k3", "k8999" })
    assert.same({ k1 = 1, k2 = 2 }, values)
    assert.equal("stale", (select(3, graced:get("k2"))))
    assert.equal(2, (cache:deleteMulti({ "k1", "k2", "k3", "k1" }, SOFT)))
    assert.equal(0, (cache:deleteMulti({}, SOFT)))
end)

case("near copies go with a soft delete, everywhere", function(bed)
    local cache, other = bed.open({ near = true, grace = 100 }), bed.other({ grace = 100 })
    local function is_near() return ({ near = true, l0 = true })[select(3, cache:get("k"))] end
    for _, deleter in ipairs({ cache, other }) do
        cache:set("k", "v", 60)
        bed.wait_until(is_near, 5, "a near copy")
        assert.is_true((deleter:delete("k", SOFT)))
        if deleter == cache then
            assert.same({ value = "v", source = "stale" }, report(cache:get("k")))
        end
        bed.wait_until(function() return select(3, cache:get("k")) == "stale" end, 5, "the news")
        assert.is_nil(is_near())
    end
end)

case("wrong soft deletes are errors that name the argument, and send nothing", function(bed)
    local cache, long = bed.cache, ("x"):rep(70000)
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to delete"] = function() cache:delete(1, SOFT) end,
        ["bad option 'soft' to delete: true or false"] = function()
            cache:delete("k", { soft = 1 })
        end,
        ["unknown option 'grace' to delete"] = function() cache:delete("k", { grace = 1 }) end,
        ["bad argument 'keys' to deleteMulti"] = function() cache:deleteMulti("k", SOFT) end,
        ["unknown option 'hard' to deleteMulti"] = function()
            cache:deleteMulti({ "k" }, { hard = true })
        end,
    }) do
        group.raises(text, fn)
    end
    assert.same({ code = "tooLarge" }, report(cache:delete(long, SOFT)))
    assert.same({ code = "tooLarge" }, report(cache:deleteMulti({ "k", long }, SOFT)))
    assert.equal(sent, cache:stats().requests)
end)

return cases
