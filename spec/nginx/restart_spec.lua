-- What an operator does to a running nginx, and what may happen to its Redis: nobody who asks is
-- told that something went wrong.
--
-- Env: REDCACHE_NGINX_HUP_SECONDS: how long it is reloaded every half second (6).
--      REDCACHE_NGINX_RELOADS: after how many reloads memory is looked at (20).
--      REDCACHE_NGINX_DRIVER: "loop" (the default) or "thread".

local clock = require("spec.support.clock")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local waited = require("spec.near.waited")
local wrk = require("spec.support.wrk")

local HUP_SECONDS = tonumber(os.getenv("REDCACHE_NGINX_HUP_SECONDS")) or 6
local RELOADS = tonumber(os.getenv("REDCACHE_NGINX_RELOADS")) or 20
local DRIVER = os.getenv("REDCACHE_NGINX_DRIVER") or "loop"
local WORKERS = 2

-- Every answer tells the key, the source, and whose it is; every error is a 500.
local INIT = [[
    local redcache = require("redcache")
    cache = redcache.new({ url = "%s", scheduler = "resty", driver = "%s", %s })
    graceful = cache:namespace("graceful", { grace = 30 })

    function answer(value, err, source)
        if err or value == nil then
            ngx.status = 500
            ngx.log(ngx.ERR, "could not answer: ", tostring(err))
        end
        ngx.header["X-Source"], ngx.header["X-Worker"] = source, ngx.worker.pid()
        ngx.print(value)
    end

    function make(key)
        ngx.sleep(tonumber(ngx.var.arg_takes) or 0.002)
        return "made of " .. key
    end
]]
local LOCATIONS = {
    ["/remember"] = [[
        content_by_lua_block {
            local chosen = ngx.var.arg_kind == "graceful" and graceful or cache
            ngx.log(ngx.INFO, "begun")
            answer(chosen:remember(ngx.var.arg_key, 60, make))
        }
    ]],
    ["/confirmed"] = "content_by_lua_block { ngx.print(cache.near:stats().revalidations) }",
    -- Its first word to the cache comes late.
    ["/late"] = [[
        content_by_lua_block {
            local key, what = ngx.var.arg_key, ngx.var.arg_what
            ngx.log(ngx.INFO, "begun")
            ngx.sleep(2)
            if what == "remember" then
                answer(cache:remember(key, 60, make))
            elseif what == "get" then
                answer(cache:get(key))
            elseif what == "lock" then
                answer(cache:withLock(key, nil, function() return make(key) end))
            else
                local ok, err = cache:set(key, "made of " .. key, 60)
                answer(ok and "made of " .. key, err)
            end
        }
    ]],
}

local possible, reason = nginx.is_possible()
if possible and not wrk.is_possible() then possible, reason = false, "there is no wrk" end
if not possible then
    pending("restarts of nginx: " .. reason)
    return
end

local redis, bed

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)
after_each(function()
    if bed then bed:stop() end
end)

local function start(options)
    options = options or {}
    bed = nginx.start({
        workers = WORKERS,
        init = INIT:format(options.url or redis:url(), DRIVER, options.cache or ""),
        locations = LOCATIONS, daemon = options.daemon,
        -- Both workers get their share, also of few connections.
        listen = "reuseport",
        -- A worker whose very first timer is started after QUIT leaves "open socket #-2" in the
        -- log, with lua-nginx-module 0.10.23 and no redcache at all.
        init_worker = "assert(ngx.timer.at(0, function() end))",
    })
end

local function url() return "http://127.0.0.1:" .. bed.port end

local CHECK = "return status == 200 and (body:find('^made of ') or body == 'new')"

local function expect_no_errors(figures, kinds)
    for _, kind in ipairs(kinds) do
        assert.equal(0, figures[kind], kind .. " errors: " .. figures.text .. "\n"
            .. table.concat(bed:complaints(), "\n"))
    end
    -- It was a load, as much as the machine has left for one.
    assert.is_true(figures.requests > 10 * figures.seconds, figures.text)
end

-- Asks until each worker that serves has given an answer that `accept` takes.
local function until_each(path, accept, seconds, what)
    local done = {}
    clock.wait_until(function()
        local _, body, headers = bed:get(path)
        if headers and accept(body, headers["x-source"]) then done[headers["x-worker"]] = true end
        for _, pid in ipairs(bed:workers()) do
            if not done[tostring(pid)] then return false end
        end
        return true
    end, seconds, what)
end

local function is_near(source) return source == "l0" or source == "near" end

-- Reads keys until every worker has them near.
local KEYS = 20

-- A worker that gets no processor for a second (the default) says nothing of its copies that long,
-- and others then rightly ask Redis: that would be news of the machine.
-- Nor does a command of its take half a second.
local SLOW = "commandTimeout = 10, connectTimeout = 10"
local PATIENT = "maxStale = 20, " .. SLOW

local function warm(count)
    for i = 1, count or KEYS do
        until_each("/remember?key=w" .. i, function(_, source) return is_near(source) end, 10,
            "that w" .. i .. " is near")
    end
end

describe("a Redis that is killed and comes back empty", function()
    -- A connection is tried again within a second; then it has to be made.
    local AWAY_SECONDS, FRESH_SECONDS = 2, 1.1

    it("is noticed by nobody who asks nginx, and what it is told then is seen at once", function()
        start()
        -- Two of three requests are for a key that was there, with grace or without.
        local load = wrk.start({
            url = url(), seconds = AWAY_SECONDS + 3, connections = 16, check = CHECK,
            path = [[
                local key = n % 3 == 0 and "cold" .. n or "w" .. n % 7
                return "/remember?key=" .. key .. (n % 2 == 0 and "&kind=graceful" or "")
            ]],
        })
        warm()
        redis:kill()
        clock.sleep(AWAY_SECONDS)
        redis:restart()
        local watch = waited.watch({ redis.pid, unpack(bed:workers()) })
        local back, before = clock.now(), watch:seconds()
        redis:call("SET", "w1", "new")
        redis:call("SET", "graceful:w1", "new")
        for _, kind in ipairs({ "", "&kind=graceful" }) do
            until_each("/remember?key=w1" .. kind, function(body) return body == "new" end, 5,
                "the new value")
        end
        -- But for the time in which one of them was ready and had no processor.
        local took = clock.now() - back - (watch:seconds() - before)
        local figures = load:join()
        print(("fresh %.0f ms after Redis was back; %d requests, p99 %.0f ms, max %.0f ms"):format(
            took * 1000, figures.requests, figures.p99 * 1000, figures.max * 1000))
        expect_no_errors(figures, { "status", "bad", "connect", "read", "write", "timeout" })
        assert.is_true(took <= clock.scaled(FRESH_SECONDS), took)
        -- And memory answers again.
        warm()
    end)

    -- Connections come back one by one. The tracked one brings leases while the other one, which
    -- ends loads, still waits for its next try: what it could not say has to be said later.
    -- Pending until the engine does so: today such a lease stands in everybody's way for leaseTtl.
    it("leaves no lease behind that nobody holds", function()
        local line = proxy.start(redis)
        finally(function() line:stop() end)
        start({ url = line:url(), cache = "commandTimeout = 0.1, leaseTtl = 30, waitTimeout = 60" })
        until_each("/remember?kind=graceful&key=here", function(_, source)
            return is_near(source)
        end, 10, "both connections")
        line:refuse()
        line:cut("reset", "plain")
        assert.equal(200, (bed:get("/remember?kind=graceful&key=k")))
        line:flow()
        local took = clock.time(function()
            assert.equal(200, (bed:get("/remember?kind=graceful&key=k", { timeout = 60 })))
        end)
        assert.is_true(took <= clock.scaled(2 * FRESH_SECONDS), took)
    end)
end)

describe("a reload", function()
    local SIGHUP, EVERY = 1, 0.5
    local GONE_SECONDS = 2

    it("every half second costs no answer, and leaves no worker behind", function()
        start({ cache = SLOW })
        -- A connection per request: nginx closes idle ones at a reload, and a request that comes
        -- then is lost with any nginx.
        local load = wrk.start({
            url = url(), seconds = HUP_SECONDS + 1, connections = 8, close = true, check = CHECK,
            path = [[
                local key = n % 3 == 0 and "cold" .. id .. "." .. n .. "&takes=0.05" or "w" .. n % 7
                return "/remember?key=" .. key
            ]],
        })
        local ends, count, last = clock.now() + HUP_SECONDS, 0, nil
        while clock.now() < ends do
            clock.sleep(EVERY)
            bed:signal(SIGHUP)
            count, last = count + 1, clock.now()
        end
        clock.wait_until(function() return #bed:old_workers() > 0 end, 10, "the last reload")
        clock.wait_until(function() return #bed:old_workers() == 0 end, 10, "the end of workers")
        local took = clock.now() - last
        local figures = load:join()
        print(("%d reloads, %d requests, p99 %.0f ms, max %.0f ms; the last old worker was gone "
            .. "after %.1f s"):format(count, figures.requests, figures.p99 * 1000,
            figures.max * 1000, took))
        expect_no_errors(figures, { "status", "bad", "connect", "read", "write", "timeout" })
        assert.is_true(took <= clock.scaled(GONE_SECONDS), took)
        assert.same({}, bed:complaints())
        assert.equal(WORKERS, #bed:workers())
    end)

    local function master_rss()
        return tonumber(temp.read(("/proc/%d/status"):format(bed.pid)):match("VmRSS:%s*(%d+)"))
    end

    local function reload_and_use(times)
        for _ = 1, times do
            bed:reload()
            until_each("/remember?key=w1", function(body) return body == "made of w1" end, 10,
                "an answer of each worker")
        end
        clock.wait_until(function() return #bed:old_workers() == 0 end, 10, "the end of workers")
        return bed:rss(), master_rss()
    end

    it("leaves memory as it was", function()
        -- What malloc keeps for its own comfort settles in the first few; a Lua state with
        -- redcache in it is a megabyte, a client 100 KiB.
        local SETTLE, EACH_KIB = 5, 20
        start()
        local workers, master = reload_and_use(SETTLE)
        local workers_then, master_then = reload_and_use(RELOADS)
        print(("after %d reloads: workers %d KiB, master %d KiB; %d reloads later %d and %d")
            :format(SETTLE, workers, master, RELOADS, workers_then, master_then))
        local room = 1024 + EACH_KIB * RELOADS
        -- Who takes over from a worker that leaves looks through the whole index of the near cache,
        -- an eighth of its 64 MiB at most, and that counts as its own; which one does is chance.
        local INDEX_KIB = 8192
        assert.is_true(workers_then - workers < WORKERS * (room + INDEX_KIB),
            workers_then - workers)
        assert.is_true(master_then - master < room, master_then - master)
        assert.same({}, bed:complaints())
    end)

    it("costs no GET of what was in memory", function()
        start({ cache = PATIENT })
        warm()
        local calls = redis:count(function()
            bed:reload()
            warm()
        end)
        assert.is_nil(calls.get)
        assert.is_nil(calls.evalsha)
        -- And what is in memory is still followed.
        redis:call("SET", "w1", "new")
        until_each("/remember?key=w1", function(body) return body == "new" end, 5, "the new value")
    end)
end)

describe("a reload of an nginx that nobody has asked anything for a while", function()
    -- Longer than maxStale: without readers a worker no longer asks whether its copies are right.
    -- And that is longer than a busy machine keeps a worker from its processor (PATIENT).
    local MAX_STALE, IDLE_SECONDS = 3, 4.5

    local function pings()
        local stats = redis:commandstats().ping
        return stats and stats.calls or 0
    end

    -- Copies that a worker which knew nothing of them has compared with Redis.
    local function confirmed()
        return tonumber((select(2, bed:get("/confirmed"))))
    end

    -- What is read from Redis, and how long it took to ask for all keys of all workers.
    local function reload_behind_a_pause()
        warm()
        local known = confirmed()
        clock.sleep(IDLE_SECONDS)
        -- It really was idle: a word on coherence is asked for four times in maxStale.
        local before = pings()
        clock.sleep(MAX_STALE / 3)
        assert.equal(before, pings())
        bed:reload()
        clock.wait_until(function() return pings() > before end, 5, "a word on coherence")
        -- This question may be out before the old workers have said what they hold.
        warm(1)
        -- They stay until all of it is taken over. What one of them has just begun to take from
        -- another, before it heard that it is to leave itself, has to go to a third.
        clock.wait_until(function() return #bed:old_workers() == 0 end, 10, "the end of workers")
        assert.is_true(confirmed() - known >= KEYS - 1)
        local calls
        local took = clock.time(function() calls = redis:count(warm) end)
        return calls, took
    end

    it("costs no GET of what was in memory, behind the old workers' word", function()
        start({ cache = "maxStale = " .. MAX_STALE .. ", " .. SLOW })
        local calls, took
        -- Where a machine stands still that long, copies rightly grow too old meanwhile (seen: 6 s,
        -- on one core with four busy processes). That says nothing of the reload.
        for _ = 1, 3 do
            calls, took = reload_behind_a_pause()
            if took < MAX_STALE / 2 then break end
        end
        assert.is_nil(calls.get)
        assert.is_nil(calls.evalsha)
        redis:call("SET", "w1", "new")
        until_each("/remember?key=w1", function(body) return body == "new" end, 5, "the new value")
    end)
end)

describe("a graceful end", function()
    local function count_begun()
        local _, count = bed:log():gsub("begun", "")
        return count
    end

    -- Sends the requests, and QUIT when all of them are running. Answers by path.
    local function quit_during(paths)
        local connections, began = {}, clock.now()
        for i, path in ipairs(paths) do connections[i] = bed:open(path) end
        clock.wait_until(function() return count_begun() == #paths end, 5, "all requests")
        -- What they wait for takes longer than that.
        assert.is_true(clock.now() - began < clock.scaled(1.9))
        local code, signal
        local took = clock.time(function() code, signal = bed:quit(15) end)
        print(("%d requests were pending, nginx ended %.2f s after QUIT"):format(#paths, took))
        local complaints = table.concat(bed:complaints(), "\n")
        for i, connection in ipairs(connections) do
            local status, body = http.read(connection, 1)
            local key = paths[i]:match("key=(%w+)")
            assert.same({ paths[i], 200, "made of " .. key }, { paths[i], status, body },
                complaints)
        end
        assert.equal(0, code, signal)
        assert.equal("", complaints)
        return took
    end

    it("answers those who wait for a loader, and those who run it", function()
        start({ cache = SLOW })
        local paths = {}
        for i = 1, 8 do
            paths[#paths + 1] = "/remember?takes=2&key=slow"
            paths[#paths + 1] = "/remember?takes=2&key=slow" .. i
        end
        assert.is_true(quit_during(paths) < clock.scaled(6))
        -- What they made is there for others.
        for i = 1, 8 do assert.equal(1, redis:call("EXISTS", "slow" .. i)) end
    end)

    it("answers those whose first word to the cache comes later", function()
        start({ cache = SLOW })
        redis:call("SET", "there", "made of there")
        local paths = {}
        for i = 1, 4 do
            paths[#paths + 1] = "/late?what=set&key=s" .. i
            paths[#paths + 1] = "/late?what=get&key=there"
            paths[#paths + 1] = "/late?what=remember&key=shared"
            paths[#paths + 1] = "/late?what=remember&key=r" .. i
            paths[#paths + 1] = "/late?what=lock&key=lock"
        end
        assert.is_true(quit_during(paths) < clock.scaled(6))
        for i = 1, 4 do assert.equal(1, redis:call("EXISTS", "s" .. i)) end
    end)

    -- What a worker has in memory it offers to others for a second, before it closes.
    it("takes a moment when nobody waits for anything", function()
        start({ cache = SLOW })
        warm()
        local took, code = clock.time(function() return bed:quit(10) end)
        print(("idle, nginx ended %.2f s after QUIT"):format(took))
        assert.equal(0, code)
        assert.is_true(took < clock.scaled(2), took)
        assert.same({}, bed:complaints())
    end)
end)

describe("a new binary", function()
    it("takes over, and what a shared region holds is near at once", function()
        local region = "upgrade-" .. posix.C.getpid()
        finally(function() os.remove("/dev/shm/redcache-" .. region) end)
        start({ daemon = true, cache = ('near = { shared = "%s" }, %s'):format(region, PATIENT) })
        warm()
        local load = wrk.start({
            url = url(), seconds = 3, connections = 4, close = true, check = CHECK,
            path = "return '/remember?key=w' .. 1 + n % 7",
        })
        local before = bed.pid
        local calls = redis:count(function()
            bed:upgrade()
            warm()
        end)
        assert.are_not.equal(before, bed.pid)
        expect_no_errors(load:join(), { "status", "bad", "connect", "read", "write", "timeout" })
        assert.is_nil(calls.get)
        assert.is_nil(calls.evalsha)
        redis:call("SET", "w1", "new")
        until_each("/remember?key=w1", function(body) return body == "new" end, 5, "the new value")
        assert.same({}, bed:complaints())
    end)
end)
