-- request - what one request has read, so that it asks once and sees one value.
--
-- What:   cache:request(): get, remember and the others, over a memo that lives in ngx.ctx.
-- Memory: the memo is gone with its request. It is not bounded: nor is what a request reads.
-- Not:    no sharing between requests (near.lua does that), no waiting of its own: light threads of
--         one request that miss together share one load, or one GET that is to be kept near,
--         because the core joins them, as it joins those of different requests.

local errors = require("redcache.errors")
local many = require("redcache.many")
local options = require("redcache.options")
local usage = require("redcache.usage")

local is_ttl, read_options = options.is_ttl, options.read
local ngx = rawget(_G, "ngx")

local request = {}

-- Where the memos of a request stand in ngx.ctx, by cache.
local FIELD = "_redcache"
-- What a memo holds in place of a remembered nil, and of a miss.
local NOTHING, ABSENT = {}, {}
-- Errors of writes that were refused before anything was sent: the old value stands.
local REFUSED = { badTtl = true, encode = true, tooLarge = true, recursive = true,
    cannotWait = true }

---What a request has read of one cache. Its calls take and return what those of the cache do; what
---this request has read or written before comes from the memo, with source "request". Values are
---shared by their readers, as those from "l0" are; with the option copy each gets its own.
---
---Errors are not kept: the next call asks again. A miss is: get says nil without a source again,
---while remember loads. What is written past this object - by cache:set, by others, by a cache
---object of the same namespace - or voided by a tag is not seen before the next request;
---`fresh = true` goes past the memo and renews it. near and maxStale are about the first read of a
---key.
---@class redcache.Request
---@field package _cache redcache.Cache
---@field package _values table<string, any> NOTHING, ABSENT or the value
---@field package _flags table<string, string> the fourth result of the remember that made it
---@field package _writes table<string, integer> how often this request has written the key
local Request = {}
Request.__index = Request

local function new(cache)
    return setmetatable({ _cache = cache, _values = {}, _flags = {}, _writes = {} }, Request)
end

local function copy_of(value, seen)
    if type(value) ~= "table" then
        return value
    elseif seen[value] then
        return seen[value]
    end
    local copy = setmetatable({}, getmetatable(value))
    seen[value] = copy
    for key, inner in next, value do
        copy[copy_of(key, seen)] = copy_of(inner, seen)
    end
    return copy
end

local function wants_copy(self, opts)
    if opts ~= nil and opts.copy ~= nil then
        return opts.copy
    end
    return self._cache._copy
end

-- The memo's value for a caller: NOTHING becomes nil.
local function hand_out(self, value, opts)
    if value == NOTHING then
        return nil
    elseif type(value) == "table" and wants_copy(self, opts) then
        return copy_of(value, {})
    end
    return value
end

-- Puts down what was read or written. A table that its caller may change is put down as a copy.
local function keep(self, key, value, flag, opts)
    if value == nil then
        value = NOTHING
    elseif type(value) == "table" and value ~= ABSENT and wants_copy(self, opts) then
        value = copy_of(value, {})
    end
    self._values[key], self._flags[key] = value, flag
end

local function forget(self, key)
    self._values[key], self._flags[key] = nil, nil
end

local function note_write(self, key)
    self._writes[key] = (self._writes[key] or 0) + 1
end

-- What the memo has for a read: found, value. A closed cache says so, whatever was read before.
local function find(self, key, opts)
    if opts ~= nil and opts.fresh or self._cache._client.handle == nil then
        return false
    end
    local value = self._values[key]
    if value == nil or value == ABSENT then
        return false
    end
    return true, hand_out(self, value, opts)
end

-- Whether the memo knows that nothing stands there.
local function is_absent(self, key, opts)
    return self._values[key] == ABSENT and not (opts and opts.fresh)
        and self._cache._client.handle ~= nil
end

-- Ends a read that began when the key had been written `writes` times. Two light threads may have
-- asked at once: what came first is what all of this request see, and what was written meanwhile is
-- newer than what was read.
local function finish(self, key, writes, opts, value, err, source, flag, why)
    if err ~= nil then
        return nil, err, source, flag
    elseif self._writes[key] ~= writes then
        return value, nil, source, flag, why
    end
    local found, standing = find(self, key, opts)
    if found then
        return standing, nil, "request", self._flags[key]
    end
    keep(self, key, source == nil and ABSENT or value, flag, opts)
    return value, nil, source, flag, why
end

-- Checks a key and the options of a call, at the line of the user.
local function door(key, opts, place, method)
    if type(key) ~= "string" then
        error(errors.argument("key", method, "string", key), 3)
    elseif opts ~= nil then
        local ok, message = read_options({}, opts, place, method)
        if ok == nil then
            error(message, 3)
        end
    end
end

local function check_function(fn, method)
    if type(fn) ~= "function" then
        error(errors.argument("fn", method, "function", fn), 3)
    end
end

---As Cache:get.
---@param key string
---@param opts? table timeout, cancelTag, near, maxStale, fresh (true: asks again), copy
---@return any value
---@return redcache.Error|nil err as Cache:get
---@return string|nil source "request": this request has read or written it before; else as
---Cache:get; nil: a miss, or an error
function Request:get(key, opts)
    door(key, opts, "read", "get")
    local found, value = find(self, key, opts)
    if found then
        return value, nil, "request"
    elseif is_absent(self, key, opts) then
        return nil
    end
    local writes = self._writes[key]
    local got, err, source = finish(self, key, writes, opts, self._cache:get(key, opts))
    return got, err, source -- flags are remember's
end

-- remember and rememberForever.
local function load(self, key, opts, method, ...)
    local found, value = find(self, key, opts)
    if found then
        return value, nil, "request", self._flags[key]
    end
    local writes = self._writes[key]
    return finish(self, key, writes, opts, self._cache[method](self._cache, key, ...))
end

---As Cache:remember: `fn` runs at most once in this request for a key that it has a value for, even
---where that cannot be stored.
---@param key string
---@param ttl number|redcache.Forever|nil seconds above 0; nil: the cache's ttl
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as Cache:remember
---@return any value
---@return redcache.Error|nil err as Cache:remember
---@return string|nil source "request", or as Cache:remember
---@return string|nil flag of the call that made the value
---@return string|nil why as Cache:remember
function Request:remember(key, ttl, fn, opts)
    door(key, opts, "load", "remember")
    check_function(fn, "remember")
    if ttl ~= nil and not is_ttl(ttl) then
        return nil, errors.bad_ttl("load", key, ttl, "remember")
    end
    return load(self, key, opts, "remember", ttl, fn, opts)
end

---As Cache:rememberForever.
---@param key string
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as Cache:remember
---@return any value
---@return redcache.Error|nil err
---@return string|nil source "request", or as Cache:remember
---@return string|nil flag
function Request:rememberForever(key, fn, opts)
    door(key, opts, "load", "rememberForever")
    check_function(fn, "rememberForever")
    return load(self, key, opts, "rememberForever", fn, opts)
end

-- Ends a write of `value`. Where nobody knows how it ended, the next read asks.
local function finish_write(self, key, value, opts, done, err, ...)
    note_write(self, key)
    if err == nil then
        keep(self, key, value, nil, opts)
    elseif not REFUSED[err.code] then
        forget(self, key)
    end
    return done, err, ...
end

---As Cache:set. This request reads the value itself back, not what the codec makes of it.
---@param key string
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace
---@return true|nil stored
---@return redcache.Error|nil err as Cache:set
---@return string|nil sent as Cache:set
function Request:set(key, value, ttl, opts)
    door(key, opts, "write", "set")
    if value == nil then
        error(errors.argument("value", "set", "any value but nil", value), 2)
    end
    note_write(self, key)
    return finish_write(self, key, value, nil, self._cache:set(key, value, ttl, opts))
end

---As Cache:delete. Behind a soft delete the next read asks.
---@param key string
---@param opts? table soft, timeout, cancelTag
---@return boolean|nil deleted
---@return redcache.Error|nil err as Cache:delete
---@return string|nil sent as Cache:delete
function Request:delete(key, opts)
    door(key, opts, "delete", "delete")
    note_write(self, key)
    if opts and opts.soft then
        forget(self, key)
        return self._cache:delete(key, opts)
    end
    return finish_write(self, key, ABSENT, nil, self._cache:delete(key, opts))
end

---As Cache:put. Where `fn` chooses a ttl of 0 the old value stays, and the next read asks for it.
---@param key string
---@param ttl number|redcache.Forever|nil seconds above 0; nil: the cache's ttl
---@param fn fun(key: string, ctx: redcache.Context): any, any, any
---@param opts? table as Cache:put
---@return any value
---@return redcache.Error|nil err as Cache:put
function Request:put(key, ttl, fn, opts)
    door(key, opts, "put", "put")
    check_function(fn, "put")
    local settings, life = self._cache._settings, nil
    local function watched(...)
        local value, second, third = fn(...)
        if value ~= nil then
            life = second
        else
            life = settings.plain and 0 or third or opts and opts.negativeTtl
                or settings.negativeTtl
        end
        return value, second, third
    end
    note_write(self, key)
    local value, err = self._cache:put(key, ttl, watched, opts)
    finish_write(self, key, value, nil, value, err)
    if life == 0 then
        forget(self, key)
    end
    return value, err
end

-- What the memo has of a list of keys goes into values and negatives; gives the others.
local function read_memo(self, keys, opts, values, negatives)
    local rest = {}
    for i = 1, #keys do
        local key = keys[i]
        local found, value = find(self, key, opts)
        if found and value == nil then
            negatives[key] = true
        elseif found then
            values[key] = value
        elseif not is_absent(self, key, opts) then
            rest[#rest + 1] = key
        end
    end
    return rest
end

-- getMulti with values by key.
local function read_many(self, keys, opts)
    local values, negatives, writes = {}, {}, {}
    local rest = read_memo(self, keys, opts, values, negatives)
    if #rest == 0 then
        return values, {}, negatives
    end
    for _, key in ipairs(rest) do
        writes[key] = self._writes[key]
    end
    local read, failed, nothing = self._cache:getMulti(rest, opts)
    for _, key in ipairs(rest) do
        local source = (read[key] ~= nil or nothing[key]) and "redis" or nil
        local value, _, from = finish(self, key, writes[key], opts, read[key], failed[key], source)
        if value ~= nil then
            values[key] = value
        elseif from ~= nil then
            negatives[key] = true
        end
    end
    return values, failed, negatives
end

---As Cache:getMulti: asks only for what this request has not read yet.
---@param keys string[]
---@param opts? table as Cache:getMulti
---@return table<string, any> values by key; a miss has none; with list = true by position, as
---Cache:getMulti
---@return table<string, redcache.Error> errors by key; empty when all went well
---@return table<string, boolean> negatives true for keys that are remembered as "no such thing"
function Request:getMulti(keys, opts)
    local own, message = read_options({}, opts, "readMany", "getMulti")
    local is_list, into = many.form(opts)
    message = message or many.into_fault(into, keys, "getMulti")
    if type(keys) ~= "table" then
        error(errors.argument("keys", "getMulti", "list of strings", keys), 2)
    elseif message then
        error(message, 2)
    end
    for i = 1, #keys do
        if type(keys[i]) ~= "string" then
            error("bad argument 'keys' to getMulti: list of strings expected, got "
                .. type(keys[i]) .. " at " .. i, 2)
        end
    end
    if not is_list and into == nil then
        return read_many(self, keys, opts)
    end
    local form = many.answer(keys, is_list, into)
    own.list, own.into = nil, nil
    local values, failed, negatives = read_many(self, keys, own)
    if is_list then
        many.spread(form, keys, values)
    else
        for key, value in pairs(values) do
            form[key] = value
        end
    end
    return form, failed, negatives
end

usage.guard("request", Request, "_cache")

-- The memos ---------------------------------------------------------------------------------------

local function read_ctx()
    return ngx.ctx
end

---What this request has read of this cache: the same object for the whole of the request, in all
---its phases. A subrequest, a timer, and what ngx.exec begins have a ngx.ctx of their own, and so
---a memo of their own. Where there is no request - no nginx, or init_by_lua - each call returns an
---empty memo, and the caller decides how long it lives.
---@return redcache.Request
function request.request(self)
    local ok, ctx
    if ngx then
        ok, ctx = pcall(read_ctx)
    end
    if not ok or ctx == nil then
        return new(self)
    end
    local memos = ctx[FIELD]
    if memos == nil then
        memos = {}
        ctx[FIELD] = memos
    end
    local memo = memos[self]
    if memo == nil then
        memo = new(self)
        memos[self] = memo
    end
    return memo
end

return request
