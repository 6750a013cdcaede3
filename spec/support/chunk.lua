--- Lua code that travels to another process or thread: a function without upvalues, a file, or
-- source text.

local chunk = {}

--- The bytes to load() elsewhere and a name for error messages. spec.main, spec.file or
-- spec.source.
function chunk.pack(spec)
    if spec.main then
        local info = debug.getinfo(spec.main, "uS")
        if info.nups > 0 then
            error(("the function at %s:%d has upvalues: they stay behind, use params"):format(
                info.short_src, info.linedefined), 3)
        end
        return string.dump(spec.main), "=" .. info.short_src
    end
    if spec.file then
        local file = assert(io.open(spec.file, "rb"))
        local bytes = file:read("*a")
        file:close()
        return bytes, "@" .. spec.file
    end
    return assert(spec.source, "main, file or source expected"), "=source"
end

return chunk
