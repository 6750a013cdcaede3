-- clock - time that stands still until a spec moves it.
--
-- What:   what redcache.clock() returns and redcache.new{ clock = ... } takes. Everything of a
--         cache goes by it: ttls, heartbeats, waits, locks, the near cache.
-- Not:    no reading of the machine's clock; no use from a second Lua state.

local core_clock = require("redcache.core.clock")
local usage = require("redcache.usage")

---@class redcache.Clock
local Clock = {}
Clock.__index = Clock

-- A hundred years, as the longest time to live.
local MAX_SECONDS = 3155760000

---A clock that stands at 0.
---@return redcache.Clock
function Clock.new()
    return setmetatable({ _handle = core_clock.new() }, Clock)
end

---Moves the clock. What is due in between happens at its time: heartbeats, renewals, expiry, the
---end of waits. A loader may call it to be slow.
---@param seconds number 0 or more; 0: lets everything happen that is due now
function Clock:advance(seconds)
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds <= MAX_SECONDS) then
        error("bad argument 'seconds' to advance: number from 0 to " .. MAX_SECONDS
            .. " expected, got " .. tostring(seconds), 2)
    end
    core_clock.advance(self._handle, seconds)
end

---The time.
---@return number seconds since the clock was made
function Clock:now()
    return core_clock.time(self._handle)
end

usage.guard("clock", Clock, "_handle")

return Clock
