-- close in nginx: whoever leaves last - the keeper, or who closes - ends the port. No worker dies
-- of it, nothing is left in Redis, and no timer stays behind.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local possible, reason = nginx.is_possible()
local CASES = 'require("spec.nginx.close_cases")'

local function start(redis, driver)
    return nginx.start({
        init = CASES .. (".open({ url = %q, driver = %q, pid = %d, slack = %f })"):format(
            redis:url(), driver, redis.pid, clock.scaled(1)),
        locations = {
            ["/close"] = "content_by_lua_block { " .. CASES .. ".run() } log_by_lua_block { "
                .. CASES .. ".log() }",
            ["/timer"] = "content_by_lua_block { " .. CASES .. ".in_timer() }",
            ["/cycle"] = "content_by_lua_block { " .. CASES .. ".cycle() }",
        },
    })
end

for _, driver in ipairs({ "loop", "thread" }) do
    describe("close in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web, workers

        setup(function()
            redis = server.start()
            web = start(redis, driver)
            workers = web:workers()
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)
        before_each(function() redis:reset() end)

        local function connections()
            return select(2, redis:call("CLIENT", "LIST"):gsub("name=redcache%-", ""))
        end

        local function ask(path)
            local status, body = web:get(path, { timeout = 60 })
            return { status, body }
        end

        local function assert_ended()
            clock.wait_until(function() return connections() == 0 end, 10, "the connections' end")
            assert.same(workers, web:workers())
            assert.same({}, web:complaints())
        end

        for _, how in ipairs({ "at_once", "patiently", "unused", "under_its_users", "by_its_loader",
            "by_two_at_once", "after_a_thread_was_killed", "in_log", "every_method" }) do
            it((how:gsub("_", " ")) .. ": the port ends once, and nothing is left", function()
                assert.same({ 200, "ok" }, ask("/close?how=" .. how))
                assert_ended()
                clock.wait_until(function()
                    return redis:call("EXISTS", "close//lock:{mine}", "close//lock:{log}",
                        "close//lock:{killed}", "close//lock:{short}", "close:killed",
                        "close:own") == 0
                end, 2, "the end of leases and locks")
            end)
        end

        it("in a timer: the same", function()
            assert.same({ 200, "ok" }, ask("/timer"))
            assert_ended()
        end)

        it("while Redis stands still: it takes no longer than it is told", function()
            local answer = ask("/close?how=while_redis_stands_still")
            redis:resume()
            assert.same({ 200, "ok" }, answer)
            assert_ended()
        end)

        it("60 times over: one timer is left, not one for each", function()
            local count = ask("/cycle")[2]
            assert.is_true((tonumber(count) or 60) <= 1, tostring(count) .. " timers")
            assert_ended()
        end)
    end)
end
