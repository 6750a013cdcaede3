-- The public calls inside requests of nginx: the bodies that spec/redis/api_spec.lua runs blocking,
-- and those that need light threads; some of them on memory://, too.

local api_cases = require("spec.support.api_cases")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local RUN = [[content_by_lua_block { require("spec.nginx.api_run")() }]]

local MEMORY = "memory://api-spec"
local ON_MEMORY = { entries = true, many = true, loads = true, counters = true, swaps = true,
    raw = true }

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("inside nginx, driver " .. driver .. ":", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function()
            redis = server.start()
            web = nginx.start({ locations = { ["/run"] = RUN } })
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)

        local function run(query)
            local status, message = web:get(("/run?driver=%s&url=%s&other_url=%s&port=%d&pid=%d&%s")
                :format(driver, redis:url(), redis:unix_url(), redis.port, redis.pid, query),
                { timeout = 60 })
            assert.equal("", message)
            assert.equal(200, status)
        end

        for i, case in ipairs(api_cases) do
            it(case[1], function() run("case=" .. i) end)
        end
        for i, case in ipairs(api_cases.light) do
            it(case[1], function() run("light=1&case=" .. i) end)
        end

        -- A store per worker: those calls that ask it most.
        for i, case in ipairs(api_cases) do
            if ON_MEMORY[case.group] then
                it(case[1] .. ", on memory://", function()
                    local status, message = web:get(("/run?driver=%s&memory=1&url=%s&other_url=%s"
                        .. "&case=%d"):format(driver, MEMORY, MEMORY, i), { timeout = 60 })
                    assert.equal("", message)
                    assert.equal(200, status)
                end)
            end
        end

        it("nothing of all this was worth a complaint in the error log", function()
            -- Cases have jobs that fail, and that is told there: background_spec.
            assert.same({}, web:complaints("redcache: background work failed: "))
        end)
    end)
end
