-- near - what a hit costs that never leaves this machine: L0 and near cache against
-- lua-resty-lrucache and a plain Lua table; two processes that share a region; aborted traces.
--
-- The rival runs outside of nginx (support/lrucache.lua). The bench keeps no values: a Lua string
-- that a near hit needs is made, or still there from the last time.

local redcache = require("redcache")
local core_near = require("redcache.core.near")
local bench = require("bench.support.bench")
local hot_loop = require("bench.support.hot_loop")
local lrucache = require("bench.support.lrucache")
local near_share = require("bench.support.near_share")
local near_traces = require("bench.support.near_traces")
local warm = require("bench.support.warm")

local KEYS, MANY_KEYS = bench.sized(1000, 100), bench.sized(100000, 1000)
local KEY_BYTES, VALUE_BYTES = 16, 100
local REPEATS = 16                 -- how often a key stands in the order of reading
local PASSES, MANY_PASSES = 20, 5  -- of that order, per side and round
local TTL = 600

local GET = "value = subject:get(key)"
local INDEX = "value = subject[key]"
local REMEMBER = "value = subject:remember(key, 600, extra)"
-- What a hit cannot do without: the least any face could cost. It may be half an hour old: these
-- have no way to Redis for what is not known coherent. A key or two of 1,000 may have no place in
-- L0: those cost as much here, for nobody asks their handles.
local CHECK = "value = subject.values[extra(subject.places, key, 2147483647)] or key"
local VIEW_GET = "value = extra(subject, key, 2147483647) == 1 or nil"
local VIEW_STRING = [[
    if extra.view_get(subject, key, 2147483647) == 1 then
        value = extra.bytes()
    end
]]

local function no_loader()
    error("a hit was expected")
end

local function text_of_value()
    return bench.text(VALUE_BYTES)
end

local function record()
    return { name = bench.text(5), age = math.random(100) }
end

-- While others were measured, nobody asked whether these still stand: then one goes to Redis.
local function warm_again(subjects, keys)
    warm.warm(subjects.text, keys, "l0")
    warm.warm(subjects.record, keys, "l0")
    warm.warm(subjects.near, keys, "near")
end

-- What is read: caches that are warm, and the rivals with the same keys and as long values.
local function open(redis, keys, many_keys)
    local root = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench" })
    -- In a region of its own: the hot keys shall have theirs to themselves.
    local many = redcache.new({
        url = redis:url(), codec = "raw", namespace = "many", group = "many",
        near = { l0 = { entries = 200000, bytes = 128 * 1024 * 1024 } },
    })
    local subjects = {
        root = root,
        text = root:namespace("text"),
        record = root:namespace("record", { codec = "msgpack" }),
        near = root:namespace("near", { near = { l0 = false } }),
        many = many,
        table = {}, many_table = {},
        lrucache = assert(lrucache.new(KEYS)),
    }
    warm.fill(root, keys, text_of_value) -- for the processes of near_share
    warm.fill(subjects.text, keys, text_of_value)
    warm.fill(subjects.record, keys, record)
    warm.fill(subjects.near, keys, text_of_value)
    warm.fill(subjects.many, many_keys, text_of_value)
    warm_again(subjects, keys)
    warm.warm(subjects.many, many_keys, "l0")
    for _, key in ipairs(keys) do
        local value = text_of_value()
        subjects.table[key] = value
        subjects.lrucache:set(key, value, TTL)
    end
    for _, key in ipairs(many_keys) do
        subjects.many_table[key] = text_of_value()
    end
    return subjects
end

-- The parts of a cache's L0 that a hit touches.
local function l0_parts(cache)
    return { places = cache._places, values = cache._values }
end

local function hit_sides(subjects, keys, many_keys)
    local order = hot_loop.shuffled(keys, REPEATS)
    local many_order = hot_loop.shuffled(many_keys, 1)
    local sides = {}
    local function side(name, body, subject, extra, list)
        local run = hot_loop.new(name, body, list or order, subject, extra)
        local passes = list and MANY_PASSES or PASSES
        sides[#sides + 1] = { name, function()
            warm_again(subjects, keys)
            return { hit = hot_loop.time(run, passes) }
        end }
    end
    side("loop alone", "value = key")
    side("table", INDEX, subjects.table)
    side("lrucache", GET, subjects.lrucache)
    side("L0 check", CHECK, l0_parts(subjects.text), core_near.l0_find)
    side("L0 check, decoded table", CHECK, l0_parts(subjects.record), core_near.l0_find)
    side("view_get", VIEW_GET, subjects.near._view, core_near.view_get)
    side("view_get and string", VIEW_STRING, subjects.near._view, core_near)
    side("get L0", GET, subjects.text)
    side("get L0, decoded table", GET, subjects.record)
    side("get near", GET, subjects.near)
    side("remember L0", REMEMBER, subjects.text, no_loader)
    side("remember near", REMEMBER, subjects.near, no_loader)
    side("table, 100 k keys", INDEX, subjects.many_table, nil, many_order)
    side("get L0, 100 k keys", GET, subjects.many, nil, many_order)
    return sides
end

local function measure(redis, rounds)
    local keys, many_keys = bench.texts(KEYS, KEY_BYTES), bench.texts(MANY_KEYS, KEY_BYTES)
    local subjects = open(redis, keys, many_keys)
    local samples = bench.side_by_side(hit_sides(subjects, keys, many_keys), rounds)
    local stats = subjects.root.near:stats()
    subjects.root:close()
    subjects.many:close()
    print(("near: %d entries, %.0f bytes each, %d misses"):format(
        stats.entries, stats.bytes / stats.entries, stats.misses))

    local share = near_share.start({ url = redis:url(), keys = keys, get = GET, index = INDEX })
    for _, sample in ipairs(bench.side_by_side(share:sides(), rounds)) do
        samples[#samples + 1] = sample
    end
    share:stop()
    samples[#samples + 1] = near_traces.sample({
        url = redis:url(), keys = keys, get = GET, remember = REMEMBER,
    })
    return samples
end

bench.run({
    name = "near",
    measure = measure,
    figures = {
        { name = "hit", unit = "ns" },
        { name = "rate", unit = "million reads/s" },
        { name = "aborts", unit = "traces" },
    },
    ratios = {
        { of = "L0 check", to = "lrucache", figure = "hit", at_most = { idle = 0.65 } },
        { of = "get L0", to = "lrucache", figure = "hit" },
        { of = "get L0", to = "table", figure = "hit" },
        { of = "get L0, 100 k keys", to = "table, 100 k keys", figure = "hit" },
        { of = "2 near", to = "1 near", figure = "rate", at_least = { idle = 1.85 } },
        { of = "2 table", to = "1 table", figure = "rate" },
    },
    limits = {
        { of = "L0 check", figure = "hit", at_most = { idle = 20 } },
        { of = "L0 check, decoded table", figure = "hit", at_most = { idle = 25 } },
        { of = "view_get and string", figure = "hit", at_most = { idle = 60 } },
        { of = "get L0", figure = "hit", at_most = { idle = 60 } },
        { of = "get L0, decoded table", figure = "hit", at_most = { idle = 60 } },
        { of = "get near", figure = "hit", at_most = { idle = 110 } },
        { of = "remember L0", figure = "hit", at_most = { idle = 60 } },
        { of = "remember near", figure = "hit", at_most = { idle = 110 } },
        { of = "aborted traces", figure = "aborts", at_most = { idle = 0, busy = 0 } },
    },
})
