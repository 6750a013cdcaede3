-- thread - a reactor thread moves the bytes of a worker, and wakes it over a socket of its own.
--
-- What:   for loaders that block their worker: leases and locks are renewed all the same. What is
--         done is told by a byte over a unix socket that the worker connects to; nginx can watch
--         nothing else for Lua.
-- Not:    no Redis connections here: they are the thread's.

local core_loop = require("redcache.core.loop")
local pool = require("redcache.scheduler.resty.pool")
local waiting = require("redcache.scheduler.waiting")

local ngx = ngx
local RECEIVE_BYTES = 4096
local SOCKET_MS = 86400 * 1000
local RETRY_SECONDS = 0.1

local thread = {}

thread.turn = waiting.turn_all
thread.kick = waiting.turn_all -- a turn tells the thread what was started

local function connect(sock, port)
    local path = core_loop.listen(port)
    if not path then
        return nil, "there is no room for a socket"
    end
    local ok, err = sock:connect("unix:" .. path, pool.own())
    if ok and not core_loop.accept(port) then
        return nil, "the socket cannot be accepted"
    end
    return ok, err
end

local function read(port)
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 1000, SOCKET_MS)
    port.sock = sock
    local ok, err = connect(sock, port)
    while ok do
        ok, err = sock:receiveany(RECEIVE_BYTES)
        waiting.turn_all(port)
    end
    port.sock = nil
    sock:close()
    return err
end

---Sees to it that the thread can wake us. The keeper's.
function thread.tend(port)
    if not port.reader or not port.sock then
        local now = ngx.now()
        if now < (port.retry_at or 0) then
            return
        end
        port.retry_at = now + RETRY_SECONDS
        thread.stop(port)
        port.reader = ngx.thread.spawn(read, port)
    end
end

---The thread goes on by itself; its connections end with the process.
---@return boolean closed
function thread.rest(port)
    return port.count == 0
end

function thread.stop(port)
    if port.reader then
        ngx.thread.kill(port.reader)
    end
    port.reader, port.sock = nil, nil
end

function thread.begin(port)
    port.reader, port.sock = nil, nil
    port.is_asked_late = port.auth ~= nil -- by no byte over the socket: who we are
end

return thread
