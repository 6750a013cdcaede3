local namespace = require("redcache.namespace")

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
