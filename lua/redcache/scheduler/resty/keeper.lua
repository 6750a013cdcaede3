-- keeper - the light thread of a timer that keeps a port: one per client and worker.
--
-- What:   owns what wakes the callers (host.lua, thread.lua), sees to what is due, background work
--         that has no timer among it, ends when the worker does. In a worker that exits it hands
--         over what is kept near; when the last cache of the port is closed it gives leases and
--         locks back.
-- Memory: the last to leave ends the port: its keeper, if it has begun, else the one that closes
-- it.
-- Not:    callers (resty.lua), and how bytes move: port.backend knows.

local background = require("redcache.background")
local core_loop = require("redcache.core.loop")
local holders = require("redcache.scheduler.holders")
local sleepers = require("redcache.scheduler.resty.sleepers")
local threads = require("redcache.scheduler.resty.threads")
local unsent = require("redcache.unsent")

local ngx = ngx
-- An exiting worker hands over what it keeps near, and stays no longer for that. Others look for it
-- several times a second; on a machine that is busy enough new ones come to it after 2 s.
local HAND_OVER = 3
-- How often an idle worker looks at itself; and while there is something to be found soon.
local HEARTBEAT, SHORT_BEAT = 0.5, 0.05
-- One timer per worker tells its keepers at once that the worker is to exit: nginx runs what is
-- armed then. It is armed again while there are keepers, and stays no longer than this without.
local EXIT_TIMER = 5
-- nginx drops a timer that is due while as many run as may run, and tells nobody but its log; one
-- that is due at once has begun long before this, or was dropped.
local RETRY = 0.1
-- The keeper of a port that is closed gets at least so long to say goodbye, though nobody waits.
local LEAST_GOODBYE = 0.1
-- So often the closer of a port looks whether it has ended.
local CLOSE_PAUSE = 0.001

local keeper = { RETRY = RETRY }

-- A worker that exits is not held up, nor a Lua state that lives no longer than a request
-- (lua_code_cache off).
local function is_ending(port)
    return port.is_passing or port.is_closing or ngx.worker.exiting()
end

local function read_file(path)
    local file = io.open(path)
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text
end

-- Before a reload ends the old workers, the master has started new ones; before an upgrade, a
-- master. Where Linux does not tell, there may be some.
local function may_have_heirs()
    local parent, count = core_loop.parent_pid(), 0
    local children = read_file(("/proc/%d/task/%d/children"):format(parent, parent))
    for pid in string.gmatch(children or "", "%d+") do
        local name = read_file("/proc/" .. pid .. "/cmdline") or ""
        if string.find(name, "^nginx: master") then
            return true
        end
        count = count + 1
    end
    return not children or count > ngx.worker.count()
end

local function is_handed_over(port)
    if not ngx.worker.exiting() then
        return true
    elseif not port.hand_over_until then
        port.hand_over_until = ngx.now() + (may_have_heirs() and HAND_OVER or 0)
    end
    if ngx.now() >= port.hand_over_until or core_loop.hand_over(port) then
        return true
    end
    port.backend.turn(port) -- an offer is worth what is known to be coherent: that is asked at once
    return false
end

-- Leases and locks were given back, or the time for that is over.
local function has_left(port)
    return core_loop.host_leave(port) or ngx.now() >= port.closes_at
end

local function has_ended(port)
    if port.is_closing then
        return has_left(port)
    end
    return is_ending(port) and port.count == 0 and is_handed_over(port) and port.backend.rest(port)
end

-- What the clients of the port have queued, and nginx had no timer for; and what they could not
-- invalidate, which begins here and goes on as the connections do.
local function tend_clients(port)
    for client in pairs(port.tended) do
        local has_work = client.queue and background.tend(client)
        local has_unsent, has_begun = unsent.tend(client)
        if has_begun then
            port.backend.kick(port)
        end
        port.tended[client] = has_work or has_unsent or nil
    end
end

local function keep_once(port)
    local backend = port.backend
    port.keeper_signalled = false
    backend.turn(port)
    backend.tend(port)
    sleepers.drop_abandoned(port)
    holders.drop_dead(port.holders)
    tend_clients(port)
    if has_ended(port) then
        return false
    end
    local is_brief = is_ending(port) or holders.has_work(port.holders) or port.is_asked_late
    local wait = is_brief and SHORT_BEAT or HEARTBEAT
    wait = math.min(core_loop.turn_wait(port) or wait, wait)
    port.keeper_wakes = ngx.now() + wait
    if not port.keeper_signalled then
        port.keeper_sem:wait(math.max(wait, 0.001))
    end
    return true
end

-- The ports that have a keeper in this worker, and the worker whose timer is armed.
local kept, armed_pid = {}, nil
local arm_exit_timer

local function on_exit(is_exiting)
    armed_pid = nil
    if is_exiting then
        for port in pairs(kept) do
            sleepers.wake_keeper(port)
        end
    elseif next(kept) then
        arm_exit_timer()
    end
end

function arm_exit_timer()
    local pid = ngx.worker.pid()
    -- Where nginx has no room for it the keepers see by themselves, half a second later.
    if armed_pid ~= pid and ngx.timer.at(EXIT_TIMER, on_exit) then
        armed_pid = pid
    end
end

-- A caller that came to wait since the close began is told, too: nobody else would.
local function end_port(port)
    sleepers.end_waiting(port)
    core_loop.end_port(port, 0)
end

local function keep(_, port)
    if port.handle == nil or port.has_begun then
        return -- it was closed before this timer ran; or the timer was late, and another one runs
    end
    port.has_begun = true
    threads.learn()
    local ok, again
    repeat
        ok, again = pcall(keep_once, port)
    until not ok or not again
    port.backend.stop(port)
    port.is_kept, port.has_begun, port.armed_at, kept[port] = false, false, 0, nil
    if port.is_closing then
        end_port(port)
    end
    if not ok then
        ngx.log(ngx.ERR, "redcache: could not keep the connections: ", tostring(again))
    end
end

---A port begins in this worker.
---@param port redcache.Port
function keeper.begin(port)
    port.holders, port.keeper_wakes = holders.new(), 0
    port.tended = {} -- clients that have background work, or unsent invalidations
    port.is_kept, port.has_begun, port.armed_at = false, false, 0
end

---Has a timer run the keeper, again where nginx has refused or dropped the last one. A caller that
---waits comes by often enough.
---@param port redcache.Port
function keeper.start(port)
    local since = ngx.now() - port.armed_at
    if since >= 0 and since < RETRY then
        return
    end
    port.is_kept, port.armed_at = true, ngx.now()
    local ok, err = ngx.timer.at(0, keep, port)
    if not ok then
        port.is_kept = false
        ngx.log(ngx.WARN, "redcache: could not start the timer of the connections: ", err)
        return
    end
    kept[port] = true
    if not is_ending(port) then
        arm_exit_timer()
    end
end

---The keeper is to look soon: there may be something to be found.
---@param port redcache.Port
function keeper.hurry(port)
    if port.keeper_wakes > ngx.now() + SHORT_BEAT then
        sleepers.wake_keeper(port)
    end
end

---Ends a port: what waits is told, leases and locks are given back. Where the time, or the phase,
---does not let the caller wait for that, the keeper goes on with it.
---@param port redcache.Port of this worker
---@param timeout number seconds
---@param waits boolean the caller can wait
function keeper.close(port, timeout, waits)
    local deadline = ngx.now() + timeout
    port.is_closing, port.closes_at = true, math.max(deadline, ngx.now() + LEAST_GOODBYE)
    local gave_back = core_loop.host_leave(port)
    while waits and (port.is_kept or not gave_back) and ngx.now() < deadline do
        if port.has_begun then
            sleepers.wake_keeper(port)
        else
            port.backend.turn(port)
        end
        ngx.sleep(CLOSE_PAUSE)
        gave_back = core_loop.host_leave(port)
    end
    port.backend.turn(port)
    sleepers.end_waiting(port)
    sleepers.wake_keeper(port)
    -- A keeper that has not begun may never: nginx drops timers where too many run.
    if not port.is_kept or (waits and not port.has_begun) then
        end_port(port)
    end
end

return keeper
