-- semaphore - at most n holders at once: semaphore, withSemaphore.
--
-- What:   n permits, each a lock of its own (lock.lua): so a permit is renewed by the core, ends
--         with a holder that dies, has a token and a fence, and is in the hands of one holder.
--         acquire() tries one by chance, then those that stand free, and waits for one by chance,
--         PATIENCE at a time: a permit that is given back wakes those who wait for it, the others
--         look again when their time is over.
-- Memory: at most n handles of locks per semaphore; one that is collected gives its permit back.
-- Not:    no queue: who waits longest is not served first. n is what a caller says: all have to
--         say the same.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_random = require("redcache.core.random")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local namespace = require("redcache.namespace")
local usage = require("redcache.usage")

local steps = lock.steps

local semaphore = {}

local MOST = 1000
-- Seconds that a caller waits for one permit before it looks at the others: long against a round
-- trip, short against what people notice.
local PATIENCE = 0.1

---@class redcache.Semaphore
---@field name string as given
---@field permit integer|nil which of the n permits is held, from 1; nil while not acquired
---@field token string|nil 32 hex digits, new with every acquire; nil while not acquired
---@field fence number|nil grows with every grant of this permit; nil while not acquired
local Semaphore = {}
Semaphore.__index = Semaphore

-- A whole number from 1 to count: another in each process.
local function random(count)
    return math.ceil(core_random.dice() * count)
end

-- The lock of a permit.
local function lock_of(self, permit)
    local one = self._locks[permit]
    if one == nil then
        one = steps.make(self._cache, self.name, self._settings,
            namespace.permit_key(self._cache._prefix, self.name, permit))
        self._locks[permit] = one
    end
    return one
end

-- The lock that is held, or was held last.
local function current(self)
    return lock_of(self, self._last)
end

-- Tries a permit for so many seconds: true | false, error
local function try(self, permit, wait)
    local one = lock_of(self, permit)
    local ok, err = one:acquire(wait)
    if ok then
        self.permit, self.token, self.fence = permit, one.token, one.fence
        self._last = permit
    end
    return ok, err
end

local function write_look(self, slot)
    local status = core_command.begin(slot, constants.RETRY)
    for permit = 1, self.count do
        local key = namespace.permit_key(self._cache._prefix, self.name, permit)
        status = status == 0 and core_command.command(slot, 2) or status
        status = status == 0 and core_command.argument(slot, "EXISTS") or status
        status = status == 0 and core_command.argument_under(slot, "", key, 0) or status
    end
    return calls.send(self._cache, slot, status)
end

-- The permits that nobody holds, in an order of chance: one write for all. list | nil, err
local function look(self)
    local slot, err = steps.take_slot(current(self), "lock")
    if slot == nil then
        return nil, err
    end
    local status = write_look(self, slot)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "lock", self.name)
    end
    local nodes, free = core_command.nodes(slot), {}
    for permit = 1, self.count do
        local node = nodes[permit - 1]
        if core_command.is_error(node) then
            err = core_command.node_failure(node, "lock", self.name)
            core_slot.give(slot)
            return nil, err
        elseif node.integer == 0 then
            table.insert(free, random(#free + 1), permit)
        end
    end
    core_slot.give(slot)
    return free
end

-- One round over the permits, without waiting: true | false, error of the last
local function try_all(self)
    local ok, err = try(self, random(self.count), 0)
    if ok or err.code ~= "notAcquired" or self.count == 1 then
        return ok, err
    end
    local free, failure = look(self)
    if free == nil then
        return nil, failure
    end
    for _, permit in ipairs(free) do
        ok, err = try(self, permit, 0)
        if ok or err.code ~= "notAcquired" then
            return ok, err
        end
    end
    return nil, err
end

---Acquires a permit; waits for one as long as `wait` says.
---@param wait? number seconds from 0 (no waiting); nil: the semaphore's `wait`
---@return true|nil acquired
---@return redcache.Error|nil err as Lock:acquire
function Semaphore:acquire(wait)
    wait = steps.wait_of(self, wait)
    local err = steps.recursion(current(self))
    if err then
        return nil, err
    end
    local client = self._client
    local deadline = core_clock.now(client) + wait
    while true do
        local ok
        ok, err = try_all(self)
        local left = deadline - core_clock.now(client)
        if not ok and err.code == "notAcquired" and left > 0 then
            ok, err = try(self, random(self.count), math.min(left, PATIENCE))
            left = deadline - core_clock.now(client)
        end
        if ok or err.code ~= "notAcquired" or left <= 0 then
            return ok, err
        end
    end
end

local function forget(self)
    self.permit, self.token, self.fence = nil, nil, nil
end

---Gives the permit back.
---@return true|nil released
---@return redcache.Error|nil err as Lock:release
function Semaphore:release()
    local ok, err = current(self):release()
    if ok then
        forget(self)
    end
    return ok, err
end

---Gives the permit a new life from now on; renewal goes on with it.
---@param ttl number seconds from 0.1 to 86400
---@return true|nil extended
---@return redcache.Error|nil err as Lock:extend
function Semaphore:extend(ttl)
    local ok, err = current(self):extend(ttl)
    return ok, err
end

---Whether the permit is surely still ours, by the local deadline; no round trip.
---@return boolean
function Semaphore:valid()
    return current(self):valid()
end

---Whether Redis says that this handle holds its permit; one round trip.
---@return boolean|nil held
---@return redcache.Error|nil err as Lock:held
function Semaphore:held()
    local held, err = current(self):held()
    return held, err
end

---Whether a permit was acquired and then lost; no round trip.
---@return boolean
function Semaphore:lost()
    return current(self):lost()
end

---How long the permit may still be trusted without a renewal; no round trip.
---@return number seconds 0 while not held
function Semaphore:ttl()
    return current(self):ttl()
end

---The fence's decimal digits, for a system that is handed text or JSON.
---@return string|nil digits nil while not acquired
function Semaphore:fenceText()
    return self.fence and current(self):fenceText()
end

usage.guard("semaphore", Semaphore, "_client")

-- A handle, at the line of the user.
local function make(cache, name, count, opts, method)
    if type(name) == "string" and (type(count) ~= "number" or count % 1 ~= 0
        or not (count >= 1 and count <= MOST)) then
        error(("bad argument 'n' to %s: whole number from 1 to %d expected, got %s"):format(method,
            MOST, type(count) == "number" and ("%.14g"):format(count) or type(count)), 3)
    end
    local settings, message = steps.settings(cache, name, opts, method)
    if settings and settings.force then
        message = ("bad option 'force' to %s: there is no one holder to take it from")
            :format(method)
    elseif settings and (settings.reentrant or settings.fair) then
        message = ("bad option '%s' to %s: it is of single locks")
            :format(settings.reentrant and "reentrant" or "fair", method)
    end
    if message then
        error(message, 3)
    end
    local self = setmetatable({ name = name, count = count, _cache = cache,
        _client = cache._client, _settings = settings, _locks = {}, _last = 1 }, Semaphore)
    local on_lost = settings.onLost
    if on_lost then
        settings.onLost = function() on_lost(self) end
    end
    return self
end

---A handle for one of the n permits of a semaphore; not acquired yet.
---@param name string
---@param n integer 1 to 1000: how many may hold one at once; the same for all callers
---@param opts? table as Cache:lock, but for `force`
---@return redcache.Semaphore
function semaphore.semaphore(self, name, n, opts)
    local handle = make(self, name, n, opts, "semaphore")
    return handle
end

local function conclude(handle, ...)
    forget(handle)
    return ...
end

---Runs `fn(semaphore)` while holding a permit, and gives it back however fn ends; as withLock.
---@param name string
---@param n integer as semaphore
---@param opts? table as semaphore
---@param fn fun(semaphore: redcache.Semaphore): ...
---@return any ... what fn returns; or nil, err: as Cache:withLock
function semaphore.withSemaphore(self, name, n, opts, fn)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "withSemaphore", "function", fn), 2)
    end
    local handle = make(self, name, n, opts, "withSemaphore")
    local ok, err = handle:acquire()
    if not ok then
        return nil, err
    end
    return conclude(handle, steps.run(current(handle), fn, handle))
end

return semaphore
