-- script - a Lua script of the caller's own, which Redis runs.
--
-- What:   sent by its SHA, with its source where Redis does not know it: alone and in pipelines the
--         core does that; in a transaction it goes with its source.
-- Memory: the source is kept as long as the process lives: a script is a constant of the program.
-- Not:    memory:// runs no scripts but redcache's own.

local batch = require("redcache.redis.batch")
local core_command = require("redcache.core.command")
local errors = require("redcache.errors")
local usage = require("redcache.usage")

local script = {}

---@class redcache.RedisScript
---@field package _redis redcache.Redis
---@field package _number integer
---@field package _source string
local Script = {}
Script.__index = Script

---@param redis redcache.Redis
---@param source any
---@return redcache.RedisScript
function script.new(redis, source)
    if type(source) ~= "string" or source == "" then
        error(errors.argument("source", "script", "string that is not empty", source), 3)
    end
    return setmetatable({
        _redis = redis, _number = core_command.define(source), _source = source,
    }, Script)
end

---A run of a script as a command. Raises at the caller of the method.
---@param of any
---@param keys any
---@param arguments any
---@return redcache.redis.Command
function script.command(of, keys, arguments)
    if getmetatable(of) ~= Script then
        error(errors.argument("script", "run", "what script() has made", of), 3)
    end
    local names, message = batch.texts("run", "keys", keys)
    local command = names
    if names ~= nil then
        command, message = batch.texts("run", "args", arguments)
    end
    if command == nil then
        error(message, 3)
    end
    command.keys = names
    command.name, command.count, command.script = "EVALSHA", #command, of
    return command
end

---The same run with the source in place of the SHA.
---@param command redcache.redis.Command of script.command()
---@return redcache.redis.Command
function script.with_source(command)
    local full = { command.script._source, tostring(#command.keys) }
    for _, key in ipairs(command.keys) do
        full[#full + 1] = key
    end
    for i = 1, command.count do
        full[#full + 1] = command[i]
    end
    full.name, full.count = "EVAL", #full
    return full
end

---Runs the script. Its keys count as changed.
---@param keys? string[] their whole names; in a cluster all of one slot
---@param args? (string|number|ffi.cdata*)[]
---@param opts? table timeout, cancelTag, retry (true: it may be run twice, so it is sent again
---where a connection breaks)
---@return any value as redis:command
---@return redcache.Error|nil err as redis:command
---@return string|nil sent as redis:command
function Script:run(keys, args, opts)
    local redis = self._redis
    local own, message = redis:_options(opts, "raw", "run")
    if own == nil then
        error(message, 2)
    end
    local command = script.command(self, keys, args)
    return batch.only(batch.send(redis, own, { command }))
end

usage.guard("script", Script, "_source")

-- script(keys, args, opts)
Script.__call = Script.run

return script
