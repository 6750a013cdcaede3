-- rediss+sentinel://: sentinels and nodes that talk TLS, and know different users.
--
-- Env: REDCACHE_SERVER, as everywhere: one that was built with TLS.

local certificates = require("spec.support.certificates")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local sentinel = require("spec.support.sentinel")

describe("a rediss+sentinel:// url", function()
    local bed, files, cache

    setup(function()
        files = certificates.make("IP:127.0.0.1,DNS:set.example")
        bed = sentinel.start({
            replicas = 1, tls = files, down_ms = 5000,
            users = { "default off", "app on >secret ~* &* +@all" },
            sentinel_users = {
                "default off",
                "watcher on >other resetchannels &+switch-master -@all +ping +subscribe "
                    .. "+sentinel|get-master-addr-by-name",
            },
        })
    end)
    teardown(function() bed:stop() end)
    after_each(function()
        if cache then cache:close() end
        cache = nil
    end)

    local function open(more)
        local options = {
            url = bed:url(), tlsCa = files.ca, user = "app", password = "secret",
            sentinelUser = "watcher", sentinelPassword = "other", codec = "raw",
        }
        for name, value in pairs(more or {}) do options[name] = value end
        cache = redcache.new(options)
        return cache
    end

    local function refusal_of(options)
        local err
        open(options)
        clock.wait_until(function()
            err = select(2, cache:set("k", "v", 60))
            return err and not err.message:find("no answer yet", 1, true)
        end, 10, "the refusal")
        cache:close()
        cache = nil
        assert.is_nil(err.message:find("secret", 1, true) or err.message:find("other", 1, true))
        return err.message
    end

    it("finds the master, and keeps copies of what it reads there", function()
        local master = bed:master()
        open()
        assert(cache:set("k", "v", 60))
        assert.equal("v", (cache:get("k")))
        clock.wait_until(function() return select(3, cache:get("k")) ~= "redis" end, 5, "a copy")
        assert.equal(7, (cache:withLock("job", {}, function() return 7 end)))
        assert.equal("loaded", (cache:remember("r", 60, function() return "loaded" end,
            { strict = true })))
        local health = cache:health()
        assert.is_true(health.ready and health.tracking, health.cause)
        assert.equal(("127.0.0.1:%d/0"):format(master.tls_port), health.address)
        -- Nothing goes past TLS: the plain ports know the bed's clients only.
        for _, one in ipairs({ master, unpack(bed.sentinels) }) do
            for line in one:call("CLIENT", "LIST"):gmatch("[^\n]+") do
                if line:find("name=redcache", 1, true) then
                    assert.matches("laddr=127.0.0.1:" .. one.tls_port, line, 1, true)
                end
            end
        end
    end)

    it("follows the master", function()
        open()
        assert(cache:set("k", "before", 60))
        local new = bed:failover()
        clock.wait_until(function()
            return cache:set("k", "after", 60) and tostring(new:call("GET", "k")):find("after$")
        end, 5, "a write at the new master")
        assert.equal(("127.0.0.1:%d/0"):format(new.tls_port), cache:health().address)
        bed:wait_settled()
    end)

    it("takes one name for all their certificates", function()
        open({ tlsServerName = "set.example" })
        assert(cache:set("k", "v", 60))
    end)

    it("says which certificate, login or port is not right", function()
        local SILENT = "0 of 3 sentinels answer, and 2 have to; '127.0.0.1:%d+': "
        assert.matches(SILENT .. "TLS: .*mismatch$",
            refusal_of({ tlsServerName = "another.example" }))
        assert.matches(SILENT .. "TLS: .*certificate",
            refusal_of({ tlsCa = certificates.make("IP:127.0.0.1").ca }))
        assert.matches("3 of 3 sentinels refuse us, as '127.0.0.1:%d+': WRONGPASS",
            refusal_of({ sentinelPassword = "wrong" }))
        assert.matches("3 of 3 sentinels refuse us, as '127.0.0.1:%d+': NOAUTH",
            refusal_of({ sentinelUser = "", sentinelPassword = "" }))
        assert.matches("WRONGPASS", refusal_of({ password = "wrong" }))
        assert.matches(SILENT .. ".*TLS",
            refusal_of({ url = (bed:url():gsub("^rediss", "redis")), tlsCa = "" }))
    end)
end)
