-- invalidate - what has a tag is void, or stale, from now on: however many keys that are.
--
-- What:   invalidateTags takes the keys of the tags away, as deleteMulti does: an entry whose tag
--         has no generation, or another one, is a miss. With soft = true a script draws a new soft
--         generation in its place, and a new version, by which near copies are told apart. Its twin
--         for memory:// is core/store/tag_scripts.c.
-- Not:    the entries themselves stay where they are until they expire.

local batch = require("redcache.batch")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local core_tags = require("redcache.core.tags")
local errors = require("redcache.errors")
local many = require("redcache.many")
local options = require("redcache.options")
local tag_index = require("redcache.tag_index")
local tags = require("redcache.tags")

local invalidate = {}

-- K; generations with a new version -> 1 its soft generation is a new one | 0 it has none.
local CHANGE = [[
local h=redis.call('GETRANGE',KEYS[1],0,40)
if #h~=40 or string.sub(h,1,4)~='\251\1\1\1' then return 0 end
redis.call('SETRANGE',KEYS[1],8,string.sub(ARGV[1],9,16))
redis.call('SETRANGE',KEYS[1],32,string.sub(ARGV[1],33,40))
return 1
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

-- The script's arguments: new generations with a version, which the core writes. nil: no random
-- bytes can be had.
local function draw()
    local drawn = core_tags.draw()
    script = script or core_command.define(CHANGE)
    return drawn and { { codec = constants.CODEC_RAW, bytes = drawn, ttl = options.FOREVER,
        grace = 0, plain = false } }
end

---Writes soft invalidations of tags first to last into a slot: by the names of their keys behind
---the prefix of the cache.
---@return integer status
function invalidate.write_soft(cache, slot, list, first, last)
    local arguments = draw()
    if arguments == nil then
        return constants.NOMEM
    end
    return many.write_scripts(cache, slot, script, 0, list, first, last, function()
        return arguments
    end)
end

local function change_once(own, list, opts)
    local failed, changed, arguments = {}, 0, draw()
    if arguments == nil then
        return nil, errors.new("redis", "invalidate", list[1], "no random bytes can be had")
    end
    local names, count = many.distinct(own, list, failed, "invalidate")
    local numbers, sent = many.script(own, opts, script, 0, names, count, function()
        return arguments
    end, "invalidate", failed)
    local _, err = next(failed)
    if err then
        return nil, err
    elseif sent then
        return count, nil, sent
    end
    for _, number in pairs(numbers) do
        changed = changed + number
    end
    return changed
end

-- Draws new soft generations: how many tags have them. The same are never sent twice, others
-- are drawn: there may have been newer ones in between, and what those have made stale stays stale.
local function change(own, list, opts)
    local changed, err, sent = change_once(own, list, opts)
    if err and err.code == "outcomeUnknown" then
        return change_once(own, list, opts)
    end
    return changed, err, sent
end

-- Takes the index of tags away that are about to go. First: what was put in before that has older
-- generations, and is void when the tags have gone.
local function clear_index(self, list, opts)
    local index, keys = tag_index.keys(self, list)
    local _, err = batch.deleteMulti(index, keys, opts)
    return err
end

---Invalidates all that was stored with one of these tags, and what is being loaded with one of
---them: for every reader of every machine, near copies included, as fast as a delete is heard of.
---It costs one command for each tag (one for all tags of a master), whatever hangs on them.
---
---With soft = true entries that were stored with a grace window are stale instead: readers get them
---as "stale" while one loads again; others are misses.
---@param list string[] names of tags; doubles count once; an empty list sends nothing
---@param opts? table soft, timeout, cancelTag
---@return integer|nil count of tags that stood there: nothing valid hangs on the others
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, outcomeUnknown,
---overload, closed, redis: of any of the tags, where others may be done
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function invalidate.invalidateTags(self, list, opts)
    local fault, opts_read = tags.fault(list, "invalidateTags"), nil
    if not fault then
        opts_read, fault = options.read({}, opts, "delete", "invalidateTags")
    end
    if fault then
        error(fault, 2)
    end
    local err = core_client.closed(self._client, "invalidate", list[1])
    if err then
        return nil, err
    elseif #list == 0 then
        return 0
    end
    local own = tags.of(self)
    if opts_read.soft then
        return change(own, list, opts_read)
    end
    if self._settings.tagIndex and self._scheduler.can_wait() then
        err = clear_index(self, list, opts_read)
        if err then
            return nil, err
        end
    end
    return batch.deleteMulti(own, list, opts_read)
end

return invalidate
