-- holders - what belongs to one coroutine alone, and has to be given back when that is gone.
--
-- What:   a coroutine can end without running any more Lua: nginx drops the light threads of a
--         request that was aborted. What it held is found by looking: while it lives, the object
--         stands on its stack, and a light thread in nginx' own list (resty/threads.lua).
-- Memory: weak: neither the coroutine nor the object is kept alive by this. What nobody refers to
--         any more is the garbage collector's, whose finalizer gives it back, too.
-- Not:    no clock; the table's owner calls drop_dead from time to time.

local running = require("redcache.running")
local threads = require("redcache.scheduler.resty.threads")

local holders = {}

-- Deeper than any loader that works; a stack that deep is taken for alive.
local MAX_LEVELS = 200
-- A coroutine that is no light thread, and was left by a request that is over, still has its stack
-- until the collector comes by. So each look lets the collector do a 64th of the heap, and at least
-- so many kilobytes.
local LEAST_STEP, SHARE = 64, 64
-- What was dropped while a cycle ran may have been marked before: the next one finds it.
local CYCLES = 2

---@class redcache.Holders
---@field rows table weak: who holds what
---@field cycles integer of the collector, still to come

---@return redcache.Holders
function holders.new()
    return { rows = setmetatable({}, { __mode = "k" }), cycles = 0 }
end

---@param object table on the stack of the running coroutine until it is removed
---@param drop fun(object: table)
function holders.add(self, object, drop)
    local co = running()
    local weak = setmetatable({ co = co }, { __mode = "v" })
    self.rows[object] = { drop = drop, weak = weak, number = threads.number(co) }
end

function holders.remove(self, object)
    self.rows[object] = nil
end

---Whether drop_dead has something to do.
---@return boolean
function holders.has_work(self)
    return self.cycles > 0 or next(self.rows) ~= nil
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

local function is_alive(row, object)
    local co, number = row.weak.co, row.number
    return co ~= nil and (number == nil or threads.is_alive(co, number))
        and stands_on_stack(co, object)
end

local NOTHING, LOOKED_AT = {}, 150

-- A look leaves the objects it saw in slots of the looker's stack that its next calls may not fill
-- for as long as it lives: the collector would take them for alive. They are filled with nil here.
local function wipe_stack()
    unpack(NOTHING, 1, LOOKED_AT)
end
jit.off(wipe_stack) -- what it compiles writes no slots that nobody reads

local function look(self)
    local rows, has_others = self.rows, false
    for object, row in pairs(rows) do
        if not is_alive(row, object) then
            rows[object] = nil
            row.drop(object)
        elseif row.number == nil then
            has_others = true
        end
    end
    if has_others then
        self.cycles = CYCLES
    end
end

---Drops what belongs to coroutines that are gone.
function holders.drop_dead(self)
    if next(self.rows) ~= nil then
        look(self)
        wipe_stack()
    end
    if self.cycles > 0 then
        local step = math.max(LEAST_STEP, collectgarbage("count") / SHARE)
        if collectgarbage("step", math.floor(step)) then
            self.cycles = self.cycles - 1
        end
    end
end

return holders
