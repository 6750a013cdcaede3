-- The proxy's own process (proxy.lua tells what it does). One loop: control channel, listener,
-- links.
--
-- A link is one client's connection and the one to the server behind it. What one side said is cut
-- into messages; they go through the chaos, where there is any, and wait in a queue. A command that
-- a rule answers is replaced by PING on its way up, so that every command still has exactly one
-- answer and order is kept.

local channel = require("spec.support.channel")
local chaos = require("spec.support.chaos")
local clock = require("spec.support.clock")
local frame = require("spec.support.frame")
local posix = require("spec.support.posix")
local proxy_queue = require("spec.support.proxy_queue")
local proxy_rules = require("spec.support.proxy_rules")
local socket = require("spec.support.socket")

local CONNECT_SECONDS = 2
local IDLE_SECONDS = 60
-- Above this we stop reading: the sender shall feel that nobody listens.
local BACKLOG_BYTES = 8 * 1024 * 1024
local PING = frame.command({ "PING" })
local SUBCOMMANDS = { client = true, config = true, script = true, acl = true }

local state -- The proxy: listener, links, rules, counts; set once by the main function.

local function fresh_counts()
    return {
        bytes_up = 0, bytes_down = 0, accepted = 0, replies = 0, pushes = 0, total = 0, turns = 0,
        commands = {},
    }
end

-- ---- Links.

local function open_link(client)
    -- One after the other, as a balancer does.
    local target = table.remove(state.targets, 1)
    state.targets[#state.targets + 1] = target
    local upstream = socket.connect(target, CONNECT_SECONDS)
    if not upstream then
        client:reset()
        return
    end
    state.counts.accepted = state.counts.accepted + 1
    state.links[{
        client = client, upstream = upstream, expected = {}, number = state.counts.accepted,
        up = proxy_queue.new(), down = proxy_queue.new(), streams = {}, said = "", heard = "",
    }] = true
end

local function close_link(link, how)
    state.links[link] = nil
    link.client[how](link.client)
    link.upstream[how](link.upstream)
end

local function is_chosen(link, which)
    return which == nil or (which == "tracking") == (link.tracking == true)
end

local function is_stalled(link, direction)
    local stalled = state.stalled[direction]
    return stalled ~= nil and is_chosen(link, stalled.which)
end

-- What the chaos does to this direction; nil: nothing. A direction that has ended stays so.
local function stream_of(link, direction)
    local streams = link.streams
    if state.chaos and not streams[direction] then
        streams[direction] = chaos.stream(state.chaos, link.number, direction, state.seen)
    end
    return streams[direction]
end

-- One message goes on.
local function forward(link, direction, bytes, late)
    local queue, stream = link[direction], stream_of(link, direction)
    late = late + state.late[direction]
    if not stream then return queue:add(bytes, late) end
    local pieces, ending = stream:pass(bytes)
    for _, piece in ipairs(pieces) do queue:add(piece.bytes, late, piece.wait) end
    if ending then queue:finish(ending) end
end

local function name_of(words)
    local name = (words[1] or ""):lower()
    return SUBCOMMANDS[name] and words[2] and name .. "|" .. words[2]:lower() or name
end

local function note_command(link, words, name)
    local counts = state.counts
    counts.total = counts.total + 1
    counts.commands[name] = (counts.commands[name] or 0) + 1
    if name == "client|tracking" then link.tracking = (words[3] or ""):lower() == "on" end
end

-- One command on its way up: what the server gets instead. nil when the link was cut.
local function pass_command(link, words, bytes)
    local name = name_of(words)
    note_command(link, words, name)
    local rule = proxy_rules.find(state.rules, name, words, function(which)
        return is_chosen(link, which)
    end)
    if rule and rule.cut == "before" then
        link.up:flush(link.upstream)
        close_link(link, "reset")
        return nil
    end
    link.expected[#link.expected + 1] = rule or false
    return rule and rule.reply and not rule.execute and PING or bytes
end

local function hear_client(link, bytes)
    state.counts.bytes_up = state.counts.bytes_up + #bytes
    if not link.speaking then state.counts.turns = state.counts.turns + 1 end
    link.speaking = true
    if link.raw then return link.up:add(bytes, state.late.up) end
    link.said = link.said .. bytes
    local at = 1
    while at <= #link.said do
        local ok, words, after = pcall(frame.request, link.said, at)
        if not ok then
            link.raw = true
            link.up:add(link.said:sub(at), state.late.up)
            break
        end
        if not words then break end
        local passed = pass_command(link, words, link.said:sub(at, after - 1))
        if not passed then return end
        forward(link, "up", passed, 0)
        at = after
    end
    link.said = link.said:sub(at)
end

-- One message on its way down. False when the link was cut.
local function pass_message(link, bytes)
    if bytes:sub(1, 1) == ">" then
        state.counts.pushes = state.counts.pushes + 1
        forward(link, "down", bytes, 0)
        return true
    end
    state.counts.replies = state.counts.replies + 1
    link.speaking = false
    local rule = table.remove(link.expected, 1)
    if rule and rule.cut == "after" then
        close_link(link, "reset")
        return false
    end
    if rule and rule.swallow then return true end
    forward(link, "down", rule and rule.reply or bytes, rule and rule.late or 0)
    return true
end

local function hear_server(link, bytes)
    state.counts.bytes_down = state.counts.bytes_down + #bytes
    if link.raw then return link.down:add(bytes, state.late.down) end
    link.heard = link.heard .. bytes
    local at = 1
    while at <= #link.heard do
        local ok, after = pcall(frame.finish, link.heard, at)
        if not ok then
            link.raw, after = true, #link.heard + 1
            link.down:add(link.heard:sub(at), state.late.down)
        elseif not after then
            break
        elseif not pass_message(link, link.heard:sub(at, after - 1)) then
            return
        end
        at = after
    end
    link.heard = link.heard:sub(at)
end

-- Reads one side of a link; when it has ended, the link ends as soon as the rest is delivered.
local function read_side(link, connection, hear)
    local bytes, err = connection:receive()
    if bytes then
        hear(link, bytes)
    elseif err ~= "timeout" then
        link.ending = connection
    end
end

local function flush_side(link, direction, connection)
    if is_stalled(link, direction) then return true end
    return link[direction]:flush(connection)
end

local function move_link(link)
    local ok, how = flush_side(link, "up", link.upstream)
    if ok then ok, how = flush_side(link, "down", link.client) end
    local rest = link.ending == link.client and link.up or link.ending and link.down
    if not ok or rest and #rest == 0 then close_link(link, how or "close") end
end

-- ---- Orders.

local function each_chosen(which, fn)
    local chosen = {}
    for link in pairs(state.links) do
        if is_chosen(link, which) then chosen[#chosen + 1] = link end
    end
    for _, link in ipairs(chosen) do fn(link) end
    return #chosen
end

local function directions(direction)
    return direction == "both" and { "up", "down" } or { direction }
end

local orders = {}

function orders.stall(order)
    for _, direction in ipairs(directions(order.direction)) do
        state.stalled[direction] = { which = order.which }
    end
end

function orders.refuse()
    if state.listener then state.listener:close() end
    state.listener = nil
end

function orders.flow()
    state.stalled = {}
    state.listener = state.listener or assert(socket.listen({ port = state.port }))
end

function orders.cut(order)
    return each_chosen(order.which, function(link) close_link(link, order.how) end)
end

function orders.delay(order)
    for _, direction in ipairs(directions(order.direction)) do
        state.late[direction] = order.seconds
    end
end

function orders.inject(order)
    return each_chosen(order.which, function(link)
        link.down:add(order.bytes, state.late.down)
        move_link(link)
    end)
end

function orders.rule(order)
    return proxy_rules.add(state.rules, order.rule)
end

function orders.lead(order)
    state.targets = order.targets
end

function orders.clear()
    state.rules = proxy_rules.new()
end

function orders.chaos(order)
    state.chaos = order.settings
    if state.chaos then state.seen = {} end
    each_chosen(nil, function(link)
        for direction, stream in pairs(link.streams) do
            if not stream.over then link.streams[direction] = nil end
        end
    end)
end

function orders.counts()
    local counts = state.counts
    counts.open = each_chosen(nil, function() end)
    counts.rules = proxy_rules.hits(state.rules)
    counts.chaos = state.seen
    return counts
end

function orders.forget_counts()
    state.counts = fresh_counts()
end

local function obey(worker)
    local order, err = worker:receive(0)
    if not order then return err == "timeout" end
    local ok, result = pcall(orders[order.order], order)
    worker:emit("answer", ok and { result = result } or { error = tostring(result) })
    return true
end

-- ---- The loop.

-- The poll bits for one side of a link, and the instant its outgoing queue is due, when that is
-- later.
local function side_wishes(link, incoming, outgoing, incoming_name, outgoing_name)
    local events, due = 0, nil
    local listening = not link.ending and not is_stalled(link, incoming_name)
    if listening and incoming.bytes < BACKLOG_BYTES then events = posix.POLLIN end
    if outgoing[1] and not is_stalled(link, outgoing_name) then
        due = outgoing:due()
        if not due then events = events + posix.POLLOUT end
    end
    return events, due
end

-- What to poll for, and until when.
local function wishes(control_fd)
    local wanted, wake = { [control_fd] = posix.POLLIN }, clock.now() + IDLE_SECONDS
    if state.listener then wanted[state.listener.fd] = posix.POLLIN end
    local function want(connection, events, due)
        if events ~= 0 then wanted[connection.fd] = events end
        wake = math.min(wake, due or wake)
    end
    for link in pairs(state.links) do
        want(link.client, side_wishes(link, link.up, link.down, "up", "down"))
        want(link.upstream, side_wishes(link, link.down, link.up, "down", "up"))
    end
    return wanted, wake
end

local function turn(ready)
    local links = {}
    for link in pairs(state.links) do links[#links + 1] = link end
    for _, link in ipairs(links) do
        local from_client, from_server = ready[link.client.fd], ready[link.upstream.fd]
        if from_client then read_side(link, link.client, hear_client) end
        if from_server and state.links[link] then read_side(link, link.upstream, hear_server) end
        if state.links[link] then move_link(link) end
    end
    if state.listener and ready[state.listener.fd] then
        local client = state.listener:accept(0)
        if client then open_link(client) end
    end
end

return function(worker)
    state = {
        port = worker.params.port, targets = { worker.params.target }, links = {}, stalled = {},
        late = { up = 0, down = 0 }, rules = proxy_rules.new(), counts = fresh_counts(), seen = {},
    }
    state.listener = assert(socket.listen({ port = state.port }))
    worker:emit("listening")
    local control_fd = worker.connection.fd
    while true do
        local wanted, wake = wishes(control_fd)
        local ready = posix.poll(wanted, clock.left(wake))
        -- Bytes that were there before the order came are handled before it.
        turn(ready)
        if ready[control_fd] and not obey(worker) then return channel.null end
    end
end
