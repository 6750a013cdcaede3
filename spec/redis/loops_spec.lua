-- The schedulers luv, cqueues and copas, each in a process of its own.

local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function in_process(name, main, params)
    params = params or {}
    params.name, params.url = name, params.url or redis:url()
    return worker.start({ main = main, params = params }):join()
end

-- Everything a cache can do, from many coroutines at once.
local function use_all(one)
    local redcache_there = require("redcache")
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = redcache_there.new({
        url = one.params.url, scheduler = one.params.name, near = one.params.near,
        commandTimeout = 30, waitTimeout = 30,
    })
    local runs, ended, inside, most = 0, 0, 0, 0
    loop.go(function()
        assert(cache:set("k", "v"))
        assert(cache:get("k") == "v")
        assert(cache:exists("k") and cache:ttl("k") > 0)
        assert(cache:delete("k") == true)
        assert(cache:setMulti({ a = 1, b = 2 }))
        assert(cache:getMulti({ "a", "b" }).b == 2)
        assert(cache:put("a", 60, function() return 3 end) == 3)
        assert(cache:incr("n", 2) == 2 and cache:decr("n") == 1)
        assert(cache:exists({ "a", "b", "none" }) == 2)
        assert(cache:touchMulti({ "a", "b" }, 500).a)
        assert(cache:copy("b", "c") and cache:rename("c", "d"))
        assert(cache:delete("d", { soft = true }) and cache:add("d", 1))
        assert(cache:afterCommit(function(commit) return commit:delete("d") end))
        assert(cache:add("d", 1))
        assert(assert(cache:explain("d")).redis.kind == "value")
        assert(cache:set("t", 1, 60, { tags = { "a" } }) and cache:addTags("t", { "b" }))
        assert(#cache:tags("t") == 2 and cache:afterCommit(function(commit)
            return commit:invalidateTags({ "b" })
        end))
        assert(cache:get("t") == nil)
        local indexed = cache:namespace("indexed", { tagIndex = true })
        assert(indexed:set("i", 1, 60, { tags = { "a" } }) and indexed:keysByTag("a")[1] == "i")
        assert(cache:set("scan:1", 1) and cache:scan("scan:*")() == "scan:1")
        assert(cache:deleteByPattern("scan:*", { rate = 100 }) == 1)
        assert(cache:update("d", function(old)
            loop.sleep(0.001)
            return old + 1
        end) == 2)
        local values = cache:rememberMulti({ "m1", "m2" }, 60, function()
            loop.sleep(0.001)
            return { m1 = 1, m2 = 2 }
        end)
        assert(values.m1 == 1 and values.m2 == 2)
        assert(cache:putMulti({ "m1", "m2" }, 60, function() return { m1 = 3 } end).m1 == 3)
        assert(assert(cache:lockMulti({ "b", "a" })):release())
        assert(cache:warm({ w1 = 1, w2 = 2 }, { rate = 100, batch = 1 }) == 2)
        ended = ended + 1
    end)
    local batches = 0
    local loader = cache:loader(function(keys)
        batches = batches + 1
        local values = {}
        for _, key in ipairs(keys) do values[key] = key end
        return values
    end, { maxWait = 0.3 }) -- all 50 ask within that
    for i = 1, 50 do
        loop.go(function()
            local key = "l" .. i % 10
            assert(loader:get(key) == key and batches <= 2)
            ended = ended + 1
        end)
    end
    for _ = 1, 400 do
        loop.go(function()
            local value, err = cache:remember("cold", 60, function()
                runs = runs + 1
                loop.sleep(0.02)
                return "made"
            end)
            assert(value == "made", tostring(err))
            ended = ended + 1
        end)
    end
    for _ = 1, 5 do
        loop.go(function()
            assert(cache:withLock("job", { wait = 10 }, function()
                inside = inside + 1
                most = math.max(most, inside)
                loop.sleep(0.005)
                inside = inside - 1
                return true
            end))
            ended = ended + 1
        end)
    end
    loop.run()
    local connects = cache:stats().connects
    cache:close()
    loop.run()
    return { runs = runs, ended = ended, most = most, connects = connects }
end

-- How many ticks of a millisecond a loop makes in 100 ms while one of its coroutines waits for
-- another client's load; the best of some tries. The time in which the loop's thread was ready to
-- run and had no processor does not count: the machine has other things to do.
local function tick(one)
    local clock = require("spec.support.clock")
    -- Before there is any other thread: this one alone is watched.
    local watch = require("spec.near.waited").watch(
        { require("spec.support.posix").C.getpid() }, true)
    local redcache_there = require("redcache")
    local loop = require("spec.support.event_loop").new(one.params.name)
    local function open(group)
        return redcache_there.new({
            url = one.params.url, scheduler = one.params.name, near = false, group = group,
            commandTimeout = 30, leaseTtl = 60, waitTimeout = 60,
        })
    end
    local holder, waiter = open("holder"), open("waiter")
    local best = 0
    for round = 1, 5 do
        local ticks, waited = 0, false
        loop.go(function()
            holder:remember("k" .. round, 60, function()
                loop.go(function()
                    assert(waiter:remember("k" .. round, 60, function() end) == "made")
                    waited = true
                end)
                local start, waits = clock.now(), watch:seconds()
                while clock.now() - start - (watch:seconds() - waits) < 0.1 do
                    loop.sleep(0.001)
                    ticks = ticks + 1
                end
                assert(not waited)
                return "made"
            end)
        end)
        loop.run()
        assert(waited)
        best = math.max(best, ticks)
    end
    local waits = waiter:stats().leaseWaits
    holder:close()
    waiter:close()
    return { best = best, waits = waits }
end

local function renew(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false, leaseTtl = 0.3,
    })
    local watch = require("spec.near.waited").watch(
        { require("spec.support.posix").C.getpid(), one.params.redis }, true)
    local before, result = watch:seconds(), nil
    loop.go(function()
        local _, _, source, flag = cache:remember("k", 60, function()
            loop.sleep(1)
            return 1
        end)
        result = { source = source, flag = flag or "none" }
    end)
    loop.run()
    result.waited = watch:seconds() - before
    result.heartbeats = cache:stats().heartbeats
    return result -- the end of the Lua state closes the cache
end

-- Closes the cache under those who wait.
local function close(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false,
    })
    local codes = {}
    loop.go(function()
        cache:remember("slow", 60, function()
            for i = 1, 3 do
                loop.go(function()
                    local _, err = cache:remember("slow", 60, function() end)
                    codes[i] = err.code
                end)
            end
            loop.sleep(0.01)
            cache:close()
            return 1
        end)
    end)
    loop.run()
    return codes
end

-- What is called where no coroutine of the loop runs. With `rules52` the main thread is told as in
-- a LuaJIT that was built with Lua 5.2's rules: a thread of its own, and true.
local function outside(one)
    if one.params.rules52 then
        local running, main = coroutine.running, coroutine.create(function() end)
        rawset(coroutine, "running", function()
            local co = running()
            return co or main, co == nil
        end)
    end
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, near = false,
    })
    local stored, err, sent = cache:set("k", 1)
    local value, read_err = cache:get("k")
    local made, _, _, flag = cache:remember("other", 60, function() return 2 end)
    local seen
    loop.go(function() seen = cache:get("k") end)
    loop.run()
    cache:close()
    return {
        stored = stored, set_err = err and err.code, sent = sent, value = value,
        get_err = read_err and read_err.code, made = made, flag = flag, seen = seen,
    }
end

for _, name in ipairs(event_loop.names) do
    local check = event_loop.has(name) and it or pending
    describe("in a loop of " .. name, function()
        check("400 coroutines run one loader, and everything works", function()
            local result = in_process(name, use_all, { near = false })
            assert.same({ runs = 1, ended = 456, most = 1, connects = 2 }, result)
        end)

        check("the near cache works, too", function()
            assert.same({ 1, 456 }, (function(r) return { r.runs, r.ended } end)(
                in_process(name, use_all, { near = true })))
        end)

        check("a store in memory works, too", function()
            assert.same({ 1, 456 }, (function(r) return { r.runs, r.ended } end)(
                in_process(name, use_all, { url = "memory://", near = false })))
        end)

        check("a wait of 100 ms lets the loop tick", function()
            local result = in_process(name, tick)
            -- A quiet machine gives 90 and more; a loop that stands still gives one or two.
            print(name .. ": " .. result.best .. " of 100 ticks")
            assert.is_true(result.best >= 50, result.best .. " ticks")
            assert.equal(5, result.waits)
        end)

        check("leases are renewed while it runs", function()
            local result = in_process(name, renew, { redis = redis.pid })
            assert.equal("loader", result.source)
            -- Without a processor for two thirds of the lease in one piece nobody renews it.
            if result.waited < 0.15 then assert.equal("none", result.flag) end
            assert.is_true(result.heartbeats > 0)
        end)

        check("those who wait are told when the cache is closed", function()
            assert.same({ "closed", "closed", "closed" }, in_process(name, close))
        end)
    end)
end

describe("outside of its coroutines", function()
    local has_luv = event_loop.has("luv") and it or pending
    has_luv("luv cannot wait: writes are sent, reads fail, loaders run unshared", function()
        assert.same({
            stored = true, sent = "sent", get_err = "cannotWait", made = 2, flag = "unstored",
            seen = 1,
        }, in_process("luv", outside))
    end)

    for _, name in ipairs({ "cqueues", "copas" }) do
        local check = event_loop.has(name) and it or pending
        check(name .. " blocks", function()
            assert.same({ stored = true, value = 1, made = 2, seen = 1 },
                in_process(name, outside))
        end)
    end

    for _, name in ipairs(event_loop.names) do
        local check = event_loop.has(name) and it or pending
        check("it is the same in a LuaJIT with Lua 5.2's rules: " .. name, function()
            assert.same(in_process(name, outside), in_process(name, outside, { rules52 = true }))
        end)
    end
end)

describe("new", function()
    it("says that the module of an event loop is missing", function()
        local loaded, preload = package.loaded.cqueues, package.preload.cqueues
        package.loaded.cqueues = nil
        package.preload.cqueues = function() error("not installed here") end
        local ok, err = pcall(redcache.new, { scheduler = "cqueues" })
        package.loaded.cqueues, package.preload.cqueues = loaded, preload
        assert.is_false(ok)
        assert.matches("bad option 'scheduler' to new: it needs the module cqueues", err)
    end)

    it("refuses a clock that no event loop goes by", function()
        if not event_loop.has("cqueues") then return end
        local ok, err = pcall(redcache.new, { scheduler = "cqueues", clock = redcache.clock() })
        assert.is_false(ok)
        assert.matches("bad option 'scheduler' to new: a clock", err)
    end)
end)
