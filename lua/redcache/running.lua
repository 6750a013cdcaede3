-- running - the coroutine that calls, under every build of LuaJIT.
--
-- What:   nil outside of all coroutines. LuaJIT built with Lua 5.2's rules (as newer Debian has it)
--         gives the main thread there, and a second result that tells so.

local running = coroutine.running

---@return thread|nil
return function()
    local co, is_main = running()
    if is_main then
        return nil
    end
    return co
end
