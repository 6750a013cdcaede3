-- behind_writer - calls of the user's functions: what writes, and what is told of dead letters.
--
-- What:   call() gives `write` the values of a batch, and tells which of them are not written, and
--         why; tell() gives `onFailed` one that was given up.
-- Errors: what `write` throws is a reason as what it returns is; so is a value that no codec reads.

local errors = require("redcache.errors")

local behind_writer = {}

-- The reason of each key that was not written, by what the user's function has given; nil: all are
-- written. A table that names none of them is a reason of all.
local function reasons_of(batch, ran, done, failed)
    if ran and done then
        return nil
    end
    local reasons, is_named = {}, false
    if ran and type(failed) == "table" and getmetatable(failed) == nil then
        for _, chain in ipairs(batch) do
            local reason = failed[chain.key]
            reasons[chain.key] = reason and errors.text(reason)
            is_named = is_named or reason
        end
    end
    if not is_named then
        local cause = not ran and done or failed or "the function did not return true"
        cause = errors.text(cause)
        for _, chain in ipairs(batch) do
            reasons[chain.key] = cause
        end
    end
    return reasons
end

---@param write fun(items: table[]): any, any the user's
---@param codec table
---@param batch redcache.BehindChain[] that were taken
---@param fence? integer of the lock that their partition is owned by
---@return table<string, string>|nil reasons by key; nil: all are written
function behind_writer.call(write, codec, batch, fence)
    local items, reasons, unread = {}, nil, nil
    for _, chain in ipairs(batch) do
        local ok, value = codec.decode(chain.running)
        if ok then
            items[#items + 1] = {
                key = chain.key, value = value, attempt = chain.failures + 1, fence = fence,
            }
        else
            unread = unread or {}
            unread[chain.key] = errors.text(value)
        end
    end
    if items[1] then
        reasons = reasons_of(batch, pcall(write, items))
    end
    for key, reason in pairs(unread or {}) do
        reasons = reasons or {}
        reasons[key] = reason
    end
    return reasons
end

---@return any value false is one; nil: no codec can read it
function behind_writer.value(codec, bytes)
    local ok, value = codec.decode(bytes)
    if ok then
        return value
    end
end

---Tells the user's onFailed, where there is one, what was given up.
---@param settings table writeBehind
---@param codec table
---@param key string
---@param bytes string the value, encoded
---@param reason string
---@return string|nil fault what it threw
function behind_writer.tell(settings, codec, key, bytes, reason)
    if settings.onFailed then
        local ok, fault = pcall(settings.onFailed, key, behind_writer.value(codec, bytes), reason)
        return not ok and errors.text(fault) or nil
    end
end

return behind_writer
