-- Under every setting of nginx, and on every way to Redis.
--
-- Env: REDCACHE_NGINX_STATES: how many requests have a Lua state of their own (400).

local clock = require("spec.support.clock")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local redcache = require("redcache")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local STATES = tonumber(os.getenv("REDCACHE_NGINX_STATES")) or 400

local function openssl(...)
    local result = process.run({ "openssl", ... }, 30)
    assert(result.exit == 0, result.err)
end

-- A CA of its own, and a certificate of that CA for this machine.
local function certificates()
    local dir = temp.dir()
    local files = { ca = dir .. "/ca.pem", cert = dir .. "/cert.pem", key = dir .. "/key.pem" }
    local curve = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes" }
    openssl("req", "-x509", "-subj", "/CN=test CA", "-days", "2", "-keyout", dir .. "/ca-key.pem",
        "-out", files.ca, unpack(curve))
    openssl("req", "-subj", "/CN=redis", "-keyout", files.key, "-out", dir .. "/request.pem",
        unpack(curve))
    temp.write(dir .. "/names", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    openssl("x509", "-req", "-in", dir .. "/request.pem", "-CA", files.ca, "-CAkey",
        dir .. "/ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", dir .. "/names",
        "-out", files.cert)
    return files
end

-- Opens a cache where there is none yet, and uses it: its own words about how that went.
local USE = [[
    content_by_lua_block {
        local held = package.loaded.held or {}
        package.loaded.held = held
        local ok, cache = pcall(function()
            return held.cache or require("redcache").new({ scheduler = "resty", namespace = "s",
                url = "%s", driver = "%s", commandTimeout = 1, connectTimeout = 1, %s })
        end)
        if not ok then
            return ngx.print(cache)
        end
        held.cache = cache
        local key = ngx.var.arg_key or "k"
        local fine, err = cache:set(key, "v", 60)
        if not fine then
            return ngx.print(err.code, ": ", err.message)
        end
        local value = cache:remember(key .. ":load", 60, function() return "v" end)
        local inner = cache:withLock("job:" .. key, {}, function() return "v" end)
        ngx.print(value, inner, (cache:get(key, { near = false })))
    }
]]

local function use(url, driver, more)
    return { ["/use"] = USE:format(url, driver, more or "") }
end

local possible, reason = nginx.is_possible()

-- Where all is well: how fast states connect and Redis answers is the machine's.
local PATIENT = "connectTimeout = 20, commandTimeout = 20"

-- Complaints but for nginx' own about a setting that is here on purpose.
local function complaints(web)
    local list = {}
    for _, line in ipairs(web:complaints()) do
        if not line:find("lua_code_cache is off", 1, true) then list[#list + 1] = line end
    end
    return list
end

local function connections(redis)
    local count = 0
    for line in redis:call("CLIENT", "LIST"):gmatch("[^\n]+") do
        count = count + (line:find("user=default", 1, true) and 1 or 0)
    end
    return count
end

for _, driver in ipairs({ "loop", "thread" }) do
    describe("nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, files, tls_port, web

        setup(function()
            files, tls_port = certificates(), socket.free_port()
            redis = server.start({ config = {
                "tls-port " .. tls_port, "tls-cert-file " .. files.cert,
                "tls-key-file " .. files.key, "tls-ca-cert-file " .. files.ca,
                "tls-auth-clients no",
            } })
        end)
        teardown(function() redis:stop() end)
        before_each(function() redis:call("FLUSHALL") end)
        after_each(function()
            if web then web:stop() end
            web = nil
        end)

        -- So many requests, spread over the workers; then nginx ends in time and without a word.
        local function works(count)
            for i = 1, count do
                local status, body = web:get("/use?key=k" .. i)
                assert.same({ 200, "vvv" }, { status, body })
            end
        end

        local function ends()
            local took, code = clock.time(web.quit, web)
            assert.is_not_nil(({ [0] = true, [true] = true })[code])
            assert.is_true(took < clock.scaled(5), "it took " .. took)
            assert.same({}, complaints(web))
        end

        for title, options in pairs({
            ["one worker"] = { workers = 1 },
            ["four workers"] = { workers = 4 },
            ["a daemon"] = { daemon = true, workers = 2 },
            ["no master"] = { master = false },
        }) do
            it("works with " .. title, function()
                options.locations = use(redis:url(), driver, PATIENT)
                web = nginx.start(options)
                works(40)
                -- Two connections per worker that had a request.
                assert.is_true(connections(redis) <= 2 * (options.workers or 1))
                ends()
                clock.wait_until(function() return connections(redis) == 0 end, 5, "their end")
            end)
        end

        it("works after a reload, and the old workers end", function()
            web = nginx.start({ workers = 2, locations = use(redis:url(), driver, PATIENT) })
            works(10)
            web:reload()
            works(10)
            clock.wait_until(function() return #web:old_workers() == 0 end, 10, "their end")
            clock.wait_until(function() return connections(redis) <= 4 end, 5, "their connections")
            ends()
        end)

        it("works where each request has a Lua state of its own", function()
            web = nginx.start({
                workers = 2, code_cache = false, locations = use(redis:url(), driver, PATIENT),
            })
            local most, at_once = 0, 8
            for i = 1, STATES / at_once do
                local open = {}
                for k = 1, at_once do open[k] = web:open("/use?key=k" .. i % 50 .. ":" .. k) end
                for k = 1, at_once do
                    local status, body = http.read(open[k], 10)
                    assert.same({ 200, "vvv" }, { status, body })
                end
                most = math.max(most, connections(redis))
                -- A state needs half a megabyte, and goes with its request.
                assert.is_true(web:rss() < 100 * 1024, web:rss() .. " KiB after " .. i * at_once)
            end
            -- Each state connects for itself: two lines each, for those that just end as well.
            assert.is_true(most <= 8 * at_once, most .. " connections")
            assert.is_nil(web:log():find("exited on signal", 1, true))
            ends()
        end)

        it("works over a unix socket", function()
            web = nginx.start({ locations = use(redis:unix_url(), driver, PATIENT) })
            works(10)
            assert.same({}, complaints(web))
        end)

        -- The loop's TLS is nginx', and so is its trust; the thread's is redcache's own.
        local function start_tls(host, ca)
            web = nginx.start({
                http = "lua_ssl_trusted_certificate " .. ca .. ";",
                locations = use(("rediss://%s:%d"):format(host, tls_port), driver,
                    driver == "thread" and ('tlsCa = "%s"'):format(ca) or nil),
            })
        end

        it("works with TLS and a CA to trust", function()
            start_tls("localhost", files.ca)
            works(10)
            assert.same({}, complaints(web))
        end)

        it("shows a client certificate, and asks for the server by another name", function()
            redis:call("CONFIG", "SET", "tls-auth-clients", "yes")
            finally(function() redis:call("CONFIG", "SET", "tls-auth-clients", "no") end)
            local more = ('tlsServerName = "localhost", tlsCert = "%s", tlsKey = "%s"')
                :format(files.cert, files.key)
            web = nginx.start({
                http = "lua_ssl_trusted_certificate " .. files.ca .. ";",
                locations = use("rediss://127.0.0.1:" .. tls_port, driver,
                    more .. (driver == "thread" and (', tlsCa = "%s"'):format(files.ca) or "")),
            })
            works(10)
            assert.same({}, complaints(web))
        end)

        -- nginx compares a certificate with names alone, never with its addresses.
        it(driver == "loop" and "does not trust a certificate for an address, as nginx cannot"
            or "trusts a certificate for an address", function()
            start_tls("127.0.0.1", files.ca)
            if driver == "loop" then
                local _, body = web:get("/use")
                assert.matches("^unavailable: .*certificate host mismatch", body)
            else
                works(3)
            end
        end)

        it("refuses a server whose certificate another CA has signed", function()
            start_tls("localhost", certificates().ca)
            local _, body = web:get("/use")
            assert.matches("^unavailable: .*certificate", body)
            assert.equal(0, redis:call("DBSIZE"))
        end)

        if driver == "loop" then
            it("verifies again what others of the worker have not verified", function()
                local locations = use("rediss://localhost:" .. tls_port, driver)
                locations["/others"] = ([[
                    content_by_lua_block {
                        local sock = ngx.socket.tcp()
                        assert(sock:connect("127.0.0.1", %d))
                        assert(sock:sslhandshake(nil, nil, false))
                        assert(sock:send("PING\r\n"))
                        assert(sock:receive() == "+PONG")
                        assert(sock:setkeepalive(60000, 2))
                        ngx.print("left")
                    }
                ]]):format(tls_port)
                web = nginx.start({
                    http = "lua_ssl_trusted_certificate " .. certificates().ca .. ";",
                    locations = locations,
                })
                assert.equal("left", select(2, web:get("/others")))
                assert.matches("^unavailable: .*certificate", select(2, web:get("/use")))
                assert.equal(0, redis:call("DBSIZE"))
            end)
        end

        it("looks a name up where nginx has no resolver", function()
            web = nginx.start({
                locations = use("redis://localhost:" .. redis.port, driver, PATIENT),
            })
            works(10)
            assert.same({}, complaints(web))
        end)

        it("looks a name up with nginx' resolver where there is one", function()
            -- Nobody answers there: so the loop, which asks it, cannot find the server.
            web = nginx.start({
                http = ("resolver 127.0.0.1:%d; resolver_timeout 300ms;")
                    :format(socket.free_port()),
                locations = use("redis://localhost:" .. redis.port, driver),
            })
            local _, body = web:get("/use")
            if driver == "loop" then
                assert.matches("^unavailable: ", body)
            else
                assert.equal("vvv", body) -- the thread asks the system
            end
        end)

        it("names the option that is wrong", function()
            for more, text in pairs({
                ['driver = "coroutine"'] = "bad option 'driver' to new",
                ["tlsCa = 1"] = "bad option 'tlsCa' to new",
                ['schedular = "resty"'] = "unknown option 'schedular' to new",
            }) do
                web = nginx.start({ locations = use(redis:url(), driver, more) })
                local _, body = web:get("/use")
                assert.is_truthy(body:find(text, 1, true), body)
                web:stop()
            end
            web = nil
        end)
    end)
end

describe("the scheduler of redcache.new in nginx", function()
    if not possible then
        pending(reason)
        return
    end
    local redis, web
    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    after_each(function() web:stop() end)

    -- Whether the worker answers others while a request waits for a lock that somebody has.
    local function serves_meanwhile(more)
        redis:call("SET", "//lock:{job}", "somebody", "PX", 60000)
        web = nginx.start({ locations = {
            ["/ping"] = "return 200 pong;",
            ["/wait"] = ([[
                content_by_lua_block {
                    local cache = require("redcache").new({ url = "%s", %s })
                    local _, err = cache:withLock("job", { wait = 2 }, print)
                    ngx.print(err.code)
                }
            ]]):format(redis:url(), more),
        } })
        local waits = web:open("/wait")
        -- It has asked for the lock, so its worker is in there.
        clock.wait_until(function()
            return (redis:commandstats().evalsha or redis:commandstats().eval) ~= nil
        end, 5, "the wait")
        local began = clock.now()
        assert.equal(200, (web:get("/ping")))
        local ping = clock.now() - began
        local status, body = http.read(waits, 10)
        assert.same({ 200, "notAcquired" }, { status, body })
        return ping < (clock.now() - began) / 2
    end

    before_each(function()
        redis:call("FLUSHALL")
        redis:call("CONFIG", "RESETSTAT")
    end)

    it("is 'resty' where none is named", function()
        assert.is_true(serves_meanwhile(""))
    end)

    it("is the one that is named", function()
        assert.is_false(serves_meanwhile('scheduler = "blocking"'))
    end)
end)

describe("the scheduler 'resty' outside nginx", function()
    it("is an error that names the option", function()
        assert.has_error(function() redcache.new({ scheduler = "resty" }) end,
            "bad option 'scheduler' to new: it works inside nginx only")
    end)

    it("is not the default there, whatever else calls itself ngx", function()
        local result = process.run({ "luajit", "-e", [[
            ngx = { get_phase = function() return "content" end, timer = { at = print } }
            local cache = require("redcache").new()
            assert(cache:set("k", "v", 60))
            io.write(cache._scheduler.name)
        ]] })
        assert.same({ 0, "blocking" }, { result.exit, result.out }, result.err)
    end)

    it("and a driver without it, or one that does not exist, too", function()
        local ok, message = pcall(redcache.new, { driver = "thread" })
        assert.is_false(ok)
        assert.matches("driver is for the scheduler 'resty'", message)
        ok, message = pcall(redcache.new, { scheduler = "resty", driver = "loops" })
        assert.is_false(ok)
        assert.matches("bad option 'driver' to new", message)
    end)
end)
