-- The keys of wrapped functions: equal arguments have one text, different ones different texts.

local redcache = require("redcache")

local cache, key_of

before_each(function()
    cache = redcache.new()
    key_of = select(2, cache:wrap("f", function() end))
end)
after_each(function() cache:close() end)

describe("the key of a wrapped call", function()
    it("is the name and the arguments", function()
        assert.equal("f:", key_of())
        assert.equal('f:7,"a",true,nil,1.5', key_of(7, "a", true, nil, 1.5))
        assert.equal('f:{"a"=1,1="x",2={}}', key_of({ "x", {}, a = 1 }))
        assert.equal("f:9007199254740993LL", key_of(9007199254740993LL))
    end)

    it("does not depend on how a value was made", function()
        assert.equal(key_of({ a = 1, b = 2, c = 3 }), key_of({ c = 3, b = 2, a = 1 }))
        assert.equal(key_of(0), key_of(-0))
        assert.equal(key_of(0 / 0), key_of(-(0 / 0)))
        assert.equal(key_of(1), key_of(1, nil, nil))
    end)

    it("tells all values apart", function()
        local texts, values = {}, {
            "1", 1, true, "true", "nil", 0.1, 0.1 + 2 ^ -56, 1 / 3, 2 ^ 53, 2 ^ 53 + 2, 1e300,
            math.huge, -math.huge, "a,b", 'a","b', 'a\\","b', "a\\", 'a"', "", "\0", {}, { 1 },
            { "1" }, { [1.5] = 1 }, { a = 1 }, { ["a=1"] = 1 }, { a = "1" }, { { } }, { a = {} },
            { 1, 2 }, { { 1, 2 } }, { { 1 }, 2 }, { 1, { 2 } }, { true }, { [true] = 1 }, 7LL, 7,
        }
        for i, value in ipairs(values) do
            local text = key_of(value)
            assert.is_nil(texts[text], text .. " is that of " .. tostring(texts[text]))
            texts[text] = i
        end
        for _, two in ipairs({ { "a", "b" }, { "a,b", "" }, { "", "a,b" }, { 1, 2 } }) do
            local text = key_of(two[1], two[2])
            assert.is_nil(texts[text], text)
            texts[text] = true
        end
    end)
end)
