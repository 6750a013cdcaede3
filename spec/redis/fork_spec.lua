-- fork() after use: the child has connections of its own, the parent's are unharmed, and what the
-- parent holds is not the child's.

local server = require("spec.support.server")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- Runs `body` (a function without upvalues, of the family table below) in a process that may fork.
local function run(body, url, scheduler)
    local one = worker.start({
        params = {
            url = url or redis:url(), path = redis.path, dir = temp.dir(), body = string.dump(body),
            scheduler = scheduler,
        },
        main = function(one)
            local ffi = require("ffi")
            local channel = require("spec.support.channel")
            local clock = require("spec.support.clock")
            local posix = require("spec.support.posix")
            local temp = require("spec.support.temp") -- luacheck: ignore
            local fork = require("spec.support.fork")
            local redcache = require("redcache")
            local family = { url = one.params.url, clock = clock, redcache = {} }
            -- How long a fork and what comes behind it take is the machine's.
            function family.redcache.new(options)
                options.connectTimeout, options.commandTimeout = 30, 30
                return redcache.new(options)
            end
            family.scheduler, family.pid = one.params.scheduler, posix.C.getpid

            -- A foreign client, made by whoever calls: connections must not be shared.
            function family.raw()
                return require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
            end

            -- Names and ids of redcache's connections, in order.
            function family.connections(raw)
                local ids = {}
                for id, name in raw:call("CLIENT", "LIST"):gmatch("id=(%d+)[^\n]- name=([^ ]*)") do
                    if name:find("redcache", 1, true) then ids[#ids + 1] = id .. name end
                end
                return ids
            end

            -- Runs fn in a child; join() waits for its end and gives its result.
            local children = 0
            function family.fork(fn, leave)
                children = children + 1
                local path = ("%s/%d-%d"):format(one.params.dir, posix.C.getpid(), children)
                local pid = fork()
                assert(pid >= 0, "fork failed")
                if pid == 0 then
                    local ok, result = xpcall(fn, debug.traceback)
                    local text = channel.encode({ ok = ok, result = result })
                    temp.write(path .. ".part", text)
                    os.rename(path .. ".part", path)
                    if leave then leave() end
                    ffi.C._exit(0)
                end
                local child = { pid = pid }
                function child.join()
                    local status = ffi.new("int[1]")
                    clock.wait_until(function()
                        return posix.C.waitpid(pid, status, 1) == pid
                    end, 30, "the child's end")
                    assert(status[0] == 0, "the child ended with status " .. status[0])
                    local told = channel.decode(temp.read(path))
                    assert(told.ok, told.result)
                    return told.result
                end
                return child
            end

            return assert(loadstring(one.params.body))(family)
        end,
    })
    return one:join()
end

describe("a child of fork()", function()
    -- A child of a process with threads that starts threads itself is beyond ThreadSanitizer ("dup
    -- thread with used id").
    local tsan = (os.getenv("REDCACHE_SANITIZER") or ""):match("^t")
    local it = tsan and pending or it -- luacheck: ignore

    it("reads, writes, loads and locks over connections of its own", function()
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            local raw = family.raw()
            cache:set("k", "parent's")
            cache:withLock("job", nil, function() end)
            local before = family.connections(raw)
            local result = family.fork(function()
                local mine = family.raw()
                local got = { read = cache:get("k") }
                cache:set("k", "child's")
                got.loaded, got.err, got.source = cache:remember("new", 60, function() return 1 end)
                got.locked = cache:withLock("job", nil, function() return "held" end)
                got.batch = cache:getMulti({ "k", "new" })
                local fresh = family.redcache.new({ url = family.url, group = "child" })
                got.fresh = fresh:get("k")
                fresh:close()
                got.connections = family.connections(mine)
                cache:close()
                return got
            end).join()
            result.before, result.after = before, family.connections(raw)
            result.parent_reads = cache:get("k")
            result.disconnects = cache:stats().disconnects
            result.parent_locks = cache:withLock("job", nil, function() return "held" end)
            return result
        end)
        assert.equal("parent's", seen.read)
        assert.same({ 1, "loader" }, { seen.loaded, seen.source })
        assert.equal("held", seen.locked)
        assert.same({ k = "child's", new = 1 }, seen.batch)
        assert.equal("child's", seen.fresh)
        assert.equal(2, #seen.before)
        assert.is_true(#seen.connections >= 4)
        -- The very same connections as before.
        assert.same(seen.before, seen.after)
        assert.equal("child's", seen.parent_reads)
        assert.equal(0, seen.disconnects)
        assert.equal("held", seen.parent_locks)
    end)

    it("does not hold its parent's lock, and cannot end it", function()
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            local lock = assert(cache:tryLock("job", { ttl = 20 }))
            local told = 0
            local watched = assert(cache:tryLock("watched", {
                onLost = function() told = told + 1 end,
            }))
            local result = family.fork(function()
                local got = { valid = lock:valid(), lost = lock:lost(), ttl = lock:ttl() }
                got.release = select(2, lock:release()).code
                got.extend = select(2, lock:extend(5)).code
                got.try = select(2, cache:tryLock("job")).code
                got.watched = watched:lost() and told
                -- The handle may be used for a lock of the child's own, once it is free.
                got.own = cache:lock("job", { wait = 0.05 }):acquire()
                collectgarbage()
                cache:close()
                return got
            end).join()
            result.parent_valid, result.parent_told = lock:valid(), told
            result.parent_held = lock:held()
            result.parent_releases = lock:release()
            return result
        end)
        assert.same({ false, true, 0 }, { seen.valid, seen.lost, seen.ttl })
        assert.equal("notHeld", seen.release)
        assert.equal("notHeld", seen.extend)
        assert.equal("notAcquired", seen.try)
        assert.equal(1, seen.watched)
        assert.is_nil(seen.own)
        assert.is_true(seen.parent_valid)
        assert.is_true(seen.parent_held)
        assert.equal(0, seen.parent_told)
        assert.is_true(seen.parent_releases)
    end)

    it("that ends a loader has the value, unstored; the parent stores its own", function()
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            local result, got = {}, nil
            local job = coroutine.create(function()
                got = { cache:remember("both", 60, coroutine.yield) }
            end)
            assert(coroutine.resume(job))
            result.forked = family.fork(function()
                assert(coroutine.resume(job, "child's"))
                local again = { cache:get("both") }
                return { value = got[1], flag = got[4], again = again[1] }
            end).join()
            assert(coroutine.resume(job, "parent's too"))
            result.parent = { got[1], got[3], got[4] }
            result.stored = cache:get("both")
            return result
        end)
        assert.same({ value = "child's", flag = "unstored" }, seen.forked)
        assert.same({ "parent's too", "loader" }, seen.parent)
        assert.equal("parent's too", seen.stored)
    end)

    local function expect_harmless_end(url)
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            local lock = assert(cache:tryLock("job", { ttl = 60 }))
            local job = coroutine.create(function()
                return cache:remember("k", 60, coroutine.yield, { leaseTtl = 60 })
            end)
            assert(coroutine.resume(job))
            local raw = family.raw()
            local before = raw:call("GET", "k")
            for round = 1, 4 do
                local unused = round % 2 == 0
                family.fork(function()
                    if not unused then cache:set("child", round) end
                end, round > 2 and function() os.exit(0, true) end or nil).join()
            end
            local result = {
                same = raw:call("GET", "k") == before, held = lock:held(), valid = lock:valid(),
            }
            local ok, _, _, source, flag = coroutine.resume(job, "made")
            result.load = { ok, source, flag }
            result.stats = cache:stats()
            return result
        end, url)
        assert.is_true(seen.same)
        assert.is_true(seen.held)
        assert.is_true(seen.valid)
        assert.same({ true, "loader" }, seen.load)
        assert.equal(0, seen.stats.disconnects)
        assert.equal(0, seen.stats.locksLost)
    end

    it("harms nothing by ending, with or without its finalizers", function()
        expect_harmless_end(redis:unix_url())
    end)

    -- libuv's thread pool, once used, crashes the exit of a child that does not use it.
    it("ends well after its parent looked up an address", function()
        expect_harmless_end(redis:url())
    end)

    it("ends well after its parent looked up a name", function()
        expect_harmless_end("redis://localhost:" .. redis.port)
    end)

    it("does not keep its parent's connections alive", function()
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            local raw = family.raw()
            cache:withLock("job", nil, function() end)
            local child = family.fork(function()
                local mine = family.raw()
                cache:get("k") -- From here on it has its own.
                mine:call("SET", "child-ready", 1)
                family.clock.wait_until(function()
                    return mine:call("EXISTS", "parent-done") == 1
                end, 20)
                return family.connections(mine)
            end)
            family.clock.wait_until(function()
                return raw:call("EXISTS", "child-ready") == 1
            end, 20)
            local before = family.connections(raw)
            cache:close()
            local ok = pcall(family.clock.wait_until, function()
                return #family.connections(raw) == #before - 2
            end, 10)
            raw:call("SET", "parent-done", 1)
            return { ok = ok, before = before, child = child.join() }
        end)
        assert.is_true(seen.ok, #seen.before .. " connections, then " .. #seen.child)
    end)

    it("may be one of many, and fork itself", function()
        local seen = run(function(family)
            local cache = family.redcache.new({ url = family.url })
            cache:set("k", 0)
            local children = {}
            for i = 1, 8 do
                children[i] = family.fork(function()
                    cache:set("c" .. i, i)
                    local grandchild = family.fork(function()
                        cache:set("g" .. i, i)
                        return cache:get("c" .. i)
                    end)
                    local result = grandchild.join()
                    return { result, cache:get("g" .. i) }
                end)
                cache:set("k", i)
            end
            local sum = 0
            for i = 1, 8 do
                local result = children[i].join()
                assert(result[1] == i and result[2] == i)
                sum = sum + i
            end
            return { sum = sum, last = cache:get("k"), disconnects = cache:stats().disconnects }
        end)
        assert.same({ sum = 36, last = 8, disconnects = 0 }, seen)
    end)

    -- Numbers of open descriptors: of the process that calls new, of its child, grandchild ...
    local function descriptors(scheduler)
        return run(function(family)
            -- The least of three: the pipe's other end may not be closed yet.
            local function count()
                local least = math.huge
                for _ = 1, 3 do
                    local names = io.popen("ls /proc/" .. family.pid() .. "/fd | wc -l")
                    least = math.min(least, tonumber(names:read("*a")))
                    names:close()
                end
                return least
            end
            local function live(generation)
                local cache = family.redcache.new({
                    url = family.url, scheduler = family.scheduler,
                })
                assert(cache:set("k", generation) and cache:get("k", { near = false }))
                local counts = generation < 5 and family.fork(function()
                    return live(generation + 1)
                end).join() or {}
                assert(cache:get("k", { near = false }))
                table.insert(counts, 1, count())
                return counts
            end
            return live(1)
        end, nil, scheduler)
    end

    for _, scheduler in ipairs({ "blocking", "coroutine" }) do
        it("has no more descriptors than its parent, scheduler " .. scheduler, function()
            local counts = descriptors(scheduler)
            assert.equal(5, #counts)
            -- Connections come and go; what is left of each ancestor's would be 6 more each time.
            local told = table.concat(counts, " ")
            for i = 2, 5 do assert.is_true(counts[i] < counts[1] + 5, told) end
        end)
    end
end)
