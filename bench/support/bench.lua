-- bench - one question, asked in both states of the machine: table, bars, JSON.
--
-- What:   run() measures idle and then with one busy process, shows medians and spread, compares
--         ratios with their bars. side_by_side() alternates what is compared, round by round.
-- Args:   --rounds N   --state idle|busy   --out FILE (build/bench/NAME.json)   --quick (a few
--         calls, to see that the bench works: no bar is judged)   --rivals on|off and --peer-go DIR
--         (bench/support/peer.lua), and those that the question names
-- Not:    what is measured (the bench itself).

local ffi = require("ffi")
local clock = require("spec.support.clock")
local machine = require("bench.support.machine")
local posix = require("spec.support.posix")
local server = require("spec.support.server")

-- What a process loads a second after its start is no part of a figure. Older builds have no such.
pcall(require, "redcache.all")

local bench = {}

local ROUNDS = 9
local STATES = { "idle", "busy" }

-- Random values: those like "vvv...17" collide in LuaJIT's sparse string hash, three times slower.
local random = math.random
math.randomseed(os.time())

---Whether this run is only to show that the bench works.
bench.quick = false
for _, word in ipairs(rawget(_G, "arg") or {}) do
    bench.quick = bench.quick or word == "--quick"
end

---How many: `count`, in a quick run `few`.
function bench.sized(count, few)
    return bench.quick and few or count
end

---A random printable string.
function bench.text(len)
    local bytes = {}
    for i = 1, len do
        bytes[i] = string.char(random(33, 126))
    end
    return table.concat(bytes)
end

---A list of `count` different random strings.
function bench.texts(count, len)
    local list, seen = {}, {}
    while #list < count do
        local text = bench.text(len)
        if not seen[text] then
            seen[text] = true
            list[#list + 1] = text
        end
    end
    return list
end

-- Statistics --------------------------------------------------------------------------------------

-- The value below which `share` of a sorted list lies.
local function quantile(sorted, share)
    return sorted[math.max(math.ceil(#sorted * share), 1)]
end

local function summary(values)
    local sorted = { unpack(values) }
    table.sort(sorted)
    return { median = quantile(sorted, 0.5), min = sorted[1], max = sorted[#sorted] }
end

local instant = ffi.new("struct rcbed_timespec")
local CLOCKS = { process = 2, thread = 3 }

---Seconds of a processor that all threads of this process have had, or this "thread".
---@param whose string|nil "process" (default) or "thread"
function bench.processor(whose)
    posix.C.clock_gettime(CLOCKS[whose or "process"], instant)
    return tonumber(instant.tv_sec) + tonumber(instant.tv_nsec) * 1e-9
end

---Bytes of Lua that fn allocates. The collector stands still meanwhile.
function bench.allocated(fn)
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    fn()
    local after = collectgarbage("count")
    collectgarbage("restart")
    return (after - before) * 1024
end

local now = clock.now
local times = {} -- room that is used again

---Calls fn(keys[1]), fn(keys[2]) ..., `calls` times; p50 and p99 of one call in microseconds.
function bench.latency(fn, keys, calls)
    local count = #keys
    collectgarbage()
    for i = #times, calls + 1, -1 do
        times[i] = nil
    end
    local before = now()
    for i = 1, calls do
        fn(keys[i % count + 1])
        local after = now()
        times[i] = after - before
        before = after
    end
    table.sort(times)
    return { p50 = quantile(times, 0.5) * 1e6, p99 = quantile(times, 0.99) * 1e6 }
end

-- Counts ------------------------------------------------------------------------------------------

-- name, unit: in the order in which they are shown.
local COUNTS = { { "commands", "commands" }, { "wire", "bytes of the wire" },
    { "calls", "system calls" }, { "instructions", "instructions" }, { "lua", "bytes of Lua" } }

local counted -- the server whose commands are counted; nil where nothing is to be counted again

-- What one operation takes that noise does not change. prepare() -> fn, operations
local function count_operation(redis, prepare)
    local counts = require("bench.support.compare_count") -- it looks for tools
    local pid, taken = posix.C.getpid(), {}
    local fn, operations = prepare()
    taken.commands, taken.wire = counts.commands(redis, function()
        taken.lua = bench.allocated(fn)
    end)
    if not bench.quick then
        taken.instructions = counts.instructions_of(pid, (prepare()))
        taken.calls = counts.system_calls(pid, (prepare()))
    end
    for name, value in pairs(taken) do taken[name] = value / operations end
    return taken
end

local function show_counts(sample)
    local words = {}
    for _, count in ipairs(COUNTS) do
        local value = sample.counts[count[1]]
        words[#words + 1] = value and ("%.4g %s"):format(value, count[2])
            or count[2] .. " not counted"
    end
    print(("count  %s: %s"):format(sample.name, table.concat(words, ", ")))
end

-- Rounds ------------------------------------------------------------------------------------------

---Runs each of `sides` ({name, run}) once per round, after one round that does not count; every
---other round backwards, so that nobody always comes after the same one. run() returns figures by
---name. A side of a rival that is not there is {name, missing = why}: it is said, and left out.
---Where a side of ours has a function `count`, which returns what to run and how many operations
---that makes, what one of them takes is counted, once for all states.
function bench.side_by_side(sides, rounds)
    local samples = {}
    for s, side in ipairs(sides) do
        samples[s] = { name = side[1], rounds = {}, missing = not side[2] and side.missing or nil }
    end
    for round = bench.sized(0, 1), rounds do
        local first, last, step = 1, #sides, 1
        if round % 2 == 1 then
            first, last, step = last, first, -1
        end
        for s = first, last, step do
            local figures = sides[s][2] and sides[s][2]()
            samples[s].rounds[round] = round > 0 and figures or nil
        end
    end
    for s, side in ipairs(counted and sides or {}) do
        samples[s].counts = side.count and count_operation(counted, side.count)
    end
    return samples
end

-- Report ------------------------------------------------------------------------------------------

local function find(samples, name)
    for _, sample in ipairs(samples) do
        if sample.name == name then
            return sample
        end
    end
    error("nothing was measured under the name '" .. name .. "'")
end

local function values_of(sample, figure)
    local values = {}
    for round, figures in ipairs(sample.rounds) do
        values[round] = figures[figure]
    end
    return values
end

local function number(value)
    return value >= 1000 and ("%.0f"):format(value) or value >= 10 and ("%.1f"):format(value)
        or ("%.2f"):format(value)
end

local ROW = "%-6s %-44s %12s %12s %12s"

local function show(state, label, values)
    local s = summary(values)
    print(ROW:format(state, label, number(s.median), number(s.min), number(s.max)))
    return s
end

-- Rounds are compared with themselves: what disturbed one disturbed both of its sides.
local function ratios_of(ratio, samples)
    local ours = values_of(find(samples, ratio.of), ratio.figure)
    local theirs = values_of(find(samples, ratio.to), ratio.figure)
    local values = {}
    for round = 1, #ours do
        values[round] = ours[round] / theirs[round]
    end
    return values
end

local function compare(state, asked, s, label)
    s.of, s.to, s.figure, s.label = asked.of, asked.to, asked.figure, label
    if bench.quick then return s end
    local limit = (asked.at_most or asked.at_least or {})[state]
    if limit then
        local is_max = asked.at_most ~= nil
        s.bar, s.sense = limit, is_max and "<=" or ">="
        if is_max then
            s.ok = s.median <= limit
        else
            s.ok = s.median >= limit
        end
    end
    return s
end

local function show_ratio(state, ratio, samples)
    local label = ("%s / %s, %s"):format(ratio.of, ratio.to, ratio.figure)
    return compare(state, ratio, show(state, label, ratios_of(ratio, samples)), label)
end

-- The figure itself has a bar; it is among the sides already.
local function judge(state, limit, samples)
    local values = values_of(find(samples, limit.of), limit.figure)
    return compare(state, limit, summary(values), ("%s, %s"):format(limit.of, limit.figure))
end

local function report(state, question, samples)
    local out = { sides = {}, ratios = {}, limits = {} }
    for _, sample in ipairs(samples) do
        local side = { name = sample.name, rounds = sample.rounds, figures = {},
            missing = sample.missing, counts = sample.counts }
        if sample.missing then
            print(("%-6s %s: not measured, %s"):format(state, sample.name, sample.missing))
        end
        for _, figure in ipairs(question.figures) do
            local values = values_of(sample, figure.name)
            side.figures[figure.name] = values[1] and show(state,
                ("%s, %s %s"):format(sample.name, figure.name, figure.unit), values)
        end
        out.sides[#out.sides + 1] = side
    end
    for _, sample in ipairs(samples) do
        if sample.counts then show_counts(sample) end
    end
    for _, ratio in ipairs(question.ratios) do
        if not (find(samples, ratio.of).missing or find(samples, ratio.to).missing) then
            out.ratios[#out.ratios + 1] = show_ratio(state, ratio, samples)
        end
    end
    for _, limit in ipairs(question.limits or {}) do
        out.limits[#out.limits + 1] = judge(state, limit, samples)
    end
    return out
end

local function show_bars(results)
    local all_ok = true
    local function show_bar(state, asked)
        if asked.bar then
            print(("%s, %s: bar: %s %.2f, got %.2f: %s"):format(state, asked.label, asked.sense,
                asked.bar, asked.median, asked.ok and "ok" or "missed"))
            all_ok = all_ok and asked.ok
        end
    end
    for _, state in ipairs(STATES) do
        for _, kind in ipairs({ "ratios", "limits" }) do
            for _, asked in ipairs(results[state] and results[state][kind] or {}) do
                show_bar(state, asked)
            end
        end
    end
    return all_ok
end

local function read_arguments(question)
    local args = {
        rounds = bench.sized(question.rounds or ROUNDS, 1),
        state = bench.sized(nil, "idle"),
        rivals = bench.sized("on", "off"),
        out = (os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/bench/" .. question.name .. ".json",
    }
    local known, usage = {}, ""
    for _, name in ipairs({ "rounds", "state", "out", "rivals", "peer-go" }) do
        known[name] = true
    end
    for _, name in ipairs(question.arguments or {}) do
        known[name] = true
        usage = usage .. " [--" .. name .. " ...]"
    end
    local i = 1
    while arg[i] do
        local name = arg[i]:match("^%-%-([%a-]+)$")
        if known[name] and arg[i + 1] then
            i = i + 1
            args[name] = name == "rounds" and tonumber(arg[i]) or arg[i]
        elseif name ~= "quick" then
            error("usage: " .. question.name .. " [--rounds N] [--state idle|busy] [--out FILE]"
                .. " [--quick] [--rivals on|off] [--peer-go DIR]" .. usage, 0)
        end
        i = i + 1
    end
    return args
end

local function write_json(path, results)
    local folder = path:match("^(.*)/")
    if folder then
        os.execute("mkdir -p '" .. folder .. "'")
    end
    local file = assert(io.open(path, "w"))
    assert(file:write(require("cjson").new().encode(results), "\n"))
    assert(file:close())
end

local function measure(state, question, redis, args)
    -- A quick run has no figures that others could disturb.
    local quiet = not bench.quick and machine.wait_until_quiet() or nil
    local busy = state == "busy" and machine.start_busy()
    local load = machine.load()
    local ok, samples = xpcall(function()
        return question.measure(redis, args.rounds, args)
    end, debug.traceback)
    if busy then
        busy:kill()
    end
    if not ok then
        error(samples, 0)
    end
    local result = report(state, question, samples)
    result.load, result.busy_cpus_before = load, quiet
    return result
end

---The same bar in both states of the machine.
---@param limit number
---@return table for at_most and at_least of bench.run
function bench.both(limit)
    return { idle = limit, busy = limit }
end

---Asks a question: name, rounds, figures ({name, unit}; a side may lack some),
---measure(redis, rounds, args) -> samples as of side_by_side, arguments (names of its own), ratios
---({of, to, figure, at_most | at_least = limit by state}), limits (the same without `to`: bars of
---the figure itself).
function bench.run(question)
    local args = read_arguments(question)
    local redis = server.start()
    local results = { name = question.name, rounds = args.rounds }
    results.redis = redis:info("server").redis_version
    print(("== %s: %d rounds, redis %s"):format(question.name, args.rounds, results.redis))
    print(ROW:format("state", "", "median", "least", "most"))
    counted = redis
    for _, state in ipairs(STATES) do
        if not args.state or args.state == state then
            local result = measure(state, question, redis, args)
            results[state], counted = result, nil
            print(("%-6s load average %.2f%s"):format(state, result.load, result.busy_cpus_before
                and (", %.2f processors busy before"):format(result.busy_cpus_before) or ""))
        end
    end
    redis:stop()
    results.ok = show_bars(results)
    write_json(args.out, results)
    os.exit(results.ok and 0 or 1, true)
end

return bench
