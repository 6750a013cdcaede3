-- scan - the keys of a cache, by a pattern: an iterator, and a list.
--
-- What:   walk.lua gives names; here it is asked which of them hold values, doubles are left out,
--         and names become keys.
-- Memory: one piece of names, and with dedup 24 bytes a key (core/met.lua).
-- Not:    no snapshot: what comes or goes meanwhile may be given or not.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_met = require("redcache.core.met")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")
local usage = require("redcache.usage")
local walk = require("redcache.walk")

local give = core_slot.give
local ERROR = string.byte("-")

local scan = {}

-- Keys that a server looks at for one answer: it is done with these, and with the look at what they
-- hold, in some 50 us.
local COUNT = 50
-- Of keys().
local LIMIT = 1000

-- Whether the head of a string, 25 bytes, may be a running load's, or its end's: what then counts
-- is whether it has a ttl (present.lua says the same for scripts).
local function may_be_lease(head)
    local kind = string.byte(head, 3)
    if #head < 24 or kind ~= constants.KIND_LEASE and kind ~= constants.KIND_ERROR then
        return false
    end
    local bare = string.sub(head, 4, 4) .. string.sub(head, 6, 8) .. string.sub(head, 17, 24)
    return bare == string.rep("\0", 12)
        and (kind == constants.KIND_ERROR or #head == 24 and string.byte(head, 5) == 0)
end

-- Drops of the names those that are marked in `absent`.
local function without(names, absent)
    local left = {}
    for i = 1, #names do
        if not absent[i] then
            left[#left + 1] = names[i]
        end
    end
    return left
end

-- Runs one command for each of the names at `places`. The slot with the answers | nil, err
local function each(self, names, places, verb, more)
    return self:send(constants.RETRY, function(slot)
        local status = 0
        for i = 1, #places do
            if status ~= 0 then
                return status
            end
            status = core_command.words(slot, { verb, names[places[i]], unpack(more) })
        end
        return status
    end)
end

-- Marks what has no ttl, so is somebody's string, as there.
local function look_at_lives(self, names, doubtful, absent)
    local slot, err = each(self, names, doubtful, "PTTL", {})
    if slot == nil then
        return err
    end
    local nodes = core_command.nodes(slot)
    for i = 1, #doubtful do
        local node = nodes[i - 1]
        if node.type == ERROR then
            err = err or core_command.node_failure(node, self.action)
        elseif node.integer == -1 then
            absent[doubtful[i]] = nil
        end
    end
    give(slot)
    return err
end

-- What a node says of a value: whether it is absent, and whether that has to be looked at.
local function judge(node)
    if node.type == ERROR then
        local text = core_command.node_text(node)
        return false, false, not string.find(text, "^WRONGTYPE")
    end
    if node.len < 24 or bit.band(node.str[0], 255) ~= constants.HEADER_BYTE or node.str[1] ~= 1 then
        return false, false
    elseif node.str[2] == constants.KIND_NEGATIVE then
        return true, false
    end
    local doubtful = may_be_lease(core_command.node_text(node))
    return doubtful, doubtful
end

---Those of the names that hold values: no running load or its end, no "no such thing".
---@param self redcache.Walk
---@param names string[]
---@return string[]|nil names
---@return redcache.Error|nil err
function scan.values(self, names)
    if #names == 0 then
        return names
    end
    local places = {}
    for i = 1, #names do
        places[i] = i
    end
    local slot, err = each(self, names, places, "GETRANGE", { 0, 24 })
    if slot == nil then
        return nil, err
    end
    local nodes = core_command.nodes(slot)
    local absent, doubtful, any = {}, {}, false
    for i = 1, #names do
        local is_absent, is_doubtful, failed = judge(nodes[i - 1])
        if failed then
            err = err or core_command.node_failure(nodes[i - 1], self.action)
        end
        if is_absent then
            absent[i], any = true, true
        end
        if is_doubtful then
            doubtful[#doubtful + 1] = i
        end
    end
    give(slot)
    if not err and #doubtful > 0 then
        err = look_at_lives(self, names, doubtful, absent)
    end
    if err then
        return nil, err
    end
    return any and without(names, absent) or names
end

---@class redcache.Iterator
local Iterator = {}
Iterator.__index = Iterator

-- Fills the next piece: true | nil, err; nil: there is none.
local function refill(self)
    local names, err = self._walk:next()
    if names and (self._own.type or "string") == "string" then
        names, err = scan.values(self._walk, names)
    end
    if names == nil then
        return nil, err
    end
    self._names, self._at = names, 0
    return true
end

-- The next key that is new: key | nil, err
local function next_key(self)
    while true do
        while self._at < #self._names do
            self._at = self._at + 1
            local name = self._names[self._at]
            local is_new = not self._met or core_met.add(self._met, name)
            if is_new == nil then
                return nil, errors.new("overload", "scan", nil, "no memory")
            elseif is_new then
                return string.sub(name, self._skip)
            end
        end
        local more, err = refill(self)
        if not more then
            return nil, err
        end
    end
end

-- The end, however it came.
local function finish(self, err)
    self._over, self._err, self._names, self._met = true, err, {}, nil
    self._walk.over = true
    return nil, err
end

function Iterator:__call()
    if self._over then
        return nil, self._err
    elseif self._walk.cancelled or self._walk.cache._client.handle == nil then
        return finish(self, self._walk:obstacle())
    elseif self._busy then
        error("this iterator is at work in another coroutine", 2)
    elseif self._own.limit and self._given >= self._own.limit then
        return finish(self)
    end
    self._busy = true
    local key, err = next_key(self)
    self._busy = false
    if self._over or key == nil then -- it may have been closed meanwhile
        return finish(self, self._err or err)
    end
    self._given = self._given + 1
    return key
end

---Ends the scan: the next call gives nil. Nothing has to be given back: it may as well be dropped.
---@return true
function Iterator:close()
    if not self._over then
        finish(self)
    end
    return true
end

---Why the scan has ended before its end.
---@return redcache.Error|nil err nil: it has not, or is still going on
function Iterator:error()
    return self._err
end

usage.guard("iterator", Iterator, "_walk")

local function check_pattern(pattern, method)
    if type(pattern) ~= "string" then
        error(errors.argument("pattern", method, "string", pattern), 3)
    end
end

local function new_iterator(cache, pattern, own, action)
    local self = setmetatable({
        _walk = walk.new(cache, pattern, own, own.count or COUNT, action),
        _own = own, _names = {}, _at = 0, _given = 0, _skip = #cache._prefix + 1,
        _over = false, _busy = false,
    }, Iterator)
    if own.dedup then
        self._met = core_met.new()
        if self._met == nil then
            finish(self, errors.new("overload", action, nil, "no memory"))
        end
    end
    return self
end

---Goes through the keys that hold values, without their namespace: for key in cache:scan("user:*").
---Each key that is there from the first call to the last is given; one that comes or goes meanwhile
---may be; one may come twice, unless dedup is set. The loop ends at an error, which
---iterator:error() tells, and the call that meets it: key, err.
---@param pattern string as Redis' SCAN has it: * ? [a-z] and \; "*" for all
---@param opts? table count (50: keys that a server looks at for one answer), limit (keys that are
---given at most), dedup (false; true: none twice, for 24 bytes a key), type ("string", "hash", ...:
---keys of that type alone), timeout (of each answer), cancelTag
---@return redcache.Iterator iterator call it for the next key; close(), error()
function scan.scan(self, pattern, opts)
    check_pattern(pattern, "scan")
    local own, message = options.read({}, opts, "scan", "scan")
    if own == nil then
        error(message, 2)
    end
    return new_iterator(self, pattern, own, "scan")
end

---A list of keys that hold values, without their namespace, each once, in no order.
---@param pattern string as scan
---@param limit? integer 1000
---@param opts? table count, type, timeout, cancelTag, as scan
---@return string[]|nil keys
---@return redcache.Error|nil err timeout, cancelled, unavailable, overload, closed, redis,
---cannotWait
---@return boolean|nil more true: there may be more than that
function scan.keys(self, pattern, limit, opts)
    check_pattern(pattern, "keys")
    limit = limit == nil and LIMIT or limit
    if type(limit) ~= "number" or not (limit >= 1 and limit <= 2 ^ 32)
        or limit ~= math.floor(limit) then
        error("bad argument 'limit' to keys: whole number from 1 to 2^32 expected, got "
            .. (type(limit) == "number" and ("%.14g"):format(limit) or type(limit))
            .. usage.hint("keys"), 2)
    end
    local own, message = options.read({}, opts, "keys", "keys")
    if own == nil then
        error(message, 2)
    end
    own.dedup, own.limit = true, limit
    local list, iterator = {}, new_iterator(self, pattern, own, "list keys")
    for key in iterator do
        list[#list + 1] = key
    end
    local err = iterator:error()
    if err then
        return nil, err
    end
    return list, nil, #list == limit or nil
end

return scan
