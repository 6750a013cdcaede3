-- sweep - deletes all keys of a pattern: deleteByPattern, flush.
--
-- What:   each piece of a walk is deleted by a script, which tells how many of its keys held
--         values. Leases of running loads go, too, uncounted: what such a load publishes is not
--         stored. The script's twin for memory:// is core/store/sweep_scripts.c.
-- Errors: nil, err and how many were deleted before it.
-- Not:    locks and helper keys stay: no key of a namespace is called like them.

local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_met = require("redcache.core.met")
local core_slot = require("redcache.core.slot")
local batch = require("redcache.batch")
local errors = require("redcache.errors")
local options = require("redcache.options")
local present = require("redcache.present")
local scan = require("redcache.scan")
local tags = require("redcache.tags")
local usage = require("redcache.usage")
local walk = require("redcache.walk")

local give = core_slot.give
local ERROR = string.byte("-")

local sweep = {}

-- Keys of one script: the server is done with them in some 0.2 ms.
local BATCH = 100

-- K... -> how many of them held values; all are gone.
local CLEAR = present.NOTHING .. [[
local n=0
for i=1,#KEYS do
local h=redis.pcall('GETRANGE',KEYS[i],0,24)
local is_table=type(h)=='table'
if is_table and not string.find(h.err,'WRONGTYPE') then return h end
local is_value=is_table or not nothing(KEYS[i],h)
if redis.call('UNLINK',KEYS[i])==1 and is_value then n=n+1 end
end
return n
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

-- Names in lists that one script may be run on: in a cluster those of one hash slot.
local function groups_of(self, names)
    if self._slots == nil then
        return { names }
    end
    local groups, by_slot = {}, {}
    for i = 1, #names do
        local slot = core_command.key_slot(names[i])
        local group = by_slot[slot]
        if group == nil then
            group = {}
            by_slot[slot], groups[#groups + 1] = group, group
        end
        group[#group + 1] = names[i]
    end
    return groups
end

-- Deletes the names. How many were values, err
local function clear(self, names)
    if #names == 0 then
        return 0
    end
    local groups = groups_of(self, names)
    local slot, err = self:send(0, function(slot)
        local status = 0
        for i = 1, #groups do
            if status ~= 0 then
                return status
            end
            status = core_command.script(slot, script, groups[i], {})
        end
        return status
    end)
    if slot == nil then
        return 0, err
    end
    local nodes, deleted = core_command.nodes(slot), 0
    for i = 0, #groups - 1 do
        if nodes[i].type == ERROR then
            err = err or core_command.node_failure(nodes[i], self.action)
        else
            deleted = deleted + tonumber(nodes[i].integer)
        end
    end
    give(slot)
    return deleted, err
end

-- Counts what clear() would delete. How many, err
local function count(self, names, met)
    local values, err = scan.values(self, names)
    if values == nil then
        return 0, err
    end
    local new = 0
    for i = 1, #values do
        local is_new = core_met.add(met, values[i])
        if is_new == nil then
            return new, errors.new("overload", self.action, nil, "no memory")
        end
        new = new + (is_new and 1 or 0)
    end
    return new
end

-- Waits until `rate` keys a second were done, or less. err
local function hold(self, rate, done, started)
    local due = started + done / rate
    local left = due - core_clock.now(self.cache._client)
    return left > 0 and self:pause(left) or nil
end

local function run(cache, pattern, own, action)
    local self = walk.new(cache, pattern, own, own.batch or BATCH, action)
    local met = own.dryRun and core_met.new()
    local started, total, seen = core_clock.now(cache._client), 0, 0
    script = script or core_command.define(CLEAR)
    while true do
        local names, err = self:next()
        if names == nil then
            return not err and total or nil, err, err and total
        end
        local done
        done, err = (met and count or clear)(self, names, met)
        total, seen = total + done, seen + #names
        if err then
            self.over = true
            return nil, err, total
        end
        if #names > 0 and own.progress and own.progress(total, seen) == false then
            self.over = true
            return total
        end
        err = own.rate and hold(self, own.rate, seen, started)
        if err then
            self.over = true
            return nil, err, total
        end
    end
end

---Deletes the keys of a pattern, of all masters. Running loads of such keys are void: what they
---publish is not stored. Locks stay. Near copies of these keys are void at once.
---@param pattern string as Cache:scan
---@param opts? table batch (100: keys that a server deletes at once), rate (keys a second, no
---bound), dryRun (false; true: counts, and deletes nothing), progress (function(deleted, seen) that
---is called as it goes on; false ends it), timeout (of each answer), cancelTag
---@return integer|nil deleted keys that held values, or would be
---@return redcache.Error|nil err timeout, cancelled, unavailable, outcomeUnknown, overload, closed,
---redis, cannotWait
---@return integer|nil before with err: how many were deleted before it; of the batch that was under
---way nothing is known
function sweep.deleteByPattern(self, pattern, opts)
    if type(pattern) ~= "string" then
        error(errors.argument("pattern", "deleteByPattern", "string", pattern), 2)
    end
    local own, message = options.read({}, opts, "sweep", "deleteByPattern")
    if own == nil then
        error(message, 2)
    end
    local deleted, err, before = run(self, pattern, own, "delete")
    return deleted, err, before
end

-- flush with instant = true.
local function flush_at_once(self, own)
    if not self._settings.generation then
        error("bad option 'instant' to flush: it needs a namespace with generation = true"
            .. usage.hint("flush"), 3)
    end
    for _, name in ipairs({ "batch", "rate", "dryRun", "progress" }) do
        if own[name] then
            error("bad option '" .. name .. "' to flush: with instant = true no key is looked at:"
                .. " leave one of the two out", 3)
        end
    end
    local names, name = tags.namespace(self)
    local voided, err, sent = batch.deleteMulti(names, { name },
        { timeout = own.timeout, cancelTag = own.cancelTag })
    return voided, err, sent
end

---Deletes all keys of this namespace, as deleteByPattern("*"); those of the namespaces in it stay.
---With instant = true no key is touched: in a namespace with generation = true all that was stored
---until now is a miss from now on, for one command.
---@param opts? table as deleteByPattern; instant; all (true: a cache without a namespace deletes
---all keys of its database, those of all namespaces among them; without it that is an error)
---@return integer|nil deleted as deleteByPattern
---@return redcache.Error|nil err as deleteByPattern
---@return integer|nil before as deleteByPattern
function sweep.flush(self, opts)
    local own, message = options.read({}, opts, "flush", "flush")
    if own == nil then
        error(message, 2)
    elseif self._prefix == "" and not own.all and not own.instant then
        error("bad option 'all' to flush: without a namespace these are all keys of the database:"
            .. " say all = true" .. usage.hint("flush"), 2)
    elseif own.instant then
        local voided, err, sent = flush_at_once(self, own)
        return voided, err, sent
    end
    local deleted, err, before = run(self, "*", own, "flush")
    return deleted, err, before
end

return sweep
