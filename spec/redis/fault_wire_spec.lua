-- The connection breaks around a command, or brings bytes that are no answer: what may be repeated
-- is repeated, what may not is told as outcomeUnknown, and hostile bytes harm nobody.

local clock = require("spec.support.clock")
local fake = require("spec.support.fake")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")
local waited = require("spec.near.waited")

local redis, line, cache

local function open(where, options)
    options = options or {}
    options.url, options.namespace = where:url(), "app"
    options.near = false -- this is about the way to Redis
    return redcache.new(options)
end

local function made() return "made" end

-- Of calls that have to be answered over the next connection: on a machine that does much else half
-- a second is too short for that. within() tells how long the machine has no part in.
local PATIENT = { timeout = 5 }

-- Its connection and its thread are there.
local function connect(client)
    clock.wait_until(function() return client:redis():command("PING") end, 5, "a connection")
end

-- But for the time in which one of those who take part was ready and had no processor.
local watch
local function watch_those_with(proxy_too)
    watch = waited.watch({ posix.C.getpid(), redis.pid, line.worker.pid,
        proxy_too and proxy_too.worker.pid }, true)
end

local function within(seconds, fn, ...)
    local before = watch:seconds()
    local function check(took, ...)
        local late = watch:seconds() - before
        assert.is_true(took - late < seconds + clock.scaled(0.1),
            ("took %g s, %g s of it without a processor"):format(took, late))
        return ...
    end
    return check(clock.time(fn, ...))
end

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

before_each(function()
    redis:reset()
    line = proxy.start(redis)
    cache = open(line)
    -- Both connections are there and the scripts are loaded.
    cache:remember("warm", 60, made)
    cache:withLock("warm", nil, function() end)
    assert(cache:set("k", "v"))
    watch_those_with()
end)

after_each(function()
    cache:close()
    line:stop()
end)

describe("a connection that breaks", function()
    for _, when in ipairs({ "before", "after" }) do
        it(when .. " a read or delete is executed is not noticed", function()
            line:rule({ command = "get", argument = "app:k", cut = when, times = 1 })
            assert.equal("v", within(0.5, cache.get, cache, "k", PATIENT))
            line:rule({ command = "get", argument = "app:k", cut = when, times = 1 })
            assert.equal("v", within(0.5, cache.remember, cache, "k", 60, made, PATIENT))
            line:rule({ command = "mget", cut = when, times = 1 })
            line:rule({ command = "get", cut = when, times = 1 })
            local values = within(0.5, cache.getMulti, cache, { "k", "none" }, PATIENT)
            assert.same({ k = "v" }, values)
            line:rule({ command = "unlink", cut = when, times = 1 })
            assert.is_not_nil((within(0.5, cache.delete, cache, "k", PATIENT)))
            assert.equal(0, redis:call("EXISTS", "app:k"))
            assert.is_true(cache:stats().retries >= 3)
        end)

        -- Sent again, the same generations could bring back what was invalidated meanwhile.
        it(when .. " a tag's generations are made or changed has others drawn", function()
            local opts = { tags = { "t" }, timeout = 5 }
            local before = cache:stats().retries
            line:rule({ command = "set", argument = "app//tag:t", cut = when, times = 1 })
            assert.is_true(cache:set("n", "w", nil, opts))
            assert.equal("w", cache:get("n"))
            line:rule({ command = "evalsha", cut = when, times = 1 })
            assert.equal(1, cache:invalidateTags({ "t" }, { soft = true, timeout = 5 }))
            assert.is_nil((cache:get("n")))
            assert.equal(before, cache:stats().retries)
        end)

        it(when .. " a set is executed leaves its outcome unknown", function()
            line:rule({ command = "set", cut = when, times = 1 })
            local ok, err = within(0.5, cache.set, cache, "n", "w")
            assert.is_nil(ok)
            assert.equal("outcomeUnknown", err.code)
            assert.equal("n", err.key)
            assert.equal(when == "after" and 1 or 0, redis:call("EXISTS", "app:n"))
            assert.is_true(within(0.5, cache.set, cache, "n", "w", nil, PATIENT))
        end)

        it(when .. " a script that may not be repeated is executed leaves that unknown", function()
            local _, _, _, version = cache:get("k", { version = true })
            cache:incr("n")
            cache:copy("k", "from")
            for _, call in ipairs({
                { "n", "2", function() return cache:incr("n") end },
                { "added", true, function() return cache:add("added", 1) end },
                { "k", true, function() return cache:cas("k", version, 1) end },
                { "k", true, function() return cache:replace("k", 2) end },
                { "k", true, function() return cache:getSet("k", 3) end },
                { "k", false, function() return cache:getDelete("k") end },
                { "copied", true, function() return cache:copy("from", "copied") end },
                { "renamed", true, function() return cache:rename("from", "renamed") end },
            }) do
                local key, after, act = "app:" .. call[1], call[2], call[3]
                local before = redis:call("GET", key)
                line:rule({ command = "evalsha", cut = when, times = 1 })
                local ok, err = within(0.5, act)
                assert.same({ nil, "outcomeUnknown" }, { ok, err and err.code })
                local now = redis:call("GET", key)
                if when == "before" then
                    assert.equal(before, now)
                elseif type(after) == "string" then
                    assert.equal(after, now)
                else
                    assert.is_true(now ~= before and (now ~= nil) == after, key)
                end
            end
        end)

        it(when .. " a life is changed or a key softly deleted is not noticed", function()
            cache:set("k", "v", 10, { grace = 100 })
            assert.is_true(cache:touch("k", 20) and cache:delete("none", { soft = true }) == false)
            line:rule({ command = "evalsha", cut = when, times = 1 })
            assert.is_true(within(0.5, cache.expire, cache, "k", 60, PATIENT))
            line:rule({ command = "evalsha", cut = when, times = 1 })
            local touched = within(0.5, cache.touchMulti, cache, { k = 90 }, nil, PATIENT)
            assert.same({ k = true }, touched)
            line:rule({ command = "evalsha", cut = when, times = 1 })
            assert.is_true(within(0.5, cache.delete, cache, "k", { soft = true, timeout = 5 }))
            local left = redis:call("PTTL", "app:k")
            assert.is_true(left > 0 and left <= 100000, left)
        end)

        it(when .. " lease or publish is executed does not run the loader twice", function()
            local runs = 0
            for round, skip in ipairs({ 0, 1, 0, 1 }) do
                local key = "r" .. round
                if round > 2 then redis:call("SCRIPT", "FLUSH") end
                line:clear()
                line:rule({ command = "evalsha", argument = key, skip = skip, cut = when,
                    times = 1 })
                line:rule({ command = "eval", argument = key, cut = when, times = 1 })
                local value, err, source, flag = within(1, cache.remember, cache, key, 60,
                    function()
                        runs = runs + 1
                        return round
                    end, PATIENT)
                assert.same({ round, nil, "loader" }, { value, err, source })
                assert.is_nil(flag)
                assert.equal(round, cache:get(key, PATIENT))
                assert.equal(round, runs)
            end
        end)

        it(when .. " acquire or release is executed leaves a lock whole", function()
            for skip = 0, 1 do
                line:clear()
                local rule = line:rule({ command = "evalsha", argument = "{job}", skip = skip,
                    cut = when, times = 1 })
                local result, err = within(1, cache.withLock, cache, "job", nil, function(lock)
                    assert.is_true(lock:held())
                    return "done"
                end)
                assert.equal(1, line:counts().rules[rule])
                assert.is_nil(err and err.message)
                assert.equal("done", result)
                assert.equal(0, redis:call("EXISTS", "app//lock:{job}"))
            end
        end)
    end

    it("again and again ends the call by its deadline, not by trying for ever", function()
        line:rule({ command = "get", cut = "before" })
        local _, err = within(0.5, cache.get, cache, "k")
        assert.is_true(err.code == "timeout" or err.code == "unavailable", err.code)
        line:rule({ command = "evalsha", cut = "before" })
        local value, failure, _, flag = within(1, cache.remember, cache, "k", 60, made)
        assert.same({ "made", nil, "degraded" }, { value, failure, flag })
    end)

    it("in the middle of an answer repeats the read", function()
        assert(cache:set("large", ("x"):rep(300000)))
        line:delay(0.05, "down")
        -- Only a part of the answer has arrived when the line breaks.
        local other = proxy.start(line)
        local far = open(other)
        assert(far:get("k"))
        watch_those_with(other)
        other:rule({ command = "get", argument = "large", cut = "after", times = 1 })
        assert.equal(300000, #within(1, far.get, far, "large"))
        far:close()
        other:stop()
    end)
end)

describe("bytes that are no answer", function()
    -- What no server says unasked: the connection is given up at once.
    local REFUSED = {
        "\0garbage\r\n", "+OK\r\n", ":1\r\n", "$3\r\nabc\r\n", "*-1\r\n", "$-5\r\n", ":x\r\n",
        "*2147483647\r\n", "$99999999999999999999\r\n", "_\r\n", "#x\r\n", "$-1\r\n",
        fake.nested(100000), ("x"):rep(200000),
    }
    -- Pushes that are none, and beginnings: what follows is swallowed, or all goes on.
    local STRANGE = {
        "%1\r\n", ">1\r\n", ">-1\r\n", ">0\r\n", ">2\r\n$10\r\ninvalidate\r\n:1\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n*0\r\n", ">2\r\n*1\r\n$1\r\na\r\n_\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$9\r\n", ">99999999\r\n", "$9\r\nab", "*2\r\n:1\r\n",
    }

    it("end the connection when nobody asked, and the next call has another", function()
        for i, bytes in ipairs(REFUSED) do
            local before = cache:stats().disconnects
            assert.equal(2, line:inject(bytes))
            clock.wait_until(function()
                return cache:stats().disconnects == before + 2
            end, 5, "the end of both connections")
            assert.equal("v", within(0.5, cache.get, cache, "k", PATIENT))
            local value, _, source, flag = within(1, cache.remember, cache, "m" .. i, 60, made,
                PATIENT)
            assert.same({ "made", "loader", nil }, { value, source, flag })
            clock.wait_until(function() return cache:health().tracking end, 5)
        end
        assert(cache:tryLock("job")):release()
    end)

    it("in the middle of the stream harm no call after it", function()
        for i, bytes in ipairs(STRANGE) do
            line:inject(bytes)
            within(0.5, cache.get, cache, "k")
            assert.is_not_nil((within(1, cache.remember, cache, "m" .. i, 60, made)))
            line:cut() -- Half a message may still be open.
            clock.wait_until(function() return cache:get("k") == "v" end, 5)
        end
        assert(cache:tryLock("job")):release()
    end)

    it("as the answer to a read are an error or a value, in time, every time", function()
        local replies = {}
        for _, list in ipairs({ REFUSED, STRANGE }) do
            for _, bytes in ipairs(list) do replies[#replies + 1] = bytes end
        end
        replies[#replies + 1] = "$5\r\nab"
        replies[#replies + 1] = "*1\r\n$1\r\na\r\n"
        replies[#replies + 1] = "%1\r\n$1\r\na\r\n$1\r\nb\r\n"
        replies[#replies + 1] = fake.nested(1000000)
        for _, bytes in ipairs(replies) do
            local liar = fake.start({ replies = { GET = bytes } })
            local client = open(liar)
            connect(client)
            watch_those_with(liar)
            local value, err = within(0.5, client.get, client, "k")
            assert.is_true(value == nil or err == nil)
            assert.is_true(err == nil or err.code == "redis" or err.code == "timeout"
                or err.code == "unavailable" or err.code == "tooLarge", tostring(err))
            local found = within(1, client.remember, client, "k", 60, made)
            assert.is_true(found ~= nil or value ~= nil or err == nil)
            liar:script({ GET = "$1\r\nw\r\n" })
            liar:cut()
            clock.wait_until(function() return client:exists("k") end, 5)
            client:close()
            liar:stop()
        end
    end)

    it("as the answer to a script leave remember its value and locks unlocked", function()
        for _, bytes in ipairs({
            "*0\r\n", "*1\r\n:7\r\n", "*1\r\n:2\r\n", "*1\r\n:3\r\n", "*2\r\n:2\r\n:5\r\n",
            "*2\r\n:3\r\n$1\r\nx\r\n", ":1\r\n", "+OK\r\n", "_\r\n", "$-1\r\n",
            "*1\r\n*1\r\n:1\r\n", "*3\r\n:0\r\n$1\r\nx\r\n:9\r\n", "*2\r\n:0\r\n:-5\r\n",
            "*2\r\n:0\r\n:9223372036854775807\r\n",
        }) do
            local liar = fake.start({ replies = {
                GET = "_\r\n", EVALSHA = bytes, EVAL = bytes, PTTL = ":-2\r\n",
            } })
            local client = open(liar)
            connect(client)
            watch_those_with(liar)
            local value, err = within(1, client.remember, client, "k", 60, made,
                { waitTimeout = 0.4 })
            assert.is_true(value == "made" or err and err.code == "timeout",
                tostring(value) .. " " .. tostring(err))
            local lock = client:lock("job", { wait = 0.2 })
            local ok = within(0.8, lock.acquire, lock)
            assert.is_nil(ok)
            assert.is_true(client:close(0.2))
            liar:stop()
        end
    end)
end)
