-- The bus's own process (bus.lua tells what it does). One loop: orders, doors, links.
--
-- Who opens a connection says so in its first message: a message of the bus begins with 40 bytes,
-- and then the sender's id. A new node, which meets the cluster, has an id that nobody knows; it is
-- let through.

local posix = require("spec.support.posix")
local socket = require("spec.support.socket")

local CONNECT_SECONDS, IDLE_SECONDS = 2, 60
local HEAD_BYTES, ID_BYTES = 40, 40

local function is_held(state, link)
    local here, there = state.group[link.sender], state.group_of_door[link.door]
    return here ~= nil and there ~= nil and here ~= there
end

local function close_link(state, link)
    state.links[link] = nil
    link.client:close()
    link.upstream:close()
end

-- Takes what has come, and lets go of what may go. False when the link is over.
local function pump(link, from, to, waiting, held)
    local bytes, err = from:receive(0)
    if not bytes and err ~= "timeout" then return false end
    link[waiting] = link[waiting] .. (bytes or "")
    if waiting == "up" and not link.sender and #link.up >= HEAD_BYTES + ID_BYTES then
        link.sender = link.up:sub(HEAD_BYTES + 1, HEAD_BYTES + ID_BYTES)
    end
    if held or not link.sender or link[waiting] == "" then return true end
    local sent = to:send_some(link[waiting])
    if not sent then return false end
    link[waiting] = link[waiting]:sub(sent + 1)
    return true
end

local function open_link(state, door, client)
    local upstream = socket.connect({ port = door.target }, CONNECT_SECONDS)
    if not upstream then return client:reset() end
    state.links[{ client = client, upstream = upstream, door = door, up = "", down = "" }] = true
end

local function obey(state, message)
    state.group, state.group_of_door = {}, {}
    for i, id in ipairs(message.ids) do
        state.group[id] = message.groups[i]
        state.group_of_door[state.doors[i]] = message.groups[i]
    end
end

local function wanted(state, control)
    local fds = { [control] = posix.POLLIN }
    for _, door in ipairs(state.doors) do fds[door.listener.fd] = posix.POLLIN end
    for link in pairs(state.links) do
        local held = is_held(state, link)
        local up = not held and link.sender and link.up ~= "" and posix.POLLOUT or 0
        local down = not held and link.down ~= "" and posix.POLLOUT or 0
        fds[link.client.fd] = posix.POLLIN + down
        fds[link.upstream.fd] = posix.POLLIN + up
    end
    return fds
end

return function(one)
    local state = { doors = one.params.doors, links = {}, group = {}, group_of_door = {} }
    for _, door in ipairs(state.doors) do
        door.listener = assert(socket.listen({ port = door.port }))
    end
    local control = one.connection.fd
    one:emit("listening")
    while true do
        local ready = posix.poll(wanted(state, control), IDLE_SECONDS)
        if ready[control] then
            local message = one:receive()
            if not message then return end
            obey(state, message)
            one:emit("done_with_it")
        end
        for _, door in ipairs(state.doors) do
            local client = ready[door.listener.fd] and door.listener:accept(0)
            if client then open_link(state, door, client) end
        end
        for link in pairs(state.links) do
            local held = is_held(state, link)
            if not pump(link, link.client, link.upstream, "up", held)
                or not pump(link, link.upstream, link.client, "down", held) then
                close_link(state, link)
            end
        end
    end
end
