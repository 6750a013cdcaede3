-- tagging - the tags of an entry that stands there: their names, and more of them.
--
-- What:   cache:tags(key) reads them. cache:addTags(key, tags) reads the generations of the new
--         ones, then the entry, and writes it back with them where nobody has written it meanwhile
--         (swap.lua); else it looks at the entry again. So an invalidation that comes behind the
--         begin of the call voids what it has tagged.
-- Errors: a write is never sent again on its own: outcomeUnknown, where the connection breaks.
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
local swap = require("redcache.swap")
local tags = require("redcache.tags")

local EXTRA = core_extra.FLAG
local KIND_VALUE, KIND_PLAIN = constants.KIND_VALUE, constants.KIND_PLAIN
local RETRIES = 100
local ADD = "add tags to"

local tagging = {}

-- Whether what a read of a cache with plain = true has not taken for a value is one.
local function is_plain(self, slot, key)
    local bytes = entry.doubtful(self._settings, slot)
    return bytes ~= nil and entry.is_plain(self, slot, self._prefix .. key, bytes)
end

-- The value under a key, as it is stored, if its tags do not void it: table (kind, codec, flags,
-- bytes, stale_ms, load_ms, version) | false (there is none) | nil, err. flags: of the read.
local function read(self, key, own, flags, action)
    local slot, err = calls.enter(self, own, action, key)
    if slot == nil then
        return nil, err
    end
    local status = calls.await(self, slot, core_entry.get(slot, self._prefix, key, flags))
    if status ~= 0 then
        return nil, calls.fail(slot, status, action, key)
    end
    local result, found = slot.result, false
    if result.outcome == constants.HIT then
        local kind, codec, entry_flags, bytes = core_entry.read(slot)
        if entry.is_known(self._settings, kind, codec, entry_flags)
            and kind ~= constants.KIND_NEGATIVE then
            found = { kind = kind, codec = codec, flags = entry_flags, bytes = bytes,
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
    local found, err = read(self, key, own, calls.reads(self, own), "read the tags of")
    if not found then
        return nil, err
    end
    local names, list = {}, tags_of(found)
    for _, tag in ipairs(list or names) do
        if tag.name ~= tags.NAMESPACE then
            names[#names + 1] = tag.name
        end
    end
    return list and names
end

-- More tags ---------------------------------------------------------------------------------------

-- Those of `tagged` (tags.begin) that are not in the list: as they stand in a block, and how many.
local function missing(list, tagged)
    local has, parts, at = {}, {}, 1
    for i = 1, #list do
        has[list[i].name] = true
    end
    for i = 1, #tagged.names do
        local last = at + core_extra.TAG + #tagged.names[i]
        if not has[tagged.names[i]] then
            parts[#parts + 1] = string.sub(tagged.bytes, at, last - 1)
        end
        at = last
    end
    return table.concat(parts), #parts
end

-- What is to be stored in the place of `found`: an entry argument | false: it has them all |
-- nil, err.
local function with_more(found, tagged, key)
    local life_ms, stale_ms, load_ms = 0, found.stale_ms, found.load_ms
    local list, standing, payload = tags_of(found), "", found.bytes
    if found.kind ~= KIND_VALUE or list == nil then
        return nil, errors.new("decode", ADD, key, found.kind == KIND_PLAIN
            and "what stands there has no header that could keep them"
            or "the entry tells of itself what this version does not know")
    elseif bit.band(found.flags, EXTRA) ~= 0 then
        local size
        size, life_ms, stale_ms, load_ms = core_extra.read(found.bytes, #found.bytes)
        standing = core_extra.tag_bytes(found.bytes)
        payload = string.sub(found.bytes, size + 1)
    end
    local more, count = missing(list, tagged)
    if count == 0 then
        return false
    end
    count = count + #list
    if count - (list[1] and list[1].name == tags.NAMESPACE and 1 or 0) > options.MAX_TAGS then
        return nil, errors.new("tooLarge", ADD, key,
            "an entry has at most " .. options.MAX_TAGS .. " tags")
    end
    return {
        codec = found.codec, plain = false, flags = bit.bor(found.flags, EXTRA), ttl = 0,
        bytes = core_extra.write(life_ms, stale_ms, load_ms, standing .. more, count) .. payload,
        grace = found.stale_ms / 1000, load_time = found.load_ms / 1000,
    }
end

-- One try: true, false (there is no value) | nil, err, whether another one may help.
local function try(self, key, tagged, own)
    local found, err = read(self, key, own, 0, ADD) -- of the master, whatever reads says
    if not found then
        return found, err
    end
    local stored, fault = with_more(found, tagged, key)
    if not stored then
        return stored == false or nil, fault
    end
    local done
    done, err = swap.rewrite(self, key, own, stored, found.version, ADD)
    return done or nil, err, done == false
end

-- A list without doubles. list | nil, message
local function distinct(list)
    local fault = tags.fault(list, "addTags")
    if fault then
        return nil, fault
    end
    local names, seen = {}, {}
    for i = 1, #list do
        if not seen[list[i]] then
            seen[list[i]], names[#names + 1] = true, list[i]
        end
    end
    if #names > options.MAX_TAGS then
        return nil, "bad argument 'tags' to addTags: an entry has at most " .. options.MAX_TAGS
            .. " tags, got " .. #names
    end
    return names
end

---Adds tags to the entry under a key. Its value, its life, its grace window and the tags that it
---has stay; its version is a new one, so a refresh or put that began before stores nothing.
---@param key string
---@param list string[] names; doubles, and those that it has, count once
---@param opts? table retries (100: how often it is tried again where others write the key at the
---same time), cancelTag, timeout (of each of its round trips: three a try at most)
---@return boolean|nil tagged false: there is no value, or one of its tags voids it
---@return redcache.Error|nil err conflict (others were faster in each try), tooLarge (more than 16
---tags, or over maxValue), decode (it is a plain value, or of a later version), cannotWait,
---timeout, cancelled, unavailable, outcomeUnknown (they may have been added), overload, closed,
---redis
function tagging.addTags(self, key, list, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "addTags", "string", key), 2)
    end
    local names, message = distinct(list)
    local own
    if names then
        own, message = options.read({}, opts, "addTags", "addTags")
    end
    if own == nil then
        error(message, 2)
    elseif self._settings.plain then
        error("bad argument 'tags' to addTags: with plain = true there is no header that could keep"
            .. " them", 2)
    elseif not self._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, ADD, key)
    end
    local tagged, err = tags.begin(self, names, own, key)
    if err then
        return nil, err
    end
    local retries = own.retries or RETRIES
    for _ = 0, retries do
        local done, fault, again = try(self, key, tagged, own)
        if not again then
            return done, fault
        end
    end
    return nil, errors.new("conflict", ADD, key,
        ("somebody else was faster in each of %d tries"):format(retries + 1))
end

return tagging
