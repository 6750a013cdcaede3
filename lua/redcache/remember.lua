-- remember - a caller that asks for a key: its value, or the one run of the function that makes it.
--
-- What:   the near cache first, then Redis, and what to do with each answer: hit, lease, a load
--         that failed elsewhere, time-out.
-- Memory: what is done with a slot is an attempt, inside of load.run().
-- Not:    how a load is run and ended (load.lua), who waits how (scheduler/), what the lease
--         protocol sends (core).

local bit = require("bit")
local later = require("redcache.later")
local bloom = later.module("redcache.bloom")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_load = require("redcache.core.load")
local core_slot = require("redcache.core.slot")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local explain = later.module("redcache.explain")
local freshness = require("redcache.freshness")
local load = require("redcache.load")
local load_settings = require("redcache.load_settings")
local near = require("redcache.near")
local options = require("redcache.options")
local refresh = later.module("redcache.refresh")
local tags = later.module("redcache.tags")
local usage = require("redcache.usage")

local FOREVER, is_ttl = options.FOREVER, options.is_ttl
local band, bor = bit.band, bit.bor
local await, give = calls.await, core_slot.give
local HIT, LOAD, FAILED = constants.HIT, constants.LOAD, constants.FAILED
local KIND_VALUE, KIND_NEGATIVE = constants.KIND_VALUE, constants.KIND_NEGATIVE
local STALE, DEGRADED = constants.STALE, constants.DEGRADED

-- Weight of the newest remember in the average of misses: about the last sixteen count.
local NEWEST = 1 / 16
-- Entries that one call finds and cannot read, before it loads for itself: each was stored while it
-- asked for the lease in the place of the one before.
local MAX_REPLACED = 3

local remember = { MAX_REPLACED = MAX_REPLACED }

-- The settings of a call --------------------------------------------------------------------------

---The settings of a call with options of its own.
---@param cache redcache.Cache
---@param opts table
---@param place string of options.read
---@param method string
---@return table|nil settings
---@return string|nil message for error()
function remember.settings(cache, opts, place, method)
    local settings, message = options.read(setmetatable({}, cache._inherit), opts, place, method)
    if settings then
        message = options.plain_fault(opts, settings.plain, method)
        if message then
            return nil, message
        end
        if opts.reads == "replica" then
            settings.near = false
        end
        load_settings.prepare(settings)
    end
    return settings, message
end

---Checks what the user gave to a public function, at the user's line.
---@return table settings of this call
function remember.door(self, key, fn, opts, method)
    if type(key) ~= "string" then
        error(usage.fault(self, "cache", "_client", method)
            or errors.argument("key", method, "string", key), 3)
    elseif type(fn) ~= "function" then
        error(errors.argument("fn", method, "function", fn), 3)
    elseif opts == nil then
        return self._settings
    end
    local settings, message = remember.settings(self, opts,
        method == "put" and "put" or "load", method)
    if settings == nil then
        error(message, 3)
    end
    return settings
end
local door = remember.door

-- The answers -------------------------------------------------------------------------------------

---Begins to ask Redis for the key of the slot, which waits slot.left seconds for it, false: as long
---as the settings say.
---@return integer status
function remember.begin(cache, slot, settings, more_flags)
    local flags, view = bor(settings.flags, more_flags), cache._view
    if view ~= nil and settings.near ~= false then
        if settings.fresh then
            flags = bor(flags, constants.FRESH)
        end
        return core_load.start_view(view, slot, slot.key, settings.numbers, flags, slot.left)
    end
    slot.full = cache._prefix .. slot.key
    return core_load.start(slot, slot.full, settings.numbers, flags, slot.left)
end

local function start(cache, slot, settings, more_flags)
    if cache._miss_ratio > 0.5 then
        more_flags = bor(more_flags, constants.SCRIPT_FIRST)
    end
    return await(cache, slot, remember.begin(cache, slot, settings, more_flags))
end

---What the value in a result is good for (freshness.lua).
---@return string|nil verdict nil: the entry does not tell, or this version cannot read it
---@return number|nil load_time seconds
local function judge(cache, slot, settings, entry_flags, bytes)
    if band(entry_flags, core_extra.FLAG) == 0 then
        return nil
    end
    local size, life_ms, stale_ms, load_ms, tag_count = core_entry.extra(slot)
    if size == nil then
        return nil
    end
    local standing = "valid"
    if tag_count > 0 then
        -- What nobody can tell is not served: who asks for the lease then, hears why.
        standing = tags.judge_many(cache, { bytes }, settings)[1]
        if settings.why and standing ~= nil and standing ~= "valid" then
            settings.seen = standing
        end
        standing = standing or "void"
    end
    local left = core_entry.life(slot)
    if left == FOREVER then
        left = math.huge
    elseif left ~= nil then
        left = left - stale_ms / 1000
    end
    return freshness.judge(settings, left, life_ms / 1000, stale_ms / 1000, load_ms / 1000,
        standing, freshness.draw(settings)), load_ms / 1000
end

---Takes a hit out of its slot.
---@return boolean ok
---@return any value or why it cannot be read
---@return string|nil source nil, where it is not ok: it was invalidated
---@return string|nil flag
---@return integer|nil due the mark of a value that is to be loaded again
---@return number|nil load_time seconds
function remember.read_hit(cache, slot, settings)
    local counters = cache._counters
    local flags = slot.result.flags
    local kind, codec, entry_flags, bytes = core_entry.read(slot)
    local source, flag, due = "redis", nil, nil
    local verdict, load_time = judge(cache, slot, settings, entry_flags, bytes)
    if verdict == "void" then
        return false
    elseif verdict == "early" or verdict == "stale" then
        due = core_entry.mark(slot)
    elseif band(flags, STALE) ~= 0 and settings.background ~= false then
        due = core_entry.mark(slot) -- an entry that does not tell, which C has judged
    end
    if flags ~= 0 then
        if band(flags, STALE) ~= 0 then
            source = "stale"
            counters.stale = counters.stale + 1
        elseif band(flags, DEGRADED) ~= 0 then
            source, flag = "loader", "degraded"
            counters.degraded = counters.degraded + 1
        else
            counters.waits = counters.waits + 1
        end
    end
    if verdict == "stale" and source ~= "stale" then
        source = "stale"
        counters.stale = counters.stale + 1
    end
    if kind == KIND_NEGATIVE then
        counters.negative = counters.negative + 1
        return true, nil, source, flag, due, load_time
    end
    local ok, value = entry.decode(settings, kind, codec, entry_flags, bytes)
    if ok then
        counters.hits = counters.hits + 1
        return true, value, source, flag, due, load_time
    end
    counters.decodeErrors = counters.decodeErrors + 1
    return false, value, "redis"
end

---Decodes what was read into a slot, unless its tags void it: ok, value.
---@return boolean ok
---@return any value
function remember.decode(cache, slot, settings)
    local kind, codec, flags, bytes = core_entry.read(slot)
    local standing = tags.judge(cache, flags, bytes, settings)
    if standing ~= "valid" and standing ~= "stale" then
        return false
    end
    return entry.decode(settings, kind, codec, flags, bytes)
end

-- What stands in Redis now, though its life may be over: for a call whose time is up. ok, value
local function read_again(cache, slot, settings)
    local status = await(cache, slot, core_entry.get(slot, cache._prefix, slot.key, 0))
    if status ~= 0 or slot.result.outcome ~= HIT or slot.result.kind == KIND_NEGATIVE then
        return false
    end
    return remember.decode(cache, slot, settings)
end

-- Nobody's load came to an end within waitTimeout.
local function timed_out(cache, slot, fn, settings)
    local err = core_slot.failure(slot, constants.TIMEOUT, "load", slot.key)
    local counters = cache._counters
    counters.waits = counters.waits + 1
    if settings.onTimeout == "load" then
        return load.alone(cache, slot.key, fn)
    elseif settings.onTimeout == "stale" then
        local found, value
        if band(slot.result.flags, constants.WAITED) == 0 then
            -- Redis itself is silent: it is not asked again.
            found, value = near.stale(cache, slot.key, settings)
        else
            found, value = read_again(cache, slot, settings)
        end
        if found then
            counters.stale = counters.stale + 1
            return value, nil, "stale"
        end
    end
    return nil, err
end

-- No answer of Redis.
local function unanswered(cache, slot, status, fn, settings)
    if status == constants.TIMEOUT then
        return timed_out(cache, slot, fn, settings)
    elseif status == constants.DESCRIPTORS and not settings.strict then
        -- As without Redis: no engine could be started.
        return load.alone(cache, slot.key, fn)
    end
    return nil, core_slot.failure(slot, status, "load", slot.key)
end

local function failed_elsewhere(cache, slot)
    cache._counters.waits = cache._counters.waits + 1
    return nil, load.failure(slot.key, core_entry.text(slot))
end

-- The loader is this call's to run, unless Redis is away and a near copy is still there. A fifth
-- result: when the load began whose value was not stored, where another one may help.
local function lead(cache, slot, ttl, fn, settings)
    local counters = cache._counters
    counters.misses = counters.misses + 1
    cache._miss_ratio = cache._miss_ratio + (1 - cache._miss_ratio) * NEWEST
    local flags = slot.result.flags
    if band(flags, DEGRADED) ~= 0 then
        local found, stale = near.stale(cache, slot.key, settings)
        if found then
            load.release(cache, slot)
            counters.stale = counters.stale + 1
            return stale, nil, "stale"
        end
    end
    local began = core_clock.now(cache._client)
    local value, err, source, flag, again = load.lead(cache, slot, ttl, fn, settings, flags)
    return value, err, source, flag, again and began or nil
end

-- Without Redis, where this machine keeps what it writes: that counts. found, value
local function find_local(cache, slot)
    local found, value = cache._offline:look(slot.key)
    if found == "value" or found == "nothing" then
        if slot.result.outcome ~= HIT then
            load.release(cache, slot)
        end
        cache._counters.localReads = cache._counters.localReads + 1
        return true, value
    end
    -- What another caller of this process has loaded may be of before the delete.
    return false, nil, found == "deleted" and slot.result.outcome == HIT
end

-- Everything but a plain hit. `slot` holds the result of a load, `status` its status.
local function answer(cache, slot, status, ttl, fn, settings)
    local replaced = 0
    if cache._offline and status == 0 and band(slot.result.flags, DEGRADED) ~= 0 then
        local found, value, is_void = find_local(cache, slot)
        if found then
            return value, nil, "local"
        elseif is_void then
            return load.alone(cache, slot.key, fn, ttl, settings)
        end
    end
    while status == 0 and slot.result.outcome == HIT do
        local ok, value, source, flag, due, load_time = remember.read_hit(cache, slot, settings)
        if ok and due then
            return refresh.serve(cache, slot.key, ttl, fn, settings, due, value, source, load_time)
        elseif ok then
            return value, nil, source, flag
        end
        if source and settings.why then
            settings.seen = false
        end
        if source and settings.decodeErrors == "error" then
            return nil, errors.new("decode", "load", slot.key, value)
        elseif replaced == MAX_REPLACED then
            -- Somebody stores what this version cannot read faster than the lease can be had.
            return load.alone(cache, slot.key, fn)
        end
        -- The lease takes the place of what stands in the slot's result, if nothing else does.
        status = start(cache, slot, settings, constants.REPLACE)
        replaced = replaced + 1
    end
    if status ~= 0 then
        return unanswered(cache, slot, status, fn, settings)
    elseif slot.result.outcome == FAILED then
        return failed_elsewhere(cache, slot)
    end
    return lead(cache, slot, ttl, fn, settings)
end

-- The question ------------------------------------------------------------------------------------

-- One attempt, from the question to the end of the load, for load.run(). A fifth result: another
-- one may help, and when this one's load began.
-- The way of a hit: no table, no closure, at most one wait.
local function attempt(cache, slot, ttl, fn, settings)
    local status = start(cache, slot, settings, 0)
    local result = slot.result
    local outcome = result.outcome
    if status == 0 and outcome == HIT then
        cache._miss_ratio = cache._miss_ratio * (1 - NEWEST)
        if cache._view ~= nil and cache._miss_ratio > 0.5 then
            cache._miss_ratio = 0.5 -- the next one is a GET, whose answer is kept near
        end
        if result.flags == 0 and result.kind == KIND_VALUE then
            local _, codec, entry_flags, bytes = core_entry.read(slot)
            if codec == settings.codec.id and entry_flags == 0 then
                local ok, value = settings.codec.decode(bytes)
                if ok then
                    give(slot)
                    cache._counters.hits = cache._counters.hits + 1
                    return value, nil, "redis"
                end
            end
        end
    end
    local value, err, source, flag, began
    if status == 0 and outcome == LOAD and not cache._offline then
        value, err, source, flag, began = lead(cache, slot, ttl, fn, settings)
    else
        value, err, source, flag, began = answer(cache, slot, status, ttl, fn, settings)
    end
    give(slot)
    return value, err, source, flag, began
end

-- Where nothing can be waited for there is no lease either: the loader's value is the caller's
-- alone.
local function load_at_once(cache, key, fn, settings)
    local found, stale = near.stale(cache, key, settings)
    if found then
        cache._counters.stale = cache._counters.stale + 1
        return stale, nil, "stale"
    end
    return load.alone(cache, key, fn)
end

-- What is not near: an attempt, and further ones where a load's value could not be stored and
-- another load may help. What the last one gave counts.
local function ask(cache, key, ttl, fn, settings, left)
    local client = cache._client
    if client.due then
        client.due(client)
    end
    local err = load.obstacle(cache, key, "load")
    if err then
        return nil, err
    elseif not cache._scheduler.can_wait() then
        return load_at_once(cache, key, fn, settings)
    end
    local reloads = settings.reloads
    local deadline, slot, value, source, flag, began
    repeat
        slot, err = load.take(cache, settings, key, "load")
        if slot == nil then
            return nil, err
        end
        slot.left = left or false
        value, err, source, flag, began = load.run(attempt, cache, slot, ttl, fn, settings)
        if not began then
            break
        end
        deadline = deadline or began + settings.waitTimeout
        left = deadline - core_clock.now(client)
        reloads = reloads - 1
    until reloads < 0 or left <= 0
    return value, err, source, flag
end

-- near.find with fresh, which asks Redis: what is left of the call's time is left to the load. The
-- settings are this call's own. As near.find, and seconds left to wait
local function look_fresh(cache, key, settings)
    local client = cache._client
    local deadline = core_clock.deadline(client, settings.timeout)
    local wait_until = core_clock.deadline(client, settings.waitTimeout)
    local source, value, due, load_time = near.find(cache, key, settings,
        math.min(deadline, wait_until), settings)
    settings.timeout = core_clock.left(client, deadline)
    return source, value, due, load_time, core_clock.left(client, wait_until)
end

-- ask with why = true: its reason behind what ask gives. The settings are this call's own.
local function ask_why(cache, key, ttl, fn, settings, left)
    local before = explain.before(cache, key, settings)
    local value, err, source, flag = ask(cache, key, ttl, fn, settings, left)
    if err then
        return value, err, source, flag
    end
    return value, nil, source, flag, explain.after(before, source, flag, settings.seen)
end

-- What is near, or else what is asked for, by settings that may be the call's own. source to
-- load_time: what near.hit gave, where that was asked.
local function find_on(cache, key, ttl, fn, settings, source, near_value, due, load_time)
    local left
    if settings ~= cache._settings then
        if settings.fresh then
            source, near_value, due, load_time, left = look_fresh(cache, key, settings)
        else
            source, near_value, due, load_time = near.find(cache, key, settings, nil, settings)
        end
    end
    local has_why = settings ~= cache._settings and settings.why
    if due ~= nil and not has_why then
        return refresh.serve(cache, key, ttl, fn, settings, due, near_value, source, load_time)
    elseif due ~= nil then
        local reason = source == "stale" and explain.near_stale(cache, key, settings)
        return explain.of_near(reason, refresh.serve(cache, key, ttl, fn, settings, due, near_value,
            source, load_time))
    elseif source ~= nil then
        return near_value, nil, source
    end
    if cache._bloom and bloom.is_absent(cache, key, settings) then
        return nil, nil, "bloom", nil, has_why and "filtered" or nil
    end
    cache._counters.nearMisses = cache._counters.nearMisses + 1
    if has_why then
        return ask_why(cache, key, ttl, fn, settings, left)
    end
    return ask(cache, key, ttl, fn, settings, left)
end

local function find(cache, key, ttl, fn, settings)
    if settings ~= cache._settings then
        return find_on(cache, key, ttl, fn, settings)
    end
    local source, value, due, load_time = near.look(cache, key)
    if source ~= nil and due == nil then
        return value, nil, source
    end
    return find_on(cache, key, ttl, fn, settings, source, value, due, load_time)
end

---The value of a key: from Redis, or made by `fn` - once for everybody who asks meanwhile.
---
---`fn(key, ctx)` returns the value and, if it likes, a ttl of its own (0: do not store); or
---nil, err for an error; or nil alone where there is no such thing, which is remembered for
---negativeTtl (nil, nil, ttl chooses another time). It may throw. See redcache.Context.
---
---Sources: "l0" (a decoded value of this Lua state, shared by its readers), "near" (this machine's
---memory), "redis", "loader" (this call, or with "degraded" this process, ran the loader), "stale"
---(past its ttl, within the grace window), "local" (Redis is away: option offline). A fourth result
---tells what went wrong without harm:
---"unstored" (the value is right but not in Redis: the key was deleted meanwhile, Redis refused it,
---it is over maxValue, or fn chose a ttl of 0; or this phase of nginx cannot wait, and what is not
---near, or "stale" within the grace window, was loaded by this call for itself), "degraded" (Redis
---is away).
---
---timeout (default: the cache's commandTimeout) is how long Redis may be silent before fn runs
---without it or, with strict, the call fails; storing what fn made may take as long again.
---waitTimeout ends the wait for somebody else's load, and that for Redis where it is the shorter
---one. With onTimeout = "stale" the key is read once more then, unless it is Redis that is silent.
---@param key string
---@param ttl number|redcache.Forever|nil seconds above 0; nil: the cache's ttl
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table timeout, waitTimeout, leaseTtl, maxLoadTime, negativeTtl, errorTtl, grace,
---onTimeout, strict, renew, reloads, cancelTag, near, maxStale, fresh, copy, why, reads (as
---Cache:get; a value that a replica has is a hit, all else is decided at the master)
---@return any value nil with a source: there is no such thing; nil without: see err
---@return redcache.Error|nil err badTtl, loaderFailed, recursive, timeout, cancelled, encode,
---decode, tooLarge (the key), overload, closed, redis; unavailable only with strict
---@return string|nil source
---@return string|nil flag
---@return string|nil why with why = true, of what was not near: a reason, as Cache:explain
function remember.remember(self, key, ttl, fn, opts)
    local settings = door(self, key, fn, opts, "remember")
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("load", key, ttl, "remember")
    end
    return find(self, key, ttl, fn, settings)
end

---As remember, for a value that never expires by itself.
---@param key string
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as remember
---@return any value
---@return redcache.Error|nil err
---@return string|nil source
---@return string|nil flag
---@return string|nil why as remember
function remember.rememberForever(self, key, fn, opts)
    local settings = door(self, key, fn, opts, "rememberForever")
    return find(self, key, FOREVER, fn, settings)
end

return remember
