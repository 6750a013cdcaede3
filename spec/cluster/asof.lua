--- The as-of checker for clusters: is a near value ever older than promised, while slots move and
-- masters change?
--
--     script/lua spec/cluster/asof.lua [--checks N] [--readers P] [--limit S] [--server PROGRAM]
--                                      [--events migrate,atomic,...] [--rounds N] [--seed N]
--                                      [--slots N] [--fill N]
--
-- What:   a cluster of six nodes, two foreign writers, and readers that share one region and have
--         one each of their own, through events in turns; asof_reader.lua says what is wrong.
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

local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local herd = require("spec.support.herd")
local posix = require("spec.support.posix")
local temp = require("spec.support.temp")

local KEYS = 120
local REGION_BYTES = 4 * 1024 * 1024
local EVENTS = "migrate,atomic,failover,force,takeover,kill,stop,split,restart"
-- What moves slots alone: then Redis itself answers nothing old.
local MOVES = { migrate = true, keyless = true, atomic = true }

local USAGE = "usage: script/lua spec/cluster/asof.lua [--checks N] [--readers P] [--limit S]"
    .. " [--server PROGRAM] [--events " .. EVENTS .. "] [--rounds N] [--seed N] [--slots N]"
    .. " [--fill N]\n"

local function read_arguments(words)
    local options = {
        checks = 1e6, readers = 2, limit = 600, seed = os.time() % 100000, events = EVENTS,
        rounds = 1, slots = 100, fill = 0,
    }
    local known = {
        checks = tonumber, readers = tonumber, limit = tonumber, seed = tonumber,
        server = tostring, events = tostring, rounds = tonumber, slots = tonumber,
        fill = tonumber,
    }
    for i = 1, #words, 2 do
        local name = words[i]:match("^%-%-(%a+)$")
        local value = name and known[name] and words[i + 1] and known[name](words[i + 1])
        if not value then
            io.stderr:write(USAGE)
            os.exit(2)
        end
        options[name] = value
    end
    return options
end

local function say(text, ...) print(text:format(...)) io.stdout:flush() end

-- ---- Events. Each leaves a cluster that is whole and of one mind.

local events = {}

local function masters_of(bed)
    local list = {}
    for _, node in ipairs(bed.nodes) do
        if bed:is_master(node) and bed:owns_slots(node) then list[#list + 1] = node end
    end
    return list
end

-- A master, one of its replicas, and one of its slots, by chance.
local function pair_of(bed)
    local list = masters_of(bed)
    local master = list[math.random(#list)]
    for _, range in ipairs(bed:map(master)) do
        if range.id == master.id and range.replicas[1] then
            return master, bed:node(range.replicas[math.random(#range.replicas)]), range.first
        end
    end
    error("no master has a replica")
end

local function name_of(number) return "as" .. number end

-- What all moves together have taken along.
local moved = { slots = 0, keys = 0 }

local function note_moved(from, first, last)
    moved.slots = moved.slots + last - first + 1
    for slot = first, last do
        moved.keys = moved.keys + from:call("CLUSTER", "COUNTKEYSINSLOT", slot)
    end
end

-- The end of what `node` owns from there on, `count` slots at most.
local function last_of(bed, node, first, count)
    for _, range in ipairs(bed:map(node)) do
        if range.id == node.id and first >= range.first and first <= range.last then
            return math.min(range.last, first + count - 1)
        end
    end
    error("the owner of a slot does not know it")
end

local function move(how)
    return function(bed, options)
        local is_filled = options.fill > 0
        local first = cluster.slot(name_of(is_filled and 1 or math.random(KEYS)))
        bed:agree()
        local from, others = bed:owner(first), {}
        for _, node in ipairs(masters_of(bed)) do
            if node ~= from then others[#others + 1] = node end
        end
        local last = last_of(bed, from, first, is_filled and 1 or options.slots)
        note_moved(from, first, last)
        bed:move(first, last, from, others[math.random(#others)], how)
    end
end

events.migrate, events.keyless, events.atomic = move("migrate"), move("keyless"), move("atomic")

-- From now on what the master acknowledges may be lost, and before that the replica has it.
local function give_up(master, board)
    board:set_victim(master.port)
    clock.sleep(0.2)
end

local function failover(how)
    return function(bed, _, board)
        local master, replica = pair_of(bed)
        if how then give_up(master, board) end
        bed:failover(replica, how)
    end
end

events.failover, events.force, events.takeover = failover(nil), failover("force"),
    failover("takeover")

-- Until another node owns what the master owned, in the eyes of those that are left.
local function wait_heir(bed, master, slot)
    clock.wait_until(function()
        local owner = bed:owner(slot)
        return owner and owner ~= master
    end, 30, "the heir")
end

local function whole_again(bed, node)
    bed:agree(30)
    bed:wait_replica(node)
end

function events.kill(bed, _, board)
    local master, _, slot = pair_of(bed)
    give_up(master, board)
    bed:kill(master)
    wait_heir(bed, master, slot)
    clock.sleep(0.5)
    bed:restart(master)
    whole_again(bed, master)
end

-- Its first answers come before it has heard of its heir.
function events.stop(bed, _, board)
    local master, _, slot = pair_of(bed)
    give_up(master, board)
    bed:pause(master)
    wait_heir(bed, master, slot)
    clock.sleep(0.5)
    bed:resume(master)
    whole_again(bed, master)
end

function events.split(bed, _, board)
    local master, _, slot = pair_of(bed)
    give_up(master, board)
    bed:split({ master })
    wait_heir(bed, master, slot)
    clock.sleep(1.5)
    bed:heal()
    whole_again(bed, master)
end

function events.restart(bed)
    for _, node in ipairs(bed.nodes) do bed:kill(node) end
    for _, node in ipairs(bed.nodes) do bed:restart(node) end
    bed:agree(30)
    for _, node in ipairs(bed.nodes) do
        if not bed:is_master(node) then bed:wait_replica(node) end
    end
end

-- ---- The run.

local function names_of()
    local names = {}
    for i = 1, KEYS do names[i] = name_of(i) end
    return names
end

local function kinds_of(bed, options)
    local kinds, strict = {}, true
    for kind in options.events:gmatch("%a+") do
        assert(events[kind], "no such event: " .. kind)
        if kind ~= "atomic" or bed:is_atomic() then
            kinds[#kinds + 1] = kind
            strict = strict and MOVES[kind]
        end
    end
    return kinds, strict
end

local FILL_AT_ONCE = 1000
local FILL = "for i = ARGV[1], ARGV[2] do redis.call('SET', KEYS[1] .. i, i) end"

-- So many more keys in the slot of the first that is watched.
local function fill(bed, count)
    local slot = cluster.slot(name_of(1))
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

local function add_up(results)
    local sum = { told = {}, errors = {}, worst = {}, slowest = 0, refreshes = 0, seconds = 0 }
    for _, result in ipairs(results) do
        for _, text in ipairs(result.told) do sum.told[#sum.told + 1] = text end
        for code, count in pairs(result.errors) do
            sum.errors[code] = (sum.errors[code] or 0) + count
        end
        for event, age in pairs(result.worst) do
            sum.worst[event] = math.max(sum.worst[event] or 0, age)
        end
        for _, name in ipairs({ "slowest", "refreshes", "seconds" }) do
            sum[name] = math.max(sum[name], result[name])
        end
        for _, name in ipairs({ "checks", "violations", "near", "redis", "missing", "outdated",
            "old_in_redis" }) do
            sum[name] = (sum[name] or 0) + result[name]
        end
    end
    return sum
end

local function is_enough(board_checks, rounds, options)
    return board_checks >= options.checks and rounds >= options.rounds
end

-- The events in turns, until there are enough of them and of checks. Returns the rounds.
local function go_through(bed, board, kinds, options)
    local ends, rounds = clock.now() + options.limit, 0
    while clock.now() < ends and not is_enough(board:checks(options.readers), rounds, options) do
        for code, kind in ipairs(kinds) do
            local began = clock.now()
            board:set_event(code)
            events[kind](bed, options, board)
            board:set_victim(0)
            clock.sleep(0.3) -- what comes late belongs to it
            board:set_event(0)
            if rounds == 0 then say("%-9s %.1f s", kind, clock.now() - began) end
            clock.sleep(0.5)
            if clock.now() > ends then break end
        end
        rounds = rounds + 1
    end
    return rounds
end

local function tell(bed, sum, writers, rounds, kinds)
    local info = bed:present()[1]:info("server")
    say("%s %s, %.0f s, %d rounds of %d events", info.valkey_version and "valkey" or "redis",
        info.valkey_version or info.redis_version, sum.seconds, rounds, #kinds)
    say("moved: %d slots, %d keys", moved.slots, moved.keys)
    for i, writer in ipairs(writers) do
        say("writer %d: %d writes, %d not acknowledged, sent elsewhere %d", i, writer.writes,
            writer.unsure, writer.moved)
    end
    say("reads: near %d, redis %d, nothing there %d; slowest %.2f s; refreshes %d (%.2f a second)",
        sum.near, sum.redis, sum.missing, sum.slowest, sum.refreshes,
        sum.refreshes / sum.seconds)
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
    local kinds, strict = kinds_of(bed, options)
    fill(bed, options.fill)
    local path, names = temp.dir() .. "/board", names_of()
    local board = board_of.map(path, #names)
    local region = "casof-" .. posix.C.getpid() -- nobody else's region
    local ports = {}
    for i, node in ipairs(bed.nodes) do ports[i] = node.port end
    local common = {
        names = names, board = path, ports = ports, strict = strict, events = kinds,
        url = "redis://127.0.0.1:" .. bed.nodes[1].port, limit = options.limit + 120,
        near = { shared = region, bytes = REGION_BYTES },
        near_raw = { shared = region, bytes = REGION_BYTES, l0 = false },
    }
    local writers = herd.start({
        count = 2, timeout = options.limit + 240,
        main = function(one) return require("spec.cluster.asof_writer")(one) end,
        params = function(i)
            return with(common, { seed = options.seed + i,
                first = i == 1 and 1 or KEYS / 2 + 1, last = i == 1 and KEYS / 2 or KEYS })
        end,
    })
    writers:wait_events("writing", 2, 60)
    local readers = herd.start({
        count = options.readers, timeout = options.limit + 240,
        main = function(one) return require("spec.cluster.asof_reader")(one) end,
        params = function(i) return with(common, { seed = options.seed + 100 + i, number = i }) end,
    })
    readers:wait_events("reading", options.readers, 60)
    local ok, rounds = pcall(go_through, bed, board, kinds, options)
    board:stop()
    local joined, cause = pcall(readers.join, readers)
    if not ok then say("the cluster: %s", rounds) end
    os.remove("/dev/shm/redcache-" .. region) -- Linux keeps shared memory there
    if not joined then error(cause, 0) end
    writers:join(60)
    local sum = add_up(readers.results)
    tell(bed, sum, writers.results, ok and rounds or 0, kinds)
    bed:stop()
    if sum.violations > 0 then return 1 end
    return ok and is_enough(sum.checks, rounds, options) and 0 or 2
end

os.exit(main(), true)
