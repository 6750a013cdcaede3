-- host - the connections of a worker as cosockets.
--
-- What:   a cosocket belongs to the request that made it. Here that is a timer's, with these light
--         threads:
--
--             keeper   opens and closes connections (the timer's own)
--             reader   one per connection: connects, feeds what comes in, and wakes who waited
--             writer   one per connection: sends what there is, for all callers in one write
--
-- Not:    certificates to trust, resolver and log levels are nginx' directives.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_loop = require("redcache.core.loop")
local pool = require("redcache.scheduler.resty.pool")
local semaphore = require("ngx.semaphore")
local sleepers = require("redcache.scheduler.resty.sleepers")
local waiting = require("redcache.scheduler.waiting")

local ngx = ngx
local HOST_CLOSE, HOST_OPEN = constants.HOST_CLOSE, constants.HOST_OPEN
local LINKS = 2
-- Bits of a turn's news: that a link has output; from WANTS on: that one wants something.
local OUTPUT, WANTS = { [0] = 1, 2 }, 4
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

-- Takes what the core wants done with connections.
local function take_wants(port)
    for i = 0, LINKS - 1 do
        local link = port.links[i]
        local wants = core_loop.wants(port, i)
        link.wants = bit.bor(link.wants, wants)
        link.open = link.open and bit.band(wants, HOST_CLOSE) == 0
    end
end

---One turn of the core; wakes who has to do what it wants done.
local function turn(port)
    local news = waiting.turn_all(port)
    if news >= WANTS then
        take_wants(port)
        sleepers.wake_keeper(port)
    end
    for i = 0, LINKS - 1 do
        local link = port.links[i]
        if bit.band(news, OUTPUT[i]) ~= 0 and link.open then
            port.last_link = i
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
local function connect_tcp(port, sock, name, number, options)
    local ok, err = sock:connect(bracketed(name), number, options)
    if not ok and string.find(tostring(err), "no resolver defined", 1, true) then
        local address = core_loop.host_lookup(port)
        while address == false do
            ngx.sleep(LOOKUP_PAUSE)
            address = core_loop.host_lookup(port)
        end
        if not address then
            return nil, "the host's name has no address"
        end
        ok, err = sock:connect(bracketed(address), number, options)
    end
    return ok, err
end

local function connect(port, sock)
    local name, number, tls = core_loop.host_address(port)
    local options = pool.own()
    local ok, err
    if number then
        ok, err = connect_tcp(port, sock, name, number, options)
    else
        ok, err = sock:connect("unix:" .. name, options)
    end
    if ok and sock:getreusedtimes() ~= 0 then
        -- Somebody has put it into a pool of our name: its database, its MULTI, its TLS.
        return nil, "the connection was used by others before"
    elseif ok and tls then
        ok, err = sock:sslhandshake(false, name, true)
    end
    return ok, err
end

local function lost(port, i, sock, cause)
    local link = port.links[i]
    if link.sock ~= sock then
        return -- the keeper has taken it down
    end
    link.open = false
    core_loop.host_lost(port, i, cause)
    link.wants = bit.bor(link.wants, HOST_CLOSE)
    turn(port)
    sleepers.wake_keeper(port)
end

local function read(port, i, sock)
    -- The core gives up first, and without a line in the log.
    sock:settimeouts(port.connect_timeout * 2000, SOCKET_MS, SOCKET_MS)
    local ok, err = connect(port, sock)
    local link = port.links[i]
    if link.sock ~= sock then
        return
    elseif not ok then
        return lost(port, i, sock, tostring(err))
    end
    link.open = true
    core_loop.host_opened(port, i)
    turn(port)
    while true do
        local bytes, reason = sock:receiveany(RECEIVE_BYTES)
        if link.sock ~= sock then
            return
        elseif bytes then
            core_loop.host_feed(port, i, bytes)
            turn(port)
        elseif reason ~= "timeout" then
            return lost(port, i, sock, reason == "closed" and "the server closed the connection"
                or tostring(reason))
        end
    end
end

local function write(port, i, sock)
    local link = port.links[i]
    while link.sock == sock do
        link.is_signalled = true -- the turn need not wake us
        turn(port)
        link.is_signalled = false
        local bytes = link.open and core_loop.output(port, i)
        if bytes then
            link.sending = true
            local ok, err = sock:send(bytes)
            link.sending = false
            if link.sock ~= sock then
                return
            elseif not ok then
                return lost(port, i, sock, tostring(err))
            elseif link.open then
                core_loop.host_sent(port, i, #bytes)
            end
        end
        link.sem:wait(WRITER_SECONDS)
    end
end

-- Only who spawned a light thread may kill it: so this is the keeper's. Killing one that reads or
-- sends closes its socket.
local function take_down(link)
    local sock, reader, writer = link.sock, link.reader, link.writer
    link.sock, link.reader, link.writer = nil, nil, nil
    link.open, link.sending = false, false
    if sock then
        ngx.thread.kill(reader)
        ngx.thread.kill(writer)
        pcall(sock.close, sock)
    end
end

local function bring_up(port, i)
    local link = port.links[i]
    local sock = ngx.socket.tcp()
    link.sock, link.is_signalled = sock, false
    link.sem = semaphore.new(0)
    link.writer = ngx.thread.spawn(write, port, i, sock)
    link.reader = ngx.thread.spawn(read, port, i, sock)
end

---Does with the connections what the core wants done. The keeper's.
function host.tend(port)
    for i = 0, LINKS - 1 do
        local link = port.links[i]
        local wants = link.wants
        link.wants = 0
        if wants ~= 0 then
            take_down(link)
        end
        if bit.band(wants, HOST_OPEN) ~= 0 then
            bring_up(port, i)
        end
    end
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
    for i = 0, LINKS - 1 do
        take_down(port.links[i])
    end
end

---A port begins in this process.
function host.begin(port)
    port.links = {}
    for i = 0, LINKS - 1 do
        port.links[i] = { wants = 0, open = false, is_signalled = false }
    end
end

---Something was started.
function host.kick(port)
    local link = port.links[port.last_link or 0]
    if port.is_memory then
        turn(port) -- its answer comes with the sending
    elseif link.open and not link.sending then
        wake_writer(link)
    else
        sleepers.wake_keeper(port)
    end
end

return host
