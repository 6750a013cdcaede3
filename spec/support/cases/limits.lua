-- Cases (spec/support/api_cases.lua): limiter.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, within = group.raises, group.report, group.within

local KINDS = { "fixed", "sliding", "gcra" }

case("a limiter grants its limit, and tells when there is more", function(bed)
    for _, kind in ipairs(KINDS) do
        local limiter = bed.cache:limiter({ kind = kind, limit = 5, window = 1000 })
        for left = 4, 0, -1 do
            local allowed, info, cause = limiter:take("k")
            assert.same({ true, left, 0 }, { allowed, info.remaining, info.retryAfter }, kind)
            assert.is_nil(cause)
            assert.is_true(info.resetAfter > 0 and info.resetAfter <= 1016, info.resetAfter)
        end
        local allowed, info = limiter:take("k")
        assert.same({ false, 0 }, { allowed, info.remaining }, kind)
        local most = ({ fixed = 1000, sliding = 1016, gcra = 200 })[kind]
        assert.is_true(info.retryAfter > most / 2 and info.retryAfter <= most, info.retryAfter)
        assert.is_true((limiter:take("other", 5)))
        local name = "app//limit:" .. kind .. ":k"
        assert.is_true(bed.redis:call("PTTL", name) > 0)
    end
end)

case("a limiter takes all of n units or none, and what it refuses is not counted", function(bed)
    for _, kind in ipairs(KINDS) do
        local limiter = bed.cache:limiter({ kind = kind, limit = 10, window = 1000 })
        assert.is_true((limiter:take("k", 8)))
        assert.is_false((limiter:take("k", 3)))
        assert.same({ 2, 0 }, { limiter:peek("k").remaining, limiter:peek("k").retryAfter })
        assert.is_true((limiter:take("k", 2)))
        assert.is_true(limiter:peek("k").retryAfter > 0)
        assert.is_true((limiter:reset("k")))
        assert.is_false((limiter:reset("k")))
        assert.equal(10, limiter:peek("k").remaining)
        assert.equal(0, limiter:peek("k").resetAfter)
    end
end)

case("limiters of one name count together, others apart", function(bed)
    local opts = { name = "a:b", limit = 1, window = 1000, kind = "fixed" }
    assert.is_true((bed.cache:limiter(opts):take("k")))
    assert.is_false((bed.other():limiter(opts):take("k")))
    assert.equal(1, bed.redis:call("EXISTS", "app//limit:a%3Ab:k"))
    opts.name = "a"
    assert.is_true((bed.cache:limiter(opts):take("b:k")))
    assert.is_true((bed.cache:namespace("n"):limiter(opts):take("b:k")))
end)

case("a limiter whose numbers change goes on with what was taken", function(bed)
    for _, kind in ipairs(KINDS) do
        local function of(limit, window)
            return bed.cache:limiter({ kind = kind, name = kind, limit = limit, window = window })
        end
        assert.is_true((of(10, 1000):take("k", 6)))
        assert.equal(14, of(20, 1000):peek("k").remaining)
        assert.equal(0, of(4, 1000):peek("k").remaining)
        assert.equal(4, of(10, 2000):peek("k").remaining, kind)
    end
    -- Another kind begins anew.
    bed.cache:limiter({ kind = "fixed", name = "x", limit = 5, window = 1000 }):take("k", 5)
    assert.is_true((bed.cache:limiter({ name = "x", limit = 5, window = 1000 }):take("k", 5)))
end)

case("where Redis is silent a limiter fails open or closed within the timeout", function(bed)
    local open = bed.cache:limiter({ limit = 5, window = 1000 })
    local closed = bed.cache:limiter({ limit = 5, window = 1000, onUnavailable = "deny" })
    assert.is_true((open:take("k")))
    bed.silence(true)
    local none = { remaining = 0, resetAfter = 0, retryAfter = 0 }
    within(5, function() -- of 8 s without the timeouts
        local allowed, info, cause = open:take("k", 1, { timeout = 0.05 })
        assert.same({ true, none }, { allowed, info })
        assert.is_truthy(({ timeout = 1, unavailable = 1, outcomeUnknown = 1 })[cause.code])
        allowed, info, cause = closed:take("k", 1, { timeout = 0.05 })
        assert.same({ false, none }, { allowed, info })
        assert.is_truthy(({ timeout = 1, unavailable = 1, outcomeUnknown = 1 })[cause.code])
        assert.is_nil((open:peek("k", { timeout = 0.05 })))
        assert.is_nil((open:reset("other", { timeout = 0.05 })))
    end)
    bed.silence(false)
    bed.wait_until(function() return open:peek("k") ~= nil end, 5, "Redis")
end)

case("a limiter with a budget asks once for many takes", function(bed)
    local opts = { kind = "fixed", limit = 20, window = 1000, budget = 10 }
    local limiter, other = bed.cache:limiter(opts), bed.other():limiter(opts)
    assert.is_true((limiter:take("k")))
    local before = bed.cache:stats().requests
    for left = 18, 10, -1 do
        local allowed, info = limiter:take("k")
        assert.same({ true, left, 0 }, { allowed, info.remaining, info.retryAfter })
        assert.is_true(info.resetAfter > 900)
    end
    assert.equal(0, bed.cache:stats().requests - before)
    -- What is left is less than a budget: it is taken whole.
    assert.is_true((limiter:take("k", 3)))
    assert.is_false((other:take("k", 1)))
    assert.is_true((limiter:take("k", 7)))
    assert.is_false((limiter:take("k")))
    assert.is_true((limiter:reset("k")))
    assert.is_true((other:take("k", 11)))
    assert.is_true((limiter:take("k", 9)))
end)

cases.light("callers of one process hold one budget together", function(bed)
    local limiter = bed.cache:limiter({ kind = "fixed", limit = 100, window = 1000, budget = 20 })
    local fns, passed = {}, 0
    for i = 1, 10 do
        fns[i] = function()
            if limiter:take("k") then passed = passed + 1 end
        end
    end
    bed.together(fns)
    assert.equal(10, passed)
    -- One has taken 20, the others what they needed or from these.
    local left = limiter:peek("k").remaining
    assert.is_true(left >= 71 and left <= 80, left)
end)

case("a limiter tells what is wrong with its arguments, and sends nothing", function(bed)
    local cache = bed.cache
    local before = cache:stats().requests
    raises("bad option 'limit' to limiter: number expected, got nil", cache.limiter, cache,
        { window = 1 })
    raises("bad option 'window' to limiter: number expected, got nil", cache.limiter, cache,
        { limit = 1 })
    raises("bad option 'limit' to limiter: number expected, got nil", cache.limiter, cache)
    for name, values in pairs({
        limit = { 0, 1.5, -1, "1", 2e9 }, window = { 0, 0.01, 1e9, "1", 0 / 0 },
        burst = { 0, 1.5 }, kind = { "token", 1 }, onUnavailable = { "maybe", true },
        budget = { 1, 2.5, 1e7 }, name = { "", 1, ("x"):rep(257) }, ttl = { 1 },
    }) do
        for _, value in ipairs(values) do
            local opts = { limit = 5, window = 5 }
            opts[name] = value
            raises("option '" .. name .. "' to limiter", cache.limiter, cache, opts)
        end
    end
    raises("it is for kind = \"gcra\"", cache.limiter, cache,
        { kind = "fixed", limit = 5, window = 5, burst = 2 })
    raises("it is above limit", cache.limiter, cache, { limit = 5, window = 5, budget = 6 })
    raises("it is above burst", cache.limiter, cache,
        { limit = 5, window = 5, burst = 2, budget = 3 })
    raises("more than 53 bits can count exactly", cache.limiter, cache,
        { limit = 999999937, window = 86400 })
    local limiter = cache:limiter({ limit = 5, window = 5 })
    for _, method in ipairs({ "take", "peek", "reset" }) do
        raises("bad argument 'key' to " .. method .. ": string expected, got nil", limiter[method],
            limiter)
        raises("limiter." .. method .. " was called with a dot", limiter[method], "k")
    end
    for _, n in ipairs({ 0, -1, 1.5, 6, "1", 0 / 0, 1 / 0 }) do
        raises("bad argument 'n' to take: whole number from 1 to 5 expected", limiter.take, limiter,
            "k", n)
    end
    raises("unknown option 'x' to take", limiter.take, limiter, "k", 1, { x = 1 })
    raises("bad option 'timeout' to peek", limiter.peek, limiter, "k", { timeout = 0 })
    raises("bad argument 'opts' to reset", limiter.reset, limiter, "k", 1)
    assert.equal(0, cache:stats().requests - before)
    local long = ("x"):rep(2 ^ 20)
    assert.equal("tooLarge", report(limiter:take(long)).code)
    assert.equal("tooLarge", report(limiter:peek(long)).code)
    assert.equal("tooLarge", report(limiter:reset(long)).code)
    if not bed.is_memory then
        bed.redis:call("LPUSH", "app//limit:gcra:list", "1")
        local allowed, _, cause = limiter:take("list")
        assert.same({ true, "redis" }, { allowed, cause.code })
    end
end)

return cases
