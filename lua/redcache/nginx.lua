-- nginx - whether this Lua state is one of nginx', with all that the scheduler "resty" needs.
--
-- What:   a boolean. A global of that name alone is not enough: test beds make one of their own.
-- Not:    no phase: init_by_lua, where nothing can be started, is nginx, too.

local ngx = rawget(_G, "ngx")

local function has(...)
    local at = ngx
    for _, name in ipairs({ ... }) do
        at = type(at) == "table" and at[name] or nil
    end
    return type(at) == "function"
end

local is_nginx = has("get_phase") and has("timer", "at") and has("thread", "spawn")
    and has("socket", "tcp") and has("worker", "pid") and has("worker", "exiting")
    and pcall(require, "ngx.semaphore") and pcall(require, "resty.core.base")

return is_nginx and true or false
