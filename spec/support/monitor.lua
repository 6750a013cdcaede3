--- What really went over the wire: the server's own record of every command, scripts' inner
-- commands told apart.
--
-- INFO commandstats counts the commands inside a script like any other; MONITOR names their origin
-- "lua".

local clock = require("spec.support.clock")

local monitor = {}
local Monitor = {}
Monitor.__index = Monitor

local ESCAPES = { n = "\n", r = "\r", t = "\t", a = "\a", b = "\b" }

local function unquote(text)
    return (text:gsub("\\(.)(%x?%x?)", function(escape, hex)
        if escape == "x" then return string.char(tonumber(hex, 16)) end
        -- What follows only looks like hex digits.
        return (ESCAPES[escape] or escape) .. hex
    end))
end

-- A quoted word, its closing quote found by skipping escapes.
local function words_of(text)
    local words, at = {}, 1
    while true do
        local start = text:find('"', at, true)
        if not start then return words end
        local i = start + 1
        while text:sub(i, i) ~= '"' do i = i + (text:sub(i, i) == "\\" and 2 or 1) end
        words[#words + 1] = unquote(text:sub(start + 1, i - 1))
        at = i + 1
    end
end

local function parse(line)
    local at, db, origin, rest = line:match("^([%d.]+) %[(%d+) ([^%]]+)%] (.*)$")
    local words = words_of(rest)
    return {
        at = tonumber(at), db = tonumber(db), origin = origin, script = origin == "lua",
        name = words[1]:lower(), words = words,
    }
end

--- Starts watching a server of server.lua.
function monitor.start(server)
    server:call("PING") -- Connects the bed's own client, whose greeting is not part of the picture.
    local client = server:client()
    client:call("MONITOR")
    return setmetatable({ client = client, server = server }, Monitor)
end

--- Ends watching: every command that was executed before this call, in order, as
-- {name=, words=, origin=, script=, db=, at=}.
function Monitor:stop()
    local mark = "rcbed-mark-" .. tostring(clock.now())
    self.server:call("ECHO", mark)
    local commands = {}
    while true do
        local command = parse(self.client:read())
        if command.words[2] == mark then break end
        commands[#commands + 1] = command
    end
    self.client:close()
    return commands
end

--- Runs fn; returns what went over the wire meanwhile: {get = 2, evalsha = 1}, the list of
-- commands, fn's results. `only`, a function of a command, leaves out what it refuses.
function monitor.wire(server, fn, only)
    local watching = monitor.start(server)
    local function finish(ok, ...)
        local counts, list = { total = 0 }, {}
        for _, command in ipairs(watching:stop()) do
            if not command.script and (not only or only(command)) then
                counts[command.name] = (counts[command.name] or 0) + 1
                counts.total = counts.total + 1
                list[#list + 1] = command
            end
        end
        if not ok then error((...), 0) end
        return counts, list, ...
    end
    return finish(pcall(fn))
end

return monitor
