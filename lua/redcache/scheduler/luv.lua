-- luv - waiting in libuv's loop: a coroutine sleeps while the loop runs its callbacks.
--
-- What:   a poll handle watches the descriptor of the core. What was started is sent by a prepare
--         handle, in one write for all that was started in a round of the loop. Any coroutine may
--         wait: it yields, and is resumed from the loop. An error that it raises then is raised
--         there, as from any callback.
-- Memory: the handles keep the loop alive while somebody waits, and only then. They are left to the
--         garbage collector: luv 1.44 crashes where a Lua state ends with handles that are closing.
-- Not:    Lua's main thread cannot wait, it is what runs the loop: reads return cannotWait, writes
--         are "sent", and remember runs the loader for its caller alone. Nor can generators
--         (coroutine.wrap) inside of a coroutine: their resumer would be the one that waits.

local polled = require("redcache.scheduler.polled")
local running = require("redcache.running")

local resume, yield = coroutine.resume, coroutine.yield

-- So often one prepare goes round before libuv has its turn again.
local ROUNDS = 8

local uv, luv

-- What the first of those that were woken raises is raised when all have been resumed.
local function resume_woken()
    local fault = luv.resume_woken()
    if fault then
        error(fault, 0)
    end
end

-- Whether the loop has to go on for us.
local function update(port)
    local is_needed = port.count > 0
    if port.is_closed or is_needed == port.is_referenced then
        return
    end
    port.is_referenced = is_needed
    if is_needed then
        uv.ref(port.poll)
    else
        uv.unref(port.poll)
    end
end

local function turn(port)
    luv.turn(port)
    update(port)
end

local function stop_prepare(port)
    if not port.is_closed then
        uv.prepare_stop(port.prepare)
        uv.idle_stop(port.idle)
    end
end

local function do_nothing() end

local function on_prepare(port)
    for _ = 1, ROUNDS do
        turn(port)
        resume_woken()
        if port.is_closed then
            return
        elseif not port.is_kicked then
            return stop_prepare(port)
        end
    end
    uv.idle_start(port.idle, do_nothing) -- the loop does not sleep before the next prepare
end

local backend = { name = "luv", module = "luv" }

function backend.use(module)
    uv = module
end

function backend.begin(port)
    port.poll, port.prepare, port.idle = uv.new_poll(port.fd), uv.new_prepare(), uv.new_idle()
    port.is_kicked, port.is_referenced = false, false
    function port.on_prepare()
        on_prepare(port)
    end
    uv.poll_start(port.poll, "r", function()
        turn(port)
        resume_woken()
    end)
    uv.unref(port.poll)
    uv.unref(port.prepare)
    uv.unref(port.idle)
end

function backend.kick(port)
    update(port)
    if not port.is_kicked then
        port.is_kicked = true
        uv.prepare_start(port.prepare, port.on_prepare)
    end
end

function backend.spawn(fn)
    coroutine.wrap(fn)()
end

-- The loop is asked what else it has to wait for.
function backend.is_ending(port, count)
    if port.is_closed or port.count >= count then
        return port.is_closed -- somebody waits who is none of those
    end
    uv.unref(port.poll)
    local is_alive = uv.loop_alive()
    if port.is_referenced then
        uv.ref(port.poll)
    end
    return not is_alive
end

function backend.sleep(slot)
    slot.co = running()
    yield()
end

function backend.resume(co)
    local ok, err = resume(co)
    return not ok and debug.traceback(co, tostring(err)) or nil
end

function backend.stop(port, has_woken)
    uv.poll_stop(port.poll)
    uv.prepare_stop(port.prepare)
    uv.idle_stop(port.idle)
    port.poll, port.prepare, port.idle, port.on_prepare = nil, nil, nil, nil
    if not has_woken then
        return
    end
    local timer = uv.new_timer()
    uv.timer_start(timer, 0, 0, function()
        uv.close(timer)
        resume_woken()
    end)
end

luv = polled.new(backend)

return luv
