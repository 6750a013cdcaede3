--- Time for specs: the monotonic clock all processes of this machine share, deadlines, waiting for
-- a condition.

local ffi = require("ffi")
local posix = require("spec.support.posix")

local C = posix.C
local CLOCK_MONOTONIC = 1
local POLL_INTERVAL = 0.002

local clock = {}

-- Sanitizers slow the engine, never its promises about order: only upper bounds are stretched.
local function read_scale()
    local sanitizer = os.getenv("REDCACHE_SANITIZER") or ""
    if sanitizer == "" then return 1 end
    if tonumber(sanitizer) then return tonumber(sanitizer) end
    return sanitizer:find("thread", 1, true) and 10 or sanitizer:find("tsan", 1, true) and 10 or 4
end

--- What upper bounds are multiplied by: 1, 4 under ASan, 10 under TSan, or the number in
-- REDCACHE_SANITIZER.
clock.scale = read_scale()

local instant = ffi.new("struct rcbed_timespec")

--- Seconds, monotonic, comparable between processes of one machine.
function clock.now()
    C.clock_gettime(CLOCK_MONOTONIC, instant)
    return tonumber(instant.tv_sec) + tonumber(instant.tv_nsec) * 1e-9
end

function clock.sleep(seconds)
    if seconds <= 0 then return end
    local wanted = ffi.new("struct rcbed_timespec")
    wanted.tv_sec = math.floor(seconds)
    wanted.tv_nsec = (seconds - math.floor(seconds)) * 1e9
    while C.nanosleep(wanted, wanted) ~= 0 and ffi.errno() == posix.EINTR do end
end

--- An upper bound in seconds, stretched under sanitizers.
function clock.scaled(seconds)
    return seconds * clock.scale
end

--- The instant `seconds` (stretched) from now.
function clock.deadline(seconds)
    return clock.now() + clock.scaled(seconds)
end

function clock.left(deadline)
    return math.max(deadline - clock.now(), 0)
end

--- What a call of a test that is not about time-outs may take: `seconds`, stretched, but no more
-- than the options commandTimeout and timeout take.
function clock.patience(seconds)
    return math.min(clock.scaled(seconds), 60)
end

--- Polls `condition` until it returns something true, and returns that; throws after `seconds`
-- (stretched).
function clock.wait_until(condition, seconds, what)
    local deadline = clock.deadline(seconds)
    while true do
        local result = condition()
        if result then return result end
        if clock.now() >= deadline then
            error(("%s did not come true within %g s"):format(
                what or "the condition", clock.scaled(seconds)), 2)
        end
        clock.sleep(POLL_INTERVAL)
    end
end

--- Runs fn and returns how long it took, then its results.
function clock.time(fn, ...)
    local start = clock.now()
    local function pack(...)
        return clock.now() - start, ...
    end
    return pack(fn(...))
end

return clock
