--- The cluster bus of a cluster of cluster.lua, led through a process of its own, so that nodes can
-- be kept apart while clients still reach all of them.
--
-- What:   start, split, heal, stop. Each call returns when it is done.
-- Errors: everything throws.
-- Not:    replication, which uses the clients' port (cluster.lua cuts that).

local socket = require("spec.support.socket")
local worker = require("spec.support.worker")

local bus = {}
local Bus = {}
Bus.__index = Bus

local ANSWER_SECONDS = 10

--- Stands in front of bus ports: `ports` are the real ones, in order. The bus has .ports, which the
-- nodes announce instead.
function bus.start(ports)
    local self = setmetatable({ ports = {} }, Bus)
    local doors = {}
    for i, port in ipairs(ports) do
        self.ports[i] = socket.free_port()
        doors[i] = { port = self.ports[i], target = port }
    end
    self.worker = worker.start({
        plain = true, params = { doors = doors },
        main = function(one) return require("spec.support.bus_main")(one) end,
    })
    self.worker:event("listening", ANSWER_SECONDS)
    return self
end

local function order(self, message)
    self.worker:send(message)
    self.worker:event("done_with_it", ANSWER_SECONDS)
end

--- Nodes of different groups no longer hear each other; connections stay, bytes stop. `ids` are the
-- nodes' ids in the order of the ports, `groups` their groups (any numbers).
function Bus:split(ids, groups)
    order(self, { ids = ids, groups = groups })
end

--- Bytes flow again, those that were held back first.
function Bus:heal()
    order(self, { ids = {}, groups = {} })
end

function Bus:stop()
    self.worker:kill()
end

return bus
