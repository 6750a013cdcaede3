--- Reads the text format 0.0.4 of Prometheus, strictly: what is not valid is an error.
--
-- What:   parse(text): families by name, each with type, help and samples { labels =, value = };
--         reader(text): a function of a name and labels that gives the value, or nil.
-- Errors: both throw at the first line that is wrong, a family that stands in two places, a series
--         that stands there twice.

local exposition = {}

local TYPES = { counter = true, gauge = true }
local UNESCAPED = { ["\\\\"] = "\\", ['\\"'] = '"', ["\\n"] = "\n" }

local function fail(line, why)
    error(("line %q: %s"):format(line, why), 0)
end

-- name="value",... without the braces.
local function parse_labels(text, line)
    local labels, at = {}, 1
    while at <= #text do
        local name, from = text:match('^([%a_][%w_]*)="()', at)
        if not name then fail(line, "a label is not name=\"value\"") end
        local to = from
        while text:sub(to, to) ~= '"' do
            local char = text:sub(to, to)
            if char == "" then fail(line, "a label has no end") end
            if char == "\\" and not UNESCAPED[text:sub(to, to + 1)] then
                fail(line, "an escape that there is not")
            end
            to = to + (char == "\\" and 2 or 1)
        end
        if labels[name] then fail(line, "a label stands there twice") end
        labels[name] = (text:sub(from, to - 1):gsub("\\.", UNESCAPED))
        at = to + 1
        if at <= #text then
            if text:sub(at, at) ~= "," then fail(line, "no comma between labels") end
            at = at + 1
        end
    end
    return labels
end

local function key_of(labels)
    local parts = {}
    for name, value in pairs(labels) do parts[#parts + 1] = name .. "=" .. value end
    table.sort(parts)
    return table.concat(parts, "\0")
end

local function parse_sample(family, line)
    local name, rest = line:match("^([%a_:][%w_:]*)(.*)$")
    if not name or not family or name ~= family.name then fail(line, "outside of its family") end
    local inner, value = rest:match("^{(.*)} (%S+)$")
    if not inner then inner, value = "", rest:match("^ (%S+)$") end
    value = tonumber(value)
    if not value or value ~= value then fail(line, "no number") end
    local labels = parse_labels(inner, line)
    local key = key_of(labels)
    if family.by_key[key] then fail(line, "the series stands there twice") end
    family.by_key[key] = value
    family.samples[#family.samples + 1] = { labels = labels, value = value }
end

function exposition.parse(text)
    local families, current = {}, nil
    if text:sub(-1) ~= "\n" then fail(text:sub(-80), "the last line has no end") end
    for line in text:gmatch("([^\n]*)\n") do
        local what, name, rest = line:match("^# (%u+) ([%w_:]+) (.+)$")
        if what == "HELP" then
            if families[name] then fail(line, "the family stands in two places") end
            current = { name = name, help = rest, samples = {}, by_key = {} }
            families[name] = current
        elseif what == "TYPE" then
            if not current or name ~= current.name or #current.samples > 0 or current.type
                or not TYPES[rest] then
                fail(line, "TYPE stands behind HELP, once, and is counter or gauge")
            end
            current.type = rest
        elseif line:sub(1, 1) == "#" then
            fail(line, "a comment of no known form")
        else
            parse_sample(current, line)
        end
    end
    return families
end

function exposition.reader(text)
    local families = exposition.parse(text)
    return function(name, labels)
        return families[name] and families[name].by_key[key_of(labels)]
    end
end

return exposition
