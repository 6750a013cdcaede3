-- Cases (spec/support/api_cases.lua): writes that look first: add, replace, cas, getSet, getDelete,
-- update; and get with its version.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, nothing, report = group.never, group.nothing, group.report

local VERSION = { version = true }
-- Somebody's strings that only look like a load.
local HEAD = "\251\1\4" .. ("\0"):rep(21)

local function version_of(cache, key) return (select(4, cache:get(key, VERSION))) end

case("add stores where there is no value, replace where there is one", function(bed)
    local cache = bed.cache
    assert.is_false((cache:replace("k", 1)))
    assert.is_nil((cache:get("k")))
    assert.is_true((cache:add("k", { 1 }, 50)))
    assert.is_false((cache:add("k", { 2 }, 500)))
    assert.same({ 1 }, (cache:get("k")))
    local left = cache:ttl("k")
    assert.is_true(left > 40 and left <= 50, left)
    assert.is_true((cache:replace("k", { 3 })))
    assert.same({ 3 }, (cache:get("k")))
    assert.is_true(cache:ttl("k") > 290)
    assert.is_true((cache:replace("k", 4, require("redcache").FOREVER)))
    assert.equal(-1, bed.redis:call("PTTL", "app:k"))
    assert.is_true((bed.open({ grace = 100 }):add("graced", 1, 10)))
    left = bed.redis:call("PTTL", "app:graced")
    assert.is_true(left > 100000 and left <= 110000, left)
    bed.redis:call("SET", "app:text", "")
    assert.is_false((cache:add("text", 1)))
    bed.redis:call("SET", "app:head", HEAD)
    assert.is_false((cache:add("head", 1)))
    bed.redis:call("SET", "app:head", HEAD, "PX", 60000)
    assert.is_false((cache:replace("head", 1)))
    assert.is_true((cache:add("head", 1)))
end)

case("get with version names what stands there, cas stores only over it", function(bed)
    local cache, other = bed.open({ near = true }), bed.other()
    assert.same({ nil, nil, nil, nil }, { cache:get("k", VERSION) })
    cache:set("k", "a")
    local value, err, source, version = cache:get("k", VERSION)
    assert.same({ "a", "redis" }, { value, source })
    assert.is_nil(err)
    assert.equal(8, #version)
    assert.is_false((cache:cas("k", ("x"):rep(8), "no")))
    local stored, _, _, newer = cache:cas("k", version, "b", 60)
    assert.is_true(stored)
    assert.equal(newer, version_of(cache, "k"))
    assert.is_true(newer ~= version)
    assert.is_false((cache:cas("k", version, "c")))
    assert.equal("b", (cache:get("k")))
    -- The same value, written again, is another version; a life is none.
    assert.is_true((cache:touch("k", 500)))
    assert.is_true(newer == version_of(cache, "k"))
    other:set("k", "b")
    assert.is_false((cache:cas("k", newer, "c")))
    -- What was added or replaced tells its version, too.
    local _, _, _, added = cache:add("new", 1)
    assert.is_true((cache:cas("new", added, 2)))
    local _, _, _, replaced = cache:replace("new", 3)
    assert.is_true((cache:cas("new", replaced, 4)))
    cache:delete("new")
    assert.is_false((cache:cas("new", replaced, 5)))
    assert.is_nil((cache:get("new")))
end)

case("what has no header has a version by its bytes", function(bed)
    local plain = bed.open({ plain = true, codec = "raw" })
    plain:set("k", "text")
    local version = version_of(plain, "k")
    assert.equal(40, #version)
    assert.same({ true, version }, { plain:cas("k", version, "text"), version_of(plain, "k") })
    bed.redis:call("SET", "app:k", "other")
    assert.is_false((plain:cas("k", version, "new")))
    bed.redis:call("SET", "app:k", HEAD)
    assert.equal(HEAD, (plain:get("k", VERSION)))
    local stored, _, _, newer = plain:cas("k", version_of(plain, "k"), "\251x", 60)
    assert.is_true(stored)
    assert.same({ "\251x", newer }, { (plain:get("k")), version_of(plain, "k") })
    assert.equal("\251x", (plain:getSet("k", "last")))
    assert.equal("last", (plain:getDelete("k")))
end)

case("getSet and getDelete give what stood there", function(bed)
    local cache = bed.cache
    assert.same({}, report(cache:getSet("k", { 1 }, 50)))
    assert.same({ value = { 1 }, source = "redis" }, report(cache:getSet("k", false)))
    assert.is_true(cache:ttl("k") > 290)
    assert.same({ value = false, source = "redis" }, report(cache:getDelete("k")))
    assert.same({}, report(cache:getDelete("k")))
    assert.is_nil((cache:get("k")))
    cache:remember("none", 60, nothing)
    assert.same({ source = "redis" }, report(cache:getSet("none", 1)))
    assert.equal(1, (cache:get("none")))
    cache:remember("no", 60, nothing)
    assert.same({ source = "redis" }, report(cache:getDelete("no")))
    assert.equal(0, bed.redis:call("EXISTS", "app:no"))
    local graced = bed.open({ grace = 100 })
    graced:set("k", "old", 60)
    graced:delete("k", { soft = true })
    local value, _, source = graced:get("k", VERSION)
    assert.same({ "old", "stale" }, { value, source })
    assert.same({ value = "old", source = "stale" }, report(graced:getSet("k", "new")))
    -- What cannot be read is no value, and is written over.
    bed.redis:call("SET", "app:k", "\251\1\1\99" .. ("\0"):rep(20) .. "x")
    assert.same({}, report(cache:getSet("k", 1)))
    bed.redis:call("SET", "app:k", "\251\1\1\99" .. ("\0"):rep(20) .. "x")
    local strict = bed.open({ decodeErrors = "error" })
    assert.equal("decode", report(strict:getDelete("k")).code)
    assert.equal(0, bed.redis:call("EXISTS", "app:k"))
end)

case("a write that looks first takes no load for a value, and voids it", function(bed)
    local cache, other = bed.cache, bed.other()
    local function during(key, fn)
        return report(cache:remember(key, 60, function()
            fn()
            return "loaded"
        end))
    end
    during("add", function() assert.is_true((other:add("add", "added"))) end)
    assert.equal("added", (cache:get("add")))
    during("set", function() assert.same({}, report(other:getSet("set", "got"))) end)
    assert.equal("got", (cache:get("set")))
    assert.equal("unstored", during("del", function()
        assert.same({}, report(other:getDelete("del")))
    end).flag)
    assert.is_nil((cache:get("del")))
    during("update", function()
        assert.equal("first", (other:update("update", function(value)
            assert.is_nil(value)
            return "first"
        end)))
    end)
    assert.equal("first", (cache:get("update")))
    -- Those that find nothing leave the load alone.
    assert.equal("loader", during("other", function()
        assert.is_false((other:replace("other", 1)))
        assert.is_false((other:cas("other", ("x"):rep(8), 1)))
        assert.is_nil(version_of(other, "other"))
    end).source)
    assert.equal("loaded", (cache:get("other")))
    -- A put that began before stores nothing.
    assert.same({ code = "lockLost" }, report(cache:put("other", 60, function()
        assert.is_true((other:replace("other", "replaced")))
        return "put"
    end)))
    assert.equal("replaced", (cache:get("other")))
end)

case("update changes a value, and calls its function again where it has lost", function(bed)
    local cache, other = bed.cache, bed.other()
    local function add(value) return (value or 0) + 1 end
    assert.equal(1, (cache:update("n", add, 50)))
    local left = cache:ttl("n")
    assert.is_true(left > 40 and left <= 50, left)
    local calls = 0
    local value, err, source, version = cache:update("n", function(old, key)
        calls = calls + 1
        assert.equal("n", key)
        if calls == 1 then other:set("n", 10) end
        if calls == 2 then other:delete("n") end
        return add(old), 20
    end)
    assert.same({ 1, 3 }, { value, calls })
    assert.same({ version_of(cache, "n") }, { version, err, source })
    assert.is_true(cache:ttl("n") <= 20)
    assert.same({ 1, nil, "unchanged", version }, { cache:update("n", nothing) })
    assert.same({ nil, nil, "unchanged" }, { cache:update("none", nothing) })
    -- In every attempt somebody is faster.
    calls = 0
    value, err = cache:update("n", function()
        calls = calls + 1
        other:set("n", -calls)
        return "lost"
    end, 60, { retries = 2 })
    assert.is_nil(value)
    assert.equal("conflict", err.code)
    assert.equal("could not update 'n': somebody else was faster in each of 3 tries", err.message)
    assert.equal(3, calls)
    assert.equal(-3, (cache:get("n")))
    -- What cannot be read is replaced, unless somebody else does.
    bed.redis:call("SET", "app:n", "\251\1\1\99" .. ("\0"):rep(20) .. "x")
    assert.equal(1, (cache:update("n", add)))
end)

case("an update whose function fails changes nothing", function(bed)
    local cache = bed.cache
    cache:set("k", { 1 })
    local _, err = cache:update("k", function() error({ mine = true }) end)
    assert.same({ "loaderFailed", true }, { err.code, err.cause.mine })
    assert.is_truthy(err.traceback)
    _, err = cache:update("k", function() return nil, "no" end)
    assert.same({ "loaderFailed", "could not update 'k': no" }, { err.code, err.message })
    assert.equal("encode", report(cache:update("k", function() return print end)).code)
    assert.equal("badTtl", report(cache:update("k", function() return 1, -1 end)).code)
    assert.same({ 1 }, (cache:get("k")))
end)

case("near copies follow writes that look first, at once", function(bed)
    local cache, other = bed.open({ near = true }), bed.other()
    for i = 1, 20 do
        cache:set("k", i)
        assert.equal(i, (cache:get("k")))
        assert.is_true((cache:replace("k", "r" .. i)))
        assert.equal("r" .. i, (cache:get("k")))
        assert.is_true((cache:cas("k", version_of(cache, "k"), "c" .. i)))
        assert.equal("c" .. i, (cache:get("k")))
        assert.equal("c" .. i, (cache:getSet("k", "s" .. i)))
        assert.equal("s" .. i, (cache:get("k")))
        assert.equal("u" .. i, (cache:update("k", function() return "u" .. i end)))
        assert.equal("u" .. i, (cache:get("k")))
        assert.equal("u" .. i, (cache:getDelete("k")))
        assert.is_nil((cache:get("k")))
        assert.is_true((cache:add("k", "a" .. i)))
        assert.equal("a" .. i, (cache:get("k")))
    end
    assert.is_true((other:replace("k", "other")))
    bed.wait_until(function() return cache:get("k") == "other" end, 5, "the news")
end)

case("wrong writes that look first name the argument, and send nothing", function(bed)
    local cache, long = bed.cache, ("x"):rep(70000)
    local plain = bed.open({ plain = true })
    local version = ("v"):rep(8)
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to add"] = function() cache:add(1, 1) end,
        ["bad argument 'value' to add: any value but nil expected, got nil; it is called add(key,"]
            = function() cache:add("k") end,
        ["bad argument 'key' to replace"] = function() cache:replace(nil, 1) end,
        ["bad argument 'value' to replace"] = function() cache:replace("k", nil, 60) end,
        ["bad argument 'key' to getSet"] = function() cache:getSet({}, 1) end,
        ["bad argument 'value' to getSet"] = function() cache:getSet("k") end,
        ["bad argument 'key' to getDelete"] = function() cache:getDelete() end,
        ["bad argument 'key' to cas"] = function() cache:cas(nil, version, 1) end,
        ["bad argument 'version' to cas: version of get"] = function() cache:cas("k", nil, 1) end,
        ["bad argument 'version' to cas: "] = function() cache:cas("k", "short", 1) end,
        ["bad argument 'value' to cas"] = function() cache:cas("k", version) end,
        ["bad argument 'key' to update"] = function() cache:update(1, never) end,
        ["bad argument 'fn' to update: function expected, got number"] = function()
            cache:update("k", 60, never)
        end,
        ["bad argument 'opts' to add"] = function() cache:add("k", 1, 60, 1) end,
        ["bad argument 'opts' to cas"] = function() cache:cas("k", version, 1, 60, 1) end,
        ["unknown option 'retries' to replace"] = function()
            cache:replace("k", 1, 60, { retries = 1 })
        end,
        ["unknown option 'grace' to getDelete"] = function()
            cache:getDelete("k", { grace = 1 })
        end,
        ["bad option 'retries' to update: whole number from 0"] = function()
            cache:update("k", never, 60, { retries = -1 })
        end,
        ["bad option 'version' to get"] = function() cache:get("k", { version = "x" }) end,
        ["unknown option 'version' to getMulti: it is an option of get"] = function()
            cache:getMulti({ "k" }, VERSION)
        end,
        ["bad option 'grace' to add: with plain"] = function()
            plain:add("k", 1, 60, { grace = 1 })
        end,
    }) do
        group.raises(text, fn)
    end
    for _, ttl in ipairs({ 0, -1, 0 / 0, "60" }) do
        assert.equal("badTtl", report(cache:add("k", 1, ttl)).code)
        assert.equal("badTtl", report(cache:replace("k", 1, ttl)).code)
        assert.equal("badTtl", report(cache:cas("k", version, 1, ttl)).code)
        assert.equal("badTtl", report(cache:getSet("k", 1, ttl)).code)
        assert.equal("badTtl", report(cache:update("k", never, ttl)).code)
    end
    assert.equal("encode", report(cache:add("k", print)).code)
    assert.equal("encode", report(cache:getSet("k", print)).code)
    assert.equal("tooLarge", report(cache:add(long, 1)).code)
    assert.equal("tooLarge", report(cache:getDelete(long)).code)
    assert.equal("tooLarge", report(cache:get(long, VERSION)).code)
    assert.equal("tooLarge", report(bed.open({ maxValue = 100 }):add("k", ("x"):rep(200))).code)
    assert.equal(sent, cache:stats().requests)
    assert.is_nil((cache:get("k")))
end)

light("updates of many light threads are all kept", function(bed)
    local fns = {}
    for i = 1, 8 do
        fns[i] = function()
            for _ = 1, 10 do
                local value, err = bed.cache:update("n", function(old) return (old or 0) + 1 end)
                assert.is_nil(err)
                assert.is_true(value > 0)
            end
        end
    end
    bed.together(fns)
    assert.equal(80, (bed.cache:get("n")))
end)

return cases
