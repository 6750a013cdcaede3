-- A thread's side of threads.lua: lua_host THREADS thread_main.lua DIRECTORY.
-- luacheck: read globals THREAD THREADS barrier now tally

package.path = os.getenv("RCBED_PATH") or package.path
package.cpath = os.getenv("RCBED_CPATH") or package.cpath

local channel = require("spec.support.channel")
local temp = require("spec.support.temp")

local dir = arg[1]
local header = channel.decode(temp.read(dir .. "/params"))
local main = assert(loadstring(temp.read(dir .. "/code"), header.name))
local result = main({
    index = THREAD, count = THREADS, params = header.params,
    barrier = barrier, now = now, tally = tally,
})
temp.write(dir .. "/result-" .. THREAD, channel.encode({ result = result }))
