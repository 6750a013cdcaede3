-- growth - what more of everything does: 1 to 8 processes on one shared region, 1 to 6 masters,
-- 1 to 10,000 coroutines. How a near hit grows with the number of keys is a program of its own
-- (near_growth.c). Without bars: the charts are drawn from it (bench/charts.lua).
--
-- processes: near hits of all together; "table" is what the machine does with a plain Lua table.
-- masters:   500 coroutines read through one client, near cache off; one master is no cluster.
-- callers:   coroutines of one runner over 100,000 keys of one server, near cache off.
-- More of them than this machine has processors for show what the sharing costs, and no speed.

local bench = require("bench.support.bench")
local benchmark = require("bench.support.benchmark")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local near_share = require("bench.support.near_share")
local redcache = require("redcache")
local warm = require("bench.support.warm")

local PROCESSES = { 1, 2, 4, 8 }
local MASTERS = bench.sized({ 1, 2, 3, 4, 5, 6 }, { 1 })
local CALLERS = { 1, 10, 100, 1000, 10000 }
local NEAR_KEYS, KEYS, VALUE_BYTES = 1000, bench.sized(100000, 1000), 100
local COROUTINES = 500 -- of each number of masters
local READS = bench.sized(200000, 10000) -- of all callers together, per round
local LONE_READS = bench.sized(10000, 100) -- of one caller alone, who waits for each
local TIMEOUT = 20 -- of a call: a busy machine is to be slow, not wrong

local GET = "value = subject:get(key)"
local INDEX = "value = subject[key]"

local keys = benchmark.keys(KEYS)

local function fill(cache)
    warm.fill(cache, keys, VALUE_BYTES, redcache.FOREVER)
end

local function read(cache, reads)
    local random = math.random
    for _ = 1, reads do
        if cache:get(keys[random(KEYS)]) == nil then
            error("a hit was expected")
        end
    end
end

-- Thousands of reads per second of so many coroutines.
local function rate(cache, callers)
    local each = math.ceil((callers == 1 and LONE_READS or READS) / callers)
    collectgarbage()
    local before = clock.now()
    redcache.run(function()
        for _ = 1, callers do
            redcache.spawn(read, cache, each)
        end
    end)
    return { rate = each * callers / (clock.now() - before) / 1000 }
end

local function open(url)
    return redcache.new({ url = url, codec = "raw", namespace = "bench", near = false,
        scheduler = "coroutine", commandTimeout = TIMEOUT })
end

local function add_processes(redis, sides)
    local filler = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench",
        near = false })
    local names = bench.texts(NEAR_KEYS, 16)
    for _, name in ipairs(names) do
        assert(filler:set(name, bench.text(VALUE_BYTES), redcache.FOREVER))
    end
    filler:close()
    local share = near_share.start({ url = redis:url(), keys = names, get = GET, index = INDEX,
        counts = PROCESSES })
    for _, side in ipairs(share:sides()) do
        sides[#sides + 1] = { "processes, " .. side[1], side[2] }
    end
    return function()
        share:stop()
    end
end

local function add_callers(redis, sides)
    local cache = open(redis:url())
    redcache.run(fill, cache)
    for _, callers in ipairs(CALLERS) do
        sides[#sides + 1] = { "callers, " .. callers, function()
            return rate(cache, callers)
        end }
    end
    return function()
        cache:close()
    end
end

local function add_masters(redis, count, sides)
    local bed = count > 1 and cluster.start({ masters = count, replicas = 0 })
    local cache = open(bed and bed:url() or redis:url())
    redcache.run(fill, cache)
    sides[#sides + 1] = { "masters, " .. count, function()
        return rate(cache, COROUTINES)
    end }
    return function()
        cache:close()
        if bed then
            bed:stop()
        end
    end
end

local function measure(redis, rounds)
    local sides, ends = {}, {}
    ends[#ends + 1] = add_processes(redis, sides)
    ends[#ends + 1] = add_callers(redis, sides)
    for _, count in ipairs(MASTERS) do
        ends[#ends + 1] = add_masters(redis, count, sides)
    end
    local samples = bench.side_by_side(sides, rounds)
    for _, stop in ipairs(ends) do
        stop()
    end
    -- Readers of a region make millions of reads a second, callers thousands.
    for _, sample in ipairs(samples) do
        for _, figures in pairs(sample.rounds) do
            if sample.name:find("^processes") then
                figures.rate = figures.rate * 1000
            end
        end
    end
    return samples
end

bench.run({
    name = "growth",
    measure = measure,
    figures = { { name = "rate", unit = "1000 reads/s" } },
    ratios = {
        { of = "processes, 2 near", to = "processes, 1 near", figure = "rate" },
        { of = "processes, 8 near", to = "processes, 2 near", figure = "rate" },
        { of = "callers, 10000", to = "callers, 1000", figure = "rate" },
        { of = "masters, " .. MASTERS[#MASTERS], to = "masters, 1", figure = "rate" },
    },
})
