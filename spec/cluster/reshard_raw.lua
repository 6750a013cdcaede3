--- The callers of reshard_load.lua without redcache: what a client costs that does no more than
-- follow slots. A chunk for worker.lua: works until it is sent anything.
--
-- What:   a connection to each node, which all callers share, and a map of slots. A MOVED corrects
--         its slot in the map, an ASK goes to the other node behind ASKING.
-- params: port (of a node), callers, keys, rate (nil: as many as there can be), as there.
-- Result: errors = {text = count}; slowest (seconds); redirections.

local worker = ...
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local frame = require("spec.support.frame")
local posix = require("spec.support.posix")
local resp = require("spec.support.resp")
local socket = require("spec.support.socket")

local params = worker.params
local WRITES = 8 -- each eighth call is one
local VALUE = ("x"):rep(100)
local ASKING = frame.command({ "ASKING" })
local IGNORED = {} -- whose answer that is

local nodes, by_fd, owners = {}, {}, {}
local result = { errors = {}, slowest = 0, redirections = 0 }
local calls = 0

local function node_at(port)
    local node = nodes[port]
    if not node then
        local connection = assert(socket.connect({ port = port }, 5))
        node = { connection = connection, out = {}, buffer = "", asked = {}, first = 1, last = 0 }
        nodes[port], by_fd[connection.fd] = node, node
    end
    return node
end

local function put(node, bytes, caller)
    node.out[#node.out + 1] = bytes
    node.last = node.last + 1
    node.asked[node.last] = caller
end

local keys, slots = {}, {}
for i = 1, params.keys do
    keys[i] = "key:" .. i
    slots[i] = cluster.slot(keys[i])
end

local function begin_call(caller)
    local number = math.random(#keys)
    local key = keys[number]
    calls = calls + 1
    caller.slot, caller.began = slots[number], clock.now()
    caller.bytes = calls % WRITES == 0 and frame.command({ "SET", key, VALUE, "PX", "3600000" })
        or frame.command({ "GET", key })
    put(node_at(owners[caller.slot]), caller.bytes, caller)
end

local waiting = {} -- paced callers whose next call is not due yet

local function end_call(caller, failure)
    if failure then result.errors[failure] = (result.errors[failure] or 0) + 1 end
    local now = clock.now()
    result.slowest = math.max(result.slowest, now - caller.began)
    if not params.rate then return begin_call(caller) end
    caller.due = math.max(caller.due + params.callers / params.rate, now - 0.01)
    waiting[caller] = true
end

local function on_answer(caller, kind, text)
    if caller == IGNORED then return end
    local word, port = text:match("^(%u+) %d+ .*:(%d+)$")
    if kind ~= "-" then
        end_call(caller, text == "-1" and "nothing there" or nil)
    elseif word == "MOVED" or word == "ASK" then
        local node = node_at(tonumber(port))
        result.redirections = result.redirections + 1
        if word == "MOVED" then owners[caller.slot] = tonumber(port) end
        if word == "ASK" then put(node, ASKING, IGNORED) end
        put(node, caller.bytes, caller)
    else
        end_call(caller, text)
    end
end

local function receive(node)
    node.buffer = node.buffer .. (assert(node.connection:receive(0)))
    local at = 1
    while true do
        local after = frame.finish(node.buffer, at)
        if not after then break end
        local kind, text = frame.line(node.buffer, at)
        local caller = node.asked[node.first]
        node.asked[node.first] = nil
        node.first, at = node.first + 1, after
        on_answer(caller, kind, text)
    end
    node.buffer = node.buffer:sub(at)
end

local function learn_map()
    local client = resp.connect({ port = params.port })
    for _, range in ipairs(client:call("CLUSTER", "SLOTS")) do
        for slot = range[1], range[2] do owners[slot] = range[3][2] end
    end
    client:close()
end

-- Seconds until a paced caller's next call; those that are due have made it.
local function make_due_calls()
    local now, next_in = clock.now(), 0.01
    for caller in pairs(waiting) do
        if caller.due <= now then
            waiting[caller] = nil
            begin_call(caller)
        else
            next_in = math.min(next_in, caller.due - now)
        end
    end
    return next_in
end

learn_map()
for i = 1, params.callers do
    local caller = { due = clock.now() + (params.rate and i / params.rate or 0) }
    begin_call(caller)
end
worker:emit("working")
repeat
    local timeout, wanted = make_due_calls(), {}
    for fd, node in pairs(by_fd) do
        wanted[fd] = posix.POLLIN
        if node.out[1] then
            assert(node.connection:send(table.concat(node.out), 5))
            node.out = {}
        end
    end
    for fd in pairs(posix.poll(wanted, timeout)) do receive(by_fd[fd]) end
until worker:receive(0) ~= nil
for _, node in pairs(nodes) do node.connection:close() end
return result
