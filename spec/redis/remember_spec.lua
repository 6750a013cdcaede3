-- remember: one loader run, the same value for everybody.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

-- Threads that ask at once; ThreadSanitizer needs 50 s for 400, and sees no more in them.
local MANY = clock.scale == 1 and 400 or 100

-- How long a herd may take. Its calls and leases have a minute: who loads is the question, and on a
-- machine with 100 other things to do a thread may be without a processor for seconds.
local PATIENCE = 120

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ near = false, url = redis:url(), group = "a" })
end)
after_each(function() cache:close() end)

local function never()
    error("the loader ran")
end

-- How often a value was loaded, over all processes: loaders count in Redis.
local function runs()
    return tonumber(redis:call("GET", "runs") or 0)
end

describe("remember for many callers", function()
    it("runs the loader once for 5 processes that ask at once (1)", function()
        local all = herd.run({
            count = 5, params = { url = redis:url(), port = redis.port }, timeout = PATIENCE,
            main = function(worker)
                local foreign = require("spec.support.resp").connect(worker.params)
                local mine = require("redcache").new({
                    near = false,
                    url = worker.params.url, connectTimeout = 60, commandTimeout = 60,
                    waitTimeout = 60, leaseTtl = 60,
                })
                worker:ready()
                local value, err, source = mine:remember("k", 60, function()
                    foreign:call("INCR", "runs")
                    require("spec.support.clock").sleep(0.5)
                    return { loaded_by = worker.index }
                end)
                mine:close()
                return { value = value, err = tostring(err), source = source }
            end,
        })
        assert.equal(1, runs())
        local loaders = 0
        for _, result in ipairs(all.results) do
            assert.equal("nil", result.err)
            assert.same(all.results[1].value, result.value)
            if result.source == "loader" then loaders = loaders + 1 end
        end
        assert.equal(1, loaders)
    end)

    it("runs the loader once for " .. MANY .. " threads with their own Lua states (2)", function()
        local results = threads.run({
            count = MANY, params = { url = redis:url() }, timeout = PATIENCE,
            main = function(thread)
                local mine = require("redcache").new({
                    near = false,
                    url = thread.params.url, connectTimeout = 60, commandTimeout = 60,
                    waitTimeout = 60, leaseTtl = 60,
                })
                thread.barrier()
                local value, err = mine:remember("k", 60, function()
                    thread.tally(1, 1)
                    require("spec.support.clock").sleep(0.1)
                    return "by " .. thread.index
                end)
                thread.barrier()
                return { value = value, err = tostring(err), runs = thread.tally(1, 0) }
            end,
        })
        for i = 1, MANY do
            assert.equal("nil", results[i].err)
            assert.equal(results[1].value, results[i].value)
        end
        assert.equal(1, results[1].runs)
    end)

    it("loads once per life of the value for 10 processes that read 1000 times (3)", function()
        local all = herd.run({
            count = 10, params = { url = redis:url() }, timeout = PATIENCE,
            main = function(worker)
                local mine = require("redcache").new({
                    near = false,
                    url = worker.params.url, connectTimeout = 60, commandTimeout = 60,
                    waitTimeout = 60, leaseTtl = 60,
                })
                local count = 0
                local function loader()
                    count = count + 1
                    return "v"
                end
                local started = worker:ready()
                for _ = 1, 1000 do
                    assert(mine:remember("k", 1, loader) == "v")
                end
                local ended = require("spec.support.clock").now()
                mine:close()
                return { runs = count, started = started, ended = ended }
            end,
        })
        local total, started, ended = 0, math.huge, 0
        for _, result in ipairs(all.results) do
            total = total + result.runs
            started, ended = math.min(started, result.started), math.max(ended, result.ended)
        end
        -- A slow machine needs longer than the value's life of 1 s, and loads again.
        local lives = 1 + math.floor(ended - started)
        assert.is_true(total >= 1 and total <= lives, total .. " runs in " .. lives .. " lives")
    end)

    it("gives " .. MANY .. " callers on 4 clients the value with a lease of 100 ms (11)", function()
        local results = threads.run({
            count = MANY, params = { url = redis:url() }, timeout = PATIENCE,
            main = function(thread)
                local mine = require("redcache").new({
                    near = false,
                    url = thread.params.url, group = tostring(thread.index % 4), leaseTtl = 0.1,
                    connectTimeout = 60, commandTimeout = 60, waitTimeout = 60,
                })
                thread.barrier()
                local value, err = mine:remember("k", 60, function()
                    require("spec.support.clock").sleep(0.005)
                    return "v"
                end)
                return { value = value, err = tostring(err) }
            end,
        })
        for i = 1, MANY do
            assert.same({ value = "v", err = "nil" }, results[i])
        end
    end)
end)

describe("remember", function()
    it("counts an uncontended miss as that and nothing else (7)", function()
        local before = cache:stats()
        assert.equal("v", cache:remember("k", 60, function() return "v" end))
        local after = cache:stats()
        local function grown(name) return after[name] - before[name] end
        assert.same({ 1, 1, 1 }, { grown("misses"), grown("loads"), grown("leases") })
        for _, name in ipairs({ "hits", "waits", "leaseWaits", "leasesLost", "unstored",
            "loadErrors", "heartbeats", "activeLeases" }) do
            assert.equal(0, grown(name), name)
        end
    end)

    it("takes a stored empty string for a hit (5)", function()
        assert.is_true(cache:set("k", "", 60))
        local before = cache:stats().hits
        assert.same({ value = "", source = "redis" },
            peer.report(cache:remember("k", 60, never)))
        assert.equal(before + 1, cache:stats().hits)
        assert.same({ value = "", source = "redis" }, peer.report(cache:get("k")))
    end)

    it("gives miss and hit the same value of the same type (X17)", function()
        local values = { "text", "", 42, -1.5, true, false, { a = { 1, 2, { b = false } } }, {} }
        for i, value in ipairs(values) do
            local key = "k" .. i
            assert.same({ value, nil, "loader" },
                { cache:remember(key, 60, function() return value end) })
            assert.same({ value, nil, "redis" }, { cache:remember(key, 60, never) })
        end
    end)

    it("gives the loader the key and a context", function()
        local key, ctx
        cache:remember("user:7", 60, function(...)
            key, ctx = ...
            return 1
        end)
        assert.equal("user:7", key)
        assert.is_table(ctx.notModified)
        assert.is_nil(ctx.value)
    end)

    it("remembers nil as 'no such thing' for negativeTtl (19)", function()
        local function nothing() return nil end
        assert.same({ source = "loader" }, peer.report(cache:remember("k", 60, nothing)))
        local life = redis:call("PTTL", "k")
        assert.is_true(life > 4000 - 1000 * clock.scale and life <= 5000, tostring(life))
        assert.same({ source = "redis" }, peer.report(cache:remember("k", 60, never)))
        assert.same({ source = "redis" }, peer.report(cache:get("k")))
        assert.same({ false, true }, { cache:exists("k") })
        assert.is_nil(cache:ttl("k"))
    end)

    it("does not remember nil with a negativeTtl of 0", function()
        local function nothing() return nil end
        cache:remember("k", 60, nothing, { negativeTtl = 0 })
        assert.equal(0, redis:call("EXISTS", "k"))
        assert.is_nil((select(3, cache:get("k"))))
    end)

    it("stores false as a value of its own", function()
        assert.is_false((cache:remember("k", 60, function() return false end)))
        assert.same({ value = false, source = "redis" }, peer.report(cache:get("k")))
        assert.is_true((cache:exists("k")))
    end)

    it("lives as long as the loader says, negative entries too (18)", function()
        cache:remember("v", 300, function() return 1, 30 end)
        cache:remember("n", 300, function() return nil, nil, 20 end)
        cache:remember("f", 300, function() return 1, redcache.FOREVER end)
        local value, none = redis:call("PTTL", "v"), redis:call("PTTL", "n")
        assert.is_true(value > 20000 and value <= 30000, tostring(value))
        assert.is_true(none > 10000 and none <= 20000, tostring(none))
        assert.equal(-1, redis:call("PTTL", "f"))
    end)

    it("does not store what the loader gives a ttl of 0", function()
        assert.same({ value = "v", source = "loader", flag = "unstored" },
            peer.report(cache:remember("k", 60, function() return "v", 0 end)))
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("refuses a bad ttl from the loader and stores nothing", function()
        for _, ttl in ipairs({ -1, 0 / 0, "60", math.huge }) do
            local value, err = cache:remember("k", 60, function() return "v", ttl end)
            assert.is_nil(value)
            assert.equal("badTtl", err.code)
        end
        assert.is_false((cache:exists("k")))
    end)

    it("uses the cache's ttl where the call has none, to the millisecond", function()
        local short = redcache.new({ near = false, url = redis:url(), group = "a", ttl = 12.345 })
        short:remember("k", nil, function() return 1 end)
        local life = redis:call("PTTL", "k")
        assert.is_true(life > 2000 and life <= 12345, tostring(life))
        short:close()
    end)

    it("detects a loader that asks for its own key (16)", function()
        local inner
        local took, value = clock.time(function()
            return (cache:remember("k", 60, function()
                inner = peer.report(cache:remember("k", 60, never))
                local _, err = cache:put("k", 60, never)
                assert.equal("recursive", err.code)
                cache:remember("other", 60, function() return 1 end)
                return "outer"
            end))
        end)
        assert.equal("recursive", inner.code)
        assert.equal("outer", value)
        assert.is_true(took < clock.scaled(1), "it hung for " .. took)
        assert.equal("outer", cache:get("k"))
    end)

    it("detects that in a coroutine of the loader's own", function()
        local inner
        cache:remember("k", 60, function()
            coroutine.wrap(function() inner = peer.report(cache:remember("k", 60, never)) end)()
            return "outer"
        end)
        assert.equal("recursive", inner.code)
        assert.matches("its loader asks for the key itself", inner.message, 1, true)
    end)

    it("names the option where the call would hold up the loader", function()
        local loads = coroutine.wrap(function()
            return (cache:remember("k", 60, function()
                coroutine.yield()
                return "outer"
            end))
        end)
        loads()
        local from_main = peer.report(cache:remember("k", 60, never))
        local from_other = coroutine.wrap(function()
            return peer.report(cache:put("k", 60, never))
        end)()
        for _, told in ipairs({ from_main, from_other }) do
            assert.equal("recursive", told.code)
            assert.matches("option scheduler", told.message, 1, true)
            assert.is_nil(told.message:find("asks for the key itself", 1, true))
        end
        assert.equal("outer", loads())
        assert.equal("outer", cache:remember("k", 60, never))
    end)

    it("rejects a ttl of 0, below 0 and NaN before any loader and command (X8)", function()
        cache:get("connected")
        local counts = monitor.wire(redis, function()
            for _, ttl in ipairs({ 0, -1, -0.001, 0 / 0, -math.huge, math.huge, "60", true }) do
                for _, call in ipairs({
                    { cache:remember("k", ttl, never) }, { cache:put("k", ttl, never) },
                    { cache:set("k", 1, ttl) },
                }) do
                    assert.is_nil(call[1])
                    assert.equal("badTtl", call[2].code)
                    assert.equal("k", call[2].key)
                end
                local ok, failed = cache:setMulti({ k = 1 }, ttl)
                assert.is_nil(ok)
                assert.equal("badTtl", failed.k.code)
            end
        end)
        assert.same({ total = 0 }, counts)
    end)
end)

describe("rememberForever", function()
    it("stores without expiry, and forgets when the key is deleted", function()
        assert.equal(1, (cache:rememberForever("k", function() return 1 end)))
        assert.equal(-1, redis:call("PTTL", "k"))
        assert.equal(redcache.FOREVER, cache:ttl("k"))
        assert.equal(1, (cache:rememberForever("k", never)))
        redis:call("DEL", "k")
        assert.equal(2, (cache:rememberForever("k", function() return 2 end)))
    end)
end)
