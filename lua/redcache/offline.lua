-- offline - local-only mode: what is written and read on this machine while Redis is away.
--
-- What:   a call that Redis could not be asked for (`unavailable`) is answered by the near cache: a
--         write is kept there for all who share it, with the promise that Redis hears of a delete
--         of the key before it is asked for anything else; a read finds what was written so. Once
--         Redis is there again none of it is found any more, and none of it is written to Redis.
-- Memory: one object per cache object with the option `offline`; values and promises lie in the
--         near cache (core/near/backlog.h), which outlives this process where another one has it.
-- Not:    not for counters, cas and its kin, locks, tags, scripts: they fail as without it.

local constants = require("redcache.core.constants")
local core_away = require("redcache.core.away")
local core_near = require("redcache.core.near")
local entry = require("redcache.entry")
local errors = require("redcache.errors")

local KIND_NONE, KIND_VALUE = constants.KIND_NONE, constants.KIND_VALUE
local KIND_NEGATIVE, KIND_PLAIN = constants.KIND_NEGATIVE, constants.KIND_PLAIN

local offline = {}

---@class redcache.Offline
local Offline = {}
Offline.__index = Offline

-- Whether there is a near cache to keep it in: not before it is mapped, nor behind close.
local function is_open(cache)
    return cache._view ~= nil and cache._client.handle ~= nil
end

-- Whether this error means that Redis is away.
local function is_away(self, err)
    return err.code == "unavailable" and is_open(self._cache)
end

local function full(action, key)
    return errors.new("overload", action, key, "Redis is away, and as many deletes wait for it as"
        .. " the near cache can remember")
end

---A write that has failed: keeps the value here.
---@param key string
---@param bytes string encoded value
---@param ttl number|redcache.Forever seconds
---@param err redcache.Error why it has failed
---@return true|nil stored
---@return redcache.Error|nil err overload; or the same where it is about something else, or there
---is no room for the value
---@return string|nil flag "local"
function Offline:write(key, bytes, ttl, err)
    if not is_away(self, err) then
        return nil, err
    end
    local cache = self._cache
    local settings = cache._settings
    local status = core_away.write(cache._view, key, settings.plain and KIND_PLAIN or KIND_VALUE,
        settings.codec.id, bytes, ttl, self._ttl)
    if status == 0 then
        cache._counters.localWrites = cache._counters.localWrites + 1
        return true, nil, "local"
    end
    return nil, status == core_away.OVERLOAD and full("write", key) or err
end

---The same for a delete.
---@return true|nil deleted nobody knows whether there was something
---@return redcache.Error|nil err
---@return string|nil flag "local"
function Offline:delete(key, err)
    if not is_away(self, err) then
        return nil, err
    end
    local cache = self._cache
    local status = core_away.write(cache._view, key, KIND_NONE, 0, "", self._ttl, self._ttl)
    if status == 0 or status == 1 then
        cache._counters.localWrites = cache._counters.localWrites + 1
        return true, nil, "local"
    end
    return nil, status == core_away.OVERLOAD and full("delete", key) or err
end

---What was written here since Redis is away.
---@param key string
---@return string|nil found "value", "nothing" (no such thing), "deleted"; nil: it was not written
---@return any value
function Offline:look(key)
    local cache = self._cache
    if not is_open(cache) then
        return nil
    end
    local outcome, look = core_near.view_get(cache._view, key, cache._max_stale)
    if outcome ~= core_away.LOCAL then
        return nil
    end
    local kind, codec = core_near.entry()
    if kind == KIND_NONE then
        return "deleted"
    elseif kind == KIND_NEGATIVE then
        return "nothing"
    end
    local ok, value = entry.decode(cache._settings, kind, codec, 0, core_near.bytes())
    if ok and core_near.looks.last == look then
        return "value", value
    end
end

---The same, of a read that has failed, and counts it.
---@param err redcache.Error
---@return string|nil found
---@return any value
function Offline:find(key, err)
    if not is_away(self, err) then
        return nil
    end
    local found, value = self:look(key)
    if found then
        self._cache._counters.localReads = self._cache._counters.localReads + 1
    end
    return found, value
end

---What keep() goes by, before a load without Redis.
---@return ffi.cdata*|nil mark
function Offline:mark(key)
    local cache = self._cache
    return is_open(cache) and core_away.mark(cache._view, key) or nil
end

---Keeps what a load without Redis has made: Redis hears nothing of it.
---@param mark ffi.cdata*|nil of before the load
---@param kind integer
---@param codec integer id
---@param bytes string without what an entry tells of itself
---@param life number|redcache.Forever|integer seconds; 0: it is not to be kept
function Offline:keep(key, mark, kind, codec, bytes, life)
    local cache = self._cache
    if mark == nil or life == 0 or not is_open(cache) then
        return
    end
    if kind == KIND_VALUE and cache._settings.plain then
        kind = KIND_PLAIN
    end
    core_away.keep(cache._view, key, kind, codec, bytes, life, self._ttl, mark)
end

---Gives a cache object its local-only mode, where its settings ask for it.
---@param cache redcache.Cache
---@param settings table
function offline.attach(cache, settings)
    cache._offline = settings.offline
        and setmetatable({ _cache = cache, _ttl = settings.offline.ttl }, Offline) or false
end

return offline
