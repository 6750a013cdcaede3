--- Processes that come into something and go out again, some of which are killed: who was inside
-- when, for an outside checker.
--
-- What: each process emits "taking", and writes a line for each step into params.path: "+", a
--       letter of the caller's and the time when it is in, "-" alike before it goes out.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local temp = require("spec.support.temp")

local contest = {}

--- What was logged, by time: { at, 1 | -1, letter }. Who was killed inside was there until then. Of
-- two at one instant the one that leaves was first: nobody has seen both.
function contest.read_steps(paths, killed)
    local steps = {}
    for i, path in ipairs(paths) do
        local inside
        for sign, kind, at in temp.read(path):gmatch("([+-])(%a)(%S+)\n") do
            steps[#steps + 1] = { tonumber(at), sign == "+" and 1 or -1, kind }
            inside = sign == "+" and kind or nil
        end
        if inside then steps[#steps + 1] = { killed[i], -1, inside } end
    end
    table.sort(steps, function(a, b)
        return a[1] < b[1] or a[1] == b[1] and a[2] < b[2]
    end)
    return steps
end

--- Starts `count` processes of main, and kills every other one once all have emitted "taking".
-- Throws where one of the others does not end well.
---@param count integer
---@param params table of each process; `path` is added
---@param main function as worker.start wants it
---@return table[] steps { seconds, 1 (in) | -1 (out), letter }, by time
function contest.run(count, params, main)
    local dir, paths, killed = temp.dir(), {}, {}
    for i = 1, count do
        paths[i] = dir .. "/" .. i
        temp.write(paths[i], "")
    end
    local takers = herd.start({
        count = count, tolerant = true, timeout = 120,
        params = function(i)
            local own = { path = paths[i] }
            for name, value in pairs(params) do own[name] = value end
            return own
        end,
        main = main,
    })
    takers:wait_events("taking", count, 60)
    for i = 1, count, 2 do
        clock.sleep(0.03)
        takers.workers[i]:kill()
        killed[i] = clock.now()
    end
    takers:join()
    for i = 2, count, 2 do assert(takers.results[i], takers.failures[i]) end
    local steps = contest.read_steps(paths, killed)
    temp.remove(dir)
    return steps
end

return contest
