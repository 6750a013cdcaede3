-- onInvalidate in nginx: every worker hears of what any of them has read, and while nobody calls.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local INIT = [[
    cache = require("redcache").init({ url = "%s", driver = "%s", namespace = "app",
        near = { shared = "%s" } })
]]
local INIT_WORKER = [[
    assert(cache:onInvalidate(function(key, cause)
        ngx.log(ngx.INFO, "worker ", ngx.worker.id(), " told ", cause, " ", tostring(key), " ",
            tostring(cache:get("k")))
    end))
    ngx.log(ngx.INFO, "worker ", ngx.worker.id(), " listens")
]]
local LOCATIONS = {
    ["/get"] = [[
        content_by_lua_block {
            local value = cache:get("k")
            ngx.print(tostring(value), " ", ngx.worker.id())
        }
    ]],
    ["/set"] = "content_by_lua_block { ngx.print(tostring(cache:set('k', 'new'))) }",
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("onInvalidate in two workers of nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function()
            redis = server.start()
            web = nginx.start({
                workers = 2, locations = LOCATIONS,
                init = INIT:format(redis:url(), driver, "listen-" .. redis.port .. driver),
                init_worker = INIT_WORKER,
            })
            for id = 0, 1 do
                clock.wait_until(function()
                    return web:log():find("worker " .. id .. " listens", 1, true)
                end, 10, "the workers")
            end
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)

        local function wait_for_both(text)
            for id = 0, 1 do
                clock.wait_until(function()
                    return web:log():find(("worker %d told %s"):format(id, text), 1, true)
                end, 10, "that both are told " .. text)
            end
        end

        it("both hear of a key that one has read", function()
            redis:call("SET", "app:k", "first")
            assert.matches("^first ", (select(2, web:get("/get"))))
            redis:call("SET", "app:k", "second")
            wait_for_both("push k second")
        end)

        it("both hear of what one of them writes", function()
            assert.equal("true", (select(2, web:get("/set"))))
            wait_for_both("write k new")
        end)

        it("nothing of this was worth a complaint", function()
            assert.same({}, web:complaints())
        end)
    end)
end
