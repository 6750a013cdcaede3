-- Connections of nginx that are shared with the core: its turns send over them, and a caller that
-- is alone waits for no other light thread.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local server = require("spec.support.server")

local INIT = [[
    -- Of a TCP socket and of a unix socket.
    urls = { tcp = "%s", unix = "%s" }
    core_loop = require("redcache.core.loop")
    given = 0 -- how often the host has had something to send by itself
    local output, share = core_loop.output, core_loop.host_share
    function core_loop.output(...)
        local bytes = output(...)
        given = given + (bytes and 1 or 0)
        return bytes
    end
    is_blind = false
    function core_loop.host_share(...)
        return not is_blind and share(...)
    end

    function open(name)
        return require("redcache").new({ url = urls[name], namespace = "s", codec = "raw",
            near = false, commandTimeout = 20, connectTimeout = 20, maxValue = 32 * 1024 * 1024,
            -- a busy machine is no error
            breaker = false })
    end

    -- What does not go into the buffers of a socket, among what does.
    function write_and_read(cache, callers)
        local threads, wrong = {}, 0
        for i = 1, callers do
            threads[i] = ngx.thread.spawn(function()
                for round = 1, 3 do
                    local value = string.rep(string.char(64 + i), i %% 2 == 0 and 3000000 or 10)
                    local ok = cache:set("k" .. i, value, 60)
                    wrong = wrong + ((ok and cache:get("k" .. i) == value) and 0 or 1)
                end
            end)
        end
        for i = 1, callers do ngx.thread.wait(threads[i]) end
        return wrong
    end
]]

local function content(lua)
    return "content_by_lua_block { " .. lua .. " }"
end

local LOCATIONS = {
    ["/wave"] = content([[
        local parts = require("redcache.scheduler.resty.parts")
        local judge, judged = parts.judge, 0
        function parts.judge(...)
            judged = judged + 1
            return judge(...)
        end
        local cache, threads, wrong = open("tcp"), {}, 0
        for i = 1, 50 do assert(cache:set("w" .. i, "v" .. i, 60)) end
        for i = 1, 50 do
            threads[i] = ngx.thread.spawn(function()
                for _ = 1, 100 do
                    wrong = wrong + (cache:get("w" .. i) == "v" .. i and 0 or 1)
                end
            end)
        end
        for i = 1, 50 do ngx.thread.wait(threads[i]) end
        parts.judge = judge
        ngx.print(wrong, " wrong, ", judged > 0 and "in parts" or "whole")
    ]]),
    ["/alone"] = content([[
        is_blind = ngx.var.arg_blind == "yes"
        local cache = open(ngx.var.arg_url)
        assert(cache:set("k", "v", 60))
        local before = given
        for _ = 1, 100 do assert(cache:get("k") == "v") end
        ngx.print(given - before)
        cache:close()
    ]]),
    ["/large"] = content([[
        is_blind = ngx.var.arg_blind == "yes"
        local cache = open(ngx.var.arg_url)
        ngx.print(write_and_read(cache, 6))
        cache:close()
    ]]),
    ["/once"] = content([[
        once = once or open(ngx.var.arg_url)
        local value, err = once:get("k")
        ngx.print(tostring(value or err), " ", tostring(once._client.port.last_link.is_shared))
    ]]),
    ["/closed"] = content([[
        local cache = open(ngx.var.arg_url)
        assert(cache:set("k", "v", 60))
        assert(cache:close(5))
        ngx.print("closed")
    ]]),
}

local possible, reason = nginx.is_possible()

describe("a connection of nginx", function()
    if not possible then
        pending(reason)
        return
    end
    local redis, web

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:call("FLUSHALL")
        web = nginx.start({ init = INIT:format(redis:url(), redis:unix_url()),
            locations = LOCATIONS })
    end)
    after_each(function() web:stop() end)

    local function descriptors()
        return tonumber((process.run({ "ls", ("/proc/%d/fd"):format(web:workers()[1]) }).out
            :gsub("[^\n]*\n", "x"):len()))
    end

    -- Ten rounds that each left one open would leave as many more. The connection of a request to
    -- nginx itself, or a second one to Redis, may be there or not.
    local function assert_none_left(before)
        clock.wait_until(function() return descriptors() < before + 6 end, 60,
            "the end of the connections")
    end

    local function assert_told(expected, path)
        local status, body = web:get(path, { timeout = 120 })
        assert.same({ 200, expected }, { status, body }, web:log())
    end

    for _, url in ipairs({ "tcp", "unix" }) do
        it("takes what a lone caller asks at once, over " .. url, function()
            assert_told("0", "/alone?url=" .. url)
            assert.same({}, web:complaints())
        end)

        it("is let go of whenever it is closed, over " .. url, function()
            assert_told("closed", "/closed?url=" .. url)
            local before = descriptors()
            for _ = 1, 10 do assert_told("closed", "/closed?url=" .. url) end
            assert_none_left(before)
            assert.same({}, web:complaints())
        end)

        it("is let go of when it is lost, and the next one shared, over " .. url, function()
            redis:call("SET", "s:k", "v")
            local before
            for round = 1, 12 do
                clock.wait_until(function()
                    local _, body = web:get("/once?url=" .. url, { timeout = 120 })
                    return body == "v true"
                end, 60, "an answer over a shared connection")
                before = before or descriptors()
                if round < 12 then redis:call("CLIENT", "KILL", "TYPE", "normal") end
            end
            assert_none_left(before)
        end)

        for _, blind in ipairs({ "no", "yes" }) do
            it(("keeps the order of what is sent in pieces, over %s, %s"):format(url,
                blind == "yes" and "where it cannot be shared" or "shared"), function()
                assert_told("0", ("/large?url=%s&blind=%s"):format(url, blind))
                assert.same({}, web:complaints())
            end)
        end
    end

    it("takes a wave of many callers in parts", function()
        assert_told("0 wrong, in parts", "/wave")
        assert.same({}, web:complaints())
    end)

    it("is written to by the host where it cannot be shared", function()
        assert_told("100", "/alone?url=tcp&blind=yes")
        assert.same({}, web:complaints())
    end)
end)
