-- waiting - who waits for which operation: the way from a name that the core tells to a caller.
--
-- What:   schedulers with a loop keep in their port what is under way, and hear here what is done.
-- Memory: a slot is in `waiting` from add() until it is told. What nobody waits for (detached) goes
--         back to its pool then.
-- Not:    who is resumed how. wake() must not run any caller: he might start the next operation in
--         a slot whose name is still to be read.

local binding = require("redcache.binding")

local waiting = {}

---A port begins in this process.
---@param port redcache.Port
function waiting.settle(port)
    port.waiting, port.count = {}, 0
end

---Somebody waits for the slot, or nobody does: it is detached.
---@param port redcache.Port
---@param slot redcache.Slot
function waiting.add(port, slot)
    port.waiting[slot.name] = slot
    port.count = port.count + 1
end

---One turn of the core: tells wake(slot) what is done of what is waited for.
---@param port redcache.Port
---@param wake function
---@return boolean all_told false: there is more, turn again
function waiting.turn(port, wake)
    local slots = port.waiting
    local count = binding.turn(port)
    for i = 0, count - 1 do
        local name = binding.turn_name(port, i)
        local slot = slots[name]
        if slot then
            slots[name] = nil
            port.count = port.count - 1
            if slot.detached then
                binding.end_detached(slot)
            else
                wake(slot)
            end
        end
    end
    return count < binding.TURN_NAMES
end

---The port ends: what is under way is cancelled. wake(slot) for those who wait.
---@param port redcache.Port
---@param wake function
function waiting.drop(port, wake)
    local slots = port.waiting
    waiting.settle(port)
    for _, slot in pairs(slots) do
        binding.discard(slot)
        if slot.detached then
            slot.detached = false
        else
            slot.status = binding.CLOSED
            wake(slot)
        end
    end
end

return waiting
