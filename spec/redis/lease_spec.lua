-- remember and the lease: held as long as the loader runs, free as soon as it does not.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local waited = require("spec.near.waited")

local LEASE_BYTES = 24

local redis, cache, one, two

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ url = redis:url(), commandTimeout = 10 })
    one, two = peer.start({ url = redis:url() }), peer.start({ url = redis:url() })
end)
after_each(function()
    cache:close()
    one:stop()
    two:stop()
end)

local function is_lease(bytes)
    return bytes ~= nil and #bytes == LEASE_BYTES and bytes:sub(1, 3) == "\251\1\4"
end

describe("a lease", function()
    it("is a random placeholder in the key itself, with a life", function()
        one:begin(peer.held, { value = "v" }):event("loading")
        local first, life = redis:call("GET", "k"), redis:call("PTTL", "k")
        assert.is_true(is_lease(first))
        assert.is_true(life > 0 and life <= 5000)
        assert.equal(1, redis:call("DBSIZE"))
        assert.same({ false }, { cache:exists("k") })
        assert.same({}, peer.report(cache:get("k")))
        assert.is_nil(cache:ttl("k"))
        one:go():finish()
        redis:call("DEL", "k")
        one:begin(peer.held, { value = "v" }):event("loading")
        assert.not_equal(first, redis:call("GET", "k"))
        one:go():finish()
    end)

    it("is renewed for a loader longer than the lease, which runs once (10)", function()
        local result = one:run(function(mine, _, it)
            local before, runs = mine:stats(), 0
            local value = mine:remember("k", 60, function()
                runs = runs + 1
                it.sleep(2)
                return "v"
            end, { leaseTtl = 1.5 })
            local after = mine:stats()
            return { value = value, runs = runs, beats = after.heartbeats - before.heartbeats,
                lost = after.leasesLost - before.leasesLost }
        end).value
        assert.same({ "v", 1, 0 }, { result.value, result.runs, result.lost })
        assert.is_true(result.beats >= 1)
        assert.equal("v", (cache:get("k")))
    end)

    it("stays held through many lease times, and nobody else loads (14, X1)", function()
        one:begin(function(mine, _, it)
            return mine:remember("k", 60, function()
                it.tell("loading")
                -- Lua is busy all the time: the heartbeat is not its work.
                local ends = it.now() + 3
                while it.now() < ends do end -- luacheck: ignore 542
                return "slow"
            end, { leaseTtl = 1 })
        end):event("loading")
        local token = redis:call("GET", "k")
        two:begin(peer.remember, { value = "second" })
        local looks, ends = 0, clock.now() + 2.5
        while clock.now() < ends do
            local stands = redis:call("GET", "k")
            -- Looked at in time: a late look may find the value.
            if clock.now() >= ends then break end
            assert.equal(token, stands)
            looks = looks + 1
        end
        assert.is_true(looks > 1)
        local first, second = one:finish(), two:finish()
        assert.same({ "slow", "loader" }, { first.value, first.source })
        assert.same({ "slow", "redis" }, { second.value, second.source })
    end)

    it("is not renewed beyond maxLoadTime", function()
        one:begin(peer.held, { value = "late", opts = { leaseTtl = 0.1, maxLoadTime = 0.3 } })
        one:event("loading")
        local result = two:run(peer.remember, { value = "second" })
        assert.equal("second", result.value)
        assert.is_true(result.took < clock.scaled(0.3 + 0.1 + 1))
        -- The newer value stands there, and that is what the late caller gets.
        local late = one:go():finish()
        assert.same({ "second", "redis" }, { late.value, late.source })
        assert.equal("second", (cache:get("k")))
    end)

    it("that really was lost leaves the caller its own value, unstored", function()
        one:begin(peer.held, { value = "mine", opts = { leaseTtl = 0.1, renew = false } })
        one:event("loading")
        clock.wait_until(function() return redis:call("EXISTS", "k") == 0 end, 2)
        local result = one:go():finish()
        assert.same({ "mine", "loader", "unstored" }, { result.value, result.source, result.flag })
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("is taken over when its holder was cut off, whose value is refused (13)", function()
        local line = proxy.start(redis)
        local far = peer.start({ url = line:url() })
        far:begin(peer.held, { value = "old", opts = { leaseTtl = 0.3 } }):event("loading")
        local token = redis:call("GET", "k")
        line:refuse()
        line:cut()
        two:begin(peer.held, { value = "new" }):event("loading", 0.3 + 2)
        local taken = redis:call("GET", "k")
        assert.is_true(is_lease(taken))
        assert.not_equal(token, taken)
        line:flow()
        local late = far:go():finish()
        assert.same({ "old", "loader", "unstored" }, { late.value, late.source, late.flag })
        assert.equal(taken, redis:call("GET", "k"))
        assert.equal("new", two:go():finish().value)
        assert.equal("new", (cache:get("k")))
        far:stop()
        line:stop()
    end)

    it("of a killed process is taken over within leaseTtl + 100 ms", function()
        local doomed = peer.start({ url = redis:url(), leaseTtl = 0.5 })
        doomed:begin(peer.held, {}):event("loading")
        doomed:kill()
        local watch = waited.watch({ two.worker.pid, redis.pid }, true)
        local before = watch:seconds()
        local result = two:run(peer.remember, { value = "new" })
        local late = watch:seconds() - before
        assert.equal("new", result.value)
        assert.is_true(result.took < clock.scaled(0.6) + late, "it took " .. result.took)
    end)
end)

describe("a caller who waits for another client's load", function()
    it("sends nothing until the load ends, then has its value at once", function()
        -- The fastest of some rounds: the machine is busy with other things as well.
        local best = math.huge
        for round = 1, 5 do
            local key = "k" .. round
            one:begin(peer.held, { key = key, value = "v" }):event("loading")
            peer.until_busy(redis, 1, function()
                two:begin(function(mine, params, it)
                    local value = mine:remember(params.key, 60, error)
                    return { value = value, at = it.now() }
                end, { key = key })
            end)
            if round == 1 then
                -- Far below the first heartbeat of the holder, at a third of 5 s.
                local counts = monitor.wire(redis, function() clock.sleep(0.3) end)
                assert.same({ total = 0 }, counts)
            end
            local went = clock.now()
            one:go()
            local result = two:finish().value
            assert.equal("v", result.value)
            best = math.min(best, result.at - went)
            one:finish()
        end
        -- Polling, or the lease's end, would take far longer.
        assert.is_true(best < clock.scaled(0.01), "it took " .. best)
    end)

    it("leaves after a cancel, not after the foreign lock's 30 s (8)", function()
        redis:call("SET", "k", peer.lease(), "PX", 30000)
        local results = threads.run({
            count = 2, params = { url = redis:url() },
            main = function(thread)
                local mine = require("redcache").new({
                    url = thread.params.url, connectTimeout = 10, commandTimeout = 10,
                    waitTimeout = 20,
                })
                local clock_here = require("spec.support.clock")
                thread.barrier()
                if thread.index == 2 then
                    clock_here.wait_until(function() return mine:stats().leaseWaits > 0 end, 5)
                    clock_here.sleep(0.1)
                    return { count = mine:cancel(7), at = clock_here.now() }
                end
                local _, err = mine:remember("k", 60, error, { cancelTag = 7 })
                return { code = err.code, at = clock_here.now() }
            end,
        })
        assert.equal("cancelled", results[1].code)
        assert.equal(1, results[2].count)
        assert.is_true(results[1].at - results[2].at < 10) -- of 20 s, and of the lock's 30 s
        assert.is_true(is_lease(redis:call("GET", "k")))
    end)

    it("gets its own value when the loader that hangs is cancelled (9)", function()
        one:begin(function(mine, _, it)
            return mine:remember("k", 60, function()
                it.hold()
                mine:cancel(9)
                return "never"
            end, { leaseTtl = 60, cancelTag = 9 })
        end):event("loading")
        peer.until_busy(redis, 1, function()
            two:begin(peer.remember, { value = "own", opts = { waitTimeout = 60 } })
        end)
        local cancelled = clock.now()
        one:go()
        local result = two:finish()
        assert.equal("own", result.value)
        assert.is_true(result.at - cancelled < 10) -- of the lease's 60 s
        assert.equal("cancelled", one:finish().code)
        assert.equal("own", (cache:get("k")))
    end)

    it("goes on when Redis is flushed", function()
        one:begin(peer.held, { value = "old" }):event("loading")
        peer.until_busy(redis, 1, function() two:begin(peer.remember, { value = "new" }) end)
        local flushed = clock.now()
        redis:call("FLUSHDB")
        local result = two:finish()
        assert.equal("new", result.value)
        assert.is_true(result.at - flushed < 4) -- of 5 s
        one:go():finish()
        assert.equal("new", (cache:get("k")))
    end)

    it("leads next when the leader of its own process is cancelled", function()
        local results = threads.run({
            count = 2, params = { url = redis:url() },
            main = function(thread)
                local mine = require("redcache").new({
                    url = thread.params.url, connectTimeout = 10, commandTimeout = 10,
                })
                local clock_here = require("spec.support.clock")
                thread.barrier()
                if thread.index == 1 then
                    local _, err = mine:remember("k", 60, function()
                        thread.barrier()
                        clock_here.wait_until(function() return mine:stats().waiting > 0 end, 5)
                        -- It has read that a load is running, and waits for this one.
                        clock_here.wait_until(function() return mine:stats().inFlight == 0 end, 5)
                        mine:cancel(1)
                        return "cancelled"
                    end, { cancelTag = 1 })
                    return { code = err and err.code }
                end
                thread.barrier()
                local took, value = clock_here.time(function()
                    return (mine:remember("k", 60, function() return "second" end))
                end)
                return { value = value, took = took, leases = mine:stats().leases }
            end,
        })
        assert.equal("cancelled", results[1].code)
        assert.equal("second", results[2].value)
        assert.is_true(results[2].took < 4.5, "it waited for the lease's end")
        assert.equal(1, results[2].leases)
    end)

    it("gives up after waitTimeout, or does what onTimeout says", function()
        redis:call("SET", "k", peer.lease(), "PX", 30000)
        local function wait(on_timeout)
            local runs = 0
            local took, result = clock.time(function()
                return peer.report(cache:remember("k", 60, function()
                    runs = runs + 1
                    return "own"
                end, { waitTimeout = 0.3, onTimeout = on_timeout }))
            end)
            assert.is_true(took > 0.29 and took < 4, "it took " .. took) -- 5 s without it
            return result, runs
        end
        local result, runs = wait("error")
        assert.same({ "timeout", 0 }, { result.code, runs })
        result, runs = wait("stale")
        assert.same({ "timeout", 0 }, { result.code, runs })
        result, runs = wait("load")
        assert.same({ value = "own", source = "loader", flag = "unstored" }, result)
        assert.equal(1, runs)
        assert.is_true(is_lease(redis:call("GET", "k")))
    end)
end)

describe("a caller who is cancelled inside its loader", function()
    it("gets cancelled and leaves no placeholder; the next one loads at once (15, X3)", function()
        local value, err = cache:remember("k", 60, function()
            redis:call("SCRIPT", "FLUSH") -- Giving back must survive that, too.
            assert.equal(1, cache:cancel(3))
            return "v"
        end, { cancelTag = 3 })
        assert.is_nil(value)
        assert.equal("cancelled", err.code)
        clock.wait_until(function() return redis:call("EXISTS", "k") == 0 end, 3)
        local took, next_value = clock.time(function()
            return (cache:remember("k", 60, function() return "next" end))
        end)
        assert.equal("next", next_value)
        assert.is_true(took < 4, "it waited for " .. took)
    end)

    it("gives its lease back when the cache is closed there (17)", function()
        local mine = redcache.new({ url = redis:url(), group = "closing" })
        mine:remember("k", 60, function()
            assert.is_true(is_lease(redis:call("GET", "k")))
            mine:close()
            return "v"
        end)
        clock.wait_until(function() return redis:call("EXISTS", "k") == 0 end, 3)
    end)
end)
