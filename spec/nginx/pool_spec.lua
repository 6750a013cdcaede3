-- Beside other libraries of the worker that talk to the same Redis: nginx keeps their connections
-- in pools by host and port, in whatever state they were left.

local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

-- Another library: its connections, and what it says over them before it puts them back.
local INIT = [[
    others = {}

    function others.connect(options)
        local sock = ngx.socket.tcp()
        local ok, err = sock:connect("127.0.0.1", %d, options)
        return ok and sock, err
    end

    -- Leaves `count` connections in the pool, each of which was told so.
    function others.leave(count, words)
        local socks = {}
        for i = 1, count do
            socks[i] = assert(others.connect())
            assert(socks[i]:send(words .. "\r\n"))
            assert(socks[i]:receive() == "+OK")
        end
        for i = 1, count do assert(socks[i]:setkeepalive(60000, 10)) end
    end

    function others.open_cache()
        return require("redcache").new({ url = "%s", scheduler = "resty", namespace = "p",
            plain = true, codec = "raw", near = false, commandTimeout = 20, connectTimeout = 20 })
    end

    function others.use(cache)
        local said = { cache:set("k", "v", 60) }
        said[2] = cache:get("k")
        said[3] = cache:remember("l", 60, function() return "made" end)
        said[4] = cache:withLock("job", {}, function() return "held" end)
        for i = 1, 4 do said[i] = tostring(said[i]) end
        ngx.print(table.concat(said, " "))
        return table.concat(said, " ")
    end
]]
local RIGHT = "true v made held"

local function content(lua)
    return "content_by_lua_block { " .. lua .. " }"
end

local LOCATIONS = {
    ["/left"] = content([[
        others.leave(4, ngx.unescape_uri(ngx.var.arg_words))
        others.use(others.open_cache())
    ]]),
    -- As if another library had found out our name.
    ["/shared_name"] = content([[
        local pool, real = require("redcache.scheduler.resty.pool"), nil
        real, pool.own = pool.own, function() return nil end
        others.leave(1, "MULTI")
        others.use(others.open_cache())
        pool.own = real
    ]]),
    -- The pool of the others has room for two, and nobody may wait for it.
    ["/they_first"] = content([[
        local narrow = { pool_size = 2, backlog = 0 }
        local one, two = assert(others.connect(narrow)), assert(others.connect(narrow))
        others.use(others.open_cache())
        one:close()
        two:close()
    ]]),
    ["/we_first"] = content([[
        local narrow = { pool_size = 2, backlog = 0 }
        assert(others.connect(narrow)):setkeepalive(60000, 2)
        others.use(others.open_cache())
        local one, two = assert(others.connect(narrow)), assert(others.connect(narrow))
        one:close()
        two:close()
    ]]),
}

local possible, reason = nginx.is_possible()

describe("connections of nginx", function()
    if not possible then
        pending(reason)
        return
    end
    local redis, web

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:call("FLUSHALL")
        web = nginx.start({ init = INIT:format(redis.port, redis:url()), locations = LOCATIONS })
    end)
    after_each(function() web:stop() end)

    local function assert_right(path)
        local status, body = web:get(path)
        assert.same({ 200, RIGHT }, { status, body }, web:log())
        assert.equal("v", redis:call("GET", "p:k")) -- in database 0, and outside of any MULTI
        assert.same({}, web:complaints())
    end

    for title, words in pairs({
        ["in another database"] = "SELECT 5", ["in MULTI"] = "MULTI",
    }) do
        it("are not those that others have left " .. title, function()
            assert_right("/left?words=" .. words:gsub(" ", "%%20"))
            assert.is_nil(redis:call("INFO", "keyspace"):find("db5", 1, true))
        end)
    end

    it("are closed where they were somebody's before", function()
        local function received()
            local text = redis:call("INFO", "stats")
            return tonumber(text:match("total_connections_received:(%d+)"))
        end
        local before = received()
        assert_right("/shared_name")
        assert.equal(3, received() - before) -- theirs, and two of ours
    end)

    it("are had where others have filled their pool", function()
        assert_right("/they_first")
    end)

    it("leave the pools of others their room", function()
        assert_right("/we_first")
    end)
end)
