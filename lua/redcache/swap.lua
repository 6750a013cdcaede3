-- swap - writes that look first: at whether a value stands there, at its version, at the value.
--
-- What:   add, replace, cas, getSet, getDelete, update; and get with its version. One script looks
--         and writes in one step; its twin for memory:// is core/store/swap_scripts.c. What counts
--         as no value: present.lua. A write voids a running load, as set does.
-- Errors: a write is never sent again on its own: where the connection breaks behind it, the caller
--         is told outcomeUnknown.
-- Not:    a version is no counter: it tells one stored value from another, and is opaque.

local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_slot = require("redcache.core.slot")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local explain = require("redcache.explain")
local options = require("redcache.options")
local present = require("redcache.present")
local tags = require("redcache.tags")

local is_ttl = options.is_ttl
local give = core_slot.give
local KIND_VALUE, KIND_PLAIN = constants.KIND_VALUE, constants.KIND_PLAIN
local KIND_NEGATIVE = constants.KIND_NEGATIVE

local swap = {}

-- K; what is done, the value, its ttl, -1 or "k" (what is left of the one that stands there), a
-- version ->
--   "A" only where there is no value, "R" only where there is one, "C" only where it has the
--   version: {1, version of what was stored} | {0};
--   "S" whatever stands there, "D" deletes it, "G" reads: {1 there was a value | 2 there was none,
--   its version for "G", PTTL, what stood there or nothing}.
-- A version is the nonce of a header, or the SHA-1 of a plain value.
local SWAP = present.NOTHING .. [[
local function id(v) return kind(v)>0 and string.sub(v,9,16) or redis.sha1hex(v) end
local m=ARGV[1]
local v=redis.call('GET',KEYS[1])
local none=nothing(KEYS[1],v)
if m=='A' and not none or (m=='R' or m=='C') and none then return {0} end
if m=='C' and id(v)~=ARGV[4] then return {0} end
local left=redis.call('PTTL',KEYS[1])
if m=='G' then return {none and 2 or 1,none and '' or id(v),left,v} end
if m=='D' then redis.call('UNLINK',KEYS[1]) return {none and 2 or 1,'',left,v} end
local ms=ARGV[3]
if ms=='k' then ms=string.format('%.0f',left==0 and 1 or left) end
if ms=='-1' then redis.call('SET',KEYS[1],ARGV[2])
else redis.call('SET',KEYS[1],ARGV[2],'PX',ms) end
if m=='S' then return {none and 2 or 1,'',left,v} end
return {1,id(ARGV[2])}
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

local BULK = string.byte("$")
-- In place of a ttl: the value lives as long as the one in whose place it comes.
local KEPT = "k"
local RETRIES = 100
-- Of a version: a nonce, or the digits of a SHA-1.
local VERSION_SIZES = { [8] = true, [40] = true }

-- Sends the script. ttl: seconds, FOREVER, KEPT. nil: as calls.script; else the caller gives the
-- slot back.
local function send(self, own, mode, key, stored, ttl, version, action)
    script = script or core_command.define(SWAP)
    local ms = stored and ttl ~= KEPT and core_entry.life_ms(ttl, stored.grace) or -1
    local life = ttl == KEPT and KEPT or ("%.0f"):format(ms)
    local slot, err, sent = calls.script(self, own, script, mode == "G" and constants.RETRY or 0,
        { key }, { mode, stored or "", life, version or "" }, action)
    if slot == nil then
        return nil, err, sent
    end
    local head = core_command.nodes(slot)[0]
    if core_command.is_error(head) then
        err = core_command.node_failure(head, action, key)
        give(slot)
        return nil, err
    end
    return slot
end

-- Checks what a writer was given. own | nil, message
local function check_write(self, key, value, opts, method)
    if type(key) ~= "string" then
        return nil, errors.argument("key", method, "string", key)
    elseif value == nil then
        return nil, errors.argument("value", method, "any value but nil", value)
    end
    local own, message = options.read({}, opts, "write", method)
    message = message or options.plain_fault(own, self._settings.plain, method)
    return not message and own or nil, message
end

-- The generations of the call's tags: what update has read already, or those of now.
local function begin_tags(self, own, key)
    local names = not own.tagged and tags.names(self._settings, own)
    if not names then
        return own.tagged
    end
    return tags.begin(self, names, own, key)
end

-- A value as it is to be stored, and its ttl; or nil and an error.
local function make(self, key, value, ttl, own, method)
    local settings = self._settings
    if ttl == nil then
        ttl = settings.ttl
    elseif not is_ttl(ttl) then
        return nil, errors.bad_ttl("write", key, ttl, method)
    end
    local ok, bytes = entry.encode(settings, value)
    if not ok then
        return nil, errors.new("encode", "write", key, bytes)
    end
    local tagged, err = begin_tags(self, own, key)
    err = err or self._bloom and bloom.add(self, key, own)
    if err then
        return nil, err
    end
    local grace, flags = own.grace or settings.grace
    bytes, flags, ttl = entry.form(settings, bytes, ttl, grace, 0, tagged)
    return { codec = settings.codec.id, bytes = bytes, ttl = ttl, grace = grace,
        plain = settings.plain, flags = flags }
end

-- A write that stores or does not: stored, err, sent, version.
local function store(self, mode, key, value, ttl, own, version, method)
    local stored, err = make(self, key, value, ttl, own, method)
    if stored == nil then
        return nil, err
    end
    local slot, sent
    slot, err, sent = send(self, own, mode, key, stored, stored.ttl, version, "write")
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local nodes = core_command.nodes(slot)
    local done = nodes[1].integer == 1
    version = done and core_command.node_text(nodes[2]) or nil
    give(slot)
    return done, nil, nil, version
end

-- Decodes what stood there: value, err, source, version. Gives the slot back.
local function read_old(self, slot, key, own)
    local nodes, counters, settings = core_command.nodes(slot), self._counters, self._settings
    local found, version = nodes[1].integer == 1, core_command.node_text(nodes[2])
    local left, node = tonumber(nodes[3].integer), nodes[4]
    if node.type ~= BULK then
        give(slot)
        counters.misses = counters.misses + 1
        return nil
    end
    local status = core_command.node_entry(slot, 4)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "read", key)
    end
    local kind, codec, flags, bytes = core_entry.read(slot)
    local stale_ms = slot.result.stale_ms
    if found and (kind == constants.KIND_LEASE or kind == constants.KIND_ERROR) then
        -- What looks like a load, and never expires, is somebody's.
        kind, bytes = KIND_PLAIN, core_command.node_text(node)
    end
    give(slot)
    if not found then
        local standing = kind == KIND_NEGATIVE and tags.judge(self, flags, bytes, own)
        own.seen = explain.of_tags(standing, kind)
        local is_negative = kind == KIND_NEGATIVE and standing ~= "void"
        local name = is_negative and "negative" or "misses"
        counters[name] = counters[name] + 1
        return nil, nil, is_negative and "redis" or nil
    end
    local standing, err = tags.judge(self, flags, bytes, own)
    own.seen = explain.of_tags(standing, kind)
    if standing == nil or standing == "void" then
        counters.misses = counters.misses + (err and 0 or 1)
        return nil, err, nil, version
    end
    local ok, value = entry.decode(settings, kind, codec, flags, bytes)
    if not ok then
        counters.decodeErrors = counters.decodeErrors + 1
        if settings.decodeErrors == "error" then
            return nil, errors.new("decode", "read", key, value), nil, version
        end
        counters.misses = counters.misses + 1
        return nil, nil, nil, version
    end
    counters.hits = counters.hits + 1
    local is_stale = standing == "stale" or settings.grace > 0 and kind == KIND_VALUE
        and stale_ms > 0 and left >= 0 and left <= stale_ms
    if is_stale then
        counters.stale = counters.stale + 1
    end
    return value, nil, is_stale and "stale" or "redis", version
end

---Writes an entry over the one that has this version, whose life it keeps.
---@param key string
---@param own table checked options of the call
---@param stored redcache.EntryArgument
---@param version string
---@param action string for the error
---@return boolean|nil stored false: another value stands there, or none
---@return redcache.Error|nil err
function swap.rewrite(self, key, own, stored, version, action)
    local slot, err, sent = send(self, own, "C", key, stored, KEPT, version, action)
    if slot == nil then
        return nil, err or sent and core_slot.failure(nil, constants.NOT_WAITED, action, key)
    end
    local done = core_command.nodes(slot)[1].integer == 1
    give(slot)
    return done
end

---Cache:get with its version, whose options are checked. Nothing near is asked.
---@param key string
---@param own table
---@return any value
---@return redcache.Error|nil err
---@return string|nil source
---@return string|nil version nil: no value stands there
function swap.get(self, key, own)
    local slot, err, sent = send(self, own, "G", key, nil, nil, nil, "read")
    if slot == nil then
        return nil, err or sent and core_slot.failure(nil, constants.NOT_WAITED, "read", key)
    end
    return read_old(self, slot, key, own)
end

---Stores a value only where none stands: a running load (which is void then), its end and "no such
---thing" are none.
---@param key string
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace, tags
---@return boolean|nil stored false: a value stands there
---@return redcache.Error|nil err badTtl, encode, tooLarge, timeout, cancelled, unavailable,
---outcomeUnknown (it may have been stored), overload, closed, redis
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
---@return string|nil version of what was stored
function swap.add(self, key, value, ttl, opts)
    local own, message = check_write(self, key, value, opts, "add")
    if own == nil then
        error(message, 2)
    end
    return store(self, "A", key, value, ttl, own, nil, "add")
end

---Stores a value only where one stands; as add in everything else.
---@param key string
---@param value any
---@param ttl? number|redcache.Forever
---@param opts? table timeout, cancelTag, grace, tags
---@return boolean|nil stored false: there is no value
---@return redcache.Error|nil err as add
---@return string|nil sent as add
---@return string|nil version as add
function swap.replace(self, key, value, ttl, opts)
    local own, message = check_write(self, key, value, opts, "replace")
    if own == nil then
        error(message, 2)
    end
    return store(self, "R", key, value, ttl, own, nil, "replace")
end

---Stores a value only where the one stands that has this version: nobody has written the key since
---it was read. touch, expire and persist change no version.
---@param key string
---@param version string of get(key, { version = true }), or of a write that stored
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace, tags
---@return boolean|nil stored false: another value stands there, or none
---@return redcache.Error|nil err as add
---@return string|nil sent as add
---@return string|nil version as add
function swap.cas(self, key, version, value, ttl, opts)
    if type(key) == "string" and (type(version) ~= "string" or not VERSION_SIZES[#version]) then
        error(errors.argument("version", "cas", "version of get(key, { version = true })",
            version), 2)
    end
    local own, message = check_write(self, key, value, opts, "cas")
    if own == nil then
        error(message, 2)
    end
    return store(self, "C", key, value, ttl, own, version, "cas")
end

---Stores a value, as set, and gives what stood there before, in one step.
---@param key string
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace, tags
---@return any old
---@return redcache.Error|nil err as add; decode (with decodeErrors = "error") and tooLarge about
---the old value: then the new one is stored
---@return string|nil source of the old value, as Cache:get; "sent": this phase of nginx cannot wait
function swap.getSet(self, key, value, ttl, opts)
    local own, message = check_write(self, key, value, opts, "getSet")
    if own == nil then
        error(message, 2)
    end
    local stored, err = make(self, key, value, ttl, own, "getSet")
    if stored == nil then
        return nil, err
    end
    local slot, sent
    slot, err, sent = send(self, own, "S", key, stored, stored.ttl, nil, "write")
    if slot == nil then
        return nil, err, sent
    end
    local old, fault, source = read_old(self, slot, key, own)
    return old, fault, source
end

---Deletes a key, and gives what stood there, in one step. A failover may lose it.
---@param key string
---@param opts? table timeout, cancelTag
---@return any old
---@return redcache.Error|nil err timeout, cancelled, unavailable, outcomeUnknown (it may have been
---deleted), overload, closed, redis, tooLarge; decode (with decodeErrors = "error"): it is deleted
---@return string|nil source as getSet
function swap.getDelete(self, key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "getDelete", "string", key), 2)
    end
    local own, message = options.read({}, opts, "call", "getDelete")
    if own == nil then
        error(message, 2)
    end
    local slot, err, sent = send(self, own, "D", key, nil, nil, nil, "delete")
    if slot == nil then
        return nil, err, sent
    end
    local old, fault, source = read_old(self, slot, key, own)
    return old, fault, source
end

local function trace(cause)
    return { cause = cause, traceback = debug.traceback(errors.text(cause), 2) }
end

-- Runs the user's function. true, value, ttl | false, error
local function apply(key, fn, value)
    local ok, new, second = xpcall(fn, trace, value, key)
    local failed
    if not ok then
        -- An error inside the handler (no memory, no stack) comes as a plain text.
        failed = type(new) == "table" and new or { cause = new }
    elseif new == nil and second ~= nil then
        failed = { cause = second }
    end
    if failed == nil then
        return true, new, second
    end
    local err = errors.new("loaderFailed", "update", key, errors.text(failed.cause))
    err.cause, err.traceback = failed.cause, failed.traceback
    return false, err
end

---Changes a value by a function, and loses nobody's change: what it returns is stored only if
---nobody has written the key since the value was read. Else the function is called again, with what
---stands there then.
---@param key string
---@param fn fun(value: any, key: string): any, any the new value and, if it is to differ, its ttl;
---nil: all stays as it is; nil and a cause: an error. value is nil where none stands there
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table retries (100: how often fn is called again), grace, tags, cancelTag, timeout
---(of each of its round trips: two a try)
---@return any value what was stored, or stays
---@return redcache.Error|nil err conflict (others were faster in each try), loaderFailed (fn
---gave an error or threw one), decode, cannotWait, and those of add
---@return string|nil unchanged "unchanged": fn has returned nil
---@return string|nil version of the value
function swap.update(self, key, fn, ttl, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "update", "string", key), 2)
    elseif type(fn) ~= "function" then
        error(errors.argument("fn", "update", "function", fn), 2)
    end
    local own, message = options.read({}, opts, "update", "update")
    message = message or options.plain_fault(own, self._settings.plain, "update")
    if message then
        error(message, 2)
    elseif ttl ~= nil and not is_ttl(ttl) then
        return nil, errors.bad_ttl("update", key, ttl, "update")
    elseif not self._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, "update", key)
    end
    local retries = own.retries or RETRIES
    for _ = 0, retries do
        local _
        local tagged, value, err, version
        own.tagged = nil
        tagged, err = begin_tags(self, own, key)
        if not err then
            own.tagged = tagged
            value, err, _, version = swap.get(self, key, own)
        end
        if err then
            return nil, err
        end
        local ok, new, chosen = apply(key, fn, value)
        if not ok then
            return nil, new
        elseif new == nil then
            return value, nil, "unchanged", version
        end
        local life = ttl
        if chosen ~= nil then
            life = chosen
        end
        local stored, fault, _, newer = store(self, version and "C" or "A", key, new, life, own,
            version, "update")
        if fault then
            return nil, fault
        elseif stored then
            return new, nil, nil, newer
        end
    end
    return nil, errors.new("conflict", "update", key,
        ("somebody else was faster in each of %d tries"):format(retries + 1))
end

return swap
