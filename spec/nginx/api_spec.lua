-- The public calls inside requests of nginx: the bodies that spec/redis/api_spec.lua runs blocking,
-- and those that need light threads.

local api_cases = require("spec.support.api_cases")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

-- Runs the case that the query names; answers with what failed, or nothing.
local RUN = [[
    content_by_lua_block {
        local cases = require("spec.support.api_cases")
        local args = ngx.req.get_uri_args()
        local list = args.light and cases.light or cases
        local ok, message = pcall(cases.run, list[tonumber(args.case)], {
            url = args.url, other_url = args.other_url, port = tonumber(args.port),
            pid = tonumber(args.pid), scheduler = "resty", driver = args.driver,
            pause = ngx.sleep,
            together = function(functions)
                local threads, first = {}, nil
                for i, fn in ipairs(functions) do threads[i] = ngx.thread.spawn(fn) end
                for _, thread in ipairs(threads) do
                    local fine, cause = ngx.thread.wait(thread)
                    first = first or (not fine and cause or nil)
                end
                if first then error(first, 0) end
            end,
        })
        ngx.print(ok and "" or tostring(message))
    }
]]

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

        it("nothing of all this was worth a complaint in the error log", function()
            assert.same({}, web:complaints())
        end)
    end)
end
