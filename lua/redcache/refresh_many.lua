-- refresh_many - refresh.lua for calls with many keys: those that are due are loaded again by one
-- run of the function.
--
-- What:   serve() takes the keys that a call has found due. Each has its own refresh lease; the
--         function gets those whose lease was had. Keys that are found due before a job begins join
--         it, where they come from the same loader object.
-- Memory: as refresh.lua.
-- Not:    what is due (freshness.lua).

local bit = require("bit")
local background = require("redcache.background")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_load = require("redcache.core.load")
local load = require("redcache.load")
local load_many = require("redcache.load_many")
local refresh = require("redcache.refresh")

local bor, now = bit.bor, core_clock.now

-- As remember_many: each key takes a slot.
local MAX_KEYS = 4096

local refresh_many = {}

-- Asks for the refresh leases of these keys, and loads those that are ours.
local function settle(work, keys)
    local cache, settings, leased = work.cache, work.settings, {}
    local flags = bor(settings.flags, refresh.FLAGS)
    local begun = load_many.start_all(work, keys, "load", function(slot, _, key)
        slot.full = cache._prefix .. key
        core_load.aim(settings.numbers, work.due_marks[key])
        return core_load.start(slot, slot.full, settings.numbers, flags, false)
    end)
    for i = 1, #begun do
        local key = begun[i]
        local slot = work.slots[key]
        if cache._wait(slot) == 0 and slot.result.outcome == constants.LOAD then
            leased[#leased + 1] = key
        else
            work.leases_left[key] = core_load.lease_left(slot)
            load_many.finish(work, key)
        end
    end
    if #leased > 0 then
        local unstored = {}
        load_many.lead(work, leased, unstored)
        for i = 1, #unstored do
            load_many.finish(work, unstored[i])
        end
    end
    for i = 1, #leased do
        local key = leased[i]
        work.loaded[key] = work.failed[key] == nil and work.flags[key] ~= "stale" or nil
    end
end

-- Loads these keys again, where nobody else does. What was loaded stands in work.loaded and
-- work.values.
local function run(work, keys)
    local cache, list = work.cache, {}
    local client = cache._client
    for i = 1, #keys do
        if not load.obstacle(cache, keys[i], "load") then
            list[#list + 1] = keys[i]
        end
    end
    local began = now(client)
    if #list > 0 then
        load_many.guarded(work, settle, list)
    end
    for i = 1, #keys do
        if not work.loaded[keys[i]] and client.handle ~= nil then
            refresh.put_off(client, cache._prefix .. keys[i], work.due_marks[keys[i]],
                now(client) - began, work.leases_left[keys[i]] or 0)
        end
    end
end

local function new_work(from, settings)
    local work = load_many.new(from.cache, settings, from.ttl, from.fn, from.action, from.method)
    work.due_marks, work.loaded, work.leases_left = {}, {}, {}
    return work
end

local Job = {}
Job.__index = Job

function Job:run()
    local work, keys = self.work, self.keys
    local cache = work.cache
    self.is_begun = true
    local ok, err = pcall(run, work, keys)
    self.is_over = true
    for i = 1, #keys do
        refresh.register(cache._client, cache._prefix .. keys[i], nil)
    end
    if not ok then
        error(err, 0)
    elseif refresh.is_told(cache, work.cause) then
        error(work.cause, 0)
    end
end

-- A job that has not begun, and loads by the same function under the same settings.
local function open_job(work)
    local job = work.cache._client.open_refresh
    if job and not job.is_begun and #job.keys < MAX_KEYS and job.from == work.settings
        and job.work.fn == work.fn and background.knows(work.cache._client, job.queue_id) then
        return job
    end
end

-- Has the key loaded in the background.
local function queue(work, key, id)
    local client = work.cache._client
    local job = refresh.find(client, id)
    if job then
        refresh.help(client)
        return job
    end
    job = open_job(work)
    if job == nil then
        job = setmetatable({ keys = {}, from = work.settings,
            work = new_work(work, refresh.settings(work.cache, work.settings)) }, Job)
        job.queue_id, job.loaded, job.values = job, job.work.loaded, job.work.values
        if not background.push(client, job, job) then
            return nil
        end
        client.open_refresh = job
    end
    job.keys[#job.keys + 1], job.work.due_marks[key] = key, work.dues[key]
    refresh.register(client, id, job)
    return job
end

-- Waits for the jobs of stale values, all in all as long as softTimeout says, and takes what they
-- have loaded.
local function wait_for_all(work, jobs)
    local cache = work.cache
    local deadline = now(cache._client) + work.settings.softTimeout
    local has_patience = refresh.has_patience(cache, work.settings)
    for key, job in pairs(jobs) do
        if has_patience and work.flags[key] == "stale" then
            refresh.wait_for(cache, job, work.settings, deadline)
        end
        if job.loaded[key] then
            load_many.set(work, key, job.values[key])
        end
    end
end

---What a call does with the values that are to be loaded again: work.dues, marks by key.
---@param work redcache.ManyLoads
function refresh_many.serve(work)
    local cache, settings = work.cache, work.settings
    local client, own, jobs = cache._client, {}, {}
    for key in pairs(work.dues) do
        local id, is_stale = cache._prefix .. key, work.flags[key] == "stale"
        if refresh.is_put_off(client, id, work.dues[key]) then
            work.dues[key] = nil
        elseif refresh.is_readers(cache, settings, is_stale, work.load_times[key]) then
            own[#own + 1] = key
        else
            jobs[key] = queue(work, key, id)
        end
    end
    if #own > 0 and cache._scheduler.can_wait() then
        local mine = new_work(work, settings)
        mine.due_marks = work.dues
        run(mine, own)
        for key in pairs(mine.loaded) do
            load_many.set(work, key, mine.values[key], mine.flags[key])
        end
    end
    wait_for_all(work, jobs)
end

return refresh_many
