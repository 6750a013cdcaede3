-- setBehind in nginx: timers write while nobody calls, from a phase that cannot wait, too; a worker
-- process that exits writes what waits, or says that it could not.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")

-- What is written is a list in Redis: "key=value", in its order.
local INIT = [[
    cache = require("redcache").init({ url = "%s", driver = "%s", namespace = "app",
        commandTimeout = 20, writeBehind = {
            delay = %s, batch = 2,
            write = function(items)
                if not %s then return nil, "no database" end
                for _, item in ipairs(items) do
                    assert(cache:redis():command("RPUSH", "log", item.key .. "=" .. item.value))
                end
                return true
            end,
            onFailed = function(key, value, reason)
                ngx.log(ngx.NOTICE, "onFailed ", key, " ", value, " ", reason)
            end,
        } })
    function set(count)
        for i = 1, count do
            local ok, err, sent = cache:setBehind("k" .. i, i)
            ngx.log(ngx.NOTICE, "setBehind gave ", tostring(ok), " ", tostring(err), " ",
                tostring(sent))
        end
    end
]]
local LOCATIONS = {
    ["/set"] = "content_by_lua_block { set(tonumber(ngx.var.arg_count)) ngx.print('set') }",
    ["/late"] = "return 204; log_by_lua_block { set(1) }",
}

local WORKER = [[
    orders = cache:namespace("orders", { lockTtl = %f, writeBehind = { durable = true,
        partitions = 1, write = function(items)
            assert(cache:redis():command("SET", "owner", tostring(ngx.worker.pid())))
            for _, item in ipairs(items) do
                assert(cache:redis():command("RPUSH", "log", item.key .. "=" .. item.value))
            end
            return true
        end } })
]]

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("setBehind in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)
        before_each(function() redis:reset() end)
        after_each(function() web:stop() end)

        local function start(delay, works)
            web = nginx.start({
                locations = LOCATIONS,
                init = INIT:format(redis:url(), driver, delay, tostring(works ~= false)),
            })
        end

        local function written() return redis:call("LRANGE", "log", 0, -1) end

        it("what a phase has set that cannot wait is written, and nobody calls", function()
            start(0.1)
            web:get("/late")
            clock.wait_until(function() return written()[1] == "k1=1" end, 10, "the write")
            assert.matches("setBehind gave true nil sent", web:log(), 1, true)
            assert.same({}, web:complaints())
        end)

        it("a worker that exits writes what waits", function()
            start(600)
            assert.equal("set", select(2, web:get("/set?count=5")))
            assert.same({}, written())
            assert.equal(0, web:quit(clock.scaled(10)))
            assert.same({ "k1=1", "k2=2", "k3=3", "k4=4", "k5=5" }, written())
            assert.same({}, web:complaints())
        end)

        it("workers write what lasts, whoever has set it and whichever is killed", function()
            web = nginx.start({
                locations = {}, workers = 2, init_worker = WORKER:format(clock.scaled(1)),
                init = INIT:format(redis:url(), driver, 0, "true"),
            })
            -- Another process, which may have become the owner, hands over when it is closed.
            local function set(key, value)
                local cache = redcache.new({ url = redis:url(), namespace = "app",
                    commandTimeout = clock.scaled(2) })
                local orders = cache:namespace("orders", { writeBehind = {
                    durable = true, partitions = 1, write = function() return nil, "not here" end,
                } })
                assert(orders:setBehind(key, value))
                cache:close(clock.scaled(2))
            end
            set("a", 1)
            -- Acknowledged, too: else the next one rightly writes it again.
            clock.wait_until(function()
                return #written() == 1 and redis:call("XLEN", "app/orders//behind:{0}") == 0
            end, 20, "the write of one")
            local owner = redis:call("GET", "owner")
            posix.C.kill(tonumber(owner), posix.SIGKILL)
            set("b", 2)
            clock.wait_until(function() return #written() == 2 end, 20, "the write of the other")
            assert.same({ "a=1", "b=2" }, written())
            assert.not_equal(owner, redis:call("GET", "owner"))
        end)

        it("a worker that exits tells what it could not write", function()
            start(600, false)
            assert.equal("set", select(2, web:get("/set?count=3")))
            local begun = clock.now()
            assert.equal(0, web:quit(clock.scaled(10)))
            assert.is_true(clock.now() - begun < clock.scaled(5))
            for i = 1, 3 do
                assert.matches("onFailed k" .. i .. " " .. i .. " ", web:log(), 1, true)
            end
        end)
    end)
end
