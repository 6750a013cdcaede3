--- What the public calls promise, as bodies that run under any scheduler: spec/redis/api_spec.lua
-- runs them blocking, spec/nginx/api_spec.lua inside requests, spec/cluster/api_spec.lua both,
-- spec/redis/api_memory_spec.lua on memory://.
--
-- What:   a list of { name, function(bed) } of all groups in spec/support/cases; the bed has
--
--             cache          a fresh one: namespace "app", no near cache
--             open(options)  another one of the same scheduler, closed at the end
--             other(options) a cache of another client, for which this Lua state is somebody else
--             redis          a foreign client (resp.lua)
--             silence(on)    Redis stands still, or goes on
--             is_memory      it is memory://, which has strings alone and is never silent
--             needs(what)    ends the case there: memory:// has no such thing
--             pause(seconds), wait_until(condition, seconds, what)
--             time(fn)       how long it took, by the clock of the caches; then its results
--             together(fns)  runs them as light threads at once, and waits for all of them; only
--                            where is_light says so: cases.light are those that need it
--
-- Errors: a body throws; run() adds that nothing must be left: no waiter, no lease, no lock.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local resp = require("spec.support.resp")

local GROUPS = {
    "entries", "loads", "many", "lives", "counters", "raw", "near", "locks", "ends",
    "light_threads", "wraps", "sessions",
    "moves", "softs", "swaps", "transactions", "waits", "subscriptions",
    "batches", "forms", "lock_many", "put_many", "warms",
    "loaders", "listens",
    "scans", "commits", "reasons",
    "refreshes", "tags",
    "limits", "semaphores", "keeps_fresh", "reentrants",
    "behinds", "behinds_durable",
    "bulkheads",
    "breakers",
    "filters",
    "reads_writes", "fairs",
}

local cases = { light = {} }

for _, name in ipairs(GROUPS) do
    local one = require("spec.support.cases." .. name)
    for _, case in ipairs(one.list) do
        case.group = name
        table.insert(cases, case)
    end
    for _, case in ipairs(one.light_list) do table.insert(cases.light, case) end
end

-- A client of the masters of a cluster that asks them in turns until one owns the key.
local function of_cluster(ports)
    local clients, self = {}, {}
    for i, port in ipairs(ports) do clients[i] = resp.connect({ port = port }) end

    function self.call(_, ...)
        local value, err
        for _, client in ipairs(clients) do
            value, err = client:try(...)
            if err and not tostring(err):find("MOVED", 1, true) then error(err, 2) end
            if not err and (...) ~= "FLUSHALL" then return value end
        end
        if err then error(err, 2) end
        return value
    end

    function self.close()
        for _, client in ipairs(clients) do client:close() end
    end

    return self
end

-- A foreign client of a store in this process: there is no way in but a cache of its own.
local function of_memory(bed)
    local cache = bed.open({ namespace = "", group = "foreign" })
    local raw, self = cache:redis(), {}

    function self.call(_, ...)
        local words = { ... }
        local value, err = raw:command(unpack(words))
        if err and err.message:find("has no such command", 1, true) then bed.needs(words[1]) end
        if err then error(err.message, 2) end
        return value
    end

    function self.close() end

    return self
end

local function connect(bed, settings)
    if settings.is_memory then
        return of_memory(bed)
    elseif settings.ports then
        return of_cluster(settings.ports)
    end
    return resp.connect({ port = settings.port })
end

local function make_bed(settings)
    local redcache = require("redcache")
    local bed, opened = { is_light = settings.together ~= nil }, {}
    bed.pause, bed.together = settings.pause, settings.together
    bed.is_memory = settings.is_memory

    function bed.needs(what)
        if bed.is_memory then
            bed.lacks = what
            error("memory:// has no " .. what, 0)
        end
    end

    function bed.open(options)
        local all = {
            url = settings.url, scheduler = settings.scheduler, driver = settings.driver,
            namespace = "app", near = false, connectTimeout = clock.scaled(5),
            commandTimeout = clock.scaled(5), clock = settings.clock,
            -- A machine that stands still for a second makes no copy too old.
            maxStale = 60,
        }
        for name, value in pairs(options or {}) do all[name] = value end
        local cache = redcache.new(all)
        opened[#opened + 1] = cache
        return cache
    end

    -- By the server's other address it has nothing to do with us, recursion included.
    function bed.other(options)
        options = options or {}
        options.url = settings.other_url
        if bed.is_memory then options.group = options.group or "other" end
        local cache = bed.open(options)
        -- A store in this process has one address.
        if bed.is_memory then cache._client.loading = {} end
        return cache
    end

    function bed.silence(on)
        if on then bed.needs("silence") end
        if bed.is_memory then return end
        for _, pid in ipairs(settings.pids or { settings.pid }) do
            posix.C.kill(pid, on and posix.SIGSTOP or posix.SIGCONT)
        end
    end

    function bed.wait_until(condition, seconds, what)
        local deadline = clock.deadline(seconds)
        while not condition() do
            if clock.now() > deadline then error(what .. " did not come in time", 2) end
            bed.pause(0.002)
        end
    end

    function bed.time(fn)
        local time = settings.clock
        if not time then return clock.time(fn) end
        local start = time:now()
        local function pack(...) return time:now() - start, ... end
        return pack(fn())
    end

    function bed.close()
        for _, cache in ipairs(opened) do cache:close() end
        bed.redis:close()
    end

    bed.redis = connect(bed, settings)
    bed.cache = bed.open()
    return bed
end

-- Nothing runs any more: a slot, lease or lock that is still there has leaked.
local function check_rest(bed)
    local names = { "waiting", "activeLeases", "activeLocks", "inFlight" }
    bed.wait_until(function()
        local stats = bed.cache:stats()
        for _, name in ipairs(names) do
            if stats[name] ~= 0 then return false end
        end
        return true
    end, 2, "the end of all slots, leases and locks")
end

--- Runs one case; throws when it fails. Settings: url, other_url (the same server by another
-- address), port, pid (Redis'; of a cluster's masters: ports, pids), scheduler, driver, pause,
-- together (nil: no light threads). Of memory://: is_memory, url, other_url, clock (nil: the
-- machine's), and the last three.
-- Returns what memory:// lacks for this case: it did not run to its end; nil: it did.
function cases.run(one, settings)
    local bed = make_bed(settings)
    bed.redis:call("FLUSHALL")
    local ok, err = xpcall(function()
        one[2](bed)
        check_rest(bed)
    end, function(cause)
        if type(cause) == "table" then cause = cause.message or cause end
        return debug.traceback(tostring(cause), 2)
    end)
    bed.silence(false)
    bed.close()
    if not ok and not bed.lacks then error(err, 0) end
    return bed.lacks
end

return cases
