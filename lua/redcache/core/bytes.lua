-- bytes - bytes in bulk, for MessagePack: tokens of what is read, a buffer for what is written.
--
-- Memory: the array of tokens is lent, one at a time; buffers are their makers'.

local ffi = require("ffi")
local C = require("redcache.core.ffi")

local core_bytes = {}

-- Reading -----------------------------------------------------------------------------------------

local tokens_of = ffi.typeof("rc_token[?]")
local scan_of = ffi.typeof("rc_scan")
local FIRST_TOKENS = 256
local TOKENS_KEPT = 65536 -- 1 MiB; no array is larger
local idle_tokens -- nil while lent: a finalizer may decode while somebody else builds tables
local idle_room = 0

---Splits MessagePack into tokens, where they fit into an array.
---@param bytes string
---@return integer count below 0: not MessagePack, or over a limit; over room: see msgpack_part
---@return ffi.cdata* tokens the caller's until give_tokens(tokens, room)
---@return integer room of the array
function core_bytes.msgpack_scan(bytes)
    local tokens, room = idle_tokens, idle_room
    idle_tokens = nil
    if not tokens then
        tokens, room = tokens_of(FIRST_TOKENS), FIRST_TOKENS
    end
    local count = C.rc_msgpack_scan(bytes, #bytes, tokens, room)
    if count > room and room < TOKENS_KEPT then
        room = count < TOKENS_KEPT and count or TOKENS_KEPT
        tokens = tokens_of(room)
        count = C.rc_msgpack_scan(bytes, #bytes, tokens, room)
    end
    return count, tokens, room
end

---@return ffi.cdata* scan of a value that msgpack_part is going to read
function core_bytes.msgpack_begin()
    return scan_of()
end

---The next tokens of a value that msgpack_scan has found good.
---@param scan ffi.cdata*
---@return integer count
function core_bytes.msgpack_part(scan, bytes, tokens, room)
    return C.rc_msgpack_next(scan, bytes, #bytes, tokens, room)
end

---Lends the array to the next scan; without this it would make a new one.
function core_bytes.give_tokens(tokens, room)
    if room <= TOKENS_KEPT then
        idle_tokens, idle_room = tokens, room
    end
end

local bytes_of = ffi.typeof("const uint8_t *")
local cast, string_of = ffi.cast, ffi.string

---The string, where MessagePack in the core's memory is one string: the most common value needs no
---copy of its encoding.
---@param payload ffi.cdata* pointer
---@param len integer
---@return string|nil text nil: it is something else, or longer than 65,535 bytes
function core_bytes.msgpack_string(payload, len)
    local data = cast(bytes_of, payload)
    local head = len > 0 and data[0] or 0
    if head == 0xd9 and len >= 2 and data[1] == len - 2 then
        return string_of(data + 2, len - 2)
    elseif head >= 0xa0 and head <= 0xbf and head - 0xa0 == len - 1 then
        return string_of(data + 1, len - 1)
    elseif head == 0xda and len >= 3 and data[1] * 256 + data[2] == len - 3 then
        return string_of(data + 3, len - 3)
    end
    return nil
end

-- Writing -----------------------------------------------------------------------------------------

local buffer_of = ffi.typeof("uint8_t[?]")
local copy = ffi.copy

---A byte buffer of `size` bytes; it begins with the first `used` bytes of `old`.
function core_bytes.buffer(size, old, used)
    local buffer = buffer_of(size)
    if old then
        copy(buffer, old, used)
    end
    return buffer
end

---Copies `text` to buffer[at]. The caller has made room.
function core_bytes.copy(buffer, at, text)
    copy(buffer + at, text, #text)
end

function core_bytes.string(buffer, len)
    return string_of(buffer, len)
end

local wide = ffi.new("union { double number; int64_t int64; uint64_t uint64; uint8_t bytes[8]; }")
local LITTLE = ffi.abi("le")
local function put_wide(buffer, at)
    local from = wide.bytes
    if LITTLE then
        buffer[at], buffer[at + 1], buffer[at + 2] = from[7], from[6], from[5]
        buffer[at + 3], buffer[at + 4], buffer[at + 5] = from[4], from[3], from[2]
        buffer[at + 6], buffer[at + 7] = from[1], from[0]
    else
        copy(buffer + at, from, 8)
    end
end

---Writes 8 bytes, big-endian.
function core_bytes.put_double(buffer, at, number)
    wide.number = number
    put_wide(buffer, at)
end

local int64_type, uint64_type = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

---Writes an int64_t or uint64_t as MessagePack: 9 bytes beyond 2^53, 10 (an extension, see
---core/codec/msgpack.h) within. The caller has made room.
---@return integer|nil len nil for any other cdata
function core_bytes.put_integer64(buffer, at, integer)
    local head, kind, exact
    if ffi.istype(int64_type, integer) then
        wide.int64 = integer
        head, kind = 0xd3, 0x69
        exact = integer >= -9007199254740992LL and integer <= 9007199254740992LL
    elseif ffi.istype(uint64_type, integer) then
        wide.uint64 = integer
        head, kind, exact = 0xcf, 0x75, integer <= 9007199254740992ULL
    else
        return nil
    end
    if not exact then
        buffer[at] = head
        put_wide(buffer, at + 1)
        return 9
    end
    buffer[at], buffer[at + 1] = 0xd7, kind
    put_wide(buffer, at + 2)
    return 10
end

return core_bytes
