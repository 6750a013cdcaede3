-- Through real HAProxy, stunnel and twemproxy: what works, and how it is told where it does not.
--
-- Env: as front.lua says; pending where a program is not named. `script/test servers` names them.

local certificates = require("spec.support.certificates")
local clock = require("spec.support.clock")
local front = require("spec.support.front")
local redcache = require("redcache")
local server = require("spec.support.server")

local function through(kind)
    return front.has(kind) and it or pending
end

describe("a cache", function()
    local redis, before, cache

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    after_each(function()
        if cache then cache:close() end
        if before then before:stop() end
        cache, before = nil, nil
        redis:reset()
    end)

    local function has_connections()
        return redis:call("CLIENT", "LIST"):find("redcache", 1, true) ~= nil
    end

    -- Others' writes are seen within maxStale, as without anything in between.
    local function check_near()
        assert.is_true(cache:set("k", "0"))
        for i = 1, 20 do
            clock.wait_until(function()
                local value, err, from = cache:get("k")
                assert.is_nil(err)
                return value == tostring(i - 1) and from == "near"
            end, 10, "a near hit")
            assert.is_true(cache:set("k", tostring(i)))
        end
        redis:call("DEL", "k")
        clock.wait_until(function() return cache:get("k") == nil end, 5, "what others do")
    end

    through("haproxy")("works through HAProxy, near cache and all", function()
        before = front.haproxy({ redis })
        cache = redcache.new({ url = before:url() })
        check_near()
        local health = cache:health()
        assert.same({ true, true, "" }, { health.ready, health.tracking, health.cause })
    end)

    through("haproxy")("works through HAProxy that cuts what is silent for 0.3 s", function()
        before = front.haproxy({ redis }, { idle = "300ms" })
        cache = redcache.new({ url = before:url() })
        check_near()
        assert.is_true(cache:set("late", "first"))
        assert.equal("first", cache:get("late"))
        assert.is_true(has_connections())
        -- Nobody calls for longer than that: connections end.
        clock.wait_until(function() return not has_connections() end, 10, "their end")
        redis:call("DEL", "late")
        assert.is_nil((cache:get("late")))
        check_near()
    end)

    through("haproxy")("keeps to one of two servers behind HAProxy", function()
        local second = server.start()
        before = front.haproxy({ redis, second })
        cache = redcache.new({ url = before:url() })
        clock.wait_until(function()
            cache:get("k")
            local health = cache:health()
            return health.ready and health.tracking
        end, 20, "one server for both connections")
        assert.is_true(cache:set("k", "v"))
        assert.equal("v", cache:get("k"))
        assert.equal(1, redis:call("EXISTS", "k") + second:call("EXISTS", "k"))
        second:stop()
    end)

    through("stunnel")("works through stunnel's TLS", function()
        local files = certificates.make("IP:127.0.0.1")
        before = front.stunnel(redis, files)
        cache = redcache.new({ url = before:url("rediss"), tlsCa = files.ca })
        check_near()
    end)

    through("twemproxy")("is refused by twemproxy, and says so at once", function()
        before = front.twemproxy({ redis })
        cache = redcache.new({ url = before:url(), commandTimeout = 2 })
        local took, ok, err = clock.time(cache.set, cache, "k", "v")
        assert.is_nil(ok)
        assert.matches("HELLO", err.message)
        assert.is_true(took < clock.scaled(4))
    end)
end)
