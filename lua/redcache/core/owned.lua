-- owned - objects of the C core that the garbage collector frees.
--
-- What:   keep() hands an object over; free() and let_go() are for who ends it sooner.
-- Memory: where a Lua state ends, LuaJIT calls the finalizers of all cdata first, also of what is
--         still in use, and those of userdata afterwards. A finalizer of the user's (newproxy,
--         ffi.gc) may then call a cache that nobody has closed. So what is still in use then stays
--         until two rounds of finalizers have run: those that stood there when the state began to
--         end, and those that they have made. Then the caches are closed, and all is freed. The
--         library can be called up to then (ffi.lua).

local ffi = require("ffi")

local newproxy = newproxy

local core_owned = {}

-- What frees each object that is not freed yet. The collector takes an object out of here before it
-- calls its finalizer: one that is found here is still in use, so the Lua state ends.
local kept = setmetatable({}, { __mode = "k" })
local finalizers = {} -- by what frees
local last_words = {} -- functions: run before everything is freed
local proxy -- of the next round

-- Runs fn in the next round of finalizers of a Lua state that ends.
local function run_later(fn)
    proxy = newproxy(true)
    getmetatable(proxy).__gc = fn
end

local function free_all()
    for i = 1, #last_words do
        last_words[i]()
    end
    for object, free in pairs(kept) do
        kept[object] = nil
        free(object)
    end
end

local function begin_end()
    if proxy == nil then
        setmetatable(kept, nil) -- no finalizer is called twice: nothing else keeps them now
        run_later(function()
            run_later(free_all)
        end)
    end
end

local function finalizer_of(free)
    local finalizer = finalizers[free]
    if finalizer == nil then
        finalizer = function(object)
            if kept[object] == nil then
                free(object)
            else
                begin_end()
            end
        end
        finalizers[free] = finalizer
    end
    return finalizer
end

---The collector frees the object when nothing refers to it any more.
---@param object ffi.cdata* a pointer of its own
---@param free function|ffi.cdata* is called with it
---@return ffi.cdata* object
function core_owned.keep(object, free)
    kept[object] = free
    return ffi.gc(object, finalizer_of(free))
end

---The caller frees the object.
---@return boolean is_there it has not been freed
function core_owned.let_go(object)
    local is_there = kept[object] ~= nil
    kept[object] = nil
    ffi.gc(object, nil)
    return is_there
end

---Frees the object. Twice is harmless.
function core_owned.free(object)
    local free = kept[object]
    if core_owned.let_go(object) then
        free(object)
    end
end

---Runs fn where the Lua state ends and something is still in use, just before that is freed.
---@param fn fun()
function core_owned.at_end(fn)
    last_words[#last_words + 1] = fn
end

return core_owned
