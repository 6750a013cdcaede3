-- Grants that come when nobody waits for them any more: the tracked connection stood still for a
-- while, and what takes the grant back would have travelled over the other one.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local LONG = 60 -- seconds a lease or lock that nobody gives back would stand

describe("an answer that comes too late", function()
    local redis, line, cache

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:call("FLUSHALL")
        line = proxy.start(redis)
        cache = redcache.new({ near = false, url = line:url(), commandTimeout = clock.scaled(0.1) })
        -- Both connections are there, and Redis knows the scripts.
        local patient = { timeout = 10 } -- of this no machine is too slow
        assert(cache:withLock("warm", patient, function() return true end))
        assert.is_nil((select(4, cache:remember("warm", 60, function() return true end, patient))))
    end)
    after_each(function()
        cache:close()
        line:stop()
    end)

    local function while_stalled(fn)
        line:stall("up", "tracking")
        local a, b, c, d = fn()
        line:flow()
        clock.wait_until(function() return cache:stats().inFlight == 0 end, 5, "silence")
        return a, b, c, d
    end

    it("leaves no lease behind", function()
        for _ = 1, 2 do -- the first time Redis does not know the script that gives it back
            local value, err, source, flag = while_stalled(function()
                return cache:remember("k", 60, function() return "v" end, { leaseTtl = LONG })
            end)
            assert.same({ "v", "loader", "degraded" }, { value, source, flag })
            assert.is_nil(err)
            assert.equal(0, redis:call("EXISTS", "k"))
        end
    end)

    it("leaves no lock behind", function()
        local lock, err = while_stalled(function()
            return cache:tryLock("job", { ttl = LONG })
        end)
        assert.is_nil(lock)
        assert.equal("timeout", err.code)
        assert.equal(0, redis:call("EXISTS", "//lock:{job}"))
    end)

    local function scripts_run()
        local evalsha = redis:commandstats().evalsha
        return evalsha and evalsha.calls - evalsha.failed_calls or 0
    end

    -- The tracked connection is given up with requests on their way. What takes their grants back
    -- goes over the other one, and Redis executes it before them.
    local function overtake(fn)
        local warm = { leaseTtl = 0.1 }
        cache:remember("warm2", 60, function() return nil, "release" end, warm)
        local scripts, lost = scripts_run(), cache:stats().disconnects
        line:stall("up", "tracking")
        fn()
        clock.wait_until(function()
            return cache:stats().disconnects > lost and scripts_run() == scripts + 1
        end, 5, "the end of the connection, and what overtakes its requests")
        line:flow()
        clock.wait_until(function()
            return scripts_run() >= scripts + 2 and cache:stats().inFlight == 0
        end, 5, "silence")
    end

    it("leaves no lease behind when its connection is lost", function()
        overtake(function()
            local options = { leaseTtl = LONG }
            assert(cache:remember("k", 60, function() return "v" end, options))
        end)
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("leaves no lock behind when its connection is lost", function()
        overtake(function()
            local lock, err = cache:tryLock("job", { ttl = LONG })
            assert.is_nil(lock)
            assert.equal("timeout", err.code)
        end)
        assert.equal(0, redis:call("EXISTS", "//lock:{job}"))
    end)

    it("unlocks although the call that asked for it has ended", function()
        local lock = assert(cache:tryLock("job", { ttl = LONG }))
        line:stall("up", "plain")
        local lost = cache:stats().disconnects
        local ok, err = lock:release()
        assert.is_nil(ok)
        assert.equal("timeout", err.code)
        clock.wait_until(function() return cache:stats().disconnects > lost end, 5, "its loss")
        line:cut("reset", "plain")
        line:flow()
        clock.wait_until(function() return redis:call("EXISTS", "//lock:{job}") == 0 end, 5,
            "the lock's end")
    end)
end)
