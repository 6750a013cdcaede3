-- Herds of real processes on single keys: one loader run per round, and what each of them costs.
--
-- Env: REDCACHE_HERD_ROUNDS: how often 64 processes meet on one key (20; 8 times 16 under
--      sanitizers).

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local monitor = require("spec.support.monitor")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local redis

setup(function() redis = server.start({ config = { "maxclients 512" } }) end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

local function params(more)
    more = more or {}
    more.url, more.path = redis:url(), redis.path
    return more
end

-- Loads the scripts, so that nobody has to send their sources.
local function load_scripts()
    local cache = redcache.new({ url = redis:url() })
    cache:remember("warm", 60, function() return 1 end)
    cache:close()
end

-- Commands of redcache's connections, without their greetings: by name, and by connection.
local function count_commands(commands, origins)
    local by_name, total = {}, 0
    local greeting = { hello = true, select = true, client = true, info = true, ping = true }
    for _, command in ipairs(commands) do
        if not command.script and origins[command.origin] and not greeting[command.name] then
            by_name[command.name] = (by_name[command.name] or 0) + 1
            total = total + 1
        end
    end
    return by_name, total
end

describe("a herd of processes on an expiring key", function()
    it("runs the loader once a round, for three commands per process at most", function()
        local count = clock.scale == 1 and 64 or 16
        local rounds = tonumber(os.getenv("REDCACHE_HERD_ROUNDS")) or clock.scale == 1 and 20 or 8
        load_scripts()
        local watching = monitor.start(redis)
        local pack = herd.start({
            count = count, params = params({ rounds = rounds, count = count }), timeout = 120,
            main = function(one)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({
                    url = one.params.url, waitTimeout = 60, commandTimeout = 30,
                    near = false, -- which asks for the ttl, too
                })
                local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
                cache:exists("warm")
                one:emit("connected")
                local values, before = {}, cache:stats().requests
                for round = 1, one.params.rounds do
                    one:ready()
                    raw:call("INCR", "begun")
                    local value, err, _, flag = cache:remember("k", 60, function()
                        support.wait_until(function() -- or it would be no herd
                            return tonumber(raw:call("GET", "begun")) == one.params.count * round
                        end, 30, "all of them")
                        support.sleep(0.02)
                        return raw:call("INCR", "runs")
                    end)
                    assert(value and not flag, tostring(err or flag))
                    values[round] = value
                    one:ready()
                    if one.index == 1 then
                        -- Its time is over, and nobody starts before it has gone.
                        raw:call("PEXPIRE", "k", 1)
                        support.wait_until(function() return raw:call("EXISTS", "k") == 0 end, 5)
                    end
                end
                local requests = cache:stats().requests - before
                one:ready()
                return { values = values, requests = requests, waits = cache:stats().leaseWaits }
            end,
        })
        pack:wait_events("connected", count, 60)
        local origins = {}
        pack:join()
        local commands = watching:stop()
        -- A greeting tells whose connection it is.
        for _, command in ipairs(commands) do
            if command.name == "hello" and (command.words[4] or ""):find("redcache", 1, true) then
                origins[command.origin] = true
            end
        end
        assert.equal(tostring(rounds), redis:call("GET", "runs"))
        local requests, waits = 0, 0
        for _, result in ipairs(pack.results) do
            for round = 1, rounds do assert.equal(round, result.values[round]) end
            assert.is_true(result.requests <= 3 * rounds, result.requests .. " commands")
            requests, waits = requests + result.requests, waits + result.waits
        end
        -- It was a herd: most of them found the load of another one running.
        assert.is_true(waits > count * rounds / 2, waits .. " waits")
        -- What they say they sent is what Redis has seen, but for the exists of each.
        local by_name, total = count_commands(commands, origins)
        assert.equal(requests + count, total)
        assert.is_nil(by_name.eval)
        assert.is_nil(by_name.script)
    end)
end)

describe("remember", function()
    it("runs a slow loader once for 5 clients, and gives all of them its value (1)", function()
        local of_redis = waited.watch({ redis.pid })
        local before = of_redis:seconds()
        local done = herd.run({
            count = 5, params = params(),
            main = function(one)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({ url = one.params.url,
                    commandTimeout = 60, waitTimeout = 60 })
                assert(cache:set("other", "", 60)) -- all of its threads run
                local own = require("spec.near.waited").watch(
                    { require("spec.support.posix").C.getpid() }, true)
                local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
                one:ready()
                local waited_before = own:seconds()
                local value, err, source = cache:remember("k", 60, function()
                    support.sleep(0.5)
                    return { run = raw:call("INCR", "runs"), of = one.index }
                end)
                local at = support.now()
                return { value = value, err = err and err.code, source = source, at = at,
                    waited = own:seconds() - waited_before }
            end,
        })
        assert.equal("1", redis:call("GET", "runs"))
        local loaders, loader = 0, nil
        for _, result in ipairs(done.results) do
            assert.is_nil(result.err)
            assert.same(done.results[1].value, result.value)
            if result.source == "loader" then
                loaders, loader = loaders + 1, result
            end
        end
        assert.equal(1, loaders)
        -- At once, but for what Redis and the two processes waited for a processor.
        local late = of_redis:seconds() - before + loader.waited
        for _, result in ipairs(done.results) do
            assert.is_true(math.abs(result.at - loader.at)
                < clock.scaled(0.05) + late + result.waited)
        end
    end)

    it("runs the loader once for 10 clients with 1000 reads each (3)", function()
        local start = clock.now()
        local ttl = 60
        herd.run({
            count = 10, params = params({ ttl = ttl }), timeout = 50,
            main = function(one)
                local cache = require("redcache").new({ url = one.params.url,
                    commandTimeout = 60 })
                local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
                one:ready()
                for _ = 1, 1000 do
                    local value = cache:remember("k", one.params.ttl, function()
                        return raw:call("INCR", "runs")
                    end)
                    assert(value == 1)
                end
            end,
        })
        assert.is_true(clock.now() - start < ttl)
        assert.equal("1", redis:call("GET", "runs"))
    end)

    it("loads each of 10 keys once for 20 clients that want 3 of them each", function()
        herd.run({
            count = 20, params = params(),
            main = function(one)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({ url = one.params.url, waitTimeout = 30,
                    commandTimeout = 60 })
                local raw = require("spec.support.resp").connect({ path = one.params.path }, {
                    user = "bed", password = "bed",
                })
                one:ready()
                for i = 0, 2 do
                    local key = "k" .. (one.index * 3 + i * 7) % 10
                    local value, err = cache:remember(key, 60, function()
                        raw:call("HINCRBY", "runs", key, 1)
                        support.sleep(0.02)
                        return key
                    end)
                    assert(value == key, tostring(err))
                end
            end,
        })
        local runs = redis:call("HGETALL", "runs")
        local keys = 0
        for key, count in pairs(runs) do
            assert.equal("1", count, key)
            keys = keys + 1
        end
        assert.equal(10, keys)
    end)

    it("wakes those who wait within 20 ms of the value", function()
        local done = herd.run({
            count = 16, params = params(),
            main = function(one)
                local support = require("spec.support.clock")
                local cache = require("redcache").new({ url = one.params.url,
                    commandTimeout = 60, waitTimeout = 60 })
                cache:withLock("warm", { wait = 30 }, function() end)
                local late = {}
                for round = 1, 5 do
                    one:ready()
                    local value = cache:remember("k" .. round, 60, function()
                        support.sleep(0.1)
                        return support.now()
                    end)
                    late[round] = support.now() - value
                    one:ready()
                end
                return late
            end,
        })
        local all = {}
        for _, late in ipairs(done.results) do
            for round = 1, 5 do all[#all + 1] = late[round] end
        end
        table.sort(all)
        -- What takes longer than the lower quartile is the scheduler's: 16 processes, few cores.
        local quartile = all[#all / 4]
        assert.is_true(quartile < clock.scaled(0.02), "quartile " .. quartile)
    end)
end)
