-- One process at work on a set that sentinels watch: a foreign writer, a reader of near copies, a
-- client that writes, one that takes locks and leases, or one that looks at all servers. A chunk
-- for worker.lua: works until it is sent anything.
--
-- params: role ("writer", "reader", "setter", "holder", "watcher"), url (of the set; for the
--         clients), user and password (who they are to the sentinels; nil), sentinels (their
--         ports), nodes (theirs; for the watcher), maxStale (for the reader).
-- Result: writer: acked = {{number, when}, ...} and kept = {{number, when}, ...}: at each change of
--         master, what the new one had. reader: runs = {{number, the last time that a read of it
--         began, the last time that a near hit of it began, or 0}, ...}. setter: acked = {{key,
--         sent, when}, ...}, errors = {text = count}, pauses = {{when it ended, how long}, ...}:
--         in which the process had no processor. holder: locks, loads, errors, pauses. watcher:
--         promoted = {{port, when}, ...}, named = {{port, when, late, until, gap}, ...}: a majority
--         has named that port; how many SETs the master before it, as long as it was one, has done
--         since, when the last of them was seen, and the longest time between two looks.

local worker = ...
local clock = require("spec.support.clock")
local redcache = require("redcache")
local resp = require("spec.support.resp")

local params = worker.params
local KEY, PAUSE, LONG_PAUSE = "counter", 0.002, 0.02

local function stopped()
    return worker:receive(0) ~= nil
end

-- ---- The writer: goes to the master that a majority names, as the sentinels say it just now.

local clients = {}

local function ask(port, ...)
    local ok, answer = pcall(function(...)
        clients[port] = clients[port] or resp.connect({ port = port }, { timeout = 1 })
        return clients[port]:call(...)
    end, ...)
    if ok then return answer end
    if clients[port] then clients[port]:close() end
    clients[port] = nil
end

-- The port that a sentinel names.
local function word_of(port)
    local address = ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
    return type(address) == "table" and tonumber(address[2]) or nil
end

-- The port that most sentinels name, of what word() says for each of them.
local function majority(word)
    local votes = {}
    for _, port in ipairs(params.sentinels) do
        local named = word(port)
        if named then
            votes[named] = (votes[named] or 0) + 1
            if votes[named] > #params.sentinels / 2 then return named end
        end
    end
end

local function write()
    local result = { acked = {}, kept = {} }
    local number, master = 0, nil
    repeat
        local named = majority(word_of)
        if named and named ~= master then
            local kept = ask(named, "GET", KEY)
            -- A master that has just been promoted, or is away, answers later.
            if type(kept) == "string" or (master == nil and number == 0) then
                master = named
                result.kept[#result.kept + 1] = { tonumber(kept) or 0, clock.now() }
            end
        end
        if master and named == master then
            number = number + 1
            -- Not SET: those are the clients', and the watcher counts them.
            if ask(master, "SETEX", KEY, 3600, number) == "OK" then
                result.acked[#result.acked + 1] = { number, clock.now() }
                if number == 1 then worker:emit("working") end
            end
        end
        clock.sleep(PAUSE)
    until stopped()
    return result
end

-- ---- The clients.

local function open(options)
    options.url, options.codec, options.commandTimeout = params.url, "raw", 1
    options.sentinelUser, options.sentinelPassword = params.user, params.password
    return redcache.new(options)
end

local function read()
    local cache = open({ maxStale = params.maxStale, near = true })
    local runs, last, near, reads = {}, nil, 0, 0
    repeat
        for _ = 1, 200 do
            local began = clock.now()
            local value, _, source = cache:get(KEY)
            local number = tonumber(value)
            if number then
                if not last or last[1] ~= number then
                    last = { number, began, 0 }
                    runs[#runs + 1] = last
                    if #runs == 1 then worker:emit("working") end
                end
                last[2] = began
                reads = reads + 1
                if source == "near" or source == "l0" then
                    near, last[3] = near + 1, began
                end
            end
        end
        clock.sleep(0.0005)
    until stopped()
    cache:close()
    return { runs = runs, near = near, reads = reads }
end

-- Sleeps, and notes where the machine has made that longer: what a client does first then it does
-- before it can have heard any news.
local function pause(seconds, pauses)
    local began = clock.now()
    clock.sleep(seconds)
    local took = clock.now() - began
    if took > seconds + LONG_PAUSE then pauses[#pauses + 1] = { began + took, took } end
end

local function set()
    local cache = open({ near = false })
    local result = { acked = {}, errors = {}, calls = 0, pauses = {} }
    repeat
        result.calls = result.calls + 1
        local key, sent = "w" .. result.calls, clock.now()
        local ok, err = cache:set(key, key, 3600)
        if ok then
            result.acked[#result.acked + 1] = { key, sent, clock.now() }
            if #result.acked == 1 then worker:emit("working") end
        else
            result.errors[err.code] = (result.errors[err.code] or 0) + 1
        end
        pause(0.001, result.pauses)
    until stopped()
    cache:close()
    return result
end

-- Locks and leases alike: scripts whose inner SET the watcher sees.
local function hold()
    local cache = open({ near = false })
    local result = { locks = 0, loads = 0, errors = {}, pauses = {} }
    worker:emit("working")
    repeat
        local number = result.locks + result.loads
        local held, err = cache:withLock("lock", { ttl = 5, wait = 0 }, function() return 1 end)
        result.locks = result.locks + (held and 1 or 0)
        if err then result.errors[err.code] = (result.errors[err.code] or 0) + 1 end
        cache:remember("load" .. number % 100, 5, function()
            result.loads = result.loads + 1
            return number
        end)
        cache:delete("load" .. number % 100)
        pause(0.005, result.pauses)
    until stopped()
    cache:close()
    return result
end

-- ---- The watcher.

-- Whether the node is a master, and how many SETs it has done; nil: it does not answer.
local function look_at(port)
    local info = ask(port, "INFO", "replication", "commandstats")
    if type(info) ~= "string" then return nil end
    return info:find("role:master", 1, true) ~= nil,
        tonumber(info:match("cmdstat_set:calls=(%d+)") or 0)
end

local function watch()
    local result = { promoted = {}, named = {} }
    local masters, sets, words, last = {}, {}, {}, nil
    local old -- the master that was named before, as long as it takes itself for one
    local looked = clock.now()
    repeat
        local change = result.named[#result.named]
        for _, port in ipairs(params.nodes) do
            local is_master, count = look_at(port)
            local now = clock.now()
            if is_master and masters[port] == false then
                result.promoted[#result.promoted + 1] = { port, now }
            end
            if port == old and is_master and count > sets[port] then
                change[3], change[4] = change[3] + count - sets[port], now
            elseif port == old and is_master == false then
                old = nil
            end
            -- At a change of role it ends our connection, too: then the next look tells.
            if is_master ~= nil then masters[port], sets[port] = is_master, count end
        end
        for _, port in ipairs(params.sentinels) do words[port] = word_of(port) or words[port] end
        local named, now = majority(function(port) return words[port] end), clock.now()
        if change then change[5] = math.max(change[5], now - looked) end
        looked = now
        if named and named ~= last then
            result.named[#result.named + 1] = { named, now, 0, 0, 0 }
            if not last then worker:emit("working") end
            old, last = last, named
        end
        clock.sleep(0.001)
    until stopped()
    return result
end

local ROLES = { writer = write, reader = read, setter = set, holder = hold, watcher = watch }
return ROLES[params.role]()
