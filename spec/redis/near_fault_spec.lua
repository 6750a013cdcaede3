-- The near cache when something breaks: how fast a change gets through, and that nothing is served
-- unmarked past its bound when nothing gets through at all.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local reads = require("spec.near.reads")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local waited = require("spec.near.waited")
local worker = require("spec.support.worker")

local is_near, source, warm = reads.is_near, reads.source, reads.warm

-- How much later than its bound an unmarked value may come at most.
local SLACK = 0.05

local redis, line

before_each(function()
    redis = server.start()
    line = proxy.start(redis)
end)
after_each(function()
    line:stop()
    redis:stop()
end)

local function open(options)
    options = options or {}
    options.url = options.url or line:url()
    options.commandTimeout = options.commandTimeout or clock.scaled(0.2)
    return redcache.new(options)
end

describe("a foreign write", function()
    -- From the write's acknowledgement to the beginning of the last read that gets the old value,
    -- but for the time in which Redis or a thread of ours was ready and had no processor. A reader
    -- that has none reads nothing old. Sleeps between reads: the machine has to have a core for
    -- everybody.
    local function old_for(cache, foreign, watch, key, i)
        warm(cache, key)
        local before = watch:seconds()
        foreign:call("SET", key, tostring(i))
        local acknowledged, last = clock.now(), nil
        while true do
            local began = clock.now()
            if (cache:get(key)) == tostring(i) then break end
            last = began
            assert.is_true(began - acknowledged < clock.scaled(10))
            clock.sleep(0.00002)
        end
        if not last then return 0 end
        return math.max(last - acknowledged - (watch:seconds() - before), 0)
    end

    local function measure(cache, writes)
        local foreign, took = redis:client(), {}
        warm(cache, "k0")
        local watch = waited.watch({ posix.C.getpid(), redis.pid })
        for i = 1, writes do took[i] = old_for(cache, foreign, watch, "k" .. i % 50, i) end
        table.sort(took)
        return took[math.ceil(writes * 0.99)], took[writes]
    end

    it("ends a near value in 1 ms (p99), 10 ms at most", function()
        local cache = open({ url = redis:url() })
        for i = 0, 49 do redis:call("SET", "k" .. i, "0") end
        -- A sanitizer slows the engine, so its bound is wider.
        local most, worst = measure(cache, clock.scale == 1 and 2000 or 1000)
        print(("old for %.3f ms (p99), %.3f ms (max)"):format(most * 1000, worst * 1000))
        assert.is_true(most <= clock.scaled(0.001), ("p99 %g ms"):format(most * 1000))
        assert.is_true(worst <= clock.scaled(0.01), ("max %g ms"):format(worst * 1000))
        cache:close()
    end)
end)

describe("a value that cannot be checked", function()
    -- Reads "k" for `seconds` from `since` on. Returns the beginning of the last read that memory
    -- answered unmarked, relative to `since`, how many answers there were of each kind, and when
    -- the first read began that memory did not answer.
    local function watch(cache, since, seconds, opts)
        local last, counts, other = -1, {}, nil
        repeat
            local began = clock.now()
            local value, err, from = cache:get("k", opts)
            local kind = from or err and err.code or "nothing"
            counts[kind] = (counts[kind] or 0) + 1
            if is_near(from) then
                assert.equal("v", value)
                last = began - since
            else
                other = other or began
            end
            clock.sleep(0.0005)
        until clock.now() - since > seconds
        return last, counts, other
    end

    -- Until when what memory has may be served, by what is known now.
    local function known_until(cache, max_stale)
        return clock.now() - assert(cache.near:stats().horizon) + max_stale
    end

    -- A read costs a moment between its beginning and its look at the clock.
    local READ = 0.01

    -- It was served while it was known to be right, and no longer. `spent`: how long this process
    -- was ready and had no processor, which may be between a read's beginning and its look, too.
    local function assert_bounded(last, max_stale, other, known, spent)
        assert.is_true(last <= max_stale + clock.scaled(SLACK), ("%g s"):format(last))
        assert.is_true(other == nil or other >= known - READ - spent,
            ("%g s too early (no processor for %g s)"):format(known - (other or 0), spent))
    end

    local function watch_own() return waited.watch({ posix.C.getpid() }, true) end

    -- Reads for a while, and until most reads were answered by memory: the value is kept coherent,
    -- for reads with these options.
    local function read_on(cache, seconds, opts)
        local near, all, ends = 0, 0, clock.now() + seconds
        local deadline = ends + clock.scaled(10)
        repeat
            local value, err, from = cache:get("k", opts)
            assert.same({ "v", nil }, { value, err })
            all, near = all + 1, near + (is_near(from) and 1 or 0)
        until clock.now() > ends and (near > all / 2 or clock.now() > deadline)
        assert.is_true(near > all / 2, near .. " of " .. all)
    end

    -- In what ways the server is out of reach.
    local OUTAGES = {
        ["of a server that is stopped"] = {
            function()
                redis:pause()
                clock.wait_until(function()
                    return temp.read(("/proc/%d/stat"):format(redis.pid)):match("%) T")
                end, 2)
            end,
            function() redis:resume() end,
        },
        ["behind a line that is half-open"] = {
            function() line:stall("both") end,
            function() line:flow() end,
        },
        ["behind a line that only sends"] = {
            function() line:stall("down") end,
            function() line:flow() end,
        },
        ["whose tracked connection is stuck"] = {
            function() line:stall("both", "tracking") end,
            function() line:flow() end,
        },
    }

    for name, outage in pairs(OUTAGES) do
        for _, max_stale in ipairs({ 0.05, 0.4 }) do
            it(("%s is not served later than maxStale (%g s)"):format(name, max_stale), function()
                local cache = open({ maxStale = max_stale, commandTimeout = 0.1 })
                assert(cache:set("k", "v", nil, { timeout = 10 }))
                warm(cache, "k", { timeout = 10 })
                read_on(cache, 2 * max_stale, { timeout = 10 })
                local own = watch_own()
                local before, known = own:seconds(), known_until(cache, max_stale)
                outage[1]()
                local last, counts, other = watch(cache, clock.now(), max_stale + 0.5)
                outage[2]()
                assert_bounded(last, max_stale, other, known, own:seconds() - before)
                -- Over the other connection Redis may still be reached.
                assert.is_true(not counts.redis or name:find("tracked", 1, true) ~= nil)
                clock.wait_until(function() return is_near(select(3, cache:get("k"))) end, 5)
                cache:close()
            end)
        end

        it(name .. " is served as 'stale' with grace, and followed afterwards", function()
            local cache = open({ maxStale = 0.2, grace = 30, commandTimeout = clock.scaled(0.1) })
            assert(cache:set("k", "v", 60, { timeout = 10 }))
            warm(cache, "k", { timeout = 10 })
            outage[1]()
            local last, counts = watch(cache, clock.now(), clock.scaled(1.5))
            assert.is_true(last <= 0.2 + clock.scaled(SLACK), ("%g s"):format(last))
            local value, err, from = cache:get("k")
            if name:find("tracked", 1, true) then
                assert.is_true((counts.stale or 0) + (counts.redis or 0) >= 2)
                assert.same({ "v" }, { value, err })
            else
                -- Nobody has to go without.
                assert.is_true((counts.stale or 0) >= 2)
                assert.same({ "v", nil, "stale" }, { value, err, from })
                value, err, from = cache:remember("k", 60, function() return "made" end)
                assert.is_nil(err)
                assert.is_true(value == "v" and from == "stale"
                    or value == "made" and from == "loader",
                    tostring(value) .. " from " .. tostring(from))
            end
            outage[2]()
            redis:call("SET", "k", "new")
            clock.wait_until(function() return (cache:get("k")) == "new" end, 5)
            assert.equal("new", warm(cache, "k"))
            cache:close()
        end)
    end

    it("is held to the bound of the call that asks", function()
        local cache = open({ maxStale = 3, commandTimeout = 0.1 })
        assert(cache:set("k", "v", nil, { timeout = 10 }))
        warm(cache, "k", { timeout = 10 })
        read_on(cache, 0.3, { maxStale = 0.05, timeout = 10 })
        local own = watch_own()
        local before, known = own:seconds(), known_until(cache, 0.05)
        line:stall("both")
        local last, _, other = watch(cache, clock.now(), 0.3, { maxStale = 0.05 })
        assert_bounded(last, 0.05, other, known, own:seconds() - before)
        -- Others still are within theirs.
        assert.is_true(is_near(source(cache, "k")))
        local value, _, from = cache:remember("k", 60, function() return "made" end,
            { maxStale = 0.05, timeout = 0.02 })
        assert.same({ "made", "loader" }, { value, from })
        line:flow()
        cache:close()
    end)

    it("is refused to fresh = true at once", function()
        local cache = open({ maxStale = 60, commandTimeout = 0.05 })
        assert(cache:set("k", "v", nil, { timeout = 10 }))
        warm(cache, "k", { timeout = 10 })
        line:stall("both")
        local value, err = cache:get("k", { fresh = true })
        assert.is_nil(value)
        assert.is_true(err.code == "timeout" or err.code == "unavailable", err.code)
        assert.is_true(is_near(source(cache, "k")))
        line:flow()
        cache:close()
    end)

    it("comes back as what it is now when it was changed meanwhile", function()
        for round, outage in ipairs({ OUTAGES["behind a line that is half-open"],
            OUTAGES["whose tracked connection is stuck"] }) do
            local cache = open({ maxStale = 0.2, commandTimeout = 0.1, group = "g" .. round })
            assert(cache:set("k", "old", nil, { timeout = 10 }))
            warm(cache, "k", { timeout = 10 })
            outage[1]()
            redis:call("SET", "k", "new")
            local changed = clock.now()
            repeat
                local began = clock.now()
                local value = cache:get("k")
                assert.is_true(value ~= "old" or began - changed < 0.2 + clock.scaled(SLACK))
            until clock.now() - changed > 0.6
            outage[2]()
            clock.wait_until(function()
                local value = cache:get("k")
                assert.are_not.equal("old", value)
                return value == "new"
            end, 5)
            assert.equal("new", warm(cache, "k"))
            cache:close()
        end
    end)
end)

describe("an own write whose answer does not come", function()
    it("leaves nothing old in memory", function()
        -- A breaker would refuse the reads: nothing was answered for commandTimeout.
        local cache = open({ maxStale = 60, commandTimeout = 0.05, breaker = false })
        assert(cache:set("k", "old", nil, { timeout = 10 }))
        warm(cache, "k", { timeout = 10 })
        line:rule({ command = "set", swallow = true, times = 1 })
        local ok, err = cache:set("k", "new")
        assert.is_nil(ok)
        assert.is_true(err.code == "outcomeUnknown" or err.code == "timeout", err.code)
        for _ = 1, 20 do
            assert.equal("new", (cache:get("k", { timeout = 10 })))
        end
        cache:close()
    end)

    it("is no write, and the value may be read again, when it never left", function()
        local cache = open({ maxStale = 60, commandTimeout = 0.05 })
        assert(cache:set("k", "v", nil, { timeout = 10 }))
        warm(cache, "k", { timeout = 10 })
        line:rule({ command = "set", cut = "before", times = 1 })
        cache:set("k", "lost")
        clock.wait_until(function() return (cache:get("k")) == "v" end, 5)
        assert.equal("v", warm(cache, "k", { timeout = 10 }))
        cache:close()
    end)
end)

describe("a tracked connection that was killed", function()
    local KEYS, PLAIN, CHANGED = 100, 20, 10

    local function kill_tracked()
        local id = redis:call("CLIENT", "LIST"):match("id=(%d+)[^\n]- name=redcache%-T")
        assert(id, "no connection is called redcache-T")
        assert.equal(1, redis:call("CLIENT", "KILL", "ID", id))
    end

    local function warm_all(cache)
        for i = 1, KEYS do
            assert(cache:set("k" .. i, { i }))
            warm(cache, "k" .. i)
        end
        for i = 1, PLAIN do
            redis:call("SET", "plain" .. i, i)
            warm(cache, "plain" .. i)
        end
    end

    local function revalidations(cache)
        return cache.near:stats().revalidations
    end

    -- The commands from the outage on, until `count` entries have been looked at and a little more.
    local function recover(cache, count, outage)
        local before = revalidations(cache)
        local watching = monitor.start(redis)
        outage()
        clock.wait_until(function()
            cache:get("nothing") -- Somebody uses the cache; otherwise there is no hurry.
            return revalidations(cache) - before >= count
        end, 5, "the revalidation")
        return watching:stop()
    end

    local function count_of(commands, name, key)
        local count = 0
        for _, command in ipairs(commands) do
            if command.name == name and (not key or command.words[2]:find(key)) then
                count = count + 1
            end
        end
        return count
    end

    it("costs a look at the headers, not the values (74)", function()
        local cache = open()
        warm_all(cache)
        local commands = recover(cache, KEYS, kill_tracked)
        assert.equal(KEYS, count_of(commands, "getrange"))
        assert.equal(0, count_of(commands, "getrange", "^plain"))
        assert.equal(0, count_of(commands, "get", "^k"))
        -- Near at once; what nobody can check is read again.
        local counts = monitor.wire(redis, function()
            for i = 1, KEYS do
                local value, _, from = cache:get("k" .. i)
                assert.same({ i }, value)
                assert.is_true(is_near(from), from)
            end
            for i = 1, PLAIN do
                assert.same({ tostring(i), nil, "redis" }, { cache:get("plain" .. i) })
            end
        end)
        assert.equal(PLAIN, counts.get)
        -- And they are tracked again.
        for i = 1, KEYS do redis:call("SET", "k" .. i, "new") end
        for i = 1, KEYS do reads.until_value(cache, "k" .. i, "new", 1) end
        cache:close()
    end)

    it("serves nothing that was changed meanwhile, by anybody (B9)", function()
        local other = redcache.new({ url = redis:url(), group = "other", near = false })
        local cache = open()
        warm_all(cache)
        recover(cache, KEYS - 4 * CHANGED, function()
            line:refuse()
            line:cut("reset", "tracking")
            for i = 1, CHANGED do
                redis:call("SET", "k" .. i, "foreign")
                other:set("k" .. i + CHANGED, "other's")
                redis:call("DEL", "k" .. i + 2 * CHANGED)
                -- The very same value again is another version.
                other:set("k" .. i + 3 * CHANGED, { i + 3 * CHANGED })
                redis:call("SET", "plain" .. i, "changed")
            end
            line:flow()
        end)
        for _ = 1, 3 do
            for i = 1, CHANGED do
                assert.equal("foreign", (cache:get("k" .. i)))
                assert.equal("other's", (cache:get("k" .. i + CHANGED)))
                assert.is_nil((cache:get("k" .. i + 2 * CHANGED)))
                assert.same({ i + 3 * CHANGED }, (cache:get("k" .. i + 3 * CHANGED)))
                assert.equal("changed", (cache:get("plain" .. i)))
            end
        end
        local counts = monitor.wire(redis, function()
            for i = 4 * CHANGED + 1, KEYS do
                assert.is_true(is_near(source(cache, "k" .. i)), "k" .. i)
            end
        end)
        assert.is_nil(counts.get)
        other:close()
        cache:close()
    end)

    it("serves nothing old unmarked before it is confirmed", function()
        local cache = open({ commandTimeout = 10 })
        warm_all(cache)
        local foreign = redis:client()
        for round = 1, 10 do
            line:rule({ command = "getrange", late = 0.05 })
            kill_tracked()
            for i = 1, KEYS do foreign:call("SET", "k" .. i, tostring(round)) end
            clock.wait_until(function() return cache:health().tracking end, 20)
            for i = 1, KEYS do
                local value, err = cache:get("k" .. i)
                assert.is_nil(err)
                assert.equal(tostring(round), value)
            end
            line:clear()
            for i = 1, KEYS do
                cache:set("k" .. i, { i })
                warm(cache, "k" .. i)
            end
        end
        cache:close()
    end)

    it("may be killed over and over", function()
        local cache = open({ commandTimeout = 10 })
        local foreign = redis:client()
        for i = 1, 50 do
            foreign:call("SET", "k", tostring(i))
            clock.wait_until(function() return (cache:get("k")) == tostring(i) end, 5)
            cache:set("e", i)
            warm(cache, "k")
            assert.equal(i, warm(cache, "e"))
            kill_tracked()
            clock.wait_until(function() return cache:get("e") == i end, 5)
        end
        cache:close()
    end)
end)

describe("a server that comes back empty", function()
    it("has no old value served", function()
        local cache = open({ url = redis:url(), maxStale = 5 })
        for i = 1, 50 do
            assert(cache:set("k" .. i, i))
            redis:call("SET", "plain" .. i, i)
            warm(cache, "k" .. i)
            warm(cache, "plain" .. i)
        end
        redis:restart()
        clock.wait_until(function() return cache:health().tracking or cache:set("x", 1) end, 5)
        clock.wait_until(function() return (select(2, cache:get("x"))) == nil end, 5)
        for _ = 1, 3 do
            for i = 1, 50 do
                assert.is_nil((cache:get("k" .. i)))
                assert.is_nil((cache:get("plain" .. i)))
            end
        end
        redis:call("SET", "k1", "new")
        assert.equal("new", warm(cache, "k1"))
        cache:close()
    end)
end)

describe("a wall clock that jumps", function()
    local LIBRARIES = {
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1",
    }

    local function library()
        for _, path in ipairs(LIBRARIES) do
            local file = io.open(path)
            if file then
                file:close()
                return path
            end
        end
    end

    -- A sanitizer's runtime wants to be the one library that is loaded first.
    local possible = clock.scale == 1 and library()
    local it = possible and it or pending -- luacheck: ignore

    it("changes nothing: what is near stays, what expires goes, changes get through", function()
        local setting = temp.dir() .. "/faketime"
        temp.write(setting, "+0")
        local one = worker.start({
            params = { url = redis:url() },
            env = {
                LD_PRELOAD = library(), FAKETIME_TIMESTAMP_FILE = setting, FAKETIME_NO_CACHE = "1",
                -- Only the wall clock: nothing sets the monotonic one.
                FAKETIME_DONT_FAKE_MONOTONIC = "1", DONT_FAKE_MONOTONIC = "1",
            },
            main = function(one)
                local support = require("spec.support.clock")
                local there = require("spec.near.reads")
                local cache = require("redcache").new({ url = one.params.url, maxStale = 20 })
                cache:set("long", "v", 60)
                there.warm(cache, "long")
                while true do
                    local order = one:receive()
                    if order.stop then break end
                    local asked = support.now()
                    cache:set("short", "v", 0.4)
                    local set, gone = support.now(), nil
                    local short = there.warm(cache, "short")
                    support.wait_until(function()
                        return math.abs(os.time() - order.at) > 3000 or not order.jumps
                    end, 5, "the jump")
                    local near, ends, last = 0, support.now() + 1, nil
                    repeat
                        local began = support.now()
                        local value, err, from = cache:get("long")
                        assert(value == "v" and not err, tostring(err))
                        if there.is_near(from) then near = near + 1 else near = -1e9 end
                        if there.is_near(there.source(cache, "short")) then
                            last = began
                        else
                            gone = gone or support.now() - asked
                        end
                    until support.now() > ends
                    one:emit("seen", {
                        near = near, short = short, last = last and last - set or 0, gone = gone,
                        disconnects = cache:stats().disconnects,
                    })
                    one:emit("watching")
                    support.wait_until(function() return cache:get("long") ~= "v" end, 10)
                    cache:set("long", "v", 60)
                    there.warm(cache, "long")
                    one:emit("followed")
                end
                cache:close()
            end,
        })
        local real = os.time()
        for _, jump in ipairs({ "+0", "+3600", "-86400", "+31536000" }) do
            temp.write(setting .. ".new", jump)
            os.rename(setting .. ".new", setting)
            one:send({ at = real, jumps = jump ~= "+0" })
            local seen = one:event("seen")
            assert.is_true(seen.near > 0, jump .. ": not all reads were near")
            assert.equal("v", seen.short)
            assert.is_true(seen.last < 0.42, jump .. ": " .. seen.last)
            assert.is_true(seen.gone > 0.38, jump .. ": gone after " .. seen.gone)
            assert.equal(0, seen.disconnects)
            one:event("watching")
            redis:call("SET", "long", "changed")
            one:event("followed")
        end
        one:send({ stop = true })
        one:join()
        -- What libfaketime leaves behind: it was loaded before the process became luajit.
        os.remove("/dev/shm/faketime_shm_" .. one.pid)
        os.remove("/dev/shm/sem.faketime_sem_" .. one.pid)
    end)
end)

describe("a process that is stopped for longer than maxStale", function()
    -- Reads "k" until its value is "end"; tells of each gap of `gap` seconds or more between two
    -- reads what came first after it.
    local function start_reader(max_stale, gap)
        local one = worker.start({
            params = { url = redis:url(), max_stale = max_stale, gap = gap },
            main = function(one)
                local support = require("spec.support.clock")
                local there = require("spec.near.reads")
                local params = one.params
                local cache = require("redcache").new({
                    url = params.url, maxStale = params.max_stale, commandTimeout = 10,
                })
                local before, known = support.now(), nil
                repeat
                    local began = support.now()
                    local value, err, from = cache:get("k")
                    if began - before >= params.gap then
                        one:emit("first", {
                            value = value, source = from, gap = began - before, began = began,
                            code = err and err.code,
                        })
                    end
                    if value ~= known and there.is_near(there.source(cache, "k")) then
                        one:emit("near", { value = value })
                        known = value
                    end
                    before = began
                until value == "end"
                cache:close()
            end,
        })
        assert.equal("0", one:event("near").value)
        return one
    end

    local function stop_for(one, seconds, value)
        one:signal(posix.SIGSTOP)
        clock.wait_until(function()
            return temp.read(("/proc/%d/stat"):format(one.pid)):match("%) T")
        end, 2)
        redis:call("SET", "k", value)
        clock.sleep(seconds)
        local continued = clock.now()
        one:signal(posix.SIGCONT)
        local first = one:event("first")
        while first.began < continued do first = one:event("first") end -- that gap is the machine's
        assert.is_nil(first.code)
        assert.equal(value, first.value, ("after %g s, from %s"):format(first.gap, first.source))
        assert.equal(value, one:event("near").value)
    end

    it("serves nothing older when it goes on, after 3 s", function()
        redis:call("SET", "k", "0")
        local one = start_reader(1, 2)
        stop_for(one, 3, "1")
        redis:call("SET", "k", "end")
        one:join()
    end)

    it("serves nothing older when it goes on, over and over", function()
        redis:call("SET", "k", "0")
        local one = start_reader(0.05, 0.19)
        for i = 1, 10 do stop_for(one, 0.2 + i * 0.007, tostring(i)) end
        redis:call("SET", "k", "end")
        one:join()
    end)
end)

describe("a user who may not track", function()
    it("has no near cache: reads go to Redis, and health says why", function()
        local strict = server.start({
            users = { "ann on >pw ~* &* +@all -client|tracking" },
        })
        local cache = redcache.new({ url = strict:url("ann:pw") })
        assert(cache:set("k", "v"))
        local counts = monitor.wire(strict, function()
            for _ = 1, 5 do assert.same({ "v", nil, "redis" }, { cache:get("k") }) end
            for _ = 1, 5 do
                assert.same({ "v", nil, "redis" }, { cache:remember("k", 60, error) })
            end
        end)
        assert.equal(10, counts.get)
        local value, err, from = cache:remember("new", 60, function() return "made" end)
        assert.same({ "made", nil, "loader" }, { value, err, from })
        local health = cache:health()
        assert.is_false(health.tracking)
        assert.is_true(health.ready)
        assert.matches("tracking", health.cause:lower(), 1, true)
        assert.equal(0, cache.near:stats().entries)
        -- It is allowed from now on.
        strict:call("ACL", "SETUSER", "ann", "+client|tracking")
        local id = strict:call("CLIENT", "LIST"):match("id=(%d+)[^\n]- name=redcache%-T")
        if id then strict:call("CLIENT", "KILL", "ID", id) end
        clock.wait_until(function() return is_near(select(3, cache:get("k"))) end, 10)
        cache:close()
        strict:stop()
    end)
end)

describe("reads in many processes through a broken line", function()
    it("go on, and see the truth, when the tracked connections break all the time", function()
        local one = peer.start({ url = line:url(), near = true })
        local foreign = redis:client()
        foreign:call("SET", "k", "0") -- before anybody reads
        one:begin(function(cache, params, it)
            local seen, ends = 0, it.now() + params.seconds
            repeat
                local value, err = cache:get("k")
                if value then
                    assert(tonumber(value) >= seen, value .. " after " .. seen)
                    seen = tonumber(value)
                else
                    assert(err and (err.code == "unavailable" or err.code == "timeout"), "nothing")
                end
            until it.now() > ends
            return seen
        end, { seconds = 4 })
        local ends, i = clock.now() + 5, 0
        repeat
            i = i + 1
            foreign:call("SET", "k", tostring(i))
            if i % 200 == 0 then line:cut(i % 400 == 0 and "close" or "reset", "tracking") end
            clock.sleep(0.0002)
        until clock.now() > ends
        local result = one:finish()
        assert.is_true((result.value or 0) > 100, result.message)
        one:stop()
    end)
end)
