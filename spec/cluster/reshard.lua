--- What does a load lose while 1,000 slots move?
--
--     script/lua spec/cluster/reshard.lua [--rounds N] [--slots N] [--callers N] [--keys N]
--                                         [--seconds S] [--server PROGRAM] [--how migrate|atomic]
--                                         [--rate N]
--
-- What:   a cluster of six nodes with N keys. Slots move, there and back again, and a load goes on;
--         in turns that is callers of redcache on all keys; the same on keys of other slots alone
--         ("apart"); the same calls by a client that does no more than follow slots ("raw",
--         reshard_raw.lua); and redis-benchmark, each of whose connections stays with one node
--         ("plain"). The servers, who moves the slots and the load share this machine's processors:
--         what "apart" loses is no matter of following slots, and what "raw" loses, whose callers
--         wait for a busy node as ours do, is none of redcache. Calls that the masters have done
--         are counted for some seconds before, during the move, and for some seconds behind it.
--         --rate: the callers make so many calls per second, as far as they can, and not as many
--         as they can ("plain" cannot do that).
-- Answer: the last line is "N errors; during the move redcache X x of before and after, apart Y x,
--         raw Z x, plain P x; as many calls as A x raw", medians of the rounds. A client that
--         needs less of a processor has more to lose, and the move ends sooner beside it: so the
--         status is 0 where there are no errors, and as many calls were done during the move as 0.8
--         x of raw's.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/reshard%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local process = require("spec.support.process")
local worker = require("spec.support.worker")

local say = arguments.say

local AT_ONCE = 1000
local VALUE = ("x"):rep(100)
local SETTLE = 0.5
local KEPT = 0.8 -- of the calls that a client can make during the move
local LOADS, PACED = { "redcache", "raw", "apart", "plain" }, { "redcache", "raw", "apart" }

local USAGE = "usage: script/lua spec/cluster/reshard.lua [--rounds N] [--slots N] [--callers N]"
    .. " [--keys N] [--seconds S] [--server PROGRAM] [--how migrate|atomic]"
    .. " [--rate N]\n"

local function read_arguments(words)
    local options = { rounds = 5, slots = 1000, callers = 16, keys = 50000, seconds = 2,
        how = "migrate" }
    local known = {
        rounds = tonumber, slots = tonumber, callers = tonumber, keys = tonumber,
        seconds = tonumber, server = tostring, how = tostring,
        rate = tonumber,
    }
    return arguments.read(words, USAGE, options, known)
end

-- All keys, each at its owner.
local function fill(bed, count)
    local batches = {}
    local function send(node)
        node.filler:pipeline(batches[node])
        batches[node] = nil
    end
    local map = bed:map()
    for i = 1, count do
        local key = "key:" .. i
        local slot, owner = cluster.slot(key), nil
        for _, range in ipairs(map) do
            if slot >= range.first and slot <= range.last then owner = bed:node(range.id) end
        end
        owner.filler = owner.filler or owner:client()
        batches[owner] = batches[owner] or {}
        table.insert(batches[owner], { "SET", key, VALUE })
        if #batches[owner] == AT_ONCE then send(owner) end
    end
    for _, node in ipairs(bed.nodes) do
        if batches[node] then send(node) end
    end
end

local function calls_done(bed)
    local sum = 0
    for i = 1, bed.masters do
        local stats = bed.nodes[i]:commandstats()
        for _, name in ipairs({ "get", "mget", "set" }) do
            sum = sum + (stats[name] and stats[name].calls or 0)
        end
    end
    return sum
end

-- Calls per second while fn runs.
local function rate(bed, fn)
    local began, before = clock.now(), calls_done(bed)
    fn()
    return (calls_done(bed) - before) / (clock.now() - began), clock.now() - began
end

local loads = {}

local function start_callers(bed, options, file, first_slot)
    local callers = worker.start({ file = file, params = {
        url = bed:url(), port = bed.nodes[1].port, callers = options.callers, keys = options.keys,
        first_slot = first_slot or 0, rate = options.rate } })
    callers:event("working")
    return function()
        callers:send({ stop = true })
        return callers:join(60)
    end
end

function loads.redcache(bed, options, first_slot)
    return start_callers(bed, options, "spec/cluster/reshard_load.lua", first_slot)
end

function loads.raw(bed, options)
    return start_callers(bed, options, "spec/cluster/reshard_raw.lua")
end

function loads.apart(bed, options) return loads.redcache(bed, options, options.slots) end

function loads.plain(bed, options)
    local child = process.spawn({ "redis-benchmark", "--cluster", "-h", "127.0.0.1", "-p",
        bed.nodes[1].port, "-c", options.callers, "-t", "get", "-n", 1000000000,
        "-r", options.keys, "-q", stdout = "/dev/null", stderr = "/dev/null" })
    return function()
        local ended = child:poll()
        child:kill()
        if ended then error("redis-benchmark ended before it was asked to", 0) end
    end
end

-- The rates before, during and behind a move, and what the load told at its end.
local function measure(bed, options, load, from, to)
    local stop = loads[load](bed, options)
    clock.sleep(SETTLE)
    local function wait() clock.sleep(options.seconds) end
    local before = rate(bed, wait)
    local during, seconds = rate(bed, function()
        bed:move(0, options.slots - 1, from, to, options.how)
    end)
    bed:agree()
    local after = rate(bed, wait)
    return { before = before, during = during, after = after, seconds = seconds,
        kept = 2 * during / (before + after), told = stop() }
end

local function median(list)
    table.sort(list)
    return list[math.ceil(#list / 2)]
end

local function tell(load, round, one)
    say("%d %-8s before %6.0f/s, during %6.0f/s (%.1f s), after %6.0f/s: %.2f x%s", round, load,
        one.before, one.during, one.seconds, one.after, one.kept,
        one.told and ("; slowest %.3f s, sent elsewhere %d"):format(one.told.slowest,
            one.told.redirections) or "")
end

local function main()
    local options = read_arguments(arg)
    local bed = cluster.start({ program = options.server })
    fill(bed, options.keys)
    say("%s, %d keys, %d slots, %d callers", bed.version, options.keys, options.slots,
        options.callers)
    local kept, during, errors = {}, {}, 0
    for _, load in ipairs(LOADS) do kept[load], during[load] = {}, {} end
    local here_now, there = bed.nodes[1], bed.nodes[2]
    for round = 1, options.rounds do
        for _, load in ipairs(options.rate and PACED or LOADS) do
            local one = measure(bed, options, load, here_now, there)
            here_now, there = there, here_now
            tell(load, round, one)
            table.insert(kept[load], one.kept)
            table.insert(during[load], one.during)
            for code, count in pairs(one.told and one.told.errors or {}) do
                say("  errors: %s %d", code, count)
                errors = errors + count
            end
        end
    end
    bed:stop()
    local as_many = median(during.redcache) / median(during.raw)
    say("%d errors; during the move redcache %.2f x of before and after, apart %.2f x, raw %.2f x,"
        .. " plain %s; as many calls as %.2f x raw", errors, median(kept.redcache),
        median(kept.apart), median(kept.raw),
        options.rate and "-" or ("%.2f x"):format(median(kept.plain)), as_many)
    return errors == 0 and as_many >= KEPT and 0 or 1
end

os.exit(main(), true)
