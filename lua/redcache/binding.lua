-- binding - the C core as plain Lua functions; the only file that touches ffi.
--
-- What:   loads the library, keeps a pool of operation slots per client and Lua state, turns
--         seconds into milliseconds and statuses into error objects.
-- Memory: a slot is a table {op, result, client}; whoever takes it gives it back. Results are
--         copied out before the slot is used again. Scratch cdata is never held across a wait.
-- Not:    no waiting policy (scheduler/), no protocol (remember.lua, lock.lua).

local ffi = require("ffi")
local cdef = require("redcache.cdef")
local errors = require("redcache.errors")
local options = require("redcache.options")

local FOREVER = options.FOREVER
local ABI = 5

-- A second run in one Lua state (a cleared package.loaded) must not declare everything again.
if not pcall(ffi.typeof, "rc_load_options") then
    ffi.cdef(cdef)
    -- By names of our own: others may have declared these with other types.
    ffi.cdef([[
        struct redcache_pollfd { int fd; short events; short revents; };
        int redcache_poll(struct redcache_pollfd *fds, unsigned long count, int timeout_ms)
            __asm__("poll");
        int redcache_getpid(void) __asm__("getpid");
        int redcache_getppid(void) __asm__("getppid");
    ]])
end
local POLLIN = 1

-- Looks in the environment, then where Lua's C modules live, then where the linker looks.
local function load_library()
    local path = os.getenv("REDCACHE_LIBRARY")
    if path and path ~= "" then
        return ffi.load(path)
    end
    path = package.searchpath("libredcache", package.cpath)
        or package.searchpath("redcache.libredcache", package.cpath)
    if path then
        return ffi.load(path)
    end
    local ok, library = pcall(ffi.load, "redcache")
    if not ok then
        error("could not load libredcache: it is neither named by REDCACHE_LIBRARY, nor in"
            .. " package.cpath, nor where the linker looks: " .. tostring(library), 0)
    end
    return library
end

local C = load_library()
if C.rc_abi() ~= ABI then
    error("could not load libredcache: its interface has version " .. C.rc_abi()
        .. ", these Lua files want " .. ABI, 0)
end

local binding = {
    -- Outcomes and flags as the core says them, under the names the Lua files use.
    HIT = C.RC_HIT,
    MISS = C.RC_MISS,
    LOAD = C.RC_LOAD,
    FAILED = C.RC_FAILED,
    STORED = C.RC_STORED,
    UNSTORED = C.RC_UNSTORED,
    KIND_NONE = C.RC_KIND_NONE,
    KIND_VALUE = C.RC_KIND_VALUE,
    KIND_NEGATIVE = C.RC_KIND_NEGATIVE,
    STALE = C.RC_STALE,
    DEGRADED = C.RC_DEGRADED,
    REFRESH = C.RC_REFRESH,
    WAITED = C.RC_WAITED,
    WANT_TTL = C.RC_WANT_TTL,
    SCRIPT_FIRST = C.RC_SCRIPT_FIRST,
    RETRY = C.RC_RETRY,
    STRICT = C.RC_STRICT,
    PUT = C.RC_PUT,
    HIDE_OLD = C.RC_HIDE_OLD,
    FORCE = C.RC_FORCE,
    NO_RENEW = C.RC_NO_RENEW,
    FRESH = C.RC_FRESH,
    REPLACE = C.RC_REPLACE,
    NEAR_MISS = C.RC_NEAR_MISS,
    NEAR_HIT = C.RC_NEAR_HIT,
    NEAR_STALE = C.RC_NEAR_STALE,
    KIND_PLAIN = C.RC_KIND_PLAIN,
    KIND_ERROR = C.RC_KIND_ERROR,
    KIND_LEASE = C.RC_KIND_LEASE,
    LOCK_HELD = C.RC_LOCK_HELD,
    LOCK_LOST = C.RC_LOCK_LOST,
    TIMEOUT = C.RC_ERR_TIMEOUT,
    CANCELLED = C.RC_ERR_CANCELLED,
    CLOSED = C.RC_ERR_CLOSED,
    LOST = C.RC_ERR_LOST,
    NOTHELD = C.RC_ERR_NOTHELD,
    ARGUMENT = C.RC_ERR_ARGUMENT,
    TOOLARGE = C.RC_ERR_TOOLARGE,
    DESCRIPTORS = C.RC_ERR_DESCRIPTORS,
    -- What a scheduler's wait() says where the caller can not wait: the request is on its way.
    NOT_WAITED = 1,
    -- Who moves the bytes.
    REACTOR = C.RC_DRIVER_REACTOR,
    POLL = C.RC_DRIVER_POLL,
    HOST = C.RC_DRIVER_HOST,
    HOST_CLOSE = C.RC_HOST_CLOSE,
    HOST_OPEN = C.RC_HOST_OPEN,
    TURN_NAMES = C.RC_TURN_NAMES,
}

local CODES = {
    [C.RC_ERR_NOMEM] = "overload",
    [C.RC_ERR_TIMEOUT] = "timeout",
    [C.RC_ERR_CANCELLED] = "cancelled",
    [C.RC_ERR_UNAVAILABLE] = "unavailable",
    [C.RC_ERR_UNKNOWN] = "outcomeUnknown",
    [C.RC_ERR_OVERLOAD] = "overload",
    [C.RC_ERR_CLOSED] = "closed",
    [C.RC_ERR_REDIS] = "redis",
    [C.RC_ERR_PROTOCOL] = "redis",
    [C.RC_ERR_TOOLARGE] = "tooLarge",
    [C.RC_ERR_LOST] = "leaseLost",
    [C.RC_ERR_NOTHELD] = "notHeld",
    [C.RC_ERR_BUSY] = "notAcquired",
    [C.RC_ERR_ARGUMENT] = "redis",
    [C.RC_ERR_FORKED] = "notHeld",
    [C.RC_ERR_DESCRIPTORS] = "unavailable",
    [binding.NOT_WAITED] = "cannotWait",
}

-- Scratch, filled and read within one call.
local entry = ffi.new("rc_entry")
local client_out = ffi.new("rc_client *[1]")
local refusal = ffi.new("rc_refusal")
local lock_numbers = ffi.new("rc_lock_options")
local token_out = ffi.new("char[33]")

local ceil = math.ceil

-- Rounds up, so that nothing ends before its time; never 0, which would mean another thing.
-- The small number keeps 0.3 * 1000 = 300.00000000000006 from becoming 301.
local function milliseconds(seconds)
    local ms = ceil(seconds * 1000 - 1e-6)
    return ms < 1 and 1 or ms
end

-- 0 keeps its own meaning: none, never, one try.
local function milliseconds_or_none(seconds)
    return seconds > 0 and milliseconds(seconds) or 0
end

---Seconds of the clock that the client goes by.
---@param client redcache.Client
---@return number
function binding.now(client)
    local clock = client.clock
    return tonumber(clock and C.rc_clock_now(clock) or C.rc_now_us()) / 1e6
end

-- Clocks that are moved by hand -------------------------------------------------------------------

---@return ffi.cdata* clock
function binding.new_clock()
    local clock = C.rc_clock_new()
    if clock == nil then
        error("could not make a clock: no memory", 0)
    end
    return ffi.gc(clock, C.rc_clock_free)
end

---@param seconds number
function binding.advance_clock(clock, seconds)
    -- To the nearest: 0.1 + 0.2 seconds are 300 ms.
    C.rc_clock_advance(clock, math.floor(seconds * 1e6 + 0.5))
end

---@return number seconds
function binding.clock_time(clock)
    return tonumber(C.rc_clock_now(clock)) / 1e6
end

-- Clients -----------------------------------------------------------------------------------------

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

local function unref(handle)
    -- Runs in the garbage collector: leases and locks get a moment to be given back.
    C.rc_unref(handle, 200)
end

---@class redcache.Client
---@field handle ffi.cdata*|nil nil once closed
---@field loading table<string, table>

-- The options of the core by their names here. What it says of the driver is about the scheduler.
local OPTIONS = {
    [C.RC_OPTION_URL] = "url",
    [C.RC_OPTION_TLS_CA] = "tlsCa",
    [C.RC_OPTION_CONNECT_TIMEOUT] = "connectTimeout",
    [C.RC_OPTION_COMMAND_TIMEOUT] = "commandTimeout",
    [C.RC_OPTION_MAX_VALUE] = "maxValue",
    [C.RC_OPTION_MAX_KEY] = "maxKey",
    [C.RC_OPTION_MAX_QUEUE] = "maxQueue",
    [C.RC_OPTION_DEGRADED_TTL] = "degradedTtl",
    [C.RC_OPTION_SPIN] = "spin",
    [C.RC_OPTION_NEAR_BYTES] = "near",
    [C.RC_OPTION_NEAR_NAME] = "near",
    [C.RC_OPTION_MAX_BYTES] = "maxBytes",
    [C.RC_OPTION_CLOCK] = "clock",
    [C.RC_OPTION_DRIVER] = "scheduler",
}

---The ranges of the core's numbers, in its own units (times: milliseconds).
---@return table<string, integer[]> ranges { min, max } by option
function binding.ranges()
    local ranges, min, max = {}, ffi.new("int64_t[1]"), ffi.new("int64_t[1]")
    for id, name in pairs(OPTIONS) do
        if C.rc_option_range(id, min, max) == 0 then
            ranges[name] = { tonumber(min[0]), tonumber(max[0]) }
        end
    end
    return ranges
end

-- A handle for these settings: handle | nil, message, option that is to blame or nil
local function open_handle(settings, driver)
    local o = ffi.new("rc_options")
    o.driver = driver
    o.url, o.url_len = settings.url, #settings.url
    o.group, o.group_len = settings.group, #settings.group
    o.tls_ca, o.tls_ca_len = settings.tlsCa, #settings.tlsCa
    o.connect_timeout_ms = milliseconds(settings.connectTimeout)
    o.command_timeout_ms = milliseconds(settings.commandTimeout)
    o.max_value_bytes = settings.maxValue
    o.max_key_bytes = settings.maxKey
    o.max_queue = settings.maxQueue
    o.degraded_ttl_ms = milliseconds(settings.degradedTtl)
    o.spin = settings.spin and 1 or -1
    local near = settings.near
    if near then
        o.near, o.near_bytes = 1, near.bytes
        o.near_name, o.near_name_len = near.shared, #near.shared
    end
    o.max_bytes = settings.maxBytes or 0
    o.clock = settings.clock and settings.clock._handle
    if C.rc_open(o, client_out, refusal) ~= 0 then
        return nil, ffi.string(refusal.text), OPTIONS[refusal.option]
    end
    return ffi.gc(client_out[0], unref)
end

---What the caches of one Lua state with equal settings share where a scheduler has a loop: the
---client's handle, its loop, and what the scheduler keeps in here.
---@class redcache.Port
---@field handle ffi.cdata*
---@field loop ffi.cdata*|nil of the process `pid`
---@field references integer
---@field key string
local ports = {}
local own_loops = 0 -- of this Lua state

local CONNECTION = { "url", "group", "tlsCa", "connectTimeout", "commandTimeout", "maxValue",
    "maxKey", "maxQueue", "degradedTtl", "spin", "maxBytes", "scheduler", "driver", "clock" }

local function port_key(settings)
    local parts = {}
    for i, name in ipairs(CONNECTION) do
        parts[i] = tostring(settings[name])
    end
    local near = settings.near
    parts[#parts + 1] = near and near.bytes .. ":" .. near.shared or "none"
    return table.concat(parts, "\n")
end

local function open_port(settings, driver)
    local key = port_key(settings)
    local port = ports[key]
    if not port then
        local handle, message, option = open_handle(settings, driver)
        if not handle then
            return nil, message, option
        end
        port = { handle = handle, references = 0, key = key, scheduler = settings.scheduler }
        ports[key] = port
    end
    port.references = port.references + 1
    return port
end

---Opens, or finds, the client for these settings: the process's, or, with a driver of the
---scheduler's, this Lua state's.
---@param settings table complete settings of redcache.new
---@param driver integer|nil REACTOR, POLL, HOST; nil: REACTOR, and no loop
---@return redcache.Client|nil client
---@return string|nil message why not
---@return string|nil option that is to blame; nil: none, memory has run out
function binding.open(settings, driver)
    local handle, message, option, port
    if driver then
        port, message, option = open_port(settings, driver)
        handle = port and port.handle
    else
        handle, message, option = open_handle(settings, C.RC_DRIVER_REACTOR)
    end
    if not handle then
        return nil, message, option
    end
    return {
        handle = handle,
        port = port,
        driver = settings.driver,
        is_memory = string.find(settings.url, "^memory://") ~= nil,
        connect_timeout = settings.connectTimeout,
        command_timeout = settings.commandTimeout,
        slots = {},
        count = 0,
        loading = loading_at(settings),
        clock = settings.clock and settings.clock._handle,
        max_value = settings.maxValue,
        max_key = settings.maxKey,
        near = settings.near,
    }
end

---Gives this Lua state's reference back.
---@param client redcache.Client
---@param timeout number seconds to wait until leases and locks are given back
function binding.close(client, timeout)
    local handle = client.handle
    if handle == nil then
        return
    end
    client.handle = nil
    for i = 1, client.count do
        C.rc_op_free(ffi.gc(client.slots[i].op, nil))
    end
    client.slots, client.count = {}, 0
    if not client.port then
        ffi.gc(handle, nil)
        C.rc_unref(handle, milliseconds_or_none(timeout))
    end
end

---Gives back one cache's share of a port.
---@param port redcache.Port
---@return boolean last the port's scheduler has to end it, and then calls end_port
function binding.leave_port(port)
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
function binding.end_port(port, timeout)
    local handle, loop = port.handle, port.loop
    if handle == nil then
        return
    end
    port.handle, port.loop = nil, nil
    if loop then
        own_loops = own_loops - 1
        C.rc_loop_free(ffi.gc(loop, nil))
    end
    C.rc_unref(ffi.gc(handle, nil), milliseconds_or_none(timeout))
end

---What every call on a closed cache returns.
---@param client redcache.Client
---@param action string
---@param key string|nil
---@return redcache.Error|nil err nil: it is open
function binding.closed(client, action, key)
    if client.handle == nil then
        return binding.failure(nil, C.RC_ERR_CLOSED, action, key)
    end
end

-- A client is closed while its caches are still there: C never gets a NULL.
local function handle_of(client)
    return client.handle or error("could not use the client: it is closed", 0)
end

---Whether another Lua state of this process has loops, too.
---@return boolean
function binding.has_rivals()
    return C.rc_loop_count() > own_loops
end

---Ends every operation that carries `tag`.
---@return integer count
function binding.cancel(client, tag)
    return C.rc_cancel(handle_of(client), tag)
end

local STATS = {
    requests = "requests", bytesOut = "bytes_out", bytesIn = "bytes_in", pushes = "pushes",
    connects = "connects", disconnects = "disconnects", retries = "retries",
    noscript = "noscript", timeouts = "timeouts", leases = "leases", leaseWaits = "lease_waits",
    leasesLost = "leases_lost", heartbeats = "heartbeats", shared = "shared",
    degradedLoads = "degraded", locks = "locks", locksLost = "locks_lost",
    lockRenewals = "lock_renewals", deletesLost = "deletes_lost",
    inlineTurns = "inline_turns", reactorTurns = "reactor_turns", lateWakes = "late_wakes",
    inFlight = "in_flight", waiting = "waiting", activeLeases = "active_leases",
    activeLocks = "active_locks",
}

---The client's counters, as numbers.
---@return table<string, integer>
function binding.stats(client)
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

---@return table health
function binding.health(client)
    local health = ffi.new("rc_health")
    C.rc_get_health(handle_of(client), health)
    return {
        ready = health.ready ~= 0,
        tracking = health.tracking ~= 0,
        down = tonumber(health.down_ms) / 1000,
        server = ffi.string(health.server),
        address = ffi.string(health.address),
        cause = ffi.string(health.cause),
    }
end

-- Slots -------------------------------------------------------------------------------------------

---@class redcache.Slot
---@field op ffi.cdata*
---@field result ffi.cdata* read in place until the slot's next use
---@field client redcache.Client
---@field custom boolean it carries a tag or timeout of its own
---@field is_large boolean idle with more than SMALL_BYTES in a buffer, or it was

-- What idle slots may keep. The pool is last in, first out, so the upper WARM slots are those that
-- a state with a few callers uses again and again: they keep what the core keeps of a slot in use
-- (op.c), and no large answer is allocated anew each time. Those below wait for the next burst:
-- they keep what most answers fit into. A slot that sinks out of the warm ones gives the rest back.
local WARM, WARM_BYTES, WARM_BITS = 4, 256 * 1024, 18
local SMALL_BYTES, SMALL_BITS = 16 * 1024, 14

local function new_slot(client)
    if client.handle == nil then
        return nil, C.RC_ERR_CLOSED
    end
    local op = C.rc_op_new(client.handle)
    if op == nil then
        return nil, C.RC_ERR_NOMEM
    end
    ffi.gc(op, C.rc_op_free)
    local slot = { op = op, result = C.rc_op_result(op), client = client, custom = false,
        is_large = false }
    local port = client.port
    if port then
        port.names = (port.names or 0) + 1
        slot.name = port.names
        C.rc_op_name(op, port.loop, slot.name)
    end
    return slot
end

---The caller of a slot is gone: what runs in it ends, a lease it holds is given back. The slot is
---not used again.
function binding.discard(slot)
    C.rc_op_drop(slot.op)
end

---The same for a caller that only seems to be gone: what it still does with the slot ends with an
---error, and the slot does not go back to the pool.
function binding.drop(slot)
    C.rc_op_drop(slot.op)
    slot.detached, slot.is_told = true, false
end

---Takes an idle slot.
---@return redcache.Slot|nil slot
---@return integer|nil status why not
function binding.take(client)
    local enter = client.enter
    if enter and client.handle ~= nil and not enter(client) then
        return nil, binding.NOT_WAITED
    end
    local count = client.count
    if count > 0 then
        local slots = client.slots
        local slot = slots[count]
        slots[count] = nil
        client.count = count - 1
        return slot
    end
    return new_slot(client)
end

---Gives a slot back; its result is void from now on.
function binding.give(slot)
    local client = slot.client
    if slot.detached then
        slot.is_given = true
        if not slot.is_told then
            return -- end_detached does it
        end
        slot.detached = false
    end
    if slot.custom then
        slot.custom = false
        C.rc_op_tag(slot.op, 0)
        C.rc_op_timeout(slot.op, 0)
    end
    if client.handle == nil then
        C.rc_op_free(ffi.gc(slot.op, nil))
        return
    end
    local count = client.count + 1
    local slots = client.slots
    slots[count] = slot -- may throw for want of memory
    client.count = count
    local bits = slot.result.room_bits
    if bits > SMALL_BITS then
        slot.is_large = true
        if bits > WARM_BITS then
            C.rc_op_trim(slot.op, WARM_BYTES)
        end
    end
    if count > WARM then
        local sunk = slots[count - WARM]
        if sunk.is_large then
            sunk.is_large = false
            C.rc_op_trim(sunk.op, SMALL_BYTES)
        end
    end
end

---Whoever waits for the slot in its port does so no more.
function binding.forget_wait(slot)
    local port = slot.client.port
    local waiting, posted = port and port.waiting, port and port.posted
    slot.waits, slot.sleeps, slot.co = false, false, nil
    if waiting and waiting[slot.name] == slot then
        waiting[slot.name] = nil
        port.count = port.count - 1
    end
    if posted then
        posted[slot.name] = nil
    end
end

---The call that used the slot has thrown. What runs in it ends, a lease it holds is given back; the
---slot is the garbage collector's.
function binding.abandon(slot)
    if slot.detached then
        return binding.give(slot) -- nobody waits for it anyway
    end
    binding.forget_wait(slot)
    C.rc_op_drop(slot.op)
end

---Nobody waits for what runs in the slot. It is idle again when that is done and its caller has
---given it back, in whichever order.
---@param is_given boolean its caller will not
function binding.detach(slot, is_given)
    slot.detached, slot.is_given, slot.is_told = true, is_given, false
end

---What ran in a detached slot is done.
function binding.end_detached(slot)
    slot.is_told, slot.keeps = true, nil
    if slot.is_given then
        binding.give(slot)
    end
end

---Lends the slot's next operations a timeout and a tag; give() takes both off.
---@param timeout number|nil seconds
---@param tag integer|nil
function binding.customize(slot, timeout, tag)
    slot.custom = true
    C.rc_op_timeout(slot.op, timeout and milliseconds(timeout) or 0)
    C.rc_op_tag(slot.op, tag or 0)
end

---The time at which a call that asks Redis more than once has to end.
---@param client redcache.Client
---@param timeout number|nil seconds of the call's own
---@return number seconds as binding.now
function binding.deadline(client, timeout)
    return binding.now(client) + (timeout or client.command_timeout)
end

---What is left of a call's time, for its next operation.
---@param client redcache.Client
---@param deadline number of binding.deadline
---@return number seconds above 0: what has no time left ends at once
function binding.left(client, deadline)
    return math.max(deadline - binding.now(client), 0.001)
end

---Blocks the thread until the slot's operation is done.
---@return integer status
function binding.wait(slot)
    return C.rc_wait(slot.op)
end

---Whether the slot's operation is done, without waiting.
---@return boolean
function binding.done(slot)
    return C.rc_done(slot.op) ~= 0
end

---The same, without a look at what has come in.
---@return boolean
function binding.is_done(slot)
    return C.rc_is_done(slot.op) ~= 0
end

---The error object for a status other than 0.
---@param slot redcache.Slot|nil nil: the operation never started
---@param status integer
---@param action string
---@param key string|nil
---@return redcache.Error
function binding.failure(slot, status, action, key)
    local cause
    local result = slot and slot.result
    -- A call that failed at once wrote no result: what stands there belongs to an earlier one.
    if result and result.status == status and result.data ~= nil and result.len > 0 then
        cause = ffi.string(result.data, result.len)
    else
        cause = status == binding.NOT_WAITED and "nothing can be waited for here"
            or ffi.string(C.rc_strerror(status))
    end
    return errors.new(CODES[status] or "redis", action, key, cause)
end

-- Loops -------------------------------------------------------------------------------------------

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
function binding.open_loop(port)
    local loop = port.handle ~= nil and C.rc_loop_new(port.handle) or nil
    if loop == nil then
        return false
    end
    if port.loop then -- of the parent process
        own_loops = own_loops - 1
    end
    port.loop, own_loops = ffi.gc(loop, C.rc_loop_free), own_loops + 1
    port.turn = port.turn or ffi.new("rc_turn")
    return true
end

---Does what can be done without waiting, and tells what is done.
---@param port redcache.Port
---@return integer count of names: turn_name(port, 0) to turn_name(port, count - 1); a port that
---has ended tells nothing
---@return integer news of connections: bits 0 and 1 where one has output, 2 and 3 where it wants
---something done
function binding.turn(port)
    local turn, loop = port.turn, port.loop
    if loop == nil then
        return 0, 0
    end
    C.rc_loop_turn(loop, turn)
    return turn.count, turn.news
end

function binding.turn_name(port, index)
    return port.turn.names[index]
end

---Seconds until the next turn is due even without news; nil: never.
---@return number|nil
function binding.turn_wait(port)
    local us = port.turn.wait_us
    return us >= 0 and tonumber(us) / 1e6 or nil
end

---Copies the bytes to send over a connection. They stay the core's until host_sent.
---@return string|nil bytes nil: there are none
function binding.output(port, link)
    local bytes = C.rc_host_output(loop_of(port), link, len_out)
    return bytes ~= nil and ffi.string(bytes, len_out[0]) or nil
end

---What the last turn wants done with a connection: HOST_CLOSE, HOST_OPEN. Told once.
---@return integer
function binding.wants(port, link)
    local at = port.turn.links[link]
    local wants = at.wants
    at.wants = 0
    return wants
end

---Sleeps until something is done; something must be under way.
function binding.wait_any(port)
    C.rc_loop_wait(loop_of(port))
end

---@return integer fd
function binding.loop_fd(port)
    return C.rc_loop_fd(loop_of(port))
end

local watched = ffi.new("struct redcache_pollfd[?]", 1)
local watched_room = 1

---Sleeps until something is done in one of these ports, for which a thread works meanwhile.
---@param list redcache.Port[]
---@param count integer
function binding.wait_ports(list, count)
    if count > watched_room then
        watched, watched_room = ffi.new("struct redcache_pollfd[?]", count), count
    end
    for i = 1, count do
        local at = watched[i - 1]
        at.fd, at.events, at.revents = binding.loop_fd(list[i]), POLLIN, 0
    end
    ffi.C.redcache_poll(watched, count, -1)
end

---@return integer pid of this process
function binding.pid()
    return ffi.C.redcache_getpid()
end

---@return integer pid of the process that has made this one
function binding.parent_pid()
    return ffi.C.redcache_getppid()
end

---@return string|nil path of a socket to connect to at once
function binding.loop_listen(port)
    local len = C.rc_loop_listen(loop_of(port), address_out, 1024)
    return len > 0 and ffi.string(address_out, len) or nil
end

function binding.loop_accept(port)
    return C.rc_loop_accept(loop_of(port)) == 0
end

function binding.host_opened(port, link)
    C.rc_host_opened(loop_of(port), link)
end

function binding.host_lost(port, link, cause)
    C.rc_host_lost(loop_of(port), link, cause, #cause)
end

function binding.host_feed(port, link, bytes)
    C.rc_host_feed(loop_of(port), link, bytes, #bytes)
end

function binding.host_sent(port, link, len)
    C.rc_host_sent(loop_of(port), link, len)
end

---Somebody reads the near cache in this process: connects before anything has to be asked for.
function binding.host_begin(port)
    C.rc_host_begin(loop_of(port))
end

---Hands over what this process has kept coherent in a near cache that others share. To be called
---again until it is done.
---@return boolean done
function binding.hand_over(port)
    return C.rc_host_hand_over(loop_of(port)) ~= 0
end

---Closes the connections unless somebody needs them.
---@return boolean closed
function binding.host_rest(port)
    return port.loop == nil or C.rc_host_rest(loop_of(port)) ~= 0
end

---Gives leases and locks back and ends what waits.
---@return boolean drained all of that has been answered, or the port has ended
function binding.host_leave(port)
    return port.loop == nil or C.rc_host_leave(loop_of(port)) ~= 0
end

---Where to connect to.
---@return string host or path of a unix socket
---@return integer|nil port nil: a unix socket, or no server at all
---@return boolean tls
function binding.host_address(port)
    local len = C.rc_host_address(loop_of(port), address_out, 1024, port_out, tls_out)
    local number = port_out[0]
    return ffi.string(address_out, len), number > 0 and number or nil, tls_out[0] ~= 0
end

---Looks the server's name up in a thread.
---@return string|false|nil address false: call again in a moment; nil: it has none
function binding.host_lookup(port)
    local len = C.rc_host_lookup(loop_of(port), address_out, 1024)
    if len == 0 then
        return false
    end
    return len > 0 and ffi.string(address_out, len) or nil
end

-- The near cache ----------------------------------------------------------------------------------

local near_value = ffi.new("rc_near_value")
local near_buffer -- kept alive here; near_value points to it
local bytes_of = ffi.typeof("const uint8_t *")
local handles_of = ffi.typeof("rc_near_handle[?]")
local HANDLE_BYTES = ffi.sizeof("rc_near_handle")
binding.MAX_STALE_US = 2 ^ 31 - 1 -- half an hour, more than a view call ever takes

local function grow_near_buffer(bytes)
    near_buffer = ffi.new("char[?]", bytes)
    near_value.buffer, near_value.capacity = near_buffer, bytes
end
grow_near_buffer(4096)

---Microseconds, as the view calls want maxStale.
---@param seconds number
---@return integer
function binding.stale_us(seconds)
    return math.floor(seconds * 1e6)
end

---A view of the client's near cache.
---@param client redcache.Client
---@param prefix string
---@param near table settings.near
---@return ffi.cdata*|nil view nil: no memory
function binding.view(client, prefix, near)
    local group = near.group or ""
    local view = C.rc_view_new(handle_of(client), prefix, #prefix, group, #group, near.min,
        near.max, near.ttl and near.ttl * 1e6 or 0)
    if view == nil then
        return nil
    end
    return ffi.gc(view, C.rc_view_free)
end

-- Apart from view_get, which stays without a loop: LuaJIT compiles it into the caller's.
local function view_get_grown(view, key, max_stale_us)
    local outcome = C.RC_NEAR_GROW
    while outcome == C.RC_NEAR_GROW do
        grow_near_buffer(tonumber(near_value.len) + 64)
        outcome = C.rc_view_get(view, key, #key, max_stale_us, near_value)
    end
    return outcome
end

---Looks a key up in this machine's memory. What was found stays readable until the next call.
---@param view ffi.cdata*
---@param key string
---@param max_stale_us integer
---@return integer outcome NEAR_MISS, NEAR_HIT, NEAR_STALE
function binding.view_get(view, key, max_stale_us)
    local outcome = C.rc_view_get(view, key, #key, max_stale_us, near_value)
    if outcome == C.RC_NEAR_GROW then
        return view_get_grown(view, key, max_stale_us)
    end
    return outcome
end

---Looks a key up however long ago it was known coherent, and tells whether that is since `since`.
---@param since ffi.cdata* int64_t, a barrier's number
---@return integer outcome
function binding.view_get_since(view, key, since)
    local outcome = binding.view_get(view, key, binding.MAX_STALE_US)
    if outcome == C.RC_NEAR_HIT and near_value.asof_us < since then
        return C.RC_NEAR_STALE
    end
    return outcome
end

---What the last view_get found.
---@return integer kind
---@return integer codec
---@return integer flags of the entry
---@return integer len of the payload
function binding.near_entry()
    return near_value.kind, near_value.codec, near_value.entry_flags, tonumber(near_value.len)
end

---Copies the payload of what the last view_get found.
---@return string
function binding.near_bytes()
    return ffi.string(near_value.data, near_value.len)
end

---The string, where the payload of what the last view_get found is one string in MessagePack.
---@return string|nil text nil: it is something else, or longer than 65,535 bytes
function binding.near_msgpack_string()
    local data, len = ffi.cast(bytes_of, near_value.data), tonumber(near_value.len)
    local head = len > 0 and data[0] or 0
    if head == 0xd9 and len >= 2 and data[1] == len - 2 then
        return ffi.string(data + 2, len - 2)
    elseif head >= 0xa0 and head <= 0xbf and head - 0xa0 == len - 1 then
        return ffi.string(data + 1, len - 1)
    elseif head == 0xda and len >= 3 and data[1] * 256 + data[2] == len - 3 then
        return ffi.string(data + 3, len - 3)
    end
    return nil
end

---Room for the handles of `count` entries, 0 to count - 1.
---@param old? ffi.cdata* the first of them are taken from there
---@param old_count? integer
function binding.near_handles(count, old, old_count)
    local handles = handles_of(count)
    if old then
        ffi.copy(handles, old, old_count * HANDLE_BYTES)
    end
    return handles
end

---Keeps the handle of what the last view_get found.
function binding.keep_handle(handles, index)
    handles[index] = near_value.handle
end

---Whether what handles[index] stands for may still be served.
---@return boolean
function binding.view_check(view, handles, index, max_stale_us)
    return C.rc_view_check(view, handles, index, max_stale_us) == 1
end

---Whether the handle was used since the last time this was asked.
function binding.was_used(handles, index)
    local used = handles[index].used ~= 0
    handles[index].used = 0
    return used
end

---Starts reading a key, whose answer is kept near.
---@return integer status
function binding.view_read(view, slot, key, flags)
    return C.rc_view_read(view, slot.op, key, #key, flags)
end

---Starts asking the tracked connection for a sign of life.
---@return integer status
function binding.barrier(slot)
    return C.rc_barrier(slot.op)
end

---When the barrier in this slot was set.
---@return ffi.cdata* int64_t
function binding.barrier_time(slot)
    return slot.result.number
end

local near_stats = ffi.new("rc_near_stats")
local NEAR_STATS = { "fills", "dooms", "invalidations", "writes", "evictions", "expirations",
    "ghosts", "refusals", "revalidations", "repairs", "damaged", "entries", "bytes", "capacity" }

---@return table<string, number>
function binding.near_stats(client)
    C.rc_get_near_stats(handle_of(client), near_stats)
    local out = {}
    for _, name in ipairs(NEAR_STATS) do
        out[name] = tonumber(near_stats[name])
    end
    local age_us = tonumber(near_stats.horizon_age_us)
    out.horizon = age_us >= 0 and age_us / 1e6 or nil
    return out
end

-- Entries -----------------------------------------------------------------------------------------

---Starts reading a key.
---@return integer status
function binding.get(slot, key, flags)
    return C.rc_get(slot.op, key, #key, flags)
end

local function fill_entry(kind, codec, ttl, grace, load_time)
    entry.kind = kind
    entry.codec = codec
    entry.entry_flags = 0
    entry.schema = 0
    entry.stale_ms = (grace > 0 and ttl ~= FOREVER) and milliseconds(grace) or 0
    entry.load_ms = load_time > 0 and ceil(load_time * 1000) or 0
end

-- The life in Redis: the time to live and, behind it, the grace window.
local function life(ttl, grace)
    if ttl == FOREVER then
        return -1
    elseif ttl == 0 then
        return 0
    end
    return milliseconds(ttl) + milliseconds_or_none(grace)
end

---Starts storing a value.
---@param plain boolean without a header
---@return integer status
function binding.set(slot, key, codec, bytes, ttl, grace, plain)
    fill_entry(C.RC_KIND_VALUE, codec, ttl, grace, 0)
    return C.rc_set(slot.op, key, #key, entry, bytes, #bytes, life(ttl, grace),
        plain and C.RC_PLAIN or 0)
end

---Starts deleting a key; the result's number tells whether it was there.
---@return integer status
function binding.delete(slot, key)
    return C.rc_delete(slot.op, key, #key)
end

---Copies what a result holds.
---@return integer kind
---@return integer codec
---@return integer flags of the entry
---@return string bytes
function binding.entry(slot)
    local result = slot.result
    return result.kind, result.codec, result.entry_flags, ffi.string(result.data, result.len)
end

---The whole stored string of a result that has a header.
---@return string
function binding.stored(slot)
    local result = slot.result
    return ffi.string(result.data - C.RC_HEADER_SIZE, result.len + C.RC_HEADER_SIZE)
end

---The version of the value in a result.
---@return string eight bytes
function binding.version(slot)
    return ffi.string(slot.result.version, 8)
end

---The text in a result: a loader's error.
---@return string
function binding.text(slot)
    local result = slot.result
    return result.data ~= nil and ffi.string(result.data, result.len) or ""
end

---The remaining life of the entry in a result: FOREVER, nil when not known, or seconds.
---@return number|redcache.Forever|nil life including the grace window
---@return number grace seconds
function binding.life(slot)
    local result = slot.result
    local ttl, grace = tonumber(result.ttl_ms), result.stale_ms / 1000
    if ttl == -1 then
        return FOREVER, 0
    elseif ttl < 0 then
        return nil, grace
    end
    return ttl / 1000, grace
end

---The whole number of a result.
---@return number
function binding.number(slot)
    return tonumber(slot.result.number)
end

-- Loads -------------------------------------------------------------------------------------------

---The numbers of rc_load for these settings, made once.
---@return ffi.cdata*
function binding.load_numbers(settings)
    local numbers = ffi.new("rc_load_options")
    numbers.lease_ttl_ms = milliseconds(settings.leaseTtl)
    numbers.max_load_ms = milliseconds(settings.maxLoadTime)
    numbers.wait_timeout_ms = milliseconds(settings.waitTimeout)
    return numbers
end

---Starts a load; `left` (seconds) shortens the wait of this one.
---@return integer status
function binding.load(slot, key, numbers, flags, left)
    numbers.flags = flags
    if left then
        local whole = numbers.wait_timeout_ms
        numbers.wait_timeout_ms = milliseconds(left)
        local status = C.rc_load(slot.op, key, #key, numbers)
        numbers.wait_timeout_ms = whole
        return status
    end
    return C.rc_load(slot.op, key, #key, numbers)
end

---Starts a load of a key of this view, as binding.load.
---@return integer status
function binding.view_load(view, slot, key, numbers, flags, left)
    numbers.flags = flags
    local whole = numbers.wait_timeout_ms
    if left then
        numbers.wait_timeout_ms = milliseconds(left)
    end
    local status = C.rc_view_load(view, slot.op, key, #key, numbers)
    numbers.wait_timeout_ms = whole
    return status
end

---Starts storing what was loaded. `ttl` 0: not stored, only shared with callers of this process.
---@return integer status
function binding.publish(slot, kind, codec, bytes, ttl, grace, load_time, plain)
    fill_entry(kind, codec, ttl, grace, load_time)
    return C.rc_publish(slot.op, entry, bytes, #bytes, life(ttl, grace),
        plain and C.RC_PLAIN or 0)
end

---Starts telling those who wait that the load failed.
---@return integer status
function binding.fail(slot, text, error_ttl)
    return C.rc_fail(slot.op, text, #text, milliseconds_or_none(error_ttl))
end

---Starts giving the lease back without a word.
---@return integer status
function binding.release(slot)
    return C.rc_release(slot.op)
end

-- Any commands, in one write ----------------------------------------------------------------------

---@return integer status
function binding.begin(slot, flags)
    return C.rc_begin(slot.op, flags)
end

---@return integer status
function binding.command(slot, argument_count)
    return C.rc_command_begin(slot.op, argument_count)
end

---@return integer status
function binding.argument(slot, bytes)
    return C.rc_argument(slot.op, bytes, #bytes)
end

---One SET in a batch. The caller has checked the sizes: a half-written command can not be undone.
---@return integer status
function binding.command_set(slot, key, codec, bytes, ttl, grace, plain)
    local ms = life(ttl, grace)
    fill_entry(C.RC_KIND_VALUE, codec, ttl, grace, 0)
    local op = slot.op
    local status = C.rc_command_begin(op, ms > 0 and 5 or 3)
    if status == 0 then
        status = C.rc_argument(op, "SET", 3)
    end
    if status == 0 then
        status = C.rc_argument_written(op, key, #key)
    end
    if status == 0 then
        local wraps = not plain or string.byte(bytes, 1) == C.RC_HEADER_BYTE
        status = C.rc_argument_entry(op, wraps and entry or nil, bytes, #bytes)
    end
    if status == 0 and ms > 0 then
        status = C.rc_argument(op, "PX", 2)
        if status == 0 then
            status = C.rc_argument_int(op, ms)
        end
    end
    return status
end

---An argument that names a key the command changes.
---@return integer status
function binding.argument_written(slot, key)
    return C.rc_argument_written(slot.op, key, #key)
end

---@return integer status
function binding.submit(slot)
    return C.rc_submit(slot.op)
end

---Submits one UNLINK of many keys.
---@return integer status
function binding.submit_delete(slot)
    return C.rc_delete_submit(slot.op)
end

---The flat answer of a batch: elements 0 to count - 1.
---@return ffi.cdata* nodes
---@return integer count
function binding.nodes(slot)
    return C.rc_op_nodes(slot.op), slot.result.nodes
end

---Text of an element.
---@return string
function binding.node_text(node)
    return node.str ~= nil and ffi.string(node.str, node.len) or ""
end

---Reads one element as an entry into the result.
---@return integer status
function binding.node_entry(slot, node)
    return C.rc_op_entry(slot.op, node)
end

-- Locks -------------------------------------------------------------------------------------------

---@return ffi.cdata*|nil handle
---@return integer|nil status
function binding.lock(client, key)
    if client.handle == nil then
        return nil, C.RC_ERR_CLOSED
    elseif #key > client.max_key then
        return nil, C.RC_ERR_TOOLARGE
    end
    local handle = C.rc_lock_new(client.handle, key, #key)
    if handle == nil then
        return nil, C.RC_ERR_NOMEM
    end
    return ffi.gc(handle, C.rc_lock_free)
end

---Gives a held lock back, cancels what runs for the handle, and frees it; waits for nothing.
function binding.free_lock(handle)
    C.rc_lock_free(ffi.gc(handle, nil))
end

---Starts acquiring; the result's number is the fence.
---@param settings table ttl, wait, maxHold
---@return integer status
function binding.lock_acquire(handle, slot, flags, ttl, wait, max_hold)
    lock_numbers.flags = flags
    lock_numbers.ttl_ms = milliseconds(ttl)
    lock_numbers.wait_ms = milliseconds_or_none(wait)
    lock_numbers.max_hold_ms = milliseconds_or_none(max_hold)
    return C.rc_lock_acquire(handle, slot.op, lock_numbers)
end

---@return integer status
function binding.lock_release(handle, slot)
    return C.rc_lock_release(handle, slot.op)
end

---@return integer status
function binding.lock_extend(handle, slot, ttl)
    return C.rc_lock_extend(handle, slot.op, milliseconds(ttl))
end

---@return integer state LOCK_HELD, LOCK_LOST or neither
function binding.lock_state(handle)
    return C.rc_lock_state(handle)
end

---Seconds this handle may still trust its lock.
---@return number
function binding.lock_remaining(handle)
    return tonumber(C.rc_lock_remaining(handle)) / 1000
end

---@return string token 32 hex digits
function binding.lock_token(handle)
    C.rc_lock_token(handle, token_out)
    return ffi.string(token_out, 32)
end

-- MessagePack -------------------------------------------------------------------------------------

local tokens_of = ffi.typeof("rc_token[?]")
local scan_of = ffi.typeof("rc_scan")
local FIRST_TOKENS = 256
local TOKENS_KEPT = 65536 -- 1 MiB; no array is larger
local idle_tokens -- nil while lent: a finalizer may decode while somebody else builds tables
local idle_room = 0

---Splits MessagePack into tokens, where they fit into an array.
---@param bytes string
---@return integer count below 0: not MessagePack, or over a limit; over room: see msgpack_part
---@return ffi.cdata* tokens the caller's until give_tokens(tokens, room)
---@return integer room of the array
function binding.msgpack_scan(bytes)
    local tokens, room = idle_tokens, idle_room
    idle_tokens = nil
    if not tokens then
        tokens, room = tokens_of(FIRST_TOKENS), FIRST_TOKENS
    end
    local count = C.rc_msgpack_scan(bytes, #bytes, tokens, room)
    if count > room and room < TOKENS_KEPT then
        room = count < TOKENS_KEPT and count or TOKENS_KEPT
        tokens = tokens_of(room)
        count = C.rc_msgpack_scan(bytes, #bytes, tokens, room)
    end
    return count, tokens, room
end

---@return ffi.cdata* scan of a value that msgpack_part is going to read
function binding.msgpack_begin()
    return scan_of()
end

---The next tokens of a value that msgpack_scan has found good.
---@param scan ffi.cdata*
---@return integer count
function binding.msgpack_part(scan, bytes, tokens, room)
    return C.rc_msgpack_next(scan, bytes, #bytes, tokens, room)
end

---Lends the array to the next scan; without this it would make a new one.
function binding.give_tokens(tokens, room)
    if room <= TOKENS_KEPT then
        idle_tokens, idle_room = tokens, room
    end
end

local buffer_of = ffi.typeof("uint8_t[?]")
local copy, string_of = ffi.copy, ffi.string

---A byte buffer of `size` bytes; it begins with the first `used` bytes of `old`.
function binding.byte_buffer(size, old, used)
    local buffer = buffer_of(size)
    if old then
        copy(buffer, old, used)
    end
    return buffer
end

---Copies `text` to buffer[at]. The caller has made room.
function binding.copy_string(buffer, at, text)
    copy(buffer + at, text, #text)
end

function binding.buffer_string(buffer, len)
    return string_of(buffer, len)
end

local wide = ffi.new("union { double number; int64_t int64; uint64_t uint64; uint8_t bytes[8]; }")
local LITTLE = ffi.abi("le")
local function put_wide(buffer, at)
    local from = wide.bytes
    if LITTLE then
        buffer[at], buffer[at + 1], buffer[at + 2] = from[7], from[6], from[5]
        buffer[at + 3], buffer[at + 4], buffer[at + 5] = from[4], from[3], from[2]
        buffer[at + 6], buffer[at + 7] = from[1], from[0]
    else
        copy(buffer + at, from, 8)
    end
end

---Writes 8 bytes, big-endian.
function binding.put_double(buffer, at, number)
    wide.number = number
    put_wide(buffer, at)
end

local int64_type, uint64_type = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

---Writes an int64_t or uint64_t as MessagePack: 9 bytes beyond 2^53, 10 (an extension, see
---core/codec/msgpack.h) within. The caller has made room.
---@return integer|nil len nil for any other cdata
function binding.put_integer64(buffer, at, integer)
    local head, kind, exact
    if ffi.istype(int64_type, integer) then
        wide.int64 = integer
        head, kind = 0xd3, 0x69
        exact = integer >= -9007199254740992LL and integer <= 9007199254740992LL
    elseif ffi.istype(uint64_type, integer) then
        wide.uint64 = integer
        head, kind, exact = 0xcf, 0x75, integer <= 9007199254740992ULL
    else
        return nil
    end
    if not exact then
        buffer[at] = head
        put_wide(buffer, at + 1)
        return 9
    end
    buffer[at], buffer[at + 1] = 0xd7, kind
    put_wide(buffer, at + 2)
    return 10
end

return binding
