-- compare_count - what a call takes that can be counted: instructions, system calls, commands.
--
-- What:   instructions(side, question, program) under valgrind, by the difference of two runs on a
--         store in memory; instructions_of(pid, fn) by the processor's counters (perf), all
--         threads together; system_calls(pid, fn) by strace; commands(redis, fn) and the bytes
--         of the wire, by the server. Each nil where the tool is not there or may not.
-- Not:    time.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local compare_count = {}

local VALGRIND_SECONDS = 300
local ATTACH_SECONDS, DETACH_SECONDS = 10, 10

local function has(program)
    return process.run({ "sh", "-c", 'command -v "$0"', program }).exit == 0
end

compare_count.has_valgrind = has("valgrind")
compare_count.has_strace = has("strace")
compare_count.has_perf = has("perf")

-- Instructions ------------------------------------------------------------------------------------

local function count_once(command, env)
    local words = { "valgrind", "--tool=cachegrind", "--cache-sim=no",
        "--cachegrind-out-file=/dev/null", env = env }
    for _, word in ipairs(command) do words[#words + 1] = word end
    local ended = process.run(words, VALGRIND_SECONDS)
    local text = ended.err:match("I%s+refs:%s+([%d,]+)")
    if ended.exit ~= 0 or not text then
        error("valgrind could not run '" .. table.concat(command, " ") .. "': " .. ended.err, 0)
    end
    return tonumber((text:gsub(",", "")))
end

---Instructions of one call: command(calls) is what to run, `few` and `many` the two lengths.
function compare_count.instructions(command, env, few, many)
    local short = count_once(command(few), env)
    return (count_once(command(many), env) - short) / (many - few)
end

-- Tells perf to begin or end, and waits until it has.
local function tell(control, word)
    return control:send(word .. "\n", ATTACH_SECONDS) and control:receive(ATTACH_SECONDS) ~= nil
end

---User instructions of all threads of process `pid` while fn runs; nil where they may not be
---counted (no perf, no counters in a virtual machine, kernel.perf_event_paranoid).
function compare_count.instructions_of(pid, fn)
    if not compare_count.has_perf then return nil end
    local path = temp.dir() .. "/perf"
    local ours, theirs = assert(socket.pair())
    local counter = process.spawn({ "perf", "stat", "-x", ";", "-e", "instructions:u", "-p", pid,
        "--delay", "-1", "--control", "fd:3,3", "-o", path, fds = { [3] = theirs.fd },
        stderr = path .. ".err" })
    theirs:close()
    local counts = tell(ours, "enable")
    if counts then
        fn()
        tell(ours, "disable")
    end
    counter:signal(posix.SIGINT)
    if not counter:wait(DETACH_SECONDS) then counter:kill() end
    ours:close()
    return counts and tonumber(temp.read(path):match("\n(%d+);[^\n]*instructions")) or nil
end

---Builds compare_core with a side's header and library: its path, or nil and why not.
function compare_count.build_core(side, root)
    local path = temp.dir() .. "/compare_core"
    local ended = process.run({ "cc", "-std=c11", "-O1", "-D_POSIX_C_SOURCE=200809L",
        "-I" .. side.root .. "/core/include", root .. "/bench/support/compare_core.c", "-o", path,
        side.library, "-Wl,-rpath," .. side.root .. "/build" })
    if ended.exit ~= 0 then
        return nil, ended.err
    end
    return path
end

-- System calls ------------------------------------------------------------------------------------

local function is_traced(pid)
    for name in process.run({ "ls", ("/proc/%d/task"):format(pid) }).out:gmatch("%d+") do
        local status = temp.read(("/proc/%d/task/%s/status"):format(pid, name))
        if status:find("TracerPid:%s+0\n") then return false end
    end
    return true
end

---System calls of process `pid` while fn runs; nil where it may not be traced.
function compare_count.system_calls(pid, fn)
    if not compare_count.has_strace then return nil end
    local path = temp.dir() .. "/strace"
    local tracer = process.spawn({ "strace", "-f", "-c", "-U", "calls", "-o", path, "-p", pid,
        stderr = path .. ".err" })
    local deadline = clock.deadline(ATTACH_SECONDS)
    while not is_traced(pid) do
        if not tracer:is_alive() or clock.now() > deadline then
            tracer:kill()
            return nil
        end
        clock.sleep(0.01)
    end
    fn()
    tracer:signal(posix.SIGINT)
    if not tracer:wait(DETACH_SECONDS) then tracer:kill() end
    local total = 0
    for number in temp.read(path):gmatch("\n%s*(%d+)[^\n]*") do total = tonumber(number) end
    return total
end

-- Commands ----------------------------------------------------------------------------------------

---Commands that the server ran while fn did, those inside scripts, too, and bytes of the wire.
function compare_count.commands(redis, fn)
    local before = redis:info("stats")
    local counts = redis:count(fn)
    local after = redis:info("stats")
    local sum = 0
    for name, calls in pairs(counts) do
        if name ~= "config|resetstat" then sum = sum + calls end
    end
    local function more(field) return after[field] - before[field] end
    -- Our own: INFO, its answers of some KiB. They are the same for both sides.
    return sum, more("total_net_input_bytes") + more("total_net_output_bytes")
end

return compare_count
