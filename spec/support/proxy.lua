--- A TCP proxy between a client and a server, in a process of its own, that breaks the line in
-- every known way.
--
-- What:   start; stall, flow, refuse, lead, cut, delay, inject, rule, clear, chaos, calm, counts,
--         measure, stop. Each call returns when the proxy has done it.
-- Which:  connections can be told apart: which = "tracking" (has sent CLIENT TRACKING ON) or
--         "plain"; nil means all.
-- Errors: everything throws.
-- Not:    for bytes that are no RESP commands; such a connection is forwarded as it is, without
--         rules and counts.

local socket = require("spec.support.socket")
local worker = require("spec.support.worker")

local proxy = {}
local Proxy = {}
Proxy.__index = Proxy

local ANSWER_SECONDS = 10

--- Starts a proxy in front of {port=} or {path=} (a server of server.lua is one). The proxy has
-- .port.
function proxy.start(target)
    local self = setmetatable({ port = socket.free_port() }, Proxy)
    self.worker = worker.start({
        plain = true,
        main = function(one) return require("spec.support.proxy_main")(one) end,
        params = { port = self.port, target = { port = target.port, path = target.path } },
    })
    self.worker:event("listening", ANSWER_SECONDS)
    return self
end

local function order(self, name, fields)
    fields = fields or {}
    fields.order = name
    self.worker:send(fields)
    local answer = self.worker:event("answer", ANSWER_SECONDS)
    if answer.error then error("the proxy could not " .. name .. ": " .. answer.error, 3) end
    return answer.result
end

function Proxy:url(login)
    return ("redis://%s127.0.0.1:%d"):format(login and login .. "@" or "", self.port)
end

--- Half-open: connections stay, bytes stop. direction: "up" (to the server), "down" or "both" (the
-- default).
function Proxy:stall(direction, which)
    order(self, "stall", { direction = direction or "both", which = which })
end

--- Ends stall and refuse.
function Proxy:flow()
    order(self, "flow")
end

--- New connections are refused; those that exist stay (cut them).
function Proxy:refuse()
    order(self, "refuse")
end

--- Ends the connections there are: how = "reset" (the default) or "close". Returns how many.
function Proxy:cut(how, which)
    return order(self, "cut", { how = how or "reset", which = which })
end

--- New connections go to these servers, one after the other; those that exist stay.
function Proxy:lead(...)
    local targets = {}
    for i, target in ipairs({ ... }) do
        targets[i] = { port = target.port, path = target.path }
    end
    order(self, "lead", { targets = targets })
end

--- Every byte is late by so many seconds. direction as for stall.
function Proxy:delay(seconds, direction)
    order(self, "delay", { seconds = seconds, direction = direction or "both" })
end

--- Puts bytes between two messages of the stream from server to client. Returns into how many
-- connections.
function Proxy:inject(bytes, which)
    return order(self, "inject", { bytes = bytes, which = which })
end

--- Does something to commands that match, and returns the rule's number (counts().rules tells how
-- often it did). Which commands: command ("get", "client|tracking", "*"), argument (plain text in
-- any argument), which, skip (let so many pass first), times (then at most so many).
-- What happens, one of:
--   reply = "-OOM ...\r\n"            the server never sees the command; with execute = true it
--   does, and its answer
--                                     is replaced
--   cut = "before" | "after"          the connection breaks before the server gets the command, or
--   after it executed it swallow = true                    executed, and the answer never comes
--   late = seconds                    executed, and the answer comes late
function Proxy:rule(rule)
    return order(self, "rule", { rule = rule })
end

--- Removes all rules.
function Proxy:clear()
    order(self, "clear")
end

--- From now on the line is bad by chance, the same way for the same settings and bytes (chaos.lua
-- knows which there are). counts().chaos tells what has happened since, and how often.
function Proxy:chaos(settings)
    order(self, "chaos", { settings = settings })
end

--- Ends the chaos. What has gone half-open stays so.
function Proxy:calm()
    order(self, "chaos")
end

--- {bytes_up, bytes_down, accepted, open, replies, pushes, total, commands = {get = 1,
-- ["client|tracking"] = 1}, turns, rules, chaos}. A turn is one change from hearing to speaking on
-- a connection: a round trip.
function Proxy:counts()
    return order(self, "counts")
end

function Proxy:forget_counts()
    order(self, "forget_counts")
end

--- Runs fn; returns the counts of that time, then fn's results.
function Proxy:measure(fn)
    self:forget_counts()
    local function finish(...)
        return self:counts(), ...
    end
    return finish(fn())
end

function Proxy:stop()
    self.worker:kill()
end

return proxy
