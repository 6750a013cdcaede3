--- How often do many clients ask for the slot map when a master changes?
--
--     script/lua spec/cluster/refreshes.lua [--clients N] [--processes P] [--server PROGRAM]
--                                           [--events failover,kill] [--near SECONDS] [--seed N]
--
-- What:   N clients (64) in P processes (4) at work on a cluster of six nodes, through these events
--         of events.lua. Counted are each client's questions (stats().mapRefreshes), and at each
--         node those that were asked (commandstats), but for those of this program (one or two of
--         them may be counted where they were asked just when the node was looked at).
-- --near: the clients keep values near, with that maxStale. Then each asks every master four times
--         within it whether it still owns what is kept, by the same command, which is counted at
--         the nodes alone.
-- Answer: the last line is "N clients, at most N refreshes of one in a second"; the status is 1
--         where these are more than 2.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/refreshes%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local events = require("spec.cluster.events")
local herd = require("spec.support.herd")
local worker = require("spec.support.worker")

local say = arguments.say

local ALLOWED, SECOND = 2, 1

local USAGE = "usage: script/lua spec/cluster/refreshes.lua [--clients N] [--processes P]"
    .. " [--server PROGRAM] [--events failover,kill] [--near SECONDS] [--seed N]\n"

local function read_arguments(words)
    local options = {
        clients = 64, processes = 4, events = "failover,kill", seed = os.time() % 100000,
    }
    local known = {
        clients = tonumber, processes = tonumber, server = tostring, events = tostring,
        near = tonumber, seed = tonumber,
    }
    return arguments.read(words, USAGE, options, known)
end

-- The largest growth of a count between two of its samples, {before, after, count}, that surely lie
-- within a second of each other. less(first, last): what does not count of that growth.
local function most_in_a_second(samples, less)
    local most, first = 0, 1
    for last = 2, #samples do
        while samples[last][2] - samples[first][1] >= SECOND do first = first + 1 end
        if first < last then
            local growth = samples[last][3] - samples[first][3]
            most = math.max(most, growth - (less and less(samples[first], samples[last]) or 0))
        end
    end
    return most
end

-- Notes when this program itself asks a node for its map: {{before, after}, ...} by port.
local function note_own(bed)
    local own = {}
    for _, node in ipairs(bed.nodes) do
        local call, times = node.call, {}
        own[node.port] = times
        node.call = function(self, command, sub, ...)
            local before = clock.now()
            local function finish(...)
                if command == "CLUSTER" and sub == "SLOTS" then
                    times[#times + 1] = { before, clock.now() }
                end
                return ...
            end
            return finish(call(self, command, sub, ...))
        end
    end
    return own
end

-- The looks by port: {{before, after, count}, ...}, where a node that starts anew goes on counting.
local function samples_of(looks)
    local by_port, last = {}, {}
    for _, look in ipairs(looks) do
        local port, calls = look[1], look[4]
        local samples = by_port[port] or {}
        local count = samples[1] and samples[#samples][3] or 0
        if samples[1] then count = count + (calls >= last[port] and calls - last[port] or calls) end
        samples[#samples + 1] = { look[2], look[3], count }
        by_port[port], last[port] = samples, calls
    end
    return by_port
end

local function tell_nodes(bed, looks, own, seconds)
    local most, sum = 0, 0
    for port, samples in pairs(samples_of(looks)) do
        -- How often this program asked between two samples, for sure.
        local function own_between(first, last)
            local count = 0
            for _, times in ipairs(own[port]) do
                if times[1] >= first[2] and times[2] <= last[1] then count = count + 1 end
            end
            return count
        end
        local others = samples[#samples][3] - own_between(samples[1], samples[#samples])
        local in_a_second = most_in_a_second(samples, own_between)
        most, sum = math.max(most, in_a_second), sum + others
        say("  port %d: asked %d times, at most %d times in a second", port, others, in_a_second)
    end
    say("%d nodes: asked %d times in %.1f s, one of them at most %d times in a second",
        #bed.nodes, sum, seconds, most)
end

local function tell_clients(results)
    local most, sum, count, calls, errors = 0, 0, 0, 0, {}
    for _, result in ipairs(results) do
        calls = calls + result.calls
        for code, number in pairs(result.errors) do errors[code] = (errors[code] or 0) + number end
        for _, samples in ipairs(result.clients) do
            most, count = math.max(most, most_in_a_second(samples)), count + 1
            sum = sum + samples[#samples][3]
        end
    end
    for code, number in pairs(errors) do say("errors: %s %d", code, number) end
    say("%d calls, %d refreshes", calls, sum)
    say("%d clients, at most %d refreshes of one in a second", count, most)
    return most <= ALLOWED
end

local function go_through(bed, kinds)
    events.go_through(bed, kinds, {
        limit = 120, done = function(rounds) return rounds >= 1 end,
        begin = function() end,
        finish = function(_, kind, seconds) say("%-9s %.1f s", kind, seconds) end,
    })
end

local function main()
    local options = read_arguments(arg)
    math.randomseed(options.seed)
    local bed = cluster.start({ program = options.server,
        partitions = options.events:find("split", 1, true) ~= nil })
    local ports = {}
    for i, node in ipairs(bed.nodes) do ports[i] = node.port end
    local own = note_own(bed)
    local watcher = worker.start({ file = "spec/cluster/refreshes_watcher.lua",
        params = { ports = ports } })
    watcher:event("working")
    local began = clock.now()
    local clients = herd.start({
        count = options.processes, timeout = 60, file = "spec/cluster/refreshes_load.lua",
        params = function(i)
            return { url = bed:url(), clients = options.clients / options.processes,
                near = options.near, seed = options.seed + i }
        end,
    })
    clients:wait_events("working", options.processes, 60)
    local ok, cause = pcall(go_through, bed, events.kinds(bed, options.events))
    for _, one in ipairs(clients.workers) do one:send({ stop = true }) end
    clients:join()
    local seconds = clock.now() - began
    watcher:send({ stop = true })
    local looks = watcher:join().looks
    if not ok then say("the cluster: %s", cause) end
    say("%s", bed.version)
    tell_nodes(bed, looks, own, seconds)
    local is_good = tell_clients(clients.results)
    bed:stop()
    return ok and is_good and 0 or 1
end

os.exit(main(), true)
