--- Counters of the workers of an nginx that stay when a worker is killed: the next one with its id
-- goes on with them.
--
-- What:   open and add in a worker; read in the spec.
-- Not:    lua_shared_dict: a worker that is killed inside of it spoils it.

local cells = require("spec.near.cells")

local WORKERS, ROOM = 8, 32

local tally = {}
local Tally = {}
Tally.__index = Tally

local function offsets(names)
    local at = { pid = 0 }
    for i, name in ipairs(names) do at[name] = i end
    return at
end

--- The counters of this worker, by these names; and "pid".
function tally.open(path, names)
    local self = setmetatable({
        all = cells.map(path, WORKERS * ROOM), base = ngx.worker.id() * ROOM, at = offsets(names),
    }, Tally)
    self.all[self.base] = ngx.worker.pid()
    return self
end

function Tally:add(name, count)
    local at = self.base + self.at[name]
    self.all[at] = self.all[at] + (count or 1)
end

--- What all workers have counted so far, by name; and that of each worker by its id (from 0).
function tally.read(path, names, workers)
    local all, sum, each = cells.map(path, WORKERS * ROOM), {}, {}
    for id = 0, workers - 1 do
        each[id] = {}
        for name, at in pairs(offsets(names)) do
            each[id][name] = all[id * ROOM + at]
            sum[name] = (sum[name] or 0) + each[id][name]
        end
    end
    return sum, each
end

--- Whether a worker of that pid was the last one to count under its id.
function tally.has_pid(path, pid, workers)
    local _, each = tally.read(path, {}, workers)
    for id = 0, workers - 1 do
        if each[id].pid == pid then return true end
    end
    return false
end

return tally
