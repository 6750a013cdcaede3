-- batch - commands as a caller names them: checked, written into a slot, sent together.
--
-- What:   a caller queues commands in a list; nothing is held meanwhile. send() takes a slot,
--         writes them all, waits, and reads their answers.
-- Errors: argument errors are raised where the public method was called; what fails at run time is
--         an error object. Neither names an argument: it may be a password.

local answer = require("redcache.redis.answer")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_lent = require("redcache.core.lent")
local core_number = require("redcache.core.number")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local NULL = require("redcache.null")
local verbs = require("redcache.redis.verbs")

local give = core_slot.give
local LOST, NOT_WAITED, RETRY = constants.LOST, constants.NOT_WAITED, constants.RETRY

local batch = {}

-- What a caller may give for an argument, as Redis reads it; nil: it is none.
local function text_of(value)
    local kind = type(value)
    if kind == "string" then
        return value
    elseif (kind == "number" and value == value) or core_number.is_int64(value) then
        return core_number.format(value)
    end
end

local EXPECTED = "string or number expected, got "

---Checks a command. Raises an argument error at the caller of the method.
---@param method string
---@param name any
---@param ... any
---@return redcache.redis.Command
function batch.command(method, name, ...)
    if type(name) ~= "string" or name == "" then
        error(errors.argument("name", method, "string that is not empty", name), 3)
    end
    local command = { ... }
    command.name, command.count = string.upper(name), select("#", ...)
    for i = 1, command.count do
        local text = text_of(command[i])
        if text == nil then
            error("bad argument #" .. i + 1 .. " to " .. method .. ": " .. EXPECTED
                .. (command[i] ~= command[i] and "NaN" or type(command[i])), 3)
        end
        command[i] = text
    end
    return command
end

---Checks a list of strings and numbers, as a script's keys.
---@param method string
---@param name string of the argument
---@param list any nil: an empty one
---@return string[]|nil texts
---@return string|nil message for error()
function batch.texts(method, name, list)
    local texts = {}
    if list == nil then
        return texts
    elseif type(list) ~= "table" then
        return nil, errors.argument(name, method, "list of strings and numbers", list)
    end
    for i = 1, #list do
        texts[i] = text_of(list[i])
        if texts[i] == nil then
            return nil, "bad argument '" .. name .. "' to " .. method .. ": " .. EXPECTED
                .. type(list[i]) .. " at place " .. i
        end
    end
    return texts
end

-- Writes a command into the slot. status
local function write(slot, command)
    if command.script then
        return core_command.script(slot, command.script._number, command.keys, command)
    end
    local status = core_command.command(slot, command.count + 1)
    if status == 0 then
        status = core_command.argument(slot, command.name)
    end
    local first, last, step = verbs.written(command)
    for i = 1, command.count do
        if status ~= 0 then
            return status
        end
        local is_written = i >= first and i <= last and (i - first) % step == 0
        status = (is_written and core_command.argument_written or core_command.argument)(slot,
            command[i])
    end
    return status
end

local function is_too_large(commands, most)
    for _, command in ipairs(commands) do
        for i = 1, command.count do
            if #command[i] > most then
                return true
            end
        end
        for _, key in ipairs(command.keys or {}) do
            if #key > most then
                return true
            end
        end
    end
    return false
end

local function all_read(commands)
    for _, command in ipairs(commands) do
        if not verbs.reads(command) then
            return false
        end
    end
    return true
end

-- The core names its own way to a connection of one's own; there are others here.
local WAYS = {}
for name in string.gmatch("MULTI EXEC WATCH DISCARD UNWATCH", "%a+") do
    WAYS[name] = ": see transaction()"
end
for name in string.gmatch("SUBSCRIBE PSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE", "%a+") do
    WAYS[name] = ": see subscribe()"
end

local function failure_of(slot, status, action, commands)
    local err = calls.fail(slot, status, action)
    if status == LOST then
        err.code = "unavailable" -- the lent connection is gone: nothing was sent
    end
    if err.code == "refused" then
        local way = ""
        for _, command in ipairs(commands) do
            way = WAYS[command.name] or way
        end
        err.message = string.gsub(err.message, ": it goes over a lent one %(rc_lent_begin%)", "")
            .. way
    end
    return err
end

-- What a command is called in its error.
local function action_of(command)
    return command.script and "run the script" or "run " .. errors.printable(command.name)
end

---What all of them are called in their error.
---@param commands redcache.redis.Command[]
---@return string action
function batch.action(commands)
    return #commands == 1 and action_of(commands[1]) or "run the pipeline"
end

-- Sends commands in one write, and waits for their answers. slot, which the caller gives back |
-- nil, err | nil, nil, "sent"
local function send(redis, own, commands, handle)
    local cache, action = redis._cache, batch.action(commands)
    local client = cache._client
    if is_too_large(commands, client.max_value) then
        return nil, errors.new("tooLarge", action, nil, "an argument is over maxValue")
    end
    local slot, err = calls.take(client, own, action)
    if slot == nil then
        return nil, err
    end
    local reads = all_read(commands)
    local status
    if handle then
        status = core_lent.begin(handle, slot)
    else
        status = core_command.begin(slot, (own.retry or reads) and RETRY or 0)
    end
    for i = 1, #commands do
        if status ~= 0 then
            break
        end
        status = write(slot, commands[i])
    end
    status = calls.send(cache, slot, status)
    if status == NOT_WAITED and not reads then
        give(slot)
        return nil, nil, "sent"
    elseif status ~= 0 then
        return nil, failure_of(slot, status, action, commands)
    end
    return slot
end

---What a command that was sent alone has answered.
---@param answers any[]|true|nil of send()
---@return any value nil for null
---@return redcache.Error|nil err
---@return string|nil sent
function batch.only(answers, err, sent)
    if type(answers) ~= "table" then
        return answers, err, sent
    end
    local value = answers[1]
    if errors.is(value) then
        return nil, value
    elseif value == NULL then
        return nil
    end
    return value
end

---Sends commands in one write, and waits for their answers.
---@param redis redcache.Redis
---@param own table checked options: timeout, cancelTag, retry
---@param commands redcache.redis.Command[] at least one
---@param handle? ffi.cdata* of a lent connection; nil: over the shared ones
---@return any[]|true|nil answers in order
---@return redcache.Error|nil err
---@return string|nil sent
function batch.send(redis, own, commands, handle)
    local slot, err, sent = send(redis, own, commands, handle)
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local answers = answer.all(slot, action_of, commands)
    give(slot)
    return answers
end

return batch
