-- near_many - looks up to 128 keys up in this machine's memory by one call into C.
--
-- Memory: what was found stays readable in a batch until the next look with that batch. Each call
--         borrows one, so that a finalizer that reads meanwhile has another.
-- Not:    decoding, L0 (redcache.near). Entries that a reader looks at more closely are looked up
--         again by core/near.lua.

local bit = require("bit")
local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_bytes = require("redcache.core.bytes")

local string_of, text_of = ffi.string, core_bytes.msgpack_string
local lshift = bit.lshift
local batch_of = ffi.typeof("rc_near_many")

local near_many = {
    MANY = C.RC_NEAR_MANY,
    -- band(what(), PLAIN) == NEGATIVE: "no such thing", and nothing in front of it, whatever codec.
    PLAIN = bit.tobit(0xff00ffff), NEGATIVE = C.RC_NEAR_HIT + C.RC_KIND_NEGATIVE * 256,
}

local has_new, new_table = pcall(require, "table.new") -- not in every build
local function new_keys()
    return has_new and new_table(near_many.MANY, 0) or {}
end

local idle -- nil while lent

---@return table batch data, which the functions below take, and keys, from 0; the caller's until
---give(batch)
function near_many.take()
    local batch = idle
    idle = nil
    return batch or { data = batch_of(), keys = new_keys() }
end

function near_many.give(batch)
    idle = batch
end

---What what() tells of a value of this codec with nothing in front of it.
---@param codec_id integer
---@return integer
function near_many.value_of(codec_id)
    return C.RC_NEAR_HIT + C.RC_KIND_VALUE * 256 + lshift(codec_id, 16)
end

---Makes keys[first] to keys[last], all of them strings, those of the batch: 0 to last - first.
---@param batch table
---@param keys string[]
---@param first integer
---@param last integer less than first + MANY
function near_many.fill(batch, keys, first, last)
    local data, held = batch.data, batch.keys
    for i = first, last do
        local key, at = keys[i], i - first
        held[at] = key -- C goes by its address, whatever becomes of the caller's list
        data.keys[at], data.key_lens[at] = key, #key
    end
end

---Looks the batch's keys `from` to `to` - 1 up.
---@param view ffi.cdata*
---@param data ffi.cdata* of the batch
---@param from integer
---@param to integer
---@param max_stale_us integer
---@return integer done key `done` is the first that was not looked up: `bytes` is full
function near_many.look(view, data, from, to, max_stale_us)
    local done = C.rc_view_get_many(view, data, from, to, max_stale_us)
    return done
end

---As if none of them were there.
function near_many.forget(data, from, to)
    for at = from, to - 1 do
        data.found[at].what = C.RC_NEAR_MISS
    end
end

---What the last look has found of the batch's key `at`.
---@return integer what
function near_many.what(data, at)
    return data.found[at].what
end

---Copies the payload of a hit.
---@return string
function near_many.bytes(data, at)
    return string_of(data.bytes + data.found[at].at, data.found[at].len)
end

---The string, where the payload of a hit is one string in MessagePack.
---@return string|nil text nil: it is something else, or longer than 65,535 bytes
function near_many.msgpack_string(data, at)
    return text_of(data.bytes + data.found[at].at, data.found[at].len)
end

return near_many
