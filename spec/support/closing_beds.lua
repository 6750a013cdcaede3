--- The beds of closing.lua: one for each scheduler.

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")

local beds = {}

local function by_turns(name, more)
    local tasks
    local bed = { name = name, scheduler = "blocking", now = clock.now, pause = coroutine.yield }
    function bed.go(fn)
        tasks[#tasks + 1] = coroutine.create(fn)
    end
    function bed.sleep(seconds)
        clock.sleep(seconds / 10)
        coroutine.yield()
    end
    -- Each is resumed in its turn until the first of them has ended.
    function bed.run(fn)
        tasks = { coroutine.create(fn) }
        while coroutine.status(tasks[1]) ~= "dead" do
            for _, co in ipairs(tasks) do
                if coroutine.status(co) ~= "dead" then
                    local ok, err = coroutine.resume(co)
                    assert(ok, ok or debug.traceback(co, tostring(err)))
                end
            end
        end
    end
    for field, value in pairs(more or {}) do bed[field] = value end
    return bed
end

function beds.blocking()
    return by_turns("blocking")
end

--- A store in memory whose clock moves only when somebody waits.
function beds.manual_clock()
    local hand = require("redcache").clock()
    return by_turns("a clock moved by hand", {
        clock = hand,
        sleep = function(seconds)
            hand:advance(seconds)
            coroutine.yield()
        end,
    })
end

function beds.coroutine()
    local redcache = require("redcache")
    return {
        name = "coroutine", scheduler = "coroutine", now = clock.now, run = redcache.run,
        go = redcache.spawn, pause = coroutine.yield,
        sleep = function(seconds)
            clock.sleep(seconds / 10)
            coroutine.yield()
        end,
    }
end

for _, name in ipairs(event_loop.names) do
    beds[name] = function()
        local loop
        return {
            name = name, scheduler = name, now = clock.now,
            go = function(fn) loop.go(fn) end,
            pause = function() loop.sleep(0.001) end,
            sleep = function(seconds) loop.sleep(seconds) end,
            run = function(fn)
                loop = event_loop.new(name)
                local ok, err = false, "it did not end"
                loop.go(function() ok, err = xpcall(fn, debug.traceback) end)
                loop.run()
                assert(ok, err)
            end,
        }
    end
end

local ngx = rawget(_G, "ngx")

--- Light threads, of the request that asks for it.
function beds.resty(driver)
    return {
        name = "resty, driver " .. driver, scheduler = "resty", driver = driver, now = clock.now,
        go = ngx.thread.spawn, kill = ngx.thread.kill, sleep = ngx.sleep,
        pause = function() ngx.sleep(0.001) end,
        run = function(fn) fn() end,
    }
end

return beds
