-- Work in the background of nginx: timers run it; where nginx has none they are asked for again. A
-- worker process that exits goes on with it for a moment.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

-- /push queues jobs that take `takes` seconds and count in Redis; /hold takes all timers, until
-- /release.
local INIT = [[
    redcache = require("redcache")
    background = require("redcache.background")
    cache = redcache.init({ url = "%s", driver = "%s", near = false, commandTimeout = 20,
        background = { workers = 2, queue = 50 } })
    held, most, now = { released = false }, 0, 0

    function held.run()
        while not held.released do ngx.sleep(0.005) end
    end

    function push(of, count, takes)
        local taken = 0
        for i = 1, count do
            taken = taken + (background.push(of._client, i, function()
                now = now + 1
                most = math.max(most, now)
                ngx.sleep(takes)
                assert(of:incr("jobs"))
                now = now - 1
            end) and 1 or 0)
        end
        return taken
    end

    function figures()
        local stats = cache:stats()
        ngx.print(stats.backgroundDone, " ", stats.backgroundFailed, " ", stats.backgroundDropped,
            " ", stats.backgroundQueued, " ", most)
    end
]]
local LOCATIONS = {
    ["/push"] = [[
        content_by_lua_block {
            ngx.print(push(cache, tonumber(ngx.var.arg_count), tonumber(ngx.var.arg_takes)))
        }
    ]],
    ["/push_late"] = [[
        return 204;
        log_by_lua_block { push(cache, tonumber(ngx.var.arg_count), 0.001) }
    ]],
    ["/throw"] = [[
        content_by_lua_block {
            background.push(cache._client, "bad", function() error("planted") end)
            ngx.print("queued")
        }
    ]],
    ["/work"] = [[
        content_by_lua_block {
            push(cache, 10, 0)
            ngx.print(cache:work(10))
        }
    ]],
    ["/work_late"] = [[
        return 204;
        log_by_lua_block {
            push(cache, 1, 0)
            local count, err = cache:work(10)
            ngx.log(ngx.INFO, "work gave ", tostring(count), " ", err and err.code)
        }
    ]],
    ["/lock"] = [[
        content_by_lua_block {
            lock = assert(cache:tryLock("one", { ttl = 60, onLost = function(lost)
                ngx.log(ngx.INFO, "lost ", lost.name, " ", tostring(cache:get("k")))
            end }))
            ngx.print("held")
        }
    ]],
    ["/figures"] = "content_by_lua_block { figures() }",
    ["/close"] = [[
        content_by_lua_block {
            local own = redcache.init({ url = cache.own_url, group = "own", near = false })
            push(own, 30, tonumber(ngx.var.arg_takes))
            local _, dropped = own:close(tonumber(ngx.var.arg_timeout))
            ngx.print(dropped or 0)
        }
    ]],
    ["/close_late"] = [[
        return 204;
        log_by_lua_block {
            local own = redcache.init({ url = cache.own_url, group = "own", near = false })
            push(own, 30, 0.01)
            local _, dropped = own:close(10)
            ngx.log(ngx.INFO, "close dropped ", dropped)
        }
    ]],
    ["/hold"] = [[
        content_by_lua_block {
            cache:get("k") -- what keeps the connections has its timer
            if ngx.var.arg_kind == "running" then
                while ngx.timer.running_count() < 4 do
                    assert(ngx.timer.at(0, held.run))
                    ngx.sleep(0.005)
                end
            else
                while ngx.timer.at(1, held.run) do end
            end
            ngx.print("held")
        }
    ]],
    ["/release"] = "content_by_lua_block { held.released = true; ngx.print('released') }",
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("in the background of nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web
        -- What is not about the driver is shown with one.
        local once = driver == "loop" and it or function() end

        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)
        before_each(function()
            redis:call("FLUSHALL")
        end)
        after_each(function() web:stop() end)

        local function start(more)
            web = nginx.start({
                http = more or "", locations = LOCATIONS,
                init = INIT:format(redis:url(), driver)
                    .. (" cache.own_url = %q"):format(redis:url()),
            })
        end

        local function get(path) return (select(2, web:get(path))) end

        local function jobs() return tonumber(redis:call("GET", "jobs")) or 0 end

        local function wait_for_jobs(count)
            clock.wait_until(function() return jobs() == count end, 10, count .. " jobs")
        end

        it("two workers run what is queued, and a full queue refuses", function()
            start()
            assert.equal("50", get("/push?count=60&takes=0.005"))
            wait_for_jobs(50)
            clock.wait_until(function() return get("/figures") == "50 0 10 0 2" end, 5, "the end")
            assert.equal("0", get("/push?count=0&takes=0"))
        end)

        once("a job that throws is counted and logged, and the next one runs", function()
            start()
            assert.equal("queued", get("/throw"))
            assert.equal("1", get("/push?count=1&takes=0"))
            wait_for_jobs(1)
            clock.wait_until(function() return get("/figures") == "1 1 0 0 1" end, 5, "the end")
            assert.equal(1, #web:complaints())
            assert.matches("redcache: background work failed: .*planted", web:complaints()[1])
        end)

        once("jobs are run that come from a phase that cannot wait", function()
            start()
            web:get("/push_late?count=10")
            wait_for_jobs(10)
        end)

        once("work runs them in the light thread that calls, where that can wait", function()
            start()
            assert.is_true(tonumber(get("/work")) >= 2)
            wait_for_jobs(10)
            web:get("/work_late")
            wait_for_jobs(11)
            assert.matches("work gave nil cannotWait", web:log(), 1, true)
        end)

        it("a lock's onLost is run while nobody calls", function()
            start()
            assert.equal("held", get("/lock"))
            assert.equal(1, redis:call("DEL", "//lock:{one}"))
            clock.wait_until(function() return web:log():find("lost one nil", 1, true) end, 10,
                "that the loss is told")
        end)

        for _, kind in ipairs(driver == "loop" and { "running", "pending" } or { "running" }) do
            it("timers that are refused are asked for again: all are " .. kind, function()
                start("lua_max_running_timers 4; lua_max_pending_timers 8;")
                assert.equal("held", get("/hold?kind=" .. kind))
                assert.equal("5", get("/push?count=5&takes=0"))
                clock.wait_until(function()
                    return web:log():find(kind == "running" and "max_running_timers are not enough"
                        or "could not start a timer for the background", 1, true)
                end, 5, "that a timer is refused")
                assert.equal("0 0 0 5 0", get("/figures"))
                get("/release")
                wait_for_jobs(5) -- and nobody calls
            end)
        end

        it("close has them run, as long as there is time", function()
            start()
            assert.equal("0", get("/close?takes=0.002&timeout=10"))
            assert.equal(30, jobs())
            local dropped = tonumber(get("/close?takes=0.02&timeout=0.05"))
            assert.is_true(dropped > 0 and dropped <= 28, dropped)
        end)

        once("close in a phase that cannot wait drops them", function()
            start()
            web:get("/close_late")
            clock.wait_until(function() return web:log():find("close dropped 30", 1, true) end, 5,
                "the close")
        end)

        it("at a reload the old worker runs what is queued", function()
            start()
            -- Few enough: it has one second for them.
            assert.equal("20", get("/push?count=20&takes=0.01"))
            web:reload()
            wait_for_jobs(20)
            clock.wait_until(function() return #web:old_workers() == 0 end, 10, "the old worker")
            assert.same({}, web:complaints())
        end)

        once("an exiting worker drops what it has no time for, and says so", function()
            start()
            assert.equal("50", get("/push?count=50&takes=0.3"))
            local before = clock.now()
            assert.equal(0, web:quit(clock.scaled(10)))
            assert.is_true(clock.now() - before < clock.scaled(4))
            assert.is_true(jobs() >= 2 and jobs() < 50, jobs())
            assert.matches("redcache: %d+ jobs in the background were dropped", web:log())
        end)
    end)
end

