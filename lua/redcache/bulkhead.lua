-- bulkhead - how many calls of one namespace may ask Redis at once, and how often: the options
-- maxInFlight, maxRate and maxWaiting.
--
-- What:   a call that asks Redis takes a place before anything is sent, and has it until its first
--         question is answered: loaders run without one, and what ends a call that has begun is
--         sent anyway. Where there is none the call waits in a queue, or ends with `overload`.
-- Memory: one bulkhead for each namespace of a client that was given limits; it stays until the
--         client is closed. A place belongs to a slot and goes with it: answered, given back,
--         dropped with its light thread. One whose slot nobody gives back (a coroutine that was
--         left for the collector) is free once its call cannot go on any more.
-- Errors: overload. While it waits in the queue: cancelled, closed.
-- Not:    no place for what is near, nor for locks, deletes that are sent again, renewals.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")

local CANCELLED, NOT_WAITED = constants.CANCELLED, constants.NOT_WAITED
local OVERLOAD = constants.OVERLOAD
local now_of = core_clock.now

-- Seconds after which a caller in the queue looks again: places that come free outside of a call
-- wake nobody.
local SLICE = 0.05
-- Seconds beyond twice its time-outs after which a call cannot go on any more.
local SLACK = 1
local WAITING, INSIDE, GONE = 1, 2, 3

local bulkhead = {}

---What one call has of a bulkhead.
---@class redcache.Place
---@field of redcache.Bulkhead
---@field state integer
---@field ends number when it is nobody's any more
---@field tag integer|nil in the queue: of its pause; user_tag: of its call
local Place = {}
Place.__index = Place

---@class redcache.Bulkhead
local Bulkhead = {}
Bulkhead.__index = Bulkhead

---The slot's call no longer needs it. Wakes nobody: it may be called within a turn.
function Place:leave()
    local of = self.of
    if self.state == INSIDE then
        of.in_flight = of.in_flight - 1
        of.inside[self] = nil
    elseif self.state == WAITING then
        of.waiting = of.waiting - 1
    end
    self.state = GONE
end

-- Frees the places of calls that are over though nobody has said so.
local function sweep(self, now)
    local earliest = math.huge
    for place in pairs(self.inside) do
        if place.ends <= now then
            place:leave()
        elseif place.ends < earliest then
            earliest = place.ends
        end
    end
    self.earliest = earliest
end

local function is_open(self, now)
    if self.in_flight >= self.max and now >= self.earliest then
        sweep(self, now)
    end
    if self.rate then
        -- A clock that is set back adds nothing.
        self.tokens = math.min(self.burst, self.tokens + math.max(now - self.at, 0) * self.rate)
        self.at = now
        if self.tokens < 1 then
            return false
        end
    end
    return self.in_flight < self.max
end

local function occupy(self, place, now, patience)
    self.in_flight = self.in_flight + 1
    if self.rate then
        self.tokens = self.tokens - 1
    end
    place.state, place.ends = INSIDE, now + 2 * patience + SLACK
    self.earliest = math.min(self.earliest, place.ends)
    self.inside[place] = true
end

-- The first that waits, and is there still. nil: nobody
local function head_of(self, now)
    local queue = self.queue
    while self.first <= self.last do
        local place = queue[self.first]
        if place.state == WAITING and place.ends <= now then
            place:leave() -- its coroutine is gone
        end
        if place.state == WAITING then
            return place
        end
        queue[self.first] = nil
        self.first = self.first + 1
    end
end

-- Gives places to those that wait, in order. A caller's: wakes them.
local function admit(self, cache, now, but)
    local client, has_woken = cache._client, false
    local place = head_of(self, now)
    while place and is_open(self, now) do
        self.waiting = self.waiting - 1
        occupy(self, place, now, place.patience)
        if place ~= but and client.handle ~= nil then
            core_client.cancel(client, place.tag)
            has_woken = true
        end
        place = head_of(self, now)
    end
    if has_woken and cache._scheduler.tell then
        cache._scheduler.tell(client)
    end
end

-- Seconds that a caller in the queue sleeps for.
local function pause_of(self, place, now)
    if self.in_flight >= self.max or head_of(self, now) ~= place then
        return SLICE
    end
    return math.max((1 - self.tokens) / self.rate, 0.001)
end

-- Sleeps in the queue. status: 0: there is a place
local function sleep(self, cache, slot, place, deadline)
    local client, scheduler = cache._client, cache._scheduler
    local now = now_of(client)
    while now < deadline do
        core_slot.customize(slot, nil, place.tag)
        local status = core_command.pause(slot,
            math.min(deadline - now, pause_of(self, place, now)))
        if status == 0 then
            status = scheduler.wait(slot)
        end
        if status ~= 0 and status ~= CANCELLED then
            return status
        end
        now = now_of(client)
        admit(self, cache, now, place)
        if place.is_cancelled then
            return CANCELLED
        elseif place.state == INSIDE then
            return 0
        end
    end
    return OVERLOAD
end

-- Whether somebody could give this caller a place while it waits.
local function may_wait(self, cache, now)
    local scheduler = cache._scheduler
    if self.waiting >= self.most_waiting or not scheduler.can_wait() then
        return false
    end
    local shares = scheduler.shares
    return self.in_flight < self.max and head_of(self, now) == nil
        or shares ~= nil and shares() or false
end

-- nil, err, status, cause
local function refuse(self, cache, slot, action, key)
    local counters = cache._counters
    counters.bulkheadRefused = counters.bulkheadRefused + 1
    local cause = "too many calls of this namespace: "
        .. (self.in_flight >= self.max and "maxInFlight" or "maxRate") .. " is reached"
    core_slot.give(slot)
    return nil, errors.new("overload", action, key, cause), OVERLOAD, cause
end

-- Waits in the queue. slot | nil, err, status, cause
local function wait_for(self, cache, slot, place, own, action, key)
    local client = cache._client
    local deadline = core_clock.deadline(client, own and own.timeout)
    place.state, place.ends, place.tag = WAITING, deadline + SLACK, calls.own_tag()
    place.user_tag = own and own.cancelTag
    self.last = self.last + 1
    self.queue[self.last] = place
    self.waiting = self.waiting + 1
    cache._counters.bulkheadWaited = cache._counters.bulkheadWaited + 1
    local status = sleep(self, cache, slot, place, deadline)
    if status == 0 then
        -- What waited has used up some of the call's time. Of a load it is that of one question.
        local bounds = own == nil or own.timeout or own.waitTimeout == nil
        core_slot.customize(slot, bounds and core_clock.left(client, deadline) or nil,
            own and own.cancelTag)
        return slot
    end
    if status == OVERLOAD or status == NOT_WAITED then
        return refuse(self, cache, slot, action, key)
    end
    core_slot.give(slot)
    return nil, core_slot.error_of(status, nil, action, key), status
end

---calls.enter of a cache with limits.
---@return redcache.Slot|nil slot
---@return redcache.Error|nil err
---@return integer|nil status why not
---@return string|nil cause of that status
function Bulkhead:enter(cache, own, action, key)
    local client = cache._client
    local slot, err, status = calls.take(client, own, action, key)
    if slot == nil then
        return nil, err, status
    end
    local now = now_of(client)
    local patience = math.max(own and own.timeout or client.command_timeout,
        own and own.waitTimeout or 0)
    local place = setmetatable({ of = self, state = GONE, patience = patience }, Place)
    slot.place, slot.custom = place, true
    if head_of(self, now) == nil and is_open(self, now) then
        occupy(self, place, now, patience)
        return slot
    elseif may_wait(self, cache, now) then
        return wait_for(self, cache, slot, place, own, action, key)
    end
    return refuse(self, cache, slot, action, key)
end

-- The wait of a cache with limits: the first answer frees the call's place.
local function waiter(cache, wait)
    return function(slot)
        local status, place = wait(slot), slot.place
        if place and status ~= NOT_WAITED then
            slot.place = nil
            place:leave()
            local of = place.of
            if of.waiting > 0 then
                admit(of, cache, now_of(cache._client))
            end
        end
        return status
    end
end

---Gives a cache the bulkhead of its namespace, where its settings have limits. Those that were
---given last count for all caches of that namespace and client.
---@param cache redcache.Cache
---@param prefix string
---@param settings table
function bulkhead.attach(cache, prefix, settings)
    if not (settings.maxInFlight or settings.maxRate) then
        return
    end
    local client = cache._client
    client.bulkheads = client.bulkheads or {}
    local self = client.bulkheads[prefix]
    local burst = math.max(settings.maxRate or 0, 1)
    if self == nil then
        self = setmetatable({ in_flight = 0, inside = {}, earliest = math.huge, queue = {},
            first = 1, last = 0, waiting = 0, tokens = burst, at = now_of(client) }, Bulkhead)
        client.bulkheads[prefix] = self
    end
    self.max, self.rate = settings.maxInFlight or math.huge, settings.maxRate
    self.burst, self.most_waiting = burst, settings.maxWaiting
    cache._bulkhead, cache._wait = self, waiter(cache, cache._wait)
end

---Ends what waits in a queue and carries the tag of a call.
---@param client redcache.Client
---@param tag integer
---@return integer count
function bulkhead.cancel(client, tag)
    local count = 0
    for _, self in pairs(client.bulkheads or {}) do
        for i = self.first, self.last do
            local place = self.queue[i]
            if place.state == WAITING and place.user_tag == tag and not place.is_cancelled then
                place.is_cancelled = true
                core_client.cancel(client, place.tag)
                count = count + 1
            end
        end
    end
    return count
end

---How a cache's bulkhead is now: zeros where it has none.
---@param cache redcache.Cache
---@param stats table<string, integer>
function bulkhead.stats(cache, stats)
    local self = cache._bulkhead
    if self then
        local now = now_of(cache._client)
        sweep(self, now)
        head_of(self, now)
    end
    stats.bulkheadInFlight = self and self.in_flight or 0
    stats.bulkheadWaiting = self and self.waiting or 0
end

return bulkhead
