--- The same commands for two servers, whose bytes must be the same.
--
-- What:   a step is {connection, {words}, {words}, ...}: these commands in one write. After it,
--         each connection of both servers is asked for an echo; what came before it is compared,
--         message by message, pushes in their places.
-- Not:    numbers of commands that tell the time or an id may differ; the order of what SCAN and
--         KEYS list does not count.

local clock = require("spec.support.clock")
local frame = require("spec.support.frame")
local socket = require("spec.support.socket")

local twins = {}
local Twins = {}
Twins.__index = Twins

local TIMEOUT = 10
-- How far the numbers in two answers may lie apart: seconds, or milliseconds, or microseconds, for
-- the servers are asked one after the other, and the machine may stop in between; ids of
-- connections.
local TOLERANCES = {
    TTL = 2, EXPIRETIME = 2, PTTL = 900, PEXPIRETIME = 900, TIME = 5e6, EVAL = 5e6, EVALSHA = 5e6,
    HELLO = 1e9, CLIENT = 1e9,
}
local UNORDERED = { SCAN = true, KEYS = true }
local FRESH = { "RESET" }

local function connect(port)
    local connection = assert(socket.connect({ port = port }, clock.scaled(TIMEOUT)))
    return { connection = connection, bytes = "" }
end

-- All messages before the echo of `mark`; "<closed>" ends them when the server has hung up.
local function collect(peer, mark)
    local deadline = clock.deadline(TIMEOUT)
    local messages, from = {}, 1
    while true do
        local after = from <= #peer.bytes and frame.finish(peer.bytes, from)
        if after then
            local message = peer.bytes:sub(from, after - 1)
            from = after
            if message == mark then break end
            messages[#messages + 1] = message
        else
            local bytes, err = peer.connection:receive(clock.left(deadline))
            if not bytes then
                if err == "timeout" then error("no answer in time, after: " ..
                    tostring(messages[#messages])) end
                messages[#messages + 1] = "<closed>"
                peer.closed = true
                break
            end
            peer.bytes = peer.bytes:sub(from) .. bytes
            from = 1
        end
    end
    peer.bytes = peer.bytes:sub(from)
    return messages
end

-- Each line of both, the numbers in it apart.
local function differs_by_more(a, b, tolerance)
    local first, second = {}, {}
    for line in a:gmatch("[^\n]*\n") do first[#first + 1] = line end
    for line in b:gmatch("[^\n]*\n") do second[#second + 1] = line end
    if #first ~= #second then return true end
    for i, line in ipairs(first) do
        local x, y = tonumber(line:match("^:?(%d+)\r")), tonumber(second[i]:match("^:?(%d+)\r"))
        local is_close = x and y and x > 0 and y > 0 and math.abs(x - y) <= tolerance
        if line ~= second[i] and not is_close then return true end
    end
    return false
end

local function sorted_lines(message)
    local lines = {}
    for line in message:gmatch("[^\n]*\n") do lines[#lines + 1] = line end
    table.sort(lines)
    return table.concat(lines)
end

local function same(a, b, command)
    if a == b then return true end
    if not a or not b or not command then return false end
    if UNORDERED[command] then return sorted_lines(a) == sorted_lines(b) end
    return TOLERANCES[command] and not differs_by_more(a, b, TOLERANCES[command]) or false
end

local function is_push(message)
    return message and message:sub(1, 1) == ">"
end

-- Keys that expired under SCAN are told in the order it meets them.
local function sort_pushes(messages)
    local from = 1
    while from <= #messages do
        local to = from
        while is_push(messages[to]) do to = to + 1 end
        local pushes = { unpack(messages, from, to - 1) }
        table.sort(pushes)
        for i, push in ipairs(pushes) do messages[from + i - 1] = push end
        from = to + 1
    end
end

local function quoted(word)
    return '"' .. tostring(word):gsub('[%c"\\\128-\255]', function(c)
        if c == "\r" then return "\\r" end
        if c == "\n" then return "\\n" end
        return ("\\x%02x"):format(c:byte())
    end) .. '"'
end

local function name_of(words)
    return tostring(words[1]):upper()
end

-- nil, or what differs on this connection.
local function compare(real, ours, commands, unordered)
    if unordered then
        sort_pushes(real)
        sort_pushes(ours)
    end
    local answered = 0
    for i = 1, math.max(#real, #ours) do
        local command
        if real[i] and not is_push(real[i]) then
            answered = answered + 1
            command = commands[answered] and name_of(commands[answered])
        end
        if not same(real[i], ours[i], command) then
            return ("Redis: %s\nstore: %s"):format(quoted(real[i]), quoted(ours[i]))
        end
    end
end

--- Twins of two ports, with so many connections each.
function twins.new(redis_port, store_port, connections)
    local self = setmetatable({ ports = { redis_port, store_port }, count = connections }, Twins)
    self:open()
    return self
end

function Twins:open()
    self.peers, self.echoes, self.commands = {}, 0, 0
    for which, port in ipairs(self.ports) do
        self.peers[which] = {}
        for i = 1, self.count do self.peers[which][i] = connect(port) end
    end
end

function Twins:close()
    for _, peers in ipairs(self.peers) do
        for _, peer in ipairs(peers) do peer.connection:close() end
    end
end

--- Both empty, connections as new.
function Twins:reset()
    for i = 1, self.count do self:step({ i, FRESH }) end
    self:step({ 1, { "FLUSHALL" }, { "SCRIPT", "FLUSH" } })
end

local function send(peer, bytes)
    if not peer.closed then peer.connection:send(bytes, clock.scaled(TIMEOUT)) end
end

--- One step; nil, or what differs.
function Twins:step(step)
    local parts, unordered = {}, false
    for i = 2, #step do
        parts[#parts + 1] = frame.command(step[i])
        unordered = unordered or UNORDERED[name_of(step[i])]
    end
    self.commands = self.commands + #step - 1
    self.echoes = self.echoes + 1
    local text = "echo " .. self.echoes
    local echo, mark = frame.command({ "ECHO", text }), frame.bulk(text)
    for _, peers in ipairs(self.peers) do
        send(peers[step[1]], table.concat(parts) .. echo)
    end
    local real, ours = {}, {}
    for which, all in ipairs({ real, ours }) do
        all[step[1]] = collect(self.peers[which][step[1]], mark)
        -- The others are asked only now: their pushes come from what was done.
        for i, peer in ipairs(self.peers[which]) do
            if i ~= step[1] and not peer.closed then send(peer, echo) end
        end
        for i, peer in ipairs(self.peers[which]) do
            if i ~= step[1] and not peer.closed then all[i] = collect(peer, mark) end
        end
    end
    for i = 1, self.count do
        local commands = i == step[1] and { unpack(step, 2) } or {}
        local difference = compare(real[i] or {}, ours[i] or {}, commands, unordered)
        if difference then return ("connection %d\n%s"):format(i, difference) end
    end
    self.answers = ours
end

-- The first difference that these steps show from an empty server on.
function Twins:try(steps)
    self:close()
    self:open()
    self:reset()
    for i, step in ipairs(steps) do
        local difference = self:step(step)
        if difference then return difference, i end
    end
end

-- A write for each command.
local function singled(steps)
    local singles = {}
    for _, step in ipairs(steps) do
        for i = 2, #step do singles[#singles + 1] = { step[1], step[i] } end
    end
    return singles
end

-- Elements `from` to `to`: unpack takes at most some thousand.
local function slice(list, from, to)
    local part = {}
    for i = from, to do part[#part + 1] = list[i] end
    return part
end

--- Of the steps that have shown a difference, few that still do, and what they show.
function Twins:shrink(steps)
    local singles = singled(steps)
    if self:try(singles) then steps = singles end
    local length = 1
    local tail, difference
    repeat
        length = math.min(length * 2, #steps)
        tail = slice(steps, #steps - length + 1, #steps)
        difference = self:try(tail)
    until difference or length == #steps
    local at = #tail - 1
    while at >= 1 and difference do
        local fewer = slice(tail, 1, #tail)
        table.remove(fewer, at)
        local still = self:try(fewer)
        if still then tail, difference = fewer, still end
        at = at - 1
    end
    return tail, difference
end

function twins.show(steps)
    local lines = {}
    for _, step in ipairs(steps) do
        for i = 2, #step do
            local words = {}
            for j, word in ipairs(step[i]) do words[j] = quoted(word) end
            lines[#lines + 1] = ("%d: %s"):format(step[1], table.concat(words, " "))
        end
    end
    return table.concat(lines, "\n")
end

--- Runs the steps; throws with the shortest tail it finds at a difference.
function Twins:run(steps)
    for i, step in ipairs(steps) do
        local difference = self:step(step)
        if difference then
            local tail, shown = self:shrink(slice(steps, 1, i))
            error(("after\n%s\n%s"):format(twins.show(tail), shown or
                difference .. "\n(and not again when it was repeated)"), 2)
        end
    end
end

return twins
