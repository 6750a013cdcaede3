-- start - what a short process pays: to its first GET and exit, against a Go program that does the
-- same with rueidis; and require("redcache") alone, beside a luajit that does nothing.
--
-- What:   the module as `cmake --install` leaves it, with the bytecode of what every start needs.
-- Figures: of one process, from its start to its end: ms passed, and cpu (user and system).

local bench = require("bench.support.bench")
local peer = require("bench.support.peer")
local process = require("spec.support.process")
local temp = require("spec.support.temp")

local PROCESSES = bench.sized(50, 3) -- per side and round

local LOOP = 'i=0; while [ $i -lt $0 ]; do "$@" || exit 1; i=$((i+1)); done'
-- How long the loop took, and what `times` says of its processes: 0m0.01s 0m0.02s.
local PROGRAM = "s=$(date +%s%N); " .. LOOP .. "; e=$(date +%s%N); echo $((e-s)); times"

local GET = [[
    local redcache = require("redcache")
    local cache = redcache.new({ url = "redis://127.0.0.1:%d", codec = "raw" })
    assert(cache:get("%s") == "%s")
    cache:close()]]

local function done(ended)
    if ended.exit ~= 0 then error(ended.err .. ended.out, 0) end
    return ended
end

local function run(env, ...)
    local ended = done(process.run({ "sh", "-c", PROGRAM, PROCESSES, env = env, ... }, 120))
    local passed, user_m, user, system_m, system =
        ended.out:match("^(%d+)\n[^\n]*\n(%d+)m([%d.]+)s (%d+)m([%d.]+)s")
    return { ms = passed / 1e6 / PROCESSES,
        cpu = ((user_m + system_m) * 60 + user + system) * 1e3 / PROCESSES }
end

-- What a process pays for more than luajit itself.
local function beyond(name, sample, control)
    local made = { name = name, rounds = {} }
    for round, figures in ipairs(sample.rounds) do
        local nothing = control.rounds[round]
        made.rounds[round] = { ms = figures.ms - nothing.ms, cpu = figures.cpu - nothing.cpu }
    end
    return made
end

local function measure(redis, rounds, args)
    local prefix = temp.dir()
    done(process.run({ "cmake", "--install", os.getenv("REDCACHE_BUILD_DIR") or "build",
        "--prefix", prefix }))
    -- Nothing of the build's own: the library, too, is found where it was installed.
    local env = { LUA_PATH = prefix .. "/share/lua/5.1/?.lua", REDCACHE_LIBRARY = "",
        LUA_CPATH = prefix .. "/lib/lua/5.1/?.so;" .. prefix .. "/lib64/lua/5.1/?.so" }
    local key, value = bench.text(16):gsub("[%%\"\\]", "x"), bench.text(100):gsub("[%%\"\\]", "x")
    redis:call("SET", key, value)
    local peers = peer.open(args, redis)
    local program, missing = peers:program("first")
    local function side(name, ...)
        local words = { ... }
        return { name, function() return run(env, unpack(words)) end }
    end
    local samples = bench.side_by_side({
        side("luajit", "luajit", "-e", ""),
        side("require", "luajit", "-e", 'require("redcache")'),
        side("first GET", "luajit", "-e", GET:format(redis.port, key, value)),
        program and side("rueidis", program, redis.port, key) or { "rueidis", missing = missing },
    }, rounds)
    peers:close()
    temp.remove(prefix)
    table.insert(samples, 3, beyond("require alone", samples[2], samples[1]))
    return samples
end

bench.run({
    name = "start",
    measure = measure,
    figures = { { name = "ms", unit = "of a process" }, { name = "cpu", unit = "ms" } },
    ratios = {
        { of = "first GET", to = "rueidis", figure = "ms", at_most = { idle = 0.8 } },
        { of = "first GET", to = "rueidis", figure = "cpu" },
    },
    limits = { { of = "require alone", figure = "ms", at_most = { idle = 3 } } },
})
