-- put - writes through: runs the user's function as the only writer of the key, everywhere.
--
-- What:   takes the write lease, runs the writer, and stores what it returns; where that fails the
--         old value stays.
-- Memory: as load.lua says: the slot is an attempt's.
-- Not:    no degraded writes: without Redis there is no write lease.

local bit = require("bit")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local load = require("redcache.load")
local options = require("redcache.options")
local remember = require("redcache.remember")

local is_ttl = options.is_ttl
local bor = bit.bor
local PUT_FLAGS = bor(constants.PUT, constants.STRICT)

---What a put asks for beside the flags of its settings.
local put = { FLAGS = PUT_FLAGS }

---The error of a put whose write lease is gone.
---@param took number seconds of the user's function
---@return redcache.Error
function put.lost(key, settings, took)
    if not settings.renew and took >= settings.leaseTtl then
        return errors.new("leaseLost", "put", key, "the loader outlived its lease")
    end
    return errors.new("lockLost", "put", key, "the key was written or deleted meanwhile")
end

-- Ends a put that stores nothing, and tells nobody: the old value stays, and a caller that waits
-- for the key may load it.
local function give_up(cache, slot, value, err)
    local status = load.release(cache, slot)
    if status == constants.CANCELLED then
        err = core_slot.failure(slot, status, "put", slot.key)
    end
    if err then
        cache._counters.loadErrors = cache._counters.loadErrors + 1
        return nil, err
    end
    return value
end

-- Runs the writer under the write lease, and ends the lease.
local function write(cache, slot, ttl, fn, settings)
    local kind, codec, bytes, life, took, value = load.make(cache, slot, ttl, fn, settings, nil,
        slot.result.flags)
    if kind == nil then
        return give_up(cache, slot, nil, codec)
    elseif slot.tag_fault then
        return give_up(cache, slot, nil, slot.tag_fault)
    elseif life == 0 then
        return give_up(cache, slot, value, nil)
    end
    local status = load.begin_publish(slot, settings, kind, codec, bytes, life, took)
    if status ~= 0 then
        return give_up(cache, slot, nil, core_slot.failure(slot, status, "put", slot.key))
    end
    status = cache._wait(slot)
    if status ~= 0 then
        return nil, core_slot.failure(slot, status, "put", slot.key)
    elseif slot.result.outcome ~= constants.STORED then
        return nil, put.lost(slot.key, settings, took)
    end
    return value
end

-- A put, from the question for the write lease to its end, for load.run().
local function attempt(cache, slot, ttl, fn, settings)
    local flags = bor(settings.flags, PUT_FLAGS, settings.serveOld and 0 or constants.HIDE_OLD)
    slot.full = cache._prefix .. slot.key
    local status = calls.await(cache, slot,
        core_load.start(slot, slot.full, settings.numbers, flags))
    local value, err
    if status ~= 0 then
        err = core_slot.failure(slot, status, "put", slot.key)
    else
        value, err = write(cache, slot, ttl, fn, settings)
    end
    core_slot.give(slot)
    return value, err
end

---Writes through: runs `fn` as the only writer of the key, everywhere, and stores what it returns.
---Readers get the old value meanwhile; with serveOld = false they wait for the new one. Where fn
---fails, the old value stays, or comes back, with its remaining life (with serveOld = false it is
---lost where this process dies meanwhile). fn may outlive the old value: for its last 0.25 s (a
---third of leaseTtl if that is less) the lease stands in its place and readers wait, and a failure
---behind that moment does not bring it back.
---
---`fn` is called and answers as remember's; with a ttl of 0 nothing is stored and the old value
---stays. Without Redis there is no write lease: put then returns `unavailable` and does not run fn.
---@param key string
---@param ttl number|redcache.Forever|nil seconds above 0; nil: the cache's ttl
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as remember, and serveOld
---@return any value
---@return redcache.Error|nil err lockLost (deleted or overwritten meanwhile; nothing was stored),
---leaseLost, badTtl, loaderFailed, recursive, timeout, cancelled, encode, tooLarge, unavailable,
---outcomeUnknown, overload, closed, redis, cannotWait
function put.put(self, key, ttl, fn, opts)
    local settings = remember.door(self, key, fn, opts, "put")
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("put", key, ttl, "put")
    end
    local err = load.obstacle(self, key, "put")
    if err then
        return nil, err
    elseif not self._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, "put", key)
    end
    local slot
    slot, err = load.take(self, settings, key, "put")
    if slot == nil then
        return nil, err
    end
    local value
    value, err = load.run(attempt, self, slot, ttl, fn, settings)
    return value, err
end

return put
