--- How long threads were ready to run and had no processor: what a busy machine takes, and no
-- program can help.
--
-- What:   watch({ pid, ... }, whole) -> watch; watch:seconds(): since ever, of all threads these
--         processes had when it began, but (where not `whole`) for the one that asks.
--         time({ pid, ... }, fn, ...): how long fn took beyond that, in these and in this process,
--         then its results.
-- Not:    where the kernel does not count it (CONFIG_SCHED_INFO): 0, as on a machine of one's own.

local clock = require("spec.support.clock")
local process = require("spec.support.process")
local posix = require("spec.support.posix")
local temp = require("spec.support.temp")

local waited = {}
local Watch = {}
Watch.__index = Watch

function waited.watch(pids, whole)
    local own, paths = posix.C.getpid(), {}
    for _, pid in ipairs(pids) do
        local listed = process.run({ "ls", ("/proc/%d/task"):format(pid) }).out
        for thread in listed:gmatch("%d+") do
            if whole or tonumber(thread) ~= own then
                paths[#paths + 1] = ("/proc/%d/task/%s/schedstat"):format(pid, thread)
            end
        end
    end
    return setmetatable({ paths = paths }, Watch)
end

function Watch:seconds()
    local sum = 0
    for _, path in ipairs(self.paths) do
        sum = sum + (tonumber(temp.read(path):match("^%d+ (%d+)")) or 0)
    end
    return sum * 1e-9
end

function waited.time(pids, fn, ...)
    local watch = waited.watch({ posix.C.getpid(), unpack(pids) }, true)
    local before, began = watch:seconds(), clock.now()
    local function pack(...)
        return clock.now() - began - (watch:seconds() - before), ...
    end
    return pack(fn(...))
end

return waited
