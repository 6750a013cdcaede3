-- cache:metrics(): what Prometheus reads. What nginx serves: spec/nginx/metrics_spec.lua.

local exposition = require("spec.support.exposition")
local metrics = require("redcache.metrics")
local redcache = require("redcache")

local caches = {}

local function open(options)
    local cache = redcache.new(options)
    caches[#caches + 1] = cache
    return cache
end

after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
    caches = {}
end)

describe("metrics", function()
    it("is valid in every line", function()
        local cache = open({ namespace = "app" })
        cache:set("k", 1)
        cache:get("k")
        local families = exposition.parse(cache:metrics())
        local count = 0
        for name, family in pairs(families) do
            count = count + 1
            assert.is_truthy(name:find("^redcache_"), name)
            assert.equal(family.type == "counter", name:find("_total$") ~= nil, name)
            assert.is_true(#family.samples > 0, name)
        end
        assert.is_true(count > 50)
    end)

    it("says where values came from", function()
        local cache = open({ namespace = "app" })
        cache:set("k", 1)
        for _ = 1, 4 do cache:get("k") end
        cache:get("absent")
        local value = exposition.reader(cache:metrics())
        assert.equal(1, value("redcache_hits_total", { cache = "app", source = "redis" }))
        assert.equal(1, value("redcache_hits_total", { cache = "app", source = "near" }))
        assert.equal(2, value("redcache_hits_total", { cache = "app", source = "l0" }))
        assert.equal(1, value("redcache_misses_total", { cache = "app" }))
    end)

    it("tells how the client and the near cache are", function()
        local cache = open({ namespace = "app" })
        cache:set("k", 1)
        cache:get("k")
        cache:get("k")
        local value = exposition.reader(cache:metrics())
        local at = { server = "memory://" }
        assert.equal(cache:stats().requests, value("redcache_requests_total", at))
        assert.equal(1, value("redcache_ready", at))
        assert.equal(1, value("redcache_tracking", at))
        assert.equal(0, value("redcache_down_seconds", at))
        assert.equal(1, value("redcache_near_entries", at))
        assert.equal(1, value("redcache_l0_entries", at))
        assert.is_true(value("redcache_horizon_seconds", at) < 1)
    end)

    it("has every figure there is", function()
        local cache = open({ writeBehind = { write = function() return true end } })
        assert.is_number(cache:stats().deadLetters)
        assert.same({}, metrics.forgotten(cache:stats(), cache.near:stats()))
    end)

    it("does without a near cache", function()
        local families = exposition.parse(open({ near = false }):metrics())
        assert.is_nil(families.redcache_near_entries)
        assert.is_table(families.redcache_hits_total)
    end)

    it("labels by namespace, whatever that is", function()
        for _, name in ipairs({ "", "ab", 'quo"ted', "back\\slash", "li\nne", "caf\195\169" }) do
            local value = exposition.reader(open({ namespace = name }):metrics())
            assert.equal(0, value("redcache_loads_total", { cache = name }), name)
        end
        local value = exposition.reader(open({ namespace = "not\255utf\0" }):metrics())
        assert.equal(0, value("redcache_loads_total", { cache = "not\\xffutf\\x00" }))
        value = exposition.reader(open({ namespace = "app" }):namespace("sub"):metrics())
        assert.equal(0, value("redcache_loads_total", { cache = "app/sub" }))
        value = exposition.reader(open({ namespace = "a:b" }):metrics())
        assert.equal(0, value("redcache_loads_total", { cache = "a%3Ab" }))
    end)

    it("tells clients of different groups apart", function()
        local cache = open({ group = "reports" })
        local value = exposition.reader(cache:metrics())
        local at = { server = "memory://", group = "reports" }
        assert.equal(0, value("redcache_disconnects_total", at))
    end)

    it("shows no password, key or lock", function()
        local cache = open({
            url = "redis://ann:hunter2@127.0.0.1:1", connectTimeout = 0.05, commandTimeout = 0.05,
        })
        cache:remember("some-key", 60, function() return "some-value" end)
        cache:tryLock("some-lock")
        local text = cache:metrics()
        exposition.parse(text)
        for _, secret in ipairs({ "ann", "hunter2", "some" }) do
            assert.is_nil(text:find(secret, 1, true), secret)
        end
        local value = exposition.reader(text)
        assert.equal(0, value("redcache_ready", { server = "127.0.0.1:1/0" }))
        assert.equal(1, value("redcache_degraded_loads_total", { server = "127.0.0.1:1/0" }))
    end)

    it("says closed of a cache that is", function()
        local cache = open()
        cache:close()
        local text, err = cache:metrics()
        assert.is_nil(text)
        assert.equal("closed", err.code)
    end)
end)
