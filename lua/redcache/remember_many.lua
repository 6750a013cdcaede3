-- remember_many - a caller that asks for many keys: those that are there, and one run of the
-- function that makes the others - each key once for everybody who asks meanwhile.
--
-- What:   the near cache first, then one question for all keys, which waits for nobody. The leases
--         that it brings are loaded and published before the call waits for a load of somebody
--         else: then it waits for one key, with no lease in its hands, and asks for the rest again.
--         So calls with overlapping keys, in whatever order, never wait for each other in a circle.
-- Memory: load_many.lua says whose the slots are.
-- Not:    how loads are run and ended (load_many.lua); the protocol (core).

local bit = require("bit")
local bloom = require("redcache.bloom")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_entry = require("redcache.core.entry")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local load = require("redcache.load")
local load_many = require("redcache.load_many")
local many = require("redcache.many")
local near = require("redcache.near")
local options = require("redcache.options")
local refresh_many = require("redcache.refresh_many")
local remember = require("redcache.remember")

local band, bor, is_ttl = bit.band, bit.bor, options.is_ttl
local fail, finish, set = load_many.fail, load_many.finish, load_many.set
local HIT, BUSY, FAILED = constants.HIT, constants.BUSY, constants.FAILED
local TIMEOUT, CANCELLED = constants.TIMEOUT, constants.CANCELLED

-- Keys that are asked for at once: each takes a slot meanwhile, and those of larger calls stay far
-- below maxQueue.
local KEYS_AT_ONCE = 4096

local remember_many = {}

-- Asking ------------------------------------------------------------------------------------------

-- The lease of the key is this call's, unless Redis is away and a near copy is still there.
local function take_lease(work, key, slot)
    local cache = work.cache
    local counters = cache._counters
    counters.misses = counters.misses + 1
    work.missed = work.missed + 1
    if band(slot.result.flags, constants.DEGRADED) ~= 0 then
        local found, stale = near.stale(cache, key, work.settings)
        if found then
            load.release(cache, slot)
            counters.stale = counters.stale + 1
            set(work, key, stale, "stale")
            finish(work, key)
            return
        end
    end
    work.leased[#work.leased + 1] = key
end

-- A value that is to be loaded again (due: its mark) has no room in there unless there is one.
local function keep_due(work, key, due, load_time)
    if due ~= nil then
        work.dues[key], work.load_times[key] = due, load_time
    end
end

-- A hit; where this version cannot read it, the key is asked for again, and the lease takes its
-- place.
local function take_hit(work, key, slot, later)
    local settings = work.settings
    if work.is_blind and band(slot.result.flags, constants.STALE) ~= 0
        and not settings.background then
        work.old[#work.old + 1] = key
        return
    end
    local ok, value, source, flag, due, load_time =
        remember.read_hit(work.cache, slot, settings)
    if ok then
        set(work, key, value, source == "stale" and source or flag)
        keep_due(work, key, due, load_time)
        finish(work, key)
        return
    end
    local replaced = work.replaced[key] or 0
    if source and settings.decodeErrors == "error" then
        fail(work, key, errors.new("decode", "load", key, value))
        finish(work, key)
    elseif replaced == remember.MAX_REPLACED then
        work.alone[#work.alone + 1] = key
    else
        work.replaced[key], work.replaces[key] = replaced + 1, true
        later[#later + 1] = key
    end
end

-- What Redis says of a key. `later` gets it where it is to be asked for again.
local function take_answer(work, key, status, later)
    local slot, settings = work.slots[key], work.settings
    local outcome = slot.result.outcome
    work.is_cancelled = work.is_cancelled or status == CANCELLED
    if status == 0 and outcome == HIT then
        take_hit(work, key, slot, later)
    elseif status == 0 and outcome == BUSY then
        work.busy = work.busy or key
        later[#later + 1] = key
    elseif status == 0 and outcome == FAILED then
        work.cache._counters.waits = work.cache._counters.waits + 1
        fail(work, key, load.failure(key, core_entry.text(slot)))
        finish(work, key)
    elseif status == 0 then
        take_lease(work, key, slot)
    elseif status == TIMEOUT then
        work.late[#work.late + 1] = key
    elseif status == constants.DESCRIPTORS and not settings.strict then
        -- As without Redis: no engine could be started.
        work.alone[#work.alone + 1] = key
    else
        fail(work, key, core_slot.failure(slot, status, "load", key))
        finish(work, key)
    end
end

local function begin_question(slot, work, key, flags)
    if work.replaces[key] then
        work.replaces[key], flags = nil, bor(flags, constants.REPLACE)
    end
    slot.left = false
    return remember.begin(work.cache, slot, work.settings, flags)
end

-- Asks for the keys of the list, and waits for no load. Gives those to be asked for again.
local function ask_all(work, list, flags)
    local later, cache = {}, work.cache
    local begun = load_many.start_all(work, list, "load", begin_question,
        bor(flags, constants.NO_WAIT))
    for i = 1, #begun do
        local key = begun[i]
        take_answer(work, key, cache._wait(work.slots[key]), later)
    end
    return later
end

-- The time is up ----------------------------------------------------------------------------------

-- What stands in Redis now for these keys, though its life may be over.
local function read_again(work, keys)
    local cache, status, held = work.cache, {}, {}
    for i = 1, #keys do
        local slot = work.slots[keys[i]]
        core_slot.hold(slot)
        status[i] = core_entry.get(slot, cache._prefix, keys[i], 0)
        core_slot.join_held(slot, held, status[i] == 0)
    end
    core_slot.start_held(held)
    for i = 1, #keys do
        local key = keys[i]
        local slot = work.slots[key]
        if status[i] == 0 and cache._wait(slot) == 0 and slot.result.outcome == HIT
            and slot.result.kind ~= constants.KIND_NEGATIVE then
            local ok, value = remember.decode(cache, slot, work.settings)
            if ok then
                cache._counters.stale = cache._counters.stale + 1
                set(work, key, value, "stale")
            end
        end
        finish(work, key)
    end
end

-- Nobody's load of these keys came to an end within waitTimeout: what onTimeout says.
local function time_out(work, keys)
    local cache, settings, again = work.cache, work.settings, {}
    local counters = cache._counters
    for i = 1, #keys do
        local key = keys[i]
        local slot = work.slots[key]
        local is_silent = slot.result.status == TIMEOUT
            and band(slot.result.flags, constants.WAITED) == 0
        counters.waits = counters.waits + 1
        if settings.onTimeout == "load" then
            work.alone[#work.alone + 1] = key
        else
            fail(work, key, core_slot.failure(slot, TIMEOUT, "load", key))
            local found, value = false, nil
            if settings.onTimeout == "stale" and is_silent then
                -- Redis itself is silent: it is not asked again.
                found, value = near.stale(cache, key, settings)
            end
            if found then
                counters.stale = counters.stale + 1
                set(work, key, value, "stale")
            end
            if settings.onTimeout == "stale" and not is_silent then
                again[#again + 1] = key
            else
                finish(work, key)
            end
        end
    end
    read_again(work, again)
end

-- The call ----------------------------------------------------------------------------------------

-- Waits for the load of a key that another caller has. False: the call waits for nothing else.
local function wait_for(work, key, later)
    local cache, slot, settings = work.cache, work.slots[key], work.settings
    local client = cache._client
    slot.left = settings.waitTimeout - work.waited
    if slot.left <= 0 then
        work.late[#work.late + 1] = key
        return false
    end
    local began = core_clock.now(client)
    local status = remember.begin(cache, slot, settings, 0)
    if status == 0 then
        status = cache._wait(slot)
    end
    slot.left = false
    work.waited = work.waited + core_clock.now(client) - began
    take_answer(work, key, status, later)
    return status ~= TIMEOUT and not work.is_cancelled
end

local function without(list, key)
    local rest = {}
    for i = 1, #list do
        if list[i] ~= key then
            rest[#rest + 1] = list[i]
        end
    end
    return rest
end

-- The call waits for none of these keys: it was cancelled, or its time is up.
local function stop(work, list)
    for i = 1, #list do
        local key = list[i]
        if work.is_cancelled then
            fail(work, key, core_slot.error_of(CANCELLED, nil, "load", key))
            finish(work, key)
        else
            work.late[#work.late + 1] = key
        end
    end
end

-- Waits for the first of these keys that another caller loads. Gives those to be asked for again.
local function wait(work, list)
    local busy = work.busy
    if work.is_cancelled then
        stop(work, list)
        return {}
    elseif busy == nil then
        return list
    end
    local rest, later = without(list, busy), {}
    if not wait_for(work, busy, later) then
        stop(work, rest)
        return later
    end
    for i = 1, #rest do
        later[#later + 1] = rest[i]
    end
    return later
end

-- How the first question is put: SET NX GET brings leases in one trip, GET leaves more to the near
-- cache. A replica answers only reads.
local function first_flags(work)
    local settings = work.settings
    local is_cold = work.cache._miss_ratio_many > 0.5
        and not (settings.reads == "replica" and not settings.fresh)
    return is_cold and constants.SCRIPT_FIRST or 0
end

-- The first question for the list. Gives the keys to be asked for again.
local function ask_first(work, list)
    local cache, flags = work.cache, first_flags(work)
    work.is_blind = flags ~= 0
    local later = ask_all(work, list, flags)
    work.is_blind = false
    cache._miss_ratio_many = (cache._miss_ratio_many + work.missed / #list) / 2
    if #work.old > 0 then -- the script does not begin a refresh: GET does
        local more = ask_all(work, work.old, 0)
        for i = 1, #more do
            later[#later + 1] = more[i]
        end
    end
    return later
end

-- Settles every key of the list.
local function settle(work, list)
    local is_first = true
    repeat
        local later
        work.busy = nil
        if is_first then
            later, is_first = ask_first(work, list), false
        else
            later = ask_all(work, list, 0)
        end
        local leased = work.leased
        if #leased > 0 then
            work.leased = {}
            load_many.lead(work, leased, later)
        end
        list = wait(work, later)
    until #list == 0 and #work.leased == 0
    local late, alone = work.late, work.alone
    if #late > 0 then
        time_out(work, late)
    end
    if #alone > 0 then
        load_many.alone(work, alone)
    end
end

-- Where nothing can be waited for there are no leases either.
local function load_at_once(work, list)
    local cache, rest = work.cache, {}
    for i = 1, #list do
        local found, stale = near.stale(cache, list[i], work.settings)
        if found then
            cache._counters.stale = cache._counters.stale + 1
            set(work, list[i], stale, "stale")
        else
            rest[#rest + 1] = list[i]
        end
    end
    if #rest > 0 then
        load_many.alone(work, rest)
    end
end

-- What is near is settled; what cannot be asked for has its error. Gives the rest.
local function look_near(work, list)
    local cache, settings, rest = work.cache, work.settings, many.new_list(#list)
    local looks = cache._view ~= nil and not settings.fresh
    for i = 1, #list do
        local key, source, value, due, load_time = list[i], nil, nil, nil, nil
        if looks then
            source, value, due, load_time = near.find(cache, key, settings, nil, settings)
        end
        if source ~= nil then
            set(work, key, value, source == "stale" and source or nil)
            keep_due(work, key, due, load_time)
        else
            local err = load.obstacle(cache, key, "load")
            if err then
                fail(work, key, err)
            else
                rest[#rest + 1] = key
            end
        end
    end
    if cache._bloom then
        rest = bloom.sift(cache, rest, #rest, settings, function(key) set(work, key, nil) end)
    end
    cache._counters.nearMisses = cache._counters.nearMisses + #rest
    return rest
end

local function ask(work, list)
    list = look_near(work, load_many.with_ttl(work, list))
    if #list == 0 then
        return
    elseif not work.cache._scheduler.can_wait() then
        return load_many.guarded(work, load_at_once, list)
    end
    for first = 1, #list, KEYS_AT_ONCE do
        local part = list
        if #list > KEYS_AT_ONCE then
            part = {}
            for i = first, math.min(first + KEYS_AT_ONCE - 1, #list) do
                part[#part + 1] = list[i]
            end
        end
        work.missed, work.leased, work.late, work.alone, work.old = 0, {}, {}, {}, {}
        load_many.guarded(work, settle, part)
    end
end

---The values of many keys: from the near cache, from Redis, or made by `fn`, each key once for
---everybody who asks meanwhile. Leases and values travel in one write for all keys (and node), and
---what `fn` has made is stored before the call waits for a load of somebody else.
---
---`fn(keys, ctx)` gets the keys whose lease this call has, and returns a table of values by key. A
---key that it omits is remembered as "no such thing" for negativeTtl. Of its further results,
---failures (causes by key) are keys that could not be loaded, or, where it is no table, why those
---it omits could not; ttls (seconds by key) go before `ttl`. It may throw, or return nil, err: then
---all of its keys fail. ctx.stale has the value, age and version of keys
---whose stale value is refreshed, and ctx.notModified keeps such a value. fn runs again for keys
---whose load elsewhere came to nothing, and for each 4,096 keys of the call.
---
---Values for keys that the call did not ask fn for are ignored, and counted (stats().extraKeys);
---with prime = true they are stored where nothing stands - without a lease, so that a delete while
---fn ran is not seen.
---@param keys string[] doubles are asked for once; an empty list sends nothing
---@param ttl? number|redcache.Forever|table<string, number|redcache.Forever>|fun(key: string,
---value: any): number|redcache.Forever|nil seconds above 0, for all, by key, or what tells them for
---a key; nil: the cache's ttl
---@param fn fun(keys: string[], ctx: table): table<string, any>|nil, any, table|nil
---@param opts? table as Cache:remember; prime; list and into as Cache:getMulti. timeout and
---waitTimeout are for the call: how long Redis may be silent, and how long it waits for others'
---loads, in all
---@return table<string, any> values by key; with list = true by position, as Cache:getMulti
---@return table<string, redcache.Error> failed by key, as Cache:remember; empty when all went well
---@return table<string, true> negatives keys that are remembered as "no such thing"
---@return table<string, string> flags by key: "stale", "unstored", "degraded" as Cache:remember
function remember_many.rememberMulti(self, keys, ttl, fn, opts)
    local settings, fault = self._settings, many.load_fault(self, keys, ttl, fn, "rememberMulti")
    local is_list, into, own = many.form(opts)
    if not fault and own ~= nil then
        settings, fault = remember.settings(self, own, "loadMany", "rememberMulti")
    end
    fault = fault or many.into_fault(into, keys, "rememberMulti")
    if fault then
        error(fault, 2)
    end
    local values, negatives = many.answer(keys, is_list, into), {}
    local rest = keys
    if ttl == nil or is_ttl(ttl) or type(ttl) == "function" then -- a bad one goes before all else
        rest = near.take_l0(self, keys, own, settings, is_list, values, negatives)
        if rest == nil then
            return values, {}, negatives, {}
        end
    end
    local work = load_many.new(self, settings, ttl, fn, "load", "rememberMulti")
    work.values, work.negatives = is_list and {} or values, negatives
    work.waited, work.replaces, work.replaced = 0, {}, {}
    work.dues, work.load_times = {}, {}
    local list, count = many.distinct(self, rest, work.failed, "load")
    work.slots = many.new_map(count)
    ask(work, list)
    if next(work.dues) ~= nil then
        refresh_many.serve(work)
    end
    if is_list then
        many.spread(values, keys, work.values)
    end
    return values, work.failed, negatives, work.flags
end

return remember_many
