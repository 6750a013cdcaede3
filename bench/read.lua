-- read - a blocking read of a hit, near cache off: redcache against hiredis called directly.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local hiredis = require("bench.support.hiredis")

local CALLS = bench.sized(3000, 50) -- per side and round
local KEYS = bench.sized(1000, 50)
local KEY_BYTES = 16
local VALUE_BYTES = 100
local NAMESPACE = "bench"

local function trivial_loader()
    error("a hit was expected")
end

local function fill(redis, cache, keys)
    for _, key in ipairs(keys) do
        local value = bench.text(VALUE_BYTES)
        assert(cache:set(key, value, redcache.FOREVER))
        redis:call("SET", key, value)
        assert(cache:get(key) == value)
    end
end

local function readers(cache, connection)
    local function get(key)
        return cache:get(key) or error("a hit was expected")
    end
    local function remember(key)
        return cache:remember(key, 60, trivial_loader)
    end
    local function direct(key)
        return hiredis.get(connection, key) or error("a hit was expected")
    end
    return get, remember, direct
end

local function measure(redis, rounds)
    local keys = bench.texts(KEYS, KEY_BYTES)
    local opts = { codec = "raw", namespace = NAMESPACE, near = false }
    opts.url = redis:url()
    local tcp = redcache.new(opts)
    opts.url = redis:unix_url()
    local unix = redcache.new(opts)
    local connection = hiredis.connect({ port = redis.port })
    local unix_connection = hiredis.connect({ path = redis.path })
    fill(redis, tcp, keys)

    local get, remember, direct = readers(tcp, connection)
    local unix_get, _, unix_direct = readers(unix, unix_connection)
    local function side(fn)
        return function()
            return bench.latency(fn, keys, CALLS)
        end
    end
    local samples = bench.side_by_side({
        { "get", side(get) },
        { "hiredis", side(direct) },
        { "remember", side(remember) },
        { "get unix", side(unix_get) },
        { "hiredis unix", side(unix_direct) },
    }, rounds)
    tcp:close()
    unix:close()
    return samples
end

bench.run({
    name = "read",
    measure = measure,
    figures = { { name = "p50", unit = "us" }, { name = "p99", unit = "us" } },
    ratios = {
        { of = "get", to = "hiredis", figure = "p50", at_most = { idle = 0.55, busy = 1.05 } },
        { of = "get", to = "hiredis", figure = "p99" },
        { of = "remember", to = "hiredis", figure = "p50" },
        { of = "get unix", to = "hiredis unix", figure = "p50" },
    },
})
