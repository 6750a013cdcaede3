-- The server is there and refuses: out of memory, read-only, loading, login, rights. Each refusal
-- keeps its text, and remember gets its value without Redis' help.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, cache

local function open(url, options)
    options = options or {}
    options.url, options.namespace = url, "app"
    options.near = false -- this is about the way to Redis
    options.commandTimeout = options.commandTimeout or 10 -- what ends sooner has not waited for it
    return redcache.new(options)
end

local function made() return "made" end

-- Runs fn, which has to be over after `seconds`, and a second for the machine.
local function within(seconds, fn, ...)
    local function check(took, ...)
        assert.is_true(took < seconds + math.min(clock.scaled(1), 4), ("took %g s"):format(took))
        return ...
    end
    return check(clock.time(fn, ...))
end

local function expect_error(code, text, ok, err)
    assert.is_nil(ok)
    assert.equal(code, err and err.code)
    assert.matches(text, err.message, 1, true)
end

-- remember without a lease: at once, for nobody waits for a server that has answered.
local function expect_degraded(from, key)
    local value, err, source, flag = within(0.1, from.remember, from, key or "m", 60, made)
    assert.same({ "made", nil, "loader", "degraded" }, { value, err, source, flag })
end

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

before_each(function()
    redis:call("FLUSHALL")
    cache = open(redis:url(), { group = tostring(clock.now()) })
    assert(cache:set("k", "v"))
    assert(cache:tryLock("warm")):release()
end)

after_each(function() cache:close() end)

describe("-OOM", function()
    it("refuses writes with the server's text; reads and remember go on", function()
        redis:call("CONFIG", "SET", "maxmemory", "1")
        expect_error("redis", "OOM", cache:set("k", "w"))
        expect_error("redis", "OOM", cache:tryLock("job"))
        assert.equal("v", cache:get("k"))
        assert.equal("v", cache:remember("k", 60, made))
        expect_degraded(cache)
        expect_error("redis", "OOM", cache:remember("s", 60, made, { strict = true }))
        expect_error("redis", "OOM", cache:put("k", 60, made))
        assert.is_true(cache:delete("k"))
        redis:call("CONFIG", "SET", "maxmemory", "0")
        assert.equal("loader", select(3, cache:remember("n", 60, made)))
        assert.is_true(cache:exists("n"))
        assert.equal(0, cache:stats().disconnects)
    end)

    it("between lease and publish leaves the value unstored and the key free", function()
        local value, err, source, flag = cache:remember("m", 60, function()
            redis:call("CONFIG", "SET", "maxmemory", "1")
            return "made"
        end)
        redis:call("CONFIG", "SET", "maxmemory", "0")
        assert.same({ "made", nil, "loader", "unstored" }, { value, err, source, flag })
        assert.equal("loader", select(3, within(0.1, cache.remember, cache, "m", 60, made)))
    end)
end)

describe("-READONLY", function()
    it("refuses writes with the server's text; reads and remember go on", function()
        redis:call("REPLICAOF", "127.0.0.1", "1")
        expect_error("redis", "READONLY", cache:set("k", "w"))
        expect_error("redis", "READONLY", cache:delete("k"))
        expect_error("redis", "READONLY", cache:tryLock("job"))
        assert.equal("v", cache:get("k"))
        expect_degraded(cache)
        expect_error("redis", "READONLY", cache:remember("s", 60, made, { strict = true }))
        redis:call("REPLICAOF", "NO", "ONE")
        assert.is_true(cache:set("k", "w"))
    end)
end)

describe("-LOADING", function()
    it("in answer to the handshake's PING keeps the connection from being ready", function()
        local line = proxy.start(redis)
        line:rule({ command = "ping", reply = "-LOADING Redis is loading the dataset\r\n" })
        local early = open(line:url(), { commandTimeout = 0.3 })
        expect_error("unavailable", "LOADING", within(0.3, early.get, early, "k"))
        local value, _, _, flag = within(0.6, early.remember, early, "k", 60, made)
        assert.same({ "made", "degraded" }, { value, flag })
        assert.matches("LOADING", early:health().cause)
        line:clear()
        clock.wait_until(function() return early:get("k") == "v" end, 3)
        early:close()
        line:stop()
    end)

    it("in answer to commands is unavailable, not the key's fault", function()
        local line = proxy.start(redis)
        local early = open(line:url())
        assert.equal("v", early:get("k"))
        for _, command in ipairs({ "get", "set", "unlink", "evalsha" }) do
            line:rule({ command = command, reply = "-LOADING Redis is loading the dataset\r\n" })
        end
        expect_error("unavailable", "LOADING", early:get("k"))
        expect_error("unavailable", "LOADING", early:set("k", "w"))
        expect_error("unavailable", "LOADING", early:delete("k"))
        expect_degraded(early)
        line:clear()
        assert.equal("v", early:get("k"))
        early:close()
        line:stop()
    end)
end)

describe("a login that is refused", function()
    local locked

    setup(function() locked = server.start({ password = "right" }) end)
    teardown(function() locked:stop() end)

    local function expect_refused(url, text)
        local stranger = open(url)
        -- Whoever is not let in needs not wait for another try.
        for _ = 1, 3 do
            expect_error("redis", text, within(0.3, stranger.get, stranger, "k"))
        end
        expect_error("redis", text, within(0.3, stranger.set, stranger, "k", 1))
        expect_error("redis", text, within(0.3, stranger.tryLock, stranger, "k"))
        local value, err, source, flag = within(0.3, stranger.remember, stranger, "k", 60, made)
        assert.same({ "made", nil, "loader", "degraded" }, { value, err, source, flag })
        expect_error("redis", text, within(0.3, stranger.remember, stranger, "s", 60, made,
            { strict = true }))
        local health = stranger:health()
        assert.is_false(health.ready)
        assert.matches(text, health.cause, 1, true)
        assert.is_nil(health.cause:find("wrong", 1, true))
        assert.is_nil(health.address:find("wrong", 1, true))
        stranger:close()
    end

    it("for want of a password tells -NOAUTH", function()
        expect_refused(locked:url(), "NOAUTH")
    end)

    it("for a wrong one tells -WRONGPASS and never the password", function()
        expect_refused(locked:url(":wrong"), "WRONGPASS")
        expect_refused(locked:url("ann:wrong"), "WRONGPASS")
    end)

    it("is tried again: the password may be changed", function()
        local early = open(locked:url(":later"))
        expect_error("redis", "WRONGPASS", early:get("k"))
        locked:call("CONFIG", "SET", "requirepass", "later")
        clock.wait_until(function() return early:set("k", 1) end, 3)
        locked:call("CONFIG", "SET", "requirepass", "right")
        early:close()
    end)
end)

describe("-NOPERM", function()
    local acl

    setup(function()
        acl = server.start({ users = {
            "deaf on >pw ~* &* +@all -client|tracking", "mute on >pw ~* &* +@all -@scripting",
            "blind on >pw ~* &* +@all -get", "narrow on >pw ~app:ours* &* +@all",
        } })
    end)

    teardown(function() acl:stop() end)
    before_each(function() acl:call("FLUSHALL") end)

    it("for CLIENT TRACKING: those who wait get the value all the same, of one run", function()
        local done = herd.run({
            count = 6, params = { url = acl:url("deaf:pw"), path = acl.path },
            main = function(one)
                local app = require("redcache").new({ near = false, url = one.params.url,
                    commandTimeout = 10 })
                local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
                one:ready()
                local value, err, source = app:remember("k", 60, function()
                    raw:call("INCR", "runs")
                    require("spec.support.clock").sleep(0.3)
                    return "made"
                end)
                local health = app:health()
                return {
                    value = value, err = tostring(err), source = source,
                    at = require("spec.support.clock").now(), tracking = health.tracking,
                    cause = health.cause,
                }
            end,
        })
        assert.equal("1", acl:call("GET", "runs"))
        local loaded
        for _, result in ipairs(done.results) do
            assert.equal("made", result.value, result.err)
            assert.is_false(result.tracking)
            assert.matches("NOPERM", result.cause)
            if result.source == "loader" then loaded = result.at end
        end
        -- They look again every 160 ms at the latest, and not when 5 s are over.
        for _, result in ipairs(done.results) do
            assert.is_true(result.at - loaded < 4)
        end
    end)

    it("for CLIENT TRACKING: locks are waited for by looking, lost by looking", function()
        local deaf = open(acl:url("deaf:pw"))
        local lock = assert(deaf:tryLock("job", { ttl = 1 }))
        local waiter = require("spec.support.worker").start({
            params = { url = acl:url("deaf:pw") },
            main = function(one)
                local app = require("redcache").new({
                    near = false, url = one.params.url, namespace = "app", commandTimeout = 10,
                })
                one:emit("answered", { ok = app:lock("job", { wait = 20 }):acquire() })
            end,
        })
        clock.wait_until(function() return acl:commandstats().pttl end, 10)
        assert(lock:release())
        local released = clock.now()
        local answered = waiter:event("answered")
        assert.is_true(answered.ok)
        assert.is_true(answered.at - released < 5) -- of its 20 s
        waiter:join()
        lock = assert(deaf:lock("job", { ttl = 6, wait = 5 }))
        assert(lock:acquire())
        acl:call("DEL", "app//lock:{job}")
        local deleted = clock.now()
        clock.wait_until(function() return lock:lost() end, 10)
        -- The next renewal, a third of the ttl later, finds it gone; by itself it would end later.
        assert.is_true(clock.now() - deleted < 5)
        deaf:close()
    end)

    it("for scripts: remember goes without a lease, locks say it", function()
        local mute = open(acl:url("mute:pw"))
        assert(mute:set("k", "v"))
        assert.equal("v", mute:remember("k", 60, made))
        expect_degraded(mute)
        expect_error("redis", "NOPERM", mute:tryLock("job"))
        mute:close()
    end)

    it("for GET: get tells it, remember loads", function()
        local blind = open(acl:url("blind:pw"))
        expect_error("redis", "NOPERM", blind:get("k"))
        expect_degraded(blind)
        expect_error("redis", "NOPERM", blind:remember("s", 60, made, { strict = true }))
        blind:close()
    end)

    it("for one key fails that call alone", function()
        local narrow = open(acl:url("narrow:pw"))
        assert(narrow:set("ours", "v"))
        expect_error("redis", "NOPERM", narrow:get("theirs"))
        expect_error("redis", "NOPERM", narrow:set("theirs", 1))
        assert.equal("v", narrow:get("ours"))
        expect_degraded(narrow, "theirs")
        assert.equal("loader", select(3, narrow:remember("ours2", 60, made)))
        assert.equal(0, narrow:stats().disconnects)
        narrow:close()
    end)
end)
