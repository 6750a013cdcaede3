-- The server or the line to it fails: killed, stopped, half-open, slow. Every call ends in time,
-- with the right code; remember never errors because Redis is away.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local COMMAND = 0.4

local redis, line

local function open(where, options)
    options = options or {}
    options.url, options.commandTimeout = where:url(), options.commandTimeout or COMMAND
    options.namespace = "app"
    options.near = false -- this is about the way to Redis
    return redcache.new(options)
end

-- Runs fn, which has to be over after `seconds`, and a second for the machine: that deadlines are
-- kept to 20 ms is what deadline_spec asks.
local function within(seconds, fn, ...)
    local function check(took, ...)
        assert.is_true(took < seconds + clock.scaled(1), ("took %g s"):format(took))
        return ...
    end
    return check(clock.time(fn, ...))
end

local function code_of(err) return err and err.code end

local function loader(value)
    return function() return value end
end

local function counted_loader(value)
    local count = 0
    return function()
        count = count + 1
        return value
    end, function() return count end
end

-- What a cache without Redis has to do; `first` is the code of a plain read. A while later the
-- connection is known to be down.
local function expect_away(cache, first)
    assert.equal(first, code_of(select(2, within(COMMAND, cache.get, cache, "k"))))
    local fn, runs = counted_loader("made")
    -- Two commands may time out on the way to the loader: the read and the lease.
    local value, err, source, flag = within(2 * COMMAND, cache.remember, cache, "k", 60, fn)
    assert.same({ "made", nil, "loader", "degraded" }, { value, err, source, flag })
    value, err, source, flag = within(2 * COMMAND, cache.remember, cache, "k", 60, fn)
    assert.same({ "made", nil, "loader", "degraded" }, { value, err, source, flag })
    assert.equal(1, runs()) -- Shared for degradedTtl.
    fn, runs = counted_loader("made")
    value, err = within(2 * COMMAND, cache.remember, cache, "strict", 60, fn, { strict = true })
    assert.is_nil(value)
    assert.is_true(code_of(err) == first or code_of(err) == "unavailable", tostring(err))
    assert.equal(0, runs())
    local failure
    value, failure = within(2 * COMMAND, cache.remember, cache, "f", 60, function()
        return nil, "dry"
    end)
    assert.is_nil(value)
    assert.equal("loaderFailed", code_of(failure))
    assert.equal("dry", failure.cause)
    assert.is_true(cache:stats().degraded >= 2)
end

local function expect_recovery(cache, seconds)
    clock.wait_until(function() return cache:set("back", 1) end, seconds, "recovery")
    assert.equal(1, cache:get("back"))
    clock.wait_until(function()
        local _, _, source, flag = cache:remember("new", 60, loader("v"))
        return source == "redis" and flag == nil
    end, seconds, "a stored value")
    clock.wait_until(function() return cache:health().ready and cache:health().tracking end, 5)
    assert.equal(0, cache:health().down)
end

before_each(function()
    redis = server.start()
    line = proxy.start(redis)
end)

after_each(function()
    line:stop()
    redis:stop()
end)

describe("a server that was killed", function()
    it("is done without, and used again once it is restarted (X16)", function()
        local cache = open(redis, { degradedTtl = 5 })
        cache:set("k", "old")
        redis:kill()
        expect_away(cache, "unavailable")
        local err = select(2, within(COMMAND, cache.set, cache, "k", 1))
        assert.equal("unavailable", code_of(err))
        assert.matches("^could not write 'k': ", err.message)
        assert.equal("unavailable", code_of(select(2, within(COMMAND, cache.delete, cache, "k"))))
        assert.equal("unavailable", code_of(select(2, within(COMMAND, cache.tryLock, cache, "k"))))
        assert.equal("unavailable", code_of(select(2, within(COMMAND, cache.put, cache, "k", 60,
            loader(1)))))
        local health = cache:health()
        assert.is_false(health.ready)
        assert.is_true(health.down > 0)
        assert.matches("refused", health.cause)
        redis:restart()
        -- The longest pause between two attempts is 1 s.
        expect_recovery(cache, 2)
        cache:close()
    end)

    it("was never there: the first call ends in time, too", function()
        redis:kill()
        expect_away(open(redis, { degradedTtl = 10 }), "unavailable")
    end)

    it("takes the lock with it: lost by the local deadline, without Redis' word", function()
        local cache = open(redis)
        local lock = assert(cache:tryLock("job", { ttl = 0.5 }))
        redis:kill()
        local killed = clock.now()
        clock.wait_until(function() return lock:lost() end, 5)
        assert.is_true(clock.now() - killed < 0.5 + clock.scaled(1))
        -- In the very moment of the loss the release may still be tried.
        local code = code_of(select(2, within(COMMAND, lock.release, lock)))
        assert.is_true(code == "notHeld" or code == "unavailable", code)
        cache:close()
    end)

    it("leaves a load that runs its value, unstored", function()
        local cache = open(redis)
        local value, err, source, flag = cache:remember("k", 60, function()
            redis:kill()
            return "made"
        end)
        assert.same({ "made", nil, "loader", "unstored" }, { value, err, source, flag })
        cache:close()
    end)
end)

describe("a server that is stopped for 3 s", function()
    it("delays every call no longer than its deadline, and serves again", function()
        local cache = open(redis, { degradedTtl = 10 })
        cache:set("k", "old")
        redis:pause()
        local resumes = clock.now() + 3
        expect_away(cache, "timeout")
        repeat
            local _, err = within(COMMAND, cache.get, cache, "k")
            assert.is_true(err.code == "timeout" or err.code == "unavailable", tostring(err))
            local value = within(2 * COMMAND, cache.remember, cache, "k", 60, loader("made"))
            assert.equal("made", value)
        until clock.now() >= resumes
        redis:resume()
        expect_recovery(cache, 3)
        assert.equal("old", cache:get("k"))
        cache:close()
    end)

    it("loses locks by their local deadline", function()
        local cache = open(redis)
        local lock = assert(cache:tryLock("job", { ttl = 0.6 }))
        redis:pause()
        local stopped = clock.now()
        clock.wait_until(function() return not lock:valid() end, 5)
        assert.is_true(clock.now() - stopped < 0.6 + clock.scaled(1))
        redis:resume()
        cache:close()
    end)
end)

describe("CLIENT KILL", function()
    -- Kills the connection of that name as soon as there is one again.
    local function kill(name)
        clock.wait_until(function()
            local list = redis:call("CLIENT", "LIST")
            for id, its_name in list:gmatch("id=(%d+)[^\n]- name=([^ ]*)") do
                if its_name == name then return redis:call("CLIENT", "KILL", "ID", id) == 1 end
            end
        end, 5, "a connection " .. name)
    end

    for _, name in ipairs({ "redcache-W", "redcache-T" }) do
        it("of " .. name .. " is not noticed by the next call", function()
            local cache = open(redis, { commandTimeout = 5 }) -- it has to connect again in time
            assert(cache:tryLock("warm")):release()
            for i = 1, 10 do
                local key = "k" .. i
                assert(cache:set(key, i))
                kill(name)
                assert.equal(i, within(COMMAND, cache.get, cache, key))
                kill(name)
                local _, _, source, flag = within(2 * COMMAND, cache.remember, cache, "r" .. i, 60,
                    loader(1))
                assert.same({ "loader", nil }, { source, flag })
                assert.is_true(cache:exists("r" .. i))
                local lock = assert(cache:tryLock("job", { ttl = 30 }))
                kill(name)
                assert.is_true(lock:extend(30))
                kill(name)
                assert.is_true(lock:release())
                clock.wait_until(function()
                    return cache:health().ready and cache:health().tracking
                end, 5)
            end
            assert.equal(0, cache:stats().locksLost)
            cache:close()
        end)
    end
end)

describe("a half-open connection", function()
    it("times out, is given up, and is made anew", function()
        local cache = open(line, { degradedTtl = 10 })
        cache:set("k", "old")
        line:stall("both")
        expect_away(cache, "timeout")
        line:flow()
        expect_recovery(cache, 5)
        cache:close()
    end)

    it("is found although nothing ever comes back: the next is another one", function()
        local cache = open(line, { connectTimeout = 0.5 })
        cache:set("k", "old")
        line:stall("down")
        local accepted = line:counts().accepted
        clock.wait_until(function()
            within(COMMAND, cache.get, cache, "k")
            return line:counts().accepted > accepted
        end, 10, "a new connection")
        line:flow()
        expect_recovery(cache, 5)
        cache:close()
    end)

    it("of tracking alone leaves hits alone and costs a miss its lease", function()
        local cache = open(line)
        cache:set("k", "v")
        assert(cache:tryLock("warm")):release()
        line:stall("both", "tracking")
        assert.equal("v", within(COMMAND, cache.remember, cache, "k", 60, loader("x")))
        local value, err, _, flag = within(2 * COMMAND, cache.remember, cache, "m", 60, loader("x"))
        assert.same({ "x", nil, "degraded" }, { value, err, flag })
        line:flow()
        expect_recovery(cache, 5)
        cache:close()
    end)
end)

describe("a slow server", function()
    it("holds up callers no longer than their own timeout, and fails nobody else", function()
        local cache = open(line, { commandTimeout = 5 })
        cache:set("k", "v")
        line:delay(0.25)
        assert.equal("v", cache:get("k"))
        assert.equal("timeout", code_of(select(2, within(0.1, cache.get, cache, "k",
            { timeout = 0.1 }))))
        assert.equal("timeout", code_of(select(2, within(0.1, cache.set, cache, "k", "w", 60,
            { timeout = 0.1 }))))
        assert.equal("w", cache:get("k"))
        assert.equal(0, cache:stats().disconnects)
        cache:close()
    end)
end)

describe("SCRIPT FLUSH", function()
    it("under 16 threads whose scripts are pipelined is not noticed", function()
        local done = threads.run({
            count = 17, timeout = 120,
            params = { url = redis:url(), path = redis.path, keys = 60 },
            main = function(thread)
                local params = thread.params
                local cache = require("redcache").new({
                    near = false, url = params.url, commandTimeout = 10,
                })
                if thread.index == 17 then
                    local raw = require("spec.support.resp").connect({ path = params.path }, {
                        user = "bed", password = "bed",
                    })
                    while thread.tally(1, 0) < 16 do raw:call("SCRIPT", "FLUSH") end
                    return cache:stats().noscript
                end
                local runs = 0
                for i = 1, params.keys do
                    local value, err, source, flag = cache:remember(thread.index .. ":" .. i, 60,
                        function()
                            runs = runs + 1
                            return i
                        end)
                    assert(value == i and not err, tostring(err))
                    assert(source == "loader" and flag == nil, tostring(flag))
                end
                thread.tally(1)
                return runs
            end,
        })
        for i = 1, 16 do assert.equal(60, done[i]) end
        assert.is_true(done[17] > 0)
    end)
end)
