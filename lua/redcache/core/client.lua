-- client - the clients of this Lua state: opened, closed, and what they tell of themselves.
--
-- Memory: a client holds its idle slots (slot.lua), and a reference to the core's client or a share
--         of a port (loop.lua).
-- Errors: a closed client throws where it is asked; closed() tells before: C never gets a NULL.

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")
local core_handle = require("redcache.core.handle")
local core_owned = require("redcache.core.owned")
local core_slot = require("redcache.core.slot")
local later = require("redcache.later")
local core_loop = later.module("redcache.core.loop")

local handle_of = core_handle.of

local core_client = {}

-- Keys that this Lua state loads right now, by server: see marks.lua.
local loading_of = {}
-- The same by clock and group: there a wait ends by itself, so each group may play a process.
local loading_by_clock = setmetatable({}, { __mode = "k" })

local function loading_at(settings)
    local servers, name = loading_of, settings.url
    local clock = settings.clock
    if clock then
        servers, name = loading_by_clock[clock] or {}, name .. " " .. settings.group
        loading_by_clock[clock] = servers
    end
    servers[name] = servers[name] or setmetatable({}, { __mode = "v" })
    return servers[name]
end

local HOLDS = { open = C.RC_HOLD_OPEN, close = C.RC_HOLD_CLOSED, auto = C.RC_HOLD_AUTO }

---@class redcache.Client
---@field handle ffi.cdata*|nil nil once closed
---@field loading table<string, table>

---Opens, or finds, the client for these settings: the process's, or, with a driver of the
---scheduler's, this Lua state's.
---@param settings table complete settings of redcache.new
---@param driver integer|nil REACTOR, POLL, HOST; nil: REACTOR, and no loop
---@return redcache.Client|nil client
---@return string|nil message why not
---@return string|nil option that is to blame; nil: none, memory has run out
function core_client.open(settings, driver)
    local handle, message, option, port
    if driver then
        port, message, option = core_loop.open_port(settings, driver)
        handle = port and port.handle
    else
        handle, message, option = core_handle.open(settings, C.RC_DRIVER_REACTOR)
    end
    if not handle then
        return nil, message, option
    end
    return {
        handle = handle,
        port = port,
        driver = settings.driver,
        auth = settings.auth,
        is_memory = string.find(settings.url, "^memory://") ~= nil,
        connect_timeout = settings.connectTimeout,
        identity = settings.identity, -- what nginx shows in TLS handshakes
        command_timeout = settings.commandTimeout,
        slots = {},
        count = 0,
        loading = loading_at(settings),
        clock = settings.clock and settings.clock._handle,
        max_value = settings.maxValue,
        max_key = settings.maxKey,
        near = settings.near,
        has_breaker = settings.breaker ~= false,
        due = false, -- see background.lua; here, so that a call finds it at once
        rest = false, -- see later.lua
    }
end

---Gives this Lua state's reference back.
---@param client redcache.Client
---@param timeout number seconds to wait until leases and locks are given back
function core_client.close(client, timeout)
    local handle = client.handle
    if handle == nil then
        return
    end
    client.handle = nil
    for i = 1, client.count do
        core_owned.free(client.slots[i].op)
    end
    client.slots, client.count = {}, 0
    if not client.port and core_owned.let_go(handle) then
        C.rc_unref(handle, core_clock.milliseconds_or_none(timeout))
    end
end

---What every call on a closed cache returns.
---@param client redcache.Client
---@param action string
---@param key string|nil
---@return redcache.Error|nil err nil: it is open
function core_client.closed(client, action, key)
    if client.handle == nil then
        return core_slot.failure(nil, C.RC_ERR_CLOSED, action, key)
    end
end

---Ends every operation that carries `tag`.
---@return integer count
function core_client.cancel(client, tag)
    return C.rc_cancel(handle_of(client), tag)
end

---Holds circuit breakers, or lets them go.
---@param hold string "open", "close", "auto"
---@param address string|nil nil: of all servers
---@return integer count of servers; below 0: a status
function core_client.breaker(client, hold, address)
    return C.rc_breaker(handle_of(client), HOLDS[hold], address)
end

---@param hold any
---@return boolean
function core_client.is_hold(hold)
    return HOLDS[hold] ~= nil
end

local STATS = {
    requests = "requests", bytesOut = "bytes_out", bytesIn = "bytes_in", pushes = "pushes",
    connects = "connects", disconnects = "disconnects", retries = "retries",
    noscript = "noscript", redirections = "redirections", mapRefreshes = "map_refreshes",
    replicaReads = "replica_reads", replicaFallbacks = "replica_fallbacks",
    timeouts = "timeouts", leases = "leases", leaseWaits = "lease_waits",
    leasesLost = "leases_lost", heartbeats = "heartbeats", shared = "shared",
    degradedLoads = "degraded", locks = "locks", locksLost = "locks_lost",
    lockRenewals = "lock_renewals", deletesLost = "deletes_lost",
    inlineTurns = "inline_turns", reactorTurns = "reactor_turns", lateWakes = "late_wakes",
    inFlight = "in_flight", waiting = "waiting", activeLeases = "active_leases",
    activeLocks = "active_locks",
    breakerOpened = "breaker_trips", breakerRefused = "breaker_refusals",
    breakerProbes = "breaker_probes", breakersOpen = "breakers_open",
}

---The client's counters, as numbers.
---@return table<string, integer>
function core_client.stats(client)
    local stats = ffi.new("rc_stats")
    C.rc_get_stats(handle_of(client), stats)
    local out = {}
    for name, field in pairs(STATS) do
        out[name] = tonumber(stats[field])
    end
    -- Of callers that sleep in their scheduler: it counts itself.
    out.lateWakes = out.lateWakes + (client.port and client.port.late_wakes or 0)
    return out
end

-- "tracking: why\n..." as {tracking = "why", ...}
local function read_off(text)
    local off = {}
    for what, why in string.gmatch(text, "([^:\n]+): ([^\n]*)\n") do
        off[what] = why
    end
    return off
end

-- "address\twhy\n..." as {address = "why", ...}
local function read_replicas(text)
    local replicas = {}
    for address, why in string.gmatch(text, "([^\t\n]+)\t?([^\n]*)\n") do
        replicas[address] = why
    end
    return replicas
end

-- "address\tstate\tcause\n..." as {address = {state = "open", cause = "why"}, ...}
local function read_breakers(text)
    local breakers = {}
    for address, state, cause in string.gmatch(text, "([^\t\n]+)\t([^\t\n]*)\t([^\n]*)\n") do
        breakers[address] = { state = state, cause = cause }
    end
    return breakers
end

---@return table health
function core_client.health(client)
    local health = ffi.new("rc_health")
    C.rc_get_health(handle_of(client), health)
    return {
        ready = health.ready ~= 0,
        tracking = health.tracking ~= 0,
        down = tonumber(health.down_ms) / 1000,
        server = ffi.string(health.server),
        mode = ffi.string(health.mode),
        off = read_off(ffi.string(health.off)),
        replicas = read_replicas(ffi.string(health.replicas)),
        breaker = read_breakers(ffi.string(health.breaker)),
        address = ffi.string(health.address),
        cause = ffi.string(health.cause),
    }
end

return core_client
