-- Numbered databases of a cluster, which Valkey 9 has (cluster-databases): every call works there,
-- near copies are as good as elsewhere, though a push names no database; slots that move and
-- masters that change are followed.
--
-- Env: REDCACHE_SERVER, as everywhere; pending on servers without.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local redcache = require("redcache")
local server = require("spec.support.server")

local DATABASES, DB = 8, 3

local function has_databases()
    local one = server.start()
    local answer = one:call("CONFIG", "GET", "cluster-databases")
    one:stop()
    return next(answer) ~= nil
end

local it = has_databases() and it or pending -- luacheck: ignore

local bed, caches

lazy_setup(function() bed = cluster.start({ config = { "cluster-databases " .. DATABASES } }) end)
lazy_teardown(function() bed:stop() end)
before_each(function() caches = {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

-- All masters by name.
local function open(db, options)
    options = options or {}
    local nodes = {}
    for i = 1, bed.masters do nodes[i] = "127.0.0.1:" .. bed.nodes[i].port end
    options.url = ("redis://%s/%d"):format(table.concat(nodes, ","), db)
    options.codec, options.plain, options.commandTimeout = "raw", true, 2
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function key_of(slot, name)
    return ("{%s}%s"):format(cluster.tag(slot), name or "")
end

-- One command of a foreign client in that database, at the slot's owner.
local function call(slot, db, ...)
    local client = bed:owner(slot):client({ db = db })
    local answer = client:call(...)
    client:close()
    return answer
end

local function is_near(source) return source == "near" or source == "l0" end

local function warm(cache, key)
    return clock.wait_until(function()
        local value, _, source = cache:get(key)
        return is_near(source) and value
    end, 10, "a near copy of " .. key)
end

local function wait_for(cache, key, value)
    clock.wait_until(function() return cache:get(key) == value end, 5, key .. " = " .. value)
end

describe("a numbered database of a cluster", function()
    it("takes every call, at every master", function()
        local cache, first = open(DB), open(0)
        local keys, values = {}, {}
        for i = 1, 60 do
            keys[i] = "k" .. i
            values[keys[i]] = "v" .. i
        end
        assert(cache:setMulti(values, 60))
        assert.same(values, (cache:getMulti(keys)))
        assert.is_nil(next((first:getMulti(keys))))
        for _, key in ipairs(keys) do
            local slot = cluster.slot(key)
            assert.equal(values[key], call(slot, DB, "GET", key))
            assert.is_nil(call(slot, 1, "GET", key))
            assert.is_true((cache:exists(key)))
            assert.equal("made", (cache:remember("r" .. key, 60, function() return "made" end)))
            assert.equal("put", (cache:put(key, 60, function() return "put" end)))
            assert.equal("put", call(slot, DB, "GET", key))
            assert.equal(1, (cache:withLock(key, nil, function() return 1 end)))
        end
        assert.equal(60, cache:deleteMulti(keys))
        local health = cache:health()
        assert.same({ true, true, "cluster", {} },
            { health.ready, health.tracking, health.mode, health.off })
    end)

    it("is kept apart in the near cache, and what changes there is heard", function()
        local cache, first = open(DB), open(0)
        for _, slot in ipairs({ 10, 6000, 12000 }) do
            local key = key_of(slot, "near")
            call(slot, DB, "SET", key, "third")
            call(slot, 0, "SET", key, "first")
            for _ = 1, 3 do
                assert.equal("third", (warm(cache, key)))
                assert.equal("first", (warm(first, key)))
            end
            call(slot, DB, "SET", key, "third, new")
            wait_for(cache, key, "third, new")
            assert.equal("first", (first:get(key)))
            -- A push names no database: one about another costs a read, and is never wrong.
            warm(cache, key)
            call(slot, 5, "SET", key, "fifth")
            assert.equal("third, new", (warm(cache, key)))
            call(slot, DB, "DEL", key)
            clock.wait_until(function() return cache:get(key) == nil end, 5, "the end of " .. key)
            assert.equal("first", (warm(first, key)))
        end
    end)

    it("is followed where slots move, key by key and in one piece, and masters change", function()
        local cache = open(DB, { maxStale = 0.25 })
        local slot, from, to = 4000, bed:owner(4000), bed:owner(6000)
        local key, other = key_of(slot, "m"), key_of(slot, "n")
        assert(cache:set(key, "1"))
        assert(cache:set(other, "1"))
        assert.equal("1", (warm(cache, key)))
        bed:open_slot(slot, from, to)
        assert.equal(1, bed:move_keys(slot, from, to, 1, DB))
        assert.same({ "1", "1" }, { (cache:get(key)), (cache:get(other)) })
        assert(cache:set(key_of(slot, "new"), "n"))
        assert.equal("n", (cache:get(key_of(slot, "new"))))
        bed:move_keys(slot, from, to, nil, DB)
        bed:close_slot(slot, from, to)
        bed:agree()
        call(slot, DB, "SET", key, "2")
        wait_for(cache, key, "2")
        if bed:is_atomic() then
            bed:move(slot, slot, to, from, "atomic")
            bed:agree()
            assert.equal("2", call(slot, DB, "GET", key))
            call(slot, DB, "SET", key, "3")
            wait_for(cache, key, "3")
        end
        local replica = bed.nodes[bed:owner(10).index + bed.masters]
        local safe = key_of(10, "f")
        assert(cache:set(safe, "1"))
        bed:failover(replica)
        assert.equal(replica, bed:owner(10))
        call(10, DB, "SET", safe, "2")
        wait_for(cache, safe, "2")
        assert.equal("2", (warm(cache, safe)))
    end)

    it("that there is not is told in plain words", function()
        local cache = open(DATABASES + 1)
        local ok, err = cache:set("k", "v")
        assert.is_nil(ok)
        assert.equal(redcache.errors.redis, err.code)
        assert.matches("the cluster has no database 9: ERR DB index is out of range", err.message,
            1, true)
        assert.matches("cluster%-databases", err.message)
    end)
end)
