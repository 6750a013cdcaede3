local namespace = require("redcache.namespace")
local redcache = require("redcache")

describe("namespace.prefix", function()
    it("joins names by a colon", function()
        assert.equal("app:", namespace.prefix("", "app"))
        assert.equal("app:users:", namespace.prefix("app:", "users"))
        assert.equal("app:users:eu:", namespace.prefix(namespace.prefix("app:", "users"), "eu"))
    end)

    it("adds nothing for an empty name", function()
        assert.equal("", namespace.prefix("", ""))
        assert.equal("app:", namespace.prefix("app:", ""))
    end)

    it("keeps every byte of a name", function()
        assert.equal("a\0*?[]\\\r\n:", namespace.prefix("", "a\0*?[]\\\r\n"))
    end)
end)

describe("namespace.lock_key", function()
    it("puts the lock's name into a hash tag below the namespace", function()
        assert.equal("app:lock:{job}", namespace.lock_key("app:", "job"))
        assert.equal("lock:{job}", namespace.lock_key("", "job"))
    end)

    it("keeps different locks apart", function()
        local seen = {}
        for _, prefix in ipairs({ "", "a:", "a:b:" }) do
            for _, name in ipairs({ "", "b", "b:c", "{b}", "}" }) do
                local key = namespace.lock_key(prefix, name)
                assert.is_nil(seen[key])
                seen[key] = true
            end
        end
    end)
end)

describe("redcache.slot", function()
    it("is what Redis says", function() -- CLUSTER KEYSLOT of Redis 7.0.15
        for key, slot in pairs({
            ["123456789"] = 12739, foo = 12182, ["{foo}bar"] = 12182, ["x{foo}y{z}"] = 12182,
            ["{}foo"] = 9500, ["foo{"] = 7673, [""] = 0,
        }) do
            assert.equal(slot, redcache.slot(key), key)
        end
        assert.equal(redcache.slot("7"), redcache.slot(7))
    end)

    it("wants a key", function()
        assert.has_error(function() redcache.slot() end,
            "bad argument 'key' to slot: string expected, got nil")
    end)
end)
