-- A worker whose timers are all taken: nginx refuses or drops the one that keeps the connections.

local clock = require("spec.support.clock")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

-- /hold takes all timers until /release; `kind` says whether they run, or are pending.
local INIT = [[
    cache = require("redcache").init({ url = "%s", driver = "%s", near = false,
        commandTimeout = 20, waitTimeout = 20 })
    held = { released = false }

    function held.run()
        while not held.released do ngx.sleep(0.005) end
    end
]]
local LOCATIONS = {
    ["/hold"] = [[
        content_by_lua_block {
            local delay, count = ngx.var.arg_kind == "pending" and 3600 or 0, 0
            while count < 2 do
                assert(ngx.timer.at(delay, held.run))
                count = count + 1
            end
            ngx.sleep(0.02) -- those that run have begun
            ngx.print(ngx.timer.running_count(), " ", ngx.timer.pending_count())
        }
    ]],
    ["/release"] = "content_by_lua_block { held.released = true; ngx.print('released') }",
    ["/get"] = [[
        content_by_lua_block {
            local value, err, source = cache:get(ngx.var.arg_key)
            ngx.print(tostring(value), " ", tostring(source), " ", err and err.code or "fine")
        }
    ]],
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("a worker whose running timers are all taken, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)
        before_each(function()
            redis:call("FLUSHALL")
            redis:call("SET", "k", "v")
            web = nginx.start({
                http = "lua_max_running_timers 2;", locations = LOCATIONS,
                init = INIT:format(redis:url(), driver),
            })
            assert.equal("2 0", select(2, web:get("/hold?kind=running")))
        end)
        after_each(function() web:stop() end)

        it("answers who waits as soon as one is free", function()
            local waits = web:open("/get?key=k")
            clock.wait_until(function()
                return web:log():find("lua_max_running_timers are not enough", 1, true) ~= nil
            end, 10, "that a timer is dropped")
            web:get("/release")
            -- Long before its own time-out of 20 s, and without another request.
            local status, body = http.read(waits, 10)
            assert.same({ 200, "v redis fine" }, { status, body })
        end)

        it("answers who comes when they are free again", function()
            local waits = web:open("/get?key=k")
            clock.wait_until(function()
                return web:log():find("lua_max_running_timers are not enough", 1, true) ~= nil
            end, 10, "that a timer is dropped")
            waits:close()
            web:get("/release")
            local status, body = web:get("/get?key=k")
            assert.same({ 200, "v redis fine" }, { status, body })
        end)
    end)
end
