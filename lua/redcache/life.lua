-- life - how long entries live: changed, lengthened, taken away, without a look at their payload.
--
-- What:   touch, expire, expireAt, persist; touchMulti, expireMulti. One script tells a value from
--         what counts as absent (present.lua), and adds the grace window that a header tells of.
--         Its twin for memory:// is core/store/life_scripts.c.
-- Not:    no version is changed: who holds one (a refresh, a put) still finds its value.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local many = require("redcache.many")
local options = require("redcache.options")
local present = require("redcache.present")

local is_ttl = options.is_ttl
local give = core_slot.give
local RETRY = constants.RETRY

local life = {}

-- K; what is done: "T" only lengthen, "E" set, "A" until, "P" for ever; milliseconds -> 1 there
-- is a value | 0 there is none.
local CHANGE = present.NOTHING .. present.HEAD .. present.GRACE .. [[
local h=head(KEYS[1])
if nothing(KEYS[1],h) then return 0 end
if ARGV[1]=='P' then redis.call('PERSIST',KEYS[1]) return 1 end
local ms=string.format('%.0f',ARGV[2]+grace(h))
if ARGV[1]=='A' then redis.call('PEXPIREAT',KEYS[1],ms) return 1 end
if ARGV[1]=='T' then
local left=redis.call('PTTL',KEYS[1])
if left<0 or left>=tonumber(ms) then return 1 end
end
redis.call('PEXPIRE',KEYS[1],ms)
return 1
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

-- For errors.
local ACTIONS = { T = "touch", E = "expire", A = "expire", P = "persist" }
-- The year 2286: beyond it a time is a slip of the pen, milliseconds, say.
local LAST_SECOND = 1e10

-- Milliseconds; -1: for ever. nil: ttl is no time to live.
local function ms_of(ttl)
    return is_ttl(ttl) and core_entry.life_ms(ttl, 0) or nil
end

-- The script's arguments; milliseconds of -1 are for ever.
local function arguments(how, ms)
    return { ms < 0 and "P" or how, ("%.0f"):format(ms) }
end

local function change(self, key, how, ms, opts, method)
    local action = ACTIONS[how]
    local own, message = options.read({}, opts, "call", method)
    if own == nil then
        error(message, 3)
    end
    script = script or core_command.define(CHANGE)
    local slot, err, sent = calls.script(self, own, script, RETRY, { key },
        arguments(how, ms), action)
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local node = core_command.nodes(slot)[0]
    local found = node.integer == 1
    if core_command.is_error(node) then
        found, err = nil, core_command.node_failure(node, action, key)
    end
    give(slot)
    return found, err
end

---Lengthens a value's life: it lives `ttl` from now, and its grace window behind that, or as long
---as it would anyway where that is longer.
---@param key string
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag
---@return boolean|nil found false: there is no value (a running load and "no such thing" are none)
---@return redcache.Error|nil err badTtl, tooLarge, timeout, cancelled, unavailable, overload,
---closed, redis
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function life.touch(self, key, ttl, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "touch", "string", key), 2)
    end
    ttl = ttl == nil and self._settings.ttl or ttl
    local ms = ms_of(ttl)
    if ms == nil then
        return nil, errors.bad_ttl("touch", key, ttl, "touch")
    end
    local found, err, sent = change(self, key, "T", ms, opts, "touch")
    return found, err, sent
end

---Sets a value's life: it lives `ttl` from now, longer or shorter than it would, and its grace
---window behind that.
---@param key string
---@param ttl number|redcache.Forever seconds above 0
---@param opts? table timeout, cancelTag
---@return boolean|nil found as touch
---@return redcache.Error|nil err as touch
---@return string|nil sent as touch
function life.expire(self, key, ttl, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "expire", "string", key), 2)
    end
    local ms = ms_of(ttl)
    if ms == nil then
        return nil, errors.bad_ttl("expire", key, ttl, "expire")
    end
    local found, err, sent = change(self, key, "E", ms, opts, "expire")
    return found, err, sent
end

---Sets the end of a value's life by the clock of Redis; its grace window comes behind that. A time
---that is over ends it at once.
---@param key string
---@param at number seconds since 1970, fractions allowed
---@param opts? table timeout, cancelTag
---@return boolean|nil found as touch
---@return redcache.Error|nil err as touch
---@return string|nil sent as touch
function life.expireAt(self, key, at, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "expireAt", "string", key), 2)
    elseif type(at) ~= "number" or not (at >= 0 and at <= LAST_SECOND) then
        error("bad argument 'at' to expireAt: seconds since 1970 expected, got "
            .. (type(at) == "number" and ("%.14g"):format(at) or type(at)), 2)
    end
    local found, err, sent = change(self, key, "A", math.floor(at * 1000), opts, "expireAt")
    return found, err, sent
end

---Lets a value live for ever.
---@param key string
---@param opts? table timeout, cancelTag
---@return boolean|nil found as touch
---@return redcache.Error|nil err as touch
---@return string|nil sent as touch
function life.persist(self, key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "persist", "string", key), 2)
    end
    local found, err, sent = change(self, key, "P", 0, opts, "persist")
    return found, err, sent
end

-- The keys of a list, or of a map of ttls; what is wrong with them, as an argument error.
-- list | nil, message
local function keys_of(keys, ttl, method)
    if type(keys) ~= "table" or keys[1] ~= nil or next(keys) == nil then
        local fault = many.list_fault(keys, method)
        return not fault and keys or nil, fault
    end
    local list = {}
    for key in pairs(keys) do
        if type(key) ~= "string" then
            return nil, errors.argument("keys", method, "list of strings or map of ttls by key",
                key)
        end
        list[#list + 1] = key
    end
    if ttl ~= nil then
        return nil, ("bad argument 'ttl' to %s: nil expected, for keys holds a ttl for each,"
            .. " got %s"):format(method, type(ttl))
    end
    return list
end

-- Changes the lives of many keys. ttl: of those in a list.
local function change_many(self, keys, how, ttl, opts, method)
    local list, message = keys_of(keys, ttl, method)
    local own
    if list then
        own, message = options.read({}, opts, "call", method)
    end
    if not own then
        error(message, 3)
    end
    local is_map, action = list ~= keys, ACTIONS[how]
    local found, failed, lives, good = {}, {}, {}, {}
    local count
    list, count = many.distinct(self, list, failed, action)
    for i = 1, count do
        local key = list[i]
        local own_ttl = ttl
        if is_map then
            own_ttl = keys[key]
        end
        lives[key] = ms_of(own_ttl)
        if lives[key] then
            good[#good + 1] = key
        else
            failed[key] = errors.bad_ttl(action, key, own_ttl, method)
        end
    end
    script = script or core_command.define(CHANGE)
    local numbers, sent = many.script(self, own, script, RETRY, good, #good, function(key)
        return arguments(how, lives[key])
    end, action, failed)
    for _, key in ipairs(good) do
        if not failed[key] then
            found[key] = sent ~= nil or numbers[key] == 1
        end
    end
    return found, failed, sent
end

---touch for many keys: one round trip to each server (one per 8,192 keys).
---@param keys string[]|table<string, number|redcache.Forever> a list, or a map of ttls by key;
---doubles count once; an empty one sends nothing
---@param ttl? number|redcache.Forever seconds above 0, for all keys of a list; nil: the cache's ttl
---@param opts? table timeout, cancelTag
---@return table<string, boolean> found by key, as touch; a key that failed has none
---@return table<string, redcache.Error> failed by key, as touch; empty when all went well
---@return string|nil sent "sent": this phase of nginx cannot wait; all are true, nobody knows
function life.touchMulti(self, keys, ttl, opts)
    local is_list = type(keys) == "table" and (keys[1] ~= nil or next(keys) == nil)
    if ttl == nil and is_list then
        ttl = self._settings.ttl
    end
    local found, failed, sent = change_many(self, keys, "T", ttl, opts, "touchMulti")
    return found, failed, sent
end

---expire for many keys; as touchMulti in everything else.
---@param keys string[]|table<string, number|redcache.Forever>
---@param ttl number|redcache.Forever|nil seconds above 0, for all keys of a list; nil for a map
---@param opts? table timeout, cancelTag
---@return table<string, boolean> found
---@return table<string, redcache.Error> failed
---@return string|nil sent
function life.expireMulti(self, keys, ttl, opts)
    local found, failed, sent = change_many(self, keys, "E", ttl, opts, "expireMulti")
    return found, failed, sent
end

return life
