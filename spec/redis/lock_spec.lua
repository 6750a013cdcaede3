-- lock, tryLock and withLock on one lock: taking, keeping, losing and giving it back.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local KEY = "app//lock:{job}"
local FENCE_KEY = "{job}" .. KEY .. "!:fence"

local redis, cache, other

local function open(options)
    options = options or {}
    options.url, options.namespace = redis:url(), options.namespace or "app"
    options.commandTimeout = 10
    return redcache.new(options)
end

-- Keeps this Lua state busy: nothing but the reactor thread can move a byte meanwhile.
local function work(seconds)
    local ends = clock.now() + seconds
    while clock.now() < ends do end
end

-- How long the reactor and Redis were ready and had no processor, since a moment: without one for
-- two thirds of a ttl in one piece they renew nothing in time.
local function watch_renewals()
    local watch = waited.watch({ posix.C.getpid(), redis.pid })
    local before = watch:seconds()
    return function() return watch:seconds() - before end
end

-- The lower quartile: what takes longer on a machine with other work is the scheduler's.
local function quartile(list)
    table.sort(list)
    return list[math.ceil(#list / 4)]
end

setup(function()
    redis = server.start()
    -- Two clients of one process: equal options would make them one.
    cache, other = open(), open({ group = "other" })
end)

teardown(function()
    cache:close()
    other:close()
    redis:stop()
end)

before_each(function() redis:call("FLUSHALL") end)

describe("lock", function()
    it("stands in Redis as <namespace>//lock:{name}, with its token and ttl", function()
        local lock = cache:lock("job", { ttl = 7 })
        assert.is_true(lock:acquire())
        assert.equal(lock.token, redis:call("GET", KEY))
        assert.matches("^%x+$", lock.token)
        assert.equal(32, #lock.token)
        local left = redis:call("PTTL", KEY)
        assert.is_true(left > 6000 and left <= 7000)
        assert.is_true(lock:release())
        assert.equal(0, redis:call("EXISTS", KEY))
    end)

    it("tells without a round trip how long it may be trusted", function()
        local lock = cache:lock("job", { ttl = 20 })
        assert.equal(0, lock:ttl())
        assert.is_false(lock:valid())
        assert(lock:acquire())
        local counts = monitor.wire(redis, function()
            assert.is_true(lock:valid())
            assert.is_false(lock:lost())
            -- A tenth of the ttl is kept back for clocks that differ.
            assert.is_true(lock:ttl() > 10 and lock:ttl() <= 18)
        end)
        assert.equal(0, counts.total)
        assert.is_true(lock:held())
        assert(lock:release())
        assert.equal(0, lock:ttl())
        assert.is_false(lock:held())
        assert.is_false(lock:lost())
    end)

    it("grants a greater fence each time, also after the server lost everything", function()
        local last = 0
        for round = 1, 6 do
            local lock = assert((round % 2 == 0 and cache or other):tryLock("job"))
            assert.is_true(lock.fence > last)
            last = lock.fence
            if round == 3 then redis:call("FLUSHALL") end
            lock:release()
        end
    end)

    it("refuses a second acquire of one handle, and takes it again after release", function()
        local lock = cache:lock("job")
        assert(lock:acquire())
        local token = lock.token
        assert.equal("recursive", select(2, lock:acquire()).code)
        assert(lock:release())
        assert(lock:acquire())
        assert.is_true(lock.token ~= token)
        assert(lock:release())
    end)

    it("is released only by its owner (65)", function()
        local lock = assert(cache:tryLock("job"))
        local stranger = other:lock("job")
        assert.equal("notHeld", select(2, stranger:release()).code)
        assert.equal("notHeld", select(2, stranger:extend(5)).code)
        assert.equal(lock.token, redis:call("GET", KEY))
        redis:call("SET", KEY, "somebody else")
        assert.equal("notHeld", select(2, lock:release()).code)
        assert.equal("notHeld", select(2, lock:release()).code)
        assert.equal("somebody else", redis:call("GET", KEY))
    end)

    it("is kept by extend, however short (X11)", function()
        local lock = assert(cache:tryLock("job", { ttl = 30, renew = false }))
        assert.is_true(lock:extend(3)) -- and within that it is extended again
        assert.equal(lock.token, redis:call("GET", KEY))
        assert.is_true(redis:call("PTTL", KEY) <= 3000)
        assert.is_true(lock:ttl() <= 2.7)
        assert.is_true(lock:extend(60))
        assert.is_true(lock:ttl() > 50)
        assert.equal("badTtl", select(2, lock:extend(0)).code)
        assert.is_true(redis:call("PTTL", KEY) > 50000)
        redis:call("DEL", KEY)
        clock.wait_until(function() return lock:lost() end, 2)
        assert.equal("notHeld", select(2, lock:extend(5)).code)
        assert.equal(0, redis:call("EXISTS", KEY))
    end)

    it("is extended by any ttl from 0.1 s to a day, and badTtl says so of any other", function()
        local lock = assert(cache:tryLock("job", { ttl = 5, renew = false }))
        for _, ttl in ipairs({ 0.0001, 0.001, 0.01, 0.05, 0.09, 0.0999, 0, -1, 86400.5, 1 / 0,
            0 / 0, "5", true, {}, redcache.FOREVER, -1 / 0 }) do
            local ok, err = lock:extend(ttl)
            assert.is_nil(ok)
            assert.equal("badTtl", err.code, tostring(ttl))
            assert.matches("0.1", err.message, 1, true)
        end
        assert.equal("badTtl", select(2, lock:extend()).code)
        for _, ttl in ipairs({ 0.1, 0.1001, 0.3, 86400 }) do
            local began = clock.now()
            local ok, err = lock:extend(ttl)
            assert.is_true(ok, tostring(err))
            local left = redis:call("PTTL", KEY)
            -- A tenth of a second may be over by now.
            assert.is_true(left <= ttl * 1000 + 1, left .. " of " .. ttl)
            assert.is_true(left > 0 or clock.now() - began >= ttl, left .. " of " .. ttl)
            if not lock:extend(5) then
                assert.is_true(clock.now() - began >= ttl * 0.9, ttl)
                lock = assert(cache:tryLock("job", { ttl = 5, renew = false }))
            end
        end
        lock:release()
    end)

    it("knows in 20 ms that its life was shortened, and never trusts it for longer", function()
        local times, control = {}, {}
        for i = 1, 9 do
            local lock = assert(cache:tryLock("job", { ttl = 60, renew = false }))
            redis:call("PEXPIRE", KEY, 20000)
            local start = clock.now()
            clock.wait_until(function() return lock:ttl() <= 18 end, 5)
            times[i] = clock.now() - start
            assert.is_true(lock:valid())
            assert.is_true(lock:ttl() * 1000 <= redis:call("PTTL", KEY))
            redis:call("PEXPIRE", KEY, 40) -- less than the margin that is kept back
            clock.wait_until(function() return lock:lost() end, 5)
            assert.is_false(lock:valid())
            redis:call("DEL", KEY)
            -- What the machine needs for one that asks, is answered and looks at the clock.
            start = clock.now()
            redis:call("PING")
            clock.wait_until(function() return clock.now() > start end, 5)
            control[i] = clock.now() - start
        end
        local most = clock.scaled(0.02) + 4 * quartile(control)
        assert.is_true(quartile(times) < most, quartile(times) .. " of " .. most)
    end)

    it("renews a shortened lock at once, where it renews", function()
        local lock = assert(cache:tryLock("job", { ttl = 60 }))
        redis:call("PEXPIRE", KEY, 3000)
        clock.wait_until(function() return redis:call("PTTL", KEY) > 30000 end, 5)
        assert.is_true(lock:valid())
        assert.equal(lock.token, redis:call("GET", KEY))
        clock.wait_until(function() return lock:ttl() > 30 end, 5)
        lock:release()
    end)

    it("tells its fence as a number and as text, digit by digit", function()
        local lock = cache:lock("job")
        assert.is_nil(lock:fenceText())
        assert(lock:acquire())
        assert.equal(redis:call("GET", FENCE_KEY), lock:fenceText())
        assert.matches("^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$", lock:fenceText())
        assert.equal(lock.fence, tonumber(lock:fenceText()))
        assert.is_true(lock.fence < 2 ^ 53 and lock.fence + 1 ~= lock.fence)
        lock:release()
        assert.is_nil(lock:fenceText())
    end)

    it("grants greater fences although the clock has stepped back, while the last one stands",
        function()
            local lock = assert(cache:tryLock("job"))
            local first = lock.fence
            lock:release()
            -- As after a step back by ten days: the last fence is that much ahead of the clock.
            local ahead = first + 864000 * 1e6
            redis:call("SET", FENCE_KEY, ("%.0f"):format(ahead), "KEEPTTL")
            for i = 1, 3 do
                lock = assert(other:tryLock("job"))
                assert.equal(("%.0f"):format(ahead + i), lock:fenceText())
                lock:release()
            end
            -- It stands for ten times the ttl, and for an hour at least.
            local left = redis:call("PTTL", FENCE_KEY)
            assert.is_true(left > 3590000 and left <= 3600000, left)
            lock = assert(cache:tryLock("job", { ttl = 600 }))
            left = redis:call("PTTL", FENCE_KEY)
            assert.is_true(left > 5990000 and left <= 6000000, left)
            lock:release()
        end)

    it("refuses a fence that no number could tell from the next", function()
        redis:call("SET", FENCE_KEY, ("%.0f"):format(2 ^ 53 - 2))
        local last = assert(cache:tryLock("job"))
        assert.equal("9007199254740991", last:fenceText())
        last:release()
        local lock, err = cache:tryLock("job")
        assert.is_nil(lock)
        assert.equal("redis", err.code)
        assert.matches("fence", err.message)
        clock.wait_until(function() return redis:call("EXISTS", KEY) == 0 end, 5)
    end)

    it("costs some 110 bytes and its name per fence that stands", function()
        local lock = assert(cache:tryLock("job"))
        lock:release()
        local bytes = redis:call("MEMORY", "USAGE", FENCE_KEY)
        assert.is_true(bytes <= 110 + #FENCE_KEY, bytes .. " bytes")
    end)

    it("lives as long as extend said, although a renewal was due meanwhile", function()
        local line = proxy.start(redis)
        local far = redcache.new({
            url = line:url(), namespace = "app", commandTimeout = 5, connectTimeout = 5,
        })
        local lock = assert(far:tryLock("job", { ttl = 1 }))
        -- The answer to the extend comes when the renewal's third of the ttl is over.
        line:rule({ command = "evalsha", argument = "60000", late = 0.5, times = 1 })
        assert(lock:extend(60))
        local renewals = far:stats().lockRenewals
        assert.is_true(lock:ttl() * 1000 <= redis:call("PTTL", KEY))
        assert.is_true(lock:ttl() > 50)
        assert.is_true(far:stats().lockRenewals <= renewals + 1)
        far:close()
        line:stop()
    end)

    it("knows in 20 ms that its key was deleted or flushed, and tells it once (56, 60)", function()
        for _, command in ipairs({ { "DEL", KEY }, { "FLUSHDB" } }) do
            local times, told = {}, 0
            for i = 1, 9 do
                local lock = assert(cache:tryLock("job", {
                    onLost = function() told = told + 1 end,
                }))
                redis:call(unpack(command))
                local start = clock.now()
                clock.wait_until(function() return lock:lost() end, 5)
                times[i] = clock.now() - start
                assert.is_false(lock:valid())
                assert.equal(0, lock:ttl())
                assert.equal("notHeld", select(2, lock:release()).code)
            end
            assert.equal(9, told)
            assert.is_true(quartile(times) < clock.scaled(0.02), "quartile " .. quartile(times))
        end
    end)

    it("is lost when it outlives its ttl without renewal", function()
        local lock = assert(cache:tryLock("job", { ttl = 0.3, renew = false }))
        work(0.3)
        assert.is_true(lock:lost())
        clock.wait_until(function() return redis:call("EXISTS", KEY) == 0 end, 2)
        assert.equal("notHeld", select(2, lock:release()).code)
    end)

    it("is renewed while Lua is busy, ten locks for five times their ttl (58)", function()
        local locks = {}
        local ttl = clock.scaled(0.3)
        local waits = watch_renewals()
        for i = 1, 10 do locks[i] = assert(cache:tryLock("job" .. i, { ttl = ttl })) end
        work(5 * ttl)
        local late = waits()
        for i, lock in ipairs(locks) do
            if lock:valid() or late < ttl / 2 then
                assert.is_true(lock:valid())
                assert.equal(lock.token, redis:call("GET", "app//lock:{job" .. i .. "}"))
                assert.is_true(lock:release())
            end
        end
        assert.is_true(cache:stats().lockRenewals >= 100 or late >= ttl / 2)
    end)

    it("stays held while its holder waits for another one (38)", function()
        local ttl, waits = clock.scaled(0.3), watch_renewals()
        local mine = assert(cache:tryLock("first", { ttl = ttl }))
        local began = clock.now()
        redis:call("SET", "app//lock:{second}", "somebody else's", "PX", math.floor(ttl * 5000))
        local second = cache:lock("second", { wait = ttl * 20 })
        assert.is_true(second:acquire())
        local took = clock.now() - began
        assert.is_true(took > ttl * 4, "it did not wait for longer than the first one's ttl")
        if mine:valid() or waits() < ttl / 2 then
            assert.is_true(mine:valid() and mine:held())
            assert.is_true(mine:release())
        end
        assert.is_true(second:release())
    end)

    it("is not renewed beyond maxHold", function()
        local ttl, waits = 0.3, watch_renewals()
        local start = clock.now()
        local lock = assert(cache:tryLock("job", { ttl = ttl, maxHold = 0.6 }))
        work(0.5)
        if not lock:valid() and waits() >= ttl / 2 then return end
        assert.is_true(lock:valid())
        assert.is_true(other:lock("job", { wait = clock.scaled(3) }):acquire())
        local took = clock.now() - start
        assert.is_true(took >= 0.6, "took " .. took) -- and no longer than the other's wait
        assert.is_true(lock:lost())
    end)

    it("is taken over by force, and the old holder is told and harmless (57)", function()
        local old = assert(cache:tryLock("job", { ttl = 30 }))
        assert.equal("notAcquired", select(2, other:tryLock("job")).code)
        local new = assert(other:tryLock("job", { force = true }))
        clock.wait_until(function() return old:lost() end, 2)
        assert.is_true(new.fence > old.fence)
        assert.equal("notHeld", select(2, old:release()).code)
        assert.equal("notHeld", select(2, old:extend(5)).code)
        assert.is_true(new:valid() and new:held())
        assert.equal(new.token, redis:call("GET", KEY))
        assert(new:release())
    end)

    it("is given back when its handle is garbage", function()
        local lock = assert(cache:tryLock("job", { ttl = 600 }))
        assert.is_true(lock:held())
        assert.equal(1, redis:call("EXISTS", KEY))
        lock = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        clock.wait_until(function() return redis:call("EXISTS", KEY) == 0 end, 2)
    end)
end)

describe("tryLock", function()
    it("does not wait for a lock that is held", function()
        local lock = assert(cache:tryLock("job"))
        local took, got, err = clock.time(other.tryLock, other, "job")
        assert.is_nil(got)
        assert.equal("notAcquired", err.code)
        assert.equal("job", err.key)
        assert.is_true(took < 3) -- the lock's ttl is 10 s
        assert.is_true(lock:valid())
        assert(lock:release())
    end)
end)

describe("withLock", function()
    it("costs two commands where nobody else wants the lock", function()
        cache:withLock("job", nil, function() end)
        local counts, _, result = monitor.wire(redis, function()
            return cache:withLock("job", nil, function() return "done" end)
        end)
        assert.equal("done", result)
        assert.same({ evalsha = 2, total = 2 }, counts)
    end)

    it("hands on what the function returns, and what it throws after the release", function()
        assert.same({ 1, nil, "x" }, { cache:withLock("job", nil, function(lock)
            assert.equal(lock.token, redis:call("GET", KEY))
            return 1, nil, "x"
        end) })
        assert.equal(0, redis:call("EXISTS", KEY))
        local thrown = { code = 7 }
        local ok, err = pcall(cache.withLock, cache, "job", nil, function() error(thrown) end)
        assert.is_false(ok)
        assert.equal(thrown, err)
        ok, err = pcall(cache.withLock, cache, "job", nil, function() error("dry") end)
        assert.is_false(ok)
        assert.matches("dry.*traceback", err)
        assert.equal(0, redis:call("EXISTS", KEY))
    end)

    it("keeps others out for longer than the ttl (X11)", function()
        local ttl, waits = math.max(clock.scaled(0.2), 0.6), watch_renewals()
        local ok = cache:withLock("job", { ttl = ttl }, function(lock)
            for _ = 1, 3 do
                work(ttl)
                if not lock:valid() and waits() >= ttl / 2 then return "late" end
                assert.equal("notAcquired", select(2, other:tryLock("job")).code)
            end
            return true
        end)
        assert.is_true(ok or waits() >= ttl / 2)
        assert.equal(0, redis:call("EXISTS", KEY))
    end)

    it("says lockLost when the lock was gone before the function ended", function()
        local ran = false
        local result, err = cache:withLock("job", nil, function(lock)
            redis:call("DEL", KEY)
            clock.wait_until(function() return not lock:valid() end, 2)
            ran = true
            return "done"
        end)
        assert.is_true(ran)
        assert.is_nil(result)
        assert.equal("lockLost", err.code)
    end)

    it("does not run the function without the lock", function()
        local lock = assert(other:tryLock("job"))
        local ran = false
        local _, err = cache:withLock("job", { wait = 0.05 }, function() ran = true end)
        assert.equal("notAcquired", err.code)
        assert.is_false(ran)
        assert(lock:release())
    end)

    it("gives the lock back when its coroutine is dropped in the middle", function()
        local job = coroutine.create(function()
            cache:withLock("job", { ttl = 600 }, coroutine.yield)
        end)
        assert(coroutine.resume(job))
        assert.equal(1, redis:call("EXISTS", KEY))
        job = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        clock.wait_until(function() return redis:call("EXISTS", KEY) == 0 end, 2)
    end)
end)
