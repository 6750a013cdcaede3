-- Two namespaces never meet: generated pairs, whose names, keys and locks are cut from one
-- text at other places, out of what names in Redis are made of.
--
-- Env: REDCACHE_TENANTS_PAIRS (500; 5000 take 20 s), REDCACHE_TENANTS_SEED.

local redcache = require("redcache")
local server = require("spec.support.server")

local PAIRS = tonumber(os.getenv("REDCACHE_TENANTS_PAIRS")) or 500
local SEED = tonumber(os.getenv("REDCACHE_TENANTS_SEED")) or os.time()

local PIECES = { "a", "b", ":", ":", "/", "/", "*", "?", "[", "]", "\\", "{", "}", "{a}", "\0",
    "%", "%3A", "%2F", "lock:{", "lock", "//", "~:put", "!:put", "^:put", "{1}", "-", "^" }

local redis, root

setup(function()
    redis = server.start()
    root = redcache.new({ url = redis:url() })
    math.randomseed(SEED)
end)
teardown(function()
    root:close()
    redis:stop()
end)

local function pieces(most)
    local list = {}
    for i = 1, math.random(1, most) do list[i] = PIECES[math.random(#PIECES)] end
    return list
end

-- One cut of the pieces: names, one below the other, and a key.
local function cut(list)
    local first = math.random(1, #list)
    local second = math.random(3) == 1 and math.random(first, #list) or first
    local names = { table.concat(list, "", 1, first) }
    if second > first then names[2] = table.concat(list, "", first + 1, second) end
    -- What stands between a name and a key, or between two names, may be a part of them, or not.
    local from = second + 1
    if (list[from] == ":" or list[from] == "/") and math.random(2) == 1 then from = from + 1 end
    return { names = names, key = table.concat(list, "", from) }
end

local function open(names)
    local cache = root
    for _, name in ipairs(names) do cache = cache:namespace(name) end
    return cache
end

local function same(a, b)
    return #a.names == #b.names and a.names[1] == b.names[1] and a.names[2] == b.names[2]
end

-- All that stands in Redis, and all that a key could be called by which one of that is meant.
local function suffixes()
    local seen, list = {}, {}
    for _, name in ipairs(redis:call("KEYS", "*")) do
        for i = 1, #name + 1 do
            local suffix = name:sub(i)
            if not seen[suffix] then
                seen[suffix] = true
                list[#list + 1] = suffix
            end
        end
    end
    return list
end

-- What the cache finds under any of the names.
local function found(cache, names)
    local values, failed = cache:getMulti(names)
    assert.same({}, failed)
    return values
end

-- One pair: the first one writes, loads and locks, and the other one sees nothing of that.
local function check(a, b)
    local one, other = open(a.names), open(b.names)
    local lock = assert(one:tryLock(a.key, { renew = false }))
    local helpers
    assert.equal("v", (one:put(a.key, 60, function()
        helpers = suffixes()
        assert.same({}, found(other, helpers))
        return "v"
    end)))
    -- Under its own key alone: not under what its lock or its lease are called.
    assert.same({ [a.key] = "v" }, found(one, helpers))
    assert.equal("v", (one:get(a.key)))
    assert.same({}, found(other, suffixes()))
    for _, name in ipairs({ a.key, b.key, table.concat(a.names, ":") .. ":" .. a.key }) do
        assert(assert(other:tryLock(name, { renew = false })):release())
    end
    assert.is_true(other:set(b.key, "w"))
    assert.is_true(other:delete(b.key))
    assert.equal(0, (other:deleteMulti(helpers)))
    assert.equal(0, (other:flush()))
    assert.equal(0, #other:keys("*"))
    assert.same({ a.key }, (one:keys("*")))
    assert.is_true(lock:held())
    assert.equal("v", (one:get(a.key, { near = false })))
    assert.is_true(lock:release())
    assert.equal(1, (one:flush()))
end

describe("two namespaces", function()
    it(("never meet (%d pairs, seed %d)"):format(PAIRS, SEED), function()
        local made = 0
        while made < PAIRS do
            local list = pieces(6)
            local a, b = cut(list), cut(math.random(4) > 1 and list or pieces(4))
            if not same(a, b) then
                made = made + 1
                local ok, err = pcall(check, a, b)
                if not ok then
                    error(("pair %d: %s | %s and %s | %s: %s"):format(made,
                        table.concat(a.names, " > "), a.key, table.concat(b.names, " > "), b.key,
                        tostring(type(err) == "table" and err.message or err)))
                end
                redis:call("DEL", "none", unpack(redis:call("KEYS", "*")))
            end
        end
    end)

    it("do not meet where a key is called like a lock or a lease", function()
        local app = root:namespace("app")
        for _, key in ipairs({ "lock:{job}", "//lock:{job}", "{job}//lock:{job}!:fence",
            "{app:k}~:put", "{k}~:put", "{u}:k!:put", "{u}app:{u}:k!:put" }) do
            assert.is_true(app:set(key, "mine"))
            local lock = assert(app:tryLock("job"))
            app:put("k", 60, function()
                return app:put("{u}:k", 60, function() return "v" end)
            end)
            assert.equal("mine", (app:get(key, { near = false })))
            assert.is_true(app:delete(key))
            assert.is_true(lock:held())
            assert.is_true(lock:release())
        end
    end)
end)
