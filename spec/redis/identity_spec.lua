-- Which server a connection leads to: two behind one address, one that becomes a replica, and those
-- that are no Redis we can work with. Each is told by health().cause, and nothing wrong is served.

local clock = require("spec.support.clock")
local fake = require("spec.support.fake")
local frame = require("spec.support.frame")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local function open(where, options)
    options = options or {}
    options.url, options.namespace = where:url(options.login), "app"
    options.login = nil
    options.commandTimeout = options.commandTimeout or 5
    return redcache.new(options)
end

-- Reads until the condition holds: whoever reads keeps the heartbeat going.
local function read_until(cache, key, condition, what)
    clock.wait_until(function()
        local value, err, from = cache:get(key)
        return condition(value, from, err)
    end, 10, what)
end

local function read_near(cache, key, value)
    read_until(cache, key, function(got, from)
        return got == value and (from == "near" or from == "l0")
    end, "a near read of " .. tostring(value))
end

-- Names of our connections at a server: "T", "W" or "TW".
local function connections(one)
    local names = {}
    for name in one:call("CLIENT", "LIST"):gmatch("name=redcache%-(%u)") do
        names[#names + 1] = name
    end
    table.sort(names)
    return table.concat(names)
end

describe("two servers behind one address", function()
    local first, second, line, cache

    setup(function()
        local config = { "repl-diskless-sync-delay 0" }
        first, second = server.start({ config = config }), server.start({ config = config })
    end)

    teardown(function()
        first:stop()
        second:stop()
    end)

    before_each(function()
        for _, one in ipairs({ first, second }) do
            one:call("REPLICAOF", "NO", "ONE")
            one:reset()
            one:call("SET", "app:k", one == first and "first" or "second")
        end
        line = proxy.start(first)
        cache = open(line, { plain = true, codec = "raw" })
    end)

    after_each(function()
        cache:close()
        line:stop()
    end)

    for _, which in ipairs({ "plain", "tracking" }) do
        it("are noticed where the " .. which .. " connection alone is made again", function()
            read_near(cache, "k", "first")
            assert.is_true(cache:set("warm", "1"))
            line:lead(second)
            line:cut("reset", which)
            -- Both lead to the second one now: nothing of the first is served.
            read_near(cache, "k", "second")
            assert.is_true(cache:set("k", "mine"))
            assert.equal("mine", cache:get("k"))
            assert.equal("mine", second:call("GET", "app:k"))
            assert.equal("first", first:call("GET", "app:k"))
            clock.wait_until(function() return connections(first) == "" end, 5)
            assert.equal("TW", connections(second))
            local health = cache:health()
            assert.same({ true, true, "" }, { health.ready, health.tracking, health.cause })
        end)
    end

    it("of a balancer that takes them in turns are one after some tries", function()
        line:lead(first, second)
        for _ = 1, 3 do
            cache:get("k")
            clock.wait_until(function()
                cache:get("k")
                local health = cache:health()
                return health.ready and health.tracking
                    and connections(first) .. connections(second) == "TW"
                    and (connections(first) == "" or connections(second) == "")
            end, 20, "one server for both")
            assert.is_true(cache:set("w", "mine"))
            local one = connections(first) == "TW" and first or second
            assert.equal("mine", one:call("GET", "app:w"))
            assert.equal("mine", cache:get("w", { fresh = true }))
            line:cut()
        end
    end)

    it("of which one is a replica: commands go to the master", function()
        second:call("REPLICAOF", "127.0.0.1", first.port)
        clock.wait_until(function()
            return second:info("replication").master_link_status == "up"
        end, 10)
        line:lead(second, first)
        for _ = 1, 3 do
            clock.wait_until(function()
                cache:get("k")
                return cache:set("w", "mine") and cache:health().tracking
            end, 20, "the master for both")
            assert.equal("TW", connections(first))
            assert.equal("", connections(second))
            line:cut()
        end
    end)

    it("say so in health() while there is no way to one of them", function()
        read_near(cache, "k", "first")
        assert.is_true(cache:set("warm", "1"))
        line:lead(second)
        -- The tracked connection cannot be made again: its handshake does not come through.
        line:stall("down", "tracking")
        line:cut("reset", "plain")
        clock.wait_until(function()
            local value, _, from = cache:get("k")
            return value == "second" and from == "redis"
        end, 10, "the value of the second")
        for _ = 1, 20 do
            local value, _, from = cache:get("k")
            assert.same({ "second", "redis" }, { value, from })
        end
        local health = cache:health()
        assert.is_true(health.ready)
        assert.is_false(health.tracking)
        assert.matches("two different servers", health.cause)
    end)
end)

describe("a server that becomes a replica under open connections", function()
    it("is noticed within a heartbeat, and when it is a master again", function()
        local config = { "repl-diskless-sync-delay 0" }
        local first, second = server.start({ config = config }), server.start({ config = config })
        local cache = open(first, { plain = true, codec = "raw" })
        first:call("SET", "app:k", "old")
        second:call("SET", "app:k", "new")
        read_near(cache, "k", "old")
        assert.is_true(cache:set("w", "1"))
        clock.wait_until(function() return cache:health().ready end, 5)
        local watch = waited.watch({ posix.C.getpid(), first.pid }, true)
        local before, began = watch:seconds(), clock.now()
        first:call("REPLICAOF", "127.0.0.1", second.port)
        read_until(cache, "k", function()
            local health = cache:health()
            return not health.ready and health.cause:find("replica", 1, true) ~= nil
        end, "the news")
        local took, late = clock.now() - began, watch:seconds() - before
        -- A quarter of maxStale, and the way there and back; reconnecting included.
        assert.is_true(took < clock.scaled(0.6) + late, took .. " s, late " .. late)
        read_until(cache, "k", function(value) return value == "new" end, "what it copied")
        local ok, err = cache:set("w", "2")
        assert.is_nil(ok)
        assert.matches("READONLY", tostring(err))
        first:call("REPLICAOF", "NO", "ONE")
        read_until(cache, "k", function()
            local health = cache:health()
            return health.ready and health.tracking and health.cause == "" and cache:set("w", "3")
        end, "the master")
        cache:close()
        first:stop()
        second:stop()
    end)

    it("is noticed by health() alone, where nobody reads near", function()
        local redis = server.start()
        local cache = open(redis, { near = false })
        assert.is_true(cache:set("w", 1))
        assert.is_true(cache:health().ready)
        redis:call("REPLICAOF", "127.0.0.1", "1")
        clock.wait_until(function()
            local health = cache:health()
            return not health.ready and health.cause:find("replica", 1, true)
        end, 5)
        assert.equal(1, cache:get("w"))
        redis:call("REPLICAOF", "NO", "ONE")
        clock.wait_until(function() return cache:health().ready end, 5)
        assert.is_true(cache:set("w", 2))
        cache:close()
        redis:stop()
    end)
end)

describe("a user who may not ask INFO", function()
    it("keeps near and writes, and a role that changes is noticed all the same", function()
        local redis = server.start({ users = { "ann on >pw ~* &* +@all -info" } })
        local cache = open(redis, { login = "ann:pw" })
        assert.is_true(cache:set("k", "v"))
        read_near(cache, "k", "v")
        assert.same({ true, true, "" },
            { cache:health().ready, cache:health().tracking, cache:health().cause })
        redis:call("REPLICAOF", "127.0.0.1", "1")
        read_until(cache, "k", function()
            local health = cache:health()
            return not health.ready and health.cause:find("replica", 1, true)
        end, "the news")
        cache:close()
        redis:stop()
    end)
end)

-- What cannot be worked with, the words of health().cause, and the code of a call's error.
describe("a server that is none of ours", function()
    local function hello(fields)
        local text, count = "", 0
        for name, value in pairs(fields) do
            text, count = text .. frame.bulk(name) .. frame.bulk(value), count + 1
        end
        return ("%%%d\r\n"):format(count) .. text
    end

    local SERVERS = {
        { "Redis 6.2", hello({ server = "redis", version = "6.2.14", role = "master" }),
            "redis 6.2.14 is too old: Redis 7.0 or newer", "redis" },
        { "Redis 5", "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n",
            "does not know HELLO 3: Redis 7.0 or newer", "redis" },
        { "one without RESP3", "-NOPROTO unsupported protocol version\r\n",
            "does not know HELLO 3: Redis 7.0 or newer", "redis" },
        { "a sentinel", hello({ server = "redis", version = "7.0.15", mode = "sentinel" }),
            "sentinel, which keeps no data", "redis" },
        { "a proxy that closes at HELLO", fake.CUT,
            "instead of an answer to HELLO: a proxy without RESP3", "unavailable" },
        { "a server without room", "-ERR max number of clients reached\r\n",
            "max number of clients reached", "unavailable" },
    }

    for _, case in ipairs(SERVERS) do
        it("is told in plain words: " .. case[1], function()
            local liar = fake.start({ replies = { HELLO = case[2] } })
            local cache = open(liar, { commandTimeout = 0.5 })
            local value, err = cache:get("k")
            assert.is_nil(value)
            assert.equal(case[4], err.code)
            local health = cache:health()
            assert.is_false(health.ready)
            assert.matches(case[3], health.cause, 1, true)
            assert.matches(case[3], err.message, 1, true)
            local loaded, failure, from, flag = cache:remember("k", 60, function() return "own" end)
            assert.same({ "own", nil, "loader", "degraded" }, { loaded, failure, from, flag })
            cache:close()
            liar:stop()
        end)
    end

    it("is told in plain words: a cluster that serves no slots", function()
        local redis = server.start({ config = { "cluster-enabled yes" } })
        local cache = open(redis)
        local _, err = cache:set("k", "v")
        assert.matches("CLUSTERDOWN", tostring(err))
        local health = cache:health()
        assert.is_false(health.ready)
        assert.matches("the cluster serves no slots, or its map is not known yet", health.cause)
        cache:close()
        redis:stop()
    end)
end)
