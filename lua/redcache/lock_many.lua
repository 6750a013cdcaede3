-- lock_many - several locks at once: all of them, or none.
--
-- What:   lockMulti asks for all locks in one write. Where one is held by somebody else, the caller
--         gives back those whose names come behind it, and waits for that one. So a caller that
--         waits holds only locks whose names come before the one it waits for, and callers whose
--         names overlap, in whatever order, never wait for each other in a circle.
-- Memory: each lock has a handle of its own (lock.lua), which gives it back when it is collected.
-- Not:    what one lock means, and how it is kept alive (lock.lua, core).

local background = require("redcache.background")
local calls = require("redcache.calls")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_lock = require("redcache.core.lock")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local many = require("redcache.many")
local usage = require("redcache.usage")

local steps = lock.steps

local lock_many = {}

---@class redcache.Locks
---@field names string[] each once, in order
---@field private _locks redcache.Lock[] in that order
local Locks = {}
Locks.__index = Locks

-- Several locks at once ---------------------------------------------------------------------------

-- Does one thing with the locks of these indexes, in one write: begin(lock, slot) starts it,
-- finish(lock, slot, status) ends it and gives the slot back. The errors, by index.
local function each(self, list, action, begin, finish)
    local locks, slots, held, started, failed = self._locks, self._slots, {}, {}, {}
    for _, i in ipairs(list) do
        local one = locks[i]
        local slot, err = steps.take_slot(one, action)
        slots[i] = slot
        if slot == nil then
            failed[i] = err
        else
            core_slot.hold(slot)
            started[i] = begin(one, slot)
            core_slot.join_held(slot, held, started[i] == 0)
        end
    end
    core_slot.start_held(held)
    for _, i in ipairs(list) do
        local slot = slots[i]
        if slot then
            local status = calls.await(self._cache, slot, started[i])
            slots[i] = nil
            failed[i] = finish(locks[i], slot, status)
        end
    end
    return failed
end

local function end_release(one, slot, status)
    local err = steps.finish(one, slot, status, "unlock")
    if err == nil then
        one.token, one.fence = nil, nil
    end
    return err
end

local function begin_release(one, slot)
    return core_lock.release(one._handle, slot)
end

-- Gives the locks of these indexes back. The errors, by index.
local function release(self, list)
    return each(self, list, "unlock", begin_release, end_release)
end

-- The indexes from first on.
local function from(self, first)
    local list = {}
    for i = first, #self._locks do
        list[#list + 1] = i
    end
    return list
end

-- Gives those back that are held, from the index first on.
local function release_held(self, first)
    local list = {}
    for i = first, #self._locks do
        if self._locks[i].token then
            list[#list + 1] = i
        end
    end
    return release(self, list)
end

-- Acquiring ---------------------------------------------------------------------------------------

local function begin_try(one, slot)
    return steps.begin_acquire(one, slot, 0)
end

-- Tries the locks from the index first on, once. The first that somebody else holds, the first
-- other error, and that of the first.
local function try(self, first)
    local list = from(self, first)
    local failed = each(self, list, "lock", begin_try, steps.end_acquire)
    local busy, fatal, err
    for _, i in ipairs(list) do
        local one = failed[i]
        if one and one.code == "notAcquired" then
            busy, err = busy or i, err or one
        elseif one then
            fatal = fatal or one
        end
    end
    return busy, fatal, err
end

-- Acquires all, or gives the error of the lock that did not come.
local function acquire(self, wait)
    local client, locks = self._cache._client, self._locks
    local deadline, first = core_clock.deadline(client, wait), 1
    while first <= #locks do
        local busy, fatal, err = try(self, first)
        if fatal then
            return fatal
        elseif busy == nil then
            break
        end
        release_held(self, busy + 1)
        local left = wait > 0 and core_clock.left(client, deadline) or 0
        if left <= 0 or core_clock.now(client) >= deadline then
            return err
        end
        local ok
        ok, err = locks[busy]:acquire(left)
        if not ok then
            return err
        end
        first = busy + 1
    end
    for _, one in ipairs(locks) do
        if not one:valid() then -- without renewal it may have ended while others were waited for
            return errors.new("lockLost", "lock", one.name, "it ended while others were waited for")
        end
    end
end

-- The light thread that acquires is gone.
local function drop(self)
    for _, slot in pairs(self._slots) do
        core_slot.forget_wait(slot)
        core_slot.drop(slot)
    end
    for _, one in ipairs(self._locks) do
        if one._handle then
            steps.drop(one)
        end
    end
end

-- Something has thrown: nothing is held.
local function abandon(self)
    local locks = self._locks
    for i, one in ipairs(locks) do
        local slot = self._slots[i]
        self._slots[i] = nil
        steps.abandon(one, slot)
    end
end

-- Runs fn(self, argument); nothing is left behind where that throws, or its light thread ends.
local function guarded(self, fn, argument)
    local scheduler, client = self._cache._scheduler, self._cache._client
    local is_guarded = calls.guard(self._cache, self, drop)
    local ok, value = pcall(fn, self, argument)
    if is_guarded then
        scheduler.unguard(client, self)
    end
    if not ok then
        abandon(self)
        error(value, 0)
    end
    return value
end

-- The locks ---------------------------------------------------------------------------------------

-- The first to notice a loss tells the user's function.
local function signal_loss(self)
    if not self._signalled then
        self._signalled = true
        if self._on_lost then
            background.unwatch(self._cache._client, self._watch)
            self._on_lost(self)
        end
    end
end

-- As of one lock (lock.lua).
---@class redcache.LocksWatch: redcache.Watch
local Watch = {}
Watch.__index = Watch

function Watch:is_due()
    return not self.locks._signalled and self.locks:_lost() ~= nil
end

function Watch:run()
    self.locks:lost()
end

---Gives all locks back, in one write.
---@return true|nil released
---@return redcache.Error|nil err of the first that failed: as Lock:release
---@return table<string, redcache.Error>|nil failed by name
function Locks:release()
    local closed = core_client.closed(self._cache._client, "unlock", self.names[1])
    if closed then
        return nil, closed
    end
    if self._watch then
        background.unwatch(self._cache._client, self._watch)
    end
    return self:_report(guarded(self, release, from(self, 1)))
end

---Gives all locks a new life from now on, in one write.
---@param ttl number seconds from 0.1 to 86400
---@return true|nil extended
---@return redcache.Error|nil err of the first that failed: as Lock:extend
---@return table<string, redcache.Error>|nil failed by name
function Locks:extend(ttl)
    if type(ttl) ~= "number" or not (ttl >= 0.1 and ttl <= 86400) then
        return nil, errors.new("badTtl", "extend", self.names[1],
            "ttl must be a number of seconds from 0.1 to 86400")
    end
    local closed = core_client.closed(self._cache._client, "extend", self.names[1])
    if closed then
        return nil, closed
    end
    return self:_report(each(self, from(self, 1), "extend", function(one, slot)
        return core_lock.extend(one._handle, slot, ttl)
    end, function(one, slot, status)
        return steps.finish(one, slot, status, "extend")
    end))
end

-- What a call on all of them returns.
function Locks:_report(failed)
    local by_name, first = {}, nil
    for i, name in ipairs(self.names) do
        by_name[name] = failed[i]
        first = first or failed[i]
    end
    if first then
        return nil, first, by_name
    end
    return true
end

---Whether all locks are surely still ours; no round trip.
---@return boolean
function Locks:valid()
    local is_valid = true
    for _, one in ipairs(self._locks) do
        is_valid = one:valid() and is_valid
    end
    if not is_valid then
        self:lost()
    end
    return is_valid
end

-- The first that was lost.
function Locks:_lost()
    for _, one in ipairs(self._locks) do
        if one:lost() then
            return one
        end
    end
end

---Whether one of the locks was lost; no round trip. The first to notice a loss, here, in valid() or
---in the background, runs the option `onLost`.
---@return boolean
---@return string|nil name of the first that was lost
function Locks:lost()
    local one = self:_lost()
    if one then
        signal_loss(self)
        return true, one.name
    end
    return false
end

---How long all locks may still be trusted without a renewal; no round trip.
---@return number seconds 0 where one is not held
function Locks:ttl()
    local least = math.huge
    for _, one in ipairs(self._locks) do
        least = math.min(least, one:ttl())
    end
    return least
end

---The fence of each lock: a number that grows with every holder.
---@return table<string, integer> fences by name; empty once they are released
function Locks:fences()
    local fences = {}
    for _, one in ipairs(self._locks) do
        fences[one.name] = one.fence
    end
    return fences
end

usage.guard("locks", Locks, "_locks")

---Acquires several locks: all of them, or none. Callers whose names overlap never wait for each
---other in a circle. What is held already is renewed while others are waited for.
---@param names string[] at least one; doubles are one lock
---@param opts? table as lock; `wait` is for all of them together, onLost gets the locks
---@return redcache.Locks|nil locks held
---@return redcache.Error|nil err as Lock:acquire, of the lock that did not come (err.key); lockLost
---where one ended meanwhile (renew = false)
function lock_many.lockMulti(self, names, opts)
    local fault = many.list_fault(names, "lockMulti")
    if fault then
        error((string.gsub(fault, "'keys'", "'names'", 1)), 2)
    elseif #names == 0 then
        error("bad argument 'names' to lockMulti: at least one name expected", 2)
    end
    local settings, message = steps.settings(self, names[1], opts, "lockMulti")
    for _, option in ipairs({ "reentrant", "fair" }) do
        if settings and settings[option] then
            settings = nil
            message = ("bad option '%s' to lockMulti: it is of single locks"):format(option)
        end
    end
    if settings == nil then
        error(message, 2)
    end
    local locks = setmetatable({
        names = {}, _cache = self, _locks = {}, _slots = {}, _on_lost = settings.onLost,
        _signalled = false,
    }, Locks)
    settings.onLost = nil
    local seen = {}
    for _, name in ipairs(names) do
        if not seen[name] then
            seen[name] = true
            locks.names[#locks.names + 1] = name
        end
    end
    table.sort(locks.names)
    for i, name in ipairs(locks.names) do
        local one = steps.make(self, name, settings)
        local err = steps.obstacle(one)
        if err then
            return nil, err
        end
        locks._locks[i] = one
    end
    local err = guarded(locks, acquire, settings.wait)
    if err then
        guarded(locks, release_held, 1)
        return nil, err
    end
    if locks._on_lost then
        locks._watch = setmetatable({ locks = locks }, Watch)
        background.watch(self._client, locks._watch)
    end
    return locks
end

return lock_many
