-- keepFresh in nginx: one of two workers is the owner, while nobody calls, and whoever is killed.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local posix = require("spec.support.posix")
local server = require("spec.support.server")

local SIGQUIT = 3

local INIT = [[
    cache = require("redcache").init({ url = "%s", driver = "%s", namespace = "app" })
]]
local INIT_WORKER = [[
    assert(cache:keepFresh("k", 0.1, function()
        assert(cache:redis():command("RPUSH", "runs", tostring(ngx.worker.pid())))
        return ngx.worker.pid()
    end, { lockTtl = %f }))
]]

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("keepFresh in two workers of nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)
        before_each(function() redis:reset() end)
        after_each(function() web:stop() end)

        local function start(lock_ttl)
            web = nginx.start({
                workers = 2, locations = {}, init = INIT:format(redis:url(), driver),
                init_worker = INIT_WORKER:format(lock_ttl),
            })
        end

        -- The process that owns the key now, another one than `before`.
        local function next_owner(before)
            local all
            clock.wait_until(function()
                all = redis:call("LRANGE", "runs", 0, -1)
                return #all >= 3 and all[#all] ~= before and all[#all] == all[#all - 2]
            end, 30, "another owner")
            return all[#all]
        end

        local function owners()
            local list = {}
            for _, pid in ipairs(redis:call("LRANGE", "runs", 0, -1)) do
                if list[#list] ~= pid then list[#list + 1] = pid end
            end
            return list
        end

        it("one of them runs it; where that is killed another one does", function()
            start(clock.scaled(4))
            local first = next_owner(nil)
            posix.C.kill(tonumber(first), posix.SIGKILL)
            local second = next_owner(first)
            assert.same({ first, second }, owners())
        end)

        it("a worker that exits hands it over", function()
            start(clock.scaled(600))
            local first = next_owner(nil)
            posix.C.kill(tonumber(first), SIGQUIT)
            local second = next_owner(first)
            assert.same({ first, second }, owners())
        end)
    end)
end
