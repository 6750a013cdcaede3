--- What the public calls promise, as bodies that run under any scheduler: spec/redis/api_spec.lua
-- runs them blocking, spec/nginx/api_spec.lua inside requests.
--
-- What:   a list of { name, function(bed) }; the bed has
--
--             cache          a fresh one: namespace "app", no near cache
--             open(options)  another one of the same scheduler, closed at the end
--             other(options) a cache of another client, for which this Lua state is somebody else
--             redis          a foreign client (resp.lua)
--             silence(on)    Redis stands still, or goes on
--             pause(seconds), wait_until(condition, seconds, what)
--             together(fns)  runs them as light threads at once, and waits for all of them; only
--                            where is_light says so: cases.light are those that need it
--
-- Errors: a body throws; run() adds that nothing must be left: no waiter, no lease, no lock.

local assert = require("luassert")
local clock = require("spec.support.clock")
local ffi = require("ffi")
local posix = require("spec.support.posix")
local resp = require("spec.support.resp")

local cases = { light = {} }

local function case(name, body) cases[#cases + 1] = { name, body } end
local function light(name, body) cases.light[#cases.light + 1] = { name, body } end

local function never() error("the loader ran") end
local function nothing() return nil end

-- Three results as a list without holes in its middle; errors by their code.
local function report(value, err, source, flag)
    return { value = value, code = err and err.code, source = source, flag = flag }
end

-- Time is real: a bound is for machines that do something else as well.
local function within(seconds, fn)
    local took = clock.time(fn)
    assert.is_true(took < clock.scaled(seconds), "it took " .. took)
end

-- Single entries ----------------------------------------------------------------------------------

case("get tells a value from a miss, and delete a key from none", function(bed)
    assert.same({}, report(bed.cache:get("k")))
    assert.is_true(bed.cache:set("k", { 1, x = "y" }, 60))
    assert.same({ value = { 1, x = "y" }, source = "redis" }, report(bed.cache:get("k")))
    assert.equal(1, bed.redis:call("EXISTS", "app:k"))
    assert.is_true((bed.cache:delete("k")))
    assert.is_false((bed.cache:delete("k")))
    assert.same({}, report(bed.cache:get("k")))
end)

case("exists and ttl tell of values alone", function(bed)
    local cache = bed.cache
    assert.is_false((cache:exists("k")))
    assert.is_nil(cache:ttl("k"))
    cache:set("k", 1, 60)
    assert.is_true((cache:exists("k")))
    assert.is_true(cache:ttl("k") > 50 and cache:ttl("k") <= 60)
    cache:set("k", 1, require("redcache").FOREVER)
    assert.equal(require("redcache").FOREVER, cache:ttl("k"))
    assert.equal(-1, bed.redis:call("PTTL", "app:k"))
    cache:remember("n", 60, nothing)
    assert.same({ false, true }, { cache:exists("n") })
end)

case("a value is gone after its ttl", function(bed)
    bed.cache:set("k", 1, 0.05)
    assert.equal(1, (bed.cache:get("k")))
    bed.wait_until(function() return bed.cache:get("k") == nil end, 2, "the end of the value")
end)

case("a bad ttl is refused before anything happens", function(bed)
    for _, ttl in ipairs({ 0, -1, 0 / 0, math.huge, "60" }) do
        assert.equal("badTtl", report(bed.cache:set("k", 1, ttl)).code)
        assert.equal("badTtl", report(bed.cache:remember("k", ttl, never)).code)
        assert.equal("badTtl", report(bed.cache:put("k", ttl, never)).code)
    end
end)

case("bad arguments and options are errors that name them", function(bed)
    for text, fn in pairs({
        ["bad argument 'key' to get"] = function() bed.cache:get(1) end,
        ["bad argument 'value' to set"] = function() bed.cache:set("k", nil) end,
        ["bad argument 'fn' to remember"] = function() bed.cache:remember("k", 60, 1) end,
        ["unknown option 'leasettl' to remember: did you mean 'leaseTtl'?"] = function()
            bed.cache:remember("k", 60, never, { leasettl = 1 })
        end,
        ["bad option 'timeout' to get"] = function() bed.cache:get("k", { timeout = -1 }) end,
    }) do
        local ok, message = pcall(fn)
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
end)

case("values of any type come back as they went in, by every way", function(bed)
    local values = {
        true, false, "", "text", "a\0b\r\n\255", ("x"):rep(100000), 0, -1, 1.5, 1e300, 2 ^ 53,
        math.huge, {}, { 1, 2, 3 }, { a = { b = { c = false } } }, { [2.5] = 1 }, { 1, nil, 3 },
    }
    local reader = bed.other()
    for i, value in ipairs(values) do
        assert.is_true(bed.cache:set("s" .. i, value))
        assert.same({ value = value, source = "redis" }, report(reader:get("s" .. i)))
        assert.same({ value = value, source = "loader" },
            report(bed.cache:remember("r" .. i, 60, function() return value end)))
        assert.same({ value = value, source = "redis" },
            report(reader:remember("r" .. i, 60, never)))
    end
    for _, value in ipairs({ 9007199254740993LL, 18446744073709551615ULL }) do
        bed.cache:set("k", value)
        local got = reader:get("k")
        assert.equal(ffi.typeof(value), ffi.typeof(got))
        assert.is_true(got == value)
    end
end)

case("json and raw keep what they can say and refuse the rest", function(bed)
    local json, raw = bed.open({ codec = "json" }), bed.open({ codec = "raw" })
    assert.is_true(json:set("j", { a = { 1, "\0" } }))
    assert.same({ a = { 1, "\0" } }, (json:get("j")))
    assert.equal("encode", report(json:set("j", print)).code)
    assert.is_true(raw:set("r", "a\0\255"))
    assert.equal("a\0\255", (raw:get("r")))
    assert.equal("encode", report(raw:set("r", {})).code)
end)

case("a large value goes both ways", function(bed)
    local large = ("redcache"):rep(400000)
    assert.is_true(bed.cache:set("k", large))
    assert.is_true(bed.other():get("k") == large)
    assert.equal("tooLarge", report(bed.cache:set("k", large:rep(3))).code)
end)

-- Loads -------------------------------------------------------------------------------------------

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
    assert.is_truthy(err.traceback:find("api_cases.lua", 1, true))
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
    within(1, function()
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
    -- Three times its life, which a busy machine does not starve a worker for; a lease that ends
    -- would let the value go unstored.
    assert.same({ value = "v", source = "loader" },
        report(bed.cache:remember("k", 60, function()
            bed.pause(2)
            return "v"
        end, { leaseTtl = 0.6 })))
end)

case("within its grace window an old value stands in for a loader that fails", function(bed)
    local cache = bed.open({ grace = 60 })
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
        within(2, function()
            waiting = report(bed.cache:remember("k", 60, never, { waitTimeout = 0.1 }))
            loading = report(bed.cache:remember("k", 60, function() return "mine" end,
                { waitTimeout = 0.1, onTimeout = "load" }))
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

-- Many keys ---------------------------------------------------------------------------------------

case("getMulti, setMulti and deleteMulti treat every key by itself", function(bed)
    local cache = bed.cache
    assert.same({ true, {} }, { cache:setMulti({ a = 1, b = false, c = { "x" } }, 60) })
    cache:remember("n", 60, nothing)
    local values, failed, negatives = cache:getMulti({ "a", "b", "c", "n", "missing", "a" })
    assert.same({ a = 1, b = false, c = { "x" } }, values)
    assert.same({}, failed)
    assert.same({ n = true }, negatives)
    local ok
    ok, failed = cache:setMulti({ d = 1, e = print }, { d = 60 })
    assert.is_false(ok)
    assert.equal("encode", failed.e.code)
    assert.equal(4, cache:deleteMulti({ "a", "b", "c", "d", "missing" }))
    assert.same({ {}, {}, { n = true } }, { cache:getMulti({ "a", "b", "c", "d", "n" }) })
    assert.same({ {}, {}, {} }, { cache:getMulti({}) })
end)

case("thousands of keys go in one call, and come back near as well", function(bed)
    local cache, map, keys = bed.open({ near = true }), {}, {}
    for i = 1, 3000 do
        keys[i] = "k" .. i
        map[keys[i]] = i
    end
    assert.is_true((cache:setMulti(map, 60)))
    local values, failed = cache:getMulti(keys)
    assert.same({}, failed)
    local wrong = 0
    for key, value in pairs(map) do wrong = wrong + (values[key] == value and 0 or 1) end
    assert.equal(0, wrong)
    local few = { "k1", "k2", "k3" }
    assert.same({ k1 = 1, k2 = 2, k3 = 3 }, (cache:getMulti(few)))
    assert.is_not_nil(({ l0 = 1, near = 1 })[select(3, cache:get("k1"))])
    assert.equal(3000, cache:deleteMulti(keys))
    assert.is_nil((cache:get("k1")))
end)

case("namespaces are prefixes with options of their own", function(bed)
    local inner = bed.cache:namespace("users", { ttl = 7, codec = "raw" })
    inner:set("k", "v")
    assert.equal(1, bed.redis:call("EXISTS", "app:users:k"))
    assert.is_true(bed.redis:call("PTTL", "app:users:k") <= 7000)
    assert.is_nil((bed.cache:get("k")))
    assert.equal("v", (inner:get("k")))
    assert.equal("encode", report(inner:set("k", 1)).code)
end)

-- How long entries live ---------------------------------------------------------------------------

case("touch only lengthens, expire sets, persist takes the end away", function(bed)
    local cache, FOREVER = bed.cache, require("redcache").FOREVER
    local function lives(from, to)
        local left = cache:ttl("k")
        assert.is_true(left > from and left <= to, left)
    end
    cache:set("k", 1, 10)
    assert.is_true(cache:touch("k", 5))
    lives(5, 10)
    assert.is_true(cache:touch("k", 50))
    lives(40, 50)
    assert.is_true(cache:touch("k")) -- the cache's ttl
    lives(290, 300)
    assert.is_true(cache:expire("k", 20))
    lives(10, 20)
    assert.is_true(cache:expireAt("k", os.time() + 100))
    lives(80, 100)
    assert.is_true(cache:persist("k"))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:touch("k", 5))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:expire("k", 5))
    lives(0, 5)
    assert.is_true(cache:touch("k", FOREVER))
    assert.equal(FOREVER, cache:ttl("k"))
    assert.is_true(cache:expireAt("k", 1))
    assert.is_nil((cache:get("k")))
end)

case("what lives longer keeps its grace window behind its life", function(bed)
    local cache = bed.open({ grace = 100 })
    cache:set("k", 1, 10)
    assert.is_true(cache:touch("k", 30))
    local left = bed.redis:call("PTTL", "app:k")
    assert.is_true(left > 120000 and left <= 130000, left)
    assert.is_true(cache:expire("k", 0.05))
    bed.wait_until(function() return select(3, cache:get("k")) == "stale" end, 5, "the window")
end)

case("a load, its end and 'no such thing' have no life to change", function(bed)
    local cache, other = bed.cache, bed.other()
    local function change_all(key)
        return { other:touch(key), other:expire(key, 60), other:expireAt(key, os.time() + 60),
            other:persist(key) }
    end
    local NONE = { false, false, false, false }
    assert.same(NONE, change_all("k"))
    cache:remember("k", 60, function()
        assert.same(NONE, change_all("k"))
        return 1
    end)
    assert.same({ true, true, true, true }, change_all("k"))
    cache:remember("none", 60, nothing)
    assert.same(NONE, change_all("none"))
    cache:remember("failed", 60, function() error("no", 0) end, { errorTtl = 5 })
    assert.same(NONE, change_all("failed"))
    bed.redis:call("SET", "app:text", "")
    assert.same({ true, true, true, true }, change_all("text"))
end)

case("wrong lives are told, and nothing is sent", function(bed)
    local cache = bed.cache
    local sent = cache:stats().requests
    for _, ttl in ipairs({ 0, -1, 0 / 0, "60" }) do
        assert.equal("badTtl", report(cache:touch("k", ttl)).code)
        assert.equal("badTtl", report(cache:expire("k", ttl)).code)
    end
    assert.equal("badTtl", report(cache:expire("k")).code)
    for text, fn in pairs({
        ["bad argument 'key' to touch"] = function() cache:touch(1) end,
        ["bad argument 'key' to expire"] = function() cache:expire({}, 1) end,
        ["bad argument 'key' to expireAt"] = function() cache:expireAt(nil, 1) end,
        ["bad argument 'key' to persist"] = function() cache:persist() end,
        ["bad argument 'at' to expireAt: seconds since 1970"] = function()
            cache:expireAt("k", os.time() * 1000)
        end,
        ["unknown option 'ttl' to persist"] = function() cache:persist("k", { ttl = 1 }) end,
    }) do
        local ok, message = pcall(fn)
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
    assert.equal(sent, cache:stats().requests)
end)

case("a near copy lives as long as its entry does now", function(bed)
    local cache, other = bed.open({ near = true }), bed.other()
    local function is_near() return ({ near = true, l0 = true })[select(3, cache:get("k"))] end
    cache:set("k", 1, 60)
    bed.wait_until(is_near, 5, "a near copy")
    assert.is_true(cache:expire("k", 0.1))
    bed.wait_until(function() return cache:get("k") == nil end, 5, "its end")
    cache:set("k", 1, 0.5)
    bed.wait_until(is_near, 5, "a near copy")
    assert.is_true(other:touch("k", 60))
    bed.pause(0.6)
    assert.equal(1, (cache:get("k")))
end)

-- Counters ----------------------------------------------------------------------------------------

case("a counter begins with init and its ttl, and keeps that ttl", function(bed)
    local cache = bed.cache
    assert.equal(1, (cache:incr("n")))
    assert.equal("1", bed.redis:call("GET", "app:n"))
    assert.is_true(cache:ttl("n") > 290 and cache:ttl("n") <= 300)
    assert.equal(7, (cache:incr("n", 6, { ttl = 9, init = 100 })))
    assert.is_true(cache:ttl("n") > 290)
    assert.equal(5, (cache:decr("n", 2)))
    assert.equal(15, (cache:incr("m", 5, { ttl = 0.5, init = 10 })))
    local left = bed.redis:call("PTTL", "app:m")
    assert.is_true(left > 0 and left <= 500, left)
    assert.equal(-1, (cache:decr("f", nil, { ttl = require("redcache").FOREVER })))
    assert.equal(-1, bed.redis:call("PTTL", "app:f"))
end)

case("a counter stays within its bounds, and tells what it is", function(bed)
    local cache = bed.cache
    assert.equal(10, (cache:incr("n", 1, { init = 9, max = 10 })))
    local value, err = cache:incr("n", 1, { max = 10 })
    assert.same({ code = "bound" }, report(value, err))
    assert.equal(10, err.value)
    assert.equal("could not count 'n': it would leave its bounds", err.message)
    assert.equal("bound", report(cache:decr("n", 10, { min = 1 })).code)
    value, err = cache:incr("none", 5, { max = 4 })
    assert.same({ code = "bound" }, report(value, err))
    assert.is_nil(err.value)
    assert.same({ "10", 0 }, { bed.redis:call("GET", "app:n"),
        bed.redis:call("EXISTS", "app:none") })
end)

case("a counter is exact in all of its 64 bits", function(bed)
    local cache, most = bed.cache, 9223372036854775807LL
    assert.is_true(cache:incr("n", most) == most)
    assert.is_true(cache:decr("n") == most - 1)
    assert.is_true(cache:incr("n", 1, { max = 2 ^ 53 - 1 }) == nil)
    assert.equal("9223372036854775806", bed.redis:call("GET", "app:n"))
    assert.equal("redis", report(cache:incr("n", 2)).code)
    assert.equal("9223372036854775806", bed.redis:call("GET", "app:n"))
    local low = cache:decr("n", most - 1)
    assert.equal(0, low)
    assert.is_true(cache:incr("n", 2 ^ 53 - 1) == 2 ^ 53 - 1)
    assert.is_true(cache:incr("n", 2) == 9007199254740993LL)
end)

case("a counter may have a fraction", function(bed)
    local cache = bed.cache
    assert.equal(0.5, (cache:incrFloat("f", 0.5)))
    assert.equal(-1.25, (cache:incrFloat("f", -1.75)))
    assert.equal("bound", report(cache:incrFloat("f", 2, { max = 0.7 })).code)
    assert.equal(2.75, (cache:incrFloat("g", nil, { init = 1.75 })))
    assert.equal("redis", report(cache:incr("f")).code)
end)

case("a counter takes the place of a load and of nothing, never of a value", function(bed)
    local cache = bed.cache
    cache:set("value", { 1 })
    cache:set("text", "text")
    assert.equal("redis", report(cache:incr("value")).code)
    assert.equal("redis", report(cache:incr("text", 1, { init = 5 })).code)
    assert.same({ 1 }, (cache:get("value")))
    cache:remember("no", 60, nothing)
    assert.equal(1, (cache:incr("no")))
    -- What was being loaded is not stored over it.
    cache:remember("load", 60, function()
        assert.equal(1, (bed.other():incr("load")))
        return "loaded"
    end)
    assert.equal("1", bed.redis:call("GET", "app:load"))
end)

case("wrong counts are errors that name the argument, and send nothing", function(bed)
    local cache, least = bed.cache, -0x7fffffffffffffffLL - 1LL
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to incr"] = function() cache:incr(1) end,
        ["bad argument 'n' to incr: whole number"] = function() cache:incr("n", 1.5) end,
        ["bad argument 'n' to incrFloat: finite"] = function() cache:incrFloat("n", 1 / 0) end,
        ["bad argument 'key' to decr"] = function() cache:decr(nil, 1) end,
        ["bad argument 'n' to decr"] = function() cache:decr("n", least) end,
        ["with init it is beyond 64 bits"] = function()
            cache:incr("n", 9223372036854775807LL, { init = 1 })
        end,
        ["bad option 'init' to incr: whole"] = function() cache:incr("n", 1, { init = 0.5 }) end,
        ["bad option 'min' to incr: it is above max"] = function()
            cache:incr("n", 1, { min = 2, max = 1 })
        end,
        ["bad option 'ttl' to decr"] = function() cache:decr("n", 1, { ttl = 0 }) end,
        ["unknown option 'maximum' to incr"] = function() cache:incr("n", 1, { maximum = 1 }) end,
    }) do
        local ok, message = pcall(fn)
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
    assert.equal(sent, cache:stats().requests)
end)

case("codec number reads counters as numbers, and what is no number as a miss", function(bed)
    local cache = bed.open({ codec = "number" })
    cache:incr("n", 41)
    assert.same({ value = 41, source = "redis" }, report(cache:get("n")))
    assert.equal(42, (cache:incr("n")))
    for _, value in ipairs({ 0, -7, 1.5, 1e300, 2 ^ 53, 9223372036854775807LL }) do
        assert.is_true(cache:set("v", value))
        assert.is_true(cache:get("v") == value)
    end
    assert.equal("encode", report(cache:set("v", "7")).code)
    bed.redis:call("SET", "app:v", "7 days")
    assert.same({}, report(cache:get("v")))
    assert.equal("text", cache:namespace("in", { codec = "raw" }):set("k", "text")
        and bed.other():namespace("in"):get("k"))
    assert.is_false((pcall(bed.open, { codec = "number", plain = false })))
    assert.is_false((pcall(bed.open, { codec = "number", grace = 1 })))
end)

case("near copies of a counter follow it", function(bed)
    local near = bed.open({ near = true, codec = "number" })
    near:incr("n", 5)
    bed.wait_until(function() return select(3, near:get("n")) ~= "redis" end, 5, "a near copy")
    assert.equal(6, (near:incr("n")))
    assert.equal(6, (near:get("n")))
    bed.other():incr("n")
    bed.wait_until(function() return near:get("n") == 7 end, 5, "the news")
end)

-- Near --------------------------------------------------------------------------------------------

case("a near value is served from memory until Redis says it changed", function(bed)
    local cache = bed.open({ near = true })
    assert.equal("loader", report(cache:remember("k", 60, function() return { "v" } end)).source)
    bed.wait_until(function()
        return ({ near = 1, l0 = 1 })[select(3, cache:get("k"))]
    end, 2, "a near hit")
    assert.same({ value = { "v" }, source = "l0" }, report(cache:remember("k", 60, never)))
    assert.same({ value = { "v" }, source = "l0" }, report(cache:get("k")))
    bed.redis:call("DEL", "app:k")
    -- The push has to arrive while the caller does something else.
    bed.wait_until(function() return cache:get("k") == nil end, 0.9, "the invalidation")
    assert.is_nil((cache:get("k", { fresh = true })))
end)

case("a caller's own write is seen at once, near or not", function(bed)
    local cache = bed.open({ near = true })
    for i = 1, 100 do
        cache:set("k", i, 60)
        assert.equal(i, (cache:get("k")))
        assert.equal(i, (cache:get("k")))
    end
    cache:delete("k")
    assert.is_nil((cache:get("k")))
end)

-- Locks -------------------------------------------------------------------------------------------

case("tryLock takes a free lock and does not wait for one that is held", function(bed)
    local lock = assert(bed.cache:tryLock("job", { ttl = 5 }))
    assert.equal(lock.token, bed.redis:call("GET", "app:lock:{job}"))
    assert.is_true(lock:valid())
    assert.is_true(lock:held())
    assert.is_false(lock:lost())
    assert.is_true(lock:ttl() > 2 and lock:ttl() <= 5)
    local other = bed.other()
    within(1, function()
        assert.equal("notAcquired", report(other:tryLock("job")).code)
    end)
    assert.is_true(lock:release())
    assert.equal("notHeld", report(lock:release()).code)
    local second = assert(other:tryLock("job"))
    assert.is_true(second:release())
end)

case("a lock is renewed, extended, and grows its fence", function(bed)
    local lock = assert(bed.cache:tryLock("job", { ttl = 0.6 }))
    local fence = lock.fence
    bed.pause(1.5)
    assert.is_true(lock:valid())
    assert.is_true(lock:extend(30))
    assert.is_true(lock:ttl() > 20)
    assert.equal("badTtl", report(lock:extend(0)).code)
    assert.equal("recursive", report(lock:acquire()).code)
    assert.is_true(lock:release())
    assert.is_true(lock:acquire())
    assert.is_true(lock.fence > fence)
    assert.is_true(lock:release())
end)

case("a lock that was deleted is known to be lost without asking", function(bed)
    local told = 0
    local lock = assert(bed.cache:tryLock("job", { onLost = function() told = told + 1 end }))
    bed.redis:call("DEL", "app:lock:{job}")
    bed.wait_until(function() return lock:lost() end, 2, "the loss")
    assert.is_false(lock:valid())
    assert.equal(1, told)
    assert.equal("notHeld", report(lock:release()).code)
end)

case("withLock hands on what the function returns or throws, and gives the lock back", function(bed)
    assert.same({ 1, nil, 3 }, { bed.cache:withLock("job", {}, function(lock)
        assert.is_true(lock:valid())
        bed.pause(0.01)
        return 1, nil, 3
    end) })
    local ok, message = pcall(bed.cache.withLock, bed.cache, "job", {}, function() error("up") end)
    assert.is_false(ok)
    assert.is_truthy(message:find("up", 1, true))
    assert.equal(0, bed.redis:call("EXISTS", "app:lock:{job}"))
    assert.equal("lockLost", report(bed.cache:withLock("job", {}, function(lock)
        bed.redis:call("DEL", "app:lock:{job}")
        bed.wait_until(function() return lock:lost() end, 2, "the loss")
        return "done"
    end)).code)
end)

case("who waits for a lock gets it when it ends, or notAcquired in time", function(bed)
    local other = bed.other()
    local held = assert(other:tryLock("job", { ttl = 0.5, renew = false }))
    within(2, function()
        assert.equal("notAcquired", report(bed.cache:lock("job", { wait = 0.1 }):acquire()).code)
    end)
    local lock = bed.cache:lock("job", { wait = 10 })
    within(3, function() assert.is_true(lock:acquire()) end)
    assert.is_true(held:lost())
    assert.is_true(lock:release())
end)

-- Time and ends -----------------------------------------------------------------------------------

case("a call ends in time while Redis is silent, and all is well afterwards", function(bed)
    bed.cache:set("k", 1)
    bed.silence(true)
    within(1.5, function()
        assert.equal("timeout", report(bed.cache:get("k", { timeout = 0.1 })).code)
    end)
    bed.silence(false)
    bed.wait_until(function() return bed.cache:get("k") == 1 end, 10, "Redis' answer")
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
        assert.equal(0, bed.redis:call("EXISTS", "app:lock:{job}"))
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

-- Light threads -----------------------------------------------------------------------------------

light("50 light threads that miss at once have one loader", function(bed)
    local runs, results, threads = 0, {}, {}
    for i = 1, 50 do
        threads[i] = function()
            results[i] = report(bed.cache:remember("k", 60, function()
                runs = runs + 1
                bed.pause(0.1)
                return "v"
            end))
        end
    end
    bed.together(threads)
    assert.equal(1, runs)
    for i = 1, 50 do assert.same({ "v" }, { results[i].value, results[i].code }) end
end)

light("who waits for a loader that fails is told its error", function(bed)
    local codes, threads = {}, {}
    for i = 1, 5 do
        threads[i] = function()
            codes[i] = report(bed.cache:remember("k", 60, function()
                bed.pause(0.1)
                error("broken")
            end)).code
        end
    end
    bed.together(threads)
    local expected = {}
    for i = 1, 5 do expected[i] = "loaderFailed" end
    assert.same(expected, codes)
end)

light("500 light threads read and write at once, and each gets its own answer", function(bed)
    local wrong, threads = 0, {}
    for i = 1, 500 do
        threads[i] = function()
            if not bed.cache:set("k" .. i, i) or bed.cache:get("k" .. i) ~= i then
                wrong = wrong + 1
            end
        end
    end
    bed.together(threads)
    assert.equal(0, wrong)
end)

light("while one waits the others go on", function(bed)
    local other, ticks, is_over = bed.other(), 0, false
    local held = assert(other:tryLock("job", { ttl = 30 }))
    bed.together({
        function()
            report(bed.cache:lock("job", { wait = 0.3 }):acquire())
            is_over = true
        end,
        function()
            while not is_over do
                bed.pause(0.005)
                ticks = ticks + 1
            end
        end,
    })
    held:release()
    assert.is_true(ticks >= 5, "only " .. ticks .. " ticks")
end)

light("a lock is handed from one light thread to the next", function(bed)
    local inside, most, count, threads = 0, 0, 0, {}
    for i = 1, 20 do
        threads[i] = function()
            bed.cache:withLock("job", { wait = 20 }, function()
                inside = inside + 1
                most = math.max(most, inside)
                bed.pause(0.002)
                inside = inside - 1
                count = count + 1
            end)
        end
    end
    bed.together(threads)
    assert.same({ 1, 20 }, { most, count })
end)

light("cancel ends a call that waits", function(bed)
    local other, result = bed.other(), nil
    local held = assert(other:tryLock("job", { ttl = 30 }))
    within(5, function()
        bed.together({
            function()
                result = report(bed.cache:lock("job", { wait = 20, cancelTag = 7 }):acquire())
            end,
            function()
                bed.wait_until(function() return bed.cache:cancel(7) == 1 end, 5, "the waiter")
            end,
        })
    end)
    held:release()
    assert.same({ code = "cancelled" }, result)
end)

light("close ends what waits with closed, and gives leases and locks back", function(bed)
    local other = bed.other()
    local held = assert(bed.cache:tryLock("job", { ttl = 30 }))
    local waiting, loading
    within(5, function()
        bed.together({
            function() waiting = report(other:lock("job", { wait = 20 }):acquire()) end,
            function()
                loading = report(other:remember("k", 60, function()
                    bed.pause(0.3)
                    return "v"
                end, { leaseTtl = 30 }))
            end,
            function()
                bed.pause(0.1)
                other:close()
            end,
        })
    end)
    held:release()
    assert.same({ code = "closed" }, waiting)
    assert.equal("v", loading.value)
    bed.wait_until(function() return bed.redis:call("EXISTS", "app:k") == 0 end, 2, "its end")
end)

light("a recursion is one of a light thread, not of the worker", function(bed)
    local second
    bed.together({
        function()
            bed.cache:remember("k", 60, function()
                bed.pause(0.1)
                return "v"
            end)
        end,
        function() second = report(bed.cache:remember("k", 60, never)) end,
    })
    assert.equal("v", second.value)
end)

-- Running -----------------------------------------------------------------------------------------

-- A client of the masters of a cluster that asks them in turns until one owns the key.
local function of_cluster(ports)
    local clients, self = {}, {}
    for i, port in ipairs(ports) do clients[i] = resp.connect({ port = port }) end

    function self.call(_, ...)
        local value, err
        for _, client in ipairs(clients) do
            value, err = client:try(...)
            if err and not tostring(err):find("MOVED", 1, true) then error(err, 2) end
            if not err and (...) ~= "FLUSHALL" then return value end
        end
        if err then error(err, 2) end
        return value
    end

    function self.close()
        for _, client in ipairs(clients) do client:close() end
    end

    return self
end

local function make_bed(settings)
    local redcache = require("redcache")
    local bed, opened = { is_light = settings.together ~= nil }, {}
    bed.pause, bed.together = settings.pause, settings.together
    bed.redis = settings.ports and of_cluster(settings.ports)
        or resp.connect({ port = settings.port })

    function bed.open(options)
        local all = {
            url = settings.url, scheduler = settings.scheduler, driver = settings.driver,
            namespace = "app", near = false, connectTimeout = clock.scaled(2),
            commandTimeout = clock.scaled(2),
        }
        for name, value in pairs(options or {}) do all[name] = value end
        local cache = redcache.new(all)
        opened[#opened + 1] = cache
        return cache
    end

    -- By the server's other address it has nothing to do with us, recursion included.
    function bed.other(options)
        options = options or {}
        options.url = settings.other_url
        return bed.open(options)
    end

    function bed.silence(on)
        for _, pid in ipairs(settings.pids or { settings.pid }) do
            posix.C.kill(pid, on and posix.SIGSTOP or posix.SIGCONT)
        end
    end

    function bed.wait_until(condition, seconds, what)
        local deadline = clock.deadline(seconds)
        while not condition() do
            if clock.now() > deadline then error(what .. " did not come in time", 2) end
            bed.pause(0.002)
        end
    end

    function bed.close()
        for _, cache in ipairs(opened) do cache:close() end
        bed.redis:close()
    end

    bed.cache = bed.open()
    return bed
end

-- Nothing runs any more: a slot, lease or lock that is still there has leaked.
local function check_rest(bed)
    local names = { "waiting", "activeLeases", "activeLocks", "inFlight" }
    bed.wait_until(function()
        local stats = bed.cache:stats()
        for _, name in ipairs(names) do
            if stats[name] ~= 0 then return false end
        end
        return true
    end, 2, "the end of all slots, leases and locks")
end

--- Runs one case; throws when it fails. Settings: url, other_url (the same server by another
-- address), port, pid (Redis'; of a cluster's masters: ports, pids), scheduler, driver, pause,
-- together (nil: no light threads).
function cases.run(one, settings)
    local bed = make_bed(settings)
    bed.redis:call("FLUSHALL")
    local ok, err = xpcall(function()
        one[2](bed)
        check_rest(bed)
    end, function(cause)
        if type(cause) == "table" then cause = cause.message or cause end
        return debug.traceback(tostring(cause), 2)
    end)
    bed.silence(false)
    bed.close()
    if not ok then error(err, 0) end
end

return cases
