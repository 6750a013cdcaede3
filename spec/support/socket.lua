--- Stream sockets on this machine: TCP on the loopback address and unix sockets, every call with a
-- deadline.
--
-- What:   connect, listen, accept, pair, free_port; connections send, receive, close, reset.
-- Errors: nil, "timeout" | "closed" | text of errno. Timeouts are taken as they are, not stretched.
-- Not:    SIGPIPE: it stays as it is, so that specs see whether redcache minds it.

local ffi = require("ffi")
local bit = require("bit")
local posix = require("spec.support.posix")
local clock = require("spec.support.clock")

local C = posix.C
local AF_UNIX, AF_INET = 1, 2
local STREAM = 1 + 0x800 + 0x80000 -- SOCK_STREAM, nonblocking, close on exec
local SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_LINGER = 1, 2, 4, 13
local IPPROTO_TCP, TCP_NODELAY = 6, 1
local MSG_NOSIGNAL = 0x4000
local NONBLOCK_CLOEXEC = 0x800 + 0x80000
local BACKLOG = 511
local RECEIVE_BYTES = 65536

local socket = {}
local Connection = {}
Connection.__index = Connection
local Listener = {}
Listener.__index = Listener

local function close_once(self)
    if self.fd then C.close(self.fd) end
    self.fd = nil
end

local function set_option(fd, level, name, number)
    C.setsockopt(fd, level, name, ffi.new("int[1]", number), 4)
end

-- The C address and its size: {port = ...} or {path = ...}; where both stand, the port.
local function address(where)
    if not where.port then
        assert(#where.path < 108, "the path of a unix socket holds 107 bytes")
        local un = ffi.new("struct rcbed_un", AF_UNIX)
        ffi.copy(un.path, where.path)
        return AF_UNIX, un, ffi.sizeof(un)
    end
    local inet = ffi.new("struct rcbed_in", AF_INET)
    inet.port = bit.bor(bit.lshift(bit.band(where.port, 0xff), 8), bit.rshift(where.port, 8))
    inet.addr[0], inet.addr[3] = 127, where.loopback or 1
    return AF_INET, inet, ffi.sizeof(inet)
end

local function connection(fd, domain)
    if domain == AF_INET then set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) end
    return setmetatable({ fd = fd, sent = 0, received = 0 }, Connection)
end

--- Connects to {port = n} on 127.0.0.1 (loopback = 2: on 127.0.0.2, and so on) or {path = "..."}.
function socket.connect(where, timeout)
    local domain, addr, len = address(where)
    local fd = C.socket(domain, STREAM, 0)
    if fd < 0 then return nil, posix.failure() end
    local failed = ffi.new("int[1]", 0)
    if C.connect(fd, addr, len) ~= 0 then
        failed[0] = ffi.errno()
        if failed[0] == posix.EINPROGRESS then
            if not posix.poll({ [fd] = posix.POLLOUT }, timeout or 5)[fd] then
                C.close(fd)
                return nil, "timeout"
            end
            C.getsockopt(fd, SOL_SOCKET, SO_ERROR, failed, ffi.new("unsigned int[1]", 4))
        end
    end
    if failed[0] ~= 0 then
        C.close(fd)
        return nil, ffi.string(C.strerror(failed[0])), failed[0]
    end
    return connection(fd, domain)
end

--- Listens on {port = n} (0: any) of 127.0.0.1 or {path = "..."}. The listener has .port and .fd.
function socket.listen(where)
    local domain, addr, len = address(where)
    local fd = C.socket(domain, STREAM, 0)
    if fd < 0 then return nil, posix.failure() end
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    if C.bind(fd, addr, len) ~= 0 or C.listen(fd, BACKLOG) ~= 0 then
        local text, errno = posix.failure()
        C.close(fd)
        return nil, text, errno
    end
    local listener = { fd = fd, domain = domain, path = where.path }
    if domain == AF_INET then
        C.getsockname(fd, addr, ffi.new("unsigned int[1]", len))
        listener.port = bit.bor(bit.lshift(bit.band(addr.port, 0xff), 8), bit.rshift(addr.port, 8))
    end
    return setmetatable(listener, Listener)
end

--- The next connection; nil, "timeout" when none comes.
function Listener:accept(timeout)
    local deadline = clock.now() + (timeout or 0)
    while true do
        local fd = C.accept4(self.fd, nil, nil, NONBLOCK_CLOEXEC)
        if fd >= 0 then return connection(fd, self.domain) end
        local text, errno = posix.failure()
        if errno ~= posix.EAGAIN and errno ~= posix.EINTR then return nil, text, errno end
        if clock.now() >= deadline then return nil, "timeout" end
        posix.poll({ [self.fd] = posix.POLLIN }, clock.left(deadline))
    end
end

Listener.close = close_once
Connection.close = close_once

--- Two connected sockets of this machine.
function socket.pair()
    local fds = ffi.new("int[2]")
    if C.socketpair(AF_UNIX, STREAM, 0, fds) ~= 0 then return nil, posix.failure() end
    return connection(fds[0], AF_UNIX), connection(fds[1], AF_UNIX)
end

--- Wraps a descriptor this process was started with.
function socket.adopt(fd)
    posix.set_nonblocking(fd, true)
    return connection(fd, AF_UNIX)
end

--- Sends what fits now and returns how many bytes that was.
function Connection:send_some(bytes)
    if not self.fd then return nil, "closed" end
    local n = tonumber(C.send(self.fd, bytes, #bytes, MSG_NOSIGNAL))
    if n >= 0 then
        self.sent = self.sent + n
        return n
    end
    local text, errno = posix.failure()
    if errno == posix.EAGAIN or errno == posix.EINTR then return 0 end
    return nil, text, errno
end

--- Sends all bytes; true or nil, err.
function Connection:send(bytes, timeout)
    local deadline = clock.now() + (timeout or 10)
    while true do
        local n, err, errno = self:send_some(bytes)
        if not n then return nil, err, errno end
        bytes = n == 0 and bytes or bytes:sub(n + 1)
        if bytes == "" then return true end
        if clock.now() >= deadline then return nil, "timeout" end
        posix.poll({ [self.fd] = posix.POLLOUT }, clock.left(deadline))
    end
end

local scratch = ffi.new("char[?]", RECEIVE_BYTES)

--- The bytes that are there, waiting for the first at most `timeout` seconds (0).
function Connection:receive(timeout)
    local deadline = timeout and clock.now() + timeout
    while true do
        if not self.fd then return nil, "closed" end
        local n = tonumber(C.recv(self.fd, scratch, RECEIVE_BYTES, 0))
        if n > 0 then
            self.received = self.received + n
            return ffi.string(scratch, n)
        end
        if n == 0 then return nil, "closed" end
        local text, errno = posix.failure()
        if errno ~= posix.EAGAIN and errno ~= posix.EINTR then return nil, text, errno end
        if not deadline or clock.now() >= deadline then return nil, "timeout" end
        posix.poll({ [self.fd] = posix.POLLIN }, clock.left(deadline))
    end
end

--- Closes so that the peer sees a reset instead of an end.
function Connection:reset()
    if not self.fd then return end
    local linger = ffi.new("struct rcbed_linger", 1, 0)
    C.setsockopt(self.fd, SOL_SOCKET, SO_LINGER, linger, ffi.sizeof(linger))
    self:close()
end

local function ephemeral_start()
    local file = io.open("/proc/sys/net/ipv4/ip_local_port_range")
    local low = file and file:read("*n")
    if file then file:close() end
    return low or 32768
end

-- Ports of this process that others keep away from: names in the kernel that end with it.
local KEPT_PORTS = 256
local kept, next_port = {}, nil

-- True when no other process has been given this port.
local function keep_port(port)
    local name = socket.listen({ path = "\0redcache-port-" .. port })
    if not name then return false end
    kept[#kept + 1] = name
    if #kept > KEPT_PORTS then table.remove(kept, 1):close() end
    return true
end

--- A port nobody listens on now, and which no other process is given as long as this one lives,
-- below the range the kernel takes for outgoing connections: a client that reconnects to a stopped
-- server's port inside that range may end up connected to itself. The first one behind `from`.
function socket.free_port(from)
    local first, last = 10240, math.max(ephemeral_start(), 12288) - 1
    if not next_port then
        local micros = math.floor(clock.now() * 1e6) % 1000003
        next_port = first + (C.getpid() * 7919 + micros) % (last - first)
    end
    next_port = from or next_port
    for _ = first, last do
        next_port = next_port >= last and first or next_port + 1
        -- A port that is another process' is not even tried: it could not listen there meanwhile.
        if keep_port(next_port) then
            local listener = socket.listen({ port = next_port })
            if listener then
                listener:close()
                return next_port
            end
        end
    end
    error("could not find a free port")
end

return socket
