-- Circuit breakers in a cluster: one per server. A master that stands still fails its own keys at
-- once; those of the others are answered as ever.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local waited = require("spec.near.waited")

local KEYS = 60

describe("circuit breakers in a cluster", function()
    local bed, cache

    setup(function()
        -- The others do not notice: it is away for less than their time-out.
        bed = cluster.start({ replicas = 0, full_coverage = false, timeout_ms = 60000 })
        cache = redcache.new({ url = ("redis://127.0.0.1:%d"):format(bed.nodes[1].port),
            near = false, commandTimeout = clock.scaled(1) })
        for i = 1, KEYS do assert(cache:set("k" .. i, i, 60, { timeout = clock.scaled(5) })) end
    end)
    teardown(function()
        cache:close()
        bed:stop()
    end)

    -- Of the keys of that node and of all others: how many were answered, and how the rest ended.
    -- Then during how many calls this process had no processor for a while: it does not blame a
    -- master for what it has not heard meanwhile.
    local function ask(node)
        local its, others, late = { answered = 0 }, { answered = 0 }, 0
        local watch = waited.watch({ posix.C.getpid() }, true)
        for i = 1, KEYS do
            local seen, before = bed:owner("k" .. i) == node and its or others, watch:seconds()
            local value, err = cache:get("k" .. i)
            local code = value == i and "answered" or err and err.code or "lost"
            seen[code] = (seen[code] or 0) + 1
            late = late + (watch:seconds() - before > 0.03 and 1 or 0)
        end
        return its, others, late
    end

    local function states()
        local seen = {}
        for address, breaker in pairs(cache:health().breaker) do seen[address] = breaker.state end
        return seen
    end

    it("opens for the master that stands still, and for no other", function()
        local node = bed.nodes[2]
        local address = ("127.0.0.1:%d/0"):format(node.port)
        local before, rest = ask(node)
        assert.is_true(before.answered > 5 and rest.answered > 5)
        node:pause()
        local its, others, late = ask(node)
        local took = clock.time(ask, node) -- nobody waits any more
        local stats, seen, ready = cache:stats(), states(), cache:health().ready
        local refused, err = cache:get("k1", { timeout = clock.scaled(5) })
        node:resume()
        assert.same({ answered = rest.answered }, others)
        assert.equal(0, its.answered)
        assert.is_true(its.timeout <= 1 + late, its.timeout .. ", late " .. late)
        assert.equal(before.answered, its.timeout + its.unavailable)
        assert.is_true(took < before.answered * clock.scaled(1), took)
        assert.equal(1, stats.breakersOpen)
        for name, state in pairs(seen) do
            assert.equal(name == address and "open" or "closed",
                state == "half-open" and "open" or state, name)
        end
        assert.is_false(ready)
        assert.is_true(refused == 1 or err.code == "unavailable")
        clock.wait_until(function() return ask(node).answered == before.answered end, 5)
        assert.equal(0, cache:stats().breakersOpen)
        assert.is_true(cache:health().ready)
    end)
end)
