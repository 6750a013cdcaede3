-- port - the turns of a client in nginx, and the way back to who waits.
--
-- What:   takes what is done from the core and wakes the light threads that wait for it.
-- Memory: a slot that nobody waits for any more when it is done is dropped, and its lease with
--         it: the light thread of an aborted request vanishes without running any Lua.
-- Not:    no connections (host.lua, thread.lua).

local binding = require("redcache.binding")

local is_done = binding.is_done

local port = {}

-- Hands a slot that is done to whoever waits for it. Its name may be told late: of an operation
-- whose caller found it done by himself, and has started the next one in that slot.
local function finish(self, name)
    local slot = self.waiting[name]
    if not slot or not is_done(slot) then
        return
    end
    self.waiting[name] = nil
    self.count = self.count - 1
    if slot.detached then
        slot.detached = false
        binding.give(slot)
    elseif slot.waits then
        slot.waits = false
        if slot.sem:count() < 0 then
            slot.sem:post(1)
        else
            self.abandoned = self.abandoned + 1
            binding.discard(slot)
        end
    end
end

---One turn of the core.
---@param self redcache.Port
function port.turn(self)
    repeat
        local count = binding.turn(self)
        for i = 0, count - 1 do
            finish(self, binding.turn_name(self, i))
        end
    until count < binding.TURN_NAMES
end

---Somebody waits for the slot, or nobody does: it is detached.
function port.add(self, slot)
    self.waiting[slot.name] = slot
    self.count = self.count + 1
end

---Wakes the keeper.
function port.wake_keeper(self)
    if not self.keeper_told then
        self.keeper_told = true
        self.keeper_sem:post(1)
    end
end

return port
