-- hits - reads that never leave this machine, by the calls people make, against the Go clients that
-- keep values, too: rueidis' DoCache, go-redis' client-side cache, dcbickfo/redcache.
-- What a hit costs beside lua-resty-lrucache and a Lua table: bench/near.lua.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local hot_loop = require("bench.support.hot_loop")
local peer = require("bench.support.peer")
local warm = require("bench.support.warm")

local KEYS, LIST, LISTS = 1000, 100, 64
local KEY_BYTES, VALUE_BYTES = 16, 100
local REPEATS, PASSES = 16, 20 -- of all keys in the order of reading, and of that order
local SECONDS = bench.sized(0.2, 0.01) -- of a side that reads lists, per round

local GET = "value = subject:get(key)"
local REMEMBER = "value = subject:remember(key, 600, extra)"
-- The list is the key.
local GET_MULTI = "value = subject:getMulti(key)[key[1]]"
local REMEMBER_MULTI = "value = subject:rememberMulti(key, 600, extra)[key[1]]"
local GET_LIST = "value = subject:getMulti(key, { list = true })[1]"
local REMEMBER_LIST = "value = subject:rememberMulti(key, 600, extra, { list = true })[1]"

local function no_loader()
    error("a hit was expected")
end

local function time_lists(run)
    local turns, before = 0, clock.now()
    local elapsed
    collectgarbage()
    repeat
        turns = turns + run(1)
        elapsed = clock.now() - before
    until elapsed >= SECONDS
    return { ns = elapsed / (turns * LIST) * 1e9 }
end

local function measure(redis, rounds, args)
    local peers = peer.open(args, redis)
    local root = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench",
        commandTimeout = 20 }) -- a busy machine is to be slow, not wrong
    local caches = { l0 = root:namespace("l0"),
        near = root:namespace("near", { near = { l0 = false } }) }
    local keys = bench.texts(KEYS, KEY_BYTES)
    local order, lists = hot_loop.shuffled(keys, REPEATS), warm.lists(keys, LIST, LISTS)
    local sides = {}
    -- While others are measured, nobody asks whether the values still stand.
    local function ours(name, source, body, of_lists)
        local cache = caches[source]
        local run = hot_loop.new(name, body, of_lists and lists or order, cache, no_loader)
        sides[#sides + 1] = { name, function()
            warm.warm(cache, keys, source)
            if of_lists then return time_lists(run) end
            return { ns = hot_loop.time(run, bench.sized(PASSES, 1)) }
        end, count = function()
            warm.warm(cache, keys, source)
            return function() run(1) end, of_lists and LISTS * LIST or #order
        end }
    end
    local function theirs(name, ask)
        sides[#sides + 1] = peers:side(name, ask,
            { keys = KEYS, list = LIST, bytes = VALUE_BYTES, seconds = SECONDS })
    end
    for _, cache in pairs(caches) do warm.fill(cache, keys, VALUE_BYTES) end
    ours("get L0", "l0", GET)
    ours("remember L0", "l0", REMEMBER)
    ours("get near", "near", GET)
    ours("remember near", "near", REMEMBER)
    theirs("rueidis DoCache", "rueidis.hit")
    theirs("go-redis cached GET", "goredis.hit")
    theirs("Go redcache Get", "goredcache.hit")
    ours("getMulti L0", "l0", GET_MULTI, true)
    ours("rememberMulti L0", "l0", REMEMBER_MULTI, true)
    ours("getMulti L0, list", "l0", GET_LIST, true)
    ours("rememberMulti L0, list", "l0", REMEMBER_LIST, true)
    ours("getMulti near", "near", GET_MULTI, true)
    ours("rememberMulti near", "near", REMEMBER_MULTI, true)
    theirs("Go redcache GetMulti", "goredcache.hitMany")
    local samples = bench.side_by_side(sides, rounds)
    root:close()
    peers:close()
    return samples
end

bench.run({
    name = "hits",
    measure = measure,
    figures = { { name = "ns", unit = "ns/key" } },
    ratios = {
        { of = "get near", to = "rueidis DoCache", figure = "ns", at_most = bench.both(0.2) },
        { of = "remember near", to = "rueidis DoCache", figure = "ns", at_most = bench.both(0.25) },
        { of = "remember L0", to = "Go redcache Get", figure = "ns", at_most = bench.both(0.04) },
        { of = "get near", to = "go-redis cached GET", figure = "ns" },
        { of = "rememberMulti L0", to = "Go redcache GetMulti", figure = "ns",
            at_most = bench.both(0.06) },
        { of = "rememberMulti L0, list", to = "Go redcache GetMulti", figure = "ns",
            at_most = bench.both(0.06) },
        { of = "getMulti L0", to = "get L0", figure = "ns", at_most = bench.both(0.8) },
        { of = "getMulti L0, list", to = "get L0", figure = "ns", at_most = bench.both(0.8) },
        { of = "getMulti L0", to = "Go redcache GetMulti", figure = "ns" },
        { of = "rememberMulti near", to = "Go redcache GetMulti", figure = "ns" },
    },
})
