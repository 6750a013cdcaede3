-- behind_writer - one call of the user's function that writes what waits behind.
--
-- What:   call() gives it the values of a batch, and tells which of them are not written, and why.
-- Errors: what it throws is a reason as what it returns is; so is a value that no codec can read.

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

return behind_writer
