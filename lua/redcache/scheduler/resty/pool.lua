-- pool - what a cosocket of ours is to be connected with.
--
-- What:   a pool of its own. Without a name of its own a connection would come out of the pool
--         "host:port" that every library of the worker fills, in whatever state that left it, and
--         be counted there.
-- Not:    nothing ever stands in such a pool: each has another name.

local core_loop = require("redcache.core.loop")

local pool = {}

local count = 0

---@return table options of sock:connect
function pool.own()
    count = count + 1
    return { pool = ("redcache %d %d"):format(core_loop.pid(), count) }
end

return pool
