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
        assert(cache:withLock("warm", {}, function() return true end))
        assert(cache:remember("warm", 60, function() return true end))
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
        assert.equal(0, redis:call("EXISTS", "lock:{job}"))
    end)
end)
