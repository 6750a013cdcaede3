-- remember - the value of a key, or the one run of the function that makes it.
--
-- What:   the decisions around a load: hit, lease, loader, publish, failure, time-out.
-- Memory: the slot of a load stays with its caller from RC_LOAD until the load is ended. Whatever
--         is done with a slot is done inside of attempt() or attempt_put(), which run protected:
--         an error that nobody expected (no memory, a hook that throws) ends the load, too.
-- Not:    who waits how (scheduler/), what the lease protocol sends (core).

local bit = require("bit")
local binding = require("redcache.binding")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local marks = require("redcache.marks")
local near = require("redcache.near")
local options = require("redcache.options")
local usage = require("redcache.usage")

local FOREVER, is_ttl = options.FOREVER, options.is_ttl
local band, bor = bit.band, bit.bor
local take, give = binding.take, binding.give
local HIT, LOAD, FAILED = binding.HIT, binding.LOAD, binding.FAILED
local KIND_VALUE, KIND_NEGATIVE = binding.KIND_VALUE, binding.KIND_NEGATIVE
local STALE, DEGRADED = binding.STALE, binding.DEGRADED

-- Weight of the newest remember in the average of misses: about the last sixteen count.
local NEWEST = 1 / 16
-- Entries that one call finds and cannot read, before it loads for itself: each was stored while it
-- asked for the lease in the place of the one before.
local MAX_REPLACED = 3
-- A loader's error travels to other processes inside a small entry.
local ERROR_TEXT_BYTES = 1024

-- What a loader returns to say that the stale value is still right.
local NOT_MODIFIED = setmetatable({}, {
    __tostring = function()
        return "notModified"
    end,
})

local remember = {}

-- The flags of every rc_load under these settings.
local function load_flags(settings)
    return bor(settings.grace > 0 and binding.WANT_TTL or 0,
        settings.strict and binding.STRICT or 0,
        settings.renew and 0 or binding.NO_RENEW)
end

---Prepares settings for loads: once per cache, and per call where a call brings options.
---@param settings table
---@return table settings
function remember.prepare(settings)
    settings.numbers = binding.load_numbers(settings)
    settings.flags = load_flags(settings)
    return settings
end

local function call_settings(cache, opts, method)
    local settings, message = options.read(setmetatable({}, cache._inherit), opts,
        method == "put" and "put" or "load", method)
    if settings then
        message = options.grace_fault(opts.grace, settings.plain, method)
        if message then
            return nil, message
        end
        remember.prepare(settings)
        settings.custom = settings.timeout ~= nil or settings.cancelTag ~= nil
    end
    return settings, message
end

local function trace(cause)
    return { cause = cause, traceback = debug.traceback(errors.text(cause), 2) }
end

local function loader_failed(key, cause, traceback)
    local err = errors.new("loaderFailed", "load", key, errors.text(cause))
    err.cause = cause
    err.traceback = traceback
    return err
end

-- A call with a slot has thrown: nothing of it stays.
local function abandon(cache, slot, full)
    local client, scheduler = cache._client, cache._scheduler
    marks.remove(client.loading, full, slot)
    scheduler.unguard(client, slot)
    binding.abandon(slot)
    if scheduler.tell then
        scheduler.tell(client)
    end
end

---What a loader is told.
---@class redcache.Context
---@field value? any the stale value that this load refreshes
---@field age? number seconds since the stale value was stored, reckoned from this call's ttl
---@field version? string eight bytes that name the stale value
---@field notModified table return it to keep the stale value and renew its life

local function context(old)
    if old == nil then
        return { notModified = NOT_MODIFIED }
    end
    return { notModified = NOT_MODIFIED, value = old.value, age = old.age, version = old.version }
end

-- The coroutine that ran the loader is gone, or seems so: its lease is given back.
local function drop_load(slot)
    marks.remove(slot.client.loading, slot.full, slot)
    binding.drop(slot)
end

-- Runs the user's function. Gives a verdict and what belongs to it:
--   "value", value, ttl | "nothing", nil, ttl | "same" | "error", err
local function run_loader(cache, full, key, mark, fn, old)
    local client, scheduler, ctx = cache._client, cache._scheduler, context(old)
    marks.add(client.loading, full, mark, scheduler.current())
    if mark.op then
        mark.full = full
        scheduler.guard(client, mark, drop_load)
    end
    local ok, value, second, third = marks.run(mark, fn, trace, key, ctx)
    if mark.op then
        scheduler.unguard(client, mark)
    end
    marks.remove(client.loading, full, mark)
    cache._counters.loads = cache._counters.loads + 1
    if not ok then
        -- An error inside the handler (no memory, no stack) comes as a plain text.
        if type(value) ~= "table" then
            value = { cause = value }
        end
        return "error", loader_failed(key, value.cause, value.traceback)
    elseif value == NOT_MODIFIED then
        -- A plain value has no version, so there was no refresh of one.
        if old == nil or old.kind ~= KIND_VALUE then
            return "error", loader_failed(key, "it returned notModified without a stale value")
        end
        return "same", nil, second
    elseif value == nil and second ~= nil then
        return "error", loader_failed(key, second)
    elseif value == nil then
        return "nothing", nil, third
    end
    return "value", value, second
end

-- What a loader said, as an entry to store: kind, codec id, bytes, ttl, or nil and an error.
local function to_entry(verdict, value, ttl, chosen, settings, key, old)
    if chosen ~= nil and chosen ~= 0 and not is_ttl(chosen) then
        return nil, errors.bad_ttl("load", key, chosen)
    end
    if verdict == "nothing" then
        -- Other programs would take an empty string for a value.
        return KIND_NEGATIVE, 0, "", settings.plain and 0 or chosen or settings.negativeTtl
    elseif verdict == "same" then
        return KIND_VALUE, old.codec, old.bytes, chosen or ttl
    end
    local no_error, ok, bytes = pcall(entry.encode, settings, value)
    if not no_error or not ok then
        return nil, errors.new("encode", "load", key, errors.text(no_error and bytes or ok))
    end
    return KIND_VALUE, settings.codec.id, bytes, chosen or ttl
end

-- The stale value that stands in the result of a refresh, or nil.
local function read_stale(settings, slot, ttl)
    if band(slot.result.flags, binding.REFRESH) == 0 then
        return nil
    end
    local kind, codec, flags, bytes = binding.entry(slot)
    local old = { kind = kind, codec = codec, bytes = bytes, version = binding.version(slot) }
    if kind == KIND_NEGATIVE then
        return old
    end
    local ok, value = entry.decode(settings, kind, codec, flags, bytes)
    if not ok then
        return nil
    end
    old.value = value
    local life, grace = binding.life(slot)
    if type(life) == "number" and ttl ~= FOREVER then
        local age = ttl + grace - life
        old.age = age > 0 and age or 0
    end
    return old
end

-- Ends a load that failed: with a word to those who wait for it, or silently.
local function end_failed(cache, slot, settings, err, silent)
    local status
    if silent then
        status = binding.release(slot)
    else
        local text = err.cause ~= nil and errors.text(err.cause) or err.message
        status = binding.fail(slot, string.sub(text, 1, ERROR_TEXT_BYTES), settings.errorTtl)
    end
    if status == 0 then
        status = cache._wait(slot)
    end
    return status
end

-- The newer value that was found in place of our lease: true, value, kind.
local function read_newer(settings, slot)
    if slot.result.kind == binding.KIND_NONE then
        return false
    end
    local kind, codec, flags, bytes = binding.entry(slot)
    if kind == KIND_NEGATIVE then
        return true, nil
    end
    return entry.decode(settings, kind, codec, flags, bytes)
end

-- Runs the loader as the holder of the lease and ends the load.
-- A fifth result is true where the value could not be stored and another try may help.
local function lead(cache, slot, full, key, ttl, fn, settings)
    local counters = cache._counters
    local degraded = band(slot.result.flags, DEGRADED) ~= 0
    local old = read_stale(settings, slot, ttl)
    local started = binding.now(cache._client)
    local verdict, value, chosen = run_loader(cache, full, key, slot, fn, old)
    local took = binding.now(cache._client) - started

    local kind, codec, bytes, life
    local err = verdict == "error" and value or nil
    if not err then
        kind, codec, bytes, life = to_entry(verdict, value, ttl, chosen, settings, key, old)
        if kind == nil then
            err = codec
        end
    end
    if err then
        counters.loadErrors = counters.loadErrors + 1
        local status = end_failed(cache, slot, settings, err, false)
        if status == binding.CANCELLED then
            err = binding.failure(slot, status, "load", key)
        elseif old then
            counters.stale = counters.stale + 1
            return old.value, nil, "stale"
        end
        return nil, err
    end
    if verdict == "same" then
        value = old.value
    end

    local grace = kind == KIND_VALUE and settings.grace or 0
    local status = binding.publish(slot, kind, codec, bytes, life, grace, took, settings.plain)
    if status ~= 0 then
        -- Refused at once, the load is still ours to end: too large, or no memory.
        binding.release(slot)
        cache._wait(slot)
    else
        status = cache._wait(slot)
    end
    if status == binding.CANCELLED then
        err = binding.failure(slot, status, "load", key)
        return nil, err
    elseif status == 0 and slot.result.outcome == binding.STORED then
        return value, nil, "loader"
    elseif degraded then
        counters.degraded = counters.degraded + 1
        return value, nil, "loader", "degraded"
    end
    local again = status == 0 and life ~= 0
    if again then
        local newer, standing = read_newer(settings, slot)
        -- Another load would not help against a writer whose entries this version cannot read.
        again = slot.result.kind == binding.KIND_NONE
        if newer then
            counters.unstored = counters.unstored + 1
            return standing, nil, "redis"
        end
    end
    counters.unstored = counters.unstored + 1
    return value, nil, "loader", "unstored", again
end

-- Runs the loader without a lease: its value is the caller's alone.
local function load_alone(cache, full, key, fn)
    local counters, loading, mark = cache._counters, cache._client.loading, {}
    local ok, verdict, value = pcall(run_loader, cache, full, key, mark, fn, nil)
    if not ok then
        marks.remove(loading, full, mark)
        error(verdict, 0)
    elseif verdict == "error" then
        counters.loadErrors = counters.loadErrors + 1
        return nil, value
    end
    counters.unstored = counters.unstored + 1
    return value, nil, "loader", "unstored"
end

-- Nobody's load came to an end within waitTimeout.
local function timed_out(cache, slot, full, key, fn, settings)
    local err = binding.failure(slot, binding.TIMEOUT, "load", key)
    cache._counters.waits = cache._counters.waits + 1
    if settings.onTimeout == "load" then
        return load_alone(cache, full, key, fn)
    elseif settings.onTimeout == "stale" and band(slot.result.flags, binding.WAITED) == 0 then
        -- Redis itself is silent: it is not asked again.
        local found, value = near.stale(cache, key)
        if found then
            cache._counters.stale = cache._counters.stale + 1
            return value, nil, "stale"
        end
    elseif settings.onTimeout == "stale" then
        local status = binding.get(slot, full, 0)
        status = status == 0 and cache._wait(slot) or status
        if status == 0 and slot.result.outcome == HIT and slot.result.kind ~= KIND_NEGATIVE then
            local ok, value = entry.decode(settings, binding.entry(slot))
            if ok then
                cache._counters.stale = cache._counters.stale + 1
                return value, nil, "stale"
            end
        end
    end
    return nil, err
end

local function failed_elsewhere(cache, slot, key)
    cache._counters.waits = cache._counters.waits + 1
    return nil, loader_failed(key, binding.text(slot))
end

-- Why the caller cannot wait for the load of this key that is under way: an error, or nil.
local function recursion(cache, full, key, action)
    local loading = cache._client.loading
    local cause = loading[full] and marks.obstacle(loading, full, cache._scheduler)
    return cause and errors.new("recursive", action, key, cause)
end

local function start(cache, slot, full, key, settings, left, more_flags)
    local flags = bor(settings.flags, more_flags)
    if cache._miss_ratio > 0.5 then
        flags = bor(flags, binding.SCRIPT_FIRST)
    end
    local status
    if cache._view ~= nil and settings.near ~= false then
        if settings.fresh then
            flags = bor(flags, binding.FRESH)
        end
        status = binding.view_load(cache._view, slot, key, settings.numbers, flags, left)
    else
        status = binding.load(slot, full, settings.numbers, flags, left)
    end
    if status == 0 then
        status = cache._wait(slot)
    end
    return status
end

-- Takes a hit out of its slot.
-- ok, value, source, flag | false, reason
local function read_hit(cache, slot, settings)
    local counters = cache._counters
    local flags = slot.result.flags
    local kind, codec, entry_flags, bytes = binding.entry(slot)
    local source, flag = "redis", nil
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
    if kind == KIND_NEGATIVE then
        counters.negative = counters.negative + 1
        return true, nil, source, flag
    end
    local ok, value = entry.decode(settings, kind, codec, entry_flags, bytes)
    if ok then
        counters.hits = counters.hits + 1
        return true, value, source, flag
    end
    counters.decodeErrors = counters.decodeErrors + 1
    return false, value
end

-- Redis is away, and a near copy is still there: no load for it.
local function serve_stale(cache, slot, value)
    if binding.release(slot) == 0 then
        cache._wait(slot)
    end
    cache._counters.stale = cache._counters.stale + 1
    return value, nil, "stale"
end

-- The loader is this call's to run. A fifth result: when the load began whose value was not stored,
-- where another one may help.
local function lead_now(cache, slot, full, key, ttl, fn, settings)
    cache._counters.misses = cache._counters.misses + 1
    cache._miss_ratio = cache._miss_ratio + (1 - cache._miss_ratio) * NEWEST
    if band(slot.result.flags, DEGRADED) ~= 0 then
        local found, stale = near.stale(cache, key)
        if found then
            return serve_stale(cache, slot, stale)
        end
    end
    local began = binding.now(cache._client)
    local value, err, source, flag, again = lead(cache, slot, full, key, ttl, fn, settings)
    return value, err, source, flag, again and began or nil
end

-- Everything but a plain hit. `slot` holds the result of a load, `status` its status.
local function answer(cache, slot, status, full, key, ttl, fn, settings, left)
    for replaced = 0, MAX_REPLACED do
        local outcome = slot.result.outcome
        if status == binding.TIMEOUT then
            return timed_out(cache, slot, full, key, fn, settings)
        elseif status == binding.DESCRIPTORS and not settings.strict then
            return load_alone(cache, full, key, fn) -- as without Redis; no engine could be started
        elseif status ~= 0 then
            return nil, binding.failure(slot, status, "load", key)
        elseif outcome == FAILED then
            return failed_elsewhere(cache, slot, key)
        elseif outcome == LOAD then
            return lead_now(cache, slot, full, key, ttl, fn, settings)
        end
        local ok, value, source, flag = read_hit(cache, slot, settings)
        if ok then
            return value, nil, source, flag
        elseif settings.decodeErrors == "error" then
            return nil, errors.new("decode", "load", key, value)
        elseif replaced < MAX_REPLACED then
            -- The lease takes the place of what stands in the slot's result, if nothing else does.
            status = start(cache, slot, full, key, settings, left, binding.REPLACE)
        end
    end
    -- Somebody stores what this version cannot read faster than the lease can be had.
    return load_alone(cache, full, key, fn)
end

-- One attempt, from the question to the end of the load. A fifth result: another one may help.
-- The way of a hit: no table, no closure, at most one wait.
local function attempt(cache, slot, full, key, ttl, fn, settings, left)
    if settings.custom then
        binding.customize(slot, settings.timeout, settings.cancelTag)
    end
    local status = start(cache, slot, full, key, settings, left, 0)
    local result = slot.result
    if status == 0 and result.outcome == HIT then
        cache._miss_ratio = cache._miss_ratio * (1 - NEWEST)
        if cache._view ~= nil and cache._miss_ratio > 0.5 then
            cache._miss_ratio = 0.5 -- the next one is a GET, whose answer is kept near
        end
        if result.flags == 0 and result.kind == KIND_VALUE then
            local _, codec, entry_flags, bytes = binding.entry(slot)
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
    local value, err, source, flag, again =
        answer(cache, slot, status, full, key, ttl, fn, settings, left)
    give(slot)
    return value, err, source, flag, again
end

-- The further attempts of a call whose first one said `again`. What that gave counts where no
-- other one may be made.
local function attempt_again(cache, full, key, ttl, fn, settings, again, value, err, source, flag)
    local reloads, deadline = settings.reloads, nil
    while again do
        deadline = deadline or again + settings.waitTimeout
        if reloads == 0 or binding.now(cache._client) >= deadline then
            break
        end
        reloads = reloads - 1
        local slot, status = take(cache._client)
        if slot == nil then
            return nil, binding.failure(nil, status, "load", key)
        end
        local left = deadline - binding.now(cache._client)
        local ok
        ok, value, err, source, flag, again =
            pcall(attempt, cache, slot, full, key, ttl, fn, settings, left)
        if not ok then
            abandon(cache, slot, full)
            error(value, 0)
        end
    end
    return value, err, source, flag
end

-- Where nothing can be waited for there is no lease either: the loader's value is the caller's
-- alone.
local function load_at_once(cache, full, key, fn)
    local found, stale = near.stale(cache, key)
    if found then
        cache._counters.stale = cache._counters.stale + 1
        return stale, nil, "stale"
    end
    return load_alone(cache, full, key, fn)
end

-- near.look with fresh, which asks Redis: what is left of the call's time is left to the load. The
-- settings are this call's own. source, value, seconds left to wait
local function look_fresh(cache, key, settings)
    local client = cache._client
    local deadline = binding.deadline(client, settings.timeout)
    local wait_until = binding.deadline(client, settings.waitTimeout)
    local source, value = near.look(cache, key, settings, math.min(deadline, wait_until))
    settings.timeout, settings.custom = binding.left(client, deadline), true
    return source, value, binding.left(client, wait_until)
end

local function load(cache, key, ttl, fn, settings)
    local source, near_value, left
    if settings == cache._settings then
        source, near_value = near.hit(cache, key, cache._max_stale, cache._copy)
    elseif settings.fresh then
        source, near_value, left = look_fresh(cache, key, settings)
    else
        source, near_value = near.look(cache, key, settings)
    end
    if source ~= nil then
        return near_value, nil, source
    end
    cache._counters.nearMisses = cache._counters.nearMisses + 1
    local full = cache._prefix .. key
    if cache._client.handle == nil then
        return nil, binding.closed(cache._client, "load", key)
    end
    local recursive = recursion(cache, full, key, "load")
    if recursive then
        return nil, recursive
    elseif not cache._scheduler.can_wait() then
        return load_at_once(cache, full, key, fn)
    end
    local slot, status = take(cache._client)
    if slot == nil then
        return nil, binding.failure(nil, status, "load", key)
    end
    local ok, value, err, again, flag
    ok, value, err, source, flag, again =
        pcall(attempt, cache, slot, full, key, ttl, fn, settings, left)
    if not ok then
        abandon(cache, slot, full)
        error(value, 0)
    elseif again then
        return attempt_again(cache, full, key, ttl, fn, settings, again, value, err, source, flag)
    end
    return value, err, source, flag
end

-- Checks what the user gave to a public function, at the user's line, and gives the settings of
-- this call.
local function door(self, key, fn, opts, method)
    if type(key) ~= "string" then
        error(usage.fault(self, "cache", "_client", method)
            or errors.argument("key", method, "string", key), 3)
    elseif type(fn) ~= "function" then
        error(errors.argument("fn", method, "function", fn), 3)
    elseif opts == nil then
        return self._settings
    end
    local settings, message = call_settings(self, opts, method)
    if settings == nil then
        error(message, 3)
    end
    return settings
end

---The value of a key: from Redis, or made by `fn` - once for everybody who asks meanwhile.
---
---`fn(key, ctx)` returns the value and, if it likes, a ttl of its own (0: do not store); or
---nil, err for an error; or nil alone where there is no such thing, which is remembered for
---negativeTtl (nil, nil, ttl chooses another time). It may throw. See redcache.Context.
---
---Sources: "l0" (a decoded value of this Lua state, shared by its readers), "near" (this machine's
---memory), "redis", "loader" (this call, or with "degraded" this process, ran the loader), "stale"
---(past its ttl, within the grace window). A fourth result tells what went wrong without harm:
---"unstored" (the value is right but not in Redis: the key was deleted meanwhile, Redis refused it,
---it is over maxValue, or fn chose a ttl of 0; or this phase of nginx can not wait, and what is not
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
---onTimeout, strict, renew, reloads, cancelTag, near, maxStale, fresh, copy (as Cache:get)
---@return any value nil with a source: there is no such thing; nil without: see err
---@return redcache.Error|nil err badTtl, loaderFailed, recursive, timeout, cancelled, encode,
---decode, tooLarge (the key), overload, closed, redis; unavailable only with strict
---@return string|nil source
---@return string|nil flag
function remember.remember(self, key, ttl, fn, opts)
    local settings = door(self, key, fn, opts, "remember")
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("load", key, ttl, "remember")
    end
    return load(self, key, ttl, fn, settings)
end

---As remember, for a value that never expires by itself.
---@param key string
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as remember
---@return any value
---@return redcache.Error|nil err
---@return string|nil source
---@return string|nil flag
function remember.rememberForever(self, key, fn, opts)
    local settings = door(self, key, fn, opts, "rememberForever")
    return load(self, key, FOREVER, fn, settings)
end

-- The error of a put whose write lease is gone.
local function put_lost(key, settings, took)
    if not settings.renew and took >= settings.leaseTtl then
        return errors.new("leaseLost", "put", key, "the loader outlived its lease")
    end
    return errors.new("lockLost", "put", key, "the key was written or deleted meanwhile")
end

-- Runs the writer under the write lease and ends the lease.
local function write(cache, slot, full, key, ttl, fn, settings)
    local started = binding.now(cache._client)
    local verdict, value, chosen = run_loader(cache, full, key, slot, fn, nil)
    local took = binding.now(cache._client) - started
    local kind, codec, bytes, life
    local err = verdict == "error" and value or nil
    if not err then
        kind, codec, bytes, life = to_entry(verdict, value, ttl, chosen, settings, key, nil)
        if kind == nil then
            err = codec
        end
    end
    local status
    if not err and life ~= 0 then
        local grace = kind == KIND_VALUE and settings.grace or 0
        status = binding.publish(slot, kind, codec, bytes, life, grace, took, settings.plain)
        if status == 0 then
            status = cache._wait(slot)
            if status == 0 and slot.result.outcome == binding.STORED then
                return value
            end
            return nil, status == 0 and put_lost(key, settings, took)
                or binding.failure(slot, status, "put", key)
        end
        err = binding.failure(slot, status, "put", key)
    end
    -- Without a word: the old value stays, and whoever waits for the key may load it.
    status = end_failed(cache, slot, settings, err, true)
    if status == binding.CANCELLED then
        err = binding.failure(slot, status, "put", key)
    end
    if err then
        cache._counters.loadErrors = cache._counters.loadErrors + 1
        return nil, err
    end
    return value
end

-- A put, from the question for the write lease to its end.
local function attempt_put(cache, slot, full, key, ttl, fn, settings)
    if settings.custom then
        binding.customize(slot, settings.timeout, settings.cancelTag)
    end
    local status = binding.load(slot, full, settings.numbers,
        bor(settings.flags, binding.PUT, binding.STRICT,
            settings.serveOld and 0 or binding.HIDE_OLD))
    status = status == 0 and cache._wait(slot) or status
    local value, err
    if status ~= 0 then
        err = binding.failure(slot, status, "put", key)
    else
        value, err = write(cache, slot, full, key, ttl, fn, settings)
    end
    give(slot)
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
function remember.put(self, key, ttl, fn, opts)
    local settings = door(self, key, fn, opts, "put")
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("put", key, ttl, "put")
    end
    local full = self._prefix .. key
    if self._client.handle == nil then
        return nil, binding.closed(self._client, "put", key)
    end
    local recursive = recursion(self, full, key, "put")
    if recursive then
        return nil, recursive
    elseif not self._scheduler.can_wait() then
        return nil, binding.failure(nil, binding.NOT_WAITED, "put", key)
    end
    local slot, status = take(self._client)
    if slot == nil then
        return nil, binding.failure(nil, status, "put", key)
    end
    local ok, value, err = pcall(attempt_put, self, slot, full, key, ttl, fn, settings)
    if not ok then
        abandon(self, slot, full)
        error(value, 0)
    end
    return value, err
end

return remember
