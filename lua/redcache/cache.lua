-- cache - the class: one namespace on one client. Reading and writing single entries.
--
-- What:   the hit path, and the way to everything else (remember, locks, batches, namespaces).
-- Threads: one Lua state. The client below may be shared by many.
-- Memory: a cache and the namespaces made from it share one reference to the client.

local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_entry = require("redcache.core.entry")
local core_login = require("redcache.core.login")
local core_near = require("redcache.core.near")
local core_owned = require("redcache.core.owned")
local core_slot = require("redcache.core.slot")
local later = require("redcache.later")
local core_loop = later.module("redcache.core.loop")
local auth = require("redcache.auth")
local background = later.module("redcache.background")
local batch = later.module("redcache.batch")
local behind_stream = later.module("redcache.behind_stream")
local bloom = later.module("redcache.bloom")
local bulkhead = later.module("redcache.bulkhead")
local calls = require("redcache.calls")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local explain = later.module("redcache.explain")
local freshness = require("redcache.freshness")
local is_nginx = require("redcache.nginx")
local keep_fresh = later.module("redcache.keep_fresh")
local load_settings = require("redcache.load_settings")
local many = later.module("redcache.many")
local namespace = require("redcache.namespace")
local near = require("redcache.near")
local offline = later.module("redcache.offline")
local options = require("redcache.options")
local soft = later.module("redcache.soft")
local swap = later.module("redcache.swap")
local tags = later.module("redcache.tags")
local unsent = later.module("redcache.unsent")
local usage = require("redcache.usage")
local walk = later.module("redcache.walk")
local write_behind = later.module("redcache.write_behind")

local FOREVER, is_ttl = options.FOREVER, options.is_ttl
local enter, await, fail = calls.enter, calls.await, calls.fail
local give = core_slot.give
local HIT, WANT_TTL, NOT_WAITED = constants.HIT, constants.WANT_TTL, constants.NOT_WAITED
local REPLICA = constants.REPLICA
local KIND_NEGATIVE = constants.KIND_NEGATIVE
local KIND_PLAIN = constants.KIND_PLAIN

-- As the garbage collector: leases and locks get a moment to be given back.
local LAST_SECONDS = 0.2

---@class redcache.Cache
local Cache = {}
Cache.__index = Cache

Cache.namespace = namespace.namespace

-- A cache object over a client that is open.
local function make(client, prefix, settings)
    local scheduler = client.scheduler
    load_settings.prepare(settings)
    local cache = setmetatable({
        _client = client,
        _prefix = prefix,
        _settings = settings,
        _inherit = { __index = settings },
        _scheduler = scheduler,
        _wait = scheduler.wait,
        _make = make,
        _bulkhead = false,
        _offline = false,
        _is_near = false, -- whether it has a _view: a look for what is not there costs more
        -- Whether entry.form() may change what is stored, without tags and a grace window.
        _is_formed = freshness.is_told(settings, 0) or settings.jitter > 0,
        _read_flags = (settings.grace > 0 and WANT_TTL or 0)
            + (settings.reads == "replica" and REPLICA or 0),
        -- Starts low: a read that hits is the cheapest first guess.
        _miss_ratio = 0,
        -- The part of a batch that is not there: a batch is asked for where one was cold before.
        _miss_ratio_many = 1,
        _bloom = settings.bloom and bloom.new(client, prefix) or false,
        _needs_request = false, -- of loaders in nginx: refresh.lua
        _counters = {
            hits = 0, misses = 0, negative = 0, loads = 0, loadErrors = 0, waits = 0, stale = 0,
            degraded = 0, unstored = 0, decodeErrors = 0, l0Hits = 0, nearHits = 0,
            nearMisses = 0, extraKeys = 0, bulkheadRefused = 0, bulkheadWaited = 0,
            filtered = 0, localReads = 0, localWrites = 0,
        },
    }, Cache)
    near.attach(cache, prefix, settings)
    if settings.offline then
        offline.attach(cache, settings)
    end
    if settings.writeBehind then
        write_behind.attach(cache)
    end
    if settings.maxInFlight or settings.maxRate then
        bulkhead.attach(cache, prefix, settings)
    end
    return cache
end

-- A call inside nginx that waits must not stop its worker. A clock of specs waits for nothing.
local function default_scheduler(settings, opts)
    if is_nginx and settings.clock == nil and (opts == nil or opts.scheduler == nil) then
        settings.scheduler = "resty"
    end
    options.complete_background(settings)
end

local opened = setmetatable({}, { __mode = "k" }) -- clients

-- The Lua state ends, and finalizers may still call caches that nobody has closed.
core_owned.at_end(function()
    for client in pairs(opened) do
        if client.store then
            near.clear(client.store)
        end
        core_client.close(client, LAST_SECONDS)
        if client.port then
            core_loop.end_port(client.port, LAST_SECONDS)
        end
    end
end)

local function open(opts, method)
    if type(opts) == "table" and opts._VERSION then
        error("redcache:" .. method .. " was called with a colon: write redcache." .. method
            .. "(opts)", 3)
    end
    local settings, message = options.complete(opts, "new", method)
    message = message or options.durable_fault(settings,
        string.find(settings.url, "^memory://") ~= nil, method)
        or options.waiting_fault(settings, method)
    if message then
        error(message, 3)
    end
    default_scheduler(settings, opts)
    local scheduler = later.load("redcache.scheduler." .. settings.scheduler)
    local client, reason, option
    reason, option = scheduler.check(settings), "scheduler"
    if reason == nil then
        client, reason, option = core_client.open(settings, scheduler.driver(settings))
    end
    if client == nil and option == nil then
        error("could not open the cache: " .. reason, 3)
    elseif client == nil then
        error("bad option '" .. option .. "' to " .. method .. ": " .. reason, 3)
    end
    opened[client] = true
    client.scheduler, client.enter, client.awaken = scheduler, scheduler.enter, scheduler.awaken
    client.group, client.background_limits = settings.group, settings.background
    later.attend(client, core_clock.now)
    return make(client, namespace.prefix("", settings.namespace), settings)
end

---Opens a cache. redcache.new is this function.
---@param opts? table
---@return redcache.Cache
function Cache.open(opts)
    local cache = open(opts, "new")
    return cache
end

---Opens a cache in nginx. redcache.init is this function.
---@param opts? table
---@return redcache.Cache
function Cache.init(opts)
    if opts == nil or type(opts) == "table" then
        local all = { scheduler = "resty" }
        for name, value in pairs(opts or {}) do
            all[name] = value
        end
        opts = all
    end
    later.all() -- for all workers at once
    local cache = open(opts, "init")
    return cache
end

-- Takes a slot with what a call's options ask for. opts is nil or was not checked yet.
-- slot, own | nil, error object | nil, nil, argument error
local function take_for(self, opts, place, method, action, key)
    local own, message
    if opts ~= nil then
        own, message = options.read({}, opts, place, method)
        if own == nil then
            return nil, nil, message
        end
    end
    local slot, err = enter(self, own, action, key)
    return slot, slot and own or err
end

-- The slow end of get: anything but a plain hit.
local function get_other(self, slot, status, key, own)
    local result, counters = slot.result, self._counters
    if status ~= 0 then
        local err = fail(slot, status, "read", key)
        local kept, local_value
        if self._offline then
            kept, local_value = self._offline:find(key, err)
        end
        if kept then
            return local_value, nil, kept ~= "deleted" and "local" or nil
        elseif err.code == "unavailable" or err.code == "timeout" or err.code == "cannotWait" then
            local found, value = near.stale(self, key, own)
            if found then
                counters.stale = counters.stale + 1
                return value, nil, "stale"
            end
        end
        return nil, err
    end
    if own ~= nil and own.why then
        own.seen = result.kind
    end
    local kind, codec, flags, bytes = KIND_PLAIN, 0, 0
    if result.outcome == HIT then
        kind, codec, flags, bytes = core_entry.read(slot)
    else
        bytes = entry.doubtful(self._settings, slot)
        if not (bytes and entry.is_plain(self, slot, self._prefix .. key, bytes)) then
            give(slot)
            counters.misses = counters.misses + 1
            return nil
        end
    end
    local life, grace = core_entry.life(slot)
    local standing = "valid"
    if flags ~= 0 then
        local err
        standing, err = tags.judge(self, flags, bytes, own)
        if own ~= nil and own.why then
            own.seen = explain.of_tags(standing, own.seen)
        end
        if standing == nil or standing == "void" then
            give(slot)
            counters.misses = counters.misses + (err and 0 or 1)
            return nil, err
        end
    end
    if kind == KIND_NEGATIVE then
        give(slot)
        counters.negative = counters.negative + 1
        return nil, nil, "redis"
    end
    local ok, value = entry.decode(self._settings, kind, codec, flags, bytes)
    if ok then
        give(slot)
        counters.hits = counters.hits + 1
        if standing == "stale" or grace > 0 and type(life) == "number" and life <= grace then
            counters.stale = counters.stale + 1
            return value, nil, "stale"
        end
        return value, nil, "redis"
    end
    give(slot)
    counters.decodeErrors = counters.decodeErrors + 1
    if own ~= nil and own.why then
        own.seen = false
    end
    if self._settings.decodeErrors == "error" then
        return nil, errors.new("decode", "read", key, value)
    end
    counters.misses = counters.misses + 1
    return nil
end

-- The flags of a read with options of its own.
local function own_flags(self, own)
    return (self._settings.grace > 0 and WANT_TTL or 0) + calls.reads(self, own)
end

-- Reads from Redis. own: the checked options of the call, or nil.
local function get_redis(self, slot, key, own)
    local counters = self._counters
    local status
    if self._is_near and not (own and (own.near == false or own.reads == "replica")) then
        counters.nearMisses = counters.nearMisses + 1
        status = core_near.view_read(self._view, slot, key,
            own and own.fresh and constants.FRESH or 0)
    else
        status = core_entry.get(slot, self._prefix, key, own and own_flags(self, own)
            or self._read_flags)
    end
    status = await(self, slot, status)
    local codec = self._settings.codec
    local value, bytes
    if status == 0 then
        value, bytes = core_entry.plain_hit(slot, codec)
    end
    local ok = value ~= nil
    if bytes then
        ok, value = codec.decode(bytes)
    end
    if ok then
        give(slot)
        counters.hits = counters.hits + 1
        return value, nil, "redis"
    end
    return get_other(self, slot, status, key, own)
end

-- get under the checked options of a call.
local function get_with(self, key, own)
    if own.version then
        own.before = own.why and explain.before(self, key, own)
        return swap.get(self, key, own)
    end
    -- With fresh there may be two questions: what is left of the time is the second one's.
    local client = self._client
    local deadline = own.fresh and core_clock.deadline(client, own.timeout)
    local source, value = near.find(self, key, own, deadline)
    if source ~= nil then
        return value, nil, source
    elseif self._bloom and bloom.is_absent(self, key, own) then
        return nil, nil, "bloom"
    end
    own.before = own.why and explain.before(self, key, own)
    if deadline then
        own.timeout = core_clock.left(client, deadline)
    end
    if client.due then
        client.due(client)
    end
    local slot, err = enter(self, own, "read", key)
    if slot == nil then
        return nil, err
    end
    return get_redis(self, slot, key, own)
end

-- The same with why = true.
local function get_why(self, key, own)
    local value, err, source, version = get_with(self, key, own)
    if source == "bloom" then
        return nil, nil, source, nil, "filtered"
    elseif err or not own.before then
        return explain.of_near(source == "stale" and explain.near_stale(self, key, own), value, err,
            source, version)
    end
    return value, nil, source, version, explain.after(own.before, source, nil, own.seen)
end

---Reads a value. Never runs a loader. Tables from "l0" and "near" are shared by all readers of this
---Lua state: treat them as read-only, or ask for a copy.
---@param key string
---@param opts? table timeout (seconds), cancelTag, near (false: ask Redis), maxStale (seconds),
---fresh (true: nothing older than a write acknowledged before this call), copy, reads ("replica": a
---replica may answer, whose answer is older than the master's by its replication lag, which has no
---bound; the near cache is left alone; "master"), version (true: the fourth result; then the master
---answers, and nothing near is asked or kept), why (true: the fifth result)
---@return any value nil with a source: "no such thing" is remembered; nil without: a miss or err
---@return redcache.Error|nil err decode (with decodeErrors = "error"), tooLarge, timeout,
---cancelled, unavailable, overload, closed, redis, cannotWait
---@return string|nil source "l0" (a decoded value of this Lua state), "near" (this machine's
---memory), "redis", "local" (written here while Redis is away: option offline), or "stale": past
---its ttl, within the grace window, or a near copy that is not known coherent while Redis cannot be
---reached
---@return string|nil version with version = true: for cas; nil: no value stands there
---@return string|nil why with why = true, of what was not near: a reason, as Cache:explain
function Cache:get(key, opts)
    if type(key) ~= "string" then
        error(usage.fault(self, "cache", "_client", "get")
            or errors.argument("key", "get", "string", key), 2)
    end
    if opts == nil then
        if self._is_near then
            local source, value = near.look(self, key)
            if source ~= nil then
                return value, nil, source
            elseif self._bloom and bloom.is_absent(self, key) then
                return nil, nil, "bloom"
            end
        end
        local client = self._client
        if client.due then
            client.due(client)
        end
        local slot, err = enter(self, nil, "read", key)
        if slot == nil then
            return nil, err
        end
        return get_redis(self, slot, key)
    end
    local own, message = options.read({}, opts, "get", "get")
    if own == nil then
        error(message, 2)
    elseif own.why then
        return get_why(self, key, own)
    end
    return get_with(self, key, own)
end

-- Reads a key for what surrounds its value; the caller gives the slot back.
local function read(self, key, flags, opts, method, action)
    local slot, own, fault = take_for(self, opts, "look", method, action, key)
    if slot == nil then
        return nil, own, fault
    end
    flags = flags + calls.reads(self, own)
    local status = await(self, slot, core_entry.get(slot, self._prefix, key, flags))
    if status ~= 0 then
        return nil, fail(slot, status, action, key)
    end
    return slot, own
end

-- Cache:exists of one key.
local function exists(self, slot, key, own)
    local result = slot.result
    local hit, kind, codec, flags = result.outcome == HIT, result.kind, result.codec,
        result.entry_flags
    if hit and flags ~= 0 then
        local standing, err = tags.judge_slot(self, slot, own)
        if standing == nil or standing == "void" then
            give(slot)
            if err then
                return nil, err
            end
            return false
        end
    end
    local bytes = not hit and entry.doubtful(self._settings, slot)
    if bytes and entry.is_plain(self, slot, self._prefix .. key, bytes) then
        hit, kind = true, KIND_PLAIN
    end
    give(slot)
    if hit and kind == KIND_NEGATIVE then
        return false, true
    end
    return hit and entry.is_known(self._settings, kind, codec, flags)
end

---Whether a value stands under the key; of a list of keys, under how many of them. "No such thing"
---entries and running loads count as absent, and so does what this version does not know how to
---read (its payload is not decoded here, but it is on its way, as for get and getMulti).
---@param key string|string[] doubles in a list count once; an empty list sends nothing
---@param opts? table timeout, cancelTag, reads (as Cache:get)
---@return boolean|integer|nil exists the count, of a list: one round trip to each server
---@return redcache.Error|true|nil err of a list: of any of its keys; or, with false, true where "no
---such thing" is remembered
function Cache:exists(key, opts)
    if type(key) == "table" then
        local own, message = nil, many.list_fault(key, "exists")
        if message == nil and opts ~= nil then
            own, message = options.read({}, opts, "look", "exists")
        end
        if message then
            error(message, 2)
        end
        return batch.count(self, key, own)
    elseif type(key) ~= "string" then
        error(errors.argument("key", "exists", "string or list of strings", key), 2)
    end
    local slot, reason, fault = read(self, key, 0, opts, "exists", "look for")
    if fault then
        error(fault, 2)
    elseif slot == nil then
        return nil, reason
    end
    return exists(self, slot, key, reason)
end

---How long a value still lives.
---@param key string
---@param opts? table timeout, cancelTag, reads (as Cache:get)
---@return number|redcache.Forever|nil ttl seconds, exact to the millisecond; 0 within the grace
---window; FOREVER without expiry; nil where there is no value
---@return redcache.Error|nil err
function Cache:ttl(key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "ttl", "string", key), 2)
    end
    local slot, reason, fault = read(self, key, WANT_TTL, opts, "ttl", "read the ttl of")
    if fault then
        error(fault, 2)
    elseif slot == nil then
        return nil, reason
    end
    local hit = slot.result.outcome == HIT and slot.result.kind ~= KIND_NEGATIVE
    local life, grace = core_entry.life(slot)
    local standing, err = "valid", nil
    if hit and slot.result.entry_flags ~= 0 then
        standing, err = tags.judge_slot(self, slot, reason)
    end
    give(slot)
    if not hit or life == nil or standing == nil or standing == "void" then
        return nil, err
    elseif standing == "stale" then
        return 0
    elseif life == FOREVER then
        return FOREVER
    end
    return life > grace and life - grace or 0
end

---Stores a value at once, whatever stands there: a running load of the key is void.
---@param key string
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace, tags (names: what they are invalidated by)
---@return true|nil stored
---@return redcache.Error|nil err badTtl, encode, tooLarge, timeout, cancelled, unavailable,
---outcomeUnknown (it may have been stored), overload, closed, redis
---@return string|nil flag "sent": this phase of nginx cannot wait, so nobody knows how it ends;
---"local": Redis is away, and this machine keeps it (option offline)
function Cache:set(key, value, ttl, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "set", "string", key), 2)
    elseif value == nil then
        error(errors.argument("value", "set", "any value but nil", value), 2)
    end
    local settings = self._settings
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("write", key, ttl, "set")
    end
    if opts ~= nil and settings.plain and type(opts) == "table" then
        local fault = options.plain_fault(opts, true, "set")
        if fault then
            error(fault, 2)
        end
    end
    local slot, own, fault = take_for(self, opts, "write", "set", "write", key)
    if fault then
        error(fault, 2)
    elseif slot == nil then
        return nil, own
    end
    local ok, bytes = entry.encode(settings, value)
    if not ok then
        give(slot)
        return nil, errors.new("encode", "write", key, bytes)
    end
    local grace = own and own.grace or settings.grace
    local flags, tagged
    local names = (settings.generation or own and own.tags) and tags.names(settings, own)
    if names then
        local err
        tagged, err = tags.begin(self, names, own, key)
        if tagged == nil then
            give(slot)
            return nil, err
        end
    end
    local unfit = self._bloom and bloom.add(self, key, own)
    if unfit then
        give(slot)
        return nil, unfit
    end
    local plain_bytes = bytes
    if tagged or grace > 0 or self._is_formed then
        bytes, flags, ttl = entry.form(settings, bytes, ttl, grace, 0, tagged)
    end
    local status = core_entry.set(slot, self._prefix .. key, settings.codec.id, bytes, ttl, grace,
        settings.plain, flags)
    status = await(self, slot, status)
    if status ~= 0 and status ~= NOT_WAITED then
        local err = fail(slot, status, "write", key)
        if self._offline and not tagged then
            return self._offline:write(key, plain_bytes, ttl, err)
        end
        return nil, err
    end
    give(slot)
    return true, nil, status == NOT_WAITED and "sent" or nil
end

---Deletes a key: a running load of it is void. Where a failover of the next ten seconds loses the
---delete, it is done again if what stands in the key is a version that was read or written here
---before; if it is not, or has none (plain), it stays: stats().deletesLost counts that.
---
---With soft = true an entry that was stored with a grace window is stale at once, and stays for
---that window: readers with `grace` get it as "stale" while one loads; what runs already, a refresh
---or a put, stores nothing. What has no window is deleted. A failover may lose a soft delete.
---@param key string
---@param opts? table soft, timeout, cancelTag
---@return boolean|nil deleted false: there was nothing
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, outcomeUnknown,
---overload, closed, redis
---@return string|nil flag "sent": this phase of nginx cannot wait, so nobody knows how it ends;
---"local": as of set
function Cache:delete(key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "delete", "string", key), 2)
    end
    local own, message
    if opts ~= nil then
        own, message = options.read({}, opts, "delete", "delete")
        if message then
            error(message, 2)
        elseif own.soft then
            return soft.delete(self, key, own)
        end
    end
    local slot, err = enter(self, own, "delete", key)
    if slot == nil then
        return nil, err
    end
    local status = await(self, slot, core_entry.delete(slot, self._prefix .. key))
    if status == NOT_WAITED then
        give(slot)
        return true, nil, "sent"
    elseif status ~= 0 then
        err = fail(slot, status, "delete", key)
        if self._offline then
            return self._offline:delete(key, err)
        end
        return nil, err
    end
    local deleted = core_entry.number(slot) > 0
    give(slot)
    return deleted
end

---Newer credentials for all connections, at any time: those that are open say who they are again,
---in line with the calls that go over them. Other caches on this client get them, too.
---@param user string "default" is the name of the user without a name; without the option auth it
---must stay the one that the url, or the option user, has named
---@param password string
---@param ttl? number seconds that they hold; nil: for ever
---@return true|nil done
---@return redcache.Error|nil err closed; refused: passwords that change go to another machine over
---TLS alone, unless the option tls is "off"
function Cache:authenticate(user, password, ttl)
    for name, value in pairs({ user = user or false, password = password or false }) do
        if type(value) ~= "string" or value == "" then
            error("bad argument '" .. name .. "' to authenticate: string of 1 to 65536 bytes"
                .. " expected", 2)
        end
    end
    if not auth.is_ttl(ttl) then
        error("bad argument 'ttl' to authenticate: number above 0 or nil expected", 2)
    end
    local client = self._client
    local err = core_client.closed(client, "authenticate")
    if err then
        return nil, err
    end
    local status = core_login.authenticate(client.handle, user, password, ttl)
    if status == constants.ARGUMENT then
        error("could not authenticate: without the option auth the user stays the one of the url,"
            .. " memory:// has none, and the password has at most 65536 bytes", 2)
    elseif status ~= 0 then
        return nil, core_slot.error_of(status, status == constants.REFUSED
            and 'without TLS everybody on the way reads the password: use rediss://, or say'
            .. ' tls = "off"' or nil, "authenticate")
    end
    if self._scheduler.tell then
        self._scheduler.tell(client)
    end
    return true
end

---Ends every call, of any Lua state or thread on this client, that carries the option cancelTag.
---@param tag integer
---@return integer|nil count of calls that were ended
---@return redcache.Error|nil err closed
function Cache:cancel(tag)
    if type(tag) ~= "number" or not (tag >= 1 and tag <= 2 ^ 53) or tag ~= math.floor(tag) then
        error("bad argument 'tag' to cancel: whole number from 1 to 2^53 expected, got "
            .. tostring(tag), 2)
    end
    local err = core_client.closed(self._client, "cancel")
    if err then
        return nil, err
    end
    local count, tell = core_client.cancel(self._client, tag), self._scheduler.tell
    count = count + walk.cancel(self._client, tag)
    if self._client.bulkheads then
        count = count + bulkhead.cancel(self._client, tag)
    end
    if tell then
        tell(self._client)
    end
    return count
end

---Counters since the start: those of this cache object (hits, misses, negative, loads, loadErrors,
---waits, stale, degraded, unstored, decodeErrors, extraKeys), and those of the client, which every
---cache and thread on it shares (requests, bytesIn, heartbeats, inFlight and so on), and of this
---Lua state's work in the background (backgroundDone and so on). Callers that read the same key at
---once share one request: it counts once in requests and inFlight, and in shared for each of them
---but one.
---@return table<string, integer>|nil stats
---@return redcache.Error|nil err closed
function Cache:stats()
    local err = core_client.closed(self._client, "read stats")
    if err then
        return nil, err
    end
    local stats, counters = core_client.stats(self._client), self._counters
    near.count(self)
    for name, count in pairs(counters) do
        stats[name] = count
    end
    unsent.count(self._client, stats)
    stats.hits = counters.hits + counters.l0Hits + counters.nearHits
    background.stats(self._client, stats)
    if self._behind then
        write_behind.stats(self._behind, stats)
    end
    bulkhead.stats(self, stats)
    return stats
end

---How the connections are, and what their server would do now. It asks the server, too, where that
---is a quarter of a second ago: the next call knows the answer.
---@return table|nil health ready (a read and a write would work now: false before the first use),
---tracking (copies can be kept near), down (seconds since there is no connection), server ("redis
---7.0.15"), mode ("standalone", "cluster"), address, cause (texts; why it is not ready or not
---tracking, "" where there is nothing to say), off (what this server, or our user there, cannot do:
---"tracking", "identity", "databases", "replicas" = why; "near": the near cache has no place for
---our connection for now), replicas (once reads were meant for them: by address, "" for one that is
---asked, else why it is not)
---@return redcache.Error|nil err closed
function Cache:health()
    local err = core_client.closed(self._client, "read health")
    if err then
        return nil, err
    end
    return core_client.health(self._client)
end

---Closes this cache, the one it was made from and every namespace of it; later calls return
---`closed`. What waits to be written behind is written before, and what is queued in the background
---is run, as long as there is time. Where nobody
---else uses the client, calls that wait end with `closed`, leases and locks are given back and the
---connections end. Closing twice is no error.
---@param timeout? number seconds to wait for that; 1
---@return true
---@return integer|nil dropped how many jobs in the background, and writes behind, there was no time
---for; nil: none
function Cache:close(timeout)
    if timeout == nil then
        timeout = 1
    elseif type(timeout) ~= "number" or not (timeout >= 0 and timeout <= 86400) then
        error("bad argument 'timeout' to close: number from 0 to 86400 expected, got "
            .. tostring(timeout), 2)
    end
    local client, dropped = self._client, 0
    if client.keepers then
        keep_fresh.close(client, timeout)
    end
    if client.streams then
        behind_stream.close(client, timeout)
    end
    local unwritten = 0
    if client.behinds then
        timeout, unwritten = write_behind.close(self, timeout)
    end
    client.behinds_ended = true
    if client.queue then
        timeout, dropped = background.close(self, timeout)
    end
    dropped = dropped + unwritten
    if client.store then
        near.clear(client.store)
    end
    if client.unsent then
        unsent.close(client, timeout)
    end
    local port = client.handle ~= nil and client.port
    core_client.close(client, timeout)
    if port and core_loop.leave_port(port) then
        client.scheduler.close(port, timeout)
    end
    if dropped > 0 then
        return true, dropped
    end
    return true
end

Cache._set = Cache.set -- for a call that has had its turn of background work

-- remember and rememberForever, as get, are called too often for a look at each call.
local HOT = { get = true, remember = true, rememberForever = true }

usage.guard("cache", Cache, "_client", HOT)

-- By module: the methods that it brings when one of them is first called.
local BROUGHT = {
    background = { "work" },
    batch = { "getMulti", "setMulti", "deleteMulti" },
    breaker = { "breaker" },
    by_tag = { "keysByTag" },
    commit = { "afterCommit" },
    count = { "incr", "decr", "incrFloat" },
    explain = { "explain" },
    filter = { "bloom" },
    invalidate = { "invalidateTags" },
    keep_fresh = { "keepFresh" },
    life = { "touch", "expire", "expireAt", "persist", "touchMulti", "expireMulti" },
    limiter = { "limiter" },
    listener = { "onInvalidate" },
    loader = { "loader" },
    lock = { "lock", "tryLock", "withLock" },
    lock_many = { "lockMulti" },
    metrics = { "metrics" },
    move = { "rename", "copy" },
    put = { "put" },
    put_many = { "putMulti" },
    read_write_lock = { "readWriteLock" },
    redis = { "redis" },
    remember = { "remember", "rememberForever" },
    remember_many = { "rememberMulti" },
    request = { "request" },
    scan = { "scan", "keys" },
    semaphore = { "semaphore", "withSemaphore" },
    session = { "session" },
    swap = { "add", "replace", "cas", "getSet", "getDelete", "update" },
    sweep = { "deleteByPattern", "flush" },
    tagging = { "tags", "addTags" },
    warm = { "warm" },
    wrap = { "wrap" },
    write_behind = { "setBehind", "deadLetters", "replayDeadLetters", "dropDeadLetters" },
}

local function adopt(method, fn)
    return HOT[method] and fn or usage.guarded("cache", "_client", method, fn)
end

for module, methods in pairs(BROUGHT) do
    later.methods(Cache, "redcache." .. module, methods, adopt)
end

return Cache
