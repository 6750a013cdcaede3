-- Tags under random reads, loads and invalidations: nothing that a tag has voided is ever served.
--
-- Four clients of one server: two share a region, one has its own, one reads without a near cache.
-- What a key's value should be is told by numbers here, one for each tag: a loader reads them as it
-- would read a database, and an invalidation counts them up before it is sent.
-- Env: REDCACHE_TAGS_READS: how many reads (2500); REDCACHE_TAGS_SEED: the seed (random).

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")

local READS = tonumber(os.getenv("REDCACHE_TAGS_READS")) or 2500
local SEED = tonumber(os.getenv("REDCACHE_TAGS_SEED")) or os.time() % 1000000
local KEYS, TAGS, TTL = 20, 12, 600
-- A copy that is not known current for so long is not served: reads of what changed within this
-- time tell nothing, but those that ask Redis or want it fresh.
local MAX_STALE = 0.05

-- What stands in the database: by tag, how often it was invalidated, hard and at all, and when.
local function new_world()
    local world = { hard = {}, any = {}, at = {} }
    for i = 1, TAGS do
        world.hard["t" .. i], world.any["t" .. i], world.at["t" .. i] = 0, 0, 0
    end
    return world
end

-- Two of them for each key; of few keys "all", which nobody invalidates, is one.
local function tags_of(key)
    local n = tonumber(key:match("%d+"))
    local first, second = n % TAGS + 1, (n * 7 + 3) % TAGS + 1
    return { "t" .. first, second ~= first and "t" .. second or "all" }
end

local function value_of(world, key)
    local value = {}
    for _, tag in ipairs(tags_of(key)) do
        value[tag] = { world.hard[tag] or 0, world.any[tag] or 0 }
    end
    return value
end

local function count_up(world, tag, is_soft)
    if not is_soft then world.hard[tag] = world.hard[tag] + 1 end
    world.any[tag] = world.any[tag] + 1
end

-- What is wrong with a value that was read, or nil. began: when the read did; is_exact: nothing
-- older than its begin may be served.
local function fault_of(world, key, value, source, began, is_exact)
    for tag, versions in pairs(value) do
        local is_settled = is_exact or began - (world.at[tag] or 0) > MAX_STALE
        if is_settled and tag ~= "all" then
            if versions[1] ~= world.hard[tag] then
                return ("%s: void by %s, from %s"):format(key, tag, source)
            elseif source ~= "stale" and versions[2] ~= world.any[tag] then
                return ("%s: stale by %s, from %s"):format(key, tag, source)
            end
        end
    end
end

local opened = 0

local function open_all(url, other_url)
    opened = opened + 1
    local shared = ("redcache-tags-%d-%d"):format(posix.C.getpid(), opened)
    local caches = {}
    for i, one in ipairs({
        { url, { shared = shared } }, { url, { shared = shared } }, { url, true },
        { other_url, false },
    }) do
        caches[i] = redcache.new({
            url = one[1], near = one[2], namespace = "app", maxStale = MAX_STALE, grace = 100,
            background = false, commandTimeout = clock.patience(10), group = "g" .. i,
        })
    end
    return caches
end

-- One read by one of the clients, in one of the ways there are. value, source, exact
local function read(world, caches, key, counts)
    local cache, way = caches[math.random(#caches)], math.random(6)
    local opts = { tags = tags_of(key) }
    local is_exact = cache == caches[4]
    local function load()
        local value = value_of(world, key)
        if math.random(10) == 1 then -- its tag is invalidated while it loads
            local tag = tags_of(key)[1]
            count_up(world, tag, false)
            assert(caches[math.random(#caches)]:invalidateTags({ tag }))
            world.at[tag] = clock.now()
            counts.during = counts.during + 1
        end
        counts.loads = counts.loads + 1
        return value
    end
    if way == 1 then
        opts = { fresh = true }
        local value, err, source = cache:get(key, opts)
        return value, err, source, true
    elseif way == 2 then
        local value, err, source = cache:get(key)
        return value, err, source, is_exact
    elseif way == 3 then
        local values, failed = cache:getMulti({ key }, { near = false })
        return values[key], failed[key], "stale", true -- it does not tell
    elseif way == 4 then
        local values, failed, _, flags = cache:rememberMulti({ key }, TTL, function()
            return { [key] = load() }
        end, opts)
        return values[key], failed[key], flags[key] or "redis", is_exact
    end
    local value, err, source = cache:remember(key, TTL, load, opts)
    return value, err, source, is_exact
end

-- A change that any client, or somebody else, makes.
local function change(world, caches, foreign)
    local tag, cache, dice = "t" .. math.random(TAGS), caches[math.random(#caches)], math.random(10)
    local is_soft = dice <= 3
    count_up(world, tag, is_soft)
    if dice == 10 then
        foreign("DEL", "app//tag:" .. tag) -- evicted, or flushed
    else
        assert(cache:invalidateTags({ tag }, { soft = is_soft }))
    end
    world.at[tag] = clock.now()
end

local function run(caches, foreign)
    local world, counts = new_world(), { loads = 0, during = 0, read = 0, near = 0 }
    -- Where the machine keeps heartbeats from being on time little is near: then it goes on.
    local i, ends = 0, clock.deadline(30)
    while i < READS or counts.near <= READS / 50 and clock.now() < ends do
        i = i + 1
        if i % 25 == 0 then change(world, caches, foreign) end
        local key = "k" .. math.random(KEYS)
        local before, began = counts.loads, clock.now()
        local value, err, source, is_exact = read(world, caches, key, counts)
        assert.is_nil(err and err.message)
        -- Its own loader's value is its caller's, whatever became of it.
        if value and counts.loads == before then
            counts.read = counts.read + 1
            if source == "near" or source == "l0" then counts.near = counts.near + 1 end
            local fault = fault_of(world, key, value, source, began, is_exact)
            if fault then error(("seed %d, read %d: %s"):format(SEED, i, fault), 0) end
        end
    end
    return counts
end

local function check(counts)
    assert.is_true(counts.read > READS / 4, "hits: " .. counts.read)
    assert.is_true(counts.near > READS / 50, "near: " .. counts.near)
    assert.is_true(counts.during > 0)
end

describe("tags", function()
    local bed, caches

    before_each(function() math.randomseed(SEED) end)
    after_each(function()
        for _, cache in ipairs(caches or {}) do cache:close() end
        if bed then bed:stop() end
        bed, caches = nil, nil
    end)

    it("void what they should, for every reader of one server", function()
        bed = server.start()
        caches = open_all(bed:url(), "redis://localhost:" .. bed.port)
        check(run(caches, function(...) bed:call(...) end))
    end)

    it("void what they should, for every reader of three masters", function()
        bed = cluster.start()
        caches = open_all(bed.nodes[1]:url(), bed.nodes[2]:url())
        check(run(caches, function(_, name) caches[3]:redis():command("DEL", name) end))
    end)
end)
