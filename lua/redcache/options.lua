-- options - every option of redcache: where it may stand, its range, its default.
--
-- What:   one table that new(), namespace(), locks and the options of single calls are checked by.
-- Not:    no FFI, no defaults hidden elsewhere. Times are seconds.

local serializer = require("redcache.serializer")

local options = {}

---Time to live of an entry that never expires. Only ever given explicitly.
---@class redcache.Forever
options.FOREVER = setmetatable({}, {
    __tostring = function()
        return "redcache.FOREVER"
    end,
})
local FOREVER = options.FOREVER

-- A hundred years: beyond it a time to live is a slip of the pen, and milliseconds stay exact.
local MAX_TTL = 3155760000
-- The C side counts waits in 32-bit milliseconds; a day is far below that.
local DAY = 86400

---@param ttl any
---@return boolean good a number of seconds above 0, or FOREVER
function options.is_ttl(ttl)
    return ttl == FOREVER or (type(ttl) == "number" and ttl > 0 and ttl <= MAX_TTL)
end

-- kind: number | integer | boolean | string | choice | function | ttl | codec
-- at:   new, namespace (and so new), load (remember, rememberForever, put), write (set, setMulti),
--       call (every call that talks to Redis), lock
local DECLARED = {
    -- The connection.
    { "url", "string", "redis://127.0.0.1:6379", at = "new", min = 1, max = 4096 },
    { "group", "string", "", at = "new", min = 0, max = 256 },
    { "tlsCa", "string", "", at = "new", min = 0, max = 4096 },
    { "connectTimeout", "number", 1, at = "new", min = 0.001, max = 3600 },
    { "commandTimeout", "number", 0.5, at = "new", min = 0.001, max = 3600 },
    { "maxValue", "integer", 8 * 1024 * 1024, at = "new", min = 1, max = 512 * 1024 * 1024 },
    { "maxKey", "integer", 65536, at = "new", min = 1, max = 16 * 1024 * 1024 },
    { "maxQueue", "integer", 65536, at = "new", min = 1, max = 16 * 1024 * 1024 },
    { "degradedTtl", "number", 1, at = "new", min = 0.001, max = 3600 },
    { "spin", "boolean", true, at = "new" },
    { "scheduler", "choice", "blocking", at = "new", among = { "blocking" } },
    { "namespace", "string", "", at = "new", min = 0, max = 4096 },

    -- Entries.
    { "ttl", "ttl", 300, at = "namespace" },
    { "codec", "codec", "msgpack", at = "namespace" },
    { "plain", "boolean", false, at = "namespace" },
    { "grace", "number", 0, at = "namespace load write", min = 0, max = 30 * DAY },
    { "decodeErrors", "choice", "miss", at = "namespace", among = { "miss", "error" } },

    -- Loads.
    { "leaseTtl", "number", 5, at = "namespace load", min = 0.05, max = 3600 },
    { "maxLoadTime", "number", 60, at = "namespace load", min = 0.05, max = DAY },
    { "waitTimeout", "number", 5, at = "namespace load", min = 0.001, max = DAY },
    { "onTimeout", "choice", "error", at = "namespace load", among = { "error", "load", "stale" } },
    { "negativeTtl", "number", 5, at = "namespace load", min = 0, max = 30 * DAY },
    { "errorTtl", "number", 0, at = "namespace load", min = 0, max = DAY },
    { "strict", "boolean", false, at = "namespace load" },
    { "renew", "boolean", true, at = "namespace load" },
    { "serveOld", "boolean", true, at = "namespace load" },
    { "reloads", "integer", 0, at = "namespace load", min = 0, max = 100 },

    -- Locks: defaults of a cache, then the options of one lock.
    { "lockTtl", "number", 10, at = "namespace", min = 0.1, max = DAY },
    { "lockWait", "number", 5, at = "namespace", min = 0, max = DAY },
    { "ttl", "number", nil, at = "lock", min = 0.1, max = DAY },
    { "wait", "number", nil, at = "lock", min = 0, max = DAY },
    { "maxHold", "number", 0, at = "lock", min = 0, max = DAY },
    { "force", "boolean", false, at = "lock" },
    { "renew", "boolean", true, at = "lock" },
    { "onLost", "function", nil, at = "lock" },

    -- Single calls.
    { "timeout", "number", nil, at = "call lock", min = 0.001, max = 3600 },
    { "cancelTag", "integer", nil, at = "call lock", min = 1, max = 2 ^ 53 },
}

-- Which words of `at` each kind of call accepts.
local ACCEPTED = {
    new = { "new", "namespace" },
    namespace = { "namespace" },
    load = { "load", "call" },
    write = { "write", "call" },
    call = { "call" },
    lock = { "lock" },
}

local function range(row, unit)
    return unit .. " from " .. string.format("%.14g", row.min) .. " to "
        .. string.format("%.14g", row.max)
end

local CHECKS = {
    number = function(row, value)
        -- The comparisons also refuse NaN.
        return type(value) == "number" and value >= row.min and value <= row.max,
            range(row, "number")
    end,
    integer = function(row, value)
        return type(value) == "number" and value >= row.min and value <= row.max
            and value == math.floor(value), range(row, "whole number")
    end,
    boolean = function(_, value)
        return type(value) == "boolean", "true or false"
    end,
    string = function(row, value)
        return type(value) == "string" and #value >= row.min and #value <= row.max,
            "string of " .. row.min .. " to " .. row.max .. " bytes"
    end,
    choice = function(row, value)
        for _, allowed in ipairs(row.among) do
            if value == allowed then
                return true
            end
        end
        return false, '"' .. table.concat(row.among, '" or "') .. '"'
    end,
    ["function"] = function(_, value)
        return type(value) == "function", "function"
    end,
    ttl = function(_, value)
        return options.is_ttl(value), "number above 0 or redcache.FOREVER"
    end,
    codec = function(_, value)
        local codec, reason = serializer.resolve(value)
        return codec, '"msgpack", "json", "raw" or a codec table', codec, reason
    end,
}

local places = {}
for place, accepted in pairs(ACCEPTED) do
    local rows = {}
    for _, row in ipairs(DECLARED) do
        for _, name in ipairs(accepted) do
            if string.find(" " .. row.at .. " ", " " .. name .. " ", 1, true) then
                rows[row[1]] = { name = row[1], kind = row[2], default = row[3],
                    min = row.min, max = row.max, among = row.among }
            end
        end
    end
    places[place] = rows
end

---The rows of one place, by option name: what documentation and specs list.
---@param place string
---@return table<string, table>
function options.rows(place)
    return places[place]
end

-- Never shows a string: it may be a URL with a password.
local function describe(value)
    if type(value) == "number" then
        return string.format("%.14g", value)
    elseif type(value) == "boolean" then
        return tostring(value)
    end
    return type(value)
end

local function unknown(rows, name, method)
    local text = "unknown option '" .. tostring(name) .. "' to " .. method
    for known in pairs(rows) do
        if type(name) == "string" and string.lower(known) == string.lower(name) then
            text = text .. ": did you mean '" .. known .. "'?"
        end
    end
    return text
end

---Checks `given` and writes it into `into`; codec names become codecs.
---@param into table
---@param given table|nil
---@param place string
---@param method string the public function's name
---@return table|nil into nil when an option is bad
---@return string|nil message for error()
function options.read(into, given, place, method)
    if given == nil then
        return into
    elseif type(given) ~= "table" then
        return nil, "bad argument 'opts' to " .. method .. ": table expected, got " .. type(given)
    end
    local rows = places[place]
    for name, value in pairs(given) do
        local row = rows[name]
        if row == nil then
            return nil, unknown(rows, name, method)
        end
        local good, expected, resolved, reason = CHECKS[row.kind](row, value)
        if not good then
            return nil, "bad option '" .. name .. "' to " .. method .. ": "
                .. (reason or expected .. " expected, got " .. describe(value))
        end
        if row.kind == "codec" then
            value = resolved
        end
        into[name] = value
    end
    return into
end

---A full set of settings: the defaults of `place`, over them `given`.
---@param given table|nil
---@param place string
---@param method string
---@return table|nil settings
---@return string|nil message for error()
function options.complete(given, place, method)
    local settings = {}
    for name, row in pairs(places[place]) do
        settings[name] = row.default
    end
    local ok, message = options.read(settings, given, place, method)
    if ok and type(settings.codec) == "string" then
        -- The default is resolved only when it is used: its codec may need an optional module.
        settings.codec, message = serializer.resolve(settings.codec)
        ok = settings.codec
    end
    return ok and settings, message
end

return options
