--- The demo: a herd meets a slow key, a lock outlives its ttl, an invalidation is seen elsewhere.
-- Started by script/demo, which sets the paths. The actors are threads with a Lua state each, on a
-- store in their process; with --redis URL they are processes.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local threads = require("spec.support.threads")

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
    -- host:port is what redis-cli and others are given.
    return arg[2]:find("://", 1, true) and arg[2] or "redis://" .. arg[2]
end

local redis = parse_arguments()
local ACTORS = redis and "processes" or "threads"
local ACTOR = redis and "process" or "thread"
local NAME = ("demo-%d"):format(math.floor(clock.now() * 1e6) % 1e9)

--- Runs `main` (no upvalues) in `count` actors of their own; what each returned.
local function play(count, main, seconds)
    local options = {
        count = count, main = main, timeout = 60,
        params = { url = redis or "memory://", name = NAME, seconds = seconds },
    }
    if redis then return herd.run(options).results end
    return (threads.run(options))
end

--- One of the herd: asks for the key, and tells what happened to it.
local function ask(one)
    local now = require("spec.support.clock").now
    local sleep = require("spec.support.clock").sleep
    local cache = require("redcache").new({
        url = one.params.url, namespace = one.params.name, group = "actor " .. one.index,
    })
    local _, unreachable = cache:get("warm up") -- connect before, so that the race is about the key
    if unreachable then return { err = tostring(unreachable) } end
    if one.barrier then one.barrier() else one:ready() end
    local start, loads = now(), 0
    local value, err, source = cache:remember("report", 60, function()
        loads = loads + 1
        sleep(one.params.seconds) -- a slow query, say
        return { title = "Quarterly report", rows = 1482 }
    end)
    local took = now() - start
    start = now()
    for _ = 1, 200 do cache:get("report") end
    local hit = (now() - start) / 200
    if one.barrier then one.barrier() else one:ready() end
    cache:delete("report")
    cache:close()
    return {
        took = took, source = source, hit = hit, loads = loads, err = err and tostring(err),
        rows = value and value.rows,
    }
end

local function show_herd()
    title("1. %d %s ask for one key at once; it takes %.1f s to make", HERD, ACTORS,
        LOADER_SECONDS)
    local loads, slowest, hits = 0, 0, {}
    local results = play(HERD, ask, LOADER_SECONDS)
    for index, result in ipairs(results) do
        if result.rows ~= 1482 then fail("%s %d got no value: %s", ACTOR, index, result.err) end
        local how = result.source == "loader" and "ran the loader" or "waited, woken by a push"
        say("   %s %2d  %9s  %s", ACTOR, index, ms(result.took), how)
        slowest, loads = math.max(slowest, result.took), loads + result.loads
        hits[index] = result.hit
    end
    table.sort(hits)
    say("   loader runs: %d   values: %d of %d   the last one had it %s after the loader's %.1f s",
        loads, #results, HERD, ms(slowest - LOADER_SECONDS), LOADER_SECONDS)
    say("   from then on a read is a hit: %.2f us each (%d %s reading at once)",
        hits[math.ceil(#hits / 2)] * 1e6, HERD, ACTORS)
    return loads == 1
end

--- The first actor holds a lock of 1 s for a job of 4 s during which Lua does nothing but compute;
-- the second one wants it.
local function contend(one)
    local now = require("spec.support.clock").now
    local sleep = require("spec.support.clock").sleep
    local cache = require("redcache").new({
        url = one.params.url, namespace = one.params.name, group = "actor " .. one.index,
    })
    local function meet()
        if one.barrier then one.barrier() else one:ready() end
    end
    local told = { tries = 0 }
    local function hold(lock)
        told.fence = lock.fence
        meet()
        local stop = now() + one.params.seconds
        while now() < stop do math.sin(1) end -- no call of redcache: it renews all the same
        told.valid = lock:valid()
    end
    if one.index == 1 then
        cache:withLock("nightly", { ttl = 1 }, hold)
    else
        meet()
        local start = now()
        local lock
        repeat
            lock = cache:tryLock("nightly", { ttl = 1 })
            told.tries = told.tries + 1
            if not lock then sleep(0.5) end
        until lock or now() - start > one.params.seconds + 5
        told.took, told.fence = now() - start, lock and lock.fence
        if lock then lock:release() end
    end
    cache:close()
    return told
end

local function show_lock()
    title("2. A lock of 1 s is held across a job of %d s that keeps Lua busy", JOB_SECONDS)
    local holder, other = unpack(play(2, contend, JOB_SECONDS))
    if not other.fence then fail("the lock never came free") end
    say("   one %s holds it, fence %.0f", ACTOR, holder.fence)
    say("   another one tried %d times: refused for %.1f s, then got the higher fence %.0f",
        other.tries, other.took, other.fence)
    say("   the holder's lock was valid to the end: %s", tostring(holder.valid))
    return holder.valid == true
end

--- The first actor reads until it sees the value change, the second one deletes it.
local function invalidate(one)
    local now = require("spec.support.clock").now
    local sleep = require("spec.support.clock").sleep
    local cache = require("redcache").new({
        url = one.params.url, namespace = one.params.name, group = "actor " .. one.index,
    })
    local function meet()
        if one.barrier then one.barrier() else one:ready() end
    end
    local told, version = {}, 0
    local function load()
        version = version + 1
        return ("price list v%d"):format(version)
    end
    if one.index == 1 then
        told.before = cache:remember("prices", 60, load)
        meet()
        local stop = now() + 10
        repeat
            told.after = cache:remember("prices", 60, load)
        until told.after ~= told.before or now() > stop
        told.seen = now()
    else
        cache:exists("prices") -- connect before
        meet()
        sleep(0.2)
        local start = now()
        cache:delete("prices")
        told.deleted = now()
        told.took = told.deleted - start
    end
    meet()
    cache:delete("prices")
    cache:close()
    return told
end

local function show_invalidation()
    title("3. An invalidation here is seen there")
    local reader, writer = unpack(play(2, invalidate))
    if reader.after == reader.before then fail("the other %s never saw it", ACTOR) end
    say("   one %s reads '%s' again and again", ACTOR, reader.before)
    say("   another one deletes the key (%s); %s later the first has loaded '%s'",
        ms(writer.took), ms(math.max(0, reader.seen - writer.deleted)), reader.after)
end

local began = clock.now()
say(redis and "On the Redis that --redis names." or
    "No server: a store in the process of the threads (memory://).")
local loaded_once = show_herd()
local stayed_valid = show_lock()
show_invalidation()
title("Done in %.1f s.", clock.now() - began)
os.exit(loaded_once and stayed_valid and 0 or 1)
