-- load - the caller that loads a key: runs the user's function, and ends the load with what it
-- said.
--
-- What:   lead() holds the lease: loader, entry, publish. alone() holds none, and its value is its
--         caller's alone. take() and run() surround every attempt at a load; put.lua shares make().
--         The steps of lead() stand by themselves for who loads many keys (load_many.lua).
-- Memory: a slot belongs to one attempt from take() until the attempt gives it back, and names the
--         key meanwhile: slot.key is the user's, slot.full has the cache's prefix and is made once
--         it is needed. Fields of a slot that say nothing are false, not nil: LuaJIT sizes the
--         whole table again for one that comes back. An attempt runs inside run(), protected: an
--         error that nobody expected (no memory, a hook that throws) ends the load, too.
-- Not:    what to do with answers other than a lease (remember.lua); the protocol (core).

local bit = require("bit")
local later = require("redcache.later")
local bloom = later.module("redcache.bloom")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local marks = require("redcache.marks")
local options = require("redcache.options")
local running = require("redcache.running")
local tags = later.module("redcache.tags")

local FOREVER, is_ttl = options.FOREVER, options.is_ttl
local band = bit.band
local await, now = calls.await, core_clock.now
local KIND_VALUE, KIND_NEGATIVE = constants.KIND_VALUE, constants.KIND_NEGATIVE
local DEGRADED, REFRESH = constants.DEGRADED, constants.REFRESH

-- A loader's error travels to other processes inside a small entry.
local ERROR_TEXT_BYTES = 1024

-- What a loader returns to say that the stale value is still right.
local NOT_MODIFIED = setmetatable({}, {
    __tostring = function()
        return "notModified"
    end,
})

local load = { NOT_MODIFIED = NOT_MODIFIED }

-- Around an attempt -------------------------------------------------------------------------------

---Why the caller cannot load the key: the cache is closed, or the caller would wait for itself.
---@param key string
---@param action string
---@return redcache.Error|nil err
function load.obstacle(cache, key, action)
    local client = cache._client
    if client.handle == nil then
        return core_client.closed(client, action, key)
    end
    local cause = marks.may_stand()
        and marks.obstacle(client.loading, cache._prefix .. key, cache._scheduler)
    return cause and errors.new("recursive", action, key, cause) or nil
end

---A slot for one attempt at a load, with the time-out and tag of these settings.
---@param is_part boolean|nil of a call that has a slot already
---@return redcache.Slot|nil slot
---@return redcache.Error|nil err
---@return integer|nil status why not
---@return string|nil cause of that status
function load.take(cache, settings, key, action, is_part)
    local slot, err, status, cause
    if is_part then
        slot, err, status = calls.take(cache._client, settings, action, key)
    else
        slot, err, status, cause = calls.enter(cache, settings, action, key)
    end
    if slot == nil then
        return nil, err, status, cause
    end
    slot.key, slot.full, slot.tagged, slot.tag_fault = key, false, false, false
    return slot
end

-- An attempt has thrown: nothing of it stays.
local function abandon(cache, slot)
    local client, scheduler = cache._client, cache._scheduler
    marks.remove(client.loading, slot.full, slot)
    scheduler.unguard(client, slot)
    core_slot.abandon(slot)
    if scheduler.tell then
        scheduler.tell(client)
    end
end

---Runs attempt(cache, slot, ttl, fn, settings), which gives the slot back and returns up to five
---results.
function load.run(attempt, cache, slot, ttl, fn, settings)
    local ok, value, err, source, flag, began = pcall(attempt, cache, slot, ttl, fn, settings)
    if not ok then
        abandon(cache, slot)
        error(value, 0)
    end
    return value, err, source, flag, began
end

---Gives the lease of a load back; those who wait for it are not told.
---@return integer status
function load.release(cache, slot)
    return await(cache, slot, core_load.release(slot))
end

-- The loader --------------------------------------------------------------------------------------

function load.trace(cause)
    return { cause = cause, traceback = debug.traceback(errors.text(cause), 2) }
end

---The error of a loader that has thrown, or returned nil and a cause.
---@return redcache.Error
function load.failure(key, cause, traceback)
    local err = errors.new("loaderFailed", "load", key, errors.text(cause))
    err.cause = cause
    err.traceback = traceback
    return err
end

---What a loader is told.
---@class redcache.Context
---@field value? any the stale value that this load refreshes
---@field age? number seconds since the stale value was stored; where its entry does not tell its
---ttl, reckoned from this call's
---@field version? string eight bytes that name the stale value
---@field notModified table return it to keep the stale value and renew its life

local Context = {}
Context.__index = Context

---Adds tags to what is loaded, as the option tags does. Their generations are read here and now: a
---loader names a tag before it reads what the tag stands for, so that an invalidation meanwhile
---voids what it has read.
---@param ... string names
---@return boolean told false: they could not be read, so that what is loaded will not be stored
---@return redcache.Error|nil err why
function Context:tag(...)
    local mark = self._mark
    if mark == nil then
        return true -- nothing is stored
    elseif mark.tag_settings.plain then
        error("ctx:tag was called for a cache with plain = true: there is no header that could"
            .. " keep tags", 2)
    end
    local names, message = tags.new_names(mark.tagged, { ... })
    if names == nil then
        error(message, 2)
    elseif mark.tag_fault or #names == 0 then
        return not mark.tag_fault, mark.tag_fault or nil
    end
    local tagged, err = tags.add(mark.tag_cache, mark.tagged or nil, names, mark.tag_settings,
        mark.tag_keys)
    mark.tagged, mark.tag_fault = tagged or mark.tagged, err or false
    return err == nil, err
end

---A loader's context. `mark` gets what it says of tags (tagged, tag_fault).
---@param mark table|nil nil: what is loaded is not stored
---@param ctx table what else it holds
---@return redcache.Context
function load.context(cache, mark, settings, ctx)
    if mark then
        mark.tag_cache, mark.tag_settings, ctx._mark = cache, settings, mark
    end
    return setmetatable(ctx, Context)
end

---What is wrong with a context behind its loader, as the cause of an error, or nil.
---@param ctx redcache.Context
---@return string|nil cause
function load.context_fault(ctx)
    ctx._mark = nil -- what a loader keeps of it tags nothing any more
    if rawget(ctx, "tags") ~= nil then
        return "ctx.tags is never read, for the generations of tags have to be read before what"
            .. " they stand for: call ctx:tag(name, ...) first"
    end
end

---Reads the generations of a call's tags, before its loader runs. Where they cannot be read, the
---loader runs all the same, and what it makes is not stored.
---@param mark table gets tagged or tag_fault
---@param keys string|string[] what is loaded
function load.begin_tags(cache, mark, settings, keys)
    mark.tag_keys = keys
    local names = tags.names(settings, settings)
    if names then
        local tagged, err = tags.begin(cache, names, settings, keys)
        mark.tagged, mark.tag_fault = tagged or false, err or false
    end
end

local function context(cache, mark, settings, old)
    local ctx = { notModified = NOT_MODIFIED }
    if old then
        ctx.value, ctx.age, ctx.version = old.value, old.age, old.version
    end
    return load.context(cache, mark, settings, ctx)
end

-- The coroutine that ran the loader is gone, or seems so: its lease is given back.
local function drop_load(slot)
    marks.remove(slot.client.loading, slot.full, slot)
    core_slot.drop(slot)
end

local trace = load.trace

---What a loader has said, and what belongs to it.
---@param key string
---@param old table|nil the stale value that is refreshed
---@return string verdict "value", "nothing", "same" or "error"
---@return any value or the error
---@return any ttl
function load.verdict(key, old, value, second, third)
    if value == NOT_MODIFIED then
        -- A plain value has no version, so there was no refresh of one.
        if old == nil or old.kind ~= KIND_VALUE then
            return "error", load.failure(key, "it returned notModified without a stale value")
        end
        return "same", nil, second
    elseif value == nil and second ~= nil then
        return "error", load.failure(key, second)
    elseif value == nil then
        return "nothing", nil, third
    end
    return "value", value, second
end

-- Runs the user's function; `mark`, the slot of a load or an empty table, stands at mark.full
-- meanwhile. Gives a verdict and what belongs to it:
--   "value", value, ttl | "nothing", nil, ttl | "same", nil, ttl | "error", err
local function run_loader(cache, mark, key, fn, old, settings)
    local client, scheduler = cache._client, cache._scheduler
    local ctx = context(cache, settings and mark, settings, old)
    local loading, full = client.loading, mark.full or cache._prefix .. key
    mark.full = full
    local owner, request = scheduler.current()
    marks.add(loading, full, mark, owner, request, nil, running())
    if mark.op then
        scheduler.guard(client, mark, drop_load)
    end
    if settings then
        load.begin_tags(cache, mark, settings, key)
    end
    local ok, value, second, third = marks.run(mark, fn, trace, key, ctx)
    if mark.op then
        scheduler.unguard(client, mark)
    end
    marks.remove(loading, full, mark)
    cache._counters.loads = cache._counters.loads + 1
    local fault = load.context_fault(ctx)
    if ok and fault then
        ok, value = false, fault
    end
    if not ok then
        -- An error inside the handler (no memory, no stack) comes as a plain text.
        if type(value) ~= "table" then
            value = { cause = value }
        end
        return "error", load.failure(key, value.cause, value.traceback)
    end
    return load.verdict(key, old, value, second, third)
end

---Makes an entry of what a loader says.
---@param key string
---@param ttl number|redcache.Forever seconds, where the loader chose none
---@param settings table
---@param old table|nil the stale value that is refreshed
---@param verdict string of run_loader, with what belongs to it
---@param value any
---@param chosen any ttl
---@return integer|nil kind nil: there is nothing to store
---@return integer|redcache.Error codec id; or why there is nothing
---@return string|nil bytes
---@return number|redcache.Forever|nil life in seconds; 0: not to be stored
---@return any value
function load.entry(key, ttl, settings, old, verdict, value, chosen)
    if verdict == "error" then
        return nil, value
    elseif chosen ~= nil and chosen ~= 0 and not is_ttl(chosen) then
        return nil, errors.bad_ttl("load", key, chosen)
    elseif verdict == "nothing" then
        -- Other programs would take an empty string for a value.
        return KIND_NEGATIVE, 0, "", settings.plain and 0 or chosen or settings.negativeTtl
    elseif verdict == "same" then
        return KIND_VALUE, old.codec, old.bytes, chosen or ttl, old.value
    end
    local no_error, ok, bytes = pcall(entry.encode, settings, value)
    if not no_error or not ok then
        return nil, errors.new("encode", "load", key, errors.text(no_error and bytes or ok))
    end
    return KIND_VALUE, settings.codec.id, bytes, chosen or ttl, value
end

---Runs the loader for the slot, and makes an entry of what it says.
---@param old table|nil the stale value that is refreshed
---@param flags integer of the slot's result
---@return integer|nil kind nil: there is nothing to store
---@return integer|redcache.Error codec id; or why there is nothing
---@return string|nil bytes
---@return number|redcache.Forever|nil life in seconds; 0: not to be stored
---@return number|nil took seconds
---@return any value
function load.make(cache, slot, ttl, fn, settings, old, flags)
    local key, started = slot.key, now(cache._client)
    -- Without Redis nothing is stored: its tags are not asked for.
    local tells = band(flags, DEGRADED) == 0
    local verdict, value, chosen = run_loader(cache, slot, key, fn, old, tells and settings or nil)
    local took = now(cache._client) - started
    local kind, codec, bytes, life
    kind, codec, bytes, life, value = load.entry(key, ttl, settings, old, verdict, value, chosen)
    if cache._bloom and tells and kind == KIND_VALUE and life ~= 0 then
        local client, scheduler = cache._client, cache._scheduler
        scheduler.guard(client, slot, core_slot.drop)
        slot.tag_fault = bloom.add(cache, key, settings) or slot.tag_fault
        scheduler.unguard(client, slot)
    end
    return kind, codec, bytes, life, took, value
end

-- With a lease ------------------------------------------------------------------------------------

-- Whether tags void the stale value in the result of a refresh. The lease is given back where the
-- coroutine vanishes meanwhile.
local function is_voided(cache, settings, slot, flags, bytes)
    if not tags.has(flags, bytes) then
        return false
    end
    local client, scheduler = cache._client, cache._scheduler
    scheduler.guard(client, slot, core_slot.drop)
    local standing = tags.judge(cache, flags, bytes, settings)
    scheduler.unguard(client, slot)
    return standing ~= "valid" and standing ~= "stale"
end

---The stale value that stands in the result of a refresh, unless its tags void it.
---@param cache redcache.Cache
---@param settings table
---@param slot redcache.Slot that holds a lease
---@param ttl number|redcache.Forever seconds of this call, to reckon the value's age from where the
---entry does not tell its own
---@return table|nil old kind, codec, bytes, version, value, age
function load.stale(cache, settings, slot, ttl)
    if band(slot.result.flags, REFRESH) == 0 then
        return nil
    end
    local kind, codec, flags, bytes = core_entry.read(slot)
    local old = { kind = kind, codec = codec, bytes = bytes, version = core_entry.version(slot) }
    if is_voided(cache, settings, slot, flags, bytes) then
        return nil
    elseif kind == KIND_NEGATIVE then
        return old
    end
    local ok, value = entry.decode(settings, kind, codec, flags, bytes)
    if not ok then
        return nil
    end
    old.value = value
    if band(flags, core_extra.FLAG) ~= 0 then
        local size, life_ms = core_extra.read(bytes, #bytes)
        old.bytes = string.sub(bytes, size + 1)
        ttl = life_ms > 0 and life_ms / 1000 or FOREVER
    end
    local life, grace = core_entry.life(slot)
    if type(life) == "number" and ttl ~= FOREVER then
        local age = ttl + grace - life
        old.age = age > 0 and age or 0
    end
    return old
end

---Starts the end of a load that has nothing to store, with a word to those who wait for it.
---@return integer status
function load.begin_fail(slot, settings, err)
    local text = err.cause ~= nil and errors.text(err.cause) or err.message
    return core_load.fail(slot, string.sub(text, 1, ERROR_TEXT_BYTES), settings.errorTtl)
end

---What its caller gets then.
---@param status integer of the end
---@param err redcache.Error
---@param old table|nil of load.stale()
---@return any value the stale one
---@return redcache.Error|nil err
---@return string|nil source
---@return nil flag
---@return nil again
---@return redcache.Error|nil cause why it failed, where the stale value is served
function load.failed(cache, slot, status, err, old)
    local counters = cache._counters
    counters.loadErrors = counters.loadErrors + 1
    if status == constants.CANCELLED then
        return nil, core_slot.failure(slot, status, "load", slot.key)
    elseif old then
        counters.stale = counters.stale + 1
        return old.value, nil, "stale", nil, nil, err
    end
    return nil, err
end

-- Whether nothing was found in place of our lease but, at most, a value that was softly deleted:
-- what we have made is newer than that.
local function is_void(slot)
    local life, grace = core_entry.life(slot)
    return slot.result.kind == constants.KIND_NONE
        or grace > 0 and type(life) == "number" and life <= grace
end

-- The newer value that was found in place of our lease: true, value.
local function read_newer(cache, settings, slot)
    if is_void(slot) then
        return false
    end
    local kind, codec, flags, bytes = core_entry.read(slot)
    local standing = tags.judge(cache, flags, bytes, settings)
    if standing ~= "valid" and standing ~= "stale" then
        return false
    elseif kind == KIND_NEGATIVE then
        return true, nil
    end
    return entry.decode(settings, kind, codec, flags, bytes)
end

-- What was made does not stand in Redis. `void`: for the key was written or deleted meanwhile.
local function unstored(cache, slot, settings, value, void)
    local newer, standing, again = false, nil, false
    if void then
        newer, standing = read_newer(cache, settings, slot)
        -- Another load would not help against a writer whose entries this version cannot read.
        again = is_void(slot)
    end
    cache._counters.unstored = cache._counters.unstored + 1
    if newer then
        return standing, nil, "redis"
    end
    return value, nil, "loader", "unstored", again
end

---Runs the loader as the holder of the lease, and ends the load.
---@param flags integer of the slot's result. It is read once: LuaJIT's interpreter, which runs most
---of a miss, takes three hundred instructions for a field of C's.
---@return any value
---@return redcache.Error|nil err
---@return string|nil source
---@return string|nil flag
---@return boolean|nil again true where the value could not be stored and another load may help
---@return redcache.Error|nil cause why the loader failed, where the stale value is served
function load.lead(cache, slot, ttl, fn, settings, flags)
    local degraded = band(flags, DEGRADED) ~= 0
    local mark = degraded and cache._offline and cache._offline:mark(slot.key) or nil
    local old = band(flags, REFRESH) ~= 0 and load.stale(cache, settings, slot, ttl) or nil
    local kind, codec, bytes, life, took, value =
        load.make(cache, slot, ttl, fn, settings, old, flags)
    if kind ~= nil and slot.tag_fault then
        load.release(cache, slot)
        cache._counters.unstored = cache._counters.unstored + 1
        return value, nil, "loader", "unstored"
    elseif kind == nil then
        local status = await(cache, slot, load.begin_fail(slot, settings, codec))
        return load.failed(cache, slot, status, codec, old)
    end
    local status = load.begin_publish(slot, settings, kind, codec, bytes, life, took)
    if status == 0 then
        status = cache._wait(slot)
    else
        load.release(cache, slot) -- too large, or no memory: the load is still ours to end
    end
    if mark then
        cache._offline:keep(slot.key, mark, kind, codec, bytes, life)
    end
    return load.published(cache, slot, settings, status, life, value, degraded)
end

---Starts storing what a load has made.
---@return integer status
function load.begin_publish(slot, settings, kind, codec, bytes, life, took)
    local grace, flags = 0, 0
    if kind == KIND_VALUE then
        grace = settings.grace
        bytes, flags, life = entry.form(settings, bytes, life, grace, took, slot.tagged)
    elseif slot.tagged and kind == KIND_NEGATIVE then
        bytes, flags, life = entry.form(settings, bytes, life, 0, took, slot.tagged)
    end
    return core_load.publish(slot, kind, codec, bytes, life, grace, took, settings.plain, flags)
end

---What its caller gets then, as of lead().
---@param status integer of the end
---@param life number|redcache.Forever
---@param value any what the loader has made
---@param degraded boolean there was no lease: Redis is away
function load.published(cache, slot, settings, status, life, value, degraded)
    if status == constants.CANCELLED then
        return nil, core_slot.failure(slot, status, "load", slot.key)
    elseif status == 0 and slot.result.outcome == constants.STORED then
        return value, nil, "loader"
    elseif degraded then
        cache._counters.degraded = cache._counters.degraded + 1
        return value, nil, "loader", "degraded"
    end
    return unstored(cache, slot, settings, value, status == 0 and life ~= 0)
end

-- Without -----------------------------------------------------------------------------------------

---Runs the loader without a lease: its value is the caller's alone.
---@param ttl? number|redcache.Forever seconds; given with settings where Redis is away and this
---machine keeps what it writes (offline.lua): it keeps this, too
---@param settings? table of the call
---@return any value
---@return redcache.Error|nil err
---@return string|nil source
---@return string|nil flag
function load.alone(cache, key, fn, ttl, settings)
    local counters, mark = cache._counters, {}
    local here = settings and cache._offline:mark(key)
    local ok, verdict, value, chosen = pcall(run_loader, cache, mark, key, fn, nil)
    if not ok then
        marks.remove(cache._client.loading, mark.full, mark)
        error(verdict, 0)
    elseif verdict == "error" then
        counters.loadErrors = counters.loadErrors + 1
        return nil, value
    end
    if here then
        local kind, codec, bytes, life = load.entry(key, ttl, settings, nil, verdict, value, chosen)
        if kind then
            cache._offline:keep(key, here, kind, codec, bytes, life)
        end
    end
    counters.unstored = counters.unstored + 1
    return value, nil, "loader", "unstored"
end

return load
