-- pipeline - commands that are sent together: one write per node, the answers in order.
--
-- Memory: the commands until the function that queues them returns; no connection, no slot.

local batch = require("redcache.redis.batch")
local scripts = require("redcache.redis.script")
local usage = require("redcache.usage")

local pipeline = {}

---@class redcache.RedisPipeline
---@field package _commands redcache.redis.Command[]|nil nil: it was sent
local Pipeline = {}
Pipeline.__index = Pipeline

---Queues a command for this pipeline.
---@param list table with _commands
---@param command redcache.redis.Command
---@return integer place of its answer
function pipeline.queue(list, command)
    local commands = list._commands
    if commands == nil then
        error("the pipeline was sent: queue commands in the function that it is handed to", 3)
    end
    commands[#commands + 1] = command
    return #commands
end

---Queues a command.
---@param name string
---@param ... string|number|ffi.cdata* arguments
---@return integer place of its answer among the answers
function Pipeline:command(name, ...)
    local message = usage.fault(self, "pipeline", "_is_pipeline", "command")
    if message then
        error(message, 2)
    end
    local place = pipeline.queue(self, batch.command("command", name, ...))
    return place
end

---Queues a run of a script.
---@param script redcache.RedisScript of redis:script
---@param keys? string[]
---@param args? (string|number|ffi.cdata*)[]
---@return integer place of its answer among the answers
function Pipeline:run(script, keys, args)
    local place = pipeline.queue(self, scripts.command(script, keys, args))
    return place
end

---Runs fn(p), and takes what it has queued.
---@param fn fun(p: redcache.RedisPipeline)
---@return redcache.redis.Command[]
function pipeline.collect(fn)
    local list = setmetatable({ _commands = {}, _is_pipeline = true }, Pipeline)
    fn(list)
    local commands = list._commands
    list._commands = nil
    return commands
end

usage.guard("pipeline", Pipeline, "_is_pipeline", { command = true })

return pipeline
