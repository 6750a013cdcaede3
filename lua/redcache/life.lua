-- life - how long entries live: changed, lengthened, taken away, without a look at their payload.
--
-- What:   touch, expire, expireAt, persist. One script tells a value from a running load, its end,
--         and a remembered "no such thing", which all count as absent, and adds the grace window
--         that a header tells of. Its twin for memory:// is core/store/life_scripts.c.
-- Not:    no version is changed: who holds one (a refresh, a put) still finds its value.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")

local is_ttl = options.is_ttl
local give = core_slot.give
local RETRY = constants.RETRY

local life = {}

-- K; what is done: "T" only lengthen, "E" set, "A" until, "P" for ever; milliseconds -> 1 there
-- is a value | 0 there is none.
local CHANGE = [[
local h=redis.call('GETRANGE',KEYS[1],0,24)
if h=='' and redis.call('EXISTS',KEYS[1])==0 then return 0 end
local k=string.sub(h,1,2)=='\251\1' and #h>=24 and string.byte(h,3)
if k==2 then return 0 end
if (k==3 or k==4) and redis.call('PTTL',KEYS[1])>=0 then
local bare=string.sub(h,4,4)..string.sub(h,6,8)..string.sub(h,17,24)
if bare==string.rep('\0',12) and (k==3 or #h==24 and string.byte(h,5)==0) then return 0 end
end
if ARGV[1]=='P' then redis.call('PERSIST',KEYS[1]) return 1 end
local a,b,c,d=0,0,0,0
if k==1 then a,b,c,d=string.byte(h,17,20) end
local ms=string.format('%.0f',ARGV[2]+a+256*(b+256*(c+256*d)))
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
local ERROR = string.byte("-")
-- The year 2286: beyond it a time is a slip of the pen, milliseconds, say.
local LAST_SECOND = 1e10

local function change(self, key, how, ms, opts, method)
    local action = ACTIONS[how]
    local own, message = options.read({}, opts, "call", method)
    if own == nil then
        error(message, 3)
    end
    script = script or core_command.define(CHANGE)
    local slot, err, sent = calls.script(self, own, script, RETRY, key,
        { how, ("%.0f"):format(ms) }, action)
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local node = core_command.nodes(slot)[0]
    local found = node.integer == 1
    if node.type == ERROR then
        found, err = nil, core_command.node_failure(node, action, key)
    end
    give(slot)
    return found, err
end

-- Milliseconds; -1: for ever. nil: ttl is no time to live.
local function ms_of(ttl)
    return is_ttl(ttl) and core_entry.life_ms(ttl, 0) or nil
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
    local found, err, sent = change(self, key, ms < 0 and "P" or "T", ms, opts, "touch")
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
    local found, err, sent = change(self, key, ms < 0 and "P" or "E", ms, opts, "expire")
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

return life
