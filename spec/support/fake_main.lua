-- The fake server's own process (fake.lua tells what it does).

local clock = require("spec.support.clock")
local frame = require("spec.support.frame")
local posix = require("spec.support.posix")
local socket = require("spec.support.socket")

local IDLE_SECONDS = 60
local SEND_SECONDS = 2
local CUT = "cut"
local SUBCOMMANDS = { client = true, config = true, script = true, acl = true }

local HELLO = "%7\r\n" .. frame.bulk("server") .. frame.bulk("redis")
    .. frame.bulk("version") .. frame.bulk("7.0.15") .. frame.bulk("proto") .. ":3\r\n"
    .. frame.bulk("id") .. ":7\r\n" .. frame.bulk("mode") .. frame.bulk("standalone")
    .. frame.bulk("role") .. frame.bulk("master") .. frame.bulk("modules") .. "*0\r\n"

local GREETINGS = {
    hello = HELLO, auth = "+OK\r\n", select = "+OK\r\n", client = "+OK\r\n",
    ["client|id"] = ":7\r\n", info = frame.bulk("role:master\r\n"), ping = "+PONG\r\n",
    command = "*0\r\n",
    ["*"] = "-ERR unknown command\r\n",
}

local replies, connections, requests, dribble

local function send(connection, bytes)
    if not dribble then return connection:send(bytes, SEND_SECONDS) end
    for at = 1, #bytes, dribble do
        if not connection:send(bytes:sub(at, at + dribble - 1), SEND_SECONDS) then return nil end
        clock.sleep(1e-6)
    end
    return true
end

-- Where the answer stands: scripted for this command, Redis' greeting, scripted for all, an error.
local function find_reply(words)
    local name = (words[1] or ""):lower()
    local full = SUBCOMMANDS[name] and words[2] and name .. "|" .. words[2]:lower() or name
    for _, source in ipairs({ replies, GREETINGS }) do
        for _, key in ipairs({ full, name }) do
            if source[key] ~= nil then return source, key end
        end
    end
    return replies["*"] ~= nil and replies or GREETINGS, "*"
end

-- A scripted list gives one answer each time and keeps its last.
local function answer(connection, words)
    requests[#requests + 1] = words
    local source, key = find_reply(words)
    local reply = source[key]
    if type(reply) == "table" then reply = #reply > 1 and table.remove(reply, 1) or reply[1] end
    if not reply then return true end
    if reply == CUT then return nil end
    if reply:find("$ARGS", 1, true) then
        local told = table.concat(words, " "):gsub("[%c]", "?"):gsub("%%", "%%%%")
        reply = reply:gsub("%$ARGS", told)
    end
    if key == "ping" and source == GREETINGS and words[2] then reply = frame.bulk(words[2]) end
    return send(connection, reply)
end

local function serve(connection)
    local bytes, err = connection:receive(0)
    if not bytes then return err == "timeout" end
    connections[connection] = connections[connection] .. bytes
    while true do
        local buffer = connections[connection]
        local ok, words, after = pcall(frame.request, buffer, 1)
        if not ok then return nil end
        if not words then return true end
        connections[connection] = buffer:sub(after)
        if not answer(connection, words) then return nil end
    end
end

local function each(fn)
    local list = {}
    for connection in pairs(connections) do list[#list + 1] = connection end
    for _, connection in ipairs(list) do fn(connection) end
    return #list
end

local function drop(connection)
    connections[connection] = nil
    connection:reset()
end

local orders = {}

function orders.script(order)
    for name, reply in pairs(order.replies) do replies[name:lower()] = reply end
end

function orders.push(order)
    return each(function(connection) send(connection, order.bytes) end)
end

function orders.cut()
    return each(drop)
end

function orders.requests()
    return requests
end

local function turn(worker, listener)
    local wanted = { [worker.connection.fd] = posix.POLLIN, [listener.fd] = posix.POLLIN }
    for connection in pairs(connections) do wanted[connection.fd] = posix.POLLIN end
    local ready = posix.poll(wanted, IDLE_SECONDS)
    each(function(connection)
        if ready[connection.fd] and not serve(connection) then drop(connection) end
    end)
    if ready[listener.fd] then
        local connection = listener:accept(0)
        if connection then connections[connection] = "" end
    end
    if not ready[worker.connection.fd] then return true end
    local order, err = worker:receive(0)
    if not order then return err == "timeout" end
    worker:emit("answer", { result = orders[order.order](order) })
    return true
end

return function(worker)
    replies, connections, requests, dribble = {}, {}, {}, worker.params.dribble
    orders.script(worker.params)
    local listener = assert(socket.listen({ port = worker.params.port }))
    worker:emit("listening")
    while turn(worker, listener) do end
end
