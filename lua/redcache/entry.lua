-- entry - between Lua values and what stands in Redis.
--
-- What:   encodes and decodes by the cache's codec, and removes what can not be decoded.
-- Not:    the header itself is written and read by the core.

local binding = require("redcache.binding")
local serializer = require("redcache.serializer")

local KIND_VALUE, KIND_PLAIN = binding.KIND_VALUE, binding.KIND_PLAIN

local entry = {}

---Turns stored bytes into a value.
---@param settings table of the cache
---@param kind integer
---@param codec_id integer
---@param flags integer
---@param bytes string
---@return boolean ok
---@return any value or the reason as text
function entry.decode(settings, kind, codec_id, flags, bytes)
    local codec = settings.codec
    if kind == KIND_VALUE then
        if flags ~= 0 then
            return false, "the entry is compressed or encrypted in a way this version does not know"
        elseif codec_id ~= codec.id then
            codec = serializer.by_id(codec_id)
            if not codec then
                return false, "no codec has the id " .. codec_id
            end
        end
        return codec.decode(bytes)
    elseif kind == KIND_PLAIN then
        -- Somebody else's string is read as the string it is, unless this cache writes such itself.
        if settings.plain then
            return codec.decode(bytes)
        end
        return true, bytes
    end
    return false, "the entry is of a kind this version does not know"
end

---Turns a value into bytes.
---@param settings table of the cache
---@param value any
---@return boolean ok
---@return string bytes or the reason as text
function entry.encode(settings, value)
    return settings.codec.encode(value)
end

-- A value written meanwhile must survive: what stands there is compared by its nonce (bytes 8 to 15
-- of the header), or as a whole where it has none.
local DELETE_IF_UNCHANGED =
    "if redis.call('GETRANGE',KEYS[1],ARGV[1],ARGV[2])==ARGV[3] then "
    .. "return redis.call('UNLINK',KEYS[1]) end return 0"

---Deletes the entry that was just read, unless it has changed. Failing is no harm.
---@param cache table
---@param slot redcache.Slot
---@param key string full key
---@param kind integer
---@param version string
---@param bytes string
function entry.remove(cache, slot, key, kind, version, bytes)
    local first, last, seen = "8", "15", version
    if kind ~= KIND_VALUE then
        first, last, seen = "0", "-1", bytes
    end
    local status = binding.begin(slot, 0)
    status = status == 0 and binding.command(slot, 7) or status
    for i, argument in ipairs({ "EVAL", DELETE_IF_UNCHANGED, "1", key, first, last, seen }) do
        local add = i == 4 and binding.argument_written or binding.argument
        status = status == 0 and add(slot, argument) or status
    end
    status = status == 0 and binding.submit(slot) or status
    if status == 0 then
        cache._wait(slot)
    end
end

return entry
