-- compiled - the files that every start needs as bytecode, where `cmake --install` has left it:
-- they are read in one piece, and nothing is parsed.
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

local function read()
    local file = later.DIRECTORY and io.open(later.DIRECTORY .. "compiled.ljbc", "rb")
    if not file then
        return ""
    end
    local key = compiled.key()
    local bytes = file:read(#key) == key and file:read("*a") or ""
    file:close()
    return bytes
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
    local bytes, at = read(), 1
    while true do
        local _, last, name, length = string.find(bytes, "^(%S+) (%d+)\n", at)
        if last == nil then
            return
        end
        at = last + 1 + length
        provide(name, string.sub(bytes, last + 1, at - 1))
    end
end

return compiled
