-- Values that are loaded again in the background inside nginx: two workers over an expiry, one load
-- that no request waits for; and a phase that cannot wait, which leads to one all the same.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local redis, web

local INIT = [[
    local redcache = require("redcache")
    local calls = require("redcache.calls")
    CACHES, RUNS = {}, 0
    for name, options in pairs({ after = { refreshAfter = 0.5 }, grace = { grace = 60 },
        log = { refreshAfter = 1 } }) do
        options.url, options.namespace, options.scheduler = %q, name, "resty"
        options.near, options.driver = { shared = %q }, %q
        options.commandTimeout, options.connectTimeout = 10, 10
        CACHES[name] = redcache.new(options)
    end
    function READ(name, ttl, seconds)
        local cache = CACHES[name]
        return cache:remember("k", ttl, function()
            if ngx.get_phase() == "log" then return nil, "only timers load" end
            local count = cache:redis():command("INCR", "runs." .. name)
            if count > 1 and seconds > 0 then ngx.sleep(seconds) end
            cache:redis():command("SET", "ended." .. name, count)
            return count
        end)
    end
]]

local function start(driver)
    return nginx.start({
        workers = 2,
        init = INIT:format(redis:url(), redis.port .. "." .. driver, driver),
        locations = {
            ["/read"] = [[content_by_lua_block {
                local value, err, source = READ(ngx.var.arg_name, tonumber(ngx.var.arg_ttl), 0.3)
                ngx.print(value or tostring(err), " ", source, " ", ngx.worker.id())
            }]],
            ["/log"] = [[
                content_by_lua_block { ngx.print("body") }
                log_by_lua_block { READ("log", 60, 0) }
            ]],
            ["/part"] = [[content_by_lua_block { ngx.print("part") }]],
            ["/subrequest"] = [[content_by_lua_block {
                local value, err, source = CACHES.grace:remember("sub", 0.1, function()
                    return ngx.location.capture("/part").body
                end)
                ngx.print(value or tostring(err), " ", source)
            }]],
            ["/warm"] = [[content_by_lua_block {
                for _ = 1, 3 do READ("log", 60, 0) end
                ngx.print((READ("log", 60, 0)))
            }]],
        },
    })
end

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

-- Reads on until both workers have given a second value, and some reads were answered while a load
-- was under way: the one reader here would wait for its end. What was seen, for the message.
local function read_on(name, ttl)
    local seen, during, workers, began = {}, 0, {}, clock.now()
    clock.wait_until(function()
        local status, body = web:get(("/read?name=%s&ttl=%g"):format(name, ttl))
        assert.equal(200, status, body)
        local value, source, id = body:match("^(%d+) (%l%w*) (%d+)$")
        assert.is_truthy(value, body)
        local runs, ended = unpack(redis:call("MGET", "runs." .. name, "ended." .. name))
        assert.is_true(source ~= "loader" or #seen == 0)
        during = during + (#seen > 0 and runs ~= ended and 1 or 0)
        workers[id], seen[#seen + 1] = tonumber(value), value .. source
        return during >= 2 and (workers["0"] or 0) > 1 and (workers["1"] or 0) > 1
    end, 15, "reads during a load")
    -- One load per half a second, which is how long a value is good.
    local runs = tonumber(redis:call("GET", "runs." .. name))
    assert.is_true(runs >= 2 and runs <= 1 + (clock.now() - began) / 0.5, table.concat(seen, " "))
end

for _, driver in ipairs({ "loop", "thread" }) do
    describe("in nginx, driver " .. driver .. ",", function()
        setup(function()
            redis:call("FLUSHALL")
            web = start(driver)
        end)
        teardown(function() web:stop() end)

        for name, ttl in pairs({ after = 60, grace = 0.5 }) do
            it("two workers load once over an expiry, and no request waits: " .. name, function()
                read_on(name, ttl)
            end)
        end

        it("a phase that cannot wait has a value that is due loaded again", function()
            assert.equal("1", select(2, web:get("/warm")))
            clock.sleep(1.1)
            clock.wait_until(function()
                assert.equal(200, (web:get("/log")))
                return tonumber(redis:call("GET", "runs.log")) >= 2
            end, 10)
        end)

        it("nothing of all this was worth a complaint", function()
            assert.same({}, web:complaints())
        end)

        -- In the background such a loader fails once in a worker; then its readers run it.
        it("a loader that makes subrequests is run by a request", function()
            local seen, mode = {}, nil
            clock.wait_until(function()
                local status, body = web:get("/subrequest")
                assert.equal(200, status, body)
                seen[#seen + 1] = body
                mode = body:match("^part (%l%w*)$")
                return mode == "loader" and #seen > 1
            end, 15, "a second load")
            assert.equal("part loader", seen[1])
            assert.is_true(#web:complaints() <= 2, table.concat(web:complaints(), "\n"))
        end)
    end)
end
