-- The public calls, waiting as plain Lua does; spec/nginx/api_spec.lua runs the same bodies.

local api_cases = require("spec.support.api_cases")
local clock = require("spec.support.clock")
local server = require("spec.support.server")

describe("blocking:", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)

    for _, case in ipairs(api_cases) do
        it(case[1], function()
            api_cases.run(case, {
                url = redis:url(), other_url = redis:unix_url(), port = redis.port,
                pid = redis.pid,
                scheduler = "blocking", pause = clock.sleep,
            })
        end)
    end
end)
