-- Scans and deletes of a cluster whose slots move and whose masters change: each key that is there
-- throughout is given, and each that is deleted is counted.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")

local KEYS = 3000
local bed, cache

setup(function() bed = cluster.start({ masters = 3, replicas = 1 }) end)
teardown(function() bed:stop() end)
after_each(function() cache:close() end)

local function open()
    cache = redcache.new({ url = bed:url(), namespace = "app", near = false,
        commandTimeout = math.min(clock.scaled(10), 60) }) -- 60 is the option's limit
    cache:flush()
    local map = {}
    for i = 1, KEYS do map["k" .. i] = i end
    assert.is_true(cache:setMulti(map))
    return cache
end

local function another_master(node)
    for _, one in ipairs(bed.nodes) do
        if one ~= node and not bed.away[one] and bed:is_master(one) then return one end
    end
end

-- The keys that a scan does not give, while step(n) is called behind each 100th key.
local function missing(step)
    local found, count, steps = {}, 0, 0
    local iterator = cache:scan("k*", { dedup = true, count = 50 })
    for key in iterator do
        found[key], count = true, count + 1
        if count % 100 == 0 then
            steps = steps + 1
            step(steps)
        end
    end
    assert.is_nil(iterator:error())
    local list = {}
    for i = 1, KEYS do
        if not found["k" .. i] then list[#list + 1] = "k" .. i end
    end
    assert.equal(KEYS, count)
    return list
end

describe("a scan of a cluster", function()
    it("gives the keys of all masters", function()
        open()
        assert.same({}, missing(function() end))
        assert.equal(KEYS, #cache:keys("*", KEYS + 1))
    end)

    it("gives the keys of slots that move meanwhile, there and back", function()
        open()
        local seed = os.time()
        math.randomseed(seed)
        assert.same({}, missing(function(n)
            if n > 12 then return end
            local first = math.random(0, cluster.SLOTS - 200)
            local last = first
            local from = bed:owner(first)
            while last < first + 40 and bed:owner(last + 1) == from do last = last + 1 end
            bed:move(first, last, from, another_master(from))
        end), "seed " .. seed)
    end)

    it("gives the keys of a slot that is on its way, for as long as it is", function()
        open()
        local slots = {}
        for _, name in ipairs({ "k1", "k2", "k3" }) do
            local slot = cluster.slot("app:" .. name)
            local from = bed:owner(slot)
            slots[#slots + 1] = { slot, from, another_master(from) }
            bed:open_slot(unpack(slots[#slots]))
        end
        bed:move_keys(unpack(slots[1]))
        assert.same({}, missing(function(n)
            if n == 5 then bed:move_keys(unpack(slots[2])) end
            if n == 25 then bed:move_keys(unpack(slots[3])) end
        end))
        for _, one in ipairs(slots) do
            bed:move_keys(unpack(one))
            bed:close_slot(unpack(one))
        end
        bed:agree()
    end)

    it("gives the keys of masters that have an heir meanwhile", function()
        open()
        assert.same({}, missing(function(n)
            if n == 3 or n == 18 then
                local replica
                for _, one in ipairs(bed.nodes) do
                    if not bed:is_master(one) then replica = one end
                end
                bed:wait_replica(replica)
                bed:failover(replica)
            end
        end))
    end)
end)

describe("a scan whose master is killed", function()
    it("waits for the heir, and gives all keys", function()
        local whole = bed
        bed = cluster.start({ masters = 3, replicas = 1 })
        local ok, err = pcall(function()
            open()
            for i = 4, 6 do bed:wait_replica(bed.nodes[i]) end
            assert.same({}, missing(function(n) if n == 3 then bed:kill(bed.nodes[1]) end end))
        end)
        bed:stop()
        bed = whole
        assert(ok, err)
    end)
end)

describe("deleteByPattern in a cluster", function()
    it("counts each key once while slots move", function()
        open()
        local moves = 0
        cache:namespace("other"):set("k1", 1)
        assert.equal(KEYS, cache:deleteByPattern("k*", { batch = 50, progress = function()
            moves = moves + 1
            if moves > 30 or moves % 3 > 0 then return end
            local first = math.random(0, cluster.SLOTS - 200)
            local from = bed:owner(first)
            local last = first
            while last < first + 20 and bed:owner(last + 1) == from do last = last + 1 end
            bed:move(first, last, from, another_master(from))
        end }))
        assert.equal(0, #cache:keys("*"))
        assert.equal(1, #cache:namespace("other"):keys("*"))
        assert.is_true(moves > 10)
    end)
end)
