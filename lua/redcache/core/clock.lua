-- clock - time: the clock a client goes by, deadlines, and seconds as the core's milliseconds.
--
-- What:   the machine's clock, or one that is moved by hand. The files of this folder alone turn
--         seconds into milliseconds.

local C = require("redcache.core.ffi")
local core_owned = require("redcache.core.owned")

local ceil = math.ceil

local core_clock = {}

-- Rounds up, so that nothing ends before its time; never 0, which would mean another thing.
-- The small number keeps 0.3 * 1000 = 300.00000000000006 from becoming 301.
function core_clock.milliseconds(seconds)
    local ms = ceil(seconds * 1000 - 1e-6)
    return ms < 1 and 1 or ms
end

-- 0 keeps its own meaning: none, never, one try.
function core_clock.milliseconds_or_none(seconds)
    return seconds > 0 and core_clock.milliseconds(seconds) or 0
end

---Seconds of the clock that the client goes by.
---@param client redcache.Client
---@return number
function core_clock.now(client)
    local clock = client.clock
    return tonumber(clock and C.rc_clock_now(clock) or C.rc_now_us()) / 1e6
end

---The time at which a call that asks Redis more than once has to end.
---@param client redcache.Client
---@param timeout number|nil seconds of the call's own
---@return number seconds as core_clock.now
function core_clock.deadline(client, timeout)
    return core_clock.now(client) + (timeout or client.command_timeout)
end

---What is left of a call's time, for its next operation.
---@param client redcache.Client
---@param deadline number of core_clock.deadline
---@return number seconds above 0: what has no time left ends at once
function core_clock.left(client, deadline)
    return math.max(deadline - core_clock.now(client), 0.001)
end

-- Clocks that are moved by hand -------------------------------------------------------------------

---@return ffi.cdata* clock
function core_clock.new()
    local clock = C.rc_clock_new()
    if clock == nil then
        error("could not make a clock: no memory", 0)
    end
    return core_owned.keep(clock, C.rc_clock_free)
end

---@param seconds number
function core_clock.advance(clock, seconds)
    -- To the nearest: 0.1 + 0.2 seconds are 300 ms.
    C.rc_clock_advance(clock, math.floor(seconds * 1e6 + 0.5))
end

---@return number seconds
function core_clock.time(clock)
    return tonumber(C.rc_clock_now(clock)) / 1e6
end

return core_clock
