--- Callers that read and write in a cluster, for their number. A chunk for worker.lua: works until
-- it is sent anything.
--
-- params: url, callers, keys (so many: "key:1" and so on), first_slot (of those in use), rate
--         (calls per second of all callers, evenly; nil: as many as there can be).
-- Result: errors = {code = count}; slowest (seconds); redirections.

local worker = ...
local clock = require("spec.support.clock")
local redcache = require("redcache")

local params = worker.params
local WRITES = 8 -- each eighth call is one
local VALUE = ("x"):rep(100)

local cache = redcache.new({
    url = params.url, scheduler = "coroutine", near = false, codec = "raw", plain = true,
    commandTimeout = 5,
})
local result = { errors = {}, slowest = 0 }
local stop, calls = false, 0

local keys = {}
for i = 1, params.keys do
    local key = "key:" .. i
    if redcache.slot(key) >= params.first_slot then keys[#keys + 1] = key end
end

-- Until the caller's next call is due. While nothing is due the process sleeps.
local function wait_for(due)
    while clock.now() < due and not stop do
        clock.sleep(0.0005)
        coroutine.yield()
    end
end

local function work()
    local due = clock.now()
    while not stop do
        if params.rate then
            -- What could not be done in time is not made up for: a load that waits is less load.
            due = math.max(due + params.callers / params.rate, clock.now() - 0.01)
            wait_for(due)
        end
        local key, began = keys[math.random(#keys)], clock.now()
        local ok, err
        calls = calls + 1
        if calls % WRITES == 0 then
            ok, err = cache:set(key, VALUE, 3600)
        else
            ok, err = cache:get(key)
        end
        if not ok then
            local code = err and err.code or "nothing there"
            result.errors[code] = (result.errors[code] or 0) + 1
        end
        result.slowest = math.max(result.slowest, clock.now() - began)
    end
end

redcache.run(function()
    for _ = 1, params.callers do redcache.spawn(work) end
    redcache.spawn(function()
        worker:emit("working")
        while not stop do
            stop = worker:receive(0) ~= nil
            if params.rate then wait_for(clock.now() + 0.01) else cache:exists("pause") end
        end
    end)
end)
result.redirections = cache:stats().redirections
cache:close()
return result
