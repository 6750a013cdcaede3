-- The end of a Lua state: finalizers that run then may call caches that nobody has closed. Each
-- case is a process; worker.join throws where it crashes, or says anything but what is expected.

local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- Runs main in a process whose Lua state ends, and gives what its finalizers have printed.
local function run(main, params)
    local child = worker.start({ main = main, params = params })
    child:join()
    return (child:printed():gsub("%s+$", ""))
end

describe("a finalizer at the end of the Lua state", function()
    for _, where in ipairs({ "Redis", "memory://" }) do
        local function url() return where == "Redis" and redis:url() or "memory://" end

        it("reads, writes and gives a lock back: the cache is open, on " .. where, function()
            assert.equal("l0 v l0, near v near, far v redis, set true, lock true true", run(
                function(self)
                    -- However long the end takes, what is near stays good.
                    local cache = require("redcache").new({ url = self.params.url,
                        maxStale = 600, commandTimeout = 10 })
                    local plain = require("redcache").new({ url = self.params.url,
                        near = { l0 = false }, group = "plain", maxStale = 600,
                        commandTimeout = 10 })
                    assert(cache:set("k", "v", 60))
                    for _ = 1, 2 do assert(cache:get("k") and plain:get("k")) end
                    local lock = assert(cache:tryLock("job"))
                    _G.last = newproxy(true) -- luacheck: ignore
                    getmetatable(_G.last).__gc = function() -- luacheck: ignore
                        local value, _, source = cache:get("k")
                        io.stdout:write("l0 ", tostring(value), " ", tostring(source))
                        value, _, source = plain:get("k")
                        io.stdout:write(", near ", tostring(value), " ", tostring(source))
                        value, _, source = plain:get("k", { near = false })
                        io.stdout:write(", far ", tostring(value), " ", tostring(source))
                        io.stdout:write(", set ", tostring(cache:set("k", "w", 60)))
                        io.stdout:write(", lock ", tostring(lock:valid()), " ",
                            tostring(lock:release()))
                    end
                end, { url = url() }))
        end)

        it("may be older than the library, or of cdata, on " .. where, function()
            local out = run(function(self)
                local cache
                _G.old = newproxy(true) -- luacheck: ignore
                getmetatable(_G.old).__gc = function() -- luacheck: ignore
                    io.stdout:write("old ", tostring(cache:get("k")), "\n")
                end
                local ffi = require("ffi")
                cache = require("redcache").new({ url = self.params.url, commandTimeout = 10 })
                assert(cache:set("k", "v", 60) and cache:get("k"))
                _G.all = {} -- luacheck: ignore
                for i = 1, 50 do -- before and behind ours, in whichever order
                    _G.all[i] = ffi.gc(ffi.new("char[1]"), function()
                        io.stdout:write("cdata ", tostring(cache:get("k")), "\n")
                    end)
                end
            end, { url = url() })
            assert.equal(("cdata v\n"):rep(50) .. "old v", out)
        end)

        it("may make another, which finds the cache closed in the end, on " .. where, function()
            local out = run(function(self)
                local cache = require("redcache").new({ url = self.params.url,
                    commandTimeout = 10 })
                assert(cache:set("k", "v", 60))
                assert(cache:get("k"))
                local function plant()
                    _G.planted = newproxy(true) -- luacheck: ignore
                    getmetatable(_G.planted).__gc = function() -- luacheck: ignore
                        plant()
                        local value, err = cache:get("k")
                        io.stdout:write(value or err.code, "\n")
                    end
                end
                plant()
            end, { url = url() })
            assert.matches("^v\nv\n", out)
            assert.matches("\nclosed\nclosed$", out)
        end)

        it("may close the cache, and so may the next one, on " .. where, function()
            assert.equal("true closed true closed", run(function(self)
                local cache = require("redcache").new({ url = self.params.url,
                    commandTimeout = 10 })
                assert(cache:set("k", "v", 60))
                local lock = assert(cache:tryLock("job"))
                local function close()
                    io.stdout:write(tostring(cache:close()), " ",
                        select(2, lock:release()).code, " ")
                end
                for i = 1, 2 do
                    _G[i] = newproxy(true) -- luacheck: ignore
                    getmetatable(_G[i]).__gc = close -- luacheck: ignore
                end
            end, { url = url() }))
        end)
    end

    it("reads under a loop, too", function()
        assert.equal("v", run(function(self)
            local mine = require("redcache")
            local cache = mine.new({ url = self.params.url, scheduler = "coroutine",
                near = false })
            mine.run(function() assert(cache:set("k", "v", 60) and cache:get("k")) end)
            _G.last = newproxy(true) -- luacheck: ignore
            getmetatable(_G.last).__gc = function() -- luacheck: ignore
                mine.run(function() io.stdout:write((cache:get("k"))) end)
            end
        end, { url = redis:url() }))
    end)

    it("goes by a clock of specs", function()
        assert.equal("v 5 nil 65", run(function()
            local mine = require("redcache")
            local clock = mine.clock()
            local cache = mine.new({ url = "memory://", clock = clock })
            assert(cache:set("k", "v", 60))
            clock:advance(5)
            _G.last = newproxy(true) -- luacheck: ignore
            getmetatable(_G.last).__gc = function() -- luacheck: ignore
                io.stdout:write(tostring(cache:get("k", { fresh = true })), " ", clock:now(), " ")
                clock:advance(60)
                io.stdout:write(tostring(cache:get("k", { fresh = true })), " ", clock:now())
            end
        end))
    end)
end)

describe("the end of a Lua state", function()
    it("gives locks and leases back that nobody has given back", function()
        run(function(self)
            local cache = require("redcache").new({ url = self.params.url, commandTimeout = 10 })
            _G.lock = assert(cache:tryLock("job", { ttl = 600 })) -- luacheck: ignore
            _G.job = coroutine.create(function() -- luacheck: ignore
                cache:remember("k", 60, coroutine.yield, { leaseTtl = 600 })
            end)
            assert(coroutine.resume(_G.job)) -- luacheck: ignore
        end, { url = redis:url() })
        assert.equal(0, redis:call("EXISTS", "k", "//lock:{job}"))
        local cache = redcache.new({ url = redis:url() })
        assert.equal("w", (cache:remember("k", 60, function() return "w" end)))
        cache:close()
    end)
end)
