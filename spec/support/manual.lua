--- The manual of the calls, docs/api, as a spec reads it.
--
-- What:   an entry is what follows a heading "## cache:get(key, opts)" up to the next one: words, a
--         table with a row per argument, a line "Returns", a line "Errors", an example in Lua.
-- Errors: what is not so comes back as a list of texts; run() throws what the example throws.

local options = require("redcache.options")
local process = require("spec.support.process")

local manual = {}

--- The names of the files of a folder, without ".md".
function manual.files(folder)
    local names = {}
    for name in process.run({ "ls", folder }).out:gmatch("([%w_-]+)%.md\n") do
        names[#names + 1] = name
    end
    assert(#names > 0, "no files in " .. folder)
    return names
end

-- The number of the line that a line feed stands before, in a text that begins with one.
local function line_of(text, at)
    local _, lines = text:sub(1, at):gsub("\n", "\n")
    return lines
end

-- What a heading names: class, method, arguments (nil: it is no call).
local function parse(title)
    local class, method, arguments = title:match("^(%a+)[:.](%w+)%((.*)%)$")
    if class then return class, method, arguments end
    class, method = title:match("^(%a+)[:.](%w+)$")
    return class, method, nil
end

--- The entries of a text.
-- @return list of { title, where, class, method, arguments, body, example, line (of the example) }
function manual.entries(text, path)
    local list, at = {}, 1
    text = "\n" .. text
    while true do
        local first, last, title = text:find("\n## ([^\n]+)\n", at)
        if first == nil then return list end
        local next_first = text:find("\n## ", last, true) or #text + 1
        local body = text:sub(last, next_first)
        local from, _, example = body:find("\n```lua\n(.-\n)```\n")
        local class, method, arguments = parse(title)
        list[#list + 1] = {
            title = title, where = path .. ":" .. line_of(text, first), class = class,
            method = method, arguments = arguments, body = body, example = example, path = path,
            line = from and line_of(text, last + from - 1) or 0,
        }
        at = next_first
    end
end

--- The entry of that title, or nil.
function manual.find(entries, title)
    for _, entry in ipairs(entries) do
        if entry.title == title then return entry end
    end
end

-- What one entry of a call lacks.
local function look(entry, complain)
    local has, has_table = {}, entry.body:find(
        "\n| argument | type | default | meaning |\n", 1, true) ~= nil
    for cell in entry.body:gmatch("\n| ([^|]+) |") do
        for name in cell:gsub("`", ""):gmatch("[%w.]+") do
            has[name] = true
            local option = name:match("^opts%.(%w+)$")
            if option then
                has.opts = true
                if not options.is_known(option) then
                    complain("there is no option '" .. option .. "'")
                end
            end
        end
    end
    for name in entry.arguments:gmatch("[^, ]+") do
        if not (has_table and has[name]) then
            complain("no row for the argument '" .. name .. "'")
        end
    end
    if not entry.body:find("\nReturns ", 1, true) then complain("no line begins with Returns") end
    if not entry.body:find("\nErrors[: ]") then complain("no line begins with Errors") end
end

--- What is wrong with entries that should be about these calls, one each.
-- @param calls arguments by class and method, as usage.calls()
function manual.faults(entries, calls)
    local list, seen = {}, {}
    for _, entry in ipairs(entries) do
        local function complain(text) list[#list + 1] = entry.where .. ": " .. text end
        local class, method = entry.class, entry.method
        local arguments = class and calls[class] and calls[class][method]
        local is_constant = class == "redcache" and entry.arguments == nil
        local colon = class == "redcache" and "." or ":"
        if not arguments and not is_constant then
            complain("there is no call " .. entry.title)
        elseif arguments and entry.title ~= class .. colon .. method .. "(" .. arguments .. ")" then
            complain("it is called " .. class .. colon .. method .. "(" .. arguments .. ")")
        elseif arguments then
            look(entry, complain)
        end
        if seen[entry.title] then complain("there is another entry " .. entry.title) end
        if not entry.example then complain("no example in Lua") end
        seen[entry.title] = true
        if class and method then seen[class .. "." .. method] = true end
    end
    for class, methods in pairs(calls) do
        for method in pairs(class ~= "request" and methods or {}) do
            if not seen[class .. "." .. method] then
                list[#list + 1] = class .. (class == "redcache" and "." or ":") .. method
                    .. " has no entry"
            end
        end
    end
    table.sort(list)
    return list
end

--- Runs an entry's example, with the locals that the manual promises. A global is a mistake.
function manual.run(entry, redcache, cache)
    -- The fence's line is ours, so that errors name the lines of the file.
    local code = ("\n"):rep(entry.line - 1) .. "local redcache, cache = ...\n" .. entry.example
    local chunk = assert(loadstring(code, "@" .. entry.path))
    setfenv(chunk, setmetatable({}, {
        __index = function(_, name)
            local value = _G[name]
            if value == nil and name ~= "ngx" then error("global '" .. name .. "' is read", 2) end
            return value
        end,
        __newindex = function(_, name) error("global '" .. name .. "' is set", 2) end,
    }))
    chunk(redcache, cache)
end

local SIZES = { { 2 ^ 30, " GiB" }, { 2 ^ 20, " MiB" }, { 2 ^ 10, " KiB" } }

-- A number as the manual writes it.
local function number_text(value, in_bytes)
    for _, size in ipairs(in_bytes and SIZES or {}) do
        if value >= size[1] and value % size[1] == 0 then
            return ("%d%s"):format(value / size[1], size[2])
        end
    end
    return ("%.14g"):format(value)
end

--- The options of a text, by its section and name: { default, range, in_bytes is not compared }.
function manual.options(text)
    local sections, section = {}, nil
    for line in text:gmatch("[^\n]+") do
        local title = line:match("^## Of ([%w.]+)")
        if title then
            section = {}
            sections[title] = section
        end
        local name, kind, default, range = line:match(
            "^| (%w+) | ([^|]-) | ([^|]-) | ([^|]-) ?| [^|]*|$")
        if section and name and name ~= "option" then
            section[name] = setmetatable({ default = default, range = range }, { kind = kind })
        end
    end
    return sections
end

--- What stands in the cells of an option.
-- @param listed the option of manual.options(): tells whether its numbers are bytes
function manual.option_cells(row, listed)
    local in_bytes = listed and getmetatable(listed).kind == "bytes"
    local default, range = row.default, ""
    if row.min then
        range = number_text(row.min, in_bytes) .. " to " .. number_text(row.max, in_bytes)
    end
    if default == nil then
        default = "none"
    elseif type(default) == "number" then
        default = number_text(default, in_bytes)
    elseif type(default) == "string" then
        default = ('`"%s"`'):format(default)
    end
    return { default = tostring(default), range = range }
end

return manual
