-- charts - draws what the benches have measured: one SVG for each question that people ask first.
-- usage: script/bench charts [--from build/bench] [--to docs/charts]
--
-- What:   reads the JSON that `script/bench NAME` leaves, takes the medians of the idle machine,
--         and lets gnuplot draw them. A row whose bench or rival was not measured is left out, and
--         said.
-- Errors: without gnuplot it says what to install; a chart without rows is not drawn, and the exit
--         is 1.

local cjson = require("cjson").new()
local process = require("spec.support.process")
local temp = require("spec.support.temp")

local OURS, THEIRS = "0x2a6fdb", "0x9aa4b2"
local COLORS = { OURS, "0xd9822b", "0x2e9d69", THEIRS }

-- What is drawn -----------------------------------------------------------------------------------

-- A row: label, the bench, its side and figure; times: what the figure is multiplied by; ours.
local CHARTS = {
    {
        name = "hits", title = "A hit, nanoseconds (log scale)", kind = "bars",
        rows = {
            { "L0", "near", "get L0", "hit", ours = true },
            { "lua-resty-lrucache", "near", "lrucache", "hit" },
            { "near cache", "near", "get near", "hit", ours = true },
            { "near cache, in nginx", "nginx", "near hit", "ns", ours = true },
            { "ngx.shared.DICT, in nginx", "nginx", "shared hit", "ns" },
            { "rueidis DoCache", "hits", "rueidis DoCache", "ns" },
            { "from Redis, blocking", "read", "get", "p50", times = 1000, ours = true },
            { "hiredis, blocking", "read", "hiredis", "p50", times = 1000 },
        },
    },
    {
        name = "callers", title = "Reads from Redis by callers at once, thousands per second",
        kind = "lines", x = "coroutines", logscale = "x",
        series = {
            { "redcache", "growth", "callers, (%d+)", "rate", ours = true },
        },
    },
    {
        name = "processes", kind = "lines", x = "processes on one region", logscale = "x",
        title = "Near hits of all processes together, thousands per second",
        series = {
            { "redcache", "growth", "processes, (%d+) near", "rate", ours = true },
        },
    },
    {
        name = "keys", title = "A near hit by keys, nanoseconds", kind = "lines",
        x = "keys", logscale = "xy",
        series = {
            { "redcache", "near_growth", "near, (%d+)", "ns", ours = true },
            { "a plain C table", "near_growth", "table, (%d+)", "ns" },
        },
    },
    {
        name = "masters", kind = "lines", x = "masters",
        title = "Reads of 500 coroutines by masters of a cluster, thousands per second",
        series = {
            { "redcache", "growth", "masters, (%d+)", "rate", ours = true },
        },
    },
}

-- What was measured -------------------------------------------------------------------------------

local function read_arguments()
    local args = { from = "build/bench", to = "docs/charts" }
    for i = 1, #arg, 2 do
        local name = arg[i]:match("^%-%-(%a+)$")
        if args[name or ""] == nil or not arg[i + 1] then
            error("usage: script/bench charts [--from DIR] [--to DIR]", 0)
        end
        args[name] = arg[i + 1]
    end
    return args
end

local measured = {}

-- The sides of a bench on an idle machine; nil: it was not run.
local function sides_of(from, bench)
    if measured[bench] == nil then
        local file = io.open(("%s/%s.json"):format(from, bench))
        local results = file and cjson.decode(file:read("*a"))
        if file then
            file:close()
        end
        measured[bench] = results and results.idle and results.idle.sides or false
    end
    return measured[bench] or nil
end

local function median(side, figure)
    local one = side.figures[figure]
    return one and one.median
end

local function say_missing(chart, label, bench)
    print(("%s: no %s: script/bench %s has not measured it here"):format(chart.name, label, bench))
end

local function rows_of(chart, from)
    local rows = {}
    for _, row in ipairs(chart.rows) do
        local label, bench, name, figure = unpack(row)
        local value
        for _, side in ipairs(sides_of(from, bench) or {}) do
            value = side.name == name and median(side, figure) or value
        end
        if value then
            rows[#rows + 1] = { label = label, value = value * (row.times or 1),
                color = row.ours and OURS or THEIRS }
        else
            say_missing(chart, label, bench)
        end
    end
    return rows
end

local function points_of(chart, series, from)
    local label, bench, pattern, figure = unpack(series)
    local points = {}
    for _, side in ipairs(sides_of(from, bench) or {}) do
        local x = side.name:match("^" .. pattern .. "$")
        local y = x and median(side, figure)
        if y then
            points[#points + 1] = { x = tonumber(x), y = y }
        end
    end
    table.sort(points, function(a, b) return a.x < b.x end)
    if #points == 0 then
        say_missing(chart, label, bench)
    end
    return points
end

-- Drawing -----------------------------------------------------------------------------------------

local function head(path, width, height, chart)
    return {
        ("set terminal svg size %d,%d font 'Helvetica,13' background rgb 'white'"):format(width,
            height),
        ("set output '%s'"):format(path),
        ("set title '%s' offset 0,-0.3"):format(chart.title),
        "set border 3 lc rgb '#667080'", "set tics nomirror textcolor rgb '#333b47'",
        "set grid lc rgb '#e3e6eb'",
    }
end

local function add(lines, ...)
    for _, line in ipairs({ ... }) do
        lines[#lines + 1] = line
    end
end

-- Three digits are what a median is good for.
local function short(value)
    return value >= 100 and ("%.0f"):format(value) or ("%.3g"):format(value)
end

local function draw_bars(chart, path, from)
    local rows = rows_of(chart, from)
    local lines = head(path, 760, 70 + 30 * #rows, chart)
    local least, most = math.huge, 0
    add(lines, "$rows << END")
    for i, row in ipairs(rows) do
        least, most = math.min(least, row.value), math.max(most, row.value)
        add(lines, ('%d %g %s "%s" "%s"'):format(-i, row.value, row.color, row.label,
            short(row.value)))
    end
    local left = 10 ^ math.floor(math.log10(least) - 0.2)
    add(lines, "END", "set logscale x", "unset key", "set style fill solid noborder",
        ("set xrange [%g:%g]"):format(left, most * 4),
        ("set yrange [%g:-0.4]"):format(-#rows - 0.6), "set border 1", "set grid noy",
        ("plot $rows using (%g):1:(%g):2:($1-0.36):($1+0.36):3:ytic(4) with boxxyerror lc rgb "
            .. "variable, $rows using 2:1:5 with labels left offset 0.6,0"):format(left, left))
    return #rows > 0 and lines
end

local function draw_lines(chart, path, from)
    local lines, plots = head(path, 640, 360, chart), {}
    add(lines, ("set xlabel '%s'"):format(chart.x), "set key top left reverse Left")
    if chart.logscale then
        add(lines, "set logscale " .. chart.logscale, "set format x '%.0s%c'")
    end
    if not (chart.logscale or ""):find("y", 1, true) then
        add(lines, "set yrange [0:*]")
    end
    for s, series in ipairs(chart.series) do
        local points = points_of(chart, series, from)
        if #points > 0 then
            add(lines, ("$s%d << END"):format(s))
            for _, point in ipairs(points) do
                add(lines, ("%g %g"):format(point.x, point.y))
            end
            add(lines, "END")
            plots[#plots + 1] = ("$s%d using 1:2 with linespoints lw 2 pt 7 ps 0.5 lc rgb %s "
                .. "title '%s'"):format(s, COLORS[s], series[1])
        end
    end
    add(lines, "plot " .. table.concat(plots, ", "))
    return #plots > 0 and lines
end

local DRAW = { bars = draw_bars, lines = draw_lines }

local function draw(chart, args)
    local path = ("%s/%s.svg"):format(args.to, chart.name)
    local lines = DRAW[chart.kind](chart, path, args.from)
    if not lines then
        return false
    end
    local script = temp.write(temp.dir() .. "/" .. chart.name .. ".gp", table.concat(lines, "\n"))
    local ended = process.run({ "gnuplot", script })
    if ended.exit ~= 0 then
        error("gnuplot failed: " .. ended.out .. ended.err, 0)
    end
    print(path)
    return true
end

local args = read_arguments()
if os.execute("command -v gnuplot >/dev/null") ~= 0 then
    error("charts are drawn by gnuplot, which is not installed (Debian: gnuplot-nox)", 0)
end
os.execute("mkdir -p '" .. args.to .. "'")
local all_drawn = true
for _, chart in ipairs(CHARTS) do
    all_drawn = draw(chart, args) and all_drawn
end
os.exit(all_drawn and 0 or 1, true)
