-- behind_stream - what is written behind, and lasts: in streams of Redis, with durable = true.
--
-- What:   the keys of a namespace are parted by their hash. A partition has a stream of what waits,
--         "PREFIX//behind:{n}", one entry a key: ADD takes out an older one. The process that holds
--         the lock "behind:n" is its owner: it reads the stream from its beginning, writes, and
--         takes out what is written. What it has not taken out the next owner writes, in order.
-- Keys:   "PREFIX//newest:{n}" says which entry of a key is the newest, "PREFIX//dead:{n}" holds
--         the dead letters; both are hashes by key.
-- Why:    no consumer group: there is one reader at a time, and what waits is what is there.
-- Fences: an owner that has stood still may write when the next one has: the user's function is
--         given the fence of the lock, for the store to refuse older ones.
-- Not:    memory:// has no streams, and is gone with its process.

local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local background = require("redcache.background")
local behind_queue = require("redcache.behind_queue")
local behind_writer = require("redcache.behind_writer")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local redis = require("redcache.redis")

local now = core_clock.now
local ngx = rawget(_G, "ngx")

-- How long a process that is not the owner waits before it asks again.
local RETRY = 1
-- How often an owner looks for what others have added.
local POLL = 0.25
-- An owner holds so many batches in memory at most.
local BATCHES = 10

-- KEYS: behind, newest, dead -> id | nil: the stream is full
local ADD = [[
local old=redis.call('HGET',KEYS[2],ARGV[1])
if old then redis.call('XDEL',KEYS[1],old)
elseif redis.call('XLEN',KEYS[1])>=tonumber(ARGV[3]) then return false end
local id=redis.call('XADD',KEYS[1],'*','k',ARGV[1],'v',ARGV[2])
redis.call('HSET',KEYS[2],ARGV[1],id)
redis.call('HDEL',KEYS[3],ARGV[1])
return id]]
-- The same; id, key, id, key ...: they are written.
local DONE = [[
for i=1,#ARGV,2 do
redis.call('XDEL',KEYS[1],ARGV[i])
if redis.call('HGET',KEYS[2],ARGV[i+1])==ARGV[i] then redis.call('HDEL',KEYS[2],ARGV[i+1]) end
end
return 1]]
-- The same; key, id, letter, how many there may be -> 1 it is a dead letter | 0 a later value is
-- there | -1 there are too many.
local BURY = [[
if redis.call('HGET',KEYS[2],ARGV[1])~=ARGV[2] then
redis.call('XDEL',KEYS[1],ARGV[2])
return 0
end
if redis.call('HLEN',KEYS[3])>=tonumber(ARGV[4]) then return -1 end
redis.call('HSET',KEYS[3],ARGV[1],ARGV[3])
redis.call('XDEL',KEYS[1],ARGV[2])
redis.call('HDEL',KEYS[2],ARGV[1])
return 1]]
-- The same; key, how many may wait -> 1 | 0 there is no letter | -1 the stream is full. ADD has
-- taken the letter out where a later value came.
local REPLAY = [[
local letter=redis.call('HGET',KEYS[3],ARGV[1])
if not letter then return 0 end
if redis.call('XLEN',KEYS[1])>=tonumber(ARGV[2]) then return -1 end
local size,at=string.match(letter,'^%d+:(%d+):()')
local id=redis.call('XADD',KEYS[1],'*','k',ARGV[1],'v',string.sub(letter,at+size))
redis.call('HSET',KEYS[2],ARGV[1],id)
redis.call('HDEL',KEYS[3],ARGV[1])
return 1]]

local behind_stream = {}
local Stream = {}
Stream.__index = Stream

-- What background.lua watches: a partition.
local Partition = {}
Partition.__index = Partition

-- A step of a partition.
local Job = {}
Job.__index = Job

-- What an owner knows of its partition; the next one begins so.
local function forget(self)
    local settings = self.stream.settings
    self.queue = behind_queue.new(math.min(settings.entries, BATCHES * settings.batch),
        settings.bytes, settings.delay)
    self.ids, self.last, self.undone = {}, nil, {}
end

local function new_partition(stream, n)
    local cache, path = stream.cache, string.sub(stream.cache._prefix, 1, -2)
    local self = setmetatable({
        stream = stream, client = stream.client, due = 0, looks_at = 0, is_owner = false,
        keys = { path .. "//behind:{" .. n .. "}", path .. "//newest:{" .. n .. "}",
            path .. "//dead:{" .. n .. "}" },
        lock = lock.lock(cache, "behind:" .. n, { ttl = cache._settings.lockTtl }),
    }, Partition)
    forget(self)
    return self
end

---@param cache redcache.Cache
---@return table stream
function behind_stream.new(cache)
    local settings, raw = cache._settings.writeBehind, redis.redis(cache)
    local self = setmetatable({
        cache = cache, client = cache._client, settings = settings, codec = cache._settings.codec,
        raw = raw, max = math.ceil(settings.entries / settings.partitions),
        add = raw:script(ADD), done = raw:script(DONE), bury = raw:script(BURY),
        replayed = raw:script(REPLAY), partitions = {},
        written = 0, failures = 0, refused = 0,
    }, Stream)
    for n = 0, settings.partitions - 1 do
        self.partitions[n] = new_partition(self, n)
    end
    return self
end

-- Jobs -------------------------------------------------------------------------------------------

local function start(self)
    local job = setmetatable({ partition = self }, Job)
    self.job = job
    if not background.push(self.client, job, job) then
        self.job = nil
    end
end

-- Whether we are the owner now. Throws.
local function own(self)
    if self.lock:valid() then
        return true
    elseif self.is_owner then
        self.is_owner = false
        forget(self)
    end
    local ok, err = self.lock:acquire(0)
    if ok then
        self.is_owner = true
        forget(self)
        return true
    elseif err.code ~= "notAcquired" then
        error(err, 0)
    end
    return false
end

local function give_up(self)
    if self.is_owner then
        self.is_owner = false
        forget(self)
        if self.client.handle ~= nil then
            return self.lock:release()
        end
    end
    return true
end

-- Takes out of the stream what is written. Throws: it is tried again by the next step.
local function take_out(self)
    if self.undone[1] then
        local ok, err = self.stream.done:run(self.keys, self.undone, { retry = true })
        if not ok then
            error(err, 0)
        end
        self.undone = {}
    end
end

-- Reads on, where there is room. Whether there may be more.
local function read_on(self, at)
    local queue, batch = self.queue, self.stream.settings.batch
    local count = math.min(batch, queue.max_keys - queue.keys)
    if count <= 0 then
        return false
    end
    local list, err = self.stream.raw:command("XRANGE", self.keys[1],
        self.last and "(" .. self.last or "-", "+", "COUNT", count)
    if not list then
        error(err, 0)
    end
    for _, one in ipairs(list) do
        local id, key, value = one[1], one[2][2], one[2][4]
        local place = queue:reserve(key, #key + #value, at)
        if place == nil then
            return false
        end
        queue:accept(place, value, at)
        self.ids[key], self.last = id, id
    end
    if #list == 0 and queue.keys == 0 then
        self.last = nil -- ids may have gone back: another server's clock, after a failover
    end
    return #list == count
end

-- A value has failed as often as it may. What onFailed has thrown, or nil.
local function bury(self, chain, value, size, reason)
    local stream = self.stream
    local settings, at = stream.settings, now(self.client)
    local letter = settings.attempts .. ":" .. #reason .. ":" .. reason .. value
    local result, err = stream.bury:run(self.keys, { chain.key, chain.id, letter, stream.max })
    if result == 1 then
        return behind_writer.tell(settings, stream.codec, chain.key, value, reason)
    elseif result ~= 0 then -- it stays in the stream, and is tried again
        local place = self.queue:reserve(chain.key, size, at)
        if place then
            self.queue:accept(place, value, at)
        else
            forget(self)
        end
        return err and errors.text(err) or "there are too many dead letters"
    end
end

-- Writes what is due. The first reason why something was not, or nil.
local function write(self, batch)
    local stream = self.stream
    for _, chain in ipairs(batch) do
        chain.id = self.ids[chain.key]
    end
    local reasons = behind_writer.call(stream.settings.write, stream.codec, batch, self.lock.fence)
    local fault
    for _, chain in ipairs(batch) do
        local reason, key = reasons and reasons[chain.key], chain.key
        if reason then
            stream.failures = stream.failures + 1
            local value, size = self.queue:failed(chain, stream.settings.attempts,
                now(self.client))
            local told = value and bury(self, chain, value, size, reason)
            fault = fault or told or reason
        else
            stream.written = stream.written + 1
            self.queue:done(chain, now(self.client))
            self.undone[#self.undone + 1], self.undone[#self.undone + 2] = chain.id, key
        end
        if self.queue.chains[key] == nil then
            self.ids[key] = nil
        end
    end
    take_out(self)
    return fault
end

local function has_to_leave(self)
    return self.is_stopped or ngx and ngx.worker.exiting()
end

local function step(self)
    if has_to_leave(self) then
        self.is_stopped = true
        give_up(self)
        return
    elseif not own(self) then
        self.due = now(self.client) + RETRY
        return
    end
    take_out(self)
    local has_more = read_on(self, now(self.client))
    if not self.lock:valid() then
        -- What was read meanwhile may be newer than what the next owner has begun with. A store
        -- that refuses our fence would have us take it out unwritten.
        self.due = now(self.client)
        return
    end
    local batch = self.queue:take(self.stream.settings.batch, now(self.client))
    local fault = batch[1] and write(self, batch)
    local at = now(self.client)
    self.due = has_more and at or math.min(self.queue:due() or math.huge, at + POLL)
    if fault then
        error(fault, 0)
    end
end

function Job:run()
    local partition = self.partition
    if partition.job ~= self or partition.client.handle == nil then
        return
    end
    partition.due = now(partition.client) + RETRY -- where it throws before it knows better
    local ok, err = pcall(step, partition)
    partition.job = nil
    if partition.is_stopped then
        give_up(partition)
    elseif partition.due <= now(partition.client) then
        start(partition)
    end
    if not ok then
        error(err, 0)
    end
end

function Partition:is_due()
    local client = self.client
    if self.job and not background.knows(client, self.job) then
        self.job = nil -- its coroutine has vanished: what is in the stream is read again
        forget(self)
    end
    local at = now(client)
    if not self.is_stopped then
        background.look_again(self, at)
    end
    if not self.job and not (self.is_stopped and not self.is_owner)
        and (at >= self.due or has_to_leave(self)) then
        start(self)
    end
    return false -- the job is queued already
end

function Partition.run() end

-- Begins to ask for the partitions, in a process that may.
local function begin(self)
    if self.is_begun or ngx and ngx.get_phase() == "init" then
        return
    end
    self.is_begun = true
    local client = self.client
    client.streams = client.streams or {}
    client.streams[self] = true
    for n = 0, #self.partitions do
        background.watch(client, self.partitions[n])
        self.partitions[n]:is_due()
    end
end

behind_stream.begin = begin

local function partition_of(self, key)
    return self.partitions[core_command.key_slot(key) % self.settings.partitions]
end

-- Calls ------------------------------------------------------------------------------------------

---The durable half of setBehind.
---@param key string
---@param value any
---@param bytes string the value, encoded
---@param ttl number|redcache.Forever|nil
---@param opts table|nil
---@return true|nil queued
---@return redcache.Error|nil err with true: why the cache has not got it
function Stream:set(key, value, bytes, ttl, opts)
    local cache = self.cache
    if not cache._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, "write", key)
    end
    begin(self)
    local partition = partition_of(self, key)
    local id, err = self.add:run(partition.keys, { key, bytes, self.max },
        { timeout = opts and opts.timeout, cancelTag = opts and opts.cancelTag })
    if id == nil then
        self.refused = self.refused + (err and 0 or 1)
        return nil, err or errors.new("overload", "write", key,
            "too much waits to be written behind")
    end
    if partition.is_owner and not partition.job then
        partition.due = math.min(partition.due, now(self.client))
        start(partition)
    end
    local stored
    stored, err = cache:_set(key, value, ttl, opts)
    return true, not stored and err or nil
end

local function read_letter(self, key, letter)
    local attempts, size, at = string.match(letter, "^(%d+):(%d+):()")
    return {
        key = key, value = behind_writer.value(self.codec, string.sub(letter, at + size)),
        reason = string.sub(letter, at, at + size - 1), attempts = tonumber(attempts),
    }
end

---@param limit integer
---@return table[]|nil letters
---@return redcache.Error|nil err
function Stream:letters(limit)
    begin(self)
    local list, seen = {}, {}
    for n = 0, #self.partitions do
        local cursor = "0"
        repeat
            local page, err = self.raw:command("HSCAN", self.partitions[n].keys[3], cursor,
                "COUNT", math.min(limit, 100))
            if page == nil then
                return nil, err
            end
            cursor = page[1]
            for i = 1, #page[2], 2 do
                local key = page[2][i]
                if #list < limit and not seen[key] then
                    seen[key] = true
                    list[#list + 1] = read_letter(self, key, page[2][i + 1])
                end
            end
        until cursor == "0" or #list >= limit
    end
    return list
end

-- The keys of all letters, or those that are given.
local function keys_of(self, keys)
    if keys then
        return keys
    end
    local all = {}
    for n = 0, #self.partitions do
        local some, err = self.raw:command("HKEYS", self.partitions[n].keys[3])
        if some == nil then
            return nil, err
        end
        for _, key in ipairs(some) do
            all[#all + 1] = key
        end
    end
    return all
end

---@param keys string[]|nil
---@return integer|nil count
---@return redcache.Error|nil err
function Stream:replay(keys)
    begin(self)
    local count = 0
    local all, err = keys_of(self, keys)
    if all == nil then
        return nil, err
    end
    for _, key in ipairs(all) do
        local partition = partition_of(self, key)
        local result, fault = self.replayed:run(partition.keys, { key, self.max })
        if result == 1 then
            count = count + 1
            partition.due = math.min(partition.due, now(self.client))
        elseif result == -1 then
            err = err or errors.new("overload", "replay", key,
                "too much waits to be written behind")
        elseif fault then
            return count > 0 and count or nil, fault
        end
    end
    return count, err
end

---@param keys string[]|nil
---@return integer|nil count
---@return redcache.Error|nil err
function Stream:drop(keys)
    local count = 0
    local all, err = keys_of(self, keys)
    if all == nil then
        return nil, err
    end
    for _, key in ipairs(all) do
        local dropped, fault = self.raw:command("HDEL", partition_of(self, key).keys[3], key)
        if dropped == nil then
            return count > 0 and count or nil, fault
        end
        count = count + dropped
    end
    return count
end

---The client is about to be closed: hands over what is owned here. What waits stays in Redis.
---@param client redcache.Client
---@param timeout number seconds for each of them
function behind_stream.close(client, timeout)
    local streams = client.streams
    client.streams = nil
    for self in pairs(client.handle ~= nil and streams or {}) do
        for n = 0, #self.partitions do
            local partition = self.partitions[n]
            partition.is_stopped = true
            background.unwatch(client, partition)
            partition.lock._settings.timeout = math.max(math.min(timeout, 60), 0.001)
            local runs = partition.job and background.runs(client, partition.job)
            if partition.job and not runs then
                background.withdraw(client, partition.job)
            end
            if not runs and not give_up(partition) then
                lock.steps.abandon(partition.lock)
            end
        end
    end
end

---@param stats table<string, integer>
function Stream:stats(stats)
    local queued, bytes = 0, 0
    for n = 0, #self.partitions do
        local queue = self.partitions[n].queue
        queued, bytes = queued + queue.queued + queue.running, bytes + queue.bytes
    end
    stats.behindQueued, stats.behindBytes, stats.behindWritten = queued, bytes, self.written
    stats.behindFailed, stats.behindRefused = self.failures, self.refused
end

return behind_stream
