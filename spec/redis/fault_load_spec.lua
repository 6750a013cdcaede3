-- A load goes wrong around the loader: its process dies, its caller is cancelled or dropped, its
-- connection breaks. Those who wait are served at once or by the end of the lease.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local waited = require("spec.near.waited")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function open(options)
    options = options or {}
    options.url = options.url or redis:url()
    options.near = false -- this is about the way to Redis
    return redcache.new(options)
end

-- A process whose loader of key "k" waits until it is told to go on; tells how remember ended.
local function start_loader(params)
    params.url, params.value = params.url or redis:url(), params.value or "from the loader"
    local loading = worker.start({
        params = params,
        main = function(one)
            local params = one.params -- luacheck: ignore
            local cache = require("redcache").new({ near = false, url = params.url,
                commandTimeout = 10 })
            local value, err, source, flag = cache:remember("k", 60, function()
                one:emit("loading")
                one:receive()
                return params.value
            end, { leaseTtl = params.leaseTtl })
            one:emit("answered", {
                value = value, code = err and err.code, source = source, flag = flag,
            })
            one:receive()
        end,
    })
    loading:event("loading")
    return loading
end

-- A process that wants key "k", has its own value, and tells when it got which.
local function start_waiter(url)
    local before = redis:commandstats().evalsha
    local waiter = worker.start({
        params = { url = url or redis:url() },
        main = function(one)
            local cache = require("redcache").new({
                near = false, url = one.params.url, waitTimeout = 30, commandTimeout = 10,
            })
            local value, err, source, flag = cache:remember("k", 60, function()
                return "from the waiter"
            end, { leaseTtl = 30 })
            one:emit("answered", {
                value = value, code = err and err.code, source = source, flag = flag,
                waits = cache:stats().leaseWaits,
            })
            one:receive()
        end,
    })
    -- Its acquire has been answered with BUSY.
    clock.wait_until(function()
        local now = redis:commandstats().evalsha
        return now and now.calls > (before and before.calls or 0)
    end, 10, "a waiter")
    return waiter
end

-- A heartbeat is a script, or SET with IFEQ.
local function lease_commands()
    local stats = redis:commandstats()
    return stats.evalsha.calls + (stats.set and stats.set.calls or 0)
end

describe("a lease whose end cannot be told", function()
    it("is given back as soon as its connection is back, not at the end of its life", function()
        local line = proxy.start(redis)
        local cache = redcache.new({ url = line:url(), leaseTtl = 30, grace = 30 })
        finally(function() cache:close() line:stop() end)
        for i = 1, 30 do -- misses are likely: the lease is asked for over the tracked connection
            cache:remember("warm" .. i, 60, function() return 1 end)
        end
        line:refuse()
        line:cut("reset", "plain")
        local _, _, _, flag = cache:remember("k", 60, function() return "mine" end)
        assert.equal("unstored", flag)
        assert.is_true(redis:call("PTTL", "k") > 20000)
        line:flow()
        clock.wait_until(function() return redis:call("EXISTS", "k") == 0 end, 3,
            "the lease to be given back")
    end)
end)

describe("a loader whose process is killed", function()
    it("is replaced within leaseTtl + 100 ms, by one that waits", function()
        local lease = 0.5
        local loading = start_loader({ leaseTtl = lease })
        local waiter = start_waiter()
        -- The lease has been renewed at least once: it is not the first ttl that ends.
        local beats = lease_commands()
        clock.wait_until(function() return lease_commands() > beats end, 5, "a heartbeat")
        local watch = waited.watch({ waiter.pid, redis.pid }, true)
        local before = watch:seconds()
        loading:kill()
        local killed = clock.now()
        local answered = waiter:event("answered")
        local took, late = answered.at - killed, watch:seconds() - before
        assert.same({ "from the waiter", "loader" }, { answered.value, answered.source })
        assert.is_true(took < lease + clock.scaled(0.1) + late, "took " .. took)
        waiter:kill()
    end)

    it("is replaced within leaseTtl + 100 ms, by one that comes later", function()
        local lease = 0.4
        local cache = open()
        local loading = start_loader({ leaseTtl = lease })
        assert.is_false((cache:exists("k"))) -- it has a connection
        loading:kill()
        local took, value, _, source, flag = waited.time({ redis.pid }, cache.remember, cache,
            "k", 60, function() return "mine" end)
        assert.same({ "mine", "loader", nil }, { value, source, flag })
        assert.is_true(took < lease + clock.scaled(0.1), "took " .. took)
        cache:close()
    end)
end)

describe("a loader whose connection breaks", function()
    it("is overtaken when its lease has ended, and cannot overwrite (13)", function()
        local line = proxy.start(redis)
        local loading = start_loader({ url = line:url(), leaseTtl = 0.3 })
        local token = redis:call("GET", "k")
        line:refuse()
        line:cut()
        local cache = open()
        local runs = 0
        local value, _, source, flag = cache:remember("k", 60, function()
            runs = runs + 1
            assert.is_true(redis:call("GET", "k") ~= token)
            return "taken over"
        end)
        assert.same({ "taken over", "loader", nil, 1 }, { value, source, flag, runs })
        line:flow()
        loading:send({})
        local answered = loading:event("answered")
        -- Its fill is refused; it gets what stands there.
        assert.same({ "taken over", "redis" }, { answered.value, answered.source })
        assert.equal("taken over", cache:get("k"))
        loading:kill()
        cache:close()
        line:stop()
    end)

    it("stores all the same when it is back before the lease ends", function()
        local line = proxy.start(redis)
        local loading = start_loader({ url = line:url(), leaseTtl = 30 })
        line:cut()
        loading:send({})
        local answered = loading:event("answered")
        assert.same({ "from the loader", "loader" }, { answered.value, answered.source })
        assert.is_nil(answered.flag)
        assert.equal("from the loader", open():get("k"))
        loading:kill()
        line:stop()
    end)
end)

describe("a waiter", function()
    -- Those that nobody wakes wait for 20 s and more, so no bound here has to be tight.
    local SOON = 5

    it("proceeds soon behind a FLUSHDB (X5)", function()
        local loading = start_loader({ leaseTtl = 30 })
        local waiter = start_waiter()
        redis:call("FLUSHDB")
        local flushed = clock.now()
        local answered = waiter:event("answered")
        assert.same({ "from the waiter", "loader" }, { answered.value, answered.source })
        assert.is_true(answered.at - flushed < SOON)
        assert.is_true(answered.waits >= 1)
        loading:kill()
        waiter:kill()
    end)

    for _, which in ipairs({ "tracking", "plain" }) do
        it("proceeds soon when its " .. which .. " connection is back", function()
            local line = proxy.start(redis)
            local loading = start_loader({ leaseTtl = 30 })
            local waiter = start_waiter(line:url())
            line:refuse()
            assert.equal(1, line:cut("reset", which))
            -- Nobody can tell it of this.
            redis:call("DEL", "k")
            line:flow()
            local back = clock.now()
            local answered = waiter:event("answered")
            assert.same({ "from the waiter", "loader" }, { answered.value, answered.source })
            assert.is_nil(answered.flag)
            assert.is_true(answered.at - back < SOON)
            loading:kill()
            waiter:kill()
            line:stop()
        end)
    end

    it("is served by the load it waits for although its connections broke", function()
        local line = proxy.start(redis)
        local loading = start_loader({ leaseTtl = 30 })
        local waiter = start_waiter(line:url())
        for _ = 1, 3 do
            local accepted = line:counts().accepted -- before: a client is back at once
            line:cut()
            clock.wait_until(function() return line:counts().accepted >= accepted + 2 end, 5)
        end
        loading:send({})
        local told = clock.now()
        local answered = waiter:event("answered")
        assert.same({ "from the loader", "redis" }, { answered.value, answered.source })
        assert.is_true(answered.at - told < SOON)
        loading:kill()
        waiter:kill()
        line:stop()
    end)
end)

describe("cancel", function()
    -- Thread 1 wants key "k" with a tag; thread 2 cancels it as soon as it waits or loads.
    local function cancel_from_another_thread(params)
        params.url = redis:url()
        return threads.run({
            count = 2, params = params,
            main = function(thread)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({ near = false, url = thread.params.url })
                if thread.index == 1 then
                    local runs = 0
                    local _, err = cache:remember("k", 60, function()
                        runs = runs + 1
                        thread.tally(1)
                        support.wait_until(function() return thread.tally(2, 0) == 1 end, 10)
                        return "too late"
                    end, { cancelTag = 7, leaseTtl = 30, waitTimeout = 20 })
                    local ended = support.now()
                    -- The next call of this thread is as good as any.
                    local second, source
                    if thread.params.again then
                        second, err.more, source = cache:remember("k", 60, function()
                            return "second"
                        end)
                    end
                    return {
                        code = err and err.code, ended = ended, runs = runs, second = second,
                        source = source,
                    }
                end
                support.wait_until(function()
                    return thread.tally(1, 0) == 1 or cache:stats().leaseWaits == 1
                end, 10)
                local cancelled = support.now()
                local count = cache:cancel(7)
                local none = cache:cancel(8)
                thread.tally(2)
                return { count = count, none = none, cancelled = cancelled }
            end,
        })
    end

    it("ends a waiter at once, with `cancelled`, and leaves the lease to its holder (8)", function()
        local loading = start_loader({ leaseTtl = 30 })
        local token = redis:call("GET", "k")
        local done = cancel_from_another_thread({})
        assert.equal("cancelled", done[1].code)
        assert.equal(0, done[1].runs)
        assert.same({ 1, 0 }, { done[2].count, done[2].none })
        assert.is_true(done[1].ended - done[2].cancelled < 5) -- of 20 s
        assert.equal(token, redis:call("GET", "k"))
        loading:kill()
    end)

    it("ends a load: no placeholder stays, the next call loads at once (15, X3)", function()
        local done = cancel_from_another_thread({ again = true })
        assert.equal("cancelled", done[1].code)
        assert.equal(1, done[1].runs)
        assert.equal(1, done[2].count)
        assert.same({ "second", "loader" }, { done[1].second, done[1].source })
        assert.equal("second", open():get("k"))
    end)
end)

describe("a caller that is dropped in its loader", function()
    it("gives the lease back with its garbage, to one that waits elsewhere", function()
        local cache = open()
        local job = coroutine.create(function()
            cache:remember("k", 60, coroutine.yield, { leaseTtl = 600, maxLoadTime = 600 })
        end)
        assert(coroutine.resume(job))
        local waiter = start_waiter()
        job = nil -- luacheck: ignore
        local dropped = clock.now()
        collectgarbage()
        collectgarbage()
        local answered = waiter:event("answered")
        assert.same({ "from the waiter", "loader" }, { answered.value, answered.source })
        assert.is_true(answered.at - dropped < 5) -- of 600 s
        assert.equal(0, cache:stats().activeLeases)
        -- The same process is not held up by its own dropped load either.
        assert.equal("from the waiter", cache:remember("k", 60, error))
        waiter:kill()
        cache:close()
    end)

    it("hands its lease to a thread of the same process", function()
        local done = threads.run({
            count = 2, params = { url = redis:url() },
            main = function(thread)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({ near = false, url = thread.params.url })
                local options = { leaseTtl = 600, maxLoadTime = 600, waitTimeout = 20 }
                if thread.index == 2 then
                    thread.barrier()
                    local value, _, source, flag = cache:remember("k", 60, function()
                        return "handed on"
                    end, options)
                    return { value = value, source = source, flag = flag, at = support.now() }
                end
                local job = coroutine.create(function()
                    cache:remember("k", 60, coroutine.yield, options)
                end)
                assert(coroutine.resume(job))
                thread.barrier()
                support.wait_until(function() return cache:stats().waiting == 1 end, 10)
                -- It has read that a load is running, and waits for this one.
                support.wait_until(function() return cache:stats().inFlight == 0 end, 10)
                job = nil -- luacheck: ignore
                local dropped = support.now()
                collectgarbage()
                collectgarbage()
                return { dropped = dropped, leases = cache:stats().leases }
            end,
        })
        assert.same({ "handed on", "loader" }, { done[2].value, done[2].source })
        assert.is_nil(done[2].flag)
        assert.is_true(done[2].at - done[1].dropped < 5) -- of 600 s
        -- The lease itself changed hands: it was never given back to Redis.
        assert.equal(1, done[1].leases)
    end)
end)
