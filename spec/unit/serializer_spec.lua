local ffi = require "ffi"
local serializer = require "redcache.serializer"

local function codec(name)
    return assert(serializer.resolve(name))
end

-- Equal in type and value, down to the sign of zero and NaN.
local function same(a, b)
    if type(a) ~= type(b) then
        return false
    elseif type(a) == "table" then
        for key, value in pairs(a) do
            if not same(value, rawget(b, key)) then
                return false
            end
        end
        for key in pairs(b) do
            if rawget(a, key) == nil then
                return false
            end
        end
        return true
    elseif type(a) == "cdata" then
        return ffi.typeof(a) == ffi.typeof(b) and a == b
    elseif a ~= a then
        return b ~= b
    end
    return a == b and (a ~= 0 or type(a) ~= "number" or 1 / a == 1 / b)
end

local function assert_comes_back(name, value)
    local encoded, bytes = codec(name).encode(value)
    assert.is_true(encoded, bytes)
    local decoded, back = codec(name).decode(bytes)
    assert.is_true(decoded, back)
    if not same(value, back) then
        error(("%s came back as %s through %s"):format(tostring(value), tostring(back), name), 2)
    end
end

local function assert_refuses(name, value, message)
    local ok, answer = codec(name).encode(value)
    assert.is_false(ok)
    assert.equal(message, answer)
end

local function nest(levels)
    local value = {}
    for _ = 2, levels do
        value = { value }
    end
    return value
end

local EVERY_BYTE = {}
for byte = 0, 255 do
    EVERY_BYTE[byte + 1] = string.char(byte)
end
EVERY_BYTE = table.concat(EVERY_BYTE)

local NUMBERS = {
    0, -0.0, 1, -1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 1e14, 1e15, 1e16,
    -32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649, -4294967296, -4294967297,
    2 ^ 53 - 1, 2 ^ 53, -2 ^ 53, 2 ^ 53 + 2, 2 ^ 63, -2 ^ 63, 2 ^ 64, 1.5, 0.1, 0.1 + 0.2, 1 / 3,
    123456789.123, 1e300, -1e300, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308,
}
local LENGTHS = { 0, 1, 15, 16, 31, 32, 255, 256, 4095, 4096, 65535, 65536, 70000, 1100000 }

for _, name in ipairs({ "msgpack", "json" }) do
    describe("the " .. name .. " serializer", function()
        it("gives nil, false, true and the empty string back as they are", function()
            assert_comes_back(name, nil)
            assert_comes_back(name, false)
            assert_comes_back(name, true)
            assert_comes_back(name, "")
        end)

        it("gives a decoded nil that is told from a failure", function()
            local codec_in_use = codec(name)
            local _, bytes = codec_in_use.encode(nil)
            local ok, value = codec_in_use.decode(bytes)
            assert.is_true(ok)
            assert.is_nil(value)
            ok, value = codec_in_use.decode("")
            assert.is_false(ok)
            assert.is_string(value)
        end)

        it("keeps strings of any byte, as values and as keys", function()
            assert_comes_back(name, EVERY_BYTE)
            assert_comes_back(name, { [EVERY_BYTE] = EVERY_BYTE })
            assert_comes_back(name, '"\\/\n\r\t\b\f\127\0')
        end)

        it("keeps strings of every length class", function()
            for _, len in ipairs(LENGTHS) do
                assert_comes_back(name, ("x"):rep(len))
                assert_comes_back(name, { ("y"):rep(len), "behind it" })
            end
        end)

        it("keeps every finite number exactly", function()
            for _, number in ipairs(NUMBERS) do
                assert_comes_back(name, number)
                assert_comes_back(name, { number, number })
            end
        end)

        it("keeps random doubles exactly", function()
            math.randomseed(11)
            local parts = ffi.new("union { double number; uint32_t words[2]; }")
            for _ = 1, 3000 do
                local high = math.random(0, 65535)
                if math.floor(high / 16) % 2048 ~= 2047 then -- no NaN, no infinity
                    parts.words[0] = math.random(0, 65535) * 65536 + math.random(0, 65535)
                    parts.words[1] = high * 65536 + math.random(0, 65535)
                    assert_comes_back(name, parts.number)
                end
            end
        end)

        it("keeps arrays of every length class", function()
            for _, len in ipairs({ 1, 15, 16, 65535, 65536 }) do
                local array = {}
                for i = 1, len do
                    array[i] = i % 7
                end
                assert_comes_back(name, array)
            end
        end)

        it("keeps maps of every length class", function()
            for _, len in ipairs({ 1, 15, 16, 65535, 65536 }) do
                local map = {}
                for i = 1, len do
                    map["k" .. i] = i
                end
                assert_comes_back(name, map)
            end
        end)

        it("keeps nested tables up to 32 levels and refuses more", function()
            assert_comes_back(name, { a = { b = { 1, { c = false } }, d = {} }, e = { {}, "" } })
            assert_comes_back(name, nest(32))
            assert_refuses(name, nest(33),
                "cannot store a table that is more than 32 levels deep or contains itself")
        end)

        it("gives an empty table back", function()
            assert_comes_back(name, {})
            assert_comes_back(name, { {}, { {} } })
        end)

        it("keeps null inside tables and refuses it alone", function()
            local null = require("cjson").null
            assert_comes_back(name, { null, 1, { a = null } })
            assert_refuses(name, null, "cannot store a null by itself: use nil")
        end)

        it("refuses functions, threads, userdata and foreign cdata, at any depth", function()
            local cdata = "cannot store a cdata value"
                .. (name == "json" and " (64-bit integer or other) as JSON" or "")
            for kind, value in pairs({
                ["function"] = print,
                thread = coroutine.create(print),
                userdata = newproxy(),
            }) do
                assert_refuses(name, value, "cannot store a " .. kind .. " value")
                assert_refuses(name, { 1, { value } }, "cannot store a " .. kind .. " value")
                assert_refuses(name, { a = { b = value } }, "cannot store a " .. kind .. " value")
            end
            assert_refuses(name, ffi.new("int32_t[2]"), cdata)
            assert_refuses(name, { ffi.new("int32_t[2]") }, cdata)
        end)

        it("refuses tables, functions and userdata as keys", function()
            local tail = name == "json" and " as JSON" or ""
            assert_refuses(name, { [{}] = 1 }, "cannot store a table with a table as a key" .. tail)
            assert_refuses(name, { [print] = 1 },
                "cannot store a table with a function as a key" .. tail)
            assert_refuses(name, { [newproxy()] = 1 },
                "cannot store a table with a userdata as a key" .. tail)
        end)

        it("refuses a table that contains itself", function()
            local loop = {}
            loop[1] = { loop }
            assert_refuses(name, loop,
                "cannot store a table that is more than 32 levels deep or contains itself")
        end)

        it("can be used again after a refusal", function()
            assert.is_false((codec(name).encode({ "kept", print })))
            assert_comes_back(name, { "fresh" })
        end)

        it("stores a table without its metatable, whose code it does not run", function()
            local meta = { __index = error, __len = error, __pairs = error, __tostring = error }
            local _, bytes = codec(name).encode({ setmetatable({ a = 1, b = { 2 } }, meta) })
            local ok, back = codec(name).decode(bytes)
            assert.is_true(ok)
            assert.same({ { a = 1, b = { 2 } } }, back)
            _, bytes = codec(name).encode(setmetatable({ 1, 2 }, meta))
            ok, back = codec(name).decode(bytes)
            assert.is_true(ok)
            assert.is_nil(getmetatable(back))
            assert.same({ 1, 2 }, back)
        end)

        it("keeps values apart when a finalizer uses it in the middle", function()
            local own, used, inside, in_use = codec(name), 0, 0, false
            local value, other = {}, {}
            for i = 1, 200 do
                value[i] = { "v" .. i, { i, i + 0.5 }, { a = 5 } }
                other[i] = { { b = { {}, {} } }, "o" .. i, i }
            end
            local function plant()
                ffi.gc(ffi.new("char[64]"), function()
                    local _, bytes = own.encode(other)
                    own.decode(bytes)
                    used, inside = used + 1, inside + (in_use and 1 or 0)
                end)
            end
            jit.off() -- interpreted code allocates more, so finalizers run in more places
            jit.flush()
            finally(function()
                jit.on()
            end)
            local pause = collectgarbage("setpause", 0) -- a new cycle begins where one ends
            local deadline = os.clock() + 5
            while inside < 100 and os.clock() < deadline do
                for _ = 1, 20 do
                    plant()
                end
                in_use = true
                assert_comes_back(name, value)
                in_use = false
            end
            collectgarbage("setpause", pause)
            assert.is_true(inside >= 100, used .. " finalizers ran, inside: " .. inside)
        end)
    end)
end

describe("the msgpack serializer's own", function()
    it("keeps NaN and both infinities", function()
        for _, number in ipairs({ 0 / 0, -(0 / 0), math.huge, -math.huge }) do
            assert_comes_back("msgpack", number)
            assert_comes_back("msgpack", { a = number })
        end
    end)

    it("reads every NaN as the plain one, never as a forged object", function()
        local decode = codec("msgpack").decode
        for _, bytes in ipairs({ ("\255"):rep(8), "\255\249\0\0\0\0\0\1" }) do
            for _ = 1, 200 do -- interpreted and compiled
                local _, back = decode("\145\203" .. bytes)
                assert.equal("number", type(back[1]))
                _, back = decode("\145\202\255\255\255" .. bytes:sub(1, 1))
                assert.equal("number", type(back[1]))
            end
        end
    end)

    it("keeps 64-bit integers and their type, near 0 and beyond 2^53", function()
        for _, number in ipairs({
            0LL, 1LL, -1LL, 9007199254740991LL, 9007199254740992LL, 9007199254740993LL,
            -9007199254740992LL, -9007199254740993LL, 9223372036854775807LL,
            -9223372036854775807LL - 1, 0ULL, 5ULL, 9007199254740992ULL, 9007199254740993ULL,
            18446744073709551615ULL,
        }) do
            assert_comes_back("msgpack", number)
            assert_comes_back("msgpack", { number, { a = number } })
        end
    end)

    it("keeps sparse, mixed and number-keyed tables as maps", function()
        assert_comes_back("msgpack", { 1, nil, 3 })
        assert_comes_back("msgpack", { 1, 2, nil, 4, a = "b" })
        assert_comes_back("msgpack", { 1, 2, a = 3 })
        assert_comes_back("msgpack", { [0] = "zero", "one" })
        assert_comes_back("msgpack", { [1.5] = 1, [-3] = 2, [2 ^ 40] = 3, [math.huge] = 4 })
        assert_comes_back("msgpack", { [true] = 1, [false] = 2 })
        assert_comes_back("msgpack", { [1000000] = 1 })
    end)

    it("keeps every table whose number of keys looks like an array's", function()
        math.randomseed(5)
        for _ = 1, 5000 do
            local value = {}
            for _ = 1, math.random(8) do
                local key = math.random() < 0.8 and math.random(8) or "k" .. math.random(3)
                value[key] = math.random(9)
            end
            for _ = 1, math.random(0, 3) do
                value[math.random(8)] = nil
            end
            assert_comes_back("msgpack", value)
        end
    end)

    it("writes the shortest forms other programs read as integers, arrays and maps", function()
        local encode = codec("msgpack").encode
        local function bytes(value)
            return select(2, encode(value))
        end
        assert.equal("\1", bytes(1))
        assert.equal("\255", bytes(-1))
        assert.equal("\207\0\0\0\1\0\0\0\0", bytes(2 ^ 32))
        assert.equal("\211\255\255\255\254\255\255\255\255", bytes(-2 ^ 32 - 1))
        assert.equal("\144", bytes({}))
        assert.equal("\146\1\161a", bytes({ 1, "a" }))
        assert.equal("\129\161a\195", bytes({ a = true }))
        assert.equal("\203\63\248\0\0\0\0\0\0", bytes(1.5))
    end)

    it("does not ask a metatable for what an array lacks", function()
        local value = { 1, 2, nil, 4, a = 5 }
        assert.equal(4, #value) -- as many as it has keys: the encoder takes it for an array first
        local ok, bytes = codec("msgpack").encode(setmetatable(value, { __index = error }))
        assert.is_true(ok)
        assert.same({ true, { 1, 2, [4] = 4, a = 5 } }, { codec("msgpack").decode(bytes) })
    end)

    it("refuses 64-bit integers as keys, which could not be found again", function()
        assert_refuses("msgpack", { [5LL] = 1 }, "cannot store a table with a cdata as a key")
    end)

    it("reads the forms it never writes itself", function()
        local decode = codec("msgpack").decode
        assert.equal(1.5, select(2, decode("\202\63\192\0\0")))
        assert.equal(7, select(2, decode("\211\0\0\0\0\0\0\0\7")))
        assert.equal("bin", select(2, decode("\196\3bin")))
        assert.same({ 1 }, select(2, decode("\221\0\0\0\1\1")))
    end)

    it("refuses hostile bytes", function()
        for _, bytes in ipairs({
            "", "\193", "\1\1", "\221\255\255\255\255", "\223\255\255\255\255\1",
            "\219\255\255\255\255x", ("\145"):rep(100000), "\129\192\1", "\129\144\1", "\212\1\1",
            "\129\203\127\248\0\0\0\0\0\0\1",
        }) do
            local ok, message = codec("msgpack").decode(bytes)
            assert.is_false(ok)
            assert.equal("could not decode msgpack: not one whole value of the supported kinds",
                message)
        end
    end)
end)

describe("the json serializer's own", function()
    it("refuses what would come back as something else", function()
        assert_refuses("json", 0 / 0, "cannot store NaN or infinity as JSON")
        assert_refuses("json", { math.huge }, "cannot store NaN or infinity as JSON")
        assert_refuses("json", { a = -math.huge }, "cannot store NaN or infinity as JSON")
        assert_refuses("json", 5LL, "cannot store a cdata value (64-bit integer or other) as JSON")
        assert_refuses("json", { 1, nil, 3 }, "cannot store an array with holes as JSON")
        assert_refuses("json", { [7] = 1 }, "cannot store an array with holes as JSON")
        assert_refuses("json", { 1, a = 2 },
            "cannot store a table with both string and number keys as JSON")
        assert_refuses("json", { [0] = 1 },
            "cannot store a table with number keys other than 1..n as JSON")
        assert_refuses("json", { [1.5] = 1 },
            "cannot store a table with number keys other than 1..n as JSON")
        assert_refuses("json", { [true] = 1 },
            "cannot store a table with a boolean as a key as JSON")
    end)

    it("writes text any program reads", function()
        local function text(value)
            return select(2, codec("json").encode(value))
        end
        assert.equal("null", text(nil))
        assert.equal("{}", text({}))
        assert.equal('[1,"a",true,0.1]', text({ 1, "a", true, 0.1 }))
        assert.equal('{"a":[false]}', text({ a = { false } }))
        assert.equal('"\\"\\\\\\n\\u0000\\u007f"', text('"\\\n\0\127'))
        assert.equal("9007199254740992", text(2 ^ 53))
    end)

    it("refuses hostile text", function()
        for _, text in ipairs({
            "", "{", "[1,", "nul", "NaN", "Infinity", "1 2", '"\\ud800"', "{1:2}",
            ("["):rep(33) .. ("]"):rep(33), ("["):rep(100000),
        }) do
            local ok, message = codec("json").decode(text)
            assert.is_false(ok, text:sub(1, 20))
            assert.is_truthy(message:find("could not decode json: ", 1, true))
        end
    end)
end)

describe("the raw serializer", function()
    it("hands strings through", function()
        for _, value in ipairs({ "", "a", EVERY_BYTE }) do
            assert_comes_back("raw", value)
        end
    end)

    it("refuses everything else", function()
        for _, value in ipairs({ 1, true, {}, print }) do
            assert_refuses("raw", value,
                "cannot store a " .. type(value) .. " value: serializer raw takes strings only")
        end
        assert_refuses("raw", nil, "cannot store a nil value: serializer raw takes strings only")
    end)
end)

describe("decoding mutated bytes", function()
    local VALUE = {
        name = "alice", age = 42, tags = { "a", "bc", {} }, active = true, score = 1.25,
        nested = { { x = -1, y = 70000 }, { z = false, [5] = "five" } }, big = 2 ^ 40,
    }

    local function fuzz(name, value, rounds)
        local decode, encode = codec(name).decode, codec(name).encode
        local _, seed = encode(value)
        local accepted, refused = 0, 0
        math.randomseed(42)
        for _ = 1, rounds do
            local at, width = math.random(#seed), math.random(0, 2)
            local bytes = seed:sub(1, at - 1) .. string.char(math.random(0, 255))
                .. seed:sub(at + width)
            local ok, result = decode(bytes)
            if ok then
                accepted = accepted + 1
            else
                assert.is_string(result)
                refused = refused + 1
            end
        end
        assert.is_true(accepted > rounds / 1000)
        assert.is_true(refused > rounds / 1000)
        assert_comes_back(name, value)
    end

    it("neither throws nor harms in 100,000 rounds of msgpack", function()
        fuzz("msgpack", VALUE, 100000)
    end)

    it("neither throws nor harms in 20,000 rounds of json", function()
        local value = { name = "alice", list = { 1, 2.5, { true } }, text = 'a"b\\c\n' }
        fuzz("json", value, 20000)
    end)
end)

describe("serializer.resolve", function()
    local function reverse(name, id)
        return { name = name, id = id, encode = string.reverse, decode = string.reverse }
    end

    it("finds the three built-in codecs with their ids", function()
        assert.equal(1, codec("raw").id)
        assert.equal(2, codec("json").id)
        assert.equal(3, codec("msgpack").id)
        assert.equal(codec("msgpack"), codec(codec("msgpack")))
    end)

    it("tells what is wrong with a name or a table", function()
        for message, option in pairs({
            ["unknown serializer 'yaml': raw, json, msgpack, number or a table expected"] = "yaml",
            ["a serializer is a name or a table, not a number"] = 7,
            ["a custom serializer needs a name"] = { id = 64 },
            ["serializer 'x' needs an integer id from 64 to 255"] = reverse("x", 63),
            ["serializer 'y' needs an integer id from 64 to 255"] = reverse("y", 256),
            ["serializer 'z' needs an integer id from 64 to 255"] = reverse("z", 64.5),
            ["serializer 'nan' needs an integer id from 64 to 255"] = reverse("nan", 0 / 0),
            ["serializer 'w' needs the functions encode and decode"] = { name = "w", id = 64 },
        }) do
            local found, answer = serializer.resolve(option)
            assert.is_nil(found)
            assert.equal(message, answer)
        end
    end)

    it("says that json needs lua-cjson where it is missing", function()
        local saved = {}
        for _, name in ipairs({ "cjson", "redcache.serializer.json" }) do
            saved[name], package.loaded[name] = package.loaded[name], nil
        end
        package.preload.cjson = function()
            error("module 'cjson' not found")
        end
        local found, message = serializer.resolve("json")
        package.preload.cjson = nil
        for name, module in pairs(saved) do
            package.loaded[name] = module
        end
        assert.is_nil(found)
        assert.equal("serializer 'json' needs lua-cjson, which is not installed"
            .. " (the package is called lua-cjson in Debian and in luarocks)", message)
    end)

    it("wraps a custom codec", function()
        local custom = codec(reverse("reverse", 64))
        assert.equal("reverse", custom.name)
        assert.equal(64, custom.id)
        assert.same({ true, "cba" }, { custom.encode("abc") })
        assert.same({ true, "abc" }, { custom.decode("cba") })
    end)

    it("turns what a custom codec throws or refuses into a message", function()
        local custom = codec({
            name = "shaky", id = 200,
            encode = function(value)
                if value == "throw" then
                    error("broken", 0)
                elseif value == "refuse" then
                    return nil, "too odd"
                end
                return value
            end,
            decode = function(bytes)
                if bytes == "throw" then
                    error({})
                elseif bytes == "refuse" then
                    return nil, "bad bytes"
                end
                return nil
            end,
        })
        assert.same({ false, "could not encode with serializer 'shaky': broken" },
            { custom.encode("throw") })
        assert.same({ false, "could not encode with serializer 'shaky': too odd" },
            { custom.encode("refuse") })
        assert.same({ false, "could not encode with serializer 'shaky':"
            .. " encode returned a number, not a string" }, { custom.encode(5) })
        assert.is_false((custom.decode("throw")))
        assert.same({ false, "could not decode with serializer 'shaky': bad bytes" },
            { custom.decode("refuse") })
        assert.same({ true }, { custom.decode("a nil is a value") })
    end)

    it("finds codecs by the id in an entry", function()
        local custom = codec(reverse("reverse", 77))
        assert.equal(codec("raw"), serializer.by_id(1))
        assert.equal(codec("msgpack"), serializer.by_id(3, custom))
        assert.equal(custom, serializer.by_id(77, custom))
        local found, message = serializer.by_id(78, custom)
        assert.is_nil(found)
        assert.equal("unknown serializer id 78", message)
    end)
end)
