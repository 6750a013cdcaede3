-- keep_fresh - a value that one process of the fleet loads again, every so often.
--
-- What:   the process that gets the lock of the key is its owner, and puts the value every `every`
--         seconds; the others ask for the lock again RETRY seconds after they were refused it. Each
--         step is a job in the background (background.lua), which looks whether one is due.
-- Memory: a keeper is its client's until it is stopped, or the client is closed.
-- Errors: what fails is counted, thrown into the background's report (nginx logs it), and tried
--         again, with growing pauses of at most `every`.
-- Not:    no fence: of two owners, where a lock was lost, put's write lease lets one store at a
--         time. No timer in plain Lua: there the callers look whether a step is due.

local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local background = require("redcache.background")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local options = require("redcache.options")
local put = require("redcache.put")
local usage = require("redcache.usage")

local now = core_clock.now
local ngx = rawget(_G, "ngx")

-- How long one that is not the owner waits before it asks again: a hand-over takes so long.
local RETRY = 0.25
-- The pause behind the first failure; twice as long each time.
local FIRST_PAUSE = 0.1

local keep_fresh = {}

---@class redcache.Keeper
local Keeper = {}
Keeper.__index = Keeper

-- What background.lua watches.
---@class redcache.KeeperWatch: redcache.Watch
local Watch = {}
Watch.__index = Watch

-- A worker of nginx that is to exit hands over at once.
local function has_to_leave(self)
    return ngx and ngx.worker.exiting() and self.is_owner
end

function Watch:is_due()
    if self.is_stopped then
        return false
    end
    local at = now(self.client)
    background.look_again(self, at)
    return not self.is_running and (at >= self.due or has_to_leave(self)) or false
end

-- The next try behind something that has failed.
local function fail(self, err)
    self.failures = self.failures + 1
    self.failed = self.failed + 1
    local pause = math.min(FIRST_PAUSE * 2 ^ math.min(self.failures - 1, 20), self.every)
    self.due = now(self.client) + pause
    error(err, 0)
end

-- Whether we are the owner now.
local function own(self)
    if self.lock:valid() then
        return true
    elseif self.is_owner then
        self.is_owner, self.lost = false, self.lost + 1
    end
    local ok, err = self.lock:acquire(0)
    if ok then
        self.is_owner, self.acquired = true, self.acquired + 1
        return true
    elseif err.code ~= "notAcquired" then
        fail(self, err)
    end
    self.failures, self.due = 0, now(self.client) + math.min(RETRY, self.every)
    return false
end

local function step(self)
    if self.is_stopped or not own(self) or self.is_stopped then
        return
    end
    local begun = now(self.client)
    local value, err = put.put(self.cache, self.key, self.ttl, self.fn, self.put_options)
    if value == nil and err then
        fail(self, err)
    end
    self.runs, self.failures = self.runs + 1, 0
    self.due = math.max(begun + self.every, now(self.client))
end

-- Gives the lock back, if it is held.
local function give_up(self)
    if self.is_owner then
        self.is_owner = false
        if self.client.handle ~= nil then
            return self.lock:release()
        end
    end
    return true
end

function Watch:run()
    if has_to_leave(self) then
        self.is_stopped = true
        give_up(self)
        return
    elseif self.is_stopped or self.is_running then
        return
    end
    self.is_running = true
    local ok, err = pcall(step, self)
    self.is_running = false
    if self.is_stopped then
        give_up(self)
    end
    if not ok then
        error(err, 0)
    end
end

---Ends it: fn is not begun any more, and the next process that asks owns the key, within a quarter
---of a second. Where fn runs now, in another coroutine, the key is handed over when it has ended.
---Twice is harmless.
---@return true|nil stopped
---@return redcache.Error|nil err timeout, unavailable, outcomeUnknown, redis: fn is not begun any
---more, but the next owner has to wait until the lock ends
function Keeper:stop()
    local watch = self._watch
    local client = watch.client
    watch.is_stopped = true
    if client.keepers then
        client.keepers[watch] = nil
    end
    background.unwatch(client, watch)
    if watch.is_running then
        return true
    end
    local ok, err = give_up(watch)
    if ok or err.code == "notHeld" or err.code == "lockLost" or err.code == "closed" then
        return true
    end
    return nil, err
end

---What has become of it, in this process.
---@return table figures owner (boolean: this process owns the key, as far as it knows), runs (which
---have stored a value), failed (runs of fn that stored nothing, and asking for the lock), acquired,
---lost (how often the key was)
function Keeper:stats()
    local watch = self._watch
    return {
        owner = watch.is_owner and watch.lock:valid(), runs = watch.runs, failed = watch.failed,
        acquired = watch.acquired, lost = watch.lost,
    }
end

usage.guard("keeper", Keeper, "_watch")

---The client is about to be closed: hands over what is owned here. Where a run goes on, it does so
---when that has ended.
---@param client redcache.Client
---@param timeout number seconds for each of them
function keep_fresh.close(client, timeout)
    local keepers = client.keepers
    client.keepers = nil
    for watch in pairs(client.handle ~= nil and keepers or {}) do
        watch.is_stopped = true
        background.unwatch(client, watch)
        watch.lock._settings.timeout = math.max(math.min(timeout, 60), 0.001)
        if not watch.is_running and not give_up(watch) then
            lock.steps.abandon(watch.lock)
        end
    end
end

-- The argument error, or nil.
local function fault(key, every, fn)
    if type(key) ~= "string" then
        return errors.argument("key", "keepFresh", "string", key)
    elseif type(every) ~= "number" or not (every >= 0.1 and every <= 86400) then
        return "bad argument 'every' to keepFresh: number from 0.1 to 86400 expected, got "
            .. tostring(every)
    elseif type(fn) ~= "function" then
        return errors.argument("fn", "keepFresh", "function", fn)
    end
end

---Keeps a value fresh: of all processes that ask for the same, one at a time is the owner of the
---key and runs fn(key, ctx) every `every` seconds, as put does. Where the owner is killed another
---one begins within lockTtl, where it stops or closes within a quarter of a second. See
---docs/api/keep_fresh.md.
---@param key string
---@param every number seconds from 0.1 to 86400, from the beginning of one run to that of the next
---@param fn fun(key: string, ctx: redcache.Context): any, any, any as that of put
---@param opts? table ttl (of the value; default three times `every` and lockTtl), lockTtl (default:
---the cache's), timeout (of each step)
---@return redcache.Keeper|nil keeper stop() ends it
---@return redcache.Error|nil err closed, badTtl
function keep_fresh.keepFresh(self, key, every, fn, opts)
    local message = fault(key, every, fn)
    local settings
    if not message then
        settings, message = options.read({}, opts, "keepFresh", "keepFresh")
    end
    if message then
        error(message, 2)
    end
    local client = self._client
    local err = core_client.closed(client, "keep fresh", key)
    if err then
        return nil, err
    end
    local lock_ttl = settings.lockTtl or self._settings.lockTtl
    local watch = setmetatable({
        client = client, cache = self, key = key, every = every, fn = fn,
        ttl = settings.ttl or 3 * every + lock_ttl,
        -- The write lease of an owner that is killed within fn lives no longer than its lock.
        put_options = {
            timeout = settings.timeout, leaseTtl = math.min(lock_ttl, self._settings.leaseTtl),
        },
        lock = lock.lock(self, "fresh:" .. key, { ttl = lock_ttl, timeout = settings.timeout }),
        due = now(client), looks_at = 0, is_running = false, is_stopped = false, is_owner = false,
        runs = 0, failed = 0, failures = 0, acquired = 0, lost = 0,
    }, Watch)
    client.keepers = client.keepers or {}
    client.keepers[watch] = true
    background.watch(client, watch)
    background.look_again(watch, now(client))
    return setmetatable({ _watch = watch }, Keeper)
end

return keep_fresh
