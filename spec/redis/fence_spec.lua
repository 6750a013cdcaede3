local redcache = require("redcache")
local server = require("spec.support.server")

local WRITE = redcache.FENCED .. [[
if not fenced(KEYS[2], ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
]]

describe("redcache.FENCED", function()
    local redis, cache

    setup(function()
        redis = server.start()
        cache = redcache.new({ url = redis:url(), commandTimeout = 10 })
    end)

    teardown(function()
        cache:close()
        redis:stop()
    end)

    local function write(lock, text)
        return redis:call("EVAL", WRITE, "2", "stock", "stock:fence",
            ("%.0f"):format(lock.fence), text)
    end

    it("refuses the writes of a holder that another one has replaced", function()
        local old = assert(cache:tryLock("stock", { ttl = 10 }))
        assert.equal(1, write(old, "first"))
        local new = assert(cache:tryLock("stock", { ttl = 10, force = true }))
        assert.equal(1, write(new, "second"))
        assert.equal(0, write(old, "late"))
        assert.equal(1, write(new, "third"))
        assert.equal("third", redis:call("GET", "stock"))
        new:release()
    end)
end)
