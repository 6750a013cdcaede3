-- metrics - stats, near:stats and health as Prometheus reads them.
--
-- What:   the text of the exposition format 0.0.4, and what nginx serves: serve, serveHealth; share
--         is how one worker's answer has the figures of all.
-- Labels: cache (the namespace), worker (nginx: its number), server (address, without user and
--         password), and group of clients that have one. No keys, no names of locks.
-- Not:    nothing is counted here; nothing asks Redis, but for serveHealth where nobody else has.

local errors = require("redcache.errors")

local ngx = rawget(_G, "ngx")

local metrics = {}

local CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
-- Other workers' figures are at most so old; one that has not written for SILENCE is gone.
local SHARE_SECONDS, SILENCE = 5, 15
local DICT_KEY = "redcache:"
local PROBE_KEY, PROBE_SECONDS = "health", 1

-- What there is -----------------------------------------------------------------------------------

-- Rows: name without "redcache_", the field, type, help, further labels. A counter's name gets
-- "_total". Rows of one name stand together.
local CACHE = {
    { "hits", "l0Hits", "counter", "Reads answered with a value, by where it came from.",
        { source = "l0" } },
    { "hits", "nearHits", "counter", nil, { source = "near" } },
    { "hits", "redisHits", "counter", nil, { source = "redis" } },
    { "misses", "misses", "counter", "Reads that found nothing in Redis." },
    { "near_misses", "nearMisses", "counter", "Reads that found nothing near and asked Redis." },
    { "negative", "negative", "counter", "Reads from Redis answered with 'no such thing'." },
    { "stale", "stale", "counter", "Reads answered within the grace window." },
    { "loads", "loads", "counter", "Runs of loaders." },
    { "load_errors", "loadErrors", "counter", "Loads that ended with an error." },
    { "waits", "waits", "counter", "Reads that waited for another's load." },
    { "degraded", "degraded", "counter", "Reads answered by a load without Redis." },
    { "unstored", "unstored", "counter", "Loaded values that could not be stored." },
    { "local_reads", "localReads", "counter",
        "Reads answered by what was written here while Redis was away." },
    { "local_writes", "localWrites", "counter",
        "Writes kept on this machine alone, while Redis was away." },
    { "filtered", "filtered", "counter", "Reads that the filter of keys has answered." },
    { "extra_keys", "extraKeys", "counter", "Loaded values that nobody had asked for." },
    { "decode_errors", "decodeErrors", "counter", "Stored values that could not be decoded." },
    { "behind_written", "behindWritten", "counter", "Values that were written behind." },
    { "behind_failed", "behindFailed", "counter", "Tries to write behind that have failed." },
    { "behind_coalesced", "behindCoalesced", "counter",
        "Values not written behind, for a later one of the key was there." },
    { "behind_refused", "behindRefused", "counter",
        "Calls of setBehind that found too much waiting." },
    { "behind_queued", "behindQueued", "gauge", "Keys with a value to be written behind." },
    { "behind_bytes", "behindBytes", "gauge", "Their size in bytes." },
    { "dead_letters", "deadLetters", "gauge", "Writes behind that were given up, and are kept." },
    { "dead_letters_dropped", "deadLettersDropped", "counter",
        "Writes behind that were given up, and dropped for room." },
    { "bulkhead_refused", "bulkheadRefused", "counter",
        "Calls refused by maxInFlight or maxRate." },
    { "bulkhead_waited", "bulkheadWaited", "counter", "Calls that waited for a place." },
}
-- The same for all caches of one namespace.
local NAMESPACE = {
    { "bulkhead_in_flight", "bulkheadInFlight", "gauge", "Calls that have a place." },
    { "bulkhead_waiting", "bulkheadWaiting", "gauge", "Calls that wait for a place." },
}
local CLIENT = {
    { "requests", "requests", "counter", "Commands sent to Redis." },
    { "sent_bytes", "bytesOut", "counter", "Bytes sent to Redis." },
    { "received_bytes", "bytesIn", "counter", "Bytes received from Redis." },
    { "pushes", "pushes", "counter", "Invalidation messages received." },
    { "connects", "connects", "counter", "Connections that became ready." },
    { "disconnects", "disconnects", "counter", "Connections that ended." },
    { "retries", "retries", "counter", "Requests sent again after a broken connection." },
    { "noscript", "noscript", "counter", "Scripts that Redis had forgotten." },
    { "redirections", "redirections", "counter", "MOVED and ASK that were followed." },
    { "map_refreshes", "mapRefreshes", "counter", "Questions for a cluster's slot map." },
    { "replica_reads", "replicaReads", "counter", "Requests that a replica has answered." },
    { "replica_fallbacks", "replicaFallbacks", "counter",
        "Requests that a replica was asked, and then the master." },
    { "timeouts", "timeouts", "counter", "Calls that ended at their deadline." },
    { "breaker_opened", "breakerOpened", "counter", "Times a server's circuit breaker opened." },
    { "breaker_refused", "breakerRefused", "counter",
        "Requests not sent because a circuit breaker was open." },
    { "breaker_probes", "breakerProbes", "counter", "PINGs that asked whether one may close." },
    { "leases", "leases", "counter", "Leases acquired." },
    { "lease_waits", "leaseWaits", "counter", "Times a load was found running elsewhere." },
    { "leases_lost", "leasesLost", "counter", "Leases lost before their load had ended." },
    { "heartbeats", "heartbeats", "counter", "Renewals of leases." },
    { "shared", "shared", "counter", "Callers served by another's load or read." },
    { "degraded_loads", "degradedLoads", "counter", "Loads run without Redis." },
    { "locks", "locks", "counter", "Locks acquired." },
    { "locks_lost", "locksLost", "counter", "Locks lost before they were released." },
    { "lock_renewals", "lockRenewals", "counter", "Renewals of locks." },
    { "deletes_lost", "deletesLost", "counter",
        "Acknowledged deletes that Redis has lost and that could not be sent again." },
    { "after_commit_failed", "afterCommitFailed", "counter",
        "Invalidations of afterCommit that could not be sent at once." },
    { "after_commit_retried", "afterCommitRetried", "counter",
        "Invalidations of afterCommit that a later try has done." },
    { "after_commit_dropped", "afterCommitDropped", "counter",
        "Invalidations of afterCommit that were given up." },
    { "after_commit_queued", "afterCommitQueued", "gauge",
        "Invalidations of afterCommit that are to be tried again." },
    { "inline_turns", "inlineTurns", "counter", "Times a blocking caller moved the bytes." },
    { "reactor_turns", "reactorTurns", "counter", "Times the reactor thread moved the bytes." },
    { "late_wakes", "lateWakes", "counter",
        "Sleeps of callers that only time ended although there was news." },
    { "background_jobs", "backgroundDone", "counter", "Background jobs, by how they ended.",
        { outcome = "done" } },
    { "background_jobs", "backgroundFailed", "counter", nil, { outcome = "failed" } },
    { "background_jobs", "backgroundDropped", "counter", nil, { outcome = "dropped" } },
    { "background_refused", "backgroundRefused", "counter",
        "Timers that nginx had no room for." },
    { "background_queued", "backgroundQueued", "gauge", "Background jobs that wait." },
    { "in_flight", "inFlight", "gauge", "Requests without an answer." },
    { "waiting", "waiting", "gauge", "Callers that wait." },
    { "active_leases", "activeLeases", "gauge", "Leases held." },
    { "active_locks", "activeLocks", "gauge", "Locks held." },
    { "breakers_open", "breakersOpen", "gauge", "Servers whose circuit breaker is open." },
    { "ready", "ready", "gauge", "1: commands are answered." },
    { "tracking", "tracking", "gauge", "1: Redis tells what changes, so values are kept near." },
    { "down_seconds", "down", "gauge", "Since when commands are not answered; 0: they are." },
    { "l0_entries", "l0Entries", "gauge", "Decoded values kept in the Lua state." },
    { "l0_bytes", "l0Bytes", "gauge", "Their size in bytes, estimated." },
    { "horizon_seconds", "horizon", "gauge", "How long ago near values were known coherent." },
}
-- The region is the same for all workers.
local REGION = {
    { "near_fills", "fills", "counter", "Entries stored near." },
    { "near_dooms", "dooms", "counter", "Answers not kept: the key changed meanwhile." },
    { "near_invalidations", "invalidations", "counter", "Entries dropped because Redis said so." },
    { "near_writes", "writes", "counter", "Entries dropped by own writes." },
    { "near_evictions", "evictions", "counter", "Entries dropped for room." },
    { "near_expirations", "expirations", "counter", "Entries whose time was over." },
    { "near_ghosts", "ghosts", "counter", "Fills of keys that were remembered." },
    { "near_refusals", "refusals", "counter", "Fills that found no room." },
    { "near_avoided", "avoided", "counter", "Answers left out: of keys that change too often." },
    { "near_revalidations", "revalidations", "counter", "Entries kept over a reconnect." },
    { "near_repairs", "repairs", "counter", "Stripes emptied after a process died in them." },
    { "near_damaged", "damaged", "counter", "Stripes emptied because they were damaged." },
    { "near_entries", "entries", "gauge", "Entries kept near." },
    { "near_bytes", "bytes", "gauge", "Their size in bytes, everything included." },
    { "near_capacity_bytes", "capacity", "gauge", "Bytes there is room for." },
}

---Fields of near:stats() that say what those of stats() say, too.
local SAME = { hits = true, misses = true, l0Hits = true, nearHits = true }

-- All names in their order, with type and help.
local FAMILIES, FAMILY_OF = {}, {}
for _, rows in ipairs({ CACHE, NAMESPACE, CLIENT, REGION }) do
    for _, row in ipairs(rows) do
        local name = "redcache_" .. row[1] .. (row[3] == "counter" and "_total" or "")
        row.name = name
        if not FAMILY_OF[name] then
            FAMILY_OF[name] = { name = name, type = row[3], help = row[4] }
            FAMILIES[#FAMILIES + 1] = FAMILY_OF[name]
        end
    end
end

---Fields of stats() and near:stats() that have no row here: for the spec that finds them.
---@param stats table<string, number>
---@param near table<string, number>
---@return string[] fields
function metrics.forgotten(stats, near)
    local known = { hits = true }
    for _, rows in ipairs({ CACHE, NAMESPACE, CLIENT, REGION }) do
        for _, row in ipairs(rows) do
            known[row[2]] = true
        end
    end
    local list = {}
    for _, fields in ipairs({ stats, near }) do
        for field in pairs(fields) do
            if not known[field] and not (fields == near and SAME[field]) then
                list[#list + 1] = field
            end
        end
    end
    return list
end

-- Text --------------------------------------------------------------------------------------------

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function is_utf8(text)
    text = string.gsub(text, "[\240-\244][\128-\191][\128-\191][\128-\191]", "_")
    text = string.gsub(text, "[\224-\239][\128-\191][\128-\191]", "_")
    text = string.gsub(text, "[\194-\223][\128-\191]", "_")
    return not string.find(text, "[\128-\255]")
end

-- The format is UTF-8, a namespace may be anything: bytes that are not are shown as "\xff".
local function escape(text)
    local odd = is_utf8(text) and "[%z\1-\9\11-\31\127]" or "[%z\1-\9\11-\31\127-\255]"
    text = string.gsub(text, '[\\"\n]', ESCAPES)
    return (string.gsub(text, odd, function(char)
        return string.format("\\\\x%02x", string.byte(char))
    end))
end

-- {a="1",b="2"}: in order of names, so that equal labels are equal texts.
local function labels_text(labels, more)
    local parts = {}
    for _, set in ipairs({ labels, more or {} }) do
        for name, value in pairs(set) do
            parts[#parts + 1] = name .. '="' .. escape(value) .. '"'
        end
    end
    table.sort(parts)
    return #parts > 0 and "{" .. table.concat(parts, ",") .. "}" or ""
end

local function number_text(value)
    return string.format(value == math.floor(value) and "%.0f" or "%.9g", value)
end

-- A set of samples: by family, then by labels. What was there first stays: two caches of one
-- namespace add up only where `adds` says so.
local function put(samples, family, labels, value, adds)
    local of = samples[family]
    if of == nil then
        of = { order = {}, values = {} }
        samples[family] = of
    end
    local standing = of.values[labels]
    if standing == nil then
        of.order[#of.order + 1] = labels
        of.values[labels] = value
    elseif adds then
        of.values[labels] = standing + value
    end
end

local function put_rows(samples, rows, fields, labels, adds)
    for _, row in ipairs(rows) do
        local value = fields[row[2]]
        if type(value) == "boolean" then
            value = value and 1 or 0
        end
        if value ~= nil then
            put(samples, row.name, labels_text(labels, row[5]), value, adds)
        end
    end
end

-- Sample lines, with or without what tells what they are.
local function lines_of(samples, with_help)
    local lines = {}
    for _, family in ipairs(FAMILIES) do
        local of = samples[family.name]
        if of and with_help then
            lines[#lines + 1] = "# HELP " .. family.name .. " " .. family.help
            lines[#lines + 1] = "# TYPE " .. family.name .. " " .. family.type
        end
        for _, labels in ipairs(of and of.order or {}) do
            lines[#lines + 1] = family.name .. labels .. " " .. number_text(of.values[labels])
        end
    end
    lines[#lines + 1] = ""
    return table.concat(lines, "\n")
end

-- Takes in what another worker has written by lines_of.
local function read_lines(samples, text)
    for name, labels, value in string.gmatch(text, "([%w_]+)([^\n]*) ([^ \n]+)\n") do
        value = tonumber(value)
        if FAMILY_OF[name] and value then
            put(samples, name, labels, value)
        end
    end
end

-- Figures -----------------------------------------------------------------------------------------

-- The namespace as it was given: keys begin with it and ":".
local function namespace_of(cache)
    return (string.gsub(cache._prefix, ":$", ""))
end

-- Of caches on one client, the first puts down what is the client's.
local function read_client(samples, cache, stats, worker)
    local health, near = cache:health(), cache.near:stats() or {}
    local group = cache._client.group
    local labels = { server = health.address, group = group ~= "" and group or nil }
    put_rows(samples, REGION, near, labels)
    labels.worker = worker
    for _, fields in ipairs({ stats, health, near }) do
        put_rows(samples, CLIENT, fields, labels)
    end
end

-- The figures of some caches: samples | nil, err of the first that is closed.
local function read_caches(caches, worker)
    local samples = {}
    for _, cache in ipairs(caches) do
        local stats, err = cache:stats()
        if stats == nil then
            return nil, err
        end
        stats.redisHits = stats.hits - stats.l0Hits - stats.nearHits
        local labels = { cache = namespace_of(cache), worker = worker }
        put_rows(samples, CACHE, stats, labels, true)
        put_rows(samples, NAMESPACE, stats, labels)
        read_client(samples, cache, stats, worker)
    end
    return samples
end

-- The worker's number stays when it is replaced, so that its series go on.
local function worker_name()
    if ngx and ngx.worker then
        return tostring(ngx.worker.id and ngx.worker.id() or ngx.worker.pid())
    end
end

---The figures of this cache in the Prometheus text format 0.0.4: counters are redcache_*_total.
---What the client counts - requests, connections, locks - is labelled by server, and belongs to all
---caches on it. In nginx they are the figures of this worker: see metrics.serve.
---@return string|nil text
---@return redcache.Error|nil err closed
function metrics.metrics(self)
    local samples, err = read_caches({ self }, worker_name())
    if samples == nil then
        return nil, err
    end
    return lines_of(samples, true)
end

-- nginx -------------------------------------------------------------------------------------------

-- A cache, or a list of them.
local function list_of(caches, method)
    if type(caches) == "table" and caches._client then
        return { caches }
    elseif type(caches) ~= "table" or #caches == 0 then
        error(errors.argument("cache", method, "cache or list of caches", caches), 3)
    end
    return caches
end

local function find_dict(name, method)
    local dict = ngx and ngx.shared[name]
    if not dict then
        error("bad option 'dict' to " .. method .. ": there is no lua_shared_dict '"
            .. tostring(name) .. "'", 3)
    end
    return dict
end

-- Writes this worker's figures for the others. One that is shutting down has a successor of the
-- same number.
local function write_own(dict, samples)
    if ngx.worker.exiting() then
        return
    end
    local ok, err = dict:set(DICT_KEY .. worker_name(), lines_of(samples, false), SILENCE)
    if not ok then
        ngx.log(ngx.WARN, "redcache: could not share the metrics of this worker: ", err)
    end
end

local function write_regularly(is_exiting, dict, caches)
    if is_exiting then
        return
    end
    local samples = read_caches(caches, worker_name())
    if samples then
        write_own(dict, samples)
    end
end

---In init_worker_by_lua: this worker's figures go into a lua_shared_dict every five seconds, so
---that serve with that dict answers for all workers. 16 KiB per worker and cache are plenty.
---@param caches redcache.Cache|redcache.Cache[]
---@param opts table dict: the name of a lua_shared_dict
---@return true|nil ok
---@return string|nil err why nginx could not start the timer
function metrics.share(caches, opts)
    local list = list_of(caches, "share")
    local dict = find_dict(type(opts) == "table" and opts.dict, "share")
    local ok, err = ngx.timer.at(0, write_regularly, dict, list)
    if ok then
        ok, err = ngx.timer.every(SHARE_SECONDS, write_regularly, dict, list)
    end
    if not ok then
        return nil, "could not start the timer of the metrics: " .. tostring(err)
    end
    return true
end

---A content handler: answers with the figures of some caches. A worker counts by itself, and a
---scrape meets any of them; so
---
---- without a dict the answer is of that one worker (label worker): with more than one, a series
---  that is scraped now and then, and of no use for rates;
---- with the dict that metrics.share fills in every worker, the answer is of all: those of the
---  others at most five seconds old.
---@param caches redcache.Cache|redcache.Cache[]
---@param opts? table dict: the name of a lua_shared_dict
function metrics.serve(caches, opts)
    local list = list_of(caches, "serve")
    local dict = type(opts) == "table" and opts.dict and find_dict(opts.dict, "serve")
    local samples, err = read_caches(list, worker_name())
    ngx.header["Content-Type"] = CONTENT_TYPE
    if samples == nil then
        ngx.status = 503
        ngx.print("# ", tostring(err), "\n")
        return
    end
    if dict then
        write_own(dict, samples)
        for id = 0, ngx.worker.count() - 1 do
            local text = tostring(id) ~= worker_name() and dict:get(DICT_KEY .. id)
            if text then
                read_lines(samples, text)
            end
        end
    end
    ngx.print(lines_of(samples, true))
end

local JSON_ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }

local function json_string(text)
    text = string.gsub(text, '["\\]', JSON_ESCAPES)
    return '"' .. string.gsub(text, "[%c\127-\255]", function(char)
        return string.format("\\u%04x", string.byte(char))
    end) .. '"'
end

---A content handler: JSON with ready, tracking, down (seconds), server and cause, as Cache:health
---has them; 200 where commands are answered, else 503. It is about this worker's connection; where
---nobody has used that yet, it looks for a key that is not there. A cache works without Redis, only
---worse: 503 is for those who watch Redis, seldom a reason to take the machine out of service.
---@param cache redcache.Cache
function metrics.serveHealth(cache)
    local health, err = cache:health()
    if health and not health.ready then
        cache:exists(PROBE_KEY, { timeout = PROBE_SECONDS })
        health, err = cache:health()
    end
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Cache-Control"] = "no-store"
    if health == nil then
        health = { ready = false, tracking = false, down = 0, server = "",
            cause = tostring(err) }
    end
    ngx.status = health.ready and 200 or 503
    ngx.print('{"ready":', tostring(health.ready), ',"tracking":', tostring(health.tracking),
        ',"down":', number_text(health.down), ',"server":', json_string(health.server),
        ',"cause":', json_string(health.cause), "}\n")
end

return metrics
