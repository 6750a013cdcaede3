--- serializer - finds the codec for an option or an entry's codec id.
--
-- A codec is { name, id, encode, decode }. encode(value) returns true and a string, decode(bytes)
-- true and a value; both return false and a message when they cannot, and never throw. So a
-- decoded nil is told from a failure. A custom codec is the user's table { name, id = 64..255,
-- encode, decode } with plain functions: they return the result, or nil and a message, or throw.
-- Ids are stored in the entries: never give one to another codec.

local errors = require("redcache.errors")
local later = require("redcache.later")

local serializer = {}

local MODULES = {
    raw = "redcache.serializer.raw",
    json = "redcache.serializer.json",
    msgpack = "redcache.serializer.msgpack",
    number = "redcache.serializer.number",
}
local NAMES = { "raw", "json", "msgpack", "number" } -- by id
local FIRST_CUSTOM_ID, LAST_ID = 64, 255

-- An entry in Redis may want any of them at any time.
for _, module in pairs(MODULES) do
    later.choice(module)
end

local function load_builtin(name)
    local ok, codec = pcall(later.load, MODULES[name])
    if ok then
        return codec
    elseif name == "json" and not pcall(require, "cjson") then
        return nil, "serializer 'json' needs lua-cjson, which is not installed"
            .. " (the package is called lua-cjson in Debian and in luarocks)"
    end
    return nil, "could not load serializer '" .. name .. "': " .. tostring(codec)
end

-- Calls a custom codec's function; what it throws becomes a message.
local function guarded(codec, verb)
    local run = codec[verb]
    return function(input)
        local ok, result, message = pcall(run, input)
        if not ok then
            message = errors.text(result)
        elseif result == nil and message ~= nil then
            message = errors.text(message)
        elseif verb == "encode" and type(result) ~= "string" then
            message = "encode returned a " .. type(result) .. ", not a string"
        else
            return true, result
        end
        return false, ("could not %s with serializer '%s': %s"):format(verb, codec.name, message)
    end
end

local function wrap(codec)
    local id = codec.id
    if type(codec.name) ~= "string" or codec.name == "" then
        return nil, "a custom serializer needs a name"
    elseif type(id) ~= "number" or id % 1 ~= 0 or id < FIRST_CUSTOM_ID or id > LAST_ID then
        return nil, ("serializer '%s' needs an integer id from 64 to 255"):format(codec.name)
    elseif type(codec.encode) ~= "function" or type(codec.decode) ~= "function" then
        return nil, ("serializer '%s' needs the functions encode and decode"):format(codec.name)
    end
    local encode, decode = guarded(codec, "encode"), guarded(codec, "decode")
    return { name = codec.name, id = id, encode = encode, decode = decode }
end

---@param option string|table a name, a built-in codec or a custom one
---@return table|nil codec
---@return string|nil message why there is none
function serializer.resolve(option)
    if type(option) == "table" then
        local name = rawget(option, "name")
        if MODULES[name] and package.loaded[MODULES[name]] == option then
            return option
        end
        return wrap(option)
    elseif type(option) ~= "string" then
        return nil, "a serializer is a name or a table, not a " .. type(option)
    elseif not MODULES[option] then
        local text = "unknown serializer '%s': raw, json, msgpack, number or a table expected"
        return nil, text:format(option)
    end
    return load_builtin(option)
end

---@param id integer from an entry's header
---@param own table|nil the cache's own codec, as resolve() returned it
---@return table|nil codec
---@return string|nil message why there is none
function serializer.by_id(id, own)
    if own and own.id == id then
        return own
    elseif NAMES[id] then
        return load_builtin(NAMES[id])
    end
    return nil, ("unknown serializer id %s"):format(tostring(id))
end

return serializer
