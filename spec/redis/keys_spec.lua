-- Keys and conditional writes: calls made up from a seed, which Redis and the embedded store must
-- answer alike. What single calls promise: spec/support/cases.
--
-- Env: REDCACHE_KEYS_SEED: the seed (random); REDCACHE_KEYS_CALLS: how many calls (2000).

local clock = require("spec.support.clock")
local core_extra = require("redcache.core.extra")
local herd = require("spec.support.herd")
local redcache = require("redcache")
local resp = require("spec.support.resp")
local server = require("spec.support.server")
local store_server = require("spec.support.store_server")

local CALLS = tonumber(os.getenv("REDCACHE_KEYS_CALLS")) or 2000
local SEED = tonumber(os.getenv("REDCACHE_KEYS_SEED")) or os.time() % 1000000

local redis, store

setup(function()
    redis = server.start()
    store = store_server.start()
end)
teardown(function()
    redis:stop()
    store:stop()
end)

-- Strings that only look like loads, their ends and nothing, and those that are.
local HEAD = "\251\1\4" .. ("\0"):rep(5) .. "12345678" .. ("\0"):rep(8)
local STRINGS = {
    "", "text", "7", "\251\1\2", HEAD, HEAD .. "x", "\251\1\3\1" .. HEAD:sub(5),
    "\251\1\3" .. HEAD:sub(4) .. "why", "\251\1\2" .. HEAD:sub(4), "\251\1\9" .. HEAD:sub(4),
    "\251\1\1" .. HEAD:sub(4, 16) .. "\0\0\1\0" .. HEAD:sub(21) .. "\1",
}
local KEYS = { "a", "b", "c" }

local function pick(list) return list[math.random(#list)] end

-- What a call has answered, as text.
local function told(...)
    local parts = {}
    for i = 1, math.min(select("#", ...), 3) do -- the fourth is a version
        local part = select(i, ...)
        if type(part) == "table" and part.code then
            part = part.code .. " " .. tostring(part.value) -- texts differ between versions
        elseif type(part) == "table" then
            local names = {}
            for name, value in pairs(part) do names[#names + 1] = name .. "=" .. told(value) end
            table.sort(names)
            part = "{" .. table.concat(names, ",") .. "}"
        end
        parts[i] = tostring(part)
    end
    return table.concat(parts, " ")
end

-- By name: the arguments of a call that is made up.
local MADE = {
    touch = function() return pick(KEYS), pick({ 5, 100, redcache.FOREVER }) end,
    expire = function() return pick(KEYS), pick({ 5, 100, redcache.FOREVER }) end,
    expireAt = function() return pick(KEYS), pick({ 1, os.time() + 40 }) end,
    persist = function() return pick(KEYS) end,
    touchMulti = function() return { pick(KEYS), pick(KEYS) }, 50 end,
    expireMulti = function() return { [pick(KEYS)] = 9, [pick(KEYS)] = redcache.FOREVER } end,
    exists = function() return pick({ "a", KEYS, { pick(KEYS) } }) end,
    rename = function() return pick(KEYS), pick(KEYS), pick({ {}, { nx = true } }) end,
    copy = function() return pick(KEYS), pick(KEYS), pick({ {}, { nx = true } }) end,
    deleteMulti = function() return { pick(KEYS), pick(KEYS) }, { soft = true } end,
    add = function() return pick(KEYS), pick({ 1, "w" }), pick({ 30, redcache.FOREVER }) end,
    replace = function() return pick(KEYS), pick({ 2, "x" }), 30 end,
    getSet = function() return pick(KEYS), pick({ 3, "y" }), 30 end,
    getDelete = function() return pick(KEYS) end,
    cas = function() return pick(KEYS), "12345678", 4, 30 end,
    update = function()
        return pick(KEYS), function(value) return type(value) == "number" and value + 1 or 0 end
    end,
    incr = function() return pick(KEYS), pick({ 1, -3 }), { max = 9 } end,
    get = function() return pick(KEYS) end,
    delete = function() return pick(KEYS), pick({ {}, { soft = true } }) end,
    set = function()
        return pick(KEYS), pick({ 1, "v", false }), pick({ 20, redcache.FOREVER }),
            pick({ {}, { grace = 30 }, { tags = { "a", "b" } } })
    end,
    tags = function() return pick(KEYS) end,
    keysByTag = function() return pick(KEYS) end,
    addTags = function() return pick(KEYS), { pick(KEYS), pick(KEYS) } end,
    invalidateTags = function() return { pick(KEYS) }, { soft = pick({ true, false }) } end,
}
-- The payload of an entry, without what is random in its block.
local function without_generations(text)
    local payload = text:sub(25)
    local list = text:byte(5) == core_extra.FLAG and core_extra.tags(payload)
    if not list then return payload end
    local parts = { payload:sub(1, 16) }
    for _, tag in ipairs(list) do parts[#parts + 1] = tag.name end
    return table.concat(parts, ",") .. payload:sub((core_extra.read(payload, #payload)) + 1)
end

local NAMES = {}
for name in pairs(MADE) do NAMES[#NAMES + 1] = name end
table.sort(NAMES)

describe("calls made up from a seed", function()
    it("are answered alike by Redis and by the embedded store", function()
        math.randomseed(SEED)
        local sides = {}
        for i, port in ipairs({ redis.port, store.port }) do
            sides[i] = { client = resp.connect({ port = port }), cache = redcache.new({
                url = "redis://127.0.0.1:" .. port, namespace = "app", near = false,
                commandTimeout = 60,
                tagIndex = true }) }
            sides[i].client:call("FLUSHALL")
        end
        local there, here = sides[1], sides[2]
        local function at(call) return ("seed %d, call %d"):format(SEED, call) end

        -- Times are compared roughly: the servers are asked one after the other.
        local function compare(key, call)
            local full, texts, lives = "app:" .. key, {}, {}
            for i, side in ipairs(sides) do
                texts[i] = side.client:call("GET", full)
                lives[i] = side.client:call("PTTL", full)
                -- A version that was made for this value differs, and so do generations.
                if type(texts[i]) == "string" and texts[i]:sub(1, 3) == "\251\1\1" then
                    texts[i] = texts[i]:sub(1, 8) .. texts[i]:sub(17, 24)
                        .. without_generations(texts[i])
                end
            end
            assert.equal(texts[1], texts[2], at(call))
            assert.is_true(math.abs(lives[1] - lives[2]) < clock.scaled(2) * 1000
                and (lives[1] < 0) == (lives[2] < 0), at(call))
        end

        local function compare_index(call)
            for bucket = 0, 15 do
                for _, tag in ipairs(KEYS) do
                    local full = ("app//index:%d:%s"):format(bucket, tag)
                    assert.equal(there.client:call("GET", full), here.client:call("GET", full),
                        at(call))
                end
            end
        end

        for call = 1, CALLS do
            local key = pick(KEYS)
            if math.random() < 0.35 then
                local words = { "SET", "app:" .. key, pick(STRINGS) }
                if math.random() < 0.6 then
                    words[4], words[5] = "PX", 60000
                end
                for _, side in ipairs(sides) do side.client:call(unpack(words)) end
            else
                local name = pick(NAMES)
                local arguments = { MADE[name]() }
                local a = told(there.cache[name](there.cache, unpack(arguments)))
                local b = told(here.cache[name](here.cache, unpack(arguments)))
                assert.equal(a, b, at(call) .. ": " .. name)
                for _, one in ipairs(KEYS) do compare(one, call) end
                if call % 50 == 0 then compare_index(call) end
            end
        end
        for _, side in ipairs(sides) do
            side.cache:close()
            side.client:close()
        end
    end)
end)

describe("update", function()
    it("loses no change of several processes", function()
        local count, updates = 4, 200
        local workers = herd.start({
            count = count, timeout = 60,
            params = function() return { url = redis:url(), updates = updates } end,
            main = function(one)
                local cache = require("redcache").new({ url = one.params.url, namespace = "app",
                    commandTimeout = 60 })
                one:ready()
                for _ = 1, one.params.updates do
                    assert(cache:update("n", function(old) return (old or 0) + 1 end, 60,
                        { retries = 10000 }))
                end
                cache:close()
                return true
            end,
        })
        workers:join()
        local cache = redcache.new({ url = redis:url(), namespace = "app", near = false })
        assert.equal(count * updates, (cache:get("n")))
        cache:close()
    end)
end)
