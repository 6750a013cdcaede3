--- A scripted server: greets like Redis, then answers whatever the spec wants, garbage included.
--
-- What:   start, script, push, cut, requests, stop. HELLO, AUTH, SELECT, CLIENT, PING and COMMAND
--         are answered as Redis 7 does unless scripted; any other command with an error.
-- Errors: everything throws.

local socket = require("spec.support.socket")
local worker = require("spec.support.worker")

local fake = {}
local Fake = {}
Fake.__index = Fake

local ANSWER_SECONDS = 10

--- Starts a server. Options: replies (as of script), dribble (bytes per write). The server has
-- .port.
function fake.start(options)
    options = options or {}
    local self = setmetatable({ port = socket.free_port() }, Fake)
    self.worker = worker.start({
        plain = true,
        main = function(one) return require("spec.support.fake_main")(one) end,
        params = { port = self.port, dribble = options.dribble, replies = options.replies or {} },
    })
    self.worker:event("listening", ANSWER_SECONDS)
    return self
end

local function order(self, name, fields)
    fields = fields or {}
    fields.order = name
    self.worker:send(fields)
    return self.worker:event("answer", ANSWER_SECONDS).result
end

function Fake:url(login)
    return ("redis://%s127.0.0.1:%d"):format(login and login .. "@" or "", self.port)
end

--- Sets answers by command ("get", "client|tracking", "*" for all that have none). An answer is raw
-- bytes, in which $ARGS becomes the words of the request; a list of them (one each time, the last
-- for ever), false (no answer) or fake.CUT (the connection breaks).
function Fake:script(replies)
    order(self, "script", { replies = replies })
end

--- Raw bytes to all connections, now. Returns to how many.
function Fake:push(bytes)
    return order(self, "push", { bytes = bytes })
end

--- Resets all connections. Returns how many.
function Fake:cut()
    return order(self, "cut")
end

--- The commands that came so far, each a list of words.
function Fake:requests()
    return order(self, "requests")
end

function Fake:stop()
    self.worker:kill()
end

fake.CUT = "cut"

--- `depth` arrays of one element in each other, around one number.
function fake.nested(depth)
    return ("*1\r\n"):rep(depth) .. ":1\r\n"
end

return fake
