-- get, set, delete, exists, ttl: one key at a time.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
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

local function assert_life(key, seconds)
    local life = redis:call("PTTL", key)
    local least = (seconds - 1 * clock.scale) * 1000
    assert.is_true(life > least and life <= seconds * 1000, key .. " lives " .. life)
end

describe("get", function()
    it("tells a value, a remembered 'no such thing', a miss and an error apart", function()
        cache:set("value", { 1 })
        cache:remember("nothing", 60, function() return nil end)
        redis:call("RPUSH", "list", "x")
        assert.same({ value = { 1 }, source = "redis" }, peer.report(cache:get("value")))
        assert.same({ source = "redis" }, peer.report(cache:get("nothing")))
        assert.same({}, peer.report(cache:get("missing")))
        local result = peer.report(cache:get("list"))
        assert.equal("redis", result.code)
        assert.matches("WRONGTYPE", result.message, 1, true)
    end)

    it("counts hits, misses and remembered nils", function()
        cache:set("value", 1)
        cache:remember("nothing", 60, function() return nil end)
        local before = cache:stats()
        cache:get("value")
        cache:get("nothing")
        cache:get("missing")
        local after = cache:stats()
        for _, name in ipairs({ "hits", "negative", "misses" }) do
            assert.equal(1, after[name] - before[name], name)
        end
    end)
end)

describe("set", function()
    it("stores for the ttl given, to the millisecond, else for the cache's (300 s)", function()
        cache:set("given", 1, 12.345)
        cache:set("fraction", 1, 0.25)
        cache:set("default", 1)
        cache:set("ever", 1, redcache.FOREVER)
        assert_life("given", 12.345)
        assert.is_true(redis:call("PTTL", "fraction") <= 250)
        assert_life("default", 300)
        assert.equal(-1, redis:call("PTTL", "ever"))
        clock.wait_until(function() return not cache:exists("fraction") end, 2)
    end)

    it("replaces whatever stands there, of any type", function()
        redis:call("RPUSH", "k", "x")
        assert.is_true(cache:set("k", "v"))
        assert.equal("v", (cache:get("k")))
    end)

    it("refuses what the codec cannot hold, with the key's name", function()
        local ok, err = cache:set("k", print)
        assert.is_nil(ok)
        assert.equal("encode", err.code)
        assert.equal("k", err.key)
        assert.is_false((cache:exists("k")))
    end)

    it("is read by other clients at once", function()
        local other = redcache.new({ url = redis:url(), group = "other", near = false })
        for i = 1, 100 do
            cache:set("k", i)
            assert.equal(i, (other:get("k")))
        end
        other:close()
    end)
end)

describe("exists", function()
    it("counts running loads and remembered nils as absent", function()
        cache:set("value", false)
        cache:remember("nothing", 60, function() return nil end)
        redis:call("SET", "lease", peer.lease(), "PX", 5000)
        redis:call("SET", "plain", "")
        assert.same({ true }, { cache:exists("value") })
        assert.same({ true }, { cache:exists("plain") })
        assert.same({ false, true }, { cache:exists("nothing") })
        assert.same({ false }, { cache:exists("lease") })
        assert.same({ false }, { cache:exists("missing") })
    end)
end)

describe("ttl", function()
    it("gives seconds with milliseconds, FOREVER, or nil where nothing is", function()
        cache:set("k", 1, 12.345)
        local left = cache:ttl("k")
        assert.is_true(left > 10 and left <= 12.345)
        local exact = false
        for _ = 1, 50 do
            exact = exact or cache:ttl("k") * 1000 % 1000 ~= 0
        end
        assert.is_true(exact)
        cache:set("ever", 1, redcache.FOREVER)
        assert.equal(redcache.FOREVER, cache:ttl("ever"))
        assert.is_nil(cache:ttl("missing"))
        cache:remember("nothing", 60, function() return nil end)
        assert.is_nil(cache:ttl("nothing"))
        redis:call("SET", "lease", peer.lease(), "PX", 5000)
        assert.is_nil(cache:ttl("lease"))
    end)
end)

describe("keys and values", function()
    local KEYS = {
        "", "\0", "a\0b", "a\0c", "\r\n", "k\r\nDEL x\r\n", "\255\254", "{a}b{c}", "{}", " ", "*",
        "schl\195\188ssel", ("k"):rep(65536), ("\0\r\n\255"):rep(16384),
    }

    it("hold any byte, keys up to 64 KiB", function()
        for i, key in ipairs(KEYS) do
            assert.is_true(cache:set(key, key .. i))
        end
        assert.equal(#KEYS, redis:call("DBSIZE"))
        for i, key in ipairs(KEYS) do
            assert.equal(key .. i, (cache:get(key)))
            assert.equal(1, redis:call("EXISTS", key))
            assert.equal(key .. i, (cache:remember(key, 60, error)))
            assert.is_true((cache:exists(key)))
            assert.is_true(cache:delete(key))
            assert.equal(i, (cache:remember(key, 60, function() return i end)))
            assert.equal(i + 1, (cache:put(key, 60, function() return i + 1 end)))
        end
        local values = cache:getMulti(KEYS)
        for i, key in ipairs(KEYS) do assert.equal(i + 1, values[key]) end
        assert.equal(#KEYS, cache:deleteMulti(KEYS))
        assert.equal(0, redis:call("DBSIZE"))
    end)

    it("hold every byte and up to maxValue", function()
        local bytes = {}
        for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
        local all = table.concat(bytes)
        for _, value in ipairs({ all, all:rep(4096), ("\0"):rep(70000), "\251\1\4" }) do
            cache:set("k", value)
            assert.equal(value, (cache:get("k")))
        end
    end)
end)

describe("limits", function()
    -- One call per way in; each gets a key that is too long or a value that is too large.
    local BIG_KEY, BIG = ("k"):rep(70 * 1024), ("v"):rep(2000)

    it("refuse a key of 70 KiB locally, and nothing else suffers", function()
        cache:set("fine", 1)
        local before = cache:stats().requests
        local best = math.huge -- of some tries: what takes longer is the machine's
        for _ = 1, 5 do best = math.min(best, (clock.time(function()
            local calls = {
                { cache:get(BIG_KEY) }, { cache:set(BIG_KEY, 1) }, { cache:delete(BIG_KEY) },
                { cache:exists(BIG_KEY) }, { cache:ttl(BIG_KEY) },
                { cache:remember(BIG_KEY, 60, error) }, { cache:put(BIG_KEY, 60, error) },
                { cache:deleteMulti({ BIG_KEY }) },
                { nil, select(2, cache:getMulti({ BIG_KEY }))[BIG_KEY] },
                { nil, select(2, cache:setMulti({ [BIG_KEY] = 1 }))[BIG_KEY] },
            }
            for i, call in ipairs(calls) do
                assert.is_nil(call[1])
                assert.equal("tooLarge", call[2].code, "call " .. i)
            end
        end))) end
        assert.is_true(best < clock.scaled(0.05), "10 refusals took " .. best)
        assert.equal(before, cache:stats().requests)
        assert.equal(1, (cache:get("fine")))
    end)

    it("refuse a value over maxValue locally, and nothing else suffers", function()
        local small = redcache.new({ url = redis:url(), maxValue = 1000, codec = "raw" })
        small:set("fine", "1")
        local before = small:stats().requests
        local best = math.huge
        for _ = 1, 5 do
            local took, ok, err = clock.time(function() return small:set("k", BIG) end)
            assert.is_nil(ok)
            assert.equal("tooLarge", err.code)
            best = math.min(best, took)
        end
        assert.is_true(best < clock.scaled(0.01), "it took " .. best)
        local stored, failed = small:setMulti({ k = BIG })
        assert.is_nil(stored)
        assert.equal("tooLarge", failed.k.code)
        assert.equal(before, small:stats().requests)
        assert.equal("1", (small:get("fine")))
        assert.is_true(small:set("k", ("v"):rep(1000)))
        small:close()
    end)

    -- The core does not check answers yet (it reads up to 64 MiB more, "to refuse them alone").
    it("refuse to read a foreign value over maxValue, and nothing else suffers", function()
        local small = redcache.new({ url = redis:url(), maxValue = 1000 })
        redis:call("SET", "big", ("v"):rep(100000))
        small:set("fine", 1)
        local value, err = small:get("big")
        local values, failed = small:getMulti({ "big", "fine" })
        assert.is_true(value == nil and values.big == nil)
        assert.same({ "tooLarge", "tooLarge" }, { err.code, failed.big.code })
        assert.equal(1, values.fine)
        assert.equal(1, (small:get("fine")))
        small:close()
    end)

    it("are maxKey bytes with the namespace's prefix", function()
        local narrow = redcache.new({ url = redis:url(), namespace = "abc", maxKey = 10 })
        assert.is_true(narrow:set("123456", 1))
        local _, err = narrow:set("1234567", 1)
        assert.equal("tooLarge", err.code)
        narrow:close()
    end)
end)

describe("wrong arguments", function()
    local function fn() end
    local CASES = {
        { "get", "key", { nil } }, { "get", "key", { 7 } }, { "get", "opts", { "k", 1 } },
        { "set", "key", { {}, 1 } }, { "set", "value", { "k", nil } },
        { "set", "opts", { "k", 1, 1, true } }, { "delete", "key", { false } },
        { "exists", "key", { fn } }, { "ttl", "key", {} },
        { "remember", "key", { 1, 1, fn } }, { "remember", "fn", { "k", 60 } },
        { "remember", "opts", { "k", 60, fn, 1 } }, { "rememberForever", "key", { nil, fn } },
        { "rememberForever", "fn", { "k", 60 } }, { "put", "key", { nil, 60, fn } },
        { "put", "fn", { "k", 60, "x" } }, { "getMulti", "keys", { "k" } },
        { "getMulti", "keys", { { "k", 1 } } }, { "setMulti", "map", { nil } },
        { "setMulti", "map", { { "list" } } }, { "deleteMulti", "keys", { 1 } },
        { "namespace", "name", { "" } }, { "namespace", "name", { 1 } }, { "cancel", "tag", { 0 } },
    }

    it("are errors at the caller's line that name the argument", function()
        for _, case in ipairs(CASES) do
            local method, name, arguments = case[1], case[2], case[3]
            local ok, message = pcall(function()
                cache[method](cache, unpack(arguments, 1, 4)) -- this line
            end)
            assert.is_false(ok, method .. " " .. name)
            local expected = "cache_spec.lua:%d+: bad argument '" .. name .. "' to " .. method
            assert.matches(expected, message)
        end
    end)

    it("are unknown options as well", function()
        assert.has_error(function() cache:get("k", { timeuot = 1 }) end)
        local ok, message = pcall(function() cache:remember("k", 1, fn, { leasettl = 1 }) end)
        assert.is_false(ok)
        local expected = "cache_spec.lua:%d+: unknown option 'leasettl' to remember: .*'leaseTtl'"
        assert.matches(expected, message)
    end)
end)
