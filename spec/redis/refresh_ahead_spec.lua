-- Values that are loaded again while everybody reads on: many processes over an expiry, one load in
-- all of them, which no read waits for; also where the process that loads is killed.
--
-- Env: REDCACHE_REFRESH_PROCESSES (4), REDCACHE_REFRESH_READS (50 a second and process): 16 and 200
--      for the long form, which goes through all pairs and prints what it has measured.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local PROCESSES = tonumber(os.getenv("REDCACHE_REFRESH_PROCESSES") or 4)
local READS = tonumber(os.getenv("REDCACHE_REFRESH_READS") or 50)
local IS_LONG = PROCESSES > 4
-- Seconds: the value is due, or over, so long after it was stored; a load takes so long. The value
-- that is loaded behind a kill must not be over before the reads end. Where nobody is killed the
-- lease is longer than a load takes even on a busy machine.
local DUE, LOAD, LEASE, LONG_LEASE = IS_LONG and 1.5 or 1.1, 0.3, 1, 30
-- Seconds: the load of who is killed does not end before.
local ENDLESS = 60
-- Seconds: a process that found the lease taken asks again by then (MOST in refresh.lua).
local ASKED_EVERY = 5

local redis

setup(function() redis = server.start({ config = { "maxclients 512" } }) end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- Reads at a steady rate until params.seconds have passed; where the machine is slow, until it has
-- seen params.newest, for up to params.more seconds. What the reads took, in two lists: those
-- that began before the value was due and those behind, and values by how often they were seen.
local function main(one)
    local params = one.params
    local support, lib = require("spec.support.clock"), require("redcache")
    local calls = require("redcache.calls")
    local raw = require("spec.support.resp").connect({ path = params.path }, {
        user = "bed", password = "bed",
    })
    local options = {
        url = params.url, scheduler = "coroutine", leaseTtl = params.lease, waitTimeout = 60,
        commandTimeout = 30, near = params.near and { shared = params.near } or false,
    }
    for name, value in pairs(params.options) do options[name] = value end
    local cache = lib.new(options)
    local before, behind, values, sources, failed = {}, {}, {}, {}, nil
    -- What these processes were ready and had no processor is no part of what a read takes.
    local watch = require("spec.near.waited").watch(
        { require("spec.support.posix").C.getpid(), params.redis }, true)
    local function load()
        local number = raw:call("INCR", "runs")
        raw:call("RPUSH", "loaders", one.index)
        if number > 1 then
            calls.pause(cache, nil, "load", number == 2 and params.first or params.load)
        end
        return number
    end
    lib.run(function()
        assert(cache:remember("k", params.ttl, load))
        one:ready()
        local stored = tonumber(raw:call("GET", "stored"))
        local function reader(index)
            local gap = params.readers / params.reads
            local due = support.now() + gap * index / params.readers
            while true do
                local now = support.now()
                local over = now - stored - params.seconds
                if over >= (values[params.newest] and 0 or params.more) then return end
                if now < due then calls.pause(cache, nil, "read", due - now) end
                due = due + gap
                local stolen, began = watch:seconds(), support.now()
                local value, err, source = cache:remember("k", params.ttl, load)
                local took = math.max(support.now() - began - (watch:seconds() - stolen), 0)
                if value == nil then failed = tostring(err) return end
                values[value] = (values[value] or 0) + 1
                sources[source] = (sources[source] or 0) + 1
                local list = began - stored < params.due - 0.1 and before or behind
                -- Not those beside which other processes come to their end.
                if began - stored < params.seconds - 0.1 then list[#list + 1] = took end
            end
        end
        local tasks = {}
        for i = 1, params.readers do tasks[i] = lib.spawn(reader, i) end
        for i = 1, params.readers do
            local ok, err = tasks[i]:wait()
            assert(err == nil, tostring(err))
            assert(ok == nil)
        end
    end)
    local stats = cache:stats()
    cache:close()
    local out = { before = before, behind = behind, failed = failed, values = {}, sources = sources,
        dropped = stats.backgroundDropped, failures = stats.backgroundFailed }
    for value, count in pairs(values) do out.values[tostring(value)] = count end
    return out
end

local function percentile(list, part)
    table.sort(list)
    return list[math.max(1, math.ceil(#list * part))]
end

-- Runs all processes over one expiry. kills: the one that loads is killed in the middle of it,
-- whenever that is: its load has no end.
local function run(options, ttl, near, kills)
    local workers, seconds = {}, DUE + LOAD + (kills and LEASE + LOAD or 0) + 0.5
    for i = 1, PROCESSES do
        workers[i] = worker.start({ index = i, count = PROCESSES, main = main, params = {
            url = redis:url(), path = redis.path, options = options, near = near, ttl = ttl,
            redis = redis.pid, first = kills and ENDLESS or LOAD,
            due = DUE, load = LOAD, lease = kills and LEASE or LONG_LEASE, seconds = seconds,
            reads = READS, readers = 4,
            newest = kills and 3 or 2, more = clock.scaled(5),
        } })
    end
    for i = 1, PROCESSES do workers[i]:event("ready", 60) end
    -- The value that all of them are about; from now on time counts.
    local cache = redcache.new({ url = redis:url(), near = false, grace = options.grace,
        background = true, refreshAfter = options.refreshAfter })
    assert(cache:set("k", 1, ttl))
    redis:call("SET", "stored", ("%.6f"):format(clock.now()))
    redis:call("SET", "runs", 1)
    redis:call("DEL", "loaders")
    redis:call("CONFIG", "RESETSTAT")
    local began = clock.now()
    for i = 1, PROCESSES do workers[i]:go() end
    if kills then
        clock.wait_until(function() return redis:call("LLEN", "loaders") >= 1 end, DUE + 10)
        local killed = tonumber(redis:call("LINDEX", "loaders", 0))
        workers[killed]:kill()
        workers[killed] = false
    end
    local before, behind, sources = {}, {}, {}
    for i = 1, PROCESSES do
        if workers[i] then
            local one = workers[i]:join(60)
            assert.is_nil(one.failed)
            assert.equal(0, one.dropped)
            for _, took in ipairs(one.before) do before[#before + 1] = took end
            for _, took in ipairs(one.behind) do behind[#behind + 1] = took end
            for source, count in pairs(one.sources) do
                sources[source] = (sources[source] or 0) + count
            end
            assert.is_truthy(one.values["1"])
            assert.is_truthy(one.values[kills and "3" or "2"], "process " .. i .. " still reads "
                .. "the old value")
        end
    end
    cache:close()
    local runs = tonumber(redis:call("GET", "runs")) - 1
    local asked = (redis:commandstats().getrange or { calls = 0 }).calls
    local terms = 1 + math.floor((clock.now() - began - DUE) / ASKED_EVERY)
    if IS_LONG then
        print(("%s%s%s: %d loads; reads before %d, p50 %.1f us, p99 %.3f ms, max %.3f ms; "
            .. "over the expiry %d, p50 %.1f us, p99 %.3f ms, max %.3f ms; stale %d"):format(
            options.refreshAfter and "refreshAfter" or "grace", near and ", shared region" or "",
            kills and ", loader killed" or "", runs, #before, percentile(before, 0.5) * 1e6,
            percentile(before, 0.99) * 1e3, percentile(before, 1) * 1e3, #behind,
            percentile(behind, 0.5) * 1e6, percentile(behind, 0.99) * 1e3,
            percentile(behind, 1) * 1e3, sources.stale or 0))
    end
    assert.equal(kills and 2 or 1, runs)
    -- A process asks for the refresh lease (nothing but that sends GETRANGE here) and, where it is
    -- taken, not again before it ends or ASKED_EVERY has passed, however often it reads.
    if not kills then
        assert.is_true(asked <= PROCESSES * terms, asked .. " questions for the lease")
    end
    -- No read waits for a load, but for the time without a processor. How much less it is,
    -- bench/refresh.lua tells: beside the same load without an expiry, in turns.
    local most = percentile(behind, 0.99)
    assert.is_true(most < LOAD / 2, "p99 " .. most)
    assert.is_nil(sources.loader)
end

-- The short form has each of these once with a shared region and once without a near cache.
for _, one in ipairs({
    { "refreshAfter", { refreshAfter = DUE }, 60, killed = false },
    { "grace", { grace = 60 }, DUE, killed = true },
}) do
    describe("many processes over an expiry, with " .. one[1], function()
        for _, is_shared in ipairs({ true, false }) do
            local where = is_shared and ", with a shared region" or ", without a near cache"
            if IS_LONG or is_shared ~= one.killed then
                it("load once, and no read waits for it" .. where, function()
                    run(one[2], one[3], is_shared and redis.port .. ".ahead" or nil)
                end)
            end
            if IS_LONG or is_shared == one.killed then
                it("load once more where the process that loads is killed" .. where, function()
                    run(one[2], one[3], is_shared and redis.port .. ".killed" or nil, true)
                end)
            end
        end
    end)
end
