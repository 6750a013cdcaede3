--- A real luajit process that runs a chunk with parameters and tells its parent what happens.
--
-- What:   start, event, go, send, join, kill. The chunk's side is described in worker_main.lua.
-- Errors: join throws when the chunk threw, the process died, or the time is over; it says what the
--         process printed.

local channel = require("spec.support.channel")
local chunk = require("spec.support.chunk")
local clock = require("spec.support.clock")
local process = require("spec.support.process")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local worker = {}
local Worker = {}
Worker.__index = Worker

local CHANNEL_FD = 3
local EXIT_SECONDS = 10
local here = debug.getinfo(1, "S").source:match("^@(.*)worker%.lua$")
local output_dir
local started = 0

local function output_path()
    output_dir = output_dir or temp.dir()
    started = started + 1
    return output_dir .. "/worker-" .. started
end

--- Starts a process. Options: main (a function without upvalues), file or source; params
-- (JSON-able); env; index, count; plain: without the sanitizer that the luajit in PATH may bring
-- along; under: a command, and its arguments, that runs the process as its child.
function worker.start(options)
    local code, name = chunk.pack(options)
    local ours, theirs = assert(socket.pair())
    local output = output_path()
    -- What a killed worker leaves behind goes with our own directory.
    local env = { RCBED_PATH = package.path, RCBED_CPATH = package.cpath, TMPDIR = output_dir }
    for key, value in pairs(options.env or {}) do env[key] = value end
    local words = {
        env = env, fds = { [CHANNEL_FD] = theirs.fd }, stdout = output, stderr = output,
    }
    for _, word in ipairs(options.under or {}) do words[#words + 1] = word end
    words[#words + 1] = options.plain and process.interpreter or "luajit"
    words[#words + 1] = here .. "worker_main.lua"
    local self = setmetatable({
        output = output, events = {}, taken = {}, index = options.index or 1,
        channel = channel.new(ours),
        process = process.spawn(words),
    }, Worker)
    theirs:close()
    self.pid = self.process.pid
    self.channel:send({
        index = self.index, count = options.count or 1, params = options.params or {},
        bytes = #code, name = name,
    }, code)
    return self
end

local function finish(self, failure)
    self.finished, self.failure = true, failure
    self.channel:close()
end

-- Takes one event off the channel: the event; nil, "timeout" or "closed".
function Worker:step(timeout)
    if self.finished then return nil, "closed" end
    local event, err = self.channel:receive(timeout)
    if not event then
        if err ~= "timeout" then finish(self, "the process died") end
        return nil, err
    end
    self.events[#self.events + 1] = event
    if event.event == "done" then
        self.result = event.result ~= channel.null and event.result or nil
        finish(self)
    elseif event.event == "failed" then
        finish(self, event.error)
    end
    return event
end

local function untaken(self, name)
    for _, event in ipairs(self.events) do
        if event.event == name and not self.taken[event] then
            self.taken[event] = true
            return event
        end
    end
end

-- How the process ended and what it printed, for error messages.
local function report(self)
    local ended = self.process:poll()
    local how = not ended and "still running"
        or ended.signal and "ended by signal " .. ended.signal
        or "ended with status " .. ended.exit
    return ("%s\n(worker %d %s; it printed: %s)"):format(
        self.failure or "", self.index, how, self:printed())
end

--- Waits for the next event of that name (each is given once); throws after `timeout` seconds (10,
-- stretched).
function Worker:event(name, timeout)
    local deadline = clock.deadline(timeout or 10)
    while true do
        local event = untaken(self, name)
        if event then return event end
        local _, err = self:step(clock.left(deadline))
        event = untaken(self, name)
        if event then return event end
        if err then
            error(("no event '%s' (%s): %s"):format(name, err, report(self)), 2)
        end
    end
end

--- Sends a table for worker:receive().
function Worker:send(message)
    return self.channel:send(message)
end

--- Lets a chunk that is in worker:ready() go, at the given instant (now).
function Worker:go(at)
    return self:send({ go = at or clock.now() })
end

--- Waits until the process has ended well and returns the chunk's result; throws otherwise.
function Worker:join(timeout)
    local deadline = clock.deadline(timeout or 30)
    while not self.finished do
        local _, err = self:step(clock.left(deadline))
        if err == "timeout" then
            local text = report(self)
            self:kill()
            error("a worker did not end in time: " .. text, 2)
        end
    end
    local ended = self.process:wait(EXIT_SECONDS)
    if not ended then
        self.failure = self.failure or "the process did not exit after its work"
        self.process:kill()
    elseif ended.exit ~= 0 then
        self.failure = self.failure or "the process failed after its work"
    end
    if self.failure then error("a worker failed: " .. report(self), 2) end
    return self.result
end

--- kill -9.
function Worker:kill()
    self.process:kill()
    if not self.finished then finish(self, "killed by the spec") end
end

function Worker:signal(number)
    return self.process:signal(number)
end

--- What the process printed so far.
function Worker:printed()
    return temp.read(self.output)
end

return worker
