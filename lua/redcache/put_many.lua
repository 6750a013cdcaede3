-- put_many - writes many keys through: runs the user's function as the only writer of all of them.
--
-- What:   the write leases are asked for in one write. Where another writer holds one, the caller
--         gives back those of the keys that come behind it, and waits for that one. So a caller
--         that waits holds only leases of keys that come before the one it waits for, and calls
--         whose keys overlap, in whatever order, never wait for each other in a circle.
-- Memory: load_many.lua says whose the slots are.
-- Not:    what a put is (put.lua).

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local load = require("redcache.load")
local load_many = require("redcache.load_many")
local many = require("redcache.many")
local put = require("redcache.put")
local remember = require("redcache.remember")

local bor = bit.bor
local fail, finish, set = load_many.fail, load_many.finish, load_many.set
local BUSY, CANCELLED = constants.BUSY, constants.CANCELLED

local put_many = {}

-- The leases --------------------------------------------------------------------------------------

local function begin_lease(work, slot, key, more)
    local settings = work.settings
    local flags = bor(settings.flags, put.FLAGS, settings.serveOld and 0 or constants.HIDE_OLD,
        more)
    slot.full = work.cache._prefix .. key
    return core_load.start(slot, slot.full, settings.numbers, flags, slot.left)
end

-- Ends a key whose lease did not come.
local function refuse(work, key, status)
    work.is_cancelled = work.is_cancelled or status == CANCELLED
    if work.slots[key] then
        fail(work, key, core_slot.failure(work.slots[key], status, "put", key))
        finish(work, key)
    end
end

-- Asks for the leases of these keys, and waits for nobody: those that came, and those that another
-- writer or a loader holds.
local function try(work, list)
    local held, busy = {}, {}
    local begun = load_many.start_all(work, list, "put", function(slot, _, key)
        slot.left = false
        return begin_lease(work, slot, key, constants.NO_WAIT)
    end)
    for i = 1, #begun do
        local key = begun[i]
        local slot = work.slots[key]
        local status = work.cache._wait(slot)
        if status ~= 0 then
            refuse(work, key, status)
        else
            local into = slot.result.outcome == BUSY and busy or held
            into[#into + 1] = key
        end
    end
    return held, busy
end

-- Gives leases back; the slots stay.
local function release(work, list)
    local begun = load_many.start_all(work, list, "put", core_load.release)
    for i = 1, #begun do
        work.cache._wait(work.slots[begun[i]])
    end
end

-- Waits for the lease of one key that another writer holds. Whether it has come.
local function wait_for(work, key)
    local cache, slot = work.cache, work.slots[key]
    local client = cache._client
    slot.left = work.settings.waitTimeout - work.waited
    local began, status = core_clock.now(client), constants.TIMEOUT
    if slot.left > 0 then
        status = begin_lease(work, slot, key, 0)
        if status == 0 then
            status = cache._wait(slot)
        end
    end
    work.waited = work.waited + core_clock.now(client) - began
    if status ~= 0 then
        refuse(work, key, status)
    end
    return status == 0
end

-- The keys behind a key of a sorted list that are still to be had.
local function behind(work, list, key)
    local rest = {}
    for i = 1, #list do
        if list[i] > key and work.slots[list[i]] then
            rest[#rest + 1] = list[i]
        end
    end
    return rest
end

-- Takes the leases of a sorted list: those that came.
local function lease_all(work, list)
    local held, rest = {}, list
    while #rest > 0 do
        local came, busy = try(work, rest)
        local first, back = busy[1], {}
        for i = 1, #came do
            local key = came[i]
            local into = (first == nil or key < first) and held or back
            into[#into + 1] = key
        end
        if first == nil then
            break
        end
        release(work, back)
        if work.is_cancelled then
            for i = 1, #busy do
                refuse(work, busy[i], CANCELLED)
            end
            break
        elseif wait_for(work, first) then
            held[#held + 1] = first
        end
        rest = behind(work, rest, first)
    end
    return held
end

-- The writes --------------------------------------------------------------------------------------

-- Starts the end of each key's write, but for start_held(held).
local function begin_ends(work, loaded, keys, held)
    local settings, ends = work.settings, {}
    for i = 1, #keys do
        local key = keys[i]
        local slot, one = work.slots[key], {}
        one.kind, one.codec, one.bytes, one.life, one.value =
            load_many.entry_of(work, loaded, key, nil)
        if work.tag_fault and one.kind ~= nil then
            one.kind, one.codec = nil, work.tag_fault
        end
        one.stores = one.kind ~= nil and one.life ~= 0
        slot.tagged = work.tagged or false
        core_slot.hold(slot)
        if one.stores then
            one.status = load.begin_publish(slot, settings, one.kind, one.codec, one.bytes,
                one.life, loaded.took)
            one.refused = one.status ~= 0 and core_slot.failure(slot, one.status, "put", key)
        end
        if not one.stores or one.refused then
            one.status = core_load.release(slot) -- the old value stays
        end
        core_slot.join_held(slot, held, one.status == 0)
        ends[i] = one
    end
    return ends
end

-- What a key's caller gets.
local function take_end(work, loaded, key, one)
    local slot, status = work.slots[key], one.status
    if status == 0 then
        status = work.cache._wait(slot)
    end
    local err = one.refused
    if one.stores and not err then
        err = status ~= 0 and core_slot.failure(slot, status, "put", key)
            or slot.result.outcome ~= constants.STORED
            and put.lost(key, work.settings, loaded.took)
    elseif status == CANCELLED then
        err = core_slot.failure(slot, status, "put", key)
    elseif not err then
        err = one.kind == nil and one.codec
    end
    if err then
        work.cache._counters.loadErrors = work.cache._counters.loadErrors + 1
        fail(work, key, err)
    else
        set(work, key, one.value)
    end
    finish(work, key)
end

local function write_all(work, list)
    local keys, held = lease_all(work, list), {}
    if work.is_cancelled then
        release(work, keys)
        for i = 1, #keys do
            refuse(work, keys[i], CANCELLED)
        end
        return
    elseif #keys == 0 then
        return
    end
    local loaded = load_many.run(work, keys, { notModified = load.NOT_MODIFIED, stale = {} },
        true)
    load_many.count_extras(work, loaded, keys)
    local ends = begin_ends(work, loaded, keys, held)
    core_slot.start_held(held)
    for i = 1, #keys do
        take_end(work, loaded, keys[i], ends[i])
    end
end

---Writes many keys through: runs `fn` once as the only writer of all of them, and stores what it
---returns, each key by itself. Calls whose keys overlap never wait for each other in a circle;
---leases that are held are renewed while others are waited for.
---
---`fn` is called and answers as rememberMulti's, with the keys whose write lease this call has:
---keys whose lease did not come have an error and are not written. Of a key that fn omits "no such
---thing" is stored; where it has a failure, or a ttl of 0, the old value stays.
---@param keys string[] doubles are written once; an empty list sends nothing
---@param ttl? number|redcache.Forever|table<string, number|redcache.Forever>|fun(key: string,
---value: any): number|redcache.Forever|nil seconds as rememberMulti
---@param fn fun(keys: string[], ctx: table): table<string, any>|nil, any, table|nil
---@param opts? table as Cache:put; waitTimeout is for all waits of the call
---@return table<string, any> values by key, as fn has returned them
---@return table<string, redcache.Error> failed by key, as Cache:put; empty when all went well
---@return table<string, true> negatives keys of which "no such thing" was stored
function put_many.putMulti(self, keys, ttl, fn, opts)
    local settings, fault = self._settings, many.load_fault(self, keys, ttl, fn, "putMulti")
    if not fault and opts ~= nil then
        settings, fault = remember.settings(self, opts, "put", "putMulti")
    end
    if fault then
        error(fault, 2)
    end
    local work = load_many.new(self, settings, ttl, fn, "put", "putMulti")
    work.waited = 0
    local list, rest = many.distinct(self, keys, work.failed, "put"), {}
    local can_wait = self._scheduler.can_wait()
    for _, key in ipairs(load_many.with_ttl(work, list)) do
        local err = load.obstacle(self, key, "put")
            or not can_wait and core_slot.failure(nil, constants.NOT_WAITED, "put", key)
        if err then
            fail(work, key, err)
        else
            rest[#rest + 1] = key
        end
    end
    if #rest > 0 then
        table.sort(rest)
        load_many.guarded(work, write_all, rest)
    end
    return work.values, work.failed, work.negatives
end

return put_many
