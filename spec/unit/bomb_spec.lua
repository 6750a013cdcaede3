-- What a stored value may cost whoever reads it: bytes that unfold into more than a small multiple
-- of themselves are refused, and memory that runs out is an error like any other.

local msgpack = require("redcache.serializer.msgpack")
local worker = require("spec.support.worker")

-- Bytes of about a megabyte times `size`, by name. A function without upvalues: workers run it.
local function make_bombs(size)
    local n = size * 0x100000
    local function head(byte, count)
        local b = math.floor
        return string.char(byte, b(count / 2 ^ 24) % 256, b(count / 2 ^ 16) % 256,
            b(count / 256) % 256, count % 256)
    end
    local function array(count, element) return head(0xdd, count) .. element:rep(count) end
    local function map(count, pair) return head(0xdf, count) .. pair:rep(count) end
    return {
        nils = array(n, "\xc0"), empty_arrays = array(n, "\x90"), empty_maps = array(n, "\x80"),
        ones = array(n / 2, "\x91\x01"), pairs_of_two = array(n / 3, "\x92\x01\x02"),
        small_maps = array(n / 3, "\x81\x01\x02"), one_key = map(n / 2, "\x01\x01"),
        one_name = map(n / 3, "\xa1a\x01"), just_over = map(2 ^ 17 * size + 1, "\x01\x01"),
        nested = array(n / 32, ("\x91"):rep(31) .. "\x01"), strings = array(n / 2, "\xa1a"),
        fours = array(n / 5, "\x94\xc0\xc0\xc0\xc0"),
        map_of_one = array(n / 4, "\x81\xa1a\x01"),
        map_of_two = array(n / 5, "\x82\x01\x02\x03\x04"),
        ones_of_four = array(n / 4, "\x91\xa2ab"),
    }
end

describe("MessagePack from outside", function()
    it("unfolds into at most 48 times its bytes and 8 MiB", function()
        if os.getenv("REDCACHE_SANITIZER") then pending("measures memory") return end
        local one = worker.start({
            params = { make = string.dump(make_bombs) },
            main = function(self)
                local codec = require("redcache.serializer.msgpack")
                local function status(name)
                    local file = io.open("/proc/self/status")
                    local text = file:read("*a")
                    file:close()
                    return tonumber(text:match(name .. ":%s+(%d+)")) * 1024
                end
                local out = {}
                for name, bytes in pairs(loadstring(self.params.make)(4)) do
                    collectgarbage()
                    collectgarbage()
                    local file = assert(io.open("/proc/self/clear_refs", "w"))
                    file:write("5") -- the peak begins anew
                    file:close()
                    local before = status("VmRSS")
                    local ok, value = codec.decode(bytes)
                    out[name] = {
                        ok = ok, bytes = #bytes, cost = status("VmHWM") - before,
                        kind = type(value),
                    }
                end
                return out
            end,
        })
        local results, read = one:join(60), 0
        for name, result in pairs(results) do
            -- A map of one in 4 bytes is the worst: 34 times in a fresh heap, up to 40 in one where
            -- other values have left holes.
            local most = 48 * result.bytes + 8 * 2 ^ 20
            assert.is_true(result.cost <= most, ("%s: %d bytes cost %d, %.1f times"):format(
                name, result.bytes, result.cost, result.cost / result.bytes))
            if result.ok then read = read + 1 end
        end
        assert.is_true(results.nils.ok and results.one_key.ok and results.strings.ok)
        assert.is_false(results.empty_arrays.ok or results.empty_maps.ok or results.ones.ok)
        assert.is_true(read >= 8, read .. " were read")
    end)

    it("keeps what is large and no bomb, to the last element", function()
        local list, records, map = {}, {}, {}
        for i = 1, 300000 do
            list[i] = i % 7 == 0 and "s" .. i or i
            if i <= 60000 then
                records[i] = { id = i, name = "n" .. i, at = { i / 2, i % 2 == 0 } }
                map["key" .. i] = i
            end
        end
        map.deep = { list, { records } }
        local ok, bytes = msgpack.encode(map)
        assert.is_true(ok)
        local good, back = msgpack.decode(bytes)
        assert.is_true(good)
        assert.equal(300000, #back.deep[1])
        for i = 1, 300000 do assert(back.deep[1][i] == list[i]) end
        for i = 1, 60000 do
            local one = back.deep[2][1][i]
            assert(one.id == i and one.name == "n" .. i)
            assert(one.at[1] == i / 2 and one.at[2] == (i % 2 == 0) and back["key" .. i] == i)
        end
    end)

    it("is refused at writing where it would be at reading", function()
        local tables = {}
        for i = 1, 65536 do tables[i] = {} end
        assert.is_true((msgpack.encode(tables)))
        for i = 65537, 100000 do tables[i] = {} end
        local ok, message = msgpack.encode(tables)
        assert.is_false(ok)
        assert.matches("so many small tables", message)
        for i = 1, 100000 do tables[i] = { x = i } end
        local good, bytes = msgpack.encode(tables)
        assert.is_true(good)
        assert.is_true((msgpack.decode(bytes)))
    end)

    it("is an error where memory runs out, in both codecs, and they work on", function()
        if os.getenv("REDCACHE_SANITIZER") then pending("shadow memory has no limit") return end
        local one = worker.start({
            main = function()
                local ffi = require("ffi")
                ffi.cdef("struct spec_limit { unsigned long now, most; };"
                    .. "int setrlimit(int, const struct spec_limit *);")
                local codecs = {
                    require("redcache.serializer.msgpack"), require("redcache.serializer.json"),
                }
                local nil_array = "\xdd\x01\x00\x00\x00" .. ("\xc0"):rep(2 ^ 24)
                -- Short: cjson ends the process where its own buffer finds no memory.
                local arrays = "[" .. ("[],"):rep(2 ^ 20) .. "0]"
                local text = ("x"):rep(2 ^ 25)
                local file = io.open("/proc/self/status")
                local limit = ffi.new("struct spec_limit")
                limit.now = (tonumber(file:read("*a"):match("VmSize:%s+(%d+)")) + 24576) * 1024
                limit.most = limit.now
                file:close()
                assert(ffi.C.setrlimit(9, limit) == 0) -- RLIMIT_AS
                local out = {}
                for i, codec in ipairs(codecs) do
                    local ok, message = codec.decode(i == 1 and nil_array or arrays)
                    out[#out + 1] = tostring(ok) .. " " .. tostring(message)
                    ok, message = pcall(codec.encode, { text, text })
                    collectgarbage()
                    out[#out + 1] = tostring(ok) .. " " .. tostring(message)
                    ok, message = codec.decode(select(2, codec.encode({ "small", 1 })))
                    out[#out + 1] = tostring(ok) .. " " .. tostring(message[1])
                end
                return out
            end,
        })
        local out = one:join(60)
        for _, i in ipairs({ 1, 2, 4, 5 }) do
            assert.matches("^false .*not enough memory", out[i])
        end
        assert.equal("true small", out[3])
        assert.equal("true small", out[6])
    end)
end)
