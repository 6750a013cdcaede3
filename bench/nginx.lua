-- nginx - redcache in nginx against what people use there: lua-resty-redis with kept and with
-- pooled connections, ngx.shared.DICT, lua-resty-lrucache, lua-resty-mlcache, lua-resty-lock and a
-- bare ngx.say.
--
-- Args:   --peers "DIR[;DIR]"   folders of Lua libraries, in which rivals are looked for before
--                               the usual places: resty/redis.lua, resty/lrucache.lua,
--                               resty/mlcache.lua, resty/lock.lua. One that is nowhere is left out
--         --workers N           nginx workers (1)

local cjson = require("cjson")
local bench = require("bench.support.bench")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")

local KEYS = 1000
-- Long enough for a median, short enough for nine rounds.
local CALLS = bench.sized({ [1] = 4000, [50] = 40000, [500] = 80000 },
    { [1] = 100, [50] = 500, [500] = 1000 })
local HITS = bench.sized(2000000, 20000)
local LOCKS = bench.sized(4000, 100)
local HTTP_SECONDS, HTTP_CONNECTIONS = 1, 50
local WAITERS, LOAD_MS = bench.sized(2000, 50), bench.sized(300, 50)
local TIMEOUT = 120

local function start(redis, args)
    local http = "lua_shared_dict bench 32m; lua_shared_dict mlcache 32m;\n"
        .. "lua_shared_dict locks 1m; lua_socket_log_errors off;\n"
    local init = ""
    for dir in string.gmatch(args.peers or "", "[^;]+") do
        init = init .. ("package.path = %q .. package.path\n"):format(dir .. "/?.lua;")
    end
    return nginx.start({
        workers = tonumber(args.workers or 1),
        connections = 16384,
        http = http,
        init = init .. ("side = require('bench.support.nginx_side') side.init(%d, %d)")
            :format(redis.port, KEYS),
        server = "keepalive_requests 100000000;",
        locations = {
            ["/ask"] = "content_by_lua_block { side.serve() }",
            ["/say"] = "content_by_lua_block { ngx.say(side.keys[1]) }",
            ["/near"] = "content_by_lua_block { ngx.say((side.l0:get(side.keys[1]))) }",
        },
    })
end

local function ask(server, query)
    local status, body = server:get("/ask?" .. query, { timeout = TIMEOUT })
    if status ~= 200 then
        error("nginx could not answer '" .. query .. "': " .. tostring(body), 0)
    end
    return cjson.decode(body)
end

local function wrk(server, path)
    local ended = process.run({ "wrk", "-t", "1", "-c", tostring(HTTP_CONNECTIONS), "-d",
        HTTP_SECONDS .. "s", ("http://127.0.0.1:%d%s"):format(server.port, path) })
    local rate = ended.out:match("Requests/sec:%s+([%d.]+)")
    if rate == nil or ended.out:find("Non%-2xx") then
        error("wrk failed: " .. ended.out .. ended.err, 0)
    end
    return { rate = tonumber(rate) }
end

local function connections(redis)
    local count = 0
    for _ in redis:call("CLIENT", "LIST"):gmatch("name=redcache%-") do
        count = count + 1
    end
    return count
end

-- The rival of each question that has one.
local RIVALS = { kept = "redis", pooled = "redis", lru = "lrucache", mlcache = "mlcache",
    resty = "lock" }

local function sides_of(server)
    local sides, there = {}, ask(server, "ask=rivals")
    local function add(name, kind, query)
        local rival = RIVALS[kind]
        sides[#sides + 1] = rival and not there[rival]
            and { name, missing = "lua-resty-" .. rival .. " was not found: see --peers" }
            or { name, function() return ask(server, query .. "&kind=" .. kind) end }
    end
    for _, threads in ipairs({ 1, 50, 500 }) do
        for _, kind in ipairs({ "ours", "kept", "pooled" }) do
            add(("%s, %d threads"):format(kind, threads), kind,
                ("ask=wire&threads=%d&calls=%d"):format(threads, CALLS[threads]))
        end
    end
    for _, kind in ipairs({ "near", "shared", "l0", "lru", "remember", "mlcache" }) do
        add(kind .. " hit", kind, ("ask=hit&calls=%d"):format(HITS))
    end
    for _, kind in ipairs({ "tryLock", "withLock", "resty" }) do
        add(kind .. " lock", kind, ("ask=lock&calls=%d"):format(LOCKS))
    end
    sides[#sides + 1] = { "http near hit", function() return wrk(server, "/near") end }
    sides[#sides + 1] = { "http ngx.say", function() return wrk(server, "/say") end }
    for _, kind in ipairs({ "ours", "mlcache" }) do
        add("wave of " .. kind, kind, ("ask=wave&waiters=%d&load=%d"):format(WAITERS, LOAD_MS))
    end
    return sides
end

local RATIOS = {
    { of = "ours, 1 threads", to = "kept, 1 threads", figure = "p50",
        at_most = { idle = 1.0, busy = 1.0 } },
    { of = "ours, 50 threads", to = "kept, 50 threads", figure = "rate",
        at_least = { idle = 4.5, busy = 2.2 } },
    { of = "ours, 50 threads", to = "pooled, 50 threads", figure = "rate",
        at_least = { idle = 3.3, busy = 3.3 } },
    { of = "ours, 500 threads", to = "kept, 500 threads", figure = "rate",
        at_least = { idle = 9, busy = 5 } },
    { of = "ours, 500 threads", to = "pooled, 500 threads", figure = "rate",
        at_least = { idle = 9, busy = 9 } },
    { of = "near hit", to = "shared hit", figure = "ns", at_most = { idle = 0.35, busy = 0.35 } },
    { of = "l0 hit", to = "lru hit", figure = "ns", at_most = { idle = 1.1, busy = 1.1 } },
    { of = "remember hit", to = "mlcache hit", figure = "ns" },
    { of = "tryLock lock", to = "resty lock", figure = "p50" },
    { of = "withLock lock", to = "resty lock", figure = "p50" },
    { of = "http near hit", to = "http ngx.say", figure = "rate",
        at_least = { idle = 0.92, busy = 0.92 } },
    { of = "wave of ours", to = "wave of mlcache", figure = "behind",
        at_most = { idle = 0.5, busy = 0.5 } },
}

local function measure(redis, rounds, args)
    local server = start(redis, args)
    ask(server, "ask=fill")
    local samples = bench.side_by_side(sides_of(server), rounds)
    -- Three caches, two of them with a near cache: two clients, each with one node.
    print(("connections to Redis: %d (at most 2 clients x %d workers x 1 node x 2)"):format(
        connections(redis), #server:workers()))
    server:stop()
    return samples
end

bench.run({
    name = "nginx",
    arguments = { "peers", "workers" },
    measure = measure,
    figures = {
        { name = "p50", unit = "us" }, { name = "p99", unit = "ms" },
        { name = "behind", unit = "ms" }, { name = "rate", unit = "/s" },
        { name = "ns", unit = "" }, { name = "loads", unit = "" },
    },
    ratios = RATIOS,
    limits = { { of = "wave of ours", figure = "behind", at_most = { idle = 10 } } },
})
