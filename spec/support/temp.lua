--- Temporary directories that go when the Lua state ends.

local ffi = require("ffi")
local posix = require("spec.support.posix")
local cleanup = require("spec.support.cleanup")

local temp = {}

local made = {}

function temp.remove(path)
    if not made[path] then return end
    made[path] = nil
    os.execute("rm -rf '" .. path .. "'")
end

local function make(base)
    local template = base .. "/rcbed-XXXXXX"
    local buf = ffi.new("char[?]", #template + 1, template)
    if posix.C.mkdtemp(buf) == nil then return nil end
    local path = ffi.string(buf)
    made[path] = true
    return path
end

--- A new directory with a short name: a unix socket's path holds 107 bytes.
function temp.dir()
    local base = os.getenv("TMPDIR") or "/tmp"
    assert(not base:find("'", 1, true), "TMPDIR must not hold a quote")
    return make(base) or error("could not make a temporary directory: " .. posix.failure())
end

--- The same in memory where that can be had, for those who wait for the disk (fsync): a busy one
-- keeps them for seconds.
function temp.memory_dir()
    return make("/dev/shm") or temp.dir()
end

function temp.write(path, bytes)
    local file = assert(io.open(path, "wb"))
    assert(file:write(bytes))
    assert(file:close())
    return path
end

--- A file's bytes, "" when there is no such file.
function temp.read(path)
    local file = io.open(path, "rb")
    if not file then return "" end
    local bytes = file:read("*a")
    file:close()
    return bytes
end

cleanup.add(function()
    for path in pairs(made) do temp.remove(path) end
end)

return temp
