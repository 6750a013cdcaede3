-- marks - which keys this Lua state is loading right now, and in which coroutine.
--
-- What:   a mark stands at its key while a loader runs. A caller that asks for the key meanwhile
--         learns whether it would wait for itself, or for a coroutine that it holds up.
-- Memory: weak: a loader whose coroutine was dropped takes its mark along. Where several loads of a
--         key run at once (callers that gave up waiting load alone) their marks share a group,
--         which lives as long as one of them.
-- Not:    no leases and no waiting. What a scheduler can tell of coroutines is its obstacle().

local getinfo, getlocal = debug.getinfo, debug.getlocal

-- A frame further down than this is taken for one that stands.
local MAX_LEVELS = 200

local marks = {
    ---What obstacle() says of a caller that the loader itself has called.
    SELF = "its loader asks for the key itself",
}

---@class redcache.Mark
---@field owner any of scheduler.current(); a field that says nothing is false: see load.lua
---@field request any its second result
---@field co thread|false
---@field anchor table|false what stands for it in the frame, where one loader runs for many keys
---@field group table|false
---@field is_first_of string|false key with its prefix, of the first mark of its table

---Runs a loader. This frame is the sign that the mark's load is under way: nginx ends a request
---without running any more Lua, and uses its coroutine again for the next one.
---@param mark redcache.Mark or what stands for several: their anchor
---@return boolean ok
---@return any ... as xpcall
function marks.run(mark, fn, handler, key, ctx)
    local ok, value, second, third = xpcall(fn, handler, key, ctx)
    if not ok and type(value) ~= "table" then
        collectgarbage() -- no memory: what the loader has piled up goes first
    end
    mark.co = false
    return ok, value, second, third
end
local run = marks.run

-- Marks of this Lua state that stand, of all servers. Nobody tells of those that the garbage
-- collector takes: so there may be fewer.
local count = 0

---Whether a mark may stand somewhere. If not, nobody has to look for one.
---@return boolean
function marks.may_stand()
    return count > 0
end

-- Whether a frame of `run` for this mark stands on the stack of its coroutine.
local function is_under_way(mark)
    local co, anchor = mark.co, mark.anchor or mark
    if not co then
        return mark.owner and true or false
    end
    for level = 0, MAX_LEVELS do
        local info = getinfo(co, level, "f")
        if not info then
            return false
        elseif info.func == run then
            local _, value = getlocal(co, level, 1)
            if value == anchor then
                return true
            end
        end
    end
    return true
end

-- Whether a loader of this Lua state stands on the running coroutine's stack.
local function stands_here()
    for level = 1, MAX_LEVELS do
        local info = getinfo(level, "f")
        if not info then
            return false
        elseif info.func == run then
            return true
        end
    end
    return true
end

-- The first mark of a table stands in its array, and knows its key: most loads end before another
-- one begins, and LuaJIT sizes a table again that gets one key and loses it, over and over.
local FIRST = 1

-- The mark or group that stands at the key.
local function standing_at(loading, full)
    local first = loading[FIRST]
    if first ~= nil and first.is_first_of == full then
        return first
    end
    return loading[full]
end

---A loader begins.
---@param loading table<string, table> of the client
---@param full string key with its prefix
---@param mark redcache.Mark
---@param owner any who runs it, as scheduler.current() says
---@param request any a second result of that
---@param anchor table|nil given to run() in the place of this mark
---@param co thread|nil the running coroutine, where it is asked once for many keys
function marks.add(loading, full, mark, owner, request, anchor, co)
    mark.owner, mark.request = owner or false, request or false
    mark.co, mark.anchor = co or false, anchor or false
    if not mark.counts then
        mark.counts, count = true, count + 1
    end
    local standing = standing_at(loading, full)
    if standing == nil then
        if loading[FIRST] == nil then
            loading[FIRST], mark.is_first_of = mark, full
        else
            loading[full] = mark
        end
        return
    end
    local group = standing
    if loading[FIRST] == standing then
        loading[FIRST], standing.is_first_of = nil, false
    end
    if not standing.members then
        group = { members = setmetatable({ [standing] = true }, { __mode = "k" }) }
        standing.group = group
        loading[full] = group
    end
    group.members[mark] = true
    mark.group = group
end

---It has ended, or its coroutine has. Twice is harmless.
function marks.remove(loading, full, mark)
    local group = mark.group
    if mark.counts then
        mark.counts, count = false, count - 1
    end
    mark.owner, mark.request, mark.co, mark.anchor = false, false, false, false
    mark.group, mark.is_first_of = false, false
    if group then
        group.members[mark] = nil
        if next(group.members) == nil and loading[full] == group then
            loading[full] = nil
        end
    elseif loading[FIRST] == mark then
        loading[FIRST] = nil
    elseif loading[full] == mark then
        loading[full] = nil
    end
end

local function obstacle(loading, full, mark, scheduler)
    if not is_under_way(mark) then
        return marks.remove(loading, full, mark)
    end
    return scheduler.obstacle(mark)
end

---Why the running caller cannot wait for the key, or nil.
---@param loading table<string, table>
---@param full string
---@param scheduler table
---@return string|nil cause
function marks.obstacle(loading, full, scheduler)
    local standing = standing_at(loading, full)
    if standing == nil then
        return nil
    elseif not standing.members then
        return obstacle(loading, full, standing, scheduler)
    end
    local list = {}
    for mark in pairs(standing.members) do
        list[#list + 1] = mark
    end
    local cause
    for _, mark in ipairs(list) do
        cause = obstacle(loading, full, mark, scheduler) or cause
    end
    return cause
end

---Whether the running caller is called by a loader.
---@param loading table<string, table>
---@param scheduler table
---@return boolean
function marks.is_inside(loading, scheduler)
    if count == 0 then
        return false
    elseif stands_here() then
        return true
    end
    local names = {}
    for full, mark in pairs(loading) do
        names[#names + 1] = mark.is_first_of or full
    end
    for _, full in ipairs(names) do -- in a coroutine that the loader has made
        if marks.obstacle(loading, full, scheduler) == marks.SELF then
            return true
        end
    end
    return false
end

return marks
