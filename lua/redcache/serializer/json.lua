--- json - Lua values as JSON text that any program can read. Needs lua-cjson for reading.
--
-- What comes back is what was stored: nil (as null), booleans, strings, finite numbers (17 digits
-- where they are needed), tables with the keys 1..n as arrays and tables with string keys as
-- objects. null inside tables is cjson.null (the same value as ngx.null), in both directions. An
-- empty table is written as {}, as cjson does. A metatable is neither asked nor stored. Strings are
-- written as they are: other bytes than UTF-8 come back, but other programs may refuse the text.
-- Integers beyond 2^53 in foreign text are read as the nearest double. Refused, because they would
-- come back as something else: NaN and infinity, 64-bit integers (cdata), tables with holes or with
-- keys of several kinds, functions, threads, userdata, tables more than 32 deep.
--
-- Writing is done here, not by cjson: Debian's cjson writes at most 14 digits and turns number keys
-- into strings.

local cjson = require "cjson"
local errors = require "redcache.errors"

local byte, format, gsub = string.byte, string.format, string.gsub
local concat = table.concat
local floor = math.floor
local next, type = next, type
local NULL = cjson.null

local MAX_DEPTH = 32
local SHORT_MAX = 1e14 -- Lua writes integers below it with all their digits and no exponent

local reader = cjson.new()
reader.decode_max_depth(MAX_DEPTH)
reader.decode_invalid_numbers(false)

local json = { name = "json", id = 2 }

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
for code = 0, 31 do
    local char = string.char(code)
    ESCAPES[char] = ESCAPES[char] or format("\\u%04x", code)
end
ESCAPES["\127"] = "\\u007f"

-- Reads byte by byte: a loop is compiled, string.find with a pattern is not.
local function needs_escape(text)
    for i = 1, #text do
        local code = byte(text, i)
        if code < 32 or code == 34 or code == 92 or code == 127 then
            return true
        end
    end
    return false
end

local function write_string(out, n, text)
    out[n + 1] = '"'
    out[n + 2] = needs_escape(text) and gsub(text, '[%c"\\]', ESCAPES) or text
    out[n + 3] = '"'
    return n + 3
end

local function number_text(number)
    if number == floor(number) and number < SHORT_MAX and number > -SHORT_MAX then
        return number == 0 and 1 / number < 0 and "-0" or tostring(number)
    end
    local text = format("%.14g", number)
    return tonumber(text) == number and text or format("%.17g", number)
end

-- The write functions append to `out` behind its first n strings. They return the new n, or nil and
-- a message.
local function write_scalar(out, n, value, kind)
    if kind == "string" then
        return write_string(out, n, value)
    elseif kind == "number" then
        if value ~= value or value == math.huge or value == -math.huge then
            return nil, "cannot store NaN or infinity as JSON"
        end
        out[n + 1] = number_text(value)
    elseif kind == "boolean" then
        out[n + 1] = value and "true" or "false"
    elseif kind == "userdata" and value == NULL then
        out[n + 1] = "null"
    elseif kind == "cdata" then
        return nil, "cannot store a cdata value (64-bit integer or other) as JSON"
    else
        return nil, "cannot store a " .. kind .. " value"
    end
    return n + 1
end

local write_table

local function write_array(out, n, values, count, depth)
    local message
    for i = 1, count do
        n = n + 1
        out[n] = i == 1 and "[" or ","
        local value = values[i]
        local kind = type(value)
        if kind == "table" then
            n, message = write_table(out, n, value, depth + 1)
        else
            n, message = write_scalar(out, n, value, kind)
        end
        if not n then
            return nil, message
        end
    end
    out[n + 1] = "]"
    return n + 1
end

local function write_object(out, n, values, depth)
    local message
    local separator = "{"
    for key, value in next, values do
        out[n + 1] = separator
        n = write_string(out, n + 1, key) + 1
        out[n] = ":"
        local kind = type(value)
        if kind == "table" then
            n, message = write_table(out, n, value, depth + 1)
        else
            n, message = write_scalar(out, n, value, kind)
        end
        if not n then
            return nil, message
        end
        separator = ","
    end
    out[n + 1] = "}"
    return n + 1
end

-- Returns "array" and its length, "object", or nil and a message.
local function shape_of(values)
    local count, highest, strings = 0, 0, 0
    for key in next, values do
        local kind = type(key)
        if kind == "string" then
            strings = strings + 1
        elseif kind ~= "number" then
            return nil, "cannot store a table with a " .. kind .. " as a key as JSON"
        elseif key < 1 or key ~= floor(key) then
            return nil, "cannot store a table with number keys other than 1..n as JSON"
        elseif key > highest then
            highest = key
        end
        count = count + 1
    end
    if strings == count then
        return "object"
    elseif strings > 0 then
        return nil, "cannot store a table with both string and number keys as JSON"
    elseif highest ~= count then
        return nil, "cannot store an array with holes as JSON"
    end
    return "array", count
end

function write_table(out, n, values, depth)
    if depth > MAX_DEPTH then
        return nil, "cannot store a table that is more than 32 levels deep or contains itself"
    end
    if next(values) == nil then
        out[n + 1] = "{}"
        return n + 1
    end
    local shape, detail = shape_of(values)
    if shape == "object" then
        return write_object(out, n, values, depth)
    elseif shape == "array" then
        return write_array(out, n, values, detail, depth)
    end
    return nil, detail
end

---@param value any
---@return boolean ok
---@return string text or, when not ok, a message
function json.encode(value)
    local kind = type(value)
    if kind == "nil" then
        return true, "null"
    elseif kind == "userdata" and value == NULL then
        return false, "cannot store a null by itself: use nil"
    end
    local out = {}
    local n, message
    if kind == "table" then
        n, message = write_table(out, 0, value, 1)
    else
        n, message = write_scalar(out, 0, value, kind)
    end
    if not n then
        return false, message
    end
    return true, concat(out, "", 1, n)
end

---@param text string untrusted
---@return boolean ok
---@return any value or, when not ok, a message
function json.decode(text)
    local ok, value = pcall(reader.decode, text)
    if not ok then
        return false, "could not decode json: " .. errors.text(value)
    elseif value == NULL then
        return true, nil
    end
    return true, value
end

return json
