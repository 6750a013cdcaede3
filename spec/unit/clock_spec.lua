-- redcache.clock(): specs of users move time by hand. Nothing here takes real time.

local redcache = require("redcache")
local real = require("spec.support.clock")

local clock, caches

-- Two caches with different groups are two clients, as two processes are.
local function open(options)
    options = options or {}
    options.url, options.clock = options.url or "memory://", options.clock or clock
    local cache = redcache.new(options)
    caches[#caches + 1] = cache
    return cache
end

before_each(function() clock, caches = redcache.clock(), {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function never()
    error("the loader ran")
end

local function value_and_source(value, err, source)
    return { value, err and err.code or source }
end

describe("redcache.clock", function()
    it("begins at 0 and moves when it is told to", function()
        assert.equal(0, clock:now())
        clock:advance(1.5)
        clock:advance(0)
        clock:advance(0.25)
        assert.equal(1.75, clock:now())
    end)

    it("goes forward only, and by a number of seconds", function()
        for _, wrong in ipairs({ -1, 0 / 0, math.huge, "1", true }) do
            assert.has_error(function() clock:advance(wrong) end)
        end
        local _, message = pcall(clock.advance, clock, -1)
        assert.matches("bad argument 'seconds' to advance: number from 0 to", message, 1, true)
    end)

    it("is the only thing that the option takes", function()
        for _, wrong in ipairs({ true, 5, {}, print }) do
            local ok, message = pcall(redcache.new, { clock = wrong })
            assert.is_false(ok)
            assert.matches("bad option 'clock' to new: redcache.clock() expected", message, 1, true)
        end
    end)

    it("has stores of its own", function()
        local other, real_time = redcache.clock(), redcache.new()
        caches[1] = real_time
        real_time:set("k", "real")
        local mine, yours, named = open(), open({ clock = other }), open({ url = "memory://name" })
        mine:set("k", "mine")
        assert.is_nil(yours:get("k"))
        assert.is_nil(named:get("k"))
        assert.equal("real", real_time:get("k"))
        assert.equal("mine", open({ group = "other" }):get("k"))
    end)

    it("moves a day in no time", function()
        local cache = open()
        local lock = cache:tryLock("job", { ttl = 3 })
        local before = os.clock() -- the processor's: what else runs does not count
        clock:advance(86400)
        local took = os.clock() - before
        assert.is_true(lock:valid()) -- renewed 86,400 times
        assert.equal(86400, cache:stats().lockRenewals)
        assert.equal(0, cache:stats().reactorTurns) -- there is no thread
        assert.is_true(took < real.scaled(2), took .. " s")
    end)

    it("gives the same run each time", function()
        local function run()
            local at, trace = redcache.clock(), {}
            local a, b = open({ clock = at, group = "a" }), open({ clock = at, group = "b" })
            local function note(what) trace[#trace + 1] = what .. " at " .. at:now() end
            a:remember("k", 60, function()
                at:advance(7)
                local _, err = b:remember("k", 60, never, { waitTimeout = 1.3 })
                note(err.code)
                return 1
            end)
            note(a:get("k"))
            local lock = b:tryLock("job", { ttl = 2, renew = false })
            a:withLock("job", { wait = 9 }, function() note("a has it") end)
            note(tostring(lock:valid()))
            local stats = b:stats()
            for _, name in ipairs({ "requests", "pushes", "heartbeats", "lockRenewals" }) do
                note(name .. " " .. stats[name])
            end
            return table.concat(trace, ", ")
        end
        local first = run()
        assert.matches("timeout at 8.3, 1 at 8.3, a has it at 10.", first, 1, true)
        for _ = 1, 5 do assert.equal(first, run()) end
    end)
end)

for _, near in ipairs({ true, false }) do
    describe("with near = " .. tostring(near) .. " the clock", function()
        it("ends a value at its ttl, and not before", function()
            local cache = open({ near = near })
            cache:set("k", "v", 60)
            assert.equal(60, cache:ttl("k"))
            assert.equal("v", cache:get("k"))
            clock:advance(59.999)
            assert.equal("v", cache:get("k"))
            assert.equal(0.001, cache:ttl("k"))
            clock:advance(0.002) -- as in Redis, it lives through its last millisecond
            assert.is_nil(cache:get("k"))
            assert.is_nil(cache:ttl("k"))
        end)

        it("ends 'no such thing' at negativeTtl", function()
            local cache = open({ near = near, negativeTtl = 5 })
            local function nothing() return nil end
            cache:remember("k", 60, nothing)
            clock:advance(4.9)
            assert.equal("redis", select(3, cache:remember("k", 60, never)))
            clock:advance(0.101)
            assert.equal("loader", select(3, cache:remember("k", 60, nothing)))
        end)

        it("opens the grace window and closes it", function()
            local cache = open({ near = near, grace = 30 })
            local function fail() error("no database") end
            cache:remember("k", 60, function() return "old" end)
            clock:advance(61)
            assert.same({ "old", "stale" }, value_and_source(cache:remember("k", 60, fail)))
            clock:advance(28.9)
            assert.same({ "old", "stale" }, value_and_source(cache:remember("k", 60, fail)))
            clock:advance(0.101)
            assert.same({ nil, "loaderFailed" }, value_and_source(cache:remember("k", 60, fail)))
        end)
    end)
end

describe("a slow loader", function()
    it("keeps its lease by heartbeats", function()
        local cache, other = open({ leaseTtl = 5 }), open({ group = "other" })
        assert.same({ "slow", "loader" }, value_and_source(cache:remember("k", 60, function()
            clock:advance(20)
            assert.is_nil(other:get("k"))
            return "slow"
        end)))
        assert.equal(20, clock:now())
        assert.equal(11, cache:stats().heartbeats) -- one each 5/3 s
        assert.equal("slow", other:get("k"))
    end)

    it("tells its time to who reads the value", function()
        local cache = open({ grace = 60, leaseTtl = 5 })
        cache:remember("k", 10, function() return "v" end)
        clock:advance(14)
        cache:remember("k", 10, function(_, ctx)
            assert.equal("v", ctx.value)
            assert.equal(14, ctx.age)
            return ctx.notModified
        end)
    end)

    it("loses its lease where nothing renews it, and gets the value of who took over", function()
        local slow = open({ leaseTtl = 5, renew = false })
        local heir = open({ group = "heir", waitTimeout = 10 })
        local value, _, source, flag = slow:remember("k", 60, function()
            local start = clock:now()
            assert.same({ "heir's", "loader" }, value_and_source(heir:remember("k", 60, function()
                return "heir's"
            end)))
            assert.is_true(clock:now() - start < 5.1) -- as soon as the lease had ended
            return "too late"
        end)
        assert.same({ "heir's", "redis" }, { value, source, flag })
        assert.equal("heir's", slow:get("k"))
    end)

    it("is waited for until waitTimeout, which moves the clock", function()
        local cache, other = open(), open({ group = "other" })
        local value = cache:remember("k", 60, function()
            local none, err = other:remember("k", 60, never, { waitTimeout = 2 })
            assert.same({ nil, "timeout" }, { none, err.code })
            assert.equal(2, clock:now())
            return "made"
        end)
        assert.equal("made", value)
        assert.equal("made", other:remember("k", 60, never))
    end)

    it("ends its heartbeats at maxLoadTime", function()
        local cache, other = open({ leaseTtl = 3, maxLoadTime = 10 }), open({ group = "other" })
        cache:remember("k", 60, function()
            clock:advance(20)
            assert.same({ "other's", "loader" }, value_and_source(other:remember("k", 60,
                function() return "other's" end)))
            return "stuck"
        end)
        assert.equal("other's", cache:get("k"))
    end)
end)

describe("a slow writer", function()
    it("learns that it outlived its lease", function()
        local cache = open({ leaseTtl = 5, renew = false })
        cache:set("k", "old")
        local value, err = cache:put("k", 60, function()
            clock:advance(6)
            return "new"
        end)
        assert.same({ nil, "leaseLost" }, { value, err.code })
        assert.equal("old", cache:get("k"))
    end)
end)

describe("what nobody reads any more", function()
    it("goes while the clock is advanced", function()
        local cache = open()
        cache:get("k") -- tracked from now on
        cache:set("k", "v", 5)
        cache:get("k")
        local before = cache:stats().pushes
        clock:advance(4.9)
        assert.equal(before, cache:stats().pushes)
        clock:advance(0.2)
        assert.equal(before + 1, cache:stats().pushes)
    end)
end)

describe("a lock", function()
    it("is lost past its ttl where nothing renews it", function()
        local cache = open()
        local called
        local _, err = cache:withLock("job", {
            ttl = 10, renew = false, onLost = function() called = clock:now() end,
        }, function(lock)
            clock:advance(8.9)
            assert.is_true(lock:valid())
            assert.is_true(math.abs(lock:ttl() - 0.1) < 1e-9)
            clock:advance(0.1) -- it stops trusting a tenth before
            assert.is_false(lock:valid())
            return "done"
        end)
        assert.equal("lockLost", err.code)
        assert.equal(9, called)
    end)

    it("is renewed while the function takes its time", function()
        local cache, other = open(), open({ group = "other" })
        assert.equal("done", cache:withLock("job", { ttl = 1 }, function(lock)
            clock:advance(100)
            assert.is_true(lock:valid() and lock:held())
            assert.equal("notAcquired", select(2, other:tryLock("job")).code)
            return "done"
        end))
    end)

    it("comes to who waits when the holder's time is over", function()
        local cache, other = open(), open({ group = "other" })
        local first = cache:tryLock("job", { ttl = 3, renew = false })
        local second = other:lock("job")
        assert.is_true(second:acquire(10))
        assert.is_true(clock:now() >= 3 and clock:now() < 3.2, "at " .. clock:now())
        assert.is_true(second.fence > first.fence)
        assert.is_true(first:lost())
        assert.equal("notHeld", select(2, first:release()).code)
    end)

    it("is waited for no longer than asked", function()
        local cache, other = open(), open({ group = "other" })
        local held = cache:tryLock("job")
        local lock, err = other:lock("job"):acquire(4)
        assert.same({ nil, "notAcquired" }, { lock, err.code })
        assert.equal(4, clock:now())
        assert.is_true(held:valid())
    end)
end)

describe("the near cache", function()
    it("serves what was known coherent within maxStale", function()
        local cache = open({ maxStale = 1 })
        cache:set("k", "v", 3600)
        cache:get("k")
        for _ = 1, 100 do -- who reads all the time goes on reading near
            clock:advance(0.1)
            assert.equal("v", cache:get("k"))
        end
        assert.is_true(cache.near:stats().hits >= 99)
        clock:advance(60) -- nobody asked for news meanwhile
        assert.equal("redis", select(3, cache:get("k")))
        assert.equal("near", select(3, cache:get("k")))
    end)

    it("hears of the writes of other clients", function()
        local cache, other = open(), open({ group = "other" })
        other:set("k", 1)
        cache:get("k")
        assert.equal("near", select(3, cache:get("k")))
        other:set("k", 2)
        assert.same({ 2, "redis" }, value_and_source(cache:get("k")))
    end)
end)

describe("closing", function()
    it("gives locks back, and moves no clock", function()
        local cache, other = open(), open({ group = "other" })
        cache:tryLock("job")
        cache:close()
        assert.is_truthy(other:tryLock("job"))
        assert.equal(0, clock:now())
        assert.equal("closed", select(2, cache:get("k")).code)
        clock:advance(1)
    end)
end)

describe("a value that ends while its successor is made", function()
    it("does not void a put", function()
        local cache = open()
        cache:set("k", "old", 1)
        assert.equal("new", (cache:put("k", 60, function()
            clock:advance(2)
            return "new"
        end)))
        assert.same({ "new", "redis" }, value_and_source(cache:get("k", { near = false })))
    end)

    it("is loaded once, however long a refresh takes", function()
        local one, two = open({ grace = 1 }), open({ grace = 1, group = "two" })
        one:set("k", "old", 1)
        clock:advance(1.5)
        local runs = 0
        local function count(value)
            return function()
                runs = runs + 1
                return value
            end
        end
        assert.same({ "one", "loader" }, value_and_source(one:remember("k", 60, function()
            clock:advance(3)
            local value, err = two:remember("k", 60, count("two"), { waitTimeout = 0.5 })
            assert.is_nil(value)
            assert.equal("timeout", err.code)
            return count("one")()
        end)))
        assert.equal(1, runs)
        assert.same({ "one", "redis" }, value_and_source(two:remember("k", 60, never)))
    end)

    it("stays deleted, if it was", function()
        local one, two = open({ grace = 1 }), open({ grace = 1, group = "two" })
        one:set("k", "old", 1)
        clock:advance(1.5)
        one:remember("k", 60, function()
            two:delete("k")
            clock:advance(3)
            return "void"
        end)
        assert.is_nil((two:get("k")))
        one:set("p", "old", 1)
        assert.equal("lockLost", select(2, one:put("p", 60, function()
            two:delete("p")
            clock:advance(3)
            return "void"
        end)).code)
        assert.is_nil((two:get("p")))
    end)
end)
