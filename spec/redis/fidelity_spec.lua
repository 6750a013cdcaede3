-- What is written is what is read, by every codec, client and program; what cannot be, is told.

local ffi = require("ffi")

local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")

local HEADER_BYTES = 24

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
    options = options or {}
    options.url = redis:url()
    options.commandTimeout = 10 -- what comes back is asked here, and not when
    local cache = redcache.new(options)
    caches[#caches + 1] = cache
    return cache
end

-- Stores by every call that stores, and reads by every call that reads, on another client.
local function assert_kept(writer, reader, value)
    local function is_kept(got)
        assert.equal(type(value), type(got))
        assert.same(value, got)
    end
    assert.is_true(writer:set("set", value))
    assert.same({ true, {} }, { writer:setMulti({ multi = value }) })
    is_kept((writer:remember("load", 60, function() return value end)))
    is_kept((writer:put("put", 60, function() return value end)))
    local values = reader:getMulti({ "set", "multi", "load", "put" })
    for _, key in ipairs({ "set", "multi", "load", "put" }) do
        is_kept((reader:get(key)))
        is_kept((reader:remember(key, 60, error)))
        is_kept(values[key])
        reader:delete(key)
    end
end

describe("msgpack, the default,", function()
    it("keeps every type of value (X17)", function()
        local deep = { "bottom" }
        for _ = 1, 30 do deep = { deep } end
        local values = {
            true, false, "", "text", "a\0b\r\n\255", ("x"):rep(100000), 0, -1, 1.5, 1e300, -1e-300,
            2 ^ 53, -2 ^ 53, math.huge, -math.huge, 2 ^ 31, 2 ^ 32, 255, 256, 65535, 65536, {},
            { 1, 2, 3 }, { a = { b = { c = false } } }, { [1] = "one", x = "y" }, { [2.5] = 1 },
            { [true] = 1, ["a\0b"] = 2 }, { 1, nil, 3 }, deep,
        }
        local writer, reader = open(), open({ group = "reader", near = false })
        for _, value in ipairs(values) do assert_kept(writer, reader, value) end
    end)

    it("keeps 64-bit integers exactly and signed zeros and NaN", function()
        local writer, reader = open(), open({ group = "reader", near = false })
        for _, value in ipairs({ 9007199254740993LL, -9223372036854775807LL - 1LL,
            18446744073709551615ULL, 1LL }) do
            writer:set("k", value)
            local got = reader:get("k")
            assert.equal(ffi.typeof(value), ffi.typeof(got))
            assert.is_true(got == value)
        end
        writer:set("k", -0.0)
        assert.equal(-math.huge, 1 / reader:get("k"))
        writer:set("k", 0 / 0)
        local nan = reader:get("k")
        assert.is_true(nan ~= nan)
    end)
end)

describe("json", function()
    it("keeps what JSON can say and refuses the rest", function()
        local writer, reader = open({ codec = "json" }), open({ codec = "json", group = "reader" })
        for _, value in ipairs({ true, false, "", "text", 0, -1.5, 2 ^ 53, 0.1, {}, { 1, 2 },
            { a = { b = { 1, { c = "\0\r\n" } } } } }) do
            assert_kept(writer, reader, value)
        end
        for _, value in ipairs({ 0 / 0, math.huge, 1LL, { 1, nil, 3 }, { 1, a = 2 }, print }) do
            local ok, err = writer:set("k", value)
            assert.is_nil(ok)
            assert.equal("encode", err.code)
        end
    end)
end)

describe("raw", function()
    it("keeps any string and refuses the rest", function()
        local writer, reader = open({ codec = "raw" }), open({ codec = "raw", group = "reader" })
        for _, value in ipairs({ "", "text", "a\0b\r\n\255", ("\251"):rep(100000) }) do
            assert_kept(writer, reader, value)
        end
        for _, value in ipairs({ 1, true, {} }) do
            assert.equal("encode", select(2, writer:set("k", value)).code)
        end
    end)

    it("stands behind a header of 24 bytes as it is", function()
        local cache = open({ codec = "raw" })
        cache:set("k", "the text")
        local bytes = redis:call("GET", "k")
        assert.equal(HEADER_BYTES + 8, #bytes)
        assert.equal("\251\1\1\1", bytes:sub(1, 4))
        assert.equal("the text", bytes:sub(HEADER_BYTES + 1))
    end)

    it("keeps values that look like our own placeholders (73)", function()
        local writer, reader = open({ codec = "raw" }), open({ codec = "raw", group = "reader" })
        local header = peer.lease():sub(4)
        for kind = 0, 7 do
            assert_kept(writer, reader, "\251\1" .. string.char(kind) .. header)
            assert_kept(writer, reader, "\251\1" .. string.char(kind) .. header .. "more")
        end
        for _, codec in ipairs({ "msgpack", "json" }) do
            assert_kept(open({ codec = codec }), open({ codec = codec, group = "r" }), peer.lease())
        end
    end)
end)

describe("a codec of the user's own", function()
    local function upper(id)
        return {
            name = "upper", id = id or 64,
            encode = function(value) return value:upper() end,
            decode = function(bytes) return bytes:lower() end,
        }
    end

    it("is used for everything and named by its id in the header", function()
        local cache = open({ codec = upper(99) })
        assert_kept(cache, open({ codec = upper(99), group = "reader" }), "text")
        cache:set("k", "text")
        local bytes = redis:call("GET", "k")
        assert.equal(99, bytes:byte(4))
        assert.equal("TEXT", bytes:sub(HEADER_BYTES + 1))
    end)

    it("may refuse by message or by throwing", function()
        local cache = open({ codec = {
            name = "picky", id = 65, decode = tostring,
            encode = function(value)
                if value == 1 then return nil, "not one" end
                error("boom")
            end,
        } })
        for value, text in pairs({ "not one", "boom" }) do
            local _, err = cache:set("k", value)
            assert.equal("encode", err.code)
            assert.matches(text, err.message, 1, true)
        end
    end)

    it("is not guessed by a client that does not know it: a miss (100)", function()
        open({ codec = upper() }):set("k", "text")
        local other = open({ group = "other" })
        assert.same({}, peer.report(other:get("k")))
        assert.equal(1, other:stats().decodeErrors)
    end)
end)

describe("an entry", function()
    it("is read by the codec that wrote it, whatever the reader's own", function()
        for _, codec in ipairs({ "raw", "json", "msgpack" }) do
            open({ codec = codec }):set("k", "text")
            for _, own in ipairs({ "raw", "json", "msgpack" }) do
                assert.equal("text", (open({ codec = own, group = own }):get("k")))
            end
        end
    end)

    it("has a version of its own each time it is written", function()
        local cache, seen = open(), {}
        for _ = 1, 100 do
            cache:set("k", 1)
            local version = redis:call("GETRANGE", "k", 8, 15)
            assert.is_nil(seen[version])
            seen[version] = true
        end
    end)

    it("without our header is the string it is (99)", function()
        local cache = open({ near = false })
        for _, text in ipairs({ "", "text", "12", "{\"a\":1}", "\0", "\251", ("x"):rep(100000) }) do
            redis:call("SET", "k", text)
            assert.same({ value = text, source = "redis" }, peer.report(cache:get("k")))
            assert.equal(text, (cache:remember("k", 60, error)))
            assert.equal(text, cache:getMulti({ "k" }).k)
        end
    end)
end)

describe("plain = true", function()
    it("stores and reads what other programs understand", function()
        local cache = open({ plain = true, codec = "json" })
        cache:set("set", { 1 })
        cache:setMulti({ multi = { 2 } })
        cache:remember("load", 60, function() return { 3 } end)
        cache:put("put", 60, function() return { 4 } end)
        for i, key in ipairs({ "set", "multi", "load", "put" }) do
            assert.equal("[" .. i .. "]", redis:call("GET", key))
            assert.same({ i }, (cache:get(key)))
            assert.same({ i }, (cache:remember(key, 60, error)))
        end
        redis:call("SET", "k", '{"a":true}')
        assert.same({ a = true }, (cache:get("k")))
        assert.same({ a = true }, cache:getMulti({ "k" }).k)
    end)

    it("does not remember nil, which has no plain form", function()
        local cache = open({ plain = true })
        cache:remember("k", 60, function() return nil end)
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("reads entries with a header as well", function()
        open():set("k", { 1 })
        assert.same({ 1 }, (open({ plain = true, codec = "json", group = "plain" }):get("k")))
    end)
end)

-- As core/engine/entry.h lays an entry out: version, kind, codec, flags.
local function stored(version, kind, codec, flags, payload)
    return "\251" .. string.char(version, kind, codec, flags, 0, 0, 0) .. "version!"
        .. ("\0"):rep(8) .. payload
end

-- What a newer version may write, and what is broken. MessagePack has no byte \193.
local UNREADABLE = {
    ["a broken payload"] = stored(1, 1, 3, 0, "\193"),
    ["an unknown codec"] = stored(1, 1, 200, 0, "payload"),
    ["no codec"] = stored(1, 1, 0, 0, "payload"),
    ["an unknown flag"] = stored(1, 1, 3, 1, "\161v"),
    ["an unknown kind"] = stored(1, 9, 3, 0, "\161v"),
    ["a newer header"] = stored(2, 1, 3, 0, "\161v"),
    ["a newer header of a lease"] = stored(2, 4, 0, 0, ""),
}

for what, bytes in pairs(UNREADABLE) do
    for _, near in ipairs({ false, true }) do
        describe(("an entry with %s, near = %s,"):format(what, near), function()
            it("is a miss, counted, and left alone by whoever only reads (100)", function()
                local cache = open({ near = near })
                redis:call("MSET", "k", bytes, "m", bytes)
                for _ = 1, 2 do
                    assert.same({}, peer.report(cache:get("k")))
                    assert.same({}, (cache:getMulti({ "k", "m" })))
                end
                assert.equal(6, cache:stats().decodeErrors)
                assert.equal(6, cache:stats().misses)
                cache:exists("k")
                assert.same({ bytes, bytes }, redis:call("MGET", "k", "m"))
            end)

            it("is loaded anew by remember, once (100)", function()
                local cache, runs = open({ near = near }), 0
                local function fn()
                    runs = runs + 1
                    return "new"
                end
                redis:call("SET", "k", bytes)
                for _ = 1, 3 do assert.equal("new", (cache:remember("k", 60, fn))) end
                assert.equal(1, runs)
                assert.equal("new", (open({ group = "other" }):get("k")))
                redis:call("SET", "k", bytes, "PX", "60000")
                assert.equal("put", (cache:put("k", 60, function() return "put" end)))
                assert.equal("put", (cache:get("k")))
            end)

            it("is the error decode with decodeErrors = \"error\", and stays (100)", function()
                local cache = open({ near = near, decodeErrors = "error" })
                redis:call("SET", "k", bytes)
                assert.equal("decode", select(2, cache:get("k")).code)
                assert.equal("decode", select(2, cache:remember("k", 60, error)).code)
                assert.equal("decode", select(2, cache:getMulti({ "k" })).k.code)
                assert.equal(bytes, redis:call("GET", "k"))
                assert.equal(3, cache:stats().decodeErrors)
            end)
        end)
    end
end

describe("an entry that cannot be decoded", function()
    local BROKEN = UNREADABLE["a broken payload"]

    it("is told from a newer one that comes behind it (100)", function()
        -- The decoder runs while this client still looks at the old bytes.
        local cache = open({ codec = {
            name = "slow", id = 66, encode = tostring,
            decode = function(text)
                if text == "newer" then return text end
                redis:call("SET", "k", stored(1, 1, 66, 0, "newer"))
                error("broken")
            end,
        } })
        cache:set("k", "old")
        assert.same({}, peer.report(cache:get("k")))
        assert.equal("newer", (cache:get("k")))
        cache:set("k", "old")
        assert.equal("newer", (cache:remember("k", 60, error)))
        assert.equal("newer", (cache:get("k")))
    end)

    it("is loaded once for all who cannot read it, here and elsewhere", function()
        redis:call("SET", "k", BROKEN)
        local runs, values = 0, {}
        local one = open({ scheduler = "coroutine", group = "one" })
        local two = open({ scheduler = "coroutine", group = "two" })
        redcache.run(function()
            for i = 1, 20 do
                redcache.spawn(function()
                    values[i] = (i % 2 == 0 and one or two):remember("k", 60, function()
                        runs = runs + 1
                        one:get("something") -- the others come by meanwhile
                        return "new"
                    end)
                end)
            end
        end)
        assert.equal(1, runs)
        for i = 1, 20 do assert.equal("new", values[i]) end
    end)

    it("gives way to the marker of a load that fails", function()
        local cache = open()
        redis:call("SET", "k", BROKEN)
        local _, err = cache:remember("k", 60, function() return nil, "down" end)
        assert.equal("loaderFailed", err.code)
        local life = redis:call("PTTL", "k")
        assert.is_true(life >= -2 and life ~= -1 and life <= 1000, tostring(life))
    end)

    it("costs a mixed fleet one load per call at most, however often it comes back", function()
        -- A newer version stores its entries all the time, also while this one loads.
        local newer = UNREADABLE["an unknown flag"]
        local cache = open({ reloads = 3 })
        for _ = 1, 5 do
            local runs = 0
            redis:call("SET", "k", newer)
            local value, err, source, flag = cache:remember("k", 60, function()
                runs = runs + 1
                redis:call("SET", "k", newer)
                return "ours"
            end)
            assert.same({ "ours", "loader", "unstored" }, { value, source, flag }, tostring(err))
            assert.equal(1, runs)
            assert.equal(newer, redis:call("GET", "k"))
        end
    end)
end)

describe("codec ids in redcache.h", function()
    it("are those of Lua's codecs, so that what C writes with them is read", function()
        local ids = { raw = "RC_CODEC_RAW", json = "RC_CODEC_JSON", msgpack = "RC_CODEC_MSGPACK" }
        local payloads = { raw = "text", json = '"text"', msgpack = "\164text" }
        local cache = open()
        for name, constant in pairs(ids) do
            local id = ffi.new("int[" .. constant .. "]") -- as long as its value says
            id = ffi.sizeof(id) / ffi.sizeof("int")
            assert.equal(require("redcache.serializer." .. name).id, id)
            redis:call("SET", name, stored(1, 1, id, 0, payloads[name]))
            assert.equal("text", (cache:get(name)))
        end
        assert.equal(ffi.sizeof("char[RC_CODEC_CUSTOM]"), 64)
    end)
end)
