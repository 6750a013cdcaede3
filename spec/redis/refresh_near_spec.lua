-- Near copies of values that are loaded again: judged at each hit, under the options of near reads.

local calls = require("redcache.calls")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local time, caches

before_each(function() time, caches = redcache.clock(), {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { clock = time, refreshAfter = 5, background = true, maxStale = 1800 }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

local function never() error("the loader ran") end

-- Stores the value, and reads it until it is decoded here.
local function warm(cache, key, value, ttl)
    assert(cache:set(key, value, ttl))
    for _ = 1, 3 do cache:get(key) end
end

describe("a near copy that is judged", function()
    it("is guarded as any other", function()
        local cache = open({ guard = true })
        warm(cache, "k", { 1 }, 60)
        local value, _, source = cache:remember("k", 60, never)
        assert.equal("l0", source)
        value[1] = 2
        assert.error_matches(function() cache:remember("k", 60, never) end,
            "the value of 'k' was changed by one of its readers")
        assert.same({ 1 }, (cache:remember("k", 60, never)))
    end)

    it("is copied where the reader wants a copy", function()
        local cache = open()
        warm(cache, "k", { 1 }, 60)
        local shared = cache:remember("k", 60, never)
        assert.equal(shared, (cache:remember("k", 60, never)))
        local own = cache:remember("k", 60, never, { copy = true })
        assert.are_not.equal(shared, own)
        assert.same({ 1 }, own)
        local copying = open({ url = "memory://copies", copy = true })
        warm(copying, "k", { 1 }, 60)
        assert.are_not.equal(copying:get("k"), (copying:get("k")))
    end)

    it("is one hit, whatever it is good for", function()
        local cache = open({ grace = 60 })
        warm(cache, "k", "v", 10)
        local before = cache:stats()
        local seen, reads = {}, 0
        local function read()
            local value, err, source = cache:get("k")
            assert.same({ "v" }, { value, err })
            seen[source], reads = (seen[source] or 0) + 1, reads + 1
        end
        for _ = 1, 3 do read() end
        time:advance(6)
        for _ = 1, 3 do read() end
        time:advance(6)
        for _ = 1, 3 do read() end
        assert.same({ l0 = 6, stale = 3 }, seen)
        local after = cache:stats()
        local function more(name) return after[name] - before[name] end
        assert.equal(reads, more("hits"))
        assert.equal(reads, more("l0Hits") + more("nearHits"))
        assert.equal(3, more("stale"))
        assert.equal(0, more("misses") + more("nearMisses"))
    end)

    it("of many keys, too", function()
        local cache = open({ grace = 60 })
        local keys = {}
        for i = 1, 300 do
            keys[i] = "k" .. i
            warm(cache, keys[i], i, i % 2 == 0 and 10 or 100)
        end
        time:advance(12)
        local before = cache:stats()
        local values, failed = cache:getMulti(keys)
        assert.same({}, failed)
        for i = 1, 300 do assert.equal(i, values[keys[i]]) end
        local after = cache:stats()
        assert.equal(300, after.l0Hits + after.nearHits - before.l0Hits - before.nearHits)
        assert.equal(0, after.requests - before.requests)
    end)

    it("of a call with options of its own goes by those", function()
        local cache = open()
        local runs = 0
        local function load()
            runs = runs + 1
            return "new"
        end
        warm(cache, "k", "v", 60)
        time:advance(2)
        assert.equal("v", (cache:remember("k", 60, load)))
        cache:work(1)
        assert.equal(0, runs)
        assert.equal("v", (cache:remember("k", 60, load, { refreshAfter = 1 })))
        cache:work(1)
        assert.equal(1, runs)
        assert.equal("new", (cache:remember("k", 60, load, { refreshAfter = 1 })))
    end)

    it("ends by near.ttl before anybody could tell its age", function()
        local cache = open({ near = { ttl = 8 } })
        local runs = 0
        local function load()
            runs = runs + 1
            return "new"
        end
        warm(cache, "k", "v", 60)
        time:advance(6)
        local value, _, source = cache:remember("k", 60, load)
        assert.same({ "v", "l0" }, { value, source })
        cache:work(1)
        assert.equal(0, runs)
        time:advance(3)
        value, _, source = cache:remember("k", 60, load)
        assert.same({ "v", "redis" }, { value, source })
        cache:work(1)
        assert.equal(1, runs)
    end)

    it("of a namespace without these options is what it is", function()
        local cache = open({ refreshAfter = nil, grace = 60 })
        local plain = open({ url = "memory://other" }):namespace("n", { refreshAfter = 1000 })
        warm(plain, "k", "v", 60)
        time:advance(30)
        local value, _, source = plain:remember("k", 60, never)
        assert.same({ "v", "l0" }, { value, source })
        assert.equal(0, cache:stats().backgroundQueued)
    end)
end)

describe("a refresh that is queued", function()
    it("is done by close, within its time", function()
        local cache, runs = open(), 0
        warm(cache, "k", "v", 60)
        time:advance(6)
        cache:remember("k", 60, function()
            runs = runs + 1
            return "new"
        end)
        assert.same({ true }, { cache:close() })
        assert.equal(1, runs)
        assert.equal("closed", select(2, cache:remember("k", 60, never)).code)
    end)

    it("may close its cache from its loader", function()
        local cache = open()
        warm(cache, "k", "v", 60)
        time:advance(6)
        cache:remember("k", 60, function()
            cache:close()
            return "new"
        end)
        cache:work(1)
        assert.equal("closed", select(2, cache:get("k")).code)
    end)

    it("is not lost to the key where its queue had no room", function()
        local cache, runs = open({ background = { queue = 1 } }), 0
        local function load()
            runs = runs + 1
            return "new"
        end
        for _, key in ipairs({ "a", "b" }) do warm(cache, key, "v", 60) end
        time:advance(6)
        assert.equal("v", (cache:remember("a", 60, load)))
        assert.equal("v", (cache:remember("b", 60, load)))
        assert.equal(1, cache:stats().backgroundDropped)
        cache:work(1)
        assert.equal("v", (cache:remember("b", 60, load)))
        cache:work(1)
        assert.equal(2, runs)
    end)

    it("of a finalizer's read is one, too", function()
        local cache, runs = open(), 0
        warm(cache, "k", "v", 60)
        time:advance(6)
        local read
        do
            local proxy = newproxy(true)
            getmetatable(proxy).__gc = function()
                read = cache:remember("k", 60, function()
                    runs = runs + 1
                    return "new"
                end)
            end
        end
        collectgarbage()
        collectgarbage()
        assert.equal("v", read)
        cache:work(1)
        assert.equal(1, runs)
    end)
end)

describe("a value that is due, on a server,", function()
    it("is so for copies that were kept over a reconnect", function()
        local redis = server.start()
        finally(function() redis:stop() end)
        local cache = redcache.new({ url = redis:url(), refreshAfter = 1, background = true,
            maxStale = 60, commandTimeout = 20 })
        caches[1] = cache
        warm(cache, "k", "v", 60)
        local stored = clock.now()
        redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        clock.wait_until(function()
            cache:get("other", { near = false })
            return cache:get("k", { maxStale = 0.5 }) == "v"
        end, 10)
        local runs = 0
        local function load()
            runs = runs + 1
            return "new"
        end
        clock.sleep(math.max(0, stored + 1.1 - clock.now()))
        assert.equal("v", (cache:remember("k", 60, load)))
        cache:work(1)
        assert.equal(1, runs)
        assert.equal("new", (cache:remember("k", 60, load)))
    end)

    it("is served while Redis is silent, and the job gives up", function()
        local redis = server.start()
        finally(function() redis:stop() end)
        local cache = redcache.new({ url = redis:url(), refreshAfter = 0.1, near = true,
            maxStale = 60, commandTimeout = 2, scheduler = "coroutine" })
        caches[1] = cache
        redcache.run(function()
            warm(cache, "k", "v", 60)
            clock.sleep(0.15)
            redis:pause()
            local began = clock.now()
            for _ = 1, 50 do
                local value, err, source = cache:remember("k", 60, never)
                assert.same({ "v" }, { value, err })
                assert.is_truthy(source)
            end
            local took = clock.now() - began
            redis:resume()
            assert.is_true(took < 2, took) -- one that waits for Redis waits for commandTimeout
            clock.wait_until(function()
                assert.is_nil(calls.pause(cache, nil, "read", 0.01))
                local stats = cache:stats()
                return stats.backgroundQueued == 0 and stats.activeLeases == 0
            end, 10)
        end)
    end)

    it("is read near until Redis says that the new one stands there", function()
        local redis = server.start()
        finally(function() redis:stop() end)
        local cache = redcache.new({ url = redis:url(), refreshAfter = 0.1, near = true,
            maxStale = 60, commandTimeout = 30, scheduler = "coroutine" })
        caches[1] = cache
        local is_loaded = false
        local function load()
            redis:pause() -- what stores the value is sent, and not done
            is_loaded = true
            return "new"
        end
        redcache.run(function()
            warm(cache, "k", "old", 60)
            clock.wait_until(function()
                assert.equal("old", (cache:remember("k", 60, load)))
                assert.is_nil(calls.pause(cache, nil, "read", 0.01))
                return is_loaded
            end, 10)
            for _ = 1, 20 do
                assert.is_nil(calls.pause(cache, nil, "read", 0.005))
                local value, err, source = cache:get("k", { timeout = 0.5 })
                assert.same({ "old", nil, "l0" }, { value, err, source })
            end
            redis:resume()
            clock.wait_until(function() return cache:get("k") == "new" end, 10)
        end)
    end)
end)
