--- What can happen to a cluster while clients work on it: slots move, masters change, stop, are cut
-- off, are killed, all are started anew. Each event leaves a cluster that is whole and of one mind.
--
-- What:   ALL, is_move, kinds, run, go_through.
-- Options of an event: slots (so many move at once; 100), among (slots at one of which the moved
--         ones begin; anywhere), moves (function(from, first, last): these are about to move),
--         give_up (function(master): what this master acknowledges from now on may be lost; the
--         event goes on when it returns).
-- Errors: everything throws; every wait has a deadline.

local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")

local events = {}

--- All but keyless: Redis 7.0 leaves keys of such a slot in replicas, which come back with a
-- failover.
events.ALL = "migrate,atomic,failover,force,takeover,kill,stop,split,restart"

local MOVES = { migrate = true, keyless = true, atomic = true }
local SETTLE, PAUSE = 0.3, 0.5 -- behind an event: what comes late belongs to it; then it is quiet

--- True where slots move and nothing else happens: then the cluster loses nothing.
function events.is_move(kind) return MOVES[kind] == true end

local happen = {}

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
        local among = options.among
        local first = among and among[math.random(#among)] or math.random(0, cluster.SLOTS - 1)
        bed:agree()
        local from, others = bed:owner(first), {}
        for _, node in ipairs(masters_of(bed)) do
            if node ~= from then others[#others + 1] = node end
        end
        local last = last_of(bed, from, first, options.slots or 100)
        if options.moves then options.moves(from, first, last) end
        bed:move(first, last, from, others[math.random(#others)], how)
    end
end

happen.migrate, happen.keyless, happen.atomic = move("migrate"), move("keyless"), move("atomic")

local function give_up(master, options)
    if options.give_up then options.give_up(master) end
end

local function failover(how)
    return function(bed, options)
        local master, replica = pair_of(bed)
        if how then give_up(master, options) end
        bed:failover(replica, how)
    end
end

happen.failover, happen.force, happen.takeover = failover(nil), failover("force"),
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

function happen.kill(bed, options)
    local master, _, slot = pair_of(bed)
    give_up(master, options)
    bed:kill(master)
    wait_heir(bed, master, slot)
    clock.sleep(0.5)
    bed:restart(master)
    whole_again(bed, master)
end

-- Its first answers come before it has heard of its heir.
function happen.stop(bed, options)
    local master, _, slot = pair_of(bed)
    give_up(master, options)
    bed:pause(master)
    wait_heir(bed, master, slot)
    clock.sleep(0.5)
    bed:resume(master)
    whole_again(bed, master)
end

function happen.split(bed, options)
    local master, _, slot = pair_of(bed)
    give_up(master, options)
    bed:split({ master })
    wait_heir(bed, master, slot)
    clock.sleep(1.5)
    bed:heal()
    whole_again(bed, master)
end

function happen.restart(bed, options)
    for _, node in ipairs(masters_of(bed)) do give_up(node, options) end
    for _, node in ipairs(bed.nodes) do bed:kill(node) end
    for _, node in ipairs(bed.nodes) do bed:restart(node) end
    bed:agree(30)
    for _, node in ipairs(bed.nodes) do
        if not bed:is_master(node) then bed:wait_replica(node) end
    end
end

--- The names in a text with commas, without what this cluster's server cannot do; throws where
-- there is no such event.
function events.kinds(bed, text)
    local kinds = {}
    for kind in text:gmatch("%a+") do
        assert(happen[kind], "no such event: " .. kind)
        if kind ~= "atomic" or bed:is_atomic() then kinds[#kinds + 1] = kind end
    end
    return kinds
end

--- Lets all of `kinds` happen in turns until done(rounds) or for `limit` seconds; returns the
-- rounds. begin(code, kind) and finish(code, kind, seconds) stand around each event.
function events.go_through(bed, kinds, options)
    local ends, rounds = clock.now() + options.limit, 0
    while clock.now() < ends and not options.done(rounds) do
        for code, kind in ipairs(kinds) do
            local began = clock.now()
            bed:agree() -- an heir takes over what it has heard of (cluster.lua, failover)
            options.begin(code, kind)
            happen[kind](bed, options)
            clock.sleep(SETTLE)
            options.finish(code, kind, clock.now() - began - SETTLE)
            clock.sleep(PAUSE)
            if clock.now() > ends then break end
        end
        rounds = rounds + 1
    end
    return rounds
end

return events
