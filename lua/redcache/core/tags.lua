-- tags - whether an entry's tags still have the generations it was stored with, as near copies of
-- them say; and the bytes of generations.
--
-- Not:    asks Redis nothing (redcache.tags).

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_handle = require("redcache.core.handle")
local core_owned = require("redcache.core.owned")

local GENERATIONS = 16 -- bytes: hard, then soft

local core_tags = {
    -- Bytes of what stands under a tag: the hard generation, then the soft one.
    GENERATIONS = GENERATIONS,
    VALID = C.RC_TAGS_VALID, SOFT = C.RC_TAGS_SOFT, UNKNOWN = C.RC_TAGS_UNKNOWN,
    VOID = C.RC_TAGS_VOID,
}

local random = ffi.new("uint8_t[?]", GENERATIONS)

---A table of the generations that are near.
---@param client redcache.Client with a near cache
---@param prefix string of the keys of tags
---@return ffi.cdata*|nil tags nil: no memory
function core_tags.new(client, prefix)
    local tags = C.rc_tags_new(core_handle.of(client), prefix, #prefix)
    return tags ~= nil and core_owned.keep(tags, C.rc_tags_free) or nil
end

---The gravest verdict of an entry's block (extra.lua): VALID, SOFT, UNKNOWN (Redis knows), VOID, or
---another number: it is no such block.
---@param tags ffi.cdata* of new()
---@param block string
---@param max_stale_us integer
---@return integer verdict
function core_tags.check(tags, block, max_stale_us)
    return C.rc_tags_check(tags, block, #block, max_stale_us)
end

---New generations, which nobody can have seen before.
---@return string|nil bytes nil: the system gives no random ones
function core_tags.draw()
    if C.rc_random_bytes(random, GENERATIONS) ~= 0 then
        return nil
    end
    return ffi.string(random, GENERATIONS)
end

---The generations in a result.
---@return string|nil bytes nil: none, or something else
function core_tags.generations(slot)
    local result = slot.result
    if result.outcome ~= C.RC_HIT or result.kind ~= C.RC_KIND_VALUE
        or result.codec ~= C.RC_CODEC_RAW or result.entry_flags ~= 0
        or result.len ~= GENERATIONS then
        return nil
    end
    return ffi.string(result.data, GENERATIONS)
end

return core_tags
