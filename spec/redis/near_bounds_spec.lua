-- What the near cache does not do: outlive a time to live, outgrow its bytes, hide what it did.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local posix = require("spec.support.posix")
local reads = require("spec.near.reads")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local is_near, source, warm = reads.is_near, reads.source, reads.warm

-- The clock of a hit may be a tick (4 ms) ahead, Redis' a millisecond behind.
local TICK = 0.006
-- maxStale where the question is another: a busy machine must not make a copy too old.
local CALM = 60
-- And so long it may take to answer.
local PATIENCE = 10

local redis

setup(function() redis = server.start({ config = { "enable-debug-command yes" } }) end)
teardown(function() redis:stop() end)
local opened

before_each(function()
    redis:call("FLUSHALL")
    opened = {}
end)
-- What a test that failed left open would be the next one's client, with its figures.
after_each(function()
    for _, cache in ipairs(opened) do cache:close() end
end)

local function open(options)
    options = options or {}
    options.url, options.commandTimeout = redis:url(), options.commandTimeout or PATIENCE
    options.maxStale = options.maxStale or CALM
    opened[#opened + 1] = redcache.new(options)
    return opened[#opened]
end

-- Reads "k" over and over until it comes from memory no more. Returns the beginning of the last
-- read from memory, the end of the one after it, and that one's answer: the copy was served at the
-- first of these instants or later, and was gone at the second one or sooner, wherever this process
-- had no processor. Redis may keep the value for a moment longer: the copy's life is reckoned from
-- when it was asked for. The first read has to come from memory: nil where this process was away
-- for the whole life of the copy.
local function last_from_memory(cache)
    local last, value, from, err
    while true do
        local began = clock.now()
        value, err, from = cache:get("k")
        assert(not err, tostring(err))
        if not is_near(from) then break end
        last = began
        assert(clock.now() - began < clock.scaled(60))
    end
    return last, clock.now(), value, from
end

-- Runs fn(i) until it has returned something true so many times: what it returns says whether the
-- round says anything, for a machine may stand still for as long as a copy lives.
local function rounds(count, fn)
    local done = 0
    for i = 1, 20 * count do
        if fn(i) then done = done + 1 end
        if done == count then return end
    end
    error("the machine was too busy, again and again")
end

describe("a near value's life", function()
    it("ends with the time to live in Redis, never later (66, X15, 69)", function()
        for _, near in ipairs({ true, { ttl = 60 }, { l0 = false } }) do
            local cache = open({ near = near, group = "g" .. tostring(near) })
            rounds(5, function()
                local before = clock.now()
                redis:call("SET", "k", "v", "PX", 200)
                local set = clock.now()
                cache:get("k")
                local last, gone = last_from_memory(cache)
                reads.until_value(cache, "k", nil, PATIENCE)
                if not last then return false end
                assert.is_true(last - set < 0.2 + TICK, ("%g s"):format(last - set))
                assert.is_true(gone - before > 0.2 - TICK, ("%g s"):format(gone - before))
                return true
            end)
            cache:close()
        end
    end)

    it("ends with it for own values and remembered nils, too", function()
        local cache = open()
        -- Each of the three kinds twice.
        local kind = 0
        rounds(6, function(i)
            if kind % 3 == 0 then
                cache:set("k", i, 0.2)
            elseif kind % 3 == 1 then
                cache:remember("k", 0.2, function() return i end)
            else
                cache:remember("k", 60, function() return nil end, { negativeTtl = 0.2 })
            end
            local set = clock.now() -- its life began before
            cache:get("k")
            local last = last_from_memory(cache)
            clock.wait_until(function() return source(cache, "k") == nil end, PATIENCE)
            assert.equal("new", (cache:remember("k", 60, function() return "new" end)))
            cache:delete("k")
            if not last then return false end
            assert.is_true(last - set < 0.2 + TICK, ("%g s"):format(last - set))
            kind = kind + 1
            return true
        end)
        cache:close()
    end)

    it("is near.ttl at most, also of what never expires in Redis (66)", function()
        local cache = open({ near = { ttl = 0.2 } })
        for _, life in ipairs({ "60000", false }) do
            rounds(1, function()
                redis:call("SET", "k", "v")
                if life then redis:call("PEXPIRE", "k", life) end
                local began = clock.now()
                assert.equal("redis", source(cache, "k"))
                local filled = clock.now()
                local last, gone, value, from = last_from_memory(cache)
                redis:call("DEL", "k")
                reads.until_value(cache, "k", nil, PATIENCE)
                if not last then return false end
                assert.same({ "v", "redis" }, { value, from })
                assert.is_true(last - filled < 0.2 + TICK, ("%g s"):format(last - filled))
                assert.is_true(gone - began > 0.2 - TICK, ("%g s"):format(gone - began))
                return true
            end)
        end
        cache:close()
    end)

    it("may be a namespace's own", function()
        local cache = open()
        local short = cache:namespace("short", { near = { ttl = 0.1 } })
        rounds(1, function()
            redis:call("SET", "short:k", "v")
            assert.equal("redis", source(short, "k"))
            local filled = clock.now()
            local last = last_from_memory(short)
            redis:call("DEL", "short:k")
            reads.until_value(short, "k", nil, PATIENCE)
            if not last then return false end
            assert.is_true(last - filled < 0.1 + TICK, ("%g s"):format(last - filled))
            return true
        end)
        redis:call("SET", "k", "v")
        warm(cache, "k")
        local ends = clock.now() + 0.3
        repeat assert.is_true(is_near(source(cache, "k"))) until clock.now() > ends
        cache:close()
    end)

    it("ends at the soft expiry: then it is stale, and says so", function()
        local cache = open({ grace = 30 })
        rounds(1, function()
            cache:set("k", "v", 0.2)
            local set = clock.now() -- its life began before
            cache:get("k")
            local last = last_from_memory(cache)
            clock.wait_until(function() return source(cache, "k") == "stale" end, PATIENCE)
            if not last then return false end
            assert.is_true(last - set < 0.2 + TICK, ("%g s"):format(last - set))
            return true
        end)
        for _ = 1, 5 do assert.same({ "v", nil, "stale" }, { cache:get("k") }) end
        -- A load makes it anew.
        assert.equal("w", (cache:remember("k", 60, function() return "w" end)))
        assert.equal("w", warm(cache, "k"))
        cache:close()
    end)

    it("goes on without end where nothing ends it", function()
        local cache = open({ maxStale = 2 })
        redis:call("SET", "k", "v")
        -- While somebody reads, PINGs keep it coherent; no value is read again. A round in which
        -- this process itself did not get the processor says nothing of that, nor one in which
        -- Redis or the reactor waited for one for a quarter of maxStale.
        local watch = waited.watch({ redis.pid, posix.C.getpid() })
        local function round()
            local far, longest = 0, 0
            warm(cache, "k")
            local before, waited_before = clock.now(), watch:seconds()
            local counts = monitor.wire(redis, function()
                longest, before = clock.now() - before, clock.now()
                local ends = before + 2.6
                repeat
                    if not is_near(source(cache, "k")) then far = far + 1 end
                    clock.sleep(0.002)
                    longest, before = math.max(longest, clock.now() - before), clock.now()
                until before > ends
            end)
            local late = watch:seconds() - waited_before
            return longest < 0.25 and late < 0.5, far, counts
        end
        local is_fair, far, counts
        for _ = 1, 10 do
            is_fair, far, counts = round()
            if is_fair then break end
        end
        assert.is_true(is_fair, "the machine was too busy, ten times")
        assert.equal(0, far)
        assert.is_nil(counts.get)
        assert.is_true(counts.ping >= 4 and counts.ping <= 100, tostring(counts.ping))
        cache:close()
    end)

    it("costs nothing while nobody reads", function()
        local cache = open({ maxStale = 0.1 })
        redis:call("SET", "k", "v")
        warm(cache, "k")
        clock.sleep(0.5)
        local counts = monitor.wire(redis, function() clock.sleep(1) end)
        assert.equal(0, counts.total)
        -- The first read after the pause asks Redis.
        assert.same({ "v", nil, "redis" }, { cache:get("k") })
        assert.equal("v", warm(cache, "k"))
        cache:close()
    end)
end)

describe("near.bytes", function()
    local KEYS = 4000

    local function write_keys()
        local commands = {}
        for i = 1, KEYS do commands[i] = { "SET", "k" .. i, ("v"):rep(100) .. i } end
        redis:client():pipeline(commands)
    end

    -- How many of these keys are near now. Those that are not come in by this, in others' place.
    local function count_near(cache, first, last)
        local near = 0
        for i = first, last do
            if is_near(source(cache, "k" .. i)) then near = near + 1 end
        end
        return near
    end

    it("is never exceeded: what is old goes, what is read stays (69, 70)", function()
        local cache = open({ near = { bytes = 128 * 1024, l0 = false } })
        write_keys()
        warm(cache, "k1")
        for i = 2, KEYS do
            assert.equal(("v"):rep(100) .. i, (cache:get("k" .. i)))
            cache:get("k1")
            if i % 100 == 0 then
                local stats = cache.near:stats()
                assert.is_true(stats.bytes <= 128 * 1024 and stats.capacity <= 128 * 1024)
                assert.is_true(stats.bytes <= stats.capacity)
            end
        end
        assert.equal("near", source(cache, "k1"))
        local stats = cache.near:stats()
        assert.is_true(stats.entries > 200 and stats.entries < 1024, tostring(stats.entries))
        assert.equal(stats.fills, stats.entries + stats.evictions)
        assert.is_true(stats.evictions > KEYS - 1024)
        -- What was read once, long ago, is gone.
        assert.is_true(count_near(cache, 2, 200) < 20)
        cache:close()
    end)

    it("holds for one namespace's max, and its min is kept for it", function()
        local cache = open({ near = { bytes = 512 * 1024, l0 = false } })
        local small = cache:namespace("small", { near = { max = 32 * 1024 } })
        local safe = cache:namespace("safe", { near = { min = 64 * 1024 } })
        for i = 1, 200 do
            safe:set("k" .. i, ("v"):rep(100))
            source(safe, "k" .. i)
        end
        for i = 1, 1000 do
            small:set("k" .. i, ("v"):rep(100))
            source(small, "k" .. i)
        end
        local most = cache.near:stats().bytes
        write_keys()
        for i = 1, KEYS do source(cache, "k" .. i) end
        -- 200 and at most 32 KiB of the others.
        assert.is_true(most < 100 * 1024, tostring(most))
        assert.is_true(count_near(safe, 1, 200) > 190)
        assert.is_true(cache.near:stats().bytes > 300 * 1024)
        cache:close()
    end)

    it("of L0 bounds it, by entries and by bytes", function()
        local entries = open({ group = "e", near = { l0 = { entries = 100 } } })
        local bytes = open({ group = "b", near = { l0 = { bytes = 65536 } } })
        write_keys()
        for _, cache in ipairs({ entries, bytes }) do
            for _ = 1, 3 do
                for i = 1, 2000 do
                    assert.equal(("v"):rep(100) .. i, (cache:get("k" .. i)))
                    assert.is_true(cache.near:stats().l0Entries <= 2000)
                end
            end
        end
        assert.is_true(entries.near:stats().l0Entries <= 100)
        assert.is_true(entries.near:stats().l0Entries >= 50)
        assert.is_true(bytes.near:stats().l0Bytes <= 65536)
        assert.is_true(bytes.near:stats().l0Entries >= 50)
        assert.is_true(bytes.near:stats().l0Entries <= 655)
        entries:close()
        bytes:close()
    end)

    it("of L0 holds where all that comes in goes again", function()
        local cache = open({ near = { l0 = { entries = 100 } } })
        for round = 1, 20 do
            for i = 1, 100 do
                cache:set("k" .. i, round)
                warm(cache, "k" .. i)
                source(cache, "k" .. i)
            end
            for i = 1, 100 do cache:delete("k" .. i) end
            for i = 1, 100 do assert.is_nil((cache:get("k" .. i))) end
        end
        local stats = cache.near:stats()
        assert.is_true(stats.l0Entries <= 100)
        assert.equal(0, stats.entries)
        cache:close()
    end)
end)

describe("near:stats", function()
    local NAMES = {
        "hits", "misses", "l0Hits", "nearHits", "l0Entries", "l0Bytes", "fills", "dooms",
        "invalidations", "writes", "evictions", "expirations", "ghosts", "refusals", "avoided",
        "revalidations", "repairs", "damaged", "entries", "bytes", "capacity",
    }

    it("has all of its fields, 0 at first", function()
        local cache = open({ near = { bytes = 2 ^ 20 } })
        local stats = cache.near:stats()
        for _, name in ipairs(NAMES) do
            assert.equal("number", type(stats[name]), name)
            if name ~= "capacity" then assert.equal(0, stats[name], name) end
        end
        assert.is_nil(stats.horizon)
        assert.is_true(stats.capacity > 2 ^ 19 and stats.capacity <= 2 ^ 20)
        cache:close()
    end)

    it("counts what happens", function()
        local cache = open({ near = { bytes = 2 ^ 20 } })
        local other = redis:client()
        cache:set("k", "v")
        for _ = 1, 10 do cache:get("k") end
        local stats = cache.near:stats()
        assert.same({ 9, 1, 1, 1 }, { stats.hits, stats.misses, stats.fills, stats.entries })
        assert.equal(9, stats.l0Hits + stats.nearHits)
        assert.is_true(stats.l0Hits >= 8)
        assert.equal(1, stats.l0Entries)
        assert.is_true(stats.l0Bytes > 0 and stats.bytes > 0)
        assert.is_true(stats.horizon >= 0 and stats.horizon < CALM)
        other:call("SET", "k", "w")
        clock.wait_until(function() return cache.near:stats().invalidations == 1 end, PATIENCE)
        warm(cache, "k")
        -- Its key comes back from the ghost queue.
        assert.equal(1, cache.near:stats().ghosts)
        cache:set("k", "x")
        assert.is_true(cache.near:stats().writes >= 1)
        assert.equal(0, cache.near:stats().entries)
        redis:call("DEBUG", "SET-ACTIVE-EXPIRE", "0") -- Or a push may drop it before.
        repeat -- it may be over before it comes near
            cache:set("short", "v", 0.2)
            cache:get("short")
        until is_near(source(cache, "short"))
        clock.wait_until(function()
            source(cache, "k") -- While it is read from, it is swept.
            return cache.near:stats().expirations >= 1
        end, 10)
        redis:call("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        cache:close()
    end)

    it("counts hits of remember and getMulti, and of each cache object its own", function()
        local cache = open()
        local sub = cache:namespace("sub")
        cache:set("k", "v")
        warm(cache, "k")
        local before = cache.near:stats()
        for _ = 1, 5 do
            cache:remember("k", 60, error)
            cache:rememberForever("k", error)
            cache:getMulti({ "k" })
        end
        local after = cache.near:stats()
        assert.equal(15, after.hits - before.hits)
        assert.equal(0, after.misses - before.misses)
        assert.same({ 0, 0 }, { sub.near:stats().hits, sub.near:stats().misses })
        -- The region is one.
        assert.equal(after.entries, sub.near:stats().entries)
        cache:close()
    end)

    it("counts every read of random ones once", function()
        local cache = open({ near = { bytes = 65536 } })
        for i = 1, 50 do cache:set("k" .. i, i) end
        local total = 0
        for _ = 1, 5000 do
            local i = math.random(60)
            local value = cache:get("k" .. i)
            assert.equal(i <= 50 and i or nil, value)
            total = total + 1
            if math.random(20) == 1 and i <= 50 then cache:set("k" .. i, i) end
        end
        local stats = cache.near:stats()
        assert.equal(total, stats.hits + stats.misses)
        assert.equal(stats.hits, stats.l0Hits + stats.nearHits)
        cache:close()
    end)

    it("of an expired entry leaves no bytes behind, even if nobody asks for it", function()
        local cache = open({ near = { bytes = 2 ^ 20 } })
        for i = 1, 200 do
            cache:set("k" .. i, ("v"):rep(100), 0.2)
            source(cache, "k" .. i)
        end
        cache:set("stays", "v")
        warm(cache, "stays")
        redis:call("DEBUG", "SET-ACTIVE-EXPIRE", "0") -- No push tells of it.
        clock.wait_until(function()
            source(cache, "stays")
            return cache.near:stats().entries == 1
        end, 10, "the room of expired entries")
        redis:call("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        cache:close()
    end)
end)
