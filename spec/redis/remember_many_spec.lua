-- rememberMulti between processes: each key is loaded once, whoever asks for it together with
-- others.
--
-- Env: REDCACHE_MANY_ROUNDS (25)

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")
local worker = require("spec.support.worker")

local ROUNDS = tonumber(os.getenv("REDCACHE_MANY_ROUNDS")) or 25
local CLIENTS = clock.scale == 1 and 20 or 8

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:call("FLUSHALL") end)

describe("rememberMulti", function()
    it("loads each key once a round, for processes whose keys overlap in any order", function()
        local all = herd.run({
            count = CLIENTS, timeout = 60 + ROUNDS,
            params = { url = redis:url(), port = redis.port, rounds = ROUNDS },
            main = function(one)
                local params = one.params
                local foreign = require("spec.support.resp").connect(params)
                local bed_clock = require("spec.support.clock")
                local mine = require("redcache").new({
                    url = params.url, near = false, connectTimeout = 10, commandTimeout = 10,
                    waitTimeout = 30, leaseTtl = 10,
                })
                math.randomseed(one.index * 7919)
                local wrong, asked = {}, {}
                for round = 1, params.rounds do
                    local keys, picked = {}, {}
                    while #keys < 3 do
                        local key = "r" .. round .. ":" .. math.random(10)
                        if not picked[key] then
                            picked[key], keys[#keys + 1] = true, key
                            asked[#asked + 1] = key
                        end
                    end
                    one:ready()
                    local values, failed = mine:rememberMulti(keys, 600, function(list)
                        local values = {}
                        for _, key in ipairs(list) do
                            values[key] = key .. "=" .. foreign:call("INCR", "loads:" .. key)
                        end
                        bed_clock.sleep(0.002)
                        return values
                    end)
                    for _, key in ipairs(keys) do
                        if values[key] ~= key .. "=1" then
                            wrong[#wrong + 1] = key .. " " .. tostring(values[key] or failed[key])
                        end
                    end
                end
                mine:close()
                return { wrong = wrong, asked = asked }
            end,
        })
        local asked, count = {}, 0
        for _, result in ipairs(all.results) do
            assert.same({}, result.wrong)
            for _, key in ipairs(result.asked) do asked[key] = true end
        end
        for key in pairs(asked) do
            count = count + 1
            assert.equal("1", redis:call("GET", "loads:" .. key))
        end
        assert.is_true(count > ROUNDS * 5, count .. " keys")
    end)

    -- The bound of lease_spec.lua's single key.
    it("takes the keys of a killed process over within leaseTtl + 100 ms", function()
        local keys = {}
        for i = 1, 20 do keys[i] = "k" .. i end
        local doomed = worker.start({
            params = { url = redis:url(), keys = keys },
            main = function(one)
                local theirs = require("redcache").new({
                    url = one.params.url, near = false, leaseTtl = 0.5, commandTimeout = 20,
                })
                theirs:rememberMulti(one.params.keys, 60, function()
                    one:emit("loading")
                    require("spec.support.clock").sleep(60)
                end)
            end,
        })
        doomed:event("loading")
        local cache = redcache.new({ url = redis:url(), near = false, group = "heir",
            commandTimeout = 20 })
        cache:get("k1") -- connects
        doomed:kill()
        local runs, seen = 0, {}
        local left, began = redis:call("PTTL", "k1") / 1000, clock.now()
        assert.equal(#keys, redis:call("EXISTS", unpack(keys)), "the leases of who was killed")
        local took, values, failed = waited.time({ redis.pid }, function()
            return cache:rememberMulti(keys, 60, function(list)
                runs = runs + 1
                local loaded = {}
                for _, key in ipairs(list) do
                    loaded[key], seen[key] = key, (seen[key] or 0) + 1
                end
                return loaded
            end)
        end)
        local whole, life = clock.now() - began, cache:stats()
        cache:close()
        -- But for the time in which one of them was ready and had no processor.
        assert.is_true(took < clock.scaled(0.6), "it took " .. took)
        assert.is_true(whole > left - 0.01, ("it took %g s of %g"):format(whole, left))
        assert.same({}, failed)
        for _, key in ipairs(keys) do
            assert.equal(key, values[key])
            assert.equal(1, seen[key])
        end
        assert.is_true(runs <= 3, runs .. " runs")
        assert.equal(0, life.activeLeases)
    end)

    it("does on memory:// what it does on Redis", function()
        local function play(url)
            local cache = redcache.new({ url = url, near = false, grace = 60,
                commandTimeout = 20 })
            local said = {}
            local function ask(keys, ttl, fn, opts)
                local values, failed, negatives, flags = cache:rememberMulti(keys, ttl, fn, opts)
                local codes = {}
                for key, err in pairs(failed) do codes[key] = err.code .. " " .. err.message end
                said[#said + 1] = { values, codes, negatives, flags }
            end
            cache:set("there", 1, 60)
            ask({ "a", "there", "n", "bad" }, 60, function() return { a = 1, x = 2 } end,
                { prime = true })
            ask({ "x", "a", "n" }, 60, error)
            ask({ "b", "c" }, { b = -1 }, function() return {}, { c = "down" } end)
            ask({ "c", "d" }, 60, function()
                cache:delete("c")
                ask({ "d", "e" }, 60, function() return { e = 5 } end)
                return { c = 3, d = 4 }
            end)
            for i = 1, 2 do
                ask({ "y", "z" }, 0.05, function(keys, ctx)
                    said[#said + 1] = { #keys, ctx.stale.y and ctx.stale.y.value }
                    return { y = i, z = i > 1 and ctx.notModified or 7 }
                end)
                clock.sleep(0.2)
            end
            cache:close()
            return said
        end
        assert.same(play(redis:url()), play("memory://many-spec"))
    end)
end)
