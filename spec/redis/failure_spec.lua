-- remember and its loader's errors: told to those who waited, not kept, nothing left behind.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local redis, cache, other

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ url = redis:url(), group = "a", commandTimeout = 10 })
    other = redcache.new({ url = redis:url(), group = "b", commandTimeout = 10 })
end)
after_each(function()
    cache:close()
    other:close()
end)

describe("remember with a loader that fails", function()
    -- Nobody holds the key: another client's load begins at once, not after a lease of 5 s.
    local function assert_free(key)
        local took, value = clock.time(function()
            return (other:remember(key or "k", 60, function() return "fresh" end))
        end)
        assert.equal("fresh", value)
        assert.is_true(took < 4, "it waited for " .. took)
    end

    it("runs it again for the next caller and leaves nothing behind (6)", function()
        local runs = 0
        local function loader()
            runs = runs + 1
            return nil, "no database"
        end
        for _ = 1, 2 do
            local value, err, source = cache:remember("k", 60, loader)
            assert.is_nil(value)
            assert.is_nil(source)
            assert.equal("loaderFailed", err.code)
            assert.equal("no database", err.cause)
            assert.matches("could not load 'k': no database", tostring(err), 1, true)
        end
        assert.equal(2, runs)
        assert.is_nil((select(3, cache:get("k"))))
        assert.same({ false }, { cache:exists("k") })
        assert.is_nil(cache:ttl("k"))
        assert.equal(2, cache:stats().loadErrors)
        assert_free()
    end)

    it("catches what it throws, with a traceback, and keeps the lease free", function()
        local thrown = setmetatable({}, { __tostring = function() return "thrown object" end })
        local function explode_here() error(thrown) end
        local value, err = cache:remember("k", 60, function() explode_here() end)
        assert.is_nil(value)
        assert.equal("loaderFailed", err.code)
        assert.equal(thrown, err.cause)
        assert.matches("explode_here", err.traceback, 1, true)
        assert_free()
    end)

    it("keeps an error's object for the caller who ran it", function()
        local reason = { status = 503 }
        local _, err = cache:remember("k", 60, function() return nil, reason end)
        assert.equal(reason, err.cause)
    end)

    it("tells what the serializer refuses and gives the lease back (20)", function()
        local value, err = cache:remember("k", 60, function() return { print } end)
        assert.is_nil(value)
        assert.equal("encode", err.code)
        assert_free()
    end)

    it("tells what the deserializer refuses where the options want it (20)", function()
        local header = "\251\1\1\3" .. ("\0"):rep(4) .. "version!" .. ("\0"):rep(8)
        redis:call("SET", "k", header .. "\193")
        local strict = redcache.new({ url = redis:url(), group = "a", decodeErrors = "error" })
        local value, err = strict:remember("k", 60, function() return 1 end)
        assert.is_nil(value)
        assert.equal("decode", err.code)
        strict:close()
    end)

    it("runs it once for 50 callers, who all get its error (X4)", function()
        local results = threads.run({
            count = 50, params = { url = redis:url() },
            main = function(thread)
                -- Two clients: half of the callers hear of the error through Redis.
                local mine = require("redcache").new({
                    url = thread.params.url, group = tostring(thread.index % 2),
                    connectTimeout = 10, commandTimeout = 10,
                })
                local support = require("spec.support.clock")
                assert(mine:exists("connected") == false)
                thread.barrier()
                local _, err = mine:remember("k", 60, function()
                    thread.tally(1, 1)
                    -- All the others wait for this load, and have been told so.
                    local theirs = require("redcache").new({
                        url = thread.params.url, group = tostring((thread.index + 1) % 2),
                        connectTimeout = 10, commandTimeout = 10,
                    })
                    support.wait_until(function()
                        local here, there = mine:stats(), theirs:stats()
                        return here.waiting + there.waiting >= 49
                            and here.inFlight + there.inFlight == 0
                    end, 20, "the others")
                    support.sleep(0.1)
                    return nil, "boom"
                end, { waitTimeout = 60, leaseTtl = 60 })
                local ended = thread.now()
                thread.barrier()
                return { code = err.code, cause = err.cause, ended = ended,
                    runs = thread.tally(1, 0) }
            end,
        })
        local first, last = math.huge, 0
        for i = 1, 50 do
            local one = results[i]
            assert.same({ "loaderFailed", "boom", 1 }, { one.code, one.cause, one.runs })
            first, last = math.min(first, one.ended), math.max(last, one.ended)
        end
        assert.is_true(last - first < 20, "the last error came late") -- at the lease's end
    end)

    it("tells processes that wait at once, in one failure window", function()
        local all = herd.run({
            count = 5, params = { url = redis:url(), port = redis.port },
            main = function(worker)
                local foreign = require("spec.support.resp").connect(worker.params)
                local mine = require("redcache").new({
                    url = worker.params.url, connectTimeout = 10, commandTimeout = 10,
                })
                mine:exists("connected")
                local support = require("spec.support.clock")
                worker:ready()
                foreign:call("INCR", "begun")
                local _, err = mine:remember("k", 60, function()
                    foreign:call("INCR", "runs")
                    support.wait_until(function()
                        return foreign:call("GET", "begun") == "5"
                    end, 10, "the others")
                    support.sleep(0.5)
                    error("boom", 0)
                end)
                mine:close()
                return { code = err.code, cause = err.cause }
            end,
        })
        for _, result in ipairs(all.results) do
            assert.same({ code = "loaderFailed", cause = "boom" }, result)
        end
        assert.equal("1", redis:call("GET", "runs"))
    end)

    it("is asked again by a caller who did not wait for that load", function()
        local ran = false
        cache:remember("k", 60, function() return nil, "boom" end)
        local value = other:remember("k", 60, function()
            ran = true
            return "well"
        end)
        assert.equal("well", value)
        assert.is_true(ran)
    end)

    it("is not asked again within errorTtl, by anybody", function()
        cache:remember("k", 60, function() return nil, "boom" end, { errorTtl = 30 })
        local life = redis:call("PTTL", "k")
        assert.is_true(life > 20000 and life <= 30000, tostring(life))
        for _, one in ipairs({ cache, other }) do
            local value, err = one:remember("k", 60, function() error("the loader ran") end)
            assert.is_nil(value)
            assert.same({ "loaderFailed", "boom" }, { err.code, err.cause })
            assert.is_nil((one:get("k")))
            assert.is_false((one:exists("k")))
        end
        assert.is_true(cache:delete("k"))
        assert_free()
    end)

    it("returns a value that is over maxValue, unstored, and frees the key", function()
        local small = redcache.new({ url = redis:url(), group = "c", maxValue = 1000 })
        local big = ("x"):rep(2000)
        assert.same({ value = big, source = "loader", flag = "unstored" },
            peer.report(small:remember("k", 60, function() return big end)))
        small:close()
        assert_free()
    end)
end)
