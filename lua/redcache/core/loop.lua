-- loop - ports and their loops: how a scheduler that waits in its own way turns the core.
--
-- What:   opens and ends ports; turns their loops and waits for them; what a scheduler that owns
--         the connections (a host) tells and asks; which process this is.
-- Memory: a port is shared and counted by the caches of one Lua state with equal settings. The
--         names that a turn tells stay readable until the next turn.
-- Errors: a port that has ended tells nothing and throws where it is used: C never gets a NULL.
-- Not:    who waits for which name (scheduler/).

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")
local core_handle = require("redcache.core.handle")
local core_owned = require("redcache.core.owned")

local POLLIN = 1
-- No descriptor tells that credentials are wanted.
local AUTH_MS = 50

local core_loop = {}

---What the caches of one Lua state with equal settings share where a scheduler has a loop: the
---client's handle, its loop, and what the scheduler keeps in here.
---@class redcache.Port
---@field handle ffi.cdata*
---@field loop ffi.cdata*|nil of the process `pid`
---@field references integer
---@field key string
local ports = {}
local own_loops = 0 -- of this Lua state

local CONNECTION = { "url", "group", "user", "password", "sentinelUser", "sentinelPassword",
    "auth", "tls", "tlsCa", "tlsCert", "tlsKey", "tlsServerName", "connectTimeout",
    "commandTimeout", "maxValue", "maxKey", "maxQueue", "degradedTtl", "spin", "maxBytes",
    "scheduler", "driver", "clock" }

local function port_key(settings)
    local parts = {}
    for i, name in ipairs(CONNECTION) do
        parts[i] = tostring(settings[name])
    end
    local breaker = settings.breaker
    parts[#parts + 1] = breaker and table.concat({ breaker.window, breaker.errors,
        breaker.latency, breaker.probes, breaker.wait }, ":") or "none"
    local near = settings.near
    parts[#parts + 1] = near and near.bytes .. ":" .. near.shared or "none"
    return table.concat(parts, "\n")
end

---Opens, or finds, the port for these settings; a cache has a share of it until leave_port.
---@param settings table complete settings of redcache.new
---@param driver integer
---@return redcache.Port|nil port
---@return string|nil message why not
---@return string|nil option that is to blame; nil: none, memory has run out
function core_loop.open_port(settings, driver)
    local key = port_key(settings)
    local port = ports[key]
    if not port then
        local handle, message, option = core_handle.open(settings, driver)
        if not handle then
            return nil, message, option
        end
        port = { handle = handle, references = 0, key = key, scheduler = settings.scheduler,
            auth = settings.auth }
        ports[key] = port
    end
    port.references = port.references + 1
    return port
end

---Gives back one cache's share of a port.
---@param port redcache.Port
---@return boolean last the port's scheduler has to end it, and then calls end_port
function core_loop.leave_port(port)
    port.references = port.references - 1
    if port.references > 0 then
        return false
    end
    ports[port.key] = nil
    return true
end

---Ends a port that its caches have left. Twice is harmless.
---@param port redcache.Port
---@param timeout number seconds
function core_loop.end_port(port, timeout)
    local handle, loop = port.handle, port.loop
    if handle == nil then
        return
    end
    port.handle, port.loop = nil, nil
    if loop then
        own_loops = own_loops - 1
        core_owned.free(loop)
    end
    if core_owned.let_go(handle) then
        C.rc_unref(handle, core_clock.milliseconds_or_none(timeout))
    end
end

---Whether another Lua state of this process has loops, too.
---@return boolean
function core_loop.has_rivals()
    return C.rc_loop_count() > own_loops
end

-- A port ends while others still know it. What they ask of it then ends here: C never gets a NULL.
local function loop_of(port)
    return port.loop or error("could not use the connections: the cache is closed", 0)
end

local len_out = ffi.new("size_t[1]")
local address_out = ffi.new("char[1024]")
local port_out = ffi.new("int32_t[1]")
local tls_out = ffi.new("int32_t[1]")

---Makes the loop of a port, for this process.
---@param port redcache.Port
---@return boolean made not so without memory, and not where the port has ended
function core_loop.open(port)
    local loop = port.handle ~= nil and C.rc_loop_new(port.handle) or nil
    if loop == nil then
        return false
    end
    if port.loop then -- of the parent process
        own_loops = own_loops - 1
    end
    port.loop, own_loops = core_owned.keep(loop, C.rc_loop_free), own_loops + 1
    port.turn = port.turn or ffi.new("rc_turn")
    return true
end

---Does what can be done without waiting, and tells what is done.
---@param port redcache.Port
---@return integer count of names: turn_name(port, 0) to turn_name(port, count - 1); a port that
---has ended tells nothing
---@return integer link_count connections with news: turn_link(port, 0) to link_count - 1
function core_loop.turn(port)
    local turn, loop = port.turn, port.loop
    if loop == nil then
        return 0, 0
    end
    C.rc_loop_turn(loop, turn)
    return turn.count, turn.link_count
end

function core_loop.turn_name(port, index)
    return port.turn.names[index]
end

---News of a connection.
---@return integer number which one
---@return integer wants HOST_CLOSE, HOST_OPEN, HOST_GONE: told once
---@return boolean has_output
function core_loop.turn_link(port, index)
    local link = port.turn.links[index]
    return link.number, link.wants, link.len > 0
end

---Seconds until the next turn is due even without news; nil: never.
---@return number|nil
function core_loop.turn_wait(port)
    local us = port.turn.wait_us
    return us >= 0 and tonumber(us) / 1e6 or nil
end

---Copies the bytes to send over a connection. They stay the core's until host_sent.
---@return string|nil bytes nil: there are none
function core_loop.output(port, link)
    local bytes = C.rc_host_output(loop_of(port), link, len_out)
    return bytes ~= nil and ffi.string(bytes, len_out[0]) or nil
end

---Sleeps until something is done; something must be under way.
function core_loop.wait_any(port)
    C.rc_loop_wait(loop_of(port))
end

---@return integer fd
function core_loop.fd(port)
    return C.rc_loop_fd(loop_of(port))
end

local watched = ffi.new("struct redcache_pollfd[?]", 1)
local watched_room = 1

---Sleeps until something is done in one of these ports, for which a thread works meanwhile.
---@param list redcache.Port[]
---@param count integer
function core_loop.wait_ports(list, count)
    if count > watched_room then
        watched, watched_room = ffi.new("struct redcache_pollfd[?]", count), count
    end
    local has_auth = false
    for i = 1, count do
        local at = watched[i - 1]
        has_auth = has_auth or list[i].auth ~= nil
        at.fd, at.events, at.revents = core_loop.fd(list[i]), POLLIN, 0
    end
    ffi.C.redcache_poll(watched, count, has_auth and AUTH_MS or -1)
end

---@return integer pid of this process
function core_loop.pid()
    return ffi.C.redcache_getpid()
end

---@return integer pid of the process that has made this one
function core_loop.parent_pid()
    return ffi.C.redcache_getppid()
end

---@return string|nil path of a socket to connect to at once
function core_loop.listen(port)
    local len = C.rc_loop_listen(loop_of(port), address_out, 1024)
    return len > 0 and ffi.string(address_out, len) or nil
end

function core_loop.accept(port)
    return C.rc_loop_accept(loop_of(port)) == 0
end

function core_loop.host_opened(port, link)
    C.rc_host_opened(loop_of(port), link)
end

function core_loop.host_lost(port, link, cause)
    C.rc_host_lost(loop_of(port), link, cause, #cause)
end

function core_loop.host_feed(port, link, bytes)
    C.rc_host_feed(loop_of(port), link, bytes, #bytes)
end

function core_loop.host_sent(port, link, len)
    C.rc_host_sent(loop_of(port), link, len)
end

---The host shows which of its connections this is, by SO_KEEPALIVE: see rc_host_seek.
---@param step integer SEEK_BEGIN, SEEK_ON, SEEK_OFF
function core_loop.host_seek(port, link, step)
    C.rc_host_seek(loop_of(port), link, step)
end

---From now on turns send over it by themselves, until host_unshare. That comes before its close.
---@return boolean shared not so where it was not found
function core_loop.host_share(port, link)
    return C.rc_host_share(loop_of(port), link) == 0
end

function core_loop.host_unshare(port, link)
    if port.loop then
        C.rc_host_unshare(port.loop, link)
    end
end

---Somebody reads the near cache in this process: connects before anything has to be asked for.
function core_loop.host_begin(port)
    C.rc_host_begin(loop_of(port))
end

---Hands over what this process has kept coherent in a near cache that others share. To be called
---again until it is done.
---@return boolean done
function core_loop.hand_over(port)
    return C.rc_host_hand_over(loop_of(port)) ~= 0
end

---Closes the connections unless somebody needs them.
---@return boolean closed
function core_loop.host_rest(port)
    return port.loop == nil or C.rc_host_rest(loop_of(port)) ~= 0
end

---Gives leases and locks back and ends what waits.
---@return boolean drained all of that has been answered, or the port has ended
function core_loop.host_leave(port)
    return port.loop == nil or C.rc_host_leave(loop_of(port)) ~= 0
end

---Where to connect to.
---@return string|nil host or path of a unix socket; nil: the connection is not wanted any more
---@return integer|nil port nil: a unix socket
---@return boolean|nil tls
function core_loop.host_address(port, link)
    local len = C.rc_host_address(loop_of(port), link, address_out, 1024, port_out, tls_out)
    if len < 0 then
        return nil
    end
    local number = port_out[0]
    return ffi.string(address_out, len), number > 0 and number or nil, tls_out[0] ~= 0
end

---Looks the server's name up in a thread.
---@return string|false|nil address false: call again in a moment; nil: it has none
function core_loop.host_lookup(port, link)
    local len = C.rc_host_lookup(loop_of(port), link, address_out, 1024)
    if len == 0 then
        return false
    end
    return len > 0 and ffi.string(address_out, len) or nil
end

return core_loop
