-- options - every option of redcache: where it may stand, its range, its default.
--
-- What:   one table that new(), namespace(), locks and the options of single calls are checked by.
-- Not:    no FFI, no defaults hidden elsewhere. Times are seconds.

local later = require("redcache.later")
local hints = later.module("redcache.hints")
local serializer = require("redcache.serializer")
local usage = require("redcache.usage")

local options = {}

---Time to live of an entry that never expires. Only ever given explicitly.
---@class redcache.Forever
options.FOREVER = setmetatable({}, {
    __tostring = function()
        return "redcache.FOREVER"
    end,
})
local FOREVER = options.FOREVER

-- A hundred years: beyond it a time to live is a slip of the pen, and milliseconds stay exact.
local MAX_TTL = 3155760000
-- The C side counts waits in 32-bit milliseconds; a day is far below that.
local DAY = 86400
-- Whole numbers up to here are exact.
local EXACT = 2 ^ 53 - 1

---@param ttl any
---@return boolean good a number of seconds above 0, or FOREVER
function options.is_ttl(ttl)
    return ttl == FOREVER or (type(ttl) == "number" and ttl > 0 and ttl <= MAX_TTL)
end

-- Of an entry. What a block of tags can hold (core/near/tags.h).
local MAX_TAGS = 16
options.MAX_TAGS = MAX_TAGS
local MAX_TAG_BYTES = 200

---How the name of a tag is told.
options.TAG = "string of 1 to " .. MAX_TAG_BYTES .. " bytes"

---@param name any
---@return boolean good it can be the name of a tag
function options.is_tag(name)
    return type(name) == "string" and #name >= 1 and #name <= MAX_TAG_BYTES
end

-- kind: number | integer | boolean | string | choice | function | ttl | codec | clock | tls |
--       list | table | near | zone | background | breaker | writeBehind | tags | bloom |
--       offline
-- at:   new, namespace (and so new), load (remember, rememberForever, rememberMulti, put), loadMany
--       (rememberMulti), many (that and getMulti), read (get, getMulti, remember and its kin),
--       look (those, exists, ttl),
--       write (set, setMulti), count (incr, decr, incrFloat), wrap, session, limiter,
--       keepFresh, deadLetters,
--       move (rename, copy),
--       delete, get, update, call (all that talk to Redis), lock, raw (redis), transaction,
--       scan, keys, sweep (deleteByPattern), flush, warm, loader,
--       why (get, remember),
--       commit (afterCommit), collect (what its function collects)
-- Of rows with one name the last that fits a place counts. The ranges of what the core takes, too,
-- are those of core/client/options.c; a spec compares them.
local DECLARED = {
    -- The connection.
    { "url", "string", "memory://", at = "new", min = 1, max = 4096 },
    { "maxBytes", "integer", nil, at = "new", min = 65536, max = 2 ^ 36 },
    { "clock", "clock", nil, at = "new" },
    { "group", "string", "", at = "new", min = 0, max = 256 },
    { "tlsCa", "string", "", at = "new", min = 0, max = 4096 },
    { "tlsCert", "string", "", at = "new", min = 0, max = 4096 },
    { "tlsKey", "string", "", at = "new", min = 0, max = 4096 },
    { "tlsServerName", "string", "", at = "new", min = 0, max = 255 },
    { "user", "string", "", at = "new", min = 0, max = 127 },
    { "password", "string", "", at = "new", min = 0, max = 511 },
    { "sentinelUser", "string", "", at = "new", min = 0, max = 127 },
    { "sentinelPassword", "string", "", at = "new", min = 0, max = 511 },
    { "auth", "function", nil, at = "new" },
    { "tls", "tls", nil, at = "new" },
    { "connectTimeout", "number", 1, at = "new", min = 0.001, max = 60 },
    { "commandTimeout", "number", 0.5, at = "new", min = 0.001, max = 60 },
    { "maxValue", "integer", 8 * 1024 * 1024, at = "new", min = 1,
        max = 512 * 1024 * 1024 - 1024 },
    { "maxKey", "integer", 65536, at = "new", min = 1, max = 16 * 1024 * 1024 },
    { "maxQueue", "integer", 65536, at = "new", min = 1, max = 16 * 1024 * 1024 },
    { "maxLent", "integer", 16, at = "new", min = 1, max = 4096 },
    { "degradedTtl", "number", 1, at = "new", min = 0.001, max = 3600 },
    { "spin", "boolean", true, at = "new" },
    { "scheduler", "choice", "blocking", at = "new",
        among = { "blocking", "resty", "coroutine", "luv", "cqueues", "copas" } },
    { "driver", "choice", "loop", at = "new", among = { "loop", "thread" } },
    { "namespace", "string", "", at = "new", min = 0, max = 4096 },
    { "background", "background", nil, at = "new" },
    { "breaker", "breaker", nil, at = "new" },

    -- How much a namespace may ask for.
    { "maxInFlight", "integer", nil, at = "namespace", min = 1, max = 1000000 },
    { "maxRate", "number", nil, at = "namespace", min = 0.001, max = 1e9 },
    { "maxWaiting", "integer", 0, at = "namespace", min = 0, max = 1000000 },

    -- Replicas.
    { "zone", "zone", nil, at = "new" },
    { "reads", "choice", nil, at = "look", among = { "master", "replica" } },
    { "reads", "choice", "master", at = "namespace", among = { "master", "replica" } },

    -- Entries.
    { "ttl", "ttl", 300, at = "namespace" },
    { "ttl", "ttl", nil, at = "count wrap warm loader" },
    { "codec", "codec", "msgpack", at = "namespace" },
    { "plain", "boolean", false, at = "namespace" },
    { "grace", "number", 0, at = "namespace load write", min = 0, max = 30 * DAY },
    { "tags", "tags", nil, at = "load write" },
    { "generation", "boolean", false, at = "namespace" },
    { "tagIndex", "boolean", false, at = "namespace" },
    { "bloom", "bloom", nil, at = "namespace" },
    { "offline", "offline", false, at = "namespace" },
    { "instant", "boolean", false, at = "flush" },
    { "writeBehind", "writeBehind", nil, at = "namespace" },
    { "tagTtl", "number", 30 * DAY, at = "namespace", min = 1, max = MAX_TTL },
    { "decodeErrors", "choice", "miss", at = "namespace", among = { "miss", "error" } },

    -- Counters.
    { "init", "number", 0, at = "count", min = -EXACT, max = EXACT },
    { "min", "number", nil, at = "count", min = -EXACT, max = EXACT },
    { "max", "number", nil, at = "count", min = -EXACT, max = EXACT },

    -- Other keys.
    { "nx", "boolean", false, at = "move" },

    -- Versions.
    { "version", "boolean", false, at = "get" },
    { "retries", "integer", 100, at = "update addTags", min = 0, max = 1000000 },

    -- Reasons.
    { "why", "boolean", false, at = "why" },

    -- Deletes.
    { "soft", "boolean", false, at = "delete" },

    -- The near cache.
    { "near", "near", nil, at = "namespace" },
    { "near", "near", true, at = "new" },
    { "near", "boolean", nil, at = "read" },
    { "maxStale", "number", 1, at = "namespace read", min = 0.005, max = 1800 },
    { "copy", "boolean", false, at = "namespace read" },
    { "guard", "boolean", false, at = "namespace" },
    { "fresh", "boolean", nil, at = "read" },

    -- The answers for many keys.
    { "list", "boolean", nil, at = "many" },
    { "into", "table", nil, at = "many" },

    -- Loads.
    { "leaseTtl", "number", 5, at = "namespace load", min = 0.05, max = 3600 },
    { "maxLoadTime", "number", 60, at = "namespace load", min = 0.05, max = DAY },
    { "waitTimeout", "number", 5, at = "namespace load", min = 0.001, max = DAY },
    { "onTimeout", "choice", "error", at = "namespace load", among = { "error", "load", "stale" } },
    { "negativeTtl", "number", 5, at = "namespace load", min = 0, max = 30 * DAY },
    { "errorTtl", "number", 0, at = "namespace load", min = 0, max = DAY },
    { "strict", "boolean", false, at = "namespace load" },
    { "renew", "boolean", true, at = "namespace load" },
    { "serveOld", "boolean", true, at = "namespace load" },
    { "refreshAfter", "number", nil, at = "namespace load", min = 0.001, max = MAX_TTL },
    { "xfetchBeta", "number", 0, at = "namespace load", min = 0, max = 1000 },
    { "softTimeout", "number", 0, at = "namespace load", min = 0, max = DAY },
    { "jitter", "number", 0, at = "namespace load", min = 0, max = 0.99 },
    { "reloads", "integer", 0, at = "namespace load", min = 0, max = 100 },
    { "key", "function", nil, at = "wrap" },
    { "prime", "boolean", nil, at = "loadMany" },
    { "maxBatch", "integer", nil, at = "loader", min = 1, max = 4096 },
    { "maxWait", "number", nil, at = "loader", min = 0.001, max = 60 },

    -- Sessions.
    { "name", "string", "session", at = "session", min = 1, max = 256 },
    { "ttl", "ttl", 1800, at = "session" },

    -- Rate limiters.
    { "kind", "choice", "gcra", at = "limiter", among = { "gcra", "fixed", "sliding" } },
    { "limit", "integer", nil, at = "limiter", min = 1, max = 1e9 },
    { "window", "number", nil, at = "limiter", min = 0.1, max = 30 * DAY },
    { "burst", "integer", nil, at = "limiter", min = 1, max = 1e9 },
    { "name", "string", nil, at = "limiter", min = 1, max = 256 },
    { "onUnavailable", "choice", "allow", at = "limiter", among = { "allow", "deny" } },
    { "budget", "integer", nil, at = "limiter", min = 2, max = 1e6 },

    -- Locks: defaults of a cache, then the options of one lock.
    { "lockTtl", "number", 10, at = "namespace", min = 0.1, max = DAY },
    { "lockWait", "number", 5, at = "namespace", min = 0, max = DAY },
    { "ttl", "number", nil, at = "lock", min = 0.1, max = DAY },
    { "wait", "number", nil, at = "lock", min = 0, max = DAY },
    { "maxHold", "number", 0, at = "lock", min = 0, max = DAY },
    { "force", "boolean", false, at = "lock" },
    { "renew", "boolean", true, at = "lock" },
    { "reentrant", "boolean", false, at = "lock" },
    { "fair", "boolean", false, at = "lock" },
    { "onLost", "function", nil, at = "lock" },

    -- Values that are kept fresh.
    { "ttl", "ttl", nil, at = "keepFresh" },
    { "lockTtl", "number", nil, at = "keepFresh", min = 0.1, max = DAY },

    -- Writes that were given up.
    { "limit", "integer", 100, at = "deadLetters", min = 1, max = EXACT },

    -- Scans.
    { "count", "integer", nil, at = "scan keys", min = 1, max = 100000 },
    { "type", "string", nil, at = "scan keys", min = 1, max = 64 },
    { "limit", "integer", nil, at = "scan", min = 1, max = EXACT },
    { "dedup", "boolean", false, at = "scan" },
    { "batch", "integer", nil, at = "sweep flush warm", min = 1, max = 10000 },
    { "rate", "number", nil, at = "sweep flush warm", min = 0.001, max = 1e9 },
    { "dryRun", "boolean", false, at = "sweep flush" },
    { "progress", "function", nil, at = "sweep flush warm" },
    { "all", "boolean", false, at = "flush" },

    -- What waits for the end of a transaction.
    { "onFailed", "function", nil, at = "commit" },

    -- Single calls.
    { "timeout", "number", nil, at = "call lock keepFresh", min = 0.001, max = 60 },
    { "cancelTag", "integer", nil, at = "call lock", min = 1, max = 2 ^ 53 },
    { "retry", "boolean", nil, at = "raw" },
    { "watch", "list", nil, at = "transaction" },
    { "retries", "integer", 10, at = "transaction", min = 0, max = 1000000 },
}

-- Which words of `at` each kind of call accepts.
local ACCEPTED = {
    new = { "new", "namespace" },
    namespace = { "namespace" },
    load = { "load", "read", "look", "call", "why" },
    wrap = { "wrap", "load", "read", "look", "call" },
    loadMany = { "loadMany", "many", "load", "read", "look", "call" },
    readMany = { "many", "read", "look", "call" },
    session = { "session" },
    limiter = { "limiter" },
    keepFresh = { "keepFresh" },
    deadLetters = { "deadLetters" },
    put = { "load", "call" },
    read = { "read", "look", "call" },
    look = { "look", "call" },
    write = { "write", "call" },
    count = { "count", "call" },
    move = { "move", "call" },
    delete = { "delete", "call" },
    collect = { "delete" },
    commit = { "commit", "call" },
    get = { "get", "read", "look", "call", "why" },
    update = { "update", "write", "call" },
    addTags = { "addTags", "call" },
    call = { "call" },
    scan = { "scan", "call" },
    keys = { "keys", "call" },
    warm = { "warm", "write", "call" },
    loader = { "loader", "loadMany", "load", "read", "look", "call" },
    sweep = { "sweep", "call" },
    flush = { "flush", "call" },
    raw = { "raw", "call" },
    transaction = { "transaction", "call" },
    lock = { "lock" },
}

-- The fields of the option near, and of near.l0. Those marked region are redcache.new's alone.
local NEAR = {
    { "bytes", "integer", 64 * 1024 * 1024, min = 65536, max = 2 ^ 36, region = true },
    { "shared", "string", "", min = 1, max = 200, region = true },
    { "ttl", "number", nil, min = 0.001, max = MAX_TTL },
    { "min", "integer", 0, min = 0, max = 2 ^ 36 },
    { "max", "integer", 0, min = 0, max = 2 ^ 36 },
    { "l0", "l0" },
    { "selective", "boolean", false },
}
local L0 = {
    { "entries", "integer", 8192, min = 1, max = 2 ^ 20, region = true },
    { "bytes", "integer", 16 * 1024 * 1024, min = 1024, max = 2 ^ 36, region = true },
}

-- The fields of the option bloom.
local BLOOM = {
    { "keys", "integer", nil, min = 1, max = 1e8 },
    { "falseRate", "number", 0.01, min = 0.0001, max = 0.5 },
}

-- The fields of the option offline.
local OFFLINE = {
    { "mode", "choice", "local", among = { "local" } },
    { "ttl", "number", 300, min = 0.05, max = DAY },
}

-- The fields of the option background.
local BACKGROUND = {
    { "workers", "integer", 2, min = 1, max = 64 },
    { "queue", "integer", 1000, min = 1, max = 1000000 },
}

-- The fields of the option breaker: requests, their share, seconds, PINGs, seconds. Where nobody
-- gives the option the core has its own: the same, but no answer is slow.
local BREAKER = {
    { "window", "integer", 20, min = 1, max = 200 },
    { "errors", "number", 0.5, min = 0.001, max = 1 },
    { "latency", "number", 0.1, min = 0.001, max = 60 },
    { "probes", "integer", 3, min = 1, max = 100 },
    { "wait", "number", 0.25, min = 0.001, max = 1 },
}

-- The fields of the option writeBehind: of each cache; a user's function has to be there.
local WRITE_BEHIND = {
    { "write", "function", nil },
    { "entries", "integer", 10000, min = 1, max = 2 ^ 20 },
    { "bytes", "integer", 16 * 1024 * 1024, min = 1024, max = 2 ^ 36 },
    { "attempts", "integer", 10, min = 1, max = 100 },
    { "onFailed", "function", nil },
    { "batch", "integer", 100, min = 1, max = 10000 },
    { "delay", "number", 0, min = 0, max = DAY },
    { "writers", "integer", 1, min = 1, max = 64 },
    { "durable", "boolean", false },
    { "partitions", "integer", 4, min = 1, max = 64 },
}

-- What the option zone may hold, in all.
local ZONE_BYTES = 4096

local function range(row, unit)
    return unit .. " from " .. string.format("%.14g", row.min) .. " to "
        .. string.format("%.14g", row.max)
end

local CHECKS = {
    number = function(row, value)
        -- The comparisons also refuse NaN.
        return type(value) == "number" and value >= row.min and value <= row.max,
            range(row, "number")
    end,
    integer = function(row, value)
        return type(value) == "number" and value >= row.min and value <= row.max
            and value == math.floor(value), range(row, "whole number")
    end,
    boolean = function(_, value)
        return type(value) == "boolean", "true or false"
    end,
    string = function(row, value)
        return type(value) == "string" and #value >= row.min and #value <= row.max,
            "string of " .. row.min .. " to " .. row.max .. " bytes"
    end,
    choice = function(row, value)
        for _, allowed in ipairs(row.among) do
            if value == allowed then
                return true
            end
        end
        return false, '"' .. table.concat(row.among, '" or "') .. '"'
    end,
    tls = function(_, value)
        return value == "off", nil, nil, hints.TLS
    end,
    zone = function(_, value)
        local expected = 'list of addresses ("10.0.1.7", "10.0.1.7:7003", "10.0.1.*")'
        for _, address in ipairs(type(value) == "table" and value or {}) do
            if type(address) ~= "string" or not string.find(address, "^[^%s%c,*]*%*?$")
                or address == "" then
                return false, expected
            end
        end
        local text = type(value) == "table" and value[1] and table.concat(value, ",")
        return text and #text <= ZONE_BYTES, expected, text
    end,
    tags = function(_, value)
        local expected = ("list of at most %d names, each a %s, and none twice")
            :format(MAX_TAGS, options.TAG)
        if type(value) ~= "table" or #value > MAX_TAGS then
            return false, expected
        end
        local copy, seen = {}, {}
        for i = 1, #value do
            local name = value[i]
            if not options.is_tag(name) or seen[name] then
                return false, expected
            end
            copy[i], seen[name] = name, true
        end
        for name in pairs(value) do
            if type(name) ~= "number" or copy[name] == nil then
                return false, expected
            end
        end
        return true, expected, copy
    end,
    list = function(_, value)
        return type(value) == "table", "list"
    end,
    table = function(_, value)
        return type(value) == "table", "table"
    end,
    ["function"] = function(_, value)
        return type(value) == "function", "function"
    end,
    ttl = function(_, value)
        return options.is_ttl(value), "number above 0 or redcache.FOREVER"
    end,
    clock = function(_, value)
        return type(value) == "table" and value._handle ~= nil, "redcache.clock()"
    end,
    codec = function(_, value)
        local codec, reason = serializer.resolve(value)
        return codec, '"msgpack", "json", "raw", "number" or a codec table', codec, reason
    end,
}

-- Checks a nested table by its rows. fields, message
local function read_fields(rows, given, whole)
    local fields = {}
    for name, value in pairs(given) do
        local row
        for _, candidate in ipairs(rows) do
            row = candidate[1] == name and candidate or row
        end
        if row == nil then
            return nil, "it has no field '" .. tostring(name) .. "'"
        elseif row.region and not whole then
            return nil, "'" .. name .. "' belongs to new"
        end
        local good, expected, resolved, reason = CHECKS[row[2]](row, value, whole)
        if not good then
            return nil, "'" .. name .. "': " .. (reason or expected .. " expected")
        end
        if resolved ~= nil then
            value = resolved
        end
        fields[name] = value
    end
    return fields
end

-- true, false or a table of fields; becomes false or such a table.
local function check_nested(rows, value, whole)
    if value == true then
        value = {}
    elseif type(value) ~= "table" then
        return value == false, "true, false or a table"
    end
    local fields, reason = read_fields(rows, value, whole)
    return fields ~= nil, nil, fields, reason
end

CHECKS.near = function(_, value, whole)
    local good, expected, fields, reason = check_nested(NEAR, value, whole)
    if good and fields and fields.shared and string.find(fields.shared, "[^%w._-]") then
        return false, nil, nil, "'shared': letters, digits and ._- expected"
    end
    return good, expected, fields, reason
end

CHECKS.l0 = function(_, value, whole)
    return check_nested(L0, value, whole)
end

CHECKS.background = function(_, value, whole)
    return check_nested(BACKGROUND, value, whole)
end

-- The same, with every field.
local function check_whole(rows, value)
    local good, expected, fields, reason = check_nested(rows, value)
    if fields then
        for _, row in ipairs(rows) do
            fields[row[1]] = fields[row[1]] or row[3]
        end
    end
    return good, expected, fields, reason
end

CHECKS.breaker = function(_, value)
    return check_whole(BREAKER, value)
end

CHECKS.writeBehind = function(_, value)
    if type(value) ~= "table" then
        return false, "table"
    elseif value.write == nil then
        return false, nil, nil, "'write': function(items) expected"
    end
    return check_whole(WRITE_BEHIND, value)
end

CHECKS.offline = function(_, value)
    if value == "local" then
        value = {}
    elseif value ~= false and type(value) ~= "table" then
        return false, 'false, "local" or a table with mode and ttl'
    end
    return check_whole(OFFLINE, value)
end

CHECKS.bloom = function(_, value)
    if value ~= false and type(value) ~= "table" then
        return false, "false or a table with keys"
    elseif value and value.keys == nil then
        return false, nil, nil, "'keys': " .. range(BLOOM[1], "whole number") .. " expected"
    end
    return check_whole(BLOOM, value)
end

---Settles the option background: false, or how much there may be. In plain Lua, where the callers
---would have to do it, there is none unless it is asked for.
---@param settings table
function options.complete_background(settings)
    local given = settings.background
    if given == nil and settings.scheduler ~= "blocking" then
        given = {}
    end
    if given then
        local limits = {}
        for _, row in ipairs(BACKGROUND) do
            limits[row[1]] = given[row[1]] or row[3]
        end
        given = limits
    end
    settings.background = given or false
end

-- What `near` means: `given` (false or fields that were read) over `outer`, the settings around.
local function complete_near(given, outer, prefix)
    if given == false or (given == nil and outer == false) then
        return false
    end
    if given == true then
        given = {}
    end
    local near = {}
    for _, row in ipairs(NEAR) do
        near[row[1]] = row[3]
    end
    near.l0 = {}
    for name, value in pairs(outer or {}) do
        near[name] = value
    end
    for name, value in pairs(given or {}) do
        near[name] = value
    end
    if near.l0 then
        local l0 = {}
        for _, row in ipairs(L0) do
            l0[row[1]] = near.l0[row[1]] or row[3]
        end
        near.l0 = l0
    end
    -- Bounds hold for the prefix they were given for, and all that is below it.
    if given and (given.min or given.max) then
        near.min, near.max, near.group = given.min or 0, given.max or 0, prefix
    end
    return near
end

---Settles the option near of settings that were read.
---@param settings table
---@param outer table|false|nil the near settings of the cache around; nil: there is none
---@param prefix string of the keys
function options.complete_near(settings, outer, prefix)
    settings.near = complete_near(settings.near, outer, prefix)
end

local NESTED = { near = NEAR, l0 = L0, background = BACKGROUND, breaker = BREAKER,
    writeBehind = WRITE_BEHIND, bloom = BLOOM, offline = OFFLINE }

local function accepts(accepted, row)
    local at = row.at
    for _, name in ipairs(accepted) do
        if at == name or string.find(" " .. at .. " ", " " .. name .. " ", 1, true) then
            return true
        end
    end
    return false
end

local places

local function make_rows(_, place)
    local accepted = ACCEPTED[place]
    if not (accepted or NESTED[place]) then
        return nil
    end
    local rows = {}
    for _, row in ipairs(accepted and DECLARED or NESTED[place]) do
        if not accepted or accepts(accepted, row) then
            rows[row[1]] = { name = row[1], kind = row[2], default = row[3],
                min = row.min, max = row.max, among = row.among }
        end
    end
    places[place] = rows
    return rows
end

-- Both are done once for each place: what compiling them costs does not come back.
jit.off(accepts)
jit.off(make_rows)

-- The rows of each place: made when they are first asked for, a program needs few of them.
places = setmetatable({}, { __index = make_rows })

---The rows of one place, by option name: what documentation and specs list.
---@param place string new, namespace, load, ...; near, l0, background, breaker, writeBehind, bloom:
---the fields of that option
---@return table<string, table>
function options.rows(place)
    return places[place]
end

---Whether any place takes an option of that name.
---@param name string
---@return boolean
function options.is_known(name)
    for _, names in ipairs({ ACCEPTED, NESTED }) do
        for place in pairs(names) do
            if places[place][name] then
                return true
            end
        end
    end
    return false
end

-- Never shows a string: it may be a URL with a password.
local function describe(value)
    if type(value) == "number" then
        return string.format("%.14g", value)
    elseif type(value) == "boolean" then
        return tostring(value)
    end
    return type(value)
end

local function unknown(place, name, method)
    return "unknown option '" .. tostring(name) .. "' to " .. method
        .. hints.unknown(name, place, places)
end

---Checks `given` and writes it into `into`; codec names become codecs.
---@param into table
---@param given table|nil
---@param place string
---@param method string the public function's name
---@return table|nil into nil when an option is bad
---@return string|nil message for error()
function options.read(into, given, place, method)
    if given == nil then
        return into
    elseif type(given) ~= "table" then
        return nil, "bad argument 'opts' to " .. method .. ": table expected, got " .. type(given)
            .. usage.hint(method)
    end
    local rows = places[place]
    for name, value in pairs(given) do
        local row = rows[name]
        if row == nil then
            return nil, unknown(place, name, method)
        end
        local good, expected, resolved, reason = CHECKS[row.kind](row, value, place == "new")
        if not good then
            return nil, "bad option '" .. name .. "' to " .. method .. ": "
                .. (reason or expected .. " expected, got " .. describe(value)
                    .. hints.range(row, value))
        end
        if resolved ~= nil then
            value = resolved
        end
        into[name] = value
    end
    if given.reads == "replica" and given.fresh then
        return nil, "bad option 'reads' to " .. method .. ": with fresh = true the master answers:"
            .. " leave one of the two out"
    end
    return into
end

---What is wrong with a grace window for values that are stored without a header, or nil.
---@param grace number|nil
---@param plain boolean
---@param method string
---@return string|nil message for error()
function options.grace_fault(grace, plain, method)
    if plain and grace and grace > 0 then
        return "bad option 'grace' to " .. method .. ": with plain = true there is no header that"
            .. " could keep it: leave one of the two out"
    end
end

-- What readers go by that stands in an entry's header, or behind it.
local NEED_HEADER = { "refreshAfter", "xfetchBeta" }

---grace_fault() of all options that need a header.
---@param given table|nil
---@param plain boolean
---@param method string
---@return string|nil message for error()
function options.plain_fault(given, plain, method)
    if not plain or given == nil then
        return nil
    end
    for _, name in ipairs(NEED_HEADER) do
        if (given[name] or 0) > 0 then
            return "bad option '" .. name .. "' to " .. method .. ": with plain = true there is no"
                .. " header that tells the age: leave one of the two out"
        end
    end
    if given.generation then
        return "bad option 'generation' to " .. method .. ": with plain = true there is no header"
            .. " that could keep it: leave one of the two out"
    elseif given.tagIndex then
        return "bad option 'tagIndex' to " .. method .. ": with plain = true there are no tags:"
            .. " leave one of the two out"
    elseif type(given.tags) == "table" and given.tags[1] ~= nil then
        return "bad option 'tags' to " .. method .. ": with plain = true there is no header that"
            .. " could keep them: leave one of the two out"
    end
    return options.grace_fault(tonumber(given.grace), plain, method)
end

---What is wrong with the option writeBehind of a cache there, or nil.
---@param settings table
---@param is_memory boolean
---@param method string
---@return string|nil message for error()
function options.durable_fault(settings, is_memory, method)
    if is_memory and settings.writeBehind and settings.writeBehind.durable then
        return "bad option 'writeBehind' to " .. method .. ": 'durable': memory:// has no streams,"
            .. " and is gone with its process: name a Redis by the option url, or leave it out"
    end
end

---A queue in front of no limit would hold back nobody.
---@param settings table
---@param method string
---@return string|nil message for error()
function options.waiting_fault(settings, method)
    if settings.maxWaiting > 0 and not (settings.maxInFlight or settings.maxRate) then
        return "bad option 'maxWaiting' to " .. method .. ": no call has to wait without"
            .. " 'maxInFlight' or 'maxRate': give one of them, too"
    end
end

---What is wrong with the option offline of a cache with these settings, or nil.
---@param settings table whose option near is settled
---@param method string
---@return string|nil message for error()
function options.offline_fault(settings, method)
    local bad = settings.offline and (settings.near == false and "near = false"
        or settings.reads == "replica" and 'reads = "replica"')
    if bad then
        return "bad option 'offline' to " .. method .. ": what is written while Redis is away is"
            .. " kept in the near cache, which " .. bad .. " leaves out: leave one of the two out"
    end
end

---Settles the option plain: a codec may have no use for a header (number).
---@param settings table with a codec that is resolved
---@param given table|nil what the caller gave
---@param outer table|nil the settings around: their codec may have decided it
---@param method string
---@return string|nil message for error()
function options.complete_plain(settings, given, outer, method)
    local own = given and given.plain
    if settings.codec.plain then
        if own == false then
            return "bad option 'plain' to " .. method .. ": codec '" .. settings.codec.name
                .. "' stores without a header"
        end
        settings.plain = true
    elseif own == nil and outer and outer.codec.plain then
        settings.plain = false
    end
end

---A full set of settings: the defaults of `place`, over them `given`.
---@param given table|nil
---@param place string
---@param method string
---@return table|nil settings
---@return string|nil message for error()
function options.complete(given, place, method)
    local settings = {}
    for name, row in pairs(places[place]) do
        settings[name] = row.default
    end
    local ok, message = options.read(settings, given, place, method)
    if ok and type(settings.codec) == "string" then
        -- The default is resolved only when it is used: its codec may need an optional module.
        settings.codec, message = serializer.resolve(settings.codec)
        ok = settings.codec
    end
    if ok and place == "new" then
        message = options.complete_plain(settings, given, nil, method)
            or options.plain_fault(settings, settings.plain, method)
        options.complete_near(settings, nil, "")
        message = message or options.offline_fault(settings, method)
        ok = message == nil
    end
    return ok and settings or nil, message
end
jit.off(options.complete) -- a program has few caches

return options
