-- port - the turns of a client in nginx, and the way back to who waits.
--
-- What:   takes what is done from the core and wakes the light threads that wait for it.
-- Memory: a slot that nobody waits for any more when it is done is dropped, and its lease with
--         it: the light thread of an aborted request vanishes without running any Lua.
-- Not:    no connections (host.lua, thread.lua).

local bit = require("bit")
local binding = require("redcache.binding")

local bor, TURN_NAMES = bit.bor, binding.TURN_NAMES

local port = {}

-- Hands a slot that is done to whoever waits for it.
local function finish(self, name)
    local slot = self.waiting[name]
    if not slot then
        return -- its caller has found it done by himself
    end
    self.waiting[name] = nil
    self.count = self.count - 1
    if slot.detached then
        binding.end_detached(slot)
    elseif slot.waits then
        slot.waits = false
        if slot.sem:count() < 0 then
            self.posted[name] = slot
            slot.sem:post(1)
        else
            self.abandoned = self.abandoned + 1
            binding.discard(slot)
            port.wake_keeper(self) -- a lease that is given back is on its way
        end
    end
end

local function drop(self, slot)
    slot.waits = false
    self.abandoned = self.abandoned + 1
    binding.discard(slot)
end

---Drops what light threads have waited for that are gone by now: nobody gets a lease or a lock in
---their place. A post that nobody has taken, with nobody waiting, came too late. The keeper's.
function port.drop_abandoned(self)
    for name, slot in pairs(self.waiting) do
        if slot.waits and slot.sem:count() >= 0 then
            self.waiting[name] = nil
            self.count = self.count - 1
            drop(self, slot)
        end
    end
    for name, slot in pairs(self.posted) do
        if slot.sem:count() > 0 then
            self.posted[name] = nil
            drop(self, slot)
        end
    end
end

---The port ends, though its client may go on for others: whoever still waits is told so.
function port.end_waiting(self)
    for name, slot in pairs(self.waiting) do
        self.waiting[name] = nil
        self.count = self.count - 1
        if slot.waits then
            slot.waits = false
            binding.discard(slot)
            slot.status = binding.CLOSED
            self.posted[name] = slot
            slot.sem:post(1)
        end
    end
end

---The port has ended: nobody would tell a caller what is done, so none may begin to wait.
---@return integer status of the slot
function port.status_at_end(slot)
    if binding.is_done(slot) then
        return slot.result.status
    end
    binding.discard(slot)
    return binding.CLOSED
end

---One turn of the core.
---@param self redcache.Port
---@return integer news of connections, as of binding.turn
function port.turn(self)
    local news = 0
    repeat
        local count, more = binding.turn(self)
        news = bor(news, more)
        for i = 0, count - 1 do
            finish(self, binding.turn_name(self, i))
        end
    until count < TURN_NAMES
    return news
end

---Somebody waits for the slot, or nobody does: it is detached.
function port.add(self, slot)
    self.waiting[slot.name] = slot
    self.count = self.count + 1
end

local pools = 0

---What a cosocket of ours is to be connected with. Without a name of its own it would come out of
---the pool "host:port" that every library of the worker fills, in whatever state that left it, and
---be counted there. Each has another name, so nothing ever stands in such a pool.
---@return table options of sock:connect
function port.own_pool()
    pools = pools + 1
    return { pool = ("redcache %d %d"):format(binding.pid(), pools) }
end

---Wakes the keeper.
function port.wake_keeper(self)
    if not self.keeper_told then
        self.keeper_told = true
        self.keeper_sem:post(1)
    end
end

return port
