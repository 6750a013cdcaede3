-- number - Redis' numbers as Lua values: exact up to 64 bits.
--
-- What:   a Lua number where that is exact (below 2^53), an int64 cdata beyond it.

local ffi = require("ffi")

local core_number = {}

local EXACT = 2 ^ 53
local int64 = ffi.typeof("int64_t")

---The one int64 that has no negative.
core_number.LEAST = -0x7fffffffffffffffLL - 1LL

---@param value any
---@return boolean
function core_number.is_int64(value)
    return type(value) == "cdata" and ffi.istype(int64, value)
end

---A whole number from its text, as Redis writes it.
---@param text string
---@return integer|ffi.cdata*|nil value nil: the text is none, or beyond 64 bits
function core_number.parse(text)
    local minus, digits = string.match(text, "^(%-?)(%d+)$")
    if not digits then
        return nil
    elseif #digits < 16 then
        return tonumber(text)
    end
    -- The bytes are summed up below zero, where there is room for all.
    local value = 0LL
    for i = 1, #digits do
        local before = value
        value = value * 10LL - (string.byte(digits, i) - 48)
        if value > 0LL or before < core_number.LEAST / 10LL then
            return nil
        end
    end
    if minus == "" then
        if value == core_number.LEAST then
            return nil
        end
        value = -value
    end
    local number = tonumber(value)
    return number > -EXACT and number < EXACT and number or value
end

---The text of a number, as Redis reads it.
---@param value number|ffi.cdata*
---@return string
function core_number.format(value)
    if type(value) == "cdata" then
        return (string.gsub(tostring(value), "LL$", ""))
    elseif value % 1 == 0 and value > -EXACT and value < EXACT then
        return string.format("%.0f", value + 0) -- no "-0"
    end
    return string.format("%.17g", value)
end

---The sum of two whole numbers.
---@param a integer|ffi.cdata*
---@param b integer|ffi.cdata*
---@return integer|ffi.cdata*|nil sum nil: it is beyond 64 bits
function core_number.sum(a, b)
    local x, y = int64(a), int64(b)
    local sum = x + y
    if (y > 0LL and sum < x) or (y < 0LL and sum > x) then
        return nil
    end
    return sum
end

return core_number
