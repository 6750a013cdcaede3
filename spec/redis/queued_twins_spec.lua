-- The scripts of locks with a queue: on memory:// they do what they do in Redis.

local redcache = require("redcache")
local server = require("spec.support.server")

local caches

before_each(function() caches = {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

-- Eight handles of two clients, what they are asked to do, and what they answer.
local function handles_of(url)
    local handles = {}
    for group = 1, 2 do
        local cache = redcache.new({ url = url, namespace = "app", near = false,
            group = "client " .. group })
        caches[#caches + 1] = cache
        local doc = cache:readWriteLock("doc")
        for _, side in ipairs({ "read", "read", "read", "write" }) do
            handles[#handles + 1] = doc[side](doc, { ttl = 60 })
        end
    end
    return handles
end

local function answer(handle, what)
    local ok, err
    if what <= 4 then
        ok, err = handle:acquire(0)
    elseif what == 5 then
        ok, err = handle:acquire(0.02)
    elseif what == 6 then
        ok, err = handle:extend(30)
    elseif what == 7 then
        ok, err = handle:held()
    else
        ok, err = handle:release()
    end
    return tostring(ok) .. " " .. tostring(err and err.code) .. " " .. tostring(handle:valid())
        .. " " .. tostring(handle.fence ~= nil)
end

describe("locks with a queue", function()
    it("are in memory what they are in Redis, whatever the calls", function()
        local redis = server.start()
        finally(function() redis:stop() end)
        local real, ours = handles_of(redis:url()), handles_of("memory://lock-twins")
        local granted, random = 0, 7
        local function roll(count)
            random = (random * 16807) % 2147483647
            return random % count + 1
        end
        for step = 1, 600 do
            local handle, what = roll(8), roll(12)
            local expected = answer(real[handle], what)
            assert.equal(expected, answer(ours[handle], what), "step " .. step)
            if what <= 5 and expected:find("^true") then granted = granted + 1 end
        end
        assert.is_true(granted > 100, granted)
    end)
end)
