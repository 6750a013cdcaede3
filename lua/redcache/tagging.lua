-- tagging - the tags of an entry that stands there: their names.
--
-- Not:    what they make of readers (tags.lua), and how they are invalidated (invalidate.lua).

local bit = require("bit")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_slot = require("redcache.core.slot")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local options = require("redcache.options")
local tags = require("redcache.tags")

local EXTRA = core_extra.FLAG
local KIND_VALUE, KIND_PLAIN = constants.KIND_VALUE, constants.KIND_PLAIN

local tagging = {}

-- Whether what a read of a cache with plain = true has not taken for a value is one.
local function is_plain(self, slot, key)
    local bytes = entry.doubtful(self._settings, slot)
    return bytes ~= nil and entry.is_plain(self, slot, self._prefix .. key, bytes)
end

-- The value under a key, as it is stored, if its tags do not void it: table (kind, codec, flags,
-- bytes, stale_ms, load_ms, version) | false (there is none) | nil, err.
local function read(self, key, own, action)
    local slot, err = calls.take(self._client, own, action, key)
    if slot == nil then
        return nil, err
    end
    local status = calls.await(self, slot,
        core_entry.get(slot, self._prefix, key, calls.reads(self, own)))
    if status ~= 0 then
        return nil, calls.fail(slot, status, action, key)
    end
    local result, found = slot.result, false
    if result.outcome == constants.HIT then
        local kind, codec, flags, bytes = core_entry.read(slot)
        if entry.is_known(self._settings, kind, codec, flags)
            and kind ~= constants.KIND_NEGATIVE then
            found = { kind = kind, codec = codec, flags = flags, bytes = bytes,
                stale_ms = result.stale_ms, load_ms = result.load_ms,
                version = kind == KIND_VALUE and core_entry.version(slot) or nil }
        end
    elseif is_plain(self, slot, key) then
        found = { kind = KIND_PLAIN, flags = 0 }
    end
    core_slot.give(slot)
    if found and found.flags ~= 0 then
        local standing
        standing, err = tags.judge(self, found.flags, found.bytes, own)
        if standing == nil then
            return nil, err
        end
        found = standing ~= "void" and found
    end
    return found
end

-- The tags in the block of an entry; none where it has no block. nil: it cannot be read.
local function tags_of(found)
    return bit.band(found.flags, EXTRA) == 0 and {} or core_extra.tags(found.bytes)
end

---The names of an entry's tags. That of its namespace (`generation`) is none of them.
---@param key string
---@param opts? table timeout (of each of its round trips: one, and one for generations that are
---not near), cancelTag, reads (as Cache:get)
---@return string[]|nil names in the order in which they were given, those of loaders last; empty
---where the value has none; nil where there is no value (also where one of its tags voids it, and
---of "no such thing")
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, overload, closed,
---redis, cannotWait
function tagging.tags(self, key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "tags", "string", key), 2)
    end
    local own, message = options.read({}, opts, "look", "tags")
    if own == nil then
        error(message, 2)
    end
    local found, err = read(self, key, own, "read the tags of")
    if not found then
        return nil, err
    end
    local names = {}
    for _, tag in ipairs(tags_of(found) or names) do
        if tag.name ~= tags.NAMESPACE then
            names[#names + 1] = tag.name
        end
    end
    return names
end

return tagging
