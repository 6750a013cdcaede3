-- near_share - processes that read one shared region, some of them and all together.
--
-- What:   start() opens them; sides() are what bench.side_by_side alternates: near hits, and as a
--         measure of the machine the same with a plain Lua table.
-- Memory: stop() ends the processes; the region's name goes with this one.

local bench = require("bench.support.bench")
local cleanup = require("spec.support.cleanup")
local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local worker = require("spec.support.worker")

local near_share = {}
local Share = {}
Share.__index = Share

local SECONDS = bench.sized(0.3, 0.02) -- per side and round
local HEAD_START = 0.02

-- Runs in each of the processes: makes the loops, then runs what it is told to.
local function reader(self)
    local params = self.params
    local hot_loop = require("bench.support.hot_loop")
    local now = require("spec.support.clock").now
    local sleep = require("spec.support.clock").sleep
    local cache = require("redcache").new({
        url = params.url, codec = "raw", namespace = "bench",
        near = { shared = params.name, l0 = false },
    })
    local map = {}
    for _, key in ipairs(params.keys) do
        local value, err, from
        for _ = 1, 100 do
            value, err, from = cache:get(key)
            if from == "near" then
                break
            end
        end
        if from ~= "near" then
            error(("could not warm up: %s (%s)"):format(tostring(from), tostring(err)))
        end
        map[key] = value
    end
    local order = hot_loop.shuffled(params.keys, 16)
    local loops = {
        near = hot_loop.new("near", params.get, order, cache),
        table = hot_loop.new("table", params.index, order, map),
    }
    for _, run in pairs(loops) do
        run(20)
    end
    self:emit("warm")
    while true do
        local task = self:receive()
        if task.stop then
            break
        end
        local run, turns = loops[task.loop], 0
        sleep(task.at - now())
        local start = now()
        local last
        repeat
            turns = turns + run(1)
            last = now()
        until last >= task.finish
        self:emit("made", { rate = turns / (last - start) / 1e6 })
    end
    cache:close()
end

---Starts the processes. params: url, keys, get, index (bodies of loops), counts (how many are to
---read together, the most last; 1 and 2).
function near_share.start(params)
    local name = ("bench-%d"):format(posix.C.getpid())
    cleanup.add(function()
        os.remove("/dev/shm/redcache-" .. name)
    end)
    local workers, counts = {}, params.counts or { 1, 2 }
    local most = counts[#counts]
    for i = 1, most do
        workers[i] = worker.start({
            main = reader, index = i, count = most,
            params = { url = params.url, keys = params.keys, get = params.get,
                index = params.index, name = name },
        })
        workers[i]:event("warm", 60)
    end
    return setmetatable({ workers = workers, counts = counts }, Share)
end

local function run(loop, chosen)
    local at = clock.now() + HEAD_START
    for _, one in ipairs(chosen) do
        one:send({ loop = loop, at = at, finish = at + SECONDS })
    end
    local rate = 0
    for _, one in ipairs(chosen) do
        rate = rate + one:event("made").rate
    end
    return { rate = rate }
end

---For bench.side_by_side: "1 near", "2 near", ..., "1 table", ... Who reads takes turns.
function Share:sides()
    local sides, most = {}, #self.workers
    for _, loop in ipairs({ "near", "table" }) do
        for _, count in ipairs(self.counts) do
            local turn = 0
            sides[#sides + 1] = { count .. " " .. loop, function()
                local chosen = {}
                turn = turn + 1
                for i = 1, count do
                    chosen[i] = self.workers[(turn + i) % most + 1]
                end
                return run(loop, chosen)
            end }
        end
    end
    return sides
end

function Share:stop()
    for _, one in ipairs(self.workers) do
        one:send({ stop = true })
        one:join()
    end
end

return near_share
