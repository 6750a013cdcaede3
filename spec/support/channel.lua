--- Lua tables between two processes: one JSON line each over a socket. Strings may hold any byte.

local cjson = require("cjson").new()
local clock = require("spec.support.clock")

-- Instants have 6 digits before the point and want microseconds after it.
cjson.encode_number_precision(14)
cjson.encode_sparse_array(true)

local channel = {}
local Channel = {}
Channel.__index = Channel

function channel.new(connection)
    return setmetatable({ connection = connection, buffer = "" }, Channel)
end

channel.encode, channel.decode, channel.null = cjson.encode, cjson.decode, cjson.null

--- Sends one table, then `bytes` as they are.
function Channel:send(message, bytes)
    return self.connection:send(cjson.encode(message) .. "\n" .. (bytes or ""), clock.scaled(10))
end

local function take(self, len)
    local bytes = self.buffer:sub(1, len)
    self.buffer = self.buffer:sub(len + 1)
    return bytes
end

-- Waits for more bytes; nil, err when none come.
local function fill(self, deadline)
    local bytes, err = self.connection:receive(clock.left(deadline))
    if not bytes then return nil, err end
    self.buffer = self.buffer .. bytes
    return true
end

--- The next table; nil, "timeout" | "closed". `timeout` in seconds, not stretched.
function Channel:receive(timeout)
    local deadline = clock.now() + (timeout or 0)
    while true do
        local ends = self.buffer:find("\n", 1, true)
        if ends then return cjson.decode(take(self, ends)) end
        local ok, err = fill(self, deadline)
        if not ok then return nil, err end
    end
end

--- Exactly `len` bytes.
function Channel:receive_bytes(len, timeout)
    local deadline = clock.now() + (timeout or 0)
    while #self.buffer < len do
        local ok, err = fill(self, deadline)
        if not ok then return nil, err end
    end
    return take(self, len)
end

function Channel:close()
    self.connection:close()
end

return channel
