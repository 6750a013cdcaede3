-- soft - a soft invalidation: the entry is stale at once, and stays for its grace window.
--
-- What:   delete and deleteMulti with soft = true. One script ends the life of an entry that has a
--         grace window, and gives it a new version: a refresh or put that began before stores
--         nothing. What has no window is deleted. Its twin for memory:// is
--         core/store/soft_scripts.c.
-- Not:    a failover that loses it is not made good, as it is for a delete.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local many = require("redcache.many")
local options = require("redcache.options")
local present = require("redcache.present")

local soft = {}

-- K; a header with a new version -> 2 it is stale | 1 it is deleted | 0 there was nothing.
local SOFTEN = present.NOTHING .. present.HEAD .. present.GRACE .. [[
local h=head(KEYS[1])
if not h then return 0 end
local ms=nothing(KEYS[1],h) and 0 or grace(h)
if ms==0 then redis.call('UNLINK',KEYS[1]) return 1 end
redis.call('SETRANGE',KEYS[1],8,string.sub(ARGV[1],9,16))
local left=redis.call('PTTL',KEYS[1])
if left<0 or left>ms then redis.call('PEXPIRE',KEYS[1],string.format('%.0f',ms)) end
return 2
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

-- The core writes a new version into each header.
local ARGUMENTS = { { codec = 0, bytes = "", ttl = options.FOREVER, grace = 0, plain = false } }

local function arguments()
    return ARGUMENTS
end

---Writes the soft deletes of keys first to last into a slot.
---@return integer status
function soft.write(cache, slot, list, first, last)
    script = script or core_command.define(SOFTEN)
    return many.write_scripts(cache, slot, script, constants.RETRY, list, first, last, arguments)
end

---Cache:delete with soft = true, whose options are checked.
---@param key string
---@param own table
---@return boolean|nil there
---@return redcache.Error|nil err
---@return string|nil sent
function soft.delete(cache, key, own)
    script = script or core_command.define(SOFTEN)
    local slot, err, sent = calls.script(cache, own, script, constants.RETRY, { key }, ARGUMENTS,
        "delete")
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local node = core_command.nodes(slot)[0]
    local there = node.integer > 0
    if core_command.is_error(node) then
        there, err = nil, core_command.node_failure(node, "delete", key)
    end
    core_slot.give(slot)
    return there, err
end

---Cache:deleteMulti with soft = true.
---@param list string[] of many.distinct()
---@param count integer
---@param own table
---@return integer|nil there
---@return redcache.Error|nil err of any key
---@return string|nil sent
function soft.delete_many(cache, list, count, own)
    script = script or core_command.define(SOFTEN)
    local failed = {}
    local numbers, sent = many.script(cache, own, script, constants.RETRY, list, count, arguments,
        "delete", failed)
    local _, err = next(failed)
    if err then
        return nil, err
    elseif sent then
        return count, nil, sent
    end
    local there = 0
    for _, number in pairs(numbers) do
        there = there + (number > 0 and 1 or 0)
    end
    return there
end

return soft
