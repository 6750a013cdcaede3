-- Local-only mode in nginx: its workers share what they write while Redis is away. What it promises
-- elsewhere: spec/redis/offline_spec.lua.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local proxy = require("spec.support.proxy")
local server = require("spec.support.server")

local INIT = [[
    cache = require("redcache").init({ url = "%s", driver = "%s", offline = "local",
        namespace = "app", commandTimeout = %g, connectTimeout = %g })
]]
-- What the call gives, and which worker has answered.
local LOCATIONS = {
    ["/get"] = [[content_by_lua_block {
        local value, err, source = cache:get("k", { near = ngx.var.arg_near ~= "no" })
        ngx.print(tostring(value), " ", err and err.code or source or "miss", " ", ngx.worker.pid())
    }]],
    ["/set"] = [[content_by_lua_block {
        local ok, err, flag = cache:set("k", ngx.var.arg_v, 60)
        ngx.print(tostring(ok), " ", err and err.code or flag or "stored", " ", ngx.worker.pid())
    }]],
    ["/delete"] = [[content_by_lua_block {
        local ok, err, flag = cache:delete("k")
        ngx.print(tostring(ok), " ", err and err.code or flag or "deleted", " ", ngx.worker.pid())
    }]],
}
local TIMEOUT = clock.scaled(0.2)

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("offline = \"local\" in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, line, web

        setup(function()
            redis = server.start()
            line = proxy.start(redis)
            web = nginx.start({ locations = LOCATIONS, workers = 2,
                init = INIT:format(line:url(), driver, TIMEOUT, TIMEOUT) })
        end)
        teardown(function()
            web:stop()
            line:stop()
            redis:stop()
        end)

        local function ask(path)
            local text = select(2, web:get(path))
            return (text:gsub(" %d+$", "")), text:match("%d+$")
        end

        -- Asks until each of both workers has given that.
        local function both(path, wanted)
            local seen, count = {}, 0
            clock.wait_until(function()
                local answer, pid = ask(path)
                if answer == wanted and not seen[pid] then
                    seen[pid], count = true, count + 1
                end
                return count == 2
            end, 20, wanted .. " of both workers")
        end

        it("is shared by the workers, and gone when Redis is back", function()
            redis:call("SET", "app:k", "old")
            redis:call("SET", "app:other", "old")
            both("/set?v=connect", "true stored")
            line:refuse()
            line:cut()
            both("/set?v=here", "true local")
            both("/get", "here local")
            both("/delete", "true local")
            both("/get", "nil miss")
            assert.equal("true local", (ask("/set?v=last")))
            assert.equal("connect", redis:call("GET", "app:k"):match("connect"))
            line:flow()
            both("/get?near=no", "nil miss")
            assert.is_nil(redis:call("GET", "app:k"))
            assert.equal("true stored", (ask("/set?v=new")))
            both("/get", "new l0")
        end)
    end)
end
