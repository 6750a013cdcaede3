-- redis - Redis' own commands, over the connections of a cache.
--
-- What:   cache:redis() gives the object; commands (redis/batch.lua), pipelines. Keys are the whole
--         names in Redis: nothing is put in front of them. key() tells the name of a cache's key.
-- Memory: an object holds nothing but its options; make as many as you like.
-- Errors: as the cache's calls. Messages name commands, but no arguments: these may be passwords.
-- Not:    values are what Redis keeps, with no codec: entries of the cache have a header.

local batch = require("redcache.redis.batch")
local core_client = require("redcache.core.client")
local errors = require("redcache.errors")
local lent = require("redcache.redis.lent")
local options = require("redcache.options")
local pipeline = require("redcache.redis.pipeline")
local script = require("redcache.redis.script")
local subscription = require("redcache.redis.subscription")
local transaction = require("redcache.redis.transaction")
local usage = require("redcache.usage")

local redis = {}

---@class redcache.Redis
---@field package _cache redcache.Cache
---@field package _own table checked options: timeout, cancelTag, retry
local Redis = {}
Redis.__index = Redis

---The options of one call over those of the object.
---@package
---@return table|nil own
---@return string|nil message for error()
function Redis:_options(opts, place, method)
    if opts == nil then
        return self._own
    end
    local own = {}
    for name, value in pairs(self._own) do
        own[name] = value
    end
    return options.read(own, opts, place, method)
end

---Redis itself: commands, pipelines.
---@param opts? table timeout (seconds; the cache's commandTimeout), cancelTag, retry (false; true:
---every command may be done twice, so what a broken connection leaves open is sent again; commands
---that only read are sent again in any case)
---@return redcache.Redis|nil redis
---@return redcache.Error|nil err closed
function redis.redis(self, opts)
    local own, message = options.read({}, opts, "raw", "redis")
    if own == nil then
        error(message, 2)
    end
    local err = core_client.closed(self._client, "open redis")
    if err then
        return nil, err
    end
    return setmetatable({ _cache = self, _own = own }, Redis)
end

---The whole name in Redis of a key of the cache.
---@param name string
---@return string key
function Redis:key(name)
    if type(name) ~= "string" then
        error(errors.argument("name", "key", "string", name), 2)
    end
    return self._cache._prefix .. name
end

-- What waits goes over a connection of its own.
local function send(self, own, commands)
    local seconds = lent.wait_of(commands)
    if seconds then
        return lent.send(self, own, commands, seconds)
    end
    return batch.send(self, own, commands)
end

---Runs a command. One that waits (BLPOP, XREAD with BLOCK, WAIT ...) goes over a connection of its
---own, and may wait for as long as it says, on top of the timeout. Near copies of the keys that it
---changes are void before it returns.
---@param name string
---@param ... string|number|ffi.cdata* arguments; an int64 is sent with all its digits
---@return any value as redcache/redis/answer.lua tells; nil for null
---@return redcache.Error|nil err redis, refused (what waits, or changes the connection for all who
---share it), tooLarge, timeout, cancelled, unavailable, outcomeUnknown (it may have been done),
---overload, closed, cannotWait
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function Redis:command(name, ...)
    local message = usage.fault(self, "redis", "_own", "command")
    if message then
        error(message, 2)
    end
    local commands = { batch.command("command", name, ...) }
    return batch.only(send(self, self._own, commands))
end

---Sends a message to all who have subscribed to the channel.
---@param channel string
---@param message string|number
---@return integer|true|nil receivers of one node; in a cluster others have theirs
---@return redcache.Error|nil err as command
---@return string|nil sent as command
function Redis:publish(channel, message)
    local command = batch.command("publish", "PUBLISH", channel, message)
    return batch.only(batch.send(self, self._own, { command }))
end

---A script, which Redis runs. It is sent by its SHA; where Redis does not know it, with its source.
---A script is a constant of the program: its source is kept, one of at most 1,024 in a process.
---Begin it with redcache.FENCED where it writes what a lock protects.
---@param source string Lua for Redis, with KEYS and ARGV
---@return redcache.RedisScript script
function Redis:script(source)
    local one = script.new(self, source)
    return one
end

-- subscribe and psubscribe
local function subscribe(self, method, verb, names, opts)
    local own, message = self:_options(opts, "call", method)
    local texts
    if own ~= nil then
        texts, message = batch.texts(method, method == "subscribe" and "channels" or "patterns",
            type(names) == "string" and { names } or names)
    end
    if texts == nil then
        error(message, 3)
    elseif texts[1] == nil then
        error("bad argument '" .. (method == "subscribe" and "channels" or "patterns") .. "' to "
            .. method .. ": one name at least expected", 3)
    end
    return subscription.open(self, own, verb, texts)
end

---Subscribes to channels, over a lent connection (see maxLent).
---@param channels string|string[] their whole names
---@param opts? table timeout (of the subscribing), cancelTag (ends it, and next)
---@return redcache.RedisSubscription|nil subscription next(seconds), close()
---@return redcache.Error|nil err as command
function Redis:subscribe(channels, opts)
    local one, err = subscribe(self, "subscribe", "SUBSCRIBE", channels, opts)
    return one, err
end

---Subscribes to all channels whose names fit a pattern of Redis (*, ?, [ab]).
---@param patterns string|string[]
---@param opts? table as subscribe
---@return redcache.RedisSubscription|nil subscription as subscribe
---@return redcache.Error|nil err as command
function Redis:psubscribe(patterns, opts)
    local one, err = subscribe(self, "psubscribe", "PSUBSCRIBE", patterns, opts)
    return one, err
end

---Sends what fn(p) queues by p:command(name, ...) and p:run(script, keys, args): one write per
---node, nothing in between is waited for. Redis runs the commands of one node in order; others may
---run theirs in between. A script that Redis does not know goes once more, behind them.
---@param fn fun(p: redcache.RedisPipeline) what it throws is thrown on, and nothing is sent
---@param opts? table timeout, cancelTag, retry: as those of cache:redis, for this call
---@return any[]|true|nil answers in order: redcache.NULL for null, an error object at the place of
---a command that has failed
---@return redcache.Error|nil err none was answered: as command
---@return string|nil sent as command
function Redis:pipeline(fn, opts)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "pipeline", "function", fn), 2)
    end
    local own, message = self:_options(opts, "raw", "pipeline")
    if own == nil then
        error(message, 2)
    end
    local commands = pipeline.collect(fn)
    local err = core_client.closed(self._cache._client, batch.action(commands))
    if err then
        return nil, err
    elseif #commands == 0 then
        return {}
    end
    return send(self, own, commands)
end

---Runs fn(tx), which reads by tx:read(name, ...) and queues by tx:command(name, ...) and
---tx:run(script, keys, args); then Redis runs what was queued together, unless one of the watched
---keys was changed since WATCH: then fn runs again. It may run more than once, so it should do
---nothing but that. In a cluster all keys are of one slot.
---@param fn fun(tx: redcache.RedisTransaction): false|nil, any what it throws is thrown on; where
---it returns false, nothing is done
---@param opts? table watch (list of keys; none), retries (10: how often fn runs again), timeout (of
---each trip to Redis, and of the wait for a lent connection), cancelTag
---@return any[]|false|nil answers in order, as pipeline's; {} where nothing was queued; false: fn
---has returned false
---@return redcache.Error|any|nil err conflict (a watched key was changed each time), and those of
---command; overload: all of maxLent connections are lent; with false what fn returned behind it
---@return string|nil sent as command, without watch
function Redis:transaction(fn, opts)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "transaction", "function", fn), 2)
    end
    local own, message = self:_options(opts or {}, "transaction", "transaction")
    local watched
    if own ~= nil then
        watched, message = batch.texts("transaction", "watch", own.watch)
    end
    if watched == nil then
        error(message, 2)
    end
    own.retries, own.retry = own.retries or 10, nil
    return transaction.run(self, own, watched, fn)
end

usage.guard("redis", Redis, "_own", { command = true })

return redis
