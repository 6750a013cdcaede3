-- subscription - the messages of channels, one after the other.
--
-- What:   subscribes over a lent connection; next() tells the next event. Where the connection is
--         lost, or messages came faster than anybody asked for them, one event tells of the gap.
-- Memory: what has come waits in the core, at most 8 MiB; next() takes all of it at once. A
--         subscription that nobody refers to any more gives its connection back.
-- Not:    messages of a gap are gone: Redis keeps none. No sharded channels.

local answer = require("redcache.redis.answer")
local batch = require("redcache.redis.batch")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_lent = require("redcache.core.lent")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local lent = require("redcache.redis.lent")
local usage = require("redcache.usage")

local FORKED, LOST, TIMEOUT = constants.FORKED, constants.LOST, constants.TIMEOUT

local subscription = {}

local ACTION = "subscribe"
-- After so many seconds without a message one looks whether the server is still there.
local QUIET = 5
-- One try to connect again takes no longer: the next one may find another node.
local TRY = 2

---@class redcache.RedisSubscription
---@field package _redis redcache.Redis
---@field package _own table checked options: timeout, cancelTag
---@field package _commands redcache.redis.Command[]
---@field package _connection redcache.redis.Connection|nil nil: it was lost
---@field package _events table[] that were taken, of which those before _at were told
---@field package _at integer
---@field package _heard number when the server was last heard of
---@field package _is_closed boolean
---@field package _listens boolean somebody waits for what comes
local Subscription = {}
Subscription.__index = Subscription

local function action() return ACTION end

local function closed()
    return errors.new("closed", "read the next message", nil, "it is closed")
end

local function with_timeout(own, seconds)
    return { timeout = math.max(seconds, 0.001), cancelTag = own.cancelTag }
end

-- true | nil, err
local function connect(self, seconds)
    local own = with_timeout(self._own, seconds)
    local connection, err = lent.borrow(self._redis, own, nil, ACTION)
    if connection == nil then
        return nil, err
    end
    local answers
    answers, err = connection:send(own, self._commands)
    for _, one in ipairs(answers or {}) do
        err = err or errors.is(one) and one or nil
    end
    if err then
        connection:close()
        return nil, err
    end
    connection:keep()
    self._connection, self._heard = connection, core_clock.now(self._redis._cache._client)
    return true
end

---@param redis redcache.Redis
---@param own table checked options
---@param verb string SUBSCRIBE or PSUBSCRIBE
---@param names string[]
---@return redcache.RedisSubscription|nil
---@return redcache.Error|nil err
function subscription.open(redis, own, verb, names)
    local commands = {}
    for i, name in ipairs(names) do
        commands[i] = batch.command(ACTION, verb, name)
    end
    local self = setmetatable({
        _redis = redis, _own = own, _commands = commands, _events = {}, _at = 1, _heard = 0,
        _is_closed = false, _listens = false,
    }, Subscription)
    local ok, err = connect(self, own.timeout or redis._cache._client.command_timeout)
    if not ok then
        return nil, err
    end
    return self
end

local function lose(self)
    self._connection:close()
    self._connection = nil
end

-- { "message", channel, payload } or { "pmessage", pattern, channel, payload }
local function event_of(message)
    local count = #message
    return { channel = message[count - 1], payload = message[count],
        pattern = count == 4 and message[2] or nil }
end

local function take_events(self, slot)
    local events = answer.all(slot, action)
    for i, message in ipairs(events) do
        events[i] = event_of(message)
    end
    if core_lent.missed(slot) > 0 then
        events[#events + 1] = { gap = true }
    end
    self._events, self._at = events, 1
end

-- A server that vanished says nothing either.
local function look(self)
    local client = self._redis._cache._client
    if core_clock.now(client) - self._heard < QUIET then
        return
    end
    local own = with_timeout(self._own, client.command_timeout)
    if self._connection:send(own, { batch.command(ACTION, "PING") }) then
        self._heard = core_clock.now(client)
    else
        lose(self)
    end
end

-- Waits for what comes over the connection. err: what ends the call
local function listen(self, seconds)
    local cache = self._redis._cache
    local own = with_timeout(self._own, math.min(seconds, QUIET))
    local slot, err = calls.take(cache._client, own, ACTION)
    if slot == nil then
        return err
    end
    self._listens = true
    local status = calls.await(cache, slot, core_lent.listen(self._connection._handle, slot))
    self._listens = false
    if self._is_closed then
        core_slot.give(slot)
        return closed()
    elseif status == 0 then
        take_events(self, slot)
        core_slot.give(slot)
        self._heard = core_clock.now(cache._client)
        return nil
    end
    err = calls.fail(slot, status, ACTION)
    if status == LOST or status == FORKED then -- a child of fork() has none of its parent's
        lose(self)
    elseif status ~= TIMEOUT then
        return err
    else
        look(self)
    end
end

-- Connects again, and has the gap told. err: what ends the call
local function reconnect(self, left)
    local ok, err = connect(self, math.min(left, TRY))
    if ok then
        self._events, self._at = { { gap = true } }, 1
    elseif left <= TRY or (err.code ~= "timeout" and err.code ~= "unavailable") then
        return err
    end
end

---The next event.
---@param seconds? number how long to wait for it, 0 and more; nil: without end
---@return table|nil event channel, payload, and pattern (of psubscribe); or { gap = true }: the
---connection was lost and is there again, or more had come than there was room for, so there may be
---messages that nobody will see
---@return redcache.Error|nil err timeout (there was none in this time), closed, cancelled,
---cannotWait; unavailable and others where it cannot connect again: call again later
function Subscription:next(seconds)
    if seconds ~= nil and not (type(seconds) == "number" and seconds >= 0) then
        error(errors.argument("seconds", "next", "number from 0 on or nil", seconds), 2)
    end
    local cache = self._redis._cache
    local client = cache._client
    local deadline = core_clock.now(client) + (seconds or math.huge)
    local is_first = true
    while true do
        local event = self._events[self._at]
        local left = deadline - core_clock.now(client)
        if event ~= nil then
            self._events[self._at] = nil
            self._at = self._at + 1
            return event
        elseif self._is_closed or client.handle == nil then
            return nil, closed()
        elseif not cache._scheduler.can_wait() then
            return nil, core_slot.failure(nil, constants.NOT_WAITED, "read the next message")
        elseif left <= 0 and not is_first then
            return nil, errors.new("timeout", "read the next message", nil, "none has come")
        end
        is_first = false
        local err
        if self._connection then
            err = listen(self, left)
        else
            err = reconnect(self, left)
        end
        if err then
            return nil, err
        end
    end
end

---Ends the subscription, and a caller that waits in next(). What was not told is gone.
---@return true
function Subscription:close()
    self._events, self._at, self._is_closed = {}, 1, true
    if self._connection then
        lose(self)
    end
    local cache = self._redis._cache
    if self._listens and cache._scheduler.tell then
        cache._scheduler.tell(cache._client)
    end
    return true
end

usage.guard("subscription", Subscription, "_events")

return subscription
