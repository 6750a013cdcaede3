-- entry - between Lua values and what stands in Redis.
--
-- What:   encodes and decodes by the cache's codec, and tells what this version cannot read.
-- Not:    the header itself is written and read by the core.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_random = require("redcache.core.random")
local core_extra = require("redcache.core.extra")
local calls = require("redcache.calls")
local freshness = require("redcache.freshness")
local options = require("redcache.options")
local serializer = require("redcache.serializer")

local KIND_VALUE, KIND_PLAIN = constants.KIND_VALUE, constants.KIND_PLAIN

local FOREVER = options.FOREVER
local band, milliseconds = bit.band, core_clock.milliseconds
local EXTRA = core_extra.FLAG
local UNKNOWN = bit.bnot(bit.bor(EXTRA, core_extra.CAPPED))

local entry = {}

-- What reads a value with that header, or nil and why this version cannot.
local function codec_of(settings, codec_id, flags)
    if flags ~= 0 and band(flags, UNKNOWN) ~= 0 then
        return nil, "the entry is compressed or encrypted in a way this version does not know"
    elseif codec_id == settings.codec.id then
        return settings.codec
    end
    local codec = serializer.by_id(codec_id)
    if not codec then
        return nil, "no codec has the id " .. codec_id
    end
    return codec
end

---Whether this version knows how such an entry is to be read; its payload is not looked at.
---@param settings table of the cache
---@param kind integer
---@param codec_id integer
---@param flags integer
---@return boolean
function entry.is_known(settings, kind, codec_id, flags)
    if kind == KIND_VALUE then
        return codec_of(settings, codec_id, flags) ~= nil
    end
    return kind == KIND_PLAIN or kind == constants.KIND_NEGATIVE
end

---Turns stored bytes into a value.
---@param settings table of the cache
---@param kind integer
---@param codec_id integer
---@param flags integer
---@param bytes string with the block that stands in front of the payload, where flags say so
---@return boolean ok
---@return any value or the reason as text
function entry.decode(settings, kind, codec_id, flags, bytes)
    if kind == KIND_VALUE then
        local codec, reason = codec_of(settings, codec_id, flags)
        if not codec then
            return false, reason
        elseif flags ~= 0 and band(flags, EXTRA) ~= 0 then
            local size = core_extra.read(bytes, #bytes)
            if size == nil then
                return false, "the entry tells of itself what this version does not know"
            end
            bytes = string.sub(bytes, size + 1)
        end
        return codec.decode(bytes)
    elseif kind == KIND_PLAIN then
        local codec = settings.codec
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

---What is stored: the encoded value, and in front of it, where one of its readers will ask, what
---the entry tells of itself.
---@param settings table of the cache or call
---@param bytes string encoded value; "" of "no such thing"
---@param ttl number|redcache.Forever|integer seconds; 0: it is not stored
---@param grace number seconds
---@param load_time number seconds that it took to load; 0: it was not
---@param tagged? table of tags.begin: its tags
---@return string bytes
---@return integer flags of the entry
---@return number|redcache.Forever|integer ttl shortened by jitter
function entry.form(settings, bytes, ttl, grace, load_time, tagged)
    if ttl == 0 and not tagged then
        return bytes, 0, ttl
    elseif settings.jitter > 0 and ttl ~= FOREVER and ttl ~= 0 then
        ttl = freshness.jitter(settings, ttl, core_random.dice())
    end
    if settings.plain or not (tagged or freshness.is_told(settings, grace)) then
        return bytes, 0, ttl
    end
    local endless = ttl == FOREVER
    local tag_bytes, tag_count = nil, nil
    if tagged then
        tag_bytes, tag_count = tagged.bytes, tagged.count
    end
    return core_extra.write((endless or ttl == 0) and 0 or milliseconds(ttl),
        (endless or grace <= 0) and 0 or milliseconds(grace), math.ceil(load_time * 1000),
        tag_bytes, tag_count) .. bytes, EXTRA, ttl
end

---What a miss has found, if it may be a plain value: a lease or marker always expires, so what has
---their form and does not is somebody's string. Only caches with plain look so closely, because it
---costs a round trip.
---@param settings table of the cache
---@param slot redcache.Slot that holds a miss
---@return string|nil bytes the whole string, for entry.is_plain; nil: it is a miss
function entry.doubtful(settings, slot)
    local kind = slot.result.kind
    if settings.plain and (kind == constants.KIND_LEASE or kind == constants.KIND_ERROR)
        and type(core_entry.life(slot)) ~= "number" then
        return core_entry.stored(slot)
    end
    return nil
end

---Asks whether doubtful bytes are a plain value. PTTL goes first: where the same bytes still stand
---there behind it, they stood there when it was asked, for no lease comes back.
---@param cache table
---@param slot redcache.Slot
---@param key string full key
---@param bytes string
---@return boolean
function entry.is_plain(cache, slot, key, bytes)
    local status = core_command.begin(slot, constants.RETRY)
    for _, name in ipairs({ "PTTL", "GET" }) do
        status = status == 0 and core_command.command(slot, 2) or status
        status = status == 0 and core_command.argument(slot, name) or status
        status = status == 0 and core_command.argument(slot, key) or status
    end
    if calls.send(cache, slot, status) ~= 0 then
        return false
    end
    local nodes, count = core_command.nodes(slot)
    return count == 2 and nodes[0].integer == -1 and core_command.node_text(nodes[1]) == bytes
end

return entry
