-- The child's side of worker.lua: luajit worker_main.lua, with the channel on descriptor 3.
-- The chunk gets one argument, the worker:
--   worker.index, worker.count, worker.params
--   worker:ready()              waits until everybody is ready, then returns at one and the same
--                               instant (it returns that instant)
--   worker:emit(name, fields)   tells the parent that something happened, now
--   worker:receive(timeout)     the next table the parent sends
-- What the chunk returns is the worker's result.

local CHANNEL_FD = 3
local HEADER_SECONDS = 30
local FOREVER = 1e6

-- The parent's package.path comes before anything else can be required: it is in the environment.
package.path = os.getenv("RCBED_PATH") or package.path
package.cpath = os.getenv("RCBED_CPATH") or package.cpath

local channel = require("spec.support.channel")
local clock = require("spec.support.clock")
local socket = require("spec.support.socket")

local parent = channel.new(socket.adopt(CHANNEL_FD))
local header = assert(parent:receive(HEADER_SECONDS))
local code = assert(parent:receive_bytes(header.bytes, HEADER_SECONDS))

local worker = {
    index = header.index, count = header.count, params = header.params,
    connection = parent.connection,
}

function worker:emit(name, fields)
    local event = { event = name, at = clock.now(), worker = self.index }
    for field, value in pairs(fields or {}) do event[field] = value end
    assert(parent:send(event))
end

function worker:receive(timeout) -- luacheck: ignore self
    return parent:receive(timeout or FOREVER)
end

function worker:ready()
    self:emit("ready")
    local go = assert(self:receive())
    clock.sleep(go.go - clock.now())
    return go.go
end

local main, syntax_error = loadstring(code, header.name)
local ok, result
if main then
    ok, result = xpcall(function() return main(worker) end, debug.traceback)
else
    ok, result = false, syntax_error
end
if ok then
    worker:emit("done", { result = result })
else
    worker:emit("failed", { error = tostring(result) })
end
parent:close()
-- Closing the Lua state runs every finalizer: a crash there is the spec's business too.
os.exit(ok and 0 or 1, true)
