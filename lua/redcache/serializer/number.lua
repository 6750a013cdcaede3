--- number - numbers as Redis writes them: what counters are read with. Stored without a header.
-- Whole numbers from 2^53 on are int64 cdata, so none is rounded.

local core_number = require("redcache.core.number")

local number = { name = "number", id = 4, plain = true }

---@param value any
---@return boolean ok
---@return string bytes or, when not ok, a message
function number.encode(value)
    if type(value) == "number" and value - value == 0 or core_number.is_int64(value) then
        return true, core_number.format(value)
    end
    return false, "cannot store "
        .. (type(value) == "number" and "nan or infinity" or "a " .. type(value) .. " value")
        .. ": serializer number takes finite numbers only"
end

---@param bytes string
---@return boolean ok
---@return number|ffi.cdata*|string value or, when not ok, a message
function number.decode(bytes)
    local value = core_number.parse(bytes)
    if value == nil and string.find(bytes, "^%-?%d[%d.e+-]*$") then
        value = tonumber(bytes)
    end
    if value == nil then
        return false, "what is stored is no number"
    end
    return true, value
end

return number
