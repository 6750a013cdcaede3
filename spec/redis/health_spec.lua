-- health(): ready is true exactly when a read and a write would work now; and where they do not, no
-- call waits for what cannot come.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis

local function open(options)
    options = options or {}
    options.url, options.namespace = redis:url(), "app"
    return redcache.new(options)
end

local function made() return "made" end

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

describe("health", function()
    it("of a cache that was never used is not ready: nobody knows", function()
        local cache = open({ group = "unused" })
        local health = cache:health()
        assert.same({ false, false, "" }, { health.ready, health.tracking, health.cause })
        assert.equal(0, redis:call("CLIENT", "LIST"):match("redcache%-") and 1 or 0)
        cache:close()
    end)

    it("of a cache that only reads is ready, and a write works", function()
        local cache = open({ group = "reader" })
        assert.is_nil((cache:get("k")))
        clock.wait_until(function()
            local health = cache:health()
            return health.ready and health.tracking
        end, 5)
        assert.equal("", cache:health().cause)
        assert.is_true(cache:set("k", 1))
        assert.matches("\nredcache_ready{[^\n]*} 1\n", cache:metrics())
        cache:close()
    end)

    it("says that a server is silent, and that it is back", function()
        local cache = open({ group = "silent", near = false, commandTimeout = 0.2 })
        assert.is_true(cache:set("k", 1, 60, { timeout = 10 }))
        assert.is_true(cache:health().ready)
        redis:pause()
        clock.wait_until(function() return not cache:health().ready end, 5)
        assert.is_true(#cache:health().cause > 0)
        redis:resume()
        clock.wait_until(function() return cache:health().ready end, 5)
        cache:close()
    end)

    it("says that the server cannot save, and when it can again", function()
        local line = proxy.start(redis)
        local cache = redcache.new({ url = line:url(), near = false })
        assert.is_true(cache:set("k", 1))
        local rule = line:rule({ command = "ping",
            reply = "-MISCONF Redis is configured to save RDB snapshots, but cannot\r\n" })
        clock.wait_until(function()
            local health = cache:health()
            return not health.ready and health.cause:find("MISCONF", 1, true)
        end, 5)
        assert.is_true(line:counts().rules[rule] > 0)
        assert.equal(1, cache:get("k"))
        line:clear()
        clock.wait_until(function() return cache:health().ready end, 5)
        assert.equal("", cache:health().cause)
        cache:close()
        line:stop()
    end)

    it("asks a server that is not used four times a second at most", function()
        local cache = open({ group = "asked", near = false })
        assert.is_true(cache:set("k", 1))
        local began, asked = clock.now(), 0
        local calls = redis:count(function()
            while clock.now() - began < 1 do
                cache:health()
                asked = asked + 1
            end
        end)
        assert.is_true(asked > 50)
        assert.is_true((calls.ping or 0) <= (clock.now() - began) * 4 + 1, tostring(calls.ping))
        cache:close()
    end)
end)

-- What health says of the server, once its tracked connection has shaken hands.
local function server_of(url)
    local cache = redcache.new({ url = url })
    assert.is_nil((cache:get("k")))
    clock.wait_until(function()
        local health = cache:health()
        return health.ready and (health.tracking or health.off.tracking)
    end, 5)
    local health = cache:health()
    cache:close()
    return health
end

describe("health().server, mode and off", function()
    it("tell name and version, and nothing is off", function()
        local info, health = redis:info("server"), server_of(redis:url())
        local name = info.server_name or "redis" -- Valkey's own, beside a redis_version of 7.2.4
        assert.equal(name .. " " .. (info[name .. "_version"]), health.server)
        assert.same({ "standalone", {} }, { health.mode, health.off })
    end)

    it("tell what a user may not do, in the server's words", function()
        redis:call("ACL", "SETUSER", "ann", "reset", "on", ">one", "~*", "+get", "+ping", "+pttl")
        local off = server_of(redis:url("ann:one")).off
        redis:call("ACL", "DELUSER", "ann")
        for _, name in ipairs({ "tracking", "identity", "databases" }) do
            assert.matches("^NOPERM", off[name])
            off[name] = nil
        end
        assert.same({}, off)
    end)

    it("tell of a server that is too old to track", function()
        local line = proxy.start(redis)
        line:rule({ command = "hello", reply = "%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
            .. "$7\r\nversion\r\n$5\r\n7.0.4\r\n$5\r\nproto\r\n:3\r\n"
            .. "$4\r\nmode\r\n$10\r\nstandalone\r\n" })
        local cache = redcache.new({ url = line:url() })
        -- The real server has not heard HELLO, and answers in RESP2: what stands here is the same.
        cache:exists("k")
        local off = clock.wait_until(function() return cache:health().off.tracking end, 5)
        assert.equal("client tracking needs Redis 7.0.5 or newer", off)
        assert.same({ "redis 7.0.4", false }, { cache:health().server, cache:health().tracking })
        cache:close()
        line:stop()
    end)
end)

describe("a server without room for the second connection", function()
    it("is told, and no call waits for it", function()
        local cache = open({ group = "crowded", commandTimeout = 5 })
        -- The tracked connection alone gets in: the bed's own and that one are all there may be.
        local line = proxy.start(redis)
        cache:close()
        cache = redcache.new({ url = line:url(), namespace = "app", commandTimeout = 5 })
        line:rule({ command = "hello", argument = "redcache-W",
            reply = "-ERR max number of clients reached\r\n" })
        assert.is_nil((cache:get("k")))
        clock.wait_until(function()
            local health = cache:health()
            return not health.ready and health.tracking
                and health.cause:find("max number of clients", 1, true)
        end, 5)
        for i = 1, 4 do
            local took, value, err, from, flag = clock.time(cache.remember, cache, "k", 60, made)
            assert.same({ "made", nil }, { value, err }, "call " .. i)
            assert.equal("degraded", flag)
            assert.is_true(from == "loader" or from == "shared", from)
            assert.is_true(took < 3, ("call %d took %g s"):format(i, took)) -- of 5 s
        end
        local took, ok, err = clock.time(cache.set, cache, "k", 1)
        assert.is_nil(ok)
        assert.equal("unavailable", err.code)
        assert.matches("max number of clients", err.message)
        assert.is_true(took < 3, took .. " s")
        local lock, failure = cache:tryLock("job")
        assert.is_nil(lock)
        assert.equal("unavailable", failure.code)
        assert.equal(0, redis:call("EXISTS", "app//lock:{job}"))
        line:clear()
        clock.wait_until(function() return cache:health().ready end, 5)
        assert.is_true(cache:set("k", 1))
        -- No lease was left behind by those who could not have given it back.
        assert.equal(1, cache:get("k"))
        cache:close()
        line:stop()
    end)
end)
