-- holders - what belongs to one coroutine alone, and has to be given back when that is gone.
--
-- What:   a coroutine can end without running any more Lua: nginx drops the light threads of a
--         request that was aborted. What it held is found by looking: while it lives, the object
--         stands on its stack.
-- Memory: weak: neither the coroutine nor the object is kept alive by this. What nobody refers to
--         any more is the garbage collector's, whose finalizer gives it back, too.
-- Not:    no clock; whoever owns the table calls drop_dead from time to time.

local holders = {}

-- Deeper than any loader that works; a stack that deep is taken for alive.
local MAX_LEVELS = 200
-- So much garbage is collected per look, in kilobytes: a light thread that was spawned and killed
-- still has its stack, until the collector comes by.
local STEP = 64

---@return table holders
function holders.new()
    return setmetatable({}, { __mode = "k" })
end

---@param object table on the stack of the running coroutine until it is removed
---@param drop fun(object: table)
function holders.add(self, object, drop)
    local weak = setmetatable({ co = coroutine.running() }, { __mode = "v" })
    self[object] = { drop = drop, weak = weak }
end

function holders.remove(self, object)
    self[object] = nil
end

local function stands_on_stack(co, object)
    for level = 0, MAX_LEVELS do
        if not debug.getinfo(co, level, "l") then
            return false
        end
        local i = 1
        local name, value = debug.getlocal(co, level, i)
        while name do
            if value == object then
                return true
            end
            i = i + 1
            name, value = debug.getlocal(co, level, i)
        end
    end
    return true
end

---Drops what belongs to coroutines that are gone.
function holders.drop_dead(self)
    for object, row in pairs(self) do
        local co = row.weak.co
        if not co or not stands_on_stack(co, object) then
            self[object] = nil
            row.drop(object)
        end
    end
    if next(self) then
        collectgarbage("step", STEP)
    end
end

return holders
