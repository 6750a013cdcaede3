--- What runs inside nginx for close_spec: caches that are closed while somebody still uses them.
-- Each case opens a cache of its own, and returns a text: "ok", or what went wrong.

local redcache = require("redcache")

local cases = { how = {} }
local how = cases.how

local settings

--- In init_by_lua.
function cases.open(options)
    settings = options
end

local function open(more)
    local options = { url = settings.url, driver = settings.driver, namespace = "close" }
    for name, value in pairs(more or {}) do
        options[name] = value
    end
    return redcache.init(options)
end

local function check(ok, text)
    if not ok then
        error(text, 0)
    end
end

-- A call after the end, or one that the end has met: `closed`, or the answer that is right.
local function ended(what, value, err)
    check(err == nil and value ~= nil or err and (err.code == "closed" or err.code == "lockLost"),
        what .. " gave " .. tostring(value) .. ", " .. tostring(err))
end

local function is_closed(cache)
    local value, err = cache:get("k")
    check(value == nil and err and err.code == "closed", "get gave " .. tostring(err or value))
end

function how.at_once()
    local cache = open()
    check(cache:set("k", "v", 10))
    cache:close(0)
    is_closed(cache)
end

function how.patiently()
    local cache = open()
    check(cache:set("k", "v", 10))
    cache:close(1)
    is_closed(cache)
end

function how.unused()
    local cache = open()
    cache:close()
    is_closed(cache)
end

-- The answer of a request will not come in time.
function how.while_redis_stands_still()
    local cache = open({ commandTimeout = 2 })
    check(cache:set("k", "v", 10))
    check(os.execute("kill -STOP " .. settings.pid))
    local _, err = cache:get("k2", { timeout = 0.1 })
    check(err, "a frozen Redis has answered")
    local lock = cache:lock("frozen")
    ngx.thread.spawn(function() lock:acquire(5) end)
    local started = ngx.now()
    cache:close(0.3)
    ngx.update_time()
    check(ngx.now() - started < 0.3 + settings.slack, "it took " .. ngx.now() - started)
    is_closed(cache)
end

-- A loader, its waiters, one that waits for a lock, and a lock that is held.
function how.under_its_users()
    local cache, other = open(), open({ group = "other" })
    local held = other:tryLock("held", { ttl = 600 })
    check(held and cache:tryLock("mine", { ttl = 600 }), "no lock")
    local results, count = {}, 0
    local function user(name, fn)
        count = count + 1
        ngx.thread.spawn(function()
            local result = { name, fn() }
            results[#results + 1] = result
        end)
    end
    user("the loader", function()
        return cache:remember("k", 60, function()
            ngx.sleep(0.2)
            return "made"
        end, { leaseTtl = 600 })
    end)
    for _ = 1, 3 do
        user("a waiter", function() return cache:remember("k", 60, error) end)
    end
    user("the one who wants the lock", function()
        return cache:lock("held"):acquire(60)
    end)
    user("a holder", function()
        return cache:withLock("short", { ttl = 600 }, function()
            ngx.sleep(0.1)
            return "done"
        end)
    end)
    ngx.sleep(0.05)
    cache:close()
    is_closed(cache)
    local until_time = ngx.now() + 5
    while #results < count and ngx.now() < until_time do
        ngx.sleep(0.01)
    end
    check(#results == count, "only " .. #results .. " calls have ended")
    for _, result in ipairs(results) do
        ended(result[1], result[2], result[3])
    end
    check(held:release())
    other:close()
end

function how.by_its_loader()
    local cache = open()
    local value, err = cache:remember("own", 60, function()
        cache:close()
        return "made"
    end)
    check(value == "made" and err == nil, "remember gave " .. tostring(err))
    is_closed(cache)
end

function how.by_two_at_once()
    local cache = open()
    check(cache:set("k", "v", 10))
    local threads = {}
    for i = 1, 4 do
        threads[i] = ngx.thread.spawn(function()
            if i % 2 == 0 then
                return cache:close()
            end
            ended("get", cache:get("k"))
        end)
    end
    for i = 1, 4 do
        check(ngx.thread.wait(threads[i]))
    end
    is_closed(cache)
end

-- Of a killed light thread no Lua runs any more; its handle keeps its stack.
function how.after_a_thread_was_killed()
    local cache = open()
    local threads = {
        ngx.thread.spawn(function()
            return cache:remember("killed", 60, function() ngx.sleep(60) end, { leaseTtl = 600 })
        end),
        ngx.thread.spawn(function()
            return cache:withLock("killed", { ttl = 600 }, function() ngx.sleep(60) end)
        end),
        ngx.thread.spawn(function() return cache:lock("killed"):acquire(60) end),
    }
    ngx.sleep(0.05)
    for _, thread in ipairs(threads) do
        ngx.thread.kill(thread)
    end
    cache:close()
    is_closed(cache)
    cases.threads = threads
end

-- In log_by_lua, which cannot wait: a lock is given back all the same.
function how.in_log()
    local cache = open()
    check(cache:tryLock("log", { ttl = 600 }), "no lock")
    ngx.ctx.cache = cache
end

function cases.log()
    local cache = ngx.ctx.cache
    if cache then
        cache:close()
        is_closed(cache)
        -- No loader runs for its caller alone, as for a cache that is open here.
        local _, err = cache:remember("k", 60, error)
        check(err and err.code == "closed", "remember gave " .. tostring(err))
        _, err = cache:put("k", 60, error)
        check(err and err.code == "closed", "put gave " .. tostring(err))
    end
end

function how.every_method()
    local complaints = require("spec.support.closed_calls").check(open)
    check(#complaints == 0, table.concat(complaints, "\n"))
end

--- The content of /close?how=...
function cases.run()
    local ok, err = pcall(how[ngx.var.arg_how])
    ngx.print(ok and "ok" or tostring(err))
end

--- In a timer; its request ends with it.
function cases.in_timer()
    local told
    ngx.timer.at(0, function()
        local ok, err = pcall(how.under_its_users)
        told = ok and "ok" or tostring(err)
    end)
    while not told do
        ngx.sleep(0.01)
    end
    ngx.print(told)
end

--- Opens and closes many times; the number of timers that nginx keeps afterwards.
function cases.cycle()
    for _ = 1, 60 do
        local cache = open()
        check(cache:set("k", "v", 10))
        cache:close()
    end
    ngx.print(ngx.timer.pending_count())
end

return cases
