--- wrk: HTTP load from a process of its own, and what it saw.
--
-- What:   start, join, run; is_possible.
-- Errors: join throws when wrk did not end well.
-- Not:    requests made by chance: what wrk asks for, a chunk of the spec says.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local wrk = {}
local Wrk = {}
Wrk.__index = Wrk

-- wrk waits for its threads, and those for nothing: what it takes beyond its time is the machine's.
local END_SECONDS = 20

-- Runs inside wrk, once per thread and once for the end. `path` and `check` are chunks of the spec;
-- `n` counts the thread's requests from 1, `id` its threads from 1. With `once`, a connection that
-- was answered is left alone.
local SCRIPT = [[
local path = assert(loadstring(%q))
local check = %s and assert(loadstring(%q))
local once = %s
local threads = {}
bad, example = 0, ""

function setup(thread)
    threads[#threads + 1] = thread
    thread:set("id", #threads)
end

local n, begun = 0, 0

function request()
    n = n + 1
    return wrk.format("GET", path(n, id))
end

if once then
    function delay()
        begun = begun + 1
        return begun <= once and 0 or 3600000
    end
end

if check then
    function response(status, headers, body)
        if not check(status, body) then
            bad, example = bad + 1, status .. ": " .. body
        end
    end
end

function done(summary, latency)
    local errors, wrong, text = summary.errors, 0, ""
    for _, thread in ipairs(threads) do
        wrong = wrong + thread:get("bad")
        text = thread:get("example") ~= "" and thread:get("example") or text
    end
    local figures = {
        requests = summary.requests, status = errors.status, connect = errors.connect,
        read = errors.read, write = errors.write, timeout = errors.timeout, bad = wrong,
        p50 = latency:percentile(50) / 1e6, p99 = latency:percentile(99) / 1e6,
        max = latency.max / 1e6, seconds = summary.duration / 1e6,
    }
    for name, value in pairs(figures) do io.write("figure ", name, " ", value, "\n") end
    io.write("example ", string.format("%%q", text), "\n")
end
]]

function wrk.is_possible()
    return os.execute("command -v wrk >/dev/null 2>&1") == 0
end

--- Starts a load. Options: url (scheme, host and port); path: a chunk that gets n and id and
-- returns the path to ask for; check: a chunk that gets status and body and tells whether they are
-- right; connections (8), threads (1), seconds (1); once: one request per connection; close: a
-- connection per request.
function wrk.start(options)
    local threads, connections = options.threads or 1, options.connections or 8
    local dir = temp.dir()
    local script = SCRIPT:format("local n, id = ... " .. options.path,
        tostring(options.check ~= nil), "local status, body = ... " .. (options.check or ""),
        options.once and math.ceil(connections / threads) or "nil")
    local words = {
        "wrk", "--threads", threads, "--connections", connections,
        "--duration", (options.seconds or 1) .. "s", "--timeout", "30s",
        "--script", temp.write(dir .. "/script.lua", script),
        stdout = dir .. "/out", stderr = dir .. "/out",
    }
    if options.close then
        words[#words + 1] = "--header"
        words[#words + 1] = "Connection: close"
    end
    words[#words + 1] = options.url
    return setmetatable({
        dir = dir, seconds = options.seconds or 1, process = process.spawn(words),
    }, Wrk)
end

--- Waits for the end: {requests, seconds; errors: status (400 and above), connect, read, write,
-- timeout, bad (the check's); p50, p99, max in seconds; text (all of it, for messages)}.
function Wrk:join()
    local ended = self.process:wait(self.seconds + END_SECONDS)
    if not ended then self.process:kill() end
    local text = temp.read(self.dir .. "/out")
    temp.remove(self.dir)
    if not ended or ended.exit ~= 0 then error("wrk did not end well; it said:\n" .. text, 2) end
    local figures = { text = text }
    for name, value in text:gmatch("figure (%w+) (%S+)") do figures[name] = tonumber(value) end
    return figures
end

function Wrk:is_running()
    return self.process:is_alive()
end

--- The whole run.
function wrk.run(options)
    return wrk.start(options):join()
end

return wrk
