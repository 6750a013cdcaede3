-- Cases (spec/support/api_cases.lua): the option bloom, and cache:bloom().

local assert = require("luassert")
local bloom = require("redcache.bloom")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, never = group.raises, group.report, group.never

-- Writers of these cases have ended before a filter is complete.
bloom.SETTLE, bloom.HELD = 0.03, 0.02

local FILTER = { keys = 1000, falseRate = 0.0001 }

local function list_of(...)
    local list, at = { ... }, 0
    return function()
        at = at + 1
        return list[at]
    end
end

-- Fills the filter with these keys and no others. In a cluster nothing is near before all masters
-- have been heard.
local function fill(bed, cache, ...)
    assert.equal(select("#", ...), cache:bloom():fill(list_of(...)))
    bed.wait_until(function() return not cache:bloom():has("nobody's") end, 3, "the filter")
end

local function guarded(bed, ...)
    local cache = bed.open({ near = true, bloom = FILTER })
    fill(bed, cache, ...)
    return cache
end

local FILTERED = { source = "bloom" }

case("a key that is none is answered without a command and without its loader", function(bed)
    local cache = bed.open({ near = true, bloom = FILTER, maxStale = 60 })
    fill(bed, cache, "here")
    assert.equal("complete", cache:bloom():state())
    assert.same(FILTERED, report(cache:get("gone"))) -- the filter is near from here on
    group.sends_at_most(bed, cache, 0, function()
        local before = cache:stats().filtered
        assert.same(FILTERED, report(cache:get("gone")))
        assert.same(FILTERED, report(cache:get("other", { copy = true })))
        assert.same(FILTERED, report(cache:remember("gone", 9, never)))
        assert.same(FILTERED, report(cache:rememberForever("gone", never)))
        assert.same({ [3] = "bloom", [5] = "filtered" }, { cache:get("gone", { why = true }) })
        assert.same({ [3] = "bloom", [5] = "filtered" },
            { cache:remember("gone", 9, never, { why = true }) })
        assert.is_false(cache:bloom():has("gone"))
        local values, failed, negatives = cache:getMulti({ "gone", "lost", "gone" })
        assert.same({ {}, {}, { gone = true, lost = true } }, { values, failed, negatives })
        values, failed, negatives = cache:rememberMulti({ "gone", "lost" }, 9, never)
        assert.same({ {}, {}, { gone = true, lost = true } }, { values, failed, negatives })
        assert.equal(10, cache:stats().filtered - before)
    end)
    assert.equal(0, cache:stats().loads)
    assert.is_true(cache:bloom():has("here"))
    assert.same({ value = 1, source = "loader" },
        report(cache:remember("here", 9, function() return 1 end)))
end)

case("explain tells what the filter says", function(bed)
    local cache = guarded(bed, "here")
    assert.is_nil((cache:get("gone")))
    local told = cache:explain("gone")
    assert.same({ "bloom", "filtered" }, { told.source, told.why })
    assert.matches("'gone' has no value: the filter of keys", told.text, 1, true)
    assert.equal("neverStored", cache:explain("here").why)
end)

case("reads that ask for Redis' own word do not ask the filter", function(bed)
    local cache = guarded(bed)
    assert.same(FILTERED, report(cache:get("k")))
    bed.redis:call("SET", "app:k", "by somebody else")
    for _, opts in ipairs({ { near = false }, { fresh = true }, { version = true },
        { reads = "replica" } }) do
        assert.equal("by somebody else", (cache:get("k", opts)))
    end
    assert.same({ k = "by somebody else" }, (cache:getMulti({ "k" }, { fresh = true })))
    assert.same(FILTERED, report(cache:get("k")))
    assert.is_true(cache:exists("k"))
end)

-- What stores a value under KEY, by name. In a cluster rename and copy want one slot.
local KEY, FROM = "{t}k", "{t}from"
local function one() return 1 end
local function one_of_many() return { [KEY] = 1 } end
local WRITERS = {
    set = function(c) return c:set(KEY, 1) end,
    setBehind = function(c) return c:setBehind(KEY, 1) end,
    setMulti = function(c) return c:setMulti({ [KEY] = 1, l = 2 }) end,
    add = function(c) return c:add(KEY, 1) end,
    getSet = function(c) return not select(2, c:getSet(KEY, 1)) end,
    update = function(c) return c:update(KEY, one) end,
    incr = function(c) return c:incr(KEY) end,
    decr = function(c) return c:decr(KEY) end,
    incrFloat = function(c) return c:incrFloat(KEY) end,
    put = function(c) return c:put(KEY, 9, one) end,
    putMulti = function(c) return c:putMulti({ KEY }, 9, one_of_many)[KEY] end,
    remember = function(c) return c:remember(KEY, 9, one) end,
    rememberForever = function(c) return c:rememberForever(KEY, one) end,
    rememberMulti = function(c) return c:rememberMulti({ KEY, "l" }, 9, one_of_many)[KEY] end,
    prime = function(c) return c:rememberMulti({ "l" }, 9, one_of_many, { prime = true }) end,
    loader = function(c) return c:loader(one_of_many):get(KEY) end,
    warm = function(c)
        local key = KEY
        return c:warm(function()
            local given = key
            key = nil
            return given, given and 1
        end)
    end,
    rename = function(c) return c:set(FROM, 1) and c:rename(FROM, KEY) end,
    copy = function(c) return c:set(FROM, 1) and c:copy(FROM, KEY) end,
    nothing = function(c) return c:delete(KEY) == false end,
}

case("every call that stores a value puts its key in before", function(bed)
    local reader = guarded(bed)
    local writer = bed.other({ bloom = FILTER, writeBehind = { write = one } })
    for name, write in pairs(WRITERS) do
        bed.redis:call("FLUSHALL")
        fill(bed, reader)
        assert.is_false(reader:bloom():has(KEY), name)
        -- A near copy goes before the filter, and one from the round before may still stand.
        bed.wait_until(function() return reader:get(KEY) == nil end, 5, "the news of the flush")
        writer:bloom():state() -- knows this filter
        assert.is_truthy(write(writer), name)
        bed.wait_until(function() return name == "nothing" or reader:bloom():has(KEY) end, 2, name)
        if name == "nothing" then -- the control
            assert.same(FILTERED, report(reader:get(KEY)))
        else
            bed.wait_until(function() return reader:get(KEY) end, 2, name)
        end
    end
end)

case("replace and cas put in the keys that they store", function(bed)
    bed.cache:set("k", 1) -- by somebody without a filter
    bed.cache:set("l", 1)
    local cache = guarded(bed)
    assert.is_true((cache:replace("k", 2)))
    local _, _, _, version = cache:get("l", { version = true })
    assert.is_true((cache:cas("l", version, 2)))
    assert.same({ k = 2, l = 2 }, (cache:getMulti({ "k", "l" })))
end)

case("a load of nothing, or one that is not stored, puts nothing in", function(bed)
    local reader, writer = guarded(bed), bed.other({ bloom = FILTER })
    assert.same({ source = "loader" }, report(writer:remember("k", 9, group.nothing)))
    assert.equal("unstored", select(4, writer:remember("l", 9, function() return 1, 0 end)))
    assert.equal("loaderFailed", (select(2, writer:remember("m", 9, never))).code)
    assert.same({ false, false, false }, { reader:bloom():has("k"), reader:bloom():has("l"),
        reader:bloom():has("m") })
end)

case("a filter that is not there, or not complete, says nothing", function(bed)
    local cache = bed.open({ near = true, bloom = FILTER })
    assert.equal("none", cache:bloom():state())
    assert.same({}, report(cache:get("k")))
    assert.is_true(cache:bloom():has("k") and cache:bloom():add("k"))
    local states = {}
    assert.equal(2, (cache:bloom():fill(function()
        states[#states + 1] = cache:bloom():state()
        states[#states + 1] = cache:bloom():has("k") and report(cache:get("gone")).source or "asked"
        if #states == 2 then cache:set("meanwhile", 1) end
        return #states < 6 and "k" .. #states or nil
    end)))
    assert.same({ "filling", "asked", "filling", "asked", "filling", "asked" }, states)
    assert.equal("complete", cache:bloom():state())
    bed.wait_until(function() return not cache:bloom():has("nobody's") end, 3, "the filter")
    assert.same({ value = 1, source = "redis" }, report(cache:get("meanwhile")))
    assert.same({ true, true, false }, { cache:bloom():has("k2"), cache:bloom():has("k4"),
        cache:bloom():has("k6") })
    assert.is_true(cache:bloom():clear())
    assert.same({ "none", true }, { cache:bloom():state(), cache:bloom():has("k6") })
    assert.is_false(cache:bloom():clear())
    assert.is_nil(bed.redis:call("GET", "app//bloom:0"))
end)

case("without an iterator the keys are those in Redis", function(bed)
    for i = 1, 60 do bed.cache:set("k" .. i, i) end
    local cache = bed.open({ near = true, bloom = FILTER })
    assert.is_true(cache:bloom():fill() >= 60)
    bed.wait_until(function() return not cache:bloom():has("k61") end, 3, "the filter")
    local values = cache:getMulti({ "k1", "k60", "k61" })
    assert.same({ k1 = 1, k60 = 60 }, values)
    assert.same(FILTERED, report(cache:get("k61")))
end)

case("what is evicted of a filter says nothing until it is filled again", function(bed)
    for _, name in ipairs({ "app//bloom:meta", "app//bloom:0" }) do
        local cache = guarded(bed, "here")
        assert.same(FILTERED, report(cache:get("gone")))
        bed.redis:call("DEL", name)
        bed.wait_until(function() return cache:bloom():has("gone") end, 3, "doubt")
        assert.is_true(cache:set("new", 1))
        assert.same({ value = 1, source = "redis" }, report(cache:get("new")))
        assert.same({}, report(cache:get("gone")))
        fill(bed, cache, "new")
        assert.same(FILTERED, report(cache:get("gone")))
        assert.same({ value = 1, source = "redis" }, report(cache:get("new", { near = false })))
        cache:close()
    end
end)

case("a filter that is filled anew loses no writer that goes by the old one", function(bed)
    local reader, writer = guarded(bed), bed.other({ bloom = FILTER })
    assert.is_true(writer:set("first", 1))
    fill(bed, reader, "first")
    assert.is_true(writer:set("second", 2)) -- what it knows is the one before
    -- The reader may go by a near copy from before that, for a while.
    bed.wait_until(function() return reader:get("second") == 2 end, 2, "the key")
end)

case("a fill that fails leaves a filter that says nothing", function(bed)
    local cache = guarded(bed, "here")
    local filter = cache:bloom()
    local count, err = filter:fill(function() return nil, "the source is away" end)
    assert.same({ nil, "loaderFailed" }, { count, err.code })
    assert.same({ "filling", true }, { filter:state(), filter:has("gone") })
    raises("bad argument 'iterator' to fill: it gives number", filter.fill, filter,
        function() return 7 end)
    local other = bed.other({ bloom = FILTER })
    count, err = filter:fill(function()
        assert(other:bloom():fill(list_of("theirs")))
        return nil
    end)
    assert.same({ nil, "conflict" }, { count, err.code })
    assert.equal("complete", filter:state())
    assert.is_true(filter:has("theirs"))
end)

case("a filter that cannot be written stores nothing", function(bed)
    bed.needs("lists")
    local cache = guarded(bed)
    bed.redis:call("DEL", "app//bloom:0")
    bed.redis:call("LPUSH", "app//bloom:0", "x")
    assert.same({ code = "redis" }, report(cache:set("k", 1)))
    assert.same({ nil, "redis" }, { cache:setMulti({ k = 1 }),
        select(2, cache:setMulti({ k = 1 })).k.code })
    assert.same({ code = "redis" }, report(cache:add("k", 1)))
    assert.same({ code = "redis" }, report(cache:incr("k")))
    assert.same({ code = "redis" }, report(cache:put("k", 9, one)))
    assert.same({ value = 1, source = "loader", flag = "unstored" },
        report(cache:remember("k", 9, one)))
    local values, failed = cache:putMulti({ "k" }, 9, function() return { k = 1 } end)
    assert.same({ nil, "redis" }, { values.k, failed.k.code })
    assert.same({ k = 1 }, (cache:rememberMulti({ "k" }, 9, function() return { k = 1 } end)))
    assert.equal(0, bed.redis:call("EXISTS", "app:k"))
end)

case("a filter tells what is wrong with its arguments, and sends nothing", function(bed)
    local cache = bed.open({ near = true, bloom = FILTER })
    local filter, before = cache:bloom(), cache:stats().requests
    raises("this cache has no filter of keys: open it with the option bloom", bed.cache.bloom,
        bed.cache)
    raises("this cache has no filter of keys", cache.bloom, cache:namespace("below"))
    raises("bad argument 'iterator' to fill", filter.fill, filter, 5)
    raises("bad argument 'iterator' to fill", filter.fill, filter, {})
    raises("bad argument 'keys' to add: string or list of strings expected", filter.add, filter, 5)
    raises("bad argument 'keys' to add", filter.add, filter)
    raises("bad argument 'keys' to add: list of strings expected, got number at 2", filter.add,
        filter, { "k", 5 })
    raises("bad argument 'key' to has", filter.has, filter, 5)
    for _, method in ipairs({ "state", "clear" }) do
        raises("unknown option 'x' to " .. method, filter[method], filter, { x = 1 })
    end
    raises("unknown option 'x' to fill", filter.fill, filter, nil, { x = 1 })
    raises("unknown option 'x' to add", filter.add, filter, "k", { x = 1 })
    raises("unknown option 'x' to has", filter.has, filter, "k", { x = 1 })
    assert.is_true(filter:add({}))
    for _, value in ipairs({ true, 5, {}, { keys = 0 }, { keys = 1.5 }, { keys = 1e9 },
        { keys = 5, falseRate = 0 }, { keys = 5, falseRate = 0.6 }, { keys = 5, x = 1 } }) do
        raises("bad option 'bloom' to namespace", cache.namespace, cache, "n", { bloom = value })
    end
    assert.equal(0, cache:stats().requests - before)
end)

cases.light("many who ask for keys that are none", function(bed)
    local cache, fns = guarded(bed, "here"), {}
    for i = 1, 50 do
        fns[i] = function()
            local value, err, source = cache:remember("gone" .. i, 9, never)
            assert.same({ nil, nil, "bloom" }, { value, err, source })
        end
    end
    bed.together(fns)
end)

return cases
