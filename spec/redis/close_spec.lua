-- close: what waits ends with `closed`, what was held is given back, threads and descriptors go.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function open(options)
    options = options or {}
    options.url = redis:url()
    options.commandTimeout = options.commandTimeout or 10
    return redcache.new(options)
end

local function made() return "made" end

local function connections()
    local list = redis:call("CLIENT", "LIST")
    return select(2, list:gsub("name=redcache%-", ""))
end

describe("close", function()
    it("gives locks back (17)", function()
        local cache = open()
        local lock = assert(cache:tryLock("job", { ttl = 600 }))
        assert.equal(1, redis:call("EXISTS", "//lock:{job}"))
        assert.is_true(cache:close())
        assert.equal(0, redis:call("EXISTS", "//lock:{job}"))
        assert.is_false(lock:valid())
    end)

    it("gives leases back; the loader's value is its caller's alone (17)", function()
        local cache = open()
        local result
        local job = coroutine.create(function()
            result = { cache:remember("k", 60, coroutine.yield, { leaseTtl = 600 }) }
        end)
        assert(coroutine.resume(job))
        assert.equal(1, redis:call("EXISTS", "k"))
        cache:close()
        assert.equal(0, redis:call("EXISTS", "k"))
        assert(coroutine.resume(job, "made"))
        assert.same({ "made", nil, "loader", "unstored" }, result)
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("gives them back although Redis has forgotten the scripts", function()
        local cache = open()
        assert(cache:tryLock("job", { ttl = 600 }))
        local job = coroutine.create(function()
            cache:remember("k", 60, coroutine.yield, { leaseTtl = 600 })
        end)
        assert(coroutine.resume(job))
        redis:call("SCRIPT", "FLUSH")
        cache:close()
        assert.equal(0, redis:call("EXISTS", "k", "//lock:{job}"))
    end)

    it("ends the connections, and so does the garbage collector", function()
        local cache = open()
        cache:withLock("job", nil, made)
        clock.wait_until(function() return connections() == 2 end, 5, "two connections")
        cache:close()
        clock.wait_until(function() return connections() == 0 end, 5)
        cache = open()
        cache:withLock("job", nil, made)
        clock.wait_until(function() return connections() == 2 end, 5, "two connections")
        cache = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        clock.wait_until(function() return connections() == 0 end, 2)
    end)

    it("twice is harmless, and nothing goes after it: every call says closed", function()
        local cache = open()
        local lock, free = assert(cache:tryLock("job")), cache:lock("free")
        local below = cache:namespace("below")
        assert.is_true(cache:close())
        assert.is_true(cache:close())
        assert.is_true(below:close(0))
        local ran = false
        local function fn() ran = true end
        for name, call in pairs({
            get = function() return cache:get("k") end,
            set = function() return cache:set("k", 1) end,
            delete = function() return cache:delete("k") end,
            exists = function() return cache:exists("k") end,
            ttl = function() return cache:ttl("k") end,
            remember = function() return cache:remember("k", 60, fn) end,
            rememberForever = function() return cache:rememberForever("k", fn) end,
            put = function() return cache:put("k", 60, fn) end,
            getMulti = function() return nil, select(2, cache:getMulti({ "k" })).k end,
            setMulti = function() return nil, select(2, cache:setMulti({ k = 1 })).k end,
            deleteMulti = function() return cache:deleteMulti({ "k" }) end,
            tryLock = function() return cache:tryLock("job") end,
            withLock = function() return cache:withLock("job", nil, fn) end,
            acquire = function() return free:acquire() end,
            release = function() return lock:release() end,
            extend = function() return lock:extend(5) end,
            held = function() return lock:held() end,
            cancel = function() return cache:cancel(1) end,
            stats = function() return cache:stats() end,
            health = function() return cache:health() end,
            below = function() return below:get("k") end,
        }) do
            local result, err = call()
            assert.is_nil(result, name)
            assert.equal("closed", err and err.code, name)
            assert.matches("could not ", err.message)
        end
        assert.is_false(lock:valid())
        assert.equal(0, lock:ttl())
        assert.is_false(ran)
        -- The same options open a new client.
        cache = open()
        assert.is_true(cache:set("k", 1))
        cache:close()
    end)

    it("of one of two caches on one client leaves the other alone", function()
        local one, two = open(), open()
        assert(one:set("k", 1))
        local lock = assert(two:tryLock("job"))
        one:close()
        assert.equal("closed", select(2, one:get("k")).code)
        assert.equal(1, two:get("k"))
        assert.is_true(lock:held())
        clock.wait_until(function() return connections() == 2 end, 5, "two connections")
        two:close()
        clock.wait_until(function() return connections() == 0 end, 2)
    end)

    it("waits for a stopped server no longer than it is told", function()
        -- The best of some tries: what takes longer is the machine's.
        for _, seconds in ipairs({ 0.3, 0 }) do
            local best = math.huge
            for _ = 1, 5 do
                local cache = open()
                local lock = assert(cache:tryLock("job", { ttl = 600 }))
                redis:pause()
                best = math.min(best, (clock.time(cache.close, cache, seconds)))
                redis:resume()
                assert.is_false(lock:valid())
                redis:call("DEL", "//lock:{job}")
                if best < seconds + 0.1 then break end
            end
            assert.is_true(best < seconds + clock.scaled(0.1), "took " .. best)
        end
    end)

    it("right after new, or while the connection is being made, is fine", function()
        for _ = 1, 50 do
            open():close()
            local cache = open({ commandTimeout = 0.001 })
            cache:get("k")
            cache:close()
        end
        local best = math.huge
        for _ = 1, 5 do
            local away = redcache.new({ url = "redis://127.0.0.1:1", commandTimeout = 0.05 })
            away:get("k")
            best = math.min(best, (clock.time(away.close, away)))
        end
        assert.is_true(best < clock.scaled(0.2), "took " .. best)
        clock.wait_until(function() return connections() == 0 end, 2)
    end)
end)

describe("close from another thread", function()
    it("wakes those who wait for a lock or a load, with closed (63)", function()
        local done = threads.run({
            count = 4, params = { url = redis:url(), library = os.getenv("REDCACHE_LIBRARY") },
            main = function(thread)
                local support = require("spec.support.clock")
                local redcache = require("redcache") -- luacheck: ignore
                local cache = redcache.new({ url = thread.params.url })
                if thread.index == 1 then
                    local other = redcache.new({ url = thread.params.url, group = "other" })
                    local held = assert(other:tryLock("job", { ttl = 600 }))
                    local mine = assert(cache:tryLock("mine", { ttl = 600 }))
                    local job = coroutine.create(function()
                        other:remember("k", 60, coroutine.yield, { leaseTtl = 600 })
                    end)
                    assert(coroutine.resume(job))
                    thread.barrier()
                    support.wait_until(function() return cache:stats().waiting == 3 end, 10)
                    local start = support.now()
                    -- Cache:close gives one reference back; this closes the client for all.
                    local C = require("ffi").load(thread.params.library)
                    C.rc_close(cache._client.handle, 30000)
                    thread.barrier()
                    local left = { other:exists("//lock:{mine}"), other:exists("//lock:{job}") }
                    return { start = start, left = left, held = held:valid(),
                        valid = mine:valid() }
                end
                thread.barrier()
                local ok, err
                if thread.index == 2 then
                    ok, err = cache:lock("job", { wait = 60 }):acquire()
                elseif thread.index == 3 then
                    ok, err = cache:remember("k", 60, error, { waitTimeout = 60 })
                else
                    ok, err = cache:put("k", 60, error, { waitTimeout = 60 })
                end
                local ended = support.now()
                thread.barrier()
                return { ok = ok, code = err and err.code, ended = ended }
            end,
        })
        for i = 2, 4 do
            assert.is_nil(done[i].ok)
            assert.equal("closed", done[i].code)
            assert.is_true(done[i].ended - done[1].start < 10) -- not when its 30 s are over
        end
        assert.same({ false, true }, done[1].left)
        assert.is_true(done[1].held)
        assert.is_false(done[1].valid)
    end)

    it("under 50 readers, twice at once: all end with closed, none crashes (54)", function()
        local done = threads.run({
            count = 52, timeout = 60,
            params = { url = redis:url(), library = os.getenv("REDCACHE_LIBRARY") },
            main = function(thread)
                local cache = require("redcache").new({ url = thread.params.url })
                assert(cache:set("k", "v"))
                thread.barrier()
                if thread.index > 50 then
                    require("spec.support.clock").wait_until(function()
                        return thread.tally(1, 0) > 500
                    end, 20)
                    local C = require("ffi").load(thread.params.library)
                    C.rc_close(cache._client.handle, 1000)
                    cache:close()
                    return 0
                end
                while true do
                    local value, err
                    if thread.index % 3 == 0 then
                        value, err = cache:remember("k", 60, function() return "v" end)
                    elseif thread.index % 3 == 1 then
                        value, err = cache:get("k")
                    else
                        value, err = cache:withLock("job" .. thread.index, nil, function()
                            return "v"
                        end)
                    end
                    if err then
                        -- The lock may have been given back in the middle of withLock.
                        assert(err.code == "closed" or err.code == "lockLost", tostring(err))
                        if err.code == "closed" then return 1 end
                    else
                        assert(value == "v")
                        thread.tally(1)
                    end
                end
            end,
        })
        for i = 1, 50 do assert.equal(1, done[i]) end
        clock.wait_until(function() return connections() == 0 end, 2)
    end)
end)

describe("the reactor thread", function()
    it("blocks all signals, and is gone after close with all descriptors", function()
        local one = worker.start({
            params = { url = redis:unix_url() },
            main = function(one)
                -- The shortest of three: who lists may see the pipe's other end, which popen has
                -- not closed yet.
                local function list(what)
                    local least
                    for _ = 1, 3 do
                        local pipe = io.popen("ls /proc/" .. one.params.pid .. "/" .. what)
                        local names = {}
                        for name in pipe:lines() do names[#names + 1] = name end
                        pipe:close()
                        if not least or #names < #least then least = names end
                    end
                    return least
                end
                one.params.pid = require("spec.support.posix").C.getpid()
                local redcache = require("redcache") -- luacheck: ignore
                local before, known = #list("task"), {}
                for _, task in ipairs(list("task")) do known[task] = true end
                local cache = redcache.new({ url = one.params.url })
                local unused = #list("task")
                cache:withLock("job", nil, function() end)
                local masks = {}
                for _, task in ipairs(list("task")) do
                    if not known[task] then
                        local file = io.open("/proc/self/task/" .. task .. "/status")
                        masks[#masks + 1] = file:read("*a"):match("SigBlk:%s*(%x+)")
                        file:close()
                    end
                end
                cache:close()
                -- libuv keeps a pipe of its own from its first loop on.
                local fds, tasks = #list("fd"), #list("task")
                for _ = 1, 30 do
                    cache = redcache.new({ url = one.params.url })
                    cache:withLock("job", nil, function() end)
                    cache:close()
                end
                -- A lock handle keeps the memory of its client, and with it one descriptor.
                collectgarbage()
                collectgarbage()
                return {
                    before = before, unused = unused, masks = masks, tasks = tasks,
                    after = #list("task"), fds = fds, fds_after = #list("fd"),
                }
            end,
        })
        local seen = one:join()
        -- Nothing is started before the first use.
        assert.equal(seen.before, seen.unused)
        -- All but SIGKILL, SIGSTOP, and the two the C library keeps for itself (32 and 33).
        assert.is_true(#seen.masks >= 1)
        for _, mask in ipairs(seen.masks) do assert.equal("fffffffe7ffbfeff", mask) end
        -- ThreadSanitizer starts a thread of its own beside the first of ours.
        assert.is_true(seen.tasks <= seen.before + (clock.scale >= 10 and 1 or 0))
        assert.equal(seen.tasks, seen.after)
        assert.is_true(seen.fds_after <= seen.fds, seen.fds .. " " .. seen.fds_after)
    end)
end)
