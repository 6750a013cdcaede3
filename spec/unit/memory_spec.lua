-- memory://: the whole API on a store in this process. Nothing is started, nothing is installed.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local threads = require("spec.support.threads")

local caches = {}

local function open(options)
    local cache = redcache.new(options)
    caches[#caches + 1] = cache
    return cache
end

local function close_all()
    for _, cache in ipairs(caches) do cache:close() end
    caches = {}
end

after_each(close_all)

local function never()
    error("the loader ran")
end

local function refusal(options)
    local ok, message = pcall(redcache.new, options)
    assert.is_false(ok)
    return message
end

describe("redcache.new without a url", function()
    it("is a cache on a store in this process", function()
        local cache = open()
        assert.is_nil(cache:get("k"))
        assert.is_false(cache:exists("k"))
        local health = cache:health()
        assert.is_true(health.ready)
        assert.is_true(health.tracking)
        assert.equal("memory://", health.address)
        assert.equal("", health.cause)
    end)

    it("loads, keeps near, and deletes", function()
        local cache = open({ namespace = "app" })
        local value, err, source = cache:remember("user:7", 60, function()
            return { name = "Ada", visits = 42 }
        end)
        assert.same({ name = "Ada", visits = 42 }, value)
        assert.is_nil(err)
        assert.equal("loader", source)
        assert.equal("redis", select(3, cache:remember("user:7", 60, never)))
        assert.equal("near", select(3, cache:remember("user:7", 60, never)))
        assert.equal("l0", select(3, cache:remember("user:7", 60, never)))
        assert.is_true(cache:delete("user:7"))
        assert.is_false(cache:exists("user:7"))
    end)

    it("does everything that a server does", function()
        local cache = open({ near = false })
        assert.is_true(cache:set("k", "v", 60))
        assert.is_true(cache:exists("k"))
        assert.is_true(cache:ttl("k") > 59 and cache:ttl("k") <= 60)
        assert.is_true(cache:set("forever", "v", redcache.FOREVER))
        assert.equal(redcache.FOREVER, cache:ttl("forever"))
        assert.is_true(cache:setMulti({ a = 1, b = { 2 } }, 60))
        assert.same({ a = 1, b = { 2 } }, (cache:getMulti({ "a", "b", "absent" })))
        assert.equal(2, cache:deleteMulti({ "a", "b", "absent" }))
        assert.is_true(cache:set("a", 1))
        assert.equal("done", cache:afterCommit(function(commit)
            commit:delete("a")
            return "done"
        end))
        assert.is_false(cache:exists("a"))
        assert.equal("new", cache:put("k", 60, function() return "new" end))
        assert.equal("new", cache:get("k"))
        assert.is_nil((cache:remember("nothing", 60, function() return nil end)))
        assert.equal("redis", select(3, cache:remember("nothing", 60, never)))
        local _, err = cache:remember("broken", 60, function() error("no database") end)
        assert.equal("loaderFailed", err.code)
        assert.equal("held", cache:withLock("job", nil, function(lock)
            assert.is_true(lock:valid() and lock:held() and lock:extend(20))
            local other, why = cache:tryLock("job")
            assert.is_nil(other)
            assert.equal("notAcquired", why.code)
            return "held"
        end))
        local stats = cache:stats()
        assert.equal(0, stats.inFlight)
        assert.equal(0, stats.disconnects)
    end)

    it("keeps values of any size and bytes", function()
        local cache = open({ codec = "raw" })
        for _, len in ipairs({ 0, 1, 65536, 3 * 1024 * 1024 }) do
            local value = string.rep("\0\r\n$", len / 4 + 1)
            assert.is_true(cache:set("k", value))
            assert.is_true(value == cache:get("k"))
        end
    end)
end)

describe("a store in memory", function()
    it("is shared by caches that name the same one", function()
        local one, same = open({ group = "a" }), open({ url = "memory://", group = "b" })
        local other = open({ url = "memory://other.store-1_" })
        one:set("k", "one")
        assert.equal("one", same:get("k"))
        assert.is_nil(other:get("k"))
        assert.equal("memory://other.store-1_", other:health().address)
    end)

    it("is gone when the last cache on it is closed", function()
        local one, two = open({ group = "a" }), open({ group = "b" })
        one:set("k", "v")
        one:close()
        assert.equal("v", two:get("k"))
        two:close()
        assert.is_nil(open():get("k"))
    end)

    it("is coherent: what one client writes, another one does not go on reading near", function()
        local reader, writer = open({ group = "reader" }), open({ group = "writer" })
        for version = 1, 20 do
            writer:set("k", version)
            clock.wait_until(function() return reader:get("k") == version end, 10, "the new value")
            reader:get("k")
            local value, _, source = reader:get("k")
            assert.same({ version, "l0" }, { value, source })
        end
        assert.is_true(reader.near:stats().invalidations >= 19)
    end)

    it("evicts what was used longest ago beyond maxBytes", function()
        local cache = open({ maxBytes = 1024 * 1024, near = false, codec = "raw" })
        local value = string.rep("v", 1000)
        for i = 1, 3000 do
            assert.is_true(cache:set("k" .. i, value))
            cache:get("k1") -- in use all the time
        end
        assert.equal(value, cache:get("k3000"))
        assert.equal(value, cache:get("k1"))
        assert.is_nil(cache:get("k2"))
        local kept = 0
        for i = 1, 3000 do kept = kept + (cache:exists("k" .. i) and 1 or 0) end
        assert.is_true(kept > 500 and kept < 1049, kept .. " were kept")
    end)

    it("gets rid of what nobody reads any more", function()
        local cache = open()
        cache:get("k") -- tracked from now on
        cache:set("k", "v", 0.02)
        cache:get("k")
        local before = cache:stats().pushes
        clock.wait_until(function() return cache:stats().pushes > before end, 10, "the expiry")
    end)

    it("says so when a value can never find room", function()
        local cache = open({ maxBytes = 65536, near = false })
        local ok, err = cache:set("k", string.rep("v", 100000))
        assert.is_nil(ok)
        assert.equal("redis", err.code)
        assert.matches("OOM", err.message)
        assert.is_true(cache:set("k", "small"))
    end)

    it("has the maxBytes of whoever opened it first", function()
        open({ maxBytes = 1024 * 1024 })
        open({ maxBytes = 1024 * 1024, group = "same" })
        open({ group = "any" })
        assert.matches("bad option 'maxBytes' to new: the store is open with another number",
            refusal({ maxBytes = 2 * 1024 * 1024 }), 1, true)
        open({ url = "memory://other", maxBytes = 2 * 1024 * 1024 })
        close_all()
        open({ maxBytes = 2 * 1024 * 1024 })
    end)
end)

describe("the options of a store in memory", function()
    it("are refused where there is a server", function()
        assert.matches("bad option 'maxBytes' to new: it is for memory:// only",
            refusal({ url = "redis://127.0.0.1", maxBytes = 65536 }), 1, true)
        assert.matches("bad option 'clock' to new: it is for memory:// only",
            refusal({ url = "redis://127.0.0.1", clock = redcache.clock() }), 1, true)
    end)

    it("are names of letters, digits and ._- only", function()
        for _, url in ipairs({ "memory://a/b", "memory://a b", "memory://:p@x", "memory://ä" }) do
            assert.matches("bad option 'url' to new: only a name", refusal({ url = url }), 1, true)
        end
        assert.matches("too long", refusal({ url = "memory://" .. string.rep("n", 101) }))
        assert.matches("bad option 'url'", refusal({ url = "memory:" }))
    end)

    it("are no near cache for other processes, which do not see the store", function()
        assert.matches("bad option 'near' to new: a shared near cache is not for memory://",
            refusal({ near = { shared = "spec" } }), 1, true)
    end)
end)

describe("Lua states in threads of one process", function()
    it("share a load, and what waits for it is woken by a push", function()
        local results = threads.run({ count = 8, main = function(thread)
            local now = require("spec.support.clock").now
            local cache = require("redcache").new({
                group = thread.index % 2 == 0 and "even" or "odd",
            })
            thread.barrier()
            local value, err, source = cache:remember("k", 60, function()
                require("spec.support.clock").sleep(0.1)
                return "by " .. thread.index .. " at " .. now()
            end)
            local took_ms = (now() - value:match("at (.*)")) * 1000
            thread.barrier()
            cache:close()
            return { value = value, err = err and tostring(err), source = source, late = took_ms }
        end })
        local loaders = 0
        for _, result in ipairs(results) do
            assert.is_nil(result.err)
            assert.equal(results[1].value, result.value)
            loaders = loaders + (result.source == "loader" and 1 or 0)
            -- Waiters look for themselves only when the lease ends, after 5 s.
            assert.is_true(result.late < clock.scaled(1000), result.late .. " ms late")
        end
        assert.equal(1, loaders)
    end)

    it("keep a lease and a lock alive while Lua is busy", function()
        local results = threads.run({ count = 2, main = function(thread)
            local now = require("spec.support.clock").now
            -- A thread of a busy machine may be without a processor for a second: a renewal may be
            -- two thirds of the ttl late.
            local ttl = 1.5
            local cache = require("redcache").new({ group = "g" .. thread.index, leaseTtl = ttl })
            local function busy()
                local stop = now() + 1.7 * ttl
                while now() < stop do math.sin(1) end -- no call of redcache
            end
            local told = { runs = 0 }
            cache:exists("k") -- connect before
            thread.barrier()
            told.value, told.err, told.source = cache:remember("k", 60, function()
                told.runs = told.runs + 1
                busy()
                return thread.index
            end)
            told.err = told.err and tostring(told.err)
            thread.barrier()
            if thread.index == 1 then
                cache:withLock("job", { ttl = ttl }, function(lock)
                    thread.barrier()
                    busy()
                    told.valid = lock:valid()
                end)
            else
                thread.barrier()
                local lock = cache:lock("job", { ttl = ttl })
                told.refused = lock:acquire(0) == nil
                told.waited = lock:acquire(5)
                told.fence = lock.fence
            end
            thread.barrier()
            local stats = cache:stats()
            told.heartbeats, told.renewals = stats.heartbeats, stats.lockRenewals
            cache:close()
            return told
        end })
        assert.equal(1, results[1].runs + results[2].runs)
        assert.equal(results[1].value, results[2].value)
        assert.is_nil(results[1].err or results[2].err)
        assert.is_true(results[1].heartbeats + results[2].heartbeats >= 3)
        assert.is_true(results[1].valid)
        assert.is_true(results[1].renewals >= 3)
        assert.is_true(results[2].refused)
        assert.is_true(results[2].waited)
    end)

    it("hand a lock on at once, within one client and between two", function()
        for _, groups in ipairs({ { "same", "same" }, { "one", "other" } }) do
            local results = threads.run({ count = 2, params = groups, main = function(thread)
                local now = require("spec.support.clock").now
                local cache = require("redcache").new({ group = thread.params[thread.index] })
                local at = {}
                cache:get("k") -- with a near cache to watch, nothing else wakes the reactor
                for i = 1, 15 do
                    local lock = cache:lock("job")
                    if thread.index == 1 then assert(lock:acquire()) end
                    thread.barrier()
                    if thread.index == 1 then
                        require("spec.support.clock").sleep(0.005) -- until the other one sleeps
                        at[i] = now()
                    else
                        assert(lock:acquire())
                        at[i] = now()
                    end
                    lock:release()
                    thread.barrier()
                end
                cache:close()
                return at
            end })
            local late = {}
            for i = 1, 15 do late[i] = results[2][i] - results[1][i] end
            table.sort(late)
            -- Who sleeps looks again after 100 ms by itself; a wake-up takes far less, where the
            -- machine lets it: in one of four at least.
            assert.is_true(late[4] < clock.scaled(0.03), ("%s: %g s"):format(groups[2], late[4]))
        end
    end)

    it("end each other's calls by cancelTag", function()
        local results = threads.run({ count = 2, main = function(thread)
            local sleep = require("spec.support.clock").sleep
            local cache = require("redcache").new()
            local told = {}
            if thread.index == 1 then
                cache:withLock("job", nil, function()
                    thread.barrier()
                    repeat
                        sleep(0.002)
                        told.count = cache:cancel(7)
                    until told.count > 0
                end)
            else
                thread.barrier()
                local _, err = cache:lock("job", { wait = 10, cancelTag = 7 }):acquire()
                told.code = err.code
            end
            thread.barrier()
            cache:close()
            return told
        end })
        assert.equal(1, results[1].count)
        assert.equal("cancelled", results[2].code)
    end)
end)

describe("a child of fork()", function()
    -- A child of a process with threads that starts threads itself is beyond ThreadSanitizer ("dup
    -- thread with used id").
    local tsan = (os.getenv("REDCACHE_SANITIZER") or ""):match("^t")
    local it = tsan and pending or it -- luacheck: ignore

    it("begins with an empty store, and leaves the parent's alone", function()
        local ffi = require("ffi")
        local posix = require("spec.support.posix")
        local temp = require("spec.support.temp")
        local fork = require("spec.support.fork")
        local cache = open({ group = "family" })
        cache:set("k", "parent's")
        cache:get("k")
        assert.equal("near", select(3, cache:get("k")))
        local path = temp.dir() .. "/told"
        local pid = fork()
        if pid == 0 then
            local ok, told = pcall(function()
                local near = { cache:get("k") }
                local mine = open({ group = "child" })
                local empty = mine:get("k")
                mine:set("k", "child's")
                local both = cache:get("k")
                local value, err, source = cache:remember("new", 60, function() return "made" end)
                local held = cache:withLock("job", nil, function() return "held" end)
                mine:get("k")
                return table.concat({ tostring(near[1]), tostring(empty), tostring(both),
                    tostring(value), tostring(err), tostring(source), tostring(held),
                    tostring((select(3, mine:get("k")))) }, " ")
            end)
            temp.write(path, tostring(ok) .. " " .. told)
            ffi.C._exit(0)
        end
        local status = ffi.new("int[1]")
        clock.wait_until(function()
            return posix.C.waitpid(pid, status, 1) == pid
        end, 10, "the child's end")
        assert.equal("true nil nil child's made nil loader held near", temp.read(path))
        assert.equal("parent's", cache:get("k", { near = false }))
    end)
end)
