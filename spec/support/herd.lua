--- Many workers at once: real processes that start at one instant and tell what they saw.
--
-- What:   run (start and join), start, join, wait_events, kill. worker:ready() in the chunk is the
--         barrier; it may be passed any number of times, each time by all workers that still run.
-- Errors: join throws when one worker failed or the time is over, and kills the rest. tolerant =
--         true: failures are told in herd.failures (index -> text) instead.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local worker = require("spec.support.worker")

local herd = {}
local Herd = {}
Herd.__index = Herd

-- Everybody reads the starting instant before it comes: a message per worker, and 2 cores to hear
-- them.
local GO_SECONDS, GO_SECONDS_EACH = 0.005, 0.0002

--- Starts options.count workers. Other options as of worker.start; params may be a function of the
-- index; timeout: seconds for join (30); tolerant.
function herd.start(options)
    local self = setmetatable({
        workers = {}, events = {}, results = {}, failures = {},
        timeout = options.timeout or 30, tolerant = options.tolerant,
    }, Herd)
    for i = 1, options.count do
        local params = options.params
        if type(params) == "function" then params = params(i) end
        self.workers[i] = worker.start({
            main = options.main, file = options.file, source = options.source, env = options.env,
            params = params, index = i, count = options.count,
        })
    end
    return self
end

local function running(self)
    local list = {}
    for _, one in ipairs(self.workers) do
        if not one.finished then list[#list + 1] = one end
    end
    return list
end

-- Lets everybody go when nobody is missing. A worker that the spec killed is not waited for.
local function open_barrier(self)
    local list = running(self)
    for _, one in ipairs(list) do
        if not one.waits then return end
    end
    local at = clock.now() + GO_SECONDS + GO_SECONDS_EACH * #list
    for _, one in ipairs(list) do
        one.waits = false
        one:go(at)
    end
end

local function take_events(self, one)
    while true do
        local event = one:step(0)
        if not event then return end
        if event.event == "ready" then
            one.waits = true
        else
            self.events[#self.events + 1] = event
        end
    end
end

local function fail(self, text)
    self:kill()
    error(text, 0)
end

-- Waits for news of any worker and takes it; false when nobody runs any more.
local function pump(self, seconds)
    open_barrier(self)
    local wanted, by_fd = {}, {}
    for _, one in ipairs(running(self)) do
        local fd = one.channel.connection.fd
        wanted[fd], by_fd[fd] = posix.POLLIN, one
    end
    if not next(wanted) then return false end
    for fd in pairs(posix.poll(wanted, seconds)) do
        local one = by_fd[fd]
        take_events(self, one)
        -- Waiting on for the others would only hide the cause.
        if one.failure and not self.tolerant then fail(self, select(2, pcall(one.join, one))) end
    end
    return true
end

--- All events of that name so far, in the order of their time.
function Herd:named(name)
    local list = {}
    for _, event in ipairs(self.events) do
        if event.event == name then list[#list + 1] = event end
    end
    table.sort(list, function(a, b) return a.at < b.at end)
    return list
end

--- Waits until `count` events of that name have come, from anybody; throws after `timeout` seconds
-- (10).
function Herd:wait_events(name, count, timeout)
    local deadline = clock.deadline(timeout or 10)
    while #self:named(name) < count do
        local runs = pump(self, clock.left(deadline))
        if #self:named(name) < count and (not runs or clock.now() >= deadline) then
            fail(self, ("%d of %d events '%s' came"):format(#self:named(name), count, name))
        end
    end
    return self:named(name)
end

--- Waits until all workers have ended; results[i] is worker i's result. Returns the herd.
function Herd:join(timeout)
    local deadline = clock.deadline(timeout or self.timeout)
    while pump(self, clock.left(deadline)) do
        if clock.now() >= deadline then
            fail(self, ("%d of %d workers did not end in time"):format(
                #running(self), #self.workers))
        end
    end
    for i, one in ipairs(self.workers) do
        local ok, result = pcall(one.join, one)
        if ok then
            self.results[i] = result
        elseif self.tolerant then
            self.failures[i] = result
        else
            fail(self, result)
        end
    end
    return self
end

function Herd:kill()
    for _, one in ipairs(self.workers) do one:kill() end
end

--- Starts a herd and waits for its end.
function herd.run(options)
    return herd.start(options):join()
end

return herd
