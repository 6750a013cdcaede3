-- Who moves the bytes: a lone blocking caller itself, the reactor thread while Lua is busy or many
-- wait. Seen through stats() and through what goes on meanwhile.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local worker = require("spec.support.worker")

local redis, cache

local function open(options)
    options = options or {}
    options.url = redis:url()
    options.near = false -- this is about the way to Redis
    options.commandTimeout = 10
    return redcache.new(options)
end

-- Keeps this Lua state busy without a call into redcache.
local function work(seconds)
    local ends = clock.now() + seconds
    while clock.now() < ends do end
end

-- The lower quartile: what takes longer on a machine with other work is the scheduler's.
local function quartile(list)
    table.sort(list)
    return list[math.ceil(#list / 4)]
end

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

before_each(function()
    redis:reset()
    cache = open()
    cache:withLock("warm", nil, function() end)
end)

after_each(function() cache:close() end)

describe("a lone blocking caller", function()
    it("moves the bytes itself", function()
        cache:set("k", "v")
        local before = cache:stats()
        for _ = 1, 500 do cache:get("k") end
        local after = cache:stats()
        local inline = after.inlineTurns - before.inlineTurns
        local reactor = after.reactorTurns - before.reactorTurns
        assert.is_true(inline >= 450, inline .. " inline turns")
        -- It looks every few milliseconds whether callers still turn the loop.
        assert.is_true(reactor <= 100, reactor .. " reactor turns")
    end)

    it("does so without spinning, too", function()
        local calm = open({ spin = false })
        calm:set("k", "v")
        local before = calm:stats()
        for _ = 1, 500 do assert.equal("v", calm:get("k")) end
        assert.is_true(calm:stats().inlineTurns - before.inlineTurns >= 450)
        calm:close()
    end)

    it("needs no processor while it waits", function()
        local lock = assert(open({ group = "other" }):tryLock("job", { ttl = 60 }))
        local start = os.clock()
        assert.is_nil((cache:lock("job", { wait = 1 }):acquire()))
        -- os.clock counts the time of all threads of this process.
        local used = os.clock() - start
        assert.is_true(used < clock.scaled(0.1), "used " .. used)
        assert(lock:release())
    end)

    it("gets on after a long pause", function()
        local times = {}
        for i = 1, 4 do
            assert.is_true(cache:set("k", "v"))
            work(0.2)
            local value
            times[i], value = clock.time(cache.get, cache, "k")
            assert.equal("v", value)
        end
        assert.is_true(quartile(times) < clock.scaled(0.05), "quartile " .. quartile(times))
    end)
end)

describe("the reactor", function()
    it("keeps a load's lease while Lua is busy in the loader", function()
        local ttl = math.max(1, clock.scaled(0.2)) -- two thirds of it a renewal may be late
        local other
        local value, err, source, flag = cache:remember("k", 60, function()
            -- A process that comes later waits all the time, and never gets the lease.
            other = worker.start({
                params = { url = redis:url() },
                main = function(one)
                    local mine = require("redcache").new({
                    near = false,
                        url = one.params.url, waitTimeout = 60,
                    })
                    one:emit("asking")
                    local got, _, from = mine:remember("k", 60, function() return "stolen" end)
                    return { got, from }
                end,
            })
            other:event("asking")
            work(2 * ttl)
            return "made"
        end, { leaseTtl = ttl })
        assert.same({ "made", nil, "loader", nil }, { value, err, source, flag })
        assert.same({ "made", "redis" }, other:join())
        assert.is_true(cache:stats().heartbeats >= 3) -- six, but for those that were late
        assert.equal(0, cache:stats().leasesLost)
    end)

    it("ends a load's lease after maxLoadTime, however busy Lua is", function()
        local runs = 0
        local other
        local value, _, source = cache:remember("k", 60, function()
            other = worker.start({
                params = { url = redis:url() },
                main = function(one)
                    local mine = require("redcache").new({
                    near = false,
                        url = one.params.url, waitTimeout = 60,
                    })
                    local got, _, from = mine:remember("k", 60, function() return "second" end)
                    one:emit("loaded")
                    return { got, from }
                end,
            })
            other:event("loaded")
            runs = runs + 1
            return "first"
        end, { leaseTtl = 0.3, maxLoadTime = 0.5 })
        assert.same({ "second", "loader" }, other:join())
        -- The newer value stands: it is what the slow caller gets, too.
        assert.same({ "second", "redis", 1 }, { value, source, runs })
    end)

    it("hears pushes while Lua is busy", function()
        -- How long the reactor needs is the machine's: again, for longer, where it was not enough.
        local heard
        for attempt = 1, 5 do
            local lock = assert(cache:tryLock("job", { ttl = 60 }))
            local foreign = worker.start({
                params = { path = redis.path },
                main = function(one)
                    local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                        user = "bed", password = "bed",
                    })
                    one:ready()
                    raw:call("DEL", "//lock:{job}")
                    one:emit("deleted")
                end,
            })
            foreign:event("ready")
            foreign:go(clock.now() + 0.1)
            foreign:event("deleted")
            work(0.1 * 2 ^ attempt)
            -- Not one call into redcache since; the first look finds it.
            heard = lock:lost()
            if heard then assert.is_false(lock:valid()) end
            foreign:join()
            if heard then break end
        end
        assert.is_true(heard)
    end)

    it("takes over within milliseconds of the last inline call", function()
        local times, control = {}, {}
        for i = 1, 21 do
            local lock = assert(cache:tryLock("job", { ttl = 60 }))
            for _ = 1, 20 do cache:get("k") end
            redis:call("DEL", "//lock:{job}")
            local start = clock.now()
            while not lock:lost() do
                assert.is_true(clock.now() - start < clock.scaled(1))
            end
            times[i] = clock.now() - start
            control[i] = clock.time(redis.call, redis, "PING")
        end
        -- It looks every 3 ms; finding the lock gone takes one more round trip. The control is what
        -- the machine needs for one.
        local most = clock.scaled(0.01) + 4 * quartile(control)
        assert.is_true(quartile(times) < most, quartile(times) .. " of " .. most)
    end)

    it("sleeps when there is nothing to do", function()
        cache:get("k")
        -- Until it has noticed that nobody calls any more.
        local function turns() return cache:stats().reactorTurns end
        clock.sleep(0.1)
        local used, before = os.clock(), turns()
        clock.sleep(1)
        local after = turns()
        used = os.clock() - used
        assert.is_true(used < clock.scaled(0.05), "used " .. used)
        assert.is_true(after - before < 30, (after - before) .. " turns")
    end)

    it("connects, and gives up connecting, while the caller waits", function()
        local away = redcache.new({
            near = false, url = "redis://127.0.0.1:1", commandTimeout = 0.2,
        })
        local took, _, err = clock.time(away.get, away, "k")
        assert.equal("unavailable", err.code)
        assert.is_true(took < 0.2 + clock.scaled(2)) -- and not for as long as nobody listens
        away:close()
        local nowhere = redcache.new({
                    near = false,
            url = "redis://no-such-host.invalid", commandTimeout = 1,
        })
        _, err = nowhere:get("k")
        assert.equal("unavailable", err.code)
        assert.is_true(#nowhere:health().cause > 0)
        nowhere:close()
    end)

    it("works on a unix socket", function()
        local near = redcache.new({ near = false, url = redis:unix_url() })
        assert.is_true(near:set("k", "v"))
        local lock = assert(near:tryLock("job"))
        redis:call("DEL", "//lock:{job}")
        clock.wait_until(function() return lock:lost() end, 2)
        assert.equal("v", near:get("k"))
        near:close()
    end)
end)

describe("64 waiting threads", function()
    it("are served by the reactor, many in one turn", function()
        local calls = 300
        local done = threads.run({
            count = 64, params = { url = redis:url(), calls = calls }, timeout = 120,
            main = function(thread)
                local cache = require("redcache").new({ near = false, -- luacheck: ignore
                    url = thread.params.url, commandTimeout = 30,
                })
                local key = "k" .. thread.index
                assert(cache:set(key, thread.index))
                thread.barrier()
                local before = cache:stats()
                thread.barrier()
                for _ = 1, thread.params.calls do assert(cache:get(key) == thread.index) end
                thread.barrier()
                local after = cache:stats()
                thread.barrier()
                return {
                    inline = after.inlineTurns - before.inlineTurns,
                    reactor = after.reactorTurns - before.reactorTurns,
                    requests = after.requests - before.requests,
                }
            end,
        })
        local seen = done[1]
        assert.equal(64 * calls, seen.requests)
        assert.is_true(seen.inline < seen.requests / 4, seen.inline .. " inline turns")
        assert.is_true(seen.reactor > 0)
        assert.is_true(seen.reactor < seen.requests / 2, seen.reactor .. " reactor turns")
    end)

    it("hand over to a lone caller again", function()
        local done = threads.run({
            count = 32, params = { url = redis:url() }, timeout = 120,
            main = function(thread)
                local cache = require("redcache").new({ near = false, -- luacheck: ignore
                    url = thread.params.url, commandTimeout = 30,
                })
                thread.barrier()
                for i = 1, 100 do assert(cache:set("k" .. thread.index, i)) end
                thread.barrier()
                local result
                if thread.index == 1 then
                    local before = cache:stats().inlineTurns
                    for _ = 1, 300 do cache:get("k1") end
                    result = cache:stats().inlineTurns - before
                end
                thread.barrier()
                return result
            end,
        })
        assert.is_true(done[1] >= 250, done[1] .. " inline turns")
    end)
end)
