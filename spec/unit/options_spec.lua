local options = require("redcache.options")

local FOREVER = options.FOREVER

local function message_of(given, place)
    local ok, message = options.read({}, given, place or "new", "new")
    assert.is_nil(ok)
    return message
end

describe("options.complete", function()
    it("gives the documented defaults", function()
        local settings = options.complete(nil, "new", "new")
        local expected = {
            url = "memory://", namespace = "", group = "", ttl = 300, plain = false,
            leaseTtl = 5, maxLoadTime = 60, waitTimeout = 5, onTimeout = "error", negativeTtl = 5,
            errorTtl = 0, grace = 0, degradedTtl = 1, strict = false, connectTimeout = 1,
            commandTimeout = 0.5, maxValue = 8388608, maxKey = 65536, lockTtl = 10, lockWait = 5,
            reloads = 0, decodeErrors = "miss", scheduler = "blocking",
        }
        for name, value in pairs(expected) do
            assert.equal(value, settings[name], name)
        end
        assert.equal("msgpack", settings.codec.name)
    end)

    it("takes what is given over the defaults", function()
        local given = { ttl = FOREVER, codec = "raw", grace = 0.5 }
        local settings = options.complete(given, "new", "new")
        assert.equal(FOREVER, settings.ttl)
        assert.equal("raw", settings.codec.name)
        assert.equal(0.5, settings.grace)
    end)
end)

describe("options.read", function()
    it("names the option, its range and the number it got", function()
        assert.equal("bad option 'leaseTtl' to new: number from 0.05 to 3600 expected, got -1",
            message_of({ leaseTtl = -1 }))
        assert.equal("bad option 'reloads' to new: whole number from 0 to 100 expected, got 1.5",
            message_of({ reloads = 1.5 }))
        assert.equal("bad option 'onTimeout' to new: \"error\" or \"load\" or \"stale\" expected, "
            .. "got string", message_of({ onTimeout = "wait" }))
    end)

    it("refuses values of every other type", function()
        for name, row in pairs(options.rows("new")) do
            local is_text = row.kind == "string" or row.kind == "function"
            local wrong = row.kind == "boolean" and 1 or is_text and true or print
            local message = message_of({ [name] = wrong })
            assert.is_truthy(string.find(message, "bad option '" .. name .. "'", 1, true), name)
        end
    end)

    it("refuses numbers just outside of every range, infinity and NaN", function()
        for name, row in pairs(options.rows("new")) do
            if row.kind == "number" or row.kind == "integer" then
                assert.is_truthy(options.read({}, { [name] = row.min }, "new", "new"), name)
                assert.is_truthy(options.read({}, { [name] = row.max }, "new", "new"), name)
                message_of({ [name] = row.min - 0.0001 })
                message_of({ [name] = row.max + 1 })
                message_of({ [name] = math.huge })
                message_of({ [name] = 0 / 0 })
            end
        end
    end)

    it("keeps every default inside its own range", function()
        for _, place in ipairs({ "new", "namespace", "load", "write", "call", "lock" }) do
            for name, row in pairs(options.rows(place)) do
                if row.default ~= nil then
                    assert.is_truthy(options.read({}, { [name] = row.default }, place, "x"), name)
                end
            end
        end
    end)

    it("refuses unknown options and guesses what was meant", function()
        assert.equal("unknown option 'colour' to new", message_of({ colour = 1 }))
        assert.equal("unknown option 'leasettl' to new: did you mean 'leaseTtl'?",
            message_of({ leasettl = 1 }))
        assert.is_truthy(string.find(message_of({ 1 }), "unknown option '1'", 1, true))
    end)

    it("says where things are that other clients have options for", function()
        for name, meant in pairs({
            host = 'url = "redis://127.0.0.1:6379"', port = "url", redis_host = "url",
            redis_port = "url", pass = "user and password", db = "6379/3", ssl = "rediss://",
            tlsVerify = "tlsCa =", insecureSkipVerify = "tlsCa =", ssl_verify = "tlsCa =",
            verify = "tlsServerName", sni = "tlsServerName", prefix = "namespace",
            keyPrefix = "namespace", timeout = "commandTimeout",
            lease_ttl = "did you mean 'leaseTtl'?", expire = "ttl", cancelTag = "of single calls",
            fresh = "of reads",
            wait = "of locks", pool_size = "two connections",
        }) do
            local message = message_of({ [name] = "x" })
            assert.matches("unknown option '" .. name .. "' to new: ", message, 1, true)
            assert.matches(meant, message, 1, true)
        end
        assert.matches("an argument of its own", message_of({ ttl = 5 }, "load"), 1, true)
        assert.matches("of redcache.new", message_of({ url = "redis://h" }, "namespace"), 1, true)
    end)

    it("tells milliseconds that were meant to be seconds", function()
        assert.equal("bad option 'commandTimeout' to new: number from 0.001 to 60 expected, got 500"
            .. ": times are seconds, 500 ms are 0.5", message_of({ commandTimeout = 500 }))
        assert.matches("times are seconds", message_of({ leaseTtl = 5000 }), 1, true)
        assert.matches("times are seconds", message_of({ timeout = 200 }, "call"), 1, true)
        assert.is_nil(message_of({ leaseTtl = -5000 }):find("times are", 1, true))
    end)

    it("has the ranges of the core", function()
        local ranges = require("redcache.core.handle").ranges()
        local seconds = { connectTimeout = true, commandTimeout = true, degradedTtl = true }
        local count = 0
        for name, row in pairs(options.rows("new")) do
            local range = ranges[name]
            if range and (row.kind == "number" or row.kind == "integer") then
                local unit = seconds[name] and 1000 or 1
                assert.same({ row.min * unit, row.max * unit }, range, name)
                count = count + 1
            end
        end
        assert.equal(8, count)
        local units = { errors = 1000, latency = 1000, wait = 1000 }
        for name, row in pairs(options.rows("breaker")) do
            local unit = units[name] or 1
            assert.same({ row.min * unit, row.max * unit }, ranges["breaker." .. name], name)
        end
        assert.is_truthy(options.read({}, { near = { bytes = ranges.near[1] } }, "new", "new"))
        assert.is_truthy(options.read({}, { near = { bytes = ranges.near[2] } }, "new", "new"))
        message_of({ near = { bytes = ranges.near[1] - 1 } })
        message_of({ near = { bytes = ranges.near[2] + 1 } })
    end)

    it("knows which options belong where", function()
        message_of({ url = "redis://h" }, "namespace")
        message_of({ ttl = 5 }, "load")
        message_of({ leaseTtl = 5 }, "call")
        message_of({ timeout = 1 }, "namespace")
        assert.is_truthy(options.read({}, { timeout = 1, cancelTag = 7 }, "load", "remember"))
        assert.is_truthy(options.read({}, { grace = 1 }, "write", "set"))
        assert.is_truthy(options.read({}, { ttl = 1, wait = 0 }, "lock", "lock"))
    end)

    it("never shows a string, which may hold a password", function()
        local url = "redis://user:secret@" .. string.rep("h", 5000)
        assert.is_nil(string.find(message_of({ url = url }), "secret", 1, true))
    end)

    it("refuses options that are no table", function()
        local _, message = options.read({}, 5, "call", "get")
        assert.equal("bad argument 'opts' to get: table expected, got number; it is called "
            .. "get(key, opts)", message)
    end)

    it("says what is wrong with a codec", function()
        assert.is_truthy(string.find(message_of({ codec = "xml" }), "bad option 'codec' to new: ",
            1, true))
        message_of({ codec = { name = "half" } })
    end)
end)

describe("options.is_ttl", function()
    it("accepts seconds above 0 and FOREVER only", function()
        for _, ttl in ipairs({ 0.001, 1, 300, 3155760000, FOREVER }) do
            assert.is_true(options.is_ttl(ttl))
        end
        for _, ttl in ipairs({ 0, -1, 0 / 0, math.huge, -math.huge, "5", true, {} }) do
            assert.is_false(options.is_ttl(ttl))
        end
        assert.is_false(options.is_ttl(nil))
    end)

    it("prints FOREVER by its name", function()
        assert.equal("redcache.FOREVER", tostring(FOREVER))
    end)
end)
