-- lock - named locks in Redis: lock, tryLock, withLock.
--
-- What:   a handle per lock(); the core renews it, also while Lua is busy, and knows a local
--         deadline before which nobody else can own it.
-- Memory: a dropped handle gives its lock back in the garbage collector; release() does it now.
--         What runs while a lock is acquired or held runs protected: an error that nobody expected
--         (no memory, a hook that throws) gives the lock back at once.
-- Fences: max(last fence + 1, the server's clock in microseconds). The last one stands in Redis, in
--         "{name}<key of the lock>!:fence", for ten times the ttl and at least an hour after it:
--         some 110 bytes and the name. While it stands the server's clock may step back as far as
--         it likes; afterwards by as much as that life. Where it is lost (FLUSHALL, eviction, a
--         failover) the clock alone keeps fences growing.
-- Loss:   that somebody deletes, takes or shortens the lock's key is heard by a push: on a quiet
--         machine valid() and ttl() know within 20 ms, not before. A holder that renews renews a
--         shortened lock at once, and keeps it. Until the news comes two may hold the lock: that is
--         what the fence is for.
-- Not:    a lock of one Redis can be lost in a failover: it saves double work. Where double work
--         does harm, let the guarded resource refuse a fence lower than the highest it has seen.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_entry = require("redcache.core.entry")
local core_lock = require("redcache.core.lock")
local core_slot = require("redcache.core.slot")
local later = require("redcache.later")
local background = require("redcache.background")
local calls = require("redcache.calls")
local errors = require("redcache.errors")
local namespace = require("redcache.namespace")
local options = require("redcache.options")
local reentrant = later.module("redcache.reentrant") -- which stands on this module
local usage = require("redcache.usage")

local await, give = calls.await, core_slot.give
local HELD, LOST = constants.LOCK_HELD, constants.LOCK_LOST
local NOT_WAITED = constants.NOT_WAITED

local lock = {}
-- What lock_many.lua, semaphore.lua, reentrant.lua and read_write_lock.lua use; filled below.
local steps = {}

---@class redcache.Lock
---@field name string as given
---@field token string|nil 32 hex digits, new with every acquire; nil while not acquired
---@field fence number|nil grows with every grant of this lock; nil while not acquired. Exact as a
---number: microseconds of the server's clock, below 2^53 until the year 2255. tostring, `..` and
---most JSON encoders round it: where it becomes text, use fenceText()
local Lock = {}
Lock.__index = Lock

---The fence's decimal digits, for a system that is handed text or JSON.
---@return string|nil digits nil while not acquired
function Lock:fenceText()
    return self.fence and string.format("%.0f", self.fence)
end

-- A slot with the lock's own timeout and tag, or nil and the error.
local function take_slot(self, action)
    return calls.take(self._client, self._settings, action, self.name)
end

-- Ends a call: gives the slot back, and tells what failed.
local function finish(self, slot, status, action)
    local err
    if status == NOT_WAITED and action == "unlock" then
        status = 0 -- it is on its way
    end
    if status == constants.LOST then
        err = errors.new("lockLost", action, self.name, "it is no longer held by this handle")
    elseif status ~= 0 then
        err = core_slot.failure(slot, status, action, self.name)
    end
    give(slot) -- last: what throws before it leaves the slot to abandon()
    return err
end

-- Tells the loss to the user's function, once per acquire.
local function signal_loss(self)
    if not self._signalled then
        self._signalled = true
        local on_lost = self._settings.onLost
        if on_lost then
            background.unwatch(self._client, self._watch)
            on_lost(self)
        end
    end
end

-- What looks for the loss of a lock with onLost, from when it is acquired until it is released: so
-- that the user's function runs where nobody asks, too.
---@class redcache.LockWatch: redcache.Watch
local Watch = {}
Watch.__index = Watch

function Watch:is_due()
    local lock_of = self.lock
    return not lock_of._signalled and lock_of._handle ~= nil
        and core_lock.state(lock_of._handle) == LOST
end

function Watch:run()
    if self:is_due() then
        signal_loss(self.lock)
    end
end

local function watch(self)
    if self._settings.onLost then
        self._watch = self._watch or setmetatable({ lock = self }, Watch)
        background.watch(self._client, self._watch)
    end
end

local function unwatch(self)
    if self._watch then
        background.unwatch(self._client, self._watch)
    end
end

-- The light thread that acquires or holds is gone: gives the lock back, and waits for nothing.
local function drop(handle)
    handle = handle._hold or handle -- reentrant: all acquires were of that thread
    local slot = core_slot.take(handle._client)
    if slot == nil then
        return
    elseif core_lock.release(handle._handle, slot) == 0 then
        slot.keeps = handle -- a handle that is collected cancels what runs for it
        handle._cache._scheduler.detach(slot)
    else
        give(slot)
    end
end

-- Something has thrown while the lock was acquired or held: it is given back at once.
local function abandon(self, slot)
    if self._hold then
        self = self:_leave_hold()
        if self == nil then
            return
        end
    end
    local handle, client, scheduler = self._handle, self._client, self._cache._scheduler
    self._handle, self.token, self.fence = nil, nil, nil
    unwatch(self)
    scheduler.unguard(client, self)
    if slot then
        core_slot.abandon(slot)
    end
    if handle then
        core_lock.free(handle)
    end
    if scheduler.tell then
        scheduler.tell(client)
    end
end

-- Starts acquiring, which goes on for `wait` seconds at most.
local function begin_acquire(self, slot, wait)
    local settings = self._settings
    local flags = bit.bor(settings.force and constants.FORCE or 0,
        settings.renew and 0 or constants.NO_RENEW)
    return core_lock.acquire(self._handle, slot, flags, settings.ttl, wait, settings.maxHold)
end

-- Ends acquiring: the error, or nil.
local function end_acquire(self, slot, status)
    if status == 0 then
        self.fence = not self._shared and core_entry.number(slot) or nil
        self.token = core_lock.token(self._handle)
        self._signalled = false
        watch(self)
    end
    return finish(self, slot, status, "lock")
end

local function attempt_acquire(self, slot, wait)
    local scheduler = self._cache._scheduler
    local status = begin_acquire(self, slot, wait)
    if status == 0 then
        scheduler.guard(self._client, self, drop)
        status = self._cache._wait(slot)
        scheduler.unguard(self._client, self)
    end
    return end_acquire(self, slot, status)
end

-- The error where this handle holds the lock already, or nil.
local function recursion(self)
    if self._handle ~= nil and core_lock.state(self._handle) == HELD then
        return errors.new("recursive", "lock", self.name, "this handle holds it already")
    end
end

-- Why the lock cannot be acquired now, or nil: it has a handle then.
local function obstacle(self)
    local closed = core_client.closed(self._client, "lock", self.name)
    if closed then
        return closed
    elseif not self._cache._scheduler.can_wait() then
        return core_slot.failure(nil, NOT_WAITED, "lock", self.name)
    elseif self._handle == nil then
        local handle, status
        if self._queued then
            handle, status = core_lock.new_queued(self._client, self._queued, self._shared)
        else
            handle, status = core_lock.new(self._client, self._key)
        end
        if handle == nil then
            return core_slot.failure(nil, status, "lock", self.name)
        end
        self._handle = handle
    end
    return recursion(self)
end

-- How long acquire() waits; a wrong one is an error at the line of the user.
local function wait_of(self, wait)
    if wait == nil then
        return self._settings.wait
    elseif type(wait) ~= "number" or not (wait >= 0 and wait <= 86400) then
        error("bad argument 'wait' to acquire: number from 0 to 86400 expected, got "
            .. tostring(wait), 3)
    end
    return wait
end

---Acquires the lock; waits for it as long as `wait` says.
---@param wait? number seconds from 0 (one try); nil: the lock's `wait`
---@return true|nil acquired
---@return redcache.Error|nil err notAcquired, recursive (this handle holds it already), timeout,
---cancelled, tooLarge, unavailable, overload, closed, redis, cannotWait
function Lock:acquire(wait)
    wait = wait_of(self, wait)
    local slot
    local err = obstacle(self)
    if err == nil then
        slot, err = take_slot(self, "lock")
    end
    if slot == nil then
        return nil, err
    end
    local ok
    ok, err = pcall(attempt_acquire, self, slot, wait)
    if not ok then
        abandon(self, slot)
        error(err, 0)
    end
    return not err or nil, err
end

local function attempt_release(self, slot)
    local status = await(self._cache, slot, core_lock.release(self._handle, slot))
    return finish(self, slot, status, "unlock")
end

---Gives the lock back. What was begun goes on behind a timeout or the end of the caller, for as
---long as the lock may live.
---@return true|nil released
---@return redcache.Error|nil err notHeld (never acquired, released, or lost), timeout, cancelled,
---unavailable, outcomeUnknown, closed, redis
function Lock:release()
    local closed = core_client.closed(self._client, "unlock", self.name)
    if closed then
        return nil, closed
    elseif self._handle == nil then
        return nil, errors.new("notHeld", "unlock", self.name, "it was not acquired")
    end
    local slot, err = take_slot(self, "unlock")
    if slot == nil then
        return nil, err
    end
    local ok
    ok, err = pcall(attempt_release, self, slot)
    if not ok then
        if not core_slot.is_done(slot) then -- goes on without its caller
            slot.keeps, self._handle = self._handle, nil -- freed, it would cancel what runs for it
            if slot.detached then
                give(slot)
            else
                core_slot.forget_wait(slot)
                self._cache._scheduler.detach(slot)
            end
            slot = nil
        end
        abandon(self, slot)
        error(err, 0)
    elseif err then
        return nil, err
    end
    self.token, self.fence = nil, nil
    unwatch(self)
    return true
end

---Gives the lock a new life from now on; renewal goes on with it.
---@param ttl number seconds from 0.1 to 86400
---@return true|nil extended
---@return redcache.Error|nil err badTtl, notHeld, lockLost, timeout, cancelled, unavailable,
---outcomeUnknown, closed, redis
function Lock:extend(ttl)
    if type(ttl) ~= "number" or not (ttl >= 0.1 and ttl <= 86400) then
        return nil, errors.new("badTtl", "extend", self.name,
            "ttl must be a number of seconds from 0.1 to 86400")
    end
    local closed = core_client.closed(self._client, "extend", self.name)
    if closed then
        return nil, closed
    elseif self._handle == nil then
        return nil, errors.new("notHeld", "extend", self.name, "it was not acquired")
    end
    local slot, err = take_slot(self, "extend")
    if slot == nil then
        return nil, err
    end
    local status = await(self._cache, slot, core_lock.extend(self._handle, slot, ttl))
    err = finish(self, slot, status, "extend")
    return not err or nil, err
end

---Whether the lock is surely still ours, by the local deadline; no round trip.
---@return boolean
function Lock:valid()
    local state = self._handle and core_lock.state(self._handle)
    if state == LOST then
        signal_loss(self)
    end
    return state == HELD
end

---Whether Redis says that this handle holds the lock; one round trip.
---@return boolean|nil held
---@return redcache.Error|nil err timeout, cancelled, unavailable, overload, closed, redis
function Lock:held()
    local closed = core_client.closed(self._client, "ask for lock", self.name)
    if closed then
        return nil, closed
    elseif self.token == nil then
        return false
    end
    local slot, err = take_slot(self, "ask for lock")
    if slot == nil then
        return nil, err
    end
    local status = await(self._cache, slot,
        core_entry.get(slot, "", self._key, 0))
    local held = status == 0 and slot.result.outcome == constants.HIT
        and select(4, core_entry.read(slot)) == self.token
    err = finish(self, slot, status, "ask for lock")
    if err then
        return nil, err
    end
    return held
end

---Whether the lock was acquired and then lost; no round trip. The first to notice a loss, here, in
---valid() or in the background, runs the option `onLost`.
---@return boolean
function Lock:lost()
    if self._handle ~= nil and core_lock.state(self._handle) == LOST then
        signal_loss(self)
        return true
    end
    return false
end

---How long the lock may still be trusted without a renewal; no round trip.
---@return number seconds 0 while not held
function Lock:ttl()
    return self._handle and core_lock.remaining(self._handle) or 0
end

usage.guard("lock", Lock, "_client")

-- key: in Redis; nil: that of the lock of this name.
local function make(cache, name, settings, key)
    return setmetatable({
        name = name,
        _cache = cache,
        _client = cache._client,
        _key = key or namespace.lock_key(cache._prefix, name),
        _settings = settings,
        _signalled = false,
    }, Lock)
end

-- A handle that waits in a queue (core/engine/lock_queue.h). shared: the key of this hold, where
-- others that share may hold the lock, too; nil: it is alone.
local function make_queued(cache, name, settings, key, shared)
    local self = make(cache, name, settings, shared or key)
    self._queued, self._shared = key, shared
    return self
end

-- A handle of a lock, whose holders are served by chance, or fairly: beside each other, too.
local function make_one(cache, name, settings)
    if settings.fair then
        return make_queued(cache, name, settings, namespace.lock_key(cache._prefix, name))
    end
    return make(cache, name, settings)
end

-- A handle as its options want it.
local function make_by(cache, name, settings)
    return (settings.reentrant and reentrant.make or make_one)(cache, name, settings)
end

-- The settings of one lock, or nil and the text of an argument error.
local function lock_settings(cache, name, opts, method)
    if type(name) ~= "string" then
        return nil, errors.argument("name", method, "string", name)
    end
    local settings, message = options.complete(opts, "lock", method)
    if settings then
        settings.ttl = settings.ttl or cache._settings.lockTtl
        settings.wait = settings.wait or cache._settings.lockWait
        if settings.fair and settings.force then
            return nil, ("bad option 'force' to %s: a fair lock is not taken from its holder")
                :format(method)
        end
    end
    return settings, message
end

---A handle for the lock `<namespace>//lock:{name}`; not acquired yet.
---@param name string
---@param opts? table ttl (life without renewal, default lockTtl), wait (default lockWait), maxHold
---(renewal ends after it; 0 never), force (take it from its holder), renew (true), reentrant (the
---coroutine that holds it may acquire it again: false), fair (who waits is served in the order of
---coming: false), onLost
---(function called with the lock when it was lost, once: by valid(), lost() or the background),
---timeout (so long Redis may be silent; `wait` is for the holder), cancelTag
---@return redcache.Lock
function lock.lock(self, name, opts)
    local settings, message = lock_settings(self, name, opts, "lock")
    if settings == nil then
        error(message, 2)
    end
    return make_by(self, name, settings)
end

---One try to acquire a lock.
---@param name string
---@param opts? table as lock; `wait` is 0
---@return redcache.Lock|nil lock acquired
---@return redcache.Error|nil err as Lock:acquire
function lock.tryLock(self, name, opts)
    local settings, message = lock_settings(self, name, opts, "tryLock")
    if settings == nil then
        error(message, 2)
    end
    local handle = make_by(self, name, settings)
    local ok, err = handle:acquire(0)
    if not ok then
        return nil, err
    end
    return handle
end

local function trace(cause)
    -- Only a text can take the traceback along; an error object is handed on as it is.
    return type(cause) == "string" and debug.traceback(cause, 2) or cause
end

-- Ends withLock after fn has returned or thrown.
local function conclude(handle, ok, ...)
    handle._cache._scheduler.unguard(handle._client, handle)
    local valid = handle:valid()
    local released, err = handle:release()
    if not ok then
        error((...), 0)
    elseif not valid or (not released and (err.code == "notHeld" or err.code == "lockLost")) then
        return nil, errors.new("lockLost", "keep lock", handle.name,
            "it was lost before the function ended")
    end
    -- A release that did not come through harms nobody: the lock ends with its ttl.
    return ...
end

-- Runs fn(shown) while the lock is held.
local function run_held(handle, fn, shown)
    handle._cache._scheduler.guard(handle._client, handle, drop)
    return conclude(handle, xpcall(fn, trace, shown))
end

local function run_locked(handle, fn)
    local ok, err = handle:acquire()
    if not ok then
        return nil, err
    end
    return run_held(handle, fn, handle)
end

-- No way out of withLock leaves the lock behind.
local function leave(handle, ok, ...)
    if not ok then
        abandon(handle)
        error((...), 0)
    end
    return ...
end

steps.make, steps.make_queued, steps.settings = make, make_queued, lock_settings
steps.make_one = make_one
steps.take_slot, steps.finish = take_slot, finish
steps.drop, steps.abandon, steps.obstacle, steps.watch = drop, abandon, obstacle, watch
steps.begin_acquire, steps.end_acquire = begin_acquire, end_acquire
steps.wait_of, steps.recursion = wait_of, recursion

---Runs fn(handle) while holding the lock, which it acquires and gives back.
function steps.with(handle, fn)
    return leave(handle, pcall(run_locked, handle, fn))
end

---Runs fn(shown) while the lock is held, and gives it back.
function steps.run(handle, fn, shown)
    return leave(handle, pcall(run_held, handle, fn, shown))
end

---The steps of a lock's calls, for those that hold many (lock_many.lua, semaphore.lua), one many
---times (reentrant.lua), or together (read_write_lock.lua).
lock.steps = steps

---Runs `fn(lock)` while holding the lock, and releases it however fn ends. What fn throws is thrown
---on after the release, a text with its traceback.
---@param name string
---@param opts? table as lock
---@param fn fun(lock: redcache.Lock): ...
---@return any ... what fn returns; or nil, err: as Lock:acquire, or lockLost where the lock was
---gone when fn ended, even if fn succeeded: somebody else may have worked at the same time
function lock.withLock(self, name, opts, fn)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "withLock", "function", fn), 2)
    end
    local settings, message = lock_settings(self, name, opts, "withLock")
    if settings == nil then
        error(message, 2)
    end
    local handle = make_by(self, name, settings)
    return steps.with(handle, fn)
end

return lock
