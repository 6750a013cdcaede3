-- The circuit breaker in nginx: a page of many calls while Redis stands still. What it promises
-- elsewhere: spec/redis/breaker_spec.lua.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local PAGE = 20

local INIT = [[
    local redcache = require("redcache")
    local options = { url = "%s", driver = "%s", near = false, namespace = "app",
        commandTimeout = 0.2 }
    guarded = redcache.init(options)
    options.breaker, options.group = false, "plain"
    plain = redcache.init(options)
]]
-- Which of the two asks; how many of its calls ended by time, the code of the last, and the state.
local LOCATIONS = {
    ["/page"] = [[content_by_lua_block {
        local cache, late, err = ngx.var.arg_of == "plain" and plain or guarded, 0, nil
        for i = 1, 20 do
            _, err = cache:get("k" .. i)
            late = late + (err and err.code == "timeout" and 1 or 0)
        end
        local _, breaker = next(cache:health().breaker or {})
        ngx.print(late, " ", err and err.code or "fine", " ", breaker and breaker.state or "none")
    }]],
    ["/load"] = [[content_by_lua_block {
        local value, _, source, flag = guarded:remember("new", 60, function() return "made" end)
        ngx.print(value, " ", source, " ", flag)
    }]],
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("the circuit breaker in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function()
            redis = server.start()
            web = nginx.start({ locations = LOCATIONS, init = INIT:format(redis:url(), driver) })
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)
        after_each(function() redis:resume() end)

        local function get(path) return select(2, web:get(path)) end

        local function late_of(page) return tonumber(page:match("^%d+")) end

        it("lets a page wait for one time-out, and is closed soon after Redis is back", function()
            assert.matches("fine none$", get("/page?of=plain"))
            clock.wait_until(function() return get("/page") == "0 fine closed" end, 5)
            redis:pause()
            local page = get("/page")
            assert.equal("made loader degraded", get("/load"))
            local control = get("/page?of=plain")
            redis:resume()
            assert.matches("unavailable open$", page)
            -- One, but for a worker that had no processor meanwhile.
            assert.is_true(late_of(control) > late_of(page), control .. ", " .. page)
            assert.is_true(late_of(control) <= PAGE)
            clock.wait_until(function() return get("/page") == "0 fine closed" end, 4)
            assert.same({}, web:complaints())
        end)
    end)
end
