--- Read-your-writes on the machine: two processes write in turns, each reads what the other has
-- just written.
--
--     script/lua spec/near/alternate.lua [--alternations N] [--seconds S] [--server PROGRAM]
--                                        [--pushes off] [--mutant apart]
--
-- What:   both have the key in memory (region and L0). One writes i, reads it, and tells the other
--         through a cell of shared memory; the other must read i. Then it writes i + 1.
-- Pushes: off: the server does not know that it should tell anybody of changes. The region alone
--         has to do; where pushes are fast, they would hide that it does not.
-- Ends:   after N alternations or S seconds.
-- Mutant: ends at the first violation, which has to come: each process has a region of its own, and
--         there are no pushes.
-- Answer: the last line is "N alternations, N violations"; the status is 0 without violations.

local here = (arg and arg[0] or ""):match("^(.*)spec/near/alternate%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local arguments = require("spec.support.arguments")
local herd = require("spec.support.herd")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local REGION_BYTES = 1024 * 1024

local USAGE = "usage: script/lua spec/near/alternate.lua [--alternations N] [--seconds S]"
    .. " [--server PROGRAM] [--pushes off] [--mutant apart]\n"

local function read_arguments(words)
    local options = { alternations = 1e6, seconds = 600 }
    local known = {
        alternations = tonumber, seconds = tonumber, server = tostring, mutant = tostring,
        pushes = tostring,
    }
    arguments.read(words, USAGE, options, known)
    if options.mutant then options.pushes = "off" end
    return options
end

local function take_turns(one)
    local cells = require("spec.near.cells")
    local support = require("spec.support.clock")
    local params = one.params
    -- [0]: the newest number that Redis has acknowledged; [1]: 1 ends it.
    local shared = cells.map(params.cells, 8)
    local cache = require("redcache").new({
        url = params.url, near = params.near, commandTimeout = 20,
    })
    local ways = {
        function(i) return cache:set("k", i) end,
        function(i) return cache:set("k", i) end,
        function(i) return cache:set("k", i) end,
        function(i) return (cache:setMulti({ other = 1, k = i })) end,
        function(i) return cache:put("k", 60, function() return i end) == i end,
        function(i)
            return cache:delete("k") and cache:remember("k", 60, function() return i end) == i
        end,
        function(i)
            return cache:deleteMulti({ "k", "other" }) and cache:set("k", i)
        end,
    }
    local seen = { l0 = 0, near = 0, redis = 0, loader = 0, violations = 0, told = {} }

    local function read(i)
        local value, err, source = cache:get("k")
        assert(value or not err, tostring(err))
        seen[source or "missing"] = (seen[source or "missing"] or 0) + 1
        if value ~= i then
            seen.violations = seen.violations + 1
            if #seen.told < 10 then
                seen.told[#seen.told + 1] = ("%s instead of %d, from %s"):format(
                    tostring(value), i, tostring(source))
            end
            if params.mutant then shared[1] = 1 end
        end
    end

    local mine = one.index - 1 -- Numbers with this remainder are written here.
    one:ready()
    local ends, i = support.now() + params.seconds, 0
    while i < params.alternations and shared[1] == 0 do
        i = i + 1
        if i % 2 == mine then
            assert(ways[i % #ways + 1](i), "could not write")
            -- From Redis, from the region, from L0: in memory when the other writes.
            for _ = 1, 3 do read(i) end
            shared[0] = i
        else
            local spins = 0
            while shared[0] < i and shared[1] == 0 do
                spins = spins + 1
                if spins % 64 == 0 then cells.yield() end
            end
            if shared[1] ~= 0 then break end
            for _ = 1, 2 do read(i) end
            if i % 256 == 0 and support.now() > ends then shared[1] = 1 end
        end
    end
    -- Not before the other has seen the last.
    if shared[1] == 0 then one:ready() end
    cache:close()
    seen.alternations = i
    return seen
end

local function main()
    local options = read_arguments(arg)
    local redis = server.start({ program = options.server })
    local url = redis:url()
    if options.pushes == "off" then
        local line = proxy.start(redis)
        line:rule({ command = "client|tracking", reply = "+OK\r\n" })
        url = line:url()
    end
    local region = "alternate-" .. posix.C.getpid()
    local path = temp.dir() .. "/cells"
    local turns = herd.start({
        count = 2, timeout = options.seconds + 60, main = take_turns,
        params = {
            url = url, cells = path, alternations = options.alternations,
            seconds = options.seconds, mutant = options.mutant,
            near = options.mutant == "apart" and { bytes = REGION_BYTES }
                or { shared = region, bytes = REGION_BYTES },
        },
    })
    local ok, err = pcall(turns.join, turns)
    os.remove("/dev/shm/redcache-" .. region)
    if not ok then error(err, 0) end
    local one, other = turns.results[1], turns.results[2]
    for _, name in ipairs({ "l0", "near", "redis" }) do
        print(("reads from %s: %d"):format(name, one[name] + other[name]))
    end
    for _, result in ipairs(turns.results) do
        for _, text in ipairs(result.told) do print("wrong: " .. text) end
    end
    local violations = one.violations + other.violations
    print(("%d alternations, %d violations"):format(
        math.min(one.alternations, other.alternations), violations))
    redis:stop()
    return violations > 0 and 1 or 0
end

os.exit(main(), true)
