-- The near cache and writes: other programs', other processes', one's own, and those that meet a
-- read under way.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local proxy = require("spec.support.proxy")
local reads = require("spec.near.reads")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local is_near, source, warm = reads.is_near, reads.source, reads.warm

-- A change gets through in less than a millisecond (near_fault_spec holds that) or, where it is
-- missed, never: a bound that a busy machine keeps tells the two apart. For the copies here are
-- believed for longer than that (maxStale), whatever the machine does.
local FOLLOWS, CALM, PATIENCE = 10, 60, 20

local redis, foreign, cache

setup(function()
    redis = server.start({ config = { "enable-debug-command yes" } })
    foreign = redis:client()
end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ url = redis:url(), maxStale = CALM, commandTimeout = PATIENCE })
end)
after_each(function() cache:close() end)

describe("a near value", function()
    -- What another program does to the key "k", and what is there then.
    local CHANGES = {
        ["SET"] = { { "SET", "k", "new" }, "new" },
        ["SETRANGE"] = { { "SETRANGE", "k", "0", "OLD" }, "OLD" },
        ["APPEND"] = { { "APPEND", "k", "+" }, "old+" },
        ["GETSET"] = { { "GETSET", "k", "new" }, "new" },
        ["MSET"] = { { "MSET", "x", "y", "k", "new" }, "new" },
        ["DEL"] = { { "DEL", "k" }, nil },
        ["UNLINK"] = { { "UNLINK", "x", "k" }, nil },
        ["GETDEL"] = { { "GETDEL", "k" }, nil },
        ["EXPIRE in the past"] = { { "EXPIREAT", "k", "1" }, nil },
        ["PEXPIRE"] = { { "PEXPIRE", "k", "5" }, nil },
        ["RENAME to"] = { { "RENAME", "other", "k" }, "other's" },
        ["RENAME from"] = { { "RENAME", "k", "gone" }, nil },
        ["COPY"] = { { "COPY", "other", "k", "REPLACE" }, "other's" },
        ["RESTORE"] = { { "RESTORE", "k", "0", "dump", "REPLACE" }, "other's" },
        ["EVAL"] = { { "EVAL", "return redis.call('SET',KEYS[1],'new')", "1", "k" }, "new" },
        ["SORT STORE"] = { { "SORT", "nothing", "STORE", "k" }, nil },
        ["FLUSHALL"] = { { "FLUSHALL" }, nil },
        ["FLUSHDB"] = { { "FLUSHDB" }, nil },
        ["FLUSHALL ASYNC"] = { { "FLUSHALL", "ASYNC" }, nil },
        ["MOVE"] = { { "MOVE", "k", "5" }, nil },
    }

    for name, case in pairs(CHANGES) do
        it("follows a foreign " .. name .. " (X15)", function()
            local command, wanted = case[1], case[2]
            for _ = 1, 5 do
                foreign:call("FLUSHALL")
                foreign:call("SET", "k", "old")
                foreign:call("SET", "other", "other's")
                -- The answers to all of the above have come before: no flush is on its way.
                clock.wait_until(function()
                    return cache:get("k") == "old" and is_near(source(cache, "k"))
                end, 2)
                local words = { unpack(command) }
                for i, word in ipairs(words) do
                    if word == "dump" then words[i] = foreign:call("DUMP", "other") end
                end
                foreign:call(unpack(words))
                reads.until_value(cache, "k", wanted, FOLLOWS)
            end
        end)
    end

    it("follows a change inside a transaction, to all of its keys", function()
        for i = 1, 10 do foreign:call("SET", "k" .. i, "old") end
        for i = 1, 10 do warm(cache, "k" .. i) end
        foreign:call("MULTI")
        for i = 1, 10 do foreign:call("SET", "k" .. i, "new") end
        foreign:call("EXEC")
        for i = 1, 10 do reads.until_value(cache, "k" .. i, "new", FOLLOWS) end
    end)

    it("follows a new time to live: it goes with it, and no sooner", function()
        foreign:call("SET", "k", "v", "EX", 60)
        warm(cache, "k")
        foreign:call("PEXPIRE", "k", 300)
        local set = clock.now()
        local last
        clock.wait_until(function()
            last = clock.now()
            return cache:get("k") == nil
        end, FOLLOWS)
        assert.is_true(last - set < 0.3 + clock.scaled(FOLLOWS))
        repeat -- it may be over before it can be made to stay
            foreign:call("SET", "k", "v", "PX", 100)
            cache:get("k")
            cache:get("k")
        until foreign:call("PERSIST", "k") == 1
        set = clock.now()
        repeat assert.equal("v", (cache:get("k"))) until clock.now() > set + 0.3
        assert.is_true(is_near(source(cache, "k")))
    end)

    it("follows each of many changes, to the last", function()
        for i = 1, 300 do
            foreign:call("SET", "k", tostring(i))
            reads.until_value(cache, "k", tostring(i), FOLLOWS)
            source(cache, "k")
        end
        assert.equal("300", warm(cache, "k"))
    end)

    it("with fresh = true is never older than a write acknowledged before", function()
        for _, opts in ipairs({ { fresh = true }, { fresh = true, maxStale = 0.005 } }) do
            for i = 1, 500 do
                foreign:call("SET", "k", tostring(i))
                assert.equal(tostring(i), (cache:get("k", opts)))
                assert.equal(tostring(i), (cache:get("k")))
                assert.equal(tostring(i), (cache:remember("k", 60, error, opts)))
            end
        end
    end)

    it("survives what does not change it", function()
        foreign:call("SET", "k", "v")
        warm(cache, "k")
        foreign:call("SET", "other", "v")
        foreign:call("DEL", "missing")
        foreign:call("GET", "k")
        foreign:call("RENAME", "other", "another")
        local counts = monitor.wire(redis, function()
            for _ = 1, 100 do assert.equal("v", (cache:get("k"))) end
        end)
        assert.is_nil(counts.get)
    end)

    it("is dropped when the server forgets that it tracks the key", function()
        local forgetful = server.start({ config = { "tracking-table-max-keys 10" } })
        local mine = redcache.new({ url = forgetful:url(), maxStale = CALM,
            commandTimeout = PATIENCE })
        for i = 1, 100 do forgetful:call("SET", "k" .. i, "old") end
        for i = 1, 100 do mine:get("k" .. i) end
        for i = 1, 100 do forgetful:call("SET", "k" .. i, "new") end
        for i = 1, 100 do reads.until_value(mine, "k" .. i, "new", FOLLOWS) end
        mine:close()
        forgetful:stop()
    end)
end)

describe("an own write", function()
    -- Each brings the value under "k".
    local WRITES = {
        set = function(value) return cache:set("k", value) end,
        setMulti = function(value) return (cache:setMulti({ x = 1, k = value })) end,
        put = function(value) return cache:put("k", 60, function() return value end) == value end,
        ["put with serveOld = false"] = function(value)
            return cache:put("k", 60, function() return value end, { serveOld = false }) == value
        end,
        ["delete and remember"] = function(value)
            return cache:delete("k")
                and cache:remember("k", 60, function() return value end) == value
        end,
        ["deleteMulti and remember"] = function(value)
            return cache:deleteMulti({ "x", "k" }) and true
                and cache:remember("k", 60, function() return value end) == value
        end,
    }

    for name, write in pairs(WRITES) do
        it("by " .. name .. " is seen at once (71)", function()
            cache:set("k", 0)
            for i = 1, 200 do
                warm(cache, "k")
                assert.is_true(write(i))
                assert.equal(i, (cache:get("k")))
                assert.equal(i, (cache:get("k")))
                assert.equal(i, (cache:remember("k", 60, error)))
                assert.equal(i, (cache:getMulti({ "k" })).k)
            end
        end)
    end

    it("that deletes leaves nothing in memory", function()
        for i = 1, 200 do
            cache:set("k", i)
            warm(cache, "k")
            assert.is_true(cache:delete("k"))
            assert.is_nil((cache:get("k")))
            cache:set("k", i)
            warm(cache, "k")
            assert.equal(1, cache:deleteMulti({ "k" }))
            assert.is_nil((cache:get("k")))
        end
    end)

    it("by an object without near cache, or of another codec, is seen by all", function()
        local off = cache:namespace("n", { near = false })
        local on, json = cache:namespace("n"), cache:namespace("n", { codec = "json" })
        for i = 1, 200 do
            off:set("k", i)
            assert.equal(i, (on:get("k")))
            assert.equal(i, warm(on, "k"))
            json:set("k", -i)
            assert.equal(-i, (on:get("k")))
            assert.equal(-i, warm(on, "k"))
            assert.equal(-i, warm(json, "k"))
        end
    end)

    it("that replaces a remembered nil is seen at once", function()
        for i = 1, 100 do
            cache:delete("k")
            cache:remember("k", 60, function() return nil end)
            assert.same({}, { warm(cache, "k") })
            cache:set("k", i)
            assert.equal(i, (cache:get("k")))
        end
    end)

    it("is seen by all threads of the process when it returns", function()
        local rounds = clock.scale == 1 and 300 or 60
        local done = threads.run({
            count = 4, params = { url = redis:url(), rounds = rounds }, timeout = 120,
            main = function(thread)
                local mine = require("redcache").new({ url = thread.params.url, maxStale = 60,
                    commandTimeout = 20, connectTimeout = 20 })
                local wrong = 0
                for i = 1, thread.params.rounds do
                    if i % thread.count + 1 == thread.index then assert(mine:set("k", i)) end
                    thread.barrier()
                    for _ = 1, 5 do
                        if mine:get("k") ~= i then wrong = wrong + 1 end
                    end
                    thread.barrier()
                end
                return { wrong = wrong, near = mine.near:stats().hits }
            end,
        })
        for i = 1, 4 do
            assert.equal(0, done[i].wrong)
            assert.is_true(done[i].near > rounds)
        end
    end)
end)

describe("another process's write", function()
    it("is followed, whatever it writes with (X15)", function()
        local other = peer.start({ url = redis:url(), near = true, maxStale = CALM })
        local function by_other(fn, value)
            other:run(fn, { value = value })
            reads.until_value(cache, "k", value, FOLLOWS)
            warm(cache, "k")
        end
        for i = 1, 20 do
            by_other(function(mine, params) return mine:set("k", params.value) end, i)
            by_other(function(mine, params) return (mine:setMulti({ k = params.value })) end, -i)
            by_other(function(mine, params)
                return mine:put("k", 60, function() return params.value end)
            end, i + 0.5)
            by_other(function(mine, params)
                mine:delete("k")
                return mine:remember("k", 60, function() return params.value end)
            end, i + 0.25)
        end
        other:run(function(mine) return mine:delete("k") end)
        reads.until_value(cache, "k", nil, FOLLOWS)
        other:stop()
    end)
end)

describe("the parts of a key", function()
    it("do not matter: namespace 'a' with 'b:c' is 'a:b:c' without a namespace", function()
        local inner = cache:namespace("a")
        inner:set("b:c", 1)
        warm(inner, "b:c")
        -- One entry: what one of them has read is near for the others.
        local counts = monitor.wire(redis, function() assert.equal(1, (cache:get("a:b:c"))) end)
        assert.is_nil(counts.get)
        for i = 1, 100 do
            inner:set("b:c", i)
            assert.same({ i, i }, { (inner:get("b:c")), (cache:get("a:b:c")) })
            warm(cache, "a:b:c")
            inner:delete("b:c")
            assert.same({}, { (cache:get("a:b:c")), (inner:get("b:c")) })
        end
        foreign:call("SET", "a:b:c", "v")
        assert.same({ "v", "v" }, { warm(cache, "a:b:c"), warm(inner, "b:c") })
        foreign:call("SET", "a:b:c", "w")
        reads.until_value(cache, "a:b:c", "w", FOLLOWS)
        reads.until_value(inner, "b:c", "w", FOLLOWS)
    end)

    it("are kept apart where the keys are", function()
        local a, ab = cache:namespace("a"), cache:namespace("ab")
        a:set("k", 1)
        ab:set("k", 2)
        cache:set("k", 3)
        for _ = 1, 5 do
            assert.same({ 1, 2, 3 }, { (a:get("k")), (ab:get("k")), (cache:get("k")) })
        end
    end)

    it("are kept apart in databases of one server", function()
        local one = redcache.new({ url = redis:url() .. "/1", maxStale = CALM,
            commandTimeout = PATIENCE })
        cache:set("k", 0)
        one:set("k", 1)
        for _ = 1, 5 do assert.same({ 0, 1 }, { (cache:get("k")), (one:get("k")) }) end
        assert.is_true(is_near(source(one, "k")))
        one:delete("k")
        assert.same({ 0 }, { (cache:get("k")), (one:get("k")) })
        one:close()
    end)
end)

describe("reads of a cold key", function()
    local line

    before_each(function() line = proxy.start(redis) end)
    after_each(function() line:stop() end)

    it("by 100 threads of a process are one GET, or one in 5 ms (67)", function()
        line:delay(0.05, "down")
        redis:call("SET", "cold", "v")
        local watching = monitor.start(redis)
        local done = threads.run({
            count = clock.scale == 1 and 100 or 40, timeout = 60, params = { url = line:url() },
            main = function(thread)
                local mine = require("redcache").new({
                    url = thread.params.url, commandTimeout = 20, connectTimeout = 20,
                })
                mine:get("warm")
                thread.barrier()
                local began = thread.now()
                local value, err = mine:get("cold")
                local ended = thread.now()
                thread.barrier()
                return { value = value or tostring(err), began = began, ended = ended }
            end,
        })
        local gets = 0
        for _, command in ipairs(watching:stop()) do
            if command.name == "get" and command.words[2] == "cold" then gets = gets + 1 end
        end
        local first, last = math.huge, 0
        for i = 1, #done do
            assert.equal("v", done[i].value)
            first, last = math.min(first, done[i].began), math.max(last, done[i].ended)
        end
        -- A GET is joined within 5 ms of its sending (JOIN_US in fetch.c), so there is one at most
        -- in each 5 ms between the first thread's question and the last one's answer: on a busy
        -- machine some threads come late. Without joining there are as many as threads, at once.
        assert.is_true(gets >= 1 and gets <= 1 + (last - first) / 0.005, gets)
    end)

    -- A process that reads "k" over a line that is held up before the server ("up"), or behind it
    -- ("down": the server has answered).
    local function held_read(direction, opts)
        local function gets() return redis:commandstats().get.calls end
        local reader = peer.start({ url = line:url(), near = true, maxStale = CALM })
        reader:run(function(mine) return mine:get("warm") end)
        line:stall(direction, "tracking")
        local before = gets()
        reader:begin(function(mine, params) return mine:get("k", params.opts) end, { opts = opts })
        if direction == "down" then
            clock.wait_until(function() return gets() > before end, 5)
        end
        return reader
    end

    local function read_again(reader)
        return reader:run(function(mine) return mine:get("k") end)
    end

    it("survive a change of what was there before (68)", function()
        redis:call("SET", "k", "old")
        local reader = peer.start({ url = line:url(), near = true, maxStale = CALM })
        reader:run(function(mine)
            mine:get("k")
            return mine:get("k")
        end)
        line:stall("up", "tracking")
        redis:call("SET", "k", "new") -- The push arrives, and drops the old value.
        clock.wait_until(function()
            return reader:run(function(mine) return mine.near:stats().invalidations end).value > 0
        end, 5)
        reader:begin(function(mine) return mine:get("k") end)
        line:flow()
        local first = reader:finish()
        assert.same({ "new", "redis" }, { first.value, first.source })
        local again = read_again(reader)
        assert.equal("new", again.value)
        assert.is_true(is_near(again.source), again.source)
        reader:stop()
    end)

    it("do not keep what another program changed on their way", function()
        redis:call("SET", "k", "old")
        local reader = held_read("down")
        redis:call("SET", "k", "new")
        line:flow()
        -- The answer is from before the change: right for this read, and for no other.
        assert.equal("old", reader:finish().value)
        clock.wait_until(function() return read_again(reader).value == "new" end, FOLLOWS)
        reader:stop()
    end)

    it("do not keep what changes between the two answers, value and life", function()
        redis:call("SET", "k", "v", "EX", 60)
        local mine = redcache.new({ url = line:url(), maxStale = CALM, commandTimeout = PATIENCE })
        source(mine, "connect")
        -- So it stands in the stream when somebody writes in between.
        line:rule({
            command = "pttl", argument = "k", execute = true, times = 1,
            reply = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:60000\r\n",
        })
        assert.equal("redis", source(mine, "k"))
        assert.equal(1, mine.near:stats().dooms)
        assert.equal("redis", source(mine, "k"))
        assert.is_true(is_near(source(mine, "k")))
        mine:close()
    end)

    it("do not keep what this process wrote meanwhile", function()
        redis:call("SET", "k", "old")
        local done = threads.run({
            count = 2, timeout = 60, params = { url = line:url(), path = redis.path },
            main = function(thread)
                local support = require("spec.support.clock")
                local mine = require("redcache").new({
                    url = thread.params.url, commandTimeout = 20,
                })
                local wrong = 0
                for i = 1, 200 do
                    local key = "k" .. i
                    assert(mine:set(key, "old"))
                    thread.barrier()
                    if thread.index == 1 then
                        mine:get(key)
                    else
                        support.sleep((i % 20) * 1e-5)
                        assert(mine:set(key, "new"))
                        if mine:get(key) ~= "new" then wrong = wrong + 1 end
                    end
                    thread.barrier()
                    for _ = 1, 2 do
                        if mine:get(key) ~= "new" then wrong = wrong + 1 end
                    end
                    thread.barrier()
                end
                return wrong
            end,
        })
        assert.same({ 0, 0 }, done)
    end)

    it("are asked again, or told, when the connection breaks under them", function()
        redis:call("SET", "k", "v")
        local reader = held_read("up")
        line:cut("reset", "tracking")
        line:flow()
        local first = reader:finish()
        assert.is_true(first.value == "v" or first.code == "unavailable", first.code)
        clock.wait_until(function() return read_again(reader).value == "v" end, 5)
        clock.wait_until(function() return is_near(read_again(reader).source) end, 5)
        reader:stop()
    end)

    it("end in time, and the late answer harms nobody", function()
        for _, direction in ipairs({ "up", "down" }) do
            redis:call("SET", "k", "old")
            local reader = held_read(direction, { timeout = 0.1 })
            assert.equal("timeout", reader:finish().code)
            redis:call("SET", "k", "new")
            line:flow()
            clock.wait_until(function() return read_again(reader).value == "new" end, 5)
            for _ = 1, 3 do assert.equal("new", read_again(reader).value) end
            reader:stop()
        end
    end)

    it("can be cancelled, and those who share it go on", function()
        redis:call("SET", "k", "v")
        -- Long enough that it can be cancelled, whenever that thread gets a processor.
        line:rule({ command = "get", argument = "k", late = clock.scaled(1) })
        local done = threads.run({
            count = 3, timeout = 60, params = { url = line:url() },
            main = function(thread)
                local support = require("spec.support.clock")
                local mine = require("redcache").new({
                    url = thread.params.url, commandTimeout = 20, connectTimeout = 20,
                })
                mine:get("warm")
                thread.barrier()
                if thread.index == 3 then
                    support.wait_until(function() return mine:cancel(7) == 1 end, 5)
                    thread.barrier()
                    return "cancelled it"
                end
                local value, err = mine:get("k", thread.index == 1 and { cancelTag = 7 } or nil)
                thread.barrier()
                return value or err.code
            end,
        })
        assert.same({ "cancelled", "v", "cancelled it" }, done)
    end)
end)
