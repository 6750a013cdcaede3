-- 64 clients of a real cluster while a master hands over, and while one is killed: none asks for
-- the slot map more than twice in a second. refreshes.lua counts, also at the nodes.
--
-- Env: REDCACHE_SERVER, as everywhere.

local process = require("spec.support.process")

describe("many clients of a cluster", function()
    it("ask for the slot map at most twice in a second each when a master changes", function()
        local result = process.run({ "luajit", "spec/cluster/refreshes.lua" }, 120)
        assert.equal(0, result.exit, result.out .. result.err)
        local refreshes = tonumber(result.out:match("calls, (%d+) refreshes"))
        assert.is_true(refreshes >= 2 * 64, result.out) -- at the beginning, and at the failover
    end)
end)
