--- fork() out of a process with threads, as ffi.C.fork(); declares _exit(), too.
--
-- GCC 12's AddressSanitizer does not free its locks in a child: one that another thread has at that
-- moment, because it begins or allocates, stays taken there for ever. Under it the other threads of
-- the process sleep first.

local ffi = require("ffi")
local clock = require("spec.support.clock")
local posix = require("spec.support.posix")

ffi.cdef("int fork(void); void _exit(int status);")

local asan = (os.getenv("REDCACHE_SANITIZER") or ""):match("^a")

local function others_sleep()
    local me = posix.C.getpid() -- also the id of the main thread
    local pipe = io.popen("cat /proc/" .. me .. "/task/*/stat 2>/dev/null")
    local states = pipe:read("*a")
    pipe:close()
    for id, state in states:gmatch("(%d+) %([^\n]-%) (%a) ") do
        if tonumber(id) ~= me and state == "R" then return false end
    end
    return true
end

return function()
    if asan then clock.wait_until(others_sleep, 5, "other threads that sleep") end
    return ffi.C.fork()
end
