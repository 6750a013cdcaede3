-- blocking - waiting in plain Lua: the thread stands still until the operation is done.
--
-- What:   the smallest scheduler. Another one (nginx, luv) gives the same two functions.
--
--         wait(slot) -> status   returns when the slot's operation is done
--         current() -> identity  who would wait: a caller that waits for a load of its own identity
--                                would wait for itself

local binding = require("redcache.binding")

local blocking = { name = "blocking" }

blocking.wait = binding.wait

-- Whoever waits here stops the whole Lua state, so all of its coroutines are one caller.
function blocking.current()
    return blocking
end

return blocking
