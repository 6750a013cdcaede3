-- lock - handles of locks.
--
-- Memory: a handle that is collected gives its lock back.
-- Not:    what a lock means to its caller (redcache.lock).

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")
local core_owned = require("redcache.core.owned")

local milliseconds, milliseconds_or_none = core_clock.milliseconds, core_clock.milliseconds_or_none
local lock_numbers = ffi.new("rc_lock_options")
local token_out = ffi.new("char[33]")

local core_lock = {}

local function own(handle)
    if handle == nil then
        return nil, C.RC_ERR_NOMEM
    end
    return core_owned.keep(handle, C.rc_lock_free)
end

-- Why there can be no handle, or nil.
local function fault(client, longest)
    if client.handle == nil then
        return C.RC_ERR_CLOSED
    elseif #longest > client.max_key then
        return C.RC_ERR_TOOLARGE
    end
end

---@return ffi.cdata*|nil handle
---@return integer|nil status
function core_lock.new(client, key)
    local status = fault(client, key)
    if status then
        return nil, status
    end
    return own(C.rc_lock_new(client.handle, key, #key))
end

---The same for a lock with a queue.
---@param shared string|nil the key of this hold, longer than `key`; nil: its holder is alone
---@return ffi.cdata*|nil handle
---@return integer|nil status
function core_lock.new_queued(client, key, shared)
    local status = fault(client, shared or key)
    if status then
        return nil, status
    end
    return own(C.rc_lock_new_queued(client.handle, key, #key, shared, shared and #shared or 0))
end

---Gives a held lock back, cancels what runs for the handle, and frees it; waits for nothing.
function core_lock.free(handle)
    core_owned.free(handle)
end

---Starts acquiring; the result's number is the fence.
---@param ttl number seconds, as wait and max_hold
---@return integer status
function core_lock.acquire(handle, slot, flags, ttl, wait, max_hold)
    lock_numbers.flags = flags
    lock_numbers.ttl_ms = milliseconds(ttl)
    lock_numbers.wait_ms = milliseconds_or_none(wait)
    lock_numbers.max_hold_ms = milliseconds_or_none(max_hold)
    return C.rc_lock_acquire(handle, slot.op, lock_numbers)
end

---@return integer status
function core_lock.release(handle, slot)
    return C.rc_lock_release(handle, slot.op)
end

---@return integer status
function core_lock.extend(handle, slot, ttl)
    return C.rc_lock_extend(handle, slot.op, milliseconds(ttl))
end

---@return integer state LOCK_HELD, LOCK_LOST or neither
function core_lock.state(handle)
    return C.rc_lock_state(handle)
end

---Seconds this handle may still trust its lock.
---@return number
function core_lock.remaining(handle)
    return tonumber(C.rc_lock_remaining(handle)) / 1000
end

---@return string token 32 hex digits
function core_lock.token(handle)
    C.rc_lock_token(handle, token_out)
    return ffi.string(token_out, 32)
end

return core_lock
