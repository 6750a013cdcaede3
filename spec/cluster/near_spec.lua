-- The near cache in a real cluster: a copy is served only as long as the masters agree that its
-- slot is where it was read. How old near values become while everything happens at once:
-- asof.lua, of which the last test is a short run.
--
-- Env: REDCACHE_SERVER, as everywhere. REDCACHE_CLUSTER_CHECKS, REDCACHE_CLUSTER_ROUNDS: of the
-- as-of checker (100,000 and 1).

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local herd = require("spec.support.herd")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local redcache = require("redcache")

local EVENTS, LIMIT = "migrate,atomic,failover,takeover,stop", 3600
local CHECKS = os.getenv("REDCACHE_CLUSTER_CHECKS") or "100000"
local ROUNDS = os.getenv("REDCACHE_CLUSTER_ROUNDS") or "1"
local MAX_STALE, MEASURING, SEEN_SECONDS = 0.25, 0.05, 10

-- Of the test that counts questions: a period is a quarter of maxStale.
local SHARING, SHARED_STALE, SECONDS = 6, 1, 2

local bed, caches

setup(function() bed = cluster.start({ partitions = true }) end)
teardown(function() bed:stop() end)
before_each(function()
    caches = {}
    bed:agree()
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    options = options or {}
    options.url = "redis://127.0.0.1:" .. bed.nodes[3].port
    options.maxStale, options.commandTimeout = options.maxStale or MAX_STALE, 2
    options.near = options.near or true
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function key_of(slot, name)
    return ("{%s}%s"):format(cluster.tag(slot), name or "")
end

local function is_near(source) return source == "near" or source == "l0" end

-- Reads until the value comes from the near cache.
local function warm(cache, key)
    return clock.wait_until(function()
        local value, _, source = cache:get(key)
        return is_near(source) and value
    end, 10, "a near copy of " .. key)
end

-- Reads the key all the time until `seconds` after `newer` was acknowledged, which write() does,
-- and until the newer value has come. The older one may come from the near cache for maxStale after
-- that. How soon the client finds the master that has the newer one is the cluster's affair, and
-- the machine's.
local function expect_coherence(cache, key, newer, write, seconds)
    write()
    local acked, worst, seen = clock.now(), 0, false
    while clock.now() < acked + seconds or not seen and clock.now() < acked + SEEN_SECONDS do
        local began = clock.now()
        local value, _, source = cache:get(key)
        if value == newer then
            seen = true
        elseif value ~= nil and is_near(source) then
            worst = math.max(worst, began - acked)
        end
    end
    assert.is_true(seen)
    assert.is_true(worst <= MAX_STALE + MEASURING, worst)
end

-- Until another node owns the slot in the eyes of the others; the key is read meanwhile, as an idle
-- client vouches for nothing.
local function read_until_heir(cache, key, slot, master)
    return clock.wait_until(function()
        cache:get(key)
        local owner = bed:owner(slot)
        return owner and owner ~= master and owner
    end, 30, "the heir")
end

describe("the near cache in a cluster", function()
    it("keeps copies of every master's keys, and drops what changes there", function()
        local cache = open()
        local slots = { 10, 6000, 12000 }
        for i, slot in ipairs(slots) do
            local key = key_of(slot, "k")
            bed:owner(slot):call("SET", key, i)
            assert.equal(i, tonumber((warm(cache, key))))
            bed:owner(slot):call("SET", key, -i)
            clock.wait_until(function() return tonumber((cache:get(key))) == -i end, 10, "the push")
        end
        assert.is_true(cache:set(key_of(10, "k"), "own"))
        assert.equal("own", (cache:get(key_of(10, "k"))))
    end)

    it("loses copies of a slot that moves, and keeps the others", function()
        -- What the patient one serves it need not have asked for meanwhile.
        local cache, patient = open(), open({ maxStale = 60 })
        local slot, from, to = 4000, bed:owner(4000), bed:owner(6000)
        local moved, stays = key_of(slot, "m"), key_of(slot + 1, "s")
        from:call("SET", moved, "1")
        from:call("SET", stays, "1")
        warm(cache, moved)
        warm(patient, moved)
        warm(patient, stays)
        bed:move(slot, slot, from, to)
        bed:agree()
        expect_coherence(cache, moved, "2", function()
            to:call("SET", moved, "2")
        end, 0.6)
        assert.equal("2", (warm(cache, moved)))
        clock.wait_until(function() return patient:get(moved) == "2" end, 5, "the moved key")
        local _, _, source = patient:get(stays)
        assert.is_true(is_near(source), source)
        bed:move(slot, slot, to, from)
    end)

    it("believes a node that gave a slot up no longer, though it goes on answering", function()
        local cache = open()
        local slot, from, to = 4100, bed:owner(4100), bed:owner(6000)
        local key = key_of(slot, "m")
        from:call("SET", key, "1")
        warm(cache, key)
        -- 7.0 deletes the key without a push; newer servers push.
        bed:move(slot, slot, from, to, "keyless")
        expect_coherence(cache, key, "2", function()
            to:call("SET", key, "2")
        end, 0.6)
        bed:agree()
        bed:move(slot, slot, to, from)
    end)

    it("believes a master that was stopped only once a majority names it again", function()
        local cache = open()
        local slot = 100
        local master, key = bed:owner(slot), key_of(slot, "k")
        master:call("SET", key, "1")
        warm(cache, key)
        bed:pause(master)
        local heir = clock.wait_until(function()
            local owner = bed:owner(slot)
            return owner and owner ~= master and owner
        end, 30, "the heir")
        expect_coherence(cache, key, "2", function()
            heir:call("SET", key, "2")
            bed:resume(master)
        end, 1)
        bed:agree(30)
        bed:wait_replica(master)
    end)

    it("believes a master that is cut off from the others no longer than maxStale", function()
        local cache = open()
        local slot = 6000
        local master, key = bed:owner(slot), key_of(slot, "k")
        master:call("SET", key, "1")
        warm(cache, key)
        bed:split({ master })
        local heir = read_until_heir(cache, key, slot, master)
        local ok, err = pcall(expect_coherence, cache, key, "2", function()
            heir:call("SET", key, "2")
        end, 1)
        bed:heal()
        if not ok then error(err, 0) end
        bed:agree(30)
        bed:wait_replica(master)
    end)

    -- Questions for the map that the masters have answered.
    local function questions()
        local calls = 0
        for _, node in ipairs(bed.nodes) do
            local stats = node:commandstats()["cluster|slots"]
            calls = calls + (stats and stats.calls or 0)
        end
        return calls
    end

    local function count_questions(processes)
        local region = "near-spec-" .. posix.C.getpid()
        local readers = herd.start({
            count = processes,
            params = function(i)
                -- Who reads what others have filled asks for nothing.
                local keys = {}
                for n, slot in ipairs({ 10, 6000, 12000 }) do keys[n] = key_of(slot, "own" .. i) end
                return {
                    keys = keys, seconds = SECONDS,
                    options = { url = "redis://127.0.0.1:" .. bed.nodes[3].port,
                        maxStale = SHARED_STALE, near = { shared = region, l0 = false } },
                }
            end,
            main = function(one)
                local time = require("spec.support.clock")
                local cache = require("redcache").new(one.params.options)
                local near, hits = {}, 0
                for _, key in ipairs(one.params.keys) do cache:set(key, "1") end
                local function read()
                    for _, key in ipairs(one.params.keys) do
                        local _, _, source = cache:get(key)
                        near[key] = source == "near" or nil
                        hits = hits + (source == "near" and 1 or 0)
                    end
                    time.sleep(0.01)
                end
                local function is_warm() return near[one.params.keys[3]] end
                local ends = time.now() + 10
                repeat read() until is_warm() or time.now() > ends
                one:ready()
                ends = time.now() + 0.5 * one.params.seconds -- until they have found their turns
                repeat read() until time.now() > ends
                one:ready()
                one:emit("counting")
                hits = 0
                ends = time.now() + one.params.seconds
                repeat read() until time.now() > ends
                one:emit("counted")
                one:ready()
                cache:close()
                return { hits = hits }
            end,
        })
        readers:wait_events("counting", processes, 30)
        local before = questions()
        readers:wait_events("counted", processes, 30)
        local calls = questions() - before
        readers:join()
        os.remove("/dev/shm/redcache-" .. region)
        for _, result in ipairs(readers.results) do assert.is_true(result.hits > 0) end
        return calls
    end

    it("asks for all processes that share it, not for each", function()
        -- Each process would ask as often as one alone, always; a process that is late asks for
        -- itself, and one that gets no processor asks less: so up to four pairs.
        local alone, together
        for _ = 1, 4 do
            alone, together = count_questions(1), count_questions(SHARING)
            if alone > 0 and together <= 3 * alone then break end
        end
        print(("questions in %d s: %d of one process, %d of %d"):format(SECONDS, alone, together,
            SHARING))
        -- A process takes an answer that another one got at most half a period ago: two of them
        -- ask in each.
        assert.is_true(alone > 0)
        assert.is_true(together <= 3 * alone, together / alone)
    end)

    it("serves nothing older than promised through every event at once", function()
        local result = process.run({ "luajit", "spec/cluster/asof.lua", "--checks", CHECKS,
            "--rounds", ROUNDS, "--limit", LIMIT, "--events", EVENTS }, LIMIT + 60)
        assert.matches(" checks, 0 violations\n$", result.out, nil, result.out .. result.err)
        assert.equal(0, result.exit, result.out .. result.err)
    end)
end)
