-- put with serveOld = false: readers wait for the new value; without one the old one comes back.

local herd = require("spec.support.herd")
local redcache = require("redcache")
local server = require("spec.support.server")

describe("put with serveOld = false", function()
    local redis, cache

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:call("FLUSHALL")
        cache = redcache.new({ url = redis:url() })
    end)
    after_each(function() cache:close() end)

    local function hide(fn)
        return cache:put("k", 60, fn, { serveOld = false })
    end

    local function keys()
        return redis:call("DBSIZE")
    end

    it("hides the old value while its function runs, then stores the new one", function()
        cache:set("k", "old", 60)
        local seen = "nothing was looked at"
        assert.equal("new", (hide(function()
            seen = cache:get("k")
            return "new"
        end)))
        assert.is_nil(seen)
        assert.equal("new", (cache:get("k")))
        assert.equal(1, keys())
    end)

    it("makes other processes wait for the new value", function()
        cache:set("k", "old", 60)
        local run
        hide(function()
            run = herd.start({ count = 2, params = { url = redis:url() }, main = function(one)
                local mine = require("redcache").new({ url = one.params.url })
                one:emit("asks")
                local value = mine:remember("k", 60, function() return "loaded" end)
                mine:close()
                return { value = value }
            end })
            run:wait_events("asks", 2, 10)
            return "new"
        end)
        run:join(10)
        assert.same({ { value = "new" }, { value = "new" } }, run.results)
    end)

    it("brings the old value back with its remaining life when the function fails (33)", function()
        for _, fails in ipairs({ function() return nil, "no" end, function() error("no") end }) do
            cache:set("k", "", 60)
            redis:call("PEXPIRE", "k", 45000)
            local value, err = hide(fails)
            assert.is_nil(value)
            assert.equal("loaderFailed", err.code)
            assert.equal("", (cache:get("k")))
            local left = cache:ttl("k")
            assert.is_true(left <= 45 and left > 40, "it has " .. tostring(left) .. " s to live")
            assert.equal(1, keys())
        end
        cache:set("k", "for ever", redcache.FOREVER)
        hide(function() return nil, "no" end)
        assert.equal(redcache.FOREVER, cache:ttl("k"))
    end)

    it("does not bring back what was deleted or written meanwhile (30, 31)", function()
        for _, command in ipairs({ { "DEL", "k" }, { "SET", "k", "forced" } }) do
            for _, ends in ipairs({ { "new" }, { nil, "no" } }) do
                cache:set("k", "old", 60)
                local _, err = hide(function()
                    redis:call(unpack(command))
                    return unpack(ends, 1, 2)
                end)
                assert.is_not_nil(err)
                assert.equal(command[3], (cache:get("k")))
                assert.equal(command[3] and 1 or 0, keys())
                redis:call("FLUSHALL")
            end
        end
    end)
end)
