-- Bytes that somebody else wrote under our keys: never a crash, never an endless wait.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, cache, graceful

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    local all = { near = false, url = redis:url(), waitTimeout = 10, commandTimeout = 10 }
    cache = redcache.new(all)
    all.grace = 5
    graceful = redcache.new(all)
end)
after_each(function()
    cache:close()
    graceful:close()
end)

local function header(version, kind, codec, flags, stale, load)
    return string.char(251, version, kind, codec or 3, flags or 0, 0, 0, 0) .. "nonce..!"
        .. (stale or "\0\0\0\0") .. (load or "\0\0\0\0")
end

-- Calls everything that reads or writes; nothing may throw. Returns what remember and get said.
local function try_all(with, bytes, ttl)
    local function put_there()
        if ttl then
            redis:call("SET", "k", bytes, "PX", ttl)
        else
            redis:call("SET", "k", bytes)
        end
    end
    local function own() return "own" end
    put_there()
    local read = peer.report(with:get("k"))
    put_there()
    with:exists("k")
    with:ttl("k")
    with:getMulti({ "k", "x" })
    put_there()
    local loaded = peer.report(with:remember("k", 60, own))
    put_there()
    local put = peer.report(with:put("k", 60, own))
    assert.is_true(put.value == "own" or put.code == "timeout", tostring(put.message))
    put_there()
    assert.is_true(with:set("k", "set"))
    assert.equal("set", (with:get("k")))
    put_there()
    assert.is_true(with:delete("k"))
    assert.equal("own", (with:remember("k", 60, own, { waitTimeout = 5 })))
    return loaded, read
end

describe("foreign bytes", function()
    it("that are no entry are read as the string they are", function()
        for length = 0, 23 do
            local bytes = header(1, 4):sub(1, length)
            for _, with in ipairs({ cache, graceful }) do
                local loaded, read = try_all(with, bytes)
                assert.same({ value = bytes, source = "redis" }, loaded)
                assert.same({ value = bytes, source = "redis" }, read)
            end
        end
    end)

    it("with a header that cannot be right count as a miss", function()
        local cases = {
            version_0 = header(0, 1), version_2 = header(2, 1) .. "\1",
            version_255 = header(255, 4), large_count = header(1, 1) .. "\221\255\255\255\255",
            kind_0 = header(1, 0), kind_6 = header(1, 6) .. "x", kind_255 = header(1, 255),
            plain_kind = header(1, 5) .. "text", codec = header(1, 1, 200) .. "\1",
            flags = header(1, 1, 3, 255) .. "\1", no_payload = header(1, 1),
            broken_payload = header(1, 1) .. "\193", two_payloads = header(1, 1) .. "\1\1",
            deep = header(1, 1) .. ("\145"):rep(100000),
            json = header(1, 1, 2) .. ("["):rep(100000), lease_and_more = header(1, 4) .. "more",
        }
        for name, bytes in pairs(cases) do
            for _, with in ipairs({ cache, graceful }) do
                local loaded, read = try_all(with, bytes)
                assert.same({}, read, name)
                assert.equal("own", loaded.value, name)
            end
        end
    end)

    it("with extreme numbers in a header are values all the same", function()
        local most = "\255\255\255\255"
        for _, with in ipairs({ cache, graceful }) do
            for _, ttl in ipairs({ false, 60000 }) do
                local bytes = header(1, 1, 3, 0, most, most) .. "\7"
                local loaded, read = try_all(with, bytes, ttl or nil)
                assert.equal(7, read.value)
                -- Past its soft expiry, a refresh is due.
                local refreshed = with == graceful and ttl
                assert.equal(refreshed and "own" or 7, loaded.value)
            end
        end
    end)

    it("that say 'no such thing' are that", function()
        local loaded, read = try_all(cache, header(1, 2) .. "whatever")
        assert.same({ source = "redis" }, read)
        assert.same({ source = "redis" }, loaded)
    end)

    it("that are random never break anything", function()
        math.randomseed(7)
        local hasty = redcache.new({
            near = false, url = redis:url(), waitTimeout = 0.03, grace = 5, commandTimeout = 10,
        })
        local seen = { own = 0, value = 0, failed = 0, timeout = 0 }
        for i = 1, 300 do
            local tail = {}
            for j = 1, math.random(0, 60) do tail[j] = string.char(math.random(0, 255)) end
            local bytes = table.concat(tail)
            if i % 3 ~= 0 then
                bytes = string.char(251, 1, math.random(0, 6), math.random(0, 4)) .. bytes
            end
            local loaded = try_all(hasty, bytes, 1000)
            local how = loaded.value == "own" and "own"
                or loaded.code == "loaderFailed" and "failed"
                or loaded.code == "timeout" and "timeout" or loaded.source and "value"
            assert.is_truthy(how, tostring(loaded.message))
            seen[how] = seen[how] + 1
        end
        assert.is_true(seen.own > 20 and seen.value > 20)
        hasty:close()
    end)
end)

describe("a forged lease", function()
    it("with a life is waited for no longer than waitTimeout", function()
        redis:call("SET", "k", peer.lease(), "PX", 60000)
        local took, result = clock.time(function()
            return peer.report(cache:remember("k", 60, error, { waitTimeout = 0.2 }))
        end)
        assert.equal("timeout", result.code)
        assert.is_true(took > 0.19 and took < 5, "it took " .. took) -- of 10 s
    end)

    it("with a short life is waited for until it ends", function()
        redis:call("SET", "k", peer.lease(), "PX", 50)
        assert.equal("own", (cache:remember("k", 60, function() return "own" end)))
    end)

    it("without a life is somebody's data, never an endless wait (X9)", function()
        redis:call("SET", "k", peer.lease())
        for _, with in ipairs({ cache, graceful }) do
            local took, result = clock.time(function()
                return peer.report(with:remember("k", 60, error, { waitTimeout = 30 }))
            end)
            assert.is_true(took < 10, "it took " .. took) -- of 30 s
            assert.same({ value = peer.lease(), source = "redis" }, result)
            assert.is_nil((with:get("k")))
        end
        assert.equal("put", (cache:put("k", 60, function() return "put" end)))
        assert.equal("put", (cache:get("k")))
    end)
end)

describe("a forged error marker", function()
    it("counts as absent for everybody who did not wait for that load", function()
        local loaded, read = try_all(cache, header(1, 3, 0, 0) .. "forged", 60000)
        assert.same({}, read)
        assert.same({ value = "own", source = "loader" }, loaded)
    end)

    it("without a ttl is somebody's string: a marker always expires", function()
        local bytes = header(1, 3, 0, 0) .. "forged"
        local loaded, read = try_all(cache, bytes)
        assert.same({}, read)
        assert.same({ value = bytes, source = "redis" }, loaded)
    end)

    it("that is sticky is the error it says, until somebody writes", function()
        local loaded, read = try_all(cache, header(1, 3, 0, 128) .. "forged\0\n", 60000)
        assert.same({}, read)
        assert.same({ "loaderFailed", "forged\0\n" }, { loaded.code, loaded.cause })
    end)
end)

describe("keys of other types", function()
    it("are an error of Redis for single calls, and can be overwritten or deleted", function()
        for _, make in ipairs({
            { "RPUSH", "k", "x" }, { "HSET", "k", "f", "v" }, { "SADD", "k", "x" },
            { "ZADD", "k", "1", "x" }, { "XADD", "k", "*", "f", "v" },
        }) do
            redis:call("DEL", "k")
            redis:call(unpack(make))
            for _, err in ipairs({
                select(2, cache:get("k")), select(2, cache:exists("k")), select(2, cache:ttl("k")),
            }) do
                assert.equal("redis", err.code)
            end
            -- There is no lease to be had: the value is the caller's, not stored.
            assert.equal("own", (cache:remember("k", 60, function() return "own" end)))
            local _, err = cache:put("k", 60, error)
            assert.equal("redis", err.code)
            assert.is_true(cache:delete("k"))
            redis:call(unpack(make))
            assert.is_true(cache:set("k", 1))
        end
    end)
end)
