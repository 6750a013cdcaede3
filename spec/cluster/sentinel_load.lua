-- One process at work on a set that sentinels watch: a foreign writer, a reader of near copies, or
-- a client that writes. A chunk for worker.lua: works until it is sent anything.
--
-- params: role ("writer", "reader", "setter"), url (of the set; for the two clients), sentinels
--         (their ports; for the writer), maxStale (for the reader).
-- Result: writer: acked = {{number, when}, ...} and kept = {{number, when}, ...}: at each change of
--         master, what the new one had. reader: runs = {{number, the last time that a read of it
--         began, the last time that a near hit of it began, or 0}, ...}. setter: acked = {{key,
--         sent, when}, ...}, errors = {text = count}.

local worker = ...
local clock = require("spec.support.clock")
local redcache = require("redcache")
local resp = require("spec.support.resp")

local params = worker.params
local KEY, PAUSE = "counter", 0.002

local function stopped()
    return worker:receive(0) ~= nil
end

-- ---- The writer: goes to the master that a majority names, as the sentinels say it just now.

local clients = {}

local function ask(port, ...)
    local ok, answer = pcall(function(...)
        clients[port] = clients[port] or resp.connect({ port = port })
        return clients[port]:call(...)
    end, ...)
    if ok then return answer end
    if clients[port] then clients[port]:close() end
    clients[port] = nil
end

local function find_master()
    local votes = {}
    for _, port in ipairs(params.sentinels) do
        local address = ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        local named = type(address) == "table" and tonumber(address[2])
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
        local named = find_master()
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
            if ask(master, "SET", KEY, number) == "OK" then
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

local function set()
    local cache = open({ near = false })
    local result = { acked = {}, errors = {}, calls = 0 }
    repeat
        result.calls = result.calls + 1
        local key, sent = "w" .. result.calls, clock.now()
        local ok, err = cache:set(key, key, 600)
        if ok then
            result.acked[#result.acked + 1] = { key, sent, clock.now() }
            if #result.acked == 1 then worker:emit("working") end
        else
            result.errors[err.code] = (result.errors[err.code] or 0) + 1
        end
        clock.sleep(0.001)
    until stopped()
    cache:close()
    return result
end

return ({ writer = write, reader = read, setter = set })[params.role]()
