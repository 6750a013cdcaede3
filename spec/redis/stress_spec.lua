-- Stale-set stress: foreign writers change the source and then plainly DEL the key; no reader may
-- ever get what is older than a change that was acknowledged before the read began.
--
-- The source of truth is a server of its own: source:<key> is the version there is, and
-- acknowledged:<key> the newest whose DEL has been answered. A mutant that stores blindly shows
-- that this test can fail.
-- Env: REDCACHE_STRESS_SECONDS: how long (30; 10 under sanitizers).

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local SECONDS = tonumber(os.getenv("REDCACHE_STRESS_SECONDS")) or clock.scale == 1 and 30 or 10
local KEYS = 4

local redis, truth

setup(function() redis, truth = server.start(), server.start() end)

teardown(function()
    redis:stop()
    truth:stop()
end)

before_each(function()
    redis:reset()
    truth:reset()
end)

-- Writes for options.seconds, or until the key "stop" is there; tells how often.
local function write(one)
    local support = require("spec.support.clock")
    local connect = require("spec.support.resp").connect
    local bed = { user = "bed", password = "bed" }
    local cache_side = connect({ path = one.params.redis }, bed)
    local truth_side = connect({ path = one.params.truth }, bed)
    local acknowledge = "if tonumber(ARGV[1])>tonumber(redis.call('GET',KEYS[1]) or 0) then "
        .. "redis.call('SET',KEYS[1],ARGV[1]) end"
    local ends, writes = support.now() + one.params.seconds, 0
    math.randomseed(one.index)
    repeat
        local key = "k" .. math.random(one.params.keys)
        local version = truth_side:call("INCR", "source:" .. key)
        cache_side:call("DEL", key)
        truth_side:call("EVAL", acknowledge, 1, "acknowledged:" .. key, version)
        writes = writes + 1
        -- Sometimes the readers get the time to fill the key, sometimes not.
        support.sleep(math.random(0, 3) * math.random() * 0.001)
        local over = writes % 16 == 0 and truth_side:call("EXISTS", "stop") == 1
    until over or support.now() >= ends
    return { writes = writes }
end

-- Reads as long; params.mutant: a cache that stores what it loaded without asking.
local function read(one)
    local support = require("spec.support.clock")
    local connect = require("spec.support.resp").connect
    local truth_side = connect({ path = one.params.truth }, { user = "bed", password = "bed" })
    local cache = require("redcache").new({
        near = false, -- what a load stores is the question here
        url = one.params.url, commandTimeout = 10, waitTimeout = 20, leaseTtl = 2,
    })
    local ends = support.now() + one.params.seconds
    local reads, loads, hits, violations = 0, 0, 0, {}
    math.randomseed(one.index + 100)
    local function load(key)
        loads = loads + 1
        local version = tonumber(truth_side:call("GET", "source:" .. key) or 0)
        -- The source is slow now and then: this is when a stale value gets its chance.
        if math.random(4) == 1 then support.sleep(math.random() * 0.004) end
        return version
    end
    local function fetch(key)
        if not one.params.mutant then return cache:remember(key, 60, load) end
        local value = cache:get(key)
        if not value then
            value = load(key)
            cache:set(key, value, 60)
        end
        return value
    end
    repeat
        local key = "k" .. math.random(one.params.keys)
        local acknowledged = tonumber(truth_side:call("GET", "acknowledged:" .. key) or 0)
        local before = loads
        local value, err = fetch(key)
        assert(value, tostring(err))
        reads = reads + 1
        if loads == before then hits = hits + 1 end
        if value < acknowledged then
            violations[#violations + 1] = ("%s: %d < %d"):format(key, value, acknowledged)
            if one.params.mutant then truth_side:call("SET", "stop", 1) end
        end
        local over = reads % 16 == 0 and truth_side:call("EXISTS", "stop") == 1
    until over or support.now() >= ends
    return { reads = reads, loads = loads, hits = hits, violations = violations }
end

local function params(more)
    more.url, more.redis, more.truth, more.keys = redis:url(), redis.path, truth.path, KEYS
    return more
end

local function start_writers(options)
    return herd.start({
        count = 2, params = params(options), timeout = options.seconds + 60, main = write,
    })
end

-- Adds up what readers tell; the list of what was stale.
local function add_up(results)
    local sum, violations = { reads = 0, loads = 0, hits = 0 }, {}
    for _, result in ipairs(results) do
        for name in pairs(sum) do sum[name] = sum[name] + result[name] end
        for _, text in ipairs(result.violations) do violations[#violations + 1] = text end
    end
    return sum, violations
end

local function expect_traffic(writers, sum, seconds)
    local writes = 0
    for _, result in ipairs(writers.results) do writes = writes + result.writes end
    -- Both happened all the time: keys were filled, read, and deleted.
    local least = 20 * seconds / clock.scale
    assert.is_true(writes > least, writes .. " writes")
    assert.is_true(sum.loads > least, sum.loads .. " loads")
    assert.is_true(sum.hits > least, sum.hits .. " reads without a load")
end

describe("remember against foreign writers", function()
    it("never serves 16 processes an older value than was acknowledged", function()
        local seconds = SECONDS * 2 / 3
        local writers = start_writers({ seconds = seconds })
        local readers = herd.start({
            count = 16, params = params({ seconds = seconds }), timeout = seconds + 60,
            main = read,
        })
        readers:join()
        writers:join()
        local sum, violations = add_up(readers.results)
        assert.same({}, violations)
        expect_traffic(writers, sum, seconds)
    end)

    it("never serves 16 threads on one client an older value than was acknowledged", function()
        -- They share loads in the process: who joins a load must not get what began before a write.
        local seconds = SECONDS / 3
        local writers = start_writers({ seconds = seconds })
        local results = threads.run({
            count = 16, params = params({ seconds = seconds }), timeout = seconds + 60,
            main = read,
        })
        writers:join()
        local sum, violations = add_up(results)
        assert.same({}, violations)
        expect_traffic(writers, sum, seconds)
    end)

    it("would be seen to fail: a reader that stores blindly serves stale values", function()
        local seconds = 20
        local writers = start_writers({ seconds = seconds })
        local readers = herd.start({
            count = 16, params = params({ seconds = seconds, mutant = true }), timeout = 60,
            main = read,
        })
        local took = clock.time(readers.join, readers)
        writers:join()
        local _, violations = add_up(readers.results)
        assert.is_true(#violations > 0)
        assert.is_true(took < seconds)
    end)
end)
