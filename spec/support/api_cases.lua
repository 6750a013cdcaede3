--- What the public calls promise, as bodies that run under any scheduler: spec/redis/api_spec.lua
-- runs them blocking, spec/nginx/api_spec.lua inside requests, spec/cluster/api_spec.lua both.
--
-- What:   a list of { name, function(bed) } of all groups in spec/support/cases; the bed has
--
--             cache          a fresh one: namespace "app", no near cache
--             open(options)  another one of the same scheduler, closed at the end
--             other(options) a cache of another client, for which this Lua state is somebody else
--             redis          a foreign client (resp.lua)
--             silence(on)    Redis stands still, or goes on
--             pause(seconds), wait_until(condition, seconds, what)
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
    "batches", "lock_many", "put_many", "warms",
    "loaders", "listens",
    "scans", "commits", "reasons",
    "refreshes", "tags",
    "limits", "semaphores", "keeps_fresh", "reentrants",
    "behinds",
}

local cases = { light = {} }

for _, name in ipairs(GROUPS) do
    local one = require("spec.support.cases." .. name)
    for _, case in ipairs(one.list) do table.insert(cases, case) end
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

local function make_bed(settings)
    local redcache = require("redcache")
    local bed, opened = { is_light = settings.together ~= nil }, {}
    bed.pause, bed.together = settings.pause, settings.together
    bed.redis = settings.ports and of_cluster(settings.ports)
        or resp.connect({ port = settings.port })

    function bed.open(options)
        local all = {
            url = settings.url, scheduler = settings.scheduler, driver = settings.driver,
            namespace = "app", near = false, connectTimeout = clock.scaled(2),
            commandTimeout = clock.scaled(2),
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
        return bed.open(options)
    end

    function bed.silence(on)
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

    function bed.close()
        for _, cache in ipairs(opened) do cache:close() end
        bed.redis:close()
    end

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
-- together (nil: no light threads).
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
    if not ok then error(err, 0) end
end

return cases
