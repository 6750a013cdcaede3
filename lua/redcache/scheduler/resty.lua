-- resty - waiting in nginx: a caller's light thread sleeps while its worker serves others.
--
-- What:   a caller starts an operation in the core, and waits on the semaphore of its slot.
--         Semaphores belong to slots and never to requests. Each worker has one port per client,
--         with a keeper (resty/keeper.lua) that owns what wakes the callers.
-- Memory: a loader whose light thread is gone is found by looking at its stack (holders.lua).
-- Not:    what the phases that cannot wait do instead is up to cache.lua, remember.lua and the
--         others: they ask can_wait(), or are told NOT_WAITED.

local auth = require("redcache.auth")
local constants = require("redcache.core.constants")
local core_loop = require("redcache.core.loop")
local core_login = require("redcache.core.login")
local core_slot = require("redcache.core.slot")
local holders = require("redcache.scheduler.holders")
local marks = require("redcache.marks")
local running = require("redcache.running")

local NOT_WAITED, is_done = constants.NOT_WAITED, core_slot.is_done
-- A semaphore is never trusted longer than this: the thread that should have woken it may be gone.
local SLICE = 1

local resty = { name = "resty" }

local ngx = rawget(_G, "ngx")
if not require("redcache.nginx") then
    ---@return string|nil message why it cannot be used
    function resty.check()
        return "it works inside nginx only"
    end
    return resty
end

local get_phase = ngx.get_phase
local get_request = require("resty.core.base").get_request
local semaphore = require("ngx.semaphore")
local keeper = require("redcache.scheduler.resty.keeper")
local sleepers = require("redcache.scheduler.resty.sleepers")
local threads = require("redcache.scheduler.resty.threads")
local tls = require("redcache.scheduler.resty.tls")
local waiting = require("redcache.scheduler.waiting")

local BACKENDS = {
    loop = require("redcache.scheduler.resty.host"),
    thread = require("redcache.scheduler.resty.thread"),
}
local DRIVERS = { loop = constants.HOST, thread = constants.REACTOR }

-- In the other phases of a TLS handshake a stock nginx (1.22) cannot wait, whatever its Lua module
-- says: the handshake just ends.
local YIELDABLE = {
    rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
    ssl_cert = true,
}

function resty.check(settings)
    if settings.driver == "loop" then
        local message
        settings.identity, message = tls.identity(settings)
        return message
    end
end

---@return integer driver of the clients
function resty.driver(settings)
    return DRIVERS[settings.driver]
end

local kick

-- Whatever turns may be in a phase, or a request, that cannot wait for what the function waits for.
local function answer(port)
    local ok, err = ngx.timer.at(0, function()
        auth.answer(port)
        kick(port)
    end)
    if not ok then
        core_login.fail(port.handle, "there is no timer for it: " .. tostring(err))
    end
end

-- A worker begins with what its master had: nothing of it runs here.
local function begin(port, client)
    sleepers.begin(port, answer)
    keeper.begin(port)
    port.backend = BACKENDS[client.driver]
    port.is_memory, port.connect_timeout = client.is_memory, client.connect_timeout
    port.identity = client.identity
    port.is_passing = core_loop.has_rivals()
    port.backend.begin(port)
    if not core_loop.open(port) then
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
    return port.pid == pid or begin(port, client)
end

---@return boolean
function resty.can_wait()
    return YIELDABLE[get_phase()] == true
end

resty.shares = resty.can_wait

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
    return YIELDABLE[get_phase()] and mark.request == (get_request() or false)
        and threads.is_within(owner) and marks.SELF or nil
end

function kick(port)
    if port.handle == nil then
        return -- it has ended, and all that waited was told
    end
    port.backend.kick(port)
    if not port.has_begun then
        keeper.start(port)
    end
end

local function let_go(slot, is_given)
    local port = slot.client.port
    core_slot.detach(slot, is_given)
    if port.handle == nil then -- it has ended, and what was started with it
        core_slot.discard(slot)
        core_slot.end_detached(slot)
        return NOT_WAITED
    end
    waiting.add(port, slot)
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
    local slots, sem = port.waiting, slot.sem
    if is_done(slot) then
        return slot.result.status
    elseif port.handle == nil then
        return sleepers.status_at_end(slot)
    elseif not YIELDABLE[get_phase()] and not port.is_memory then
        return let_go(slot, false) -- also where a thread may answer at once: luck is no promise
    elseif sem == nil then
        sem = semaphore.new(0)
        slot.sem = sem
    end
    waiting.add(port, slot)
    kick(port)
    while slots[name] == slot do
        slot.waits = true
        local ok, err = sem:wait(port.has_begun and SLICE or keeper.RETRY)
        if slots[name] == slot then
            slot.waits = false
            if not ok and err ~= "timeout" then -- this phase cannot
                core_slot.detach(slot, false)
                return NOT_WAITED
            elseif not ok then
                port.backend.turn(port)
                kick(port)
                if slots[name] ~= slot then -- it was done, and nobody had told
                    port.late_wakes = (port.late_wakes or 0) + 1
                end
            end
        end
    end
    if port.posted[name] then
        port.posted[name], port.woken = nil, port.woken - 1
    end
    local status = slot.status -- of a port that has ended
    slot.status = false
    return status or slot.result.status
end

---The first near hit of a process, which may never ask for anything.
function resty.awaken(client)
    client.awaken = nil
    if resty.enter(client) then
        local port = client.port
        core_loop.host_begin(port)
        kick(port)
    end
end

---Operations may have ended otherwise than by what came in: tells those who wait for them.
function resty.tell(client)
    local port = client.port
    if port.pid == ngx.worker.pid() then
        port.backend.turn(port)
    end
end

---The keeper comes by in a worker, too, that never asks for anything.
function resty.attend(client)
    if resty.enter(client) then
        kick(client.port)
    end
end

---@return boolean started
---@return boolean|nil refused
function resty.spawn(client, fn)
    if not resty.enter(client) then
        return false -- a master: its workers begin with what it has queued
    end
    local port, ok, err = client.port, ngx.timer.at(0, fn)
    if not ok then
        ngx.log(ngx.WARN, "redcache: could not start a timer for the background: ", err)
    end
    -- Until there is nothing queued: nginx may drop the timer, and tells nobody.
    port.tended[client] = true
    return ok and true or false, not ok
end

---While the running light thread lives, the object is its; then drop(object) is called.
function resty.guard(client, object, drop)
    local port = client.port
    holders.add(port.holders, object, drop)
    keeper.hurry(port)
end

function resty.unguard(client, object)
    holders.remove(client.port.holders, object)
end

---The last cache on the port was closed.
function resty.close(port, timeout)
    if port.pid == ngx.worker.pid() then
        keeper.close(port, timeout, resty.can_wait())
    else
        core_loop.end_port(port, 0)
    end
end

return resty
