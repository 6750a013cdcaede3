-- host - the connections of a worker as cosockets.
--
-- What:   a cosocket belongs to the request that made it. Here that is a timer's, with these light
--         threads:
--
--             keeper   opens and closes connections (the timer's own)
--             reader   one per connection: connects, feeds what comes in, and wakes who waited
--             writer   one per connection: sends what there is, for all callers in one write
--
--         A connection without TLS is shared with the core, whose turns send over it. Then a writer
--         only turns, for the requests of several callers; a caller that is alone turns itself, and
--         so does one that completes a part of a wave (parts.lua).
-- Not:    certificates to trust, resolver and log levels are nginx' directives.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_loop = require("redcache.core.loop")
local parts = require("redcache.scheduler.resty.parts")
local pool = require("redcache.scheduler.resty.pool")
local semaphore = require("ngx.semaphore")
local sleepers = require("redcache.scheduler.resty.sleepers")
local tls = require("redcache.scheduler.resty.tls")
local waiting = require("redcache.scheduler.waiting")

local ngx = ngx
local HOST_CLOSE, HOST_OPEN, HOST_GONE =
    constants.HOST_CLOSE, constants.HOST_OPEN, constants.HOST_GONE
local SEEK_BEGIN, SEEK_ON, SEEK_OFF = constants.SEEK_BEGIN, constants.SEEK_ON, constants.SEEK_OFF
local RECEIVE_BYTES = 65536
-- What is overdue is the core's to say, and each time-out of a cosocket is a line in the error log:
-- they wait for a day.
local SOCKET_MS = 86400 * 1000
-- So long a writer sleeps at most: a timer that is armed holds an exiting worker.
local WRITER_SECONDS = 0.5
local LOOKUP_PAUSE = 0.005

local host = {}

local function wake_writer(link)
    if not link.is_signalled then
        link.is_signalled = true
        link.sem:post(1)
    end
end

-- The connection of that number, as this file keeps it.
local function link_of(port, number)
    local link = port.numbered[number]
    if not link then
        link = { number = number, wants = 0, open = false, is_signalled = false, is_shared = false }
        port.numbered[number] = link
        port.links[#port.links + 1] = link
    end
    return link
end

-- What the core wants done with a connection.
local function take_wants(port, link, wants)
    link.wants = bit.bor(link.wants, wants)
    link.open = link.open and bit.band(wants, HOST_CLOSE) == 0
    sleepers.wake_keeper(port)
end

---One turn of the core; wakes who has to do what it wants done.
local function turn(port)
    port.unsent, port.is_undecided = 0, true
    for i = 0, waiting.turn_all(port) - 1 do
        local number, wants, has_output = core_loop.turn_link(port, i)
        local link = link_of(port, number)
        if wants ~= 0 then
            take_wants(port, link, wants)
        end
        if has_output and link.open then
            port.last_link = link
            wake_writer(link)
        end
    end
    local wait = core_loop.turn_wait(port)
    if wait and ngx.now() + wait < port.keeper_wakes - 0.001 then
        sleepers.wake_keeper(port)
    end
end
host.turn = turn

-- Connections -------------------------------------------------------------------------------------

local function bracketed(address)
    return string.find(address, ":", 1, true) and "[" .. address .. "]" or address
end

-- A name is nginx' resolver's to look up; where it has none, the system's, in a thread.
local function connect_tcp(port, link, sock, name, number, options)
    local ok, err = sock:connect(bracketed(name), number, options)
    if not ok and string.find(tostring(err), "no resolver defined", 1, true) then
        local address = core_loop.host_lookup(port, link.number)
        while address == false do
            ngx.sleep(LOOKUP_PAUSE)
            address = core_loop.host_lookup(port, link.number)
        end
        if not address then
            return nil, "the host's name has no address"
        end
        ok, err = sock:connect(bracketed(address), number, options)
    end
    return ok, err
end

local function connect(port, link, sock)
    local name, number, is_tls = core_loop.host_address(port, link.number)
    local options = pool.own()
    local ok, err
    if not name then
        return nil, "the connection is not wanted any more"
    elseif number then
        ok, err = connect_tcp(port, link, sock, name, number, options)
    else
        ok, err = sock:connect("unix:" .. name, options)
    end
    if ok and sock:getreusedtimes() ~= 0 then
        -- Somebody has put it into a pool of our name: its database, its MULTI, its TLS.
        return nil, "the connection was used by others before"
    elseif ok and is_tls then
        ok, err = tls.shake(port.identity, sock, name)
    end
    return ok, err, is_tls
end

-- Shows the core which connection this is: turns send over it by themselves then, and no caller
-- waits for the writer.
local function share(port, link, sock)
    local number = link.number
    local function keep_alive(is_on)
        return sock:setoption("keepalive", is_on)
    end
    local function show()
        assert(keep_alive(false))
        core_loop.host_seek(port, number, SEEK_BEGIN)
        for _, is_on in ipairs({ true, false, true }) do
            assert(keep_alive(is_on))
            core_loop.host_seek(port, number, is_on and SEEK_ON or SEEK_OFF)
        end
        return core_loop.host_share(port, number)
    end
    local ok, is_shared = pcall(show) -- older lua-nginx-modules have no setoption
    link.is_shared = ok and is_shared
end

local function lost(port, link, sock, cause)
    if link.sock ~= sock then
        return -- the keeper has taken it down
    end
    link.open = false
    core_loop.host_lost(port, link.number, cause)
    link.wants = bit.bor(link.wants, HOST_CLOSE)
    turn(port)
    sleepers.wake_keeper(port)
end

local function read(port, link, sock)
    -- The core gives up first, and without a line in the log.
    sock:settimeouts(port.connect_timeout * 2000, SOCKET_MS, SOCKET_MS)
    local ok, err, is_tls = connect(port, link, sock)
    if link.sock ~= sock then
        return
    elseif not ok then
        return lost(port, link, sock, tostring(err))
    end
    if not is_tls then
        share(port, link, sock)
    end
    link.open, port.last_link = true, link
    core_loop.host_opened(port, link.number)
    turn(port)
    while true do
        local bytes, reason = sock:receiveany(RECEIVE_BYTES)
        if link.sock ~= sock then
            return
        elseif bytes then
            core_loop.host_feed(port, link.number, bytes)
            local count = port.count
            turn(port)
            if port.parted then
                parts.judge(port, count - port.count)
            end
        elseif reason ~= "timeout" then
            return lost(port, link, sock, reason == "closed"
                and "the server closed the connection" or tostring(reason))
        end
    end
end

local function write(port, link, sock)
    while link.sock == sock do
        link.is_signalled = true -- the turn need not wake us
        turn(port)
        link.is_signalled = false
        local bytes = link.open and core_loop.output(port, link.number)
        if bytes then
            link.sending = true
            local ok, err = sock:send(bytes)
            link.sending = false
            if link.sock ~= sock then
                return
            elseif not ok then
                return lost(port, link, sock, tostring(err))
            elseif link.open then
                core_loop.host_sent(port, link.number, #bytes)
            end
        end
        link.sem:wait(WRITER_SECONDS)
    end
end

-- Only who spawned a light thread may kill it: so this is the keeper's. Killing one that reads or
-- sends closes its socket.
local function take_down(port, link)
    local sock, reader, writer = link.sock, link.reader, link.writer
    link.sock, link.reader, link.writer = nil, nil, nil
    link.open, link.sending, link.is_shared = false, false, false
    if sock then
        core_loop.host_unshare(port, link.number)
        ngx.thread.kill(reader)
        ngx.thread.kill(writer)
        pcall(sock.close, sock)
    end
end

local function bring_up(port, link)
    local sock = ngx.socket.tcp()
    link.sock, link.is_signalled = sock, false
    link.sem = semaphore.new(0)
    link.writer = ngx.thread.spawn(write, port, link, sock)
    link.reader = ngx.thread.spawn(read, port, link, sock)
end

-- Those whose numbers never come again.
local function drop_gone(port)
    for i = #port.links, 1, -1 do
        local link = port.links[i]
        if link.is_gone then
            port.numbered[link.number] = nil
            table.remove(port.links, i)
        end
    end
end

---Does with the connections what the core wants done. The keeper's.
function host.tend(port)
    local links, i = port.links, 1
    while links[i] do -- more may come meanwhile: the light threads that begin here turn, too
        local link = links[i]
        local wants = link.wants
        link.wants = 0
        if wants ~= 0 then
            take_down(port, link)
        end
        if bit.band(wants, HOST_OPEN) ~= 0 then
            bring_up(port, link)
        end
        link.is_gone = link.is_gone or bit.band(wants, HOST_GONE) ~= 0
        i = i + 1
    end
    drop_gone(port)
end

---Closes the connections unless somebody needs them. The keeper's.
---@return boolean closed
function host.rest(port)
    if not core_loop.host_rest(port) then
        return false
    end
    turn(port)
    host.tend(port)
    return true
end

---The keeper ends.
function host.stop(port)
    for _, link in ipairs(port.links) do
        take_down(port, link)
    end
end

---A port begins in this process.
function host.begin(port)
    -- Those there are, and the same by their numbers.
    port.links, port.numbered = {}, {}
    port.last_link = { open = false }
    parts.begin(port)
end

---Something was started.
function host.kick(port)
    local link = port.last_link
    port.unsent = port.unsent + 1
    if port.is_memory then
        turn(port) -- its answer comes with the sending
    elseif link.open and link.is_shared and parts.is_one(port) then
        turn(port)
    elseif link.open and not link.sending then
        wake_writer(link)
    else
        sleepers.wake_keeper(port)
    end
end

return host
