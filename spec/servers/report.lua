-- Writes docs/servers.md, on standard output:
--   luajit spec/servers/report.lua [NAME VERSION SPECS PROGRAM]...
-- SPECS is a file that holds what the specs said on that server, a line "FILE PASSED FAILED" each;
-- PROGRAM "-": it cannot be had on this machine.
--   luajit spec/servers/report.lua --greet PROGRAM
-- prints "works", or why redcache refuses that server.

local abilities = require("spec.servers.abilities")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local TLS = "this program has TLS" -- an ability's name
local FORM = [[
# Servers
Written by `script/test servers`, which asks each server and runs the specs in which a server's
own ways show. Where they come from and how to get one: `script/servers --list`.

## What works
| server | version | specs | what is off, and why |
|---|---|---|---|
%s

## What stands in front of them
`spec/servers/fronts_spec.lua` holds this to be so.

| program | what works | what is off, and why |
|---|---|---|
| HAProxy | everything, the near cache too; a short `timeout client` as well | nothing |
| HAProxy, two servers | one of them, for both connections | the other one: they are two caches |
| stunnel | everything (`rediss://`, `tlsCa`) | nothing |
| twemproxy | nothing: refused in plain words | it closes at HELLO: it knows no RESP3 |

## What each can do
Found by asking.

%s
]]

-- "works", or the error of the first call; and what is off there: {[name] = why}.
local function greet(bed)
    local cache = assert(require("redcache").new({ url = bed:url(), scheduler = "blocking" }))
    local ok, err = cache:set("greeting", "hello")
    cache:get("greeting") -- over the tracked connection
    local off = cache:health().off
    cache:close()
    return ok and "works" or (err.message:gsub("^could not .-: ", "")), off
end

local function mark(answer)
    return answer == true and "yes" or answer or "no"
end

-- What a program answers to all questions: {[name of the ability] = text}.
local function ask(bed, program)
    local node_bed = server.start({ program = program, config = { "cluster-enabled yes" } })
    local answers = {}
    for _, ability in ipairs(abilities) do
        -- A connection of its own: a question may leave it in a state of its own.
        local client, node = bed:client(), node_bed:client()
        local ok, answer = pcall(ability[2], bed, client, node)
        answers[ability[1]] = mark(ok and answer)
        client:close()
        node:close()
    end
    node_bed:stop()
    return answers
end

-- "310 of 312", and the names of the files in which something failed.
local function tell_specs(path, answers, off)
    local passed, failed, files = 0, 0, {}
    for name, why in pairs(off) do files[#files + 1] = name .. ": " .. why end
    table.sort(files)
    for file, good, bad in temp.read(path):gmatch("(%S+) (%d+) (%d+)\n") do
        if file == "redis/tls_spec" and answers[TLS] == "no" then
            files[#files + 1] = "TLS: this program is built without it"
        else
            passed, failed = passed + good, failed + bad
            if bad ~= "0" then files[#files + 1] = ("`%s` (%d)"):format(file, bad) end
        end
    end
    if #files == 0 then files[1] = "nothing" end
    return ("%d of %d"):format(passed, passed + failed), table.concat(files, ", ")
end

local function look_at(name, version, specs, program)
    local one = { name = name, version = version, specs = "", off = "cannot be had here" }
    if program == "-" then return one end
    local bed = server.start({ program = program })
    local off
    one.off, off = greet(bed)
    one.answers = ask(bed, program)
    bed:stop()
    if one.off == "works" then
        one.specs, one.off = tell_specs(specs, one.answers, off)
    end
    return one
end

local function work_table(list)
    local rows = {}
    for i, one in ipairs(list) do
        rows[i] = ("| %s | %s | %s | %s |"):format(one.name:gsub("%-[%d.]+$", ""), one.version,
            one.specs, one.off)
    end
    return table.concat(rows, "\n")
end

local function ability_table(list)
    local head, line, asked = { "" }, { "---" }, {}
    for _, one in ipairs(list) do
        if one.answers then
            head[#head + 1], line[#line + 1] = one.name, "---"
            asked[#asked + 1] = one.answers
        end
    end
    local function row(cells) return "| " .. table.concat(cells, " | ") .. " |" end
    local rows = { row(head), "|" .. table.concat(line, "|") .. "|" }
    for _, ability in ipairs(abilities) do
        local cells = { ability[1] }
        for i, answers in ipairs(asked) do cells[i + 1] = answers[ability[1]] end
        rows[#rows + 1] = row(cells)
    end
    return table.concat(rows, "\n")
end

if arg[1] == "--greet" then
    local bed = server.start({ program = arg[2] })
    print((greet(bed)))
    bed:stop()
else
    local list = {}
    for i = 1, #arg, 4 do list[#list + 1] = look_at(arg[i], arg[i + 1], arg[i + 2], arg[i + 3]) end
    io.write(FORM:format(work_table(list), ability_table(list)))
end
