--- A master with replicas and the sentinels that watch it: real servers on loopback, and all
-- sentinels know all of it before start() returns.
--
-- What:   start; master, word, failover; kill, restart, pause, resume; wait_other, wait_settled;
--         stop. Nodes and sentinels are servers of server.lua.
-- Which:  options.program or REDCACHE_SERVER names the program.
-- Errors: everything throws. Every wait has a deadline.
-- Memory: all end with this process (process.lua), however it ends.

local clock = require("spec.support.clock")
local server = require("spec.support.server")
local socket = require("spec.support.socket")

local sentinel = { NAME = "mymaster" }
local Bed = {}
Bed.__index = Bed

local SETTLE_SECONDS, FAILOVER_SECONDS, ORDER_SECONDS = 60, 60, 6
local DOWN_MS, FAILOVER_MS = 500, 3000
-- By default a sentinel asks for the roles of its nodes every 10 s, and sees a change that late. In
-- a failover it asks every second, whatever it was told, and promotes only a replica that it has
-- heard of within 3 such periods (5 of PING where the master is down): shorter ones make it give a
-- failover up and try again 6 s later. A sentinel that has not heard of the failover turns the new
-- master back into a replica after 4 periods of publishing: so these are not as short as they
-- could be. Tilt, 30 s of doing nothing, comes when a busy machine gives no processor for 2 s.
local QUICK = {
    "INFO-PERIOD", 500, "PING-PERIOD", 300, "ASK-PERIOD", 100, "PUBLISH-PERIOD", 500,
    "TILT-TRIGGER", 60000,
}

-- Where the set talks to it: the bed itself talks to .port.
local function port_of(one)
    return one.tls_port or one.port
end

local function tls_lines(files, port)
    return {
        "tls-port " .. port, "tls-replication yes", "tls-auth-clients no",
        "tls-cert-file " .. files.cert, "tls-key-file " .. files.key,
        "tls-ca-cert-file " .. files.ca,
    }
end

local function start_server(options, config, more)
    local tls_port = options.tls and socket.free_port()
    for _, line in ipairs(tls_port and tls_lines(options.tls, tls_port) or {}) do
        config[#config + 1] = line
    end
    local all = { program = options.program, config = config, rewrites = true }
    for name, value in pairs(more) do all[name] = value end
    local one = server.start(all)
    one.tls_port = tls_port
    return one
end

local function start_node(options, master)
    local config = {
        "repl-diskless-sync-delay 0", "repl-ping-replica-period 1",
        "masteruser " .. server.USER, "masterauth " .. server.PASSWORD,
    }
    if master then config[#config + 1] = "replicaof 127.0.0.1 " .. port_of(master) end
    for _, line in ipairs(options.config or {}) do config[#config + 1] = line end
    return start_server(options, config, { users = options.users })
end

local function start_sentinel(options, master)
    local config = {
        ("sentinel monitor %s 127.0.0.1 %d %d"):format(sentinel.NAME, port_of(master),
            math.floor((options.sentinels or 3) / 2) + 1),
        ("sentinel down-after-milliseconds %s %d"):format(sentinel.NAME,
            options.down_ms or DOWN_MS),
        ("sentinel failover-timeout %s %d"):format(sentinel.NAME, FAILOVER_MS),
        ("sentinel auth-user %s %s"):format(sentinel.NAME, server.USER),
        ("sentinel auth-pass %s %s"):format(sentinel.NAME, server.PASSWORD),
        "sentinel sentinel-user " .. server.USER, "sentinel sentinel-pass " .. server.PASSWORD,
    }
    local one = start_server(options, config, {
        arguments = { "--sentinel" }, users = options.sentinel_users,
    })
    if options.quick ~= false then one:call("SENTINEL", "DEBUG", unpack(QUICK)) end
    return one
end

--- Starts it all. Options: replicas (2), sentinels (3), program, down_ms
-- (down-after-milliseconds, 500), quick (true; false: sentinels look at roles every 10 s, as they
-- do by default), config (further lines for every node), users and sentinel_users (ACL lines, as of
-- server.lua, for the nodes and for the sentinels; the set itself logs in as the bed's user), tls
-- (what certificates.make returns: all of them talk TLS to each other, at .tls_port). .nodes holds
-- the first master, then the replicas; .sentinels the sentinels.
function sentinel.start(options)
    options = options or {}
    local self = setmetatable({ nodes = {}, sentinels = {}, away = {} }, Bed)
    self.nodes[1] = start_node(options)
    for i = 1, options.replicas or 2 do self.nodes[i + 1] = start_node(options, self.nodes[1]) end
    for i = 1, options.sentinels or 3 do
        self.sentinels[i] = start_sentinel(options, self.nodes[1])
    end
    self:wait_settled(self.nodes[1])
    return self
end

--- The end of all of it. Calling it twice is harmless.
function Bed:stop()
    for _, one in ipairs(self.sentinels) do one:stop() end
    for _, node in ipairs(self.nodes) do node:stop() end
end

--- redis+sentinel://127.0.0.1:port,.../mymaster; rediss+sentinel:// where they talk TLS.
function Bed:url()
    local addresses = {}
    for i, one in ipairs(self.sentinels) do addresses[i] = "127.0.0.1:" .. port_of(one) end
    return ("%s+sentinel://%s/%s"):format(self.sentinels[1].tls_port and "rediss" or "redis",
        table.concat(addresses, ","), sentinel.NAME)
end

-- ---- What is said.

local function present(self, list)
    local here = {}
    for _, one in ipairs(list) do
        if not self.away[one] then here[#here + 1] = one end
    end
    return here
end

--- The node that one sentinel takes for the master.
function Bed:word(one)
    local address = one:call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.NAME)
    for _, node in ipairs(self.nodes) do
        if port_of(node) == tonumber(address[2]) then return node end
    end
end

--- The node that more than half of all sentinels take for the master; nil: there is none.
function Bed:master()
    local votes = {}
    for _, one in ipairs(present(self, self.sentinels)) do
        local node = self:word(one)
        votes[node] = (votes[node] or 0) + 1
        if votes[node] > #self.sentinels / 2 then return node end
    end
end

--- Waits until a majority names another master than `node`; that one.
function Bed:wait_other(node)
    return clock.wait_until(function()
        local master = self:master()
        return master ~= node and master
    end, FAILOVER_SECONDS, "another master")
end

-- True when `one` knows the other sentinels and all replicas, and holds none of them for down.
local function is_informed(self, one)
    local master = one:call("SENTINEL", "MASTER", sentinel.NAME)
    return master.flags == "master"
        and tonumber(master["num-other-sentinels"]) == #self.sentinels - 1
        and tonumber(master["num-slaves"]) >= #present(self, self.nodes) - 1
        and one:call("SENTINEL", "CKQUORUM", sentinel.NAME):match("^OK") ~= nil
end

local function is_settled(self, master)
    for _, one in ipairs(present(self, self.sentinels)) do
        if self:word(one) ~= master or not is_informed(self, one) then return false end
    end
    for _, node in ipairs(present(self, self.nodes)) do
        local info = node:info("replication")
        if node == master then
            if info.role ~= "master" then return false end
        elseif info.master_port ~= port_of(master) or info.master_link_status ~= "up" then
            return false
        end
    end
    return true
end

-- What each of them says, for the text of an error.
local function describe(self)
    local parts = {}
    for i, one in ipairs(present(self, self.sentinels)) do
        local seen = one:call("SENTINEL", "MASTER", sentinel.NAME)
        local _, quorum = pcall(one.call, one, "SENTINEL", "CKQUORUM", sentinel.NAME)
        parts[#parts + 1] = ("sentinel %d: %s %s, %s others, %s replicas, %s"):format(i, seen.port,
            seen.flags, seen["num-other-sentinels"], seen["num-slaves"], tostring(quorum))
    end
    for _, node in ipairs(present(self, self.nodes)) do
        local info = node:info("replication")
        parts[#parts + 1] = ("node %d: %s of %s, link %s"):format(node.port, info.role,
            info.master_port or "nobody", info.master_link_status or "none")
    end
    return table.concat(parts, "; ")
end

--- Waits until `master`, or whichever a majority names (nil), is the master for all that are
-- present, with every replica linked to it; returns it.
function Bed:wait_settled(master)
    local settled
    local ok, err = pcall(clock.wait_until, function()
        -- A sentinel answers some questions with an error while it is busy with a failover.
        local asked, is_so = pcall(function()
            settled = master or self:master()
            return settled and is_settled(self, settled)
        end)
        return asked and is_so
    end, SETTLE_SECONDS, "that the sentinels and nodes are of one mind")
    if ok then return settled end
    local told, text = pcall(describe, self)
    local wanted = master and (", %d as master"):format(port_of(master)) or ""
    error(err .. wanted .. (told and ": " .. text or ""), 2)
end

-- ---- Failures.

-- True when the sentinel has begun one; false when it cannot yet.
local function order_failover(one)
    local client = one:client()
    local ok, err = client:try("SENTINEL", "FAILOVER", sentinel.NAME)
    client:close()
    if not ok and not err:find("INPROG", 1, true) and not err:find("NOGOODSLAVE", 1, true) then
        error(err, 0)
    end
    return ok ~= nil
end

--- A planned failover, ordered at a sentinel. Returns the new master once a majority names it;
-- the old one may take itself for the master still (wait_settled).
function Bed:failover()
    local old, order_at = self:master(), 0
    return clock.wait_until(function()
        -- A sentinel gives it up where a busy machine is too slow for it.
        if clock.now() >= order_at and order_failover(present(self, self.sentinels)[1]) then
            order_at = clock.now() + ORDER_SECONDS
        end
        local node = self:master()
        return node ~= old and node
    end, FAILOVER_SECONDS, "the failover")
end

--- SIGKILL of a node or sentinel.
function Bed:kill(one)
    one:kill()
    self.away[one] = true
end

--- Starts it again, with the configuration it had written.
function Bed:restart(one)
    one:restart()
    self.away[one] = nil
end

--- SIGSTOP, SIGCONT.
function Bed:pause(one)
    one:pause()
    self.away[one] = true
end

function Bed:resume(one)
    one:resume()
    self.away[one] = nil
end

return sentinel
