-- slot - operation slots: a pool per client and Lua state, and how an operation ends.
--
-- What:   take, give; who waits for what runs in a slot, or has left; statuses as error objects.
-- Memory: a slot is a table {op, result, client}; its taker gives it back. Results are
--         copied out before the slot is used again.

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_owned = require("redcache.core.owned")
local auth = require("redcache.auth")
local errors = require("redcache.errors")

local milliseconds = core_clock.milliseconds
local NOT_WAITED = constants.NOT_WAITED

local core_slot = {}

local CODES = {
    [C.RC_ERR_NOMEM] = "overload",
    [C.RC_ERR_TIMEOUT] = "timeout",
    [C.RC_ERR_CANCELLED] = "cancelled",
    [C.RC_ERR_UNAVAILABLE] = "unavailable",
    [C.RC_ERR_UNKNOWN] = "outcomeUnknown",
    [C.RC_ERR_OVERLOAD] = "overload",
    [C.RC_ERR_CLOSED] = "closed",
    [C.RC_ERR_REDIS] = "redis",
    [C.RC_ERR_PROTOCOL] = "redis",
    [C.RC_ERR_TOOLARGE] = "tooLarge",
    [C.RC_ERR_LOST] = "leaseLost",
    [C.RC_ERR_NOTHELD] = "notHeld",
    [C.RC_ERR_BUSY] = "notAcquired",
    [C.RC_ERR_ARGUMENT] = "redis",
    [C.RC_ERR_FORKED] = "notHeld",
    [C.RC_ERR_DESCRIPTORS] = "unavailable",
    [C.RC_ERR_REFUSED] = "refused",
    [NOT_WAITED] = "cannotWait",
}

---@class redcache.Slot
---@field op ffi.cdata*
---@field result ffi.cdata* read in place until the slot's next use
---@field client redcache.Client
---@field co thread|boolean whom its scheduler wakes when it is done
---@field detached boolean nobody waits for what runs in it
---@field custom boolean it carries a tag or timeout of its own, or a place
---@field place redcache.Place|nil of a bulkhead
---@field is_large boolean idle with more than SMALL_BYTES in a buffer, or it was

-- What idle slots may keep. The pool is last in, first out, so the upper WARM slots are those that
-- a state with a few callers uses again and again: they keep what the core keeps of a slot in use
-- (op.c), and no large answer is allocated again each time. Those below wait for the next burst:
-- they keep what most answers fit into. A slot that sinks out of the warm ones gives the rest back.
local WARM, WARM_BYTES, WARM_BITS = 4, 256 * 1024, 18
local SMALL_BYTES, SMALL_BITS = 16 * 1024, 14

local function new_slot(client)
    if client.handle == nil then
        return nil, C.RC_ERR_CLOSED
    end
    local op = C.rc_op_new(client.handle)
    if op == nil then
        return nil, C.RC_ERR_NOMEM
    end
    core_owned.keep(op, C.rc_op_free)
    -- What each call looks for is there from the beginning, with `name`: a look for what is not
    -- there costs more, and eight are what one table holds before it grows.
    local slot = { op = op, result = C.rc_op_result(op), client = client, custom = false,
        is_large = false, co = false, detached = false }
    local port = client.port
    if port then
        port.names = (port.names or 0) + 1
        slot.name = port.names
        C.rc_op_name(op, port.loop, slot.name)
    end
    return slot
end

-- What the slot's call has of its namespace's bulkhead is free.
local function leave(slot)
    local place = slot.place
    if place then
        slot.place = nil
        place:leave()
    end
end

---The caller of a slot is gone: what runs in it ends, a lease it holds is given back. The slot is
---not used again.
function core_slot.discard(slot)
    leave(slot)
    C.rc_op_drop(slot.op)
end

---The same for a caller that only seems to be gone: what it still does with the slot ends with an
---error, and the slot does not go back to the pool.
function core_slot.drop(slot)
    leave(slot)
    C.rc_op_drop(slot.op)
    slot.detached, slot.is_told = true, false
end

---Takes an idle slot.
---@return redcache.Slot|nil slot
---@return integer|nil status why not
function core_slot.take(client)
    local enter = client.enter
    if enter and client.handle ~= nil and not enter(client) then
        return nil, NOT_WAITED
    end
    local count = client.count
    if count > 0 then
        local slots = client.slots
        local slot = slots[count]
        slots[count] = nil
        client.count = count - 1
        return slot
    end
    return new_slot(client)
end

---Gives a slot back; its result is void from now on.
function core_slot.give(slot)
    local client = slot.client
    if slot.detached then
        slot.is_given = true
        if not slot.is_told then
            return -- end_detached does it
        end
        slot.detached = false
    end
    if slot.custom then
        slot.custom = false
        C.rc_op_tag(slot.op, 0)
        C.rc_op_timeout(slot.op, 0)
        leave(slot)
    end
    if client.handle == nil then
        core_owned.free(slot.op)
        return
    end
    local count = client.count + 1
    local slots = client.slots
    slots[count] = slot -- may throw for want of memory
    client.count = count
    local bits = slot.result.room_bits
    if bits > SMALL_BITS then
        slot.is_large = true
        if bits > WARM_BITS then
            C.rc_op_trim(slot.op, WARM_BYTES)
        end
    end
    if count > WARM then
        local sunk = slots[count - WARM]
        if sunk.is_large then
            sunk.is_large = false
            C.rc_op_trim(sunk.op, SMALL_BYTES)
        end
    end
end

---The caller that waits for the slot in its port stops waiting.
function core_slot.forget_wait(slot)
    local port = slot.client.port
    local waiting, posted = port and port.waiting, port and port.posted
    slot.waits, slot.sleeps, slot.co = false, false, false
    if waiting and waiting[slot.name] == slot then
        waiting[slot.name] = nil
        port.count = port.count - 1
    end
    if posted then
        posted[slot.name] = nil
    end
end

---The call that used the slot has thrown. What runs in it ends, a lease it holds is given back; the
---slot is the garbage collector's.
function core_slot.abandon(slot)
    if slot.detached then
        return core_slot.give(slot) -- nobody waits for it anyway
    end
    core_slot.forget_wait(slot)
    leave(slot)
    C.rc_op_drop(slot.op)
end

---Nobody waits for what runs in the slot. It is idle again when that is done and its caller has
---given it back, in whichever order.
---@param is_given boolean its caller will not
function core_slot.detach(slot, is_given)
    slot.detached, slot.is_given, slot.is_told = true, is_given, false
end

---What ran in a detached slot is done.
function core_slot.end_detached(slot)
    slot.is_told, slot.keeps = true, nil
    if slot.is_given then
        core_slot.give(slot)
    end
end

---Lends the slot's next operations a timeout and a tag; give() takes both off.
---@param timeout number|nil seconds
---@param tag integer|nil
function core_slot.customize(slot, timeout, tag)
    slot.custom = true
    C.rc_op_timeout(slot.op, timeout and milliseconds(timeout) or 0)
    C.rc_op_tag(slot.op, tag or 0)
end

---Blocks the thread until the slot's operation is done.
---@return integer status
function core_slot.wait(slot)
    local status = C.rc_wait(slot.op)
    while status > 0 do -- RC_WAIT_AUTH: the caller is asked who we are
        auth.answer(slot.client)
        status = C.rc_wait(slot.op)
    end
    return status
end

local held_of = ffi.typeof("rc_op *[?]")

---What is started next in the slot waits for start_held().
function core_slot.hold(slot)
    C.rc_op_hold(slot.op, 1)
end

---Ends what hold() began: a slot in which something was started joins the others of start_held().
---@param held redcache.Slot[]
---@param has_started boolean
function core_slot.join_held(slot, held, has_started)
    if has_started then
        held[#held + 1] = slot
    else
        C.rc_op_hold(slot.op, 0)
    end
end

---Starts in one step what was started while it was held.
---@param slots redcache.Slot[]
function core_slot.start_held(slots)
    local count = #slots
    if count == 0 then
        return
    end
    local ops = held_of(count)
    for i = 1, count do
        ops[i - 1] = slots[i].op
    end
    C.rc_start_held(ops, count)
end

---Whether the slot's operation is done, without waiting, and without a look at what has come in.
---@return boolean
function core_slot.is_done(slot)
    return C.rc_is_done(slot.op) ~= 0
end

---The error object for a status other than 0 and what is known of it.
---@param status integer
---@param cause string|nil nil, "": the status says it all
---@param action string
---@param key string|nil
---@return redcache.Error
function core_slot.error_of(status, cause, action, key)
    if cause == nil or cause == "" then
        cause = status == NOT_WAITED and "nothing can be waited for here"
            or ffi.string(C.rc_strerror(status))
    end
    return errors.new(CODES[status] or "redis", action, key, cause)
end

---The error object for a status other than 0.
---@param slot redcache.Slot|nil nil: the operation never started
---@param status integer
---@param action string
---@param key string|nil
---@return redcache.Error
function core_slot.failure(slot, status, action, key)
    local cause
    local result = slot and slot.result
    -- A call that failed at once wrote no result: what stands there belongs to an earlier one.
    if result and result.status == status and result.data ~= nil and result.len > 0 then
        cause = ffi.string(result.data, result.len)
    end
    return core_slot.error_of(status, cause, action, key)
end

return core_slot
