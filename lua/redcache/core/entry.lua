-- entry - single entries in Redis: read, stored, deleted; and what stands in a result.
--
-- Not:    encoding and decoding of values (redcache.entry).

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_bytes = require("redcache.core.bytes")
local core_clock = require("redcache.core.clock")
local core_extra = require("redcache.core.extra")
local constants = require("redcache.core.constants")
local options = require("redcache.options")

local FOREVER = options.FOREVER
local HIT, KIND_VALUE = constants.HIT, constants.KIND_VALUE
local milliseconds, milliseconds_or_none = core_clock.milliseconds, core_clock.milliseconds_or_none
local msgpack_string = core_bytes.msgpack_string
local ceil = math.ceil
local scratch = ffi.new("rc_entry")
local marks_of = ffi.typeof("const uint32_t *")

local core_entry = {}

---Starts reading the key that prefix and key are together: nobody has to join them.
---@return integer status
function core_entry.get(slot, prefix, key, flags)
    return C.rc_get_under(slot.op, prefix, #prefix, key, #key, flags)
end

---What a header says, for files of this folder.
---@param flags integer|nil of the entry
---@return ffi.cdata* entry scratch, until the next call
local function fill(kind, codec, ttl, grace, load_time, flags)
    scratch.kind = kind
    scratch.codec = codec
    scratch.entry_flags = flags or 0
    scratch.schema = 0
    scratch.stale_ms = (grace > 0 and ttl ~= FOREVER) and milliseconds(grace) or 0
    scratch.load_ms = load_time > 0 and ceil(load_time * 1000) or 0
    return scratch
end
core_entry.fill = fill

---The life in Redis: the time to live and, behind it, the grace window.
---@return integer ms 0: none; -1: without an end
local function life_ms(ttl, grace)
    if ttl == FOREVER then
        return -1
    elseif ttl == 0 then
        return 0
    end
    return milliseconds(ttl) + milliseconds_or_none(grace)
end
core_entry.life_ms = life_ms

---Starts storing a value.
---@param plain boolean without a header
---@param flags integer|nil of the entry
---@return integer status
function core_entry.set(slot, key, codec, bytes, ttl, grace, plain, flags)
    local entry = fill(C.RC_KIND_VALUE, codec, ttl, grace, 0, flags)
    return C.rc_set(slot.op, key, #key, entry, bytes, #bytes, life_ms(ttl, grace),
        plain and C.RC_PLAIN or 0)
end

---A value as it is stored, as the next argument of the command in the slot.
---@param plain boolean without a header
---@return integer status
function core_entry.argument(slot, codec, bytes, plain)
    local wraps = not plain or string.byte(bytes, 1) == C.RC_HEADER_BYTE
    return C.rc_argument_entry(slot.op, wraps and fill(KIND_VALUE, codec, 0, 0, 0) or nil, bytes,
        #bytes)
end

---Starts deleting a key; the result's number tells whether it was there.
---@return integer status
function core_entry.delete(slot, key)
    return C.rc_delete(slot.op, key, #key)
end

---Copies what a result holds.
---@return integer kind
---@return integer codec
---@return integer flags of the entry
---@return string bytes
function core_entry.read(slot)
    local result = slot.result
    return result.kind, result.codec, result.entry_flags, ffi.string(result.data, result.len)
end

---What a read has found, if it is a value of that codec without flags and without a grace window.
---All of it is asked here, in one: code that waits is interpreted, and each look at a result costs
---there.
---@param codec table
---@return string|nil text a string in MessagePack, which needs no copy of its encoding
---@return string|nil bytes else: the payload, to be decoded. Neither: it is anything else
function core_entry.plain_hit(slot, codec)
    local result = slot.result
    if result.outcome ~= HIT or result.kind ~= KIND_VALUE or result.codec ~= codec.id
        or result.entry_flags ~= 0 or result.stale_ms ~= 0 then
        return nil
    end
    local text = codec.name == "msgpack" and msgpack_string(result.data, tonumber(result.len))
    if text then
        return text
    end
    return nil, ffi.string(result.data, result.len)
end

---The whole stored string of a result that has a header.
---@return string
function core_entry.stored(slot)
    local result = slot.result
    return ffi.string(result.data - C.RC_HEADER_SIZE, result.len + C.RC_HEADER_SIZE)
end

---What the block at the beginning of a result's payload says, as core_extra.read.
---@return integer|nil size
function core_entry.extra(slot)
    local result = slot.result
    return core_extra.read(result.data, tonumber(result.len))
end

---The first four bytes of the version of the value in a result, as one number.
---@return integer
function core_entry.mark(slot)
    return tonumber(ffi.cast(marks_of, slot.result.version)[0])
end

---The version of the value in a result.
---@return string eight bytes
function core_entry.version(slot)
    return ffi.string(slot.result.version, 8)
end

---The text in a result: a loader's error.
---@return string
function core_entry.text(slot)
    local result = slot.result
    return result.data ~= nil and ffi.string(result.data, result.len) or ""
end

---The remaining life of the entry in a result: FOREVER, nil when not known, or seconds.
---@return number|redcache.Forever|nil life including the grace window
---@return number grace seconds
function core_entry.life(slot)
    local result = slot.result
    local ttl, grace = tonumber(result.ttl_ms), result.stale_ms / 1000
    if ttl == -1 then
        return FOREVER, 0
    elseif ttl < 0 then
        return nil, grace
    end
    return ttl / 1000, grace
end

---The whole number of a result.
---@return number
function core_entry.number(slot)
    return tonumber(slot.result.number)
end

return core_entry
