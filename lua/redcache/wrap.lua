-- wrap - a function whose results are remembered: cache:wrap.
--
-- What:   the key is the name and the arguments in one canonical text; all else is remember's.
--         Different arguments have different texts: numbers and strings are told apart, tables are
--         written by their sorted keys.
-- Not:    no second way to load: who calls a wrapped function calls remember.

local core_number = require("redcache.core.number")
local errors = require("redcache.errors")
local options = require("redcache.options")

local wrap = {}

-- As deep as both codecs go.
local MAX_DEPTH = 32

local function plain_number(number)
    if number == 0 then
        return "0" -- and not "-0", which equals it
    elseif number ~= number then
        return "nan"
    end
    local text = string.format("%.14g", number)
    return tonumber(text) == number and text or string.format("%.17g", number)
end

local text_of

-- A table by its keys: "{1=..., "a"=...}". Keys are sorted as texts.
local function table_text(value, depth)
    if getmetatable(value) ~= nil then
        return nil, "a table with a metatable"
    elseif depth >= MAX_DEPTH then
        return nil, "tables more than " .. MAX_DEPTH .. " levels deep"
    end
    local parts = {}
    for key, inner in next, value do
        local kind = type(key)
        if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
            return nil, "a " .. kind .. " as the key of a table"
        end
        local text, fault = text_of(inner, depth + 1)
        if text == nil then
            return nil, fault
        end
        parts[#parts + 1] = text_of(key, depth) .. "=" .. text
    end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
end

-- Strings stand in quotes, so that no text of one value is that of another, or of two.
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }

function text_of(value, depth)
    local kind = type(value)
    if kind == "number" then
        return plain_number(value)
    elseif kind == "string" then
        return '"' .. string.gsub(value, '["\\]', ESCAPES) .. '"'
    elseif kind == "boolean" or kind == "nil" then
        return tostring(value)
    elseif kind == "table" then
        return table_text(value, depth)
    elseif core_number.is_int64(value) then
        return tostring(value)
    end
    return nil, "a " .. kind
end

-- The arguments of one call as text; nils at the end say nothing. text | nil, message
local function arguments_text(method, count, ...)
    local given, parts = { ... }, {}
    while count > 0 and given[count] == nil do
        count = count - 1
    end
    for i = 1, count do
        local text, fault = text_of(given[i], 0)
        if text == nil then
            return nil, ("bad argument #%d to %s: nil, boolean, number, string, int64 or a table of"
                .. " them expected, got %s (see the option key)"):format(i, method, fault)
        end
        parts[i] = text
    end
    return table.concat(parts, ",")
end

-- The key of one call. key | nil, message
local function key_of(name, own_key, ...)
    local text, fault
    if own_key == nil then
        text, fault = arguments_text(name, select("#", ...), ...)
    else
        text = own_key(...)
        if type(text) ~= "string" then
            fault = "the option key of " .. name .. " must return a string, and gave a "
                .. type(text)
        end
    end
    if fault then
        return nil, fault
    end
    return name .. ":" .. text
end

---A function whose results are remembered: fn runs once for everybody who calls it with equal
---arguments while its result lives.
---
---Arguments are nil, booleans, numbers, strings, int64 cdata, and tables of them without
---a metatable, up to 32 levels deep; any other one raises an error, unless the option key says what
---the arguments are called. Nils at the end count as left out. The key is name, ":" and the
---arguments: load_user(7, "a") is 'user:7,"a"'.
---@param name string not empty; one function, one name
---@param fn fun(...): any, any, any called with the arguments of the call; returns what a loader of
---remember returns: value, ttl | nil, err | nil
---@param opts? table ttl (seconds or FOREVER; the cache's ttl), key (function(...) -> string: what
---stands behind the name), and the options of remember
---@return fun(...): any, redcache.Error|nil, string|nil, string|nil wrapped returns what remember
---returns: a nil with a source is a remembered "no such thing", an error of fn stands in err.cause
---@return fun(...): string key_of the key of such a call, for delete, getMulti, touch and so on
function wrap.wrap(self, name, fn, opts)
    if type(name) ~= "string" or name == "" then
        error(errors.argument("name", "wrap", "string that is not empty", name), 2)
    elseif type(fn) ~= "function" then
        error(errors.argument("fn", "wrap", "function", fn), 2)
    end
    local own, message = options.read({}, opts, "wrap", "wrap")
    message = message or options.plain_fault(own, self._settings.plain, "wrap")
    if message then
        error(message, 2)
    end
    local ttl, own_key = own.ttl, own.key
    own.ttl, own.key = nil, nil
    own = next(own) ~= nil and own or nil
    local function wrapped(...)
        local key, fault = key_of(name, own_key, ...)
        if key == nil then
            error(fault, 2)
        end
        local count, arguments = select("#", ...), { ... }
        local value, err, source, flag = self:remember(key, ttl, function()
            return fn(unpack(arguments, 1, count))
        end, own)
        return value, err, source, flag
    end
    return wrapped, function(...)
        local key, fault = key_of(name, own_key, ...)
        if key == nil then
            error(fault, 2)
        end
        return key
    end
end

return wrap
