--- Another client: a real process with a cache of its own, which does one thing at a time for the
-- spec.
--
-- What:   start, begin, finish, run, event, go, kill, stop; report; until_busy; lease.
-- How:    a chunk is a function without upvalues: fn(cache, params, it). What it returns, as
--         cache:remember returns it, comes back as a table (see report).
-- it:     hold(...)  tells "loading", waits for peer:go(), then returns its arguments
--         tell(name, fields)  an event
--         sleep(seconds), now(), report(...)
-- Errors: everything throws; what a chunk throws is thrown by finish.

local chunk = require("spec.support.chunk")
local clock = require("spec.support.clock")
local worker = require("spec.support.worker")

local peer = {}
local Peer = {}
Peer.__index = Peer

--- What a call of redcache returned, as a table that can travel: value, code, message, cause,
-- source, flag.
function peer.report(value, err, source, flag)
    local result = { value = value, source = source, flag = flag }
    if type(err) == "table" then
        result.code, result.message = err.code, err.message
        result.cause = err.cause ~= nil and tostring(err.cause) or nil
    end
    return result
end

local function main(process)
    local clock_there = require("spec.support.clock")
    local report = require("spec.support.peer").report
    -- Specs are about other things than a machine that is busy for half a second.
    local options = process.params
    options.connectTimeout = options.connectTimeout or 10
    options.commandTimeout = options.commandTimeout or 10
    -- What others write is to be seen at once.
    if options.near == nil then options.near = false end
    local cache = require("redcache").new(options)
    local it = { sleep = clock_there.sleep, now = clock_there.now, report = report }
    function it.tell(name, fields)
        process:emit(name, fields)
    end
    function it.hold(...)
        process:emit("loading")
        process:receive()
        return ...
    end
    while true do
        local order = process:receive()
        if not order or order.stop then break end
        local run = assert(loadstring(order.code, order.name))
        local started = clock_there.now()
        local result = report(run(cache, order.params, it))
        result.at = clock_there.now()
        result.took = result.at - started
        process:emit("finished", { result = result })
    end
    cache:close()
end

--- Starts a process with redcache.new(options); what options hold must fit into JSON. `under`: see
-- worker.start.
function peer.start(options, under)
    local started = worker.start({ main = main, params = options, under = under })
    return setmetatable({ worker = started }, Peer)
end

--- Begins a chunk. Returns the peer.
function Peer:begin(fn, params)
    local code, name = chunk.pack({ main = fn })
    self.worker:send({ code = code, name = name, params = params or {} })
    self.running = true
    return self
end

--- Waits for the chunk's end: its report, with took (seconds) and at (the instant).
function Peer:finish(timeout)
    local result = self.worker:event("finished", timeout or 10).result
    self.running = false
    return result
end

function Peer:run(fn, params)
    return self:begin(fn, params):finish()
end

function Peer:event(name, timeout)
    return self.worker:event(name, timeout)
end

--- Lets a chunk that is in it.hold() go on.
function Peer:go()
    self.worker:send({ go = true })
    return self
end

--- kill -9.
function Peer:kill()
    self.worker:kill()
end

--- Lets the process end; throws when it ends badly. One whose chunk still runs is killed: its spec
-- has failed.
function Peer:stop()
    if self.running then self:kill() end
    if self.worker.finished then return end
    self.worker:send({ stop = true })
    self.worker:join(10)
end

--- Chunk: remembers params.key with a loader that waits for go() and gives params.value.
function peer.held(cache, params, it)
    return cache:remember(params.key or "k", params.ttl or 60, function()
        return it.hold(params.value)
    end, params.opts)
end

--- Chunk: puts likewise.
function peer.held_put(cache, params, it)
    return cache:put(params.key or "k", params.ttl or 60, function()
        return it.hold(params.value)
    end, params.opts)
end

--- Chunk: remembers params.key with a loader that gives params.value at once.
function peer.remember(cache, params)
    return cache:remember(params.key or "k", params.ttl or 60, function()
        return params.value
    end, params.opts)
end

--- Runs `start`, then waits until Redis has told `count` more clients that the key they want is
-- being loaded. Only that answer asks for the remaining life of the lease.
function peer.until_busy(redis, count, start)
    local function asked()
        local pttl = redis:commandstats().pttl
        return pttl and pttl.calls or 0
    end
    local before = asked()
    start()
    clock.wait_until(function() return asked() >= before + count end, 5, "waiting for the lease")
end

--- The bytes of a lease as a foreign program would forge it.
function peer.lease(token)
    return "\251\1\4" .. ("\0"):rep(5) .. (token or "strange!") .. ("\0"):rep(8)
end

return peer
