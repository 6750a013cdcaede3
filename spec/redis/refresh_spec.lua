-- remember within the grace window: the stale value while somebody makes a newer one.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, cache, one, two

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ near = false, url = redis:url(), grace = 60, commandTimeout = 10 })
    one = peer.start({ url = redis:url(), grace = 60 })
    two = peer.start({ url = redis:url(), grace = 60 })
end)
after_each(function()
    cache:close()
    one:stop()
    two:stop()
end)

-- A value past its ttl, in the middle of its grace window.
local function stale(key, value, ttl)
    cache:set(key, value, ttl or 0.001)
    clock.wait_until(function() return select(3, cache:get(key)) == "stale" end, 1)
    assert.equal(0, cache:ttl(key))
end

describe("remember within the grace window", function()
    it("keeps the value in Redis for ttl and grace", function()
        cache:remember("k", 10, function() return 1 end)
        cache:set("s", 1, 10, { grace = 20 })
        cache:put("p", 10, function() return 1 end)
        for key, whole in pairs({ k = 70000, s = 30000, p = 70000 }) do
            local life = redis:call("PTTL", key)
            assert.is_true(life > whole - 9000 and life <= whole, key .. " " .. life)
        end
        assert.is_true(cache:ttl("k") > 1 and cache:ttl("k") <= 10)
    end)

    it("takes a value for fresh until its ttl", function()
        cache:set("k", "v", 30)
        assert.same({ value = "v", source = "redis" }, peer.report(cache:remember("k", 60, error)))
        assert.same({ value = "v", source = "redis" }, peer.report(cache:get("k")))
    end)

    it("loads a newer value in the caller's place", function()
        stale("k", "old")
        assert.same({ value = "old", source = "stale" }, peer.report(cache:get("k")))
        assert.same({ value = "new", source = "loader" },
            peer.report(cache:remember("k", 60, function() return "new" end)))
        assert.same({ value = "new", source = "redis" }, peer.report(cache:get("k")))
        assert.equal(1, redis:call("DBSIZE"))
    end)

    it("serves the old value to everybody else while one loads", function()
        stale("k", "old")
        one:begin(peer.held, { value = "new" }):event("loading")
        for _ = 1, 3 do
            local result = two:run(peer.remember, { value = "unused" })
            assert.same({ "old", "stale" }, { result.value, result.source })
            assert.is_true(result.took < clock.scaled(2.5)) -- a lease would be waited for for 5 s
        end
        assert.equal("new", one:go():finish().value)
        assert.same({ "new", "redis" }, {
            two:run(peer.remember, { value = "unused" }).value,
            two:run(peer.remember, { value = "unused" }).source,
        })
    end)

    it("serves the old value when the loader fails or throws, and throttles it", function()
        local function fails() return nil, "down" end
        for _, loader in ipairs({ fails, error }) do
            stale("k", "old")
            local runs, before = 0, cache:stats()
            local function counted()
                runs = runs + 1
                return loader()
            end
            for _ = 1, 5 do
                assert.same({ value = "old", source = "stale" },
                    peer.report(cache:remember("k", 60, counted, { leaseTtl = 30 })))
            end
            assert.equal(1, runs)
            assert.equal(before.loadErrors + 1, cache:stats().loadErrors)
            assert.equal(before.stale + 5, cache:stats().stale)
            redis:call("FLUSHALL")
        end
    end)

    it("tells the loader the old value, its age and version", function()
        stale("k", { old = true }, 0.05)
        local seen
        cache:remember("k", 0.05, function(_, ctx)
            seen = ctx
            return 1
        end)
        assert.same({ old = true }, seen.value)
        assert.is_true(seen.age >= 0.049 and seen.age < clock.scaled(2), tostring(seen.age))
        assert.equal(8, #seen.version)
    end)

    it("renews the old value's life where it was not modified", function()
        stale("k", "old")
        assert.same({ value = "old", source = "loader" },
            peer.report(cache:remember("k", 60, function(_, ctx) return ctx.notModified end)))
        assert.same({ value = "old", source = "redis" }, peer.report(cache:get("k")))
        assert.is_true(cache:ttl("k") > 30)
    end)

    it("refuses notModified where there is no old value", function()
        local _, err = cache:remember("k", 60, function(_, ctx) return ctx.notModified end)
        assert.equal("loaderFailed", err.code)
        assert.is_false((cache:exists("k")))
    end)

    it("ends with the window: then the loader's error is an error", function()
        cache:set("k", "old", 0.001, { grace = 0.05 })
        clock.wait_until(function() return redis:call("EXISTS", "k") == 0 end, 2)
        local value, err = cache:remember("k", 60, function() return nil, "down" end)
        assert.is_nil(value)
        assert.equal("loaderFailed", err.code)
    end)
end)

describe("a refresh", function()
    it("loses against a set that comes while it runs (X7)", function()
        stale("k", "old")
        one:begin(peer.held, { value = "refreshed" }):event("loading")
        assert.is_true(cache:set("k", "new", 60))
        local result = one:go():finish()
        assert.same({ "new", "redis" }, { result.value, result.source })
        assert.equal("new", (cache:get("k")))
        assert.equal(1, redis:call("DBSIZE"))
    end)

    it("loses against a put that comes while it runs", function()
        stale("k", "old")
        one:begin(peer.held, { value = "refreshed" }):event("loading")
        assert.equal("new", (cache:put("k", 60, function() return "new" end)))
        assert.equal("new", one:go():finish().value)
        assert.equal("new", (cache:get("k")))
    end)

    it("stores nothing where the key was deleted while it ran", function()
        stale("k", "old")
        one:begin(peer.held, { value = "refreshed" }):event("loading")
        redis:call("DEL", "k")
        local result = one:go():finish()
        assert.same({ "refreshed", "unstored" }, { result.value, result.flag })
        assert.equal(0, redis:call("DBSIZE"))
    end)

    it("stores nothing where an equal value was written while it ran", function()
        stale("k", "old")
        one:begin(peer.held, { value = "refreshed" }):event("loading")
        cache:set("k", "old", 60)
        assert.equal("old", one:go():finish().value)
        assert.equal("old", (cache:get("k")))
    end)
end)

describe("a refresh that outlives the value", function()
    it("is the only load, and what it made is stored", function()
        cache:set("k", "old", 0.001, { grace = 1.5 })
        clock.wait_until(function() return select(3, cache:get("k")) == "stale" end, 1)
        one:begin(peer.held, { value = "new" }):event("loading")
        clock.wait_until(function() return redis:call("PTTL", "k") > 2000 end, 5)
        peer.until_busy(redis, 2, function() -- its first read asks, too
            two:begin(peer.remember, { value = "second load" })
        end)
        local result = one:go():finish()
        assert.same({ "new", "loader" }, { result.value, result.source })
        assert.equal("new", two:finish().value)
        assert.equal("new", (cache:get("k")))
        assert.equal(1, redis:call("DBSIZE"))
    end)

    it("tells its error to those who wait by then, and serves the old value itself", function()
        cache:set("k", "old", 0.001, { grace = 1.5 })
        clock.wait_until(function() return select(3, cache:get("k")) == "stale" end, 1)
        local value, _, source = cache:remember("k", 60, function()
            clock.wait_until(function() return redis:call("PTTL", "k") > 2000 end, 5)
            peer.until_busy(redis, 2, function() -- its first read asks, too
                two:begin(peer.remember, { value = "second" })
            end)
            return nil, "down"
        end)
        assert.same({ "old", "stale" }, { value, source })
        assert.equal("loaderFailed", two:finish().code)
    end)

    it("does not bring back a value that was deleted before its end", function()
        cache:set("k", "old", 0.001, { grace = 1.5 })
        clock.wait_until(function() return select(3, cache:get("k")) == "stale" end, 1)
        one:begin(peer.held, { value = "void" }):event("loading")
        redis:call("DEL", "k")
        redis:call("SET", "later", "", "PX", "1600") -- until it would have expired
        clock.wait_until(function() return redis:call("EXISTS", "later") == 0 end, 5)
        local result = one:go():finish()
        assert.same({ "void", "loader" }, { result.value, result.source })
        assert.equal(0, redis:call("EXISTS", "k"))
    end)
end)
