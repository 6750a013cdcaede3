--- Child processes: started without fork (the test process has threads), waited for with a
-- deadline, never left behind.
--
-- What:   spawn, run, wait, kill. Every child is on a leash (leash.lua): it dies with this process,
--         even at kill -9.
-- Memory: children still alive at the end of this Lua state are killed and reaped.
-- Errors: spawn throws; wait returns nil, "timeout".

local ffi = require("ffi")
local bit = require("bit")
local posix = require("spec.support.posix")
local clock = require("spec.support.clock")
local cleanup = require("spec.support.cleanup")
local temp = require("spec.support.temp")

local C = posix.C
local WNOHANG = 1
local SETSIGDEF, SETSIGMASK = 4, 8
local O_WRONLY_CREATE_APPEND = 0x1 + 0x40 + 0x400
local RW_RW_RW = 438 -- 0666, octal
-- glibc: posix_spawnattr_t 336 bytes, file actions 80, sigset_t 128; musl is smaller.
local OPAQUE_WORDS = 128

local process = {}
local Process = {}
Process.__index = Process

local alive = {} -- pid -> Process, not yet reaped
local here = debug.getinfo(1, "S").source:match("^@(.*)process%.lua$")

local function own_interpreter()
    local buf = ffi.new("char[4096]")
    local n = tonumber(C.readlink("/proc/self/exe", buf, 4096))
    local path = n > 0 and ffi.string(buf, n) or ""
    return path:match("/luajit[^/]*$") and path or "luajit"
end

--- The luajit that runs this, or the one in PATH when this runs inside another program. Under
-- sanitizers the one in PATH is a wrapper that preloads them; this one is plain.
process.interpreter = own_interpreter()

-- Strings in a C array ended by NULL. The second value keeps the bytes alive.
local function string_array(words)
    local array = ffi.new("const char *[?]", #words + 1)
    for i, word in ipairs(words) do array[i - 1] = word end
    return ffi.cast("char *const *", array), { array, words }
end

-- The environment with changes: a string sets, false removes.
local function environment(changes)
    local words, i = {}, 0
    while C.environ[i] ~= nil do
        local word = ffi.string(C.environ[i])
        if changes[word:match("^([^=]*)=")] == nil then words[#words + 1] = word end
        i = i + 1
    end
    for name, value in pairs(changes) do
        if value then words[#words + 1] = name .. "=" .. value end
    end
    return words
end

-- Where the child's descriptors come from: a number is one of ours, a string a file to append to.
local function file_actions(spec)
    local actions = ffi.new("uint64_t[?]", OPAQUE_WORDS)
    C.posix_spawn_file_actions_init(actions)
    local wanted = { [0] = spec.stdin or "/dev/null", spec.stdout, spec.stderr }
    for fd, source in pairs(spec.fds or {}) do wanted[fd] = source end
    for fd, source in pairs(wanted) do
        if type(source) == "number" then
            C.posix_spawn_file_actions_adddup2(actions, source, fd)
        else
            local flags = fd == 0 and 0 or O_WRONLY_CREATE_APPEND
            C.posix_spawn_file_actions_addopen(actions, fd, source, flags, RW_RW_RW)
        end
    end
    return actions
end

-- Children start with an empty signal mask and SIGPIPE's default, whatever this process does.
local function attributes()
    local attr = ffi.new("uint64_t[?]", OPAQUE_WORDS)
    local set = ffi.new("uint64_t[16]")
    C.posix_spawnattr_init(attr)
    C.sigemptyset(set)
    C.posix_spawnattr_setsigmask(attr, set)
    C.sigaddset(set, posix.SIGPIPE)
    C.posix_spawnattr_setsigdefault(attr, set)
    C.posix_spawnattr_setflags(attr, SETSIGDEF + SETSIGMASK)
    return attr
end

--- Starts spec[1] with the arguments that follow it.
-- spec.env: changes to the environment (a string sets, false removes); spec.stdin/stdout/stderr: a
-- descriptor of ours or a file's path; spec.fds: the same for further descriptors of the child.
function process.spawn(spec)
    local words = { process.interpreter, here .. "leash.lua", tostring(C.getpid()) }
    for _, word in ipairs(spec) do words[#words + 1] = tostring(word) end
    local argv, argv_anchor = string_array(words)
    local envp, envp_anchor = string_array(environment(spec.env or {}))
    local actions, attr, pid = file_actions(spec), attributes(), ffi.new("int[1]")
    local failed = C.posix_spawnp(pid, words[1], actions, attr, argv, envp)
    C.posix_spawn_file_actions_destroy(actions)
    C.posix_spawnattr_destroy(attr)
    if failed ~= 0 or not argv_anchor or not envp_anchor then
        error(("could not start '%s': %s"):format(spec[1], ffi.string(C.strerror(failed))), 2)
    end
    local child = setmetatable({ pid = pid[0], name = spec[1] }, Process)
    alive[child.pid] = child
    return child
end

local function decode(status)
    local signal = bit.band(status, 0x7f)
    if signal ~= 0 then return { signal = signal } end
    return { exit = bit.band(bit.rshift(status, 8), 0xff) }
end

-- Reaps the child when it has ended.
function Process:poll()
    if self.ended then return self.ended end
    local status = ffi.new("int[1]")
    local pid = C.waitpid(self.pid, status, WNOHANG)
    if pid == 0 then return nil end
    alive[self.pid] = nil
    -- Somebody else has reaped it: how it ended is not known.
    self.ended = pid == self.pid and decode(status[0]) or { exit = -1 }
    return self.ended
end

--- {exit = code} or {signal = number}; nil, "timeout" after `timeout` seconds (stretched under
-- sanitizers).
function Process:wait(timeout)
    local deadline = clock.deadline(timeout)
    while true do
        local ended = self:poll()
        if ended then return ended end
        if clock.now() >= deadline then return nil, "timeout" end
        clock.sleep(0.001)
    end
end

function Process:is_alive()
    return self:poll() == nil
end

--- Sends a signal. A child that has been reaped gets none: its pid may be somebody else's by now.
function Process:signal(number)
    if self:poll() then return false end
    return C.kill(self.pid, number) == 0
end

--- SIGKILL, and waits until it is gone. Works on a stopped process too.
function Process:kill()
    self:signal(posix.SIGKILL)
    return self:wait(10)
end

--- SIGTERM, and SIGKILL when that is not obeyed within `grace` seconds.
function Process:stop(grace)
    self:signal(posix.SIGTERM)
    return self:wait(grace or 2) or self:kill()
end

--- Runs a command to its end: {exit=, signal=, out=, err=}. Throws after `timeout` seconds (60).
function process.run(spec, timeout)
    local dir = temp.dir()
    local child = process.spawn({
        env = spec.env, stdin = spec.stdin, fds = spec.fds,
        stdout = dir .. "/out", stderr = dir .. "/err", unpack(spec),
    })
    local ended = child:wait(timeout or 60)
    if not ended then child:kill() end
    local result = {
        out = temp.read(dir .. "/out"), err = temp.read(dir .. "/err"),
        exit = ended and ended.exit, signal = ended and ended.signal,
    }
    temp.remove(dir)
    if not ended then
        error(("'%s' did not end in time; it said:\n%s%s"):format(
            spec[1], result.out, result.err), 2)
    end
    return result
end

cleanup.add(function()
    for _, child in pairs(alive) do C.kill(child.pid, posix.SIGKILL) end
    for _, child in pairs(alive) do child:wait(5) end
end)

return process
