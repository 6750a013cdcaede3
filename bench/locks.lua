-- locks - a lock that nobody else wants: acquire and release, against rueidislock with one key of
-- one server, which is the least of its majorities.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local peer = require("bench.support.peer")

local CALLS = bench.sized(1500, 50) -- per side and round
local NAME_BYTES = 16

local function nothing()
    return true
end

local function measure(redis, rounds, args)
    local peers = peer.open(args, redis)
    -- A busy machine is to be slow, not wrong.
    local cache = redcache.new({ url = redis:url(), namespace = "bench", commandTimeout = 20 })
    local function lock_and_release(name)
        local lock = cache:lock(name)
        assert(lock:acquire())
        assert(lock:release())
    end
    local function with_lock(name)
        assert(cache:withLock(name, nil, nothing))
    end
    local function side(name, fn)
        return { name, function()
            return bench.latency(fn, bench.texts(CALLS, NAME_BYTES), CALLS)
        end, count = function()
            local names = bench.texts(CALLS, NAME_BYTES)
            return function()
                for i = 1, CALLS do fn(names[i]) end
            end, CALLS
        end }
    end
    local samples = bench.side_by_side({
        side("lock and release", lock_and_release),
        side("withLock", with_lock),
        peers:side("rueidislock", "rueidis.lock", { calls = CALLS }),
    }, rounds)
    cache:close()
    peers:close()
    return samples
end

local HALF = bench.both(0.5)

bench.run({
    name = "locks",
    measure = measure,
    figures = { { name = "p50", unit = "us" }, { name = "p99", unit = "us" } },
    ratios = {
        { of = "lock and release", to = "rueidislock", figure = "p50", at_most = HALF },
        { of = "withLock", to = "rueidislock", figure = "p50", at_most = HALF },
        { of = "lock and release", to = "rueidislock", figure = "p99" },
    },
})
