--- A chunk in several OS threads of one process, each with its own Lua state
-- (core/test/lua_host.c).
--
-- What:   run. The chunk gets one argument, the thread: index, count, params, barrier(), now(),
--         tally(which, add); what it returns is the thread's result.
-- Errors: throws when a thread threw, the process crashed, or the time is over.
-- Env:    REDCACHE_BUILD_DIR: where lua_host was built (build).

local channel = require("spec.support.channel")
local chunk = require("spec.support.chunk")
local process = require("spec.support.process")
local temp = require("spec.support.temp")

local threads = {}

local here = debug.getinfo(1, "S").source:match("^@(.*)threads%.lua$")

threads.host = (os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/lua_host"

-- Each thread wrote its result to a file of its own: what a script prints cannot get between them.
local function read_results(dir, count)
    local results = {}
    for i = 1, count do
        local result = channel.decode(temp.read(dir .. "/result-" .. i)).result
        if result ~= channel.null then results[i] = result end
    end
    return results
end

--- Runs options.main (a function without upvalues), file or source in options.count threads.
-- params (JSON-able), env, timeout (30 s). Returns the results by index and what the process
-- printed.
function threads.run(options)
    local code, name = chunk.pack(options)
    local dir = temp.dir()
    temp.write(dir .. "/code", code)
    temp.write(dir .. "/params", channel.encode({ params = options.params or {}, name = name }))
    local env = { RCBED_PATH = package.path, RCBED_CPATH = package.cpath }
    for key, value in pairs(options.env or {}) do env[key] = value end
    local ended = process.run({
        threads.host, options.count, here .. "thread_main.lua", dir, env = env,
    }, options.timeout or 30)
    if ended.exit ~= 0 then
        local how = ended.signal and "signal " .. ended.signal or "status " .. ended.exit
        error(("a thread failed (%s):\n%s%s"):format(how, ended.out, ended.err), 2)
    end
    local results = read_results(dir, options.count)
    temp.remove(dir)
    return results, ended.out .. ended.err
end

return threads
