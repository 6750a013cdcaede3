-- copas - waiting in copas' loop: a coroutine sleeps while copas selects.
--
-- What:   copas watches what looks like a socket. So a thread of ours "receives" from an object
--         with the descriptor of the core (getfd); it is "dirty", which select() takes for
--         readable, when something was started. The thread turns the core then. Who waits yields
--         to a queue of ours in place of copas' two, and is put back into copas' care by
--         copas.addthread.
-- Memory: the thread stays in copas until the cache is closed.
-- Not:    Lua's main thread blocks. A handler whose last wait was for a cache closes its socket by
--         itself: copas.autoclose closes what a thread has waited for last. Copas selects
--         descriptors below 1,024.

local polled = require("redcache.scheduler.polled")

local yield = coroutine.yield

local copas, scheduler

-- What copas calls with what a thread has yielded.
local queue = {
    insert = function() end,
    push = function(_, slot, co)
        slot.co = co
    end,
}

-- What copas takes for a socket. The first receive of each pair makes the thread wait.
local function new_source(port)
    local has_waited = true
    return {
        getfd = function()
            return port.is_closed and -1 or port.fd
        end,
        dirty = function()
            return port.is_kicked
        end,
        receive = function()
            has_waited = not has_waited
            return has_waited or nil, "timeout"
        end,
        close = function() end, -- copas does so when the thread has ended
    }
end

local function keep(port)
    local source = new_source(port)
    while not port.is_closed do
        copas.receive(source)
        if not port.is_closed then
            scheduler.turn(port)
        end
        scheduler.resume_woken()
    end
end

local backend = { name = "copas", module = "copas", blocks = true }

function backend.use(module)
    copas = module
end

function backend.begin(port)
    port.is_kicked = false
end

function backend.kick(port)
    port.is_kicked = true
    if not port.keeper then
        port.keeper = coroutine.create(function()
            return keep(port)
        end)
        copas.addthread(port.keeper)
    end
end

function backend.spawn(fn)
    copas.addthread(fn)
end

function backend.sleep(slot)
    yield(slot, queue)
end

function backend.resume(co)
    copas.addthread(co) -- which catches what it raises
end

-- The thread ends, unless it is what closes the cache: then a moment later. Copas keeps what looked
-- like a socket, without a descriptor.
function backend.stop(port)
    scheduler.resume_woken()
    if port.keeper and coroutine.status(port.keeper) == "suspended" then
        copas.addthread(port.keeper)
    end
end

scheduler = polled.new(backend)

return scheduler
