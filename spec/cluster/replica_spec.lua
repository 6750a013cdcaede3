-- Reads that replicas of a cluster answer: which go there, what never does, and what happens where
-- a replica is away, silent, cut off from its master, or made a master.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")
local worker = require("spec.support.worker")

local NONE = { calls = 0, failed_calls = 0, rejected_calls = 0 }

local bed, caches

setup(function() bed = cluster.start({ masters = 2, replicas = 2 }) end)
teardown(function() bed:stop() end)
before_each(function()
    caches = {}
    bed:wait_named()
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    options = options or {}
    options.url = bed.nodes[1]:url()
    options.commandTimeout = options.commandTimeout or 2
    if options.near == nil then options.near = false end
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function replicas_of(master)
    local list = {}
    for _, node in ipairs(bed.nodes) do
        local role = node:call("ROLE")
        if role[1] == "slave" and role[3] == master.port then list[#list + 1] = node end
    end
    return list
end

local function masters()
    local list = {}
    for _, node in ipairs(bed.nodes) do
        if bed:is_master(node) then list[#list + 1] = node end
    end
    return list
end

-- Every replica has what was written so far.
local function catch_up()
    for _, master in ipairs(masters()) do
        local offset = master:call("ROLE")[2]
        for _, replica in ipairs(replicas_of(master)) do
            clock.wait_until(function() return replica:call("ROLE")[5] >= offset end, 10,
                "what the master has")
        end
    end
end

local function names_of(list)
    local names = {}
    for i, node in ipairs(list) do names[i] = "127.0.0.1:" .. node.port end
    return names
end

-- Why that node is not asked; "" it is, nil: nobody says that it is a replica.
local function why_not(cache, node)
    return cache:health().replicas[("127.0.0.1:%d/0"):format(node.port)]
end

-- Reads until every replica there is could be asked.
local function warm(cache, count)
    clock.wait_until(function()
        for i = 1, 20 do cache:get("warm" .. i, { reads = "replica" }) end
        local ready = 0
        for _, why in pairs(cache:health().replicas) do ready = ready + (why == "" and 1 or 0) end
        return ready >= (count or 4)
    end, 10, "the replicas' connections")
end

local function count_of(list, command)
    local count = 0
    for _, node in ipairs(list) do count = count + (node:commandstats()[command] or NONE).calls end
    return count
end

local function reset_stats()
    for _, node in ipairs(bed.nodes) do node:call("CONFIG", "RESETSTAT") end
end

local function keys_of(count, prefix)
    local keys = {}
    for i = 1, count do keys[i] = (prefix or "k") .. i end
    return keys
end

local function replicas()
    local list = {}
    for _, node in ipairs(bed.nodes) do
        if not bed:is_master(node) then list[#list + 1] = node end
    end
    return list
end

describe("reads = 'replica' in a cluster", function()
    it("goes to all replicas, and to no master; writes and plain reads go to masters", function()
        local cache = open()
        for i, key in ipairs(keys_of(100)) do assert(cache:set(key, i, 60)) end
        warm(cache)
        catch_up()
        reset_stats()
        for i, key in ipairs(keys_of(100)) do
            assert.equal(i, (cache:get(key, { reads = "replica" })))
            assert.is_true((cache:exists(key, { reads = "replica" })))
            assert.is_true(cache:ttl(key, { reads = "replica" }) > 50)
        end
        assert.equal(0, count_of(masters(), "get"))
        assert.equal(300, count_of(replicas(), "get"))
        for _, replica in ipairs(replicas()) do
            assert.is_true(replica:commandstats().get.calls > 30, replica.port)
        end
        for _, key in ipairs(keys_of(10)) do assert(cache:set(key, "new", 60)) end
        for _, key in ipairs(keys_of(10)) do assert.equal("new", (cache:get(key))) end
        assert.equal(10, count_of(masters(), "get"))
        local stats = cache:stats()
        assert.is_true(stats.replicaReads >= 300)
        assert.equal(0, stats.replicaFallbacks)
    end)

    it("reads batches from replicas, each master's keys from one of its own", function()
        local cache = open({ reads = "replica" })
        local keys, values = keys_of(300, "b"), {}
        for i, key in ipairs(keys) do values[key] = i end
        assert(cache:setMulti(values, 60))
        warm(cache)
        catch_up()
        reset_stats()
        assert.same(values, (cache:getMulti(keys)))
        assert.equal(0, count_of(masters(), "mget") + count_of(masters(), "get"))
        assert.is_true(count_of(replicas(), "mget") + count_of(replicas(), "get") > 0)
        assert.same(values, (cache:getMulti(keys, { reads = "master" })))
        assert.is_true(count_of(masters(), "mget") + count_of(masters(), "get") > 0)
    end)

    it("holds for a cache, a namespace, or a call", function()
        local outer = open()
        local inner = outer:namespace("inner", { reads = "replica" })
        local back = inner:namespace("back", { reads = "master" })
        warm(outer)
        catch_up()
        local function asked(cache, opts)
            reset_stats()
            cache:get("k", opts)
            return count_of(replicas(), "get") == 1 and "replica"
                or count_of(masters(), "get") == 1 and "master"
        end
        assert.equal("master", asked(outer))
        assert.equal("replica", asked(inner))
        assert.equal("master", asked(back))
        assert.equal("replica", asked(outer, { reads = "replica" }))
        assert.equal("master", asked(inner, { reads = "master" }))
        assert.equal("master", asked(inner, { fresh = true }))
    end)

    it("neither uses nor makes near copies", function()
        local cache = open({ near = true, codec = "raw" })
        assert(cache:set("k", "old", 60))
        warm(cache)
        catch_up()
        clock.wait_until(function() return select(3, cache:get("k")) == "l0" end, 5, "a near copy")
        local before = cache.near:stats()
        reset_stats()
        for _ = 1, 5 do
            local value, _, source = cache:get("k", { reads = "replica" })
            assert.same({ "old", "redis" }, { value, source })
            assert.same({ k = "old" }, (cache:getMulti({ "k" }, { reads = "replica" })))
            value, _, source = cache:remember("k", 60, error, { reads = "replica" })
            assert.same({ "old", "redis" }, { value, source })
        end
        assert.equal(10, count_of(replicas(), "get"))
        assert.equal(5, count_of(replicas(), "mget"))
        assert.equal("l0", select(3, cache:get("k"))) -- it is still there
        assert(cache:set("other", "x", 60))
        catch_up()
        assert.equal("x", (cache:get("other", { reads = "replica" })))
        assert.same({ other = "x" }, (cache:getMulti({ "other" }, { reads = "replica" })))
        assert.equal("x", (cache:remember("other", 60, error, { reads = "replica" })))
        local after = cache.near:stats()
        assert.equal(before.fills, after.fills)
        assert.equal("redis", select(3, cache:get("other")))
        local whole = open({ near = true, reads = "replica" })
        warm(whole)
        for _ = 1, 3 do assert.equal("redis", select(3, whole:get("other"))) end
        assert.is_nil((whole.near:stats()))
    end)

    it("asks those of the zone first", function()
        local mine = {}
        for i, master in ipairs(masters()) do mine[i] = replicas_of(master)[1] end
        local cache = open({ zone = names_of(mine), reads = "replica" })
        warm(cache, 2)
        reset_stats()
        for _, key in ipairs(keys_of(100)) do cache:get(key) end
        assert.equal(100, count_of(mine, "get"))
        local others = 0
        for _, why in pairs(cache:health().replicas) do
            others = others + (why == "not needed yet" and 1 or 0)
        end
        assert.equal(2, others)
    end)

    it("is refused where it cannot be meant", function()
        local cache = open()
        assert.has_error(function() cache:get("k", { reads = "slave" }) end,
            'bad option \'reads\' to get: "master" or "replica" expected, got string')
        assert.has_error(function() cache:get("k", { reads = "replica", fresh = true }) end,
            "bad option 'reads' to get: with fresh = true the master answers: leave one of the two"
                .. " out")
        for _, call in ipairs({ "delete", "deleteMulti" }) do
            assert.error_matches(function()
                cache[call](cache, call == "delete" and "k" or { "k" }, { reads = "replica" })
            end, "unknown option 'reads' to " .. call)
        end
        assert.error_matches(function()
            cache:put("k", 60, tostring, { reads = "replica" })
        end, "unknown option 'reads' to put")
        for _, zone in ipairs({ "10.0.0.1", {}, { "a b" }, { "a,b" }, { 1 }, { "" }, { "*a" } }) do
            assert.error_matches(function() open({ zone = zone }) end,
                "bad option 'zone' to new: list of addresses")
        end
    end)
end)

describe("remember with reads = 'replica'", function()
    it("takes a value from a replica, and decides all else at the master", function()
        local cache = open({ reads = "replica" })
        warm(cache)
        assert(cache:set("there", "v", 60))
        catch_up()
        reset_stats()
        assert.equal("v", (cache:remember("there", 60, error)))
        assert.equal(0, count_of(masters(), "get"))
        local runs = 0
        local function load()
            runs = runs + 1
            return "loaded"
        end
        local value, _, source = cache:remember("new", 60, load)
        assert.same({ "loaded", "loader" }, { value, source })
        catch_up()
        assert.same({ "loaded", "redis" }, { cache:remember("new", 60, load), "redis" })
        assert.equal(1, runs)
        assert.equal("put", (cache:put("there", 60, function() return "put" end)))
        assert.equal("locked", (cache:withLock("there", nil, function() return "locked" end)))
        for _, replica in ipairs(replicas()) do
            for name, command in pairs(replica:commandstats()) do
                assert.equal(0, command.failed_calls + command.rejected_calls, name)
            end
            assert.is_nil(replica:commandstats().evalsha)
        end
    end)

    it("never takes a lease or marker for a value", function()
        local cache = open({ reads = "replica" })
        warm(cache)
        local holder = worker.start({ params = { url = bed.nodes[1]:url() }, main = function(w)
            local other = require("redcache").new({ url = w.params.url, near = false })
            local value = other:remember("slow", 60, function()
                w:emit("loading")
                w:receive(10)
                return "done"
            end)
            other:close()
            return { value = value }
        end })
        holder:event("loading")
        catch_up()
        assert.same({}, { cache:get("slow") })
        assert.is_false((cache:exists("slow")))
        assert.same({}, (cache:getMulti({ "slow" })))
        holder:send({ go = true })
        assert.equal("done", (cache:remember("slow", 60, error)))
        assert.same({ value = "done" }, holder:join())
    end)

    it("loads a newer value of one that is in its grace window", function()
        local cache = open({ reads = "replica", grace = 30 })
        warm(cache)
        assert(cache:set("g", "old", 0.2))
        catch_up()
        clock.wait_until(function() return select(3, cache:get("g")) == "stale" end, 5, "the grace")
        assert.equal("new", (cache:remember("g", 60, function() return "new" end)))
    end)
end)

describe("a replica", function()
    -- Callers that write at masters and read from replicas: what they are told, and how long it
    -- took.
    local function load(meanwhile)
        local callers = worker.start({ params = { url = bed.nodes[1]:url() }, main = function(w)
            local sleep = require("spec.support.clock")
            local library = require("redcache")
            local cache = library.new({ url = w.params.url, scheduler = "coroutine", near = false,
                commandTimeout = 5 })
            local result = { errors = {}, wrong = {}, reads = 0, slowest = 0 }
            local stop = false
            local function failed(err)
                local text = tostring(err)
                if err then result.errors[text] = (result.errors[text] or 0) + 1 end
            end
            local function work(caller)
                local turn, keys = 0, {}
                for i = 1, 20 do keys[i] = ("c%d:%d"):format(caller, i) end
                for _, key in ipairs(keys) do failed(select(2, cache:set(key, 0, 60))) end
                while not stop do
                    turn = turn + 1
                    local key = keys[turn % 20 + 1]
                    local began = sleep.now()
                    failed(select(2, cache:set(key, turn, 60)))
                    local got, err = cache:get(key, { reads = "replica" })
                    failed(err)
                    if got ~= nil and (got > turn or got % 1 ~= 0) then
                        result.wrong[#result.wrong + 1] = tostring(got)
                    end
                    local _, faults = cache:getMulti(keys, { reads = "replica" })
                    for _, fault in pairs(faults) do failed(fault) end
                    failed(select(2, cache:remember(key, 60, error, { reads = "replica" })))
                    result.reads = result.reads + 3
                    result.slowest = math.max(result.slowest, sleep.now() - began)
                end
            end
            library.run(function()
                for caller = 1, 8 do library.spawn(work, caller) end
                library.spawn(function()
                    w:emit("working")
                    while not stop do
                        stop = w:receive(0) ~= nil
                        cache:exists("pause")
                    end
                end)
            end)
            local stats = cache:stats()
            result.answered, result.fallbacks = stats.replicaReads, stats.replicaFallbacks
            cache:close()
            return result
        end })
        callers:event("working")
        clock.sleep(0.3)
        local ok, err = pcall(meanwhile)
        clock.sleep(0.3)
        callers:send({ stop = true })
        local result = callers:join(60)
        assert(ok, err)
        assert.same({}, result.errors)
        assert.same({}, result.wrong)
        assert.is_true(result.answered > 0)
        return result
    end

    -- Reads of these keys that the node has answered, in a while.
    local function answers(node, cache)
        local before = (node:commandstats().get or NONE).calls
        for _, key in ipairs(keys_of(40)) do assert.is_nil((select(2, cache:get(key)))) end
        return (node:commandstats().get or NONE).calls - before
    end

    it("that is killed costs no caller an answer, and is asked again once it is back", function()
        local victim = replicas()[1]
        load(function()
            bed:kill(victim)
            clock.sleep(0.5)
        end)
        local cache = open({ reads = "replica" })
        bed:restart(victim)
        bed:agree()
        bed:wait_replica(victim)
        clock.wait_until(function() return answers(victim, cache) > 0 end, 15, "its answers")
    end)

    it("that is stopped costs half a timeout once, and is asked again once it goes on", function()
        local victim = replicas()[2]
        local cache = open({ reads = "replica", commandTimeout = 1 })
        warm(cache)
        bed:pause(victim)
        local slow = 0
        local ok, err = pcall(function()
            for _, key in ipairs(keys_of(60)) do
                local began = clock.now()
                assert.is_nil((select(2, cache:get(key))))
                slow = slow + (clock.now() - began > 0.4 and 1 or 0)
            end
        end)
        bed:resume(victim)
        assert(ok, err)
        bed:agree()
        assert.is_true(slow >= 1 and slow <= 3, slow)
        assert.is_true(cache:stats().replicaFallbacks >= 1)
        clock.wait_until(function() return answers(victim, cache) > 0 end, 15, "its answers")
    end)

    it("that does not hear its master is not asked, as long as that one answers", function()
        local victim = replicas()[3]
        local master = masters()[1]
        for _, each in ipairs(masters()) do
            for _, replica in ipairs(replicas_of(each)) do
                if replica == victim then master = each end
            end
        end
        local cache = open({ reads = "replica" })
        warm(cache)
        master:refuse_replicas()
        victim:call("CLIENT", "KILL", "TYPE", "master")
        local ok, err = pcall(function()
            clock.wait_until(function()
                answers(victim, cache)
                return why_not(cache, victim) == "it does not hear its master"
            end, 10, "that the client knows")
            assert.equal(0, answers(victim, cache))
        end)
        master:accept_replicas()
        assert(ok, err)
        bed:wait_replica(victim)
        clock.wait_until(function() return answers(victim, cache) > 0 end, 15, "its answers")
    end)

    it("answers while its master is away", function()
        local cache = open({ reads = "replica" })
        for _, key in ipairs(keys_of(20)) do assert(cache:set(key, "v", 60)) end
        warm(cache)
        catch_up()
        local list = masters()
        for _, master in ipairs(list) do master:pause() end
        local ok, err = pcall(function()
            for _, key in ipairs(keys_of(20)) do assert.equal("v", (cache:get(key))) end
        end)
        for _, master in ipairs(list) do master:resume() end
        bed:agree()
        assert(ok, err)
    end)

    it("that becomes a master loses no answer, and is asked as a master", function()
        local victim = replicas()[1]
        local result = load(function()
            bed:failover(victim)
            clock.sleep(0.5)
        end)
        assert.is_true(result.slowest < 10, result.slowest)
        local cache = open({ reads = "replica" })
        warm(cache)
        assert.equal(0, answers(victim, cache))
        assert.is_nil(why_not(cache, victim))
    end)
end)
