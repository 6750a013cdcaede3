--- Bytes on their way to one side of a link of the proxy: pieces, each with the instant from which
-- it may go. The first holds back the others.
--
-- What:   new, add, finish, flush, due; .bytes: how many wait.
-- Errors: flush returns nil and how the link is to end: "close" or "reset".

local ffi = require("ffi")
local clock = require("spec.support.clock")
local posix = require("spec.support.posix")

ffi.cdef("int shutdown(int fd, int how);")

local SHUT_WR = 1

local proxy_queue = {}
local Queue = {}
Queue.__index = Queue

function proxy_queue.new()
    return setmetatable({ bytes = 0, last = 0 }, Queue)
end

--- Bytes that may go in `late` seconds; with `wait` so many seconds after those in front of them,
-- too.
function Queue:add(bytes, late, wait)
    if bytes == "" then return end
    local at = clock.now() + late
    if wait then at = math.max(at, self.last) + wait end
    self.bytes, self.last = self.bytes + #bytes, at
    self[#self + 1] = { at = at, bytes = bytes }
end

--- Behind what is there the line ends: "close" or "reset" for the link, "finish" for this direction
-- alone.
function Queue:finish(how)
    self[#self + 1] = { at = self.last, bytes = "", ending = how }
end

--- Sends what is due.
function Queue:flush(connection)
    while self[1] and self[1].at <= clock.now() do
        local first = self[1]
        if first.ending == "finish" then
            posix.C.shutdown(connection.fd, SHUT_WR)
        elseif first.ending then
            return nil, first.ending
        else
            local n = connection:send_some(first.bytes)
            if not n then return nil, "close" end
            self.bytes = self.bytes - n
            first.bytes = first.bytes:sub(n + 1)
            if first.bytes ~= "" then return true end
        end
        table.remove(self, 1)
    end
    return true
end

--- The instant from which the first piece may go, when that is later; false when it is now; nil
-- when there is none.
function Queue:due()
    return self[1] and self[1].at > clock.now() and self[1].at
end

return proxy_queue
