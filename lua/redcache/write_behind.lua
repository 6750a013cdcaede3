-- write_behind - setBehind: a value stands in the cache at once, and is written to the user's
-- store later, in the background.
--
-- What:   what waits stands in behind_queue.lua, what was given up in dead_letters.lua. Each call
--         of the user's function is a job of its own (background.lua), made where something is
--         due: by setBehind, by a job that ends, and by a caller or loop that looks at what is
--         watched.
-- Memory: of each cache with the option. Its client keeps it while something waits.
-- Errors: what the function gives as its reason is kept with a dead letter, and is what a job
--         throws, so that it is counted, and nginx logs it.
-- Not:    no promise beyond this process: what waits ends with it. behind_stream.lua is what lasts.

local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local background = require("redcache.background")
local behind_queue = require("redcache.behind_queue")
local behind_stream = require("redcache.behind_stream")
local behind_writer = require("redcache.behind_writer")
local calls = require("redcache.calls")
local dead_letters = require("redcache.dead_letters")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local many = require("redcache.many")
local options = require("redcache.options")

local now = core_clock.now
local ngx = rawget(_G, "ngx")

-- How often a close looks whether the writes of others have ended.
local CLOSE_PAUSE = 0.005
-- So much earlier a loop has to be worth coming by for once more: more than a look may be late.
local SOONER = 0.05
-- Why what is left at the end was given up.
local CLOSED = "the cache was closed"
-- What a job holds that has nothing to be tried again.
local NOTHING = {}

local write_behind = {}

-- What background.lua watches.
---@class redcache.Behind: redcache.Watch
local Behind = {}
Behind.__index = Behind

-- One call of the user's function.
local Job = {}
Job.__index = Job

---Makes what a cache with the option writeBehind needs.
---@param cache redcache.Cache
function write_behind.attach(cache)
    local settings = cache._settings.writeBehind
    if settings.durable then
        cache._behind = { client = cache._client, stream = behind_stream.new(cache) }
        behind_stream.begin(cache._behind.stream)
        return
    end
    cache._behind = setmetatable({
        client = cache._client, codec = cache._settings.codec, settings = settings,
        queue = behind_queue.new(settings.entries, settings.bytes, settings.delay),
        dead = dead_letters.new(settings.entries, settings.bytes),
        untold = { first = 1, last = 0 }, jobs = {}, active = 0, unbegun = 0, looks_at = 0,
    }, Behind)
end

-- What is watched, and kept --------------------------------------------------------------------

local function watch(self)
    local client = self.client
    if not self.is_watched then
        self.is_watched = true
        client.behinds = client.behinds or {}
        client.behinds[self] = true
        background.watch(client, self)
    end
end

-- Nothing waits any more.
local function rest(self)
    local client = self.client
    local untold = self.untold
    if self.is_watched and self.queue.queued == 0 and self.active == 0
        and untold.first > untold.last then
        self.is_watched = false
        client.behinds[self] = nil
        background.unwatch(client, self)
    end
end

-- The user's functions ---------------------------------------------------------------------------

-- Is to be told that it was given up.
local function give_up(self, letter)
    local untold = self.untold
    untold.last = untold.last + 1
    untold[untold.last] = letter
end

-- Tells the user what was given up. What onFailed threw first, or nil. It may wait, call the cache
-- or vanish: what is left is then told by another job.
local function tell(self)
    local untold, fault = self.untold, nil
    while untold.first <= untold.last do
        local letter = untold[untold.first]
        untold[untold.first], untold.first = nil, untold.first + 1
        local thrown = behind_writer.tell(self.settings, self.codec, letter.key, letter.value,
            letter.reason)
        fault = fault or thrown
    end
    return fault
end

-- A try of a value has failed.
local function fail(self, chain, reason)
    local attempts = chain.failures + 1
    local value, size = self.queue:failed(chain, self.settings.attempts, now(self.client))
    if value then
        local letter = {
            key = chain.key, value = value, size = size, reason = reason, attempts = attempts,
            number = chain.last,
        }
        self.dead:add(letter)
        give_up(self, letter)
    end
end

-- Writes what was taken. The first reason why something was not, or nil.
local function write(self, batch)
    local reasons = behind_writer.call(self.settings.write, self.codec, batch)
    local fault
    for _, chain in ipairs(batch) do
        local reason = reasons and reasons[chain.key]
        if reason then
            fail(self, chain, reason)
            fault = fault or reason
        else
            self.queue:done(chain, now(self.client))
        end
    end
    return fault
end

-- Jobs -------------------------------------------------------------------------------------------

local kick

-- Takes what is due and writes it, as the running coroutine; tells of what was given up.
local function run(self, job)
    local batch = self.queue:take(self.settings.batch, now(self.client))
    self.jobs[job], self.has_to_tell = batch, false
    local fault = write(self, batch)
    self.jobs[job] = NOTHING -- all of it is settled: this is not tried again
    fault = tell(self) or fault
    self.jobs[job] = nil
    return fault
end

function Job:run()
    local behind = self.behind
    behind.unbegun = behind.unbegun - 1
    local fault = not behind.is_closed and run(behind, self)
    behind.jobs[self] = nil
    behind.active = behind.active - 1
    if not behind.is_closed then
        kick(behind)
        rest(behind)
    end
    if fault then
        error(fault, 0)
    end
end

-- Jobs whose coroutine has vanished, or that were dropped: what they had taken is tried again.
local function take_back(self)
    for job, batch in pairs(self.jobs) do
        if job.behind and not background.knows(self.client, job) then
            self.jobs[job] = nil
            self.active = self.active - 1
            if batch == true then
                self.unbegun = self.unbegun - 1
            else
                for _, chain in ipairs(batch) do
                    fail(self, chain, "the coroutine that wrote it has vanished")
                end
            end
            self.has_to_tell = self.untold.first <= self.untold.last
        end
    end
end

-- Gives up all that waits or runs: nobody is left to write it. How many values that were.
local function abandon(self, reason)
    local left = self.queue:clear()
    for _, chain in ipairs(left) do
        give_up(self, { key = chain.key, value = chain.value, reason = reason })
    end
    tell(self)
    if ngx and #left > 0 then
        ngx.log(ngx.WARN, "redcache: ", #left, " writes behind were not done: ", reason)
    end
    return #left
end

-- A worker of nginx that exits does not wait for pauses to be over.
local function is_exiting(self, at)
    local exits = ngx and ngx.worker.exiting()
    if exits then
        self.queue:hurry(at) -- also what has just failed: nobody comes by after a pause
    end
    return exits
end

-- A loop is to come by when the next value is due: sooner than it would, perhaps.
local function look_again(self, at)
    local due = self.queue:due()
    if due then
        self.due = math.max(due, at)
        self.looks_at = self.due < self.looks_at - SOONER and at or self.looks_at
        background.look_again(self, at)
    end
end

-- Sees to it that there are jobs for what is due.
function kick(self)
    take_back(self)
    local client, queue, settings = self.client, self.queue, self.settings
    local at = now(client)
    local is_last = is_exiting(self, at)
    while self.active < settings.writers and (queue.queued > self.unbegun * settings.batch
        and queue:due() <= at or self.has_to_tell and self.unbegun == 0) do
        local job = setmetatable({ behind = self }, Job)
        self.jobs[job], self.active, self.unbegun = true, self.active + 1, self.unbegun + 1
        if not background.push(client, job, job) then
            self.jobs[job], self.active, self.unbegun = nil, self.active - 1, self.unbegun - 1
            if is_last then
                abandon(self, "the worker process exits")
            end
            break
        end
    end
    look_again(self, at)
end

function Behind:is_due()
    kick(self)
    rest(self)
    return false -- the jobs are queued already
end

function Behind.run() end

-- Calls ------------------------------------------------------------------------------------------

-- The error of a call that would have something written where nobody writes any more, or nil: a
-- close may go on for a while with what else is queued.
local function closed(behind, action, key)
    local client = behind.client
    local err = core_client.closed(client, action, key)
    if not err and not behind.stream and (behind.is_closed or client.behinds_ended) then
        err = errors.new("closed", action, key, CLOSED)
    end
    return err
end

-- The argument error, or nil.
local function fault_of(self, key, value, opts)
    if type(key) ~= "string" then
        return errors.argument("key", "setBehind", "string", key)
    elseif value == nil then
        return errors.argument("value", "setBehind", "any value but nil", value)
    end
    local settings = self._settings
    local fault
    if opts ~= nil then
        fault = select(2, options.read({}, opts, "write", "setBehind"))
            or settings.plain and options.plain_fault(opts, true, "setBehind")
    end
    return fault or nil
end

local NO_ROOM = "too much waits to be written behind"
local NO_OPTION = "the cache was opened without the option writeBehind"

---Stores a value in the cache at once, as set does, and has it written to the user's store later,
---in the background: see docs/api/write_behind.md. A later value of the key takes its place where
---its write has not begun. Where an error comes back nothing is written behind.
---@param key string
---@param value any what the codec can hold; not nil
---@param ttl? number|redcache.Forever seconds above 0; nil: the cache's ttl
---@param opts? table as set: timeout, cancelTag, grace, tags
---@return true|nil stored with durable = true: it will be written
---@return redcache.Error|nil err overload (there is no room to wait; nothing was stored), and
---those of set
---@return string|nil sent as set; durable = true: err tells with true why the cache has not got it
function write_behind.setBehind(self, key, value, ttl, opts)
    local behind = self._behind
    local fault = fault_of(self, key, value, opts) or not behind and "could not write behind: "
        .. NO_OPTION
    if fault then
        error(fault, 2)
    elseif ttl ~= nil and not options.is_ttl(ttl) then
        return nil, errors.bad_ttl("write", key, ttl, "setBehind")
    end
    local client, queue, stream = behind.client, behind.queue, behind.stream
    local err = closed(behind, "write", key)
    if err then
        return nil, err
    end
    local stored
    local ok, bytes = entry.encode(self._settings, value)
    if not ok then
        return nil, errors.new("encode", "write", key, bytes)
    elseif #key + #bytes > self._settings.writeBehind.bytes then
        return nil, errors.new("tooLarge", "write", key, "it is over writeBehind.bytes")
    end
    if stream then
        stored, err = stream:set(key, value, bytes, ttl, opts)
        return stored, err
    end
    local place = queue:reserve(key, #key + #bytes, now(client))
    if place == nil then
        return nil, errors.new("overload", "write", key, NO_ROOM)
    end
    local sent
    -- Without a turn of background work, which could store a later value first.
    stored, err, sent = self:_set(key, value, ttl, opts)
    if not stored then
        queue:refuse(place)
        return nil, err
    end
    err = core_client.closed(client, "write", key)
    local is_newest = not err and queue:accept(place, bytes, now(client))
    if is_newest == nil or err then
        return nil, err or errors.new("closed", "write", key, "the worker process exits")
    elseif is_newest then
        behind.dead:take(key)
    end
    watch(behind)
    kick(behind)
    return true, nil, sent
end

-- What the calls for dead letters begin with: the cache's, or nil and why.
local function open(self, method, fault)
    local behind = self._behind
    if fault or not behind then
        error(fault or "could not look for dead letters: " .. NO_OPTION, 3)
    end
    local err = core_client.closed(behind.client, method)
    if err then
        return nil, err
    end
    return behind
end

---Writes that were given up, the oldest first: one a key, the newest.
---@param opts? table limit (of how many; 100)
---@return table[]|nil letters key, value, reason, attempts
---@return redcache.Error|nil err closed
function write_behind.deadLetters(self, opts)
    local own, fault = options.read({ limit = 100 }, opts, "deadLetters", "deadLetters")
    local behind, err = open(self, "list dead letters", fault)
    if behind == nil then
        return nil, err
    end
    if behind.stream then
        return behind.stream:letters(own.limit)
    end
    local list = behind.dead:list(own.limit)
    for i, letter in ipairs(list) do
        list[i] = {
            key = letter.key, value = behind_writer.value(behind.codec, letter.value),
            reason = letter.reason, attempts = letter.attempts,
        }
    end
    return list
end

-- Those that are meant: the given keys, or all.
local function keys_of(behind, keys)
    if keys then
        return keys
    end
    local all = {}
    for i, letter in ipairs(behind.dead:list(math.huge)) do
        all[i] = letter.key
    end
    return all
end

---Has them written once more, as if they were new.
---@param keys? string[] nil: all
---@return integer|nil count of those that are to be written
---@return redcache.Error|nil err overload (there is no room for the others, which stay), closed
function write_behind.replayDeadLetters(self, keys)
    local behind, err = open(self, "replay dead letters",
        keys ~= nil and many.list_fault(keys, "replayDeadLetters"))
    if behind == nil then
        return nil, err
    end
    if behind.stream then
        return behind.stream:replay(keys)
    end
    local client, queue, dead, count = behind.client, behind.queue, behind.dead, 0
    err = closed(behind, "replay dead letters")
    if err then
        return nil, err
    end
    for _, key in ipairs(keys_of(behind, keys)) do
        local letter = dead.by_key[key]
        local place = letter and queue:reserve(key, letter.size, now(client))
        if place then
            dead:take(key)
            place.number = letter.number -- a value that is on its way to the cache is newer
            queue:accept(place, letter.value, now(client))
            count = count + 1
        elseif letter then
            err = err or errors.new("overload", "replay", key, NO_ROOM)
        end
    end
    if count > 0 then
        watch(behind)
        kick(behind)
    end
    return count, err
end

---Forgets them.
---@param keys? string[] nil: all
---@return integer|nil count
---@return redcache.Error|nil err closed
function write_behind.dropDeadLetters(self, keys)
    local behind, err = open(self, "drop dead letters",
        keys ~= nil and many.list_fault(keys, "dropDeadLetters"))
    if behind == nil then
        return nil, err
    end
    if behind.stream then
        return behind.stream:drop(keys)
    end
    local count = 0
    for _, key in ipairs(keys_of(behind, keys)) do
        count = count + (behind.dead:take(key) and 1 or 0)
    end
    return count
end

-- The end, and figures ---------------------------------------------------------------------------

-- Lets the writes go on, as long as there is time: those of the background where others run
-- meanwhile, else the caller writes.
local function drain(self, cache, deadline)
    local client, queue, scheduler = self.client, self.queue, cache._scheduler
    local shares = scheduler.shares and scheduler.shares()
    queue:hurry(now(client))
    while queue.queued + queue.running > 0 do
        local at = now(client)
        if at >= deadline then
            return
        end
        local pause = CLOSE_PAUSE
        if shares then
            kick(self)
            if client.queue then
                background.tend(client)
            end
        elseif queue.queued == 0 then
            return -- another coroutine's, that only the caller could resume
        elseif queue:due() <= at then
            run(self, {})
            pause = nil
        else
            pause = math.max(math.min(queue:due(), deadline) - at, 0.001)
        end
        if pause and calls.pause(cache, nil, "close", pause) then
            return
        end
    end
end

---The client is about to be closed: what waits is written as long as there is time, the rest given
---up.
---@param cache redcache.Cache
---@param timeout number seconds
---@return number left seconds of the timeout
---@return integer count of values that were given up
function write_behind.close(cache, timeout)
    local client, count = cache._client, 0
    local behinds, begun = client.behinds, now(client)
    local can_wait = client.handle ~= nil and cache._scheduler.can_wait()
        and not background.is_inside(client)
    while next(behinds) do
        local self = next(behinds)
        if can_wait then
            drain(self, cache, begun + timeout)
        end
        self.is_closed = true
        behinds[self] = nil
        background.unwatch(client, self)
        for job, batch in pairs(self.jobs) do
            if batch == true then
                background.withdraw(client, job)
            end
        end
        count = count + abandon(self, CLOSED)
    end
    client.behinds = nil
    return math.max(timeout - (now(client) - begun), 0), count
end

---Adds the figures of a cache with the option.
---@param self redcache.Behind
---@param stats table<string, integer>
function write_behind.stats(self, stats)
    if self.stream then
        return self.stream:stats(stats)
    end
    local queue, dead = self.queue, self.dead
    stats.behindQueued = queue.queued + queue.running
    stats.behindBytes = queue.bytes
    stats.behindWritten = queue.written
    stats.behindFailed = queue.failures
    stats.behindCoalesced = queue.coalesced
    stats.behindRefused = queue.refused
    stats.deadLetters = dead.count
    stats.deadLettersDropped = dead.dropped
end

return write_behind
