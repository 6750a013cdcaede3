-- redcache.key: keys made of parts, and read back.

local key = require("redcache").key

local function random_text()
    local PIECES = { "a", "b", ":", "%", "#", "3A", "{", "}", "\0", "*", "", "7" }
    local parts = {}
    for i = 1, math.random(0, 4) do parts[i] = PIECES[math.random(#PIECES)] end
    return table.concat(parts)
end

describe("redcache.key", function()
    it("reads well where it can", function()
        assert.equal("user:7", key("user", 7))
        assert.equal("user:7:posts", key("user", 7, "posts"))
        assert.equal("user:7", key.entity("user", "7"))
        assert.equal("session:abc", key.session("abc"))
        assert.equal("on:true", key.composite("on", true))
        assert.equal("{user:7}", (key("{user", "7}")))
        assert.equal("a%3Ab:c%25", key("a:b", "c%"))
    end)

    it("makes other keys of other parts, and gives them back (5,000 pairs)", function()
        local seen = {}
        for _ = 1, 5000 do
            local parts = {}
            for i = 1, math.random(3) do parts[i] = random_text() end
            local text = key(unpack(parts))
            assert.same(parts, (key.parse(text)))
            local id = table.concat(parts, "\1")
            assert.is_true(seen[text] == nil or seen[text] == id)
            seen[text] = id
        end
    end)

    it("loses no number", function()
        for _, number in ipairs({ 0, 7, -1, 0.1, 1 / 3, 2 ^ 53 - 1, 1e300, 123456789012345678 }) do
            assert.equal(number, tonumber(key.parse(key("n", number))[2]))
        end
        assert.equal("n:9007199254740991", key("n", 2 ^ 53 - 1))
    end)

    it("hashes filters whatever their order is", function()
        local one, other = {}, {}
        for i = 1, 50 do one["f" .. i] = i end
        for i = 50, 1, -1 do other["f" .. i] = i end
        one.deep, other.deep = { a = { 1, 2 }, b = true }, { b = true, a = { 1, 2 } }
        assert.equal(key.list("users", one), key.list("users", other))
        assert.matches("^users:#%x+$", key.list("users", one))
        local seen = {}
        for _, filters in ipairs({ {}, { 1 }, { "1" }, { true }, { "true" }, { { 1 } }, { a = 1 },
            { a = "1" }, { ["a1"] = 1 }, { 1, 2 }, { 2, 1 }, { [2] = 1 }, { a = { b = 1 } },
            { "ab", "c" }, { "a", "bc" }, { a = {} }, { 0.1 }, { 0.1 + 2 ^ -54 } }) do
            local text = key.list("x", filters)
            assert.is_nil(seen[text])
            seen[text] = true
        end
    end)

    it("hides filters behind a secret", function()
        local filters = { page = 2 }
        local plain, hidden = key.list("users", filters), key.list("users", filters, "s3cret")
        assert.not_equal(plain, hidden)
        assert.equal(hidden, key.list("users", { page = 2 }, "s3cret"))
        assert.not_equal(hidden, key.list("users", filters, "other"))
        assert.not_equal(hidden, key.list("users", filters, ("long"):rep(50)))
        local parts, hash = key.parse(hidden)
        assert.same({ "users" }, parts)
        assert.equal(hidden, "users:#" .. hash)
    end)

    it("is HMAC-SHA-1 of the canonical text", function()
        -- openssl dgst -sha1 -hmac key, of "t1:s4:pagen1:2"
        local filters = { page = 2 }
        assert.equal("users:#a9bd7a39bf8fe0017554dea407fa7b7249c3276f",
            key.list("users", filters, "key"))
        assert.equal("users:#d012db81991371a8f2ee02051e7b92004c431e09", key.list("users", filters))
    end)

    it("tells no part for a hash", function()
        local hash = ("a"):rep(40)
        assert.same({ { "x", "#" .. hash } }, { key.parse(key("x", "#" .. hash)) })
        assert.same({ { "x" }, hash }, { key.parse("x:#" .. hash) })
    end)

    it("makes a pattern that only a text fits", function()
        local cache = require("redcache").new()
        for _, text in ipairs({ "a*b", "a?b", "[ab]", "a\\b", "axb", "ab" }) do
            cache:set(text, 1)
        end
        assert.same({ "a*b" }, (cache:keys(key.literal("a*b"))))
        assert.same({ "[ab]" }, (cache:keys(key.literal("[ab]"))))
        assert.same({ "a\\b" }, (cache:keys(key.literal("a\\b"))))
        cache:close()
    end)

    it("refuses what is no part", function()
        local function told(call, ...)
            local ok, message = pcall(call, ...)
            assert.is_false(ok)
            return message
        end
        assert.matches("'parts' to key", told(key))
        assert.matches("'part 2' to key", told(key, "a", {}))
        assert.matches("'part 2' to key", told(key, "a", nil))
        assert.matches("'part 1' to key", told(key.composite, 0 / 0))
        assert.matches("'part 2' to entity", told(key.entity, "user"))
        assert.matches("'part 2' to session", told(key.session))
        assert.matches("'kind' to list", told(key.list, nil, {}))
        assert.matches("'filters' to list", told(key.list, "x", 1))
        assert.matches("'filters' to list", told(key.list, "x", { print }))
        local round = {}
        round.round = round
        assert.matches("'filters' to list", told(key.list, "x", round))
        assert.matches("'secret' to list", told(key.list, "x", {}, ""))
        assert.matches("'key' to parse", told(key.parse, 7))
        assert.matches("'text' to literal", told(key.literal))
    end)
end)
