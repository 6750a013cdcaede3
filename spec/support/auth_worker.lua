-- A client whose credentials change, in a process of its own: calls, or first says nothing.
--
-- params: options (of redcache.new), file (holds user, password and the instant of their end),
-- seconds, idle (seconds without a call, behind the first one)
-- Answer: calls, asked (how often for credentials), failures (in words)

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")

local CALLS = 4   -- coroutines that call at once
local PAUSE = 0.002

local function credentials(path)
    local file = assert(io.open(path))
    local user, password, ends = file:read("*l", "*l", "*n")
    file:close()
    return user, password, ends - clock.now()
end

local params = (...).params
local tally = { calls = 0, asked = 0, failures = {} }
local redcache = require("redcache")
local options, scheduler = params.options, params.options.scheduler
function options.auth()
    tally.asked = tally.asked + 1
    return credentials(params.file)
end
local cache = redcache.new(options)

local function call(n)
    local value, err = cache:get("key" .. n % 7, { near = n % 2 == 0 or false })
    if value ~= "v" then
        tally.failures[#tally.failures + 1] = err and err.message or "it is gone"
    end
    tally.calls = tally.calls + 1
end

local function use(sleep)
    local ends, n = clock.now() + params.seconds, 0
    call(n)
    if params.idle then
        sleep(params.idle)
    end
    repeat
        n = n + 1
        call(n)
        sleep(PAUSE)
    until clock.now() > ends
end

if scheduler == "blocking" then
    use(clock.sleep)
elseif scheduler == "coroutine" then
    redcache.run(function()
        for _ = 1, params.idle and 1 or CALLS do -- their sleep is the whole process's
            redcache.spawn(use, clock.sleep)
        end
    end)
else
    local loop = event_loop.new(scheduler)
    for _ = 1, CALLS do
        loop.go(function()
            use(loop.sleep)
        end)
    end
    loop.run()
end
cache:close()
return tally
