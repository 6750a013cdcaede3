-- Cases (spec/support/api_cases.lua): loads of many keys.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, within = group.never, group.within

-- A loader that gives each key its own name, and counts what it was asked for.
local function loader(seen)
    return function(keys)
        local values = {}
        seen[#seen + 1] = table.concat(keys, " ")
        for _, key in ipairs(keys) do values[key] = key end
        return values
    end
end

local function codes(failed)
    local list = {}
    for key, err in pairs(failed) do
        assert.equal(key, err.key)
        list[key] = err.code
    end
    return list
end

case("rememberMulti loads what is missing by one run, and keeps what that omits", function(bed)
    local cache, seen = bed.cache, {}
    cache:set("b", "there", 60)
    local values, failed, negatives, flags =
        cache:rememberMulti({ "a", "b", "n", "c", "a" }, 60, function(keys)
            seen[#seen + 1] = table.concat(keys, " ")
            return { a = 1, c = false }
        end)
    assert.same({ "a n c" }, seen)
    assert.same({ a = 1, b = "there", c = false }, values)
    assert.same({ {}, { n = true }, {} }, { failed, negatives, flags })
    assert.same({ values, failed, negatives, flags },
        { cache:rememberMulti({ "a", "b", "n", "c" }, 60, never) })
    assert.same({ values, {}, { n = true } }, { cache:getMulti({ "a", "b", "n", "c" }) })
    local life, short = bed.redis:call("PTTL", "app:a"), bed.redis:call("PTTL", "app:n")
    assert.is_true(life > 5000 and life <= 60000, life)
    assert.is_true(short > 0 and short <= 5000, short)
    assert.same({ {}, {}, {}, {} }, { cache:rememberMulti({}, 60, never) })
end)

case("rememberMulti tells by key what went wrong, and stores the rest", function(bed)
    local cache = bed.cache
    local long = ("x"):rep(70000)
    local values, failed, negatives, flags = cache:rememberMulti({ "a", "b", "c", "d", long }, nil,
        function()
            return { a = 1, c = print, d = 4 }, { b = "down" }, { d = 0 }
        end)
    assert.same({ a = 1, d = 4 }, values)
    assert.same({ b = "loaderFailed", c = "encode", [long] = "tooLarge" }, codes(failed))
    assert.equal("down", failed.b.cause)
    assert.same({ {}, { d = "unstored" } }, { negatives, flags })
    assert.same({ a = 1 }, (cache:getMulti({ "a", "b", "c", "d" })))
    values, failed = cache:rememberMulti({ "b", "e" }, 60, function() return { b = 2 }, "down" end)
    assert.same({ b = 2 }, values)
    assert.same({ e = "loaderFailed" }, codes(failed))
    for cause, fn in pairs({
        ["broken"] = function() error("broken") end,
        ["away"] = function() return nil, "away" end,
        ["no table"] = function() return 1 end,
        ["table of values"] = function() end,
    }) do
        values, failed = cache:rememberMulti({ "x", "y" }, 60, fn)
        assert.same({ {}, { x = "loaderFailed", y = "loaderFailed" } }, { values, codes(failed) })
        assert.matches(cause, failed.x.message, 1, true)
    end
    assert.same({ x = "x" }, (cache:rememberMulti({ "x" }, 60, loader({}))))
end)

case("rememberMulti takes a ttl for all, by key, or from a function or the loader", function(bed)
    local cache = bed.cache
    local function life(key) return bed.redis:call("PTTL", "app:" .. key) end
    cache:rememberMulti({ "a", "b" }, { a = 20 }, loader({}))
    assert.is_true(life("a") <= 20000 and life("b") > 20000)
    cache:rememberMulti({ "c", "d" }, function(key, value)
        return key == "c" and value == "c" and 20 or nil
    end, loader({}))
    assert.is_true(life("c") <= 20000 and life("d") > 20000)
    cache:rememberMulti({ "e", "n" }, 60, function()
        return { e = 1 }, nil, { e = 20, n = 30 }
    end)
    assert.is_true(life("e") <= 20000 and life("n") > 20000 and life("n") <= 30000)
    local values, failed = cache:rememberMulti({ "g", "h" }, { h = -1 }, loader({}))
    assert.same({ { g = "g" }, { h = "badTtl" } }, { values, codes(failed) })
    values, failed = cache:rememberMulti({ "i", "j" }, "60", never)
    assert.same({ {}, { i = "badTtl", j = "badTtl" } }, { values, codes(failed) })
    values, failed = cache:rememberMulti({ "i", "j", "k" }, function(key)
        if key == "i" then error("no ttl") end
        return key == "j" and -1 or 60
    end, loader({}))
    assert.same({ { k = "k" }, { i = "loaderFailed", j = "badTtl" } }, { values, codes(failed) })
    assert.same({ k = "k" }, (cache:getMulti({ "g2", "h", "i", "j", "k" })))
end)

case("values for other keys are counted, and stored where nothing stands if asked", function(bed)
    local cache = bed.cache
    cache:set("there", "old", 60)
    local function more() return { a = 1, b = 2, there = "new", [1] = 3 } end
    assert.same({ a = 1 }, (cache:rememberMulti({ "a" }, 60, more)))
    assert.equal(3, cache:stats().extraKeys)
    assert.same({ there = "old" }, (cache:getMulti({ "b", "there" })))
    cache:delete("a")
    assert.same({ a = 1 }, (cache:rememberMulti({ "a" }, 60, more, { prime = true })))
    assert.same({ b = 2, there = "old" }, (cache:getMulti({ "b", "there" })))
    assert.is_true(bed.redis:call("PTTL", "app:b") > 0)
    local before = cache:stats().extraKeys -- as many values as keys, but not of those
    assert.same({ x = 1 }, (cache:rememberMulti({ "x", "y" }, 60, function()
        return { x = 1, z = 2 }
    end)))
    assert.equal(before + 1, cache:stats().extraKeys)
end)

case("a loader of many keys may use the cache, but not for its own keys", function(bed)
    local cache, inner = bed.cache, {}
    within(4, function() -- who waited for itself would do it for 5 s
        local values = cache:rememberMulti({ "a", "b" }, 60, function()
            local values, failed = cache:rememberMulti({ "b", "c", "a" }, 60, loader({}))
            inner[1], inner[2] = values, codes(failed)
            inner[3] = select(2, cache:remember("a", 60, never)).code
            return { a = 1, b = 2 }
        end)
        assert.same({ a = 1, b = 2 }, values)
    end)
    assert.same({ { c = "c" }, { a = "recursive", b = "recursive" }, "recursive" }, inner)
    assert.same({ a = 1, b = 2, c = "c" }, (cache:getMulti({ "a", "b", "c" })))
end)

case("what was deleted or written while many were loaded is not stored", function(bed)
    local cache = bed.cache
    local values, failed, _, flags = cache:rememberMulti({ "a", "b", "c" }, 60, function(keys)
        bed.redis:call("DEL", "app:a")
        cache:set("b", "newer", 60)
        return loader({})(keys)
    end)
    assert.same({ a = "a", b = "newer", c = "c" }, values)
    assert.same({ {}, { a = "unstored" } }, { failed, flags })
    assert.same({ b = "newer", c = "c" }, (cache:getMulti({ "a", "b", "c" })))
    local seen = {}
    values, failed, _, flags = cache:rememberMulti({ "a", "d" }, 60, function(keys)
        if #seen == 0 then bed.redis:call("DEL", "app:a") end
        return loader(seen)(keys)
    end, { reloads = 1 })
    assert.same({ a = "a", d = "d" }, values)
    assert.same({ { "a d", "a" }, {}, {} }, { seen, failed, flags })
end)

case("rememberMulti publishes what it has before it waits for others", function(bed)
    local other, cache = bed.other(), bed.cache
    local values, failed, seen = nil, nil, {}
    other:remember("b", 60, function()
        within(4, function()
            values, failed = cache:rememberMulti({ "a", "b", "c" }, 60, loader(seen),
                { waitTimeout = 0.4 })
        end)
        assert.same({ a = "a", c = "c" }, (cache:getMulti({ "a", "b", "c" })))
        local mine, _, _, flags = cache:rememberMulti({ "a", "b" }, 60, loader(seen),
            { waitTimeout = 0.4, onTimeout = "load" })
        assert.same({ { a = "a", b = "b" }, { b = "unstored" } }, { mine, flags })
        return "other's"
    end)
    assert.same({ a = "a", c = "c" }, values)
    assert.same({ b = "timeout" }, codes(failed))
    assert.same({ "a c", "b" }, seen)
    assert.equal("other's", (cache:get("b")))
end)

case("within their grace window old values stand in for a loader of many that fails", function(bed)
    local cache = bed.open({ grace = 60, background = false })
    local function are_stale()
        return select(3, cache:get("a")) == "stale" and select(3, cache:get("b")) == "stale"
    end
    cache:setMulti({ a = "old a", b = "old b" }, 0.01)
    bed.wait_until(are_stale, 2, "the end of the ttls")
    local seen
    local values, failed, _, flags = cache:rememberMulti({ "a", "b", "c" }, 60,
        function(_, ctx)
            seen = { a = ctx.stale.a.value, b = ctx.stale.b.value, c = ctx.stale.c }
            return { a = ctx.notModified, c = "new" }, { b = "down" }
        end)
    assert.same({ a = "old a", b = "old b" }, seen)
    assert.same({ a = "old a", b = "old b", c = "new" }, values)
    assert.same({ {}, { b = "stale" } }, { failed, flags })
    assert.same({ value = "old a", source = "redis" }, group.report(cache:get("a")))
end)

case("without Redis rememberMulti loads for itself, or says so", function(bed)
    local cache = bed.open({ commandTimeout = 0.2 })
    cache:set("a", 1, 60)
    bed.silence(true)
    local values, failed, _, flags = cache:rememberMulti({ "a", "b" }, 60, loader({}))
    local _, refused = cache:rememberMulti({ "c", "d" }, 60, never, { strict = true })
    bed.silence(false)
    assert.same({ { a = "a", b = "b" }, {} }, { values, failed })
    assert.same({ a = "degraded", b = "degraded" }, flags)
    assert.is_not_nil(({ timeout = 1, unavailable = 1 })[refused.c.code], refused.c.code)
end)

case("cancel ends a call for many keys, its loads and its waits", function(bed)
    local other, cache = bed.other(), bed.cache
    local values, failed
    other:remember("b", 60, function()
        values, failed = cache:rememberMulti({ "a", "b", "c" }, 60, function(keys)
            assert.is_true(cache:cancel(7) >= 2)
            return loader({})(keys)
        end, { cancelTag = 7 })
        return 1
    end)
    assert.same({}, values)
    assert.same({ a = "cancelled", b = "cancelled", c = "cancelled" }, codes(failed))
end)

case("what rememberMulti has found near it does not ask for again", function(bed)
    local cache = bed.open({ near = true })
    cache:rememberMulti({ "a", "b", "n" }, 60, function() return { a = 1, b = 2 } end)
    local function is_near()
        cache:rememberMulti({ "a", "b", "n" }, 60, never)
        local before = cache:stats().requests
        local values, _, negatives = cache:rememberMulti({ "a", "b", "n" }, 60, never)
        assert.same({ { a = 1, b = 2 }, { n = true } }, { values, negatives })
        return cache:stats().requests == before
    end
    bed.wait_until(is_near, 2, "near copies")
    bed.redis:call("DEL", "app:a")
    bed.wait_until(function()
        return cache:rememberMulti({ "a", "b" }, 60, function() return { a = 3 } end).a == 3
    end, 2, "the news")
    assert.same({ a = 3, b = 2 }, (cache:rememberMulti({ "a", "b" }, 60, never)))
end)

case("bad arguments of rememberMulti raise, and nothing is sent", function(bed)
    local cache = bed.cache
    cache:get("k")
    local before = cache:stats().requests
    local function raises(text, ...) group.raises(text, cache.rememberMulti, cache, ...) end
    raises("bad argument 'keys' to rememberMulti", "k", 60, never)
    raises("at 2", { "k", 5 }, 60, never)
    raises("bad argument 'fn' to rememberMulti", { "k" }, 60, nil)
    raises("it holds 'timeout'", { "k" }, { timeout = 1 }, never)
    raises("bad argument 'opts' to rememberMulti", { "k" }, 60, never, 5)
    raises("unknown option 'primed'", { "k" }, 60, never, { primed = true })
    raises("bad option 'prime'", { "k" }, 60, never, { prime = 1 })
    assert.matches("called with a dot",
        select(2, pcall(cache.rememberMulti, { "k" }, 60, never)), 1, true)
    assert.equal(before, cache:stats().requests)
    assert.equal(0, bed.redis:call("EXISTS", "app:k"))
end)

light("others see what rememberMulti has loaded while it still waits", function(bed)
    local other, cache, values = bed.other(), bed.cache, nil
    bed.together({
        function()
            other:remember("b", 60, function()
                bed.wait_until(function() return other:get("c") ~= nil end, 2, "c")
                return "other's"
            end)
        end,
        function()
            bed.wait_until(function()
                return bed.redis:call("EXISTS", "app:b") == 1
            end, 2, "the lease of b")
            values = cache:rememberMulti({ "a", "b", "c" }, 60, loader({}),
                { waitTimeout = clock.scaled(5) })
        end,
    })
    assert.same({ a = "a", b = "other's", c = "c" }, values)
end)

light("light threads with overlapping keys load each of them once", function(bed)
    local cache, loads, threads, wrong = bed.cache, {}, {}, 0
    for i = 1, 20 do
        threads[i] = function()
            -- Opposite orders among them.
            local keys = {}
            for j = 0, 4 do keys[j + 1] = "k" .. ((i + (i % 2 == 0 and j or 4 - j)) % 10) end
            local values, failed = cache:rememberMulti(keys, 60, function(list)
                bed.pause(0.02)
                for _, key in ipairs(list) do loads[key] = (loads[key] or 0) + 1 end
                return loader({})(list)
            end, { waitTimeout = clock.scaled(10) })
            if next(failed) then wrong = wrong + 1 end
            for _, key in ipairs(keys) do
                if values[key] ~= key then wrong = wrong + 1 end
            end
        end
    end
    bed.together(threads)
    assert.equal(0, wrong)
    local expected = {}
    for i = 0, 9 do expected["k" .. i] = 1 end
    assert.same(expected, loads)
end)

light("who waits for a load of many that fails is told its error, and loads no more", function(bed)
    local cache, runs, threads, told = bed.cache, 0, {}, {}
    for i = 1, 5 do
        threads[i] = function()
            local _, failed = cache:rememberMulti({ "a", "b", "c" }, 60, function()
                runs = runs + 1
                bed.pause(0.1)
                error("broken")
            end)
            told[i] = codes(failed)
        end
    end
    bed.together(threads)
    assert.equal(1, runs)
    for i = 1, 5 do
        assert.same({ a = "loaderFailed", b = "loaderFailed", c = "loaderFailed" }, told[i])
    end
end)

return cases
