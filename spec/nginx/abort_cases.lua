--- What requests do that do not come to their end: the inside of spec/nginx/abort_spec.lua.
--
-- What:   serve(what) is a location's content; report() runs in each worker and tells the others
--         what the worker still holds.
-- Memory: leases and locks live for LONG seconds: what is given back sooner is so by us.

local cases = { serves = {} }

local LONG = 120
local REPORT_EVERY = 0.02
local serves = cases.serves

--- Called in init_by_lua. A request with an id says in the file `begun` that it runs. With
-- `ballast` the Lua state has data of its own, as in real life: then the garbage collector comes by
-- seldom, and is no substitute for giving back.
function cases.open(options, begun, ballast)
    cases.begun = begun
    for i = 1, ballast do cases[i] = { i } end
    collectgarbage()
    options.scheduler, options.namespace = "resty", "a"
    options.leaseTtl, options.lockTtl, options.lockWait = LONG, LONG, LONG
    options.waitTimeout = LONG
    cases.cache = require("redcache").new(options)
end

local function slow() return ngx.sleep(LONG) end
local function quick() return "v" end

-- A loader, or a holder of a lock, that is not left alone to its end.
function serves.load(key) return cases.cache:remember(key, 60, slow) end
function serves.put(key) return cases.cache:put(key, 60, slow) end
function serves.hold(key) return cases.cache:withLock(key, {}, slow) end
function serves.hold_twice(key)
    local options = { reentrant = true }
    return cases.cache:withLock(key, options, function()
        return (cases.cache:withLock(key, options, slow))
    end)
end
-- The lock of a handle is no light thread's: it is given back when the handle is garbage.
function serves.lock(key)
    local lock = cases.cache:lock(key)
    lock:acquire()
    slow()
end

-- Several locks, whose handle is garbage when its light thread is gone; and what is on its way.
function serves.grab_many(key)
    local names = { key, key .. ":2", key .. ":3" }
    for _ = 1, 5 do
        local locks = cases.cache:lockMulti(names, { wait = 0.05 })
        if locks then
            ngx.sleep(0.002)
            locks:release()
        end
    end
    return "grabbed"
end

-- A connection of its own, while a command waits, and while a transaction is thought about.
function serves.block(key) return cases.cache:redis():command("BLPOP", key .. ":q", LONG) end
function serves.watch(key)
    return cases.cache:redis():transaction(slow, { watch = { key } })
end

-- Two loaders and a lock in one stack.
function serves.nest(key)
    return cases.cache:remember(key, 60, function()
        return (cases.cache:remember(key .. ":inner", 60, function()
            return (cases.cache:withLock(key, {}, slow))
        end))
    end)
end

-- What comes to its end, if its caller lets it.
function serves.quick(key) return cases.cache:remember(key, 60, quick) end
function serves.locked(key) return cases.cache:withLock(key, {}, quick) end
function serves.read(key) return cases.cache:get(key, { near = false }) end
function serves.write(key) return cases.cache:set(key .. ":set", "v", 60) end
function serves.many(key)
    local values = cases.cache:getMulti({ key, key .. ":2", key .. ":3" })
    return values[key]
end

-- Leases of many keys.
local function keys_of(key) return { key, key .. ":2", key .. ":3" } end
function serves.load_many(key)
    local values = cases.cache:rememberMulti(keys_of(key), 60, slow)
    return values[key]
end

-- A light thread that is killed in the middle, if it is not done by then; its request goes on.
local function kill(fn)
    return function(key)
        local thread = ngx.thread.spawn(fn, key)
        ngx.sleep(0.01)
        ngx.thread.kill(thread)
        return "killed"
    end
end
serves.kill_load = kill(serves.load)
serves.kill_hold = kill(serves.hold)
serves.kill_load_many = kill(serves.load_many)
serves.kill_many = kill(function(key)
    return cases.cache:rememberMulti(keys_of(key), 60, function(keys)
        ngx.sleep(0.01)
        return { [keys[1]] = "v" }
    end)
end)
serves.kill_quick = kill(serves.read)
serves.kill_block = kill(serves.block)
serves.kill_watch = kill(serves.watch)

-- The same without a pause: what the thread waits for is still on its way.
function serves.kill_at_once(key)
    for i = 1, 20 do
        local fn = ({ serves.quick, serves.write, serves.load_many })[i % 3 + 1]
        local thread = ngx.thread.spawn(fn, key)
        ngx.thread.kill(thread)
    end
    return "killed"
end

-- Where Redis has answered before the light thread waits, it is killed while it releases: a pause
-- in between would leave the locks to the garbage collector, as handles that are dropped.
local function grab_and_release(key)
    local locks = cases.cache:lockMulti({ key, key .. ":2", key .. ":3" }, { wait = 0.05 })
    if locks then locks:release() end
end

-- The lock is on its way to a light thread that is gone when it comes.
function serves.kill_grant(key)
    for i = 1, 20 do
        ngx.thread.kill(ngx.thread.spawn(grab_and_release, key .. ":m" .. i))
        ngx.thread.kill(ngx.thread.spawn(serves.hold, key .. ":" .. i))
    end
    return "killed"
end

-- The request ends while its light threads load, wait or hold.
function serves.exit(key)
    for _, fn in ipairs({ serves.load, serves.load, serves.hold, serves.hold, serves.read }) do
        ngx.thread.spawn(fn, key)
    end
    ngx.sleep(0.01)
    return ngx.exit(204)
end

function serves.exit_in_loader(key)
    return cases.cache:remember(key, 60, function() return ngx.exit(204) end)
end

function serves.exit_in_lock(key)
    return cases.cache:withLock(key, {}, function() return ngx.exit(204) end)
end

-- The other ends of a request that a loader can bring about.
function serves.exec_in_loader(key)
    return cases.cache:remember(key, 60, function() return ngx.exec("/ended") end)
end

function serves.redirect_in_loader(key)
    return cases.cache:remember(key, 60, function() return ngx.redirect("/ended") end)
end

function serves.error_page_in_loader(key)
    return cases.cache:remember(key, 60, function() return ngx.exit(403) end)
end

-- The end comes in a coroutine of the loader's own, or of a caller's.
function serves.exit_within_loader(key)
    return cases.cache:remember(key, 60, coroutine.wrap(function() return ngx.exit(204) end))
end

function serves.exit_around_loader(key)
    return coroutine.wrap(function() return serves.exit_in_loader(key) end)()
end

-- Handles of light threads that were killed: as long as one is kept the thread has its stack. The
-- last of them stay.
local KEPT = 50
cases.kept, cases.kept_count = {}, 0
local function keep(thread)
    cases.kept_count = cases.kept_count + 1
    cases.kept[cases.kept_count % KEPT] = thread
end
local function kill_and_keep(fn)
    return function(key)
        local thread = ngx.thread.spawn(fn, key)
        ngx.sleep(0.01)
        keep(thread)
        ngx.thread.kill(thread)
        return "killed"
    end
end
serves.keep_load = kill_and_keep(serves.load)
serves.keep_hold = kill_and_keep(serves.hold)

-- How long somebody waits for what a killed light thread holds whose handle is kept. Beside it runs
-- a control of `control` seconds: "late" where that ends first, five times of five.
local function race(key, fn, take, control)
    for i = 1, 5 do
        local mine = key .. ":" .. i
        local holder = ngx.thread.spawn(fn, mine)
        keep(holder)
        ngx.sleep(0.01)
        local is_late = false
        ngx.thread.kill(holder)
        local watch = ngx.thread.spawn(function()
            ngx.sleep(control)
            is_late = true
        end)
        take(mine)
        ngx.thread.kill(watch)
        if not is_late then return "in time" end
    end
    return "late"
end
function serves.race_load(key) return race(key, serves.load, serves.quick, 0.1) end
function serves.race_hold(key) return race(key, serves.hold, serves.locked, 0.1) end

-- The light thread that leads the batch of a loader is killed, while it collects or loads: those
-- that have joined get their values all the same.
local function kill_leader(key, seconds, options)
    local runs = 0
    local loader = cases.cache:loader(function(keys)
        runs = runs + 1
        if runs == 1 and options.maxWait < 0.1 then slow() end
        local values = {}
        for _, one in ipairs(keys) do values[one] = "v" end
        return values
    end, options)
    local leader = ngx.thread.spawn(loader.get, loader, key)
    local others, text = {}, {}
    for i = 1, 3 do others[i] = ngx.thread.spawn(loader.get, loader, key .. ":" .. i) end
    ngx.sleep(seconds)
    ngx.thread.kill(leader)
    for i = 1, 3 do text[i] = tostring(select(2, ngx.thread.wait(others[i]))) end
    return table.concat(text, " ")
end
function serves.kill_leader(key) return kill_leader(key, 0.05, { maxWait = 0.01 }) end
function serves.kill_collector(key)
    return kill_leader(key, 0.02, { maxWait = 0.2 })
end

-- A loader asks for its own key, in a coroutine or two of its own.
function serves.recursive(key)
    return cases.cache:remember(key, 60, function()
        return coroutine.wrap(function()
            local inner = coroutine.wrap(function()
                local _, err = serves.quick(key)
                return err and err.code
            end)
            return inner()
        end)()
    end)
end

-- A loader waits in a coroutine of its own: another light thread of the request is no part of it,
-- be it in a coroutine or not.
function serves.beside(key)
    local loads = ngx.thread.spawn(function()
        return cases.cache:remember(key, 60, function()
            return coroutine.wrap(function()
                ngx.sleep(0.05)
                return "v"
            end)()
        end)
    end)
    local function ask() return (serves.quick(key)) end
    local asks = ngx.thread.spawn(function() return coroutine.wrap(ask)() end)
    local own = ask()
    local _, loaded = ngx.thread.wait(loads)
    local _, asked = ngx.thread.wait(asks)
    return table.concat({ tostring(own), tostring(loaded), tostring(asked) }, " ")
end

--- The content of a location.
function cases.serve(what)
    if ngx.var.arg_id then
        local file = assert(io.open(cases.begun, "a"))
        file:write(ngx.var.arg_id, "\n")
        file:close()
    end
    local value, err = serves[what](ngx.var.arg_key)
    ngx.print(tostring(value or err))
end

local function held()
    local cache = cases.cache
    local stats, port = cache:stats(), cache._client.port
    local guarded = 0
    for _ in pairs(port.holders and port.holders.rows or {}) do guarded = guarded + 1 end
    return ("slots=%d waiting=%d inFlight=%d leases=%d locks=%d holders=%d"):format(
        port.count or 0, stats.waiting, stats.inFlight, stats.activeLeases, stats.activeLocks,
        guarded)
end

--- Called in init_worker_by_lua. A counter goes along: a report is good only when it is a new one.
function cases.report()
    local reports, count = ngx.shared.reports, 0
    local function tell()
        count = count + 1
        if reports:get("collect") then collectgarbage() end
        reports:set(ngx.worker.id(), count .. " " .. held())
    end
    ngx.timer.every(REPORT_EVERY, tell)
end

--- A handle of a lock that nobody refers to any more is the garbage collector's: it shall run.
function cases.collect(on)
    ngx.shared.reports:set("collect", on)
end

--- All that the workers hold: the lines of their reports.
function cases.reports()
    local lines = {}
    for id = 0, ngx.worker.count() - 1 do lines[#lines + 1] = ngx.shared.reports:get(id) or "" end
    ngx.print(table.concat(lines, "\n"))
end

return cases
