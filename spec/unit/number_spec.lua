local core_number = require("redcache.core.number")

describe("core.number", function()
    it("keeps every whole number of 64 bits", function()
        for _, text in ipairs({ "0", "1", "-1", "9007199254740991", "-9007199254740991",
            "9007199254740992", "9007199254740993", "-9007199254740993", "1000000000000000",
            "9223372036854775807", "-9223372036854775807", "-9223372036854775808" }) do
            assert.equal(text, core_number.format(core_number.parse(text)))
        end
        assert.equal("number", type(core_number.parse("9007199254740991")))
        assert.is_true(core_number.is_int64(core_number.parse("9007199254740992")))
    end)

    it("takes nothing else for one", function()
        for _, text in ipairs({ "", "-", "1.5", "1e3", " 1", "1 ", "+1", "0x10", "nan",
            "9223372036854775808", "-9223372036854775809", "18446744073709551616",
            "99999999999999999999", "999999999999999999999999999999999999999999" }) do
            assert.is_nil(core_number.parse(text), text)
        end
    end)

    it("writes numbers so that they come back", function()
        for _, value in ipairs({ 0.1, -1.5, 1e300, 1e-300, 2 ^ 53, 2 ^ 60, 123456789.125 }) do
            assert.equal(value, tonumber(core_number.format(value)))
        end
        assert.equal("0", core_number.format(-0))
    end)

    it("adds, and tells where 64 bits are too few", function()
        local most, least = 9223372036854775807LL, core_number.LEAST
        assert.is_true(core_number.sum(most, -1) == most - 1LL)
        assert.is_true(core_number.sum(least, most) == -1LL)
        for _, pair in ipairs({ { most, 1 }, { 1, most }, { least, -1 }, { least, least } }) do
            assert.is_nil(core_number.sum(pair[1], pair[2]))
        end
    end)
end)
