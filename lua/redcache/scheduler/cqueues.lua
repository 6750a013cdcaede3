-- cqueues - waiting in a cqueues controller: a coroutine sleeps on a condition variable.
--
-- What:   a coroutine of ours, the keeper, lives in each controller that somebody waits in: it
--         watches the descriptor of the core, turns it, and signals who waits. What was started
--         is sent at its next step, in one write.
-- Memory: the keeper ends, and so does the controller's loop, when all that is left in there are
--         keepers: it looks IDLE_SECONDS after the last of the others has ended.
-- Not:    a caller that is no coroutine of a controller blocks: the program outside of loop(), and
--         generators (coroutine.wrap) inside of a coroutine.

local polled = require("redcache.scheduler.polled")

local IDLE_SECONDS = 0.02

local cqueues, condition, scheduler
local keepers_of = setmetatable({}, { __mode = "k" }) -- their number, by controller
local workers_of = setmetatable({}, { __mode = "k" }) -- of start(), the same

local function is_last(controller)
    return controller:count() <= keepers_of[controller]
end

local function keep(port, controller)
    local kicked, watched = port.kicked, { pollfd = port.fd, events = "r" }
    while not port.is_closed do -- before the first turn, too: it may have been closed meanwhile
        scheduler.turn(port)
        if not port.is_kicked then
            if port.count > 0 then
                cqueues.poll(watched, kicked)
            else
                cqueues.poll(watched, kicked, IDLE_SECONDS)
            end
        end
        if port.count == 0 and not port.is_kicked and is_last(controller) then
            break
        end
    end
    keepers_of[controller] = keepers_of[controller] - 1
    port.keepers[controller] = nil
end

local function start_keeper(port, controller)
    port.keepers[controller] = true
    keepers_of[controller] = (keepers_of[controller] or 0) + 1
    controller:wrap(keep, port, controller)
end

local backend = { name = "cqueues", module = "cqueues", blocks = true }

function backend.use(module)
    cqueues, condition = module, require("cqueues.condition")
end

function backend.begin(port)
    port.kicked, port.is_kicked = condition.new(), false
    port.keepers = setmetatable({}, { __mode = "k" })
end

function backend.can_wait()
    local controller, is_own = cqueues.running()
    return controller ~= nil and is_own
end

function backend.kick(port)
    local controller = cqueues.running()
    if controller and not port.keepers[controller] then
        start_keeper(port, controller)
    end
    if not port.is_kicked then
        port.is_kicked = true
        port.kicked:signal()
    end
end

function backend.spawn(fn)
    local controller = cqueues.running()
    if controller then
        controller:wrap(fn)
    else
        fn()
    end
end

function backend.start(fn)
    local controller = cqueues.running()
    workers_of[controller] = (workers_of[controller] or 0) + 1
    controller:wrap(function()
        fn()
        workers_of[controller] = workers_of[controller] - 1
    end)
end

function backend.is_ending()
    local controller = cqueues.running()
    return controller == nil
        or controller:count()
            <= (keepers_of[controller] or 0) + (workers_of[controller] or 0)
end

function backend.sleep(slot)
    slot.condition = slot.condition or condition.new()
    slot.condition:wait()
end

function backend.wake(slot)
    slot.condition:signal()
end

function backend.stop(port)
    port.kicked:signal()
    cqueues.cancel(port.fd)
end

scheduler = polled.new(backend)

return scheduler
