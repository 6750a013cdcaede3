-- Local-only mode: what two processes that share a near cache write and read while Redis is away,
-- and what they and another machine find once it is back.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local BYTES = 1024 * 1024
local TIMEOUT = clock.scaled(0.2) -- of a call: a machine that is busy must not make Redis seem away
local SOON = 10 -- seconds, an upper bound for a reconnect

describe("offline = \"local\"", function()
    local redis, line, region, cache, elsewhere, opened, peers
    local regions = 0

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)

    local function options(more)
        local all = {
            url = line:url(), near = { shared = region, bytes = BYTES }, offline = "local",
            commandTimeout = TIMEOUT, connectTimeout = TIMEOUT,
        }
        for name, value in pairs(more or {}) do all[name] = value end
        return all
    end

    local function open(more)
        local one = redcache.new(options(more))
        opened[#opened + 1] = one
        return one
    end

    -- Of the first call: a connection has to be made.
    local function connect(one)
        clock.wait_until(function() return one:set("connect", 1) end, SOON, "a connection")
    end

    local function start_peer(more)
        local one = peer.start(options(more))
        peers[#peers + 1] = one
        one:run(function(mine)
            require("spec.support.clock").wait_until(function()
                return mine:get("connect", { near = false }) == 1
            end, 10)
        end)
        return one
    end

    before_each(function()
        regions = regions + 1
        region = ("offline-%d.%d"):format(posix.C.getpid(), regions)
        opened, peers = {}, {}
        redis:call("FLUSHALL")
        line = proxy.start(redis)
        cache = open()
        elsewhere = redcache.new({ url = redis:url(), group = "elsewhere" })
        opened[#opened + 1] = elsewhere
        connect(cache)
    end)
    after_each(function()
        for _, one in ipairs(peers) do one:stop() end
        for _, one in ipairs(opened) do one:close() end
        os.remove("/dev/shm/redcache-" .. region)
        line:stop()
    end)

    -- Until a call of this cache says that there is no connection.
    local function go_away(of)
        line:refuse()
        line:cut()
        clock.wait_until(function()
            local _, err = (of or cache):get("nobody writes this", { near = false })
            return err and err.code == "unavailable"
        end, SOON, "the end of the connection")
    end

    local function come_back(of)
        line:flow()
        clock.wait_until(function()
            local _, err = (of or cache):get("nobody writes this", { near = false })
            return err == nil
        end, SOON, "a connection")
    end

    local function get(mine, params) return mine:get(params.key or "k") end

    it("is seen by the neighbours, and by nobody else", function()
        local neighbour = start_peer()
        assert(elsewhere:set("k", "old"))
        assert.equal("old", cache:get("k"))
        go_away()
        neighbour:run(function(mine)
            require("spec.support.clock").wait_until(function()
                local _, err = mine:get("nobody writes this", { near = false })
                return err and err.code == "unavailable"
            end, 10)
        end)
        assert.same({ true, nil, "local" }, { cache:set("k", "here", 60) })
        assert.same({ "here", nil, "local" }, { cache:get("k") })
        local seen = neighbour:run(get)
        assert.same({ "here", "local" }, { seen.value, seen.source })
        assert.equal("old", elsewhere:get("k"))
        assert.same({ 1, 1 }, { cache:stats().localWrites, cache:stats().localReads })
        neighbour:run(function(mine) return mine:set("k", { by = "neighbour" }) end)
        assert.same({ { by = "neighbour" }, nil, "local" }, { cache:get("k") })
        neighbour:run(function(mine) return mine:delete("k") end)
        assert.same({}, { cache:get("k") }) -- a miss, and no error
        local _, err = cache:get("another")
        assert.equal("unavailable", err.code)
    end)

    it("sends the deletes first when Redis is back, and never the values", function()
        assert(elsewhere:setMulti({ k = "old", d = "old", m1 = "old", m2 = "old", kept = "old" }))
        go_away()
        assert(cache:set("k", "here", 60))
        assert.same({ true, nil, "local" }, { cache:delete("d") })
        assert.same({ true, {}, "local" }, { cache:setMulti({ m1 = "here" }) })
        assert.same({ 1, nil, "local" }, { cache:deleteMulti({ "m2" }) })
        assert(elsewhere:set("foreign", "theirs"))
        local commands = monitor.start(redis)
        come_back()
        -- From the first answer on: no old value, and none of ours.
        for _, key in ipairs({ "k", "d", "m1", "m2" }) do
            assert.same({}, { cache:get(key) }, key)
            assert.is_nil(redis:call("GET", key), key)
        end
        assert.equal("old", cache:get("kept"))
        assert.equal("theirs", cache:get("foreign"))
        local written = {}
        for _, command in ipairs(commands:stop()) do
            if command.words[1]:upper() == "SET" then written[#written + 1] = command.words[2] end
        end
        assert.same({}, written)
    end)

    it("lets what others have written since win", function()
        go_away()
        assert(cache:set("k", "here", 60))
        come_back()
        assert(elsewhere:set("k", "theirs"))
        clock.wait_until(function() return cache:get("k") == "theirs" end, SOON)
        -- And in the next time without Redis nobody finds what was written in the last.
        go_away()
        local value, err, source = cache:get("k")
        assert.same({ nil, "unavailable", nil }, { value, err.code, source })
    end)

    it("loses no delete of a process that is killed while Redis is away", function()
        local writer = start_peer()
        assert(elsewhere:set("k", "old"))
        assert.equal("old", cache:get("k"))
        go_away()
        local result = writer:run(function(mine)
            local ok, err, flag
            require("spec.support.clock").wait_until(function()
                ok, err, flag = mine:delete("k")
                return ok
            end, 10)
            return ok, err, flag
        end)
        assert.same({ true, "local" }, { result.value, result.source })
        writer:kill()
        peers = {}
        come_back()
        assert.same({}, { cache:get("k") })
        assert.is_nil(redis:call("GET", "k"))
    end)

    it("remembers here what loaders have made, and deletes nothing for it", function()
        local loads = 0
        local function load()
            loads = loads + 1
            return { n = loads }
        end
        assert(elsewhere:set("r", "in redis"))
        go_away()
        local value, err, source, flag = cache:remember("r", 60, load)
        assert.same({ { n = 1 }, nil, "loader", "degraded" }, { value, err, source, flag })
        assert.same({ { n = 1 }, nil, "local" }, { cache:remember("r", 60, load) })
        assert.same({ { n = 1 }, nil, "local" }, { cache:get("r") })
        assert.same({ nil, nil, "loader", "degraded", n = 4 },
            { n = 4, cache:remember("nothing", 60, function() return nil end) })
        assert.same({ nil, nil, "local", n = 3 }, { n = 3, cache:get("nothing") })
        assert(cache:set("r", "written", 60))
        assert.same({ "written", nil, "local" }, { cache:remember("r", 60, load) })
        assert(cache:delete("r"))
        assert.same({ n = 2 }, (cache:remember("r", 60, load)))
        assert.same({ { n = 2 } }, { (cache:remember("r", 60, load)) })
        assert.equal(2, loads)
        assert.equal("away", (select(5, cache:get("r", { why = true }))))
        assert.equal("local", cache:explain("r").source)
        local _, strict_err = cache:remember("r", 60, load, { strict = true })
        assert.equal("unavailable", strict_err.code)
        assert(cache:remember("loaded alone", 60, load))
        come_back()
        assert.is_nil(redis:call("GET", "r")) -- it was written and deleted here
    end)

    it("keeps what was loaded from what Redis has", function()
        assert(elsewhere:set("r", "in redis"))
        go_away()
        assert.equal("mine", (cache:remember("r", 60, function() return "mine" end)))
        come_back()
        assert.equal("in redis", (cache:get("r")))
    end)

    it("answers getMulti with what was written here", function()
        go_away()
        assert(cache:setMulti({ a = 1, b = { 2 } }))
        assert(cache:delete("c"))
        local values, failed, negatives, flags = cache:getMulti({ "a", "b", "c", "d" })
        assert.same({ a = 1, b = { 2 } }, values)
        assert.same({ "d", "unavailable" }, { (next(failed)), failed.d.code })
        assert.same({}, negatives)
        assert.same({ a = "local", b = "local" }, flags)
    end)

    it("is for as long as its ttl says", function()
        local short = open({ offline = { ttl = 0.05 }, namespace = "short" })
        go_away(short)
        assert(short:set("k", "here", 60))
        clock.wait_until(function()
            local _, err = short:get("k")
            return err and err.code == "unavailable"
        end, 5, "its end")
        assert(short:delete("k"))
    end)

    it("refuses what needs Redis", function()
        go_away()
        for name, call in pairs({
            incr = function() return cache:incr("n") end,
            add = function() return cache:add("k", 1, 60) end,
            getSet = function() return cache:getSet("k", 1) end,
            put = function() return cache:put("k", 60, function() return 1 end) end,
            touch = function() return cache:touch("k", 60) end,
            invalidateTags = function() return cache:invalidateTags({ "t" }) end,
            tagged = function() return cache:set("k", 1, 60, { tags = { "t" } }) end,
            soft = function() return cache:delete("k", { soft = true }) end,
            tryLock = function() return cache:tryLock("l") end,
            exists = function() return cache:exists("k") end,
        }) do
            local value, err = call()
            assert.is_nil(value, name)
            assert.equal("unavailable", err.code, name)
        end
    end)

    it("says so where as many deletes wait as can be remembered", function()
        go_away()
        local kept, value, err, flag = 0, nil, nil, nil
        for i = 1, 5000 do -- there is room for about a tenth
            value, err, flag = cache:set(("a key of the outage, number %06d"):format(i), 1, 60)
            if not value then break end
            kept = i
        end
        assert.same({ nil, "overload", nil }, { value, err.code, flag })
        assert.is_true(kept > 50)
        assert.same({}, { (select(2, cache:set("a key of the outage, number 000001", 2, 60))) })
        come_back()
        assert(cache:set("k", 1))
        go_away()
        assert.same({ true, nil, "local" }, { cache:set("another key", 1, 60) })
    end)

    it("works behind an open circuit breaker", function()
        local breaking = open({ breaker = true, namespace = "breaking" })
        connect(breaking)
        assert(elsewhere:set("breaking:k", "old"))
        breaking:breaker("open")
        assert.same({ true, nil, "local" }, { breaking:set("k", "here", 60) })
        assert.same({ "here", nil, "local" }, { breaking:get("k") })
        assert.equal("old", elsewhere:get("breaking:k"))
        assert.equal("mine", (breaking:remember("loaded", 60, function() return "mine" end)))
        assert.same({ "mine", nil, "local" }, { breaking:get("loaded") })
        breaking:breaker("close")
        assert.same({}, { breaking:get("k") })
        assert.is_nil(redis:call("GET", "breaking:k"))
        breaking:breaker("open")
        for _, key in ipairs({ "k", "loaded" }) do
            local _, err = breaking:get(key)
            assert.equal("unavailable", err.code)
        end
    end)

    it("says nothing more than without it where Redis was never there", function()
        line:refuse()
        line:cut()
        local one = redcache.new(options({ group = "never",
            near = { shared = region .. ".never", bytes = BYTES } }))
        opened[#opened + 1] = one
        local value, err
        clock.wait_until(function()
            value, err = one:set("k", 1)
            return err and err.code == "unavailable"
        end, SOON)
        assert.is_nil(value)
        os.remove("/dev/shm/redcache-" .. region .. ".never")
    end)

    it("costs who does not ask for it nothing, and answers as before", function()
        local without = open({ offline = false, namespace = "without" })
        connect(without)
        go_away(without)
        local _, err = without:set("k", 1)
        assert.equal("unavailable", err.code)
        _, err = without:delete("k")
        assert.equal("unavailable", err.code)
        local below = cache:namespace("below", { near = false })
        _, err = below:set("k", 1)
        assert.equal("unavailable", err.code)
    end)

    it("names what is wrong with the option", function()
        for _, case in ipairs({
            { "global", 'false, "local" or a table' },
            { { mode = "global" }, "'mode': \"local\" expected" },
            { { ttl = 0 }, "'ttl': number from 0.05 to 86400 expected" },
            { { tll = 1 }, "it has no field 'tll'" },
            { true, 'false, "local" or a table' },
        }) do
            local ok, message = pcall(redcache.new, { offline = case[1] })
            assert.is_false(ok)
            assert.truthy(message:find(case[2], 1, true), message)
        end
        for _, more in ipairs({ { near = false }, { reads = "replica" } }) do
            more.offline = "local"
            local ok, message = pcall(redcache.new, more)
            assert.is_false(ok)
            assert.truthy(message:find("leave one of the two out", 1, true), message)
            ok, message = pcall(cache.namespace, cache, "n", more)
            assert.is_false(ok)
            assert.truthy(message:find("leave one of the two out", 1, true), message)
        end
        local memory = redcache.new({ offline = { mode = "local", ttl = 5 }, group = "memory" })
        opened[#opened + 1] = memory
        assert.same({ true }, { memory:set("k", 1) })
        assert.equal(1, memory:get("k"))
    end)
end)
