-- compile - makes lua/redcache/compiled.lua's file, for the LuaJIT that runs this.
-- usage: luajit script/compile.lua LUA_DIRECTORY LATER OUT    LATER: later.lua as it is installed

local directory, later_file, out = ...

package.path = directory .. "/?.lua"
package.loaded["redcache.later"] = assert(loadfile(later_file))()
local key = require("redcache.compiled").key()

-- Words that are no type without what follows: it may be the type, and is no name then.
local UNFINISHED = { const = true, struct = true, unsigned = true, long = true }

local function without_name(parameter)
    local kind, name = parameter:match("^(.*[%s*])([%a_][%w_]*)$")
    return name and not UNFINISHED[kind:match("([%w_]*)%s*$")] and kind or parameter
end

-- LuaJIT parses the C text at each start: it is shorter without comments and names of parameters.
local function smaller(text)
    text = text:gsub("/%*.-%*/", ""):gsub("(%b());", function(list)
        return "(" .. list:sub(2, -2):gsub("[^,]+", without_name) .. ");"
    end)
    return (text:gsub("%s+", " "):gsub(" ?([;,{}()=*]) ?", "%1"))
end

-- What is chosen by its name, and is what most programs choose.
local names = { "redcache", "redcache.scheduler.blocking", "redcache.serializer.msgpack",
    "redcache.serializer.raw" }

local known = { ["redcache.later"] = true, ["redcache.compiled"] = true }
local parts = { key }
local at = 1
while names[at] do
    local name = names[at]
    if not known[name] then
        known[name] = true
        local place = name:gsub("%.", "/") .. ".lua"
        local file = assert(io.open(directory .. "/" .. place, "rb"))
        local text = file:read("*a")
        file:close()
        if name ~= "redcache" then -- which reads what is made here
            if name == "redcache.core.cdef" then
                text = text:gsub("%[==%[.*%]==%]", function(declarations)
                    return "[==[" .. smaller(declarations:sub(5, -5)) .. "]==]"
                end)
            end
            local bytes = string.dump(assert(loadstring(text, "@" .. place)))
            parts[#parts + 1] = ("%s %d\n%s"):format(name, #bytes, bytes)
        end
        for needed in text:gmatch("\nlocal [%w_]+ = require%(\"(redcache[%w_.]*)\"%)") do
            names[#names + 1] = needed
        end
    end
    at = at + 1
end

local file = assert(io.open(out, "wb"))
assert(file:write(table.concat(parts)))
assert(file:close())
