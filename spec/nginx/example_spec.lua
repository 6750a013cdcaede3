-- examples/nginx as `run` starts it: an upstream behind a cache.

local cjson = require("cjson")
local clock = require("spec.support.clock")
local exposition = require("spec.support.exposition")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local possible, reason = nginx.is_possible()
if not possible then
    pending("the example for nginx: " .. reason)
    return
end

-- Says what it is told to: by arguments, or by /control for requests to come. Counts by path.
local UPSTREAM = [[
    content_by_lua_block {
        local state, arg = ngx.shared.state, ngx.req.get_uri_args()
        state:incr("count " .. ngx.var.uri, 1, 0)
        local version = state:get("version")
        ngx.sleep(state:get("sleep"))
        ngx.status = state:get("status") ~= 200 and state:get("status")
            or tonumber(arg.status) or 200
        for name, value in pairs(arg) do
            local header = name:match("^h%-(.+)")
            if header then ngx.header[header] = value end
        end
        local names = {}
        for name in pairs(ngx.req.get_headers()) do names[#names + 1] = name end
        table.sort(names)
        ngx.header["X-Saw"] = table.concat(names, " ")
        ngx.print("version ", version)
    }
]]
local CONTROL = [[
    content_by_lua_block {
        for name, value in pairs(ngx.req.get_uri_args()) do
            ngx.shared.state:set(name, tonumber(value))
        end
    }
]]
local COUNT = [[
    content_by_lua_block {
        ngx.print(ngx.shared.state:get("count " .. ngx.var.arg_of) or 0)
    }
]]
local STATE = "version=1&sleep=0&status=200"

describe("examples/nginx", function()
    local redis, upstream, example, log

    local function get(path, options)
        local status, body, headers = http.get(example, path, options)
        assert(status, body)
        return body, headers["x-cache"], headers, status
    end

    local function control(text)
        assert.equal(200, (upstream:get("/control?" .. text)))
    end

    local function count(path)
        return tonumber((select(2, upstream:get("/count?of=" .. path))))
    end

    local function cache_says(path, options)
        return (select(2, get(path, options)))
    end

    -- So many requests at the same time: how often each X-Cache, how often each body.
    local function herd(path, size)
        local connections, verdicts, bodies = {}, {}, {}
        for i = 1, size do connections[i] = assert(http.open(example, path)) end
        for i = 1, size do
            local status, body, headers = http.read(connections[i])
            assert.equal(200, status)
            local verdict = headers["x-cache"]:match("^%S+")
            verdicts[verdict] = (verdicts[verdict] or 0) + 1
            bodies[body] = (bodies[body] or 0) + 1
        end
        return verdicts, bodies
    end

    setup(function()
        redis = server.start()
        upstream = nginx.start({
            http = "lua_shared_dict state 1m;",
            locations = { ["/"] = UPSTREAM, ["= /control"] = CONTROL, ["= /count"] = COUNT },
        })
        log = temp.dir() .. "/log"
        example = { port = socket.free_port() }
        example.process = process.spawn({
            "sh", nginx.root .. "/examples/nginx/run", stdout = log, stderr = log,
            env = {
                REDIS_URL = redis:url(), PORT = tostring(example.port),
                UPSTREAM = "127.0.0.1:" .. upstream.port, NGINX = os.getenv("REDCACHE_NGINX"),
            },
        })
        control(STATE)
        clock.wait_until(function()
            assert(example.process:is_alive(), temp.read(log))
            return http.get(example, "/health", { timeout = 2 }) == 200
        end, 10, "the example")
    end)
    teardown(function()
        example.process:stop(10)
        upstream:stop()
        redis:stop()
    end)
    before_each(function() control(STATE) end)

    it("keeps a page: MISS, then HIT", function()
        local body, verdict, headers = get("/page")
        assert.same({ "version 1", "MISS" }, { body, verdict })
        control("version=2")
        local seen = {}
        clock.wait_until(function()
            body, verdict, headers = get("/page")
            assert.equal("version 1", body)
            seen[verdict] = true
            return verdict == "HIT l0"
        end, 5, "a hit in L0")
        assert.is_nil(seen.MISS)
        assert.equal("9", headers["content-length"])
        assert.equal(1, count("/page"))
        assert.equal("version 2", (get("/page?other=1")))
        local other_host = { headers = { Host = "other.example" } }
        assert.equal("MISS", cache_says("/page", other_host))
    end)

    it("tells the age", function()
        local _, _, first = get("/aging?h-Age=30")
        assert.equal("30", first.age)
        clock.wait_until(function()
            return tonumber((select(3, get("/aging?h-Age=30"))).age) >= 31
        end, 5, "a greater age")
    end)

    it("answers HEAD from the same page", function()
        get("/head")
        local connection = assert(http.open(example, "/head", { method = "HEAD" }))
        local text = connection:receive(5)
        connection:close()
        assert.is_truthy(text:find("^HTTP/1.1 200"))
        assert.is_truthy(text:find("X-Cache: HIT", 1, true))
        assert.is_truthy(text:find("Content-Length: 9\r\n", 1, true))
        assert.equal("\r\n\r\n", text:sub(-4))
        assert.equal(1, count("/head"))
    end)

    it("asks the upstream once for 50 who want a cold page", function()
        control("sleep=0.3")
        local verdicts, bodies = herd("/cold", 50)
        assert.same({ ["version 1"] = 50 }, bodies)
        assert.same({ MISS = 1, HIT = 49 }, verdicts)
        assert.equal(1, count("/cold"))
    end)

    it("shows the upstream nothing that is not in the key", function()
        local _, _, headers = get("/saw", {
            headers = { ["X-Forwarded-Host"] = "evil", Range = "bytes=0-1", ["Accept"] = "a" },
        })
        assert.equal("host", headers["x-saw"])
    end)

    local function wait_until_stale(path)
        clock.wait_until(function()
            return cache_says(path) == "STALE"
        end, 5, "the end of the page's life")
    end

    it("serves the old page at once while a slow upstream makes a new one", function()
        get("/slow?h-Cache-Control=max-age=1")
        control("version=2&sleep=3")
        wait_until_stale("/slow?h-Cache-Control=max-age=1")
        for _ = 1, 10 do
            local took, body, verdict = clock.time(get, "/slow?h-Cache-Control=max-age=1")
            assert.same({ "version 1", "STALE" }, { body, verdict })
            assert.is_true(took < clock.scaled(2), tostring(took))
        end
        assert.equal(2, count("/slow"))
        control("sleep=0")
        clock.wait_until(function()
            return get("/slow?h-Cache-Control=max-age=1") == "version 2"
        end, 15, "the new page")
    end)

    it("serves the old page while the upstream is broken", function()
        get("/sick?h-Cache-Control=max-age=1")
        control("status=500")
        wait_until_stale("/sick?h-Cache-Control=max-age=1")
        local before = count("/sick")
        for _ = 1, 10 do
            local body, verdict, _, status = get("/sick?h-Cache-Control=max-age=1")
            assert.same({ "version 1", "STALE", 200 }, { body, verdict, status })
        end
        assert.is_true(count("/sick") - before <= 2)
        control("status=200&version=2")
        clock.wait_until(function()
            return get("/sick?h-Cache-Control=max-age=1") == "version 2"
        end, 20, "the page of an upstream that is well again")
    end)

    it("hands on an error that nothing stands in for, and does not keep it", function()
        control("status=500")
        local body, verdict, _, status = get("/failing")
        assert.same({ "version 1", "MISS", 500 }, { body, verdict, status })
        control("status=200&version=2")
        assert.equal("version 2", (get("/failing")))
    end)

    it("keeps for a moment that a page is not there", function()
        local _, verdict, _, status = get("/none?status=404")
        assert.same({ "MISS", 404 }, { verdict, status })
        _, verdict, _, status = get("/none?status=404")
        assert.same({ 404, "HIT" }, { status, verdict:match("%S+") })
        assert.equal(1, count("/none"))
    end)

    it("forgets a page that is purged", function()
        get("/purged")
        control("version=2")
        local _, _, _, status = get("/purged", { method = "PURGE" })
        assert.equal(200, status)
        _, _, _, status = get("/purged", { method = "PURGE" })
        assert.equal(404, status)
        local body, verdict = get("/purged")
        assert.same({ "version 2", "MISS" }, { body, verdict })
    end)

    it("does not keep a page that was purged while it was made", function()
        control("sleep=0.5")
        local connection = assert(http.open(example, "/raced"))
        clock.wait_until(function() return count("/raced") == 1 end, 5, "the load")
        control("version=2&sleep=0")
        get("/raced", { method = "PURGE" })
        assert.equal("version 1", (select(2, http.read(connection))))
        assert.equal("version 2", (get("/raced")))
    end)

    local NEWS = "?h-Cache-Tag=news,front"

    local function purge_tag(tag)
        local _, _, _, status = get("/", { method = "PURGE", headers = { ["Cache-Tag"] = tag } })
        assert.equal(200, status)
    end

    it("forgets all pages of a tag that is purged", function()
        for _, path in ipairs({ "/a" .. NEWS, "/b" .. NEWS, "/c?h-Cache-Tag=other" }) do
            local body, verdict, headers = get(path)
            assert.same({ "version 1", "MISS" }, { body, verdict })
            assert.is_nil(headers["cache-tag"])
            assert.is_truthy(cache_says(path):find("^HIT"))
        end
        control("version=2")
        purge_tag("front")
        assert.equal("version 2", (get("/a" .. NEWS)))
        assert.equal("version 2", (get("/b" .. NEWS)))
        assert.equal("version 1", (get("/c?h-Cache-Tag=other")))
        assert.is_truthy(cache_says("/a" .. NEWS):find("^HIT"))
    end)

    it("makes a page of a purged tag once, however many want it", function()
        get("/crowd" .. NEWS)
        control("version=2&sleep=0.3")
        purge_tag("news")
        local verdicts, bodies = herd("/crowd" .. NEWS, 50)
        assert.same({ ["version 2"] = 50 }, bodies)
        assert.same({ MISS = 1, HIT = 49 }, verdicts)
        assert.equal(2, count("/crowd"))
    end)

    it("does not keep a page whose tag was purged while it was made", function()
        control("sleep=0.5")
        local connection = assert(http.open(example, "/late" .. NEWS))
        clock.wait_until(function() return count("/late") == 1 end, 5, "the load")
        control("version=2&sleep=0")
        purge_tag("news")
        assert.equal("version 1", (select(2, http.read(connection))))
        assert.equal("version 2", (get("/late" .. NEWS)))
    end)

    it("keeps no page with more tags than an entry can have, and answers it", function()
        local names = {}
        for i = 1, 17 do names[i] = "t" .. i end
        for i, tags in ipairs({ table.concat(names, ","), ("x"):rep(201) }) do
            local path = "/tagged" .. i .. "?h-Cache-Tag=" .. tags
            assert.equal("MISS", cache_says(path))
            assert.equal("BYPASS", cache_says(path))
            assert.equal(2, count("/tagged" .. i))
        end
        local path = "/tagged3?h-Cache-Tag=t1," .. table.concat(names, ",", 1, 16)
        assert.equal("MISS", cache_says(path))
        assert.is_truthy(cache_says(path):find("^HIT"))
        local _, _, _, status = get("/", { method = "PURGE",
            headers = { ["Cache-Tag"] = ("x"):rep(201) } })
        assert.equal(400, status)
    end)

    it("asks Redis nothing for a hit of a page with tags", function()
        -- Twenty in a row from L0: each worker that answers has met it. Which one does is chance.
        local calls
        clock.wait_until(function()
            local hits = 0
            calls = redis:count(function()
                for _ = 1, 20 do
                    hits = hits + (cache_says("/quiet" .. NEWS) == "HIT l0" and 1 or 0)
                end
            end)
            return hits == 20
        end, 20, "L0 of all workers")
        assert.is_nil(calls.get)
        assert.is_nil(calls.evalsha)
    end)

    it("lets the upstream answer what is one client's own", function()
        get("/own")
        for _, options in ipairs({
            { headers = { Cookie = "a=b" } }, { headers = { Authorization = "x" } },
            { method = "POST", body = "b" },
        }) do
            local before = count("/own")
            local _, verdict = get("/own", options)
            assert.equal("BYPASS", verdict)
            assert.equal(before + 1, count("/own"))
        end
        for i, args in ipairs({
            "h-Set-Cookie=a%3Db", "h-Vary=Accept-Language", "h-Cache-Control=private",
            "h-Cache-Control=no-store", "status=302",
        }) do
            local path = ("/own%d?%s"):format(i, args)
            assert.equal("MISS", cache_says(path))
            assert.equal("BYPASS", cache_says(path), args)
            assert.equal(2, count("/own" .. i))
        end
        assert.equal("MISS", cache_says("/vary?h-Vary=Accept-Encoding"))
        assert.is_truthy(cache_says("/vary?h-Vary=Accept-Encoding"):find("^HIT"))
    end)

    it("gives 20 who want such a page at once one of their own each", function()
        control("sleep=0.1")
        herd("/own-herd?h-Set-Cookie=a%3Db", 20)
        assert.equal(20, count("/own-herd"))
    end)

    it("shows metrics and health", function()
        local families = exposition.parse((get("/metrics")))
        assert.is_table(families.redcache_hits_total)
        assert.is_true(cjson.decode((get("/health"))).ready)
    end)

    it("goes on while Redis is away", function()
        get("/alone")
        redis:kill()
        control("version=2")
        clock.wait_until(function()
            local _, _, _, status = get("/alone")
            assert.equal(200, status)
            return select(4, get("/health")) == 503
        end, 10, "a health that tells")
        assert.equal("version 2", (get("/alone-2")))
        redis:restart()
        clock.wait_until(function()
            get("/back")
            return cache_says("/back"):find("^HIT") ~= nil
        end, 20, "a hit")
    end)
end)
