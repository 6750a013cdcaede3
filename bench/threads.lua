-- threads - many blocking threads: one shared client against a hiredis connection for each thread.
-- Every thread has a Lua state of its own and reads random keys as fast as it can.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local threads = require("spec.support.threads")

local COUNTS = bench.sized({ 1, 2, 4, 8, 16, 64, 256 }, { 1, 4 })
local KEYS = 1000
local SECONDS = bench.sized(0.3, 0.02) -- per side and round

-- Runs in every thread: reads with both sides in turn, returns how many reads it made each time.
local function reader(thread)
    local params = thread.params
    local keys = params.keys
    require("redcache.all") -- else each thread loads the rest within its second second
    local cache = require("redcache").new({
        url = params.url, codec = "raw", namespace = "bench", commandTimeout = 5, near = false,
    })
    local hiredis = require("bench.support.hiredis")
    local now = require("spec.support.clock").now
    local connection = hiredis.connect({ port = params.port })
    local sides = {
        function(key) return cache:get(key) end,
        function(key) return hiredis.get(connection, key) end,
    }
    local function run(get)
        local count, at = 0, thread.index * 37
        thread.barrier()
        local start = now()
        local finish = start + params.seconds
        local last
        repeat
            at = at % #keys + 1
            if not get(keys[at]) then
                error("a hit was expected")
            end
            count = count + 1
            last = now()
        until last >= finish
        thread.barrier()
        return { count = count, seconds = last - start }
    end
    local made = {}
    for round = 0, params.rounds do
        local first = round % 2 + 1
        local pair = {}
        pair[first] = run(sides[first])
        pair[3 - first] = run(sides[3 - first])
        made[round] = round > 0 and pair or nil
    end
    cache:close()
    return made
end

-- Reads per second of all threads together, and the slowest thread's share of a fair one.
local function figures(results, round, side)
    local sum, least, rate = 0, math.huge, 0
    for _, rounds in ipairs(results) do
        local made = rounds[round][side]
        sum = sum + made.count
        rate = rate + made.count / made.seconds
        least = math.min(least, made.count)
    end
    return { rate = rate / 1000, slowest = least * #results / sum }
end

local function measure(redis, rounds)
    local keys = bench.texts(KEYS, 16)
    local cache = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench",
        near = false })
    for _, key in ipairs(keys) do
        local value = bench.text(100)
        assert(cache:set(key, value, redcache.FOREVER))
        redis:call("SET", key, value)
    end
    cache:close()
    local samples = {}
    for _, count in ipairs(COUNTS) do
        local results = threads.run({
            main = reader, count = count, timeout = 60 + rounds * SECONDS * 10,
            params = { url = redis:url(), port = redis.port, keys = keys, seconds = SECONDS,
                rounds = rounds },
        })
        local ours = { name = count .. " redcache", rounds = {} }
        local theirs = { name = count .. " hiredis", rounds = {} }
        for round = 1, rounds do
            ours.rounds[round] = figures(results, round, 1)
            theirs.rounds[round] = figures(results, round, 2)
        end
        samples[#samples + 1] = ours
        samples[#samples + 1] = theirs
    end
    return samples
end

local ratios = {}
for i, count in ipairs(COUNTS) do
    ratios[i] = {
        of = count .. " redcache", to = count .. " hiredis", figure = "rate",
        at_least = count == 64 and { idle = 1.7, busy = 1.7 } or nil,
    }
end

bench.run({
    name = "threads",
    measure = measure,
    figures = {
        { name = "rate", unit = "1000 reads/s" },
        { name = "slowest", unit = "thread / fair share" },
    },
    ratios = ratios,
})
