-- away - entries that are written while Redis is away, for this near cache alone.
--
-- Not:    when that is, and what it means to callers (redcache.offline).

local C = require("redcache.core.ffi")
local core_entry = require("redcache.core.entry")
local options = require("redcache.options")

local core_away = { OVERLOAD = C.RC_ERR_OVERLOAD, LOCAL = C.RC_NEAR_LOCAL }

local function microseconds(ttl, longest)
    return (ttl == options.FOREVER or ttl > longest) and longest * 1e6 or ttl * 1e6
end

---Writes a key here, and promises Redis its delete.
---@param view ffi.cdata*
---@param key string
---@param kind integer KIND_NONE: it is deleted
---@param codec integer id
---@param bytes string
---@param ttl number|redcache.Forever seconds
---@param longest number seconds
---@return integer status 0: done; 1: promised, but not kept here; else nothing has changed
function core_away.write(view, key, kind, codec, bytes, ttl, longest)
    return C.rc_view_write(view, key, #key, core_entry.fill(kind, codec, 0, 0, 0, 0), bytes, #bytes,
        microseconds(ttl, longest))
end

---What keep() goes by: before a load.
---@return ffi.cdata* mark uint64_t
function core_away.mark(view, key)
    return C.rc_view_mark(view, key, #key)
end

---Keeps what a load has made without Redis; not where the key was written here since its mark.
---@return boolean
function core_away.keep(view, key, kind, codec, bytes, ttl, longest, mark)
    return C.rc_view_keep(view, key, #key, core_entry.fill(kind, codec, 0, 0, 0, 0), bytes, #bytes,
        microseconds(ttl, longest), mark) == 1
end

return core_away
