-- One url with several nodes of a cluster: any that answers will do, at the beginning and when all
-- known ones are lost; a server that is alone is told so.

local certificates = require("spec.support.certificates")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local nginx = require("spec.support.nginx")
local redcache = require("redcache")
local server = require("spec.support.server")
local socket = require("spec.support.socket")

local caches = {}

after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
    caches = {}
end)

local function open(url, options)
    options = options or {}
    options.url, options.near = url, false
    options.commandTimeout = options.commandTimeout or 3
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function list(...)
    return "redis://127.0.0.1:" .. table.concat({ ... }, ",127.0.0.1:")
end

-- Ports at which nobody listens.
local function dead(count)
    local ports = {}
    for i = 1, count do ports[i] = socket.free_port() end
    return unpack(ports)
end

-- Keys of all masters.
local function use(cache, times)
    for i = 1, times or 12 do
        assert(cache:set("k" .. i, i, 60))
        assert.equal(i, (cache:get("k" .. i)))
    end
end

describe("several addresses of a cluster in one url", function()
    local bed

    setup(function() bed = cluster.start() end)
    teardown(function() bed:stop() end)

    it("are begun with by chance", function()
        local counts, kinds = {}, 0
        for _ = 1, 200 do
            local cache = open(bed:url())
            use(cache, 1)
            local address = cache:health().address
            if not counts[address] then counts[address], kinds = 0, kinds + 1 end
            counts[address] = counts[address] + 1
            cache:close()
            caches = {}
            if kinds == 6 then break end
        end
        assert.equal(6, kinds) -- not one in 10^14 such runs leaves one out
        for _, node in ipairs(bed.nodes) do
            assert.is_true(counts["127.0.0.1:" .. node.port .. "/0"] >= 1)
        end
    end)

    it("work where all but one are dead, whichever that is", function()
        for _, node in ipairs(bed.nodes) do
            local a, b, c = dead(3)
            local cache = open(list(a, b, node.port, c))
            use(cache)
            assert.is_true(cache:health().ready, cache:health().cause)
            assert.equal(0, cache:stats().errors or 0)
        end
    end)

    it("say which one fails, and why, where none answers", function()
        local cache = open(list(dead(3)), { commandTimeout = 0.3 })
        local value, err = cache:get("k")
        assert.is_nil(value)
        assert.equal("unavailable", err.code)
        assert.matches("'127.0.0.1:%d+/0' of the url: Connection refused", err.message)
        assert.is_false(cache:health().ready)
    end)

    it("are nodes of one cluster: a server that is alone is refused", function()
        local redis = server.start()
        local cache = open(list(redis.port, (dead(1))))
        local value, err = cache:get("k")
        assert.is_nil(value)
        assert.equal("redis", err.code)
        assert.matches("'127.0.0.1:" .. redis.port .. "/0' of the url: this is no node of a "
            .. "cluster, as all addresses of a list must be: name one server alone, or its "
            .. "sentinels by redis+sentinel://host:port/master", err.message, 1, true)
        redis:stop()
    end)

    it("are more to ask: the client finds a cluster that has moved as a whole", function()
        local beds = { cluster.start({ replicas = 0 }), cluster.start({ replicas = 0 }) }
        local cache = open(list(beds[1].nodes[1].port, beds[2].nodes[2].port))
        use(cache)
        local address = cache:health().address
        local at = address == "127.0.0.1:" .. beds[1].nodes[1].port .. "/0" and 1 or 2
        beds[at]:stop()
        clock.wait_until(function() return cache:set("k1", 1, 60) end, 10, "the other cluster")
        clock.wait_until(function() return (pcall(use, cache)) end, 10, "all of the other cluster")
        for _, node in ipairs(beds[3 - at].nodes) do
            assert.is_true(node:call("DBSIZE") > 0)
        end
        beds[3 - at]:stop()
    end)

    it("may name a database where clusters have some", function()
        local url = bed:url() .. "/1"
        local value, err = open(url):get("k")
        assert.is_nil(value)
        if err then -- Redis, and Valkey by default: there is the first one alone
            assert.equal("redis", err.code)
            assert.matches("of the url: ", err.message)
        end
    end)
end)

describe("several rediss:// addresses", function()
    -- nil: the server was built without TLS.
    local function start(names)
        local files = certificates.make(names)
        local ok, bed = pcall(cluster.start, { replicas = 0, tls = files })
        if not ok and tostring(bed):find("Failed finding TLS support", 1, true) then return nil end
        return assert(ok and bed, bed), files
    end

    it("are told apart by their names, each node by its own", function()
        local bed, files = start("IP:127.0.0.1,DNS:localhost")
        if not bed then return pending("this server knows no TLS") end
        local cache = open(bed:url("localhost"), { tlsCa = files.ca })
        use(cache)
        assert.is_true(cache:health().ready, cache:health().cause)
        bed:stop()
    end)

    it("do not vouch for nodes whose names no certificate carries", function()
        local bed, files = start("DNS:localhost") -- and the map names 127.0.0.1
        if not bed then return pending("this server knows no TLS") end
        local cache = open(bed:url("localhost"), { tlsCa = files.ca, commandTimeout = 1 })
        local failures = 0
        for i = 1, 12 do
            local ok, err = cache:set("k" .. i, i, 60)
            if not ok then
                failures = failures + 1
                assert.matches("TLS: IP address mismatch", err.message)
            end
        end
        assert.is_true(failures > 0)
        use(open(bed:url("localhost"), { tlsCa = files.ca, tlsServerName = "localhost" }))
        bed:stop()
    end)
end)

local RUN = [[content_by_lua_block {
    local cache = assert(require("redcache").new({ url = ngx.var.arg_url, near = false,
        driver = ngx.var.arg_driver, commandTimeout = 3 }))
    for i = 1, 12 do
        assert(cache:set("n" .. i, i, 60))
        assert(cache:get("n" .. i) == i)
    end
    ngx.print(cache:health().address)
    cache:close()
}]]

local possible, reason = nginx.is_possible()

describe("several addresses inside nginx", function()
    if not possible then
        pending(reason)
        return
    end
    local bed, web

    setup(function()
        bed = cluster.start({ replicas = 0 })
        web = nginx.start({ http = "lua_socket_log_errors off;", locations = { ["/run"] = RUN } })
    end)
    teardown(function()
        web:stop()
        bed:stop()
    end)

    for _, driver in ipairs({ "loop", "thread" }) do
        it("work with driver " .. driver .. ", dead ones among them", function()
            for _ = 1, 6 do
                local a, b = dead(2)
                local port = bed.nodes[2].port
                local status, body = web:get(("/run?driver=%s&url=%s"):format(driver,
                    list(a, port, b)), { timeout = 30 })
                assert.same({ 200, "127.0.0.1:" .. port .. "/0" }, { status, body }, web:log())
            end
            assert.same({}, web:complaints())
        end)
    end
end)
