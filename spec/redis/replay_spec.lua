-- Deletes and failovers: a delete that a failover has lost is sent again, and what was written and
-- acknowledged since is never taken back; least of all because a connection ended.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local master, replica, line, cache

local function made() return "made" end

local function open(options)
    options = options or {}
    options.url, options.namespace = line:url(), "app"
    if options.near == nil then options.near = false end
    return redcache.new(options)
end

local function wait_until_ready(one)
    clock.wait_until(function() return one:health().ready end, 10, "a connection")
end

setup(function()
    -- Redis would wait five seconds for more replicas before it copies itself.
    local config = { "repl-diskless-sync-delay 0" }
    master, replica = server.start({ config = config }), server.start({ config = config })
end)

teardown(function()
    master:stop()
    replica:stop()
end)

before_each(function()
    master:reset()
    line = proxy.start(master)
    cache = open()
    assert.is_true(cache:set("warm", 1))
end)

after_each(function()
    cache:close()
    line:stop()
    replica:call("REPLICAOF", "NO", "ONE")
end)

describe("what was written behind a delete", function()
    -- Each ends both connections of the cache, and loses nothing.
    local ENDS = {
        reset = function() line:cut() end,
        ["orderly close"] = function() line:cut("close") end,
        ["CLIENT KILL"] = function() master:call("CLIENT", "KILL", "TYPE", "normal") end,
        ["server timeout"] = function()
            local before = cache:stats().disconnects
            master:call("CONFIG", "SET", "timeout", 1)
            clock.wait_until(function()
                master:call("PING")
                return cache:stats().disconnects > before
            end, 10)
            master:call("CONFIG", "SET", "timeout", 0)
        end,
    }

    for name, finish in pairs(ENDS) do
        it("stays when the connection ends: " .. name, function()
            local plain = open({ plain = true, group = "plain" })
            assert.is_true(cache:set("seen", "old"))
            assert.equal("old", cache:get("seen"))
            for _, key in ipairs({ "set", "seen", "plain", "foreign", "many" }) do
                assert.is_not_nil((cache:delete(key)))
            end
            assert.is_not_nil((plain:delete("plain")))
            assert.is_not_nil((cache:deleteMulti({ "many", "more" })))
            assert.is_true(cache:set("set", "precious"))
            assert.is_true(cache:set("seen", "new"))
            assert.is_true(plain:set("plain", "precious"))
            assert.is_true(cache:set("many", "kept"))
            master:call("SET", "app:foreign", "theirs")
            local before = cache:stats().connects
            finish()
            clock.wait_until(function()
                return cache:exists("set") and plain:exists("plain")
                    and cache:stats().connects > before
            end, 10)
            assert.equal("precious", cache:get("set"))
            assert.equal("new", cache:get("seen"))
            assert.equal("precious", plain:get("plain"))
            assert.equal("kept", cache:get("many"))
            assert.equal("theirs", master:call("GET", "app:foreign"))
            assert.equal(0, cache:stats().deletesLost)
            plain:close()
        end)
    end

    it("does not void a load that runs meanwhile", function()
        assert.is_not_nil((cache:delete("k")))
        local value, err, _, flag = cache:remember("k", 60, function()
            local before = cache:stats().connects
            line:cut()
            clock.wait_until(function()
                return cache:exists("warm") and cache:stats().connects > before
            end, 10)
            return "loaded"
        end)
        assert.same({ "loaded" }, { value, err, flag })
        assert.equal("loaded", cache:get("k"))
    end)
end)

describe("a failover", function()
    -- The replica has all that was written up to now, and hears of nothing that comes.
    local function leave_replica_behind()
        replica:call("FLUSHALL")
        replica:call("REPLICAOF", "127.0.0.1", master.port)
        clock.wait_until(function()
            return replica:info("replication").master_link_status == "up"
                and replica:call("DBSIZE") == master:call("DBSIZE")
        end, 20, "the replica")
        replica:call("REPLICAOF", "NO", "ONE")
    end

    local function fail_over(one)
        line:lead(replica)
        line:cut()
        wait_until_ready(one or cache)
    end

    local function has(key)
        return replica:call("EXISTS", "app:" .. key) == 1
    end

    it("that lost a delete does not bring back what we have read or written", function()
        assert.is_true(cache:set("written", 1))
        master:call("SET", "app:read", master:call("GET", "app:written"))
        assert.equal(1, cache:get("read"))
        cache:remember("loaded", 60, made)
        cache:setMulti({ m1 = 1, m2 = 2 })
        assert.equal(1, cache:get("m1"))
        leave_replica_behind()
        for _, key in ipairs({ "written", "read", "loaded" }) do
            assert.is_true(cache:delete(key))
        end
        assert.equal(2, (cache:deleteMulti({ "m1", "m2" })))
        fail_over()
        clock.wait_until(function()
            return not has("written") and not has("read") and not has("loaded") and not has("m1")
        end, 10)
        -- Nobody has read m2: its version is not known. It is back, and that is told.
        assert.is_true(has("m2"))
        clock.wait_until(function() return cache:stats().deletesLost == 1 end, 10)
        assert.matches("\nredcache_deletes_lost_total{[^\n]*} 1\n", cache:metrics())
    end)

    it("does not bring back what was near", function()
        local near = open({ near = true, group = "near" })
        assert.is_true(near:set("k", "old"))
        clock.wait_until(function()
            local _, _, from = near:get("k")
            return from == "near" or from == "l0"
        end, 10)
        leave_replica_behind()
        assert.is_true(near:delete("k"))
        fail_over(near)
        clock.wait_until(function() return not has("k") end, 10)
        assert.is_nil((near:get("k")))
        assert.equal(0, near:stats().deletesLost)
        near:close()
    end)

    it("loses a delete, and a newer value stands there: it stays, and that is counted", function()
        assert.is_true(cache:set("k", "old"))
        leave_replica_behind()
        assert.is_true(cache:delete("k"))
        assert.is_true(cache:set("other", "new"))
        replica:call("SET", "app:k", master:call("GET", "app:other"))
        fail_over()
        clock.wait_until(function() return cache:stats().deletesLost == 1 end, 10)
        assert.equal("new", cache:get("k"))
    end)

    it("never takes away a plain value, a counter or a lock", function()
        local plain = open({ plain = true, group = "plain" })
        assert.is_true(plain:set("k", "old"))
        assert.equal("old", plain:get("k"))
        master:call("INCR", "app:count")
        local lock = assert(plain:tryLock("job"))
        leave_replica_behind()
        assert.is_true(plain:delete("k"))
        assert.is_true(plain:delete("count"))
        fail_over(plain)
        clock.wait_until(function() return plain:stats().deletesLost == 2 end, 10)
        assert.equal("old", plain:get("k"))
        assert.equal("1", replica:call("GET", "app:count"))
        assert.is_true(replica:call("EXISTS", "app//lock:{job}") == 1)
        lock:release()
        plain:close()
    end)

    it("that loses a delete and the set behind it does not bring back the first value", function()
        assert.is_true(cache:set("k", "old"))
        leave_replica_behind()
        assert.is_true(cache:delete("k"))
        assert.is_true(cache:set("k", "new"))
        fail_over()
        clock.wait_until(function() return not has("k") end, 10)
        assert.equal(0, cache:stats().deletesLost)
    end)

    it("is not taken for one where a master has got its first replica", function()
        assert.is_true(cache:set("k", "old"))
        local before = master:info("replication").master_replid
        assert.is_true(cache:delete("k"))
        local value = master:call("GET", "app:warm")
        -- Redis begins a new history for it, if it has none to go on with.
        replica:call("REPLICAOF", "127.0.0.1", master.port)
        clock.wait_until(function()
            return replica:info("replication").master_link_status == "up"
        end, 20)
        replica:call("REPLICAOF", "NO", "ONE")
        assert.is_truthy(before)
        master:call("SET", "app:k", value)
        line:cut()
        wait_until_ready(cache)
        assert.equal(1, cache:get("k"))
        assert.equal(0, cache:stats().deletesLost)
    end)
end)
