--- Callers that load and lock in a cluster, in a process of their own: what they loaded and held,
-- and when. A chunk for worker.lua: works until it is sent anything.
--
-- params: url, tags (of the keys' slots), locks (their names), seed, callers (nil: one, which
--         blocks; else so many coroutines), timeout, wait, ttl (commandTimeout, waitTimeout and
--         lockWait, lockTtl).
-- What:   all processes ask for the same keys at the same time: keys of a window of time, which
--         nobody asks for later. Locks are mostly held for some milliseconds, and some for longer
--         than their ttl.
-- Result: loads = {{key, began, ended, flag}, ...}; holds = {{name, fence, from, to, learnt,
--         ended, left}, ...}: the handle called itself valid from `from` to `to` at least, and
--         would have for `left` seconds more; it found itself lost at `learnt` (0: never; release()
--         may have said so), and ended with "released" or the code of an error; calls, overrun =
--         {call = n or seconds}: by how much the slowest was behind its deadline, less what its
--         process waited for a processor; errors = {text = count}; wrong = {text, ...}.
-- Time:   seconds of the monotonic clock that all processes share.

local worker = ...
local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local waited = require("spec.near.waited")

local params = worker.params
local WINDOW, KEYS = 0.25, 12
local SHORT, LONG, LONG_SHARE = 0.02, 1.5, 0.03
local TTL, TOLD = 60, 10

math.randomseed(params.seed)
local cache = redcache.new({
    url = params.url, scheduler = params.callers and "coroutine" or "blocking", near = false,
    commandTimeout = params.timeout, waitTimeout = params.wait, lockWait = params.wait,
    lockTtl = params.ttl, group = "once" .. worker.index,
})
local result = { loads = {}, holds = {}, calls = {}, overrun = {}, errors = {}, wrong = {} }
local watch, stop

local function wrong(text, ...)
    if #result.wrong < TOLD then result.wrong[#result.wrong + 1] = text:format(...) end
end

local function failed(call, err)
    local text = call .. ": " .. tostring(err.code)
    result.errors[text] = (result.errors[text] or 0) + 1
end

-- A coroutine lets the others run by waiting for an answer.
local function pause(seconds)
    local ends = clock.now() + seconds
    repeat
        clock.sleep(math.min(0.001, seconds))
        if params.callers then cache:exists("pause") end
    until clock.now() >= ends
end

-- The results of fn(...), which has to end within `seconds`, and what the user's own function
-- takes (own.seconds) besides.
local function timed(call, seconds, own, fn, ...)
    local stolen, began = watch:seconds(), clock.now()
    local function finish(...)
        local took = clock.now() - began - own.seconds - (watch:seconds() - stolen)
        result.calls[call] = (result.calls[call] or 0) + 1
        result.overrun[call] = math.max(result.overrun[call] or -math.huge, took - seconds)
        return ...
    end
    return finish(fn(...))
end

local NOTHING = { seconds = 0 }
local LOSSES = { [redcache.errors.notHeld] = true, [redcache.errors.lockLost] = true }

local function remember()
    local window = math.floor(clock.now() / WINDOW)
    local number = math.random(KEYS)
    local tag = params.tags[(window * KEYS + number) % #params.tags + 1]
    local key = ("{%s}:%d:%d"):format(tag, window, number)
    local own, loads = { seconds = 0 }, {}
    -- Redis may be silent for a timeout before, and as long where the value is stored.
    local value, err, _, flag = timed("remember", math.max(params.wait, params.timeout)
        + params.timeout, own, cache.remember, cache, key, TTL, function()
            local began = clock.now()
            pause(math.random() * SHORT)
            loads[#loads + 1] = { key, began, clock.now(), "" }
            own.seconds = own.seconds + loads[#loads][3] - began
            return key
        end)
    for _, load in ipairs(loads) do
        load[4] = flag or ""
        result.loads[#result.loads + 1] = load
    end
    if err then
        failed("remember", err)
    elseif value ~= key then
        wrong("%s was answered with %s", key, tostring(value))
    end
end

local function hold_lock()
    local name = params.locks[math.random(#params.locks)]
    local lock = cache:lock(name)
    local ok, err = timed("acquire", params.wait + params.timeout, NOTHING, lock.acquire, lock)
    if not ok then
        failed("acquire", err)
        return
    end
    local is_long = math.random() < LONG_SHARE
    local ends = clock.now() + math.random() * (is_long and LONG * params.ttl or SHORT)
    local fence, from, to, left, learnt = lock.fence, nil, 0, 0, 0
    repeat
        local before = clock.now()
        if not lock:valid() then
            learnt = clock.now()
            break
        end
        from, to = from or clock.now(), before
        left = lock:ttl() - 0.001 -- it is rounded up
        pause(0.001)
    until stop or clock.now() >= ends
    local released, problem = timed("release", params.timeout, NOTHING, lock.release, lock)
    if learnt == 0 and problem and LOSSES[problem.code] then learnt = clock.now() end
    if released and learnt ~= 0 then wrong("%s was lost, and could be released", name) end
    result.holds[#result.holds + 1] = { name, fence, from or 0, to, learnt,
        released and "released" or problem.code, left }
end

local function work()
    while not stop do
        remember()
        local key = ("{%s}:g"):format(params.tags[math.random(#params.tags)])
        local ok, err = timed("set", params.timeout, NOTHING, cache.set, cache, key, 1, TTL)
        if not ok then failed("set", err) end
        local _, problem = timed("get", params.timeout, NOTHING, cache.get, cache, key)
        if problem then failed("get", problem) end
        if math.random() < 0.5 then hold_lock() end
        if not params.callers then stop = stop or worker:receive(0) ~= nil end
    end
end

local function begin()
    assert(cache:set("warm", 1, TTL))
    watch = waited.watch({ posix.C.getpid() }, true)
    worker:emit("working")
end

if params.callers then
    redcache.run(function()
        begin()
        for _ = 1, params.callers do redcache.spawn(work) end
        redcache.spawn(function()
            repeat
                pause(0.01)
                stop = worker:receive(0) ~= nil
            until stop
        end)
    end)
else
    begin()
    work()
end
cache:close()
return result
