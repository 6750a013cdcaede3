--- A foreign client: a small Redis client of its own, so that specs never check redcache with
-- redcache.
--
-- What:   RESP2 and RESP3, pipelines, pushes, any bytes in keys and values.
-- Errors: call() throws what Redis answered; try() returns nil, text. A broken connection always
--         throws.
-- Values: a null is resp.NULL inside answers and nil as a whole answer; maps are tables by key; an
--         error inside a pipeline or an aggregate is {error = text}.

local clock = require("spec.support.clock")
local frame = require("spec.support.frame")
local socket = require("spec.support.socket")

local resp = { NULL = setmetatable({}, { __tostring = function() return "NULL" end }) }

local Client = {}
Client.__index = Client

local TIMEOUT = 5
local DOUBLES = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }

local function is_error(value)
    return type(value) == "table" and value.error ~= nil
end

local read_value

local function read_elements(bytes, at, count)
    local list = {}
    for i = 1, count do list[i], at = read_value(bytes, at) end
    return list, at
end

local function read_map(bytes, at, pairs_count)
    local map = {}
    for _ = 1, pairs_count do
        local key, value
        key, at = read_value(bytes, at)
        value, at = read_value(bytes, at)
        map[key] = value
    end
    return map, at
end

-- The bytes are complete (frame.finish has seen them). Nesting is what a real server answers:
-- shallow.
function read_value(bytes, from)
    local kind, text, at = frame.line(bytes, from)
    local number = tonumber(text)
    if kind == "+" or kind == "(" then return text, at end
    if kind == "-" then return { error = text }, at end
    if kind == ":" then return number, at end
    if kind == "_" then return resp.NULL, at end
    if kind == "#" then return text == "t", at end
    if kind == "," then return DOUBLES[text] or number, at end
    if number < 0 then return resp.NULL, at end
    if kind == "%" then return read_map(bytes, at, number) end
    if kind == "|" then
        local _, after = read_map(bytes, at, number)
        return read_value(bytes, after)
    end
    if kind == "*" or kind == "~" or kind == ">" then return read_elements(bytes, at, number) end
    local payload = bytes:sub(at, at + number - 1)
    if kind == "!" then return { error = payload }, at + number + 2 end
    return kind == "=" and payload:sub(5) or payload, at + number + 2
end

local function introduce(self, options)
    if options.resp == 2 then
        if options.password then self:call("AUTH", options.user or "default", options.password) end
    else
        local hello = { "HELLO", "3" }
        if options.password then
            hello[3], hello[4], hello[5] = "AUTH", options.user or "default", options.password
        end
        self:call(unpack(hello))
    end
    if options.name then self:call("CLIENT", "SETNAME", options.name) end
    if options.db then self:call("SELECT", options.db) end
end

--- Connects to {port=} or {path=}; a server of server.lua is one, reached by TCP.
-- Options: resp (3), user, password, db, name, timeout (5).
function resp.connect(where, options)
    options = options or {}
    local timeout = options.timeout or TIMEOUT
    local connection, err = socket.connect(where, clock.scaled(timeout))
    if not connection then error("could not connect: " .. err, 2) end
    local self = setmetatable({
        connection = connection, buffer = "", at = 1, pushes = {}, timeout = timeout,
    }, Client)
    local ok, cause = pcall(introduce, self, options)
    if ok then return self end
    connection:close()
    error(cause, 0)
end

--- Sends commands without reading answers: {{"GET", "a"}, {"GET", "b"}}.
function Client:send(commands)
    local parts = {}
    for i, words in ipairs(commands) do parts[i] = frame.command(words) end
    return self:send_raw(table.concat(parts))
end

function Client:send_raw(bytes)
    local ok, err = self.connection:send(bytes, clock.scaled(self.timeout))
    if not ok then error("could not send: " .. err, 3) end
end

-- One message: its type and value; nil, "timeout".
function Client:message(deadline)
    while true do
        -- Messages are read where they stand: MONITOR tells megabytes of small ones at once.
        local at = self.at
        local after = at <= #self.buffer and frame.finish(self.buffer, at)
        if after then
            self.at = after
            return self.buffer:sub(at, at), (read_value(self.buffer, at))
        end
        local bytes, err = self.connection:receive(clock.left(deadline))
        if not bytes then
            if err == "timeout" then return nil, err end
            error("could not receive: " .. err, 0)
        end
        -- A large answer comes in many pieces: join them once.
        local parts = { self.buffer:sub(at), bytes }
        for _ = 1, 64 do
            bytes = #parts[#parts] >= 65536 and self.connection:receive(0)
            if not bytes then break end
            parts[#parts + 1] = bytes
        end
        self.buffer, self.at = table.concat(parts), 1
    end
end

--- The next answer; pushes that come first are kept for push(). Throws after `timeout` seconds (5).
function Client:read(timeout)
    local deadline = clock.deadline(timeout or self.timeout)
    while true do
        local kind, value = self:message(deadline)
        if not kind then error("could not read an answer: timeout", 2) end
        if kind ~= ">" then return value end
        self.pushes[#self.pushes + 1] = value
    end
end

--- The next push; nil when none comes within `timeout` seconds (0, not stretched).
function Client:push(timeout)
    local deadline = clock.now() + (timeout or 0)
    while #self.pushes == 0 do
        local kind, value = self:message(deadline)
        if not kind then return nil end
        if kind ~= ">" then error("an answer nobody asked for", 2) end
        self.pushes[#self.pushes + 1] = value
    end
    return table.remove(self.pushes, 1)
end

--- One command's answer; nil, text when Redis answers with an error.
function Client:try(...)
    self:send({ { ... } })
    local value = self:read()
    if is_error(value) then return nil, value.error end
    if value == resp.NULL then return nil end
    return value
end

--- One command's answer; throws when it is an error.
function Client:call(...)
    local value, err = self:try(...)
    if err then error(("%s: %s"):format((...), err), 2) end
    return value
end

--- The answers to many commands sent in one write.
function Client:pipeline(commands)
    self:send(commands)
    local answers = {}
    for i = 1, #commands do answers[i] = self:read() end
    return answers
end

--- True when the server has ended the connection.
function Client:is_ended()
    local bytes, err = self.connection:receive(0)
    self.buffer = self.buffer .. (bytes or "")
    return not bytes and err ~= "timeout"
end

function Client:close()
    self.connection:close()
end

return resp
