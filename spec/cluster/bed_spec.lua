-- The bed of the cluster specs, held against real servers: what cluster.lua says, it does.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")

-- The answer, or the text of the error, as a client gets it that asks this node alone.
local function ask(node, ...)
    local client = node:client()
    local value, err = client:try(...)
    client:close()
    return value or err
end

local function key_of(slot, name)
    return ("{%s}%s"):format(cluster.tag(slot), name or "")
end

describe("cluster.slot", function()
    local bed

    setup(function() bed = cluster.start({ masters = 1, replicas = 0 }) end)
    teardown(function() bed:stop() end)

    it("is what the server says, hash tags minded", function()
        for _, key in ipairs({
            "", "a", "user:7", "{a}b", "x{a}b{c}", "{}a", "a{}b", "a{b", "\0\255", "{a", "a}b{c}",
        }) do
            assert.equal(bed.nodes[1]:call("CLUSTER", "KEYSLOT", key), cluster.slot(key), key)
        end
        for _, slot in ipairs({ 0, 1, 8191, 16383 }) do
            assert.equal(slot, bed.nodes[1]:call("CLUSTER", "KEYSLOT", key_of(slot, "x")))
        end
    end)
end)

describe("a cluster", function()
    local bed
    local a, b

    setup(function()
        bed = cluster.start({ partitions = true })
        a, b = bed.nodes[1], bed.nodes[2]
    end)
    teardown(function() bed:stop() end)

    it("serves all slots by three masters, each with a replica", function()
        local map = bed:map()
        assert.equal(3, #map)
        for i, range in ipairs(map) do
            assert.equal(bed.nodes[i], bed:node(range.id))
            assert.same({ bed.nodes[i + 3].id }, range.replicas)
        end
        assert.equal(0, map[1].first)
        assert.equal(cluster.SLOTS - 1, map[3].last)
        assert.equal(a, bed:owner(0))
        assert.equal(bed:owner("k"), bed:owner(cluster.slot("k")))
        assert.matches("^MOVED 16383 127.0.0.1:" .. bed.nodes[3].port,
            ask(a, "GET", key_of(16383)))
    end)

    it("moves 100 slots with their keys, and back", function()
        for slot = 0, 99 do
            for i = 1, 5 do a:call("SET", key_of(slot, i), slot) end
        end
        local took = clock.time(bed.move, bed, 0, 99, a, b)
        bed:agree()
        assert.equal(b, bed:owner(99, bed.nodes[6]))
        for slot = 0, 99 do
            assert.equal(tostring(slot), ask(b, "GET", key_of(slot, 5)))
            assert.equal(("MOVED %d 127.0.0.1:%d"):format(slot, b.port),
                ask(a, "GET", key_of(slot, 5)))
        end
        bed:move(0, 99, b, a)
        assert.equal("0", ask(a, "GET", key_of(0, 1)))
        assert.is_true(took < clock.scaled(10))
    end)

    it("shows a slot that is half moved: ASK, TRYAGAIN", function()
        local one, two, none = key_of(200, 1), key_of(200, 2), key_of(200, 3)
        a:call("MSET", one, 1, two, 2)
        bed:open_slot(200, a, b)
        assert.equal(1, bed:move_keys(200, a, b, 1))
        assert.equal(("ASK 200 127.0.0.1:%d"):format(b.port), ask(a, "GET", none))
        assert.matches("^TRYAGAIN", ask(a, "MGET", one, two))
        bed:move_keys(200, a, b)
        bed:close_slot(200, a, b)
        assert.same({ "1", "2" }, b:call("MGET", one, two))
        bed:move(200, 200, b, a)
    end)

    it("moves slots by the word of the new owner alone", function()
        bed:agree()
        a:call("SET", key_of(300), "lost")
        bed:move(300, 300, a, b, "keyless")
        bed:agree()
        assert.equal(b, bed:owner(300, a))
        assert.equal(0, b:call("CLUSTER", "COUNTKEYSINSLOT", 300))
        bed:move(300, 300, b, a)
    end)

    it("moves slots in one piece, or says that the server cannot", function()
        if not bed:is_atomic() then
            assert.has_error(function() bed:move(400, 409, a, b, "atomic") end)
            return
        end
        a:call("SET", key_of(405), "kept")
        bed:move(400, 409, a, b, "atomic")
        bed:agree()
        assert.equal("kept", ask(b, "GET", key_of(405)))
        bed:move(400, 409, b, a, "atomic")
    end)

    for _, how in ipairs({ "", "force", "takeover" }) do
        it("makes a replica the master " .. how, function()
            local old, new = bed.nodes[3], bed.nodes[6]
            if bed:is_master(new) then old, new = new, old end
            bed:failover(new, how ~= "" and how or nil)
            assert.equal(new, bed:owner(16383))
            assert.is_true(bed:is_master(new))
            bed:wait_replica(old)
        end)
    end

    it("goes on when a master is stopped, and when one is killed and comes back empty", function()
        local other = bed.nodes[4]
        bed:pause(a)
        bed:wait_owner(0, other)
        bed:resume(a)
        bed:wait_replica(a)
        other:call("SET", key_of(0), "kept")
        assert.equal(1, other:call("WAIT", 1, 5000))
        bed:kill(other)
        bed:wait_owner(0, a)
        bed:restart(other)
        bed:wait_replica(other)
        assert.equal("kept", ask(a, "GET", key_of(0)))
    end)

    it("says of a replica that no map names who it is, and what it lacks", function()
        bed:agree()
        local replica = bed.nodes[6]
        if bed:is_master(replica) then replica = bed.nodes[3] end
        local master = bed:owner(16383)
        bed:kill(replica)
        master:refuse_replicas()
        bed:restart(replica) -- it comes back empty, and is sent nothing
        bed:agree()
        local ok, err = pcall(bed.wait_named, bed, 0.1)
        master:accept_replicas()
        assert.is_false(ok)
        assert.matches("the map of node %d leaves out node " .. replica.index, err)
        assert.matches(("node %d, cluster_state:ok, replica of 127.0.0.1:%d, %%l+, offset ")
            :format(replica.index, master.port), err)
        bed:wait_named()
    end)

    it("keeps a master apart until the others have another one, and takes it back", function()
        local slot = 6000
        bed:split({ b })
        b:call("SET", key_of(slot), "apart")
        assert.equal("apart", ask(b, "GET", key_of(slot)))
        bed:wait_owner(slot, bed.nodes[5])
        assert.is_nil((ask(bed.nodes[5], "GET", key_of(slot))))
        bed:heal()
        bed:wait_replica(b)
        bed:agree()
        assert.equal(bed.nodes[5], bed:owner(slot, b))
    end)
end)
