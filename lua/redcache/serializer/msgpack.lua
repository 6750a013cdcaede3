--- msgpack - Lua values as MessagePack, the default serializer.
--
-- What comes back is what was stored:
--   nil, booleans, strings of any bytes, every number (-0.0, inf and NaN too);
--   LuaJIT's int64_t and uint64_t as such; other cdata is refused;
--   tables with the keys 1..n as arrays, every other table as a map whose keys are strings, numbers
--     or booleans;
--   cjson.null (the same value as ngx.null) inside tables, where cjson is installed; without it, it
--     reads as nil;
--   an empty table, written as an empty array. A metatable is neither asked nor stored.
-- Refused: functions, threads, userdata, tables more than 32 deep, and so tables that contain
-- themselves; more than 65,536 tables and one more per 4 bytes of what is written.
--
-- So reading takes a bounded share of memory, whatever stands in Redis: at most 48 times the bytes
-- and 8 MiB, and work in proportion. Where not even that is there, decoding fails like any other.
--
-- Reading: C checks the untrusted bytes as a whole and lists their elements as flat tokens
-- (core/codec/msgpack.h); Lua only builds tables from the list. Writing: Lua writes bytes into one
-- buffer. Both compile to machine code; bench/codecs.lua compares them with other ways.

local constants = require "redcache.core.constants"
local core_bytes = require "redcache.core.bytes"
local errors = require "redcache.errors"
local bit = require "bit"

local band, rshift = bit.band, bit.rshift
local floor = math.floor
local sub = string.sub
local getmetatable, next, type = getmetatable, next, type
local msgpack_scan, give_tokens = core_bytes.msgpack_scan, core_bytes.give_tokens
local copy_string = core_bytes.copy
local put_double, put_integer64 = core_bytes.put_double, core_bytes.put_integer64

local has_new, new_table = pcall(require, "table.new") -- not in every build
if not has_new then
    new_table = function()
        return {}
    end
end
local has_nkeys, count_keys = pcall(require, "table.nkeys") -- OpenResty's LuaJIT only
if not has_nkeys then
    count_keys = function(values)
        local count = 0
        for _ in next, values do
            count = count + 1
        end
        return count
    end
end
local has_cjson, cjson = pcall(require, "cjson")
local NULL = has_cjson and cjson.null or nil

-- As RC_MSGPACK_DEPTH, _TABLES and _TABLE_BYTES in C: what is written can be read.
local MAX_DEPTH, FREE_TABLES, TABLE_BYTES = 32, 65536, 4
local FIRST_ROOM = 4096
local KEPT_ROOM = 1048576 -- a larger buffer is given back after its value
local EXACT_MAX = 9007199254740992 -- 2^53: a double holds every integer up to it
local HOLE = -2 -- put_array found that the table is none

-- Kinds of tokens, as RC_TOKEN_* in C.
local NIL, FALSE, TRUE, NUMBER, STRING, ARRAY, MAP, INT64, UINT64 = 0, 1, 2, 3, 4, 5, 6, 7, 8

local msgpack = { name = "msgpack", id = 3 }

-- Writing. The buffer is scratch of this Lua state; `at` is where the next byte goes. Every put_*
-- function makes room first and returns the new `at`, or a negative number after setting `refusal`.
local bytes = core_bytes.buffer(FIRST_ROOM)
local room = FIRST_ROOM
local refusal
local table_count -- of the value that is written

local writing = false -- a value into `bytes`; its finalizers get buffers of their own

-- Calls what takes much memory: an error leaves a buffer that can be used.
local function guarded(take_memory, ...)
    local ok, result = pcall(take_memory, ...)
    if not ok then
        writing = false
        error(result, 0)
    end
    return result
end

local function grow(at, more)
    local larger = room
    repeat
        larger = larger * 2
    until larger >= at + more
    bytes = guarded(core_bytes.buffer, larger, bytes, at)
    room = larger
end

local function refuse(message)
    refusal = message
    return -1
end

-- The put_big functions are called after room was made.
local function put_big16(at, number)
    bytes[at] = rshift(number, 8)
    bytes[at + 1] = band(number, 255)
    return at + 2
end

local function put_big32(at, number)
    bytes[at] = band(rshift(number, 24), 255)
    bytes[at + 1] = band(rshift(number, 16), 255)
    bytes[at + 2] = band(rshift(number, 8), 255)
    bytes[at + 3] = band(number, 255)
    return at + 4
end

local function put_big64(at, number)
    local high = floor(number / 4294967296)
    return put_big32(put_big32(at, high), number - high * 4294967296)
end

local function put_float(at, number)
    bytes[at] = 0xcb
    put_double(bytes, at + 1, number)
    return at + 9
end

local function put_natural(at, number)
    if number < 128 then
        if number == 0 and 1 / number < 0 then
            return put_float(at, number) -- -0.0
        end
        bytes[at] = number
        return at + 1
    elseif number < 256 then
        bytes[at] = 0xcc
        bytes[at + 1] = number
        return at + 2
    elseif number < 65536 then
        bytes[at] = 0xcd
        return put_big16(at + 1, number)
    elseif number < 4294967296 then
        bytes[at] = 0xce
        return put_big32(at + 1, number)
    end
    bytes[at] = 0xcf
    return put_big64(at + 1, number)
end

local function put_negative(at, number)
    if number >= -32 then
        bytes[at] = 256 + number
        return at + 1
    elseif number >= -128 then
        bytes[at] = 0xd0
        bytes[at + 1] = 256 + number
        return at + 2
    elseif number >= -32768 then
        bytes[at] = 0xd1
        return put_big16(at + 1, 65536 + number)
    elseif number >= -2147483648 then
        bytes[at] = 0xd2
        return put_big32(at + 1, number)
    end
    bytes[at] = 0xd3
    return put_big64(at + 1, number)
end

local function put_number(at, number)
    if at + 9 > room then
        grow(at, 9)
    end
    if number ~= floor(number) or number > EXACT_MAX or number < -EXACT_MAX then
        return put_float(at, number)
    elseif number >= 0 then
        return put_natural(at, number)
    end
    return put_negative(at, number)
end

local function put_string(at, text)
    local len = #text
    if at + len + 5 > room then
        grow(at, len + 5)
    end
    if len < 32 then
        bytes[at] = 0xa0 + len
        at = at + 1
    elseif len < 256 then
        bytes[at] = 0xd9
        bytes[at + 1] = len
        at = at + 2
    elseif len < 65536 then
        bytes[at] = 0xda
        at = put_big16(at + 1, len)
    else
        bytes[at] = 0xdb
        at = put_big32(at + 1, len)
    end
    copy_string(bytes, at, text)
    return at + len
end

local function put_byte(at, byte)
    if at == room then
        grow(at, 1)
    end
    bytes[at] = byte
    return at + 1
end

local function put_cdata(at, number)
    if at + 10 > room then
        grow(at, 10)
    end
    local len = put_integer64(bytes, at, number)
    return len and at + len or refuse("cannot store a cdata value")
end

local function put_rare(at, value, kind)
    if kind == "cdata" then
        return put_cdata(at, value)
    elseif kind == "userdata" and value == NULL then
        return put_byte(at, 0xc0)
    end
    return refuse("cannot store a " .. kind .. " value")
end

local function put_scalar(at, value, kind)
    if kind == "string" then
        return put_string(at, value)
    elseif kind == "number" then
        return put_number(at, value)
    elseif kind == "boolean" then
        return put_byte(at, value and 0xc3 or 0xc2)
    end
    return put_rare(at, value, kind)
end

local function put_key(at, key, kind)
    if kind == "string" then
        return put_string(at, key)
    elseif kind == "number" or kind == "boolean" then
        return put_scalar(at, key, kind)
    end
    return refuse("cannot store a table with a " .. kind .. " as a key")
end

local function put_count(at, count, short, long)
    if at + 5 > room then
        grow(at, 5)
    end
    if count < 16 then
        bytes[at] = short + count
        return at + 1
    elseif count < 65536 then
        bytes[at] = long
        return put_big16(at + 1, count)
    end
    bytes[at] = long + 1
    return put_big32(at + 1, count)
end

local put_table

local function put_array(at, values, count, depth)
    at = put_count(at, count, 0x90, 0xdc)
    for i = 1, count do
        local value = values[i]
        local kind = type(value)
        if kind == "table" then
            at = put_table(at, value, depth + 1)
        elseif kind == "nil" then
            return HOLE
        else
            at = put_scalar(at, value, kind)
        end
        if at < 0 then
            return -1
        end
    end
    return at
end

local function put_map(at, values, count, depth)
    at = put_count(at, count, 0x80, 0xde)
    for key, value in next, values do
        at = put_key(at, key, type(key))
        if at < 0 then
            return -1
        end
        local kind = type(value)
        if kind == "table" then
            at = put_table(at, value, depth + 1)
        else
            at = put_scalar(at, value, kind)
        end
        if at < 0 then
            return -1
        end
    end
    return at
end

-- A table with a metatable is copied, so that reading its fields runs none of the user's code.
local function plain(values)
    local copy = {}
    for key, value in next, values do
        copy[key] = value
    end
    return copy
end

function put_table(at, values, depth)
    if depth > MAX_DEPTH then
        return refuse("cannot store a table that is more than 32 levels deep or contains itself")
    end
    table_count = table_count + 1
    if getmetatable(values) ~= nil then
        values = plain(values)
    end
    local count = count_keys(values)
    if count == #values then
        local behind = put_array(at, values, count, depth)
        if behind ~= HOLE then
            return behind
        end
    end
    return put_map(at, values, count, depth)
end

local function put_value(value)
    local kind = type(value)
    if kind == "table" then
        return put_table(0, value, 1)
    elseif kind == "nil" then
        return put_byte(0, 0xc0)
    elseif kind == "userdata" and value == NULL then
        return refuse("cannot store a null by itself: use nil")
    end
    return put_scalar(0, value, kind)
end

local function write(value)
    table_count = 0
    local len = put_value(value)
    if len < 0 then
        return false, refusal
    elseif table_count > FREE_TABLES + floor(len / TABLE_BYTES) then
        return false, "cannot store so many small tables: more than 65,536 and one per 4 bytes"
    elseif len > FIRST_ROOM then
        return true, guarded(core_bytes.string, bytes, len)
    end
    return true, core_bytes.string(bytes, len)
end

-- Within a finalizer, which may run at any allocation of the encode that is under way.
local function encode_nested(value)
    local outer_bytes, outer_room, outer_count = bytes, room, table_count
    bytes, room = core_bytes.buffer(FIRST_ROOM), FIRST_ROOM
    local no_error, ok, encoded = pcall(write, value)
    bytes, room, table_count, writing = outer_bytes, outer_room, outer_count, true
    if not no_error then
        error(ok, 0)
    end
    return ok, encoded
end

---Throws where memory runs out.
---@param value any
---@return boolean ok
---@return string encoded or, when not ok, a message
function msgpack.encode(value)
    if writing then
        return encode_nested(value)
    end
    writing = true
    local ok, encoded = write(value)
    writing = false
    if room > KEPT_ROOM then
        bytes, room = core_bytes.buffer(FIRST_ROOM), FIRST_ROOM
    end
    return ok, encoded
end

-- Reading. The scan has checked that the tokens fit together; `at` is the next token's index.
local function scalar(token, kind, source)
    if kind == STRING then
        local offset = token.offset
        return sub(source, offset + 1, offset + token.count)
    elseif kind == NUMBER then
        return token.number
    elseif kind == TRUE then
        return true
    elseif kind == FALSE then
        return false
    elseif kind == INT64 then
        return token.int64
    elseif kind == UINT64 then
        return token.uint64
    end
    return NULL
end

local build

local function build_array(tokens, at, source)
    local count = tokens[at].count
    local values = new_table(count, 0)
    at = at + 1
    for i = 1, count do
        local kind = tokens[at].type
        if kind == MAP or kind == ARRAY then
            values[i], at = build(tokens, at, source, kind)
        else
            values[i] = scalar(tokens[at], kind, source)
            at = at + 1
        end
    end
    return values, at
end

function build(tokens, at, source, kind)
    if kind == ARRAY then
        return build_array(tokens, at, source)
    end
    local count = tokens[at].count
    local values = new_table(0, count)
    at = at + 1
    for _ = 1, count do
        local key = scalar(tokens[at], tokens[at].type, source)
        kind = tokens[at + 1].type
        if kind == MAP or kind == ARRAY then
            values[key], at = build(tokens, at + 1, source, kind)
        else
            values[key] = scalar(tokens[at + 1], kind, source)
            at = at + 2
        end
    end
    return values, at
end

-- A value of more tokens than an array holds is read window by window: `next_at` is the place of
-- the next token in it, `filled` its end.
local function new_window(source, tokens, window_room)
    return { scan = core_bytes.msgpack_begin(), source = source, tokens = tokens,
        room = window_room, next_at = 0, filled = 0 }
end

local function next_token(window)
    local at = window.next_at
    if at == window.filled then
        window.filled =
            core_bytes.msgpack_part(window.scan, window.source, window.tokens, window.room)
        at = 0
    end
    window.next_at = at + 1
    return window.tokens[at]
end

local function build_large(window)
    local token = next_token(window)
    local kind, count = token.type, token.count -- the next token may stand in its place
    if kind ~= MAP and kind ~= ARRAY then
        return scalar(token, kind, window.source)
    elseif kind == ARRAY then
        local values = new_table(count, 0)
        for i = 1, count do
            values[i] = build_large(window)
        end
        return values
    end
    local values = new_table(0, count)
    for _ = 1, count do
        local key = build_large(window)
        values[key] = build_large(window)
    end
    return values
end

-- Why rc_msgpack_scan has refused it.
local function refusal_of(status)
    return status == constants.TOOLARGE
        and "could not decode msgpack: more arrays and maps than so few bytes may hold"
        or "could not decode msgpack: not one whole value of the supported kinds"
end

local function read(encoded)
    local count, tokens, token_room = msgpack_scan(encoded)
    if count < 0 then
        give_tokens(tokens, token_room)
        return false, refusal_of(count)
    end
    local kind = tokens[0].type
    local value
    if count > token_room then
        value = build_large(new_window(encoded, tokens, token_room))
    elseif kind == MAP or kind == ARRAY then
        value = build(tokens, 0, encoded, kind)
    elseif kind ~= NIL then
        value = scalar(tokens[0], kind, encoded)
    end
    give_tokens(tokens, token_room)
    return true, value
end

---@param encoded string untrusted
---@return boolean ok
---@return any value or, when not ok, a message
function msgpack.decode(encoded)
    if #encoded <= FIRST_ROOM then
        return read(encoded) -- it takes a page or two: a process without them is at its end
    end
    local no_error, ok, value = pcall(read, encoded)
    if not no_error then
        return false, "could not decode msgpack: " .. errors.text(ok) -- no memory
    end
    return ok, value
end

return msgpack
