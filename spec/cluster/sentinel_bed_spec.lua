-- The bed of the sentinel specs, held against real servers: what sentinel.lua says, it does.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local sentinel = require("spec.support.sentinel")

describe("a master under sentinels", function()
    local bed

    setup(function() bed = sentinel.start() end)
    teardown(function() bed:stop() end)

    -- Whichever is the master once all are of one mind: on a busy machine sentinels may have chosen
    -- once more.
    local function settled() return bed:wait_settled() end

    it("is known to each of them, with its replicas", function()
        assert.equal(bed.nodes[1], bed:master())
        for _, one in ipairs(bed.sentinels) do
            assert.equal(bed.nodes[1], bed:word(one))
            assert.equal(2, #one:call("SENTINEL", "REPLICAS", sentinel.NAME))
            assert.equal(2, #one:call("SENTINEL", "SENTINELS", sentinel.NAME))
        end
        bed.nodes[1]:call("SET", "k", "v")
        clock.wait_until(function() return bed.nodes[3]:call("GET", "k") == "v" end, 5)
    end)

    it("is another one after a planned failover, and the data stays", function()
        local old = settled()
        old:call("SET", "planned", "kept")
        clock.wait_until(function() return old:call("WAIT", 2, 100) == 2 end, 5)
        local new = bed:failover()
        assert.are_not.equal(old, new)
        local master = settled()
        assert.are_not.equal(old, master)
        assert.equal("slave", old:call("ROLE")[1])
        assert.equal("kept", master:call("GET", "planned"))
    end)

    it("is another one after it was killed, and comes back as a replica", function()
        local old = settled()
        bed:kill(old)
        bed:wait_other(old)
        bed:restart(old)
        assert.are_not.equal(old, settled())
        assert.equal("slave", old:call("ROLE")[1])
    end)

    it("is another one after it was stopped, and goes on as a replica", function()
        local old = settled()
        bed:pause(old)
        bed:wait_other(old)
        bed:resume(old)
        assert.are_not.equal(old, settled())
        assert.equal("slave", old:call("ROLE")[1])
    end)

    it("is chosen by two sentinels of three as well, and not by one", function()
        local old = settled()
        bed:kill(bed.sentinels[1])
        local new = bed:failover()
        assert.are_not.equal(old, new)
        bed:kill(bed.sentinels[2])
        assert.is_nil(bed:master())
        bed:restart(bed.sentinels[1])
        bed:restart(bed.sentinels[2])
        settled()
    end)
end)
