-- onInvalidate beyond spec/support/cases/listens.lua: what is lost and told as a gap, who else
-- hears it, and that nothing of it holds a program up.

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")
local worker = require("spec.support.worker")

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches = {}
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    -- A server that is late by less than maxStale is no gap.
    local all = { url = redis:url(), namespace = "app", commandTimeout = clock.scaled(2),
        maxStale = 600 }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

-- A list of "cause key" of what is told.
local function listen(cache)
    local told = {}
    local listener = assert(cache:onInvalidate(function(key, cause)
        told[#told + 1] = cause .. " " .. tostring(key)
    end))
    return told, listener
end

local function has(told, name)
    for _, one in ipairs(told) do
        if one == name then return true end
    end
    return false
end

local function wait_for(cache, told, name)
    clock.wait_until(function()
        cache:work(0)
        return has(told, name)
    end, 10, "'" .. name .. "'")
end

describe("onInvalidate", function()
    it("hears of a key whose copy was evicted, and of one that was not there", function()
        local cache = open({ near = { bytes = 65536, l0 = false }, group = "small" })
        local told = listen(cache)
        for i = 1, 100 do
            assert(cache:set("k" .. i, ("x"):rep(2000)))
            assert(cache:get("k" .. i))
        end
        assert.is_nil(cache:get("absent"))
        cache:work(10)
        for i = #told, 1, -1 do told[i] = nil end
        assert.is_true(cache.near:stats().evictions > 0)
        for _, key in ipairs({ "k1", "k2", "k100", "absent" }) do
            redis:call("SET", "app:" .. key, "now")
            wait_for(cache, told, "push " .. key)
        end
    end)

    it("is told of a gap where the connection was lost", function()
        local cache = open({ group = "gap" })
        local told = listen(cache)
        assert(cache:set("k", 1) and cache:get("k"))
        cache:work(1)
        assert.is_false(has(told, "gap nil"))
        redis:call("CLIENT", "KILL", "TYPE", "normal")
        wait_for(cache, told, "gap nil")
    end)

    it("is told of a gap where more has changed than the ring holds", function()
        local cache = open({ near = { bytes = 65536 }, group = "ring" })
        local told = listen(cache)
        for i = 1, 200 do assert(cache:setMulti({ ["k" .. i] = i, other = i })) end
        -- Each call in plain Lua comes by, and so nothing was missed up to now.
        cache:work(10)
        assert.is_false(has(told, "gap nil"))
        assert.is_true(has(told, "write k200"))
        local many = {}
        for i = 1, 200 do many["k" .. i] = i end
        assert(cache:setMulti(many))
        cache:work(10)
        assert.is_true(has(told, "gap nil"))
    end)

    it("a key that is too long for the ring is a gap, and never another key", function()
        local cache = open({ near = { bytes = 65536 }, group = "long" })
        local told = listen(cache)
        local long = ("l"):rep(500)
        assert(cache:set(long, 1))
        cache:work(1)
        assert.same({ "gap nil" }, told)
    end)

    it("what has changed often meanwhile is told once", function()
        local cache = open()
        local told = listen(cache)
        local map = { a = 1, b = 2 }
        assert(cache:setMulti(map))
        assert(cache:setMulti(map)) -- tells of the first before it begins
        cache:work(1)
        table.sort(told)
        assert.same({ "write a", "write a", "write b", "write b" }, told)
        redcache.run(function()
            local own = open({ scheduler = "coroutine", group = "own", background = false })
            local times = listen(own)
            for _ = 1, 3 do assert(own:setMulti(map)) end
            repeat own:exists("nothing") until has(times, "write b")
            assert.is_true(#times <= 6)
        end)
    end)

    it("a function that throws is counted, and the others are told", function()
        local cache = open()
        local count = 0
        assert(cache:onInvalidate(function()
            count = count + 1
            error("planted")
        end))
        local told = listen(cache)
        assert(cache:setMulti({ a = 1, b = 1 }))
        cache:work(1)
        assert.equal(2, count)
        assert.equal(1, cache:stats().backgroundFailed)
        assert.is_true(has(told, "write a") and has(told, "write b"))
        assert(cache:set("c", 1))
        cache:work(1)
        assert.equal(3, count)
    end)

    it("a listener that nobody knows any more goes on until the cache is closed", function()
        local cache = open({ group = "kept" })
        local told = listen(cache)
        collectgarbage()
        collectgarbage()
        assert(cache:set("k", 1))
        cache:work(1)
        assert.same({ "write k" }, told)
        assert.same({ true }, { cache:close() })
    end)

    it("a function that listens and closes in there does no harm", function()
        local cache, count = open(), 0
        local listener
        listener = cache:onInvalidate(function()
            count = count + 1
            listener:close()
            cache:onInvalidate(function() count = count + 100 end)
        end)
        assert(cache:setMulti({ a = 1, b = 1, c = 1 }))
        cache:work(1)
        assert.equal(1, count)
        assert(cache:set("d", 1))
        cache:work(1)
        assert.equal(101, count)
    end)

    it("works on memory://, each store's own", function()
        local cache = open({ url = "memory://one" })
        local other = open({ url = "memory://two" })
        local told = listen(cache)
        assert(cache:set("k", 1) and cache:get("k") == 1 and other:set("k", 2) and other:get("k"))
        assert(cache:delete("k") and other:delete("k"))
        cache:work(1)
        assert.equal("write k", told[1])
        for _, name in ipairs(told) do assert.matches(" k$", name) end
    end)

    it("two Lua states of a process both hear", function()
        local url = redis:url()
        local told = threads.run({ count = 2, params = { url = url }, main = function(one)
            local clock_there = require("spec.support.clock")
            local cache = require("redcache").new({ url = one.params.url, namespace = "app" })
            local heard = {}
            assert(cache:onInvalidate(function(key) heard[key or "gap"] = true end))
            one.barrier()
            assert(cache:set("k" .. one.index, 1))
            local deadline = clock_there.deadline(10)
            while not (heard.k1 and heard.k2) and clock_there.now() < deadline do
                cache:work(0)
                clock_there.sleep(0.002)
            end
            one.barrier() -- a state that ends would be a gap for the other one
            return (heard.k1 and "k1" or "") .. (heard.k2 and "k2" or "")
        end })
        assert.same({ "k1k2", "k1k2" }, told)
    end)

    it("a process hears of what another one with its near cache has read", function()
        local name = "listen-" .. posix.C.getpid()
        local function follow(one)
            local clock_there = require("spec.support.clock")
            local cache = require("redcache").new({
                url = one.params.url, namespace = "app", near = { shared = one.params.shared },
                maxStale = 600, commandTimeout = 30,
            })
            local told = {}
            assert(cache:onInvalidate(function(key, cause)
                told[#told + 1] = cause .. " " .. tostring(key)
            end))
            one:emit("ready")
            local deadline = clock_there.deadline(20)
            while told[#told] ~= "write end" and clock_there.now() < deadline do
                cache:work(0)
                clock_there.sleep(0.002)
            end
            one:emit("heard")
            one:receive(20) -- a process that ends would be a gap for the other one
            cache:close()
            return told
        end
        local params = { url = redis:url(), shared = name }
        local processes = {
            worker.start({ main = follow, params = params }),
            worker.start({ main = follow, params = params }),
        }
        local cache = open({ near = { shared = name } })
        for _, process in ipairs(processes) do process:event("ready") end
        assert(cache:set("k", 1) and cache:get("k"))
        redis:call("SET", "app:k", "x")
        local told = listen(cache)
        assert(cache:get("k")) -- behind the push
        clock.wait_until(function() return select(3, cache:get("k")) ~= "l0" end, 10, "the push")
        assert(cache:set("end", 1))
        for _, process in ipairs(processes) do process:event("heard", 20) end
        for _, process in ipairs(processes) do
            process:send({})
            local heard = process:join()
            assert.is_true(has(heard, "write k") and has(heard, "push k"))
            assert.is_false(has(heard, "gap nil"))
        end
        assert.is_true(#told >= 0)
    end)
end)

-- Who sleeps is told by its loop.
local function in_loop(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local clock_there = require("spec.support.clock")
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, namespace = "app",
    })
    local told
    loop.go(function()
        assert(cache:onInvalidate(function(key, cause)
            if cause == "push" then told = key .. " " .. tostring(cache:get(key)) end
        end))
        assert(cache:set("k", 1) and cache:get("k"))
        local deadline = clock_there.deadline(10)
        assert(cache:redis():command("DEL", "app:k"))
        while not told and clock_there.now() < deadline do loop.sleep(0.005) end
        cache:close()
    end)
    loop.run()
    return told
end

for _, name in ipairs(event_loop.names) do
    local check = event_loop.has(name) and it or pending
    check("in a loop of " .. name .. " it is told while nobody calls", function()
        assert.equal("k nil", worker.start({
            main = in_loop, params = { name = name, url = redis:url() },
        }):join())
    end)
end
