-- The control of what is measured about near caches: how soon a reader hears of a change through a
-- process of its own that Redis tracks, on the same machine in the same moments. No redcache in it.
--
-- What:   start(redis) -> told; told:after(pause): a foreign write, then a look every `pause`
--         seconds; seconds from the write's answer to the last look that found nothing new, or 0.
--         (A look that was not taken blames nobody.) over(values, bound): how many are above it.
--         quantile().
-- Memory: stop() ends the process.

local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local told = {}
local Told = {}
Told.__index = Told

local KEY = "told:control"
local HEARD, STOP, ROOM = 0, 1, 2
local PATIENCE = 5

-- As a reactor does: sleeps until the push, and puts into shared memory that it came.
local function relay(one)
    local shared = require("spec.near.cells").map(one.params.cells, one.params.room)
    local client = require("spec.support.resp").connect({ path = one.params.path }, {
        user = "bed", password = "bed",
    })
    client:call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", one.params.key)
    one:emit("hears")
    while shared[one.params.stop] == 0 do
        if client:push(0.1) then
            shared[one.params.heard] = shared[one.params.heard] + 1
        end
    end
    client:close()
end

function told.start(redis)
    local path = temp.dir() .. "/cells"
    local self = setmetatable({ cells = cells.map(path, ROOM), client = redis:client() }, Told)
    self.relay = worker.start({ main = relay, params = {
        cells = path, room = ROOM, heard = HEARD, stop = STOP, path = redis.path, key = KEY,
    } })
    self.relay:event("hears")
    return self
end

function Told:after(pause)
    local before = self.cells[HEARD]
    self.client:call("SET", KEY, "v")
    local acknowledged, last = clock.now(), nil
    while true do
        local began = clock.now()
        if self.cells[HEARD] ~= before then return last and last - acknowledged or 0 end
        last = began
        if began - acknowledged > clock.scaled(PATIENCE) then
            error("Redis told nothing of a change", 2)
        end
        clock.sleep(pause)
    end
end

function Told:stop()
    self.cells[STOP] = 1
    self.relay:join(10)
    self.client:close()
end

--- How many of the values are above the bound.
function told.over(values, bound)
    local count = 0
    for _, value in ipairs(values) do count = count + (value > bound and 1 or 0) end
    return count
end

--- The value below which `share` of the values lie. Sorts them.
function told.quantile(values, share)
    table.sort(values)
    return values[math.max(math.ceil(#values * share), 1)]
end

return told
