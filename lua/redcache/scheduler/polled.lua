-- polled - what the schedulers of event loops share that watch one descriptor of the core.
--
-- What:   new(way) makes a scheduler of what an event loop can do:
--
--         module               what check() requires; way.use(module) is given it
--         settle(port)         a port begins: port.fd is readable while there is reason for a turn
--         can_wait()           whether this caller is a coroutine of the loop
--         blocks               who is none waits here, and stops the loop; without, he can not wait
--         current()            who would wait
--         kick(port)           something was started: a turn is due in this round of the loop
--         sleep(slot)          returns when wake(slot) was called, or earlier
--         wake(slot)           whoever sleeps is to be resumed, but not in here
--         stop(port, has_woken) a port ends: nothing watches its descriptor any more
--
-- Memory: such a client is this Lua state's own and has no thread. Leases and locks are renewed
--         while the loop runs; a loader that works for longer than leaseTtl without letting it
--         run loses its lease. After a fork caches are to be opened again.
-- Not:    no event loop is guessed: the option scheduler names it.

local binding = require("redcache.binding")
local marks = require("redcache.marks")
local waiting = require("redcache.scheduler.waiting")

local NOT_WAITED, is_done = binding.NOT_WAITED, binding.is_done

local polled = {}

-- nil, or why there is no such module.
local function find(way)
    local ok, module = pcall(require, way.module)
    if not ok then
        return "it needs the module " .. way.module .. ": " .. tostring(module)
    end
    way.use(module)
    way.is_loaded = true
end

local function settle(port, way)
    if not binding.open_loop(port) then
        return false
    end
    port.fd = binding.loop_fd(port)
    if port.fd < 0 then
        return false
    end
    waiting.settle(port)
    way.settle(port)
    return true
end

---Resumed by wake(), a caller reads here how its operation has ended.
local function status_of(slot)
    local status = slot.status
    slot.status = nil
    return status or slot.result.status
end

-- The functions that callers meet.
local function add_callers(scheduler, way)
    function scheduler.enter(client)
        local port = client.port
        return port.waiting ~= nil or settle(port, way)
    end

    function scheduler.can_wait()
        return way.blocks or way.can_wait()
    end

    scheduler.current = way.current

    function scheduler.obstacle(mark)
        return mark.owner == way.current() and marks.SELF or nil
    end

    local function let_go(slot, is_given)
        binding.detach(slot, is_given)
        waiting.add(slot.client.port, slot)
        way.kick(slot.client.port)
        return NOT_WAITED
    end

    function scheduler.detach(slot)
        let_go(slot, true)
    end

    function scheduler.wait(slot)
        local client = slot.client
        if is_done(slot) then
            return slot.result.status
        elseif client.handle == nil or (way.blocks and not way.can_wait()) then
            return binding.wait(slot)
        elseif not way.can_wait() then
            return let_go(slot, false)
        end
        waiting.add(client.port, slot)
        slot.sleeps = true
        way.kick(client.port)
        repeat
            way.sleep(slot)
        until not slot.sleeps
        return status_of(slot)
    end

    -- What a dropped coroutine held is given back by the garbage collector.
    function scheduler.guard() end
    function scheduler.unguard() end
end

---A line of coroutines that are to be resumed.
---@return function push(co)
---@return function drain(resume): calls resume(co) for all; what is resumed may do so, too
function polled.new_line()
    local line, first, last = {}, 1, 0
    local function push(co)
        last = last + 1
        line[last] = co
    end
    local function drain(resume)
        while first <= last do
            local co = line[first]
            line[first] = false
            first = first + 1
            resume(co)
        end
        first, last = 1, 0
    end
    return push, drain
end

---@param way table
---@return table scheduler
function polled.new(way)
    local scheduler = { name = way.name }

    ---@return string|nil message why it can not be used
    function scheduler.check(settings)
        if settings.driver ~= "loop" then
            return "driver is for the scheduler 'resty'"
        elseif settings.clock then
            return "a clock of redcache.clock() moves no event loop"
        end
        return not way.is_loaded and find(way) or nil
    end

    ---@return integer driver of the clients
    function scheduler.driver()
        return binding.POLL
    end

    add_callers(scheduler, way)

    local function wake(slot)
        slot.sleeps = false
        way.wake(slot)
    end

    ---One turn of the core: whoever waits for what is done is woken.
    function scheduler.turn(port)
        port.is_kicked = false
        repeat
            local all_told = waiting.turn(port, wake)
        until all_told
    end

    ---The last cache on the port was closed: ends what waits.
    function scheduler.close(port, timeout)
        if port.waiting then
            local has_woken = port.count > 0
            waiting.drop(port, wake)
            port.is_closed = true
            way.stop(port, has_woken)
        end
        binding.end_port(port, timeout)
    end

    return scheduler
end

return polled
