-- A client of a real cluster: every call works over all slots, from any node; slots that move and
-- masters that fail cost callers time, but no answer and no write.
--
-- Env: REDCACHE_SERVER, as everywhere. REDCACHE_CLUSTER_MOVES: slots that move under load (60).

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")
local worker = require("spec.support.worker")

local MOVES = tonumber(os.getenv("REDCACHE_CLUSTER_MOVES")) or 60

local bed, caches

setup(function() bed = cluster.start() end)
teardown(function() bed:stop() end)
before_each(function()
    caches = {}
    bed:agree()
    for _, node in ipairs(bed.nodes) do
        if bed:is_master(node) then node:call("FLUSHALL") end
    end
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function url_of(node)
    return ("redis://127.0.0.1:%d"):format(node.port)
end

local function open(node, options)
    options = options or {}
    options.url, options.commandTimeout = url_of(node), options.commandTimeout or clock.scaled(2)
    if options.near == nil then options.near = false end
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function key_of(slot, name)
    return ("{%s}%s"):format(cluster.tag(slot), name or "")
end

-- Keys of all masters.
local function many(count, prefix)
    local keys = {}
    for i = 1, count do keys[i] = (prefix or "k") .. i end
    return keys
end

describe("a client of a cluster", function()
    it("does every call over all slots, whichever node the url names", function()
        for _, node in ipairs({ bed.nodes[1], bed.nodes[3], bed.nodes[5] }) do
            local cache = open(node, { namespace = "n" .. node.index })
            local keys, values = many(100), {}
            for i, key in ipairs(keys) do values[key] = i end
            assert(cache:setMulti(values, 60))
            assert.same(values, (cache:getMulti(keys)))
            for i, key in ipairs(keys) do
                assert.equal(i, (cache:get(key)))
                assert.is_true((cache:exists(key)))
            end
            assert.equal(100, cache:deleteMulti(keys))
            assert.is_nil(next((cache:getMulti(keys))))
            local runs = 0
            for round = 1, 2 do
                for _, key in ipairs(keys) do
                    assert.equal(key, (cache:remember(key, 60, function()
                        runs = runs + 1
                        return key
                    end)), round)
                end
            end
            assert.equal(100, runs)
            for _, key in ipairs(keys) do
                assert.equal("new", (cache:put(key, 60, function() return "new" end)))
                assert.equal(key, (cache:withLock(key, nil, function() return key end)))
            end
            local health = cache:health()
            assert.is_true(health.ready, health.cause)
            assert.same({ "cluster", {} }, { health.mode, health.off })
        end
    end)

    it("is refused a numbered database where the cluster has none, and told why", function()
        local cache = redcache.new({ url = url_of(bed.nodes[1]) .. "/1", near = false })
        caches[#caches + 1] = cache
        local ok, err = cache:set("k", 1)
        assert.is_nil(ok)
        assert.is_true(#cache:health().off.databases > 0)
        assert.matches(cache:health().off.databases, err.message, 1, true)
        assert.matches("the cluster has no database 1: ", err.message, 1, true)
    end)

    it("asks for the map once, and each master for its own keys in one write", function()
        local cache = open(bed.nodes[2])
        assert(cache:set("warm", 1, 60))
        clock.wait_until(function() return cache:stats().mapRefreshes == 1 end, 5, "the map")
        assert(cache:getMulti(many(300))) -- connects to all
        local before = cache:stats()
        assert(cache:getMulti(many(300)))
        local after = cache:stats()
        assert.equal(0, after.redirections - before.redirections)
        assert.equal(1, after.mapRefreshes)
        assert.equal(before.connects, after.connects)
    end)

    -- What the masters were sent while fn ran: {command = how often}; how often they found
    -- something to read, and how often they had to at least: so many bytes they read at once.
    local READ_BYTES = 16384

    local function sent(fn)
        local masters, before, counts, reads, least = {}, {}, {}, 0, 0
        for _, node in ipairs(bed.nodes) do
            if bed:is_master(node) then masters[#masters + 1] = node end
        end
        for i, node in ipairs(masters) do
            before[i] = { node:commandstats(), node:info("stats") }
        end
        fn()
        for i, node in ipairs(masters) do
            local stats, old, commands = node:info("stats"), before[i][2], node:commandstats()
            for name, command in pairs(commands) do
                local more = command.calls - (before[i][1][name] or { calls = 0 }).calls
                if more > 0 then counts[name] = (counts[name] or 0) + more end
            end
            reads = reads + stats.total_reads_processed - old.total_reads_processed - 1 -- INFO
            local bytes = stats.total_net_input_bytes - old.total_net_input_bytes
            least = least + math.ceil(bytes / READ_BYTES)
        end
        return counts, reads - (counts.replconf or 0), least
    end

    it("loads a cold batch of 100 by two writes to each master", function()
        local cache, keys = open(bed.nodes[2]), many(100)
        for _, key in ipairs(many(60, "first")) do -- connects to all, who know the scripts then
            cache:remember(key, 60, function() return 1 end)
        end
        local values, failed
        local counts, reads, least = sent(function()
            values, failed = cache:rememberMulti(keys, 60, function(list)
                assert.equal(100, #list)
                local loaded = {}
                for _, key in ipairs(list) do loaded[key] = key end
                return loaded
            end)
        end)
        assert.same({}, failed)
        for _, key in ipairs(keys) do assert.equal(key, values[key]) end
        -- The lease by SET NX GET; the value by a script, which asks GET and says PSETEX.
        assert.same({ 100, 100, 100, 100 },
            { counts.set, counts.evalsha, counts.get, counts.psetex })
        assert.is_true(least <= 6 and reads <= 6, reads .. " reads of three masters")
        counts, reads = sent(function()
            values = cache:rememberMulti(keys, 60, error)
        end)
        assert.equal("k7", values.k7)
        assert.equal(100, counts.set or counts.get)
        assert.is_true(reads <= 3, reads .. " reads of three masters")
    end)

    it("sends a batch of 1,000 keys to each master once, with a command per key", function()
        local cache = open(bed.nodes[2], { plain = true })
        local keys, values = many(1000), {}
        for _, key in ipairs(keys) do values[key] = key end
        assert(cache:setMulti(values, 60)) -- connects to all
        for _, step in ipairs({
            { "set", function() assert(cache:setMulti(values, 60)) end },
            { "mget", function() assert.same(values, (cache:getMulti(keys))) end },
            { "unlink", function() assert.equal(1000, cache:deleteMulti(keys)) end },
        }) do
            local counts, reads, least = sent(step[2])
            assert.equal(1000, counts[step[1]], step[1])
            -- A server may wake up in the middle of a write.
            assert.is_true(reads <= 2 * least, ("%s: %d reads, not %d"):format(step[1], reads,
                least))
        end
    end)

    it("follows a slot that is on its way, for reads, writes, batches and scripts", function()
        local from, to = bed.nodes[1], bed.nodes[2]
        local slot = 77
        local cache = open(bed.nodes[3])
        for i = 1, 10 do assert(cache:set(key_of(slot, i), i, 60)) end
        bed:open_slot(slot, from, to)
        assert.equal(5, bed:move_keys(slot, from, to, 5))
        local keys = {}
        for i = 1, 10 do
            keys[i] = key_of(slot, i)
            assert.equal(i, (cache:get(keys[i])), i)
            assert(cache:set(keys[i], -i, 60))
            assert.equal(-i, (cache:get(keys[i])), i)
        end
        assert(cache:set(key_of(slot, "new"), "n", 60))
        assert.equal("n", (cache:get(key_of(slot, "new"))))
        local runs = 0
        for i = 11, 20 do
            assert.equal(i, (cache:remember(key_of(slot, i), 60, function()
                runs = runs + 1
                return i
            end)))
        end
        assert.equal(10, runs)
        assert.equal("locked", (cache:withLock(key_of(slot, "l"), nil,
            function() return "locked" end)))
        assert.is_true(cache:stats().redirections > 0)
        bed:move_keys(slot, from, to)
        bed:close_slot(slot, from, to)
        local got = cache:getMulti(keys)
        for i = 1, 10 do assert.equal(-i, got[keys[i]], i) end
        bed:wait_owner(slot, to)
        bed:move(slot, slot, to, from)
    end)

    it("waits for a slot that nobody serves, and says so at the deadline", function()
        local small = cluster.start({ masters = 3, replicas = 0 })
        local owner = small.nodes[1]
        local ok, err = pcall(function()
            local cache = open(small.nodes[3], { commandTimeout = 1 })
            assert(cache:set(key_of(5), "v", 60))
            for _, node in ipairs(small.nodes) do node:call("CLUSTER", "DELSLOTS", 5) end
            clock.wait_until(function()
                return owner:call("CLUSTER", "INFO"):find("cluster_state:fail", 1, true)
            end, 10, "that the cluster is down")
            local value, problem = cache:get(key_of(5))
            assert.is_nil(value)
            assert.matches("CLUSTERDOWN", tostring(problem))
            local helper = worker.start({
                params = { url = url_of(small.nodes[3]), key = key_of(5) },
                main = function(w)
                    local slow = require("redcache").new({ url = w.params.url, near = false,
                        commandTimeout = 10 })
                    w:emit("asking")
                    local got, fault = slow:get(w.params.key)
                    slow:close()
                    return { got = got, err = fault and tostring(fault) }
                end })
            helper:event("asking")
            owner:call("CLUSTER", "ADDSLOTS", 5)
            small:agree()
            assert.same({ got = "v" }, helper:join())
        end)
        small:stop()
        assert(ok, err)
    end)
end)

describe("under load, a client of a cluster", function()
    -- What is counted is what was acknowledged, and perhaps what has an unknown outcome.
    local function check(result, namespace)
        assert.same({}, result.wrong)
        for counter, count in pairs(result.counted) do
            local number = tonumber(bed:owner(counter):call("GET", counter))
            local most = count + (result.unknown[counter] or 0)
            assert.is_true(number >= count and number <= most,
                ("%s: %s is %d, acknowledged %d, unknown %d"):format(namespace, counter, number,
                    count, most - count))
        end
    end

    local function load(namespace, meanwhile)
        local callers = worker.start({ file = "spec/cluster/load.lua", params = {
            url = url_of(bed.nodes[1]), callers = 16, namespace = namespace } })
        callers:event("working")
        local ok, err = pcall(meanwhile)
        callers:send({ stop = true })
        local result = callers:join(60)
        assert(ok, err)
        return result
    end

    it("loses and doubles nothing, and fails nothing, while slots move", function()
        local began = clock.now()
        local result = load("move", function()
            for i = 1, MOVES do
                local slot = (i * 271) % 5461
                bed:move(slot, slot, bed.nodes[1], bed.nodes[2])
            end
        end)
        local seconds = clock.now() - began
        assert.same({}, result.errors)
        check(result, "move")
        assert.is_true(result.refreshes <= 2 * seconds + 1, result.refreshes)
        assert.is_true(result.calls > 100, result.calls)
    end)

    it("ends every call by its deadline and counts right through a failover", function()
        local replica = bed.nodes[4]
        if bed:is_master(replica) then replica = bed.nodes[1] end
        local began = clock.now()
        local result = load("failover", function()
            bed:failover(replica)
            clock.sleep(1)
        end)
        local seconds = clock.now() - began
        check(result, "failover")
        assert.is_true(result.refreshes <= 2 * seconds + 1, result.refreshes)
        assert.is_true(result.slowest < 30, result.slowest)
    end)

    it("goes on with the other masters, and with the heir, when one is killed", function()
        local victim
        for _, node in ipairs({ bed.nodes[3], bed.nodes[6] }) do
            if bed:is_master(node) then victim = node end
        end
        local heir = victim == bed.nodes[3] and bed.nodes[6] or bed.nodes[3]
        local result = load("kill", function()
            bed:kill(victim)
            clock.wait_until(function() return bed:is_master(heir) end, 20, "the heir")
            clock.sleep(1)
        end)
        bed:restart(victim)
        bed:agree()
        bed:wait_replica(victim)
        -- Redis acknowledges before its replica has a write: what a failover loses is the
        -- cluster's. Everything else is counted once.
        for counter, count in pairs(result.counted) do
            local number = tonumber(bed:owner(counter):call("GET", counter)) or 0
            assert.is_true(number <= count + (result.unknown[counter] or 0), counter)
        end
        local cache = open(bed.nodes[1])
        for _, key in ipairs(many(50)) do assert(cache:set(key, 1, 60)) end
    end)
end)

describe("a delete in a cluster", function()
    local function pair_of(slot)
        local master = bed:owner(slot)
        for _, range in ipairs(bed:map(master)) do
            if range.id == master.id then return master, bed:node(range.replicas[1]) end
        end
    end

    it("stays done where its master dies before the replica has heard of it", function()
        local slot = 9000
        local master, heir = pair_of(slot)
        local other = bed:present()[1] == master and bed:present()[2] or bed:present()[1]
        local cache = open(other, { commandTimeout = 10 })
        local read, written, late, foreign = key_of(slot, "read"), key_of(slot, "written"),
            key_of(slot, "late"), key_of(slot, "foreign")
        for _, key in ipairs({ read, written, late, foreign }) do
            assert(cache:set(key, "old", 60))
        end
        assert.equal("old", (cache:get(read)))
        clock.wait_until(function() return master:call("WAIT", 1, 1000) == 1 end, 10, "the replica")
        master:refuse_replicas()
        master:call("CLIENT", "KILL", "TYPE", "replica")
        assert.is_true((cache:delete(read)))
        assert.equal(1, (cache:deleteMulti({ written })))
        assert.equal(1, master:call("DEL", foreign)) -- nobody does this one again
        bed:kill(master)
        -- What nobody can have done yet goes to the heir itself.
        assert.is_true((cache:delete(late)))
        assert.is_true(bed:is_master(heir))
        clock.wait_until(function()
            return heir:call("EXISTS", read, written, late) == 0
        end, 5, "the deletes at the heir")
        assert.equal(1, heir:call("EXISTS", foreign))
        assert.is_nil((cache:get(read)))
        assert.equal(0, cache:stats().deletesLost)
        bed:restart(master)
        bed:agree()
        bed:wait_replica(master)
    end)
end)
