-- warm - caches whose keys are held where a bench wants them read from.
--
-- What:   fill(cache, keys, of) stores random values; warm(cache, keys, source) reads all until
--         they come from there; lists(keys, len) are lists of some of them in random order.
-- Errors: throw.

local bench = require("bench.support.bench")

local warm = {}

local BATCH = 1000
local TTL = 600
local TRIES = 100

---Stores a value of its own under each key.
---@param of integer|fun(): any bytes of random text, or what makes a value
---@param ttl any as for setMulti (600)
function warm.fill(cache, keys, of, ttl)
    local make = type(of) == "function" and of or function() return bench.text(of) end
    local map = {}
    for i, key in ipairs(keys) do
        map[key] = make()
        if i % BATCH == 0 or i == #keys then
            assert(cache:setMulti(map, ttl or TTL))
            map = {}
        end
    end
end

---Reads every key until its answer comes from `source` ("l0", "near", "redis"): what nobody has
---asked for meanwhile may have to go to Redis first.
function warm.warm(cache, keys, source)
    for _, key in ipairs(keys) do
        local err, from
        for _ = 1, TRIES do
            err, from = select(2, cache:get(key))
            if from == source then break end
        end
        if from ~= source then
            error(("could not warm up: %s expected, got %s (%s)"):format(source, tostring(from),
                tostring(err)))
        end
    end
end

---`count` lists of `len` different keys.
function warm.lists(keys, len, count)
    local lists = {}
    for n = 1, count do
        local list, rest = {}, { unpack(keys) }
        for i = 1, len do
            list[i] = table.remove(rest, math.random(#rest))
        end
        lists[n] = list
    end
    return lists
end

return warm
