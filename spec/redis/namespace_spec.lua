-- namespace: prefixes, inherited options, one client below.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:call("FLUSHALL") end)

local function open(options)
    options.url = redis:url()
    return redcache.new(options)
end

describe("the namespace option", function()
    it("puts its name and ':' before every key, in every call", function()
        local app = open({ namespace = "app" })
        app:set("set", 1)
        app:setMulti({ multi = 1 })
        app:remember("load", 60, function() return 1 end)
        app:rememberForever("ever", function() return 1 end)
        app:put("put", 60, function() return 1 end)
        local keys = redis:call("KEYS", "*")
        table.sort(keys)
        assert.same({ "app:ever", "app:load", "app:multi", "app:put", "app:set" }, keys)
        assert.equal(1, (app:get("put")))
        assert.is_true((app:exists("load")))
        assert.is_true(app:ttl("set") > 0)
        assert.same({ set = 1, multi = 1 }, (app:getMulti({ "set", "multi", "app:set" })))
        assert.is_true(app:delete("set"))
        assert.equal(4, app:deleteMulti({ "multi", "load", "ever", "put", "set" }))
        assert.equal(0, redis:call("DBSIZE"))
        app:close()
    end)

    it("gives loaders and errors the key without it", function()
        local app = open({ namespace = "app" })
        local seen
        local _, err = app:remember("k", 60, function(key)
            seen = key
            return nil, "no"
        end)
        assert.equal("k", seen)
        assert.equal("k", err.key)
        app:close()
    end)

    it("is read by nobody else: neither a neighbour nor a longer name (X13)", function()
        local caches = {}
        local names = { "vv", "vvother", "v", "", "VV", "v*", "v?", "[v]v" }
        for i, name in ipairs(names) do
            caches[i] = open({ namespace = name })
            caches[i]:set("k", name)
        end
        assert.equal(#names, redis:call("DBSIZE"))
        -- What would be the neighbour's "k" if names and keys were only joined.
        caches[1]:set("otherk", "wrong")
        caches[3]:set("vk", "wrong")
        for i, name in ipairs(names) do
            assert.equal(name, (caches[i]:get("k")))
            assert.equal(name, (caches[i]:remember("k", 60, error)))
        end
        assert.is_true(caches[1]:delete("k"))
        assert.equal(3, caches[6]:deleteMulti({ "k", "*" }) + caches[7]:deleteMulti({ "k", "?" })
            + caches[8]:deleteMulti({ "k" }))
        for i, name in ipairs(names) do
            local left = name == "vvother" or name == "v" or name == "" or name == "VV"
            assert.equal(left, (caches[i]:exists("k")), name)
            caches[i]:close()
        end
    end)

    it("keeps two namespaces' loads of one key apart", function()
        local a, b = open({ namespace = "a" }), open({ namespace = "b" })
        local inner
        local outer = a:remember("k", 60, function()
            inner = b:remember("k", 60, function() return "b" end)
            return "a"
        end)
        assert.same({ "a", "b" }, { outer, inner })
        assert.same({ "a", "b" }, { (a:get("k")), (b:get("k")) })
        a:close()
        b:close()
    end)
end)

describe("cache:namespace", function()
    local root

    before_each(function() root = open({ namespace = "app", ttl = 100, negativeTtl = 7 }) end)
    after_each(function() root:close() end)

    it("adds its name behind the outer one", function()
        local users = root:namespace("users")
        users:set("7", 1)
        users:namespace("eu"):set("7", 2)
        local keys = redis:call("KEYS", "*")
        table.sort(keys)
        assert.same({ "app/users/eu:7", "app/users:7" }, keys)
        assert.is_nil((root:get("7")))
        assert.is_nil((root:get("users:7")))
    end)

    it("inherits options, and changes its own only", function()
        local users = root:namespace("users", { ttl = 10, codec = "json" })
        local deep = users:namespace("deep")
        root:set("k", { 1 })
        users:set("k", { 1 })
        deep:set("k", { 1 })
        users:remember("n", nil, function() return nil end)
        local function within(key, seconds)
            local life = redis:call("PTTL", key)
            assert.is_true(life > seconds * 900 - 1000 and life <= seconds * 1000, key .. life)
        end
        within("app:k", 100)
        within("app/users:k", 10)
        within("app/users/deep:k", 10)
        within("app/users:n", 7)
        assert.equal("[1]", redis:call("GET", "app/users/deep:k"):sub(25))
        assert.not_equal("[1]", redis:call("GET", "app:k"):sub(25))
    end)

    it("shares the connections and counts for itself", function()
        root:get("x")
        clock.wait_until(function() return root:stats().connects == 2 end, 5, "both connections")
        local before = redis:info("clients").connected_clients
        local users = root:namespace("users")
        local counts = monitor.wire(redis, function() users:get("x") end)
        assert.same({ total = 2, get = 1, pttl = 1 }, counts) -- one round trip
        -- The watcher's own goes a moment after it has said so.
        clock.wait_until(function()
            return redis:info("clients").connected_clients == before
        end, 5, "as many connections as before")
        assert.equal(1, users:stats().misses)
        assert.equal(1, root:stats().misses)
        users:get("x")
        assert.equal(1, root:stats().misses)
    end)

    it("refuses an empty name and options of the connection", function()
        assert.has_error(function() root:namespace("") end)
        assert.has_error(function() root:namespace("x", { url = redis:url() }) end)
        assert.has_error(function() root:namespace("x", { ttl = 0 }) end)
    end)
end)
