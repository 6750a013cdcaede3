-- maxInFlight in nginx: light threads that vanish, and phases that cannot wait.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local posix = require("spec.support.posix")
local server = require("spec.support.server")

-- Two places, and a queue of two.
local INIT = [[
    local outer = require("redcache").init({ url = "%s", driver = "%s", near = false,
        namespace = "app", commandTimeout = 20, waitTimeout = 20 })
    cache = outer:namespace("n", { maxInFlight = 2, maxWaiting = 2 })
    kinds = {
        get = function(key) return cache:get(key) end,
        set = function(key) return cache:set(key, "v") end,
        -- Waits for its tags before it asks with its place.
        tagged = function(key)
            return cache:set(key, "v", 60, { tags = { key }, timeout = 0.2 })
        end,
        load = function(key) return cache:remember(key, 60, function() return "v" end) end,
        many = function(key) return cache:getMulti({ key, key .. "2" }) end,
    }
]]
local LOCATIONS = {
    ["/stats"] = [[content_by_lua_block {
        local stats = cache:stats()
        ngx.print(stats.bulkheadInFlight, " ", stats.bulkheadWaiting, " ", stats.bulkheadRefused)
    }]],
    -- Four light threads, which are killed in the midst of it.
    ["/kill"] = [[content_by_lua_block {
        local threads = {}
        for i = 1, 4 do threads[i] = ngx.thread.spawn(kinds[ngx.var.arg_kind], "k" .. i) end
        ngx.sleep(0.05)
        local stats = cache:stats()
        for i = 1, 4 do ngx.thread.kill(threads[i]) end
        ngx.print(stats.bulkheadInFlight, " ", stats.bulkheadWaiting)
    }]],
    ["/get"] = [[content_by_lua_block {
        local _, err = cache:get("k")
        ngx.print(err and err.code or "fine")
    }]],
    ["/log"] = [[
        content_by_lua_block { ngx.print("ok") }
        log_by_lua_block {
            sent = {}
            for i = 1, 3 do
                local ok, err, how = cache:set("log" .. i, "v")
                sent[i] = how or err and err.code or tostring(ok)
            end
        }
    ]],
    ["/sent"] = [[content_by_lua_block { ngx.print(table.concat(sent, " ")) }]],
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("maxInFlight in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)
        before_each(function()
            redis:call("FLUSHALL")
            web = nginx.start({ locations = LOCATIONS, init = INIT:format(redis:url(), driver) })
            assert.equal("fine", select(2, web:get("/get")))
        end)
        after_each(function()
            posix.C.kill(redis.pid, posix.SIGCONT)
            web:stop()
        end)

        local function silence() posix.C.kill(redis.pid, posix.SIGSTOP) end

        local function has_come_back(seconds)
            clock.wait_until(function()
                local _, text = web:get("/stats")
                return text:find("^0 0 ") ~= nil
            end, seconds)
            assert.equal("fine", select(2, web:get("/get")))
        end

        for _, kind in ipairs({ "get", "set", "tagged", "load", "many" }) do
            it("the places of light threads that are killed come back: " .. kind, function()
                silence()
                assert.equal("2 2", select(2, web:get("/kill?kind=" .. kind)))
                posix.C.kill(redis.pid, posix.SIGCONT)
                has_come_back(10)
                assert.same({}, web:complaints())
            end)
        end

        it("a phase that cannot wait sends what has a place, and keeps that until it is done",
            function()
                silence()
                assert.equal("ok", select(2, web:get("/log")))
                clock.wait_until(function()
                    return select(2, web:get("/stats")) == "2 0 1"
                end, 5)
                assert.equal("sent sent overload", select(2, web:get("/sent")))
                posix.C.kill(redis.pid, posix.SIGCONT)
                has_come_back(5)
                assert.equal(1, redis:call("EXISTS", "app/n:log2"))
            end)
    end)
end
