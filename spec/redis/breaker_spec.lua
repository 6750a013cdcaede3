-- The circuit breaker against a real server: stopped, slow, and back.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local TIMEOUT = clock.scaled(0.2) -- seconds
local PAGE = 20

describe("the circuit breaker", function()
    local redis, caches

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        caches = {}
        redis:call("FLUSHALL")
    end)
    after_each(function()
        redis:resume()
        for _, cache in ipairs(caches) do cache:close() end
    end)

    local function open(options)
        options.commandTimeout = options.commandTimeout or TIMEOUT
        options.url = options.url or redis:url()
        options.group = "breaker" .. #caches
        local cache = redcache.new(options)
        caches[#caches + 1] = cache
        local patience = { timeout = clock.scaled(2) }
        assert(cache:set("k", "v", 60, patience))
        assert(cache:get("k", patience))
        return cache
    end

    local function state(cache)
        local _, breaker = next(cache:health().breaker)
        return breaker and breaker.state
    end

    -- A page while Redis stands still: seconds, the codes of what failed, and during how many of
    -- its calls this process had no processor for a while: it does not blame Redis for what it has
    -- not heard meanwhile.
    local function page(cache)
        local codes, late, began = {}, 0, {}
        local watch = waited.watch({ posix.C.getpid() }, true)
        redis:pause()
        for i = 1, PAGE do
            began[i] = clock.now()
            local before = watch:seconds()
            local _, err = cache:get("k" .. i, { near = false })
            codes[i] = err and err.code
            late = late + (watch:seconds() - before > 0.03 and 1 or 0)
        end
        return clock.now() - began[1], codes, late, began
    end

    local function count_of(codes, code)
        local count = 0
        for i = 1, PAGE do
            count = count + (codes[i] == code and 1 or 0)
        end
        return count
    end

    it("lets a page wait for one time-out in all, where each call waited before", function()
        -- Not scaled: from a time-out of 0.5 s on two of them give the connection up, so calls
        -- would fail at once without a breaker, too.
        local took, codes, late = page(open({ near = false, commandTimeout = 0.2 }))
        redis:resume()
        local control, plain, _, began = page(open({ near = false, breaker = false,
            commandTimeout = 0.2 }))
        redis:resume()
        assert.equal("timeout", codes[1])
        assert.equal("unavailable", codes[PAGE])
        -- Without it calls wait until the connection is given up, a second after the first.
        local waits = count_of(codes, "timeout")
        assert.is_true(waits <= 1 + late, waits .. ", late " .. late)
        for i = 1, PAGE do
            if began[i] - began[1] < 0.7 then assert.equal("timeout", plain[i], i) end
        end
        assert.is_true(took < control, took .. " with it, " .. control .. " without")
    end)

    it("answers from near, by a loader or with an error that names it", function()
        local cache = open({ near = true, breaker = true, maxStale = 600, grace = 60 })
        cache:get("k")
        page(cache)
        local found = cache:get("k")
        local loaded, err, source, flag = cache:remember("new", 60, function() return "made" end)
        local nothing, why = cache:get("nobody", { near = false })
        redis:resume()
        assert.equal("v", found)
        assert.same({ "made", "loader", "degraded" }, { loaded, source, flag })
        assert.is_nil(err)
        assert.is_nil(nothing)
        assert.equal("unavailable", why.code)
        assert.is_truthy(why.message:find("the circuit breaker of 127%.0%.0%.1:%d+/0 is open: "
            .. "it does not answer"), why.message)
    end)

    it("closes within a second of its server's return, and calls are answered again", function()
        local cache = open({ near = false, breaker = true })
        page(cache)
        assert.not_equal("closed", state(cache))
        assert.equal(1, cache:stats().breakersOpen)
        clock.sleep(TIMEOUT * 8) -- its connections are given up meanwhile
        redis:resume()
        local watch = waited.watch({ posix.C.getpid(), redis.pid }, true)
        local before, began = watch:seconds(), clock.now()
        clock.wait_until(function() return cache:get("k") == "v" end, 10, "an answer")
        local took, late = clock.now() - began, watch:seconds() - before
        -- A probe that had no processor until its time-out costs a wait and another one.
        assert.is_true(took < clock.scaled(1.2) + 4 * late, took .. ", late " .. late)
        assert.equal("closed", state(cache))
        local stats = cache:stats()
        assert.equal(0, stats.breakersOpen)
        assert.equal(1, stats.breakerOpened)
        assert.is_true(stats.breakerRefused >= PAGE - 2)
    end)

    it("opens within 20 calls where each answer takes 200 ms", function()
        local line = proxy.start(redis)
        local cache = open({ near = false, breaker = true, url = line:url(),
            commandTimeout = clock.scaled(2) })
        line:delay(0.2, "down")
        local code
        local calls, late = 0, 0
        local watch = waited.watch({ posix.C.getpid() }, true)
        repeat
            local before = watch:seconds()
            local _, err = cache:get("k")
            code, calls = err and err.code, calls + 1
            late = late + (watch:seconds() - before > 0.03 and 1 or 0)
        until code or calls > 3 * PAGE
        local cause = select(2, next(cache:health().breaker)).cause
        local opened = cache:stats().breakerOpened
        line:delay(0, "down")
        clock.wait_until(function() return cache:get("k") == "v" end, 4, "an answer")
        cache:close()
        line:stop()
        assert.equal("unavailable", code)
        assert.equal("its answers are slow", cause)
        assert.equal(1, opened)
        -- The refused call is one more, and so is each during which this process had no processor:
        -- what was sent before a late turn of ours is no sample.
        assert.is_true(calls <= PAGE + 1 + late or clock.scale > 1, calls .. ", late " .. late)
    end)

    it("probes one by one, at most three in a quarter of a second, however many callers", function()
        local line = proxy.start(redis)
        local cache = open({ near = false, breaker = true, url = line:url(),
            scheduler = "coroutine" })
        line:stall("down")
        clock.wait_until(function()
            redcache.run(function() cache:get("k") end)
            return cache:stats().breakersOpen == 1
        end, 5, "it is open")
        local before, began = cache:stats().breakerProbes, clock.now()
        local refused = 0
        redcache.run(function()
            for _ = 1, 1000 do
                redcache.spawn(function()
                    local _, err = cache:get("k")
                    if err and err.code == "unavailable" then refused = refused + 1 end
                end)
            end
        end)
        local probes, took = cache:stats().breakerProbes - before, clock.now() - began
        line:flow()
        cache:close()
        line:stop()
        assert.equal(1000, refused)
        assert.is_true(probes <= 3 * (took / 0.25 + 1), probes)
    end)

    it("takes its caller's errors for no illness", function()
        local cache = open({ near = false, breaker = true })
        local raw = cache:redis()
        for _ = 1, 3 * PAGE do
            local _, err = raw:command("LPUSH", "k", "x")
            assert.is_truthy(err)
        end
        assert.equal("closed", state(cache))
        assert.equal(0, cache:stats().breakerOpened)
    end)

    it("is there unless `false` is asked for", function()
        assert.equal("closed", state(open({ near = false })))
        assert.same({}, open({ near = false, breaker = false }):health().breaker)
    end)

    it("leaves a server alone that is far away but answers", function()
        local line = proxy.start(redis)
        local cache = open({ near = false, url = line:url(), commandTimeout = clock.scaled(2) })
        line:delay(0.12, "down")
        local codes = {}
        for i = 1, PAGE + 5 do
            local _, err = cache:get("k")
            codes[i] = err and err.code
        end
        local opened = cache:stats().breakerOpened
        cache:close()
        line:stop()
        assert.same({}, codes)
        assert.equal(0, opened)
    end)

    it("refuses fields that are none, or out of range", function()
        for _, bad in ipairs({ { window = 0 }, { window = 201 }, { errors = 0 }, { errors = 1.1 },
            { latency = 0 }, { probes = 0.5 }, { wait = 1.5 }, { other = 1 } }) do
            assert.error_matches(function() redcache.new({ breaker = bad }) end,
                "bad option 'breaker' to new: ")
        end
        assert.error_matches(function() redcache.new({ breaker = 1 }) end,
            "bad option 'breaker' to new: true, false or a table expected")
    end)
end)
