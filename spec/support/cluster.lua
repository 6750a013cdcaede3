--- A cluster of real servers on loopback: masters and their replicas, every slot served, all nodes
-- of one mind before start() returns.
--
-- What:   start; slot, tag; owner, map, agree, wait_owner; move, and its steps; failover; kill,
--         restart, pause, resume, split, heal; stop. A node is a server of server.lua, with .id
--         and .index.
-- Which:  options.program or REDCACHE_SERVER names the program; Redis 7.0 or newer, and its kin.
-- Errors: everything throws. Every wait has a deadline.
-- Memory: nodes end with this process (process.lua), however it ends.
-- Not:    split() keeps nodes apart, clients still reach all of them.

local bit = require("bit")

local bus = require("spec.support.bus")
local clock = require("spec.support.clock")
local resp = require("spec.support.resp")
local server = require("spec.support.server")
local socket = require("spec.support.socket")

local cluster = { SLOTS = 16384 }
local Cluster = {}
Cluster.__index = Cluster

local START_TRIES = 3
local JOIN_SECONDS, AGREE_SECONDS, MOVE_SECONDS = 20, 20, 60
local FAILOVER_SECONDS = 6
local NODE_TIMEOUT_MS = 1000
local MIGRATE_MS, KEYS_AT_ONCE = 5000, 100
local LOG_LINES = 20 -- of each node, in an error

-- ---- Slots.

local function crc16(bytes)
    local crc = 0
    for i = 1, #bytes do
        crc = bit.bxor(crc, bit.lshift(bytes:byte(i), 8))
        for _ = 1, 8 do
            local shifted = bit.lshift(crc, 1)
            crc = bit.band(crc, 0x8000) ~= 0 and bit.bxor(shifted, 0x1021) or shifted
        end
        crc = bit.band(crc, 0xffff)
    end
    return crc
end

--- The slot of a key, its hash tag minded.
function cluster.slot(key)
    return crc16(key:match("^[^{]*{([^}]+)}") or key) % cluster.SLOTS
end

local tags

--- A hash tag of that slot: "{" .. cluster.tag(0) .. "}:name" is a key of slot 0.
function cluster.tag(slot)
    local count, number = 0, 0
    if not tags then
        tags = {}
        while count < cluster.SLOTS do
            local tag = ("%x"):format(number)
            local its_slot = cluster.slot(tag)
            if not tags[its_slot] then tags[its_slot], count = tag, count + 1 end
            number = number + 1
        end
    end
    return tags[slot]
end

-- ---- Starting.

local function start_node(options, bus_port, announced)
    local config = {
        "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-port " .. bus_port,
        "cluster-node-timeout " .. (options.timeout_ms or NODE_TIMEOUT_MS),
        "cluster-require-full-coverage " .. (options.full_coverage == false and "no" or "yes"),
        "cluster-allow-replica-migration no", "cluster-replica-validity-factor 0",
        -- A map names a replica once it has been sent something.
        "repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "enable-debug-command yes",
    }
    if announced then config[#config + 1] = "cluster-announce-bus-port " .. announced end
    local tls, tls_port = options.tls, nil
    if tls then
        tls_port = socket.free_port()
        for _, line in ipairs({ "port " .. tls_port, "cert-file " .. tls.cert,
            "key-file " .. tls.key, "ca-cert-file " .. tls.ca, "auth-clients no", "cluster yes",
        }) do
            config[#config + 1] = "tls-" .. line
        end
    end
    for _, line in ipairs(options.config or {}) do config[#config + 1] = line end
    local node = server.start({ program = options.program, config = config })
    node.bus_port, node.tls_port = announced or bus_port, tls_port
    node.id = node:call("CLUSTER", "MYID")
    return node
end

local function start_nodes(self, options, count)
    local ports = {}
    for i = 1, count do ports[i] = socket.free_port() end
    self.bus = options.partitions and bus.start(ports)
    for i, port in ipairs(ports) do
        self.nodes[i] = start_node(options, port, self.bus and self.bus.ports[i])
        self.nodes[i].index = i
    end
end

-- Ports that were free are sometimes taken before a node has them.
local function keep_starting(self, options, count)
    local ok, cause
    for _ = 1, START_TRIES do
        ok, cause = pcall(start_nodes, self, options, count)
        if ok then return end
        self:stop()
        self.nodes = {}
    end
    error(cause, 0)
end

-- Everybody meets everybody: faster than to wait for the word to spread.
local function join(self)
    for i, node in ipairs(self.nodes) do node:call("CLUSTER", "SET-CONFIG-EPOCH", i) end
    for i, node in ipairs(self.nodes) do
        for j = i + 1, #self.nodes do
            local other = self.nodes[j]
            node:call("CLUSTER", "MEET", "127.0.0.1", other.tls_port or other.port, other.bus_port)
        end
    end
    clock.wait_until(function()
        for _, node in ipairs(self.nodes) do
            local text = node:call("CLUSTER", "NODES")
            local _, lines = text:gsub("\n", "\n")
            local _, connected = text:gsub(" connected", "")
            if lines ~= #self.nodes or connected ~= lines or text:find("handshake", 1, true) then
                return false
            end
        end
        return true
    end, JOIN_SECONDS, "the meeting of the nodes")
end

local function give_slots(self, masters)
    for i = 1, masters do
        local first = math.floor((i - 1) * cluster.SLOTS / masters)
        local last = math.floor(i * cluster.SLOTS / masters) - 1
        self.nodes[i]:call("CLUSTER", "ADDSLOTSRANGE", first, last)
    end
end

local function give_masters(self, masters)
    for i = masters + 1, #self.nodes do
        local master = self.nodes[(i - 1) % masters + 1]
        self.nodes[i]:call("CLUSTER", "REPLICATE", master.id)
    end
end

--- Starts a cluster. Options: masters (3); replicas of each (1); program; timeout_ms
-- (cluster-node-timeout, 1000); full_coverage (true: a slot without a master stops all);
-- partitions (false: split() is wanted); tls (certificates.lua: nodes have a .tls_port, too, and
-- speak TLS with each other); config (further lines for every node). .nodes holds the masters, then
-- the replicas: node i + masters is a replica of node i. .version: "redis 7.0.15", "valkey 9.1.2".
function cluster.start(options)
    options = options or {}
    local masters = options.masters or 3
    local self = setmetatable({ nodes = {}, away = {}, masters = masters }, Cluster)
    keep_starting(self, options, masters * (1 + (options.replicas or 1)))
    join(self)
    give_slots(self, masters)
    give_masters(self, masters)
    self:agree(JOIN_SECONDS)
    for i = masters + 1, #self.nodes do self:wait_replica(self.nodes[i]) end
    self:wait_named()
    local info = self.nodes[1]:info("server")
    self.version = info.valkey_version and "valkey " .. info.valkey_version
        or "redis " .. info.redis_version
    return self
end

--- The end of all of it. Calling it twice is harmless.
function Cluster:stop()
    for _, node in ipairs(self.nodes) do node:stop() end
    if self.bus then self.bus:stop() end
end

--- redis://127.0.0.1:port,127.0.0.1:port,...; with TLS rediss://host:port,...
function Cluster:url(host)
    local addresses, tls = {}, self.nodes[1].tls_port ~= nil
    for i, node in ipairs(self.nodes) do
        addresses[i] = (host or "127.0.0.1") .. ":" .. (node.tls_port or node.port)
    end
    return (tls and "rediss://" or "redis://") .. table.concat(addresses, ",")
end

-- ---- What the nodes say.

--- The node of that id.
function Cluster:node(id)
    for _, node in ipairs(self.nodes) do
        if node.id == id then return node end
    end
end

--- Nodes that run, are not stopped and not kept apart.
function Cluster:present()
    local list = {}
    for _, node in ipairs(self.nodes) do
        if not self.away[node] then list[#list + 1] = node end
    end
    return list
end

--- A node's map: {{first =, last =, id =, replicas = {id, ...}}, ...}, in order, ranges of one
-- master joined.
function Cluster:map(node)
    local ranges = {}
    for _, entry in ipairs((node or self:present()[1]):call("CLUSTER", "SLOTS")) do
        local range = { first = entry[1], last = entry[2], id = entry[3][3], replicas = {} }
        for i = 4, #entry do range.replicas[i - 3] = entry[i][3] end
        ranges[#ranges + 1] = range
    end
    table.sort(ranges, function(a, b) return a.first < b.first end)
    local joined = {}
    for _, range in ipairs(ranges) do
        local before = joined[#joined]
        if before and before.id == range.id and before.last + 1 == range.first then
            before.last = range.last
        else
            joined[#joined + 1] = range
        end
    end
    return joined
end

--- The node that owns a slot or a key, in the eyes of `witness` (any that is present); nil: nobody.
function Cluster:owner(slot, witness)
    if type(slot) == "string" then slot = cluster.slot(slot) end
    for _, range in ipairs(self:map(witness)) do
        if slot >= range.first and slot <= range.last then return self:node(range.id) end
    end
end

local function as_text(map)
    local parts = {}
    for i, range in ipairs(map) do parts[i] = range.first .. "-" .. range.last .. range.id end
    return table.concat(parts, " ")
end

-- What a node says of its cluster, as a text that is the same at all nodes that agree; nil while it
-- holds one that is present for failed. Epochs belong to it: of two masters that take the same
-- epoch one takes another, and its word about all its slots is the last.
local function opinion(self, node)
    for id, flags in node:call("CLUSTER", "NODES"):gmatch("(%x+) %S+ (%S+)[^\n]*\n") do
        local other = self:node(id)
        if other and not self.away[other] and flags:find("fail", 1, true) then return nil end
    end
    local info = node:call("CLUSTER", "INFO")
    if not info:find("cluster_state:ok", 1, true) then return nil end
    return info:match("cluster_current_epoch:%d+") .. " " .. as_text(self:map(node))
end

--- True when all nodes that are present have the same map and call the cluster ok.
function Cluster:is_agreed()
    local first
    for _, node in ipairs(self:present()) do
        local text = opinion(self, node)
        first = first or text
        if not text or text ~= first then return false end
    end
    return true
end

-- What a node is in replication: "master, offset 28, replicas: 127.0.0.1:7003 at 28", "replica of
-- 127.0.0.1:7000, connected, offset 28". A replica without an offset is at -1, or at 0.
local function role_text(node)
    local role = node:call("ROLE")
    if role[1] ~= "master" then
        return ("replica of %s:%s, %s, offset %s"):format(role[2], role[3], role[4], role[5])
    end
    local replicas = {}
    for i, each in ipairs(role[3]) do
        replicas[i] = ("%s:%s at %s"):format(each[1], each[2], each[3])
    end
    return ("master, offset %s, replicas: %s"):format(role[2], table.concat(replicas, ", "))
end

-- The newest lines of a node's log: what befell it, and when.
local function last_lines(node)
    local lines = {}
    for line in node:log():gmatch("[^\n]+") do lines[#lines + 1] = line end
    return table.concat(lines, "\n", math.max(1, #lines - LOG_LINES + 1))
end

-- Waits for a condition; the error tells what each node sees, is, and has written down.
local function wait(self, condition, seconds, what)
    local ok, result = pcall(clock.wait_until, condition, seconds, what)
    if ok then return result end
    local parts = { tostring(result) }
    for _, node in ipairs(self:present()) do
        local seen, text = pcall(node.call, node, "CLUSTER", "NODES")
        local _, info = pcall(node.call, node, "CLUSTER", "INFO")
        local _, role = pcall(role_text, node)
        local state = seen and info:match("cluster_state:%w+") or "?"
        parts[#parts + 1] = ("node %d, %s, %s:\n%s\n%s\n"):format(node.index, state, role, text,
            last_lines(node))
    end
    error(table.concat(parts, "\n"), 0)
end

function Cluster:agree(seconds)
    wait(self, function() return self:is_agreed() end, seconds or AGREE_SECONDS,
        "the nodes' agreement")
end

--- Waits until all that are present take `node` for the owner of a slot.
function Cluster:wait_owner(slot, node)
    wait(self, function()
        return self:is_agreed() and self:owner(slot) == node
    end, AGREE_SECONDS, "the new owner of a slot")
end

--- Waits until a replica has what its master has.
function Cluster:wait_replica(replica)
    wait(self, function()
        local info = replica:info("replication")
        return info.role == "slave" and info.master_link_status == "up"
            and info.master_sync_in_progress == 0
    end, AGREE_SECONDS, "the replica's link to its master")
end

-- Who is in nobody's place in a node's map, as a text; nil: nobody.
local function unnamed(self, node)
    local named, missing = {}, {}
    for _, range in ipairs(self:map(node)) do
        named[range.id] = true
        for _, id in ipairs(range.replicas) do named[id] = true end
    end
    for _, other in ipairs(self:present()) do
        if not named[other.id] then missing[#missing + 1] = "node " .. other.index end
    end
    if #missing == 0 then return nil end
    return ("the map of node %d leaves out %s"):format(node.index, table.concat(missing, ", "))
end

--- Waits until the map of each node that is present names all that are. A map leaves a replica out
-- whose offset is 0 for its node: one that has not been sent its master's data since it started, or
-- that has it by SYNC, which brings no offset (server.lua, accept_replicas).
function Cluster:wait_named(seconds)
    local left_out
    local ok, err = pcall(wait, self, function()
        left_out = nil
        for _, node in ipairs(self:present()) do left_out = left_out or unnamed(self, node) end
        return not left_out
    end, seconds or JOIN_SECONDS, "that every map names the replicas")
    if not ok then error(("%s\n%s"):format(left_out or "no map was had", err), 0) end
end

function Cluster:is_master(node) -- luacheck: ignore self
    return node:call("ROLE")[1] == "master"
end

--- True when the node says that slots are its own.
function Cluster:owns_slots(node)
    for _, range in ipairs(self:map(node)) do
        if range.id == node.id then return true end
    end
    return false
end

-- ---- Moving slots.

-- Valkey asks its replicas first, and refuses where it has not heard of them for a while, as on a
-- machine that has no processor for them.
local function set_slot(node, ...)
    local words = { "CLUSTER", "SETSLOT", ... }
    clock.wait_until(function()
        local ok, cause = pcall(node.call, node, unpack(words))
        if not ok and not tostring(cause):find("NOREPLICAS", 1, true) then error(cause, 0) end
        return ok
    end, MOVE_SECONDS, "CLUSTER SETSLOT")
end

--- The steps of "migrate", for those who want to look between them. A slot that is open answers ASK
-- at `from` for keys it does not have, TRYAGAIN for commands whose keys are in both.
function Cluster:open_slot(slot, from, to) -- luacheck: ignore self
    set_slot(to, slot, "IMPORTING", from.id)
    set_slot(from, slot, "MIGRATING", to.id)
end

--- Moves at most `limit` keys (all) of a database (0); returns how many.
function Cluster:move_keys(slot, from, to, limit, db) -- luacheck: ignore self
    local moved, client = 0, from:client({ db = db ~= 0 and db })
    repeat
        local count = math.min(KEYS_AT_ONCE, (limit or math.huge) - moved)
        local keys = count > 0 and client:call("CLUSTER", "GETKEYSINSLOT", slot, count) or {}
        if #keys > 0 then
            client:call("MIGRATE", "127.0.0.1", to.port, "", db or 0, MIGRATE_MS, "AUTH2", "bed",
                "bed", "KEYS", unpack(keys))
        end
        moved = moved + #keys
    until #keys == 0
    client:close()
    return moved
end

--- The new owner is told first, as redis-cli does: a master that knows more is believed.
function Cluster:close_slot(slot, from, to)
    set_slot(to, slot, "NODE", to.id)
    set_slot(from, slot, "NODE", to.id)
    for _, node in ipairs(self:present()) do
        if node ~= from and node ~= to and self:is_master(node) then
            set_slot(node, slot, "NODE", to.id)
        end
    end
end

local ways = {}

--- What redis-cli does: slot by slot, key by key.
function ways.migrate(self, first, last, from, to)
    for slot = first, last do
        self:open_slot(slot, from, to)
        self:move_keys(slot, from, to)
        self:close_slot(slot, from, to)
    end
end

--- The new owner says it is; everybody else hears it on the bus, and the old owner throws its keys
-- away.
function ways.keyless(_, first, last, from, to)
    for slot = first, last do
        set_slot(to, slot, "IMPORTING", from.id)
        set_slot(to, slot, "NODE", to.id)
    end
end

-- Fields of an answer that is a map, or a list of names and values.
local function fields_of(answer)
    if answer[1] == nil then return answer end
    local fields = {}
    for i = 1, #answer, 2 do fields[answer[i]] = answer[i + 1] end
    return fields
end

local function wait_for_migration(node, question, name, done)
    clock.wait_until(function()
        local newest = node:call(unpack(question))[1]
        local state = newest and fields_of(newest)[name]
        if state == "failed" or state == "cancelled" or state == "canceled" then
            error("the migration has " .. state .. ": " .. tostring(fields_of(newest).message), 0)
        end
        return state == done
    end, MOVE_SECONDS, "the end of the migration")
end

--- All of it at once: Valkey 9 and newer are told at the source, Redis 8.4 and newer at the target.
function ways.atomic(_, first, last, from, to)
    if from:info("server").valkey_version then
        from:call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", to.id)
        wait_for_migration(from, { "CLUSTER", "GETSLOTMIGRATIONS" }, "state", "success")
    else
        local task = to:call("CLUSTER", "MIGRATION", "IMPORT", first, last)
        wait_for_migration(to, { "CLUSTER", "MIGRATION", "STATUS", "ID", task }, "state",
            "completed")
    end
end

--- Moves slots first..last from one master to another: how = "migrate" (the default), "atomic" or
-- "keyless" (keys are lost). Waits until all agree before it begins (opinion() tells why), and
-- returns when the new owner is one; others may learn it later (agree).
function Cluster:move(first, last, from, to, how)
    self:agree()
    ways[how or "migrate"](self, first, last, from, to)
    wait(self, function()
        return self:owner(first, to) == to and self:owner(last, to) == to
    end, AGREE_SECONDS, "the move")
end

--- True where move() can do it "atomic".
function Cluster:is_atomic()
    local name = self.nodes[1]:info("server").valkey_version and "migrateslots" or "migration"
    return self.nodes[1]:call("COMMAND", "INFO", "cluster|" .. name)[1] ~= resp.NULL
end

-- ---- Failures.

--- Makes a replica its master's successor: how = nil (with the master's help), "force" or
-- "takeover". Waits until all agree before it begins: a slot that its master was given a moment
-- ago, and which the replica has not heard of, would be the old master's for ever, or nobody's.
-- Returns when it is one and all that are present know it.
function Cluster:failover(replica, how)
    self:agree()
    local ask_at = 0
    wait(self, function()
        -- A planned one is given up after 5 s, as when the bus loses a message of it.
        if clock.now() >= ask_at and not self:is_master(replica) then
            replica:call("CLUSTER", "FAILOVER", how and how:upper())
            ask_at = clock.now() + FAILOVER_SECONDS
        end
        return self:is_master(replica)
    end, AGREE_SECONDS, "the failover")
    self:agree()
end

--- SIGKILL. Others are not waited for: agree() does.
function Cluster:kill(node)
    node:kill()
    self.away[node] = true
end

--- Starts a killed node again, empty, with the map it had.
function Cluster:restart(node)
    os.remove(node.dir .. "/dump.rdb") -- what a replica has been sent, some time ago
    node:restart()
    self.away[node] = nil
end

--- SIGSTOP, SIGCONT.
function Cluster:pause(node)
    node:pause()
    self.away[node] = true
end

function Cluster:resume(node)
    node:resume()
    self.away[node] = nil
end

--- Keeps these nodes apart from all others: on the bus, and in replication. Clients see both sides.
function Cluster:split(nodes)
    local ids, groups, apart = {}, {}, {}
    for _, node in ipairs(nodes) do apart[node], self.away[node] = true, true end
    for i, node in ipairs(self.nodes) do ids[i], groups[i] = node.id, apart[node] and 2 or 1 end
    assert(self.bus, "split() wants a cluster with option `partitions`"):split(ids, groups)
    for _, node in ipairs(self.nodes) do
        if node:is_alive() then
            node:refuse_replicas()
            node:call("CLIENT", "KILL", "TYPE", "replica")
        end
    end
end

--- Ends split().
function Cluster:heal()
    self.bus:heal()
    for _, node in ipairs(self.nodes) do
        if node:is_alive() then
            node:accept_replicas()
            self.away[node] = nil
        end
    end
end

return cluster
