-- resty - waiting in nginx: a caller's light thread sleeps while its worker serves others.
--
-- What:   a caller starts an operation in the core, and waits on the semaphore of its slot.
--         Semaphores belong to slots and never to requests. Each worker has one port per client,
--         with a keeper: a timer's light thread that owns what wakes the callers (host.lua,
--         thread.lua), sees to what is due, and ends when the worker does.
-- Memory: a loader whose light thread is gone is found by looking at its stack (holders.lua).
-- Not:    what the phases that can not wait do instead is up to cache.lua, remember.lua and the
--         others: they ask can_wait(), or are told NOT_WAITED.

local binding = require("redcache.binding")
local holders = require("redcache.scheduler.holders")
local marks = require("redcache.marks")
local running = require("redcache.running")

local NOT_WAITED, is_done = binding.NOT_WAITED, binding.is_done
-- An exiting worker hands over what it keeps near; others look for that several times a second.
local HAND_OVER = 1
-- How often an idle worker looks at itself; and while there is something to be found soon.
local HEARTBEAT, SHORT_BEAT = 0.5, 0.05
-- A semaphore is never trusted longer than this: whoever should have woken it may be gone.
local SLICE = 1
-- One timer per worker tells its keepers at once that the worker is to exit: nginx runs what is
-- armed then. It is armed again while there are keepers, and stays no longer than this without.
local EXIT_TIMER = 5
-- nginx drops a timer that is due while as many run as may run, and tells nobody but its log; one
-- that is due at once has begun long before this, or was dropped.
local RETRY = 0.1
-- The keeper of a port that is closed gets at least so long to say goodbye, though nobody waits.
local LEAST_GOODBYE = 0.1

local resty = { name = "resty" }

local ngx = rawget(_G, "ngx")
if not require("redcache.nginx") then
    ---@return string|nil message why it can not be used
    function resty.check()
        return "it works inside nginx only"
    end
    return resty
end

local get_phase = ngx.get_phase
local get_request = require("resty.core.base").get_request
local semaphore = require("ngx.semaphore")
local base = require("redcache.scheduler.resty.port")
local threads = require("redcache.scheduler.resty.threads")

local WAYS = {
    loop = require("redcache.scheduler.resty.host"),
    thread = require("redcache.scheduler.resty.thread"),
}
local DRIVERS = { loop = binding.HOST, thread = binding.REACTOR }

-- In the other phases of a TLS handshake a stock nginx (1.22) can not wait, whatever its Lua module
-- says: the handshake just ends.
local YIELDABLE = {
    rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
    ssl_cert = true,
}

function resty.check()
    return nil
end

---@return integer driver of the clients
function resty.driver(settings)
    return DRIVERS[settings.driver]
end

-- The keeper --------------------------------------------------------------------------------------

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
    local parent, count = binding.parent_pid(), 0
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
    if ngx.now() >= port.hand_over_until or binding.hand_over(port) then
        return true
    end
    port.way.turn(port) -- an offer is worth what is known to be coherent: that is asked at once
    return false
end

-- Leases and locks were given back, or the time for that is over.
local function has_left(port)
    return binding.host_leave(port) or ngx.now() >= port.closes_at
end

local function has_ended(port)
    if port.is_closing then
        return has_left(port)
    end
    return is_ending(port) and port.count == 0 and is_handed_over(port) and port.way.rest(port)
end

local function keep_once(port)
    local way = port.way
    port.keeper_told = false
    way.turn(port)
    way.tend(port)
    base.drop_abandoned(port)
    holders.drop_dead(port.holders)
    if has_ended(port) then
        return false
    end
    local is_brief = is_ending(port) or holders.has_work(port.holders)
    local wait = is_brief and SHORT_BEAT or HEARTBEAT
    wait = math.min(binding.turn_wait(port) or wait, wait)
    port.keeper_wakes = ngx.now() + wait
    if not port.keeper_told then
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
            base.wake_keeper(port)
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

-- Whoever has come to wait since the close began is told, too: nobody else would.
local function end_port(port)
    base.end_waiting(port)
    binding.end_port(port, 0)
end

-- Whoever leaves last ends the port: its keeper, if it has begun, else who closes it.
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
    port.way.stop(port)
    port.is_kept, port.has_begun, port.armed_at, kept[port] = false, false, 0, nil
    if port.is_closing then
        end_port(port)
    end
    if not ok then
        ngx.log(ngx.ERR, "redcache: could not keep the connections: ", tostring(again))
    end
end

-- Has a timer run the keeper, again where nginx has refused or dropped the last one. Whoever waits
-- comes by often enough.
local function start_keeper(port)
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

-- A worker begins with what its master had: nothing of it runs here.
local function settle(port, client)
    port.waiting, port.count, port.abandoned = {}, 0, 0
    port.posted = {} -- slots whose callers were woken and have not run yet
    port.holders = holders.new()
    port.keeper_sem, port.keeper_told, port.keeper_wakes = semaphore.new(0), false, 0
    port.is_kept, port.has_begun, port.armed_at = false, false, 0
    port.way = WAYS[client.driver]
    port.is_memory, port.connect_timeout = client.is_memory, client.connect_timeout
    port.is_passing = binding.has_rivals()
    port.way.settle(port)
    if not binding.open_loop(port) then
        return false
    end
    port.pid = ngx.worker.pid()
    return true
end

-- The callers -------------------------------------------------------------------------------------

---Before a slot is taken.
---@return boolean ready not so in init_by_lua, where nothing may be started
function resty.enter(client)
    local port, pid = client.port, ngx.worker.pid()
    if client.pid ~= pid then
        if get_phase() == "init" then
            return false
        end
        client.slots, client.count, client.pid = {}, 0, pid
    end
    return port.pid == pid or settle(port, client)
end

---@return boolean
function resty.can_wait()
    return YIELDABLE[get_phase()] == true
end

---@return thread light thread, or a coroutine within one
---@return any request
function resty.current()
    return running(), get_request()
end

---Other light threads go on while this one waits; a coroutine that the loader has made is as good
---as the loader itself.
function resty.obstacle(mark)
    local owner = mark.owner
    if owner == running() then
        return marks.SELF
    end
    return YIELDABLE[get_phase()] and mark.request == get_request() and threads.is_within(owner)
        and marks.SELF or nil
end

local function kick(port)
    if port.handle == nil then
        return -- it has ended, and all that waited was told
    end
    port.way.kick(port)
    if not port.has_begun then
        start_keeper(port)
    end
end

local function let_go(slot, is_given)
    local port = slot.client.port
    binding.detach(slot, is_given)
    if port.handle == nil then -- it has ended, and what was started with it
        binding.discard(slot)
        binding.end_detached(slot)
        return NOT_WAITED
    end
    base.add(port, slot)
    kick(port)
    return NOT_WAITED
end

---Starts an operation that nobody waits for; its slot goes back to the pool when it is done.
function resty.detach(slot)
    let_go(slot, true)
end

---@param slot redcache.Slot
---@return integer status
function resty.wait(slot)
    local port, name = slot.client.port, slot.name
    local waiting, sem = port.waiting, slot.sem
    if is_done(slot) then
        return slot.result.status
    elseif port.handle == nil then
        return base.status_at_end(slot)
    elseif not YIELDABLE[get_phase()] and not port.is_memory then
        return let_go(slot, false) -- also where a thread may answer at once: luck is no promise
    elseif sem == nil then
        sem = semaphore.new(0)
        slot.sem = sem
    end
    base.add(port, slot)
    kick(port)
    while waiting[name] == slot do
        slot.waits = true
        local ok, err = sem:wait(port.has_begun and SLICE or RETRY)
        if waiting[name] == slot then
            slot.waits = false
            if not ok and err ~= "timeout" then -- this phase can not
                binding.detach(slot, false)
                return NOT_WAITED
            elseif not ok then
                port.way.turn(port)
                kick(port)
                if waiting[name] ~= slot then -- it was done, and nobody had told
                    port.late_wakes = (port.late_wakes or 0) + 1
                end
            end
        end
    end
    port.posted[name] = nil
    local status = slot.status -- of a port that has ended
    slot.status = nil
    return status or slot.result.status
end

---The first near hit of a process, which may never ask for anything.
function resty.awaken(client)
    client.awaken = nil
    if resty.enter(client) then
        local port = client.port
        binding.host_begin(port)
        kick(port)
    end
end

---Operations may have ended otherwise than by what came in: tells those who wait for them.
function resty.tell(client)
    local port = client.port
    if port.pid == ngx.worker.pid() then
        port.way.turn(port)
    end
end

---While the running light thread lives, the object is its; then drop(object) is called.
function resty.guard(client, object, drop)
    local port = client.port
    holders.add(port.holders, object, drop)
    if port.keeper_wakes > ngx.now() + SHORT_BEAT then
        base.wake_keeper(port)
    end
end

function resty.unguard(client, object)
    holders.remove(client.port.holders, object)
end

---The last cache on the port was closed: ends what waits, gives leases and locks back. Where the
---time or the phase does not let the caller wait for that, the keeper goes on with it.
function resty.close(port, timeout)
    if port.pid ~= ngx.worker.pid() then
        return binding.end_port(port, 0)
    end
    local deadline, waits = ngx.now() + timeout, resty.can_wait()
    port.is_closing, port.closes_at = true, math.max(deadline, ngx.now() + LEAST_GOODBYE)
    while not binding.host_leave(port) and waits and ngx.now() < deadline do
        port.way.turn(port)
        ngx.sleep(0.001)
    end
    port.way.turn(port)
    base.end_waiting(port)
    base.wake_keeper(port)
    while port.is_kept and waits and ngx.now() < deadline do
        ngx.sleep(0.001)
    end
    -- A keeper that has not begun may never: nginx drops timers where too many run.
    if not port.is_kept or (waits and not port.has_begun) then
        end_port(port)
    end
end

return resty
