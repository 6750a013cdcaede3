-- replay - what the server itself takes for a load: the commands that a client sent are sent again,
-- all behind each other on one connection, and no answer is looked at.
--
-- What:   record(redis, fn) runs fn, which fills database 1 and nothing else, under MONITOR; the
--         object has run() -> seconds, after which the database is as fn left it.
-- Errors: throw; run() where the server refused one of the commands, or other keys stand there.

local clock = require("spec.support.clock")
local frame = require("spec.support.frame")
local monitor = require("spec.support.monitor")
local posix = require("spec.support.posix")

local replay = {}
local Replay = {}
Replay.__index = Replay

local SECONDS = 60
local MARK = "the end of the replay"
-- What a client says to make itself known; and what the recording itself says.
local GREETINGS = { hello = true, client = true, select = true, ping = true, info = true,
    command = true, script = true, config = true, role = true, dbsize = true, flushdb = true }

---@param fn fun() loads into database 1, which is empty
function replay.record(redis, fn)
    local client = redis:client({ db = 1, timeout = SECONDS })
    client:call("FLUSHDB")
    local _, commands = monitor.wire(redis, fn, function(command)
        return command.db == 1 and not GREETINGS[command.name]
    end)
    local parts = {}
    for i, command in ipairs(commands) do parts[i] = frame.command(command.words) end
    parts[#parts + 1] = frame.command({ "ECHO", MARK })
    return setmetatable({ client = client, bytes = table.concat(parts), commands = #commands,
        keys = client:call("DBSIZE") }, Replay)
end

-- Sends and reads until the mark comes back: all answers.
local function exchange(connection, bytes)
    local answers, at, deadline = {}, 1, clock.deadline(SECONDS)
    local mark = ("$%d\r\n%s\r\n"):format(#MARK, MARK)
    repeat
        if clock.now() > deadline then error("the replay did not end in time", 0) end
        if at <= #bytes then
            at = at + assert(connection:send_some(bytes:sub(at, at + 65535)))
        end
        local more, err = connection:receive(0)
        if not more and err ~= "timeout" then error("the replay broke: " .. err, 0) end
        if more then
            answers[#answers + 1] = more
        else
            local events = at <= #bytes and posix.POLLIN + posix.POLLOUT or posix.POLLIN
            posix.poll({ [connection.fd] = events }, 1)
        end
    until more and (more:sub(-#mark) == mark
        or table.concat(answers, "", math.max(1, #answers - 1)):sub(-#mark) == mark)
    return table.concat(answers)
end

---Seconds of all of it.
function Replay:run()
    self.client:call("FLUSHDB")
    collectgarbage()
    local before = clock.now()
    local answers = exchange(self.client.connection, self.bytes)
    local seconds = clock.now() - before
    local refused = answers:match("^%-[^\r]*") or answers:match("\r\n(%-%u[^\r]*)")
    if refused then error("the replay was refused: " .. refused, 0) end
    local keys = self.client:call("DBSIZE")
    if keys ~= self.keys then
        error(("the replay left %d keys, the load %d"):format(keys, self.keys), 0)
    end
    return seconds
end

function Replay:close()
    self.client:call("FLUSHDB")
    self.client:close()
end

return replay
