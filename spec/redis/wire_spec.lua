-- What each call costs: commands on the wire, round trips, connections.

local monitor = require("spec.support.monitor")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local redis, line, cache

setup(function()
    redis = server.start()
    line = proxy.start(redis)
end)
teardown(function()
    line:stop()
    redis:stop()
end)

local function one() return 1 end

before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ near = false, url = line:url() })
    -- Connects, and lets Redis see the scripts once.
    cache:remember("first", 60, one)
    cache:put("first", 60, one)
    redis:call("FLUSHALL")
end)
after_each(function() cache:close() end)

-- The commands a call sends, in order, and its round trips.
local function cost(fn)
    local names = {}
    local counts, list = line:measure(function()
        local _, commands = monitor.wire(redis, fn)
        return commands
    end)
    for i, command in ipairs(list) do names[i] = command.name end
    return table.concat(names, " "), counts.turns
end

-- `commands`: their names, or how many there are.
local function assert_cost(commands, turns, fn)
    local sent, turned = cost(fn)
    if type(commands) == "number" then
        local _, count = sent:gsub("%S+", "")
        assert.equal(commands, count, sent)
    else
        assert.equal(commands, sent)
    end
    assert.equal(turns, turned, sent)
end

-- Enough misses that the cache expects more of them, and asks by script first.
local function warm(with)
    for i = 1, 20 do with:remember("warm" .. i, 60, one) end
end

describe("the wire cost", function()
    it("of a hit is one GET in one round trip", function()
        cache:set("k", 1)
        assert_cost("get", 1, function() cache:get("k") end)
        assert_cost("get", 1, function() cache:remember("k", 60, error) end)
        assert_cost("get", 1, function() cache:exists("k") end)
        assert_cost("get", 1, function() cache:get("missing") end)
    end)

    it("of a hit whose life is needed is GET and PTTL in one round trip", function()
        local graceful = cache:namespace("graceful", { grace = 10 })
        graceful:set("k", 1)
        assert_cost("get pttl", 1, function() graceful:get("k") end)
        assert_cost("get pttl", 1, function() graceful:remember("k", 60, error) end)
        assert_cost("get pttl", 1, function() graceful:ttl("k") end)
    end)

    it("of a first miss is GET, acquire and publish, one round trip each", function()
        assert_cost(3, 3, function() cache:remember("k", 60, one) end)
    end)

    it("of a miss among misses is acquire and publish, one round trip each", function()
        warm(cache)
        assert_cost(2, 2, function() cache:remember("k", 60, one) end)
        assert_cost(1, 1, function() cache:remember("k", 60, error) end)
    end)

    it("of a miss is two round trips more, once, when Redis has forgotten the scripts", function()
        redis:call("SCRIPT", "FLUSH")
        local counts = line:measure(function() cache:remember("k", 60, one) end)
        assert.is_true(counts.total <= 5 and counts.turns <= 5)
        assert_cost(3, 3, function() cache:remember("k2", 60, one) end)
    end)

    it("of a loader that fails or chooses a ttl of 0 is that of a miss", function()
        cache:remember("k", 60, function() return nil, "no" end)
        cache:remember("k", 60, function() return 1, 0 end)
        redis:call("DEL", "k")
        assert_cost(3, 3, function()
            cache:remember("k", 60, function() return nil, "no" end)
        end)
        assert_cost(3, 3, function()
            cache:remember("k", 60, function() return 1, 0 end)
        end)
    end)

    it("of put is acquire and publish", function()
        for _ = 1, 2 do
            assert_cost(2, 2, function() cache:put("k", 60, one) end)
        end
    end)

    it("of set and delete is one command", function()
        assert_cost("set", 1, function() cache:set("k", 1) end)
        assert_cost("set", 1, function() cache:set("k", 1, redcache.FOREVER) end)
        assert_cost("unlink", 1, function() cache:delete("k") end)
    end)

    it("of a batch is one round trip", function()
        local map, keys = {}, {}
        for i = 1, 100 do
            keys[i] = "k" .. i
            map[keys[i]] = i
        end
        assert_cost(("set "):rep(100):sub(1, -2), 1, function() cache:setMulti(map, 60) end)
        assert_cost("mget", 1, function() cache:getMulti(keys) end)
        assert_cost("unlink", 1, function() cache:deleteMulti(keys) end)
    end)

    it("of rememberMulti is one round trip for the leases and one for the values", function()
        local keys = {}
        for i = 1, 100 do keys[i] = "k" .. i end
        local function load(list)
            local values = {}
            for _, key in ipairs(list) do values[key] = key end
            return values
        end
        -- A server that compares by itself stores each value by a SET. The others are told of 20 by
        -- one script, whose first call brings its source and so has room for fewer.
        local compares = pcall(redis.call, redis, "SET", "none", "1", "IFEQ", "0")
        assert_cost(compares and 200 or 106, 2, function() cache:rememberMulti(keys, 60, load) end)
        assert_cost(100, 1, function() cache:rememberMulti(keys, 60, load) end)
        assert_cost(("get "):rep(100):sub(1, -2), 1, function()
            cache:rememberMulti(keys, 60, error)
        end)
        -- Behind hits: GET, lease, value. The last ones, as the answers may come in two pieces, and
        -- leases are asked for behind each.
        redis:call("DEL", "k98", "k99", "k100")
        assert_cost(compares and 106 or 104, 3, function()
            cache:rememberMulti(keys, 60, load)
        end)
    end)

    it("of 1,000 keys is one round trip, their values arrive in a few MGETs", function()
        local map, keys = {}, {}
        for i = 1, 1000 do
            keys[i] = "k" .. i
            map[keys[i]] = i
        end
        cache:setMulti(map, 60)
        local values
        assert_cost(("mget "):rep(8):sub(1, -2), 1, function() values = cache:getMulti(keys) end)
        assert.same(map, values)
    end)

    it("of empty lists is nothing (46)", function()
        assert_cost("", 0, function()
            assert.same({ {}, {}, {} }, { cache:getMulti({}) })
            assert.same({ true, {} }, { cache:setMulti({}) })
            assert.same({ 0 }, { cache:deleteMulti({}) })
        end)
    end)

    it("never is a SCRIPT LOAD, nor a SELECT or PING per call", function()
        redis:call("SCRIPT", "FLUSH")
        local counts = monitor.wire(redis, function()
            local fresh = redcache.new({
                near = false, url = redis:url(), group = "fresh", grace = 1,
            })
            warm(fresh)
            fresh:put("k", 60, one)
            fresh:remember("e", 60, function() return nil, "no" end)
            fresh:setMulti({ a = 1, b = 2 })
            fresh:getMulti({ "a", "b" })
            fresh:withLock("l", nil, one)
            fresh:close()
        end)
        assert.is_nil(counts.script)
        -- Two connections: a SELECT and a PING each, before they are ready.
        assert.is_true((counts.select or 0) <= 2, tostring(counts.select))
        assert.is_true((counts.ping or 0) <= 2, tostring(counts.ping))
    end)

    it("is two connections for 50 threads, whose calls share writes", function()
        local before = line:counts().accepted
        local results = threads.run({
            count = 50, params = { url = line:url() },
            main = function(thread)
                local mine = require("redcache").new({
                    near = false,
                    url = thread.params.url, connectTimeout = 10, commandTimeout = 10,
                })
                mine:set("k" .. thread.index, thread.index)
                mine:remember("m" .. thread.index, 60, function() return 1 end)
                thread.barrier()
                local good = 0
                for _ = 1, 100 do
                    if mine:get("k" .. thread.index) == thread.index then good = good + 1 end
                end
                thread.barrier()
                return good
            end,
        })
        for i = 1, 50 do assert.equal(100, results[i]) end
        assert.equal(2, line:counts().accepted - before)
    end)
end)
