--- Event loops by one interface, for chunks that run in a process of their own.
--
-- What:   event_loop.new(name): go(fn) starts a coroutine, sleep(seconds) lets others run, run()
--         returns when the loop has ended by itself. names: those that can be tested.
-- Not:    copas 1.2 has neither timers nor an end: its run() steps until all of go() have ended.

local clock = require("spec.support.clock")

local event_loop = { names = { "luv", "cqueues", "copas" } }

local makers = {}

function makers.luv()
    local uv = require("luv")
    local loop = {}
    function loop.go(fn)
        coroutine.wrap(fn)()
    end
    function loop.sleep(seconds)
        local co, timer = coroutine.running(), uv.new_timer()
        uv.timer_start(timer, seconds * 1000, 0, function()
            uv.close(timer)
            assert(coroutine.resume(co))
        end)
        coroutine.yield()
    end
    function loop.run()
        uv.run()
    end
    return loop
end

function makers.cqueues()
    local cqueues = require("cqueues")
    local controller = cqueues.new()
    return {
        go = function(fn) controller:wrap(fn) end,
        sleep = cqueues.sleep,
        run = function() assert(controller:loop()) end,
    }
end

function makers.copas()
    local copas = require("copas")
    local loop, alive, sleepers, failure = {}, 0, {}, nil
    local queue = { insert = function() end, push = function() end }
    function loop.go(fn)
        alive = alive + 1
        copas.addthread(function()
            local ok, err = xpcall(fn, debug.traceback)
            failure = failure or (not ok and err)
            alive = alive - 1
        end)
    end
    function loop.sleep(seconds)
        sleepers[#sleepers + 1] = { at = clock.now() + seconds, co = coroutine.running() }
        coroutine.yield(sleepers, queue)
    end
    local function wake()
        local now, list = clock.now(), sleepers
        sleepers = {}
        for _, sleeper in ipairs(list) do
            if sleeper.at <= now then
                copas.addthread(sleeper.co)
            else
                sleepers[#sleepers + 1] = sleeper
            end
        end
    end
    function loop.run()
        while alive > 0 do
            copas.step(sleepers[1] and 0.0001 or 0.05)
            wake()
        end
        if failure then error(failure, 0) end
    end
    return loop
end

--- An event loop of that name; throws where its module is missing.
function event_loop.new(name)
    return makers[name]()
end

--- Whether its module is there and can be loaded: a package may lack what it requires itself.
function event_loop.has(name)
    return (pcall(require, name))
end

return event_loop
