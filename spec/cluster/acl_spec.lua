-- The least rights at the nodes of a cluster, and at sentinels: the rows of docs/acl.md about them.
--
-- Env: REDCACHE_SERVER, as everywhere.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")
local sentinel = require("spec.support.sentinel")

local cache

after_each(function()
    if cache then cache:close(0) end
    cache = nil
end)

-- "a b c" without the word.
local function without(rights, missing)
    return ((" " .. rights .. " "):gsub(" " .. missing:gsub("%p", "%%%0") .. " ", " "))
end

local function give_rights(servers, rights)
    local words = { "ACL", "SETUSER", "ann", "reset", "on", ">one" }
    for word in rights:gmatch("%S+") do words[#words + 1] = word end
    for _, one in ipairs(servers) do one:call(unpack(words)) end
end

local function cause_of_health(part)
    return clock.wait_until(function()
        local cause = cache:health().cause
        return cause:find(part, 1, true) and cause
    end, 5, "a cause with " .. part)
end

describe("a user of a cluster with the least rights", function()
    local RIGHTS = "~* +ping +get +set +cluster|slots +cluster|info +asking"
    local bed

    setup(function() bed = cluster.start({ masters = 2, replicas = 0 }) end)
    teardown(function() bed:stop() end)

    local function open(rights)
        give_rights(bed.nodes, rights)
        cache = redcache.new({ url = bed.nodes[1]:url("ann:one"), near = false,
            commandTimeout = 2 })
    end

    -- A key of a slot that is on its way from node 1 to node 2, and only there.
    local function with_open_slot(fn)
        bed:open_slot(7, bed.nodes[1], bed.nodes[2])
        local results = { pcall(fn, ("{%s}k"):format(cluster.tag(7))) }
        for i = 1, 2 do
            bed.nodes[i]:call("FLUSHALL")
            bed.nodes[i]:call("CLUSTER", "SETSLOT", 7, "STABLE")
        end
        assert(unpack(results))
    end

    it("reads and writes at all nodes, and behind ASK", function()
        open(RIGHTS)
        for i = 1, 20 do
            assert(cache:set("k" .. i, i, 60))
            assert.equal(i, (cache:get("k" .. i)))
        end
        clock.wait_until(function() return cache:health().ready end, 5, "the map")
        assert.equal("", cache:health().cause)
        with_open_slot(function(key)
            assert(cache:set(key, 1, 60))
            assert.equal(1, (cache:get(key)))
        end)
    end)

    for _, missing in ipairs({ "+cluster|slots", "+cluster|info" }) do
        it(("is told that %s is missing, and goes by MOVED"):format(missing), function()
            open(without(RIGHTS, missing))
            for i = 1, 20 do assert(cache:set("k" .. i, i, 60)) end
            assert.matches("'" .. missing:sub(2) .. "'", cause_of_health("cluster|"), 1, true)
        end)
    end

    for _, missing in ipairs({ "+readonly", "" }) do
        it("reads from replicas, with all rights but " .. missing, function()
            local pair = cluster.start({ masters = 1, replicas = 1 })
            local ok, err = pcall(function()
                give_rights(pair.nodes, without(RIGHTS .. " +readonly", missing))
                cache = redcache.new({ url = pair.nodes[1]:url("ann:one"), near = false,
                    commandTimeout = 2, reads = "replica" })
                local replica = ("127.0.0.1:%d/0"):format(pair.nodes[2].port)
                clock.wait_until(function()
                    assert.is_nil((select(2, cache:get("k"))))
                    local why = cache:health().replicas[replica]
                    return why and (missing == "" and why == "" or why:find("'readonly'", 1, true))
                end, 10, "the replica's word")
                local before = cache:stats().replicaReads
                assert.is_nil((select(2, cache:get("k"))))
                assert.equal(missing == "" and 1 or 0, cache:stats().replicaReads - before)
            end)
            pair:stop()
            assert(ok, err)
        end)
    end

    it("is told that +asking is missing, where it is needed", function()
        open(without(RIGHTS, "+asking"))
        assert(cache:set("k", 1, 60))
        with_open_slot(function(key)
            local _, err = cache:set(key, 1, 60)
            assert.matches("'asking'", err.message, 1, true)
        end)
    end)
end)

describe("a sentinels' user with the least rights", function()
    local RIGHTS = "resetchannels -@all +ping +sentinel|get-master-addr-by-name +subscribe "
        .. "&+switch-master"
    local bed

    setup(function() bed = sentinel.start({ replicas = 1, sentinels = 1, down_ms = 5000 }) end)
    teardown(function() bed:stop() end)

    local function open(rights)
        give_rights(bed.sentinels, rights)
        cache = redcache.new({ url = bed:url(), sentinelUser = "ann", sentinelPassword = "one",
            commandTimeout = 2 })
    end

    local function count_listeners()
        local clients = bed.sentinels[1]:call("CLIENT", "LIST")
        return select(2, clients:gsub("name=redcache%-S[^\n]* sub=1 ", ""))
    end

    it("finds the master, and hears of another", function()
        open(RIGHTS)
        assert(cache:set("k", "v", 60))
        clock.wait_until(function() return count_listeners() == 1 end, 5, "the subscription")
        assert.equal("", cache:health().cause)
    end)

    for _, right in ipairs({ "+sentinel|replicas", "" }) do
        it("tells of replicas" .. (right == "" and ", but not without a right" or ""), function()
            give_rights(bed.sentinels, RIGHTS .. " " .. right)
            cache = redcache.new({ url = bed:url(), sentinelUser = "ann", sentinelPassword = "one",
                commandTimeout = 2, near = false, reads = "replica" })
            clock.wait_until(function()
                assert.is_nil((select(2, cache:get("k"))))
                local off = cache:health().off.replicas
                return right == "" and off and off:find("'sentinel|replicas'", 1, true)
                    or right ~= "" and cache:stats().replicaReads > 0
            end, 10, "the sentinel's word")
            assert.equal(right ~= "", cache:stats().replicaReads > 0)
        end)
    end

    for _, missing in ipairs({ "+subscribe", "&+switch-master" }) do
        it(("goes without news where %s is missing"):format(missing), function()
            open(without(RIGHTS, missing))
            assert(cache:set("k", "v", 60))
            assert.equal("", cache:health().cause)
            local new = bed:failover()
            clock.wait_until(function()
                return cache:set("k", "at " .. new.port, 60)
                    and tostring(new:call("GET", "k")):find("at " .. new.port, 1, true)
            end, 5, "a write at the new master")
            assert.equal(0, count_listeners())
            bed:wait_settled()
        end)
    end

    for missing, named in pairs({ ["+ping"] = "'ping'",
        ["+sentinel|get-master-addr-by-name"] = "'sentinel|get-master-addr-by-name'" }) do
        it(("is told that %s is missing"):format(missing), function()
            open(without(RIGHTS, missing))
            local _, err = cache:set("k", "v", 60)
            assert.matches("1 of 1 sentinels refuse us, as '127.0.0.1:%d+': ", err.message)
            assert.matches(named, err.message, 1, true)
        end)
    end
end)
