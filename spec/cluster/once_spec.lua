-- Loads and locks in a real cluster: a key is loaded once, a lock is held by one, and each call
-- ends by its deadline, while slots move and masters change. once.lua does it for as long as you
-- like; the last test is a short run. The others show what its checker finds.
--
-- Env: REDCACHE_SERVER, as everywhere. REDCACHE_CLUSTER_ONCE: rounds of all events (none: one round
-- of some).

local check = require("spec.cluster.once_check")
local cluster = require("spec.support.cluster")
local events = require("spec.cluster.events")
local process = require("spec.support.process")

local ROUNDS = os.getenv("REDCACHE_CLUSTER_ONCE")
local SOME = "migrate,atomic,failover,takeover"
local LIMIT = 3600
local TTL = 2

describe("the checker of loads and locks", function()
    local lost_slot = cluster.slot("lost")
    local happened = {
        { kind = "migrate", from = 10, to = 11 },
        { kind = "kill", from = 20, to = 23, lost = function(slot) return slot == lost_slot end },
    }

    local function loads(...) return check.loads(happened, { ... }, events.is_move) end

    local function locks(...) return check.locks(happened, { ... }, TTL) end

    it("wants one load of a key, but where masters change", function()
        local sum = loads({ "a", 1, 2, "" }, { "b", 1, 2, "" }, { "c", 20, 21, "" },
            { "c", 22, 23, "" }, { "d", 21, 22, "degraded" })
        assert.same({ 0, { kill = 1 }, { kill = 1 } }, { sum.violations, sum.again, sum.degraded })
        assert.equal(1, loads({ "a", 1, 2, "" }, { "a", 3, 4, "" }).violations)
        assert.equal(1, loads({ "a", 9, 10, "" }, { "a", 10.5, 11, "" }).violations)
        assert.equal(1, loads({ "a", 10.5, 11, "degraded" }).violations)
        assert.equal(0, loads({ "a", 23.5, 24, "degraded" }).violations) -- it recovers
        assert.equal(1, loads({ "a", 24, 25, "degraded" }).violations)
    end)

    it("wants one holder of a lock, but where the cluster lost it", function()
        assert.equal(0, locks({ "l", 1, 1, 2, 0, "released" },
            { "l", 2, 2.1, 3, 0, "released" }).violations)
        assert.equal(1, locks({ "l", 1, 1, 2, 0, "released" },
            { "l", 2, 1.9, 3, 0, "released" }).violations)
        assert.equal(1, locks({ "l", 1, 20, 22, 0, "released" },
            { "l", 2, 21, 23, 0, "released" }).violations)
        local sum = locks({ "lost", 1, 20, 22, 22, "notHeld", 1 },
            { "lost", 2, 21, 23, 0, "released" })
        assert.same({ 0, { kill = 1 }, { kill = 1 }, { kill = 1 } },
            { sum.violations, sum.overlaps, sum.longest, sum.losses })
    end)

    it("wants a loss to be known within ttl, and none without a cause", function()
        assert.equal(1, locks({ "lost", 1, 20, 24, 24, "notHeld", 1 },
            { "lost", 2, 21, 25, 0, "released" }).violations)
        assert.equal(1, locks({ "l", 1, 20, 21, 21.7, "notHeld", 0.8 }).violations)
        assert.equal(0, locks({ "l", 1, 20, 21, 21.8, "notHeld", 0.8 }).violations) -- by its ttl
        assert.equal(1, locks({ "lost", 1, 1, 2, 2, "notHeld", 1 }).violations)
    end)

    it("wants fences to grow", function()
        assert.equal(1, locks({ "l", 7, 1, 2, 0, "released" },
            { "l", 7, 3, 4, 0, "released" }).violations)
    end)
end)

describe("remember and locks in a cluster", function()
    it("load once, are held by one, and end in time, whatever happens", function()
        local words = { "luajit", "spec/cluster/once.lua", "--limit", LIMIT,
            "--rounds", ROUNDS or 1 }
        if not ROUNDS then
            words[#words + 1] = "--events"
            words[#words + 1] = SOME
        end
        local result = process.run(words, LIMIT + 120)
        assert.matches(" grants, 0 violations\n$", result.out, nil, result.out .. result.err)
        assert.equal(0, result.exit, result.out .. result.err)
    end)
end)
