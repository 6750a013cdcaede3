-- filter - the filter of keys of a cache as its users see it: fill, add, has, state, clear.
--
-- What:   bloom.lua says what a filter is, and what its states are; here it goes through them.
-- Errors: a fill that fails leaves a filter that is not complete: it says nothing.

local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local core_random = require("redcache.core.random")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local many = require("redcache.many")
local options = require("redcache.options")
local scan = require("redcache.scan")
local usage = require("redcache.usage")

local META, SLICE_BITS = bloom.META, bloom.SLICE_BITS
local parse, read_meta = bloom.parse, bloom.read_meta
local FILL = "fill the filter of keys"

local filter = {}

-- A filter that is not made within that time is none.
local PREPARING_MS = "60000"
-- Keys that fill() puts in at once.
local KEYS_AT_ONCE = 4096

-- Meta; what stands there, what is to stand there -> 1 | 0 something else stands there.
local TURN = [[
if redis.call('GET',KEYS[1])~=ARGV[1] then return 0 end
redis.call('SET',KEYS[1],ARGV[2])
return 1
]]

-- Defined at the first fill: a script takes one of the process's 1,024 places.
local turn_script

---@class redcache.Bloom
local Bloom = {}
Bloom.__index = Bloom

---The filter of keys of this cache, which was opened with the option bloom.
---@return redcache.Bloom
function filter.bloom(self)
    if not self._bloom then
        error("this cache has no filter of keys: open it with the option bloom", 2)
    end
    return setmetatable({ _cache = self }, Bloom)
end

local function door(opts, method)
    local own, message = options.read({}, opts, "call", method)
    if own == nil then
        error(message, 3)
    end
    return own
end

-- Slices and hashes for so many keys: with the best number of bits for each.
local function size_of(with)
    local bits = -math.log(with.falseRate) / math.log(2) ^ 2
    local hashes = math.max(1, math.floor(bits * math.log(2) + 0.5))
    -- Of a key that is none all `hashes` bits are set with (1 - e^(-hashes / bits)) ^ hashes.
    bits = -hashes / math.log(1 - with.falseRate ^ (1 / hashes))
    return math.max(1, math.ceil(with.keys * bits / SLICE_BITS)), hashes
end

-- Sends one command for each of so many slices.
local function each_slice(known, own, first, last, words)
    local failed = {}
    local count = last - first + 1
    many.in_writes(known.own, own, count, FILL, failed, {
        write = function(slot, from, to)
            local status = core_command.begin(slot, constants.RETRY)
            for i = from, to do
                status = status == 0 and core_command.words(slot,
                    words(known.own._prefix .. first + i - 1)) or status
            end
            return status
        end,
        read = function(slot, from, to)
            local nodes, given = core_command.nodes(slot)
            for i = from, to do
                if i - from < given and core_command.is_error(nodes[i - from]) then
                    failed[i] = core_command.node_failure(nodes[i - from],
                        FILL)
                end
            end
        end,
        key = tostring,
    })
    return (select(2, next(failed)))
end

local function command(known, own, words)
    local slot, err = calls.take(known.own._client, own, FILL)
    if slot == nil then
        return err
    end
    local status = core_command.begin(slot, constants.RETRY)
    status = status == 0 and core_command.words(slot, words) or status
    status = calls.send(known.own, slot, status)
    if status ~= 0 then
        return calls.fail(slot, status, FILL)
    end
    local node = core_command.nodes(slot)[0]
    err = core_command.is_error(node)
        and core_command.node_failure(node, FILL) or nil
    core_slot.give(slot)
    return err
end

local function lost()
    return errors.new("conflict", FILL, nil,
        "it is gone, or somebody else fills another one")
end

-- Turns the filter from one state to the next. Sent once: done twice it would find its own work.
local function turn(known, own, meta, state)
    turn_script = turn_script or core_command.define(TURN)
    local text = ("1 %s %s %d %d"):format(meta.generation, state, meta.slices, meta.hashes)
    local slot, err = calls.script(known.own, own, turn_script, 0, { META },
        { meta.text, text }, FILL)
    if slot == nil then
        return nil, err or core_slot.failure(nil, constants.NOT_WAITED, FILL)
    end
    local node = core_command.nodes(slot)[0]
    if core_command.is_error(node) then
        err = core_command.node_failure(node, FILL)
    elseif node.integer == 0 then
        err = lost()
    end
    core_slot.give(slot)
    if err then
        return nil, err
    end
    return parse(text)
end

-- Makes a filter without keys, in which writers put theirs from now on. meta | nil, err
local function begin(cache, known, own)
    local slices, hashes = size_of(cache._settings.bloom)
    local generation = core_random.text(12)
    if generation == nil then
        return nil, errors.new("unavailable", FILL, nil,
            "the system gives no random bytes")
    end
    local old, err = read_meta(cache, known, own)
    if old == nil then
        return nil, err
    end
    local meta = parse(("1 %s p %d %d"):format(generation, slices, hashes))
    err = command(known, own,
        { "SET", known.own._prefix .. META, meta.text, "PX", PREPARING_MS })
    err = err or each_slice(known, own, 0, slices - 1, function(name)
        return { "SET", name, meta.mark }
    end)
    if not err and old and old.slices > slices then
        err = each_slice(known, own, slices, old.slices - 1, function(name)
            return { "UNLINK", name }
        end)
    end
    if err then
        return nil, err
    end
    return turn(known, own, meta, "f")
end

-- Puts all keys of the iterator in. count | nil, err
local function put_all(known, meta, iterator, own)
    local keys, count = {}, 0
    while true do
        local key, fault = iterator()
        if key ~= nil and type(key) ~= "string" then
            error("bad argument 'iterator' to fill: it gives " .. type(key)
                .. " in place of a key", 3)
        elseif key == nil and fault ~= nil then
            return nil, errors.is(fault) and fault
                or errors.new("loaderFailed", FILL, nil, errors.text(fault))
        end
        keys[#keys + 1] = key
        if #keys > 0 and (key == nil or #keys == KEYS_AT_ONCE) then
            local is_lost, err = bloom.put(known, meta, keys, own)
            if is_lost or err then
                return nil, err or lost()
            end
            count, keys = count + #keys, {}
        end
        if key == nil then
            return count
        end
    end
end

---Makes a new filter, of all keys that there are: from then on a read of another one answers "no
---such thing". Until it returns, and where it fails, the filter says nothing. It waits four seconds
---in all.
---@param iterator? fun(): string|nil, any gives one key after the other, nil at the end, or nil and
---why it failed; nil: those that have values in Redis (scan)
---@param opts? table timeout (of each of its round trips), cancelTag
---@return integer|nil count of keys that it gave
---@return redcache.Error|nil err conflict (another filter was begun meanwhile, or parts of it are
---gone), loaderFailed (the iterator), timeout, cancelled, unavailable, outcomeUnknown, overload,
---closed, redis, cannotWait
function Bloom:fill(iterator, opts)
    if iterator ~= nil and type(iterator) ~= "function" and not getmetatable(iterator) then
        error(errors.argument("iterator", "fill", "function or nil", iterator), 2)
    end
    local own, cache = door(opts, "fill"), self._cache
    local known = cache._bloom
    local err = core_client.closed(cache._client, FILL)
    if err then
        return nil, err
    elseif not cache._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, FILL)
    end
    local meta, count
    meta, err = begin(cache, known, own)
    if meta == nil then
        return nil, err
    end
    err = calls.pause(cache, own, FILL, bloom.SETTLE)
    if err then
        return nil, err
    end
    count, err = put_all(known, meta, iterator or scan.scan(cache, "*", own), own)
    err = err or calls.pause(cache, own, FILL, bloom.SETTLE)
    if err then
        return nil, err
    end
    meta, err = turn(known, own, meta, "c")
    if meta == nil then
        return nil, err
    end
    bloom.forget(known)
    return count
end

---Puts keys into the filter: those of things that were made at the source, before anybody is to
---find them. Calls that store a value do it by themselves.
---@param keys string|string[]
---@param opts? table timeout, cancelTag
---@return true|nil done also where there is no filter yet
---@return redcache.Error|nil err timeout, cancelled, unavailable, outcomeUnknown, overload, closed,
---redis, cannotWait, conflict
function Bloom:add(keys, opts)
    local message = type(keys) ~= "string" and many.list_fault(keys, "add")
    if message then
        error(type(keys) == "table" and message
            or errors.argument("keys", "add", "string or list of strings", keys), 2)
    end
    local own = door(opts, "add")
    local err = core_client.closed(self._cache._client, bloom.ACTION)
        or #keys > 0 and bloom.add(self._cache, type(keys) == "string" and { keys } or keys, own)
    if err then
        return nil, err
    end
    return true
end

---Whether the key may be there.
---@param key string
---@param opts? table timeout, cancelTag
---@return boolean|nil has false: surely not; true, too, where the filter is not complete, or Redis
---is away
---@return redcache.Error|nil err closed
function Bloom:has(key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "has", "string", key), 2)
    end
    local own = door(opts, "has")
    local err = core_client.closed(self._cache._client, "ask the filter of keys", key)
    if err then
        return nil, err
    end
    return bloom.absent(self._cache, { key }, 1, own) == nil
end

local STATES = { p = "filling", f = "filling", c = "complete" }

---How the filter is: Redis is asked.
---@param opts? table timeout, cancelTag
---@return string|nil state "none", "filling", "complete"
---@return redcache.Error|nil err timeout, cancelled, unavailable, overload, closed, redis,
---cannotWait
function Bloom:state(opts)
    local own, cache = door(opts, "state"), self._cache
    local err = core_client.closed(cache._client, "read the filter of keys")
    local meta
    if not err then
        meta, err = read_meta(cache, cache._bloom, own)
    end
    if meta == nil then
        return nil, err
    end
    return meta and STATES[meta.state] or "none"
end

---Deletes the filter: all keys are asked for again.
---@param opts? table timeout, cancelTag
---@return boolean|nil deleted false: there was none
---@return redcache.Error|nil err as state
function Bloom:clear(opts)
    local own, cache = door(opts, "clear"), self._cache
    local known = cache._bloom
    local err, meta = core_client.closed(cache._client, "delete the filter of keys"), nil
    if not err then
        meta, err = read_meta(cache, known, own)
    end
    if meta == nil then
        return nil, err
    end
    err = command(known, own, { "UNLINK", known.own._prefix .. META })
    if not err and meta then
        err = each_slice(known, own, 0, meta.slices - 1, function(name)
            return { "UNLINK", name }
        end)
    end
    bloom.forget(known)
    if err then
        return nil, err
    end
    return meta ~= false
end

usage.guard("bloom", Bloom, "_cache")

---The script, for specs.
filter.TURN = TURN

return filter
