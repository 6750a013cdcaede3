-- transaction - commands that Redis runs together, or not at all where a watched key has changed.
--
-- What:   with keys to watch: WATCH on a lent connection, what fn(tx) reads there, and then what it
--         has queued, between MULTI and EXEC in one write; again from WATCH on where somebody was
--         faster. Without such keys the whole goes over the shared connection.
-- Errors: nothing is done where a queued command is refused. An error of a command that runs is a
--         value at its place: Redis takes nothing back.
-- Not:    a script goes with its source: in a transaction nobody could mend that Redis does not
--         know its SHA.

local batch = require("redcache.redis.batch")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local errors = require("redcache.errors")
local lent = require("redcache.redis.lent")
local NULL = require("redcache.null")
local scripts = require("redcache.redis.script")
local usage = require("redcache.usage")
local verbs = require("redcache.redis.verbs")

local transaction = {}

local ACTION = "run the transaction"
-- How often slots are looked for that have moved.
local HOPS = 5

---@class redcache.RedisTransaction
---@field package _redis redcache.Redis
---@field package _own table
---@field package _connection redcache.redis.Connection|nil
---@field package _commands redcache.redis.Command[]|nil nil: it is over
local Transaction = {}
Transaction.__index = Transaction

local function queue(self, command)
    local commands = self._commands
    if commands == nil then
        error("the transaction is over: queue commands in the function that it is handed to", 3)
    end
    commands[#commands + 1] = command
    return #commands
end

---Runs a command at once, before the transaction: to read what it depends on.
---@param name string
---@param ... string|number|ffi.cdata*
---@return any value as redis:command
---@return redcache.Error|nil err as redis:command
function Transaction:read(name, ...)
    local message = usage.fault(self, "transaction", "_own", "read")
    if message then
        error(message, 2)
    end
    local command = batch.command("read", name, ...)
    if self._commands == nil then
        error("the transaction is over: read in the function that it is handed to", 2)
    elseif self._connection then
        return batch.only(self._connection:send(self._own, { command }))
    end
    return batch.only(batch.send(self._redis, self._own, { command }))
end

---Queues a command.
---@param name string
---@param ... string|number|ffi.cdata*
---@return integer place of its answer among the answers
function Transaction:command(name, ...)
    local message = usage.fault(self, "transaction", "_own", "command")
    if message then
        error(message, 2)
    end
    local place = queue(self, batch.command("command", name, ...))
    return place
end

---Queues a run of a script.
---@param script redcache.RedisScript
---@param keys? string[]
---@param args? (string|number|ffi.cdata*)[]
---@return integer place of its answer among the answers
function Transaction:run(script, keys, args)
    local place = queue(self, scripts.with_source(scripts.command(script, keys, args)))
    return place
end

usage.guard("transaction", Transaction, "_own", { command = true, read = true })

-- Runs fn. Whether it ended well, and what it returned or threw.
local function run(redis, own, connection, fn)
    local tx = setmetatable({
        _redis = redis, _own = own, _connection = connection, _commands = {},
    }, Transaction)
    local ok, first, second = pcall(fn, tx)
    local commands = tx._commands
    tx._commands = nil
    return ok, commands, first, second
end

local function whole(commands)
    local all = { batch.command(ACTION, "MULTI") }
    for i, command in ipairs(commands) do
        all[i + 1] = command
    end
    all[#all + 1] = batch.command(ACTION, "EXEC")
    return all
end

-- What came of MULTI to EXEC: the list of answers | NULL, a watch was lost | nil, err
local function judge(answers)
    local last = answers[#answers]
    if not errors.is(last) then
        return last
    end
    for _, answer in ipairs(answers) do
        if errors.is(answer) then
            return nil, answer -- the first that was refused says why EXEC was
        end
    end
end

-- In a cluster all keys have to be of one slot. The slot of one, and whether all are.
local function slots(watched, commands)
    local keys, first = {}, nil
    for i, key in ipairs(watched) do
        keys[i] = key
    end
    for _, command in ipairs(commands) do
        keys[#keys + 1] = verbs.key(command)
    end
    for _, key in ipairs(keys) do
        local slot = core_command.key_slot(key)
        if first ~= nil and slot ~= first then
            return false
        end
        first = slot
    end
    return true, keys[1]
end

-- A cluster's refusal says so, in words. nil: it was something else, or may go on elsewhere.
local function objection(err, watched, commands)
    local is_cluster = lent.is_elsewhere(err)
        or (err.code == "redis" and string.find(err.message, "CROSSSLOT", 1, true))
    if is_cluster and not slots(watched, commands) then
        return errors.new("redis", ACTION, nil, "its keys are of several slots of the cluster, and"
            .. " a transaction runs at one: give them one hash tag, as in {user:7}:name")
    end
end

-- One try, from WATCH on. answers | NULL | false, why (fn gave up) | nil, err; what fn threw
local function attempt(redis, own, connection, watched, fn)
    if connection then
        local answers, err = connection:send(own, { batch.command(ACTION, "WATCH",
            unpack(watched)) })
        err = err or (errors.is(answers[1]) and answers[1])
        if err then
            return nil, objection(err, watched, {}) or err
        end
    end
    local ok, commands, first, second = run(redis, own, connection, fn)
    if not ok then
        return nil, nil, { first }
    elseif first == false then
        return false, second
    elseif #commands == 0 then
        return {}
    end
    local all = whole(commands)
    local answers, err
    if connection then
        answers, err = connection:send(own, all)
    else
        answers, err = batch.send(redis, own, all)
    end
    if type(answers) == "table" then
        answers, err = judge(answers)
    end
    return answers, err and objection(err, watched, commands) or err
end

-- The tries, over one connection or the shared one, until one is not to be made again.
local function attempts(redis, own, connection, watched, fn)
    local answers, err, thrown
    for _ = 0, own.retries do
        answers, err, thrown = attempt(redis, own, connection, watched, fn)
        if answers ~= NULL then
            return answers, err, thrown
        end
    end
    return nil, errors.new("conflict", ACTION, nil, "a watched key was changed in each of "
        .. own.retries + 1 .. " tries")
end

---Ends in answers, false, why (fn gave up) or nil, err; or throws what fn has thrown.
---@param redis redcache.Redis
---@param own table checked options: retries, timeout, cancelTag
---@param watched string[]
---@param fn fun(tx: redcache.RedisTransaction): false|nil, any
function transaction.run(redis, own, watched, fn)
    local err = core_client.closed(redis._cache._client, ACTION)
    if err then
        return nil, err
    end
    local answers, thrown
    for _ = 1, HOPS do
        local connection
        if watched[1] then
            connection, err = lent.borrow(redis, own, watched[1], ACTION)
            if connection == nil then
                return nil, err
            end
        end
        answers, err, thrown = attempts(redis, own, connection, watched, fn)
        if connection then
            connection:close()
        end
        if thrown then
            error(thrown[1], 0)
        elseif answers == true then
            return true, nil, "sent" -- this phase of nginx cannot wait
        elseif not (connection and lent.is_elsewhere(err)) then
            return answers, err
        end
        lent.locate(redis, own, watched[1])
    end
    return answers, err
end

return transaction
