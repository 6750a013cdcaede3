-- loader - many callers that each want one key, answered by few runs of a function: cache:loader.
--
-- What:   the first caller that asks opens a batch and waits for maxWait; those that ask meanwhile
--         join it. Then it asks for all keys by rememberMulti and wakes the others. A caller that
--         cannot let others run, or is inside of the loader's own function, asks for its key alone.
-- Memory: a batch is that of its callers; the loader knows the one that is open.
-- Not:    no second way to load: leases, waits and errors are rememberMulti's.

local calls = require("redcache.calls")
local errors = require("redcache.errors")
local load_many = require("redcache.load_many")
local near = require("redcache.near")
local options = require("redcache.options")
local refresh_many = require("redcache.refresh_many")
local remember = require("redcache.remember")
local remember_many = require("redcache.remember_many")
local running = require("redcache.running")
local usage = require("redcache.usage")

local loader = {}

-- A caller that is not woken looks after that long, in seconds.
local PATIENCE = 1

---@class redcache.Loader
---@field private _cache redcache.Cache
---@field private _open table|nil the batch that can be joined
---@field private _inside table weak: coroutines that run the function, and how deep
local Loader = {}
Loader.__index = Loader

-- The light thread that leads the batch is gone: the others see to their keys themselves.
local function drop(batch)
    local self = batch.loader
    batch.is_over = true
    if self._open == batch then
        self._open = nil
    end
    if batch.has_others then
        calls.wake(self._cache, batch.tag)
    end
end

local function ask(self, keys)
    local values, failed, _, flags =
        remember_many.rememberMulti(self._cache, keys, self._ttl, self._fn, self._opts)
    return values, failed, flags
end

local function answer(values, failed, flags, key)
    return values[key], failed[key], flags[key]
end

local function get_alone(self, key)
    local values, failed, flags = ask(self, { key })
    return answer(values, failed, flags, key)
end

-- Leads a batch: waits until others have joined it, and asks for all of them.
local function lead(batch)
    local self = batch.loader
    calls.pause(self._cache, { cancelTag = batch.lead_tag }, "load", self._max_wait)
    if self._open == batch then
        self._open = nil
    end
    batch.values, batch.failed, batch.flags = ask(self, batch.keys)
end

local function lead_guarded(self, batch)
    local cache = self._cache
    local is_guarded = calls.guard(cache, batch, drop)
    local ok, err = pcall(lead, batch)
    if is_guarded then
        cache._scheduler.unguard(cache._client, batch)
    end
    drop(batch)
    if not ok then
        error(err, 0)
    end
end

-- Joins the open batch, or opens one.
local function join(self, key)
    local batch = self._open
    local leads = batch == nil
    if leads then
        batch = { loader = self, keys = {}, has = {}, tag = calls.own_tag(),
            lead_tag = calls.own_tag() }
        self._open = batch
    end
    if not batch.has[key] then
        batch.has[key] = true
        batch.keys[#batch.keys + 1] = key
    end
    batch.has_others = batch.has_others or not leads
    if #batch.keys >= self._max_batch then
        self._open = nil
        if not leads then
            calls.wake(self._cache, batch.lead_tag)
        end
    end
    return batch, leads
end

-- Waits for the end of a batch that another caller leads.
local function wait_for(self, batch)
    local own = { cancelTag = batch.tag }
    while not batch.is_over do
        local err = calls.pause(self._cache, own, "load", PATIENCE)
        if err and err.code ~= "cancelled" then
            return err
        end
    end
end

-- A near value that is to be loaded again: value, err, flag.
local function serve(self, key, value, source, due, load_time)
    local work = load_many.new(self._cache, self._settings, self._ttl, self._fn, "load", "loader")
    load_many.set(work, key, value, source == "stale" and source or nil)
    work.dues, work.load_times = { [key] = due }, { [key] = load_time }
    refresh_many.serve(work)
    return answer(work.values, work.failed, work.flags, key)
end

---The value of a key, as remember has it, loaded together with the keys that others ask for.
---@param key string
---@return any value nil without an error: there is no such thing. One table for all who asked: as
---those of the near cache it is read only
---@return redcache.Error|nil err as Cache:remember
---@return string|nil flag "stale", "unstored", "degraded" as Cache:remember
function Loader:get(key)
    if type(key) ~= "string" then
        error(errors.argument("key", "get", "string", key), 2)
    end
    local cache = self._cache
    local opts = self._opts
    if cache._view ~= nil and not (opts and (opts.fresh or opts.near == false)) then
        local source, value, due, load_time = near.find(cache, key, self._settings, nil,
            self._settings)
        if due ~= nil then
            return serve(self, key, value, source, due, load_time)
        elseif source ~= nil then
            return value
        end
    end
    local shares = cache._scheduler.shares
    if cache._client.handle == nil or not (shares and shares())
        or self._inside[running() or self] then
        return get_alone(self, key)
    end
    local batch, leads = join(self, key)
    if leads then
        lead_guarded(self, batch)
    else
        local err = wait_for(self, batch)
        if err then
            return nil, errors.new(err.code, "load", key, "the wait for others' keys has ended")
        end
    end
    if batch.values == nil then -- its leader is gone
        return self:get(key)
    end
    return answer(batch.values, batch.failed, batch.flags, key)
end

usage.guard("loader", Loader, "_cache")

-- The user's function, with a mark for its coroutine.
local function inside(self, fn)
    local function leave(co, ok, ...)
        local depth = self._inside[co] - 1
        self._inside[co] = depth > 0 and depth or nil
        if not ok then
            error((...), 0)
        end
        return ...
    end
    return function(keys, ctx)
        local co = running() or self
        self._inside[co] = (self._inside[co] or 0) + 1
        return leave(co, pcall(fn, keys, ctx))
    end
end

---An object whose get(key), called by many coroutines or light threads, is answered by few runs of
---fn(keys): those that ask within maxWait share one. Each key is loaded under a lease of its own,
---once for everybody. Under the scheduler "blocking" each get is a batch of one.
---@param fn fun(keys: string[], ctx: table): table<string, any>|nil, any, table|nil as that of
---rememberMulti
---@param opts? table maxBatch (100 keys), maxWait (0.001 seconds that the first caller waits for
---others), ttl (the cache's), and those of Cache:rememberMulti
---@return redcache.Loader
function loader.loader(self, fn, opts)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "loader", "function", fn), 2)
    end
    local own, message = options.read({}, opts, "loader", "loader")
    message = message or options.plain_fault(own, self._settings.plain, "loader")
    if message then
        error(message, 2)
    end
    local made = setmetatable({
        _cache = self, _ttl = own.ttl, _max_batch = own.maxBatch or 100,
        _max_wait = own.maxWait or 0.001, _inside = setmetatable({}, { __mode = "k" }),
    }, Loader)
    own.ttl, own.maxBatch, own.maxWait = nil, nil, nil
    made._opts = next(own) ~= nil and own or nil
    made._settings = self._settings
    if made._opts then
        made._settings, message = remember.settings(self, own, "loader", "loader")
        if message then
            error(message, 2)
        end
    end
    made._fn = inside(made, fn)
    return made
end

return loader
