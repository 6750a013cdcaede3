-- Cases (spec/support/api_cases.lua): values that are loaded again in the background (refreshAfter,
-- grace), under each scheduler. What is due, and when, is spec/redis/freshness_spec.lua's.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local report = group.report

-- By which age a value is due: not for long, or at once. A case that stores and reads by the
-- cache's option, which is the first, and reads once by the second one starts one load, however
-- late the machine lets it go on.
local PATIENT, DUE = 600, { refreshAfter = 0.01 }

-- A loader that gives 1, 2, 3, ... and the number of its runs.
local function counting()
    local count = 0
    return function()
        count = count + 1
        return count
    end, function() return count end
end

-- Reads until the value is `wanted`; no read may be a miss, nor fail. Where nobody works behind the
-- callers' backs a job runs before a call that asks Redis: a read of a near copy is none.
local function read_until(bed, cache, wanted, read)
    bed.wait_until(function()
        cache:exists("nothing")
        local value, err, source = read()
        assert.is_nil(err)
        assert.is_not_nil(source)
        return value == wanted
    end, 10, "the value " .. wanted)
end

for _, near in ipairs({ false, true }) do
    local where = near and ", with a near cache" or ""

    case("a value that is due is served, and loaded again in the background" .. where,
        function(bed)
            local cache = bed.open({ background = true, near = near, refreshAfter = PATIENT })
            local fn, runs = counting()
            local function read(opts) return cache:remember("k", 60, fn, opts) end
            assert.same({ value = 1, source = "loader" }, report(read()))
            assert.equal(1, (read()))
            bed.pause(0.05)
            local value, err, source = read(DUE)
            assert.same({ 1, nil }, { value, err })
            assert.is_true(source ~= "stale" and source ~= "loader", source)
            read_until(bed, cache, 2, read)
            assert.equal(2, runs())
        end)

    case("a stale value is served, and loaded again in the background" .. where, function(bed)
        local cache = bed.open({ background = true, near = near, grace = 60 })
        local fn, runs = counting()
        local function read() return cache:remember("k", 0.2, fn) end
        assert.same({ value = 1, source = "loader" }, report(read()))
        bed.wait_until(function() -- get loads nothing; it keeps a near copy
            local value, _, source = cache:get("k")
            assert.equal(1, value)
            return source == "stale"
        end, 10, "the end of its ttl")
        assert.same({ value = 1, source = "stale" }, report(read()))
        bed.wait_until(function()
            assert.is_true(read() >= 1)
            return runs() >= 2
        end, 10, "a second load")
    end)

    case("rememberMulti loads the keys that are due again, in one run" .. where, function(bed)
        local cache = bed.open({ background = true, near = near, refreshAfter = PATIENT })
        local asked, generation = {}, 0
        local function fn(keys)
            table.sort(keys)
            asked[#asked + 1] = table.concat(keys, ",")
            generation = generation + 1
            local values = {}
            for _, key in ipairs(keys) do values[key] = key .. generation end
            return values
        end
        local keys = { "a", "b" }
        assert.same({ a = "a1", b = "b1" }, (cache:rememberMulti(keys, 60, fn)))
        assert.same({ a = "a1", b = "b1" }, (cache:rememberMulti(keys, 60, fn)))
        bed.pause(0.05)
        local values, failed, _, flags = cache:rememberMulti({ "a", "b", "c" }, 60, fn, DUE)
        assert.same({ { a = "a1", b = "b1", c = "c2" }, {}, {} }, { values, failed, flags })
        bed.wait_until(function()
            cache:exists("nothing")
            values = cache:rememberMulti(keys, 60, fn)
            -- Of a cluster each master stores its part when it comes to that.
            return values.a == "a3" and values.b == "b3"
        end, 10, "the next values")
        assert.same({ "a,b", "c", "a,b" }, asked)
    end)

    case("a loader object loads the keys that are due again" .. where, function(bed)
        local cache = bed.open({ background = true, near = near, refreshAfter = PATIENT })
        local generation = 0
        local function fn(keys)
            generation = generation + 1
            local values = {}
            for _, key in ipairs(keys) do values[key] = generation end
            return values
        end
        local loader = cache:loader(fn, { ttl = 60 })
        assert.equal(1, (loader:get("k")))
        assert.equal(1, (loader:get("k")))
        bed.pause(0.05)
        local eager = cache:loader(fn, { ttl = 60, refreshAfter = DUE.refreshAfter })
        assert.equal(1, (eager:get("k")))
        read_until(bed, cache, 2, function()
            local value, err = loader:get("k")
            return value, err, "loader"
        end)
    end)
end

case("a wrapped function is called again with the same arguments", function(bed)
    local cache = bed.open({ background = true, near = false, refreshAfter = PATIENT })
    local seen = {}
    local function fn(...)
        seen[#seen + 1] = table.concat({ ... }, "+")
        return #seen
    end
    local wrapped = cache:wrap("f", fn, { ttl = 60 })
    assert.equal(1, (wrapped(1, 2)))
    bed.pause(0.05)
    assert.equal(1, (cache:wrap("f", fn, { ttl = 60, refreshAfter = DUE.refreshAfter })(1, 2)))
    read_until(bed, cache, 2, function() return wrapped(1, 2) end)
    assert.same({ "1+2", "1+2" }, seen)
end)

case("the loader of a refresh gets the value, and may keep it", function(bed)
    local cache = bed.open({ background = true, near = false, refreshAfter = 0.2 })
    local seen
    local function fn(_, ctx)
        seen = ctx
        return ctx.value and ctx.notModified or "v"
    end
    assert.equal("v", (cache:remember("k", 60, fn)))
    bed.pause(0.3)
    local left = bed.redis:call("PTTL", "app:k")
    bed.wait_until(function()
        assert.equal("v", (cache:remember("k", 60, fn)))
        return seen.value == "v" and bed.redis:call("PTTL", "app:k") > left
    end, 10, "a longer life")
    assert.is_true(seen.age >= 0.2, seen.age)
    assert.equal(8, #seen.version)
    assert.equal("v", (cache:get("k"))) -- one block in front of it, not two
end)

case("a refresh that fails is counted, tried seldom, and the value stays", function(bed)
    local cache = bed.open({ background = true, near = false, refreshAfter = 0.1 })
    local runs = 0
    local function fn()
        runs = runs + 1
        if runs == 1 then return "v" end
        error("planted")
    end
    assert.equal("v", (cache:remember("k", 60, fn)))
    bed.pause(0.15)
    bed.wait_until(function()
        assert.same({ "v" }, { (cache:remember("k", 60, fn)) })
        return cache:stats().backgroundFailed == 1
    end, 10, "a failed job")
    for _ = 1, 20 do
        assert.equal("v", (cache:remember("k", 60, fn)))
        bed.pause(0.01)
    end
    assert.equal(2, runs) -- the lease that failed stands for leaseTtl
    assert.equal(1, cache:stats().loadErrors)
end)

case("a job has neither the time-out nor the tag of the call that found its value due",
    function(bed)
        local cache = bed.open({ background = true, near = false, refreshAfter = PATIENT })
        local fn, runs = counting()
        local opts = { cancelTag = 77, timeout = 5 }
        assert.equal(1, (cache:remember("k", 60, fn, opts)))
        bed.pause(0.05)
        assert.equal(1, (cache:remember("k", 60, fn,
            { cancelTag = 77, timeout = 5, refreshAfter = DUE.refreshAfter })))
        cache:cancel(77)
        bed.wait_until(function()
            local value, err = cache:remember("k", 60, fn, opts)
            assert.is_true(value == 1 or value == 2, tostring(err))
            cache:cancel(77)
            return value == 2
        end, 10, "the next value")
        assert.equal(2, runs())
    end)

case("set, setMulti and put tell their age, too; getMulti reads what they store", function(bed)
    local cache = bed.open({ background = true, near = false, refreshAfter = 0.1 })
    local fn = counting()
    assert(cache:set("s", 0, 60))
    cache:setMulti({ m = 0 }, 60)
    assert.equal(0, (cache:put("p", 60, function() return 0 end)))
    assert.equal(true, (cache:add("a", 0, 60)))
    assert.equal(0, (cache:update("u", function() return 0 end, 60)))
    local keys = { "s", "m", "p", "a", "u" }
    assert.same({ s = 0, m = 0, p = 0, a = 0, u = 0 }, (cache:getMulti(keys)))
    for _, key in ipairs(keys) do
        assert.is_true((cache:exists(key)))
        local left = cache:ttl(key)
        assert.is_true(left > 50 and left <= 60)
        assert.equal(0, (cache:get(key, { version = true })))
    end
    bed.pause(0.15)
    for _, key in ipairs(keys) do
        assert.equal(0, (cache:remember(key, 60, fn)), key)
        bed.wait_until(function() return cache:remember(key, 60, fn) ~= 0 end, 10, key)
    end
end)

case("without background the caller that gets the lease loads", function(bed)
    local cache = bed.open({ background = false, near = false, refreshAfter = PATIENT })
    local fn, runs = counting()
    assert.equal(1, (cache:remember("k", 60, fn)))
    bed.pause(0.05)
    assert.same({ value = 2, source = "loader" }, report(cache:remember("k", 60, fn, DUE)))
    assert.same({ value = 2, source = "redis" }, report(cache:remember("k", 60, fn)))
    assert.equal(2, runs())
    assert.equal(0, cache:stats().backgroundDone)
    local named = cache:namespace("n", { refreshAfter = 0.05 })
    assert.equal(3, (named:remember("k", 60, fn)))
    bed.pause(0.1)
    assert.same({ value = 4, source = "loader" }, report(named:remember("k", 60, fn)))
end)

case("a value that is gone or new by then is no business of a refresh", function(bed)
    local cache, other = bed.open({ background = true, near = false, refreshAfter = 0.1 }),
        bed.other()
    local held = false
    local function fn()
        if held then
            assert(other:set("k", "new", 60))
            return "late"
        end
        return "old"
    end
    assert.equal("old", (cache:remember("k", 60, fn)))
    bed.pause(0.15)
    held = true
    bed.wait_until(function()
        return cache:remember("k", 60, fn) == "new"
    end, 10, "the value of the set")
    assert.equal("new", (other:get("k")))
end)

case("with plain there is no header that tells the age: the options are refused", function(bed)
    local plain = bed.open({ plain = true, codec = "raw" })
    for _, own in ipairs({ { refreshAfter = 1 }, { xfetchBeta = 1 } }) do
        local text = "bad option '" .. next(own) .. "' to %s: with plain = true"
        for name, call in pairs({
            remember = function() return plain:remember("k", 60, group.never, own) end,
            rememberMulti = function()
                return plain:rememberMulti({ "k" }, 60, group.never, own)
            end,
            put = function() return plain:put("k", 60, group.never, own) end,
            wrap = function() return plain:wrap("f", group.never, own) end,
            loader = function() return plain:loader(group.never, own) end,
            namespace = function() return plain:namespace("n", own) end,
            new = function()
                local all = { plain = true, codec = "raw" }
                for option, value in pairs(own) do all[option] = value end
                return bed.open(all)
            end,
        }) do
            group.raises(text:format(name), call)
        end
    end
    assert.is_nil((plain:get("k")))
    -- A namespace with plain inherits none of them.
    local named = bed.open({ refreshAfter = 1, xfetchBeta = 1 }):namespace("p",
        { plain = true, codec = "raw" })
    assert.equal("v", (named:remember("k", 60, function() return "v" end)))
    assert.equal("v", bed.redis:call("GET", "app/p:k"))
end)

light("a hundred readers of a value that is due lead to one load", function(bed)
    local cache = bed.open({ background = true, near = false, refreshAfter = PATIENT })
    local runs, is_loaded = 0, false
    local function fn()
        runs = runs + 1
        local own = runs
        if own > 1 then bed.pause(0.2) end
        is_loaded = own > 1
        return own
    end
    assert.equal(1, (cache:remember("k", 60, fn)))
    bed.pause(0.25)
    -- The newer value is not due again, however long the readers take.
    local old = { refreshAfter = 0.2 }
    local readers = {}
    for i = 1, 100 do
        readers[i] = function()
            for _ = 1, 10 do
                local value, err = cache:remember("k", 60, fn, not is_loaded and old or nil)
                assert.is_true(value == 1 or value == 2, tostring(err))
                bed.pause(0.002)
            end
        end
    end
    bed.together(readers)
    bed.wait_until(function() return cache:remember("k", 60, fn) == 2 end, 10, "the next value")
    assert.equal(2, runs)
end)

light("callers that wait for one load share its value, not what stands in front", function(bed)
    local cache = bed.open({ near = false, refreshAfter = 10, grace = 60 })
    local readers, values = {}, {}
    for i = 1, 5 do
        readers[i] = function()
            values[i] = cache:remember("k", 60, function()
                bed.pause(0.1)
                return { "v" }
            end)
        end
    end
    bed.together(readers)
    for i = 1, 5 do assert.same({ "v" }, values[i]) end
end)

light("softTimeout waits for the newer value, and no longer", function(bed)
    local cache = bed.open({ background = true, near = false, grace = 60, leaseTtl = 10 })
    local takes, runs = 0, 0
    local function fn()
        runs = runs + 1
        if takes > 0 then bed.pause(takes) end
        return runs
    end
    local function read(soft)
        return report(cache:remember("k", 0.1, fn, { softTimeout = soft }))
    end
    assert.same({ value = 1, source = "loader" }, read(0))
    bed.pause(0.15)
    takes = 0.05
    assert.same({ value = 2, source = "loader" }, read(5))
    bed.pause(0.15)
    takes = 1
    assert.same({ value = 2, source = "stale" }, read(0.05))
    bed.wait_until(function() return cache:get("k") == 3 end, 10, "the load that went on")
    assert.equal(3, runs)
end)

return cases
