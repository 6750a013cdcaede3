-- Cases (spec/support/api_cases.lua): onInvalidate, whoever runs what is told.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises = group.raises

-- A cache whose changes are counted by "cause key"; heard(what) waits until that was told.
local function listen(bed, options)
    options = options or {}
    options.near, options.maxStale = true, 60 -- a server that is late is no gap
    local cache, told = bed.open(options), {}
    local listener = assert(cache:onInvalidate(function(key, cause)
        local name = cause .. " " .. tostring(key)
        told[name] = (told[name] or 0) + 1
    end))
    local function heard(name)
        bed.wait_until(function()
            cache:exists("nothing") -- a caller in plain Lua comes by
            return told[name] ~= nil
        end, 5, "'" .. name .. "'")
        told[name] = nil
    end
    -- What stands there now was read, and is near.
    local function read(key)
        bed.wait_until(function()
            cache:get(key)
            return ({ near = 1, l0 = 1 })[select(3, cache:get(key))]
        end, 2, "a near hit")
    end
    return cache, heard, read, told, listener
end

case("onInvalidate hears of what was read, whoever changes it, and how", function(bed)
    local cache, heard, read, told = listen(bed, { grace = 60 })
    assert(cache:set("k", 1, 60) and cache:set("other", 1, 60))
    heard("write k")
    heard("write other")
    read("k")
    bed.redis:call("SET", "app:unread", "x")
    bed.redis:call("SET", "app:k", "x")
    heard("push k")
    assert(cache:set("k", 1, 60))
    heard("write k")
    read("k")
    assert(cache:delete("k", { soft = true }))
    heard("write k")
    read("other")
    assert(bed.other():delete("other"))
    heard("push other")
    assert.is_nil(told["push unread"])
    assert.is_nil(told["gap nil"])
end)

case("onInvalidate hears of its own namespace alone", function(bed)
    local cache, heard, read, told = listen(bed)
    local below, besides = cache:namespace("below"), {}
    assert(below:onInvalidate(function(key) besides[#besides + 1] = key end))
    assert(cache:set("k", 1, 60))
    heard("write k")
    read("k")
    assert(below:set("l", 1, 60) and below:get("l"))
    bed.redis:call("DEL", "app/below:l")
    bed.redis:call("DEL", "app:k")
    heard("push k")
    bed.wait_until(function()
        cache:exists("nothing")
        return besides[1] == "l"
    end, 5, "what is below")
    for name in pairs(told) do assert.is_nil(name:find(" l", 1, true), name) end
end)

case("onInvalidate is told of a flush, for which there is no key", function(bed)
    local cache, heard, read = listen(bed)
    assert(cache:set("k", 1, 60))
    read("k")
    bed.redis:call("FLUSHALL")
    heard("flush nil")
    assert.is_nil((cache:get("k")))
end)

case("what onInvalidate was given may read what is there now", function(bed)
    local cache, seen = bed.open({ near = true }), {}
    assert(cache:onInvalidate(function(key, cause)
        if key == "k" and cause == "write" then seen[#seen + 1] = cache:get(key) end
    end))
    for i = 1, 3 do
        assert(cache:set("k", i, 60) and cache:get("k") == i)
        bed.wait_until(function()
            cache:exists("nothing")
            return seen[#seen] == i
        end, 5, "that it is told")
    end
end)

case("a listener that is closed hears nothing more", function(bed)
    local cache, heard, _, told, listener = listen(bed)
    assert(cache:set("k", 1, 60))
    heard("write k")
    assert.is_true(listener:close())
    assert.is_true(listener:close())
    assert(cache:set("k", 1, 60) and cache:get("k") and cache:work(0))
    bed.pause(0.02)
    cache:exists("nothing")
    assert.same({}, told)
end)

case("onInvalidate refuses what it cannot call, and a cache that keeps nothing near", function(bed)
    local cache = bed.open({ near = true })
    for _, bad in ipairs({ 1, "f", {}, false }) do
        raises("bad argument 'fn' to onInvalidate: function expected", cache.onInvalidate, cache,
            bad)
    end
    raises("keeps nothing near", bed.cache.onInvalidate, bed.cache, print)
    raises("keeps nothing near", function()
        cache:namespace("n", { near = false }):onInvalidate(print)
    end)
end)

return cases
