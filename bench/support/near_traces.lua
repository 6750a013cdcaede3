-- near_traces - whether LuaJIT keeps its traces of hot hits: a fresh process runs them under jit.v.

local worker = require("spec.support.worker")

local near_traces = {}

-- Runs in a process of its own, so that nothing else has been compiled before.
local function tracer(self)
    local params = self.params
    local hot_loop = require("bench.support.hot_loop")
    local root = require("redcache").new({ url = params.url, codec = "raw", namespace = "traces" })
    local subjects = {
        L0 = root:namespace("text"),
        decoded = root:namespace("record", { codec = "msgpack" }),
        near = root:namespace("near", { near = { l0 = false } }),
    }
    local order = hot_loop.shuffled(params.keys, 16)
    local function loader()
        error("a hit was expected")
    end
    local found = {}
    for name, cache in pairs(subjects) do
        for i, key in ipairs(params.keys) do
            assert(cache:set(key, name == "decoded" and { name = key, age = i } or key:rep(6), 600))
            assert(cache:get(key))
            assert(cache:get(key))
        end
        for call, body in pairs({ get = params.get, remember = params.remember }) do
            local chunk = call .. "_" .. name
            local run = hot_loop.new(chunk, body, order, cache, loader)
            local first = hot_loop.traced(function()
                run(20)
            end)
            local is_compiled, early = false, 0
            for _, line in ipairs(first) do
                is_compiled = is_compiled or line:find("^%[TRACE +%d+ " .. chunk .. ":") ~= nil
                early = early + (line:find("^%[TRACE %-%-%-") and 1 or 0)
            end
            local late = {}
            for _, line in ipairs(hot_loop.traced(function() run(100) end)) do
                if line:find("^%[TRACE %-%-%-") then
                    late[#late + 1] = line
                end
            end
            found[#found + 1] = {
                loop = chunk, is_compiled = is_compiled, early = early, late = late,
            }
        end
    end
    root:close()
    return found
end

---A sample for bench.lua: traces that were aborted after the warm-up; a loop that was not compiled
---at all counts as one. params: url, keys, get, remember (bodies of loops).
function near_traces.sample(params)
    local aborts = 0
    for _, loop in ipairs(worker.start({ main = tracer, params = params }):join(120)) do
        aborts = aborts + #loop.late + (loop.is_compiled and 0 or 1)
        print(("traces of %s: %s, %d aborted while warming up, %d later"):format(
            loop.loop, loop.is_compiled and "compiled" or "NOT COMPILED", loop.early, #loop.late))
        for _, line in ipairs(loop.late) do
            print("    " .. line)
        end
    end
    return { name = "aborted traces", rounds = { { aborts = aborts } } }
end

return near_traces
