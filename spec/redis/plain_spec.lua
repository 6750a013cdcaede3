-- plain = true: any bytes come back exactly as they went in, and what merely looks like a lease or
-- marker of ours makes nobody wait and is not lost.
--
-- Env: REDCACHE_PLAIN_SEED: of the random values.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local SEED = tonumber(os.getenv("REDCACHE_PLAIN_SEED") or "20261129")
local MANY, SOME = 3000, 500

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    caches = {}
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { url = redis:url(), plain = true, codec = "raw", near = false }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

local function never() error("the loader ran") end

-- As core/engine/entry.h lays a header out: kind, codec, flags, the byte behind them, the nonce.
local function header(kind, codec, flags, unused, nonce)
    return "\251\1" .. string.char(kind, codec, flags, unused) .. "\0\0" .. nonce .. ("\0"):rep(8)
end
local LEASE = header(4, 0, 0, 0, "token-01")
local MARKER = header(3, 0, 0, 0, "token-01") .. "it failed"

-- Values that are near to what we write: of every length around a header, with its first bytes.
local function values(count)
    local random, list = math.random, {}
    math.randomseed(SEED)
    local function bytes(length)
        local parts = {}
        for i = 1, length do parts[i] = string.char(random(0, 255)) end
        return table.concat(parts)
    end
    for i = 1, count do
        local value = bytes(random(0, 60))
        local likeness = random(1, 6)
        if likeness == 1 then value = "\251" .. value end
        if likeness == 2 then value = "\251\1" .. value end
        if likeness == 3 then value = "\251\1" .. string.char(random(0, 7)) .. value end
        if likeness == 4 then value = header(random(0, 7), 0, 0, 0, bytes(8)) .. value end
        if likeness == 5 then value = header(random(3, 4), 0, random(0, 1) * 128, 0, bytes(8)) end
        list[i] = value
    end
    return list
end

for name, options in pairs({
    ["a cache without a near one"] = false, ["a near cache"] = { near = true },
    ["the store in memory"] = { url = "memory://plain" },
    ["json"] = { codec = "json" }, ["msgpack"] = { codec = "msgpack" },
}) do
    local count = options and SOME or MANY
    describe("plain = true with " .. name .. (" (seed %d)"):format(SEED), function()
        it("gives " .. count .. " values back, from set, setMulti and remember", function()
            local cache, list = open(options or nil), values(count)
            local map, keys = {}, {}
            for i, value in ipairs(list) do
                keys[i] = "m" .. i
                map[keys[i]] = value
                assert.is_true(cache:set("s" .. i, value, 600))
                assert.equal(value, (cache:remember("r" .. i, 600, function() return value end)))
            end
            assert.is_true(cache:setMulti(map, 600))
            local found = {}
            for first = 1, #keys, 500 do
                local part = { unpack(keys, first, math.min(first + 499, #keys)) }
                for key, value in pairs((cache:getMulti(part))) do found[key] = value end
            end
            assert.same(map, found)
            for i, value in ipairs(list) do
                assert.equal(value, (cache:get("s" .. i)))
                assert.equal(value, (cache:remember("r" .. i, 600, never)))
                assert.equal(value, (cache:get("r" .. i)))
                assert.is_true((cache:exists("s" .. i)))
            end
            assert.equal(0, cache:stats().decodeErrors)
        end)
    end)
end

describe("plain = true", function()
    it("writes a header only where the value begins with the first byte of one", function()
        local cache = open()
        for _, value in ipairs({ "", "text", "\250", "\252" .. ("x"):rep(40), "x\251" }) do
            cache:set("k", value, 60)
            assert.equal(value, redis:call("GET", "k"))
        end
        for _, value in ipairs({ "\251", "\251\1", LEASE, MARKER, "\251" .. ("x"):rep(40) }) do
            cache:set("k", value, 60)
            assert.equal(24 + #value, redis:call("STRLEN", "k"))
            cache:put("k", 60, function() return value end)
            assert.equal(24 + #value, redis:call("STRLEN", "k"))
            assert.equal(value, (cache:get("k")))
        end
    end)
end)

-- Other programs' strings.
describe("a string that looks like a lease or an error marker", function()
    for _, near in ipairs({ false, true }) do
        it("and never expires is a plain value, near = " .. tostring(near), function()
            local cache = open({ near = near })
            for _, value in ipairs({ LEASE, MARKER }) do
                redis:call("SET", "k", value)
                local took = clock.time(function()
                    assert.equal(value, (cache:get("k")))
                    assert.is_true((cache:exists("k")))
                    assert.equal(value, (cache:getMulti({ "k", "none" })).k)
                    assert.equal(value, (cache:remember("k", 60, never, { waitTimeout = 20 })))
                end)
                assert.is_true(took < clock.scaled(5), "a reader waited for " .. took)
                assert.equal(value, redis:call("GET", "k"))
                assert.equal("put", (cache:put("k", 60, function() return "put" end)))
                assert.equal("put", redis:call("GET", "k"))
            end
        end)
    end

    it("but not in its exact form is none, with a ttl either, and stays", function()
        local cache = open()
        for _, value in ipairs({
            LEASE .. "x", header(4, 1, 0, 0, "token-01"), header(4, 0, 1, 0, "token-01"),
            header(4, 0, 0, 1, "token-01"), header(3, 1, 0, 0, "token-01") .. "text",
            header(3, 0, 0, 7, "token-01") .. "text",
        }) do
            redis:call("SET", "k", value, "PX", "600000")
            local took = clock.time(function() assert.is_nil((cache:get("k"))) end)
            assert.is_true(took < clock.scaled(5))
            assert.equal(value, redis:call("GET", "k"))
            -- It is no lease: remember does not wait for its end, and stores in its place.
            took = clock.time(function()
                assert.equal("new", (cache:remember("k", 60, function() return "new" end)))
            end)
            assert.is_true(took < clock.scaled(5), "it waited for " .. took)
            assert.equal("new", (cache:get("k")))
        end
    end)

    it("and expires is one: get misses, remember waits for its end", function()
        local cache = open()
        redis:call("SET", "k", LEASE, "PX", "300")
        assert.is_nil((cache:get("k")))
        assert.is_false((cache:exists("k")))
        assert.equal("new", (cache:remember("k", 60, function() return "new" end)))
    end)
end)
