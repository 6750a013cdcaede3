-- getMulti, setMulti, deleteMulti: every key has its own result or its own error.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
local monitor = require("spec.support.monitor")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ url = redis:url(), commandTimeout = 10 })
end)
after_each(function() cache:close() end)

describe("getMulti", function()
    it("gives values by key, remembered nils apart, and nothing for a miss", function()
        cache:setMulti({ a = 1, b = false, c = "", d = { 1, { x = "y" } } })
        cache:remember("n", 60, function() return nil end)
        redis:call("SET", "lease", peer.lease(), "PX", 5000)
        local values, failed, negatives =
            cache:getMulti({ "a", "b", "c", "d", "n", "lease", "missing" })
        assert.same({ a = 1, b = false, c = "", d = { 1, { x = "y" } } }, values)
        assert.same({}, failed)
        assert.same({ n = true }, negatives)
    end)

    it("asks for a key once, however often it is listed", function()
        cache:set("k", 1)
        local counts = redis:count(function()
            assert.same({ k = 1 }, (cache:getMulti({ "k", "k", "k" }, { near = false })))
        end)
        assert.same({ mget = 1 }, counts)
        local before = cache:stats().hits
        cache:getMulti({ "k", "k" }, { near = false })
        assert.equal(before + 1, cache:stats().hits)
    end)

    it("takes a key of another type for a miss, as Redis does", function()
        cache:set("k", 1)
        redis:call("RPUSH", "list", "x")
        local values, failed = cache:getMulti({ "k", "list" }, { near = false })
        assert.same({ k = 1 }, values)
        assert.same({}, failed)
    end)

    it("reads 20,000 keys in order, hits and misses mixed", function()
        local map, keys = {}, {}
        for i = 1, 20000 do
            keys[i] = "k" .. i
            if i % 3 ~= 0 then map[keys[i]] = "v" .. i end
        end
        local patient = { timeout = 10 } -- how fast that goes is the machine's
        assert.is_true((cache:setMulti(map, 60, patient)))
        local values, failed = cache:getMulti(keys, patient)
        assert.same({}, failed)
        local wrong = 0
        for i = 1, 20000 do
            if values[keys[i]] ~= map[keys[i]] then wrong = wrong + 1 end
        end
        assert.equal(0, wrong)
        assert.equal(13334, cache:deleteMulti(keys, patient))
    end)

    it("fails for the keys that are too long alone", function()
        cache:set("k", 1)
        local long = ("x"):rep(70000)
        local values, failed = cache:getMulti({ "k", long })
        assert.same({ k = 1 }, values)
        assert.equal("tooLarge", failed[long].code)
    end)

    it("tells Redis' own error for every key", function()
        redis:call("ACL", "SETUSER", "nomget", "on", ">pw", "~*", "+@all", "-mget")
        local denied = redcache.new({ url = redis:url("nomget:pw"), near = false })
        local values, failed = denied:getMulti({ "a", "b" })
        assert.same({}, values)
        assert.equal("redis", failed.a.code)
        assert.matches("NOPERM", failed.b.message, 1, true)
        assert.equal("b", failed.b.key)
        denied:close()
    end)

    it("keeps what it has read near, up to 128 keys of a call", function()
        local near = redcache.new({ url = redis:url(), group = "near", maxStale = 600 })
        finally(function() near:close() end)
        local function map_of(count)
            local map, keys = {}, {}
            for i = 1, count do map["k" .. i], keys[i] = i, "k" .. i end
            return map, keys
        end
        for _, count in ipairs({ 100, 129 }) do
            local map, keys = map_of(count)
            assert.is_true((near:setMulti(map)))
            assert.same(map, (near:getMulti(keys)))
            local counts = monitor.wire(redis, function()
                assert.same(map, (near:getMulti(keys)))
            end)
            if count > 128 then
                assert.equal(2, counts.mget)
            else -- a hash collision may keep the one or other answer from being stored
                assert.is_true((counts.get or 0) <= 5, counts.get)
            end
        end
        redis:call("SET", "foreign", "x")
        assert.same({ foreign = "x" }, (cache:getMulti({ "foreign", "none" })))
        local _, failed = cache:getMulti({ "k1", ("x"):rep(70000) })
        assert.equal("tooLarge", failed[("x"):rep(70000)].code)
    end)
end)

describe("setMulti", function()
    local function life(key) return redis:call("PTTL", key) end

    it("stores all, for one ttl, one per key, or the cache's", function()
        assert.same({ true, {} }, { cache:setMulti({ a = 1, b = 2 }, 12.5) })
        assert.is_true(life("a") <= 12500 and life("a") > 2500)
        assert.is_true((cache:setMulti({ a = 1, b = 2, c = 3 }, { a = 30, b = redcache.FOREVER })))
        assert.is_true(life("a") <= 30000 and life("a") > 20000)
        assert.equal(-1, life("b"))
        assert.is_true(life("c") <= 300000 and life("c") > 290000)
        assert.is_true((cache:setMulti({ a = 1 }, redcache.FOREVER)))
        assert.equal(-1, life("a"))
        assert.same({ a = 1, b = 2, c = 3 }, (cache:getMulti({ "a", "b", "c" })))
    end)

    it("reports the keys that failed and stores the others", function()
        local long = ("x"):rep(70000)
        local ok, failed = cache:setMulti({
            good = 1, fn = print, short = 2, [long] = 3, large = ("v"):rep(9 * 1024 * 1024),
        }, { short = 0 })
        assert.is_false(ok)
        local codes = {}
        for key, err in pairs(failed) do codes[key] = err.code end
        assert.same({
            fn = "encode", short = "badTtl", [long] = "tooLarge", large = "tooLarge",
        }, codes)
        assert.equal(1, redis:call("DBSIZE"))
        assert.equal(1, (cache:get("good")))
    end)

    it("returns nil where nothing was stored", function()
        local ok, failed = cache:setMulti({ a = print })
        assert.is_nil(ok)
        assert.equal("encode", failed.a.code)
    end)

    it("reports what Redis refuses key by key", function()
        redis:call("ACL", "SETUSER", "half", "on", ">pw", "~a*", "+@all")
        local half = redcache.new({ url = redis:url("half:pw") })
        local ok, failed = half:setMulti({ a1 = 1, a2 = 2, b = 3 })
        assert.is_false(ok)
        assert.equal("redis", failed.b.code)
        assert.matches("NOPERM", failed.b.message, 1, true)
        assert.is_nil(failed.a1)
        assert.equal(2, redis:call("DBSIZE"))
        half:close()
    end)
end)

describe("deleteMulti", function()
    it("counts the keys that were there (47)", function()
        cache:setMulti({ a = 1, b = 2 })
        assert.same({ 2 }, { cache:deleteMulti({ "a", "b", "missing", "a" }) })
        assert.same({ 0 }, { cache:deleteMulti({ "a", "b", "missing" }) })
        assert.equal(0, redis:call("DBSIZE"))
    end)

    it("deletes nothing where one key is too long", function()
        cache:set("a", 1)
        local count, err = cache:deleteMulti({ "a", ("x"):rep(70000) })
        assert.is_nil(count)
        assert.equal("tooLarge", err.code)
        assert.is_true((cache:exists("a")))
    end)
end)

describe("every batch", function()
    it("ends by its own timeout, and the next one works", function()
        cache:close()
        cache = redcache.new({ url = redis:url(), commandTimeout = 20 })
        cache:set("k", 1)
        redis:pause()
        local took, codes = clock.time(function()
            local _, read = cache:getMulti({ "k" }, { timeout = 0.1 })
            local stored, wrote = cache:setMulti({ k = 2 }, 60, { timeout = 0.1 })
            local count, err = cache:deleteMulti({ "k" }, { timeout = 0.1 })
            assert.is_nil(stored)
            assert.is_nil(count)
            return { read.k.code, wrote.k.code, err.code }
        end)
        redis:resume()
        assert.is_true(took > 0.05 and took < 15, "it took " .. took)
        for i, code in ipairs(codes) do
            local expected = code == "timeout" or code == "unavailable" or code == "outcomeUnknown"
            assert.is_true(expected, i .. ": " .. code)
        end
        clock.wait_until(function() return (cache:setMulti({ k = 3 })) end, 5)
        assert.same({ k = 3 }, (cache:getMulti({ "k" })))
    end)
end)
