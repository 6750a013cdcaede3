local redcache = require("redcache")
local server = require("spec.support.server")

describe("the options user and password", function()
    local redis

    setup(function()
        redis = server.start({ users = { "ann on >s3cret%@/ ~* &* +@all" } })
    end)

    teardown(function()
        redis:stop()
    end)

    it("are the login where the url has none, and need no encoding", function()
        local cache = redcache.new({ url = redis:url(), user = "ann", password = "s3cret%@/" })
        assert.is_true(cache:set("key", 1))
        assert.matches("user=ann", redis:client():call("CLIENT", "LIST"), 1, true)
        cache:close()
    end)

    it("are refused beside a login in the url, and the text shows neither", function()
        local ok, message = pcall(redcache.new, { url = redis:url("ann:hidden"), user = "ann",
            password = "secret" })
        assert.is_false(ok)
        assert.equal("bad option 'user' to new: user and password stand in the url already",
            message:match("bad option.*"))
        assert.is_nil(message:find("hidden", 1, true) or message:find("secret", 1, true))
    end)

    it("go together, and are not for memory://", function()
        for option, opts in pairs({
            user = { url = redis:url(), user = "ann" },
            password = { url = "memory://", password = "x" },
        }) do
            local ok, message = pcall(redcache.new, opts)
            assert.is_false(ok)
            assert.matches("bad option '" .. option .. "' to new: ", message, 1, true)
        end
    end)

    it("make clients of their own", function()
        local right = redcache.new({ url = redis:url(), user = "ann", password = "s3cret%@/" })
        local wrong = redcache.new({ url = redis:url(), user = "ann", password = "wrong",
            commandTimeout = 10 })
        assert.is_true(right:set("key", 1))
        local _, err = wrong:get("key")
        assert.equal("redis", err.code)
        assert.matches("WRONGPASS", err.message, 1, true)
        assert.is_nil(err.message:find("wrong'", 1, true))
        right:close()
        wrong:close()
    end)
end)
