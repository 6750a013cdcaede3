-- move - a value under another key: renamed, or copied, with its life and its version.
--
-- What:   rename, copy. One script tells a value from what counts as absent (present.lua), at both
--         keys; its twin for memory:// is core/store/move_scripts.c.
-- Errors: neither is ever sent again on its own: its answer would be another one. In a cluster both
--         keys must be of one slot.

local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")
local present = require("redcache.present")

local give = core_slot.give

local move = {}

-- From, to; "RENAME" or "COPY", "NX" or "" -> 1 | 0 there is no value | 2 a value stands at the
-- other key, and stays.
local MOVE = present.NOTHING .. present.HEAD .. [[
if nothing(KEYS[1],head(KEYS[1])) then return 0 end
if ARGV[2]=='NX' and not nothing(KEYS[2],head(KEYS[2])) then return 2 end
if KEYS[1]==KEYS[2] then return 1 end
if ARGV[1]=='COPY' then return redis.call('COPY',KEYS[1],KEYS[2],'REPLACE') end
redis.call('RENAME',KEYS[1],KEYS[2])
return 1
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

local WHY = { [0] = "absent", [2] = "taken" }

-- Redis' error, where the keys are of different slots with the way out.
local function failure(node, action, from, to)
    if string.find(core_command.node_text(node), "^CROSSSLOT") then
        return errors.new("redis", action, from, "'" .. errors.printable(to)
            .. "' is of another slot of the cluster: give both keys the same hash tag, as in"
            .. " '{user:7}:a' and '{user:7}:b'")
    end
    return core_command.node_failure(node, action, from)
end

-- command: RENAME or COPY; the method's name in capitals.
local function run(self, command, from, to, opts)
    local method = string.lower(command)
    for name, key in pairs({ from = from or false, to = to or false }) do
        if type(key) ~= "string" then
            error(errors.argument(name, method, "string", key or nil), 3)
        end
    end
    local own, message = options.read({}, opts, "move", method)
    if own == nil then
        error(message, 3)
    end
    local unfit = self._bloom and bloom.add(self, to, own)
    if unfit then
        return nil, unfit
    end
    script = script or core_command.define(MOVE)
    local slot, err, sent = calls.script(self, own, script, 0, { from, to },
        { command, own.nx and "NX" or "" }, method)
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local node = core_command.nodes(slot)[0]
    local answer = tonumber(node.integer)
    if core_command.is_error(node) then
        err = failure(node, method, from, to)
    end
    give(slot)
    if err then
        return nil, err
    end
    return answer == 1, nil, WHY[answer]
end

---Renames a value: it stands under the other key then, with its life and its version. A load that
---is running at either key is void; what stands at the other key is overwritten.
---@param from string
---@param to string in a cluster of the same slot: give both the same hash tag, "{user:7}:a"
---@param opts? table nx (true: only where no value stands at the other key), timeout, cancelTag
---@return boolean|nil renamed
---@return redcache.Error|nil err redis (the keys are of different slots), outcomeUnknown (it may
---have been renamed), tooLarge, timeout, cancelled, unavailable, overload, closed
---@return string|nil why with false: "absent" (there is no value to rename: a running load and "no
---such thing" are none), "taken" (nx: a value stands at the other key). "sent": this phase of nginx
---cannot wait, so nobody knows how it ends
function move.rename(self, from, to, opts)
    local renamed, err, why = run(self, "RENAME", from, to, opts)
    return renamed, err, why
end

---Copies a value, with its life and its version; as rename in everything else.
---@param from string
---@param to string
---@param opts? table nx, timeout, cancelTag
---@return boolean|nil copied
---@return redcache.Error|nil err as rename
---@return string|nil why as rename
function move.copy(self, from, to, opts)
    local copied, err, why = run(self, "COPY", from, to, opts)
    return copied, err, why
end

return move
