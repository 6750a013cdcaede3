-- nginx_side - what the bench of nginx runs inside it: one function per question.
--
-- What:   each is asked over HTTP with its arguments and answers figures in JSON. The rivals are
--         ngx.shared.DICT and, where they are found, lua-resty-redis (Debian: lua-nginx-redis),
--         lua-resty-lrucache, lua-resty-mlcache and lua-resty-lock.
-- Not:    which figures are compared, and with which bars (bench/nginx.lua).

local cjson = require("cjson")
local ffi = require("ffi")
local hot_loop = require("bench.support.hot_loop")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local MONOTONIC, PROCESS_CPUTIME = 1, 2
local time = ffi.new("struct rcbed_timespec")

local nginx_side = {}

local REDIS_TIMEOUT_MS = 5000
local POOL_SIZE = 1000
local NAMESPACE = "bench"
local VALUE_BYTES = 100
local random = math.random

local function read(clock)
    posix.C.clock_gettime(clock, time)
    return tonumber(time.tv_sec) + tonumber(time.tv_nsec) / 1e9
end

local function now()
    return read(MONOTONIC)
end

-- Random values: those like "vvv...17" collide in LuaJIT's sparse string hash.
local function text(len)
    local bytes = {}
    for i = 1, len do
        bytes[i] = string.char(random(97, 122))
    end
    return table.concat(bytes)
end

local function median(values)
    table.sort(values)
    return values[math.ceil(#values / 2)]
end

local function quantile(values, share)
    table.sort(values)
    return values[math.max(1, math.ceil(#values * share))]
end

-- Libraries of others by the names they go by: the first that is there.
local RIVALS = {
    redis = { "resty.redis", "nginx.redis" },
    lrucache = { "resty.lrucache" },
    mlcache = { "resty.mlcache" },
    lock = { "resty.lock" },
}
local rivals = {}

for rival, names in pairs(RIVALS) do
    for _, name in ipairs(names) do
        local ok, library = pcall(require, name)
        rivals[rival] = rivals[rival] or ok and library or nil
    end
end

---Which rivals are there.
function nginx_side.rivals()
    local found = {}
    for rival in pairs(RIVALS) do
        found[rival] = rivals[rival] ~= nil
    end
    return found
end

---Prepares a worker: the keys, and the caches. Called by init_by_lua.
function nginx_side.init(port, count)
    math.randomseed(os.time()) -- another nginx must not meet the same cold keys again
    nginx_side.port = port
    nginx_side.keys = {}
    for i = 1, count do
        nginx_side.keys[i] = text(16)
    end
    local function open(namespace, near)
        return redcache.new({ url = "redis://127.0.0.1:" .. port, namespace = namespace,
            codec = "raw", scheduler = "resty", near = near, maxStale = 10, waitTimeout = 30,
            commandTimeout = 20, connectTimeout = 20 }) -- a busy machine is no error
    end
    nginx_side.wired = open(NAMESPACE, false)
    nginx_side.near = open(NAMESPACE, { l0 = false })
    nginx_side.l0 = open(NAMESPACE, true)
end

---Fills Redis with a value per key.
function nginx_side.fill()
    local map = {}
    for _, key in ipairs(nginx_side.keys) do
        map[key] = text(VALUE_BYTES)
    end
    assert(nginx_side.wired:setMulti(map, redcache.FOREVER))
    return { count = #nginx_side.keys }
end

-- Reads over the wire -----------------------------------------------------------------------------

local function connect()
    local redis = rivals.redis:new()
    redis:set_timeout(REDIS_TIMEOUT_MS)
    assert(redis:connect("127.0.0.1", nginx_side.port, { pool_size = POOL_SIZE }))
    return redis
end

-- Each gives a function that reads one key, and one that ends.
local READERS = {
    ours = function()
        local cache = nginx_side.wired
        return function(key)
            return cache:get(key)
        end, function() end
    end,
    kept = function()
        local redis, prefix = connect(), NAMESPACE .. ":"
        return function(key)
            return redis:get(prefix .. key)
        end, function()
            redis:close()
        end
    end,
    pooled = function()
        local prefix = NAMESPACE .. ":"
        return function(key)
            local redis = connect()
            local value = redis:get(prefix .. key)
            redis:set_keepalive(60000, POOL_SIZE)
            return value
        end, function() end
    end,
}

-- Each kind has a loop of its own: see hot_loop.lua.
local READ_ALL = [[
return function(reader, keys, offset, each, times, now)
    for i = 1, each do
        local before = times and now()
        assert(type(reader(keys[(i * 7 + offset) % #keys + 1])) == "string")
        if before then
            times[i] = now() - before
        end
    end
end
]]
local reads = {}

local function read_of(kind)
    reads[kind] = reads[kind] or assert(loadstring(READ_ALL, "=read " .. kind))()
    return reads[kind]
end

---`threads` light threads read `calls` keys in all. rate: reads per second; p50, cost and
---processor (what the worker used of one, per read): microseconds.
function nginx_side.wire(args)
    local threads, calls = tonumber(args.threads), tonumber(args.calls)
    local keys = nginx_side.keys
    local each = math.ceil(calls / threads)
    local times = {}
    local read_all = read_of(args.kind)
    local readers, ends = {}, {}
    for i = 1, threads do
        readers[i], ends[i] = READERS[args.kind]()
    end
    for i = 1, threads do -- what a first call costs is not the question
        readers[i](keys[1])
    end
    collectgarbage()
    local before, worked, running = now(), read(PROCESS_CPUTIME), {}
    for i = 1, threads do
        running[i] = ngx.thread.spawn(read_all, readers[i], keys, i, each,
            threads == 1 and times or nil, now)
    end
    for i = 1, threads do
        assert(ngx.thread.wait(running[i]))
    end
    local elapsed = now() - before
    worked = read(PROCESS_CPUTIME) - worked
    for i = 1, threads do
        ends[i]()
    end
    return { rate = threads * each / elapsed, cost = elapsed / (threads * each) * 1e6,
        processor = worked / (threads * each) * 1e6,
        p50 = threads == 1 and median(times) * 1e6 or nil }
end

-- Hits in memory ----------------------------------------------------------------------------------

local function mlcache()
    nginx_side.mlcache = nginx_side.mlcache or assert(rivals.mlcache.new("bench", "mlcache",
        { lru_size = 20000, shm_locks = "locks", resty_lock_opts = { timeout = 30 } }))
    return nginx_side.mlcache
end

local function never()
    error("a hit was not expected to load")
end

local function lru()
    nginx_side.lru = nginx_side.lru or assert(rivals.lrucache.new(20000))
    return nginx_side.lru
end

-- How each reads a key, and what it reads from.
local READS = {
    near = { "value = subject:get(key)", function() return nginx_side.near end },
    l0 = { "value = subject:get(key)", function() return nginx_side.l0 end },
    remember = { "value = subject:remember(key, 3600, extra)",
        function() return nginx_side.l0, never end },
    shared = { "value = subject:get(key)", function() return ngx.shared.bench end },
    lru = { "value = subject:get(key)", lru },
    mlcache = { "value = subject:get(key, nil, extra)", function() return mlcache(), never end },
}
local loops = {}

-- Each has a loop of its own: in one that all share, the first would run in the trace of the loop,
-- and the others in side traces of it, which do everything again in each turn.
local function loop_of(kind)
    if not loops[kind] then
        local body, give = READS[kind][1], READS[kind][2]
        loops[kind] = hot_loop.new(kind, body, nginx_side.keys, give())
    end
    return loops[kind]
end

---ns: nanoseconds of a hit in memory; processor: microseconds of one.
function nginx_side.hit(args)
    local keys, kind = nginx_side.keys, args.kind
    local run, passes = loop_of(kind), math.ceil(tonumber(args.calls) / #keys)
    for _, key in ipairs(keys) do
        local value = assert(nginx_side.near:get(key))
        ngx.shared.bench:set(key, value)
        if kind == "mlcache" then
            assert(mlcache():get(key, { ttl = 3600 }, function() return value end))
        elseif kind == "lru" then
            lru():set(key, value, 3600)
        end
        nginx_side.l0:get(key)
        nginx_side.l0:get(key)
    end
    run(20) -- until it is compiled
    collectgarbage()
    local before, worked = now(), read(PROCESS_CPUTIME)
    local calls = run(passes)
    return { ns = (now() - before) / calls * 1e9,
        processor = (read(PROCESS_CPUTIME) - worked) / calls * 1e6 }
end

-- Locks -------------------------------------------------------------------------------------------

-- Each takes a lock that nobody holds, and gives it back. Ours are those of all machines, in Redis;
-- lua-resty-lock's are this machine's, in its memory.
local LOCKS = {
    tryLock = function(key)
        assert(assert(nginx_side.wired:tryLock(key)):release())
    end,
    withLock = function(key)
        assert(nginx_side.wired:withLock(key, {}, function() return true end))
    end,
    resty = function(key)
        local lock = assert(rivals.lock:new("locks"))
        assert(lock:lock(key))
        assert(lock:unlock())
    end,
}

---p50: microseconds of a lock and its release.
function nginx_side.lock(args)
    local lock, keys, times = LOCKS[args.kind], nginx_side.keys, {}
    lock(keys[1])
    collectgarbage()
    for i = 1, tonumber(args.calls) do
        local before = now()
        lock(keys[i % #keys + 1])
        times[i] = now() - before
    end
    return { p50 = median(times) * 1e6 }
end

-- A wave ------------------------------------------------------------------------------------------

local WAVES = {
    ours = function(key, load)
        return nginx_side.l0:remember(key, 60, load, { waitTimeout = 30 })
    end,
    mlcache = function(key, load)
        return mlcache():get(key, { ttl = 60 }, load)
    end,
}

---`waiters` light threads ask for one cold key whose loader takes `load` milliseconds. behind: of
---the 99th of a hundred, behind the loader's end; p99: since the first was started.
function nginx_side.wave(args)
    local key, waiters, loads = text(16), tonumber(args.waiters), 0
    local ask, times, behind, loaded = WAVES[args.kind], {}, {}, nil
    local function load()
        loads = loads + 1
        ngx.sleep(tonumber(args.load) / 1000)
        loaded = now()
        return "loaded"
    end
    collectgarbage() -- what the wave before has left is not the question
    local begun, running = now(), {}
    for i = 1, waiters do
        running[i] = ngx.thread.spawn(function()
            local value, err = ask(key, load)
            assert(value == "loaded", tostring(err))
            local ended = now()
            times[i], behind[i] = (ended - begun) * 1000, (ended - loaded) * 1000
        end)
    end
    for i = 1, waiters do
        assert(ngx.thread.wait(running[i]))
    end
    assert(loads == 1, "the key was not cold, or was loaded twice")
    return { loads = loads, p99 = quantile(times, 0.99), behind = quantile(behind, 0.99) }
end

---The content handler.
function nginx_side.serve()
    local args = ngx.req.get_uri_args()
    local ok, figures = xpcall(nginx_side[args.ask], debug.traceback, args)
    if not ok then
        ngx.status = 500
        ngx.print(figures)
        return
    end
    ngx.print(cjson.encode(figures))
end

return nginx_side
