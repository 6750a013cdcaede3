-- Slots of a real cluster move under callers that make 1,000 calls a second: none of them fails.
-- reshard.lua does it with 1,000 slots, and tells how many calls there are meanwhile. How many that
-- is here is the machine's business, and not asserted.
--
-- Env: REDCACHE_SERVER, as everywhere.

local process = require("spec.support.process")

describe("callers of a cluster", function()
    it("see no error while 200 slots move there and back", function()
        local result = process.run({ "luajit", "spec/cluster/reshard.lua", "--rounds", 1,
            "--slots", 200, "--keys", 10000, "--rate", 1000, "--seconds", 0.5 }, 120)
        assert.matches("\n0 errors;", result.out, nil, result.out .. result.err)
        local calls = tonumber(result.out:match("during +(%d+)/s"))
        assert.is_true(calls > 0, result.out)
        local elsewhere = tonumber(result.out:match("sent elsewhere (%d+)"))
        assert.is_true(elsewhere > 0, result.out) -- they were asked about what moved
    end)
end)
