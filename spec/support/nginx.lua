--- An nginx of the spec's own, with Lua and redcache in it: free port, loopback only, its files in
-- a directory of its own; gone when the test process is.
--
-- What:   nginx.start{...} gives a server with .port .dir .pid (the master's) and
--
--             get(path, opts), open(path, opts)   a request (http.lua): status, body, headers; the
--                                                 connection with the request sent
--             workers(), old_workers()            pids of those that serve; of those shutting down
--             reload()                            SIGHUP, returns when new workers serve
--             upgrade()                           SIGUSR2: a new binary takes over (a daemon's)
--             quit(seconds)                       SIGQUIT, waits: the exit code (true for a daemon)
--             stop()                              the end; twice is harmless
--             signal(number), kill_worker(pid)    SIGKILL for one worker
--             log(), complaints()                 the error log; its lines from [error] upwards (a
--                                                 worker that was killed is one)
--             rss(), threads(pid)                 KiB of all workers; number of a process' threads
--
-- start:  workers (1), master (true), daemon (false), code_cache (true), init (Lua of
--         init_by_lua), init_worker (Lua of init_worker_by_lua), main, events, http, server (more
--         directives), connections (per worker, 4096), listen (parameters of the listen
--         directive), listen_more (more listen directives), locations ({ ["/path"] =
--         directives }), env ({ NAME = value }), level (of the error log, info), build (another
--         checkout, whose redcache and library it has). Lua finds redcache in this checkout, and
--         spec.support.
-- Errors: everything throws: without its nginx a spec has nothing to say. Whether there can be one
--         is_possible() tells: boolean, reason.
-- Env:    REDCACHE_NGINX names the program (nginx). Without REDCACHE_LIBRARY: build/libredcache.so.
-- Memory: workers die with their master and the master with the test process, even at kill -9.
-- Not:    TLS clients. Under a sanitizer the library cannot be loaded into an nginx without.

local ffi = require("ffi")
local clock = require("spec.support.clock")
local http = require("spec.support.http")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local nginx = {}
local Nginx = {}
Nginx.__index = Nginx

local START_SECONDS, STOP_SECONDS = 10, 10
local START_TRIES = 5
local SIGHUP, SIGQUIT, SIGUSR2, SIGTERM = 1, 3, 12, 15
local MODULES = "/usr/lib/nginx/modules"

-- The kernel kills a worker with its master.
local LEASH = [[
    local ffi = require("ffi")
    pcall(ffi.cdef, "int prctl(int option, ...);")
    ffi.C.prctl(1, ffi.cast("unsigned long", 9))
]]

-- A daemon is nobody's child: its workers look whether the test process lives, and end it if not.
local DAEMON_LEASH = [[
    pcall(ffi.cdef, "int kill(int pid, int sig); int getppid(void);")
    local master = ffi.C.getppid()
    ngx.timer.every(0.5, function(is_exiting)
        if not is_exiting and ffi.C.kill(%d, 0) ~= 0 then ffi.C.kill(master, 9) end
    end)
]]

local function working_directory()
    local buf = ffi.new("char[4096]")
    local n = tonumber(posix.C.readlink("/proc/self/cwd", buf, 4096))
    return ffi.string(buf, n)
end

local function absolute(path)
    return path:sub(1, 1) == "/" and path or working_directory() .. "/" .. path
end

local here = debug.getinfo(1, "S").source:match("^@(.*)spec/support/nginx%.lua$")
--- The checkout.
nginx.root = (absolute(here):gsub("/%./", "/"):gsub("/%.?$", ""))

local function exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

local found -- what there is, looked for once

-- program, modules (a list of files to load), or reason
local function find()
    if found then return found end
    found = { program = os.getenv("REDCACHE_NGINX") or "nginx" }
    if (os.getenv("REDCACHE_SANITIZER") or "") ~= "" then
        found.reason = "an nginx without the sanitizer cannot load the library"
        return found
    end
    -- Its own path is what it starts at an upgrade, without looking into PATH.
    local path = process.run({ "sh", "-c", 'command -v "$0"', found.program }).out:match("[^\n]+")
    found.program = path or found.program
    local version = process.run({ found.program, "-V" })
    if version.exit ~= 0 then
        found.reason = "there is no " .. found.program
    elseif version.err:find("ngx_lua", 1, true) then
        found.modules = {} -- OpenResty: it is built in
    else
        local configured = version.err:match("%-%-modules%-path=(%S+)") or MODULES
        for _, dir in ipairs({ MODULES, configured }) do
            local modules = { dir .. "/ndk_http_module.so", dir .. "/ngx_http_lua_module.so" }
            if exists(modules[1]) and exists(modules[2]) then found.modules = modules end
        end
        found.reason = not found.modules and "nginx has no Lua module" or nil
    end
    return found
end

--- Whether there can be an nginx here, and why not.
function nginx.is_possible()
    local reason = find().reason
    return reason == nil, reason
end

-- The configuration -------------------------------------------------------------------------------

local function lua_path(build)
    local from = build or nginx.root
    return ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;"):format(from, from, nginx.root)
end

local function main_lines(self, options, modules)
    local lines = {}
    for _, module in ipairs(modules) do lines[#lines + 1] = "load_module " .. module .. ";" end
    local add = {
        "pid nginx.pid;",
        "error_log error.log " .. (options.level or "info") .. ";",
        "worker_processes " .. (options.workers or 1) .. ";",
        "daemon " .. (options.daemon and "on" or "off") .. ";",
        "master_process " .. (options.master == false and "off" or "on") .. ";",
        "env REDCACHE_LIBRARY=" .. self.library .. ";",
    }
    local uid = temp.read("/proc/self/status"):match("\nUid:%s+(%d+)")
    -- Workers of root would be nobody's, who may not enter the directory.
    if uid == "0" then add[#add + 1] = "user root;" end
    for name, value in pairs(options.env or {}) do
        add[#add + 1] = ("env %s='%s';"):format(name, value)
    end
    add[#add + 1] = options.main or ""
    add[#add + 1] = ("events { worker_connections %d; %s }"):format(
        options.connections or 4096, options.events or "")
    for _, line in ipairs(add) do lines[#lines + 1] = line end
    return table.concat(lines, "\n")
end

local function http_lines(self, options)
    local lines = {
        "access_log off;",
        "server_tokens off;",
        ("lua_package_path '%s';"):format(lua_path(options.build)),
        "lua_package_cpath ';;';",
        "lua_code_cache " .. (options.code_cache == false and "off" or "on") .. ";",
        "init_worker_by_lua_file " .. self.dir .. "/init_worker.lua;",
    }
    for _, name in ipairs({ "client_body", "proxy", "fastcgi", "uwsgi", "scgi" }) do
        lines[#lines + 1] = name .. "_temp_path " .. name .. ";"
    end
    if options.init then lines[#lines + 1] = "init_by_lua_file " .. self.dir .. "/init.lua;" end
    lines[#lines + 1] = options.http or ""
    return table.concat(lines, "\n")
end

local function server_lines(self, options)
    local lines = {
        "server {", ("listen 127.0.0.1:%d %s;"):format(self.port, options.listen or ""),
        options.listen_more or "",
        options.server or "",
    }
    for path, directives in pairs(options.locations or {}) do
        lines[#lines + 1] = ("location %s {\n%s\n}"):format(path, directives)
    end
    lines[#lines + 1] = "}"
    -- Tells that it is up: nobody else's nginx can listen in our directory.
    lines[#lines + 1] = ("server { listen unix:%s/up.sock; return 200 up; }"):format(self.dir)
    return table.concat(lines, "\n")
end

local function write_files(self, options)
    temp.write(self.dir .. "/nginx.conf", ("%s\nhttp {\n%s\n%s\n}\n"):format(
        main_lines(self, options, find().modules), http_lines(self, options),
        server_lines(self, options)))
    local leash = LEASH
    if options.daemon then leash = leash .. DAEMON_LEASH:format(posix.C.getpid()) end
    -- Without a master, the leash is the one of process.lua.
    if options.master == false then leash = "" end
    temp.write(self.dir .. "/init_worker.lua", leash .. "\n" .. (options.init_worker or ""))
    if options.init then temp.write(self.dir .. "/init.lua", options.init) end
end

-- Processes ---------------------------------------------------------------------------------------

-- What /proc says of a process; "" where it has ended, also between opening and reading.
local function proc(pid, name)
    return temp.read(("/proc/%d/%s"):format(pid, name)) or ""
end

local function name_of(pid)
    return (proc(pid, "cmdline"):gsub("%z", " "))
end

-- Pids of the workers; `is_old` chooses those that are shutting down.
local function list_workers(self, is_old)
    local list = {}
    if not self.has_master then return is_old and list or { self.pid } end
    local children = proc(self.pid, "task/" .. self.pid .. "/children")
    for word in children:gmatch("%d+") do
        local name = name_of(tonumber(word))
        if name:find("^nginx: worker process") and is_old == (name:find("shutting") ~= nil) then
            list[#list + 1] = tonumber(word)
        end
    end
    return list
end

--- Pids of the workers that serve.
function Nginx:workers()
    return list_workers(self, false)
end

--- Pids of the workers that are shutting down.
function Nginx:old_workers()
    return list_workers(self, true)
end

local function status_number(pid, name)
    local text = proc(pid, "status")
    return tonumber(text:match("\n" .. name .. ":%s*(%d+)") or 0)
end

--- The resident memory of all workers, in KiB.
function Nginx:rss()
    local sum = 0
    for _, pid in ipairs(self:workers()) do sum = sum + status_number(pid, "VmRSS") end
    return sum
end

--- How many threads a process has: the master's where no pid is given.
function Nginx:threads(pid)
    return status_number(pid or self.pid, "Threads")
end

function Nginx:is_alive()
    if self.process then return self.process:is_alive() end
    -- Nobody reaps a daemon in a container without an init: then it stays as a zombie.
    local state = proc(self.pid, "stat"):match("^%d+ %(.-%) (%a)")
    return state ~= nil and state ~= "Z"
end

--- Sends a signal to the master.
function Nginx:signal(number)
    if self.process then return self.process:signal(number) end
    return self:is_alive() and posix.C.kill(self.pid, number) == 0
end

local function wait_for_end(self, seconds)
    if self.process then return self.process:wait(seconds) end
    local deadline = clock.deadline(seconds)
    while self:is_alive() do
        if clock.now() >= deadline then return nil, "timeout" end
        clock.sleep(0.002)
    end
    return { exit = true }
end

--- Reads the configuration again. Returns when new workers serve, and gives the pids of those that
-- served before.
function Nginx:reload(seconds)
    local before, known = self:workers(), {}
    for _, pid in ipairs(before) do known[pid] = true end
    self:signal(SIGHUP)
    clock.wait_until(function()
        local now, fresh = self:workers(), 0
        for _, pid in ipairs(now) do fresh = fresh + (known[pid] and 0 or 1) end
        return fresh == #now and fresh == self.count
    end, seconds or START_SECONDS, "the reload")
    return before
end

--- Starts the program a second time beside itself, waits until that serves, and lets the first
-- one end gracefully. For a daemon: the second is nobody's child.
function Nginx:upgrade(seconds)
    assert(not self.process, "only a daemon can be upgraded")
    local old = setmetatable({ pid = self.pid, has_master = true }, Nginx)
    old:signal(SIGUSR2)
    clock.wait_until(function()
        local pid = tonumber(temp.read(self.dir .. "/nginx.pid"))
        if pid and pid ~= old.pid then self.pid = pid end
        return self.pid ~= old.pid and #self:workers() == self.count
    end, seconds or START_SECONDS, "the new binary")
    old:signal(SIGQUIT)
    if not wait_for_end(old, seconds or STOP_SECONDS) then
        old:signal(posix.SIGKILL)
        error("the old binary did not end; the log:\n" .. self:log(), 2)
    end
end

--- Lets it end gracefully, and waits for that: its exit code (true for a daemon), or nil and the
-- signal that ended it; nil, "timeout".
function Nginx:quit(seconds)
    self:signal(SIGQUIT)
    local ended, err = wait_for_end(self, seconds or STOP_SECONDS)
    if not ended then return nil, err end
    return ended.exit, ended.signal
end

--- The end. Calling it twice is harmless.
function Nginx:stop()
    self:signal(SIGTERM)
    if not wait_for_end(self, STOP_SECONDS) then
        self:signal(posix.SIGKILL) -- and the workers with it
        wait_for_end(self, STOP_SECONDS)
    end
    temp.remove(self.dir)
end

--- SIGKILL for one worker of ours.
function Nginx:kill_worker(pid)
    for _, list in ipairs({ self:workers(), self:old_workers() }) do
        for _, worker in ipairs(list) do
            if worker == pid then return posix.C.kill(pid, posix.SIGKILL) == 0 end
        end
    end
    error(("%d is no worker of this nginx"):format(pid), 2)
end

-- Talking to it -----------------------------------------------------------------------------------

--- A request: status, body, headers; nil, err. Options: timeout (10), headers, method, body.
function Nginx:get(path, options)
    return http.get(self, path, options)
end

--- A connection on which the request was sent; http.read(connection) takes the answer.
function Nginx:open(path, options)
    return assert(http.open(self, path, options))
end

function Nginx:log()
    return temp.read(self.dir .. "/error.log")
end

--- The lines of the error log at [error] and above, but those in which `expected` stands.
function Nginx:complaints(expected)
    local list = {}
    for line in self:log():gmatch("[^\n]+") do
        local level = line:match("^%S+ %S+ %[(%a+)%]")
        local counts = level == "error" or level == "crit" or level == "alert" or level == "emerg"
        if counts and not (expected and line:find(expected, 1, true)) then
            list[#list + 1] = line
        end
    end
    return list
end

-- A daemon's first process ends when the second has written its pid. false: it ended otherwise.
local function settle_daemon(self)
    local ended = self.process:poll()
    if ended and ended.exit == 0 then
        self.process, self.pid = nil, tonumber(temp.read(self.dir .. "/nginx.pid"))
    end
    return not ended or ended.exit == 0
end

local function is_up(self)
    return #self:workers() == self.count
        and http.get({ path = self.dir .. "/up.sock" }, "/", { timeout = 1 }) == 200
end

-- True when it is up; false when it ended (its port may have been taken).
local function launch(self, options)
    write_files(self, options)
    self.process = process.spawn({
        find().program, "-p", self.dir .. "/", "-c", "nginx.conf", "-e", "error.log",
        stdout = self.dir .. "/error.log", stderr = self.dir .. "/error.log",
    })
    self.pid = self.process.pid
    local deadline = clock.deadline(START_SECONDS)
    while true do
        if options.daemon and self.process then
            if not settle_daemon(self) then return false end
        elseif not self:is_alive() then
            return false
        elseif is_up(self) then
            return true
        end
        if clock.now() > deadline then
            self:signal(posix.SIGKILL)
            error("nginx did not answer in time; its log:\n" .. self:log(), 3)
        end
        clock.sleep(0.005)
    end
end

--- Starts an nginx; see above. It has .port .dir .pid.
function nginx.start(options)
    local possible, reason = nginx.is_possible()
    if not possible then error("could not start nginx: " .. reason, 2) end
    options = options or {}
    local self = setmetatable({
        dir = temp.dir(),
        has_master = options.master ~= false,
        count = options.master == false and 1 or options.workers or 1,
        library = absolute(options.build and options.build .. "/build/libredcache.so"
            or os.getenv("REDCACHE_LIBRARY") or nginx.root .. "/build/libredcache.so"),
    }, Nginx)
    local log
    for _ = 1, START_TRIES do
        self.port = socket.free_port()
        if launch(self, options) then return self end
        log = self:log()
        if not log:find("Address already in use", 1, true) then break end
        os.remove(self.dir .. "/error.log")
    end
    error("could not start nginx; its log:\n" .. log, 2)
end

return nginx
