--- Bugs planted into our Lua modules, to see that a spec finds them.
--
-- What:   planted.load(name, from, to) runs the text of a module once more, in which `from`, which
--         must stand there exactly once, is replaced by `to`. planted.into(name, other, fn) calls
--         fn while the functions of the module that is in use are those of the other one.
--         planted.find(name, from, to, seeds, run) is the seed of a history that finds it.
-- Not:    what has taken a function of the module into a local of its own keeps it.

local planted = {}

local function source_of(name)
    local path = assert(package.searchpath and package.searchpath(name, package.path)
        or "lua/" .. name:gsub("%.", "/") .. ".lua")
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return text, path
end

--- The module with a bug. Bugs that stand in scripts are planted the same way.
function planted.load(name, from, to)
    local text, path = source_of(name)
    local first, last = text:find(from, 1, true)
    assert(first, ("%s does not hold: %s"):format(name, from))
    assert(not text:find(from, last + 1, true), ("%s holds twice: %s"):format(name, from))
    local changed = text:sub(1, first - 1) .. to .. text:sub(last + 1)
    return assert(loadstring(changed, "@" .. path))(name)
end

--- Calls fn(...) while `name` has the functions of `other`; what fn throws is thrown.
function planted.into(name, other, fn, ...)
    local module, own = require(name), {}
    for key, value in pairs(other) do
        own[key] = module[key]
        module[key] = value
    end
    local ok, result = pcall(fn, ...)
    for key in pairs(other) do module[key] = own[key] end
    if not ok then error(result, 0) end
    return result
end

--- The first of so many seeds whose history finds the bug, or throws. run(seed, module) is whether
-- it does; module has the bug.
function planted.find(name, from, to, seeds, run)
    local module = planted.load(name, from, to)
    for seed = 1, seeds do
        if planted.into(name, module, run, seed, module) then return seed end
    end
    error("no history finds it", 2)
end

return planted
