--- Many clients of a cluster in one process: how often each asks for the slot map. A chunk for
-- worker.lua: works until it is sent anything.
--
-- params: url, clients, near (false; else a maxStale: values are read near, with that one), seed.
-- Result: clients = {{{before, after, count}, ...}, ...}: of each client, when its count was read
--         (it was that at some instant between the two), mostly where it has changed; calls, errors
--         = {code = count}.

local worker = ...
local clock = require("spec.support.clock")
local redcache = require("redcache")

local params = worker.params
local KEYS, PAUSE = 1000, 0.001
local result = { clients = {}, calls = 0, errors = {} }
local stop = false

math.randomseed(params.seed)

local function note(samples, cache)
    local before = clock.now()
    local count = cache:stats().mapRefreshes
    local sample, last = { before, clock.now(), count }, samples[#samples]
    -- The last one before a change and the first one behind it.
    if last and last[3] == count and samples[#samples - 1]
        and samples[#samples - 1][3] == count then
        samples[#samples] = sample
    else
        samples[#samples + 1] = sample
    end
end

local function failed(err)
    result.errors[err.code] = (result.errors[err.code] or 0) + 1
end

local function work(number)
    local cache = redcache.new({
        url = params.url, scheduler = "coroutine", group = "g" .. number,
        near = params.near and { bytes = 1048576 } or false, maxStale = params.near or nil,
        commandTimeout = 2,
    })
    local samples = {}
    result.clients[number] = samples
    repeat
        local key = "k" .. math.random(KEYS)
        local _, err = cache:set(key, number, 60)
        if err then failed(err) end
        note(samples, cache)
        _, err = cache:get("k" .. math.random(KEYS))
        if err then failed(err) end
        note(samples, cache)
        result.calls = result.calls + 2
        clock.sleep(PAUSE)
        coroutine.yield()
    until stop
    cache:close()
end

redcache.run(function()
    for number = 1, params.clients do redcache.spawn(work, number) end
    redcache.spawn(function()
        repeat
            if result.calls > 20 * params.clients and not result.is_told then
                result.is_told = true
                worker:emit("working")
            end
            stop = worker:receive(0) ~= nil
            coroutine.yield()
        until stop
    end)
end)
return result
