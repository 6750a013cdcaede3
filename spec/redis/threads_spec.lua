-- Many OS threads, each with its Lua state, share one client.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function connections()
    local list = redis:call("CLIENT", "LIST")
    return select(2, list:gsub("name=redcache%-", ""))
end

local function run(count, params, main, timeout)
    params.url = redis:url()
    return threads.run({ count = count, params = params, main = main, timeout = timeout or 240 })
end

describe("new", function()
    it("gives all threads with equal options one client: two connections", function()
        local done = run(16, { path = redis.path }, function(thread)
            local cache = require("redcache").new({ url = thread.params.url, commandTimeout = 20,
                connectTimeout = 20 })
            thread.barrier()
            assert(cache:set("k" .. thread.index, thread.index))
            assert(cache:withLock("job" .. thread.index, nil, function() return true end))
            thread.barrier()
            local raw = require("spec.support.resp").connect({ path = thread.params.path }, {
                user = "bed", password = "bed",
            })
            local list = raw:call("CLIENT", "LIST")
            local connects = cache:stats().connects
            thread.barrier()
            return { open = select(2, list:gsub("name=redcache%-", "")), connects = connects }
        end)
        for i = 1, 16 do assert.same({ open = 2, connects = 2 }, done[i]) end
        clock.wait_until(function() return connections() == 0 end, 2)
    end)

    it("gives those with another group or number another", function()
        local done = run(4, { path = redis.path }, function(thread)
            local options = { url = thread.params.url, commandTimeout = 20, connectTimeout = 20 }
            if thread.index == 2 then options.group = "mine" end
            if thread.index == 3 then options.commandTimeout = 21 end
            local cache = require("redcache").new(options)
            assert(cache:set("k" .. thread.index, thread.index))
            assert(cache:tryLock("job" .. thread.index)):release()
            thread.barrier()
            local raw = require("spec.support.resp").connect({ path = thread.params.path }, {
                user = "bed", password = "bed",
            })
            local list = raw:call("CLIENT", "LIST")
            thread.barrier()
            return select(2, list:gsub("name=redcache%-", ""))
        end)
        assert.same({ 6, 6, 6, 6 }, done)
    end)

    it("opens and closes from all threads at once, over and over", function()
        run(16, {}, function(thread)
            for round = 1, 40 do
                local cache = require("redcache").new({ url = thread.params.url,
                    commandTimeout = 20, connectTimeout = 20 })
                local value = cache:remember("k" .. round % 3, 60, function() return "v" end)
                assert(value == "v", tostring(value))
                cache:close()
            end
        end)
        clock.wait_until(function() return connections() == 0 end, 2)
    end)
end)

describe("remember", function()
    local function herd(count, rounds)
        return run(count, { rounds = rounds }, function(thread)
            local support = require("spec.support.clock")
            local cache = require("redcache").new({ url = thread.params.url, waitTimeout = 60,
                commandTimeout = 30 })
            for round = 1, thread.params.rounds do
                thread.barrier()
                local value, err = cache:remember("k" .. round, 60, function()
                    thread.tally(1)
                    support.sleep(0.01)
                    return { round = round }
                end)
                assert(value and value.round == round, tostring(err))
            end
            thread.barrier()
            return { runs = thread.tally(1, 0), shared = cache:stats().shared }
        end)
    end

    it("runs one loader for 64 threads, round after round", function()
        local done = herd(64, 10)
        assert.equal(10, done[1].runs)
        -- The others are served by the leader's own answer, not by Redis.
        assert.is_true(done[1].shared > 0)
    end)

    it("runs one loader for 400 threads (2)", function()
        assert.equal(1, herd(clock.scale == 1 and 400 or 150, 1)[1].runs)
    end)

    it("serves 400 callers although the lease is hardly longer than the loader (11)", function()
        local done = run(50, {}, function(thread)
            local support = require("spec.support.clock")
            local cache = require("redcache").new({ url = thread.params.url, leaseTtl = 0.1,
                commandTimeout = 30 })
            for i = 1, 8 do
                thread.barrier()
                local value, err, _, flag = cache:remember("k" .. i, 60, function()
                    thread.tally(i)
                    support.sleep(0.005)
                    return i
                end)
                assert(value == i and not err, tostring(err))
                -- A loader that stood still for longer than the lease is told so, and nobody else.
                assert(not flag or cache:stats().leasesLost > 0, tostring(flag))
            end
            return true
        end)
        assert.equal(50, #done)
    end)

    it("tells one failure to all who waited for it, and nobody else (X4)", function()
        local done = run(32, {}, function(thread)
            local support = require("spec.support.clock")
            local cache = require("redcache").new({ url = thread.params.url, commandTimeout = 30 })
            local codes = {}
            for round = 1, 5 do
                thread.barrier()
                local value, err = cache:remember("k", 60, function()
                    thread.tally(1)
                    -- Everybody else waits, and has read that a load is running: for this very one.
                    support.wait_until(function() return cache:stats().waiting >= 31 end, 20)
                    support.wait_until(function() return cache:stats().inFlight == 0 end, 20)
                    return nil, "dry " .. round
                end)
                assert(value == nil and err.code == "loaderFailed", tostring(err))
                codes[round] = err.cause
                thread.barrier()
            end
            return { codes = codes, runs = thread.tally(1, 0) }
        end)
        for i = 1, 32 do
            assert.same({ "dry 1", "dry 2", "dry 3", "dry 4", "dry 5" }, done[i].codes)
        end
        assert.equal(5, done[1].runs)
    end)
end)

-- A caller that sleeps while another one moves the bytes looks by itself after a tenth of a second:
-- that hides a lost wake-up from everybody but the clock.
describe("a caller that waits for another one's turn", function()
    -- One after the other asks, and the answers come in that order, later: the first one moves the
    -- bytes and is done, the next one has to go on. A round ends only when everybody is done: then
    -- nobody's next call does what was left undone.
    local function meet(url, count, rounds, pause)
        local done = threads.run({
            count = count, params = { url = url, rounds = rounds, pause = pause }, timeout = 120,
            main = function(thread)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({
                    url = thread.params.url, near = false,
                    commandTimeout = 30, connectTimeout = 10,
                })
                local key, value = "k" .. thread.index, ("x"):rep(100)
                assert(cache:set(key, value, 60))
                for _ = 1, thread.params.rounds do
                    thread.barrier()
                    support.sleep(thread.params.pause * (thread.index - 1))
                    assert(cache:get(key) == value)
                end
                thread.barrier()
                local stats = cache:stats()
                thread.barrier()
                return { late = stats.lateWakes, inline = stats.inlineTurns }
            end,
        })
        return done[1]
    end

    -- The same, up to four times: a thread that has no processor for a tenth of a second is as late
    -- as one that is not woken. A wake-up that is missing is so each time.
    local function calm_meet(...)
        local seen
        for _ = 1, 4 do
            seen = meet(...)
            if seen.late == 0 then break end
        end
        return seen
    end

    it("is woken for it, on a connection", function()
        local line = proxy.start(redis)
        line:delay(0.01)
        -- Clients of their own: once somebody was late, the reactor is awake and goes on for all.
        for run_number = 1, 6 do
            local seen = calm_meet(line:url(), 2 + run_number % 3, 8, 0.004)
            assert.equal(0, seen.late)
            assert.is_true(seen.inline >= 8)
        end
        line:stop()
    end)

    it("is woken for it, on a store in memory", function()
        for _, count in ipairs({ 2, 4, 16 }) do
            assert.equal(0, calm_meet("memory://", count, 300, 0).late, count .. " threads")
        end
    end)
end)

describe("64 threads with mixed calls", function()
    it("never mix up their answers, and leave nothing running", function()
        local rounds = clock.scale == 1 and 400 or 100
        local done = run(64, { rounds = rounds }, function(thread)
            local cache = require("redcache").new({ url = thread.params.url, commandTimeout = 30,
                waitTimeout = 60 })
            local large = ("x"):rep(20000)
            local seed = thread.index
            local function random(n)
                seed = (seed * 16807) % 2147483647
                return seed % n + 1
            end
            -- A value names its key: an answer that went to the wrong caller shows.
            local function check(key, value, err)
                assert(err == nil, tostring(err))
                assert(value == nil or value.key == key, "a value of another key")
                assert(value == nil or value.fill == large or value.fill == "", "a torn value")
            end
            local calls = {
                function(key) check(key, cache:get(key)) end,
                function(key) check(key, cache:get(key)) end,
                function(key)
                    local fill = random(4) == 1 and large or ""
                    assert(cache:set(key, { key = key, fill = fill }, 60))
                end,
                function(key) assert(cache:delete(key) ~= nil) end,
                function(key)
                    check(key, cache:remember(key, 60, function()
                        return { key = key, fill = "" }
                    end))
                end,
                function(key)
                    local values, failed = cache:getMulti({ key, "a" .. key, "b" .. key })
                    assert(next(failed) == nil)
                    for name, value in pairs(values) do check(name, value) end
                end,
                function(key)
                    local ok, err = cache:withLock(key, { wait = 60 }, function(lock)
                        assert(lock:valid())
                        return true
                    end)
                    assert(ok, tostring(err))
                end,
                function(key)
                    local value, err = cache:get(key, { timeout = 0.001 })
                    assert(err == nil or err.code == "timeout", tostring(err))
                    check(key, value)
                end,
                function() assert(cache:stats().requests > 0) end,
            }
            cache:get("warm") -- From here on both connections are there.
            cache:exists("warm")
            thread.barrier()
            for _ = 1, thread.params.rounds do
                calls[random(#calls)]("k" .. random(20))
            end
            thread.barrier()
            local stats = cache:stats()
            -- Nobody goes while others still look.
            thread.barrier()
            return {
                leases = stats.activeLeases, locks = stats.activeLocks, waiting = stats.waiting,
                disconnects = stats.disconnects,
            }
        end, 120)
        for i = 1, 64 do
            assert.equal(0, done[i].leases)
            assert.equal(0, done[i].locks)
            assert.equal(0, done[i].disconnects)
        end
        clock.wait_until(function() return connections() == 0 end, 2)
    end)
end)
