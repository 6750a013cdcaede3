--- A cache that is closed in the middle of everything: a history of calls from a seed, and the
-- close at a chosen step of it.
--
-- What:   closing.play(bed, options) lets some tasks call a cache: reads, writes, loaders that
--         yield, locks, batches. Each point between two calls, and each moment within a loader, a
--         lock's body or a codec, is a step; at step `at` somebody closes the cache. The tasks go
--         on with their calls, which have to say `closed`. Returned is what was wrong, and how many
--         steps there were: without `at` nobody closes before the end, so all steps can be tried.
-- bed:    an event loop (closing_beds.lua): name, scheduler, driver, run(fn), go(fn), pause(),
--         sleep(seconds), now(), kill(handle). run() returns when fn has; go() starts a task and
--         returns its handle, pause() lets others run. Without kill no task is killed.
-- Not:    the same order of events each time where a real Redis answers: a seed names the calls.

local closing = {}

local KEYS, LOCKS = { "a", "b", "c" }, { "x", "y" }
-- What a call may end with although nobody has closed the cache yet, and while Redis stands still.
local ALLOWED = { notAcquired = true, recursive = true, lockLost = true, leaseLost = true,
    loaderFailed = true, notHeld = true }
local ALLOWED_FROZEN = { timeout = true, unavailable = true, outcomeUnknown = true }

-- The minimal generator of Park and Miller: its products fit a double.
local function dice(seed)
    local state = (seed * 7919 + 12345) % 2147483646 + 1
    return function(sides)
        state = state * 16807 % 2147483647
        return state % sides + 1
    end
end

local Play = {}
Play.__index = Play

function Play:complain(text)
    if #self.complaints < 5 then
        self.complaints[#self.complaints + 1] = text
    end
end

-- One more moment at which the cache may be closed.
function Play:step()
    self.steps = self.steps + 1
    if self.freeze and self.steps == self.freeze_at then
        self.is_frozen = true
        self.freeze()
    end
    if self.steps == self.at then
        self:close()
    end
end

function Play:close()
    self.is_closing = true
    local cache = self.caches[1]
    local started = self.bed.now()
    if cache:close(self.close_timeout) ~= true then self:complain("close did not say true") end
    local took = self.bed.now() - started
    if took > self.close_timeout + self.slack then
        self:complain(("close(%.2f) took %.2f s"):format(self.close_timeout, took))
    end
    self.is_closed = true
end

function Play:has_closed(cache)
    return cache == self.caches[1] and self.is_closed
end

-- The end of a call that began when `was_closed`.
function Play:judge(what, was_closed, value, err)
    local code = type(err) == "table" and err.code
    if was_closed then
        if value ~= nil or code ~= "closed" then
            self:complain(what .. " after close gave " .. tostring(value) .. ", " .. tostring(err))
        end
    elseif code == "closed" then
        if not self.is_closing then self:complain(what .. " said closed before anybody closed") end
    elseif code and not ALLOWED[code] and not (self.freeze and ALLOWED_FROZEN[code]) then
        self:complain(what .. " gave " .. tostring(err))
    end
end

function Play:right(key, value)
    if value ~= nil and (type(value) ~= "string" or value:sub(1, 2) ~= key .. ":") then
        self:complain("'" .. key .. "' was " .. tostring(value))
    end
end

local function loader(play, roll, key, cache, depth)
    local pauses, ending, inner = roll(3) - 1, roll(10), depth == 0 and roll(4) == 1
    return function()
        play:step()
        for _ = 1, pauses do
            play.bed.pause()
            play:step()
        end
        if inner then play:call(roll, cache, 1) end
        if ending == 1 then return nil, "no luck" end
        if ending == 2 then return nil end
        if ending == 3 then error("no luck at all") end
        return key .. ":" .. roll(1000)
    end
end

local function first_error(values, failed)
    return next(values), select(2, next(failed))
end

-- What is tried: value, err of (play, roll, cache, key, depth).
local CALLS = {
    function(play, roll, cache, key)
        local value, err = cache:get(key, roll(3) == 1 and { fresh = true } or nil)
        play:right(key, value)
        return value, err
    end,
    function(_, roll, cache, key) return cache:set(key, key .. ":" .. roll(1000), 60) end,
    function(_, roll, cache, key)
        return cache:set(key, key .. ":" .. ("x"):rep(roll(30000)), 60)
    end,
    function(_, _, cache, key) return cache:delete(key) end,
    function(_, roll, cache, key)
        if roll(2) == 1 then return cache:exists(key) end
        return cache:ttl(key)
    end,
    function(play, roll, cache, key)
        local values, failed = cache:getMulti(KEYS, roll(2) == 1 and { near = false } or nil)
        play:right(key, values[key])
        return first_error(values, failed)
    end,
    function(_, roll, cache, key)
        local map = { [key] = key .. ":" .. roll(9), a = "a:m", b = "b:m" }
        local ok, failed = cache:setMulti(map)
        return ok, select(2, next(failed))
    end,
    function(_, _, cache, key) return cache:deleteMulti({ key, "a" }) end,
    function(play, roll, cache, key, depth)
        return cache:put(key, 60, loader(play, roll, key, cache, depth),
            { serveOld = roll(2) == 1 })
    end,
    function(play, roll, cache)
        return cache:withLock(LOCKS[roll(2)], { wait = 0.02 * (roll(2) - 1), ttl = 5 },
            function(lock)
                play:step()
                for _ = 1, roll(3) do
                    play.bed.pause()
                    play:step()
                end
                if roll(3) == 1 then lock:extend(10) end
                lock:held()
                return "done"
            end)
    end,
    function(play, roll, cache)
        local lock, err = cache:tryLock(LOCKS[roll(2)], { ttl = 5 })
        if not lock then return nil, err end
        play:step()
        play.bed.pause()
        local was_closed = play:has_closed(cache)
        play:judge("release", was_closed, lock:release())
        return true
    end,
    function(_, roll, cache, key)
        local memo = cache:request()
        memo:get(key)
        memo:set(key, key .. ":q" .. roll(9))
        return memo:get(key)
    end,
    function(_, _, cache, key)
        local below, err = cache:namespace("below")
        if not below then return nil, err end
        return below:get(key)
    end,
    function(_, _, cache) return cache:stats() end,
}
local function remember(play, roll, cache, key, depth)
    local value, err = cache:remember(key, 60, loader(play, roll, key, cache, depth),
        roll(4) == 1 and { fresh = true } or nil)
    play:right(key, value)
    return value, err
end

-- One call of a task; every second one is remember.
function Play:call(roll, cache, depth)
    self:step()
    local key, which = KEYS[roll(#KEYS)], roll(2 * #CALLS)
    local fn = CALLS[which] or remember
    local was_closed = self:has_closed(cache)
    local ran, value, err = pcall(fn, self, roll, cache, key, depth)
    local what = "call " .. (CALLS[which] and which or "remember")
    if not ran then
        self:complain(what .. " raised " .. tostring(value))
    elseif was_closed or err ~= nil then
        self:judge(what, was_closed, value, err)
    end
end

local function start_task(play, roll, cache, calls)
    local task = { is_ended = false }
    task.handle = play.bed.go(function()
        for _ = 1, calls do
            play:call(roll, cache, 0)
        end
        task.is_ended = true
    end)
    return task
end

-- Whether all tasks have ended; where the bed can, one that has not is killed now and then.
local function have_ended(play, tasks, roll)
    local alive
    for _, task in ipairs(tasks) do
        alive = alive or (not task.is_ended and task) or nil
    end
    if alive and play.kills and roll(play.kills) == 1 then
        alive.is_ended = true
        play.bed.kill(alive.handle)
    end
    return alive == nil
end

-- Waits as a task of the bed.
function Play:wait_for(what, seconds, condition)
    local deadline = self.bed.now() + seconds
    local is_so, why = condition()
    while not is_so do
        if self.bed.now() > deadline then
            return self:complain(("%s took more than %d s: %s"):format(what, seconds,
                tostring(why)))
        end
        self.bed.sleep(0.001)
        is_so, why = condition()
    end
end

-- The next caller finds no lease and no lock.
function Play:look_for_rests(open)
    local next_one = open({ group = "next", near = false, namespace = self.name })
    for _, name in ipairs(LOCKS) do
        self:wait_for("the lock " .. name, self.patience, function()
            local lock, err = next_one:tryLock(name)
            return lock and lock:release() or nil, err
        end)
    end
    for _, key in ipairs(KEYS) do
        self:wait_for("the lease of " .. key, self.patience, function()
            local deleted, why = next_one:delete(key)
            if deleted == nil then return nil, why end
            local value, err = next_one:remember(key, 60, function()
                return key .. ":next"
            end, { waitTimeout = 0.5 })
            return value ~= nil, err
        end)
    end
    next_one:close(0)
end

-- A codec that is a step of the history, too.
local function codec(play)
    return {
        id = 201, name = "stepping",
        encode = function(value)
            play:step()
            return value
        end,
        decode = function(bytes)
            play:step()
            return bytes
        end,
    }
end

local function play_in(play, open, roll)
    local with = { near = roll(3) > 1, codec = roll(3) == 1 and codec(play) or nil,
        namespace = play.name }
    play.caches = { open(with) }
    local shares = roll(4) == 1
    if shares then play.caches[2] = open(with) end -- on the same client
    local tasks, calls = {}, roll(3)
    play.kills = play.bed.kill and roll(3) == 1 and 5 or nil
    for i = 1, roll(5) do
        tasks[i] = start_task(play, dice(play.seed * 100 + i),
            play.caches[shares and i % 2 + 1 or 1], calls)
    end
    play:wait_for("the end of the tasks", play.patience, function()
        return have_ended(play, tasks, roll)
    end)
    if not play.is_closed then play:close() end
    play:call(roll, play.caches[1], 0)
    if play.caches[2] then play.caches[2]:close(play.close_timeout) end
    if play.is_frozen then play.thaw() end
    for _, cache in ipairs(play.caches) do
        local port = cache._client.port
        play:wait_for("the end of the port", play.patience, function()
            return port == nil or port.handle == nil and (port.count or 0) == 0
        end)
    end
    -- Where close was not to wait, nobody has heard whether Redis has taken them back.
    if not play.is_frozen and play.close_timeout == 1 then play:look_for_rests(open) end
end

--- @param options table open(options) makes a cache; seed, at (nil: no close before the end), slack
--- and patience (seconds); freeze, thaw (functions, where Redis is to stand still), freeze_at
--- @return string[] complaints
--- @return integer steps
function closing.play(bed, options)
    local roll = dice(options.seed)
    local play = setmetatable({
        bed = bed, seed = options.seed, at = options.at, steps = 0, complaints = {},
        slack = options.slack, patience = options.patience,
        freeze = options.freeze, thaw = options.thaw, freeze_at = options.freeze_at,
        close_timeout = ({ 0, 0.02, 1 })[roll(3)],
        name = ("seed%d.%s.%s"):format(options.seed, tostring(options.at),
            tostring(options.freeze_at)), -- no play meets what another has left
        is_closing = false, is_closed = false,
    }, Play)
    bed.run(function() play_in(play, options.open, roll) end)
    if play.is_frozen then play.thaw() end
    return play.complaints, play.steps
end

--- Plays the seeds first to last, each with a close at every one of its steps, for as long as
--- `seconds` allow, and four of them in any case; then some of them with a Redis that stands still.
--- @param options table as play; note(text) hears what is played; frozen (how many)
--- @return table result plays, complaints (texts with seed and step)
function closing.play_all(bed, options)
    local result = { plays = 0, complaints = {} }
    local function play(seed, at, freeze_at)
        options.note(("seed %d, step %s, frozen at %s"):format(seed, tostring(at),
            tostring(freeze_at)))
        local complaints, steps = closing.play(bed, setmetatable({
            seed = seed, at = at, freeze_at = freeze_at,
            freeze = freeze_at and options.freeze, thaw = freeze_at and options.thaw,
        }, { __index = options }))
        result.plays = result.plays + 1
        for _, text in ipairs(complaints) do
            result.complaints[#result.complaints + 1] =
                ("%s, seed %d, close at %s of %d, frozen at %s: %s"):format(bed.name, seed,
                    tostring(at), steps, tostring(freeze_at), text)
        end
        return steps
    end
    local deadline = bed.now() + options.seconds
    local function is_over()
        return #result.complaints > 3 or (result.plays > 3 and bed.now() > deadline)
    end
    for seed = options.first, options.last do
        local steps = play(seed)
        for at = 1, steps do
            if is_over() then break end
            play(seed, at)
        end
        if is_over() then break end
    end
    for i = 1, options.frozen or 0 do
        if #result.complaints > 3 then break end
        local at = 2 + i % 9
        play(options.first + i, at, math.max(1, at - i % 3))
    end
    return result
end

--- play_all as both specs do it: params are bed (its name), driver, url, note (a file that says
--- what is played, for the one that finds the process dead), pid (of Redis, where it is to stand
--- still), frozen, first, last, seconds, patience (of each call).
function closing.work(params)
    local clock, posix = require("spec.support.clock"), require("spec.support.posix")
    local bed = require("spec.support.closing_beds")[params.bed](params.driver)
    local note = assert(io.open(params.note, "w"))
    local function signal(number)
        return params.pid and function() posix.C.kill(params.pid, number) end
    end
    local result = closing.play_all(bed, {
        first = params.first, last = params.last, seconds = params.seconds,
        frozen = params.frozen, freeze = signal(posix.SIGSTOP), thaw = signal(posix.SIGCONT),
        slack = clock.scaled(1), patience = clock.scaled(10),
        note = function(text)
            note:seek("set")
            note:write(text, "    \n")
            note:flush()
        end,
        open = function(options)
            options.url, options.scheduler, options.clock = params.url, bed.scheduler, bed.clock
            options.driver = bed.driver
            options.leaseTtl, options.connectTimeout = 30, params.patience
            options.commandTimeout, options.waitTimeout = params.patience, params.patience
            return require("redcache").new(options)
        end,
    })
    note:close()
    return result
end

return closing
