-- The run of tags between processes (tags.lua), as long as a run of all specs bears; and it can
-- fail.
--
-- Env: REDCACHE_SERVER, as everywhere. REDCACHE_TAGS_CHECKS: how many reads are checked (100,000).

local nginx = require("spec.support.nginx")
local process = require("spec.support.process")

local CHECKS = tonumber(os.getenv("REDCACHE_TAGS_CHECKS")) or 100000
local SECONDS, LIMIT = 1, math.max(60, CHECKS / 5000)

local possible, reason = nginx.is_possible()
if not possible then
    pending("tags between processes and an nginx: " .. reason)
    return
end

local function run(...)
    local words = { "luajit", "spec/cluster/tags.lua", "--limit", LIMIT, ... }
    local program = os.getenv("REDCACHE_SERVER")
    if program then
        words[#words + 1], words[#words + 2] = "--server", program
    end
    local result = process.run(words, LIMIT + 90)
    local checks, violations = result.out:match("(%d+) checks, (%d+) violations\n$")
    assert.is_truthy(checks, result.out .. result.err)
    return result, tonumber(checks), tonumber(violations)
end

describe("a value with tags", function()
    it("is never read by any process behind its invalidation", function()
        local result, checks, violations = run("--checks", CHECKS, "--seconds", SECONDS)
        assert.equal(0, violations, result.out)
        assert.is_true(checks >= CHECKS, result.out)
        assert.equal(0, result.exit, result.out)
        if CHECKS > 1e6 then print(result.out) end
        -- All of them took part, and memory answered.
        local others = 0
        for name, l0, near, redis in result.out:gmatch(
            "(%a+): %d+ checks %(l0 (%d+), near (%d+), redis (%d+)") do
            others = others + 1
            assert.is_true(l0 + near > 100 and tonumber(redis) > 20, name .. ": " .. result.out)
        end
        assert.equal(3, others, result.out)
        local hard, soft = result.out:match("B: (%d+) invalidations, (%d+) soft")
        local own = result.out:match("\nD: [^\n]+; (%d+) invalidations")
        assert.is_true(hard + soft > 5 and tonumber(own) > 5, result.out)
    end)

    for _, mutant in ipairs({ "unchecked", "late" }) do
        it(("would be seen to be read (%s)"):format(mutant), function()
            local result, _, violations = run("--mutant", mutant)
            assert.is_true(violations > 0, result.out)
            assert.equal(1, result.exit, result.out)
        end)
    end
end)
