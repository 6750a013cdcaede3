local namespace = require("redcache.namespace")
local redcache = require("redcache")

describe("namespace.prefix", function()
    it("ends with a colon, and joins names by a slash", function()
        assert.equal("app:", namespace.prefix("", "app"))
        assert.equal("app/users:", namespace.prefix("app:", "users"))
        assert.equal("app/users/eu:", namespace.prefix(namespace.prefix("app:", "users"), "eu"))
    end)

    it("escapes what would end a name, or join two", function()
        assert.equal("a%3Ab:", namespace.prefix("", "a:b"))
        assert.equal("a%2Fb:", namespace.prefix("", "a/b"))
        assert.equal("a%253Ab:", namespace.prefix("", "a%3Ab"))
        assert.equal("app/%3A:", namespace.prefix("app:", ":"))
    end)

    it("keeps braces that are a hash tag, and no others", function()
        for name, prefix in pairs({
            ["{a}"] = "{a}:", ["x{a}y"] = "x{a}y:", ["a}b"] = "a}b:", ["a{b"] = "a%7Bb:",
            ["{a"] = "%7Ba:", ["a{}b"] = "a%7B}b:", ["{a}b"] = "%7Ba}b:", ["{7}"] = "{7}:",
            ["{}"] = "%7B}:", ["a{b}c{"] = "a{b}c{:",
        }) do
            assert.equal(prefix, namespace.prefix("", name))
        end
    end)

    it("leaves each key the slot of its hash tag", function()
        for _, name in ipairs({ "a", "a:b", "a{b", "{", "a{}", "}", "a}{" }) do
            local prefix = namespace.prefix("", name)
            assert.equal(redcache.slot("user:7"), redcache.slot(prefix .. "{user:7}:name"), name)
        end
    end)

    it("adds nothing for an empty name", function()
        assert.equal("", namespace.prefix("", ""))
        assert.equal("app:", namespace.prefix("app:", ""))
    end)

    it("keeps every other byte of a name", function()
        assert.equal("a\0*?[]\\\r\n:", namespace.prefix("", "a\0*?[]\\\r\n"))
    end)
end)

describe("two prefixes", function()
    local PIECES = { "a", "b", ":", "/", "*", "?", "[", "\\", "{", "}", "{a}", "\0", "%", "%3A" }

    local function prefix_of(names)
        local prefix = ""
        for _, name in ipairs(names) do prefix = namespace.prefix(prefix, name) end
        return prefix
    end

    it("of different namespaces never begin with each other (5,000 pairs)", function()
        local seen = {}
        for _ = 1, 10000 do
            local names = {}
            for i = 1, math.random(3) do
                names[i] = PIECES[math.random(#PIECES)] .. (PIECES[math.random(20)] or "")
            end
            local prefix, id = prefix_of(names), table.concat(names, "\1")
            assert.is_true(seen[prefix] == nil or seen[prefix] == id, prefix)
            seen[prefix] = id
            -- The first ":" of a key ends its prefix.
            assert.equal(prefix, ((prefix .. ":key:"):match("^[^:]*:")))
        end
    end)
end)

describe("namespace.lock_key", function()
    it("puts the lock's name into a hash tag below the namespace", function()
        assert.equal("app//lock:{job}", namespace.lock_key("app:", "job"))
        assert.equal("//lock:{job}", namespace.lock_key("", "job"))
    end)

    it("keeps different locks apart", function()
        local seen = {}
        for _, prefix in ipairs({ "", "a:", "a/b:" }) do
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
