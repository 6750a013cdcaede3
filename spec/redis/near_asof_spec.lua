-- The as-of checker (spec/near/asof.lua), as long as a run of all specs bears; and it can fail.
--
-- Env: REDCACHE_ASOF_CHECKS: how many reads are checked (4e6; 3e5 under sanitizers).

local clock = require("spec.support.clock")
local process = require("spec.support.process")

-- A sanitizer makes a read ten to thirty times slower, and looks for something else.
local CHECKS = os.getenv("REDCACHE_ASOF_CHECKS") or clock.scale == 1 and "4e6" or "3e5"
local SECONDS, LIMIT = 20, 240

local function run(...)
    return process.run({ "luajit", "spec/near/asof.lua", "--limit", LIMIT, ... }, LIMIT + 60)
end

local function is_installed(program)
    return os.execute("command -v " .. program .. " >/dev/null 2>&1") == 0
end

local function verdict(result)
    local checks, violations = result.out:match("(%d+) checks, (%d+) violations\n$")
    assert.is_truthy(checks, result.out .. result.err)
    return tonumber(checks), tonumber(violations)
end

local function expect_none(program)
    local result = run("--checks", CHECKS, "--seconds", SECONDS, "--server", program)
    local checks, violations = verdict(result)
    assert.equal(0, violations, result.out)
    assert.is_true(checks >= tonumber(CHECKS), result.out)
    assert.equal(0, result.exit, result.out)
    -- Memory answered, and was told of changes: most reads are hits, and many had to go to Redis.
    -- Under a sanitizer on a busy machine a tick is as long as maxStale, and fewer are hits.
    local l0, near, redis = result.out:match("reads: l0 (%d+), near (%d+), redis (%d+)")
    assert.is_true(l0 + near > checks / (clock.scale == 1 and 2 or 10), result.out)
    assert.is_true(tonumber(near) > checks / 20, result.out)
    assert.is_true(tonumber(redis) > checks / 1000, result.out)
    -- Reads whose connection ended, at most.
    for code, count in result.out:gmatch("errors: (%a+) (%d+)") do
        assert.is_true(code == "unavailable" and tonumber(count) < 1000, result.out)
    end
    local kills = tonumber(result.out:match("the ends of (%d+) connections"))
    assert.is_true(kills > 0, result.out)
end

describe("the as-of checker", function()
    it("finds nothing older than promised in the near caches of several processes", function()
        expect_none(os.getenv("REDCACHE_SERVER") or "redis-server")
    end)

    local on_valkey = is_installed("valkey-server") and it or pending
    on_valkey("finds nothing on Valkey, either", function()
        expect_none("valkey-server")
    end)

    it("would find a cache that is not told of changes", function()
        for _, mutant in ipairs({ "table", "deaf" }) do
            local result = run("--mutant", mutant)
            local _, violations = verdict(result)
            assert.is_true(violations > 0, mutant .. ": " .. result.out)
            assert.equal(1, result.exit)
        end
    end)
end)
