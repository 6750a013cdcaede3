-- calls - the parts that every call to Redis has: a slot, an operation, the wait for it, its end.
--
-- What:   local slot, err = calls.take(client, own, "read", key)
--         local status = calls.await(cache, slot, core_entry.get(slot, prefix, key, 0))
--         if status ~= 0 then return nil, calls.fail(slot, status, "read", key) end
--         ... reads the slot's result ...
--         give(slot)
-- Memory: the slot is the caller's from take() until fail() or core_slot.give().
-- Errors: error objects. In a phase of nginx that cannot wait, await() gives NOT_WAITED: what was
--         started goes on without its caller; a write has been sent then.
-- Not:    no closure, no table: these stand on the way of every hit. What may throw while a slot
--         holds a lease or lock runs protected (remember.lua, lock.lua).

local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local core_near = require("redcache.core.near")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")

local customize, failure, give = core_slot.customize, core_slot.failure, core_slot.give
local submit, take = core_command.submit, core_slot.take

-- Tags of our own pauses: above those of users, and each a number that a double holds exactly. One
-- that another Lua state has, too, wakes a caller early, which then looks and waits on.
local TAG_BASE, TAG_STEP = 2 ^ 60, 2 ^ 8
local tags = 0

local calls = {}

---Takes a slot and lends it the timeout and tag of a call.
---@param client redcache.Client
---@param own table|nil options: timeout, cancelTag
---@param action string for the error, as the key
---@param key string|nil
---@return redcache.Slot|nil slot
---@return redcache.Error|nil err
---@return integer|nil status why not
function calls.take(client, own, action, key)
    local slot, status = take(client)
    if slot == nil then
        return nil, failure(nil, status, action, key), status
    end
    if own ~= nil and (own.timeout or own.cancelTag) then
        customize(slot, own.timeout, own.cancelTag)
    end
    return slot
end

local take_for = calls.take

---As take, for a call of a cache: within the limits of its namespace, where it has any
---(bulkhead.lua).
---@param cache redcache.Cache
---@param own table|nil options: timeout, cancelTag
---@param action string for the error, as the key
---@param key string|nil
---@return redcache.Slot|nil slot
---@return redcache.Error|nil err
---@return integer|nil status why not
---@return string|nil cause of that status; nil: it says it all
function calls.enter(cache, own, action, key)
    local bulkhead = cache._bulkhead
    if bulkhead then
        return bulkhead:enter(cache, own, action, key)
    end
    if own == nil then -- most calls; one call less for each
        local slot, status = take(cache._client)
        return slot, slot == nil and failure(nil, status, action, key) or nil, status
    end
    return take_for(cache._client, own, action, key)
end

---What a read asks the core for, under the options of its call: REPLICA where a replica may answer.
---@param cache redcache.Cache
---@param own table|nil options: reads, fresh
---@return integer flags
function calls.reads(cache, own)
    local reads = own and own.reads or cache._settings.reads
    return reads == "replica" and not (own and own.fresh) and constants.REPLICA or 0
end

---How old an answer from near may be, under the options of its call.
---@param cache redcache.Cache
---@param own table|nil options: maxStale
---@return integer microseconds
function calls.max_stale(cache, own)
    return own and own.maxStale and core_near.stale_us(own.maxStale) or cache._max_stale
end

---What stands for a cache, for these functions and those of many.lua, where keys have another
---prefix.
---@param client redcache.Client
---@param prefix string
---@param cache? redcache.Cache whose limits hold for its calls, too; nil: none
---@return table
function calls.under(client, prefix, cache)
    local scheduler = client.scheduler
    return { _client = client, _prefix = prefix, _scheduler = scheduler,
        _wait = cache and cache._wait or scheduler.wait, _bulkhead = cache and cache._bulkhead,
        _counters = cache and cache._counters }
end

---Waits for what was started in the slot.
---@param cache redcache.Cache
---@param slot redcache.Slot
---@param status integer of the start; other than 0, nothing runs
---@return integer status
function calls.await(cache, slot, status)
    if status == 0 then
        return cache._wait(slot)
    end
    return status
end

---Sends the commands that were written into the slot, and waits for their answers.
---@param cache redcache.Cache
---@param slot redcache.Slot
---@param status integer of the last part that was written
---@return integer status
function calls.send(cache, slot, status)
    if status == 0 then
        status = submit(slot)
    end
    if status == 0 then
        return cache._wait(slot)
    end
    return status
end

---Gives an object to the running coroutine until scheduler.unguard(), also where it is the first
---call of the process: what guards is there once a slot was taken.
---@param cache redcache.Cache
---@param object table on the stack of the coroutine meanwhile
---@param drop fun(object: table) where the coroutine vanishes
---@return boolean guarded not so of a closed cache, or without memory
function calls.guard(cache, object, drop)
    local client = cache._client
    local slot = take(client)
    if slot == nil then
        return false
    end
    give(slot)
    cache._scheduler.guard(client, object, drop)
    return true
end

---A tag for a pause of our own, which wake() ends.
---@return integer tag
function calls.own_tag()
    tags = tags + 1
    return TAG_BASE + tags * TAG_STEP
end

---Ends the pauses of that tag.
---@param cache redcache.Cache
---@param tag integer of own_tag()
function calls.wake(cache, tag)
    local client, tell = cache._client, cache._scheduler.tell
    if client.handle == nil then
        return -- closing has ended them
    end
    core_client.cancel(client, tag)
    if tell then
        tell(client)
    end
end

---Waits, without a call to Redis; another scheduler than blocking lets others run meanwhile.
---@param cache redcache.Cache
---@param own table|nil options of the call: cancelTag ends the pause
---@param action string for the error
---@param seconds number
---@return redcache.Error|nil err
function calls.pause(cache, own, action, seconds)
    local slot, err = calls.take(cache._client, own, action)
    if slot == nil then
        return err
    end
    local status = calls.await(cache, slot, core_command.pause(slot, seconds))
    if status ~= 0 then
        return calls.fail(slot, status, action)
    end
    give(slot)
end

---Runs one script on a key, or several of one hash slot, and waits for its answer.
---@param cache redcache.Cache
---@param own table options of the call: timeout, cancelTag
---@param script integer of core_command.define()
---@param flags integer RETRY where it may be done twice, or 0
---@param keys string[]
---@param arguments (string|integer|redcache.EntryArgument)[]
---@param action string for the error, as the first key
---@return redcache.Slot|nil slot holds the answer, an error of Redis, too; the caller gives it back
---@return redcache.Error|nil err why it was not answered
---@return string|nil sent "sent", without an error: this phase of nginx cannot wait
function calls.script(cache, own, script, flags, keys, arguments, action)
    local client, prefix, full, key = cache._client, cache._prefix, {}, keys[1]
    for i = 1, #keys do
        full[i] = prefix .. keys[i]
        if #full[i] > client.max_key then
            return nil, errors.new("tooLarge", action, keys[i], "the key is over maxKey")
        end
    end
    local slot, err = calls.enter(cache, own, action, key)
    if slot == nil then
        return nil, err
    end
    local status = core_command.begin(slot, flags)
    if status == 0 then
        status = core_command.script(slot, script, full, arguments)
    end
    status = calls.send(cache, slot, status)
    if status == constants.NOT_WAITED then
        core_slot.give(slot)
        return nil, nil, "sent"
    elseif status ~= 0 then
        return nil, calls.fail(slot, status, action, key)
    end
    return slot
end

---Ends a call that failed: gives the slot back.
---@param slot redcache.Slot
---@param status integer other than 0
---@param action string
---@param key string|nil
---@return redcache.Error err
function calls.fail(slot, status, action, key)
    local err = failure(slot, status, action, key)
    give(slot)
    return err
end

return calls
