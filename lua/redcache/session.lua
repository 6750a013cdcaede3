-- session - sessions: values under secret ids, which live as long as they are used.
--
-- What:   a store of sessions in a namespace of its own, without near copies: what one machine
--         writes or destroys all others see at once. create, get (reads and lengthens the life in
--         one command), set (only what is there), regenerate (the old id dies in the step in which
--         the new one begins), destroy.
-- Ids:    24 bytes from the system's random source, as 32 characters. The first four are the hash
--         tag of the key, and a new id of a session keeps them: so that in a cluster both keys are
--         on one node. 168 bits are new each time.
-- Errors: an id that has not this form is no session: nothing is sent for it.

local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_random = require("redcache.core.random")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local options = require("redcache.options")
local usage = require("redcache.usage")

local give = core_slot.give
local HIT, NOT_WAITED = constants.HIT, constants.NOT_WAITED
local ERROR, BULK_ERROR, NULL = string.byte("-"), string.byte("!"), string.byte("_")

local session = {}

-- The session under the first key goes to the second one, with a new life: milliseconds, or -1.
local MOVE = [[
if redis.call('EXISTS',KEYS[1])==0 then return 0 end
redis.call('RENAME',KEYS[1],KEYS[2])
if ARGV[1]=='-1' then redis.call('PERSIST',KEYS[2]) else redis.call('PEXPIRE',KEYS[2],ARGV[1]) end
return 1
]]

-- Defined at the first move: a script takes one of the process's 1,024 places.
local script

local TAG_LEN, ID_LEN, ID_BYTES = 4, 32, 24

---@class redcache.Session
local Session = {}
Session.__index = Session

-- A new id; of a session that has one: with the same tag.
local function new_id(old)
    local id = core_random.text(ID_BYTES)
    if id and old then
        id = string.sub(old, 1, TAG_LEN) .. string.sub(id, TAG_LEN + 1)
    end
    return id
end

local function no_id(action)
    return errors.new("unavailable", action, nil, "the system gives no random bytes")
end

local function key_of(id)
    return "{" .. string.sub(id, 1, TAG_LEN) .. "}" .. string.sub(id, TAG_LEN + 1)
end

-- Checks what a caller gave, at the line of the user. own, whether id may name a session
local function door(id, opts, method)
    if id ~= nil and type(id) ~= "string" then
        error(errors.argument("id", method, "string or nil", id), 3)
    end
    local own, message = options.read({}, opts, "call", method)
    if own == nil then
        error(message, 3)
    end
    return own, id ~= nil and #id == ID_LEN and not string.find(id, "[^%w_-]")
end

-- Errors name no key: who knows an id has the session.
local function take(self, own, action)
    local slot, err = calls.enter(self._cache, own, action)
    return slot, err
end

local function ttl_ms(self)
    return core_entry.life_ms(self._cache._settings.ttl, 0)
end

-- Sends what was written into the slot. true; or nil, an error (nil: it is on its way)
local function send(self, slot, status, action)
    status = calls.send(self._cache, slot, status)
    if status == 0 then
        local node = core_command.nodes(slot)[0]
        if node.type ~= ERROR and node.type ~= BULK_ERROR then
            return true
        end
        local err = core_command.node_failure(node, action)
        give(slot)
        return nil, err
    elseif status == NOT_WAITED then
        give(slot)
        return nil
    end
    return nil, calls.fail(slot, status, action)
end

-- Encodes a value. bytes | nil, err
local function encode(self, value, action)
    local ok, bytes = entry.encode(self._cache._settings, value)
    if not ok then
        return nil, errors.new("encode", action, nil, bytes)
    elseif #bytes > self._client.max_value then
        return nil, errors.new("tooLarge", action, nil, "the value is over maxValue")
    end
    return bytes
end

-- Stores a value: "NX", where nothing stands, or "XX", where something does. As send().
local function store(self, id, value, condition, own, action)
    local bytes, err = encode(self, value, action)
    if bytes == nil then
        return nil, err
    end
    local slot
    slot, err = take(self, own, action)
    if slot == nil then
        return nil, err
    end
    local settings, ms = self._cache._settings, ttl_ms(self)
    local status = core_command.begin(slot, 0)
    status = status == 0 and core_command.command(slot, ms > 0 and 6 or 4) or status
    status = status == 0 and core_command.argument(slot, "SET") or status
    status = status == 0
        and core_command.argument_written(slot, self._cache._prefix .. key_of(id)) or status
    status = status == 0
        and core_entry.argument(slot, settings.codec.id, bytes, settings.plain) or status
    status = status == 0 and core_command.argument(slot, condition) or status
    if status == 0 and ms > 0 then
        status = core_command.argument(slot, "PX")
        status = status == 0 and core_command.argument(slot, ("%.0f"):format(ms)) or status
    end
    local done
    done, err = send(self, slot, status, action)
    if not done then
        return nil, err
    end
    local stored = core_command.nodes(slot)[0].type ~= NULL
    give(slot)
    return stored
end

---Begins a session.
---@param value any what the codec can hold; not nil
---@param opts? table timeout, cancelTag
---@return string|nil id 32 letters, digits, "-" and "_": a secret of who it is given to
---@return redcache.Error|nil err encode, tooLarge, timeout, cancelled, unavailable, outcomeUnknown,
---overload, closed, redis
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function Session:create(value, opts)
    local own = door(nil, opts, "create")
    if value == nil then
        error(errors.argument("value", "create", "any value but nil", value), 2)
    end
    local action = "begin a session"
    local id = new_id()
    if id == nil then
        return nil, no_id(action)
    end
    local stored, err = store(self, id, value, "NX", own, action)
    if err then
        return nil, err
    elseif stored == false then
        return nil, errors.new("redis", action, nil, "the system's random bytes repeat themselves")
    end
    return id, nil, stored == nil and "sent" or nil
end

-- Decodes what GETEX has answered. value | nil, err
local function read(self, slot, action)
    local cache, counters = self._cache, self._cache._counters
    local status = core_command.node_entry(slot, 0)
    if status ~= 0 then
        return nil, calls.fail(slot, status, action)
    elseif slot.result.outcome ~= HIT then
        give(slot)
        counters.misses = counters.misses + 1
        return nil
    end
    local ok, value = entry.decode(cache._settings, core_entry.read(slot))
    give(slot)
    if ok then
        counters.hits = counters.hits + 1
        return value
    end
    counters.decodeErrors = counters.decodeErrors + 1
    return nil, errors.new("decode", action, nil, value)
end

---Reads a session, and lets it live its ttl from now: one command. Always from the master.
---@param id string|nil nil, or a text that is no id: there is no such session, and nothing is sent
---@param opts? table timeout, cancelTag
---@return any value nil without an error: there is no such session
---@return redcache.Error|nil err decode, timeout, cancelled, unavailable, overload, closed, redis,
---cannotWait
function Session:get(id, opts)
    local own, is_id = door(id, opts, "get")
    local action = "read a session"
    local slot, err = take(self, own, action)
    if slot == nil then
        return nil, err
    elseif not is_id then
        give(slot)
        return nil
    end
    local ms = ttl_ms(self)
    local status = core_command.begin(slot, constants.RETRY)
    status = status == 0 and core_command.command(slot, ms > 0 and 4 or 3) or status
    status = status == 0 and core_command.argument(slot, "GETEX") or status
    status = status == 0
        and core_command.argument_written(slot, self._cache._prefix .. key_of(id)) or status
    status = status == 0 and core_command.argument(slot, ms > 0 and "PX" or "PERSIST") or status
    if ms > 0 then
        status = status == 0 and core_command.argument(slot, ("%.0f"):format(ms)) or status
    end
    local done
    done, err = send(self, slot, status, action)
    if not done then
        return nil, err or core_slot.failure(nil, NOT_WAITED, action)
    end
    local value
    value, err = read(self, slot, action)
    return value, err
end

---Stores a session's new value, and lets it live its ttl from now. One that was destroyed meanwhile
---does not come back.
---@param id string|nil as get
---@param value any what the codec can hold; not nil
---@param opts? table timeout, cancelTag
---@return boolean|nil stored false: there is no such session
---@return redcache.Error|nil err as create
---@return string|nil sent as create
function Session:set(id, value, opts)
    local own, is_id = door(id, opts, "set")
    if value == nil then
        error(errors.argument("value", "set", "any value but nil", value), 2)
    end
    local action = "write a session"
    local closed = core_client.closed(self._client, action)
    if closed then
        return nil, closed
    elseif not is_id then
        return false
    end
    local stored, err = store(self, id, value, "XX", own, action)
    if err then
        return nil, err
    elseif stored == nil then
        return true, nil, "sent"
    end
    return stored
end

---Gives a session a new id, and its ttl from now: after a login, say. The old id is nobody's from
---the moment at which the new one is the session's.
---@param id string|nil as get
---@param opts? table timeout, cancelTag
---@return string|false|nil id the new one; false: there is no such session
---@return redcache.Error|nil err outcomeUnknown, timeout (the old id may be dead, and nobody knows
---the new one), cancelled, unavailable, overload, closed, redis
---@return string|nil sent as create
function Session:regenerate(id, opts)
    local own, is_id = door(id, opts, "regenerate")
    local action = "regenerate a session"
    local slot, err = take(self, own, action)
    if slot == nil then
        return nil, err
    elseif not is_id then
        give(slot)
        return false
    end
    local fresh = new_id(id)
    if fresh == nil then
        give(slot)
        return nil, no_id(action)
    end
    script = script or core_command.define(MOVE)
    local prefix, ms = self._cache._prefix, ttl_ms(self)
    local status = core_command.begin(slot, 0)
    if status == 0 then
        status = core_command.script(slot, script,
            { prefix .. key_of(id), prefix .. key_of(fresh) }, { ("%.0f"):format(ms) })
    end
    local done
    done, err = send(self, slot, status, action)
    if err then
        return nil, err
    elseif not done then
        return fresh, nil, "sent"
    end
    local moved = core_command.nodes(slot)[0].integer == 1
    give(slot)
    return moved and fresh
end

---Ends a session.
---@param id string|nil as get
---@param opts? table timeout, cancelTag
---@return boolean|nil destroyed false: there is no such session
---@return redcache.Error|nil err as create, but for encode
---@return string|nil sent as create
function Session:destroy(id, opts)
    local own, is_id = door(id, opts, "destroy")
    local action = "end a session"
    local slot, err = take(self, own, action)
    if slot == nil then
        return nil, err
    elseif not is_id then
        give(slot)
        return false
    end
    local status = calls.await(self._cache, slot,
        core_entry.delete(slot, self._cache._prefix .. key_of(id)))
    if status == NOT_WAITED then
        give(slot)
        return true, nil, "sent"
    elseif status ~= 0 then
        return nil, calls.fail(slot, status, action)
    end
    local destroyed = core_entry.number(slot) > 0
    give(slot)
    return destroyed
end

usage.guard("session", Session, "_client")

---A store of sessions, in a namespace of its own.
---@param opts? table name (of the namespace; "session"), ttl (how long a session lives that nobody
---reads; 1800 seconds)
---@return redcache.Session|nil sessions
---@return redcache.Error|nil err closed
function session.session(self, opts)
    local own, message = options.complete(opts, "session", "session")
    if own == nil then
        error(message, 2)
    end
    local cache, err = self:namespace(own.name, { ttl = own.ttl, near = false, reads = "master" })
    if cache == nil then
        return nil, err
    end
    return setmetatable({ _cache = cache, _client = cache._client }, Session)
end

return session
