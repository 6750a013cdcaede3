-- Reads that replicas answer where there is no cluster: as sentinels tell of them, or the master.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local sentinel = require("spec.support.sentinel")

local NONE = { calls = 0 }

local bed, caches

setup(function() bed = sentinel.start({ replicas = 2, sentinels = 1, down_ms = 1000 }) end)
teardown(function() bed:stop() end)
before_each(function() caches = {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(url, options)
    options = options or {}
    options.url, options.commandTimeout, options.near = url, 2, false
    options.reads = options.reads or "replica"
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function replicas()
    local list = {}
    for _, node in ipairs(bed.nodes) do
        if node ~= bed:master() then list[#list + 1] = node end
    end
    return list
end

local function catch_up()
    local offset = bed:master():call("ROLE")[2]
    for _, replica in ipairs(replicas()) do
        clock.wait_until(function() return replica:call("ROLE")[5] >= offset end, 10,
            "what the master has")
    end
end

local function warm(cache, count)
    clock.wait_until(function()
        cache:get("warm")
        local ready = 0
        for _, why in pairs(cache:health().replicas) do ready = ready + (why == "" and 1 or 0) end
        return ready >= count
    end, 15, "the replicas' connections")
end

local function gets(node)
    return (node:commandstats().get or NONE).calls
end

local function reset_stats()
    for _, node in ipairs(bed.nodes) do node:call("CONFIG", "RESETSTAT") end
end

local function check_reads(cache)
    for i = 1, 40 do assert(cache:set("k" .. i, i, 60)) end
    assert(cache:delete("r") ~= nil)
    warm(cache, 2)
    catch_up()
    reset_stats()
    for i = 1, 40 do assert.equal(i, (cache:get("k" .. i))) end
    assert.equal(0, gets(bed:master()))
    for _, replica in ipairs(replicas()) do assert.equal(20, gets(replica)) end
    assert.equal(1, (cache:remember("k1", 60, error)))
    assert.same({ k1 = 1, k2 = 2 }, (cache:getMulti({ "k1", "k2" })))
    assert.equal(0, gets(bed:master()))
    assert.equal(0, (bed:master():commandstats().mget or NONE).calls)
    local runs = 0
    for _ = 1, 2 do
        assert.equal("v", (cache:remember("r", 60, function()
            runs = runs + 1
            return "v"
        end)))
        catch_up()
    end
    assert.equal(1, runs)
    assert.equal(2, cache:deleteMulti({ "k1", "k2" }))
    assert.is_nil(cache:health().off.replicas)
end

describe("reads = 'replica'", function()
    it("goes where a sentinel knows of replicas", function()
        check_reads(open(bed:url()))
    end)

    it("goes where a plain master knows of replicas", function()
        check_reads(open(bed:master():url()))
    end)

    it("is answered by the master where nobody knows of replicas, or may tell", function()
        local alone = replicas()[1]
        local cache = open(alone:url()) -- a replica, which has none
        for _ = 1, 5 do assert.is_nil((select(2, cache:get("k")))) end
        assert.same({}, cache:health().replicas)
        bed:master():call("ACL", "SETUSER", "ann", "reset", "on", ">one", "~*", "+ping", "+info",
            "+get")
        local barred = open(bed:master():url("ann:one"))
        clock.wait_until(function()
            assert.is_nil((select(2, barred:get("k"))))
            return barred:health().off.replicas
        end, 5, "why there are none")
        assert.matches("'role'", barred:health().off.replicas, 1, true)
        assert.equal(0, barred:stats().replicaReads)
    end)

    it("goes on without a replica that is down, and finds it again", function()
        local cache = open(bed:url())
        warm(cache, 2)
        local victim = replicas()[1]
        bed:kill(victim)
        for _ = 1, 50 do assert.is_nil((select(2, cache:get("k")))) end
        bed:restart(victim)
        bed:wait_settled()
        warm(cache, 2)
    end)

    -- The last one: the old master takes itself for one for some seconds more.
    it("follows a failover: the new master's replica answers, and it does not", function()
        local cache = open(bed:url())
        warm(cache, 2)
        local failed = {}
        local new = bed:failover()
        local deadline = clock.now() + 1
        while clock.now() < deadline do failed[#failed + 1] = select(2, cache:get("k")) end
        assert.same({}, failed)
        assert(cache:set("after", "v", 60))
        warm(cache, 1)
        assert.is_nil(cache:health().replicas[("127.0.0.1:%d/0"):format(new.port)])
        clock.wait_until(function() return cache:get("after") == "v" end, 10, "replication")
        reset_stats()
        for _ = 1, 20 do assert.equal("v", (cache:get("after"))) end
        assert.equal(0, gets(new))
    end)
end)
