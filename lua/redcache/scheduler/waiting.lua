-- waiting - who waits for which operation: the way from a name that the core tells to a caller.
--
-- What:   schedulers with a loop keep in their port what is under way, and hear here what is done.
--         A port carries wake(slot): how its scheduler resumes the caller that waits for a slot;
--         and, where something is watched, hear(port), which looks at it (background.lua).
-- Memory: a slot is in `waiting` from add() until it is told. False stands there then: the slot
--         will be back, and LuaJIT would size the whole table again to find room for it. What
--         nobody waits for (detached) goes back to its pool then.
-- Not:    wake() must not run any caller, which might start the next operation in a slot whose name
--         is still to be read.

local constants = require("redcache.core.constants")
local core_loop = require("redcache.core.loop")
local core_login = require("redcache.core.login")
local core_slot = require("redcache.core.slot")

local is_login_wanted = core_login.is_wanted
local TURN_NAMES = constants.TURN_NAMES

local waiting = {}

---A port begins in this process.
---@param port redcache.Port
---@param wake fun(slot: redcache.Slot) for the slots that somebody waits for
---@param answer fun(port: redcache.Port) has a coroutine answer who we are (auth.lua), but not
---within this call, unless it may block
function waiting.begin(port, wake, answer)
    port.waiting, port.count, port.wake, port.answer = {}, 0, wake, answer
end

---Somebody waits for the slot, or nobody does: it is detached.
---@param port redcache.Port
---@param slot redcache.Slot
function waiting.add(port, slot)
    port.waiting[slot.name] = slot
    port.count = port.count + 1
end

---One turn of the core: wakes the callers whose slots are done.
---@param port redcache.Port
---@return boolean is_all false: there is more, turn again
---@return integer link_count connections with news, as of core_loop.turn
function waiting.turn(port)
    local slots = port.waiting
    local count, link_count = core_loop.turn(port)
    local is_asked = port.auth and is_login_wanted(port)
    for i = 0, count - 1 do
        local name = core_loop.turn_name(port, i)
        local slot = slots[name]
        if slot then -- else its caller has found it done by itself
            slots[name] = false
            port.count = port.count - 1
            if slot.detached then
                slots[name] = nil -- it may be one that is not used again
                core_slot.end_detached(slot)
            else
                port.wake(slot)
            end
        end
    end
    if is_asked then
        port.answer(port)
    end
    if port.hear then
        port.hear(port)
    end
    return count < TURN_NAMES, link_count
end

---Turns until all is told.
---@param port redcache.Port
---@return integer link_count connections with news: the last turn tells of them
function waiting.turn_all(port)
    local is_all, link_count
    repeat
        is_all, link_count = waiting.turn(port)
    until is_all
    return link_count
end

---The port ends: what is under way is cancelled, and the waiting callers are told so.
---@param port redcache.Port
---@param wake fun(slot: redcache.Slot) in place of the port's
function waiting.drop(port, wake)
    local slots = port.waiting
    port.waiting, port.count = {}, 0
    for _, slot in pairs(slots) do
        if slot then
            core_slot.discard(slot)
            if slot.detached then
                slot.detached = false
            else
                slot.status = constants.CLOSED
                wake(slot)
            end
        end
    end
end

return waiting
