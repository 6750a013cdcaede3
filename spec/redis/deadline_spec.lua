-- Every call ends by its deadline where Redis is silent, whatever its options: a table of calls, of
-- options, and of ways to be silent.

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local COMMAND = 0.08 -- commandTimeout of the caches here
local SHORT, LONG = 0.04, 0.14
local LATE = 0.02 -- a call may be so late on a quiet machine
local ATTEMPTS = 6

local redis, line

setup(function()
    redis = server.start()
    line = proxy.start(redis)
end)
teardown(function()
    line:stop()
    redis:stop()
end)

local function fn() return "loaded" end

-- A call and its deadline. `store`: so long it may take to store what a function has made, or to
-- give its lock back, which can only be where one connection is silent and the other is not.
local function row(name, deadline, call, store)
    return { name = name, deadline = deadline, call = call, store = store or 0 }
end

-- For calls that ask once, or whose every question is part of one time-out.
local function timed(rows, name, call)
    local stores = name:find("^remember") or name:find("^put")
    rows[#rows + 1] = row(name, COMMAND, function(c) return call(c, nil) end, stores and COMMAND)
    for _, timeout in ipairs({ SHORT, LONG }) do
        rows[#rows + 1] = row(("%s, timeout = %g"):format(name, timeout), timeout,
            function(c) return call(c, { timeout = timeout }) end, stores and timeout)
    end
end

local function with(opts, more)
    local all = {}
    for name, value in pairs(opts) do all[name] = value end
    for name, value in pairs(more or {}) do all[name] = value end
    return all
end

-- The options of a read, and the deadlines that they mean.
local function reads(rows, name, call, is_near)
    timed(rows, name, call)
    for _, timeout in ipairs({ false, SHORT, LONG }) do
        for _, more in ipairs(is_near and { { fresh = true }, { near = false } } or {}) do
            local opts = with({ timeout = timeout or nil }, more)
            rows[#rows + 1] = row(("%s, %s, timeout = %s"):format(name, next(more),
                tostring(timeout)), timeout or COMMAND, function(c) return call(c, opts) end,
                name:find("^remember") and (timeout or COMMAND))
        end
    end
end

local function loads(rows, name, call)
    for _, case in ipairs({
        { { waitTimeout = SHORT }, SHORT },
        { { waitTimeout = SHORT, onTimeout = "load" }, SHORT },
        { { waitTimeout = SHORT, onTimeout = "stale" }, SHORT },
        { { waitTimeout = SHORT, strict = true }, SHORT },
        { { waitTimeout = LONG }, COMMAND },
        { { waitTimeout = SHORT, timeout = LONG }, SHORT },
        { { waitTimeout = LONG, timeout = SHORT }, SHORT },
        { { strict = true, timeout = SHORT }, SHORT },
        { { strict = true, timeout = SHORT, onTimeout = "stale" }, SHORT },
        { { strict = true, timeout = SHORT, onTimeout = "load" }, SHORT },
        { { strict = true }, COMMAND },
        { { reloads = 3, timeout = SHORT }, SHORT },
        { { fresh = true, waitTimeout = SHORT }, SHORT, true },
        { { fresh = true, strict = true, timeout = SHORT }, SHORT, true },
        { { fresh = true, waitTimeout = SHORT, onTimeout = "stale" }, SHORT, true },
        { { near = false, waitTimeout = SHORT }, SHORT, true },
        { { near = false, timeout = SHORT, strict = true }, SHORT, true },
    }) do
        local opts, parts = case[1], {}
        for option, value in pairs(opts) do
            parts[#parts + 1] = option .. " = " .. tostring(value)
        end
        table.sort(parts)
        if not (case[3] and name:find("^put")) then -- which has no such option
            rows[#rows + 1] = row(name .. ", " .. table.concat(parts, ", "), case[2],
                function(c) return call(c, opts) end, opts.timeout or COMMAND)
        end
    end
end

local many = {}
for i = 1, 200 do many[i] = "many" .. i end

local function table_of_calls(is_near)
    local rows = {}
    reads(rows, "get of what is not near", function(c, o) return c:get("cold", o) end, is_near)
    reads(rows, "remember", function(c, o) return c:remember("cold", 60, fn, o) end, is_near)
    reads(rows, "rememberForever", function(c, o) return c:rememberForever("cold", fn, o) end,
        is_near)
    reads(rows, "getMulti", function(c, o) return c:getMulti({ "a", "b", "c" }, o) end, is_near)
    reads(rows, "getMulti of 200", function(c, o) return c:getMulti(many, o) end, is_near)
    loads(rows, "remember", function(c, o) return c:remember("cold", 60, fn, o) end)
    loads(rows, "put", function(c, o) return c:put("cold", 60, fn, o) end)
    timed(rows, "put", function(c, o) return c:put("cold", 60, fn, o) end)
    if is_near then
        for _, timeout in ipairs({ SHORT, LONG }) do
            local opts = { fresh = true, timeout = timeout }
            rows[#rows + 1] = row("get of what is near, fresh, timeout = " .. timeout, timeout,
                function(c) return c:get("warm", opts) end)
            rows[#rows + 1] = row("remember of what is near, fresh, timeout = " .. timeout, timeout,
                function(c) return c:remember("warm", 60, fn, opts) end)
        end
        rows[#rows + 1] = row("remember of what is near, fresh, waitTimeout", SHORT, function(c)
            return c:remember("warm", 60, fn, { fresh = true, waitTimeout = SHORT })
        end)
        rows[#rows + 1] = row("get of what is near, fresh", COMMAND, function(c)
            return c:get("warm", { fresh = true })
        end)
    end
    timed(rows, "exists", function(c, o) return c:exists("cold", o) end)
    timed(rows, "ttl", function(c, o) return c:ttl("cold", o) end)
    timed(rows, "set", function(c, o) return c:set("cold", 1, 60, o) end)
    timed(rows, "delete", function(c, o) return c:delete("cold", o) end)
    timed(rows, "setMulti", function(c, o) return c:setMulti({ a = 1, b = 2 }, 60, o) end)
    timed(rows, "deleteMulti", function(c, o) return c:deleteMulti({ "a", "b" }, o) end)
    timed(rows, "tryLock", function(c, o) return c:tryLock("free", o) end)
    for _, case in ipairs({
        { { wait = SHORT }, SHORT }, { { wait = LONG, timeout = SHORT }, SHORT },
        { { wait = SHORT, timeout = LONG }, SHORT },
    }) do
        local name = ("wait = %g, timeout = %s"):format(case[1].wait, tostring(case[1].timeout))
        rows[#rows + 1] = row("lock, " .. name, case[2], function(c)
            return c:lock("free", case[1]):acquire()
        end)
        rows[#rows + 1] = row("withLock, " .. name, case[2], function(c)
            return c:withLock("free", case[1], fn)
        end, case[1].timeout or COMMAND) -- for the release
    end
    for _, method in ipairs({ "extend", "held", "release" }) do
        for _, timeout in ipairs({ false, SHORT, LONG }) do
            rows[#rows + 1] = {
                name = ("lock:%s, timeout = %s"):format(method, tostring(timeout)),
                deadline = timeout or COMMAND, store = 0,
                before = function(c) -- 40 ms may be too short for it: then again
                    return clock.wait_until(function()
                        return (c:tryLock("held", { timeout = timeout or nil, force = true }))
                    end, 10, "the lock")
                end,
                call = function(_, lock) return lock[method](lock, 5) end,
            }
        end
    end
    return rows
end

-- Waits until the cache works again, and what the table calls warm is near.
local function recover(cache)
    redis:call("DEL", "//lock:{free}") -- what a release that did not come through has left
    clock.wait_until(function()
        return cache:set("warm", "w", 60) and cache:get("warm") == "w"
            and not select(2, cache:get("cold")) and cache:delete("cold") ~= nil
    end, 10, "the end of the silence")
    cache:get("warm")
end

-- How late a call of this row was, beyond what a plain wait of the same length was, in the best of
-- some attempts. A call that asks Redis again after its deadline is late in all of them.
local function lateness(cache, one, silence, is_partial)
    local best, least = math.huge, math.huge
    local deadline = one.deadline + (is_partial and one.store or 0)
    for attempt = 1, ATTEMPTS do
        recover(cache)
        local control = 0
        if attempt > 1 then
            control = math.max(clock.time(clock.sleep, deadline) - deadline, 0)
        end
        local prepared = one.before and one.before(cache)
        silence.begin()
        local took = clock.time(one.call, cache, prepared)
        silence.finish()
        best = math.min(best, took - deadline - control)
        least = math.min(least, took)
        if best <= LATE then break end
    end
    return best, least
end

local function check_table(cache, is_near, silence, is_partial)
    local late = {}
    for _, one in ipairs(table_of_calls(is_near)) do
        local beyond, took = lateness(cache, one, silence, is_partial)
        if beyond > LATE * clock.scale then
            late[#late + 1] = ("%s: %.0f ms late"):format(one.name, beyond * 1000)
        end
        -- It did wait: the row is about what it says.
        if not is_partial then
            assert.is_true(took >= one.deadline - 0.005,
                ("%s ended after %.0f ms"):format(one.name, took * 1000))
        end
    end
    assert.same({}, late)
end

local stopped = {
    begin = function() redis:pause() end,
    finish = function() redis:resume() end,
}

local function one_silent(which)
    return {
        begin = function() line:stall("both", which) end,
        finish = function() line:flow() end,
    }
end

describe("every call ends by its deadline", function()
    local cache

    local function open(options)
        options.url, options.commandTimeout = options.url or redis:url(), COMMAND
        cache = redcache.new(options)
    end
    after_each(function()
        redis:resume()
        line:flow()
        cache:close()
    end)

    it("with a server that stands still", function()
        open({})
        check_table(cache, true, stopped)
    end)

    it("the same without a near cache", function()
        open({ near = false, group = "no near" })
        check_table(cache, false, stopped)
    end)

    it("with a connection for reads that is silent alone", function()
        open({ url = line:url(), group = "T" })
        check_table(cache, true, one_silent("tracking"), true)
    end)

    it("with a connection for writes that is silent alone", function()
        open({ url = line:url(), group = "W" })
        check_table(cache, true, one_silent("plain"), true)
    end)

    it("also where it takes more than one write", function()
        open({ near = false, group = "many writes" })
        local map, keys, timeout = {}, {}, 0.6
        for i = 1, 30000 do map["k" .. i] = i end -- four writes
        for i = 1, 200000 do keys[i] = "k" .. i end -- four writes
        for _, case in ipairs({
            { "k30000", function(seconds)
                return select(2, cache:setMulti(map, 60, { timeout = seconds }))
            end },
            { "k200000", function(seconds)
                return select(2, cache:getMulti(keys, { timeout = seconds }))
            end },
        }) do
            local best, failed = math.huge, nil
            for _ = 1, ATTEMPTS do
                recover(cache)
                -- The control: the same work, answered at once.
                local work = clock.time(case[2], 30)
                redis:pause()
                local took
                took, failed = clock.time(case[2], timeout)
                redis:resume()
                best = math.min(best, took - 2 * work)
                if best < 2 * timeout then break end
            end
            assert.is_true(best < 2 * timeout, "it took " .. best)
            assert.equal("timeout", failed.k1.code)
            assert.equal("timeout", failed[case[1]].code)
        end
    end)
end)

describe("a load that somebody else runs", function()
    it("is waited for until waitTimeout, and not until timeout", function()
        local one = redcache.new({ url = redis:url(), group = "one", near = false })
        local two = redcache.new({ url = redis:url(), group = "two", near = false })
        redis:call("DEL", "k")
        -- Where the machine keeps Redis' answer back for longer than `timeout` it ends then: again.
        local function wait(fn_of_attempt)
            local most, code = 0, nil
            for _ = 1, 3 * ATTEMPTS do
                local took, _, err = clock.time(fn_of_attempt)
                if took > most then most, code = took, err.code end
                if most >= 0.145 then break end
            end
            assert.is_true(most >= 0.145, "it took " .. most)
            return code
        end
        one:remember("k", 60, function()
            assert.equal("timeout", wait(function()
                return two:remember("k", 60, fn, { timeout = 0.02, waitTimeout = 0.15 })
            end))
            return "v"
        end)
        one:withLock("l", {}, function()
            assert.equal("notAcquired", wait(function()
                return two:lock("l", { timeout = 0.02, wait = 0.15 }):acquire()
            end))
        end)
        one:close()
        two:close()
    end)
end)
