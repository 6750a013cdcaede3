-- digest - SHA-1 by the core.
--
-- Not:    not for what needs a secure hash.

local ffi = require("ffi")
local C = require("redcache.core.ffi")

local core_digest = {}

local hex = ffi.new("char[41]")

---@param text string
---@return string digits 40 in hex
function core_digest.sha1(text)
    C.rc_sha1(text, #text, hex)
    return ffi.string(hex, 40)
end

return core_digest
