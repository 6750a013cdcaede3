--- A Redis of the spec's own: free port, unix socket, loopback only, nothing on disk; gone when the
-- test process is.
--
-- What:   start, stop, pause, resume, kill, restart; refuse_replicas, accept_replicas; info,
--         commandstats, count.
-- Errors: everything throws: without its server a spec has nothing to say.
-- Env:    REDCACHE_SERVER names the program (redis-server).
-- Not:    clusters (cluster.lua), sentinels (sentinel.lua); replicas (through `config`).

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local resp = require("spec.support.resp")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local server = {}
local Server = {}
Server.__index = Server

local START_SECONDS = 10
local START_TRIES = 5
-- The bed's own user, so that a spec may lock the default user out.
local BED_USER, BED_PASSWORD = "bed", "bed"
server.USER, server.PASSWORD = BED_USER, BED_PASSWORD

local function config_lines(self)
    local lines = {
        "bind 127.0.0." .. self.loopback, "port " .. self.port, "unixsocket " .. self.path,
        "dir " .. self.dir, 'save ""', "appendonly no", "daemonize no",
        "logfile " .. self.dir .. "/log",
        ("user %s on >%s allkeys allchannels allcommands"):format(BED_USER, BED_PASSWORD),
    }
    if self.password then lines[#lines + 1] = "requirepass " .. self.password end
    for _, user in ipairs(self.users) do lines[#lines + 1] = "user " .. user end
    for _, line in ipairs(self.config) do lines[#lines + 1] = line end
    return table.concat(lines, "\n") .. "\n"
end

function Server:log()
    return temp.read(self.dir .. "/log")
end

-- PONG on the unix socket: that path is in our own directory, so nobody else's server can answer.
local function answers(self)
    local ok, pong = pcall(function()
        local client = resp.connect({ path = self.path }, {
            user = BED_USER, password = BED_PASSWORD, timeout = 1,
        })
        local answer = client:call("PING")
        client:close()
        return answer
    end)
    return ok and pong == "PONG"
end

-- True when the server is up; false when it ended (its port may have been taken).
local function launch(self)
    local conf = self.dir .. "/redis.conf"
    if not (self.rewrites and self.pid) then temp.write(conf, config_lines(self)) end
    local words = {
        self.program, conf, stdout = self.dir .. "/log", stderr = self.dir .. "/log",
        -- A sanitizer that is preloaded for redcache is none of the server's business.
        env = { LD_PRELOAD = false },
    }
    for _, word in ipairs(self.arguments) do words[#words + 1] = word end
    self.process = process.spawn(words)
    self.pid = self.process.pid
    local deadline = clock.deadline(START_SECONDS)
    while not answers(self) do
        if not self.process:is_alive() then return false end
        if clock.now() > deadline then
            self.process:kill()
            error("the server did not answer in time; its log:\n" .. self:log(), 3)
        end
        clock.sleep(0.002)
    end
    return true
end

--- Starts a server. Options: config (extra lines), password (requirepass), users (ACL lines: "ann
-- on >pw ~* +@all"), port, loopback (1; 2: it listens on 127.0.0.2, and so on), program, arguments
-- (behind the configuration's path), rewrites (it writes its configuration itself, and starts again
-- with that). The server has .port .path .pid .dir .loopback.
function server.start(options)
    options = options or {}
    -- A sentinel that promises something writes it down first and waits for the disk, as does a
    -- node of a cluster; it answers nobody meanwhile, and others take it for dead.
    local dir = temp.memory_dir()
    local self = setmetatable({
        dir = dir, path = dir .. "/redis.sock", password = options.password,
        users = options.users or {}, config = options.config or {},
        arguments = options.arguments or {}, rewrites = options.rewrites,
        loopback = options.loopback or 1,
        program = options.program or os.getenv("REDCACHE_SERVER") or "redis-server",
    }, Server)
    for _ = 1, options.port and 1 or START_TRIES do
        self.port = options.port or socket.free_port()
        if launch(self) then return self end
    end
    error("could not start a server; its log:\n" .. self:log(), 2)
end

--- redis://127.0.0.1:port. `login` is "user:password" or ":password".
function Server:url(login)
    return ("redis://%s127.0.0.1:%d"):format(login and login .. "@" or "", self.port)
end

--- unix:///path. `login` as above.
function Server:unix_url(login)
    return ("unix://%s%s"):format(login and login .. "@" or "", self.path)
end

--- A new foreign client that may do everything. Options as of resp.connect.
function Server:client(options)
    options = options or {}
    local login = { user = BED_USER, password = BED_PASSWORD }
    return resp.connect(self, setmetatable({}, {
        __index = function(_, name)
            return options[name] == nil and login[name] or options[name]
        end,
    }))
end

local function forget_client(self)
    if self.bed then self.bed:close() end
    self.bed = nil
end

-- The answer that did not come in time may still come, and is none to the next command.
local function pass(self, ok, ...)
    if ok then return ... end
    if tostring((...)):find("timeout", 1, true) then forget_client(self) end
    error((...), 2) -- behind a tail call: where call() was called
end

--- One command through the bed's own client; throws at an error answer. Sentinels and CLIENT KILL
-- end its connection, as does an answer that does not come in time: then it has a new one.
function Server:call(...)
    if self.bed and self.bed:is_ended() then forget_client(self) end
    if not self.bed then self.bed = self:client() end
    return pass(self, pcall(self.bed.call, self.bed, ...))
end

function Server:is_alive()
    return self.process:is_alive()
end

--- SIGKILL: connections break, data is gone.
function Server:kill()
    forget_client(self)
    self.process:kill()
end

--- Starts it again, empty, on the same port and path; kills it first when it still runs.
function Server:restart()
    self:kill()
    os.remove(self.path)
    clock.wait_until(function()
        return launch(self)
    end, START_SECONDS, "the restart on the same port")
end

--- The end. Calling it twice is harmless.
function Server:stop()
    self:kill()
    temp.remove(self.dir)
end

--- SIGSTOP: connections stay, nothing is answered.
function Server:pause()
    self.process:signal(posix.SIGSTOP)
end

function Server:resume()
    self.process:signal(posix.SIGCONT)
end

--- No replica that logs in as `user` ("default") attaches to it any more; those that have stay,
-- until their connections end.
function Server:refuse_replicas(user)
    self:call("ACL", "SETUSER", user or "default", "-psync", "-sync")
end

--- Ends refuse_replicas(). SYNC stays refused. A replica that is refused a PSYNC tries SYNC next,
-- all of it again and again without a pause. One that was granted SYNC has no offset: until that
-- connection ends no map of a cluster names it and WAIT does not count it, and behind it its data
-- may be wrong (findings/sync-replica-applies-twice.sh).
function Server:accept_replicas(user)
    self:call("ACL", "SETUSER", user or "default", "+psync")
end

--- INFO as a table: numbers where they are numbers.
function Server:info(section)
    local result = {}
    for name, value in self:call("INFO", section):gmatch("([^\r\n#:]+):([^\r\n]*)") do
        result[name] = tonumber(value) or value
    end
    return result
end

--- {get = {calls=, usec=, failed_calls=, ...}, ["client|tracking"] = ...}. Commands inside scripts
-- count here too.
function Server:commandstats()
    local result = {}
    for name, line in pairs(self:info("commandstats")) do
        local command = {}
        for field, value in line:gmatch("([%w_]+)=([^,]+)") do command[field] = tonumber(value) end
        result[name:match("^cmdstat_(.*)$")] = command
    end
    return result
end

--- Runs fn; returns how often each command was called meanwhile ({get = 1, pttl = 1}), and fn's
-- results. monitor.lua tells commands on the wire from those inside scripts.
function Server:count(fn)
    local before = self:commandstats()
    local function finish(...)
        local calls = {}
        for name, command in pairs(self:commandstats()) do
            local more = command.calls - (before[name] and before[name].calls or 0)
            if name == "info" then more = more - 1 end
            if more > 0 then calls[name] = more end
        end
        return calls, ...
    end
    return finish(fn())
end

--- Empties the server between two specs: data, scripts and statistics.
function Server:reset()
    self:call("FLUSHALL")
    self:call("SCRIPT", "FLUSH")
    self:call("CONFIG", "RESETSTAT")
end

return server
