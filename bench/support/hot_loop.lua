-- hot_loop - loops that LuaJIT compiles apart from each other.
--
-- What:   new() makes a loop whose code is its own: sides that shared one loop would run through
--         each other's traces, and the first one measured would win. traced() tells what LuaJIT
--         says about loops while they run.
-- Not:    what the loops do.

local clock = require("spec.support.clock")
local temp = require("spec.support.temp")

local hot_loop = {}

local CODE = [[
local subject, keys, count, extra = ...
local kept = {}
return function(passes)
    for _ = 1, passes do
        for i = 1, count do
            local key, value = keys[i]
            %s
            if value == nil then
                error("a hit was expected")
            end
            kept[1] = value
        end
    end
    return passes * count
end
]]

---A loop over `keys` that runs `body`, Lua code that sets `value` and may use key, subject and
---extra. The value is kept until the next one comes: LuaJIT makes no string that nobody keeps.
---@return function run(passes) -> number of times the body ran
function hot_loop.new(name, body, keys, subject, extra)
    local make = assert(loadstring(CODE:format(body), "=" .. name))
    return make(subject, keys, #keys, extra)
end

---Nanoseconds of one turn.
function hot_loop.time(run, passes)
    collectgarbage()
    local start = clock.now()
    local turns = run(passes)
    return (clock.now() - start) / turns * 1e9
end

---A list in which every key stands `times` times, in random order.
function hot_loop.shuffled(keys, times)
    local list = {}
    for _ = 1, times do
        for _, key in ipairs(keys) do
            list[#list + 1] = key
        end
    end
    for i = #list, 2, -1 do
        local j = math.random(i)
        list[i], list[j] = list[j], list[i]
    end
    return list
end

---What jit.v says while fn runs: the lines.
function hot_loop.traced(fn)
    local verbose = require("jit.v")
    local path = temp.dir() .. "/jit.v"
    verbose.on(path)
    fn()
    verbose.off()
    local lines = {}
    for line in temp.read(path):gmatch("[^\n]+") do
        lines[#lines + 1] = line
    end
    return lines
end

return hot_loop
