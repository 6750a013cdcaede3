--- The demo: a herd meets a slow key, a lock outlives its ttl, an invalidation is seen elsewhere.
-- Started by script/demo, which sets the paths. Every process here is a real one.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local redcache = require("redcache")

local HERD = 16
local LOADER_SECONDS = 1.2
local JOB_SECONDS = 4

local function say(text, ...)
    io.write(text:format(...), "\n")
    io.flush()
end

local function title(text, ...)
    say("\n\27[1m" .. text .. "\27[0m", ...)
end

local function ms(seconds)
    return ("%.1f ms"):format(seconds * 1000)
end

local function fail(text, ...)
    io.stderr:write("demo: ", text:format(...), "\n")
    os.exit(1)
end

local function parse_arguments()
    if arg[1] == nil then return nil end
    if arg[1] ~= "--redis" or arg[2] == nil or arg[3] ~= nil then
        fail("unknown arguments: usage is script/demo [--redis URL]")
    end
    return arg[2]
end

--- One process of the herd: asks for the key, and tells what happened to it.
local function ask(one)
    local clock_ = require("spec.support.clock")
    local cache = require("redcache").new({ url = one.params.url, namespace = one.params.name })
    cache:get("warm up") -- connect before the start, so that the race is about the key
    one:ready()
    local start = clock_.now()
    local value, err, source = cache:remember("report", 60, function()
        one:emit("load")
        clock_.sleep(one.params.seconds) -- a slow query, say
        return { title = "Quarterly report", rows = 1482 }
    end)
    local took = clock_.now() - start
    start = clock_.now()
    for _ = 1, 200 do cache:get("report") end
    local hit = (clock_.now() - start) / 200
    cache:close()
    return {
        took = took, source = source, hit = hit, err = err and tostring(err),
        rows = value and value.rows,
    }
end

local function show_herd(url, name)
    title("1. %d processes ask for one key at once; it takes %.1f s to make", HERD, LOADER_SECONDS)
    local run = herd.run({
        count = HERD, main = ask, params = { url = url, name = name, seconds = LOADER_SECONDS },
    })
    local loads, slowest, hits = #run:named("load"), 0, {}
    for index, result in ipairs(run.results) do
        if result.rows ~= 1482 then fail("process %d got no value: %s", index, result.err) end
        local how = result.source == "loader" and "ran the loader" or "waited, woken by a push"
        say("   process %2d  %9s  %s", index, ms(result.took), how)
        slowest = math.max(slowest, result.took)
        hits[index] = result.hit
    end
    table.sort(hits)
    say("   loader runs: %d   values: %d of %d   the last one had it %s after the loader's 1.2 s",
        loads, #run.results, HERD, ms(slowest - LOADER_SECONDS))
    say("   from then on a read is a hit: %s each (%d processes reading at once)",
        ms(hits[math.ceil(#hits / 2)]), HERD)
    return loads
end

--- Holds a lock of 1 s for a job of 4 s during which Lua does nothing but compute.
local function hold(one)
    local clock_ = require("spec.support.clock")
    local cache = require("redcache").new({ url = one.params.url, namespace = one.params.name })
    local fence, valid
    local _, err = cache:withLock("nightly", { ttl = 1 }, function(lock)
        fence = lock.fence
        one:emit("held", { fence = fence })
        local stop = clock_.now() + one.params.seconds
        while clock_.now() < stop do math.sin(1) end -- no call of redcache: it renews all the same
        valid = lock:valid()
    end)
    cache:close()
    return { valid = valid, err = err and tostring(err) }
end

local function show_lock(url, name, cache)
    title("2. A lock of 1 s is held across a job of %d s that keeps Lua busy", JOB_SECONDS)
    local run = herd.start({
        count = 1, main = hold, params = { url = url, name = name, seconds = JOB_SECONDS },
    })
    local held = run:wait_events("held", 1, 10)[1]
    say("   another process holds it, fence %.0f", held.fence)
    local tries, start = 0, clock.now()
    local lock
    repeat
        lock = cache:tryLock("nightly", { ttl = 1 })
        tries = tries + 1
        if not lock then clock.sleep(0.5) end
    until lock or clock.now() - start > JOB_SECONDS + 5
    if not lock then fail("the lock never came free") end
    say("   we tried %d times: refused for %.1f s, then got it with the higher fence %.0f", tries,
        clock.now() - start, lock.fence)
    lock:release()
    run:join(10)
    say("   the holder's lock was valid to the end: %s", tostring(run.results[1].valid))
    return run.results[1].valid
end

--- Reads until it sees the value change.
local function watch(one)
    local clock_ = require("spec.support.clock")
    local cache = require("redcache").new({ url = one.params.url, namespace = one.params.name })
    local version = 0
    local function load()
        version = version + 1
        return ("price list v%d"):format(version)
    end
    local before = cache:remember("prices", 60, load)
    one:emit("cached", { value = before })
    local stop = clock_.now() + 10
    local after
    repeat
        after = cache:remember("prices", 60, load)
    until after ~= before or clock_.now() > stop
    local seen = clock_.now()
    cache:close()
    return { before = before, after = after, seen = seen }
end

local function show_invalidation(url, name, cache)
    title("3. An invalidation here is seen there")
    local run = herd.start({ count = 1, main = watch, params = { url = url, name = name } })
    run:wait_events("cached", 1, 10)
    clock.sleep(0.2)
    local start = clock.now()
    cache:delete("prices")
    local deleted = clock.now()
    run:join(15)
    local result = run.results[1]
    if result.after == result.before then fail("the other process never saw the invalidation") end
    say("   another process reads '%s' again and again", result.before)
    say("   we delete the key (%s); %s later it has loaded '%s'", ms(deleted - start),
        ms(math.max(0, result.seen - deleted)), result.after)
end

local own_url = parse_arguments()
local server
if not own_url then server = require("spec.support.server").start() end
local url = own_url or server:url()
local name = ("demo-%d"):format(math.floor(clock.now() * 1e6) % 1e9)
local cache = redcache.new({ url = url, namespace = name })
local _, err = cache:get("hello")
if err then fail("%s", tostring(err)) end
local health = cache:health()
say("%s at %s%s", health.server, health.address,
    server and " (private, gone when we are done)" or "")
local began = clock.now()
local loads = show_herd(url, name)
local valid = show_lock(url, name, cache)
show_invalidation(url, name, cache)
cache:deleteMulti({ "report", "prices" })
cache:close()
if server then server:stop() end
title("Done in %.1f s.", clock.now() - began)
os.exit(loads == 1 and valid == true and 0 or 1)
