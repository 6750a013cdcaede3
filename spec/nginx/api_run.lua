-- Inside a request of nginx: runs one of the cases of spec/support/api_cases.lua.

local cases = require("spec.support.api_cases")

local function numbers(text)
    if not text then return nil end
    local all = {}
    for number in text:gmatch("%d+") do all[#all + 1] = tonumber(number) end
    return all
end

local function together(functions)
    local threads, first = {}, nil
    for i, fn in ipairs(functions) do threads[i] = ngx.thread.spawn(fn) end
    for _, thread in ipairs(threads) do
        local fine, cause = ngx.thread.wait(thread)
        first = first or (not fine and cause or nil)
    end
    if first then error(first, 0) end
end

--- The query names the case (case, light), the driver, and the settings of cases.run. Answers with
-- what failed, or nothing.
return function()
    local args = ngx.req.get_uri_args()
    local list = args.light and cases.light or cases
    local ok, message = pcall(cases.run, list[tonumber(args.case)], {
        url = args.url, other_url = args.other_url, port = tonumber(args.port),
        pid = tonumber(args.pid), ports = numbers(args.ports), pids = numbers(args.pids),
        is_memory = args.memory == "1",
        scheduler = "resty", driver = args.driver, pause = ngx.sleep, together = together,
    })
    ngx.print(ok and "" or tostring(message))
end
