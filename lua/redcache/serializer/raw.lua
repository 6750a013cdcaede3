--- raw - strings as they are, readable with redis-cli; no copy is made.
-- Numbers are refused: they would come back as strings.

local raw = { name = "raw", id = 1 }

---@param value any
---@return boolean ok
---@return string bytes or, when not ok, a message
function raw.encode(value)
    if type(value) == "string" then
        return true, value
    end
    return false, "cannot store a " .. type(value) .. " value: serializer raw takes strings only"
end

---@param bytes string
---@return boolean ok always true
---@return string value
function raw.decode(bytes)
    return true, bytes
end

return raw
