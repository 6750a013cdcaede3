-- compiled - the files that every start needs as bytecode, where `cmake --install` has left it:
-- nothing is parsed.
--
-- What:   compiled.ljbc beside this file: a key, then "name length\n" and the bytecode of each
--         module (script/compile.lua). It stands in package.preload until it is required.
-- Errors: none. Where the file is not there, or its key is another, require finds the Lua files.
-- Not:    no bytecode of another release, or of another LuaJIT.

local later = require("redcache.later")

local compiled = {}

---What the file begins with. LuaJIT refuses bytecode of another layout, but may take that of
---another state of one version ("2.1.0-beta3" was many): what this one makes of functions is a part
---of the key.
---@return string
function compiled.key()
    local parts = { "redcache", later.RELEASE, jit.version, jit.os, jit.arch }
    for _, fn in ipairs({ later.module, later.methods, later.attend, later.all }) do
        parts[#parts + 1] = string.dump(fn, true)
    end
    return table.concat(parts, "\n") .. "\n"
end

local function provide(name, bytes)
    local preload = package.preload
    if preload[name] == nil then
        preload[name] = function(...)
            preload[name] = nil
            return assert(loadstring(bytes))(...)
        end
    end
end

---Has the next require of each module that is there take it from there.
function compiled.use()
    local file = later.DIRECTORY and io.open(later.DIRECTORY .. "compiled.ljbc", "rb")
    if not file then
        return
    end
    local key = compiled.key()
    -- Module by module: no text of all of them is ever in memory, and no page is touched for it.
    local line = file:read(#key) == key and file:read("*l")
    while line do
        local name, length = string.match(line, "^(%S+) (%d+)$")
        local bytes = name and file:read(tonumber(length))
        if not bytes or #bytes < tonumber(length) then
            break
        end
        provide(name, bytes)
        line = file:read("*l")
    end
    file:close()
end

return compiled
