-- Work in the background: one bounded queue per client, run by whoever can. In plain Lua and in
-- redcache.run; the event loops each in a process of its own.

local background = require("redcache.background")
local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local worker = require("spec.support.worker")

local redis, caches, log

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches, log = {}, {}
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { url = redis:url(), near = false, commandTimeout = 10 }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

-- A job that tells its name.
local function note(name)
    return function() log[#log + 1] = name end
end

local function push(cache, id, job)
    return background.push(cache._client, id, job or note(id))
end

-- Figures of the queue.
local function figures(cache)
    local stats, out = cache:stats(), {}
    for _, name in ipairs({ "Done", "Failed", "Dropped", "Refused", "Queued" }) do
        local count = stats["background" .. name]
        out[name:lower()] = count > 0 and count or nil
    end
    return out
end

describe("the option background", function()
    it("is on wherever somebody can work behind the callers' backs", function()
        assert.is_false(background.is_on(open()._client))
        assert.is_true(background.is_on(open({ scheduler = "coroutine" })._client))
        assert.is_true(background.is_on(open({ background = true })._client))
        local off = open({ scheduler = "coroutine", background = false })
        assert.is_false(background.is_on(off._client))
    end)

    it("refuses what it does not know", function()
        for _, bad in ipairs({ 1, "yes", { workers = 0 }, { workers = 65 }, { queue = 0 },
            { queue = 1.5 }, { queue = 1000001 }, { threads = 1 } }) do
            assert.error_matches(function() open({ background = bad }) end,
                "bad option 'background' to new: ")
        end
        assert.error_matches(function() open():namespace("n", { background = true }) end,
            "unknown option 'background' to namespace")
    end)
end)

for _, url in ipairs({ "redis", "memory" }) do
    describe("in plain Lua, " .. url .. "://,", function()
        local cache
        before_each(function()
            cache = open({ url = url == "memory" and "memory://" or nil,
                background = { queue = 3 } })
        end)

        it("each call that may wait runs one job, before it begins", function()
            for i = 1, 3 do push(cache, i) end
            assert.same({}, log)
            cache:get("k")
            assert.same({ 1 }, log)
            cache:remember("k", 60, note("loader"))
            assert.same({ 1, 2, "loader" }, log)
            cache:set("k", 1)
            assert.same({ 1, 2, "loader", 3 }, log)
            cache:get("k", { timeout = 1 })
            assert.same({ done = 3 }, figures(cache))
        end)

        it("namespaces, sessions and locks are its callers, too", function()
            for i = 1, 3 do push(cache, i) end
            local lock = cache:namespace("n"):lock("l")
            local session = cache:session()
            assert.same({}, log)
            assert(lock:acquire(0))
            assert.same({ 1 }, log)
            assert(session:create(1))
            assert.same({ 1, 2 }, log)
            assert(lock:extend(5) and lock:release()) -- what is urgent does not wait for others
            assert.same({ 1, 2 }, log)
        end)

        it("no job is run by what does not wait, nor by a near hit", function()
            local with_near = open({ url = url == "memory" and "memory://" or nil, near = true,
                maxStale = 600 })
            assert(with_near:set("k", 1) and with_near:get("k") and with_near:get("k"))
            push(with_near, 1)
            assert(with_near:stats() and with_near:health() and with_near:lock("l"))
            assert.equal("l0", select(3, with_near:get("k")))
            assert.same({}, log)
        end)

        it("nothing is run by a loader, or by another job", function()
            push(cache, "outer", function()
                log[#log + 1] = "begun"
                push(cache, "inner")
                cache:get("k")
                log[#log + 1] = cache:work(1)
            end)
            cache:get("k")
            assert.same({ "begun", 0 }, log)
            cache:remember("k", 60, function()
                cache:get("other")
                cache:put("third", 60, function()
                    cache:get("fourth")
                    return 1
                end)
                local generator = coroutine.wrap(function() cache:get("fifth") end)
                generator()
                log[#log + 1] = cache:work(1)
                return 1
            end)
            assert.same({ "begun", 0, "inner", 0 }, log)
        end)

        it("not within a loader either, where there was nothing before it began", function()
            cache:remember("k", 60, function()
                push(cache, 1)
                cache:get("other")
                coroutine.wrap(function() cache:get("other") end)()
                assert.equal(0, cache:work(1))
                return 1
            end)
            assert.same({}, log)
            assert.equal(1, cache:work(1))
        end)

        it("one of an id is queued or running at a time", function()
            assert.is_true(push(cache, "same"))
            assert.is_true(push(cache, "same", note("second")))
            push(cache, "again", function() push(cache, "again", note("in itself")) end)
            assert.equal(2, cache:work(1))
            assert.same({ "same" }, log)
            assert.is_true(push(cache, "same"))
            assert.equal(1, cache:work(1))
            assert.same({ "same", "same" }, log)
        end)

        it("a full queue refuses, and counts what it refused", function()
            for i = 1, 3 do assert.is_true(push(cache, i)) end
            assert.is_false(push(cache, 4))
            assert.same({ dropped = 1, queued = 3 }, figures(cache))
            cache:get("k")
            assert.is_true(push(cache, 5))
            assert.equal(3, cache:work(1))
            assert.same({ 1, 2, 3, 5 }, log)
        end)

        it("a job that throws is counted, and the next one runs", function()
            push(cache, 1, function() error("planted") end)
            push(cache, 2, { run = function(job) log[#log + 1] = job.name end, name = "table" })
            push(cache, 3, function() error({ code = "planted" }) end)
            assert.is_nil(cache:get("k"))
            assert.same({ failed = 1, queued = 2 }, figures(cache))
            assert.equal(2, cache:work(1))
            assert.same({ "table" }, log)
            assert.same({ done = 1, failed = 2 }, figures(cache))
        end)

        it("work begins no job when its time is over, but one", function()
            for i = 1, 3 do push(cache, i) end
            assert.equal(1, cache:work(0))
            assert.equal(2, cache:work())
            assert.equal(0, cache:work())
        end)

        it("work refuses what is no time", function()
            for _, bad in ipairs({ -1, 86401, 0 / 0, "1", false }) do
                assert.error_matches(function() cache:work(bad) end,
                    "bad argument 'seconds' to work: number from 0 to 86400 expected")
            end
        end)

        it("close runs what is queued", function()
            for i = 1, 2 do push(cache, i) end
            assert.same({ true, n = 1 }, { n = select("#", cache:close()), (cache:close()) })
            assert.same({ 1, 2 }, log)
            assert.is_false(push(cache, 3))
        end)

        it("close runs nothing when its time is over, and tells what it dropped", function()
            for i = 1, 3 do push(cache, i) end
            assert.same({ true, 3 }, { cache:close(0) })
            assert.same({}, log)
            assert.same({ true }, { cache:close() })
        end)

        it("close by a job, or by a loader, drops the others", function()
            local dropped
            push(cache, 1, function() dropped = select(2, cache:close()) end)
            push(cache, 2)
            assert.is_nil(cache:get("k"))
            assert.equal(1, dropped)
            local other = open({ url = url == "memory" and "memory://" or nil, background = true })
            push(other, 3)
            other:remember("a", 60, function() return 1 end)
            other:remember("k", 60, function()
                push(other, 4)
                dropped = select(2, other:close())
                return 1
            end)
            assert.same({ 3 }, log)
            assert.equal(1, dropped)
        end)

        it("a job that was left in the middle does not hold up the next", function()
            local co = coroutine.create(function() cache:get("k") end)
            push(cache, 1, function() coroutine.yield() end)
            assert(coroutine.resume(co)) -- and never again
            push(cache, 2)
            cache:get("k")
            assert.same({ 2 }, log)
        end)

        it("is run by callers, too, where no refresh is put into it", function()
            local off = open({ url = url == "memory" and "memory://" or nil, background = false })
            assert.is_true(push(off, 1))
            off:get("k")
            assert.same({ 1 }, log)
        end)
    end)
end

it("each Lua state of a process has its own", function()
    local other = threads.run({ count = 2, params = { url = redis:url() }, main = function(one)
        local there = require("redcache").new({ url = one.params.url, background = { queue = 2 } })
        local push_there, count = require("redcache.background").push, 0
        for i = 1, 3 do
            push_there(there._client, i, function()
                assert(there:incr("jobs"))
                count = count + 1
            end)
        end
        assert(there:work(10) == 2 and count == 2)
        local stats = there:stats()
        there:close()
        return stats.backgroundDone .. " " .. stats.backgroundDropped
    end })
    assert.same({ "2 1", "2 1" }, other)
    assert.equal("4", redis:call("GET", "jobs"))
end)

describe("in redcache.run", function()
    local cache
    before_each(function()
        cache = open({ scheduler = "coroutine", background = { workers = 2, queue = 100 } })
    end)

    -- A job that waits for Redis in the middle.
    local function slow(most, counts)
        return function()
            counts.now = counts.now + 1
            most.count = math.max(most.count, counts.now)
            cache:get("k")
            counts.now = counts.now - 1
            log[#log + 1] = "job"
        end
    end

    it("as many workers as were asked for run the jobs, while others run", function()
        local most, counts = { count = 0 }, { now = 0 }
        redcache.run(function()
            for i = 1, 10 do push(cache, i, slow(most, counts)) end
            assert.same({}, log) -- never within the call
            local rounds = 0
            while #log < 10 do
                cache:get("other")
                rounds = rounds + 1
                assert(rounds < 1000)
            end
        end)
        assert.equal(2, most.count)
        assert.same({ done = 10 }, figures(cache))
    end)

    it("a worker survives what a job throws, and ends when there is nothing", function()
        redcache.run(function()
            push(cache, 1, function() error("planted") end)
            push(cache, 2)
            repeat cache:get("k") until #log == 1
            cache:get("k")
            push(cache, 3)
            repeat cache:get("k") until #log == 2
        end)
        assert.same({ done = 2, failed = 1 }, figures(cache))
    end)

    it("a run ends soon after its own coroutines, and the rest is left to the next", function()
        redcache.run(function()
            for i = 1, 50 do push(cache, i, slow({ count = 0 }, { now = 0 })) end
        end)
        assert.is_true(#log <= 2, #log .. " jobs were run")
        assert.equal(50 - #log, figures(cache).queued)
        local before = #log
        cache:get("k") -- outside, as in plain Lua
        assert.equal(before + 1, #log)
        redcache.run(function()
            cache:get("k")
            repeat cache:get("k") until #log == 50
        end)
        assert.same({ done = 50 }, figures(cache))
    end)

    it("a run within a run waits for none of it", function()
        redcache.run(function()
            redcache.run(function()
                for i = 1, 50 do push(cache, i, slow({ count = 0 }, { now = 0 })) end
            end)
            assert.is_true(#log <= 2)
            repeat cache:get("k") until #log == 50
        end)
    end)

    it("work runs jobs in the coroutine that calls", function()
        redcache.run(function()
            for i = 1, 10 do push(cache, i, slow({ count = 0 }, { now = 0 })) end
            local count = cache:work(10) -- the workers run some of them meanwhile
            assert.is_true(count >= 2 and count <= 10, count)
            repeat cache:get("k") until #log == 10
        end)
    end)

    it("close runs what is queued, and waits for what others run", function()
        redcache.run(function()
            for i = 1, 10 do push(cache, i, slow({ count = 0 }, { now = 0 })) end
            cache:get("k")
            assert.same({ true }, { cache:close(10) })
            assert.equal(10, #log)
        end)
    end)

    it("close waits no longer than it was told", function()
        local ended, has_begun
        redcache.run(function()
            push(cache, 1, function()
                ended = select(2, cache:redis():command("BLPOP", "none", 60)).code
            end)
            for i = 2, 5 do push(cache, i) end
            repeat cache:get("k") until figures(cache).done == 4
            push(cache, 6, function()
                has_begun = true
                cache:redis():command("BLPOP", "none", 60)
            end)
            repeat cache:get("k") until has_begun
            push(cache, 7)
            assert.same({ true, 1 }, { cache:close(0.05) })
        end)
        assert.equal("closed", ended)
        assert.same({ 2, 3, 4, 5 }, log)
    end)
end)

describe("onLost", function()
    local function take_away(name)
        assert.equal(1, redis:call("DEL", "app//lock:{" .. name .. "}"))
    end

    local function told_by(lock) log[#log + 1] = lock.name or lock.names end

    -- Calls until it was told, or too often.
    local function until_told(call)
        clock.wait_until(function()
            call()
            return #log > 0
        end, 10, "that the loss is told")
    end

    it("is run by the next call, in plain Lua", function()
        local cache = open({ namespace = "app" })
        local lock = assert(cache:tryLock("one", { onLost = told_by, ttl = 60 }))
        local silent = assert(cache:tryLock("silent", { onLost = told_by, ttl = 60 }))
        assert(silent:release())
        take_away("one")
        clock.wait_until(function() return lock:ttl() == 0 end, 10, "the news")
        assert.same({}, log)
        cache:get("k")
        assert.same({ "one" }, log)
        assert.is_false(lock:valid())
        assert.is_true(lock:lost())
        cache:get("k")
        assert.same({ "one" }, log)
    end)

    it("is told again of a lock that was acquired again", function()
        local cache = open({ namespace = "app" })
        local lock = assert(cache:tryLock("one", { onLost = told_by, ttl = 60 }))
        for i = 1, 2 do
            take_away("one")
            until_told(function() cache:get("k") end)
            assert.same({ "one" }, log)
            log = {}
            if i == 1 then assert(lock:acquire(0)) end
        end
    end)

    it("is run by work, and for several locks once", function()
        local cache = open({ namespace = "app" })
        assert(cache:lockMulti({ "b", "a" }, { onLost = told_by, ttl = 60 }))
        local locks = assert(cache:lockMulti({ "c", "d" }, { onLost = told_by, ttl = 60 }))
        assert.equal(0, cache:work(0))
        take_away("c")
        take_away("d")
        until_told(function() cache:work(0) end)
        assert.equal(0, cache:work(1))
        assert.is_true((locks:lost()))
        assert.same({ { "c", "d" } }, log)
    end)

    it("does not keep a lock alive that nobody knows any more", function()
        local cache = open({ namespace = "app" })
        assert(cache:tryLock("one", { onLost = told_by, ttl = 60 }))
        clock.wait_until(function()
            collectgarbage()
            cache:get("k")
            return redis:call("EXISTS", "app//lock:{one}") == 0
        end, 10, "its release")
        assert.same({}, log)
    end)

    it("is run while the coroutine that holds the lock waits for something else", function()
        local cache = open({ namespace = "app", scheduler = "coroutine" })
        redcache.run(function()
            local lock = assert(cache:tryLock("one", { onLost = told_by, ttl = 60 }))
            take_away("one")
            until_told(function() cache:get("k") end)
            assert.same({ "one" }, log)
            assert.is_true(lock:lost())
            assert.same({ "one" }, log)
        end)
    end)

    it("that throws is counted, where nobody asks", function()
        local cache = open({ namespace = "app" })
        local lock = assert(cache:tryLock("one", { ttl = 60, onLost = function() error("no") end }))
        take_away("one")
        clock.wait_until(function() return lock:ttl() == 0 end, 10, "the news")
        assert.is_nil(cache:get("k"))
        assert.same({ failed = 1 }, figures(cache))
    end)
end)

-- In an event loop -------------------------------------------------------------------------------

-- Jobs while the loop runs; then what is left when it has nothing else to do.
local function in_loop(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local push_there = require("redcache.background").push
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false,
        background = { workers = 2, queue = 60 },
    })
    local done, now, most, result = 0, 0, 0, {}
    local function job()
        now = now + 1
        most = math.max(most, now)
        assert(cache:set("k", 1))
        loop.sleep(0.001)
        now = now - 1
        done = done + 1
    end
    loop.go(function()
        assert(cache:set("k", 1))
        push_there(cache._client, "bad", function() error("planted") end)
        for i = 1, 20 do push_there(cache._client, i, job) end
        assert(done == 0)
        while done < 20 do loop.sleep(0.001) end
        result.most, most = most, 0
        for i = 1, 70 do push_there(cache._client, i, job) end
        result.worked = cache:work(10)
        while now > 0 do loop.sleep(0.001) end
        result.done = done
        -- A loader's timer that is just being closed would look as if luv had more to do.
        for i = 1, 60 do
            push_there(cache._client, i, function()
                assert(cache:set("k", 1))
                done = done + 1
            end)
        end
    end)
    loop.run()
    local stats = cache:stats()
    result.left = stats.backgroundQueued
    result.failed, result.dropped = stats.backgroundFailed, stats.backgroundDropped
    loop.go(function()
        assert(cache:get("k") == 1)
        result.is_closed, result.lost = cache:close(20)
    end)
    loop.run()
    result.in_all, result.now = done, now
    return result
end

-- A lock is lost while nobody calls.
local function lose(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local clock_there = require("spec.support.clock")
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false, namespace = "app",
    })
    local told
    loop.go(function()
        -- A lock that nobody keeps is given back by the garbage collector, and never lost.
        local lost = assert(cache:tryLock("one", { ttl = 60, onLost = function(lock)
            told = lock.name .. tostring(cache:get("k"))
        end }))
        local kept = assert(cache:tryLock("other", { ttl = 60 }))
        assert(cache:redis():command("DEL", "app//lock:{one}") == 1)
        local deadline = clock_there.deadline(10)
        while not told and clock_there.now() < deadline do loop.sleep(0.005) end
        assert(kept:release() and lost:lost())
        cache:close()
    end)
    loop.run()
    return told
end

-- What callers outside of all coroutines of the loop do.
local function outside(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local push_there = require("redcache.background").push
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false,
    })
    local done, result = 0, {}
    for i = 1, 3 do push_there(cache._client, i, function() done = done + 1 end) end
    result.pushed = done
    cache:get("k")
    result.after_get = done
    local count, err = cache:work(1)
    result.worked = count or err.code
    loop.go(function() loop.sleep(0.05) end)
    loop.run()
    result.in_all = done
    cache:close()
    return result
end

for _, name in ipairs(event_loop.names) do
    local check = event_loop.has(name) and it or pending
    local function in_process(main)
        return worker.start({ main = main, params = { name = name, url = redis:url() } }):join()
    end

    describe("in a loop of " .. name, function()
        check("workers run the jobs, and never keep the loop for the rest", function()
            local result = in_process(in_loop)
            assert.equal(2, result.most)
            -- The workers go on meanwhile.
            assert.is_true(result.worked >= 10 and result.worked <= 60, result.worked)
            assert.same({ 80, 1, 10 }, { result.done, result.failed, result.dropped })
            assert.same({ true, 140, 0 }, { result.is_closed, result.in_all, result.now })
            assert.is_nil(result.lost)
            if name ~= "copas" then -- whose loop goes on until the cache is closed
                assert.is_true(result.left > 0, "none was left")
            end
        end)

        check("a lock's onLost is run while nobody calls", function()
            assert.equal("onenil", in_process(lose))
        end)

        check("a caller outside of its coroutines blocks for a job, or leaves it to the loop",
            function()
                assert.same(name == "luv"
                    and { pushed = 0, after_get = 0, worked = "cannotWait", in_all = 3 }
                    or { pushed = 0, after_get = 1, worked = 2, in_all = 3 },
                    in_process(outside))
            end)
    end)
end
