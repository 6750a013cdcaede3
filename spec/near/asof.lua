--- The as-of checker: is a value of the near cache ever older than promised?
--
--     script/lua spec/near/asof.lua [--checks N] [--readers P] [--seconds S] [--limit S]
--                                   [--server PROGRAM] [--seed N] [--mutant table | deaf]
--
-- What:   a server, foreign and own writers, and reader processes, which share one region and have
--         one each of their own. asof_reader.lua says what is wrong.
-- Ends:   after N checks and S seconds; in any case after --limit seconds.
-- Mutant: ends at the first violation, which has to come: "table" reads through a table that nobody
--         invalidates, "deaf" through near caches whose server does not know that it should track.
-- Answer: the last line is "N checks, N violations"; the status is 0 without violations, 1 with, 2
--         where fewer checks were made than asked for.

local here = (arg and arg[0] or ""):match("^(.*)spec/near/asof%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local board_of = require("spec.near.board")
local herd = require("spec.support.herd")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local say = arguments.say

local FOREIGN_KEYS, REDCACHE_KEYS = 40, 24
local REGION_BYTES = 1024 * 1024

local USAGE = "usage: script/lua spec/near/asof.lua [--checks N] [--readers P] [--seconds S]"
    .. " [--limit S] [--server PROGRAM] [--seed N] [--mutant table | deaf]\n"

local function read_arguments(words)
    local options = {
        checks = 1e7, readers = 2, seconds = 10, limit = 600, seed = os.time() % 100000,
    }
    local known = {
        checks = tonumber, readers = tonumber, seconds = tonumber, limit = tonumber,
        seed = tonumber, server = tostring, mutant = tostring,
    }
    return arguments.read(words, USAGE, options, known)
end

local function key_names()
    local names = {}
    for i = 1, FOREIGN_KEYS do names[i] = "plain:" .. i end
    for i = 1, REDCACHE_KEYS do names[FOREIGN_KEYS + i] = "entry:" .. i end
    return names
end

-- Where caches connect to. A deaf one's connections never become tracked, and nobody tells them.
local function url_of(redis, mutant)
    if mutant ~= "deaf" then return redis:url() end
    local line = proxy.start(redis)
    line:rule({ command = "client|tracking", reply = "+OK\r\n" })
    return line:url()
end

local function with(common, more)
    for name, value in pairs(common) do
        if more[name] == nil then more[name] = value end
    end
    return more
end

local function start_writers(common, options)
    local writers = herd.start({
        count = 2, timeout = options.limit + 60,
        main = function(one) return require("spec.near.asof_writer")(one) end,
        params = function(i)
            local more = i == 1 and { kind = "foreign", first = 1, last = FOREIGN_KEYS }
                or { kind = "redcache", first = FOREIGN_KEYS + 1,
                    last = FOREIGN_KEYS + REDCACHE_KEYS }
            more.seed, more.limit = options.seed + i, options.limit + 30
            return with(common, more)
        end,
    })
    writers:wait_events("writing", 2, 30)
    return writers
end

local function start_readers(common, options)
    return herd.start({
        count = options.readers, timeout = options.limit + 60,
        main = function(one) return require("spec.near.asof_reader")(one) end,
        params = function(i)
            return with(common, {
                seed = options.seed + 100 + i, limit = options.limit,
                mutant = options.mutant, seconds = options.seconds,
                checks = math.ceil(options.checks / options.readers),
            })
        end,
    })
end

-- Adds up what the readers tell: numbers, and tables of numbers and texts.
local function add_up(results)
    local sum = { told = {}, errors = {}, histogram = {}, worst = 0, seconds = 0 }
    for _, result in ipairs(results) do
        for name, value in pairs(result) do
            if name == "told" then
                for _, text in ipairs(value) do sum.told[#sum.told + 1] = text end
            elseif name == "worst" or name == "seconds" then
                sum[name] = math.max(sum[name], value)
            elseif type(value) == "table" then
                for key, count in pairs(value) do
                    key = tonumber(key) or key
                    sum[name][key] = (sum[name][key] or 0) + count
                end
            else
                sum[name] = (sum[name] or 0) + value
            end
        end
    end
    return sum
end

-- The upper bound in ms of the bucket with the given part of all in and below it.
local function quantile(histogram, part)
    local total, seen = 0, 0
    for _, count in pairs(histogram) do total = total + count end
    for b = 0, 64 do
        seen = seen + (histogram[b] or 0)
        if seen >= total * part then return total, 2 ^ b / 1000 end
    end
end

local function tell(redis, options, sum, writers)
    local info = redis:info("server")
    say("%s %s, %d readers, %.1f s, seed %d", info.valkey_version and "valkey" or "redis",
        info.valkey_version or info.redis_version, options.readers, sum.seconds, options.seed)
    say("writes: foreign %d, with %d flushes and the ends of %d connections; by redcache %d, of "
        .. "which %d were flushed away", writers[1].writes, writers[1].flushes, writers[1].kills,
        writers[2].writes, writers[2].lost)
    say("reads: l0 %d, near %d, redis %d, with fresh %d, nothing there %d", sum.l0, sum.near,
        sum.redis, sum.fresh, sum.missing)
    for code, count in pairs(sum.errors) do say("errors: %s %d", code, count) end
    local total, median = quantile(sum.histogram, 0.5)
    local _, most = quantile(sum.histogram, 0.99)
    say("served although something newer was acknowledged: %d; for up to %g ms (p50), %g ms "
        .. "(p99), %.3f ms (max)", total, median, most, sum.worst * 1000)
    for _, text in ipairs(sum.told) do say("wrong: %s", text) end
    say("%d checks, %d violations", sum.checks, sum.violations)
end

local function main()
    local options = read_arguments(arg)
    local redis = server.start({ program = options.server })
    local path = temp.dir() .. "/board"
    local board = board_of.map(path, #key_names())
    -- Named by the process: nobody else's region, even when the machine runs this twice.
    local region = "asof-" .. posix.C.getpid()
    local common = {
        names = key_names(), board = path, path = redis.path,
        url = url_of(redis, options.mutant),
        near = { shared = region, bytes = REGION_BYTES },
        near_raw = { shared = region, bytes = REGION_BYTES, l0 = false },
    }
    local writers = start_writers(common, options)
    local readers = start_readers(common, options)
    local ok, err = pcall(readers.join, readers)
    board:stop()
    -- Linux keeps shared memory there; nobody else knows this name.
    os.remove("/dev/shm/redcache-" .. region)
    if not ok then error(err, 0) end
    writers:join(60)
    local sum = add_up(readers.results)
    tell(redis, options, sum, writers.results)
    redis:stop()
    return sum.violations > 0 and 1 or sum.checks < options.checks and 2 or 0
end

os.exit(main(), true)
