-- Thousands of connections that miss one key at the same instant: one of them makes the value, and
-- nobody waits longer than that takes.
--
-- Env: REDCACHE_NGINX_CONNECTIONS: how many in the largest herd (2000; 10000 wants `ulimit -n`
--      to be above 10100).
--      REDCACHE_NGINX_DRIVER: "loop" (the default) or "thread".

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")
local waited = require("spec.near.waited")
local wrk = require("spec.support.wrk")

local CONNECTIONS = tonumber(os.getenv("REDCACHE_NGINX_CONNECTIONS")) or 2000
local DRIVER = os.getenv("REDCACHE_NGINX_DRIVER") or "loop"
local LOADER_SECONDS = 0.3
-- What an answer may take beyond the loader, where nobody disturbs.
local BEYOND_SECONDS = 0.5
-- Long enough for a connection whose first packet was dropped to come, too; and what a busy machine
-- may need at most.
local SECONDS, MOST_SECONDS = 2, 32

-- The loader counts itself on a connection of its own.
local INIT = [[
    cache = require("redcache").new({
        url = "redis://127.0.0.1:%d", scheduler = "resty", driver = "%s",
        -- A busy machine is no reason to go on without Redis.
        commandTimeout = 30, connectTimeout = 30, waitTimeout = 30,
    })
    function count_run(key)
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", %d))
        assert(sock:send("INCR runs:" .. key .. "\r\n"))
        assert(sock:receive("*l"))
        sock:close()
    end
]]
local LOCATION = [[
    content_by_lua_block {
        local value, err = cache:remember(ngx.var.arg_key, 60, function(key)
            count_run(key)
            ngx.sleep(%g)
            return "made of " .. key
        end)
        if err then
            ngx.status = 500
            ngx.log(ngx.ERR, tostring(err))
        end
        ngx.print(value)
    }
]]

-- The same herd without a cache: each request sleeps as long as the loader does.
local CONTROL = [[
    content_by_lua_block {
        ngx.sleep(%g)
        ngx.print("made of ", ngx.var.arg_key)
    }
]]

local possible, reason = nginx.is_possible()
if possible and not wrk.is_possible() then possible, reason = false, "there is no wrk" end
if not possible then
    pending("herds in nginx: " .. reason)
    return
end

describe("remember in nginx, of a herd on one cold key,", function()
    local redis, beds

    local function start(count)
        for i = 1, count do
            beds[i] = nginx.start({
                workers = 2, listen = "reuseport backlog=16384", level = "warn",
                connections = CONNECTIONS + 512,
                main = ("worker_rlimit_nofile %d;"):format(CONNECTIONS + 1024),
                init = INIT:format(redis.port, DRIVER, redis.port),
                locations = {
                    ["/remember"] = LOCATION:format(LOADER_SECONDS),
                    ["/control"] = CONTROL:format(LOADER_SECONDS),
                },
            })
        end
    end

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:reset()
        beds = {}
    end)
    after_each(function()
        for _, bed in ipairs(beds) do bed:stop() end
    end)

    -- A herd of so many, spread over the beds, for so long: how many answers, the slowest p99.
    local function stampede(location, key, connections, seconds)
        local parts, answered, slowest = {}, 0, 0
        for i, bed in ipairs(beds) do
            parts[i] = wrk.start({
                url = "http://127.0.0.1:" .. bed.port,
                path = ("return '%s?key=%s'"):format(location, key),
                check = ("return status == 200 and body == 'made of %s'"):format(key),
                connections = connections / #beds, threads = 2, seconds = seconds, once = true,
            })
        end
        for _, part in ipairs(parts) do
            local figures = part:join()
            for _, kind in ipairs({ "status", "connect", "read", "write", "timeout", "bad" }) do
                assert.equal(0, figures[kind], kind .. " errors: " .. figures.text)
            end
            answered, slowest = answered + figures.requests, math.max(slowest, figures.p99)
        end
        return answered, slowest
    end

    -- What this machine needs for so many connections: the slowest p99, and a time that is enough.
    local function control(connections)
        local seconds = SECONDS
        while true do
            local answered, slowest = stampede("/control", "c", connections, seconds)
            if answered == connections then return slowest, seconds end
            seconds = 2 * seconds
            assert.is_true(seconds <= MOST_SECONDS, ("%d of %d are answered without a cache")
                :format(answered, connections))
        end
    end

    local function expect_one_run(key, connections)
        local usual, seconds = control(connections)
        seconds = math.ceil(seconds + 20 * math.max(usual - LOADER_SECONDS, 0))
        local pids = { redis.pid }
        for _, bed in ipairs(beds) do
            for _, pid in ipairs(bed:workers()) do pids[#pids + 1] = pid end
        end
        local watch = waited.watch(pids)
        local before = watch:seconds()
        local answered, slowest = stampede("/remember", key, connections, seconds)
        local disturbed = watch:seconds() - before
        print(("%d connections to %d nginx: p99 %.0f ms beyond the loader's %.0f ms, control %.0f")
            :format(answered, #beds, (slowest - LOADER_SECONDS) * 1000, LOADER_SECONDS * 1000,
            (usual - LOADER_SECONDS) * 1000))
        assert.equal("1", redis:call("GET", "runs:" .. key))
        -- Everybody was there, and most of them before the loader was done. What a busy machine
        -- adds without a cache it adds here, too, to asking, waiting and being woken; and so does
        -- the time in which Redis or a worker was ready and had no processor.
        assert.equal(connections, answered)
        local most = LOADER_SECONDS + clock.scaled(BEYOND_SECONDS) + 3 * (usual - LOADER_SECONDS)
            + disturbed
        assert.is_true(slowest <= most, ("%g s, control %g s"):format(slowest, usual))
        for _, bed in ipairs(beds) do assert.same({}, bed:complaints()) end
    end

    it("runs the loader once in two workers", function()
        start(1)
        expect_one_run("small", 200)
        expect_one_run("large", CONNECTIONS)
    end)

    it("runs the loader once for two nginx on one Redis", function()
        start(2)
        expect_one_run("small", 200)
        expect_one_run("large", CONNECTIONS)
    end)

    it("runs it once again for the herd after a foreign DEL", function()
        start(1)
        expect_one_run("again", 200)
        redis:call("DEL", "again", "runs:again")
        expect_one_run("again", 200)
    end)
end)
