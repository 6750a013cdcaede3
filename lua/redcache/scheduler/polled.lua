-- polled - what the schedulers of event loops share that watch one descriptor of the core.
--
-- What:   new(backend) makes a scheduler of what an event loop can do:
--
--         module               what check() requires; backend.use(module) is given it
--         begin(port)          a port begins: port.fd is readable while there is reason for a turn
--         can_wait()           whether this caller is a coroutine of the loop; nil: any coroutine
--         blocks               any other caller waits, too, and stops the loop; nil: it cannot wait
--         kick(port)           something was started: a turn is due in this round of the loop
--         sleep(slot)          returns when wake(slot) was called, or earlier
--         wake(slot)           the caller that sleeps is to be resumed, but not in here; nil: it
--                              has left slot.co, which stands in a line until resume_woken()
--         spawn(fn)            runs fn in a coroutine of the loop
--         start(fn)            the same, but not in here; nil: it stands in the line of resume(co)
--         is_ending(port, count)   see blocking.lua; nil: such a loop goes on anyway
--         resume(co)           resumes one of that line; a result: what the coroutine has raised
--         stop(port, has_woken) a port ends: nothing watches its descriptor any more
--
-- Memory: such a client is this Lua state's own and has no thread. Leases and locks are renewed
--         while the loop runs; a loader that works for longer than leaseTtl without letting it
--         run loses its lease. After a fork caches are to be opened again.
-- Not:    no event loop is guessed: the option scheduler names it.

local auth = require("redcache.auth")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_loop = require("redcache.core.loop")
local core_slot = require("redcache.core.slot")
local marks = require("redcache.marks")
local running = require("redcache.running")
local waiting = require("redcache.scheduler.waiting")

local NOT_WAITED, is_done = constants.NOT_WAITED, core_slot.is_done

local polled = {}

-- nil, or why there is no such module.
local function find(backend)
    local ok, module = pcall(require, backend.module)
    if not ok then
        return "it needs the module " .. backend.module .. ": " .. tostring(module)
    end
    backend.use(module)
    backend.is_loaded = true
end

local function begin(port, backend, wake)
    if not core_loop.open(port) then
        return false
    end
    port.fd = core_loop.fd(port)
    if port.fd < 0 then
        return false
    end
    waiting.begin(port, wake, function()
        backend.spawn(function()
            auth.answer(port)
            if not port.is_closed then
                backend.kick(port)
            end
        end)
    end)
    backend.begin(port)
    return true
end

-- Resumed by wake(), a caller reads here how its operation has ended.
local function status_of(slot)
    local status = slot.status
    slot.status = false
    return status or slot.result.status
end

local function is_coroutine()
    return running() ~= nil
end

-- The functions that callers meet.
local function add_callers(scheduler, backend, wake)
    local is_of_loop = backend.can_wait or is_coroutine

    function scheduler.enter(client)
        local port = client.port
        return port.waiting ~= nil or begin(port, backend, wake)
    end

    function scheduler.can_wait()
        return backend.blocks or is_of_loop()
    end

    function scheduler.shares()
        return is_of_loop()
    end

    ---Outside of all coroutines there is one caller.
    function scheduler.current()
        return running() or scheduler
    end

    function scheduler.obstacle(mark)
        return mark.owner == scheduler.current() and marks.SELF or nil
    end

    local function let_go(slot, is_given)
        core_slot.detach(slot, is_given)
        waiting.add(slot.client.port, slot)
        backend.kick(slot.client.port)
        return NOT_WAITED
    end

    function scheduler.detach(slot)
        let_go(slot, true)
    end

    function scheduler.wait(slot)
        local client = slot.client
        if is_done(slot) then
            return slot.result.status
        elseif client.handle == nil or (backend.blocks and not is_of_loop()) then
            return core_slot.wait(slot)
        elseif not is_of_loop() then
            return let_go(slot, false)
        end
        waiting.add(client.port, slot)
        slot.sleeps = true
        backend.kick(client.port)
        repeat
            backend.sleep(slot)
        until not slot.sleeps
        return status_of(slot)
    end

    -- A caller that blocks does not know whether a loop will ever run again.
    function scheduler.spawn(client, fn)
        if (backend.blocks and not is_of_loop()) or not scheduler.enter(client) then
            return false
        elseif backend.start then
            backend.start(fn)
        else
            backend.wake({ co = coroutine.create(fn) })
            backend.kick(client.port)
        end
        return true
    end

    function scheduler.look_again(client, seconds)
        local slot = scheduler.enter(client) and core_slot.take(client)
        if slot and core_command.pause(slot, seconds) == 0 then
            let_go(slot, true)
        elseif slot then
            core_slot.give(slot)
        end
    end

    if backend.is_ending then
        function scheduler.is_ending(client, count)
            return backend.is_ending(client.port, count)
        end
    end

    -- What a dropped coroutine held is given back by the garbage collector.
    function scheduler.guard() end
    function scheduler.unguard() end
end

-- The line of those that the backend resumes itself.
local function add_line(scheduler, backend)
    local line, first, last = {}, 1, 0

    function backend.wake(slot)
        last = last + 1
        line[last] = slot.co
    end

    ---Resumes who was woken; what is resumed may call this, too.
    ---@return any fault the first that one of them has raised
    function scheduler.resume_woken()
        local fault
        while first <= last do
            local co = line[first]
            line[first] = false
            first = first + 1
            local raised = backend.resume(co)
            fault = fault or raised
        end
        first, last = 1, 0
        return fault
    end
end

---@param backend table
---@return table scheduler
function polled.new(backend)
    local scheduler = { name = backend.name }

    ---@return string|nil message why it cannot be used
    function scheduler.check(settings)
        if settings.driver ~= "loop" then
            return "driver is for the scheduler 'resty'"
        elseif settings.clock then
            return "a clock of redcache.clock() moves no event loop"
        end
        return not backend.is_loaded and find(backend) or nil
    end

    ---@return integer driver of the clients
    function scheduler.driver()
        return constants.POLL
    end

    if not backend.wake then
        add_line(scheduler, backend)
    end

    local function wake(slot)
        slot.sleeps = false
        backend.wake(slot)
    end

    add_callers(scheduler, backend, wake)

    ---One turn of the core: wakes the callers whose slots are done.
    function scheduler.turn(port)
        port.is_kicked = false
        waiting.turn_all(port)
    end

    ---The last cache on the port was closed: ends what waits.
    function scheduler.close(port, timeout)
        if port.waiting then
            local has_woken = port.count > 0
            waiting.drop(port, wake)
            port.is_closed = true
            backend.stop(port, has_woken)
        end
        core_loop.end_port(port, timeout)
    end

    return scheduler
end

return polled
