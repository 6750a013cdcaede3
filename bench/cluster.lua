-- cluster - what a client needs for keys of a cluster of three masters, against one server: single
-- reads of a blocking caller and of coroutines, and getMulti of 1,000 keys. Near cache off.
--
-- `client` and `server` are processor time per key, of this process and of all servers together;
-- `time` is how long it took, which depends on how many processors there are for three servers.
-- "a key per GET" and "128 per MGET" are what redis-benchmark's commands cost one server, and a
-- node of a cluster, per key: no client can be cheaper for them.

local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local process = require("spec.support.process")
local redcache = require("redcache")

local KEYS, VALUE_BYTES = 1000, 100
local SECONDS = bench.sized(0.3, 0.02) -- of getMulti, per side and round
local CALLS = bench.sized(3000, 50) -- of a blocking caller
local COROUTINES, READS = bench.sized(500, 20), bench.sized(100, 5)
local PIPELINE, REQUESTS = 333, 333 * bench.sized(600, 20)
local TIMEOUT = 20  -- of a call: a busy machine is to be slow, not wrong

local function servers_seconds(servers)
    local sum = 0
    for _, one in ipairs(servers) do
        local info = one:info("cpu")
        sum = sum + info.used_cpu_user + info.used_cpu_sys
    end
    return sum
end

-- Microseconds per key of what fn does, which returns how many keys that were.
local function cost(servers, fn)
    collectgarbage()
    local served, own, began = servers_seconds(servers), bench.processor(), clock.now()
    local keys = fn()
    local ended, own_end = clock.now(), bench.processor()
    return {
        time = (ended - began) / keys * 1e6, client = (own_end - own) / keys * 1e6,
        server = (servers_seconds(servers) - served) / keys * 1e6,
    }
end

-- ---- What is done. Each returns how many keys it has read.

local function read_many(cache, keys, map)
    local began, count = clock.now(), 0
    repeat
        local values, failed = cache:getMulti(keys)
        assert(next(failed) == nil and values[keys[1]] == map[keys[1]])
        count = count + KEYS
    until clock.now() - began >= SECONDS
    return count
end

local function read_single(cache, keys, map)
    for i = 1, CALLS do
        local key = keys[i % KEYS + 1]
        assert(cache:get(key) == map[key])
    end
    return CALLS
end

local function read_at(cache, keys, map, at)
    for _ = 1, READS do
        at = at % KEYS + 1
        assert(cache:get(keys[at]) == map[keys[at]])
    end
end

local function read_pipelined(cache, keys, map)
    redcache.run(function()
        for i = 1, COROUTINES do redcache.spawn(read_at, cache, keys, map, i * 617) end
    end)
    return COROUTINES * READS
end

-- ---- What the commands cost a server, whoever sends them.

local function floor(one, tag, words, per_command)
    local key = ("{%s}key:__rand_int__"):format(tag)
    local line = { "redis-benchmark", "-h", "127.0.0.1", "-p", one.port, "-c", 1, "-r", KEYS,
        "-P", per_command == 1 and PIPELINE or 8, "-n", math.floor(REQUESTS / per_command),
        "--csv", words }
    for _ = 1, per_command do line[#line + 1] = key end
    local before = servers_seconds({ one })
    local ended = process.run(line, 60)
    if ended.exit ~= 0 then error("redis-benchmark failed: " .. ended.out .. ended.err) end
    local count = math.floor(REQUESTS / per_command) * per_command
    return { server = (servers_seconds({ one }) - before) / count * 1e6 }
end

local function fill(one, tag)
    for i = 0, KEYS - 1 do
        one:call("SET", ("{%s}key:%012d"):format(tag, i), bench.text(VALUE_BYTES))
    end
end

local function random_key()
    return (bench.text(16):gsub("[{}]", "-"))
end

local function open(url, scheduler)
    return redcache.new({ url = url, codec = "raw", namespace = "bench", near = false,
        scheduler = scheduler, group = scheduler, commandTimeout = TIMEOUT })
end

local function sides_of(name, url, servers, keys, map, sides)
    local single, many = open(url, "blocking"), open(url, "coroutine")
    assert(single:setMulti(map, redcache.FOREVER))
    local function side(what, cache, read)
        sides[#sides + 1] = { what .. ", " .. name, function()
            return cost(servers, function() return read(cache, keys, map) end)
        end }
    end
    side("get", single, read_single)
    side("pipelined", many, read_pipelined)
    side("getMulti", single, read_many)
    return function()
        single:close()
        many:close()
    end
end

local function measure(redis, rounds)
    local bed = cluster.start({ replicas = 0 })
    local keys, map, sides = {}, {}, {}
    for i = 1, KEYS do
        keys[i] = random_key()
        map[keys[i]] = bench.text(VALUE_BYTES)
    end
    local close_one = sides_of("one", redis:url(), { redis }, keys, map, sides)
    local close_many = sides_of("3 masters", bed:url(), bed.nodes, keys, map, sides)
    local node, tag = bed:owner(0), cluster.tag(0)
    for name, one in pairs({ one = redis, ["3 masters"] = node }) do
        fill(one, tag)
        for what, per_command in pairs({ ["a key per GET"] = 1, ["128 per MGET"] = 128 }) do
            local command = per_command == 1 and "GET" or "MGET"
            sides[#sides + 1] = { what .. ", " .. name, function()
                return floor(one, tag, command, per_command)
            end }
        end
    end
    local samples = bench.side_by_side(sides, rounds)
    close_one()
    close_many()
    bed:stop()
    return samples
end

local function ratio(what, figure, limit)
    return { of = what .. ", 3 masters", to = what .. ", one", figure = figure,
        at_most = limit and { idle = limit, busy = limit } }
end

bench.run({
    name = "cluster",
    measure = measure,
    figures = { { name = "time", unit = "us/key" }, { name = "client", unit = "us/key" },
        { name = "server", unit = "us/key" } },
    ratios = {
        ratio("get", "client", 1.1), ratio("pipelined", "client", 1.1), ratio("getMulti", "client"),
        ratio("getMulti", "server"), ratio("getMulti", "time"),
        { of = "a key per GET, 3 masters", to = "128 per MGET, one", figure = "server" },
        { of = "getMulti, 3 masters", to = "a key per GET, 3 masters", figure = "server" },
    },
})
