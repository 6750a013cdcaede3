-- One primary behind a name that others look after: a balancer that is switched, an address that
-- changes, FAILOVER and REPLICAOF under open connections. Within a heartbeat the client knows that
-- it talks to a replica; it serves nothing old, finds the new primary by itself, and says meanwhile
-- what is wrong.
--
-- Env: REDCACHE_HAPROXY names HAProxy (pending without).

local clock = require("spec.support.clock")
local failovers = require("spec.cluster.sentinel_failovers")
local front = require("spec.support.front")
local names = require("spec.support.names")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")
local worker = require("spec.support.worker")

local MAX_STALE = 0.5
local PERIOD, SLACK = MAX_STALE / 4, failovers.SLACK
local ROLES = { "reader", "setter", "holder" }

local first, second, load, cache, others

local function role_of(one)
    return one:info("replication").role
end

local function wait_for(condition, what)
    return clock.wait_until(condition, 10, what)
end

local function wait_synced(replica)
    wait_for(function()
        return replica:info("replication").master_link_status == "up"
    end, "the replica's link")
end

-- ---- The load: processes of clients, and a foreign writer, who knows the primary.

-- Starts the clients. Options: env (theirs), own (false: this process has none, for the name is not
-- for it).
local function start_load(url, options)
    options = options or {}
    load = { workers = {}, acked = {}, primary = first, number = 0 }
    for _, role in ipairs(ROLES) do
        load.workers[role] = worker.start({
            file = "spec/cluster/sentinel_load.lua", env = options.env,
            params = { role = role, url = url, maxStale = MAX_STALE },
        })
    end
    if options.own ~= false then
        cache = redcache.new({ url = url, codec = "raw", maxStale = MAX_STALE })
    end
end

-- One SETEX of the next number at the primary.
local function write()
    load.number = load.number + 1
    load.primary:call("SETEX", "counter", 3600, load.number)
    load.acked[#load.acked + 1] = { load.number, clock.now() }
end

local function write_for(seconds)
    local ends = clock.now() + seconds
    repeat
        write()
        clock.sleep(0.002)
    until clock.now() >= ends
end

-- Until nobody is connected to the old primary any more, and a while longer.
local function write_until_moved()
    wait_for(function()
        write()
        return not first:call("CLIENT", "LIST"):find("name=redcache-", 1, true)
    end, "that all have left the old primary")
    write_for(0.4)
end

-- Until all clients do their work.
local function warm_up()
    write()
    for _, role in ipairs(ROLES) do load.workers[role]:event("working", 20) end
    if cache then assert(cache:set("own", "v", 60)) end
    write_for(0.3)
end

local function watch_processors()
    local pids = { first.pid, second.pid }
    for _, role in ipairs(ROLES) do pids[#pids + 1] = load.workers[role].pid end
    return waited.watch(pids, true)
end

local function stop_load()
    local results = {}
    for _, role in ipairs(ROLES) do load.workers[role]:send({ stop = true }) end
    for _, role in ipairs(ROLES) do results[role] = load.workers[role]:join(20) end
    load.workers = {}
    return results
end

-- The last time that a near hit of a number up to that one began.
local function last_near_of(runs, number)
    local last = 0
    for _, run in ipairs(runs) do
        if run[1] <= number then last = math.max(last, run[3]) end
    end
    return last
end

-- event: number (the last one that the old primary has), demoted (when it said that it is a
-- replica), spent (seconds that processes were ready and had no processor), back (when the new
-- primary could be reached; nil: never, the address is fixed).
local function judge(event, results)
    local lag = failovers.largest_lag({ acked = load.acked, kept = {} }, results.reader.runs, 3)
    assert.is_true(lag <= MAX_STALE + clock.scaled(SLACK), ("near, behind by %.3f s"):format(lag))
    local noticed = last_near_of(results.reader.runs, event.number) - event.demoted
    assert.is_true(noticed <= PERIOD + clock.scaled(SLACK) + event.spent,
        ("old near hits %.3f s after it became a replica (no processor for %.3f s)"):format(
            noticed, event.spent))
    local served, refused = 0, 0
    for _, ack in ipairs(results.setter.acked) do
        if ack[2] > event.demoted then
            served = served + load.primary:call("EXISTS", ack[1])
            refused = refused + 1 - load.primary:call("EXISTS", ack[1])
        end
    end
    assert.equal(0, refused, "writes that a replica has acknowledged")
    if not event.back then return end
    assert.is_true(served > 50, served .. " writes at the new primary")
    local waits = math.huge
    for _, ack in ipairs(results.setter.acked) do
        if ack[2] > event.demoted then
            waits = math.max(ack[3] - event.back, 0)
            break
        end
    end
    -- A replica's client looks once in 0.5 s whether its address leads to a primary now, and at
    -- once where a write is refused.
    assert.is_true(waits <= clock.scaled(0.7) + event.spent, waits .. " s without service")
    assert.is_true(last_near_of(results.reader.runs, math.huge) > event.back + waits,
        "near hits at the new primary")
    assert.is_true(results.holder.locks > 5 and results.holder.loads > 5)
end

-- What the client of this process says while it cannot write.
local function check_words()
    wait_for(function()
        local health = cache:health()
        return not health.ready and not health.tracking
            and health.cause:find("the server is a replica", 1, true)
    end, "the news")
    local ok, err = cache:set("own", "v")
    if ok then return end -- the way to the primary was found meanwhile
    assert.equal(redcache.errors.redis, err.code)
    assert.matches("READONLY You can't write against a read only replica", err.message, 1, true)
end

local function check_service()
    wait_for(function()
        cache:get("own")
        local health = cache:health()
        return health.ready and health.tracking and health.cause == ""
    end, "service")
    assert(cache:set("own", "v2", 60))
    assert.equal("v2", load.primary:call("GET", "own"):sub(-2))
    wait_for(function()
        local _, _, source = cache:get("own")
        return source == "near" or source == "l0"
    end, "a near hit")
end

-- The second is the primary, and the first its replica.
local function swap()
    local event = {}
    local watch = watch_processors()
    local before = watch:seconds()
    second:call("REPLICAOF", "NO", "ONE")
    load.primary, event.number = second, load.number
    write()
    first:call("REPLICAOF", "127.0.0.1", second.port)
    event.demoted = clock.now()
    return event, function() event.spent = watch:seconds() - before end
end

-- The second one's options are as of server.lua.
local function start_pair(options)
    local config = { "repl-diskless-sync-delay 0" }
    first = server.start({ config = config })
    options = options or {}
    options.config = config
    if options.loopback then options.port = first.port end
    second = server.start(options)
    second:call("REPLICAOF", "127.0.0.1", first.port)
    wait_synced(second)
end

before_each(function() others = {} end)
after_each(function()
    for _, one in pairs(load and load.workers or {}) do one:kill() end
    if cache then cache:close() end
    for _, one in ipairs(others) do one:stop() end
    first:stop()
    second:stop()
    load, cache = nil, nil
end)

describe("a balancer", function()
    -- It goes on leading to the old primary for a while, and cuts nothing.
    it("that is switched late is followed, connections that stay or not", function()
        start_pair()
        local line = proxy.start(first)
        others[1] = line
        start_load(line:url())
        warm_up()
        local event, ends = swap()
        write_for(0.2)
        check_words()
        line:lead(second)
        event.back = clock.now()
        check_service()
        write_until_moved()
        ends()
        judge(event, stop_load())
    end)

    local through = front.has("haproxy") and it or pending
    through("is followed where HAProxy looks after the roles itself", function()
        start_pair()
        local line = front.haproxy({ first, second }, { checks = "40ms" })
        others[1] = line
        start_load(line:url())
        warm_up()
        local event, ends = swap()
        event.back = clock.now() + clock.scaled(0.3) -- two looks, and a busy machine
        check_service()
        write_until_moved()
        ends()
        judge(event, stop_load())
    end)
end)

describe("a fixed address", function()
    it("of a primary that hands over (FAILOVER): nothing old, words, and service again", function()
        start_pair()
        start_load(first:url())
        warm_up()
        local watch = watch_processors()
        local before, event = watch:seconds(), {}
        first:call("FAILOVER", "TO", "127.0.0.1", second.port)
        wait_for(function()
            return role_of(second) == "master" and role_of(first) == "slave"
        end, "the failover")
        load.primary, event.number, event.demoted = second, load.number, clock.now()
        write_for(0.3)
        check_words()
        write_for(0.5)
        event.spent = watch:seconds() - before
        wait_synced(first)
        second:call("FAILOVER")
        wait_for(function() return role_of(first) == "master" end, "the failover back")
        load.primary = first
        write_for(0.5)
        check_service()
        judge(event, stop_load())
    end)

    -- Its new primary cannot be reached: what it has grows old, and no push tells.
    it("of one that became a replica and hears of nothing serves nothing near", function()
        start_pair()
        start_load(first:url())
        warm_up()
        local line = proxy.start(second)
        others[1] = line
        line:stall("both")
        local watch, event = watch_processors(), {}
        local before = watch:seconds()
        second:call("REPLICAOF", "NO", "ONE")
        load.primary, event.number = second, load.number
        write()
        first:call("REPLICAOF", "127.0.0.1", line.port)
        event.demoted = clock.now()
        write_for(2 * MAX_STALE)
        check_words()
        event.spent = watch:seconds() - before
        judge(event, stop_load())
        load.primary = first
        first:call("REPLICAOF", "NO", "ONE")
        check_service()
    end)
end)

describe("a name", function()
    local it = names.can_be_had() and it or pending -- luacheck: ignore

    it("whose address changes: the next connection goes there", function()
        start_pair({ loopback = 2 })
        local name = names.new("primary.test", "127.0.0.1")
        start_load(("redis://primary.test:%d"):format(first.port), { env = name.env, own = false })
        warm_up()
        local watch, event = watch_processors(), {}
        local before = watch:seconds()
        second:call("REPLICAOF", "NO", "ONE")
        load.primary, event.number = second, load.number
        write()
        first:call("REPLICAOF", "127.0.0.2", second.port)
        event.demoted = clock.now()
        write_for(0.2)
        name:set("127.0.0.2")
        event.back = clock.now()
        write_until_moved()
        event.spent = watch:seconds() - before
        judge(event, stop_load())
    end)
end)
