-- threads - what nginx knows of its light threads, as far as Lua can see it.
--
-- What:   nginx keeps each light thread that lives in a table of the registry, and takes it out
--         when it ends, is killed, or its request is over: nothing else tells that a thread was
--         killed while its handle is kept, for then its stack stands as it was. A coroutine that
--         Lua code has made (coroutine.wrap) is no light thread and not in there.
-- Memory: finished threads of requests stay in the table to be used again, with an empty stack.
-- Errors: coroutine.status() is asked of light threads in the table alone: of a coroutine whose
--         request is over lua-nginx-module (seen in 0.10.23) reads what was freed.
-- Not:    without that table nothing is known: nil, and the garbage collector has the last word.

local running = require("redcache.running")

local getinfo, getlocal, getupvalue = debug.getinfo, debug.getlocal, debug.getupvalue

-- So many frames, and coroutines, are looked at to find who has resumed whom.
local MAX_LEVELS, MAX_COROUTINES = 50, 20

local threads = {}

local list -- of light threads, by number
local numbers = setmetatable({}, { __mode = "k" }) -- where each was seen last

-- The table has holes: `#` may stop at one.
local function place_of(candidate, co)
    for i = 1, #candidate do
        if candidate[i] == co then
            return i
        end
    end
    for i, thread in next, candidate do
        if thread == co and type(i) == "number" then
            return i
        end
    end
    return nil
end

---Finds the table. For a caller that is a light thread for certain.
function threads.learn()
    local co = running()
    if list or not co or not debug.getregistry then
        return
    end
    for _, candidate in next, debug.getregistry() do
        if type(candidate) == "table" and getmetatable(candidate) == nil
            and place_of(candidate, co) then
            list = candidate
            return
        end
    end
end

---The number of a light thread: see is_alive.
---@param co thread
---@return integer|nil number nil: it is none, or nothing is known
function threads.number(co)
    if not list then
        return nil
    end
    local number = numbers[co]
    if not number or list[number] ~= co then
        number = place_of(list, co)
        numbers[co] = number
    end
    return number
end

---Whether the light thread of that number has neither ended nor been killed.
---@param co thread
---@param number integer
---@return boolean
function threads.is_alive(co, number)
    return list[number] == co
end

-- Calls found(thread) for each coroutine that a frame of `co`, or its function, refers to.
local function each_reference(co, found)
    for level = 0, MAX_LEVELS do
        local info = getinfo(co, level, "f")
        if not info then
            return
        end
        for _, get in ipairs({ getlocal, getupvalue }) do
            local i = 1
            repeat
                local name, value
                if get == getlocal then
                    name, value = getlocal(co, level, i)
                else
                    name, value = getupvalue(info.func, i)
                end
                if type(value) == "thread" then
                    found(value)
                end
                i = i + 1
            until not name
        end
    end
end

-- Whether `from` refers to `to`, or to a coroutine that does.
local function leads_to(from, to)
    local seen, queue, at = { [from] = true }, { from }, 1
    local function found(thread)
        if not seen[thread] and #queue < MAX_COROUTINES then
            seen[thread] = true
            queue[#queue + 1] = thread
        end
    end
    while queue[at] and not seen[to] do
        each_reference(queue[at], found)
        at = at + 1
    end
    return seen[to] == true
end

---Whether the running coroutine was resumed by the light thread `owner` of the same request, or by
---one that this has resumed. nginx calls a thread "normal" that has resumed a coroutine which has
---not yielded since: where it is the only one of the worker, it is the one that has resumed us.
---@param owner thread
---@return boolean
function threads.is_within(owner)
    local co, status = running(), coroutine.status
    if not threads.number(owner) or status(owner) ~= "normal" or threads.number(co) then
        return false
    end
    local count = 0
    for _, thread in next, list do
        if type(thread) == "thread" and status(thread) == "normal" then
            count = count + 1
        end
    end
    return count == 1 or leads_to(owner, co)
end

return threads
