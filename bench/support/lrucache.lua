-- lrucache - the rival: lua-resty-lrucache outside of nginx.
--
-- Its only tie to nginx is ngx.now(), which it asks at every hit of an entry with a time to live.
-- With lua-resty-core that is one FFI call that reads the event loop's time; here it is one that
-- takes the difference of two numbers, and costs the same.
-- Debian: lua-resty-lrucache; elsewhere LUA_PATH.

local ffi = require("ffi")

ffi.cdef("double difftime(long after, long before);")
local C = ffi.C

if rawget(_G, "ngx") == nil then
    rawset(_G, "ngx", { now = function()
        return C.difftime(1, 0)
    end })
end

local ok, lrucache = pcall(require, "resty.lrucache")
if not ok then
    error("lua-resty-lrucache is not installed: apt-get install lua-resty-lrucache, or name its "
        .. "place in LUA_PATH\n" .. lrucache, 0)
end

return lrucache
