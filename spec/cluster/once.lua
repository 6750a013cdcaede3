--- Is a key loaded once, is a lock held by one, and does each call end by its deadline, while slots
-- move and masters change?
--
--     script/lua spec/cluster/once.lua [--rounds N] [--limit S] [--server PROGRAM]
--                                      [--events migrate,atomic,...] [--clients P] [--seed N]
--                                      [--slots N]
--
-- What:   a cluster of six nodes and P processes (once_load.lua; every second one has coroutines)
--         that load the same keys and take the same locks, through the events of events.lua in
--         turns. Their histories are held against each other (once_check.lua).
-- Ends:   after N rounds of all events, or --limit seconds.
-- Answer: the last line is "N loads, N grants, N violations"; the status is 0 without violations, 1
--         with, 2 where fewer rounds were made than asked for.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/once%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local check = require("spec.cluster.once_check")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local events = require("spec.cluster.events")
local herd = require("spec.support.herd")

local say = arguments.say

local TAGS_EACH, APART = 8, 12 -- of each master's slots those so far from each other
local LOCKS = 8
local TIMEOUT, WAIT, TTL = 1.5, 2, 2
-- By how much a call may be late: what timers and the end of a turn take, on a machine whose
-- processors others use, too (that the process itself had none is taken off).
local LATE = 0.1
local CALLERS = 3

local USAGE = "usage: script/lua spec/cluster/once.lua [--rounds N] [--limit S]"
    .. " [--server PROGRAM] [--events " .. events.ALL .. "] [--clients P] [--seed N] [--slots N]\n"

local function read_arguments(words)
    local options = {
        rounds = 1, limit = 600, events = events.ALL, clients = 6, seed = os.time() % 100000,
        slots = 100,
    }
    local known = {
        rounds = tonumber, limit = tonumber, clients = tonumber, seed = tonumber,
        server = tostring, events = tostring, slots = tonumber,
    }
    return arguments.read(words, USAGE, options, known)
end

-- Slots of all masters, so near to each other that several move at once.
local function chosen_slots(masters)
    local slots = {}
    for i = 1, masters do
        local first = math.floor((i - 1) * cluster.SLOTS / masters)
        for n = 0, TAGS_EACH - 1 do slots[#slots + 1] = first + n * APART end
    end
    return slots
end

-- Of which slots a master that is given up may lose what it acknowledges.
local function note_lost(bed, event, master)
    local before = event.lost
    local ranges = {}
    for _, range in ipairs(bed:map(master)) do
        if range.id == master.id then ranges[#ranges + 1] = range end
    end
    event.lost = function(slot)
        for _, range in ipairs(ranges) do
            if slot >= range.first and slot <= range.last then return true end
        end
        return before ~= nil and before(slot)
    end
end

local function go_through(bed, kinds, options, slots, history)
    local event
    return events.go_through(bed, kinds, {
        limit = options.limit, slots = options.slots, among = slots,
        done = function(rounds) return rounds >= options.rounds end,
        begin = function(_, kind)
            event = { kind = kind, from = clock.now(), to = math.huge }
            history[#history + 1] = event
        end,
        give_up = function(master)
            note_lost(bed, event, master)
            clock.sleep(0.2) -- what was acknowledged before has come to the replica
        end,
        finish = function() event.to = clock.now() end,
    })
end

local function append(list, more)
    for _, item in ipairs(more) do list[#list + 1] = item end
end

local function add_up(results)
    local sum = { loads = {}, holds = {}, wrong = {}, calls = {}, overrun = {}, errors = {} }
    for _, result in ipairs(results) do
        append(sum.loads, result.loads)
        append(sum.holds, result.holds)
        append(sum.wrong, result.wrong)
        for _, name in ipairs({ "calls", "errors" }) do
            for what, number in pairs(result[name]) do
                sum[name][what] = (sum[name][what] or 0) + number
            end
        end
        for call, seconds in pairs(result.overrun) do
            sum.overrun[call] = math.max(sum.overrun[call] or -math.huge, seconds)
        end
    end
    return sum
end

local function list_of(counts, form)
    local parts = {}
    for name, number in pairs(counts) do parts[#parts + 1] = name .. " " .. form:format(number) end
    table.sort(parts)
    return parts[1] and table.concat(parts, ", ") or "none"
end

local function judge(sum, history)
    local loads = check.loads(history, sum.loads, events.is_move)
    local locks = check.locks(history, sum.holds, TTL)
    say("loads: %d of %d keys; again: %s; without Redis: %s", loads.loads, loads.keys,
        list_of(loads.again, "%d"), list_of(loads.degraded, "%d"))
    say("locks: %d grants; losses learnt: %s; held twice: %s (longest, s: %s), of those %d given"
        .. " back before it was known; ends: %s", locks.grants, list_of(locks.losses, "%d"),
        list_of(locks.overlaps, "%d"), list_of(locks.longest, "%.3f"), locks.unaware,
        list_of(locks.ends, "%d"))
    say("calls: %s", list_of(sum.calls, "%d"))
    say("behind the deadline, s (below 0: before it): %s", list_of(sum.overrun, "%.3f"))
    say("errors: %s", list_of(sum.errors, "%d"))
    local violations = loads.violations + locks.violations + #sum.wrong
    append(sum.wrong, loads.wrong)
    append(sum.wrong, locks.wrong)
    for call, seconds in pairs(sum.overrun) do
        if seconds > clock.scaled(LATE) then
            sum.wrong[#sum.wrong + 1] = ("%s ended %.3f s late"):format(call, seconds)
            violations = violations + 1
        end
    end
    for i = 1, math.min(#sum.wrong, 30) do say("wrong: %s", sum.wrong[i]) end
    say("%d loads, %d grants, %d violations", loads.loads, locks.grants, violations)
    return violations
end

local function main()
    local options = read_arguments(arg)
    math.randomseed(options.seed)
    local bed = cluster.start({ program = options.server,
        partitions = options.events:find("split", 1, true) ~= nil })
    local kinds, slots = events.kinds(bed, options.events), chosen_slots(bed.masters)
    local tags, locks = {}, {}
    for i, slot in ipairs(slots) do tags[i] = cluster.tag(slot) end
    for i = 1, LOCKS do locks[i] = tags[i * 3 - 2] end -- a lock's name is its hash tag
    local began = clock.now()
    local clients = herd.start({
        count = options.clients, timeout = 60, file = "spec/cluster/once_load.lua",
        params = function(i)
            return { url = bed:url(), tags = tags, locks = locks, seed = options.seed + i,
                callers = i % 2 == 0 and CALLERS or nil, timeout = TIMEOUT, wait = WAIT,
                ttl = TTL }
        end,
    })
    clients:wait_events("working", options.clients, 30)
    local history = {}
    local ok, rounds = pcall(go_through, bed, kinds, options, slots, history)
    for _, one in ipairs(clients.workers) do one:send({ stop = true }) end
    clients:join()
    if not ok then say("the cluster: %s", rounds) end
    say("%s, %.0f s, %d rounds of %d events, %d processes, seed %d", bed.version,
        clock.now() - began, ok and rounds or 0, #kinds, options.clients, options.seed)
    local violations = judge(add_up(clients.results), history)
    bed:stop()
    if violations > 0 then return 1 end
    return ok and rounds >= options.rounds and 0 or 2
end

os.exit(main(), true)
