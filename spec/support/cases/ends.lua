-- Cases (spec/support/api_cases.lua): timeouts, cancelling, closing.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, report, within = group.never, group.report, group.within

-- A cache whose calls would wait for 10 s, and that gives no connection up before 20 s of silence.
local function patient(bed)
    local cache = bed.open({ commandTimeout = clock.patience(10) })
    assert(cache:set("k", 1))
    return cache
end

case("a call ends in time while Redis is silent, and all is well afterwards", function(bed)
    local cache = patient(bed)
    bed.silence(true)
    within(5, function()
        assert.equal("timeout", report(cache:get("k", { timeout = 0.1 })).code)
    end)
    bed.silence(false)
    bed.wait_until(function() return cache:get("k") == 1 end, 10, "Redis' answer")
end)

-- Calls about keys, by options of the call: each ends in an error.
local function key_calls(cache, opts)
    local function all(more)
        local both = {}
        for _, one in ipairs({ opts, more }) do
            for name, value in pairs(one) do both[name] = value end
        end
        return both
    end
    local function of_key(_, failed, sent) return nil, failed and failed.k, sent end
    return {
        function() return cache:exists({ "k", "n" }, opts) end,
        function() return cache:get("k", all({ version = true })) end,
        function() return cache:touch("k", 60, opts) end,
        function() return of_key(cache:touchMulti({ "k" }, 60, opts)) end,
        function() return of_key(cache:expireMulti({ k = 60 }, nil, opts)) end,
        function() return cache:rename("k", "k", opts) end,
        function() return cache:copy("k", "k", opts) end,
        function() return cache:delete("k", all({ soft = true })) end,
        function() return cache:deleteMulti({ "k" }, all({ soft = true })) end,
        function() return cache:add("k", 1, 60, opts) end,
        function() return cache:replace("k", 1, 60, opts) end,
        function() return cache:cas("k", ("v"):rep(8), 1, 60, opts) end,
        function() return cache:getSet("k", 1, 60, opts) end,
        function() return cache:getDelete("k", opts) end,
        function() return cache:update("k", never, 60, opts) end,
        function() return cache:incr("n", 1, opts) end,
    }
end

case("calls about keys end in time while Redis is silent", function(bed)
    local cache = patient(bed)
    bed.silence(true)
    for i, call in ipairs(key_calls(cache, { timeout = 0.05 })) do
        within(5, function() assert.same({ code = "timeout" }, report(call()), i) end)
    end
    bed.silence(false)
    bed.wait_until(function() return (cache:set("k", 1)) end, 10, "Redis' answer")
end)

light("calls about keys are ended by their tag", function(bed)
    local cache = patient(bed)
    local calls, fns, ended = key_calls(cache, { cancelTag = 9, timeout = 60 }), {}, 0
    bed.silence(true)
    for i, call in ipairs(calls) do
        fns[i] = function()
            assert.same({ code = "cancelled" }, report(call()), i)
            ended = ended + 1
        end
    end
    fns[#fns + 1] = function()
        local cancelled = 0
        bed.wait_until(function()
            cancelled = cancelled + cache:cancel(9)
            return cancelled == #calls
        end, 5, "the end of all calls")
        bed.silence(false)
    end
    bed.together(fns)
    assert.equal(#calls, ended)
end)

case("cancel ends a load from within", function(bed)
    local count
    assert.equal("cancelled", report(bed.cache:remember("k", 60, function()
        count = bed.cache:cancel(7)
        return "v"
    end, { cancelTag = 7 })).code)
    assert.equal(1, count)
    assert.equal(0, bed.cache:cancel(7))
    assert.is_false((bed.cache:exists("k")))
end)

case("a closed cache says so, and another one can be opened", function(bed)
    for i = 1, 5 do
        local cache = bed.other()
        assert.is_true(cache:set("k", i))
        local lock = assert(cache:tryLock("job"))
        local inner = cache:namespace("inner")
        assert.is_true(cache:close())
        assert.is_true(cache:close())
        for _, call in ipairs({
            { cache:get("k") }, { cache:set("k", 1) }, { cache:remember("k", 60, never) },
            { inner:get("k") }, { cache:tryLock("job") }, { cache:stats() }, { cache:health() },
        }) do
            assert.is_nil(call[1])
            assert.equal("closed", call[2].code)
        end
        assert.is_false(lock:valid())
        assert.equal(i, (bed.cache:get("k")))
        assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
    end
end)

case("a cache closed in a loader leaves no lease", function(bed)
    local cache = bed.other()
    local result = report(cache:remember("k", 60, function()
        cache:close()
        return "v"
    end))
    assert.equal("v", result.value)
    bed.wait_until(function() return bed.redis:call("EXISTS", "app:k") == 0 end, 2, "its end")
    assert.equal("w", (bed.cache:remember("k", 60, function() return "w" end)))
end)

case("stats count, and health knows the server", function(bed)
    bed.cache:set("k", 1)
    bed.cache:get("k")
    local stats, health = bed.cache:stats(), bed.cache:health()
    assert.equal(1, stats.hits)
    assert.is_true(stats.requests >= 2 and stats.bytesOut > 0 and stats.bytesIn > 0)
    assert.equal(0, stats.inFlight)
    assert.is_true(health.ready)
    assert.equal(0, health.down)
    assert.equal("", health.cause)
end)

return cases
