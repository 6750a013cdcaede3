-- blocking - waiting in plain Lua: the thread stands still until the operation is done.
--
-- What:   the smallest scheduler. Another one (resty, luv) gives the same functions.
--
--         check(settings) -> nil | why it cannot be used here
--         driver(settings) -> who moves the bytes; nil: the core, within the call that waits
--         enter(client) -> ready   (optional) before a slot is taken
--         awaken(client)           (optional) the first near hit of the process
--         wait(slot) -> status     returns when the slot's operation is done; or NOT_WAITED at once
--         can_wait() -> boolean    whether this caller may wait
--         shares() -> boolean      (optional) whether others run while this caller waits
--         detach(slot)             the operation was started, and nobody waits for it
--         tell(client)             (optional) operations were ended by a call: those who wait for
--                                  them are to be woken
--         current() -> identity    who runs, as the owner of a mark (marks.lua)
--         obstacle(mark) -> cause  why the running caller cannot wait for the load of that mark: it
--                                  would wait for itself, or hold up the loader; nil: it can
--         guard(client, object, drop), unguard(client, object)
--                                  between the two the object belongs to the running coroutine:
--                                  where that vanishes, drop(object) is called
--         spawn(client, fn) -> started, refused
--                                  (optional) runs fn in a coroutine of its own, after this call;
--                                  refused: it may go better at another time
--         attend(client)           (optional) something is watched that callers may never ask for
--         look_again(client, seconds)
--                                  (optional) the loop comes by after that time, for what is
--                                  watched; it need not where it comes by anyway
--         is_ending(client, count) -> boolean
--                                  (optional) nobody keeps the loop going but those that work in
--                                  the background, `count` coroutines of spawn()
--         close(port, timeout)     with a driver: the last cache on it was closed

local core_slot = require("redcache.core.slot")
local marks = require("redcache.marks")
local running = require("redcache.running")

local HOLDS_UP = "its loader waits in another coroutine, which cannot go on while this call blocks:"
    .. " choose a scheduler that lets coroutines wait (option scheduler)"

-- nginx has one of its own, which knows nothing of coroutines whose request is over.
local status = rawget(coroutine, "_status") or coroutine.status

local blocking = { name = "blocking" }

function blocking.check(settings)
    if settings.driver ~= "loop" then
        return "driver is for the scheduler 'resty'"
    end
end

function blocking.driver()
    return nil
end

blocking.wait = core_slot.wait

function blocking.can_wait()
    return true
end

function blocking.current()
    return running() or blocking
end

-- A caller that waits here stops the whole Lua state, so no loader of another coroutine would go
-- on.
function blocking.obstacle(mark)
    local owner = mark.owner
    if owner == blocking.current() or owner == blocking then
        return marks.SELF
    end
    return status(owner) == "normal" and marks.SELF or HOLDS_UP
end

blocking.detach = core_slot.wait

-- What a dropped coroutine held is given back by the garbage collector.
function blocking.guard() end
function blocking.unguard() end

return blocking
