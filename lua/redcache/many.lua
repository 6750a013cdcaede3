-- many - the parts that every call with many keys has.
--
-- What:   the list of keys, checked and without doubles; the life of each; the time that several
--         writes share; one script on each of many keys, in one round trip to each server.
-- Errors: by key, as the callers give them.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")
local usage = require("redcache.usage")

local NOT_WAITED = constants.NOT_WAITED

local has_new, new_table = pcall(require, "table.new") -- not in every build

local many = {}

---Commands per write: far below maxQueue, and no answer waits for ever in memory.
many.COMMANDS = 8192

---A table with room for so many keys.
---@param count integer
---@return table
function many.new_map(count)
    return has_new and new_table(0, count) or {}
end

---A table with room for so many values by position.
---@param count integer
---@return table
function many.new_list(count)
    return has_new and new_table(count, 0) or {}
end
local new_list = many.new_list

-- The form of an answer ---------------------------------------------------------------------------

---What the options of a call say of the form of its answer. They are not checked here: one that is
---no good is among `others`.
---@param opts any
---@return boolean is_list values by position
---@return table|nil into takes the values
---@return any others opts, where it holds more than that; nil: it does not
function many.form(opts)
    if opts == nil then
        return false, nil, nil
    elseif type(opts) ~= "table" then
        return false, nil, opts
    end
    local is_list, into = opts.list, opts.into
    if is_list ~= nil and type(is_list) ~= "boolean" or into ~= nil and type(into) ~= "table" then
        return false, nil, opts
    end
    for name in next, opts do
        if name ~= "list" and name ~= "into" then
            return is_list or false, into, opts
        end
    end
    return is_list or false, into, nil
end

---What is wrong with the table that is to take the values, or nil.
---@return string|nil message for error()
function many.into_fault(into, keys, method)
    if into ~= nil and into == keys then
        return "bad option 'into' to " .. method .. ": it is the list of keys: give another table"
    end
end

---The table of an answer: that of the caller, where nothing stands any more for these keys, or a
---new one.
---@param keys string[]
---@param is_list boolean
---@param into table|nil
---@return table
function many.answer(keys, is_list, into)
    local count = #keys
    if into == nil then
        return is_list and new_list(count) or many.new_map(count)
    elseif is_list then
        for i = 1, count do
            into[i] = nil
        end
    else
        for i = 1, count do
            into[keys[i]] = nil
        end
    end
    return into
end

---Puts values by key where they belong in a list.
---@param values table by position: those that stand there stay
---@param keys string[]
---@param found table<string, any>
function many.spread(values, keys, found)
    for i = 1, #keys do
        if values[i] == nil then
            values[i] = found[keys[i]]
        end
    end
end

-- The keys ----------------------------------------------------------------------------------------

---The first fault of a list of keys, told as an argument error, or nil.
---@param keys any
---@param method string
---@return string|nil message for error()
function many.list_fault(keys, method)
    if type(keys) ~= "table" then
        return errors.argument("keys", method, "list of strings", keys)
    end
    for i = 1, #keys do
        if type(keys[i]) ~= "string" then
            return "bad argument 'keys' to " .. method .. ": list of strings expected, got "
                .. type(keys[i]) .. " at " .. i
        end
    end
end

---The keys of a list, each once, without those that are too long.
---@param keys string[]
---@param failed table<string, redcache.Error> takes the errors of those
---@param action string
---@return string[] list
---@return integer count
function many.distinct(cache, keys, failed, action)
    local list, count, seen = new_list(#keys), 0, many.new_map(#keys)
    local max = cache._client.max_key - #cache._prefix
    for i = 1, #keys do
        local key = keys[i]
        if not seen[key] then
            seen[key] = true
            if #key > max then
                failed[key] = errors.new("tooLarge", action, key, "the key is over maxKey")
            else
                count = count + 1
                list[count] = key
            end
        end
    end
    return list, count
end

---The life of one key of many.
---@param ttl number|redcache.Forever|table|function|nil for all, by key, or what tells it
---@param value any for the function
---@param action string for the error, as the method
---@return number|redcache.Forever|nil life seconds
---@return redcache.Error|nil err badTtl
function many.life(cache, key, ttl, value, action, method)
    local one = ttl
    if type(ttl) == "table" and ttl ~= options.FOREVER then
        one = ttl[key]
    elseif type(ttl) == "function" then
        one = ttl(key, value)
    end
    if one == nil then
        return cache._settings.ttl
    elseif not options.is_ttl(one) then
        return nil, errors.bad_ttl(action, key, one, method)
    end
    return one
end

---Options in the place of the ttl would be taken for ttls by key, and have no effect.
---@param map table<string, any> its keys are those of the call
---@return string|nil message for error()
function many.ttl_fault(map, ttl, method)
    if type(ttl) == "table" and ttl ~= options.FOREVER then
        for _, name in ipairs({ "ttl", "timeout", "cancelTag", "grace" }) do
            if ttl[name] ~= nil and map[name] == nil then
                return "bad argument 'ttl' to " .. method .. ": it holds '" .. name
                    .. "', which is no key of the call" .. usage.hint(method)
            end
        end
    end
end

---What is wrong with the arguments of a call that loads many keys.
---@return string|nil message for error()
function many.load_fault(self, keys, ttl, fn, method)
    local fault = usage.fault(self, "cache", "_client", method) or many.list_fault(keys, method)
    if fault then
        return fault
    elseif type(fn) ~= "function" then
        return errors.argument("fn", method, "function", fn)
    elseif type(ttl) == "table" and ttl ~= options.FOREVER then
        local names = {}
        for i = 1, #keys do
            names[keys[i]] = true
        end
        return many.ttl_fault(names, ttl, method)
    end
end

---The deadline of a call that takes more than one write, or nil.
---@param own table|nil options of the call
---@param count integer
---@param per_write integer
---@return number|nil
function many.deadline(cache, own, count, per_write)
    return count > per_write and core_clock.deadline(cache._client, own and own.timeout) or nil
end

---Whether there is time for the next write; what is left is the slot's.
---@return boolean
function many.has_time(cache, slot, own, deadline)
    if deadline == nil then
        return true
    end
    core_slot.customize(slot, core_clock.left(cache._client, deadline), own and own.cancelTag)
    return core_clock.now(cache._client) < deadline
end

---The error of keys first to last.
function many.fail(failed, list, first, last, slot, status, action)
    for i = first, last do
        failed[list[i]] = core_slot.failure(slot, status, action, list[i])
    end
end

---The error of keys first to last, for which there was no slot.
---@param cause string|nil of the status; nil: it says it all
function many.refuse(failed, list, first, last, status, cause, action)
    for i = first, last do
        failed[list[i]] = core_slot.error_of(status, cause, action, list[i])
    end
end

---Submits one UNLINK of many keys.
---@param slot redcache.Slot
---@param prefix string
---@param list string[]
---@param count integer
---@return integer status
function many.unlink(slot, prefix, list, count)
    local status = core_command.begin(slot, 0)
    status = status == 0 and core_command.command(slot, count + 1) or status
    status = status == 0 and core_command.argument(slot, "UNLINK") or status
    for i = 1, count do
        if status ~= 0 then
            break
        end
        status = core_command.argument_written(slot, prefix .. list[i])
    end
    return status == 0 and core_command.submit_delete(slot) or status
end

---Writes one run of the script for each of keys first to last.
---@param arguments fun(key: string): (string|integer)[]
---@return integer status
function many.write_scripts(cache, slot, script, flags, list, first, last, arguments)
    local status = core_command.begin(slot, flags)
    for i = first, last do
        if status ~= 0 then
            break
        end
        status = core_command.script(slot, script, { cache._prefix .. list[i] },
            arguments(list[i]))
    end
    return status
end

local function read_numbers(slot, list, first, last, action, numbers, failed)
    local nodes, count = core_command.nodes(slot)
    for i = first, last do
        local at, key = i - first, list[i]
        if at >= count then
            failed[key] = errors.new("redis", action, key, "the answer has an unexpected form")
        elseif core_command.is_error(nodes[at]) then
            failed[key] = core_command.node_failure(nodes[at], action, key)
        else
            numbers[key] = tonumber(nodes[at].integer)
        end
    end
end

---Sends the commands of many keys, 8,192 of them to a write, and reads the answers. Each write has
---a slot of its own: where nobody waits, that of the write before is in use still.
---@param cache redcache.Cache
---@param own table|nil options of the call: timeout, cancelTag
---@param count integer
---@param action string for errors
---@param failed table<string, redcache.Error> takes the errors by key
---@param part table write(slot, first, last) gives a status; read(slot, first, last); key(i)
---@return string|nil sent "sent": this phase of nginx cannot wait; what was not read is on its way
function many.in_writes(cache, own, count, action, failed, part)
    local sent = nil
    local deadline = many.deadline(cache, own, count, many.COMMANDS)
    for first = 1, count, many.COMMANDS do
        local last = math.min(first + many.COMMANDS - 1, count)
        local slot, _, status, cause = calls.enter(cache, own, action)
        if slot ~= nil then
            status = many.has_time(cache, slot, own, deadline)
                and calls.send(cache, slot, part.write(slot, first, last)) or constants.TIMEOUT
        end
        if slot ~= nil and status == 0 then
            part.read(slot, first, last)
        elseif slot ~= nil and status == NOT_WAITED then
            sent = "sent"
        else
            for i = first, last do
                local key = part.key(i)
                failed[key] = slot and core_slot.failure(slot, status, action, key)
                    or core_slot.error_of(status, cause, action, key)
            end
        end
        if slot ~= nil then
            core_slot.give(slot)
        end
    end
    return sent
end

---Runs one script on each of many keys, in one write per 8,192; it answers a number.
---@param cache redcache.Cache
---@param own table|nil options of the call: timeout, cancelTag
---@param script integer of core_command.define()
---@param flags integer RETRY where it may be done twice, or 0
---@param list string[] of distinct()
---@param count integer
---@param arguments fun(key: string): (string|integer)[]
---@param action string for errors
---@param failed table<string, redcache.Error> takes the errors by key
---@return table<string, integer> numbers by key
---@return string|nil sent "sent": this phase of nginx cannot wait; there are no numbers
function many.script(cache, own, script, flags, list, count, arguments, action, failed)
    local numbers = {}
    local sent = many.in_writes(cache, own, count, action, failed, {
        write = function(slot, first, last)
            return many.write_scripts(cache, slot, script, flags, list, first, last, arguments)
        end,
        read = function(slot, first, last)
            read_numbers(slot, list, first, last, action, numbers, failed)
        end,
        key = function(i) return list[i] end,
    })
    return numbers, sent
end

return many
