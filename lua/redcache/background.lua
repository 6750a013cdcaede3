-- background - work that nobody waits for: one bounded queue per client and Lua state.
--
-- What:   push(client, id, job) queues a job; who runs it depends on the scheduler. One that can
--         run something behind its callers' backs (spawn) has up to `workers` coroutines, which
--         live while there are jobs. Where it cannot, a caller runs one job before its call begins
--         (client.due), or all of them by cache:work(seconds). The same ones look at what the core
--         may tell at any time: watch(), hear().
-- Memory: the queue is made by the first job, and is the client's. What is known of a running job
--         is its coroutine's: one that is dropped takes it along.
-- Errors: a job that throws is counted; nginx also logs why.
-- Not:    no job is interrupted. It is no promise: a full queue, a close or the end of the process
--         drops jobs, and says how many.

local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local constants = require("redcache.core.constants")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local errors = require("redcache.errors")
local marks = require("redcache.marks")
local running = require("redcache.running")

local now = core_clock.now
local ngx = rawget(_G, "ngx")
-- As in scheduler/blocking.lua: nginx' own knows nothing of coroutines whose request is over.
local status = rawget(coroutine, "_status") or coroutine.status

-- A worker that was asked for and has not begun after so many seconds is given up: nginx drops a
-- timer that is due while as many run as may run, and a loop may have ended.
local START_SECONDS = 0.1
-- A timer of nginx keeps what its jobs allocate for their connections until it ends.
local JOBS_PER_WORKER = 100
-- A worker process of nginx that exits goes on with what is queued for so many seconds.
local EXIT_SECONDS = 1
-- How often a close looks whether the jobs of others have ended.
local CLOSE_PAUSE = 0.005
-- A loop is to look again after this at the latest, and no sooner than that.
local LOOK, LEAST_LOOK = 0.5, 0.02
-- How much earlier than asked for a pause of the core may end: it counts milliseconds.
local EARLY = 0.005

local background = {}

---Whether refreshes are put into the queue of this client (the option background).
---@param client redcache.Client
---@return boolean
function background.is_on(client)
    return client.background_limits ~= false
end

-- The queue ---------------------------------------------------------------------------------------

---@class redcache.Queue
---@field first integer
---@field last integer of `jobs` and `ids`
---@field queued table<any, true> by id
---@field running table<any, table> by id: what its coroutine keeps of it
---@field workers table<table, true> that are at work, weak

local due

-- What calls look at before they begin: false while there is nothing to do.
local function settle(client)
    local queue = client.queue
    client.due = (client.watches or queue and queue.last > 0) and due or client.rest
end

-- The sizes hold for what else is run here, too, where refreshes are not.
local DEFAULTS = { workers = 2, queue = 1000 }

local function queue_of(client)
    local queue = client.queue
    if queue == nil then
        local limits = client.background_limits or DEFAULTS
        queue = {
            client = client, max = limits.queue, max_workers = limits.workers,
            first = 1, last = 0, jobs = {}, ids = {}, queued = {},
            running = setmetatable({}, { __mode = "v" }),
            workers = setmetatable({}, { __mode = "k" }),
            starting = 0, started_at = 0,
            done = 0, failed = 0, dropped = 0, refused = 0,
        }
        client.queue = queue
    end
    return queue
end

local function length(queue)
    return queue.last - queue.first + 1
end

local function pop(queue)
    local at = queue.first
    local id, job = queue.ids[at], queue.jobs[at]
    queue.ids[at], queue.jobs[at] = nil, nil
    queue.queued[id] = nil
    if at == queue.last then
        queue.first, queue.last = 1, 0
        settle(queue.client)
    else
        queue.first = at + 1
    end
    return id, job
end

-- Drops what is queued: how many jobs that were.
local function drop_all(queue)
    local count = length(queue)
    queue.first, queue.last, queue.jobs, queue.ids, queue.queued = 1, 0, {}, {}, {}
    settle(queue.client)
    queue.dropped = queue.dropped + count
    return count
end

-- Running -----------------------------------------------------------------------------------------

local function report(queue, cause)
    queue.failed = queue.failed + 1
    if ngx then
        -- An error object was somebody else's: a loader's, say.
        ngx.log(errors.is(cause) and ngx.WARN or ngx.ERR, "redcache: background work failed: ",
            errors.text(cause))
    end
end

-- Runs the next job. `own`: what the running coroutine keeps of its jobs, alive through the stack.
local function run_next(queue, own)
    local id, job = pop(queue)
    own.co = running() or false
    queue.running[id] = own
    local ok, cause
    if type(job) == "table" then
        ok, cause = pcall(job.run, job)
    else
        ok, cause = pcall(job)
    end
    own.co = nil
    if queue.running[id] == own then
        queue.running[id] = nil
    end
    if ok then
        queue.done = queue.done + 1
    else
        report(queue, cause)
    end
end

-- Whether the caller is called by a loader, or by a job of this queue.
local function is_inside(queue)
    local client, co = queue.client, running() or false
    if marks.is_inside(client.loading, client.scheduler) then
        return true
    end
    for _, own in pairs(queue.running) do
        -- A coroutine that a job has made is a part of it. nginx' light threads are not asked: the
        -- status of one that is gone is no longer to be had there.
        if own.co == co or (own.co and not ngx and status(own.co) == "normal") then
            return true
        end
    end
    return false
end

-- An nginx worker that exits does not go on for long.
local function has_to_end(queue)
    if not (ngx and ngx.worker.exiting()) then
        return false
    end
    queue.ends_at = queue.ends_at or now(queue.client) + EXIT_SECONDS
    return now(queue.client) >= queue.ends_at
end

local function end_with_process(queue)
    local count = drop_all(queue)
    if count > 0 then
        ngx.log(ngx.WARN, "redcache: ", count, " jobs in the background were dropped: the worker"
            .. " process exits")
    end
end

-- Workers -----------------------------------------------------------------------------------------

local function count_active(queue)
    local count = 0
    for _ in pairs(queue.workers) do
        count = count + 1
    end
    return count
end

local start

-- What a worker does, in a coroutine of its own.
local function work(queue)
    queue.starting = math.max(queue.starting - 1, 0)
    local others = count_active(queue)
    if others >= queue.max_workers then
        return -- one that was given up has begun after all
    end
    local own, client, jobs_left = {}, queue.client, JOBS_PER_WORKER
    local is_ending = client.scheduler.is_ending
    queue.workers[own] = true
    while length(queue) > 0 and client.handle ~= nil and jobs_left > 0 do
        if has_to_end(queue) then
            end_with_process(queue)
            break
        elseif is_ending and is_ending(client, count_active(queue)) then
            break -- nobody but us keeps the loop going: what is left waits for its next time
        end
        run_next(queue, own)
        jobs_left = jobs_left - 1
    end
    queue.workers[own] = nil
    if jobs_left == 0 and client.handle ~= nil then
        start(queue)
    end
end

-- Sees to it that there are workers for what is queued. Whether somebody is, or will be, at work.
function start(queue)
    local client = queue.client
    local spawn = client.scheduler.spawn
    if not spawn then
        return false
    end
    local active = count_active(queue)
    if queue.starting > 0 and now(client) - queue.started_at >= START_SECONDS then
        queue.starting = 0
        queue.refused = queue.refused + 1
    end
    local wanted = math.min(queue.max_workers, active + length(queue))
    while active + queue.starting < wanted do
        local is_started, is_refused = spawn(client, function()
            return work(queue)
        end)
        if not is_started then
            queue.refused = queue.refused + (is_refused and 1 or 0)
            break
        end
        queue.starting, queue.started_at = queue.starting + 1, now(client)
    end
    return active + queue.starting > 0
end

-- A call begins: client.due while something is queued, or is watched.
function due(client)
    if client.rest then
        client.rest(client)
    end
    background.hear(client)
    local queue, scheduler = client.queue, client.scheduler
    if queue == nil or length(queue) == 0 or client.handle == nil or start(queue) then
        return
    elseif scheduler.shares and scheduler.shares() or not scheduler.can_wait()
        or is_inside(queue) then
        return -- another time: here it would hold up others, or a job or loader that calls
    end
    run_next(queue, {})
end

---Queues a job that somebody runs later, never within this call.
---@param client redcache.Client
---@param id any of a job that is queued or runs already there is no second one
---@param job function|table called without arguments; a table: job:run(). It may wait as any caller
---of the client's scheduler may
---@return boolean taken false: the queue is full, or closed; it is counted
function background.push(client, id, job)
    local queue = queue_of(client)
    if queue.queued[id] or queue.running[id] then
        return true
    elseif length(queue) >= queue.max or queue.is_closed or client.handle == nil
        or has_to_end(queue) then
        queue.dropped = queue.dropped + 1
        return false
    end
    local at = queue.last + 1
    queue.last, queue.jobs[at], queue.ids[at], queue.queued[id] = at, job, id, true
    client.due = due
    start(queue)
    return true
end

---Takes back a job that has not begun; it is not counted as dropped.
---@param client redcache.Client
---@param id any
function background.withdraw(client, id)
    local queue = client.queue
    if queue == nil or not queue.queued[id] then
        return
    end
    local jobs, ids, to = {}, {}, 0
    for at = queue.first, queue.last do
        if queue.ids[at] ~= id then
            to = to + 1
            jobs[to], ids[to] = queue.jobs[at], queue.ids[at]
        end
    end
    queue.first, queue.last, queue.jobs, queue.ids, queue.queued[id] = 1, to, jobs, ids, nil
    settle(client)
end

-- What is watched --------------------------------------------------------------------------------

---@class redcache.Watch what the core may tell at any time
---@field is_due fun(watch: redcache.Watch): boolean whether it has something to tell
---@field run fun(watch: redcache.Watch) tells it: a job

---Looks whether what is watched has something to tell, and queues that.
---@param client redcache.Client
function background.hear(client)
    local watches = client.watches
    if watches == nil or client.handle == nil then
        return
    end
    for watch in pairs(watches) do
        if watch:is_due() then
            background.push(client, watch, watch)
        end
    end
    if next(watches) == nil then -- the last one was the garbage collector's
        client.watches = nil
        settle(client)
    end
end

local function hear_all(port)
    for client in pairs(port.watched) do
        background.hear(client)
    end
end

---Has every turn of the client's loop, its keeper in nginx and every caller that may wait look at
---something of the core's.
---@param client redcache.Client
---@param watch redcache.Watch not kept alive by this
function background.watch(client, watch)
    client.watches = client.watches or setmetatable({}, { __mode = "k" })
    client.watches[watch] = true
    client.due = due
    local port = client.port
    if port then
        port.watched = port.watched or setmetatable({}, { __mode = "k" })
        port.watched[client], port.hear = true, hear_all
    end
    local attend = client.scheduler.attend
    if attend then
        attend(client)
    end
end

---Ends that. Twice is harmless.
---@param client redcache.Client
---@param watch redcache.Watch
function background.unwatch(client, watch)
    local watches = client.watches
    if watches then
        watches[watch] = nil
        if next(watches) == nil then
            client.watches = nil
            settle(client)
        end
    end
end

---Sees to it that a loop comes by again when something that is watched is due, though nothing else
---of ours is under way. A loop that nobody else keeps going is not kept going by this.
---@param watch table client; due; looks_at: 0 at first, when the loop is to come by
---@param at number now
function background.look_again(watch, at)
    local client = watch.client
    local scheduler = client.scheduler
    local look, is_ending = scheduler.look_again, scheduler.is_ending
    if look and at >= watch.looks_at - EARLY then
        local pause = math.max(math.min(LOOK, watch.due - at), LEAST_LOOK)
        if watch.looks_at == 0 or not (is_ending and is_ending(client, 1)) then
            watch.looks_at = at + pause
            look(client, pause)
        end
    end
end

---Whether the caller is called by a loader, or by a job of the client's: it must not wait for one.
---@param client redcache.Client
---@return boolean
function background.is_inside(client)
    return client.queue ~= nil and is_inside(client.queue)
        or marks.is_inside(client.loading, client.scheduler)
end

---Whether a job of that id is queued, or runs.
---@param client redcache.Client
---@param id any
---@return boolean
function background.knows(client, id)
    local queue = client.queue
    return queue ~= nil and (queue.queued[id] or queue.running[id]) ~= nil
end

---Whether a job of that id runs.
---@param client redcache.Client
---@param id any
---@return boolean
function background.runs(client, id)
    local queue = client.queue
    return queue ~= nil and queue.running[id] ~= nil
end

---From time to time, in nginx: workers that were refused are asked for again.
---@param client redcache.Client
---@return boolean again something is queued
function background.tend(client)
    local queue = client.queue
    if length(queue) == 0 or client.handle == nil then
        return false
    elseif has_to_end(queue) then
        end_with_process(queue)
        return false
    end
    start(queue)
    return true
end

-- Callers -----------------------------------------------------------------------------------------

-- Runs what is queued until the deadline; how many jobs that were.
local function run_until(queue, deadline, at_least)
    local client, count, own = queue.client, 0, {}
    while length(queue) > 0 and client.handle ~= nil
        and (count < at_least or now(client) < deadline) do
        run_next(queue, own)
        count = count + 1
    end
    return count
end

---Runs what is queued in the background, here and now: for programs in plain Lua that have a moment
---to spare. A job that runs is not interrupted, so it may take longer. Within a loader or a job
---nothing is run.
---@param seconds? number from 0 to 86400: how long jobs are begun; at least one is. 1
---@return integer|nil count of jobs that were run, those that threw among them
---@return redcache.Error|nil err closed, cannotWait
function background.work(self, seconds)
    if seconds == nil then
        seconds = 1
    elseif type(seconds) ~= "number" or not (seconds >= 0 and seconds <= 86400) then
        error("bad argument 'seconds' to work: number from 0 to 86400 expected, got "
            .. tostring(seconds), 2)
    end
    local client, scheduler = self._client, self._scheduler
    local err = core_client.closed(client, "work")
    if err then
        return nil, err
    elseif not scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, "work")
    end
    background.hear(client)
    local queue = client.queue
    if queue == nil or length(queue) == 0 or is_inside(queue) then
        return 0
    end
    return run_until(queue, now(client) + seconds, 1)
end

-- Lets the workers go on, as long as there is time.
local function wait_for_workers(cache, queue, deadline)
    while (length(queue) > 0 or count_active(queue) > 0) and now(queue.client) < deadline do
        start(queue)
        if calls.pause(cache, nil, "close", CLOSE_PAUSE) then
            return
        end
    end
end

---The client is about to be closed: has what is queued run, as long as there is time, and drops the
---rest. A caller that blocks runs the jobs itself, so the last of them may take longer.
---@param cache redcache.Cache
---@param timeout number seconds
---@return number left seconds of the timeout
---@return integer dropped
function background.close(cache, timeout)
    local client, scheduler = cache._client, cache._scheduler
    local queue = client.queue
    if queue == nil or queue.is_closed then
        return timeout, 0
    end
    queue.is_closed = true
    local begun = now(client)
    if not is_inside(queue) then -- a job that closes would wait for itself
        if scheduler.shares and scheduler.shares() then
            wait_for_workers(cache, queue, begun + timeout)
        elseif scheduler.can_wait() then
            run_until(queue, begun + timeout, 0)
        end
    end
    return math.max(timeout - (now(client) - begun), 0), drop_all(queue)
end

---Adds the figures of the queue: backgroundDone, backgroundFailed (they threw), backgroundDropped
---(the queue was full, or closed), backgroundRefused (nginx had no timer for a worker, or dropped
---it), backgroundQueued.
---@param client redcache.Client
---@param stats table<string, integer>
function background.stats(client, stats)
    local queue = client.queue
    stats.backgroundDone = queue and queue.done or 0
    stats.backgroundFailed = queue and queue.failed or 0
    stats.backgroundDropped = queue and queue.dropped or 0
    stats.backgroundRefused = queue and queue.refused or 0
    stats.backgroundQueued = queue and length(queue) or 0
end

return background
