-- load - loads: asked for with a lease, and ended by its holder.
--
-- Not:    what is decided around a load (remember.lua).

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")
local core_entry = require("redcache.core.entry")

local milliseconds, milliseconds_or_none = core_clock.milliseconds, core_clock.milliseconds_or_none
local fill, life_ms = core_entry.fill, core_entry.life_ms

local marks_of = ffi.typeof("uint32_t *")

local core_load = {}

---The numbers of rc_load for these settings, made once.
---@return ffi.cdata*
function core_load.numbers(settings)
    local numbers = ffi.new("rc_load_options")
    numbers.lease_ttl_ms = milliseconds(settings.leaseTtl)
    numbers.max_load_ms = milliseconds(settings.maxLoadTime)
    numbers.wait_timeout_ms = milliseconds(settings.waitTimeout)
    return numbers
end

---Starts a load; `left` (seconds) shortens the wait of this one.
---@return integer status
function core_load.start(slot, key, numbers, flags, left)
    numbers.flags = flags
    if left then
        local whole = numbers.wait_timeout_ms
        numbers.wait_timeout_ms = milliseconds(left)
        local status = C.rc_load(slot.op, key, #key, numbers)
        numbers.wait_timeout_ms = whole
        return status
    end
    return C.rc_load(slot.op, key, #key, numbers)
end

---Starts a load of a key of this view, as core_load.start.
---@return integer status
function core_load.start_view(view, slot, key, numbers, flags, left)
    numbers.flags = flags
    local whole = numbers.wait_timeout_ms
    if left then
        numbers.wait_timeout_ms = milliseconds(left)
    end
    local status = C.rc_view_load(view, slot.op, key, #key, numbers)
    numbers.wait_timeout_ms = whole
    return status
end

---Says which value the next load with EARLY is about.
---@param numbers ffi.cdata* of core_load.numbers
---@param mark integer of core_entry.mark
function core_load.aim(numbers, mark)
    ffi.cast(marks_of, numbers.early_version)[0] = mark
end

---Seconds that the lease of who loads the key again still lives, unless it is renewed; of a load
---with EARLY that has found somebody else doing so. 0: not known.
---@return number seconds
function core_load.lease_left(slot)
    return tonumber(slot.result.number) / 1000
end

---Starts storing what was loaded. `ttl` 0: not stored, only shared with callers of this process.
---@param flags integer|nil of the entry
---@return integer status
function core_load.publish(slot, kind, codec, bytes, ttl, grace, load_time, plain, flags)
    local entry = fill(kind, codec, ttl, grace, load_time, flags)
    return C.rc_publish(slot.op, entry, bytes, #bytes, life_ms(ttl, grace),
        plain and C.RC_PLAIN or 0)
end

---Starts telling those who wait that the load failed.
---@return integer status
function core_load.fail(slot, text, error_ttl)
    return C.rc_fail(slot.op, text, #text, milliseconds_or_none(error_ttl))
end

---Starts giving the lease back without a word.
---@return integer status
function core_load.release(slot)
    return C.rc_release(slot.op)
end

return core_load
