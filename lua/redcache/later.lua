-- later - modules that are loaded when they are first used: a start pays for no other.
--
-- What:   module() is a module for the files that use it; methods() gives a class those of its
--         methods that another module brings. From the first use on both are the real ones: a table
--         that looks them up in the module, and the module's own function in the class. What nobody
--         has used SECONDS after a client was opened is loaded by its calls (attend), so that a
--         process that lives on has all of its files; all() loads them at once.
-- Errors: those of require; the next use tries again. A file of another release is refused: one
--         process never runs two.
-- Not:    no module that is on the way of a hit.

-- cmake --install writes this file first, and the digest of all Lua files behind the version.
local RELEASE = "0.1.0"

local path = string.match(debug.getinfo(1, "S").source, "^@(.+)")

local later = {
    RELEASE = RELEASE,
    DIRECTORY = path and string.match(path, "^.*/"), -- of our files
    VERSION = string.match(RELEASE, "^%S+"),

    -- A program that is over by then never pays for what it has not used.
    SECONDS = 1,
}

-- How long a call is held up by what it loads, but for the file at which that time ends.
local PIECE = 0.002

local waiting = {} -- functions that load a module, by its name

-- Refuses to load a file that was installed over ours. Where nothing is to be read, require tells.
local function check_release(name)
    local file = path and io.open(path, "rb")
    local text = file and file:read(4096)
    if file then
        file:close()
    end
    local found = text and string.match(text, '\nlocal RELEASE = "([^"\n]+)"')
    if found and found ~= RELEASE then
        error("could not load '" .. name .. "': the files of redcache are those of another release"
            .. " now (" .. found .. ", this process runs " .. RELEASE .. "): restart it;"
            .. ' require("redcache.all") at the start of a program loads all files there', 0)
    end
end

-- What throws while a module runs (no memory, a hook) leaves it half loaded, and those that wanted
-- it: Lua would refuse each of them for ever. Its mark for these is userdata, which some LuaJITs
-- show as a number.
local function load_module(name)
    if type(package.loaded[name]) ~= "table" then
        check_release(name)
    end
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

---A module of ours that is chosen by its name, and loaded when it is asked for with load().
---@param name string as for require
function later.choice(name)
    waiting[name] = function()
        waiting[name] = nil
        pcall(load_module, name) -- it may need what is not installed, and nobody may ever want it
    end
end

---Loads such a module.
---@type fun(name: string): table
later.load = load_module

-- Where a Lua state ends, LuaJIT takes a C module that a finalizer has loaded away before what that
-- module has made (cjson crashes then). Nobody may call jit.off within a finalizer.
local function probe() end

local function is_in_finalizer()
    return not pcall(jit.off, probe)
end

---Has the client's calls load what is still to be loaded, SECONDS from now on and piece by piece.
---Where that fails, the first use tells.
---@param client redcache.Client
---@param now fun(client: redcache.Client): number
function later.attend(client, now)
    if next(waiting) == nil then
        return
    end
    local begins_at = now(client) + later.SECONDS
    local function rest()
        local started_at = now(client)
        if started_at < begins_at or is_in_finalizer() then
            return
        end
        local ok, _, load
        repeat
            _, load = next(waiting)
            ok = load ~= nil and pcall(load)
        until not ok or now(client) - started_at >= PIECE
        if not ok then
            client.rest = false
            if client.due == rest then
                client.due = false
            end
        end
    end
    client.rest, client.due = rest, rest
end
jit.off(later.methods) -- as usage.guard

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
