-- handle - settings as the core wants them: opens a client of the core.
--
-- What:   each option by its name here and its number there, in its unit.
-- Memory: a handle gives its reference back when it is collected, or sooner: client.lua, loop.lua.
-- Errors: which option is to blame, by its name.

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_clock = require("redcache.core.clock")
local core_owned = require("redcache.core.owned")

local milliseconds = core_clock.milliseconds
local client_out = ffi.new("rc_client *[1]")
local refusal = ffi.new("rc_refusal")

local core_handle = {}

local function unref(handle)
    -- Runs in the garbage collector: leases and locks get a moment to be given back.
    C.rc_unref(handle, 200)
end

-- The options of the core by their names here. What it says of the driver is about the scheduler.
local OPTIONS = {
    [C.RC_OPTION_URL] = "url",
    [C.RC_OPTION_TLS_CA] = "tlsCa",
    [C.RC_OPTION_TLS_CERT] = "tlsCert",
    [C.RC_OPTION_TLS_KEY] = "tlsKey",
    [C.RC_OPTION_TLS_NAME] = "tlsServerName",
    [C.RC_OPTION_AUTH] = "auth",
    [C.RC_OPTION_TLS] = "tls",
    [C.RC_OPTION_USER] = "user",
    [C.RC_OPTION_PASSWORD] = "password",
    [C.RC_OPTION_SENTINEL_USER] = "sentinelUser",
    [C.RC_OPTION_SENTINEL_PASSWORD] = "sentinelPassword",
    [C.RC_OPTION_CONNECT_TIMEOUT] = "connectTimeout",
    [C.RC_OPTION_COMMAND_TIMEOUT] = "commandTimeout",
    [C.RC_OPTION_MAX_VALUE] = "maxValue",
    [C.RC_OPTION_MAX_KEY] = "maxKey",
    [C.RC_OPTION_MAX_QUEUE] = "maxQueue",
    [C.RC_OPTION_MAX_LENT] = "maxLent",
    [C.RC_OPTION_DEGRADED_TTL] = "degradedTtl",
    [C.RC_OPTION_SPIN] = "spin",
    [C.RC_OPTION_NEAR_BYTES] = "near",
    [C.RC_OPTION_NEAR_NAME] = "near",
    [C.RC_OPTION_MAX_BYTES] = "maxBytes",
    [C.RC_OPTION_CLOCK] = "clock",
    [C.RC_OPTION_DRIVER] = "scheduler",
    [C.RC_OPTION_ZONE] = "zone",
    [C.RC_OPTION_BREAKER] = "breaker",
    [C.RC_OPTION_BREAKER_WINDOW] = "breaker.window",
    [C.RC_OPTION_BREAKER_ERRORS] = "breaker.errors",
    [C.RC_OPTION_BREAKER_LATENCY] = "breaker.latency",
    [C.RC_OPTION_BREAKER_WAIT] = "breaker.wait",
    [C.RC_OPTION_BREAKER_PROBES] = "breaker.probes",
}

---The ranges of the core's numbers, in its own units (times: milliseconds).
---@return table<string, integer[]> ranges { min, max } by option
function core_handle.ranges()
    local ranges, min, max = {}, ffi.new("int64_t[1]"), ffi.new("int64_t[1]")
    for id, name in pairs(OPTIONS) do
        if C.rc_option_range(id, min, max) == 0 then
            ranges[name] = { tonumber(min[0]), tonumber(max[0]) }
        end
    end
    return ranges
end

---A handle for these settings.
---@param settings table complete settings of redcache.new
---@param driver integer
---@return ffi.cdata*|nil handle
---@return string|nil message why not
---@return string|nil option that is to blame; nil: none, memory has run out
function core_handle.open(settings, driver)
    local o = ffi.new("rc_options")
    o.driver = driver
    o.url, o.url_len = settings.url, #settings.url
    o.group, o.group_len = settings.group, #settings.group
    o.user, o.user_len = settings.user, #settings.user
    o.password, o.password_len = settings.password, #settings.password
    o.auth = settings.auth and 1 or 0
    o.tls = settings.tls == "off" and C.RC_TLS_OFF or C.RC_TLS_BY_URL
    o.tls_ca, o.tls_ca_len = settings.tlsCa, #settings.tlsCa
    o.tls_cert, o.tls_cert_len = settings.tlsCert, #settings.tlsCert
    o.tls_key, o.tls_key_len = settings.tlsKey, #settings.tlsKey
    o.tls_name, o.tls_name_len = settings.tlsServerName, #settings.tlsServerName
    o.sentinel_user, o.sentinel_user_len = settings.sentinelUser, #settings.sentinelUser
    o.sentinel_password = settings.sentinelPassword
    o.sentinel_password_len = #settings.sentinelPassword
    local zone = settings.zone or ""
    o.zone, o.zone_len = zone, #zone
    o.connect_timeout_ms = milliseconds(settings.connectTimeout)
    o.command_timeout_ms = milliseconds(settings.commandTimeout)
    o.max_value_bytes = settings.maxValue
    o.max_key_bytes = settings.maxKey
    o.max_queue = settings.maxQueue
    o.max_lent = settings.maxLent
    local breaker = settings.breaker
    if breaker then
        o.breaker, o.breaker_window, o.breaker_probes = 1, breaker.window, breaker.probes
        o.breaker_errors = math.ceil(breaker.errors * 1000)
        o.breaker_latency_ms = milliseconds(breaker.latency)
        o.breaker_wait_ms = milliseconds(breaker.wait)
    elseif breaker == false then
        o.breaker = -1
    end
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
    return core_owned.keep(client_out[0], unref)
end

---A client is closed while its caches are still there: C never gets a NULL.
---@param client redcache.Client
---@return ffi.cdata* handle
function core_handle.of(client)
    return client.handle or error("could not use the client: it is closed", 0)
end

return core_handle
