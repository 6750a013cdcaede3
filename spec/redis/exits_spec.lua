-- Every way out of remember, put and withLock ends their lease or lock. The ways are generated: the
-- n-th function call inside of the call throws, for n = 1, 2, 3 ... until the call runs through.

local clock = require("spec.support.clock")
local redcache = require("redcache.all") -- loading is no part of a call here
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local error, pcall, running, sethook = error, pcall, coroutine.running, debug.sethook

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

-- A lease stands in its key as 24 bytes of kind 4; what put and a refresh write beside the key has
-- a name of its own. Fences and marks of locks outlive them.
local function leftover()
    for _, key in ipairs(redis:call("KEYS", "*")) do
        local value = redis:call("GET", key)
        local is_lease = value and #value == 24 and value:byte(1) == 0xa9 and value:byte(3) == 4
        local may_stay = key == "app:k" or key:find("fence", 1, true) or key:find("mark", 1, true)
        if is_lease or (value and not may_stay) then return key end
    end
end

-- Calls fn; the n-th function call inside throws.
local function call_with_fault(n, fn)
    local count, fired, mine = 0, false, running()
    local function hook()
        if running() ~= mine then return end -- the runner of redcache.run is not inside
        count = count + 1
        if count == n then
            sethook()
            fired = true
            error("planted", 0)
        end
    end
    jit.off()
    local ok, value, err = pcall(function()
        sethook(hook, "c")
        local value, err = fn()
        sethook()
        return value, err
    end)
    jit.on()
    return fired, ok, value, err
end

local function check_slots(cache, seen)
    local pool, client = {}, cache._client
    for i = 1, client.count do
        local slot = client.slots[i]
        assert.is_nil(pool[slot], "a slot stands in the pool twice")
        pool[slot], seen[slot] = true, true
    end
    return pool
end

local function is_waited_for(cache)
    local port = cache._client.port
    for _, slot in pairs(port and port.waiting or {}) do
        if slot then return true end
    end
    return port and port.count > 0
end

-- Runs the case with a fault at every place. Gives the number of places.
local function try_all(options, case)
    options.url, options.namespace = redis:url(), "app"
    -- An answer that comes late is not what ends a call here.
    options.connectTimeout, options.commandTimeout = 30, 30
    local cache = redcache.new(options)
    local inside = options.scheduler == "coroutine" and redcache.run or function(fn) fn() end
    local seen, silent = setmetatable({}, { __mode = "k" }), {}
    local n = 0
    repeat
        n = n + 1
        redis:call("FLUSHALL")
        if case.before then inside(function() case.before(cache) end) end
        local fired, ok, value, err
        inside(function()
            fired, ok, value, err = call_with_fault(n, function() return case.call(cache) end)
        end)
        if fired and ok and value ~= nil and not (case.may_succeed and value == case.may_succeed)
        then
            silent[#silent + 1] = n
        end
        assert.is_true(ok or tostring(value):find("planted", 1, true) ~= nil, tostring(value))
        local left
        assert.is_true(pcall(clock.wait_until, function()
            if case.tick then case.tick() end
            inside(function() cache:exists("x") end) -- who is told of an end, is told in run()
            left = leftover() or is_waited_for(cache) and "a wait" or nil
            return left == nil
        end, 4.5), ("fault %d leaves %s behind"):format(n, tostring(left))) -- a lease has 5 s
        clock.wait_until(function()
            local stats = cache:stats()
            return stats.activeLeases == 0 and stats.activeLocks == 0 and stats.waiting == 0
        end, 10)
        check_slots(cache, seen)
        assert.is_nil(next(cache._client.loading), ("fault %d leaves its mark"):format(n))
        if not fired then
            assert.is_true(ok and (err == nil or case.fails), tostring(err or value))
        end
        collectgarbage() -- marks are weak: only after the look at them
    until not fired
    collectgarbage()
    collectgarbage()
    local pool = check_slots(cache, seen)
    for slot in pairs(seen) do
        assert.is_true(pool[slot], "a slot is missing")
    end
    cache:close()
    assert.same({}, silent)
    return n - 1
end

local function made() return ("v"):rep(3) end

local CASES = {
    {
        name = "remember that loads",
        call = function(cache) return cache:remember("k", 60, made) end,
    }, {
        name = "remember whose loader throws", fails = true,
        call = function(cache)
            return cache:remember("k", 60, function() error({ code = 42 }) end)
        end,
    }, {
        name = "remember whose loader gives an error", fails = true,
        call = function(cache)
            return cache:remember("k", 60, function() return nil, "no" end)
        end,
    }, {
        name = "rememberForever",
        call = function(cache) return cache:rememberForever("k", made) end,
    }, {
        name = "remember with options",
        call = function(cache) return cache:remember("k", 60, made, { timeout = 5 }) end,
    }, {
        name = "remember of nothing",
        call = function(cache)
            local _, err, source = cache:remember("k", 60, function() end)
            return source or err and nil, err
        end,
    }, {
        name = "a refresh of a stale value", options = { grace = 60, background = false },
        before = function(cache)
            assert(cache:set("k", "old", 0.02))
            clock.sleep(0.03)
        end,
        may_succeed = "old",
        call = function(cache) return cache:remember("k", 0.02, made) end,
    }, {
        name = "a refresh in the background",
        options = { refreshAfter = 0.01, background = true, leaseTtl = 0.05 },
        before = function(cache)
            cache._client.refreshes = nil -- a refresh that failed puts the key off
            assert(cache:set("k", "old", 60))
            clock.sleep(0.011)
        end,
        may_succeed = "old",
        call = function(cache)
            local value, err = cache:remember("k", 60, made)
            cache:work(1) -- whoever can runs it, here and now
            return value, err
        end,
    }, {
        name = "a refresh of many in the background",
        schedulers = { "coroutine" }, -- five hundred places
        options = { refreshAfter = 0.01, background = true, leaseTtl = 0.05 },
        before = function(cache)
            cache._client.refreshes = nil -- a refresh that failed puts the key off
            assert(cache:set("k", "old", 60))
            clock.sleep(0.011)
        end,
        may_succeed = "old",
        call = function(cache)
            local values, failed = cache:rememberMulti({ "k" }, 60, function()
                return { k = made() }
            end)
            cache:work(1)
            return values.k, failed.k
        end,
    }, {
        name = "a hit",
        before = function(cache) assert(cache:set("k", "vvv", 60)) end,
        call = function(cache) return cache:remember("k", 60, made) end,
    }, {
        name = "a value that cannot be decoded",
        before = function(cache)
            assert(cache:set("k", "vvv", 60))
            local value = redis:call("GET", "app:k")
            redis:call("SET", "app:k", value:sub(1, 24) .. "\xc1", "PX", 60000)
        end,
        call = function(cache) return cache:remember("k", 60, made) end,
    }, {
        name = "put",
        call = function(cache) return cache:put("k", 60, made) end,
    }, {
        name = "put over a value",
        before = function(cache) assert(cache:set("k", "old", 60)) end,
        call = function(cache) return cache:put("k", 60, made) end,
    }, {
        name = "put that hides the old value",
        before = function(cache) assert(cache:set("k", "old", 60)) end,
        call = function(cache) return cache:put("k", 60, made, { serveOld = false }) end,
    }, {
        name = "put whose writer throws", fails = true,
        call = function(cache) return cache:put("k", 60, function() error("no") end) end,
    }, {
        name = "withLock",
        call = function(cache) return cache:withLock("job", nil, made) end,
    }, {
        name = "withLock whose function throws", fails = true,
        call = function(cache)
            local ok, err = pcall(cache.withLock, cache, "job", nil, function() error("no") end)
            return ok and "v" or nil, err
        end,
    }, {
        name = "acquire and release",
        call = function(cache)
            local lock = cache:lock("job")
            local ok, err = lock:acquire()
            if not ok then return nil, err end
            return lock:release()
        end,
        -- The handle of a lock that was acquired stays its user's.
        tick = function() collectgarbage() end,
    },
}

describe("whatever throws inside of", function()
    for _, case in ipairs(CASES) do
        it(case.name .. ", its lease or lock is given back", function()
            for _, scheduler in ipairs(case.schedulers or { "blocking", "coroutine" }) do
                local options = { scheduler = scheduler, near = scheduler == "blocking" }
                for name, value in pairs(case.options or {}) do options[name] = value end
                local places = try_all(options, case)
                assert.is_true(places > 10, places .. " places")
            end
        end)
    end
end)

describe("an error object that cannot be told", function()
    local function gives_nil() return setmetatable({}, { __tostring = function() end }) end
    local function throws()
        return setmetatable({}, { __tostring = function() error("no text") end })
    end
    local function gives_a_table()
        return setmetatable({}, { __tostring = function() return {} end })
    end
    local function one() return "v" end
    local cache, other

    before_each(function()
        redis:call("FLUSHALL")
        cache = redcache.new({ url = redis:url(), near = false, commandTimeout = 30 })
        other = redcache.new({ url = redis:url(), near = false, group = "other", waitTimeout = 4,
            commandTimeout = 30 })
    end)
    after_each(function() cache:close() other:close() end)

    local function is_free(key)
        assert.equal("v", (other:remember(key, 60, function() return "v" end)))
    end

    it("is loaderFailed, and the lease is given back", function()
        for i, make in ipairs({ gives_nil, throws, gives_a_table }) do
            for j, load in ipairs({
                function() return nil, make() end,
                function() error(make()) end,
            }) do
                local key = "k" .. i .. j
                local value, err = cache:remember(key, 60, load)
                assert.is_nil(value)
                assert.equal("loaderFailed", err.code)
                assert.matches("whose __tostring", err.message)
                assert.is_table(err.cause)
                is_free(key)
                value, err = cache:put(key .. "p", 60, load)
                assert.is_nil(value)
                assert.equal("loaderFailed", err.code)
                is_free(key .. "p")
            end
        end
    end)

    it("is encode where a codec throws it or gives it, and decode likewise", function()
        for i, make in ipairs({ gives_nil, throws, gives_a_table }) do
            for j, fail in ipairs({
                function() return nil, make() end,
                function() error(make()) end,
            }) do
                local key = "k" .. i .. j
                local odd = redcache.new({
                    url = redis:url(), near = false, group = "odd", decodeErrors = "error",
                    codec = { name = "odd", id = 77, encode = fail, decode = fail },
                })
                local value, err = odd:remember(key, 60, function() return "v" end)
                assert.is_nil(value)
                assert.equal("encode", err.code)
                is_free(key)
                assert.equal("encode", select(2, odd:put(key .. "p", 60, one)).code)
                is_free(key .. "p")
                assert.equal("encode", select(2, odd:set(key, "v", 60)).code)
                redis:call("SET", "raw", redis:call("GET", key):sub(1, 3) .. "\77"
                    .. redis:call("GET", key):sub(5))
                assert.equal("decode", select(2, odd:get("raw")).code)
                odd:close()
            end
        end
    end)

    it("nor is memory that runs out in a loader the end of it", function()
        if os.getenv("REDCACHE_SANITIZER") then pending("shadow memory has no limit") return end
        local hungry = worker.start({
            params = { url = redis:url() },
            main = function(self)
                local ffi = require("ffi")
                local mine = require("redcache").new({ url = self.params.url, near = false })
                assert(mine:set("warm", "v", 60))
                ffi.cdef("struct spec_limit { unsigned long now, most; };"
                    .. "int setrlimit(int, const struct spec_limit *);")
                local status = io.open("/proc/self/status"):read("*a")
                local limit = ffi.new("struct spec_limit")
                limit.now = (tonumber(status:match("VmSize:%s+(%d+)")) + 65536) * 1024
                limit.most = limit.now
                assert(ffi.C.setrlimit(9, limit) == 0) -- RLIMIT_AS
                local out = {}
                for i = 1, 3 do
                    local value, err = mine:remember("k" .. i, 60, function()
                        local all = {}
                        for at = 1, 1e9 do all[at] = { at } end
                        return all
                    end)
                    out[i] = tostring(value) .. " " .. tostring(err and err.code)
                end
                out[4] = tostring((mine:remember("k4", 60, function() return "v" end)))
                return table.concat(out, ", ")
            end,
        })
        assert.equal("nil loaderFailed, nil loaderFailed, nil loaderFailed, v", hungry:join(60))
        for i = 1, 3 do is_free("k" .. i) end
    end)
end)
