-- Connections lent to one caller each, in nginx: the cases of spec/support/lent_cases.lua.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local possible, reason = nginx.is_possible()

-- A cache of its own per request: one case closes it.
local CONTENT = [[content_by_lua_block {
    local cache = require("redcache").new({ url = "%s", driver = "%s", scheduler = "resty",
        near = false, namespace = ngx.var.request_id })
    local cases, cjson = require("spec.support.lent_cases"), require("cjson")
    local result = cases[ngx.var.arg_case](cache, ngx.thread.spawn, ngx.sleep)
    cache:close()
    ngx.print(cjson.encode(result))
}]]

for _, driver in ipairs({ "loop", "thread" }) do
    describe("lent connections in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function()
            redis = server.start()
            web = nginx.start({ locations = { ["/case"] = CONTENT:format(redis:url(), driver) } })
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)
        before_each(function() redis:reset() end)

        local function run_case(case)
            local status, body = web:get("/case?case=" .. case, { timeout = 60 })
            assert.equal(200, status, body)
            assert.same({}, web:complaints())
            return require("cjson").decode(body)
        end

        it("wait and write beside 64 others", function()
            local seen = run_case("together")
            assert.equal(seen.expected, seen.counter)
            assert.is_true(seen.overtaken > 0)
        end)

        it("are never more than sixteen", function()
            assert.same({ most = 16, connections = 16 }, run_case("bounded"))
        end)

        it("never get an answer that was not for them", function()
            assert.equal("as it should be", run_case("late"))
        end)

        it("are closed with their cache, and whoever waits hears of it", function()
            local codes = run_case("closed")
            assert.equal(17, #codes)
            for _, code in ipairs(codes) do assert.equal("closed", code) end
            clock.wait_until(function()
                return not redis:call("CLIENT", "LIST"):find("name=redcache%-X")
            end, 10, "the connections' end")
        end)
    end)
end
