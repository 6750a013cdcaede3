-- redcache.new against real servers: addresses, logins, shared clients, refusals, the end.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")
local socket = require("spec.support.socket")

local function works(options)
    local cache = redcache.new(options)
    local ok, err = cache:set("k", "v")
    local value = cache:get("k")
    cache:close()
    return ok == true and value == "v", err
end

describe("the url option", function()
    local redis, locked

    setup(function()
        redis = server.start()
        locked = server.start({
            password = "s3cr:t@/%", users = { "ann on >p%w@: ~* +@all", "bob on >pw ~none +@all" },
        })
    end)
    teardown(function()
        redis:stop()
        locked:stop()
    end)
    before_each(function() redis:call("FLUSHALL") end)

    it("reaches a server by host and port, by name too", function()
        assert.is_true((works({ url = redis:url() })))
        assert.is_true((works({ url = ("redis://localhost:%d"):format(redis.port) })))
    end)

    it("reaches a server by its unix socket", function()
        assert.is_true((works({ url = redis:unix_url() })))
    end)

    it("selects a database", function()
        for _, url in ipairs({ redis:url() .. "/3", redis:unix_url() .. "?db=3" }) do
            redis:call("FLUSHALL")
            assert.is_true((works({ url = url })))
            assert.matches("^keys=1", redis:info("keyspace").db3)
            assert.is_nil(redis:info("keyspace").db0)
        end
    end)

    it("logs in with password, or user and password, percent-encoded", function()
        assert.is_true((works({ url = locked:url(":s3cr%3At%40%2F%25") })))
        assert.is_true((works({ url = locked:url("ann:p%25w%40%3A") })))
        assert.is_true((works({ url = locked:unix_url("ann:p%25w%40%3A") })))
    end)

    it("says why a login failed, without the password", function()
        for _, login in ipairs({ "", "ann:wr0ng", ":wr0ng", "nobody:wr0ng" }) do
            local good, err = works({ url = locked:url(login ~= "" and login or nil) })
            assert.is_false(good)
            assert.is_truthy(err.code == "redis" or err.code == "unavailable", err.code)
            assert.is_truthy(err.message:find("NOAUTH", 1, true)
                or err.message:find("WRONGPASS", 1, true), err.message)
            assert.is_nil(err.message:find("wr0ng", 1, true))
        end
    end)

    it("that is wrong is refused at once, without showing it", function()
        for _, url in ipairs({ "", "http://host", "redis://", "redis://h:0", "redis://h:99999",
            "redis://h:x", "redis://h/x", "redis://h/-1", "redis://u:pa%zz@h", "unix://",
            "redis://user:passw0rd@h:port" }) do
            local ok, message = pcall(function() return redcache.new({ url = url }) end)
            assert.is_false(ok, url)
            assert.matches("bad option 'url' to new", message, 1, true)
            assert.is_nil(message:find("passw0rd", 1, true))
        end
    end)

    it("that other clients would take is refused with what to write", function()
        for url, told in pairs({
            ["redis://a,a:6379"] = "listed twice", ["redis://a,/3"] = "host name is missing",
            ["redis://a,redis://b"] = "stands once, before the first address",
            ["redis://h?db=3"] = "redis://host:port/3", ["redis://h "] = "holds a blank",
            ["redis://h/3?x=1"] = "nothing may follow '?'", ["redis://"] = "host name is missing",
            ["127.0.0.1:6379"] = "as in redis://127.0.0.1:6379",
        }) do
            local ok, message = pcall(function() return redcache.new({ url = url }) end)
            assert.is_false(ok, url)
            assert.matches("bad option 'url' to new: ", message, 1, true)
            assert.matches(told, message, 1, true)
        end
    end)

    it("to where nobody listens is no error before the first call", function()
        local cache = redcache.new({ url = "redis://127.0.0.1:" .. socket.free_port() })
        local took, value, err = clock.time(function() return cache:get("k") end)
        assert.is_nil(value)
        assert.equal("unavailable", err.code)
        assert.is_true(took < clock.scaled(2), "it took " .. took)
        cache:close()
    end)
end)

describe("redcache.new", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)

    local function connections()
        return redis:info("clients").connected_clients
    end

    -- A miss needs both of a client's connections.
    local function use(cache)
        redis:call("DEL", "k", "a:k", "b:k")
        assert.equal(1, (cache:remember("k", 60, function() return 1 end)))
    end

    it("connects on the first call, not before", function()
        local before = connections()
        local cache = redcache.new({ near = false, url = redis:url() })
        assert.equal(before, connections())
        assert.is_false(cache:health().ready)
        cache:get("k")
        assert.is_true(connections() > before)
        assert.is_true(cache:health().ready)
        cache:close()
        clock.wait_until(function() return connections() == before end, 2)
    end)

    it("shares one client among caches of equal url and group, until the last is closed", function()
        local before = connections()
        local a = redcache.new({ near = false, url = redis:url(), namespace = "a", ttl = 1 })
        local b = redcache.new({ near = false, url = redis:url(), namespace = "b", codec = "json" })
        use(a)
        use(b)
        assert.equal(before + 2, connections())
        a:close()
        assert.same({ value = 1, source = "redis" }, peer.report(b:get("k")))
        local c = redcache.new({ near = false, url = redis:url(), group = "c" })
        use(c)
        assert.equal(before + 4, connections())
        b:close()
        c:close()
        clock.wait_until(function() return connections() == before end, 2)
    end)

    it("refuses unknown options and bad values at the caller's line, by name", function()
        local cases = {
            { { tll = 1 }, "unknown option 'tll' to new" },
            { { leasettl = 1 }, "did you mean 'leaseTtl'?" },
            { { ttl = 0 }, "bad option 'ttl' to new: number above 0 or redcache.FOREVER expected" },
            { { ttl = 0 / 0 }, "bad option 'ttl' to new" },
            { { leaseTtl = 0.01 }, "number from 0.05 to 3600 expected, got 0.01" },
            { { namespace = 1 }, "bad option 'namespace' to new: string" },
            { { codec = "xml" }, "bad option 'codec' to new" },
            { { onTimeout = "retry" }, '"error" or "load" or "stale" expected' },
            { { plain = "yes" }, "true or false expected, got string" },
            { { maxValue = 1.5 }, "whole number" },
        }
        for _, case in ipairs(cases) do
            local ok, message = pcall(function() redcache.new(case[1]) end) -- this line
            assert.is_false(ok)
            assert.matches(case[2], message, 1, true)
            assert.matches("options_spec.lua:%d+:", message)
        end
        assert.has_error(function() redcache.new("redis://127.0.0.1") end)
    end)

    it("has defaults for everything but the server", function()
        local cache = redcache.new({ url = redis:url() })
        cache:set("k", { 1 })
        local life = redis:call("PTTL", "k")
        assert.is_true(life > 290000 and life <= 300000, tostring(life))
        assert.equal("\251\1\1\3", redis:call("GETRANGE", "k", 0, 3))
        cache:close()
    end)

    it("waits for a command as long as commandTimeout, or the call's timeout, says", function()
        local cache = redcache.new({
            near = false, url = redis:url(), commandTimeout = 1, maxQueue = 1000, breaker = false,
        })
        cache:get("k")
        redis:pause()
        local function wait(opts)
            local took, _, err = clock.time(function() return cache:get("k", opts) end)
            assert.is_truthy(err.code == "timeout" or err.code == "unavailable", err.code)
            return took
        end
        local long, short = wait(), wait({ timeout = 0.05 })
        redis:resume()
        -- How late a caller is woken is the machine's: the short one has to be back before the long
        -- one could be.
        assert.is_true(long > 0.99 and long < clock.scaled(4), "it took " .. long)
        assert.is_true(short > 0.04 and short < clock.scaled(0.99), "it took " .. short)
        cache:close()
    end)
end)

describe("a closed cache", function()
    it("answers every call with closed, and can be closed again", function()
        local redis = server.start()
        local cache = redcache.new({ url = redis:url() })
        local below = cache:namespace("below")
        cache:set("k", 1)
        assert.is_true(cache:close())
        assert.is_true(cache:close())
        for name, err in pairs({
            get = select(2, cache:get("k")), set = select(2, cache:set("k", 1)),
            delete = select(2, cache:delete("k")), exists = select(2, cache:exists("k")),
            ttl = select(2, cache:ttl("k")), below = select(2, below:get("k")),
            remember = select(2, cache:remember("k", 60, error)),
            put = select(2, cache:put("k", 60, error)), stats = select(2, cache:stats()),
            health = select(2, cache:health()), cancel = select(2, cache:cancel(1)),
            getMulti = select(2, cache:getMulti({ "k" })).k,
            setMulti = select(2, cache:setMulti({ k = 1 })).k,
            deleteMulti = select(2, cache:deleteMulti({ "k" })),
        }) do
            assert.equal("closed", err.code, name)
        end
        assert.equal(1, redis:call("EXISTS", "k"))
        local again = redcache.new({ url = redis:url() })
        assert.equal(1, (again:get("k")))
        again:close()
        redis:stop()
    end)
end)
