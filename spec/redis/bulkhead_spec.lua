-- maxInFlight, maxRate, maxWaiting: on memory://, by a clock that is moved, among coroutines. What
-- single calls promise: spec/support/cases/bulkheads.lua; those of light threads that vanish:
-- spec/nginx/bulkhead_spec.lua.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")

local run, spawn = redcache.run, redcache.spawn

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches = {}
end)
after_each(function()
    posix.C.kill(redis.pid, posix.SIGCONT)
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    if options.near == nil then options.near = false end
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function coroutines(options)
    options.url, options.scheduler, options.namespace = redis:url(), "coroutine", "app"
    return open(options)
end

local function code(_, err) return err and err.code end

describe("maxRate by a clock that is moved", function()
    it("gives a second's worth, and one for each part of a second", function()
        local time = redcache.clock()
        local cache = open({ url = "memory://", clock = time, namespace = "app", maxRate = 4 })
        local function passed(tries)
            local count = 0
            for i = 1, tries do count = count + (cache:set("k", i) and 1 or 0) end
            return count
        end
        assert.equal(4, passed(10))
        assert.equal(0, passed(10))
        time:advance(0.24)
        assert.equal(0, passed(10))
        time:advance(0.01)
        assert.equal(1, passed(10))
        time:advance(0.5)
        assert.equal(2, passed(10))
        time:advance(3600)
        assert.equal(4, passed(10))
        assert.equal(49, cache:stats().bulkheadRefused)
    end)

    it("below one a second is one call at a time", function()
        local time = redcache.clock()
        local cache = open({ url = "memory://", clock = time, namespace = "app", maxRate = 0.1 })
        assert.is_nil(code(cache:set("k", 1)))
        time:advance(9.9)
        assert.equal("overload", code(cache:set("k", 1)))
        time:advance(0.2)
        assert.is_nil(code(cache:set("k", 1)))
    end)
end)

describe("limits on memory://", function()
    it("are as on Redis", function()
        local cache = open({ namespace = "app", maxRate = 0.001 })
        assert.is_true(cache:set("k", 1))
        local value, err = cache:get("k")
        assert.is_nil(value)
        assert.equal("could not read 'k': too many calls of this namespace: maxRate is reached",
            err.message)
        assert.equal("overload", code(cache:remember("k", 1, function() return 2 end)))
    end)
end)

describe("maxInFlight among coroutines", function()
    it("is never exceeded, and those that wait come in order", function()
        local cache = coroutines({ maxInFlight = 3, maxWaiting = 100 })
        local order, most = {}, 0
        run(function()
            for i = 1, 60 do
                spawn(function()
                    assert(cache:set("k" .. i, i, 60, { timeout = clock.scaled(5) }))
                    order[#order + 1] = i
                    most = math.max(most, cache:stats().bulkheadInFlight)
                end)
            end
        end)
        for i = 1, 60 do assert.is_true(math.abs(order[i] - i) <= 3, i .. ": " .. order[i]) end
        assert.is_true(most <= 3)
        assert.same({ 57, 0, 0, 0 }, { cache:stats().bulkheadWaited,
            cache:stats().bulkheadRefused, cache:stats().bulkheadInFlight,
            cache:stats().bulkheadWaiting })
    end)

    it("ends what finds no room in the queue, and what waits too long", function()
        local cache = coroutines({ maxInFlight = 1, maxWaiting = 1,
            commandTimeout = clock.scaled(2) })
        assert(cache:set("k", 1))
        posix.C.kill(redis.pid, posix.SIGSTOP)
        local codes = {}
        run(function()
            for i, timeout in ipairs({ 1, 0.3, 1 }) do
                spawn(function()
                    codes[i] = code(cache:get("k", { timeout = clock.scaled(timeout) }))
                end)
            end
        end)
        assert.same({ "timeout", "overload", "overload" }, codes)
        assert.equal(0, cache:stats().bulkheadInFlight)
    end)

    it("ends what waits with closed where the cache is closed", function()
        local cache = coroutines({ maxRate = 0.001, maxWaiting = 1 })
        assert(cache:set("k", 1))
        local seen
        run(function()
            spawn(function() seen = code(cache:get("k", { timeout = 30 })) end)
            spawn(function() cache:close() end)
        end)
        assert.equal("closed", seen)
    end)

    it("has the place back of a call that never goes on", function()
        local cache = open({ url = redis:url(), namespace = "app", maxInFlight = 1,
            commandTimeout = clock.scaled(0.6), codec = {
                id = 100, name = "leaves", decode = tostring, encode = coroutine.yield } })
        local left = coroutine.create(function() cache:set("k", "v") end)
        assert.same({ true, "v" }, { coroutine.resume(left) })
        assert.equal(1, cache:stats().bulkheadInFlight)
        assert.equal("overload", code(cache:get("k")))
        clock.wait_until(function() return not code(cache:get("k")) end, 10)
        assert.equal("suspended", coroutine.status(left))
        assert.equal(0, cache:stats().bulkheadInFlight)
    end)

    it("has the place back of a call whose codec throws", function()
        local cache = open({ url = redis:url(), namespace = "app", maxInFlight = 1, codec = {
            id = 100, name = "throws", decode = tostring, encode = function() error("no") end } })
        for _ = 1, 3 do assert.equal("encode", code(cache:set("k", "v"))) end
        assert.equal(0, cache:stats().bulkheadInFlight)
    end)
end)

describe("metrics", function()
    it("have a namespace's places once, and what each cache was refused", function()
        local cache = open({ namespace = "app", maxRate = 0.001 })
        assert(cache:set("k", 1))
        cache:get("k")
        local text = cache:metrics()
        for name, value in pairs({ refused_total = 1, waited_total = 0, in_flight = 0,
            waiting = 0 }) do
            assert.matches('redcache_bulkhead_' .. name .. '{cache="app"} ' .. value .. "\n", text,
                1, true)
        end
    end)
end)

it("maxWaiting without a limit is refused", function()
    assert.error_matches(function() redcache.new({ maxWaiting = 1 }) end,
        "bad option .maxWaiting. to new: no call has to wait without .maxInFlight. or .maxRate.")
end)

it("a cache without limits has no bulkhead", function()
    local cache = open({ namespace = "app", maxWaiting = 0 })
    assert.is_false(cache._bulkhead)
    assert.equal(cache._scheduler.wait, cache._wait)
    assert.is_nil(cache._client.bulkheads)
end)
