-- compare - two builds in turns in one run: time, and what can be counted.
--
-- What:   asks both the same questions, each with its own Lua and its own library. Time: a round
--         starts fresh processes (what addresses do to one is not what the build does), and within
--         it the two take turns, slice by slice; a pair of slices gives a ratio. Counts, once:
--         instructions (valgrind), system calls (strace), Lua's allocations, Redis' commands and
--         bytes of the wire.
-- Args:   BUILD_A BUILD_B [NAME ...] [--rounds N] [--state idle|busy] [--only time|counts]
--         [--limit 1.02] [--wait SECONDS] [--out FILE]
-- Ends:   0; 1 where a row of B is above the limit; 2 where it could not be asked.

local clock = require("spec.support.clock")
local compare_count = require("bench.support.compare_count")
local compare_sides = require("bench.support.compare_sides")
local machine = require("bench.support.machine")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local server = require("spec.support.server")

local USAGE = [[
usage: script/bench compare BUILD_A BUILD_B [NAME ...] [--rounds N] [--state idle|busy]
           [--only time|counts] [--limit RATIO] [--wait SECONDS] [--out FILE]
  BUILD     a checkout with build/ in it (script/setup there); each has its own lua/ and library
  NAME      questions, all when none is given: ]]
local SLICES = 14 -- of each side, per question and round
local CORE = nginx.root .. "/bench/support"

-- name, calls per slice (about 10 ms), calls of the two lengths that are counted; why a question
-- has none.
local QUESTIONS = {
    { "l0", 400000, few = 4000, many = 24000 },
    { "l0_remember", 400000, few = 4000, many = 24000 },
    { "near", 80000, few = 4000, many = 24000 },
    { "near_remember", 80000, few = 4000, many = 24000 },
    { "hit", 400, few = 500, many = 2500, wire = true },
    { "miss", 200, few = 500, many = 2500, wire = true },
    { "set", 400, few = 500, many = 2500, wire = true },
    { "lock", 150, few = 500, many = 2500, wire = true },
    { "multi_hit", 150, few = 50, many = 250, wire = true },
    { "multi_miss", 150, few = 50, many = 250, wire = true },
    { "coroutines_hit", 15000, few = 1000, many = 5000, wire = true },
    { "coroutines_miss", 4000, few = 1000, many = 5000, wire = true },
    { "nginx_wire", 10000, web = true },
    { "nginx_near", 150000, web = true },
    { "nginx_l0", 500000, web = true },
}
-- Paths of the core alone, in C, and calls of the longer of two runs. What a start takes is not the
-- same each time, by some 10,000 instructions.
local CORE_QUESTIONS = {
    { "check", 200000 }, { "near", 50000 }, { "get", 10000 }, { "remember", 10000 },
    { "set", 10000 }, { "miss", 5000 }, { "lock", 5000 },
}
local CORE_FEW = 1000
local COUNTED = 2000 -- calls of which commands, bytes and system calls are counted

-- Statistics --------------------------------------------------------------------------------------

local function quantile(values, share)
    local sorted = { unpack(values) }
    table.sort(sorted)
    return sorted[math.max(1, math.ceil(#sorted * share))]
end

local function summary(values)
    return { median = quantile(values, 0.5), low = quantile(values, 0.25),
        high = quantile(values, 0.75) }
end

local UNITS = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" }, { 0, "ns" } }

local function duration(seconds)
    for _, unit in ipairs(UNITS) do
        if seconds >= unit[1] then
            local scale = unit[1] == 0 and 1e-9 or unit[1]
            return ("%.3g %s"):format(seconds / scale, unit[2])
        end
    end
end

local function amount(number)
    return math.abs(number) >= 1000 and ("%.0f"):format(number) or ("%.3g"):format(number)
end

-- The table ---------------------------------------------------------------------------------------

local ROW = "%-6s %-34s %10s %10s %7s  %-13s %s"

-- B is slower where its ratio is above the limit and not by a few rounds' bad luck. What depends on
-- who was awake (system calls) or on what was compiled (a few bytes of Lua) is shown, not judged.
local function verdict(self, name, ratio, low, high)
    if name:find("^system calls") or name:find("^bytes of Lua") and ratio < 1.1 then
        return ""
    elseif ratio > self.limit and low > 1 then
        self.is_over = true
        return "MORE"
    end
    return ratio < 1 / self.limit and high < 1 and "less" or "same"
end

local NONE = 0.01
local function add(self, state, name, a, b, show, ratios)
    local s = ratios and summary(ratios)
    -- Where A has none, any at all is more; less than NONE per call is what the process did beside.
    local is_same = a == b or not s and a < NONE and b < NONE
    local ratio = s and s.median or is_same and 1 or a <= 0 and math.huge or b / a
    local said = verdict(self, name, ratio, s and s.low or ratio, s and s.high or ratio)
    self.rows[#self.rows + 1] = { state = state, name = name, a = a, b = b,
        ratio = ratio < math.huge and ratio or nil, -- JSON has no infinity
        low = s and s.low, high = s and s.high, verdict = said }
    print(ROW:format(state, name, show(a), show(b), ("%.3f"):format(ratio),
        s and ("%.3f-%.3f"):format(s.low, s.high) or "", said))
    io.stdout:flush()
end

-- What could not be asked is said, never left out.
local function leave_out(self, state, name, why)
    self.rows[#self.rows + 1] = { state = state, name = name, left_out = why }
    print(("%-6s %-34s not asked: %s"):format(state, name, why))
end

-- Time --------------------------------------------------------------------------------------------

-- In turns: A B, B A, A B ... One slice each before that does not count.
local function take_turns(sides, question, into)
    local name, calls = question[1], question[2]
    sides[1]:ask(name, calls)
    sides[2]:ask(name, calls)
    for slice = 1, SLICES do
        local first = slice % 2 == 1 and 1 or 2
        local got = {}
        got[first] = sides[first]:ask(name, calls)
        got[3 - first] = sides[3 - first]:ask(name, calls)
        for figure, values in pairs(into) do
            table.insert(values.a, got[1][figure])
            table.insert(values.b, got[2][figure])
            table.insert(values.ratios, got[2][figure] / got[1][figure])
        end
    end
end

local function start_both(self, round, start)
    local both = {}
    for i = 1, 2 do
        local which = (round + i) % 2 + 1
        both[which] = start(self.sides[which], self.redis)
    end
    return both
end

local function measure_some(self, round, is_web, start)
    local both
    for _, question in ipairs(self.questions) do
        if (question.web or false) == is_web then
            both = both or start_both(self, round, start)
            take_turns(both, question, self.times[question[1]])
        end
    end
    for _, side in ipairs(both or {}) do side:stop() end
    self.redis:reset()
end

-- What waits for Redis has two figures: how long it took, and how much of that it worked.
local function show_times(self, state, question)
    local name, got = question[1], self.times[question[1]]
    local function show(label, of)
        add(self, state, label .. name, quantile(of.a, 0.5), quantile(of.b, 0.5), duration,
            of.ratios)
    end
    show("time ", got.seconds)
    if question.wire or question.web then show("processor ", got.processor) end
end

local function measure(self, state)
    local quiet = machine.wait_until_quiet(self.wait)
    local busy = state == "busy" and machine.start_busy()
    self.times = {}
    for _, question in ipairs(self.questions) do
        self.times[question[1]] = {
            seconds = { a = {}, b = {}, ratios = {} }, processor = { a = {}, b = {}, ratios = {} },
        }
    end
    local has_nginx, why = nginx.is_possible()
    local before = clock.now()
    for round = 1, self.rounds do
        measure_some(self, round, false, compare_sides.process)
        if has_nginx then measure_some(self, round, true, compare_sides.nginx_of) end
    end
    if busy then busy:kill() end
    for _, question in ipairs(self.questions) do
        if question.web and not has_nginx then
            leave_out(self, state, "time " .. question[1], why)
        else
            show_times(self, state, question)
        end
    end
    print(("%-6s %d rounds in %.0f s; before, %.2f processors were busy with other things"):format(
        state, self.rounds, clock.now() - before, quiet))
end

-- Counts ------------------------------------------------------------------------------------------

local function both_of(self, fn)
    return fn(self.sides[1]), fn(self.sides[2])
end

local function count_core(self)
    if not compare_count.has_valgrind then
        return leave_out(self, "count", "instructions", "valgrind is not installed")
    end
    local programs = {}
    for _, side in ipairs(self.sides) do
        local why
        programs[side], why = compare_count.build_core(side, nginx.root)
        if not programs[side] then
            return leave_out(self, "count", "instructions, core", ("compare_core.c does not fit "
                .. "the header of %s: %s"):format(side.name, why))
        end
    end
    for _, question in ipairs(CORE_QUESTIONS) do
        local a, b = both_of(self, function(side)
            return compare_count.instructions(function(calls)
                return { programs[side], question[1], calls }
            end, {}, CORE_FEW, question[2])
        end)
        add(self, "count", "instructions, core " .. question[1], a, b, amount)
    end
end

local function count_instructions(self, question)
    local a, b = both_of(self, function(side)
        return compare_count.instructions(function(calls)
            return { process.interpreter, "-joff", CORE .. "/compare_once.lua", question[1], calls,
                question.many }
        end, compare_sides.environment(side), question.few, question.many)
    end)
    add(self, "count", "instructions, interpreted " .. question[1], a, b, amount)
end

-- One process per side: warm, then one thing counted after the other.
local function count_calls(self, side, question)
    local name = question[1]
    local one = compare_sides.process(side, self.redis, false)
    local calls = math.min(question[2], COUNTED)
    local counts = {}
    one:ask(name, question[2])
    one:ask(name, question[2], true)
    counts.lua = one:ask(name, question[2], true).bytes / question[2]
    counts.commands, counts.bytes = compare_count.commands(self.redis, function()
        one:ask(name, calls)
    end)
    counts.commands, counts.bytes = counts.commands / calls, counts.bytes / calls
    if compare_count.has_strace then
        local total = compare_count.system_calls(one.worker.pid, function()
            one:ask(name, calls)
        end)
        counts.system = total and total / calls
    end
    one:stop()
    return counts
end

local function count_question(self, question)
    local name = question[1]
    local a, b = both_of(self, function(side) return count_calls(self, side, question) end)
    add(self, "count", "bytes of Lua, " .. name, a.lua, b.lua, amount)
    if question.wire then
        add(self, "count", "commands, " .. name, a.commands, b.commands, amount)
        add(self, "count", "bytes of the wire, " .. name, a.bytes, b.bytes, amount)
        if a.system and b.system then
            add(self, "count", "system calls, " .. name, a.system, b.system, amount)
        else
            leave_out(self, "count", "system calls, " .. name, compare_count.has_strace
                and "strace may not trace here" or "strace is not installed")
        end
    end
    if compare_count.has_valgrind then count_instructions(self, question) end
end

local function count(self)
    if self.is_all then count_core(self) end
    for _, question in ipairs(self.questions) do
        if not question.web then count_question(self, question) end
    end
end

-- The command line --------------------------------------------------------------------------------

local function fail(message)
    io.stderr:write("script/bench compare: ", message, "\n")
    os.exit(2, true)
end

local function names()
    local list = {}
    for i, question in ipairs(QUESTIONS) do list[i] = question[1] end
    return table.concat(list, " ")
end

local function choose(words)
    local chosen = {}
    for _, word in ipairs(words) do
        local found = false
        for _, question in ipairs(QUESTIONS) do
            if question[1] == word then found = true chosen[#chosen + 1] = question end
        end
        if not found then
            fail(("there is no question '%s'; there are: %s"):format(word, names()))
        end
    end
    return #chosen > 0 and chosen or QUESTIONS
end

local function read_arguments()
    local args = { rounds = 9, state = "idle", limit = 1.02, wait = 60 }
    local known = { rounds = tonumber, limit = tonumber, wait = tonumber, state = tostring,
        only = tostring, out = tostring }
    local words, i = {}, 1
    while arg[i] do
        local name = arg[i]:match("^%-%-(%a+)$")
        if name then
            local value = known[name] and arg[i + 1] and known[name](arg[i + 1])
            if value == nil then fail(("what is '%s %s'?\n"):format(arg[i], arg[i + 1] or "") ..
                USAGE .. names()) end
            args[name] = value
            i = i + 2
        else
            words[#words + 1] = arg[i]
            i = i + 1
        end
    end
    if #words < 2 then fail("two builds are needed\n" .. USAGE .. names()) end
    if args.state ~= "idle" and args.state ~= "busy" then fail("--state is idle or busy") end
    args.a, args.b = table.remove(words, 1), table.remove(words, 1)
    args.is_all = #words == 0
    args.questions = choose(words)
    return args
end

local function write_json(path, self)
    os.execute("mkdir -p '" .. (path:match("^(.*)/") or ".") .. "'")
    local file = assert(io.open(path, "w"))
    assert(file:write(require("cjson").new().encode({ rounds = self.rounds, rows = self.rows,
        a = self.a, b = self.b }), "\n"))
    assert(file:close())
end

local self = read_arguments()
local ok, err = xpcall(function()
    self.sides = { compare_sides.find(self.a, "A"), compare_sides.find(self.b, "B") }
    self.redis, self.rows = server.start(), {}
    print(("== compare: A %s, B %s, redis %s"):format(self.a, self.b,
        self.redis:info("server").redis_version))
    if self.sides[1].options ~= self.sides[2].options then
        print(("beware: A is built with RC_LTO=%s, B with %s"):format(
            tostring(self.sides[1].options), tostring(self.sides[2].options)))
    end
    print(ROW:format("state", "", "A", "B", "B/A", "quartiles", ""))
    if self.only ~= "counts" then measure(self, self.state) end
    if self.only ~= "time" then count(self) end
    self.redis:stop()
    write_json(self.out or (nginx.root .. "/build/bench/compare.json"), self)
end, function(message)
    return type(message) == "string" and message:find("^[AB]: ") and message
        or debug.traceback(message)
end)
if not ok then fail(err) end
if self.is_over then print(("B has rows above %.2f x of A"):format(self.limit)) end
os.exit(self.is_over and 1 or 0, true)
