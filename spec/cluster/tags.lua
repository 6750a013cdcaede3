--- Tags between processes: is a value ever read that an invalidation has voided?
--
--     script/lua spec/cluster/tags.lua [--checks N] [--seconds S] [--limit S] [--pause S]
--                                      [--server PROGRAM] [--seed N] [--mutant unchecked | late]
--
-- What:   a cluster of three masters. A sets entries, B invalidates their tags, hard and softly,
--         one by one and the namespace at once, evicts generations, flushes masters and kills
--         connections (tags_writer.lua); C and D, which share a region, read and load, and D
--         invalidates, too (tags_reader.lua); the workers of an nginx read and load in a region of
--         their own (spec/nginx/tags_reader.lua). tags_world.lua says what is wrong. --pause:
--         seconds between two invalidations of each of the two, on average (0.02).
-- Ends:   after N checks and S seconds; in any case after --limit seconds.
-- Mutant: of C and D, whatever they read or store; ends at the first violation, which has to come.
--         tags_reader.lua tells which there are.
-- Answer: the last line is "N checks, N violations"; the status is 0 without violations, 1 with, 2
--         where fewer checks were made than asked for.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/tags%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local herd = require("spec.support.herd")
local nginx = require("spec.support.nginx")
local posix = require("spec.support.posix")
local reader = require("spec.nginx.tags_reader")
local tally = require("spec.nginx.tally")
local tags_world = require("spec.cluster.tags_world")
local temp = require("spec.support.temp")

local say = arguments.say

local READERS, WORKERS = 2, 2
local MAX_STALE = 0.2
-- A read of an nginx may be joined by others so long after its request (core/engine/fetch.c), and a
-- moment.
local JOIN_SECONDS = 0.005 + 0.001
local REGION_BYTES = 4 * 1024 * 1024
local LOOK_SECONDS = 0.02
local LEAST_SHARE = 0.02 -- of the checks, by each of C and D: an nginx makes most

local USAGE = "usage: script/lua spec/cluster/tags.lua [--checks N] [--seconds S] [--limit S]"
    .. " [--pause S] [--server PROGRAM] [--seed N] [--mutant unchecked | late]\n"

local function read_arguments(words)
    local options = { checks = 1e7, seconds = 5, limit = 600, pause = 0.02,
        seed = os.time() % 100000 }
    return arguments.read(words, USAGE, options, {
        checks = tonumber, seconds = tonumber, limit = tonumber, pause = tonumber,
        seed = tonumber, server = tostring, mutant = tostring,
    })
end

local function with(common, more)
    for name, value in pairs(common) do
        if more[name] == nil then more[name] = value end
    end
    return more
end

-- By tag: the number of the master that has its generations.
local function owners_of(bed)
    local owners = {}
    for tag = 1, tags_world.NAMESPACE do
        local owner = bed:owner(cluster.slot(tags_world.redis_key(tag)))
        for number = 1, bed.masters do
            if bed.nodes[number] == owner then owners[tag] = number end
        end
    end
    return owners
end

local function start_readers(common, options, region)
    local readers = herd.start({
        count = READERS, timeout = options.limit + 60,
        main = function(one) return require("spec.cluster.tags_reader")(one) end,
        params = function(number)
            return with(common, {
                number = number, mutant = options.mutant, seed = options.seed + number,
                invalidates = number == READERS,
                near = { shared = region, bytes = REGION_BYTES, l0 = number ~= READERS },
                limits = { foreign = MAX_STALE, own = 0 }, exact = 0,
            })
        end,
    })
    readers:wait_events("reading", READERS, 60)
    return readers
end

local function start_writers(common, options, bed)
    local ports = {}
    for number = 1, bed.masters do ports[number] = bed.nodes[number].port end
    local kinds = { "sets", "invalidates" }
    local writers = herd.start({
        count = #kinds, timeout = options.limit + 60,
        main = function(one) return require("spec.cluster.tags_writer")(one) end,
        params = function(number)
            return with(common, { kind = kinds[number], seed = options.seed + 100 + number,
                ports = ports, owners = owners_of(bed),
                limits = { foreign = MAX_STALE, own = MAX_STALE }, exact = 0 })
        end,
    })
    writers:wait_events("writing", #kinds, 60)
    return writers
end

local function start_nginx(common, options, dir)
    return nginx.start({
        workers = WORKERS,
        init = ([[
            cache = require("redcache").new({
                url = "%s", scheduler = "resty", namespace = "app", generation = true,
                maxStale = %g, grace = 100, commandTimeout = 2, leaseTtl = 2, waitTimeout = 5,
            })
            reader = require("spec.nginx.tags_reader")
        ]]):format(common.url, MAX_STALE),
        init_worker = ([[
            reader.start({
                cache = cache, board = "%s", truth = "%s", tally = "%s/tally",
                limits = { foreign = %g, own = %g }, exact = %g, seed = %d,
            })
        ]]):format(common.board, common.truth, dir, MAX_STALE, MAX_STALE, JOIN_SECONDS,
            options.seed + 200),
    })
end

-- Whether each of C and D has made its share.
local function are_heard(board, checks)
    local before = 0
    for number = 1, READERS do
        local sum = board:checks(number)
        if sum - before < checks * LEAST_SHARE then return false end
        before = sum
    end
    return true
end

-- Waits until there are enough checks, a violation where a mutant is planted, or the limit.
local function go_on(board, options, dir)
    local began = clock.now()
    while not board:is_stopped() do
        local spent = clock.now() - began
        local web = tally.read(dir .. "/tally", reader.COUNTS, WORKERS)
        local checks = board:checks(READERS) + web.checks
        local is_enough = checks >= options.checks and spent >= options.seconds
            and are_heard(board, options.checks)
        if options.mutant then is_enough = web.violations > 0 end
        if spent >= options.limit or is_enough then break end
        clock.sleep(LOOK_SECONDS)
    end
    board:stop()
    return clock.now() - began
end

local function tell(bed, options, seconds, readers, writers, web)
    local a, b, c, d = writers[1], writers[2], readers[1], readers[2]
    say("%s, %.1f s, seed %d", bed.version, seconds, options.seed)
    say("A: %d sets, %d of them failed", a.sets, a.failed)
    say("B: %d invalidations, %d soft ones, %d of the namespace; %d generations evicted, %d masters"
        .. " flushed, the ends of %d connections; %d not acknowledged", b.hard, b.soft, b.instant,
        b.evicted, b.flushed, b.kills, b.unsure)
    for _, name in ipairs({ "C", "D" }) do
        local one = name == "C" and c or d
        say("%s: %d checks (l0 %d, near %d, redis %d, stale %d, of batches %d), %d loads, %d "
            .. "missing; %d invalidations, %d not acknowledged", name, one.checks, one.l0, one.near,
            one.redis, one.stale, one.many, one.loads, one.missing, one.invalidated, one.unsure)
        for code, count in pairs(one.errors) do say("%s: errors: %s %d", name, code, count) end
        for _, text in ipairs(one.told) do say("wrong in %s: %s", name, text) end
    end
    say("nginx: %d checks (l0 %d, near %d, redis %d, stale %d), %d loads, %d missing, %d errors",
        web.checks, web.l0, web.near, web.redis, web.stale, web.loader, web.missing, web.errors)
    local checks = c.checks + d.checks + web.checks
    local violations = c.violations + d.violations + web.violations
    say("%d checks, %d violations", checks, violations)
    return violations > 0 and 1 or checks < options.checks and 2 or 0
end

local function main()
    local options = read_arguments(arg)
    local bed = cluster.start({ program = options.server, replicas = 0 })
    local dir = temp.dir()
    local common = {
        url = bed:url(), max_stale = MAX_STALE, board = dir .. "/board", truth = dir .. "/truth",
        pause = options.pause,
    }
    local board = tags_world.open(with(common, { limits = {}, exact = 0 })).board
    local region = "tags-" .. posix.C.getpid() -- nobody else's
    local writers = start_writers(common, options, bed)
    local readers = start_readers(common, options, region)
    local web = start_nginx(common, options, dir)
    local seconds = go_on(board, options, dir)
    local ok, cause = pcall(readers.join, readers)
    os.remove("/dev/shm/redcache-" .. region) -- Linux keeps shared memory there
    if not ok then error(cause, 0) end
    writers:join(60)
    for _, line in ipairs(web:complaints()) do
        local text = line:match("wrong: (.*), context")
        if text then say("wrong in nginx: %s", text) end
    end
    web:stop()
    local status = tell(bed, options, seconds, readers.results, writers.results,
        (tally.read(dir .. "/tally", reader.COUNTS, WORKERS)))
    bed:stop()
    return status
end

os.exit(main(), true)
