-- lent - connections lent to one caller each, for commands that cannot share one.
--
-- What:   handles; what goes over one is written as any commands are (core/command).
-- Memory: a handle that is collected gives its connection back.
-- Not:    which commands need one: the core refuses them elsewhere, and says why.

local C = require("redcache.core.ffi")
local core_owned = require("redcache.core.owned")

local core_lent = {}

---@return ffi.cdata*|nil handle
---@return integer|nil status
function core_lent.new(client)
    if client.handle == nil then
        return nil, C.RC_ERR_CLOSED
    end
    local handle = C.rc_lent_new(client.handle)
    if handle == nil then
        return nil, C.RC_ERR_NOMEM
    end
    return core_owned.keep(handle, C.rc_lent_free)
end

---Gives the connection back, cancels what runs over it, and frees the handle.
function core_lent.free(handle)
    core_owned.free(handle)
end

---Starts borrowing a connection to the server of that key; waits for one within the slot's timeout.
---@param key string|nil nil: any server
---@return integer status
function core_lent.borrow(handle, slot, key)
    return C.rc_lent_borrow(handle, slot.op, key, key and #key or 0)
end

---As core_command.begin: what is submitted then goes over the handle's connection.
---@return integer status
function core_lent.begin(handle, slot)
    return C.rc_lent_begin(handle, slot.op)
end

---Waits for messages, within the slot's timeout: the answers are what has come.
---@return integer status
function core_lent.listen(handle, slot)
    return C.rc_lent_listen(handle, slot.op)
end

---How many messages nobody has asked for in time, behind those of the slot.
---@return integer count
function core_lent.missed(slot)
    return tonumber(slot.result.number)
end

---Gives the connection back; another caller gets it as if it were new. Waits for nothing.
function core_lent.give_back(handle)
    C.rc_lent_return(handle)
end

return core_lent
