-- Durable writing behind in generated histories: several processes, which die or close half way,
-- lose their locks, and whose commands are late or lost, with a Redis of streams in Lua
-- (stream_redis.lua) under a clock that the history moves. The user's store is outside, and knows
-- fences. What it sees is held to the order in which Redis got the values: nothing that was
-- acknowledged is lost, no key goes back. Then the same with planted bugs, which must be found.
--
-- Env: REDCACHE_BEHIND_SEEDS: how many histories (150; 20000 take three minutes).

local behind_model = require("spec.support.behind_model")
local callers = require("spec.support.callers")
local errors = require("redcache.errors")
local planted = require("spec.support.planted")
local redcache = require("redcache")
local stream_redis = require("spec.support.stream_redis")
local write_behind = require("redcache.write_behind")

local SEEDS = tonumber(os.getenv("REDCACHE_BEHIND_SEEDS") or 150)
-- A planted bug is found within so many.
local MUTANT_SEEDS = 400
local STEPS = 120
local KEYS = { "a", "b", "c", "d", "e" }
local LOCK_TTL = 2
local EPSILON = 1e-6

local function pick(list) return list[math.random(#list)] end
local function chance(of) return math.random() < of end
local function number_of(value) return tonumber(value:match("^%d+")) end

local History = {}
History.__index = History

function History:complain(format, ...)
    self.callers.fault = self.callers.fault or format:format(...)
end

-- Processes --------------------------------------------------------------------------------------

-- A process: its cache, whose streams and locks are those of the history's Redis.
function History:begin()
    local process = { history = self, busy = {}, tries = {} }
    self.begun = self.begun + 1
    process.cache = redcache.new({ url = self.url, clock = self.time, near = false,
        namespace = "app", codec = "raw", group = "p" .. self.begun })
    local cache, settings = process.cache, {}
    for field, value in pairs(self.settings) do settings[field] = value end
    settings.write = function(items) return self:write(process, items) end
    settings.onFailed = function(...) return self:tell(...) end
    local real = cache._set
    cache._set = function(there, key, value, ...)
        self.stored[number_of(value)] = true
        self.callers:wait(0.2)
        if not self.callers.is_calm and chance(0.05) then
            return nil, errors.new("unavailable", "write", "k", "planned")
        end
        return real(there, key, value, ...)
    end
    cache._settings.writeBehind = settings -- new() knows that memory:// has no streams
    self.process = process
    write_behind.attach(cache)
    self.process = nil
    return process
end

-- Calls fn as a caller within a process.
function History:go(process, fn) return self.callers:go(fn, { process = process }) end

-- A process is killed: its callers stand where they stood, for ever.
function History:kill(i)
    local process, left = self.processes[i], {}
    process.died_at, self.killed = self.time:now(), self.killed + 1
    for _, one in ipairs(self.callers.suspended) do
        if one.process ~= process then left[#left + 1] = one end
    end
    self.callers.suspended = left
    self.dead[#self.dead + 1] = process
    self.processes[i] = self:begin()
end

-- A caller is gone. Where it was at work, another one begins at the beginning.
function History:vanish()
    local one = self.callers:pick()
    if one.is_closing then return self.callers:resume(one) end
    self.vanished = self.vanished + 1
    for _, last in pairs(one.process.tries) do last.may_begin = true end
    for _, item in ipairs(one.batch or {}) do one.process.busy[item.key] = nil end
    one.co = nil
    collectgarbage()
    collectgarbage()
end

function History:work(process)
    self:go(process, function() process.cache:work(1) end)
end

-- A process closes its cache, and ends when its callers have.
function History:close(i)
    local process = self.processes[i]
    self.processes[i], self.dead[#self.dead + 1] = self:begin(), process
    self.callers:go(function()
        process.cache:close(1)
        process.died_at = self.time:now()
    end, { process = process, is_closing = true })
end

-- The user's store -------------------------------------------------------------------------------

-- One item is tried: never too early, nor twice at a time, nor with another number than is next.
function History:try(process, item)
    local key, now = item.key, self.time:now()
    local last = process.tries[key]
    if process.busy[key] then self:complain("%s is written twice at a time", key) end
    process.busy[key] = item.fence
    if item.attempt > self.settings.attempts then
        self:complain("%s is tried %d times", key, item.attempt)
    end
    if last and last.fence == item.fence and last.value == item.value and not last.is_over
        and not (last.may_begin and item.attempt == 1) then
        if item.attempt ~= last.attempt + 1 then
            self:complain("%s: attempt %d behind %d", key, item.attempt, last.attempt)
        end
        if now < last.failed_at + 0.1 * 2 ^ (last.attempt - 1) - EPSILON then
            self:complain("%s is tried too early", key)
        end
    elseif item.attempt ~= 1 then
        self:complain("%s begins with attempt %d", key, item.attempt)
    end
end

-- The user's function.
function History:write(process, items)
    local time = self.time
    if #items > self.settings.batch then self:complain("%d values in a call", #items) end
    for _, item in ipairs(items) do self:try(process, item) end
    local caller = self.callers.current
    caller.batch = items
    if chance(0.3) then time:advance(math.random(0, 300) / 1000) end
    self.callers:wait(0.4)
    caller.batch = nil
    local reasons, done, failed =
        behind_model.answer(items, self.callers.is_calm and 0 or self.trouble)
    for _, item in ipairs(items) do
        local key, value = item.key, number_of(item.value)
        process.busy[key] = nil
        local order = self.orders[value]
        if not order then
            self:complain("%s has a value that Redis never got", key)
        elseif not reasons[key] then
            if item.fence >= (self.fences[key] or 0) then
                if order < (self.values[key] or 0) then self:complain("%s goes back", key) end
                self.fences[key], self.values[key] = item.fence, order
                self.written = self.written + 1
            end
            process.tries[key] = nil
        else
            process.tries[key] = { fence = item.fence, value = item.value, attempt = item.attempt,
                failed_at = time:now(), reason = reasons[key],
                is_over = item.attempt == self.settings.attempts }
        end
        if reasons[key] then
            self.reasons[value] = self.reasons[value] or {}
            self.reasons[value][reasons[key]] = true
        end
    end
    if done == error then error("thrown", 0) end
    return done, failed
end

-- onFailed.
function History:tell(key, value, reason)
    local reasons = self.reasons[number_of(value)]
    self.told = self.told + 1
    if not (reasons and reasons[reason]) then
        self:complain("%s is told with %s, which was none of its reasons", key, reason)
    end
    self.callers:wait(0.2)
    if chance(0.1) then error("thrown by onFailed") end
end

-- Steps ------------------------------------------------------------------------------------------

-- Redis has a value: in which order is what counts.
function History:added(value)
    local number = number_of(value)
    self.added_count = self.added_count + 1
    self.orders[number] = self.orders[number] or self.added_count
end

function History:set(process, key)
    self.numbers = self.numbers + 1
    local value = self.numbers .. ":" .. ("v"):rep(pick({ 1, 100, 300 }))
    local number = self.numbers
    local ok, err = process.cache:setBehind(key, value, 3600)
    if ok then
        if not self.orders[number] then self:complain("%s: Redis has not got it", key) end
        self.taken[#self.taken + 1] = { key = key, number = number }
    elseif err.code == "overload" then
        self.refused = self.refused + 1
        if self.orders[number] then self:complain("%s is overload, and is kept", key) end
        if self.stored[number] then self:complain("%s is overload, and is stored", key) end
    end
end

function History:step()
    local i, dice = math.random(#self.processes), math.random()
    local process = self.processes[i]
    if dice < 0.29 then
        local key = pick(KEYS)
        self:go(process, function() self:set(process, key) end)
    elseif dice < 0.55 then
        self.callers:resume_one()
    elseif dice < 0.7 then
        self:work(process)
    elseif dice < 0.83 then
        self.time:advance(chance(0.1) and 3 or math.random(0, 400) / 1000)
    elseif dice < 0.89 then
        local keys = chance(0.5) and { pick(KEYS), "nothing" } or nil
        self:go(process, function()
            self.replayed = self.replayed + (process.cache:replayDeadLetters(keys) or 0)
        end)
    elseif dice < 0.9 then
        local keys = { pick(KEYS) }
        self:go(process, function() process.cache:dropDeadLetters(keys) end)
    elseif dice < 0.935 then
        self.world:lose("behind:0")
    elseif dice < 0.96 then
        self:kill(i)
    elseif dice < 0.98 then
        self:close(i)
    elseif self.vanishes and #self.callers.suspended > 0 then
        self:vanish()
    end
end

local function read_letter(key, letter)
    local attempts, size, at = letter:match("^(%d+):(%d+):()")
    return { key = key, attempts = tonumber(attempts), reason = letter:sub(at, at + size - 1),
        number = number_of(letter:sub(at + size)) }
end

-- The dead letters that are in Redis.
function History:letters()
    local list = {}
    for name, hash in pairs(self.world.hashes) do
        for key, letter in pairs(name:find("//dead:", 1, true) and hash or {}) do
            list[#list + 1] = read_letter(key, letter)
        end
    end
    return list
end

-- What Redis holds.
function History:check()
    local most = math.ceil(self.settings.entries / self.settings.partitions)
    for name, stream in pairs(self.world.streams) do
        local seen = {}
        if #stream > most then self:complain("%d values in %s", #stream, name) end
        for _, one in ipairs(stream) do
            local key, value = one[2][2], one[2][4]
            if seen[key] then self:complain("%s is twice in %s", key, name) end
            seen[key] = true
            if not self.orders[number_of(value)] then self:complain("%s came from nowhere", key) end
        end
    end
    for _, letter in ipairs(self:letters()) do
        if letter.attempts ~= self.settings.attempts then
            self:complain("%s is given up after %d attempts", letter.key, letter.attempts)
        end
        local reasons = self.reasons[letter.number]
        if not (reasons and reasons[letter.reason]) then
            self:complain("%s is given up with another reason: %s", letter.key, letter.reason)
        end
    end
end

-- All goes well from now on: the streams are emptied within a few seconds of each value.
function History:settle()
    self.callers.is_calm = true
    for _ = 1, 40 do
        while #self.callers.suspended > 0 do self.callers:resume_one() end
        for _, process in ipairs(self.processes) do self:work(process) end
        self.time:advance(1)
    end
    for name, stream in pairs(self.world.streams) do
        if #stream > 0 then self:complain("%d values stay in %s", #stream, name) end
    end
    for name, hash in pairs(self.world.hashes) do
        if name:find("//newest:", 1, true) and next(hash) then
            self:complain("%s stays in %s", next(hash), name)
        end
    end
end

-- Each value that was acknowledged, or a later one, is written, or was given up with a reason.
function History:account()
    local given_up = {}
    for _, letter in ipairs(self:letters()) do
        given_up[letter.key] = self.orders[letter.number]
    end
    for _, one in ipairs(self.taken) do
        local order = self.orders[one.number]
        if order > math.max(self.values[one.key] or 0, given_up[one.key] or 0,
            self.gone[one.key] or 0) then
            self:complain("value %d of %s is lost", one.number, one.key)
        end
    end
end

local runs = 0

local function new_history(seed)
    math.randomseed(seed)
    runs = runs + 1 -- each has a Redis of its own
    local self = setmetatable({
        time = redcache.clock(), url = "memory://durable" .. runs, callers = callers.new(),
        processes = {}, dead = {}, begun = 0, trouble = pick({ 0, 0.3, 0.6, 0.9 }),
        losses = pick({ 0, 0, 0.05, 0.2 }), numbers = 0, added_count = 0, stored = {},
        orders = {}, values = {}, fences = {}, reasons = {}, taken = {}, gone = {},
        vanishes = chance(0.25), vanished = 0,
        written = 0, told = 0, refused = 0, replayed = 0, killed = 0,
        settings = { durable = true, entries = pick({ 2, 4, 10 }), bytes = pick({ 1024, 4000 }),
            attempts = pick({ 1, 1, 2, 3 }), batch = math.random(1, 3), writers = 1,
            delay = pick({ 0, 0, 0.3 }), partitions = 1 },
    }, History)
    self.world = stream_redis.new({
        now = function() return self.time:now() end,
        wait = function() self.callers:wait(0.15) end,
        spend = function() self.time:advance(0.0005) end,
        trouble = function()
            return not self.callers.is_calm and chance(self.losses) and pick({ "before", "behind" })
        end,
        added = function(value) self:added(value) end,
        dropped = function(key, letter)
            local order = self.orders[read_letter(key, letter).number]
            self.gone[key] = math.max(self.gone[key] or 0, order)
        end,
    }, LOCK_TTL)
    return self
end

-- The history, whole; its first fault is in `fault`.
local function run(seed)
    local self = new_history(seed)
    local world = self.world
    local ok, err = pcall(planted.into, "redcache.redis", {
        redis = function() return world:redis() end,
    }, function()
        planted.into("redcache.lock", {
            lock = function(_, name) return world:lock(self.process, name) end,
            steps = { abandon = function() end },
        }, function()
            for i = 1, math.random(1, 3) do self.processes[i] = self:begin() end
            for _ = 1, STEPS do
                if self.callers.fault then return end
                self:step()
                self:check()
            end
            self:settle()
            self:account()
            self.callers.is_calm = true
            for _, process in ipairs(self.processes) do process.cache:close(0) end
            for _, process in ipairs(self.dead) do process.cache:close(0) end
        end)
    end)
    if not ok then self:complain("%s", tostring(err)) end
    self.fault = self.callers.fault
    return self
end

describe("durable writing behind of several processes", function()
    it("loses nothing that was acknowledged, and no key goes back", function()
        local sums = { written = 0, told = 0, refused = 0, replayed = 0, killed = 0, vanished = 0 }
        for seed = 1, SEEDS do
            local history = run(seed)
            assert.is_nil(history.fault, ("seed %d: %s"):format(seed, tostring(history.fault)))
            for name in pairs(sums) do sums[name] = sums[name] + history[name] end
        end
        for name, sum in pairs(sums) do
            assert.is_true(sum >= SEEDS / 10, "histories in which nothing happens: " .. name)
        end
        if SEEDS > 150 then
            print(("%d seeds: %d values written, %d told, %d refused, %d written again")
                :format(SEEDS, sums.written, sums.told, sums.refused, sums.replayed))
            print(("%d processes killed, %d coroutines vanished"):format(sums.killed,
                sums.vanished))
        end
    end)

    -- What stands in behind_stream.lua, and what somebody could have written.
    local MUTANTS = {
        ["an owner that has lost its lock writes what it has read since"] =
            { "if not self.lock:valid() then\n        -- What", "if false then\n        -- What" },
        ["a later value leaves the older one in the stream"] =
            { "if old then redis.call('XDEL',KEYS[1],old)", "if old then" },
        ["a later value leaves the dead letter"] =
            { "redis.call('HDEL',KEYS[3],ARGV[1])\nreturn id", "return id" },
        ["a stream takes one more than it may"] =
            { ">=tonumber(ARGV[3]) then return false", ">tonumber(ARGV[3]) then return false" },
        ["what is overload is told as taken"] =
            { "if id == nil then", "if err then" },
        ["a value that was written takes a later one along"] =
            { "if redis.call('HGET',KEYS[2],ARGV[i+1])==ARGV[i] then", "if true then" },
        ["what was given up stays the newest of its key"] =
            { "redis.call('HDEL',KEYS[2],ARGV[1])\nreturn 1]]\n-- The same; key, how",
                "return 1]]\n-- The same; key, how" },
        ["a value is given up though a later one is there"] =
            { "if redis.call('HGET',KEYS[2],ARGV[1])~=ARGV[2] then", "if false then" },
        ["what has failed for the last time is nowhere"] =
            { "redis.call('HSET',KEYS[3],ARGV[1],ARGV[3])\nredis", "redis" },
        ["a letter is written again beyond the bound"] =
            { ">=tonumber(ARGV[2]) then return -1", ">tonumber(ARGV[2]) then return -1" },
        ["an owner never asks whether it is the one still"] =
            { "if self.lock:valid() then\n        return true",
                "if self.is_owner then return true" },
        ["a coroutine that vanished is waited for"] =
            { "self.job = nil -- its coroutine", "local _ = nil -- its coroutine" },
    }
    for name, change in pairs(MUTANTS) do
        it("is found out where " .. name, function()
            local found = planted.find("redcache.behind_stream", change[1], change[2], MUTANT_SEEDS,
                function(seed) return run(seed).fault end)
            if SEEDS > 150 then print(("seed %d: %s"):format(found, name)) end
        end)
    end
end)
