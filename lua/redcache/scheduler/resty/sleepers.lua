-- sleepers - the light threads that sleep on a semaphore of ours: callers, and a port's keeper.
--
-- What:   wakes the callers whose slots are done, and finds those that are gone.
-- Memory: a slot that nobody waits for any more when it is done is dropped, and its lease with
--         it: the light thread of an aborted request vanishes without running any Lua.
-- Not:    which operation is done (scheduler/waiting.lua); what else a light thread may leave
--         behind (scheduler/holders.lua).

local constants = require("redcache.core.constants")
local core_slot = require("redcache.core.slot")
local semaphore = require("ngx.semaphore")
local waiting = require("redcache.scheduler.waiting")

local sleepers = {}

local function drop(port, slot)
    slot.waits = false
    port.abandoned = port.abandoned + 1
    core_slot.discard(slot)
end

-- What the slot's light thread waits for is done.
local function wake(slot)
    if not slot.waits then
        return -- it sees so by itself, before it sleeps
    end
    local port = slot.client.port
    if slot.sem:count() < 0 then
        slot.waits = false
        port.posted[slot.name] = slot
        port.woken = port.woken + 1
        slot.sem:post(1)
    else
        drop(port, slot)
        sleepers.wake_keeper(port) -- a lease that is given back is on its way
    end
end

---A port begins in this worker.
---@param port redcache.Port
---@param answer fun(port: redcache.Port) says who we are: see waiting.begin
function sleepers.begin(port, answer)
    waiting.begin(port, wake, answer)
    port.posted = {} -- slots whose callers were woken and have not run yet
    port.woken = 0 -- how many these are, about: see drop_abandoned
    port.abandoned = 0
    port.keeper_sem, port.keeper_signalled = semaphore.new(0), false
end

---Drops what light threads have waited for that are gone by now: nobody gets a lease or a lock in
---their place. A post that nobody has taken, with nobody waiting, came too late. The keeper's.
function sleepers.drop_abandoned(port)
    local slots, posted = port.waiting, port.posted
    for name, slot in pairs(slots) do
        if slot and slot.waits and slot.sem:count() >= 0 then
            slots[name] = nil
            port.count = port.count - 1
            drop(port, slot)
        end
    end
    local woken = 0
    for name, slot in pairs(posted) do
        if slot.sem:count() > 0 then
            posted[name] = nil
            drop(port, slot)
        else
            woken = woken + 1
        end
    end
    port.woken = woken
end

---The port ends, though its client may go on for others: a caller that still waits is told so. What
---nobody waits for goes on as far as it gets.
function sleepers.end_waiting(port)
    local slots = port.waiting
    for name, slot in pairs(slots) do
        slots[name] = nil
        port.count = port.count - (slot and 1 or 0)
        if slot and slot.waits then
            slot.waits = false
            core_slot.discard(slot)
            slot.status = constants.CLOSED
            port.posted[name] = slot
            port.woken = port.woken + 1
            slot.sem:post(1)
        end
    end
end

---The port has ended: nobody would tell a caller what is done, so none may begin to wait.
---@return integer status of the slot
function sleepers.status_at_end(slot)
    if core_slot.is_done(slot) then
        return slot.result.status
    end
    core_slot.discard(slot)
    return constants.CLOSED
end

---Wakes the keeper.
function sleepers.wake_keeper(port)
    if not port.keeper_signalled then
        port.keeper_signalled = true
        port.keeper_sem:post(1)
    end
end

return sleepers
