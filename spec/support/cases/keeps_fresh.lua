-- Cases (spec/support/api_cases.lua): keepFresh, whoever runs what is due.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises = group.raises

-- Waits until it holds; meanwhile callers of the caches come by, as plain Lua needs them.
local function wait_for(bed, caches, condition, what)
    bed.wait_until(function()
        for _, cache in ipairs(caches) do cache:exists("nothing") end
        return condition()
    end, 10, what)
end

case("keepFresh stores what fn returns, again and again, until it is stopped", function(bed)
    local cache, count, asked = bed.cache, 0, nil
    local keeper = assert(cache:keepFresh("k", 0.1, function(key)
        count, asked = count + 1, key
        return "value " .. count
    end))
    wait_for(bed, { cache }, function() return keeper:stats().runs >= 3 end, "three runs")
    assert.equal("k", asked)
    assert.truthy(cache:get("k"):match("^value %d+$"))
    local left = cache:ttl("k")
    assert.is_true(left > 1 and left <= 10.3) -- three times 0.1 s and lockTtl
    assert.same({ true, 0, 1, 0 }, { keeper:stats().owner, keeper:stats().failed,
        keeper:stats().acquired, keeper:stats().lost })
    assert.is_true(keeper:stop())
    local lock = assert(cache:lock("fresh:k", { ttl = 60, wait = 5 }))
    assert(lock:acquire()) -- it was given back, if need be when a run had ended
    local last = count
    bed.pause(0.25)
    cache:exists("nothing")
    bed.pause(0.05)
    cache:exists("nothing")
    assert.equal(last, count)
    assert.is_false(keeper:stats().owner)
    assert.is_true(keeper:stop())
    assert(lock:release())
end)

case("keepFresh has one owner, and another one takes over where it stops", function(bed)
    local one, other = bed.cache, bed.other()
    local counts = { 0, 0 }
    local first = assert(one:keepFresh("k", 0.1, function()
        counts[1] = counts[1] + 1
        return 1
    end, { lockTtl = 60 }))
    wait_for(bed, { one }, function() return counts[1] >= 1 end, "a run of the first")
    local second = assert(other:keepFresh("k", 0.1, function()
        counts[2] = counts[2] + 1
        return 2
    end, { lockTtl = 60 }))
    local from = counts[1]
    wait_for(bed, { one, other }, function() return counts[1] >= from + 3 end, "three more")
    assert.same({ 0, false }, { counts[2], second:stats().owner })
    assert(first:stop())
    wait_for(bed, { one, other }, function() return second:stats().runs >= 2 end, "the second's")
    assert.equal(2, one:get("k", { fresh = true }))
    assert.is_true(second:stats().owner)
    assert(second:stop())
end)

case("keepFresh counts what fails, keeps the value, and tries again", function(bed)
    local cache, count = bed.cache, 0
    local keeper = assert(cache:keepFresh("k", 0.1, function()
        count = count + 1
        if count == 2 then return nil, "no database" end
        if count == 3 then error("thrown") end
        return count
    end, { ttl = 60 }))
    wait_for(bed, { cache }, function() return count >= 4 and keeper:stats().runs >= 2 end,
        "a run behind two failures")
    assert(keeper:stop())
    assert.equal(2, keeper:stats().failed)
    assert.is_true(cache:get("k") >= 4)
end)

case("keepFresh refuses bad arguments", function(bed)
    local cache = bed.cache
    local fn = function() end
    raises("bad argument 'key' to keepFresh", cache.keepFresh, cache, 1, 1, fn)
    raises("bad argument 'every' to keepFresh", cache.keepFresh, cache, "k", 0, fn)
    raises("bad argument 'every' to keepFresh", cache.keepFresh, cache, "k", "1", fn)
    raises("bad argument 'every' to keepFresh", cache.keepFresh, cache, "k", 0 / 0, fn)
    raises("bad argument 'fn' to keepFresh", cache.keepFresh, cache, "k", 1, nil)
    raises("lockTtl", cache.keepFresh, cache, "k", 1, fn, { lockTtl = 0 })
    raises("ttl", cache.keepFresh, cache, "k", 1, fn, { ttl = -1 })
    raises("every", cache.keepFresh, cache, "k", 1, fn, { every = 1 })
    assert.is_nil(bed.redis:call("GET", "app:k"))
end)

return cases
