-- command - any commands, in one write, and their answers.
--
-- Memory: nodes stay readable until the slot is used again.

local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_entry = require("redcache.core.entry")
local core_slot = require("redcache.core.slot")
local options = require("redcache.options")

local FOREVER = options.FOREVER
local fill, life_ms = core_entry.fill, core_entry.life_ms
local ERROR, BULK_ERROR = string.byte("-"), string.byte("!")

local core_command = {}

---@return integer slot 0 to 16383
function core_command.key_slot(key)
    return C.rc_key_slot(key, #key)
end

---@return integer status
function core_command.begin(slot, flags)
    return C.rc_begin(slot.op, flags)
end

---All commands that were begun go to the master of that hash slot, whatever their keys are.
---@param at integer 0 to 16383
---@return integer status
function core_command.at_slot(slot, at)
    return C.rc_at_slot(slot.op, at)
end

---The connection that has answered: the same number is the same connection.
---@return string number
function core_command.connection(slot)
    return tostring(slot.result.connection)
end

---Starts a pause: it is over behind that time.
---@param seconds number
---@return integer status
function core_command.pause(slot, seconds)
    return C.rc_pause(slot.op, math.ceil(seconds * 1000))
end

---One command of words.
---@param words (string|integer)[]
---@return integer status
function core_command.words(slot, words)
    local op, status = slot.op, C.rc_command_begin(slot.op, #words)
    for i = 1, #words do
        if status ~= 0 then
            return status
        end
        local word = words[i]
        status = type(word) == "number" and C.rc_argument_int(op, word)
            or C.rc_argument(op, word, #word)
    end
    return status
end

---@return integer status
function core_command.command(slot, argument_count)
    return C.rc_command_begin(slot.op, argument_count)
end

---@return integer status
function core_command.argument(slot, bytes)
    return C.rc_argument(slot.op, bytes, #bytes)
end

---A value as it is stored: an argument of a script.
---@class redcache.EntryArgument
---@field codec integer id
---@field bytes string
---@field ttl number|redcache.Forever
---@field grace number
---@field plain boolean without a header
---@field flags integer|nil of the entry
---@field load_time number|nil seconds that it took to load; nil: it was not

-- An argument that is a value as it is stored: with a header, whose version is new, or plain.
local function argument_entry(op, codec, bytes, ttl, grace, plain, flags, load_time)
    local entry = fill(C.RC_KIND_VALUE, codec, ttl, grace, load_time or 0, flags)
    local wraps = not plain or string.byte(bytes, 1) == C.RC_HEADER_BYTE
    return C.rc_argument_entry(op, wraps and entry or nil, bytes, #bytes)
end

---One SET in a batch. The caller has checked the sizes: a half-written command cannot be undone.
---@param is_new boolean|nil only where nothing stands
---@param flags integer|nil of the entry
---@return integer status
function core_command.set(slot, key, codec, bytes, ttl, grace, plain, is_new, flags)
    local ms = life_ms(ttl, grace)
    local op = slot.op
    local status = C.rc_command_begin(op, (ms > 0 and 5 or 3) + (is_new and 1 or 0))
    if status == 0 then
        status = C.rc_argument(op, "SET", 3)
    end
    if status == 0 then
        status = C.rc_argument_written(op, key, #key)
    end
    if status == 0 then
        status = argument_entry(op, codec, bytes, ttl, grace, plain, flags)
    end
    if status == 0 and ms > 0 then
        status = C.rc_argument(op, "PX", 2)
        if status == 0 then
            status = C.rc_argument_int(op, ms)
        end
    end
    if status == 0 and is_new then
        status = C.rc_argument(op, "NX", 2)
    end
    return status
end

---One SET NX GET in a batch: raw bytes as a value, where nothing stands. It may be done twice: the
---second time it finds what it has stored.
---@param ms integer life
---@return integer status
function core_command.set_new(slot, key, bytes, ms)
    local status = core_command.command(slot, 7)
    status = status == 0 and core_command.argument(slot, "SET") or status
    status = status == 0 and core_command.argument_written(slot, key) or status
    status = status == 0 and argument_entry(slot.op, C.RC_CODEC_RAW, bytes, FOREVER, 0, false)
        or status
    status = status == 0 and core_command.argument(slot, "NX") or status
    status = status == 0 and core_command.argument(slot, "GET") or status
    status = status == 0 and core_command.argument(slot, "PX") or status
    return status == 0 and C.rc_argument_int(slot.op, ms) or status
end

---An argument that names a key the command changes.
---@return integer status
function core_command.argument_written(slot, key)
    return C.rc_argument_written(slot.op, key, #key)
end

---An argument that is the key under a prefix.
---@param is_written integer 1: the command changes that key; 0
---@return integer status
function core_command.argument_under(slot, prefix, key, is_written)
    return C.rc_argument_under(slot.op, prefix, #prefix, key, #key, is_written)
end

---The number of a script's source: the same for the same. A script is a constant of the program:
---its source is kept as long as the process lives.
---@param source string
---@return integer script
function core_command.define(source)
    local script = C.rc_script_define(source, #source)
    if script < 0 then
        error("redcache: no script can be defined: " .. ffi.string(C.rc_strerror(script)), 2)
    end
    return script
end

---One run of a script in a batch. Its keys count as changed.
---@param script integer of define()
---@param keys string[]
---@param arguments (string|integer|redcache.EntryArgument)[]
---@return integer status
function core_command.script(slot, script, keys, arguments)
    local op, status = slot.op, C.rc_command_script(slot.op, script, #keys, #arguments)
    for i = 1, #keys do
        if status ~= 0 then
            return status
        end
        status = C.rc_argument_written(op, keys[i], #keys[i])
    end
    for i = 1, #arguments do
        if status ~= 0 then
            return status
        end
        local one = arguments[i]
        if type(one) == "table" then
            status = argument_entry(op, one.codec, one.bytes, one.ttl, one.grace, one.plain,
                one.flags, one.load_time)
        else
            status = type(one) == "number" and C.rc_argument_int(op, one)
                or C.rc_argument(op, one, #one)
        end
    end
    return status
end

---@return integer status
function core_command.submit(slot)
    return C.rc_submit(slot.op)
end

---Submits one UNLINK of many keys.
---@return integer status
function core_command.submit_delete(slot)
    return C.rc_delete_submit(slot.op)
end

---The flat answer of a batch: elements 0 to count - 1.
---@return ffi.cdata* nodes
---@return integer count
function core_command.nodes(slot)
    return C.rc_op_nodes(slot.op), slot.result.nodes
end

---Text of an element.
---@return string
function core_command.node_text(node)
    return node.str ~= nil and ffi.string(node.str, node.len) or ""
end

---Whether an element is an error.
---@return boolean
function core_command.is_error(node)
    return node.type == ERROR or node.type == BULK_ERROR
end

---The error object for an element that is an error.
---@return redcache.Error
function core_command.node_failure(node, action, key)
    local status = tonumber(node.integer)
    return core_slot.error_of(status ~= 0 and status or C.RC_ERR_REDIS,
        core_command.node_text(node), action, key)
end

---Reads one element as an entry into the result.
---@return integer status
function core_command.node_entry(slot, node)
    return C.rc_op_entry(slot.op, node)
end

return core_command
