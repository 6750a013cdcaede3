--- Callers at work on a cluster, in a process of their own: what they wrote and read, and what went
-- wrong. A chunk for worker.lua: params url, callers, namespace; works until it is sent anything.
--
-- What:   each caller has keys of its own, over all slots: it sets them, reads what it set, counts
--         by INCR (never repeated by the client), loads by remember, and takes locks.
-- Result: calls; errors = {text = count}; wrong = {text, ...}: what nobody may see; counted and
--         unknown, by key: increments that were acknowledged, and those whose outcome is unknown.

local worker = ...
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local clock = require("spec.support.clock")
local errors = require("redcache.errors")
local redcache = require("redcache")

local params = worker.params
local cache = redcache.new({
    url = params.url, scheduler = "coroutine", near = false, namespace = params.namespace,
    commandTimeout = params.timeout or 5, waitTimeout = 10,
})
local result = { calls = 0, errors = {}, wrong = {}, counted = {}, unknown = {}, slowest = 0 }
local stop = false

local function failed(err)
    local text = tostring(err.code) .. ": " .. tostring(err.message):gsub("'[^']*'", "?")
    result.errors[text] = (result.errors[text] or 0) + 1
end

local function wrong(text)
    result.wrong[#result.wrong + 1] = text
end

local function increment(key)
    local slot = assert(calls.take(cache._client, nil, "call"))
    local status = core_command.begin(slot, 0)
    core_command.command(slot, 2)
    core_command.argument(slot, "INCR")
    core_command.argument(slot, key)
    status = calls.send(cache, slot, status)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "call", key)
    end
    local nodes = core_command.nodes(slot)
    local number, fault = tonumber(nodes[0].integer), nodes[0].type == 45
        and core_command.node_failure(nodes[0], "call", key)
    core_slot.give(slot)
    if fault then return nil, fault end
    return number
end

local function work(caller)
    local turn = 0
    while not stop do
        turn = turn + 1
        local key = ("c%d:%d"):format(caller, turn % 50)
        local counter = params.namespace .. ":n" .. caller .. ":" .. turn % 10
        local began = clock.now()
        local value = caller .. ":" .. turn
        local ok, err = cache:set(key, value, 60)
        if not ok then
            failed(err)
        else
            local got, problem = cache:get(key)
            if problem then failed(problem)
            elseif got ~= value then wrong(("%s: %s after %s"):format(key, got, value)) end
        end
        local number, fault = increment(counter)
        if number then
            result.counted[counter] = (result.counted[counter] or 0) + 1
        else
            failed(fault)
            if fault.code == errors.UNKNOWN then
                result.unknown[counter] = (result.unknown[counter] or 0) + 1
            end
        end
        local loaded, load_err = cache:remember("r" .. key .. turn, 60, function()
            return value
        end)
        if load_err then failed(load_err) elseif loaded ~= value then wrong("remember") end
        local names = {}
        for i = 1, 10 do names[i] = ("c%d:%d"):format(caller, i) end
        local _, faults = cache:getMulti(names)
        for _, fault_of_key in pairs(faults or {}) do failed(fault_of_key) end
        local locked, lock_err = cache:withLock("l" .. caller % 4, { ttl = 5, wait = 5 },
            function() return true end)
        if not locked and lock_err then failed(lock_err) end
        result.calls = result.calls + 5
        result.slowest = math.max(result.slowest, clock.now() - began)
    end
end

redcache.run(function()
    for caller = 1, params.callers do redcache.spawn(work, caller) end
    redcache.spawn(function()
        worker:emit("working")
        while not stop do
            stop = worker:receive(0) ~= nil
            -- Others run meanwhile: this call waits for an answer.
            cache:exists("pause")
        end
    end)
end)
local stats = cache:stats()
result.redirections, result.refreshes = stats.redirections, stats.mapRefreshes
cache:close()
return result
