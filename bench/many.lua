-- many - getMulti of 100 keys that are near, in L0 and in the near cache, against 100 single gets:
-- those whose values are put into a table by key, as getMulti gives them (map), and bare ones. From
-- L0 also with values by position (list), in a table that is used again (into), and rememberMulti.
--
-- From Redis there is no rival here: script/bench compare sets two builds against each other.

local redcache = require("redcache")
local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local warm = require("bench.support.warm")

local KEYS, LIST, LISTS = 1000, 100, bench.sized(64, 4)
local KEY_BYTES, VALUE_BYTES = 16, 100
local SECONDS = bench.sized(0.2, 0.01) -- per side and round
local TTL = 600

-- Nanoseconds per key of a reader of lists.
local function time(read, lists)
    local before, passes = clock.now(), 0
    local elapsed
    collectgarbage()
    repeat
        for i = 1, #lists do
            read(lists[i])
        end
        passes = passes + 1
        elapsed = clock.now() - before
    until elapsed >= SECONDS
    return { ns = elapsed / (passes * #lists * LIST) * 1e9 }
end

local function missing()
    error("a hit was expected")
end

-- The value is kept until the next one comes: LuaJIT makes no string that nobody keeps.
local GETS = [=[
local cache, missing = ...
local kept = {}
return function(list)
    for i = 1, #list do
        local value = cache:get(list[i])
        if value == nil then missing() end
        kept[1] = value
    end
end]=]
-- What getMulti gives, by single gets.
local MAP = [=[
local cache, missing = ...
return function(list)
    local values = {}
    for i = 1, #list do values[list[i]] = cache:get(list[i]) end
    if values[list[1]] == nil or values[list[#list]] == nil then missing() end
end]=]
local GET_MULTI = [=[
local cache, missing = ...
return function(list)
    local values = cache:getMulti(list)
    if values[list[1]] == nil or values[list[#list]] == nil then missing() end
end]=]
-- The two by position.
local LIST_MULTI = [=[
local cache, missing = ...
local opts = { list = true }
return function(list)
    local values = cache:getMulti(list, opts)
    if values[1] == nil or values[#list] == nil then missing() end
end]=]
local REMEMBER_LIST = [=[
local cache, missing = ...
local opts = { list = true }
return function(list)
    local values = cache:rememberMulti(list, 600, missing, opts)
    if values[1] == nil or values[#list] == nil then missing() end
end]=]
local INTO = (LIST_MULTI:gsub("true }", "true, into = {} }"))
local REMEMBER_MULTI = (GET_MULTI:gsub("getMulti%(list", "rememberMulti(list, 600, missing"))

-- Code of its own for each side: else they would run through each other's traces.
local function reader(code, cache)
    return assert(loadstring(code))(cache, missing)
end

local function measure(redis, rounds)
    local root = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench",
        maxStale = 60 })
    local l0, near = root:namespace("l0"), root:namespace("near", { near = { l0 = false } })
    local wire = root:namespace("wire", { near = false })
    local keys = bench.texts(KEYS, KEY_BYTES)
    local lists, map = warm.lists(keys, LIST, LISTS), {}
    for _, key in ipairs(keys) do
        map[key] = bench.text(VALUE_BYTES)
    end
    local sides = {}
    for _, side in ipairs({ { "l0", l0 }, { "near", near }, { "redis", wire } }) do
        local name, cache = side[1], side[2]
        assert(cache:setMulti(map, TTL))
        for kind, code in pairs({ gets = GETS, map = MAP, getMulti = GET_MULTI, list = LIST_MULTI,
            into = INTO, rememberMulti = REMEMBER_MULTI, rememberList = REMEMBER_LIST }) do
            if name == "l0" or kind == "getMulti"
                or name == "near" and (kind == "gets" or kind == "map") then
                local read = reader(code, cache)
                sides[#sides + 1] = { kind .. " " .. name, function()
                    warm.warm(cache, keys, name)
                    return time(read, lists)
                end }
            end
        end
    end
    local samples = bench.side_by_side(sides, rounds)
    root:close()
    return samples
end

bench.run({
    name = "many",
    measure = measure,
    figures = { { name = "ns", unit = "ns/key" } },
    ratios = {
        { of = "getMulti l0", to = "map l0", figure = "ns", at_most = { idle = 0.7, busy = 0.7 } },
        { of = "getMulti near", to = "map near", figure = "ns",
            at_most = { idle = 1, busy = 1 } },
        { of = "list l0", to = "gets l0", figure = "ns", at_most = { idle = 0.8, busy = 0.8 } },
        { of = "into l0", to = "gets l0", figure = "ns", at_most = { idle = 0.8, busy = 0.8 } },
        -- Without bars: the table of the answer alone takes longer than gets from L0.
        { of = "getMulti l0", to = "gets l0", figure = "ns" },
        { of = "rememberMulti l0", to = "gets l0", figure = "ns" },
        { of = "rememberList l0", to = "gets l0", figure = "ns" },
        { of = "getMulti near", to = "gets near", figure = "ns" },
    },
})
