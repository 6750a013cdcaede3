-- Cases (spec/support/api_cases.lua): remember, refresh and what a loader may do.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, nothing, report, within = group.never, group.nothing, group.report, group.within

case("remember runs the loader once, and gives what it made", function(bed)
    local key, ctx
    assert.same({ value = "v", source = "loader" },
        report(bed.cache:remember("k", 60, function(...)
            key, ctx = ...
            return "v"
        end)))
    assert.equal("k", key)
    assert.is_table(ctx.notModified)
    assert.same({ value = "v", source = "redis" }, report(bed.cache:remember("k", 60, never)))
    local stats = bed.cache:stats()
    assert.same({ 1, 1, 1, 1 }, { stats.hits, stats.misses, stats.loads, stats.leases })
end)

case("remember keeps nil as 'no such thing'", function(bed)
    assert.same({ source = "loader" }, report(bed.cache:remember("k", 60, nothing)))
    assert.same({ source = "redis" }, report(bed.cache:remember("k", 60, never)))
    local life = bed.redis:call("PTTL", "app:k")
    assert.is_true(life > 0 and life <= 5000, life)
    bed.cache:remember("off", 60, nothing, { negativeTtl = 0 })
    assert.equal(0, bed.redis:call("EXISTS", "app:off"))
end)

case("remember tells the loader's error, stores nothing, and loads again", function(bed)
    local value, err = bed.cache:remember("k", 60, function() return nil, "down" end)
    assert.is_nil(value)
    assert.equal("loaderFailed", err.code)
    assert.equal("down", err.cause)
    assert.equal("k", err.key)
    assert.same({}, report(bed.cache:get("k")))
    assert.equal("v", (bed.cache:remember("k", 60, function() return "v" end)))
end)

case("remember tells what the loader threw, text or table, with its traceback", function(bed)
    local _, err = bed.cache:remember("k", 60, function() error("broken") end)
    assert.equal("loaderFailed", err.code)
    assert.is_truthy(err.cause:find("broken", 1, true))
    assert.is_truthy(err.traceback:find("cases/loads.lua", 1, true))
    local thrown = { why = "broken" }
    _, err = bed.cache:remember("k", 60, function() error(thrown) end)
    assert.equal(thrown, err.cause)
    assert.same({}, report(bed.cache:get("k")))
end)

case("an errorTtl makes the error everybody's for a while", function(bed)
    local options = { errorTtl = 30 }
    bed.cache:remember("k", 60, function() return nil, "down" end, options)
    local value, err = bed.other():remember("k", 60, never, options)
    assert.is_nil(value)
    assert.equal("loaderFailed", err.code)
    assert.equal("down", err.cause)
end)

case("remember lives as long as the loader says", function(bed)
    bed.cache:remember("v", 300, function() return 1, 30 end)
    bed.cache:remember("n", 300, function() return nil, nil, 20 end)
    local value, none = bed.redis:call("PTTL", "app:v"), bed.redis:call("PTTL", "app:n")
    assert.is_true(value > 20000 and value <= 30000, value)
    assert.is_true(none > 10000 and none <= 20000, none)
    assert.same({ value = 1, source = "loader", flag = "unstored" },
        report(bed.cache:remember("z", 60, function() return 1, 0 end)))
    assert.equal("badTtl", report(bed.cache:remember("b", 60, function() return 1, -1 end)).code)
    assert.same({ {}, {}, {} }, { bed.cache:getMulti({ "z", "b" }) })
end)

case("a loader may wait, and use the cache for other keys", function(bed)
    local value = bed.cache:remember("outer", 60, function()
        bed.pause(0.02)
        bed.cache:set("other", 1)
        return (bed.cache:remember("inner", 60, function()
            bed.pause(0.02)
            return bed.cache:get("other") + 1
        end))
    end)
    assert.equal(2, value)
    assert.equal(2, (bed.cache:get("inner")))
end)

case("a loader that asks for its own key is told so at once", function(bed)
    local codes = {}
    within(4, function() -- who waited for itself would do it for 5 s
        assert.equal("outer", (bed.cache:remember("k", 60, function()
            codes[1] = report(bed.cache:remember("k", 60, never)).code
            codes[2] = report(bed.cache:put("k", 60, never)).code
            return "outer"
        end)))
    end)
    assert.same({ "recursive", "recursive" }, codes)
    assert.equal("outer", (bed.cache:get("k")))
end)

case("what was deleted or written while it was loaded is not stored", function(bed)
    assert.same({ value = "v", source = "loader", flag = "unstored" },
        report(bed.cache:remember("k", 60, function()
            bed.redis:call("DEL", "app:k")
            return "v"
        end)))
    assert.is_false((bed.cache:exists("k")))
    assert.same({ value = "newer", source = "redis" },
        report(bed.cache:remember("k", 60, function()
            bed.cache:set("k", "newer", 60)
            return "older"
        end)))
    assert.equal("newer", (bed.cache:get("k")))
end)

case("the lease of a slow loader is renewed", function(bed)
    -- Its third is what a renewal comes after, and two thirds what it may be late. A lease that
    -- ends would let the value go unstored.
    assert.same({ value = "v", source = "loader" },
        report(bed.cache:remember("k", 60, function()
            group.wait_for_renewals(bed, "app:k")
            return "v"
        end, { leaseTtl = 3 })))
end)

case("within its grace window an old value stands in for a loader that fails", function(bed)
    local cache = bed.open({ grace = 60, background = false })
    local function stale() return select(3, cache:get("k")) == "stale" end
    cache:set("k", "old", 0.01)
    bed.wait_until(stale, 2, "the end of the ttl")
    assert.same({ value = "old", source = "stale" },
        report(cache:remember("k", 0.01, function() return nil, "down" end)))
    -- Failing is remembered for a moment, so that not everybody tries.
    local seen
    bed.wait_until(function()
        cache:remember("k", 0.01, function(_, ctx)
            seen = ctx.value
            return ctx.notModified
        end)
        return seen
    end, 10, "the next try")
    assert.equal("old", seen)
    bed.wait_until(stale, 2, "the end of the ttl")
    assert.same({ value = "new", source = "loader" },
        report(cache:remember("k", 60, function() return "new" end)))
    assert.same({ value = "new", source = "redis" }, report(cache:get("k")))
end)

case("who waits for another's load too long does what onTimeout says", function(bed)
    local other = bed.other()
    local waiting, loading = {}, nil
    other:remember("k", 60, function()
        within(4, function() -- without it they would wait for 5 s each
            waiting = report(bed.cache:remember("k", 60, never, { waitTimeout = 0.3 }))
            loading = report(bed.cache:remember("k", 60, function() return "mine" end,
                { waitTimeout = 0.3, onTimeout = "load" }))
        end)
        return "other's"
    end)
    assert.same({ code = "timeout" }, waiting)
    assert.same({ value = "mine", source = "loader", flag = "unstored" }, loading)
    assert.equal("other's", (bed.cache:get("k")))
end)

case("rememberForever stores without expiry", function(bed)
    assert.equal(1, (bed.cache:rememberForever("k", function() return 1 end)))
    assert.equal(-1, bed.redis:call("PTTL", "app:k"))
    assert.equal(1, (bed.cache:rememberForever("k", never)))
    bed.redis:call("DEL", "app:k")
    assert.equal(2, (bed.cache:rememberForever("k", function() return 2 end)))
end)

case("put replaces a value, readers get the old one meanwhile, and failing changes nothing",
    function(bed)
        bed.cache:set("k", "old", 60)
        local meanwhile
        assert.same({ value = "new" }, report(bed.cache:put("k", 60, function()
            meanwhile = bed.cache:get("k")
            return "new"
        end)))
        assert.equal("old", meanwhile)
        assert.equal("new", (bed.cache:get("k")))
        assert.equal("loaderFailed",
            report(bed.cache:put("k", 60, function() error("broken") end)).code)
        assert.equal("new", (bed.cache:get("k")))
        assert.equal("lockLost", report(bed.cache:put("k", 60, function()
            bed.redis:call("DEL", "app:k")
            return "x"
        end)).code)
        assert.is_false((bed.cache:exists("k")))
    end)

return cases
