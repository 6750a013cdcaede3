-- warm - fills a cache from an iterator: cache:warm.
--
-- What:   takes so many pairs at once from the iterator, and stores them as setMulti does; waits
--         where that would be faster than the rate.
-- Memory: one batch, and the first errors.
-- Not:    no second way to store many values (batch.lua).

local batch = require("redcache.batch")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")

local warm = {}

local BATCH = 1000
-- With a rate batches are so small that there are this many a second.
local BEATS = 10
-- Errors that are kept by key: who warms a million keys needs no million errors.
local MAX_FAILED = 1000
-- What ends it where a whole batch fails so: the next one would, too.
local FATAL = { closed = true, cancelled = true, unavailable = true, timeout = true,
    overload = true, outcomeUnknown = true, cannotWait = true }

-- Takes the next pairs: values and ttls by key, and how many were taken.
local function pull(iterator, size, default)
    local map, ttls, count = {}, {}, 0
    while count < size do
        local key, value, ttl = iterator()
        if key == nil then
            break
        elseif type(key) ~= "string" then
            error("bad argument 'iterator' to warm: keys are strings, it gave a " .. type(key), 0)
        elseif value == nil then
            error("bad argument 'iterator' to warm: it gave no value for '"
                .. errors.printable(key) .. "'", 0)
        end
        count = count + 1
        map[key], ttls[key] = value, ttl or default
    end
    return map, ttls, count
end

-- Stores one batch. How many, and the error that ends it all.
local function store(self, work, map, ttls)
    local _, failed, sent = batch.setMulti(self, map, ttls, work.write)
    local stored, lost, fatal = 0, 0, nil
    for key in pairs(map) do
        local err = failed[key]
        if err == nil then
            stored = stored + 1
        else
            lost = lost + 1
            fatal = FATAL[err.code] and err or fatal
            if work.failures < MAX_FAILED then
                work.failed[key] = err
                work.failures = work.failures + 1
            end
        end
    end
    if sent then -- its caller waits for nothing here, and would send all at once
        fatal = core_slot.failure(nil, constants.NOT_WAITED, "write")
    end
    return stored, (lost > 0 and stored == 0 or sent) and fatal or nil
end

-- Waits until the rate allows more.
local function hold(self, own, seen, started)
    local client = self._client
    local left = own.rate and started + seen / own.rate - core_clock.now(client) or 0
    return left > 0 and calls.pause(self, own, "write", left) or nil
end

local function next_of(map)
    local key
    return function()
        local value
        key, value = next(map, key)
        return key, value
    end
end

local function run(self, iterator, own)
    local client = self._client
    local started, stored, seen = core_clock.now(client), 0, 0
    local size = own.batch
        or math.max(1, math.min(BATCH, own.rate and math.floor(own.rate / BEATS) or BATCH))
    local work = {
        failed = {}, failures = 0,
        write = {
            grace = own.grace, tags = own.tags, timeout = own.timeout, cancelTag = own.cancelTag,
        },
    }
    while true do
        local err = core_client.closed(client, "write")
        if err then
            return stored, work.failed, err
        end
        local map, ttls, count = pull(iterator, size, own.ttl)
        if count == 0 then
            return stored, work.failed
        end
        local more
        more, err = store(self, work, map, ttls)
        stored, seen = stored + more, seen + count
        local goes_on = err ~= nil or not own.progress or own.progress(stored, seen) ~= false
        if err == nil and goes_on and count == size then
            err = hold(self, own, seen, started)
        end
        if err or not goes_on or count < size then -- the iterator has come to its end
            return stored, work.failed, err
        end
    end
end

---Fills the cache: stores what an iterator gives, in batches of one write each.
---@param iterator table<string, any>|fun(): string|nil, any, number|redcache.Forever|nil values by
---key; or a function that returns the next key, its value and, if it likes, its ttl, and nil at the
---end. What it raises is raised here
---@param opts? table rate (keys a second, no bound), batch (1000, with a rate at most a tenth of a
---second's: keys that are stored at once), ttl (seconds or FOREVER; the cache's), progress
---(function(stored, seen) that is called after each batch; false ends it), grace, tags, timeout (of
---each batch), cancelTag
---@return integer stored keys
---@return table<string, redcache.Error> failed the first 1,000 by key, as setMulti; empty when all
---went well
---@return redcache.Error|nil err why it ended early: the last batch failed as a whole (unavailable,
---timeout, outcomeUnknown, overload), or cancelled, closed, cannotWait
function warm.warm(self, iterator, opts)
    if type(iterator) ~= "function" and type(iterator) ~= "table" then
        error(errors.argument("iterator", "warm", "function or table", iterator), 2)
    end
    local own, message = options.read({}, opts, "warm", "warm")
    message = message or options.plain_fault(own, self._settings.plain, "warm")
    if message then
        error(message, 2)
    end
    if not self._scheduler.can_wait() then
        return 0, {}, core_slot.failure(nil, constants.NOT_WAITED, "write")
    end
    if type(iterator) == "table" then
        iterator = next_of(iterator)
    end
    local stored, failed, err = run(self, iterator, own)
    return stored, failed, err
end

return warm
