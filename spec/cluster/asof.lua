--- The as-of checker for clusters: is a near value ever older than promised, while slots move and
-- masters change?
--
--     script/lua spec/cluster/asof.lua [--checks N] [--readers P] [--limit S] [--server PROGRAM]
--                                      [--events migrate,atomic,...] [--rounds N] [--seed N]
--                                      [--slots N] [--fill N] [--settle S]
--
-- What:   a cluster of six nodes, two foreign writers, a writer through redcache, and readers that
--         share its region and have one each of their own, through events in turns; asof_reader.lua
--         says what is wrong. Behind each event nobody writes for --settle seconds (0.6), and the
--         owners say what they have: readers have to give that, and nothing acknowledged may be
--         missing there, unless the cluster may have lost it.
-- Events: migrate, atomic (where the server can), failover, force, takeover, kill, stop, split,
--         restart (all nodes); and keyless, by name and with moves alone: Redis 7.0 leaves keys of
--         such a slot in replicas, which come back with a failover. --slots: so many move at once
--         (100), the first of them with a key that is watched. --fill: the slot of the first key
--         has so many more, and it is the one that moves.
-- Ends:   after N checks and N rounds of all events; in any case after --limit seconds.
-- Answer: the last line is "N checks, N violations"; the status is 0 without violations, 1 with, 2
--         where fewer checks or rounds were made than asked for.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/asof%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local events = require("spec.cluster.events")
local herd = require("spec.support.herd")
local kept_of = require("spec.cluster.kept")
local posix = require("spec.support.posix")
local temp = require("spec.support.temp")

local say = arguments.say

local KEYS, OWN = 120, 40 -- of the foreign writers, and of ours
local FOREIGN_WRITERS, OWN_TIMEOUT = 2, 0.5
local HOLD_SECONDS = 10 -- the longest that a writer tries to write
local TOLD = 10
local REGION_BYTES = 4 * 1024 * 1024

local USAGE = "usage: script/lua spec/cluster/asof.lua [--checks N] [--readers P] [--limit S]"
    .. " [--server PROGRAM] [--events " .. events.ALL .. "] [--rounds N] [--seed N] [--slots N]"
    .. " [--fill N] [--settle S]\n"

local function read_arguments(words)
    local options = {
        checks = 1e6, readers = 2, limit = 600, seed = os.time() % 100000, events = events.ALL,
        rounds = 1, slots = 100, fill = 0, settle = 0.6,
    }
    local known = {
        checks = tonumber, readers = tonumber, limit = tonumber, seed = tonumber,
        server = tostring, events = tostring, rounds = tonumber, slots = tonumber,
        fill = tonumber, settle = tonumber,
    }
    return arguments.read(words, USAGE, options, known)
end

-- ---- The run.

local function names_of()
    local names = {}
    for i = 1, KEYS + OWN do names[i] = "as" .. i end
    return names
end

-- Where nothing but slots moves Redis itself answers nothing old.
local function is_strict(kinds)
    for _, kind in ipairs(kinds) do
        if not events.is_move(kind) then return false end
    end
    return true
end

local FILL_AT_ONCE = 1000
local FILL = "for i = ARGV[1], ARGV[2] do redis.call('SET', KEYS[1] .. i, i) end"

-- So many more keys in the slot of the first that is watched.
local function fill(bed, name, count)
    local slot = cluster.slot(name)
    local owner, prefix = bed:owner(slot), "{" .. cluster.tag(slot) .. "}:"
    for first = 1, count, FILL_AT_ONCE do
        owner:call("EVAL", FILL, 1, prefix, first, math.min(count, first + FILL_AT_ONCE - 1))
    end
end

local function with(common, more)
    for name, value in pairs(common) do
        if more[name] == nil then more[name] = value end
    end
    return more
end

-- The program's own findings, as the readers' tallies have them.
local found = { violations = 0, told = {}, lost = 0 }

local function violate(text, ...)
    found.violations = found.violations + 1
    if #found.told < TOLD then found.told[#found.told + 1] = text:format(...) end
end

local function add_up(results)
    local sum = { errors = {}, worst = {}, slowest = 0, refreshes = 0, seconds = 0,
        overrun = -math.huge, violations = found.violations, told = found.told }
    for _, result in ipairs(results) do
        for _, text in ipairs(result.told) do sum.told[#sum.told + 1] = text end
        for code, count in pairs(result.errors) do
            sum.errors[code] = (sum.errors[code] or 0) + count
        end
        for event, age in pairs(result.worst) do
            sum.worst[event] = math.max(sum.worst[event] or 0, age)
        end
        for _, name in ipairs({ "slowest", "refreshes", "seconds", "overrun" }) do
            sum[name] = math.max(sum[name], result[name])
        end
        for _, name in ipairs({ "checks", "violations", "near", "redis", "missing", "outdated",
            "old_in_redis", "own", "kept" }) do
            sum[name] = (sum[name] or 0) + result[name]
        end
    end
    return sum
end

local function is_enough(board_checks, rounds, options)
    return board_checks >= options.checks and rounds >= options.rounds
end

-- What all moves together have taken along.
local moved = { slots = 0, keys = 0 }

local function note_moved(from, first, last)
    moved.slots = moved.slots + last - first + 1
    for slot = first, last do
        moved.keys = moved.keys + from:call("CLUSTER", "COUNTKEYSINSLOT", slot)
    end
end

-- The slots that move begin at one of these.
local function watched_slots(names, options)
    local slots = {}
    for i = 1, options.fill > 0 and 1 or #names do slots[i] = cluster.slot(names[i]) end
    return slots
end

local LOSES_ALL = { restart = true, keyless = true }

-- Of these keys (all) the cluster may lose what it acknowledges from now on.
local function give_up_keys(kept, names, is_one)
    for i = KEYS + 1, #names do
        if not is_one or is_one(cluster.slot(names[i])) then kept:give_up(i) end
    end
end

-- What was acknowledged has to be there, but for what the cluster may have lost.
local function compare(board, kept, names, versions, kind)
    for i, name in ipairs(names) do
        local acked = board.acked[i]
        local is_lost = versions[i] < acked
        if is_lost and (LOSES_ALL[kind] or kept:is_excused(i, acked)) then
            found.lost = found.lost + 1
        elseif is_lost then
            violate("%s: %d was acknowledged, its owner has %d, behind %s", name, acked,
                versions[i], kind)
        end
        kept:settle(i, is_lost and acked or 0)
    end
end

-- Nobody writes: what the owners have is held against what was acknowledged, and readers are held
-- to it.
local function settle(bed, board, kept, options, names, kind)
    board:hold()
    clock.wait_until(function() return kept:are_idle(FOREIGN_WRITERS + 1) end, HOLD_SECONDS,
        "the writers' pause")
    local versions = kept_of.ask(bed, names)
    compare(board, kept, names, versions, kind)
    kept:tell(versions)
    clock.sleep(options.settle)
    kept:clear()
    for i, version in ipairs(kept_of.ask(bed, names)) do
        if version ~= versions[i] then
            violate("%s: the owner had %d, and then %d, and nobody wrote", names[i], versions[i],
                version)
        end
    end
    board:release()
end

-- The events in turns, until there are enough of them and of checks. Returns the rounds.
local function go_through(bed, board, kept, kinds, options, names)
    local is_told = {}
    return events.go_through(bed, kinds, {
        limit = options.limit, slots = options.fill > 0 and 1 or options.slots,
        among = watched_slots(names, options), moves = note_moved,
        done = function(rounds)
            return is_enough(board:checks(options.readers), rounds, options)
        end,
        begin = function(code, kind)
            if LOSES_ALL[kind] then give_up_keys(kept, names) end
            board:set_event(code)
        end,
        -- From now on what the master acknowledges may be lost, and before that the replica has it.
        give_up = function(master)
            give_up_keys(kept, names, function(slot) return bed:owner(slot, master) == master end)
            board:set_victim(master.port)
            clock.sleep(0.2)
        end,
        finish = function(_, kind, seconds)
            board:set_victim(0)
            settle(bed, board, kept, options, names, kind)
            board:set_event(0)
            if not is_told[kind] then say("%-9s %.1f s", kind, seconds) end
            is_told[kind] = true
        end,
    })
end

local function tell(bed, sum, writers, rounds, kinds)
    say("%s, %.0f s, %d rounds of %d events", bed.version, sum.seconds, rounds, #kinds)
    say("moved: %d slots, %d keys", moved.slots, moved.keys)
    for i, writer in ipairs(writers) do
        say("writer %d: %d writes, %d not acknowledged, sent elsewhere %d", i, writer.writes,
            writer.unsure, writer.moved)
    end
    say("reads: near %d, redis %d, nothing there %d; refreshes %d (%.2f a second)", sum.near,
        sum.redis, sum.missing, sum.refreshes, sum.refreshes / sum.seconds)
    say("slowest read %.2f s; behind the deadline, less what the machine took: %.3f s",
        sum.slowest, sum.overrun)
    say("reads of what this machine wrote: %d; reads while nobody wrote: %d; acknowledged, and lost"
        .. " where the cluster may: %d", sum.own, sum.kept, found.lost)
    for code, count in pairs(sum.errors) do say("errors: %s %d", code, count) end
    say("near although something newer was acknowledged: %d; old in Redis itself: %d",
        sum.outdated, sum.old_in_redis)
    for event, age in pairs(sum.worst) do say("largest staleness, %s: %.3f s", event, age) end
    for _, text in ipairs(sum.told) do say("wrong: %s", text) end
    say("%d checks, %d violations", sum.checks, sum.violations)
end

local function main()
    local options = read_arguments(arg)
    math.randomseed(options.seed)
    local bed = cluster.start({ program = options.server,
        partitions = options.events:find("split", 1, true) ~= nil })
    local kinds = events.kinds(bed, options.events)
    local path, names = temp.dir() .. "/board", names_of()
    fill(bed, names[1], options.fill)
    local board, kept = board_of.map(path, #names), kept_of.map(path .. "-kept", #names)
    local region = "casof-" .. posix.C.getpid() -- nobody else's region
    local ports = {}
    for i, node in ipairs(bed.nodes) do ports[i] = node.port end
    local common = {
        names = names, keys = #names, own = KEYS + 1, board = path, kept = path .. "-kept",
        ports = ports, timeout = OWN_TIMEOUT,
        strict = is_strict(kinds), events = kinds,
        url = "redis://127.0.0.1:" .. bed.nodes[1].port, limit = options.limit + 120,
        near = { shared = region, bytes = REGION_BYTES },
        near_raw = { shared = region, bytes = REGION_BYTES, l0 = false },
    }
    local writers = herd.start({
        count = FOREIGN_WRITERS + 1, timeout = options.limit + 240,
        main = function(one)
            return require(one.params.is_own and "spec.cluster.asof_own"
                or "spec.cluster.asof_writer")(one)
        end,
        params = function(i)
            local each, is_own = KEYS / FOREIGN_WRITERS, i > FOREIGN_WRITERS
            return with(common, { seed = options.seed + i, number = i, is_own = is_own,
                first = (i - 1) * each + 1, last = is_own and #names or i * each })
        end,
    })
    writers:wait_events("writing", FOREIGN_WRITERS + 1, 60)
    local readers = herd.start({
        count = options.readers, timeout = options.limit + 240,
        main = function(one) return require("spec.cluster.asof_reader")(one) end,
        params = function(i) return with(common, { seed = options.seed + 100 + i, number = i }) end,
    })
    readers:wait_events("reading", options.readers, 60)
    local ok, rounds = pcall(go_through, bed, board, kept, kinds, options, names)
    board:stop()
    local joined, cause = pcall(readers.join, readers)
    if not ok then say("the cluster: %s", rounds) end
    os.remove("/dev/shm/redcache-" .. region) -- Linux keeps shared memory there
    if not joined then error(cause, 0) end
    writers:join(60)
    local own = writers.results[FOREIGN_WRITERS + 1]
    for _, text in ipairs(own.told) do violate("%s", text) end
    found.violations = found.violations + own.violations - #own.told
    local sum = add_up(readers.results)
    tell(bed, sum, writers.results, ok and rounds or 0, kinds)
    bed:stop()
    if sum.violations > 0 then return 1 end
    return ok and is_enough(sum.checks, rounds, options) and 0 or 2
end

os.exit(main(), true)
