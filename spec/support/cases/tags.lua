-- Cases (spec/support/api_cases.lua): the option tags, ctx:tag, and invalidateTags.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, raises, report = group.never, group.raises, group.report

local SOFT = { soft = true }

local function tagged(...) return { tags = { ... } } end

-- A value that a caller has made.
local function make(value)
    return function() return value end
end

-- Every reader without a loader finds nothing under the key.
local function assert_void(cache, key)
    assert.same({}, report(cache:get(key)))
    assert.same({}, (cache:getMulti({ key })))
    assert.is_false((cache:exists(key)))
    assert.equal(0, (cache:exists({ key })))
    assert.is_nil((cache:ttl(key)))
end

-- Nor, where its near copies are its own, once it has heard of the invalidation of somebody else.
local function assert_voided(bed, cache, key, near)
    if near then
        bed.wait_until(function() return cache:get(key) == nil end, 5, "the news")
    end
    assert_void(cache, key)
end

-- A writer of each kind, which stores `value` with these tags.
local WRITERS = {
    set = function(cache, key, value, opts) return cache:set(key, value, 60, opts) end,
    setMulti = function(cache, key, value, opts)
        return cache:setMulti({ [key] = value }, 60, opts)
    end,
    add = function(cache, key, value, opts) return cache:add(key, value, 60, opts) end,
    replace = function(cache, key, value, opts)
        cache:set(key, "before")
        return cache:replace(key, value, 60, opts)
    end,
    cas = function(cache, key, value, opts)
        cache:set(key, "before")
        local _, _, _, version = cache:get(key, { version = true })
        return cache:cas(key, version, value, 60, opts)
    end,
    getSet = function(cache, key, value, opts)
        return select(2, cache:getSet(key, value, 60, opts)) == nil
    end,
    update = function(cache, key, value, opts)
        return cache:update(key, make(value), 60, opts) == value
    end,
    remember = function(cache, key, value, opts)
        return cache:remember(key, 60, make(value), opts) == value
    end,
    rememberForever = function(cache, key, value, opts)
        return cache:rememberForever(key, make(value), opts) == value
    end,
    rememberMulti = function(cache, key, value, opts)
        return cache:rememberMulti({ key }, 60, function() return { [key] = value } end,
            opts)[key] == value
    end,
    put = function(cache, key, value, opts)
        return cache:put(key, 60, make(value), opts) == value
    end,
    putMulti = function(cache, key, value, opts)
        return cache:putMulti({ key }, 60, function() return { [key] = value } end,
            opts)[key] == value
    end,
    warm = function(cache, key, value, opts) return cache:warm({ [key] = value }, opts) == 1 end,
}

for name, write in pairs(WRITERS) do
    case(name .. " stores a value that any of its tags voids", function(bed)
        for _, near in ipairs({ false, true }) do
            local cache, other = bed.open({ near = near }), bed.other({ near = near })
            for _, tag in ipairs({ "news", "front page" }) do
                assert.is_true((write(cache, "k", "v", tagged("news", "front page"))))
                for _ = 1, 3 do
                    assert.equal("v", (cache:get("k")))
                    assert.equal("v", (other:get("k")))
                end
                assert.is_true(cache:exists("k") and cache:exists({ "k" }) == 1)
                assert.is_not_nil((other:ttl("k")))
                assert.equal(1, (cache:invalidateTags({ tag })))
                assert_void(cache, "k")
                bed.wait_until(function() return other:get("k") == nil end, 5, "the news")
                assert_void(other, "k")
                cache:delete("k")
            end
        end
    end)
end

case("what is near is served with its tags near, and asks nobody", function(bed)
    local cache = bed.open({ near = true })
    cache:set("k", "v", 60, tagged("a", "b", "c"))
    bed.wait_until(function() return select(3, cache:get("k")) == "l0" end, 5, "a copy")
    group.sends_at_most(bed, cache, 0, function()
        for _ = 1, 10 do
            assert.same({ value = "v", source = "l0" }, report(cache:get("k")))
            assert.same({ value = "v", source = "l0" }, report(cache:remember("k", 60, never)))
            assert.same({ k = "v" }, (cache:getMulti({ "k" })))
        end
    end)
    -- A generation that is lost voids, and never comes back.
    bed.redis:call("DEL", "app//tag:b")
    bed.wait_until(function() return cache:get("k") == nil end, 5, "the loss")
    cache:set("other", 1, 60, tagged("b"))
    assert_void(cache, "k")
    assert.same({ value = "new", source = "loader" }, report(cache:remember("k", 60, make("new"))))
    assert.same({ value = "new" }, { value = (cache:get("k")) })
end)

case("near = false, fresh and a replica's reader ask for generations each time", function(bed)
    local cache = bed.open({ near = true })
    cache:set("k", "v", 60, tagged("a"))
    bed.wait_until(function() return select(3, cache:get("k")) == "l0" end, 5, "a copy")
    for _, opts in ipairs({ { near = false }, { fresh = true }, { reads = "replica" } }) do
        assert.equal("v", (cache:get("k", opts)))
    end
    bed.redis:call("DEL", "app//tag:a")
    for _, opts in ipairs({ { near = false }, { fresh = true }, { reads = "replica" } }) do
        assert.is_nil((cache:get("k", opts)))
        assert.is_nil((cache:getMulti({ "k" }, opts)).k)
    end
end)

case("a tag that is invalidated during a load voids what was loaded", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, other = bed.open({ near = near }), bed.other({ near = near })
        local how = {
            function() return cache:remember("k", 60, function()
                assert.is_not_nil((other:invalidateTags({ "a" })))
                return "old"
            end, tagged("a", "b")) end,
            function() return cache:remember("k", 60, function(_, ctx)
                assert.is_true((ctx:tag("a")))
                other:invalidateTags({ "a" })
                return "old"
            end) end,
            function() return cache:rememberMulti({ "k" }, 60, function(_, ctx)
                assert.is_true((ctx:tag("a", "c")))
                other:invalidateTags({ "c" })
                return { k = "old" }
            end, tagged("b")).k end,
            function() return cache:put("k", 60, function()
                other:invalidateTags({ "b" })
                return "old"
            end, tagged("a", "b")) end,
            function() return (cache:update("k", function()
                other:invalidateTags({ "b" })
                return "old"
            end, 60, tagged("a", "b"))) end,
        }
        for _, load in ipairs(how) do
            for _ = 1, 2 do -- at the second time the tags have generations
                assert.equal("old", (load()))
                assert_voided(bed, cache, "k", near)
                assert_voided(bed, other, "k", near)
            end
            assert.same({ value = "new", source = "loader" },
                report(cache:remember("k", 60, make("new"))))
            assert.equal("new", (other:get("k")))
            cache:delete("k")
        end
    end
end)

case("a soft invalidation makes stale what has a grace window, and voids the rest", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, other = bed.open({ near = near }), bed.other({ near = near })
        cache:set("graced", "v", 60, { tags = { "a" }, grace = 100 })
        cache:set("plain", "v", 60, tagged("a"))
        for _ = 1, 2 do
            assert.equal("v", (other:get("graced")))
            assert.equal("v", (other:get("plain")))
        end
        assert.equal(1, (cache:invalidateTags({ "a", "unknown", "a" }, SOFT)))
        bed.wait_until(function() return other:get("plain") == nil end, 5, "the news")
        assert_void(other, "plain")
        for _ = 1, 2 do
            assert.same({ value = "v", source = "stale" }, report(other:get("graced")))
        end
        assert.equal(0, (other:ttl("graced")))
        assert.is_true((other:exists("graced")))
        assert.same({ graced = "v" }, (other:getMulti({ "graced" })))
        bed.wait_until(function()
            return cache:remember("graced", 60, make("new"), { tags = { "a" }, grace = 100 })
                == "new"
        end, 5, "the refresh")
        assert.equal("new", (other:remember("graced", 60, never, { near = false })))
        assert.equal("redis", (select(3, other:get("graced", { near = false }))))
        assert.equal(1, (cache:invalidateTags({ "a" })))
        bed.wait_until(function() return other:get("graced") == nil end, 5, "the news")
    end
end)

case("rememberMulti loads what was softly invalidated, and what is void", function(bed)
    local cache, runs = bed.open({ grace = 100 }), 0
    local function load(keys)
        runs = runs + 1
        local map = {}
        for _, key in ipairs(keys) do map[key] = runs end
        return map
    end
    local opts = tagged("a")
    assert.same({ x = 1, y = 1 }, (cache:rememberMulti({ "x", "y" }, 60, load, opts)))
    assert.same({ x = 1, y = 1 }, (cache:rememberMulti({ "x", "y" }, 60, load, opts)))
    cache:invalidateTags({ "a" }, SOFT)
    bed.wait_until(function()
        local values = cache:rememberMulti({ "x", "y" }, 60, load, opts)
        return values.x == 2 and values.y == 2
    end, 5, "the refresh")
    cache:invalidateTags({ "a" })
    assert.same({ x = 3, y = 3 }, (cache:rememberMulti({ "x", "y" }, 60, load, opts)))
    assert.same({ x = 3, y = 3 }, (cache:getMulti({ "x", "y" })))
end)

case("tags count once per namespace, whatever their names are", function(bed)
    local cache = bed.cache
    local inner = cache:namespace("inner")
    local names = { "a", "{a}", "a:b", "a/b//tag:c", "\0\255", ("x"):rep(200), "%" }
    cache:set("k", 1, 60, { tags = names })
    inner:set("k", 2, 60, tagged("a"))
    assert.equal(1, (cache:get("k")))
    assert.equal(1, (inner:invalidateTags({ "a" })))
    assert.equal(1, (cache:get("k")))
    assert_void(inner, "k")
    for _, name in ipairs(names) do
        cache:set("k", 1, 60, { tags = names })
        assert.equal(1, (cache:get("k")))
        assert.equal(1, (cache:invalidateTags({ name })))
        assert_void(cache, "k")
    end
    assert.equal(#names - 1, (cache:invalidateTags(names)))
    assert.equal(0, (cache:invalidateTags({})))
    -- They are no keys of the cache, nor of one without a namespace.
    cache:set("k", 1, 60, { tags = names })
    assert.same({ "k" }, (cache:keys("*")))
    for _, key in ipairs(bed.open({ namespace = "" }):keys("*")) do
        assert.is_nil(key:find("//tag:", 1, true), key)
    end
end)

case("a tag lives for tagTtl from when it was last begun or renewed", function(bed)
    local cache = bed.open({ tagTtl = 1000 })
    cache:set("k", 1, 60, tagged("a"))
    local function left() return bed.redis:call("PTTL", "app//tag:a") end
    assert.is_true(left() > 900000 and left() <= 1000000)
    bed.redis:call("PEXPIRE", "app//tag:a", 600000)
    cache:set("k", 1, 60, tagged("a"))
    assert.is_true(left() <= 600000)
    bed.redis:call("PEXPIRE", "app//tag:a", 400000)
    cache:remember("other", 60, make(1), tagged("a"))
    assert.is_true(left() > 900000)
    assert.equal(1, (cache:get("k")))
    bed.open({ near = true, tagTtl = 2100 }):set("k", 1, 60, tagged("a"))
    assert.is_true(left() > 1900000)
    -- One that is over voids.
    bed.redis:call("PEXPIRE", "app//tag:a", 1)
    bed.pause(0.01)
    assert_void(cache, "k")
end)

case("what stands under a tag's key and is no generation voids, and is an error to writers",
    function(bed)
        local cache = bed.cache
        for _, text in ipairs({ "text", "" }) do
            cache:set("k", 1, 60, tagged("a"))
            bed.redis:call("SET", "app//tag:a", text)
            assert_void(cache, "k")
            assert.same({ code = "redis" }, report(cache:set("k", 1, 60, tagged("a"))))
            assert.same({ code = "redis" }, report(cache:put("k", 60, make(1), tagged("a"))))
            assert.same({ value = 2, source = "loader", flag = "unstored" },
                report(cache:remember("new", 60, make(2), tagged("a"))))
            local values, _, _, flags = cache:rememberMulti({ "new" }, 60,
                function() return { new = 3 } end, tagged("a"))
            assert.same({ { new = 3 }, { new = "unstored" } }, { values, flags })
            assert.equal("redis", (select(2, cache:putMulti({ "new" }, 60,
                function() return { new = 3 } end, tagged("a")))).new.code)
            local _, failed = cache:setMulti({ new = 3 }, 60, tagged("a"))
            assert.equal("redis", failed.new.code)
            assert_void(cache, "new")
            assert.equal(0, (cache:invalidateTags({ "a" }, SOFT)))
            assert.equal(1, (cache:invalidateTags({ "a" })))
            assert.is_true((cache:set("k", 1, 60, tagged("a"))))
            assert.equal(1, (cache:get("k")))
            cache:invalidateTags({ "a" })
        end
    end)

case("a void entry is no value to update, getSet and getDelete, and can be replaced", function(bed)
    local cache = bed.cache
    local function void()
        cache:set("k", "old", 60, tagged("a"))
        cache:invalidateTags({ "a" })
    end
    void()
    local value, _, _, version = cache:get("k", { version = true })
    assert.is_nil(value)
    assert.is_true((cache:cas("k", version, "new")))
    assert.equal("new", (cache:get("k")))
    void()
    assert.equal("new", (cache:update("k", function(old)
        assert.is_nil(old)
        return "new"
    end)))
    void()
    assert.same({}, report(cache:getSet("k", "new")))
    void()
    assert.same({}, report(cache:getDelete("k")))
    -- A write without the option takes the tags off.
    cache:set("k", 1, 60, tagged("a"))
    cache:set("k", 2)
    cache:invalidateTags({ "a" })
    assert.equal(2, (cache:get("k")))
    -- touch and copy keep them.
    cache:set("{t}k", 1, 60, tagged("a"))
    cache:touch("{t}k", 100)
    cache:copy("{t}k", "{t}copy")
    assert.equal(1, (cache:get("{t}copy")))
    cache:invalidateTags({ "a" })
    assert_void(cache, "{t}k")
    assert_void(cache, "{t}copy")
end)

case("a refresh that fails serves nothing that its tags void", function(bed)
    local cache = bed.open({ grace = 100, background = false })
    cache:set("k", "old", 0.02, tagged("a"))
    bed.pause(0.05)
    assert.same({ value = "old", source = "stale" },
        report(cache:remember("k", 60, function() return nil, "down" end)))
    cache:invalidateTags({ "a" })
    assert.same({ code = "loaderFailed" },
        report(cache:remember("k", 60, function(_, ctx)
            assert.is_nil(ctx.value)
            return nil, "down"
        end)))
end)

case("no such thing has tags, too", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, other = bed.open({ near = near }), bed.other({ near = near })
        local opts, runs = { tags = { "a" }, negativeTtl = 60 }, 0
        local function ask(from)
            return report(from:remember("k", 60, function()
                runs = runs + 1
                return nil
            end, opts))
        end
        assert.same({ source = "loader" }, ask(cache))
        for _ = 1, 3 do
            assert.is_not_nil(ask(other).source)
            assert.is_not_nil((select(3, other:get("k"))))
            assert.same({ k = true }, (select(3, other:getMulti({ "k" }))))
            assert.same({ false, true }, { other:exists("k") })
        end
        assert.equal(0, (other:exists({ "k" })))
        assert.equal(1, runs)
        cache:invalidateTags({ "a" })
        bed.wait_until(function() return select(3, other:get("k")) == nil end, 5, "the news")
        assert.same({}, (select(3, other:getMulti({ "k" }))))
        assert.same({}, report(other:get("k", { version = true })))
        assert.same({ value = "v", source = "loader" }, report(other:remember("k", 60, make("v"))))
        cache:delete("k")
        -- Invalidated during the load.
        cache:remember("k", 60, function()
            other:invalidateTags({ "a" })
            return nil
        end, opts)
        assert.same({ value = "v", source = "loader" }, report(other:remember("k", 60, make("v"))))
        cache:delete("k")
    end
end)

case("an instant flush voids all of a namespace with generation = true", function(bed)
    for _, near in ipairs({ false, true }) do
        local opts = { near = near, generation = true, grace = 100, negativeTtl = 60 }
        local cache, other = bed.open(opts), bed.other(opts)
        local inner, number = cache:namespace("inner"), 0
        local plain = cache:namespace("plain", { codec = "number" })
        plain:set("n", 7, 60)
        inner:set("k", "inner", 60)
        for name, write in pairs(WRITERS) do
            number = number + 1
            assert.is_true((write(cache, name, number, tagged("a"))))
            assert.equal(number, (other:get(name)))
            assert.equal(number, (other:get(name)))
            assert.is_true((write(cache, "bare " .. name, number)))
        end
        cache:remember("none", 60, function() return nil end)
        assert.is_not_nil((select(3, other:get("none"))))
        assert.equal(1, (cache:flush({ instant = true })))
        bed.wait_until(function() return other:get("set") == nil end, 5, "the news")
        for name in pairs(WRITERS) do
            assert_void(cache, name)
            assert_void(other, "bare " .. name)
        end
        assert_void(other, "none")
        assert.equal("inner", (inner:get("k")))
        assert.equal(7, (plain:get("n")))
        assert.equal(0, (cache:flush({ instant = true })))
        assert.equal("new", (cache:remember("set", 60, make("new"))))
        assert.equal("new", (other:get("set")))
        assert.equal(1, (inner:flush({ instant = true })))
        assert_void(inner, "k")
        assert.equal("new", (other:get("set")))
        -- During a load.
        cache:remember("load", 60, function(_, ctx)
            for i = 1, 16 do ctx:tag("t" .. i) end
            other:flush({ instant = true })
            return "old"
        end)
        assert_voided(bed, cache, "load", near)
        cache:flush()
    end
    local bare = bed.cache
    raises("bad option 'instant' to flush: it needs a namespace with generation = true",
        bare.flush, bare, { instant = true })
    local cache = bed.open({ generation = true })
    for _, name in ipairs({ "batch", "rate", "dryRun" }) do
        raises("bad option '" .. name .. "' to flush", cache.flush, cache,
            { instant = true, [name] = name == "dryRun" or 1 })
    end
    raises("bad option 'generation' to new: with plain = true", bed.open,
        { generation = true, plain = true, codec = "raw" })
end)

case("tags tells the names of what has a value, and nothing of what has none", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, other = bed.open({ near = near, grace = 100 }), bed.other({ near = near })
        for name, write in pairs(WRITERS) do
            assert.is_true((write(cache, name, "v", tagged("b", "a"))))
            assert.same({ "b", "a" }, (other:tags(name)))
        end
        cache:remember("load", 60, function(_, ctx)
            ctx:tag("late", "b")
            return 1
        end, tagged("b"))
        assert.same({ "b", "late" }, (cache:tags("load")))
        cache:set("none", 1, 60)
        bed.redis:call("SET", "app:plain", "text")
        assert.same({ {}, {} }, { cache:tags("none"), (cache:tags("plain")) })
        assert.same({}, { cache:tags("absent") })
        cache:remember("negative", 60, make(nil), { tags = { "b" }, negativeTtl = 60 })
        assert.same({}, { cache:tags("negative") })
        cache:remember("running", 60, function()
            assert.same({}, { other:tags("running") })
            return 1
        end, tagged("b"))
        bed.redis:call("SET", "app:broken", "\251\1\1\3\1" .. ("\0"):rep(3) .. ("x"):rep(8)
            .. ("\0"):rep(8) .. "\193")
        assert.is_nil((cache:tags("broken")))
        -- What is void is no value, what is stale is one.
        cache:invalidateTags({ "b" }, SOFT)
        assert.same({ "b", "a" }, (cache:tags("set")))
        assert.same({ "b", "a" }, (other:tags("set", { reads = "replica" })))
        cache:invalidateTags({ "b" })
        assert.same({}, { cache:tags("set") })
        assert.same({}, { other:tags("set", { reads = "replica" }) })
        cache:flush()
    end
    local own = bed.open({ generation = true })
    own:set("k", 1, 60)
    assert.same({}, own:tags("k"))
    own:set("k", 1, 60, tagged("a"))
    assert.same({ "a" }, own:tags("k"))
    own:flush({ instant = true })
    assert.is_nil((own:tags("k")))
    local plain = bed.open({ plain = true, codec = "raw" })
    bed.redis:call("SET", "app:head", "\251\1\4" .. ("\0"):rep(21))
    assert.same({}, plain:tags("head"))
    for text, fn in pairs({
        ["bad argument 'key' to tags: string expected, got nil"] = function() own:tags() end,
        ["bad argument 'opts' to tags"] = function() own:tags("k", 1) end,
        ["unknown option 'near' to tags"] = function() own:tags("k", { near = false }) end,
        ["bad option 'timeout' to tags"] = function() own:tags("k", { timeout = 0 }) end,
    }) do
        raises(text, fn)
    end
    assert.same({ code = "tooLarge" }, report(own:tags(("x"):rep(70000))))
end)

-- What stands around a value, as Redis has it.
local function around(cache, key)
    local redis = cache:explain(key).redis
    return { redis.ttl, redis.grace, redis.loadTime, redis.codec }
end

-- Runs `act` whenever a function of redcache is called while fn runs.
local function during(module, name, act, fn)
    local original = module[name]
    module[name] = function(...)
        act()
        return original(...)
    end
    local ok, err = pcall(fn)
    module[name] = original
    if not ok then error(err, 0) end
end

case("addTags adds to what stands there, and changes nothing else", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, other = bed.open({ near = near }), bed.other({ near = near })
        for name, write in pairs(WRITERS) do
            assert.is_true((write(cache, name, "v", tagged("old"))))
            for _, tag in ipairs({ "old", "new", "newer" }) do
                write(cache, name, "v", tagged("old"))
                assert.equal("v", (other:get(name)))
                assert.is_true((cache:addTags(name, { "new", "old", "newer", "new" })))
                assert.same({ "old", "new", "newer" }, (other:tags(name)))
                assert.equal("v", (cache:get(name)))
                bed.wait_until(function() return other:get(name) == "v" end, 5, "the value")
                cache:invalidateTags({ tag })
                assert_void(cache, name)
                bed.wait_until(function() return other:get(name) == nil end, 5, "the news")
                assert_void(other, name)
                cache:delete(name)
            end
        end
    end
end)

case("addTags keeps value, life, grace window and load time, but no version", function(bed)
    local cache, plain = bed.open({ grace = 100 }), bed.open({ jitter = 0.5, codec = "json" })
    local FOREVER = require("redcache").FOREVER
    cache:set("graced", { 1 }, 60)
    cache:set("bare", { 1 }, 50, { grace = 0 })
    cache:set("forever", { 1 }, FOREVER, tagged("a"))
    cache:rememberForever("loaded for ever", make({ 1 }))
    cache:remember("loaded", 60, function()
        bed.pause(0.02)
        return { 1 }
    end)
    plain:set("json", { 1 }, 60)
    for _, key in ipairs({ "graced", "bare", "forever", "loaded for ever", "loaded", "json" }) do
        local reader = key == "json" and plain or cache
        local before, _, _, version = around(reader, key), nil, nil,
            select(4, reader:get(key, { version = true }))
        assert.is_true((reader:addTags(key, { "b" })))
        local after = around(reader, key)
        if before[1] ~= FOREVER then
            assert.is_true(after[1] <= before[1] and after[1] > before[1] - 20, after[1])
            before[1] = after[1]
        end
        assert.same(before, after)
        assert.same({ { 1 }, "redis" }, { (reader:get(key)), (select(3, reader:get(key))) })
        assert.is_false((reader:cas(key, version, 2)))
        -- Those that are there already are no change.
        local bytes = bed.redis:call("GET", "app:" .. key)
        assert.is_true((reader:addTags(key, { "b" })))
        assert.is_true((reader:addTags(key, {})))
        assert.equal(bytes, bed.redis:call("GET", "app:" .. key))
    end
    assert.same({ "a", "b" }, (cache:tags("forever")))
    -- What is stale stays so; its soft generation is the old one.
    cache:invalidateTags({ "a" })
    cache:set("soft", 1, 60, tagged("a"))
    cache:invalidateTags({ "a" }, SOFT)
    assert.is_true((cache:addTags("soft", { "a", "c" })))
    assert.same({ value = 1, source = "stale" }, report(cache:get("soft")))
    cache:invalidateTags({ "c" })
    assert_void(cache, "soft")
end)

case("addTags finds no value where there is none, and leaves alone what it cannot tag",
    function(bed)
        local cache, other = bed.open({ negativeTtl = 60 }), bed.other()
        assert.same({ value = false }, report(cache:addTags("absent", { "a" })))
        cache:remember("negative", 60, make(nil))
        assert.is_false((cache:addTags("negative", { "a" })))
        assert.equal(1, (cache:remember("running", 60, function()
            assert.is_false((other:addTags("running", { "a" })))
            return 1
        end)))
        assert.equal(1, (cache:get("running")))
        cache:set("void", 1, 60, tagged("b"))
        cache:invalidateTags({ "b" })
        assert.is_false((cache:addTags("void", { "a" })))
        assert_void(cache, "void")
        bed.redis:call("SET", "app:plain", "text")
        assert.same({ code = "decode" }, report(cache:addTags("plain", { "a" })))
        assert.equal("text", bed.redis:call("GET", "app:plain"))
        local many = {}
        for i = 1, 16 do many[i] = "t" .. i end
        cache:set("full", 1, 60, { tags = many })
        assert.is_true((cache:addTags("full", many)))
        assert.same({ code = "tooLarge" }, report(cache:addTags("full", { "t1", "more" })))
        assert.same(many, (cache:tags("full")))
        local own = bed.open({ generation = true })
        own:set("k", 1, 60)
        assert.is_true((own:addTags("k", many)))
        assert.same(many, (own:tags("k")))
        own:flush({ instant = true })
        assert_void(own, "k")
        assert.same({ code = "tooLarge" }, report(cache:addTags(("x"):rep(70000), { "a" })))
        local small = bed.open({ maxValue = 100 })
        small:set("k", ("v"):rep(80), 60)
        assert.same({ code = "tooLarge" }, report(small:addTags("k", { "a" })))
        assert.equal(("v"):rep(80), (small:get("k")))
    end)

case("what happens to a key or a tag while addTags works is never lost", function(bed)
    local swap, tags = require("redcache.swap"), require("redcache.tags")
    local cache, other = bed.open(), bed.other()
    -- Invalidated behind the look at the entry: what was read may be older.
    for _, at in ipairs({ { tags, "judge" }, { swap, "rewrite" } }) do
        for _, tag in ipairs({ "old", "new" }) do
            cache:set("k", 1, 60, tagged("old"))
            local count = 0
            during(at[1], at[2], function()
                count = count + 1
                if count == 1 then other:invalidateTags({ tag }) end
            end, function() cache:addTags("k", { "new" }) end)
            assert.is_true(count > 0)
            assert_void(cache, "k")
        end
    end
    -- Others write meanwhile: it begins again, so often and no more.
    local writes = 0
    cache:set("k", 0, 60)
    during(swap, "rewrite", function()
        if writes < 3 then
            writes = writes + 1
            other:set("k", writes, 60, tagged("w" .. writes))
        end
    end, function() assert.is_true((cache:addTags("k", { "new" }))) end)
    assert.equal(3, (cache:get("k")))
    assert.same({ "w3", "new" }, (cache:tags("k")))
    during(swap, "rewrite", function() other:set("k", "theirs", 60) end, function()
        assert.same({ code = "conflict" }, report(cache:addTags("k", { "x" }, { retries = 2 })))
    end)
    during(swap, "rewrite", function() other:delete("k") end, function()
        assert.is_false((cache:addTags("k", { "new" })))
    end)
    assert.is_nil((cache:get("k")))
end)

cases.light("addTags of light threads: none is lost", function(bed)
    local cache, fns = bed.open({ near = true }), {}
    cache:set("k", "v", 60, tagged("t1"))
    for i = 2, 16 do
        fns[#fns + 1] = function() assert.is_true((cache:addTags("k", { "t" .. i }))) end
    end
    bed.together(fns)
    assert.equal(16, #cache:tags("k"))
    for i = 1, 16 do assert.equal(1, (cache:invalidateTags({ "t" .. i }))) end
    assert_void(cache, "k")
end)

case("wrong arguments of addTags are errors that name them; nothing is sent", function(bed)
    local cache, many = bed.cache, {}
    for i = 1, 17 do many[i] = "t" .. i end
    cache:set("k", 1, 60)
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to addTags: string expected, got nil"] = function()
            cache:addTags()
        end,
        ["bad argument 'tags' to addTags: list of names expected, got nil"] = function()
            cache:addTags("k")
        end,
        ["bad argument 'tags' to addTags: list of names expected, got string"] = function()
            cache:addTags("k", "a")
        end,
        ["got number at 2"] = function() cache:addTags("k", { "a", 1 }) end,
        ["got a map"] = function() cache:addTags("k", { a = true }) end,
        ["at most 16 tags, got 17"] = function() cache:addTags("k", many) end,
        ["bad argument 'opts' to addTags"] = function() cache:addTags("k", { "a" }, 1) end,
        ["unknown option 'grace' to addTags"] = function()
            cache:addTags("k", { "a" }, { grace = 1 })
        end,
        ["bad option 'retries' to addTags"] = function()
            cache:addTags("k", { "a" }, { retries = -1 })
        end,
        ["bad argument 'tags' to addTags: with plain = true there is no header"] = function()
            bed.open({ plain = true, codec = "raw" }):addTags("k", { "a" })
        end,
    }) do
        raises(text, fn)
    end
    assert.equal(sent, cache:stats().requests)
end)

local function sorted(list)
    table.sort(list)
    return list
end

local function keys_of(cache, tag)
    local keys, err, partial = cache:keysByTag(tag)
    assert.is_nil(err)
    assert.is_nil(partial)
    return sorted(keys)
end

case("keysByTag tells what hangs on a tag, however it was stored", function(bed)
    for _, near in ipairs({ false, true }) do
        local cache, names = bed.open({ near = near, tagIndex = true, grace = 100 }), {}
        local other = bed.other({ near = near, tagIndex = true })
        assert.same({}, keys_of(cache, "a"))
        for name, write in pairs(WRITERS) do
            assert.is_true((write(cache, name, "v", tagged("a", "b"))))
            names[#names + 1] = name
        end
        cache:set("later", 1, 60)
        cache:addTags("later", { "a" })
        cache:remember("loaded", 60, function(_, ctx)
            ctx:tag("a")
            return 1
        end)
        cache:rememberMulti({ "many 1", "many 2" }, 60, function(_, ctx)
            ctx:tag("a")
            return { ["many 1"] = 1, ["many 2"] = 2 }
        end)
        for _, name in ipairs({ "later", "loaded", "many 1", "many 2" }) do
            names[#names + 1] = name
        end
        assert.same(sorted(names), keys_of(other, "a"))
        assert.equal(#names - 4, #keys_of(cache, "b"))
        -- What has lost the tag, its value or its validity is told apart.
        cache:set("set", 1, 60)
        cache:delete("add")
        cache:set("put", 1, 60, tagged("other"))
        assert.equal(#names - 3, #keys_of(cache, "a"))
        cache:invalidateTags({ "b" }, SOFT) -- what lives for ever has no grace window
        assert.equal(#names - 4, #keys_of(cache, "a"))
        cache:invalidateTags({ "b" })
        bed.wait_until(function() return #other:keysByTag("a") == 4 end, 5, "the news")
        assert.same({ "later", "loaded", "many 1", "many 2" }, keys_of(cache, "a"))
        assert.same({}, keys_of(cache, "b"))
        for _, key in ipairs(bed.open({ namespace = "" }):keys("*")) do
            assert.is_nil(key:find("//index:", 1, true), key)
        end
        cache:invalidateTags({ "a" })
        assert.same({}, keys_of(cache, "a"))
        for bucket = 0, 15 do
            assert.equal(0, bed.redis:call("EXISTS", "app//index:" .. bucket .. ":a"))
        end
        cache:flush()
    end
end)

case("keysByTag takes any key and any tag, of its namespace alone", function(bed)
    local cache = bed.open({ tagIndex = true })
    local inner = cache:namespace("inner")
    local keys = { "", "\0", "\1", "\2", "=", "a\0b", "a\1\1b", "\1\0\2", "{t}k", ("k"):rep(300) }
    local tags = { "a", "a:b", "\0\255", "3:a", ("x"):rep(200) }
    for _, key in ipairs(keys) do
        for _ = 1, 2 do assert.is_true((cache:set(key, 1, 60, { tags = tags }))) end
    end
    inner:set("inner", 1, 60, tagged("a"))
    for _, tag in ipairs(tags) do assert.same(sorted(keys), keys_of(cache, tag)) end
    assert.same({ "inner" }, keys_of(inner, "a"))
    assert.is_true(bed.redis:call("PTTL", "app/inner//index:" .. (function()
        for bucket = 0, 15 do
            if bed.redis:call("EXISTS", "app/inner//index:" .. bucket .. ":a") == 1 then
                return bucket
            end
        end
    end)() .. ":a") > 1000000)
    -- Many at once, and more than one write.
    local map = {}
    for i = 1, 3000 do map["k" .. i] = i end
    assert.is_true((cache:setMulti(map, 60, tagged("many"))))
    assert.equal(3000, #keys_of(cache, "many"))
    -- A generation is none of the tags.
    local own = bed.open({ tagIndex = true, generation = true, namespace = "own" })
    own:set("k", 1, 60, tagged("a"))
    own:set("bare", 1, 60)
    assert.same({ "k" }, keys_of(own, "a"))
    own:flush({ instant = true })
    assert.same({}, keys_of(own, "a"))
end)

case("an index that was full says so, and goes with its tag", function(bed)
    local cache, long = bed.open({ tagIndex = true }), ("x"):rep(2000)
    local count = 0
    repeat
        local map = {}
        for i = 1, 100 do map[count + i .. long] = 1 end
        cache:setMulti(map, 60, tagged("a"))
        count = count + 100
        local keys, _, partial = cache:keysByTag("a")
        assert.is_true(partial == "partial" or #keys == count)
        assert.is_true(count < 1000)
    until partial
    for bucket = 0, 15 do
        assert.is_true(bed.redis:call("STRLEN", "app//index:" .. bucket .. ":a") <= 65538)
    end
    assert.equal(1, (cache:get(count .. long)))
    cache:invalidateTags({ "a" })
    cache:set("k", 1, 60, tagged("a"))
    assert.same({ "k" }, keys_of(cache, "a"))
end)

case("an invalidation loses no key of an entry that is valid behind it", function(bed)
    local batch, tag_index = require("redcache.batch"), require("redcache.tag_index")
    local cache, other = bed.open({ tagIndex = true }), bed.other({ tagIndex = true })
    local function invalidate(at) cache:invalidateTags({ at }) end
    local function check(tag, key)
        assert.same(cache:get(key) and { key } or {}, keys_of(cache, tag))
    end
    -- Somebody stores before each of its commands.
    for step = 1, 2 do
        local count = 0
        cache:set("k", "old", 60, tagged("a"))
        during(batch, "deleteMulti", function()
            count = count + 1
            if count == step then other:set("k", "new", 60, tagged("a")) end
        end, function() invalidate("a") end)
        assert.equal(2, count)
        check("a", "k")
    end
    -- And it comes while somebody stores.
    local is_done = false
    during(tag_index, "add", function()
        if not is_done then
            is_done = true
            invalidate("b")
        end
    end, function() other:set("k", "late", 60, tagged("b")) end)
    assert.is_true(is_done)
    check("b", "k")
    during(batch, "deleteMulti", function() end, function() invalidate("b") end)
    other:set("k", "again", 60, tagged("b"))
    assert.same({ "k" }, keys_of(cache, "b"))
end)

case("what cannot be indexed is not stored", function(bed)
    -- The tag's own key is shorter.
    local cache, opts = bed.open({ tagIndex = true, maxKey = 20 }), tagged("long name")
    assert.same({ code = "tooLarge" }, report(cache:set("k", 1, 60, opts)))
    assert.equal("tooLarge", (select(2, cache:setMulti({ k = 1 }, 60, opts))).k.code)
    assert.same({ value = 2, source = "loader", flag = "unstored" },
        report(cache:remember("k", 60, make(2), opts)))
    assert.same({ code = "tooLarge" }, report(cache:keysByTag("long name")))
    assert.is_nil((cache:get("k")))
    assert.is_true((bed.open({ maxKey = 20 }):set("k", 1, 60, opts)))
end)

case("wrong arguments of keysByTag are errors that name them; nothing is sent", function(bed)
    local cache = bed.open({ tagIndex = true })
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'tag' to keysByTag: string of 1 to 200 bytes expected, got nil"]
            = function() cache:keysByTag() end,
        ["bad argument 'tag' to keysByTag"] = function() cache:keysByTag("") end,
        ["bad argument 'opts' to keysByTag"] = function() cache:keysByTag("a", 1) end,
        ["unknown option 'limit' to keysByTag"] = function()
            cache:keysByTag("a", { limit = 1 })
        end,
        ["keysByTag needs a namespace with tagIndex = true"] = function()
            bed.cache:keysByTag("a")
        end,
        ["bad option 'tagIndex' to new: with plain = true there are no tags"] = function()
            bed.open({ plain = true, tagIndex = true, codec = "raw" })
        end,
        ["bad option 'tagIndex' to new: true or false"] = function()
            bed.open({ tagIndex = 1 })
        end,
    }) do
        raises(text, fn)
    end
    assert.equal(sent, cache:stats().requests)
end)

case("wrong tags are errors that name the argument, and send nothing", function(bed)
    local cache = bed.cache
    local many = {}
    for i = 1, 17 do many[i] = "t" .. i end
    local sent = cache:stats().requests
    for _, bad in ipairs({ "a", 1, { 1 }, { "" }, { ("x"):rep(201) }, { "a", "a" }, many,
        { a = true }, { [2] = "a" } }) do
        for name, write in pairs(WRITERS) do
            if name ~= "replace" and name ~= "cas" then
                raises("bad option 'tags' to " .. name, write, cache, "k", 1, { tags = bad })
            end
        end
    end
    for text, fn in pairs({
        ["bad argument 'tags' to invalidateTags: list of names expected, got string"] = function()
            cache:invalidateTags("a")
        end,
        ["got number at 2"] = function() cache:invalidateTags({ "a", 1 }) end,
        ["got a map"] = function() cache:invalidateTags({ a = true }) end,
        ["bytes, got string at 1"] = function() cache:invalidateTags({ "" }) end,
        ["bad option 'soft' to invalidateTags"] = function()
            cache:invalidateTags({ "a" }, { soft = 1 })
        end,
        ["unknown option 'hard' to invalidateTags"] = function()
            cache:invalidateTags({ "a" }, { hard = true })
        end,
        ["unknown option 'tags' to get"] = function() cache:get("k", tagged("a")) end,
    }) do
        raises(text, fn)
    end
    local plain = bed.open({ plain = true, codec = "raw" })
    for name, write in pairs(WRITERS) do
        if name ~= "replace" and name ~= "cas" then
            raises("bad option 'tags' to " .. name .. ": with plain = true", write, plain, "k", "v",
                tagged("a"))
        end
    end
    assert.equal(sent, cache:stats().requests)
    local small = bed.open({ maxKey = 12 })
    assert.same({ code = "tooLarge" }, report(small:set("k", 1, 60, tagged("long name"))))
    assert.same({ code = "tooLarge" }, report(small:invalidateTags({ "long name" })))
    assert.same({ code = "tooLarge" }, report(small:invalidateTags({ "long name" }, SOFT)))
end)

case("a loader's context takes tags by its method alone", function(bed)
    local cache, kept = bed.cache, nil
    local function fails(text, fn)
        local value, err = cache:remember("k", 60, fn)
        assert.is_nil(value)
        assert.equal("loaderFailed", err.code)
        assert.matches(text, err.message, 1, true)
    end
    fails("call ctx:tag(name, ...) first", function(_, ctx)
        ctx.tags = { "a" }
        return 1
    end)
    fails("bad argument 'name' to tag", function(_, ctx) ctx:tag(1) end)
    fails("at most 16 tags", function(_, ctx)
        for i = 1, 17 do ctx:tag("t" .. i) end
    end)
    assert.equal(1, (cache:remember("k", 60, function(_, ctx)
        kept = ctx
        ctx:tag("a", "b", "a")
        ctx:tag()
        ctx:tag("b")
        return 1
    end, tagged("a"))))
    kept:tag("late") -- tags nothing
    assert.equal(0, (cache:invalidateTags({ "late" })))
    assert.equal(1, (cache:get("k")))
    cache:invalidateTags({ "b" })
    assert_void(cache, "k")
end)

return cases
