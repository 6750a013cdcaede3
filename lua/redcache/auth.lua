-- auth - answers the core when it asks who we are: calls the user's function.
--
-- What:   a blocking caller is asked in its wait (core/slot.lua), a loop in its turn (waiting.lua).
-- Errors: of the function: the cause that calls and health() tell while there are no credentials.
--         Its results are never shown.
-- Not:    when to ask, and how often after a failure, is the core's to say.

local constants = require("redcache.core.constants")
local core_login = require("redcache.core.login")

local auth = {}

-- A hundred years, as of entries.
local MAX_TTL = 3155760000

-- What is wrong with what the function has returned. ok: of pcall
local function fault_of(ok, user, password, ttl)
    if not ok then
        return tostring(user)
    elseif user == nil then
        return type(password) == "string" and password or "it returned nil"
    elseif type(user) ~= "string" or type(password) ~= "string" or password == "" then
        return "it must return user and password, two strings, and for how many seconds they hold,"
            .. " or nil and an error text"
    elseif not auth.is_ttl(ttl) then
        return "the third result is the number of seconds that the credentials hold, or nil"
    end
end

---@param ttl any
---@return boolean
function auth.is_ttl(ttl)
    return ttl == nil or (type(ttl) == "number" and ttl > 0 and ttl <= MAX_TTL)
end

---Asks the function, and tells the core what it says.
---@param owner table handle (nil: closed meanwhile), auth
function auth.answer(owner)
    local ok, user, password, ttl = pcall(owner.auth)
    local handle = owner.handle
    if handle == nil then
        return
    end
    local fault = fault_of(ok, user, password, ttl)
    if fault == nil and core_login.authenticate(handle, user, password, ttl)
        == constants.ARGUMENT then
        fault = "user or password are too long"
    end
    if fault then
        core_login.fail(handle, fault)
    end
end

return auth
