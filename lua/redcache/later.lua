-- later - modules that are loaded when they are first used: a start pays for no other.
--
-- What:   module() is a module for the files that use it; methods() gives a class those of its
--         methods that another module brings. From the first use on both are the real ones: a table
--         that looks them up in the module, and the module's own function in the class.
-- Errors: those of require; the next use tries again.
-- Not:    no module that is on the way of a hit. Between the start and the first use the files must
--         stay where they are: all() loads them at once, for who changes them, or what may be read.

local later = {}

local waiting = {} -- functions that load a module, by its name

-- What throws while a module runs (no memory, a hook) leaves it half loaded, and those that wanted
-- it: Lua would refuse each of them for ever. Its mark for these is userdata, which some LuaJITs
-- show as a number.
local function load_module(name)
    local ok, module = pcall(require, name)
    if ok then
        return module
    end
    for loaded, value in pairs(package.loaded) do
        local is_mark = type(value) == "userdata" or type(value) == "number"
        if is_mark and string.find(loaded, "^redcache%.") then
            package.loaded[loaded] = nil
        end
    end
    error(module, 0)
end

---A module that is loaded when a field of it is first read.
---@param name string as for require
---@return table module
function later.module(name)
    local stand_in = {}
    local function load()
        local module = load_module(name)
        setmetatable(stand_in, { __index = module })
        waiting[name] = nil
        return module
    end
    waiting[name] = load
    return setmetatable(stand_in, { __index = function(_, field)
        return load()[field]
    end })
end

---Gives a class the methods of a module, which is loaded when one of them is first called.
---@param class table
---@param name string of the module
---@param methods string[]
---@param adopt fun(method: string, fn: function): function what stands in the class for each
function later.methods(class, name, methods, adopt)
    local function load()
        local module = load_module(name)
        for _, method in ipairs(methods) do
            class[method] = adopt(method, module[method])
        end
        waiting[methods] = nil
    end
    waiting[methods] = load
    for _, method in ipairs(methods) do
        -- No method takes more. A tail call: what the method raises is raised at its caller's line.
        class[method] = function(self, a, b, c, d, e)
            if waiting[methods] then
                load()
            end
            return class[method](self, a, b, c, d, e)
        end
    end
end

---Loads whatever is still to be loaded.
function later.all()
    while true do
        local _, load = next(waiting)
        if load == nil then
            return
        end
        load()
    end
end

return later
