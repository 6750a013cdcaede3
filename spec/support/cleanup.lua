--- Runs functions when this Lua state ends, last one first: what a spec started is stopped even
-- when the spec failed.
--
-- Not: after kill -9 of the test process; then the leash of process.lua ends the children.

local posix = require("spec.support.posix")

local cleanup = {}

local owner = posix.C.getpid()
local registered = {}
local guard = newproxy(true)

getmetatable(guard).__gc = function()
    -- A fork of the test process ends too; the servers are its parent's.
    if posix.C.getpid() ~= owner then return end
    for i = #registered, 1, -1 do pcall(registered[i]) end
end

cleanup.guard = guard -- Alive as long as this module.

function cleanup.add(fn)
    registered[#registered + 1] = fn
end

return cleanup
