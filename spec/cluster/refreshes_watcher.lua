--- How often the nodes of a cluster are asked for their slot map. A chunk for worker.lua: looks
-- until it is sent anything.
--
-- params: ports.
-- Result: looks = {{port, before, after, calls}, ...}: the node's count of CLUSTER SLOTS, read at
--         some instant between the two; one that was started anew counts from 0.

local worker = ...
local clock = require("spec.support.clock")
local resp = require("spec.support.resp")

local PERIOD = 0.05
local lines, looks = {}, {}

local function count_at(port)
    local ok, text = pcall(function()
        lines[port] = lines[port] or resp.connect({ port = port },
            { user = "bed", password = "bed", timeout = 0.5 })
        return lines[port]:call("INFO", "commandstats")
    end)
    if ok then return tonumber(text:match("cmdstat_cluster|slots:calls=(%d+)") or 0) end
    if lines[port] then pcall(lines[port].close, lines[port]) end
    lines[port] = nil
end

repeat
    for _, port in ipairs(worker.params.ports) do
        local before = clock.now()
        local calls = count_at(port)
        if calls then looks[#looks + 1] = { port, before, clock.now(), calls } end
    end
    if not looks.is_told then
        looks.is_told = true
        worker:emit("working")
    end
until worker:receive(PERIOD) ~= nil
looks.is_told = nil
return { looks = looks }
