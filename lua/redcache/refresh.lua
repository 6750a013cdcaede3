-- refresh - a value that is there is loaded again, while its readers go on with it.
--
-- What:   serve() is what a reader does that was told so (freshness.lua): the value it has goes to
--         its caller, and a job in the background asks for the refresh lease, of which there is one
--         for all processes. Who gets it runs the loader and stores what it says; the others drop
--         the job. softTimeout lets a reader of a stale value wait for its process's job first.
--         Without `background` the reader itself asks for the lease, and loads where it gets it.
-- Memory: a job is its queue's, then its coroutine's stack's; client.refreshes finds it meanwhile.
-- Not:    what is due (freshness.lua), the queue (background.lua), the lease (core).

local bit = require("bit")
local background = require("redcache.background")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local load = require("redcache.load")

local bor, now = bit.bor, core_clock.now

-- A waiting reader looks so often whether the job is over, in seconds.
local PAUSE = 0.002
-- Somebody else refreshes the key: seconds until this process asks again.
local ELSEWHERE = 0.1
-- So many keys of which that is known.
local MAX_ELSEWHERE = 1024

local refresh = {}

-- Asks for the refresh lease, and loads; for load.run(). A fourth result "elsewhere": somebody else
-- does, or has done so.
local function attempt(cache, slot, ttl, fn, settings)
    local flags = bor(settings.flags, constants.SERVE, constants.EARLY, constants.NO_WAIT,
        constants.STRICT)
    slot.full = cache._prefix .. slot.key
    core_load.aim(settings.numbers, slot.mark)
    local status = calls.await(cache, slot,
        core_load.start(slot, slot.full, settings.numbers, flags, false))
    if status == 0 and slot.result.outcome == constants.LOAD then
        cache._counters.misses = cache._counters.misses + 1
        local value, err, source, flag = load.lead(cache, slot, ttl, fn, settings)
        core_slot.give(slot)
        return value, err, source, flag
    end
    core_slot.give(slot)
    return nil, nil, nil, "elsewhere"
end

-- Loads the key again, if nobody else does. value, err, source, flag; no source: it was not loaded
-- here.
local function run(cache, key, ttl, fn, settings, mark)
    if load.obstacle(cache, key, "load") then
        return nil
    end
    local slot, err = load.take(cache, settings, key, "load")
    if slot == nil then
        return nil, err
    end
    slot.mark = mark
    return load.run(attempt, cache, slot, ttl, fn, settings)
end

-- The job ----------------------------------------------------------------------------------------

local Job = {}
Job.__index = Job

function Job:run()
    local client = self.cache._client
    local source, flag, _
    self.value, _, source, flag = run(self.cache, self.key, self.ttl, self.fn, self.settings,
        self.mark)
    self.is_loaded = source == "loader"
    self.is_over = true
    client.refreshes[self.id] = nil
    if flag == "elsewhere" then
        local until_then = client.refreshed_elsewhere
        if client.elsewhere_count >= MAX_ELSEWHERE then
            until_then, client.elsewhere_count = {}, 0
            client.refreshed_elsewhere = until_then
        end
        if until_then[self.id] == nil then
            client.elsewhere_count = client.elsewhere_count + 1
        end
        until_then[self.id] = now(client) + ELSEWHERE
    end
end

-- The job of the key: one that is there, or a new one. nil: there is none to be had now.
local function job_of(cache, key, ttl, fn, settings, mark)
    local client, id = cache._client, cache._prefix .. key
    if client.refreshes == nil then
        client.refreshes = setmetatable({}, { __mode = "v" })
        client.refreshed_elsewhere, client.elsewhere_count = {}, 0
    end
    local job = client.refreshes[id]
    if job then
        return job
    elseif (client.refreshed_elsewhere[id] or 0) > now(client) then
        return nil
    end
    job = setmetatable({ cache = cache, id = id, key = key, ttl = ttl, fn = fn,
        settings = settings, mark = mark }, Job)
    if not background.push(client, id, job) then
        return nil
    end
    client.refreshes[id] = job
    return job
end

-- The reader -------------------------------------------------------------------------------------

-- Waits for the job as long as softTimeout says. value, true: it has loaded one
local function wait_for(cache, job, settings)
    local deadline = now(cache._client) + settings.softTimeout
    while not job.is_over do
        local left = deadline - now(cache._client)
        if left <= 0 or calls.pause(cache, settings.cancelTag and settings, "load",
            math.min(left, PAUSE)) then
            return nil, false
        end
    end
    return job.value, job.is_loaded
end

-- Whether a reader in plain Lua, which cannot leave a loader that runs, loads it at once.
local function is_quick(settings, load_time)
    return settings.softTimeout > 0 and load_time > 0 and load_time <= settings.softTimeout
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
    local scheduler, is_stale = cache._scheduler, source == "stale"
    local can_wait = scheduler.can_wait()
    if settings.background == false or (is_stale and not (scheduler.shares and scheduler.shares())
        and is_quick(settings, load_time or 0)) then
        if can_wait then
            local newer, err, from, flag = run(cache, key, ttl, fn, settings, mark)
            if from == "loader" then
                return newer, err, from, flag
            end
        end
        return value, nil, source
    end
    local job = job_of(cache, key, ttl, fn, settings, mark)
    if job and is_stale and settings.softTimeout > 0 and can_wait and scheduler.shares
        and scheduler.shares() then
        local newer, is_loaded = wait_for(cache, job, settings)
        if is_loaded then
            return newer, nil, "loader"
        end
    end
    return value, nil, source
end

return refresh
