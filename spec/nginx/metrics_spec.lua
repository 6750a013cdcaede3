-- What nginx serves to Prometheus, and to those who ask whether Redis is there.

local cjson = require("cjson")
local clock = require("spec.support.clock")
local exposition = require("spec.support.exposition")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local possible, reason = nginx.is_possible()
if not possible then
    pending("metrics in nginx: " .. reason)
    return
end

local WORKERS = 2
local INIT = [[
    cache = require("redcache").new({ url = "redis://:%s@127.0.0.1:%d", scheduler = "resty",
        namespace = "app", connectTimeout = 0.5, commandTimeout = 5 })
    pages = cache:namespace("pages")
    metrics = require("redcache.metrics")
]]
local LOCATIONS = {
    ["/alone"] = "content_by_lua_block { metrics.serve(cache) }",
    ["/all"] = "content_by_lua_block { metrics.serve({ cache, pages }, { dict = 'figures' }) }",
    ["/health"] = "content_by_lua_block { metrics.serveHealth(cache) }",
    ["/get"] = "content_by_lua_block { pages:get('k') ngx.print(ngx.worker.id()) }",
    ["/refused"] = [[content_by_lua_block {
        ngx.say(select(2, pcall(metrics.serve, cache, { dict = "none" })))
        ngx.say(select(2, pcall(metrics.serve, {})))
        ngx.say(select(2, pcall(metrics.share, cache)))
    }]],
}

describe("metrics in nginx", function()
    local redis, bed

    before_each(function()
        redis = server.start({ password = "hunter2" })
        bed = nginx.start({
            workers = WORKERS, listen = "reuseport",
            http = "lua_shared_dict figures 1m;",
            init = INIT:format("hunter2", redis.port),
            init_worker = "assert(metrics.share({ cache, pages }, { dict = 'figures' }))",
            locations = LOCATIONS,
        })
    end)
    after_each(function()
        bed:stop()
        redis:stop()
    end)

    -- A count of what "/get" did in each worker, "0" and "1", until both were met.
    local function use_both()
        local met = {}
        clock.wait_until(function()
            local _, id = bed:get("/get")
            met[id] = (met[id] or 0) + 1
            return met["0"] and met["1"]
        end, 10, "a request to each worker")
        return met
    end

    it("are of one worker by itself", function()
        use_both()
        local status, body, headers = bed:get("/alone")
        assert.equal(200, status)
        assert.equal("text/plain; version=0.0.4; charset=utf-8", headers["content-type"])
        local family = exposition.parse(body).redcache_loads_total
        assert.equal(1, #family.samples)
        assert.is_truthy(family.samples[1].labels.worker:find("^[01]$"))
        assert.is_nil(body:find("hunter2", 1, true))
        local at = { server = ("127.0.0.1:%d/0"):format(redis.port) }
        assert.is_number(exposition.reader(body)("redcache_near_entries", at))
    end)

    it("are of all workers with a dict", function()
        local met = use_both()
        local seen
        clock.wait_until(function()
            local _, body = bed:get("/all")
            local value = exposition.reader(body)
            seen = {}
            for id in pairs(met) do
                local labels = { cache = "app/pages", worker = id }
                seen[id] = value("redcache_misses_total", labels)
                assert.equal(value("redcache_loads_total", { cache = "app", worker = id })
                    ~= nil, seen[id] ~= nil)
            end
            return seen["0"] == met["0"] and seen["1"] == met["1"]
        end, 20, "the figures of both workers")
    end)

    it("leave a worker its connections, also where they are read before anything else", function()
        bed:get("/health")
        local ends = clock.now() + 1.5 -- a worker that keeps none takes them down in half a second
        repeat bed:get("/get") until clock.now() > ends
        local family = exposition.parse((select(2, bed:get("/all")))).redcache_connects_total
        for _, sample in ipairs(family.samples) do assert.is_true(sample.value <= 2) end
    end)

    it("go on when workers are replaced", function()
        use_both()
        bed:reload()
        clock.wait_until(function()
            local value = exposition.reader((select(2, bed:get("/all"))))
            return value("redcache_misses_total", { cache = "app/pages", worker = "0" }) == 0
                and value("redcache_misses_total", { cache = "app/pages", worker = "1" }) == 0
        end, 20, "the figures of new workers")
    end)

    it("tell health", function()
        local status, body, headers = bed:get("/health")
        assert.equal(200, status)
        assert.equal("application/json", headers["content-type"])
        local health = cjson.decode(body)
        assert.is_true(health.ready)
        assert.equal(0, health.down)
        assert.is_truthy(health.server:find("^redis "))
        redis:kill()
        clock.wait_until(function()
            status, body = bed:get("/health")
            return status == 503
        end, 5, "503")
        health = cjson.decode(body)
        assert.is_false(health.ready)
        assert.is_nil(body:find("hunter2", 1, true))
        redis:restart()
        clock.wait_until(function() return bed:get("/health") == 200 end, 10, "200")
    end)

    it("blame what they were given", function()
        local _, body = bed:get("/refused")
        assert.is_truthy(body:find("bad option 'dict' to serve: there is no lua_shared_dict "
            .. "'none'\n", 1, true), body)
        assert.is_truthy(body:find("bad argument 'cache' to serve: cache or list of caches",
            1, true), body)
        assert.is_truthy(body:find("bad option 'dict' to share", 1, true), body)
    end)
end)
