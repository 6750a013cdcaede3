-- Cases (spec/support/api_cases.lua): maxInFlight, maxRate, maxWaiting.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, raises, report, within = group.never, group.raises, group.report, group.within

-- So rare that one call is all there is.
local ONCE = 0.001

local function requests(cache) return cache:stats().requests end

-- A namespace whose only call is used up.
local function used_up(bed, opts)
    opts = opts or {}
    opts.maxRate = ONCE
    local cache = bed.cache:namespace("n", opts)
    assert(cache:set("k", 1))
    return cache
end

-- Codes of calls with one key, with many, and of those that walk.
local CALLS = {
    get = function(c) return c:get("k") end,
    version = function(c) return c:get("k", { version = true }) end,
    exists = function(c) return c:exists("k") end,
    exist = function(c) return c:exists({ "k", "l" }) end,
    ttl = function(c) return c:ttl("k") end,
    set = function(c) return c:set("k", 2) end,
    tagged = function(c) return c:set("k", 2, 60, { tags = { "t" } }) end,
    delete = function(c) return c:delete("k") end,
    soft = function(c) return c:delete("k", { soft = true }) end,
    deleteMulti = function(c) return c:deleteMulti({ "k", "l" }) end,
    remember = function(c) return c:remember("k", 60, never) end,
    put = function(c) return c:put("k", 60, never) end,
    touch = function(c) return c:touch("k", 60) end,
    add = function(c) return c:add("k", 1) end,
    getSet = function(c) return c:getSet("k", 1) end,
    getDelete = function(c) return c:getDelete("k") end,
    update = function(c) return c:update("k", never) end,
    incr = function(c) return c:incr("k") end,
    rename = function(c) return c:rename("k", "l") end,
    copy = function(c) return c:copy("k", "l") end,
    tags = function(c) return c:tags("k") end,
    flush = function(c) return c:flush() end,
    sweep = function(c) return c:deleteByPattern("*") end,
    peek = function(c) return c:limiter({ limit = 1, window = 1 }):peek("k") end,
}
local MANY = {
    getMulti = function(c) return select(2, c:getMulti({ "k", "l" })) end,
    setMulti = function(c) return select(2, c:setMulti({ k = 1, l = 2 })) end,
    touchMulti = function(c) return select(2, c:touchMulti({ "k", "l" }, 60)) end,
    rememberMulti = function(c) return select(2, c:rememberMulti({ "k", "l" }, 60, never)) end,
    putMulti = function(c) return select(2, c:putMulti({ "k", "l" }, 60, never)) end,
}

case("without a place each call ends with overload, and nothing is sent", function(bed)
    local cache = used_up(bed)
    local before, refused = requests(cache), 0
    for name, call in pairs(CALLS) do
        local value, err = call(cache)
        assert.is_nil(value, name)
        assert.equal("overload", err and err.code, name)
        assert.matches("maxRate is reached", err.message, 1, true)
        refused = refused + 1
    end
    for name, call in pairs(MANY) do
        local failed = call(cache)
        for _, key in ipairs({ "k", "l" }) do
            assert.equal("overload", failed[key] and failed[key].code, name)
            assert.matches("'" .. key .. "': .*maxRate is reached", failed[key].message)
        end
        refused = refused + 1
    end
    assert.matches("Redis has not answered", cache:explain("k").text, 1, true)
    refused = refused + 1
    assert.equal(before, requests(cache))
    assert.equal(refused, cache:stats().bulkheadRefused)
    assert.equal(0, cache:stats().bulkheadInFlight)
    assert.equal(1, bed.redis:call("EXISTS", "app/n:k"))
end)

case("without a place nothing is written, though tags may have been begun", function(bed)
    local cache = used_up(bed)
    assert.equal("overload", report(cache:addTags("k", { "t" })).code)
    assert.equal("overload", report(cache:add("l", 1, 60, { tags = { "t" } })).code)
    assert.same({ k = 1 }, bed.cache:namespace("n"):getMulti({ "k", "l" }))
    assert.same({}, bed.cache:namespace("n"):tags("k"))
end)

case("a limiter without a place says what onUnavailable does", function(bed)
    local cache = used_up(bed)
    for _, says in ipairs({ "allow", "deny" }) do
        local limiter = cache:limiter({ limit = 9, window = 60, onUnavailable = says })
        local allowed, _, cause = limiter:take("k")
        assert.equal(says == "allow", allowed)
        assert.equal("overload", cause.code)
    end
end)

case("what is near needs no place", function(bed)
    local outer = bed.open({ near = { l0 = {} } })
    for i, near in ipairs({ true, { l0 = false } }) do
        local cache = outer:namespace("n" .. i, { near = near, maxRate = 3, maxStale = 60 })
        assert(cache:set("k", "v"))
        bed.wait_until(function()
            local _, err, source = cache:get("k")
            if err then bed.pause(0.2) end
            return source == "near" or source == "l0"
        end, 10, "the near copy")
        group.sends_at_most(bed, cache, 0, function()
            for _ = 1, 50 do
                assert.equal("v", (cache:get("k")))
                assert.equal("v", (cache:remember("k", 60, never)))
                assert.equal("v", cache:getMulti({ "k" }).k)
            end
        end)
    end
end)

case("maxRate: a second's worth at once, and then so many a second", function(bed)
    local cache = bed.cache:namespace("n", { maxRate = 5 })
    local granted, first
    local took = bed.time(function()
        first = bed.time(function()
            bed.wait_until(function()
                cache:get("k") -- a miss or overload
                return cache:stats().bulkheadRefused > 0
            end, 5, "the end of the first five")
            granted = cache:stats().misses
        end)
        bed.wait_until(function()
            cache:get("k")
            return cache:stats().misses >= granted + 3
        end, 5, "three more")
    end)
    assert.is_true(granted >= 5 and granted <= 5 + first * 5 + 1, granted .. " in " .. first)
    local all = cache:stats().misses
    assert.is_true(all <= 5 + took * 5 + 1, all .. " in " .. took)
end)

case("maxWaiting: a call waits for its turn, within its timeout", function(bed)
    local cache, count = bed.cache:namespace("n", { maxRate = 10, maxWaiting = 1 }), 0
    local took = bed.time(function()
        -- A pause of the machine lets some pass that would have waited.
        bed.wait_until(function()
            count = count + 1
            assert(cache:set("k" .. count, count))
            return cache:stats().bulkheadWaited >= 4
        end, 20, "the fourth wait")
    end)
    assert.is_true(count >= 14 and count <= 10 + took * 10 + 1, count .. " in " .. took)
    local slow = bed.cache:namespace("slow", { maxRate = ONCE, maxWaiting = 1 })
    assert(slow:set("k", 1))
    took = bed.time(function()
        within(1, function()
            assert.equal("overload", report(slow:get("k", { timeout = 0.1 })).code)
        end)
    end)
    assert.is_true(took > 0.099, took) -- a sum of fractions
    assert.equal(0, slow:stats().bulkheadWaiting)
end)

case("maxInFlight: a call within a call has no place, a loader needs none", function(bed)
    local cache, inner
    cache = bed.cache:namespace("n", { maxInFlight = 1, codec = {
        id = 100, name = "asks",
        encode = function(value)
            inner = report(cache:get("other"))
            return value
        end,
        decode = function(bytes) return bytes end,
    } })
    assert(cache:set("k", "v"))
    assert.equal("overload", inner.code)
    assert.equal("v", (cache:get("k")))
    local value = cache:remember("loaded", 60, function()
        assert.equal("v", (cache:get("k")))
        assert.equal("w", (cache:remember("within", 60, function() return "w" end)))
        return "x"
    end)
    assert.equal("x", value)
    local values = cache:rememberMulti({ "a", "b", "c" }, 60, function(keys)
        local made = {}
        for _, key in ipairs(keys) do made[key] = (cache:get("k")) end
        return made
    end)
    assert.same({ a = "v", b = "v", c = "v" }, values)
    assert.equal(0, cache:stats().bulkheadInFlight)
end)

case("the limits are those of a namespace, not of those below it", function(bed)
    local cache = used_up(bed)
    local again = bed.cache:namespace("n", { maxRate = ONCE })
    assert.equal("overload", report(again:get("k")).code)
    assert.is_nil(report(bed.cache:namespace("n"):get("k")).code)
    assert.is_nil(report(cache:namespace("below"):get("k")).code)
    assert.is_nil(report(bed.cache:namespace("m", { maxRate = ONCE }):get("k")).code)
    assert.equal(1, again:stats().bulkheadRefused)
    assert.equal(0, cache:stats().bulkheadRefused)
end)

case("locks, semaphores, invalidations and raw commands need no place", function(bed)
    local cache = used_up(bed)
    assert.equal(0, (cache:invalidateTags({ "t" })))
    assert.equal("PONG", (cache:redis():command("PING")))
    assert.equal("done", (cache:withLock("l", {}, function() return "done" end)))
    local permit = cache:semaphore("s", 1)
    assert.is_true(permit:acquire())
    assert.is_true(permit:release())
end)

case("bad limits raise", function(bed)
    for name, values in pairs({
        maxInFlight = { 0, 1.5, -1, "1", true, 1e7 },
        maxRate = { 0, -1, "1", 0 / 0, math.huge },
        maxWaiting = { -1, 0.5, "1", 1e7 },
    }) do
        for _, value in ipairs(values) do
            raises("bad option '" .. name .. "' to namespace", bed.cache.namespace, bed.cache, "n",
                { [name] = value })
        end
    end
    local alone = "bad option 'maxWaiting' to namespace: no call has to wait without 'maxInFlight'"
    raises(alone, bed.cache.namespace, bed.cache, "n", { maxWaiting = 1 })
    -- The limits around a namespace are not its own.
    local limited = bed.cache:namespace("limited", { maxRate = 1e9, maxWaiting = 1 })
    raises(alone, limited.namespace, limited, "n", { maxWaiting = 1 })
    raises("unknown option 'maxRate' to get", bed.cache.get, bed.cache, "k", { maxRate = 1 })
end)

light("maxInFlight: those beyond it end at once, and places come back", function(bed)
    local cache = bed.open({ commandTimeout = clock.patience(20) }):namespace("n",
        { maxInFlight = 2 })
    assert(cache:set("k", "v"))
    for _ = 1, 3 do
        local seen, threads = { v = 0, overload = 0 }, {}
        bed.silence(true)
        for i = 1, 6 do
            threads[i] = function()
                local got = report(cache:get("k"))
                local what = got.code or got.value
                seen[what] = (seen[what] or 0) + 1
            end
        end
        -- Two have the places for as long as Redis is silent, and that is until then.
        threads[7] = function()
            bed.wait_until(function() return seen.overload == 4 end, 5, "the end of the others")
            bed.silence(false)
        end
        bed.together(threads)
        assert.same({ v = 2, overload = 4 }, seen)
        assert.equal(0, cache:stats().bulkheadInFlight)
    end
    bed.silence(true)
    for _ = 1, 3 do -- more than there are places
        assert.equal("timeout", report(cache:get("k", { timeout = 0.05 })).code)
    end
    bed.silence(false)
    bed.wait_until(function() return cache:get("k") == "v" end, 5, "the answer")
end)

light("maxWaiting: the others wait in order, so many", function(bed)
    local cache = bed.cache:namespace("n", { maxInFlight = 1, maxWaiting = 20 })
    local order, failed, threads = {}, {}, {}
    for i = 1, 30 do
        threads[i] = function()
            local ok, err = cache:set("k", i)
            if ok then order[#order + 1] = i else failed[#failed + 1] = err.code end
        end
    end
    bed.together(threads)
    assert.is_true(#order >= 21, #order)
    assert.equal(30, #order + #failed)
    for i = 2, #order do assert.is_true(order[i] > order[i - 1]) end
    for _, code in ipairs(failed) do assert.equal("overload", code) end
    local stats = cache:stats()
    assert.same({ 0, 0, #failed },
        { stats.bulkheadInFlight, stats.bulkheadWaiting, stats.bulkheadRefused })
end)

light("who waits for a place can be cancelled", function(bed)
    local cache = used_up(bed, { maxWaiting = 5 })
    local seen
    bed.together({
        function() seen = report(cache:get("k", { cancelTag = 7, timeout = 30 })) end,
        function()
            bed.wait_until(function() return cache:stats().bulkheadWaiting == 1 end, 5, "the wait")
            assert.equal(1, cache:cancel(7))
            within(2, function()
                bed.wait_until(function() return seen end, 5, "its end")
            end)
        end,
    })
    assert.equal("cancelled", seen.code)
    assert.equal(0, cache:stats().bulkheadWaiting)
end)

light("a call with many keys that waits for its place is cancelled as a whole", function(bed)
    local cache = bed.open({ near = {} }):namespace("n", { maxRate = ONCE, maxWaiting = 5 })
    assert(cache:set("k", 1))
    local opts, ended = { cancelTag = 7, timeout = 30 }, {}
    bed.together({
        function() ended[1] = select(2, cache:getMulti({ "a", "b" }, opts)) end,
        function() ended[2] = select(2, cache:rememberMulti({ "a", "b" }, 60, never, opts)) end,
        function()
            bed.wait_until(function() return cache:stats().bulkheadWaiting == 2 end, 5, "the wait")
            assert.equal(2, cache:cancel(7))
            within(2, function()
                bed.wait_until(function() return ended[1] and ended[2] end, 5, "their end")
            end)
        end,
    })
    for i = 1, 2 do
        for _, key in ipairs({ "a", "b" }) do
            assert.equal("cancelled", ended[i][key] and ended[i][key].code)
        end
    end
end)

light("500 callers at once, a place for ten: all are answered", function(bed)
    local cache = bed.cache:namespace("n", { maxInFlight = 10, maxWaiting = 500 })
    local threads, done, most = {}, 0, 0
    for i = 1, 500 do
        threads[i] = function()
            local value = cache:remember("k" .. i % 50, 60, function() return i end,
                { timeout = clock.patience(20) })
            done = done + (value and 1 or 0)
            most = math.max(most, cache:stats().bulkheadInFlight)
        end
    end
    bed.together(threads)
    assert.equal(500, done)
    assert.is_true(most <= 10, most)
end)

return cases
