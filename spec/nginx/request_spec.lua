-- cache:request() in nginx: one memo per request, in ngx.ctx.

local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local possible, reason = nginx.is_possible()
if not possible then
    pending("requests in nginx: " .. reason)
    return
end

local INIT = [[
    cache = require("redcache").new({ url = "redis://127.0.0.1:%d", scheduler = "resty",
        commandTimeout = 20, connectTimeout = 20 })
    bare = cache:namespace("bare", { near = false })
    early = cache:request()
    is_fresh = early ~= cache:request()
    function say(...)
        local parts = {}
        for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
        ngx.say(table.concat(parts, " "))
    end
]]

-- The phases of one request, and what it may not share.
local PHASES = [[
    rewrite_by_lua_block { cache:request():set("k", "mine") }
    access_by_lua_block { ngx.ctx.same = cache:request() }
    content_by_lua_block {
        cache:delete("k") -- past the memo
        say(cache:request():get("k"))
        say(cache:request() == ngx.ctx.same, is_fresh, cache:request() == early)
    }
    header_filter_by_lua_block { ngx.header["X-Value"] = cache:request():get("k") }
]]
local OUTER = [[
    content_by_lua_block {
        cache:request():set("k", "outer")
        cache:set("k", "redis")
        local inner = ngx.location.capture("/inner").body
        if ngx.var.arg_exec then return ngx.exec("/inner") end
        say(inner, cache:request():get("k"))
    }
]]
local INNER = "content_by_lua_block { ngx.print((cache:request():get('k'))) }"
local TIMER = [[
    content_by_lua_block {
        cache:set("k", "redis")
        cache:request():set("k", "of the request")
        cache:set("k", "redis")
        local semaphore = require("ngx.semaphore").new()
        local value, again
        ngx.timer.at(0, function()
            value = cache:request():get("k")
            cache:set("k", "later")
            again = cache:request():get("k")
            semaphore:post()
        end)
        semaphore:wait(5)
        say(value, again)
    }
]]
-- Light threads of one request that want one key at the same time.
local AT_ONCE = [[
    content_by_lua_block {
        local memo, runs = (ngx.var.arg_bare and bare or cache):request(), 0
        local function loader()
            runs = runs + 1
            ngx.sleep(0.05)
            return { runs }
        end
        local threads, results = {}, {}
        for i = 1, 8 do
            threads[i] = ngx.thread.spawn(function()
                if ngx.var.arg_get then return (memo:get("k")) end
                return (memo:remember("k", 60, loader))
            end)
        end
        for i = 1, 8 do
            local _, value = ngx.thread.wait(threads[i])
            results[i] = type(value) == "table" and value[1] or tostring(value)
        end
        say(runs, table.concat(results, ","))
        say((select(3, memo:get("k"))))
    }
]]

describe("request in nginx", function()
    local redis, bed

    setup(function()
        redis = server.start()
        bed = nginx.start({
            init = INIT:format(redis.port),
            locations = {
                ["/phases"] = PHASES, ["/outer"] = OUTER, ["/inner"] = INNER,
                ["/timer"] = TIMER, ["/at-once"] = AT_ONCE,
            },
        })
    end)
    teardown(function()
        assert.same({}, bed:complaints())
        bed:stop()
        redis:stop()
    end)
    before_each(function() redis:call("FLUSHALL") end)

    it("is the same object in all phases, and none in init_by_lua", function()
        local status, body, headers = bed:get("/phases")
        assert.equal(200, status)
        assert.equal("mine nil request\ntrue true false\n", body)
        assert.equal("mine", headers["x-value"])
    end)

    it("begins anew with every request", function()
        bed:get("/phases")
        assert.equal("nil", (select(2, bed:get("/inner"))))
    end)

    it("is another one in a subrequest, and behind ngx.exec", function()
        local _, body = bed:get("/outer")
        assert.equal("redis outer nil request\n", body)
        assert.equal("redis", (select(2, bed:get("/outer?exec=1"))))
    end)

    it("is a timer's own in a timer", function()
        assert.equal("redis redis\n", (select(2, bed:get("/timer"))))
    end)

    it("runs one loader for light threads that ask at once", function()
        assert.equal("1 1,1,1,1,1,1,1,1\nrequest\n", (select(2, bed:get("/at-once"))))
        redis:call("FLUSHALL")
        assert.equal("1 1,1,1,1,1,1,1,1\nrequest\n", (select(2, bed:get("/at-once?bare=1"))))
    end)

    it("sends one GET for light threads that ask at once for what is to be near", function()
        -- A GET is joined within 5 ms of its sending: the fewest of some rounds.
        local fewest = math.huge
        for _ = 1, 10 do
            local calls, _, body = redis:count(function() return bed:get("/at-once?get=1") end)
            assert.equal("0 " .. ("nil,"):rep(8):sub(1, -2) .. "\nnil\n", body)
            fewest = math.min(fewest, calls.get)
            if fewest == 1 then break end
        end
        assert.equal(1, fewest)
    end)
end)
