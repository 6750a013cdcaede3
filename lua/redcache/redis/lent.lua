-- lent - a connection to one node for one caller alone: for commands that wait, and for WATCH.
--
-- What:   borrow() waits for one within the call's timeout; at most the option maxLent are lent by
--         a client. It is given back by close(), or where the borrower's light thread is gone.
-- Errors: of borrow(): overload (all are lent), cannotWait, and those of any call. Where the
--         connection breaks, what was sent over it ends with outcomeUnknown, what was not with
--         unavailable; nothing is sent again.

local batch = require("redcache.redis.batch")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_lent = require("redcache.core.lent")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local verbs = require("redcache.redis.verbs")

local lent = {}

-- How often what a node says about its slots is followed, as often as the core does.
local HOPS = 5

---@class redcache.redis.Connection
---@field package _redis redcache.Redis
---@field package _handle ffi.cdata*|nil nil: it was given back
local Connection = {}
Connection.__index = Connection

-- It waits, or its light thread is gone.
local function free(connection)
    local handle = connection._handle
    connection._handle = nil
    if handle ~= nil then
        core_lent.free(handle)
    end
end

---Borrows a connection to the node of a key.
---@param redis redcache.Redis
---@param own table checked options: timeout, cancelTag
---@param key string|nil nil: to any node
---@param action string for the error
---@return redcache.redis.Connection|nil connection stays on the borrower's stack until close()
---@return redcache.Error|nil err
function lent.borrow(redis, own, key, action)
    local cache = redis._cache
    local client, scheduler = cache._client, cache._scheduler
    local slot
    local err = core_client.closed(client, action)
    if err then
        return nil, err
    elseif not scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, action)
    end
    slot, err = calls.take(client, own, action)
    if slot == nil then
        return nil, err
    end
    local handle, status = core_lent.new(client)
    if handle == nil then
        return nil, calls.fail(slot, status, action)
    end
    local connection = setmetatable({ _redis = redis, _handle = handle }, Connection)
    status = core_lent.borrow(handle, slot, key)
    if status == 0 then
        scheduler.guard(client, connection, free)
        status = cache._wait(slot)
    end
    if status ~= 0 then
        connection:close()
        return nil, calls.fail(slot, status, action)
    end
    core_slot.give(slot)
    return connection
end

---Gives it back: reset for the next one, or closed where its state is not certain.
function Connection:close()
    self:keep()
    free(self)
end

---It stays when its borrower's light thread ends: the garbage collector gives it back.
function Connection:keep()
    local cache = self._redis._cache
    if cache._client.port then
        cache._scheduler.unguard(cache._client, self)
    end
end

---Sends commands over it, and waits for their answers.
---@param own table checked options
---@param commands redcache.redis.Command[]
---@return any[]|nil answers
---@return redcache.Error|nil err
function Connection:send(own, commands)
    if self._handle == nil then
        return nil, errors.new("unavailable", batch.action(commands), nil,
            "the connection was given back")
    end
    local answers, err = batch.send(self._redis, own, commands, self._handle)
    return answers, err
end

---Whether an error says that the key is at another node of the cluster by now.
---@param err any
---@return boolean
function lent.is_elsewhere(err)
    local text = type(err) == "table" and err.code == "redis" and err.message or ""
    return string.find(text, ": MOVED", 1, true) ~= nil
        or string.find(text, ": ASK", 1, true) ~= nil
        or string.find(text, ": TRYAGAIN", 1, true) ~= nil
end

---Has the core find out where the key is: it follows what the nodes say.
---@param redis redcache.Redis
---@param own table checked options
---@param key string
function lent.locate(redis, own, key)
    batch.send(redis, own, { batch.command("locate", "EXISTS", key) })
end

---How long commands may wait in all; nil: none of them waits.
---@param commands redcache.redis.Command[]
---@return number|nil seconds
function lent.wait_of(commands)
    local sum
    for _, command in ipairs(commands) do
        local seconds = verbs.wait(command)
        sum = seconds and (sum or 0) + seconds or sum
    end
    return sum
end

local function key_of(commands)
    for _, command in ipairs(commands) do
        local key = verbs.key(command)
        if key ~= nil then
            return key
        end
    end
end

local function send_once(redis, own, commands, key, seconds)
    local action = batch.action(commands)
    local connection, err = lent.borrow(redis, own, key, action)
    if connection == nil then
        return nil, err
    end
    local longer = setmetatable({
        timeout = seconds + (own.timeout or redis._cache._client.command_timeout),
    }, { __index = own })
    local answers
    answers, err = connection:send(longer, commands)
    connection:close()
    return answers, err
end

---Sends commands of which some wait: over a connection of their own, so that they hold up nobody.
---@param redis redcache.Redis
---@param own table checked options; the timeout is what comes on top of the commands' own waits
---@param commands redcache.redis.Command[]
---@param seconds number that they may wait
---@return any[]|nil answers
---@return redcache.Error|nil err
function lent.send(redis, own, commands, seconds)
    local key = key_of(commands)
    if key and #commands > 1 then
        lent.locate(redis, own, key) -- several are not sent again where they were at a wrong node
    end
    for _ = 1, HOPS do
        local answers, err = send_once(redis, own, commands, key, seconds)
        if answers == nil or #answers > 1 or not lent.is_elsewhere(answers[1]) then
            return answers, err
        end
        lent.locate(redis, own, key)
    end
    return send_once(redis, own, commands, key, seconds)
end

return lent
