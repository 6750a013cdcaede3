-- met - a set of strings that were met, at 24 bytes each.
--
-- Memory: the set is freed by the garbage collector.
-- Not:    the strings are not kept: of each pair, one in 2^64 is taken for one string.

local C = require("redcache.core.ffi")
local core_owned = require("redcache.core.owned")

local core_met = {}

---@return ffi.cdata*|nil met nil: no memory
function core_met.new()
    local met = C.rc_met_new()
    if met == nil then
        return nil
    end
    return core_owned.keep(met, C.rc_met_free)
end

---@param met ffi.cdata*
---@param text string
---@return boolean|nil is_new nil: no memory
function core_met.add(met, text)
    local is_new = C.rc_met_add(met, text, #text)
    if is_new < 0 then
        return nil
    end
    return is_new == 1
end

return core_met
