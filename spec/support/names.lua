--- Host names whose addresses a spec says, for a process of worker.lua: getaddrinfo() of that
-- process asks a file first (core/test/names.c, which is loaded before libc).
--
-- What:   can_be_had; new(name, address) -> {env (for worker.start), set(address)}.
-- Errors: everything throws.
-- Not:    under a sanitizer, whose runtime wants to be the one library that is loaded first.

local clock = require("spec.support.clock")
local temp = require("spec.support.temp")

local names = {}
local Name = {}
Name.__index = Name

local function library()
    local file = io.open((os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/names.so")
    if not file then return nil end
    file:close()
    return (os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/names.so"
end

function names.can_be_had()
    return clock.scale == 1 and library() ~= nil
end

function names.new(name, address)
    local self = setmetatable({ name = name, path = temp.dir() .. "/names" }, Name)
    self.env = { LD_PRELOAD = library(), REDCACHE_TEST_NAMES = self.path }
    self:set(address)
    return self
end

--- From now on, for connections that are made later.
function Name:set(address)
    temp.write(self.path .. ".new", ("%s %s\n"):format(self.name, address))
    assert(os.rename(self.path .. ".new", self.path))
end

return names
