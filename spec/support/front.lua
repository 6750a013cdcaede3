--- What stands between a client and servers in many a house: HAProxy, stunnel, twemproxy, as real
-- programs on loopback.
--
-- What:   haproxy, stunnel, twemproxy; each starts one and gives {port =, url(), stop()}.
-- Env:    REDCACHE_HAPROXY, REDCACHE_STUNNEL, REDCACHE_TWEMPROXY name the programs
--         (script/servers brings them).
-- Errors: everything throws. Ended with this process (process.lua).

local clock = require("spec.support.clock")
local process = require("spec.support.process")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local front = {}
local Front = {}
Front.__index = Front

local START_SECONDS = 10

--- True when the program of that kind ("haproxy", ...) is named.
function front.has(kind)
    return (os.getenv("REDCACHE_" .. kind:upper()) or "") ~= ""
end

-- Starts it with a configuration, in which PORT stands for its port and DIR for its directory.
local function start(kind, text, arguments)
    local dir, port = temp.dir(), socket.free_port()
    local self = setmetatable({ port = port, dir = dir }, Front)
    local conf = temp.write(dir .. "/conf", (text:gsub("PORT", tostring(port)):gsub("DIR", dir)))
    local words = { os.getenv("REDCACHE_" .. kind:upper()), stdout = dir .. "/log",
        stderr = dir .. "/log" }
    for _, word in ipairs(arguments) do
        words[#words + 1] = word == "CONF" and conf or (word:gsub("DIR", dir))
    end
    self.process = process.spawn(words)
    clock.wait_until(function()
        if not self.process:is_alive() then
            error("it has ended: " .. temp.read(dir .. "/log"), 0)
        end
        local connection = socket.connect({ port = port }, 1)
        if connection then connection:close() end
        return connection ~= nil
    end, START_SECONDS, "the start of " .. kind)
    return self
end

--- HAProxy in front of servers, which get connections in turns. Options: idle ("30s": after so much
-- silence a connection is cut), checks ("40ms": so often it asks each for its role, and new
-- connections go to the one that is a master; those that exist stay).
function front.haproxy(servers, options)
    local idle = options and options.idle or "30s"
    local lines = {
        "defaults", "mode tcp", "timeout connect 2s", "timeout client " .. idle,
        "timeout server " .. idle, "listen redis", "bind 127.0.0.1:PORT", "balance roundrobin",
    }
    local checks = options and options.checks
    if checks then
        lines[#lines + 1] = "option tcp-check"
        lines[#lines + 1] = "tcp-check connect"
        lines[#lines + 1] = "tcp-check send info\\ replication\\r\\n"
        lines[#lines + 1] = "tcp-check expect string role:master"
        lines[#lines + 1] = "default-server fall 1 rise 1 check inter " .. checks
    end
    for i, one in ipairs(servers) do
        lines[#lines + 1] = ("server s%d 127.0.0.1:%d"):format(i, one.port)
    end
    return start("haproxy", table.concat(lines, "\n") .. "\n", { "-db", "-f", "CONF" })
end

--- stunnel, which gives a server TLS. `files` as of certificates.make.
function front.stunnel(server, files)
    return start("stunnel", ([[
foreground = yes
pid =
[redis]
accept = 127.0.0.1:PORT
connect = 127.0.0.1:%d
cert = %s
key = %s
]]):format(server.port, files.cert, files.key), { "CONF" })
end

--- twemproxy, which spreads keys over servers.
function front.twemproxy(servers)
    local lines = {
        "redis:", "  listen: 127.0.0.1:PORT", "  redis: true", "  distribution: ketama",
        "  hash: fnv1a_64", "  servers:",
    }
    for i, one in ipairs(servers) do
        lines[#lines + 1] = ("   - 127.0.0.1:%d:1 s%d"):format(one.port, i)
    end
    return start("twemproxy", table.concat(lines, "\n") .. "\n", {
        "-c", "CONF", "-o", "DIR/log", "-s", tostring(socket.free_port()),
    })
end

--- redis://127.0.0.1:port; with "rediss" that.
function Front:url(scheme)
    return ("%s://127.0.0.1:%d"):format(scheme or "redis", self.port)
end

function Front:stop()
    self.process:kill()
    temp.remove(self.dir)
end

return front
