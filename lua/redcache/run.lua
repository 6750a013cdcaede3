-- run - a runner of coroutines for programs without an event loop: redcache.run, redcache.spawn.
--
-- What:   run() resumes what is ready until everything it has started has ended. Where nothing is
--         ready its source (scheduler/coroutine.lua) sleeps until an operation is done. A task is
--         one coroutine of the runner; what else is a coroutine is none of its business.
-- Memory: a suspended task is referred to by what it waits for, and by its group; a group that
--         came to a deadlock lets go of its tasks, and the garbage collector gives back what they
--         held.
-- Errors: of a task nobody waits for: raised by run() when all has ended.
-- Not:    no timers and no sockets: tasks wait for calls of caches, and for each other.

local usage = require("redcache.usage")

local create, resume = coroutine.create, coroutine.resume
local running, yield = coroutine.running, coroutine.yield
local select, unpack = select, unpack

-- What a task yields that something will make ready; in a loop, for others may resume a coroutine
-- of ours. Who yields anything else lets others run.
local WAITS = {}
local NO_RESULTS = {}

local run = {
    -- Whether somebody is in run(): read by the scheduler.
    is_pumping = false,
    WAITS = WAITS,
}

---@class redcache.Task
---@field co thread
---@field group table the run that it belongs to
---@field is_ended boolean
local Task = {}
Task.__index = Task

local tasks = {} -- by coroutine, until they end
local current -- the coroutine that is being resumed
local ready, ready_count = {}, 0 -- coroutines
local resuming = {} -- the other half of a pair: what was ready when the pump came by
local source
local root -- the group of the run() that is not within another one

-- The loop ----------------------------------------------------------------------------------------

---The coroutine that calls, where it is a task's; nil outside of run(), and in a coroutine that
---somebody else has made.
---@return thread|nil
function run.current()
    local co = current
    if co and running() == co then
        return co
    end
    return nil
end

---The coroutine of the task that runs, be it in another one of its own making.
---@return thread|nil
function run.around()
    return current
end

---Makes a coroutine ready that is suspended.
function run.ready(co)
    ready_count = ready_count + 1
    ready[ready_count] = co
end
local make_ready = run.ready

---Names who can sleep: turn() makes ready what is done; sleep() waits for that, or returns false
---where nothing is under way; check() raises an error where the process is another one than before.
function run.watch(new_source)
    source = new_source
end

local function keep_results(task, ...)
    local count = select("#", ...)
    task.result_count = count
    task.results = count > 0 and { ... } or NO_RESULTS
    task.is_ended = true
end

-- The first yield takes the arguments along.
local function body(task, fn, ...)
    yield(WAITS)
    return keep_results(task, fn(...))
end

-- What may throw (a hook, no memory) comes first: a task that counts as alive is ready, too, or its
-- run() would never end.
local function start(group, fn, ...)
    local co = create(body)
    local task = setmetatable({ co = co, group = group, is_ended = false }, Task)
    resume(co, task, fn, ...)
    tasks[co], group.tasks[task], ready[ready_count + 1] = task, true, co
    group.alive, ready_count = group.alive + 1, ready_count + 1
    return task
end

local function end_task(task)
    local group, waiters = task.group, task.waiters
    tasks[task.co] = nil
    group.alive = group.alive - 1
    group.daemons = group.daemons - (task.is_daemon and 1 or 0)
    group.tasks[task] = nil
    for i = 1, waiters and #waiters or 0 do
        make_ready(waiters[i])
    end
    task.waiters = nil
    if group.alive == 0 and group.waiter then
        make_ready(group.waiter)
    end
end

local function fail(task, cause)
    local failures = task.group.failures
    task.is_ended, task.has_failed, task.cause = true, true, cause
    task.traceback = debug.traceback(task.co, tostring(cause))
    failures[#failures + 1] = task
end

-- A task was resumed, and did not suspend itself.
local function see_to(co, ok, word)
    local task = tasks[co]
    if not ok then
        fail(task, word)
    elseif not task.is_ended then
        return make_ready(co)
    end
    end_task(task)
end

local function resume_ready()
    local list, count = ready, ready_count
    ready, ready_count, resuming = resuming, 0, list
    for i = 1, count do
        local co = list[i]
        current, list[i] = co, false
        local ok, word = resume(co)
        if word ~= WAITS or not ok then
            see_to(co, ok, word)
        end
    end
    current = nil
end

local function pump(group)
    while group.alive > 0 do
        resume_ready()
        if source then
            source.turn()
        end
        if ready_count == 0 and group.alive > 0 and not (source and source.sleep()) then
            return false
        end
    end
    return true
end

-- The end -----------------------------------------------------------------------------------------

-- A text tells where it was raised; anything else is what the caller wants to see again.
local function as_error(task, others)
    if type(task.cause) ~= "string" then
        return task.cause
    end
    return task.traceback
        .. (others > 0 and "\n(and " .. others .. " more coroutines failed)" or "")
end

local function raise_failures(group, main)
    local first, others = nil, -1
    for _, task in ipairs(group.failures) do
        if task == main or not task.is_heard then
            first = first or task
            others = others + 1
        end
    end
    first = main.has_failed and main or first
    if first then
        error(as_error(first, others), 0)
    end
end

local function deadlock(group)
    local count, task = group.alive, next(group.tasks)
    error("could not go on: " .. count .. " coroutines wait for each other, one of them here:\n"
        .. debug.traceback(task.co), 0)
end

local function new_group()
    return { alive = 0, daemons = 0, tasks = {}, failures = {} }
end

local function run_outside(group)
    if source then
        source.check()
    end
    run.is_pumping, root = true, group
    local ok, all_ended = pcall(pump, group)
    run.is_pumping, current, tasks, root = false, nil, {}, nil
    if ok and all_ended then
        return
    end
    for i = 1, ready_count do
        ready[i] = false
    end
    ready_count = 0
    if source then
        source.forget()
    end
    if not ok then
        error(all_ended, 0)
    end
    deadlock(group)
end

-- In a task: the pump is another's.
local function run_inside(group, co)
    group.waiter = co
    while group.alive > 0 do
        yield(WAITS)
    end
end

---Runs fn(...) as a coroutine, and everything that it spawns, until all of them have ended.
---
---Caches that were opened with scheduler = "coroutine" wait in there by letting other coroutines
---run: a thousand of them share two connections. A loader that is busy holds up the other
---coroutines, but not the renewal of leases and locks. coroutine.yield() lets others run.
---Where a coroutine of fn's own making (coroutine.wrap) calls such a cache the call blocks all of
---them, as it does outside of run().
---@param fn function
---@param ... any its arguments
---@return any ... what fn returned
---An error of fn is raised again when all has ended, else the first error of a spawned coroutine
---whose handle nobody has waited for: a text with its traceback, anything else as it is. So is an
---error where all coroutines wait for each other.
function run.run(fn, ...)
    if type(fn) ~= "function" then
        error("bad argument 'fn' to run: function expected, got " .. type(fn), 2)
    end
    local co = run.current()
    if run.is_pumping and not co then
        error("could not run: this coroutine is not one of the runner that is at work", 2)
    end
    local group = new_group()
    local main = start(group, fn, ...)
    if co then
        run_inside(group, co)
    else
        run_outside(group)
    end
    raise_failures(group, main)
    return unpack(main.results, 1, main.result_count)
end

---Starts fn(...) as another coroutine of the run() that is at work. It runs when the calling one
---waits or ends.
---@param fn function
---@param ... any its arguments
---@return redcache.Task handle
function run.spawn(fn, ...)
    if type(fn) ~= "function" then
        error("bad argument 'fn' to spawn: function expected, got " .. type(fn), 2)
    elseif not current then
        error("could not spawn: nobody is in redcache.run", 2)
    end
    return start(tasks[current].group, fn, ...)
end

---Starts fn() as a task of the outermost run() that works for others: it ends soon after
---run.has_daemons_alone() says so. It must not throw.
---@param fn function
---@return boolean started not so outside of run()
function run.daemon(fn)
    if not root then
        return false
    end
    local task = start(root, fn)
    task.is_daemon, root.daemons = true, root.daemons + 1
    return true
end

---Whether nobody is left in run() but daemons.
---@return boolean
function run.has_daemons_alone()
    return root ~= nil and root.alive == root.daemons
end

---Waits until the coroutine has ended.
---@return any ... what its function returned; nil, err where it has failed: err is what it raised,
---and run() does not raise it again
function Task:wait()
    if not self.is_ended then
        local co = run.current()
        if not co then
            error("could not wait: the caller is no coroutine of redcache.run", 2)
        elseif co == self.co then
            error("could not wait: a coroutine would wait for itself", 2)
        end
        self.waiters = self.waiters or {}
        self.waiters[#self.waiters + 1] = co
        repeat
            yield(WAITS)
        until self.is_ended
    end
    if self.has_failed then
        self.is_heard = true
        return nil, self.cause
    end
    return unpack(self.results, 1, self.result_count)
end

usage.guard("task", Task, "group")

return run
