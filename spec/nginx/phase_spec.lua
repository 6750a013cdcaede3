-- Every phase of a request: those that can wait do, the others get what is near, send what they
-- write, and say cannotWait to the rest.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local function self_signed()
    local dir = temp.dir()
    local files = { cert = dir .. "/cert.pem", key = dir .. "/key.pem" }
    local made = process.run({ "openssl", "req", "-x509", "-subj", "/CN=localhost", "-days", "2",
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", files.key, "-out", files.cert })
    assert(made.exit == 0, made.err)
    return files
end

local CASES = 'require("spec.nginx.phase_cases")'

local function waits(phase)
    return ('%s_by_lua_block { %s.waits("%s") } '):format(phase, CASES, phase)
end

local function passes(phase)
    return ('%s_by_lua_block { %s.passes("%s", true) } '):format(phase, CASES, phase)
end

local INIT = CASES .. ".open({ url = %q, driver = %q }) " .. CASES .. ".begins()"

-- A location for each phase, and a server that speaks TLS.
local function start(redis, driver)
    local files, tls_port = self_signed(), socket.free_port()
    local plain = "content_by_lua_block { ngx.print('body') }"
    return nginx.start({
        init = INIT:format(redis:url(), driver),
        init_worker = CASES .. '.passes("init_worker")',
        http = ([[
            upstream chosen {
                server 0.0.0.1;
                balancer_by_lua_block {
                    %s.passes("balancer", true)
                    require("ngx.balancer").set_current_peer("127.0.0.1", ngx.var.server_port)
                }
            }
            server {
                listen 127.0.0.1:%d ssl;
                ssl_certificate %s;
                ssl_certificate_key %s;
                %s %s
                location / { return 200 body; }
            }
        ]]):format(CASES, tls_port, files.cert, files.key, waits("ssl_certificate"),
            waits("server_rewrite")),
        locations = {
            ["/warm"] = "content_by_lua_block { " .. CASES .. ".warm() }",
            ["/result"] = "content_by_lua_block { ngx.print(" .. CASES
                .. ".result(ngx.var.arg_phase)) }",
            ["/body"] = plain,
            ["/rest"] = "content_by_lua_block { local cache = " .. CASES .. ".cache "
                .. "local stats = cache:stats() ngx.print(cache._client.port.count, ' ', "
                .. "stats.inFlight, ' ', stats.activeLeases, ' ', stats.activeLocks) }",
            ["/rewrite"] = waits("rewrite") .. plain,
            ["/access"] = waits("access") .. plain,
            ["/content"] = waits("content"),
            ["/timer"] = "content_by_lua_block { ngx.timer.at(0, function() " .. CASES
                .. '.waits("timer") end) }',
            ["/tls"] = ("proxy_ssl_session_reuse off; proxy_pass https://127.0.0.1:%d;")
                :format(tls_port),
            ["/set"] = "set_by_lua_block $x { " .. CASES .. '.passes("set", true) return "" }'
                .. plain,
            ["/header_filter"] = passes("header_filter") .. plain,
            ["/body_filter"] = "body_filter_by_lua_block { if not ngx.ctx.seen then "
                .. "ngx.ctx.seen = true " .. CASES .. '.passes("body_filter", true) end }' .. plain,
            ["/log"] = passes("log") .. plain,
            ["/many"] = "log_by_lua_block { " .. CASES .. ".sends_many() }" .. plain,
            ["/balancer"] = "proxy_pass http://chosen/body;",
            ["/unlock"] = "access_by_lua_block { ngx.ctx.lock = assert(" .. CASES
                .. '.cache:tryLock("left", { ttl = 600 })) } log_by_lua_block { '
                .. "local ok, err = ngx.ctx.lock:release() " .. CASES
                .. '.results.unlock = ok and "ok" or tostring(err) }' .. plain,
        },
    })
end

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        -- A reactor thread may be faster than its caller: what it has been answered by then its
        -- caller gets, be it a read in a phase that cannot wait. So nobody answers meanwhile.
        local function while_silent(fn)
            redis:pause()
            local ok, err = pcall(fn)
            redis:resume()
            if not ok then error(err, 0) end
        end

        setup(function()
            redis = server.start()
            redis:call("SET", "p:old:init_worker", "v")
            redis:call("SET", "p:older:init_worker", "v")
            while_silent(function() web = start(redis, driver) end)
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)

        -- Phases behind the answer, and timers, may end after it.
        local function result(phase)
            local text
            clock.wait_until(function()
                text = select(2, web:get("/result?phase=" .. phase))
                return text ~= "it did not run"
            end, 5, phase)
            return text
        end

        local function assert_arrived(phase)
            clock.wait_until(function()
                return redis:call("EXISTS", "p:set:" .. phase) == 1
                    and redis:call("EXISTS", "p:multi:" .. phase) == 1
                    and redis:call("EXISTS", "raw:" .. phase) == 1
                    and redis:call("EXISTS", "p:old:" .. phase, "p:older:" .. phase) == 0
            end, 5, "what was sent in " .. phase)
            assert.equal(0, redis:call("EXISTS", "p:missing:" .. phase))
            clock.wait_until(function()
                for _, name in ipairs({ "touch", "expire", "expireAt", "touchMulti",
                    "expireMulti", "replace", "cas", "getSet" }) do
                    local left = redis:call("PTTL", "p:" .. name .. ":" .. phase)
                    if left < 800000 or left > 900000 then return false end
                end
                return redis:call("PTTL", "p:persist:" .. phase) == -1
                    and redis:call("EXISTS", "p:add:" .. phase) == 1
                    and redis:call("EXISTS", "p:getDelete:" .. phase, "p:rename:" .. phase,
                        "p:soft:" .. phase, "p:softs:" .. phase, "p:committed:" .. phase,
                        "p//tag:gone:" .. phase) == 0
                    and redis:call("EXISTS", "p:renamed:" .. phase, "p:copied:" .. phase) == 2
                    and redis:call("GET", "p:incr:" .. phase) == "5"
                    and redis:call("GET", "p:decr:" .. phase) == "-2"
                    and redis:call("GET", "p:incrFloat:" .. phase) == "0.5"
            end, 5, "the scripts sent in " .. phase)
        end

        for _, phase in ipairs({ "rewrite", "access", "content", "timer" }) do
            it(phase .. " waits", function()
                assert.equal(200, (web:get("/" .. phase)))
                assert.equal("ok", result(phase))
            end)
        end

        -- Nobody can wait in ssl_client_hello without OpenResty's patches of nginx: the handshake
        -- ends there.
        it("ssl_certificate and server_rewrite wait", function()
            assert.equal(200, (web:get("/tls")))
            assert.equal("ok", result("ssl_certificate"))
            assert.equal("ok", result("server_rewrite"))
        end)

        for _, phase in ipairs({ "set", "header_filter", "body_filter", "log", "balancer" }) do
            it(phase .. " gets what is near, and sends what it writes", function()
                redis:call("SET", "p:old:" .. phase, "v")
                redis:call("SET", "p:older:" .. phase, "v")
                assert.equal(200, (web:get("/warm")))
                clock.sleep(0.05) -- ten times the maxStale of the cache that is to serve "stale"
                while_silent(function()
                    local status, body = web:get("/" .. phase)
                    assert.same({ 200, "body" }, { status, body })
                    assert.equal("ok", result(phase))
                end)
                assert_arrived(phase)
            end)
        end

        it("a batch of several writes is sent as a whole", function()
            assert.equal(200, (web:get("/many")))
            assert.equal("ok", result("many"))
            clock.wait_until(function()
                return #redis:call("KEYS", "p:big:*") == 9000
                    and redis:call("PTTL", "p:big:9000") > 800000
            end, 5, "all keys of the batch")
        end)

        it("init_worker sends what it writes", function()
            assert.equal("ok", result("init_worker")) -- Redis was silent at the start
            assert_arrived("init_worker")
        end)

        it("init starts nothing", function()
            assert.equal("ok", result("init"))
        end)

        it("a lock taken in access is given back in log", function()
            assert.equal(200, (web:get("/unlock")))
            assert.equal("ok", result("unlock"))
            clock.wait_until(function()
                return redis:call("EXISTS", "p//lock:{left}") == 0
            end, 5, "the release")
        end)

        it("what was sent without waiting leaves no slot behind", function()
            clock.wait_until(function()
                return select(2, web:get("/rest")) == "0 0 0 0"
            end, 5, "the end of all slots")
        end)

        it("nothing of all this was worth a complaint in the error log", function()
            assert.same({}, web:complaints())
        end)
    end)

    describe("the master of nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end

        it("has neither thread nor connection, whatever init_by_lua calls", function()
            local redis = server.start()
            local function connections()
                local count = 0
                for line in redis:call("CLIENT", "LIST"):gmatch("[^\n]+") do
                    count = count + (line:find("user=default", 1, true) and 1 or 0)
                end
                return count
            end
            local web = nginx.start({
                init = INIT:format(redis:url(), driver), workers = 2,
                locations = { ["/"] = waits("content") },
            })
            assert.equal(1, web:threads())
            assert.equal(0, connections())
            assert.equal(200, (web:get("/")))
            assert.is_true(connections() > 0)
            assert.equal(1, web:threads())
            web:stop()
            redis:stop()
        end)
    end)
end
