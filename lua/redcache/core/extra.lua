-- extra - the block in front of the payload of an entry that tells more of itself than its header.
--
-- What:   0     2      3     4        8         12        16
--         size  parts  tags  life_ms  stale_ms  load_ms   tag ...   then the payload
--
--         Little-endian. size is the whole block's. parts is 1; a reader that finds another number
--         takes the entry for one of a later version. life_ms is the time to live at the moment it
--         was stored, without the grace window (0: no end); stale_ms, the grace window, and load_ms
--         are the header's, of which the near cache keeps no copy. A tag is two generations of
--         eight bytes, hard and soft, the length of its name (one byte) and its name.
-- Memory: reads in place.
-- Not:    what follows from it (freshness.lua); a header has the flag RC_ENTRY_EXTRA.

local bit = require("bit")
local ffi = require("ffi")
local C = require("redcache.core.ffi")

local band, rshift = bit.band, bit.rshift
local bytes_of = ffi.typeof("const uint8_t *")

local HEAD, PARTS, TAG_GENERATIONS = 16, 1, 16
local MAX_MS = 2 ^ 32 - 1

local core_extra = {
    -- Bytes of a tag in a block beside its name.
    TAG = TAG_GENERATIONS + 1,
    FLAG = C.RC_ENTRY_EXTRA,
    CAPPED = C.RC_ENTRY_CAPPED,
}

local function u32(number)
    number = bit.tobit(math.min(number, MAX_MS))
    return string.char(band(number, 255), band(rshift(number, 8), 255),
        band(rshift(number, 16), 255), rshift(number, 24))
end

---A block.
---@param life_ms integer 0: no end
---@param stale_ms integer
---@param load_ms integer
---@param tags? string as they stand in the block; at most 16
---@param tag_count? integer
---@return string
function core_extra.write(life_ms, stale_ms, load_ms, tags, tag_count)
    tags = tags or ""
    local size = HEAD + #tags
    return string.char(size % 256, math.floor(size / 256), PARTS, tag_count or 0) .. u32(life_ms)
        .. u32(stale_ms) .. u32(load_ms) .. tags
end

local function read_u32(bytes, at)
    return bytes[at] + bytes[at + 1] * 256 + bytes[at + 2] * 65536 + bytes[at + 3] * 16777216
end

---What the block at the beginning of a payload says.
---@param data ffi.cdata*|string
---@param len integer of the payload
---@return integer|nil size of the block; nil: this version cannot read it
---@return integer life_ms
---@return integer stale_ms
---@return integer load_ms
---@return integer tag_count
function core_extra.read(data, len)
    if len < HEAD then
        return nil, 0, 0, 0, 0
    end
    local bytes = ffi.cast(bytes_of, data)
    local size = bytes[0] + bytes[1] * 256
    if size < HEAD or size > len or bytes[2] ~= PARTS then
        return nil, 0, 0, 0, 0
    end
    return size, read_u32(bytes, 4), read_u32(bytes, 8), read_u32(bytes, 12), bytes[3]
end

---The tags in a block, as they stand there.
---@param block string that core_extra.read can read
---@return string
function core_extra.tag_bytes(block)
    return string.sub(block, HEAD + 1, (core_extra.read(block, #block)))
end

---The tags in a block.
---@param block string a payload that begins with one
---@return table[]|nil tags name, generations (sixteen bytes); nil: it is no such block
function core_extra.tags(block)
    local size, _, _, _, count = core_extra.read(block, #block)
    local list, at = {}, HEAD
    for i = 1, size and count or 0 do
        local name_len = string.byte(block, at + TAG_GENERATIONS + 1)
        local next_at = at + TAG_GENERATIONS + 1 + (name_len or 0)
        if name_len == nil or next_at > size then
            return nil
        end
        list[i] = {
            generations = string.sub(block, at + 1, at + TAG_GENERATIONS),
            name = string.sub(block, at + TAG_GENERATIONS + 2, next_at),
        }
        at = next_at
    end
    return at == size and list or nil
end

return core_extra
