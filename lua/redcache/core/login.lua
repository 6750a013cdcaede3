-- login - says to the core who we are.
--
-- Errors: statuses.

local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")

local core_login = {}

---Newer credentials of a client.
---@param handle ffi.cdata*
---@param user string ""; the default one
---@param password string
---@param ttl number|nil seconds
---@return integer status
function core_login.authenticate(handle, user, password, ttl)
    local ttl_ms = ttl and core_clock.milliseconds(ttl) or 0
    return C.rc_authenticate(handle, user, #user, password, #password, ttl_ms)
end

---The caller that was asked has none.
---@param text string why; callers are told
function core_login.fail(handle, text)
    C.rc_auth_fail(handle, text, #text)
end

---@param port redcache.Port that has turned
---@return boolean wanted the core wants credentials of this port
function core_login.is_wanted(port)
    return port.turn.auth ~= 0
end

return core_login
