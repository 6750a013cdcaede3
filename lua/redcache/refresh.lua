-- refresh - a value that is there is loaded again, while its readers go on with it.
--
-- What:   serve() is what a reader does that was told so (freshness.lua): the value it has goes to
--         its caller, and a job in the background asks for the refresh lease, of which there is one
--         for all processes. Who gets it runs the loader and stores what it says; the others drop
--         the job. softTimeout lets a reader of a stale value wait for its process's job first.
--         Without `background` the reader itself asks for the lease, and loads where it gets it.
-- Memory: a job is its queue's, then its coroutine's stack's; the client's registry, weak, finds it
--         meanwhile.
-- Errors: of the loader: the job raises them, so that they are counted (backgroundFailed) and, in
--         nginx, logged; readers go on with the value they have.
-- Not:    what is due (freshness.lua), the queue (background.lua), the lease (core), many keys at
--         once (refresh_many.lua).

local bit = require("bit")
local background = require("redcache.background")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local load = require("redcache.load")

local bor, now = bit.bor, core_clock.now
local LOAD = constants.LOAD

-- A waiting reader looks so often whether the job is over, in seconds.
local PAUSE = 0.002
-- A refresh that came to nothing (the loader failed, Redis is away) is tried again by this process
-- after ten times what it took, within these bounds in seconds. Where somebody else has the lease,
-- it is when that lease ends: a holder that lives has renewed it by then, one that died is followed
-- at once. A lease that was given back is not heard of: hence the upper bound.
local PATIENCE, LEAST, MOST = 10, 0.1, 5
-- So many keys of which that is known.
local MAX_PUT_OFF = 1024
-- How nginx says that a function is not to be had outside of a request.
local NO_REQUEST = "API disabled in the context of ngx.timer"
-- Errors of a load that nobody else would tell of.
local IS_TOLD = { loaderFailed = true, encode = true, badTtl = true, tooLarge = true }

local refresh = {
    -- What a refresh asks for beside the flags of its settings.
    FLAGS = bor(constants.SERVE, constants.EARLY, constants.NO_WAIT, constants.STRICT),
}

-- The registry ------------------------------------------------------------------------------------

-- What this client knows of refreshes: jobs by full key, until when keys are put off, and the mark
-- of the value for which they are.
local function registry_of(client)
    local registry = client.refreshes
    if registry == nil then
        registry = { jobs = setmetatable({}, { __mode = "v" }), put_off = {}, put_off_marks = {},
            put_off_count = 0 }
        client.refreshes = registry
    end
    return registry
end

---Whether this value was tried a moment ago, to no avail.
---@param id string full key
---@param mark integer of the value
function refresh.is_put_off(client, id, mark)
    local registry = client.refreshes
    return registry ~= nil and registry.put_off_marks[id] == mark
        and registry.put_off[id] > now(client)
end

---The value could not be refreshed, which took so many seconds.
---@param id string full key
---@param mark integer of the value
---@param lease_left number seconds that the lease of who loads it still lives; 0: it is not that
function refresh.put_off(client, id, mark, took, lease_left)
    local registry = registry_of(client)
    if registry.put_off_count >= MAX_PUT_OFF then
        registry.put_off, registry.put_off_marks, registry.put_off_count = {}, {}, 0
    end
    if registry.put_off[id] == nil then
        registry.put_off_count = registry.put_off_count + 1
    end
    local least = lease_left > 0 and lease_left or math.max(PATIENCE * took, LEAST)
    registry.put_off[id], registry.put_off_marks[id] = now(client) + math.min(least, MOST), mark
end

---The job of the key that waits for its turn, or runs.
---@param id string full key
---@return table|nil job
function refresh.find(client, id)
    local registry = client.refreshes
    local job = registry and registry.jobs[id]
    -- Its queue may have dropped it, or its coroutine is gone.
    return job and not job.is_over and background.knows(client, job.queue_id) and job or nil
end

---@param id string full key
---@param job table|nil
function refresh.register(client, id, job)
    registry_of(client).jobs[id] = job
end

---A reader meets a job that was there before. Where nobody works behind the callers' backs and all
---of them are served from this machine's memory, nobody else would ever run it.
function refresh.help(client)
    if client.due then
        client.due(client)
    end
end

---The settings of a load that outlives its caller's call: without the caller's time-out and tag.
---@param cache redcache.Cache
---@param settings table of the call
---@return table settings
function refresh.settings(cache, settings)
    if settings == cache._settings then
        return settings
    end
    local own = setmetatable({}, getmetatable(settings))
    for name, value in pairs(settings) do
        own[name] = value
    end
    own.timeout, own.cancelTag = nil, nil
    return own
end

---Whether a failed refresh is told of as a failure of background work. A loader that nginx has told
---in a timer that it must be called within a request is from then on: the readers of this cache
---object load themselves.
---@param cache redcache.Cache
---@param err redcache.Error|nil
function refresh.is_told(cache, err)
    if err == nil or not IS_TOLD[err.code] then
        return false
    end
    cache._needs_request = cache._needs_request
        or (err.cause ~= nil and string.find(errors.text(err.cause), NO_REQUEST, 1, true) ~= nil)
    return true
end

-- One key -----------------------------------------------------------------------------------------

-- Asks for the refresh lease, and loads; for load.run(). A fifth result: why the loader failed. Of
-- source "elsewhere" it is not ours to load; the fourth tells how long the lease of who loads it
-- still lives, 0: nobody does, or that is not known.
local function attempt(cache, slot, ttl, fn, settings)
    slot.full = cache._prefix .. slot.key
    core_load.aim(settings.numbers, slot.mark)
    local status = calls.await(cache, slot,
        core_load.start(slot, slot.full, settings.numbers, bor(settings.flags, refresh.FLAGS),
            false))
    if status ~= 0 then
        return nil, calls.fail(slot, status, "load", slot.key)
    elseif slot.result.outcome ~= LOAD then
        local lease_left = core_load.lease_left(slot)
        core_slot.give(slot)
        return nil, nil, "elsewhere", lease_left
    end
    local value, err, source, flag, _, cause = load.lead(cache, slot, ttl, fn, settings,
        slot.result.flags)
    core_slot.give(slot)
    return value, err, source, flag, cause or err
end

-- Loads the key again, if nobody else does. value, err, source, flag, cause; source "loader": it
-- was loaded here.
local function run(cache, key, ttl, fn, settings, mark)
    local client = cache._client
    local err = load.obstacle(cache, key, "load")
    if err then
        return nil, err
    end
    local slot
    slot, err = load.take(cache, settings, key, "load")
    if slot == nil then
        return nil, err
    end
    slot.mark = mark
    local began = now(client)
    local value, why, source, flag, cause = load.run(attempt, cache, slot, ttl, fn, settings)
    if source ~= "loader" and client.handle ~= nil then
        refresh.put_off(client, cache._prefix .. key, mark, now(client) - began,
            source == "elsewhere" and flag or 0)
    end
    return value, why, source, flag, cause
end

local Job = {}
Job.__index = Job

function Job:run()
    local client = self.cache._client
    local ok, value, err, source, _, cause = pcall(run, self.cache, self.key, self.ttl, self.fn,
        self.settings, self.mark)
    if source == "loader" then
        self.values[self.key], self.loaded[self.key] = value, true
    end
    self.is_over = true
    refresh.register(client, self.queue_id, nil)
    if not ok then
        error(value, 0)
    end
    cause = cause or err
    if refresh.is_told(self.cache, cause) then
        error(cause, 0)
    end
end

-- The job of the key: one that is there, or a new one. nil: there is none to be had now.
local function job_of(cache, key, id, ttl, fn, settings, mark)
    local client = cache._client
    local job = refresh.find(client, id)
    if job then
        refresh.help(client)
        return job
    end
    job = setmetatable({ cache = cache, queue_id = id, key = key, ttl = ttl, fn = fn, mark = mark,
        settings = refresh.settings(cache, settings), values = {}, loaded = {} }, Job)
    if not background.push(client, id, job) then
        return nil
    end
    refresh.register(client, id, job)
    return job
end

-- The reader -------------------------------------------------------------------------------------

---Whether readers load themselves: there is no work in the background, or the loader has to be
---called within a request; or, in plain Lua, where nobody can leave a loader that runs, softTimeout
---is long enough for it.
---@param load_time number|nil seconds that the value took to load; nil: not known
function refresh.is_readers(cache, settings, is_stale, load_time)
    if not settings.background or cache._needs_request then
        return true
    end
    local shares = cache._scheduler.shares
    return is_stale and not (shares and shares()) and (load_time or 0) > 0
        and load_time <= settings.softTimeout
end

---Whether a reader of a stale value waits for a job first.
function refresh.has_patience(cache, settings)
    local scheduler = cache._scheduler
    return settings.softTimeout > 0 and scheduler.shares ~= nil and scheduler.can_wait()
        and scheduler.shares()
end

---Waits for a job as long as softTimeout says.
---@param deadline number of the client's clock
function refresh.wait_for(cache, job, settings, deadline)
    local client = cache._client
    while not job.is_over and background.knows(client, job.queue_id) do
        local left = deadline - now(client)
        if left <= 0 or calls.pause(cache, settings.cancelTag and settings or nil, "load",
            math.min(left, PAUSE)) then
            return
        end
    end
end

---What a reader with a loader does with a value that is to be loaded again.
---@param settings table of the call
---@param mark integer of the value (core_entry.mark)
---@param value any the value that is there
---@param source string of it; "stale" where its time is over
---@param load_time number|nil seconds that it took to load; nil: not known
---@return any value
---@return redcache.Error|nil err
---@return string source
---@return string|nil flag
function refresh.serve(cache, key, ttl, fn, settings, mark, value, source, load_time)
    local client, id, is_stale = cache._client, cache._prefix .. key, source == "stale"
    if refresh.is_put_off(client, id, mark) then
        return value, nil, source
    elseif refresh.is_readers(cache, settings, is_stale, load_time) then
        if cache._scheduler.can_wait() then
            local newer, err, from, flag = run(cache, key, ttl, fn, settings, mark)
            if from == "loader" then
                return newer, err, from, flag
            end
        end
        return value, nil, source
    end
    local job = job_of(cache, key, id, ttl, fn, settings, mark)
    if job and is_stale and refresh.has_patience(cache, settings) then
        refresh.wait_for(cache, job, settings, now(client) + settings.softTimeout)
    end
    if job and job.loaded[key] then
        return job.values[key], nil, "loader"
    end
    return value, nil, source
end

return refresh
