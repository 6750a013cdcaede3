-- key - keys made of parts, that no other parts make, and read back.
--
-- What:   parts are joined by ":"; what a part holds of ":" and "%" is written as "%" and two hex
--         digits, so the parts can be told apart whatever they are. Filters become the SHA-1 of
--         their canonical text, or an HMAC of it, behind "#".
-- Errors: raised at the caller: a part or filter that is none of what is expected.
-- Not:    a hash tag's braces stay as they are: who puts them into a part wants its slot.

local bit = require("bit")
local core_digest = require("redcache.core.digest")
local errors = require("redcache.errors")

local sha1 = core_digest.sha1

local key = {}

local BLOCK = 64 -- bytes of SHA-1's
local MAX_DEPTH = 32 -- of filters

local function escaped(byte)
    return string.format("%%%02X", string.byte(byte))
end

-- Numbers as the shortest text that gives them back: 7, not 7.0; none is rounded. nil: not finite
local function number_text(number)
    if number ~= number or number == math.huge or number == -math.huge then
        return nil
    end
    local text = string.format("%.14g", number)
    return tonumber(text) == number and text or string.format("%.17g", number)
end

-- A part as it stands in a key, or nil where it is none.
local function part_text(part)
    if type(part) == "number" then
        part = number_text(part)
    elseif type(part) == "boolean" then
        part = tostring(part)
    end
    if type(part) ~= "string" then
        return nil
    end
    part = string.gsub(part, "[:%%]", escaped)
    -- "#" begins a hash, nothing else.
    return (string.gsub(part, "^#", escaped))
end

local function part_fault(what, method, part)
    return errors.argument(what, method, "string, finite number or boolean", part)
end

-- The text of a filter that no other one has: with its type, and its length. nil: it is none.
local canonical

local function canonical_table(value, depth)
    local parts = {}
    for name, inner in pairs(value) do
        local name_text, inner_text = canonical(name, depth + 1), canonical(inner, depth + 1)
        if not (name_text and inner_text) then
            return nil
        end
        parts[#parts + 1] = name_text .. inner_text
    end
    table.sort(parts)
    return "t" .. #parts .. ":" .. table.concat(parts)
end

function canonical(value, depth)
    local kind = type(value)
    if kind == "table" then
        return depth < MAX_DEPTH and canonical_table(value, depth) or nil
    elseif kind == "number" then
        value = number_text(value)
    end
    if value == nil or kind ~= "number" and kind ~= "string" and kind ~= "boolean" then
        return nil
    end
    value = tostring(value)
    return string.sub(kind, 1, 1) .. #value .. ":" .. value
end

local function bytes_of(hex)
    return (string.gsub(hex, "%x%x", function(pair)
        return string.char(tonumber(pair, 16))
    end))
end

-- HMAC of RFC 2104, over SHA-1.
local function hmac(secret, text)
    if #secret > BLOCK then
        secret = bytes_of(sha1(secret))
    end
    secret = secret .. string.rep("\0", BLOCK - #secret)
    local function pad(with)
        return (string.gsub(secret, ".", function(char)
            return string.char(bit.bxor(string.byte(char), with))
        end))
    end
    return sha1(pad(0x5c) .. bytes_of(sha1(pad(0x36) .. text)))
end

-- A key of all these parts, or nil and what is wrong.
local function join(method, count, ...)
    if count == 0 then
        return nil, "bad argument 'parts' to " .. method .. ": one part at least expected"
    end
    local parts = { ... }
    for i = 1, count do
        local text = part_text(parts[i])
        if text == nil then
            return nil, part_fault("part " .. i, method, (select(i, ...)))
        end
        parts[i] = text
    end
    return table.concat(parts, ":")
end

---A key of parts: redcache.key("user", 7, "posts") is "user:7:posts". Other parts make another key:
---a part's own ":" and "%" are escaped, and a "#" that it begins with. 7 and "7" are one part.
---@param ... string|number|boolean
---@return string key
function key.composite(...)
    local text, fault = join("key", select("#", ...), ...)
    return text or error(fault, 2)
end

---The key of one thing: "user:7".
---@param kind string
---@param id string|number
---@return string key
function key.entity(kind, id)
    local text, fault = join("entity", 2, kind, id)
    return text or error(fault, 2)
end

---The key of a session: "session:<id>".
---@param id string
---@return string key
function key.session(id)
    local text, fault = join("session", 2, "session", id)
    return text or error(fault, 2)
end

---The key of a list that filters choose: "users:#<hash>". Equal filters make one key, in whatever
---order their fields were set; 1 and "1", true and "true" are not equal there.
---@param kind string
---@param filters table of strings, finite numbers, booleans, and tables of these, 32 levels deep
---@param secret? string with it nobody else can tell which filters a hash is of (HMAC)
---@return string key
function key.list(kind, filters, secret)
    local name = part_text(kind)
    local text = type(filters) == "table" and canonical(filters, 0)
    if name == nil then
        error(part_fault("kind", "list", kind), 2)
    elseif not text then
        error(errors.argument("filters", "list", "table of strings, finite numbers, booleans and"
            .. " such tables", filters), 2)
    elseif secret ~= nil and (type(secret) ~= "string" or secret == "") then
        error(errors.argument("secret", "list", "string that is not empty", secret), 2)
    end
    return name .. ":#" .. (secret and hmac(secret, text) or sha1(text))
end

---The parts that a key was made of, as texts, and the hash of its filters.
---@param text string
---@return string[] parts
---@return string|nil hash 40 hex digits
function key.parse(text)
    if type(text) ~= "string" then
        error(errors.argument("key", "parse", "string", text), 2)
    end
    local parts, hash = {}, string.match(text, ":#(" .. string.rep("%x", 40) .. ")$")
    if hash then
        text = string.sub(text, 1, -43)
    end
    for part in string.gmatch(text .. ":", "([^:]*):") do
        parts[#parts + 1] = string.gsub(part, "%%(%x%x)", function(hex)
            return string.char(tonumber(hex, 16))
        end)
    end
    return parts, hash
end

---A text as a pattern of scan that only it fits.
---@param text string
---@return string pattern
function key.literal(text)
    if type(text) ~= "string" then
        error(errors.argument("text", "literal", "string", text), 2)
    end
    return (string.gsub(text, "[%*%?%[%]\\]", "\\%0"))
end

return setmetatable(key, {
    __call = function(_, ...)
        local text, fault = join("key", select("#", ...), ...)
        return text or error(fault, 2)
    end,
})
