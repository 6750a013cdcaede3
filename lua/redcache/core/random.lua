-- random - secrets from the system's random source.
--
-- Not:    no generator of our own: nothing secret is kept that a child of fork() could repeat.

local ffi = require("ffi")
local C = require("redcache.core.ffi")

local core_random = {}

local MAX_BYTES = 255
local buffer = ffi.new("uint8_t[?]", MAX_BYTES)
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function digit(number)
    local at = number % 64 + 1
    return string.sub(ALPHABET, at, at)
end

---Random bytes as text that fits into urls, cookies and file names: base64url.
---@param count integer of bytes; a multiple of 3, at most 255
---@return string|nil text four letters, digits, "-" or "_" for three bytes; nil: the system gives
---none
function core_random.text(count)
    if C.rc_random_bytes(buffer, count) ~= 0 then
        return nil
    end
    local parts = {}
    for i = 0, count - 1, 3 do
        local bits = buffer[i] * 65536 + buffer[i + 1] * 256 + buffer[i + 2]
        parts[#parts + 1] = digit(math.floor(bits / 262144)) .. digit(math.floor(bits / 4096))
            .. digit(math.floor(bits / 64)) .. digit(bits)
    end
    ffi.fill(buffer, count)
    return table.concat(parts)
end

local DICE = 64
local dice = ffi.new("uint32_t[?]", DICE)
local dice_left = 0

---A number for decisions that should fall differently in each process; no secret.
---@return number above 0, at most 1
function core_random.dice()
    if dice_left == 0 then
        for first = 0, DICE - 1, 32 do
            C.rc_random_bytes(ffi.cast("uint8_t *", dice + first), 128)
        end
        dice_left = DICE
    end
    dice_left = dice_left - 1
    return (dice[dice_left] + 1) / 2 ^ 32
end

return core_random
