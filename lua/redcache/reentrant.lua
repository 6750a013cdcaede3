-- reentrant - a lock that its owner may acquire again: lock(name, { reentrant = true }).
--
-- What:   the owner is the coroutine (in nginx the light thread) that acquires, or the main program
--         outside of all. Each handle that an owner has of one lock stands on the same hold, a lock
--         of lock.lua, and counts for itself; the hold ends with the last release of the last one.
-- Memory: an owner's holds are found by weak references: a hold lives as long as a handle on it,
--         and is given back when the last one is collected.
-- Not:    nothing of this is known to Redis: another process, client or Lua state is another owner,
--         and so is a coroutine that the owner has begun.

local core_client = require("redcache.core.client")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local running = require("redcache.running")
local usage = require("redcache.usage")

local steps = lock.steps

local MAIN = {} -- the owner outside of all coroutines

-- By client, owner and key: the hold.
local owners = setmetatable({}, { __mode = "k" })

local function holds_of(client)
    local by_owner = owners[client]
    if by_owner == nil then
        by_owner = setmetatable({}, { __mode = "k" })
        owners[client] = by_owner
    end
    local owner = running() or MAIN
    local holds = by_owner[owner]
    if holds == nil then
        holds = setmetatable({}, { __mode = "v" })
        by_owner[owner] = holds
    end
    return holds
end

-- As redcache.Lock, for callers.
---@class redcache.ReentrantLock: redcache.Lock
---@field private _hold redcache.Lock shared with other handles of the same owner while it is held
---@field private _count integer how often this handle has acquired it
local Reentrant = {}
Reentrant.__index = Reentrant

-- A hold is lost for all of its handles.
local function tell_users(hold)
    local told = {}
    for user in pairs(hold._users) do
        if user._settings.onLost then
            told[#told + 1] = user
        end
    end
    for _, user in ipairs(told) do
        user._settings.onLost(user)
    end
end

-- A hold of its own, which nobody has acquired.
local function new_hold(self)
    local settings = {}
    for name, value in pairs(self._settings) do
        settings[name] = value
    end
    settings.onLost = nil
    local hold = steps.make_one(self._cache, self.name, settings)
    hold._users = setmetatable({}, { __mode = "k" })
    return hold
end

local function make(cache, name, settings)
    local self = setmetatable({
        name = name, _cache = cache, _client = cache._client, _settings = settings, _count = 0,
    }, Reentrant)
    self._hold = new_hold(self)
    self._key = self._hold._key
    return self
end

local function has_others(self)
    for user in pairs(self._hold._users) do
        if user ~= self then
            return true
        end
    end
    return false
end

-- Counts the first acquire of this handle.
local function enter(self, hold)
    self._hold, self._count = hold, 1
    self.token, self.fence = hold.token, hold.fence
    hold._users[self] = true
    if self._settings.onLost and not hold._settings.onLost then
        hold._settings.onLost = tell_users
        steps.watch(hold)
    end
end

-- This handle counts no longer.
local function quit(self)
    self._hold._users[self] = nil
    self._count, self.token, self.fence = 0, nil, nil
    if has_others(self) then
        self._hold = new_hold(self)
    end
end

---Acquires the lock; at once where the running coroutine has it already.
---@param wait? number seconds from 0 (one try); nil: the lock's `wait`
---@return true|nil acquired
---@return redcache.Error|nil err as Lock:acquire; recursive: another coroutine has acquired it by
---this very handle
function Reentrant:acquire(wait)
    wait = steps.wait_of(self, wait)
    local closed = core_client.closed(self._client, "lock", self.name)
    if closed then
        return nil, closed
    end
    local holds = holds_of(self._client)
    local hold = holds[self._key]
    local is_ours = hold ~= nil and hold:valid()
    if self._count > 0 and self._hold:valid() then
        if not is_ours or hold ~= self._hold then
            return nil, errors.new("recursive", "lock", self.name,
                "another coroutine has acquired it by this handle")
        end
        self._count = self._count + 1
        return true
    elseif is_ours then
        enter(self, hold)
        return true
    elseif self._count > 0 then
        quit(self) -- it was lost
    end
    hold = self._hold
    local ok, err = hold:acquire(wait)
    if not ok then
        return nil, err
    end
    holds[self._key] = hold
    enter(self, hold)
    return true
end

---Takes one acquire of this handle back; the last of all that the owner has done gives the lock
---back. Any coroutine may call it.
---@return true|nil released
---@return redcache.Error|nil err as Lock:release
function Reentrant:release()
    local hold = self._hold
    local is_last = self._count <= 1 and not has_others(self)
    if not is_last and self._count > 0 and hold:valid() then
        if self._count > 1 then
            self._count = self._count - 1
        else
            quit(self)
        end
        return true
    end
    local ok, err = hold:release()
    if ok or err.code == "notHeld" then
        quit(self)
    end
    return ok, err
end

-- Something has thrown while this handle held it. Returns the hold where nobody else is on it.
function Reentrant:_leave_hold()
    local hold = self._hold
    local is_last = self._count > 0 and not has_others(self)
    quit(self)
    return is_last and hold or nil
end

-- What a lock says of itself, its hold says.
for _, method in ipairs({ "extend", "valid", "held", "lost", "ttl", "fenceText" }) do
    Reentrant[method] = function(self, argument)
        return self._hold[method](self._hold, argument)
    end
end

usage.guard("lock", Reentrant, "_client")

return { make = make }
