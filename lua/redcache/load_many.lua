-- load_many - the caller that loads many keys: runs the user's function once for all of them, and
-- ends their loads in one write.
--
-- What:   `work` is what rememberMulti and its kin know of one call: cache, settings, ttl, fn, the
--         slot of each key, and what has become of each. lead() holds a lease for each key it is
--         given, alone() holds none.
-- Memory: a slot is the work's until finish(). The work stands on the stack of its coroutine: see
--         guarded().
-- Not:    who asks for which key, and waits for whom (remember_many.lua).

local bit = require("bit")
local bloom = require("redcache.bloom")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local load = require("redcache.load")
local many = require("redcache.many")
local marks = require("redcache.marks")
local options = require("redcache.options")
local running = require("redcache.running")

local band, give = bit.band, core_slot.give
local is_ttl = options.is_ttl

local load_many = {}

-- What has become of a key ------------------------------------------------------------------------

---@class redcache.ManyLoads
---@field cache redcache.Cache
---@field settings table of the call
---@field ttl any number, FOREVER, table or function
---@field fn function
---@field action string
---@field method string
---@field slots table<string, redcache.Slot> of keys that are not settled
---@field marks table<string, table> of keys that are loaded without a slot
---@field values table<string, any>
---@field failed table<string, redcache.Error>
---@field negatives table<string, true>
---@field flags table<string, string>
---@field is_guarded boolean|nil
---@field is_cancelled boolean|nil
---@field reloaded table<string, integer> how often a key's value could not be stored

---The work of one call.
---@param action string for errors
---@param method string of the cache
---@return redcache.ManyLoads
function load_many.new(cache, settings, ttl, fn, action, method)
    return {
        cache = cache, settings = settings, ttl = ttl, fn = fn, action = action, method = method,
        slots = {}, marks = {},
        values = {}, failed = {}, negatives = {}, flags = {}, reloaded = {},
    }
end

-- In LuaJIT a key that is absent takes room when nil is put there, and the table grows.
local function put(map, key, value)
    if map[key] ~= value then
        map[key] = value
    end
end

---A key has a value, or there is no such thing (nil).
function load_many.set(work, key, value, flag)
    work.values[key] = value
    put(work.negatives, key, value == nil or nil)
    put(work.flags, key, flag)
    put(work.failed, key, nil)
end
local set = load_many.set

function load_many.fail(work, key, err)
    put(work.values, key, nil)
    put(work.negatives, key, nil)
    put(work.flags, key, nil)
    work.failed[key] = err
end
local fail = load_many.fail

---Nothing is asked for the key any more: its slot goes back.
function load_many.finish(work, key)
    local slot = work.slots[key]
    if slot then
        work.slots[key] = nil
        give(slot)
    end
end

-- Around the work ---------------------------------------------------------------------------------

-- The coroutine of the call is gone, or seems so: what runs ends, and leases are given back.
local function drop(work)
    local loading = work.cache._client.loading
    for _, slot in pairs(work.slots) do
        if slot.full then
            marks.remove(loading, slot.full, slot)
        end
        core_slot.forget_wait(slot)
        core_slot.drop(slot)
    end
end

-- The call has thrown: nothing of it stays.
local function abandon(work)
    local cache = work.cache
    local client, scheduler = cache._client, cache._scheduler
    for _, mark in pairs(work.marks) do
        marks.remove(client.loading, mark.full, mark)
    end
    for _, slot in pairs(work.slots) do
        if slot.full then
            marks.remove(client.loading, slot.full, slot)
        end
        core_slot.abandon(slot)
    end
    work.slots = {}
    if scheduler.tell then
        scheduler.tell(client)
    end
end

---A slot for the key, inside of guarded(). With the first one the work belongs to its coroutine.
---@return redcache.Slot|nil slot
---@return redcache.Error|nil err
function load_many.take(work, key, action)
    local cache, refused = work.cache, work.refused
    if refused then
        return nil, core_slot.error_of(refused.status, refused.cause, action, key)
    end
    local slot, err, status, cause = load.take(cache, work.settings, key, action, work.has_entered)
    if slot == nil and not work.has_entered then
        work.refused = { status = status, cause = cause } -- it is the same for its other keys
    end
    work.has_entered = true
    work.slots[key] = slot
    if slot and not work.is_guarded then
        work.is_guarded = true
        cache._scheduler.guard(cache._client, work, drop)
    end
    return slot, err
end

---The keys whose ttl can be used; the others get their errors. A function is asked when there is a
---value.
---@return string[] list
function load_many.with_ttl(work, list)
    if work.ttl == nil or type(work.ttl) == "function" or is_ttl(work.ttl) then
        return list
    end
    local rest = {}
    for i = 1, #list do
        local _, err = many.life(work.cache, list[i], work.ttl, nil, work.action, work.method)
        if err then
            fail(work, list[i], err)
        else
            rest[#rest + 1] = list[i]
        end
    end
    return rest
end

---Starts what begin(slot, work, key, flags) says in a slot of each key, in one step; what was not
---started has its error.
---@param action string for errors
---@param flags? integer
---@return string[] begun the others
function load_many.start_all(work, list, action, begin, flags)
    local begun, held = many.new_list(#list), many.new_list(#list)
    for i = 1, #list do
        local key = list[i]
        local slot, err = work.slots[key], nil
        if slot == nil then
            slot, err = load_many.take(work, key, action)
        end
        if slot == nil then
            fail(work, key, err)
        else
            core_slot.hold(slot)
            local status = begin(slot, work, key, flags)
            core_slot.join_held(slot, held, status == 0)
            if status == 0 then
                begun[#begun + 1] = key
            else
                fail(work, key, core_slot.failure(slot, status, action, key))
                load_many.finish(work, key)
            end
        end
    end
    core_slot.start_held(held)
    return begun
end

---Runs body(work, list), and leaves no slot, lease or mark behind, however that ends.
function load_many.guarded(work, body, list)
    local cache = work.cache
    local ok, err = pcall(body, work, list)
    if work.is_guarded then
        work.is_guarded = false
        cache._scheduler.unguard(cache._client, work)
    end
    if not ok then
        abandon(work)
        error(err, 0)
    end
end

-- The loader --------------------------------------------------------------------------------------

-- Runs the user's function for these keys, each of which has a mark meanwhile. What it said:
-- map, failures, ttls, rest (why what is in neither of the two failed), traceback
local function run_loader(work, keys, ctx, is_stored)
    local cache, own = work.cache, many.new_list(#keys)
    local loading, co = cache._client.loading, running()
    local owner, request = cache._scheduler.current()
    for i = 1, #keys do
        local key = keys[i]
        local mark = work.slots[key]
        if mark == nil then
            mark = {}
            work.marks[key] = mark
        end
        own[i], mark.full = key, mark.full or cache._prefix .. key
        marks.add(loading, mark.full, mark, owner, request, work, co)
    end
    load.context(cache, is_stored and work or nil, work.settings, ctx)
    if is_stored then
        work.tagged, work.tag_fault = false, false
        load.begin_tags(cache, work, work.settings, own)
    end
    local ok, map, failures, ttls = marks.run(work, work.fn, load.trace, own, ctx)
    for i = 1, #keys do
        local mark = work.slots[keys[i]] or work.marks[keys[i]]
        marks.remove(loading, mark.full, mark)
    end
    work.marks = {}
    cache._counters.loads = cache._counters.loads + 1
    local fault = load.context_fault(ctx)
    if ok and fault then
        ok, map = false, fault
    end
    if not ok then
        -- An error inside the handler (no memory, no stack) comes as a plain text.
        local thrown = type(map) == "table" and map or { cause = map }
        return {}, {}, {}, thrown.cause, thrown.traceback
    elseif type(map) ~= "table" then
        return {}, {}, {}, failures ~= nil and map == nil and failures
            or "it returned no table of values by key"
    elseif type(ttls) ~= "table" then
        ttls = {}
    end
    if failures ~= nil and type(failures) ~= "table" or errors.is(failures) then
        return map, {}, ttls, failures
    end
    return map, failures or {}, ttls
end

-- The life of a value that the loader has made, where it chose none. seconds, err
local function life_of(work, key, value)
    local ttl = work.ttl
    if ttl == nil then
        return work.cache._settings.ttl
    elseif is_ttl(ttl) then
        return ttl
    end
    local ok, life, err = xpcall(many.life, load.trace, work.cache, key, ttl, value, work.action,
        work.method)
    if not ok then
        return nil, load.failure(key, life.cause or life, life.traceback)
    end
    return life, err
end

---What is to be stored for a key, as load.entry() says it.
---@param loaded table of run()
---@param old table|nil of load.stale()
function load_many.entry_of(work, loaded, key, old)
    local settings = work.settings
    local value, chosen, cause = loaded.map[key], loaded.ttls[key], loaded.failures[key]
    if cause == nil and value == nil then
        cause = loaded.rest
    end
    if cause ~= nil then
        return nil, load.failure(key, cause, loaded.traceback)
    end
    local life, err
    if chosen == nil and value ~= nil then
        life, err = life_of(work, key, value)
        if err then
            return nil, err
        end
    end
    local verdict, inner, ttl
    if value == nil then
        verdict, inner, ttl = load.verdict(key, old, nil, nil, chosen)
    else
        verdict, inner, ttl = load.verdict(key, old, value, chosen)
    end
    return load.entry(key, life, settings, old, verdict, inner, ttl)
end

-- Stores what the loader has said of keys that nobody asked for, where nothing stands. Starts it,
-- but for start_held(held), and returns the slot, or nil.
local function begin_prime(work, extras, held)
    local cache, settings = work.cache, work.settings
    local client, slot, status = cache._client, nil, 0
    for key, value in pairs(extras) do
        local told, life = pcall(many.life, cache, key, work.ttl, value, work.action,
            work.method)
        local good, ok, bytes = pcall(entry.encode, settings, value)
        if told and life and good and ok and #bytes <= client.max_value
            and #key <= client.max_key - #cache._prefix then
            if slot == nil then
                slot = load.take(cache, settings, key, "load", true)
                if slot == nil then
                    return nil
                end
                status = core_command.begin(slot, 0)
            end
            local form, flags
            form, flags, life = entry.form(settings, bytes, life, settings.grace, 0, work.tagged)
            status = status == 0 and core_command.set(slot, cache._prefix .. key,
                settings.codec.id, form, life, settings.grace, settings.plain, true, flags)
                or status
        end
    end
    if slot == nil then
        return nil
    end
    core_slot.hold(slot)
    local has_started = status == 0 and core_command.submit(slot) == 0
    core_slot.join_held(slot, held, has_started)
    if not has_started then
        give(slot)
        return nil
    end
    return slot
end

-- Whether the loader has made values of other keys than these.
local function has_extras(map, keys)
    local asked, all = 0, 0
    for i = 1, #keys do
        if rawget(map, keys[i]) ~= nil then
            asked = asked + 1
        end
    end
    for _ in next, map do
        all = all + 1
    end
    return all > asked
end

---Counts the values of keys that are none of these.
---@param keys string[] none twice
---@return table<string, any> extras those to be stored all the same
function load_many.count_extras(work, loaded, keys)
    local asked, extras, count = {}, {}, 0
    if not has_extras(loaded.map, keys) then
        return extras
    end
    for i = 1, #keys do
        asked[keys[i]] = true
    end
    for key, value in pairs(loaded.map) do
        if not asked[key] then
            count = count + 1
            if type(key) == "string" and value ~= load.NOT_MODIFIED then
                extras[key] = value
            end
        end
    end
    local counters = work.cache._counters
    counters.extraKeys = counters.extraKeys + count
    return work.settings.prime and extras or {}
end

---Runs the loader.
---@param is_stored boolean what it makes is to be stored: its tags count
---@return table loaded what it said (map, failures, ttls, rest), and how long it took in seconds
function load_many.run(work, keys, ctx, is_stored)
    local client = work.cache._client
    local began = core_clock.now(client)
    local loaded = {}
    loaded.map, loaded.failures, loaded.ttls, loaded.rest, loaded.traceback =
        run_loader(work, keys, ctx, is_stored)
    loaded.took = core_clock.now(client) - began
    if work.cache._bloom and is_stored then
        local made = {}
        for key, value in pairs(loaded.map) do
            if type(key) == "string" and value ~= nil then
                made[#made + 1] = key
            end
        end
        work.tag_fault = #made > 0 and bloom.add(work.cache, made, work.settings)
            or work.tag_fault
    end
    return loaded
end

-- With leases -------------------------------------------------------------------------------------

-- Starts the end of each load, but for start_held(held). What the ends are about stands in lists,
-- by the places of their keys: a table for each would cost as much as all else of it.
local function begin_ends(work, loaded, keys, olds, held)
    local settings, tagged, count = work.settings, work.tagged, #keys
    local statuses, waits, degraded = many.new_list(count), many.new_list(count), nil
    local kinds, codecs = many.new_list(count), many.new_list(count)
    local lives, values = many.new_list(count), many.new_list(count)
    for i = 1, count do
        local key = keys[i]
        local slot = work.slots[key]
        local kind, codec, bytes, life, value = load_many.entry_of(work, loaded, key, olds[key])
        local status
        if band(slot.result.flags, constants.DEGRADED) ~= 0 then
            degraded = degraded or {}
            degraded[i] = true
        end
        core_slot.hold(slot)
        if kind == nil then
            status = load.begin_fail(slot, settings, codec)
            waits[i] = status == 0
        elseif work.tag_fault then
            status = core_load.release(slot)
            waits[i] = status == 0
        else
            slot.tagged = tagged or false
            status = load.begin_publish(slot, settings, kind, codec, bytes, life, loaded.took)
            -- Too large, or no memory: the load is still ours to end.
            waits[i] = status == 0 or core_load.release(slot) == 0
        end
        core_slot.join_held(slot, held, waits[i])
        statuses[i], kinds[i], codecs[i], lives[i], values[i] =
            status, kind or false, codec, life, value
    end
    return { statuses = statuses, waits = waits, degraded = degraded, kinds = kinds,
        codecs = codecs, lives = lives, values = values }
end

-- What the caller of key i gets. Whether another load may help.
local function take_end(work, key, ends, i, old)
    local cache, slot, status = work.cache, work.slots[key], ends.statuses[i]
    if ends.waits[i] then
        local waited = cache._wait(slot)
        status = status == 0 and waited or status
    end
    local value, err, source, flag, again
    if not ends.kinds[i] then
        work.cause = ends.codecs[i]
        value, err, source = load.failed(cache, slot, status, ends.codecs[i], old)
    elseif work.tag_fault then
        cache._counters.unstored = cache._counters.unstored + 1
        value, flag = ends.values[i], "unstored"
    else
        value, err, source, flag, again = load.published(cache, slot, work.settings, status,
            ends.lives[i], ends.values[i], ends.degraded and ends.degraded[i] or false)
    end
    if err then
        work.is_cancelled = work.is_cancelled or err.code == "cancelled"
        fail(work, key, err)
    else
        set(work, key, value, source == "stale" and source or flag)
    end
    return again
end

---Runs the loader as the holder of the lease of each key, and ends their loads in one write.
---@param work redcache.ManyLoads
---@param keys string[]
---@param later string[] gets the keys whose value could not be stored, and may be loaded again
function load_many.lead(work, keys, later)
    local cache, settings, olds = work.cache, work.settings, {}
    local ctx = { notModified = load.NOT_MODIFIED, stale = {} }
    local ttl = type(work.ttl) == "number" and work.ttl or settings.ttl
    for i = 1, #keys do
        local key = keys[i]
        local old = load.stale(cache, settings, work.slots[key], ttl)
        if old then
            olds[key] = old
            ctx.stale[key] = { value = old.value, age = old.age, version = old.version }
        end
    end
    local is_stored = false
    for i = 1, #keys do
        is_stored = is_stored or band(work.slots[keys[i]].result.flags, constants.DEGRADED) == 0
    end
    local loaded = load_many.run(work, keys, ctx, is_stored)
    local held = many.new_list(#keys)
    local ends = begin_ends(work, loaded, keys, olds, held)
    local extras = load_many.count_extras(work, loaded, keys)
    local primes = begin_prime(work, work.tag_fault and {} or extras, held)
    core_slot.start_held(held)
    for i = 1, #keys do
        local key = keys[i]
        local reloads = work.reloaded[key] or 0
        if take_end(work, key, ends, i, olds[key]) and reloads < settings.reloads then
            work.reloaded[key] = reloads + 1
            later[#later + 1] = key
        else
            load_many.finish(work, key)
        end
    end
    if primes then
        work.cache._wait(primes)
        give(primes)
    end
end

-- Without -----------------------------------------------------------------------------------------

---Runs the loader without leases: its values are the caller's alone.
---@param work redcache.ManyLoads
---@param keys string[]
function load_many.alone(work, keys)
    local counters = work.cache._counters
    local loaded = load_many.run(work, keys, { notModified = load.NOT_MODIFIED, stale = {} },
        false)
    load_many.count_extras(work, loaded, keys)
    for i = 1, #keys do
        local key = keys[i]
        local kind, err, _, _, value = load_many.entry_of(work, loaded, key, nil)
        load_many.finish(work, key)
        if kind == nil then
            counters.loadErrors = counters.loadErrors + 1
            fail(work, key, err)
        else
            counters.unstored = counters.unstored + 1
            set(work, key, value, "unstored")
        end
    end
end

return load_many
