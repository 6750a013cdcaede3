-- ffi - the C core as a library that LuaJIT calls: found, declared, its version checked.
--
-- What:   returns the library; require it as C, and call C.rc_x(). The files of this folder alone
--         touch it and ffi (script/check-layers holds that): what they give to others are plain
--         Lua functions, error objects and seconds.
-- Memory: the library stays loaded. Scratch cdata of these files is made once per Lua state, and
--         filled and read within one call: never held across a wait.
-- Not:    no waiting policy (scheduler/), no protocol (remember.lua, lock.lua).

local ffi = require("ffi")
local cdef = require("redcache.core.cdef")

local ABI = 32

-- A second run in one Lua state (a cleared package.loaded) must not declare everything again.
if not pcall(ffi.typeof, "rc_load_options") then
    ffi.cdef(cdef)
    -- By names of our own: others may have declared these with other types.
    ffi.cdef([[
        struct redcache_pollfd { int fd; short events; short revents; };
        int redcache_poll(struct redcache_pollfd *fds, unsigned long count, int timeout_ms)
            __asm__("poll");
        int redcache_getpid(void) __asm__("getpid");
        int redcache_getppid(void) __asm__("getppid");
    ]])
end

-- Looks in the environment, then where Lua's C modules live, then where the linker looks.
local function load_library()
    local path = os.getenv("REDCACHE_LIBRARY")
    if path and path ~= "" then
        return ffi.load(path)
    end
    path = package.searchpath("libredcache", package.cpath)
        or package.searchpath("redcache.libredcache", package.cpath)
    if path then
        return ffi.load(path)
    end
    local ok, library = pcall(ffi.load, "redcache")
    if not ok then
        error("could not load libredcache: it is neither named by REDCACHE_LIBRARY, nor in"
            .. " package.cpath, nor where the linker looks: " .. tostring(library), 0)
    end
    return library
end

-- Where a Lua state ends, LuaJIT closes its handle of a library before the last finalizers run
-- (owned.lua), and finds no function then that was not looked up before. The library stays loaded
-- (-z nodelete), so closing its handle would free nothing.
local function keep_handle(library)
    local kept = {}
    for name, method in pairs(debug.getmetatable(library)) do
        kept[name] = method
    end
    kept.__gc = nil
    debug.setmetatable(library, kept)
    return library
end

local C = keep_handle(load_library())
if C.rc_abi() ~= ABI then
    error("could not load libredcache: its interface has version " .. C.rc_abi()
        .. ", these Lua files want " .. ABI, 0)
end

return C
