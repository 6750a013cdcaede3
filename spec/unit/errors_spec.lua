local errors = require("redcache.errors")

describe("errors", function()
    it("name every code by itself", function()
        local count = 0
        for name, code in pairs(errors.CODES) do
            assert.equal(name, code)
            count = count + 1
        end
        assert.equal(21, count)
    end)

    it("print as their message, with what was done, the key and the cause", function()
        local err = errors.new("timeout", "load", "user:7", "the deadline passed")
        assert.equal("could not load 'user:7': the deadline passed", tostring(err))
        assert.equal("timeout", err.code)
        assert.equal("user:7", err.key)
        assert.is_true(errors.is(err))
    end)

    it("can be put behind and before a text", function()
        local err = errors.new("timeout", "load", "k", "the deadline passed")
        assert.equal("sorry: could not load 'k': the deadline passed", "sorry: " .. err)
        assert.equal("could not load 'k': the deadline passed!", err .. "!")
        assert.equal(err.message .. err.message, err .. err)
        assert.equal("7" .. err.message, 7 .. err)
        local ok, message = pcall(function() return err .. nil end)
        assert.is_false(ok)
        assert.matches("errors_spec.lua:%d+: attempt to concatenate a nil value", message)
    end)

    it("do without a key", function()
        local err = errors.new("closed", "read stats", nil, "the cache is closed")
        assert.equal("could not read stats: the cache is closed", err.message)
        assert.is_nil(err.key)
    end)

    it("keep the key as it is but print it safely and cut", function()
        local key = "a\0b\r\n\255" .. string.rep("x", 1000)
        local err = errors.new("tooLarge", "read", key, "the key is over maxKey")
        assert.equal(key, err.key)
        assert.is_nil(string.find(err.message, "[%c\127-\255]"))
        assert.is_truthy(string.find(err.message, "a\\x00b\\x0d\\x0a\\xff", 1, true))
        assert.is_true(#err.message < 200)
    end)

    it("tell a bad ttl without showing anything but numbers", function()
        assert.equal("could not write 'k': ttl must be seconds above 0 or redcache.FOREVER, got -1",
            errors.bad_ttl("write", "k", -1).message)
        assert.equal("badTtl", errors.bad_ttl("write", "k", 0 / 0).code)
        local message = errors.bad_ttl("write", "k", "secret").message
        assert.is_nil(string.find(message, "secret", 1, true))
    end)

    it("are not mistaken for other values", function()
        for _, value in ipairs({ {}, "text", 1, true, print }) do
            assert.is_false(errors.is(value))
        end
        assert.is_false(errors.is(nil))
    end)
end)
