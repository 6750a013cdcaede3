-- A Redis that answers but refuses the lease: the loader runs once per degradedTtl in the process,
-- as for one that is away, and health() says what Redis said.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, silenced, cache

setup(function()
    redis = server.start()
    -- As hosted servers do it that offer no scripts.
    silenced = server.start({ config = { "rename-command EVAL ''", "rename-command EVALSHA ''" } })
end)
teardown(function()
    redis:stop()
    silenced:stop()
end)
before_each(function() redis:call("FLUSHALL") end)
after_each(function() if cache then cache:close() end end)

local function config(...)
    assert.equal("OK", redis:call("CONFIG", "SET", ...))
end

-- What Redis says, how it is brought to say it, and how that ends. `user`: who asks.
local REFUSALS = {
    { says = "OOM",
        on = function()
            config("maxmemory-policy", "noeviction")
            config("maxmemory", "1")
        end,
        off = function() config("maxmemory", "0") end },
    { says = "READONLY", cause = "the server is a replica",
        on = function() redis:call("REPLICAOF", "127.0.0.1", "1") end,
        off = function() redis:call("REPLICAOF", "NO", "ONE") end },
    { says = "NOREPLICAS",
        on = function() config("min-replicas-to-write", "1") end,
        off = function() config("min-replicas-to-write", "0") end },
    { says = "MISCONF",
        on = function()
            -- A directory stands where the file is to go.
            assert.equal(0, os.execute("mkdir '" .. redis.dir .. "/dump.rdb'"))
            config("save", "3600 1")
            redis:call("BGSAVE")
            clock.wait_until(function()
                return redis:info("persistence").rdb_last_bgsave_status == "err"
            end, 10)
        end,
        off = function()
            config("save", "")
            os.execute("rmdir '" .. redis.dir .. "/dump.rdb' 2>/dev/null")
        end },
    { says = "NOPERM", user = "+@all -eval -evalsha", on = function() end, off = function() end },
    { says = "unknown command", of = function() return silenced end,
        on = function() end, off = function() end },
    { says = "NOPERM", user = "+@all -@scripting -set", on = function() end, off = function() end },
}

for _, refusal in ipairs(REFUSALS) do
    local name = refusal.says .. (refusal.user and " (" .. refusal.user .. ")" or "")
    describe("a Redis that refuses the lease by " .. name, function()
        local url

        before_each(function()
            url = (refusal.of and refusal.of() or redis):url()
            if refusal.user then
                redis:call("ACL", "SETUSER", "some", "reset", "on", ">p", "~*", "&*",
                    unpack((function()
                        local rules = {}
                        for rule in refusal.user:gmatch("%S+") do rules[#rules + 1] = rule end
                        return rules
                    end)()))
                url = redis:url("some:p")
            end
            cache = redcache.new({ url = url, scheduler = "coroutine", near = false,
                degradedTtl = clock.scaled(5) })
            refusal.on()
        end)
        after_each(function()
            refusal.off()
            if refusal.user then redis:call("ACL", "DELUSER", "some") end
        end)

        it("costs one run for calls one after another, and for calls at once", function()
            local runs = 0
            local function fn()
                runs = runs + 1
                for i = 1, 5 do cache:get("other" .. i) end
                return "v"
            end
            redcache.run(function()
                for _ = 1, 50 do
                    local value, err, source, flag = cache:remember("one", 60, fn)
                    assert.same({ "v", "loader", "degraded" }, { value, source, flag },
                        tostring(err))
                end
                assert.equal(1, runs)
                for _ = 1, 50 do
                    redcache.spawn(function()
                        assert.equal("v", (cache:remember("many", 60, fn)))
                    end)
                end
            end)
            assert.equal(2, runs)
            local health = cache:health()
            assert.is_false(health.ready)
            assert.matches(refusal.cause or refusal.says, health.cause, 1, true)
        end)

        if not refusal.user and not refusal.of then
            it("is taken at its word again as soon as it grants the lease", function()
                local runs = 0
                local function fn()
                    runs = runs + 1
                    return runs
                end
                redcache.run(function()
                    assert.equal(1, (cache:remember("k", 60, fn)))
                    refusal.off()
                    assert.equal(2, (cache:remember("k", 60, fn)))
                    assert.equal("redis", select(3, cache:remember("k", 60, fn)))
                end)
                clock.wait_until(function()
                    return select(3, cache:get("k")) == "redis" and cache:health().ready
                end, 10)
            end)
        end
    end)
end
