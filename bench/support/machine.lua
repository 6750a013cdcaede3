-- machine - what else goes on here while we measure: a quiet moment, or one busy process of ours.

local clock = require("spec.support.clock")
local process = require("spec.support.process")
local temp = require("spec.support.temp")

local machine = {}

local WATCH_SECONDS = 0.5
local QUIET_CPUS = 0.1 -- what housekeeping takes
local PATIENCE_SECONDS = 60

-- Ticks all processors together have been busy, and the ticks that passed on one.
local function read_ticks()
    local stat = temp.read("/proc/stat")
    local fields = {}
    for number in stat:match("^cpu%s+([%d ]+)"):gmatch("%d+") do
        fields[#fields + 1] = tonumber(number)
    end
    local _, cpus = stat:gsub("\ncpu%d+", "")
    local idle, sum = fields[4] + fields[5], 0
    for i = 1, 8 do
        sum = sum + fields[i]
    end
    return sum - idle, sum / cpus
end

---How many processors are busy, on average over half a second.
function machine.busy_cpus()
    local busy, passed = read_ticks()
    clock.sleep(WATCH_SECONDS)
    local busy_after, passed_after = read_ticks()
    return (busy_after - busy) / math.max(passed_after - passed, 1)
end

---Waits up to `seconds` (a minute) until nobody else works. Returns how many processors were busy
---at last.
function machine.wait_until_quiet(seconds)
    local deadline = clock.now() + (seconds or PATIENCE_SECONDS)
    local busy
    repeat
        busy = machine.busy_cpus()
    until busy <= QUIET_CPUS or clock.now() >= deadline
    return busy
end

---The first number of the load average.
function machine.load()
    return tonumber(temp.read("/proc/loadavg"):match("^%S+"))
end

---Starts a process that does nothing but work, at normal priority. process:kill() ends it.
function machine.start_busy()
    local path = temp.write(temp.dir() .. "/busy.lua", "while true do end\n")
    return process.spawn({ process.interpreter, path })
end

return machine
