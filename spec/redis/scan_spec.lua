-- Scans under load: what was there throughout is given, at little memory, and others hardly notice;
-- what is deleted is counted, and the embedded store does what Redis does. What single calls
-- promise: spec/support/cases/scans.lua.
--
-- Env: REDCACHE_SCAN_KEYS (20000): a million for the figures of a note, which are printed then.

local clock = require("spec.support.clock")
local ffi = require("ffi")
local herd = require("spec.support.herd")
local redcache = require("redcache")
local server = require("spec.support.server")

local KEYS = tonumber(os.getenv("REDCACHE_SCAN_KEYS")) or 20000
local IS_LONG = KEYS >= 1000000
local CHANGES = 2000 -- a second
local MIB = 1024 * 1024

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function say(...)
    if IS_LONG then print(("\n" .. string.format(...))) end
end

-- KEYS keys user:1 to user:KEYS, written by the server.
local function fill(prefix)
    for first = 1, KEYS, 100000 do
        redis:call("EVAL", [[for i=ARGV[2],ARGV[3] do redis.call('SET',ARGV[1]..i,i) end]], 0,
            prefix, first, math.min(first + 99999, KEYS))
    end
end

local function rss()
    local file = assert(io.open("/proc/self/statm"))
    local pages = tonumber(file:read("*a"):match("^%d+ (%d+)"))
    file:close()
    return pages * 4096
end

-- A process that asks for one key every millisecond until it holds "stop". :join() gives the time
-- that 99 of 100 answers took at most, in seconds.
local function start_observer(of)
    of = of or redis
    of:call("SET", "observed", "go")
    local one = herd.start({
        count = 1, timeout = 900, params = { url = of:url() },
        main = function(one)
            local time = require("spec.support.clock")
            local cache = require("redcache").new({ url = one.params.url, near = false })
            local times, value = {}, "go"
            one:ready()
            one:emit("begun")
            while value ~= "stop" do
                local before = time.now()
                value = assert(cache:get("observed", { timeout = 5 }))
                times[#times + 1] = time.now() - before
                time.sleep(0.001)
            end
            cache:close()
            table.sort(times)
            return times[math.ceil(#times * 0.99)]
        end,
    })
    one:wait_events("begun", 1, 20)
    return one
end

local function stop_observer(one, of)
    (of or redis):call("SET", "observed", "stop")
    return one:join().results[1]
end

-- A process that makes and deletes 2,000 keys user:v... a second until "changing" is gone.
local function start_changes()
    redis:call("SET", "changing", "1")
    local one = herd.start({
        count = 1, timeout = 900, params = { url = redis:url(), changes = CHANGES },
        main = function(one)
            local time = require("spec.support.clock")
            local cache = require("redcache").new({ url = one.params.url, near = false })
            local changed, started = 0, time.now()
            one:ready()
            one:emit("begun")
            while cache:exists("changing", { timeout = 5 }) do
                local map, old = {}, {}
                for i = 1, 10 do
                    map["user:v" .. changed + i] = i
                    old[i] = "user:v" .. changed + i - 5000
                end
                cache:setMulti(map, nil, { timeout = 5 })
                cache:deleteMulti(old, { timeout = 5 })
                changed = changed + 20
                local ahead = started + changed / one.params.changes - time.now()
                if ahead > 0 then time.sleep(ahead) end
            end
            cache:close()
            return changed / (time.now() - started)
        end,
    })
    one:wait_events("begun", 1, 20)
    return one
end

local function stop_changes(one)
    redis:call("DEL", "changing")
    return one:join().results[1]
end

local function open(options)
    local all = { url = redis:url(), near = false, commandTimeout = 5 }
    for name, value in pairs(options or {}) do all[name] = value end
    return redcache.new(all)
end

-- How many of user:1 to user:KEYS the scan gives, how often it gives one again, and how many bytes
-- the process has grown by meanwhile, at most.
local function scan_all(cache, options)
    collectgarbage()
    collectgarbage()
    local seen = ffi.new("uint8_t[?]", KEYS + 1)
    ffi.fill(seen, KEYS + 1, 1) -- its pages are there before, and are not counted
    ffi.fill(seen, KEYS + 1, 0)
    local before, most, given, again = rss(), 0, 0, 0
    local count = 0
    for key in cache:scan("user:*", options) do
        count = count + 1
        local number = tonumber(key:match("^user:(%d+)$"))
        if number then
            given = given + (seen[number] == 0 and 1 or 0)
            again = again + (seen[number] == 1 and 1 or 0)
            seen[number] = 1
        end
        if count % 1000 == 0 then most = math.max(most, rss() - before) end
    end
    return given, again, most
end

describe("scan", function()
    it("gives each key that is there throughout, while others come and go", function()
        fill("user:")
        local cache, idle = open(), IS_LONG and server.start()
        for _, dedup in ipairs({ false, true }) do
            assert.is_string(cache:scan("user:*")())
            local changes, observer = start_changes(), start_observer()
            -- An idle server is asked, too: what it takes is the machine's part.
            local machine = idle and start_observer(idle)
            local started = clock.now()
            local given, again, bytes = scan_all(cache, { dedup = dedup })
            local took, p99 = clock.now() - started, stop_observer(observer)
            local idle_p99, rate = machine and stop_observer(machine, idle), stop_changes(changes)
            assert.equal(KEYS, given)
            if dedup then assert.equal(0, again) end
            local most = 8 * MIB + (dedup and 24 * (KEYS + CHANGES * took) or 0)
            -- A sanitizer keeps several bytes of its own for each.
            assert.is_true(bytes <= most or clock.scale > 1, bytes)
            say("scan of %d keys, dedup %s: %.1f s, RSS + %.1f MiB, %d again, %.0f changes/s, "
                .. "p99 of others %.3f ms (of an idle server %.3f ms)", KEYS, tostring(dedup), took,
                bytes / MIB, again, rate, p99 * 1000, (idle_p99 or 0) * 1000)
            if IS_LONG then assert.is_true(p99 <= 2 * idle_p99, p99 .. " " .. idle_p99) end
        end
        cache:close()
        if idle then idle:stop() end
    end)

    it("begins a server again that has another process", function()
        fill("user:")
        local cache = open({ connectTimeout = 5 })
        redis:call("CONFIG", "SET", "appendonly", "no")
        redis:call("SAVE")
        local found, count = {}, 0
        for key in cache:scan("user:*", { dedup = true, timeout = 10 }) do
            found[key] = true
            count = count + 1
            if count == 500 then redis:restart() end
        end
        local missing = 0
        for i = 1, KEYS do missing = missing + (found["user:" .. i] and 0 or 1) end
        assert.equal(0, missing)
        assert.equal(KEYS, count)
        cache:close()
    end)

    it("goes on where only the connection was lost", function()
        fill("user:")
        local cache, count = open(), 0
        for _ in cache:scan("user:*", { timeout = 10 }) do
            count = count + 1
            if count % 2000 == 0 then redis:call("CLIENT", "KILL", "TYPE", "normal") end
        end
        assert.is_true(count >= KEYS and count < KEYS * 1.5, count) -- SCAN's own doubles
        cache:close()
    end)
end)

describe("deleteByPattern", function()
    it("counts exactly, and lets others go on", function()
        fill("user:")
        fill("page:")
        local cache, observer = open(), start_observer()
        local idle = IS_LONG and server.start()
        local machine = idle and start_observer(idle)
        local started = clock.now()
        assert.equal(KEYS, cache:deleteByPattern("user:*"))
        local took = clock.now() - started
        local p99 = stop_observer(observer)
        assert.equal(KEYS + 1, redis:call("DBSIZE")) -- "observed", too
        if idle then -- what the machine took is taken off: who asks an idle server waits for that
            local idle_p99 = stop_observer(machine, idle)
            idle:stop()
            say("deleteByPattern of %d keys of %d: %.0f keys/s, p99 of others %.3f ms (of an idle "
                .. "server %.3f ms)", KEYS, 2 * KEYS, KEYS / took, p99 * 1000, idle_p99 * 1000)
            assert.is_true(p99 - idle_p99 <= 0.005, p99 .. " " .. idle_p99)
        end
        cache:close()
    end)

    local only_long = IS_LONG and it or function() end
    only_long("keeps up with redis-cli", function()
        local cache, ratios = open(), {}
        for i = 1, 3 do
            redis:call("FLUSHALL")
            fill("user:")
            local started = clock.now()
            local cli = "redis-cli -p " .. redis.port
            os.execute(cli .. " --scan --pattern 'user:*' | xargs -n 1000 " .. cli
                .. " unlink > /dev/null")
            local theirs = clock.now() - started
            assert.equal(0, redis:call("DBSIZE"))
            fill("user:")
            started = clock.now()
            assert.equal(KEYS, cache:deleteByPattern("user:*"))
            ratios[i] = theirs / (clock.now() - started)
            say("redis-cli --scan | xargs unlink: %.0f keys/s; deleteByPattern %.2f x of that",
                KEYS / theirs, ratios[i])
        end
        table.sort(ratios)
        assert.is_true(ratios[2] >= 0.7)
        cache:close()
    end)

    it("counts exactly on memory://", function()
        local cache = redcache.new({ maxBytes = 1024 * MIB })
        local count = math.min(KEYS, 100000)
        for i = 1, count do cache:set("user:" .. i, i) end
        assert.equal(count, cache:deleteByPattern("user:*", { dryRun = true }))
        local seen = 0
        for _ in cache:scan("user:*", { dedup = true }) do seen = seen + 1 end
        assert.equal(count, seen)
        assert.equal(count, cache:deleteByPattern("user:*"))
        assert.equal(0, #cache:keys("*"))
        cache:close()
    end)

    it("is cancelled from another thread of control", function()
        fill("user:")
        local cache = open({ scheduler = "coroutine" })
        local result
        redcache.run(function()
            local task = redcache.spawn(function()
                result = { cache:deleteByPattern("user:*", { batch = 10, cancelTag = 5,
                    rate = 10000 }) }
            end)
            local other = redcache.spawn(function()
                for _ = 1, 20 do cache:get("x") end
                clock.wait_until(function()
                    cache:get("x")
                    return cache:cancel(5) > 0
                end, 5, "the call that is to end")
            end)
            other:wait()
            task:wait()
        end)
        assert.is_nil(result[1])
        assert.equal("cancelled", result[2].code)
        -- Of the batch that was under way nobody has heard how many there were: some ten, for SCAN
        -- gives whole hash buckets, and keys of 20,000 in 16,384 buckets are often three in one.
        local left = redis:call("DBSIZE")
        assert.is_true(left <= KEYS - result[3] and left >= KEYS - result[3] - 20, left)
        cache:close()
    end)
end)

describe("flush, in the middle of loads", function()
    it("lets none of them store what it has begun before", function()
        local cache = open({ scheduler = "coroutine", namespace = "app" })
        local LOADS, stored, flushed = 200, 0, nil
        redcache.run(function()
            local tasks, loading, go = {}, 0, false
            for i = 1, LOADS do
                tasks[i] = redcache.spawn(function()
                    cache:remember("k" .. i, 60, function()
                        loading = loading + 1
                        while not go do cache:get("x") end
                        return "old"
                    end)
                end)
            end
            while loading < LOADS do cache:get("x") end
            flushed = cache:flush()
            go = true
            for i = 1, LOADS do tasks[i]:wait() end
            for i = 1, LOADS do stored = stored + (cache:exists("k" .. i) and 1 or 0) end
        end)
        assert.equal(0, flushed)
        assert.equal(0, stored)
        cache:close()
    end)
end)

describe("the embedded store", function()
    it("deletes and counts by the script as Redis does", function()
        local here, there = redcache.new(), open()
        for round = 1, 20 do
            for _, cache in ipairs({ here, there }) do
                math.randomseed(round)
                local plain = cache:namespace("p", { plain = true, codec = "raw" })
                for i = 1, 30 do
                    local key, kind = "k" .. i, math.random(5)
                    if kind == 1 then cache:set(key, i)
                    elseif kind == 2 then cache:remember(key, 60, function() return nil end)
                    elseif kind == 3 then plain:set(key, "\251\1\3" .. ("\0"):rep(21))
                    elseif kind == 4 then plain:set(key, "\251")
                    else plain:set(key, "") end
                end
                cache.deleted = { cache:deleteByPattern("k*"), plain:flush() }
                assert.equal(0, #cache:keys("*", 100))
            end
            assert.same(there.deleted, here.deleted)
        end
        here:close()
        there:close()
    end)
end)
