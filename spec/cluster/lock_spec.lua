-- Locks at a master that is cut off: it goes on granting and renewing for as long as
-- cluster-node-timeout, 15 s by default, while its heir does, too. Who holds one learns from the
-- others that it is lost, or goes on at the heir where that has it.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")

local TTL = clock.scaled(2)

local bed, caches, master, heir, witness, name

setup(function()
    bed = cluster.start({ partitions = true, timeout_ms = clock.scaled(15) * 1000 })
end)
teardown(function() bed:stop() end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
    bed:heal()
    bed:agree(30)
end)

-- Each test has a master of its own: one that was cut off takes long to be whole again.
local function begin(number)
    caches, master, heir = {}, bed.nodes[number], bed.nodes[number + bed.masters]
    witness = bed.nodes[bed.masters]
    repeat name = "job" .. math.random(1e9) until bed:owner(name) == master
end

local function open(node)
    caches[#caches + 1] = redcache.new({ url = ("redis://127.0.0.1:%d"):format(node.port),
        near = false, group = "at" .. node.port, lockTtl = TTL, commandTimeout = clock.scaled(2) })
    return caches[#caches]
end

-- The heir takes over, and its old master, which is cut off by then, does not hear of it.
local function take_over()
    heir:call("CLUSTER", "FAILOVER", "TAKEOVER")
    clock.wait_until(function() return bed:owner(name, witness) == heir end, 10, "the heir")
end

-- The master that is cut off still takes itself for one: nobody has learnt anything from it.
local function assert_unaware()
    assert.equal(master, bed:owner(name, master))
    assert.matches("cluster_state:ok", master:call("CLUSTER", "INFO"))
end

describe("a lock at a master that is cut off", function()
    it("is lost, as its holder learns while that master renews it", function()
        begin(1)
        local lock = open(master):lock(name)
        bed:split({ master })
        assert(lock:acquire())
        take_over()
        local other = open(witness):lock(name, { wait = 0 })
        assert(other:acquire())
        assert.is_true(other.fence > lock.fence)
        clock.wait_until(function() return not lock:valid() end, 12, "the loss")
        assert_unaware()
        local ok, err = lock:release()
        assert.same({ nil, redcache.errors.notHeld }, { ok, err.code })
        assert.is_true(other:valid())
        assert(other:release())
    end)

    it("is kept at the heir where that has it", function()
        begin(2)
        local cache = open(master)
        local lock = cache:lock(name)
        assert(lock:acquire())
        bed:wait_replica(heir)
        bed:split({ master })
        take_over()
        local renewals = cache:stats().lockRenewals
        clock.wait_until(function()
            return cache:stats().lockRenewals > renewals + 3
        end, 12, "renewals")
        assert_unaware()
        assert.is_true(lock:valid())
        local other = open(witness):lock(name, { wait = 0 })
        local ok, err = other:acquire()
        assert.same({ nil, redcache.errors.notAcquired }, { ok, err.code })
        assert(lock:release())
        assert(other:acquire())
        assert(other:release())
    end)
end)
