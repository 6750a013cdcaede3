-- coroutine - waiting in redcache.run: a coroutine sleeps while its runner resumes others.
--
-- What:   a caller starts an operation and suspends its task. Between two bursts of tasks the
--         runner makes one pass over the connections, which sends what the first has started
--         before the second begins: the server never runs dry. Where nothing is ready the runner
--         moves the bytes itself; with several clients at work their threads do it.
-- Memory: one port per client and Lua state; its slots are the process's.
-- Not:    who is no task of the runner blocks: the program outside of run(), and coroutines that a
--         task has made for itself.

local auth = require("redcache.auth")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_loop = require("redcache.core.loop")
local core_slot = require("redcache.core.slot")
local marks = require("redcache.marks")
local run = require("redcache.run")
local waiting = require("redcache.scheduler.waiting")

local is_done = core_slot.is_done
local yield = coroutine.yield
local current, make_ready, WAITS = run.current, run.ready, run.WAITS

-- How far a clock that several clients go by is moved at a time: what a deadline is rounded to.
local CLOCK_STEP = 0.001

local HOLDS_UP = "its loader waits in another coroutine, which cannot go on while this call blocks:"
    .. " only what redcache.run and redcache.spawn have started can wait (option scheduler)"

local scheduler = { name = "coroutine" }

local pid = core_loop.pid()
local generation = 0 -- grows where the process is found to be another one
local ports, port_count = {}, 0 -- those that have a loop in this process
local server_count = 0 -- those of them that go to a server

---@return string|nil message why it cannot be used
function scheduler.check(settings)
    if settings.driver ~= "loop" then
        return "driver is for the scheduler 'resty'"
    end
end

---@return integer driver of the clients
function scheduler.driver()
    return constants.REACTOR
end

local function check_process()
    local now = core_loop.pid()
    if now == pid then
        return
    end
    pid, generation = now, generation + 1
    ports, port_count, server_count = {}, 0, 0
    if run.is_pumping then
        error("could not go on: the process was forked inside of redcache.run", 0)
    end
end

local function wake(slot)
    local co = slot.co
    slot.co = false
    make_ready(co)
end

local function begin(port, client)
    waiting.begin(port, wake, auth.answer)
    if not core_loop.open(port) then
        return false
    end
    port.generation, port.clock, port.is_memory = generation, client.clock, client.is_memory
    port_count = port_count + 1
    server_count = server_count + (port.is_memory and 0 or 1)
    ports[port_count] = port
    return true
end

---Before a slot is taken.
---@return boolean ready not so without memory
function scheduler.enter(client)
    if not run.is_pumping then
        check_process()
    end
    if client.generation == generation then
        return true
    end
    local port = client.port
    if port.generation ~= generation and not begin(port, client) then
        return false
    end
    client.slots, client.count, client.generation = {}, 0, generation
    return true
end

-- The callers -------------------------------------------------------------------------------------

---@param slot redcache.Slot
---@return integer status
function scheduler.wait(slot)
    local co, client = current(), slot.client
    if co == nil or client.handle == nil then
        return core_slot.wait(slot)
    elseif not is_done(slot) then
        slot.co = co
        waiting.add(client.port, slot)
        repeat
            yield(WAITS)
        until not slot.co
        local status = slot.status
        if status then
            slot.status = false
            return status
        end
    end
    return slot.result.status
end

function scheduler.can_wait()
    return true
end

function scheduler.shares()
    return current() ~= nil
end

---The task that runs, be it in a coroutine of its own making; none outside of run().
function scheduler.current()
    return run.around() or scheduler
end

-- A caller that blocks stops every task, so it cannot wait for a loader of any of them.
function scheduler.obstacle(mark)
    if mark.owner == scheduler.current() then
        return marks.SELF
    end
    return current() == nil and HOLDS_UP or nil
end

---Starts an operation that nobody waits for.
function scheduler.detach(slot)
    core_slot.detach(slot, true)
    waiting.add(slot.client.port, slot)
end

---Outside of run() nobody comes by but callers.
function scheduler.look_again(client, seconds)
    local slot = run.is_pumping and core_slot.take(client)
    if slot and core_command.pause(slot, seconds) == 0 then
        scheduler.detach(slot)
    elseif slot then
        core_slot.give(slot)
    end
end

function scheduler.spawn(_, fn)
    return run.daemon(fn)
end

scheduler.is_ending = run.has_daemons_alone

-- What a dropped coroutine held is given back by the garbage collector.
function scheduler.guard() end
function scheduler.unguard() end

-- The runner's ------------------------------------------------------------------------------------

local source = { check = check_process }

---Sends what was started, and makes ready what is done.
function source.turn()
    check_process()
    for i = 1, port_count do
        local port = ports[i]
        if port.count > 0 then
            waiting.turn(port)
        end
    end
end

local busy = {}

---Sleeps until something is done. The runner moves the bytes of a client itself where it never has
---to wait for another one, too: the client's thread would otherwise have to guess who does it.
---@return boolean slept false: nothing is under way
function source.sleep()
    local count, clock = 0, nil
    for i = 1, port_count do
        local port = ports[i]
        if port.count > 0 then
            count = count + 1
            busy[count] = port
            clock = clock or port.clock
        end
    end
    if count == 0 then
        return false
    elseif count == 1 and (server_count <= 1 or clock) then
        core_loop.wait_any(busy[1])
    elseif clock then
        core_clock.advance(clock, CLOCK_STEP)
    else
        core_loop.wait_ports(busy, count)
    end
    return true
end

---The run has ended without its tasks: nobody waits any more.
function source.forget()
    for i = 1, port_count do
        waiting.drop(ports[i], function(slot)
            slot.co, slot.status = false, false
        end)
    end
end

run.watch(source)

---The last cache on the port was closed: ends what waits.
function scheduler.close(port, timeout)
    if port.generation == generation then
        waiting.drop(port, wake)
        for i = 1, port_count do
            if ports[i] == port then
                ports[i] = ports[port_count]
                ports[port_count] = nil
                port_count = port_count - 1
                server_count = server_count - (port.is_memory and 0 or 1)
                break
            end
        end
    end
    core_loop.end_port(port, timeout)
end

return scheduler
