--- The embedded store behind a port: core/test/store_server.c, started for a spec.
--
-- What:   start, stop; scripts: the sources it knows, in the order of enum rc_script.
-- Errors: everything throws.

local clock = require("spec.support.clock")
local process = require("spec.support.process")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local store_server = {}
local Server = {}
Server.__index = Server

local START_SECONDS = 10

local function program()
    return (os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/store_server"
end

--- Starts one; `max_bytes` nil: no bound. It has .port.
function store_server.start(max_bytes)
    local ours, theirs = assert(socket.pair())
    local dir = temp.dir()
    local self = setmetatable({ dir = dir, leash = ours }, Server)
    self.process = process.spawn({
        program(), 0, max_bytes,
        stdin = theirs.fd, stdout = dir .. "/out", stderr = dir .. "/err",
    })
    theirs:close()
    self.port = clock.wait_until(function()
        return tonumber(temp.read(dir .. "/out"):match("^(%d+)\n"))
    end, START_SECONDS, "the port of the store server")
    return self
end

function Server:stop()
    self.process:stop()
    self.leash:close()
    temp.remove(self.dir)
end

function store_server.scripts()
    local result = process.run({ program(), "scripts" })
    local sources = {}
    for line in result.out:gmatch("[^\n]+") do sources[#sources + 1] = line end
    return sources
end

return store_server
