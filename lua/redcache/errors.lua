-- errors - the error objects of redcache.
--
-- What:   one constant per kind of failure, and how its objects are made and printed.
-- Not:    no values and no secrets in a message; keys only, made printable and cut.

local usage = require("redcache.usage")

local errors = {}

---The kinds of failure. Compare `err.code` with these.
---@enum redcache.ErrorCode
errors.CODES = {
    timeout = "timeout",               -- the deadline passed first
    cancelled = "cancelled",           -- somebody called cache:cancel(tag)
    leaseLost = "leaseLost",           -- the right to load or put was lost before the end
    lockLost = "lockLost",             -- a lock, or the write lease of put, was lost before the end
    notAcquired = "notAcquired",       -- the lock did not come free within its wait
    notHeld = "notHeld",               -- this handle does not hold the lock
    loaderFailed = "loaderFailed",     -- the loader gave an error or threw one: see `cause`
    recursive = "recursive",           -- a loader asked for the key it is loading
    encode = "encode",                 -- the codec refused the value
    decode = "decode",                 -- the codec refused the stored bytes
    unavailable = "unavailable",       -- no usable connection to Redis
    outcomeUnknown = "outcomeUnknown", -- the connection broke: Redis may or may not have done it
    overload = "overload",             -- a bounded queue is full, or memory is short
    badTtl = "badTtl",                 -- a time to live that is no number above 0 and not FOREVER
    bound = "bound",                   -- the counter would leave min or max: see `value`
    conflict = "conflict",             -- somebody else was faster in each try
    tooLarge = "tooLarge",             -- key over maxKey or value over maxValue
    cannotWait = "cannotWait",         -- not near, and this phase of nginx cannot wait for it
    closed = "closed",                 -- the cache is closed
    refused = "refused",               -- the command cannot go over the shared connection
    redis = "redis",                   -- Redis answered with an error: the message tells its text,
                                       -- with "?" for what it may repeat of what was sent
}

---@class redcache.Error
---@field code redcache.ErrorCode what kind of failure
---@field message string "could not <do what> '<key>': <cause>"
---@field key? string the key or lock name as the caller gave it
---@field cause? any loaderFailed: the loader's own error; its text if the loader ran elsewhere
---@field value? number|ffi.cdata* bound: the counter
---@field traceback? string loaderFailed: where the loader threw
---tostring(err) and "text " .. err give the message; ngx.say and ngx.log take tostring(err).
local Error = {}
Error.__index = Error
Error.__tostring = function(self)
    return self.message
end

local function text_of(part)
    local kind, meta = type(part), getmetatable(part)
    if kind == "string" or kind == "number" or (kind == "table" and meta and meta.__tostring) then
        return tostring(part)
    end
    error("attempt to concatenate a " .. kind .. " value", 3)
end

-- "could not go on: " .. err
Error.__concat = function(left, right)
    return text_of(left) .. text_of(right)
end

-- A key can be 64 KiB of any bytes; a log line wants neither.
local SHOWN_BYTES = 80

local function escape(char)
    return string.format("\\x%02x", string.byte(char))
end

---Makes a key or name fit for a log line.
---@param text string
---@return string printable
function errors.printable(text)
    local cut = #text > SHOWN_BYTES
    if cut then
        text = string.sub(text, 1, SHOWN_BYTES)
    end
    text = string.gsub(text, "[%c\127-\255]", escape)
    return cut and text .. "..." or text
end

---What somebody threw, as text; also where it has a __tostring that fails or gives no string.
---@param cause any
---@return string
function errors.text(cause)
    if type(cause) == "string" then
        if cause == "not enough memory" then
            collectgarbage() -- room to tell it in: what was piled up is garbage now
        end
        return cause
    end
    local ok, text = pcall(tostring, cause)
    if ok and type(text) == "string" then
        return text
    end
    return "an error object (" .. type(cause) .. ") whose __tostring "
        .. (ok and "gives no string" or "fails")
end

---Makes an error object.
---@param code redcache.ErrorCode
---@param action string what we were doing, as in "could not <action> 'key'"
---@param key string|nil
---@param cause string
---@return redcache.Error
function errors.new(code, action, key, cause)
    local subject = key and " '" .. errors.printable(key) .. "'" or ""
    return setmetatable({
        code = code,
        message = "could not " .. action .. subject .. ": " .. cause,
        key = key,
    }, Error)
end

---@param value any
---@return boolean
function errors.is(value)
    return getmetatable(value) == Error
end

---The error of a call with a time to live that cannot be used.
---@param action string
---@param key string|nil
---@param ttl any
---@param method? string of the cache: told how it is called where ttl is no number at all
---@return redcache.Error
function errors.bad_ttl(action, key, ttl, method)
    local got = type(ttl) == "number" and string.format("%.14g", ttl) or type(ttl)
    return errors.new("badTtl", action, key,
        "ttl must be seconds above 0 or redcache.FOREVER, got " .. got
            .. (method and type(ttl) ~= "number" and usage.hint(method) or ""))
end

---The text of an argument check: error(errors.argument(...), 2).
---@param name string
---@param method string
---@param expected string
---@param got any
---@return string
function errors.argument(name, method, expected, got)
    return "bad argument '" .. name .. "' to " .. method .. ": " .. expected .. " expected, got "
        .. type(got) .. (name ~= "key" and usage.hint(method) or "")
end

return errors
