-- batch - many keys in one write.
--
-- What:   getMulti, setMulti, deleteMulti: every key has its own result or its own error.
-- Memory: one slot per batch; what comes back is decoded before the slot is given back.

local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_near = require("redcache.core.near")
local core_slot = require("redcache.core.slot")
local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local many = require("redcache.many")
local near = require("redcache.near")
local options = require("redcache.options")
local soft = require("redcache.soft")
local tags = require("redcache.tags")

local enter, send, give = calls.enter, calls.send, core_slot.give
local HIT, KIND_NEGATIVE = constants.HIT, constants.KIND_NEGATIVE
local ERROR, BULK_ERROR = string.byte("-"), string.byte("!")

-- Keys per MGET: Redis answers the first of them while the rest is still on its way.
local KEYS_PER_MGET = 128
local KEYS_PER_WRITE = 65536
local NOT_WAITED = constants.NOT_WAITED
-- So many missing keys of one call are kept near: each takes a slot and a PTTL of its own. A call
-- for more is a sweep over data rather than a working set, and MGET is a third of the cost.
local KEPT_KEYS = 128

local batch = {}

-- Writes keys first..last as MGETs. reads: of calls.reads.
local function write_mgets(cache, slot, list, first, last, reads)
    local prefix = cache._prefix
    -- What comes past the near cache takes older copies out of it, as a write does; what a replica
    -- says is no reason.
    local is_written = cache._view and reads == 0 and 1 or 0
    local status = core_command.begin(slot, constants.RETRY + reads)
    while status == 0 and first <= last do
        local chunk_last = math.min(first + KEYS_PER_MGET - 1, last)
        status = core_command.command(slot, chunk_last - first + 2)
        status = status == 0 and core_command.argument(slot, "MGET") or status
        for i = first, chunk_last do
            if status ~= 0 then
                break
            end
            status = core_command.argument_under(slot, prefix, list[i], is_written)
        end
        first = chunk_last + 1
    end
    return status
end

-- What getMulti has found out so far, each by key: `values`, `failed` (errors), `negatives`; and
-- `doubtful`, if there is such: the bytes of what has to be looked at again. `take` reads what
-- stands in the slot for a key.
local function new_found(take_answer, values, negatives)
    return { values = values, failed = {}, negatives = negatives, doubtful = nil,
        take = take_answer }
end

-- What decoding said: the value, or why it cannot be read.
local function use_value(cache, key, ok, value, found)
    local counters = cache._counters
    if ok then
        counters.hits = counters.hits + 1
        found.values[key] = value
        return
    end
    counters.decodeErrors = counters.decodeErrors + 1
    if cache._settings.decodeErrors == "error" then
        found.failed[key] = errors.new("decode", "read", key, value)
    else
        counters.misses = counters.misses + 1
    end
end

-- Decodes the entry that was read into the slot.
local function read_value(cache, slot, key, found)
    local counters = cache._counters
    local kind, codec, flags, bytes = core_entry.read(slot)
    if flags ~= 0 and tags.has(flags, bytes) then
        found.tagged = found.tagged or {}
        found.tagged[key] = { kind = kind, codec = codec, flags = flags, bytes = bytes }
        return
    elseif kind == KIND_NEGATIVE then
        counters.negative = counters.negative + 1
        found.negatives[key] = true
        return
    end
    local ok, value = entry.decode(cache._settings, kind, codec, flags, bytes)
    use_value(cache, key, ok, value, found)
end

-- Asks what the tags say of those that have some: all in one round trip.
local function read_tagged(cache, own, found)
    local blocks, counters = {}, cache._counters
    for key, one in pairs(found.tagged) do
        blocks[key] = one.bytes
    end
    local verdicts, err = tags.judge_many(cache, blocks, own)
    for key, one in pairs(found.tagged) do
        local standing = tags.outcome(verdicts[key], one.bytes)
        if standing == nil then
            found.failed[key] = err
        elseif one.is_presence then
            found.values[key] = standing ~= "void" or nil
        elseif standing == "void" then
            counters.misses = counters.misses + 1
        elseif one.kind == KIND_NEGATIVE then
            counters.negative = counters.negative + 1
            found.negatives[key] = true
        else
            local ok, value = entry.decode(cache._settings, one.kind, one.codec, one.flags,
                one.bytes)
            use_value(cache, key, ok, value, found)
        end
    end
end

-- A miss, unless what stands there has to be looked at again.
local function read_miss(cache, slot, key, found)
    local bytes = entry.doubtful(cache._settings, slot)
    if bytes then
        found.doubtful = found.doubtful or {}
        found.doubtful[key] = bytes
    else
        cache._counters.misses = cache._counters.misses + 1
    end
end

-- Reads what stands in the slot for a key, if its status is 0.
local function read_answer(cache, slot, status, key, found)
    if status ~= 0 then
        found.failed[key] = core_slot.failure(slot, status, "read", key)
    elseif slot.result.outcome == HIT then
        read_value(cache, slot, key, found)
    else
        read_miss(cache, slot, key, found)
    end
end

-- Reads the answers to the MGETs of keys first..last.
local function read_mgets(cache, slot, list, first, last, found, action)
    local nodes, count = core_command.nodes(slot)
    local at, failed = 0, found.failed
    while first <= last do
        local chunk_last = math.min(first + KEYS_PER_MGET - 1, last)
        local head = at < count and nodes[at] or nil
        local type_byte = head and head.type or 0
        local keys = chunk_last - first + 1
        at = at + 1
        if type_byte == ERROR or type_byte == BULK_ERROR then
            for i = first, chunk_last do
                failed[list[i]] = core_command.node_failure(head, action, list[i])
            end
        elseif head == nil or head.count ~= keys or at + keys > count then
            for i = first, last do
                failed[list[i]] = errors.new("redis", action, list[i],
                    "the answer has an unexpected form")
            end
            return
        else
            for i = first, chunk_last do
                found.take(cache, slot, core_command.node_entry(slot, at), list[i], found)
                at = at + 1
            end
        end
        first = chunk_last + 1
    end
end

-- Takes what is near under the options of a call. The rest, nil: there is none.
local function read_near(cache, keys, own, values, negatives)
    local max_stale, copy = calls.max_stale(cache, own), cache._copy
    if own and own.copy ~= nil then
        copy = own.copy
    end
    return near.hit_many(cache, keys, max_stale, copy, values, negatives)
end

-- Reads each key by itself, in one write, so that the answers are kept near.
local function read_kept(cache, list, count, own, found)
    local slots, counters, failed = {}, cache._counters, found.failed
    for i = 1, count do
        local slot, err, status, cause
        if i == 1 then
            slot, err, status, cause = enter(cache, own, "read", list[i])
        else -- of the same call
            slot, err = calls.take(cache._client, own, "read", list[i])
        end
        if slot == nil and i == 1 then
            many.refuse(failed, list, 1, count, status, cause, "read")
            break
        elseif slot == nil then
            failed[list[i]] = err
        else
            status = core_near.view_read(cache._view, slot, list[i], 0)
            slots[i] = slot
            if status ~= 0 then
                failed[list[i]] = core_slot.failure(slot, status, "read", list[i])
            end
        end
    end
    counters.nearMisses = counters.nearMisses + count
    for i = 1, count do
        local key, slot = list[i], slots[i]
        if slot and not failed[key] then
            read_answer(cache, slot, cache._wait(slot), key, found)
        end
        if slot then
            give(slot)
        end
    end
end

-- Reads the keys by MGETs, in one write per 65,536.
local function read_mget(cache, list, count, own, found, action)
    local slot, _, reason, cause = enter(cache, own, action)
    if slot == nil then
        many.refuse(found.failed, list, 1, count, reason, cause, action)
        return
    end
    local deadline = many.deadline(cache, own, count, KEYS_PER_WRITE)
    local reads = calls.reads(cache, own)
    for first = 1, count, KEYS_PER_WRITE do
        local last = math.min(first + KEYS_PER_WRITE - 1, count)
        local status = many.has_time(cache, slot, own, deadline)
            and send(cache, slot, write_mgets(cache, slot, list, first, last, reads))
            or constants.TIMEOUT
        if status == 0 then
            read_mgets(cache, slot, list, first, last, found, action)
        else
            many.fail(found.failed, list, first, last, slot, status, action)
        end
    end
    give(slot)
end

-- Asks whether what looks like a lease or marker is somebody's plain value.
local function read_doubtful(cache, own, found)
    local counters, slot = cache._counters, nil
    for key, bytes in pairs(found.doubtful) do
        slot = slot or calls.take(cache._client, own, "read", key)
        if not (slot and entry.is_plain(cache, slot, cache._prefix .. key, bytes)) then
            counters.misses = counters.misses + 1
        else
            local ok, value = entry.decode(cache._settings, constants.KIND_PLAIN, 0, 0, bytes)
            use_value(cache, key, ok, value, found)
        end
    end
    if slot then
        give(slot)
    end
end

-- Where Redis is away: what was written here since. By key, "local"; nil: none was.
local function read_local(cache, found)
    local flags
    for key, err in pairs(found.failed) do
        local kept, value = cache._offline:find(key, err)
        if kept then
            found.failed[key] = nil
        end
        if kept == "value" then
            found.values[key] = value
        elseif kept == "nothing" then
            found.negatives[key] = true
        end
        if kept == "value" or kept == "nothing" then
            flags = flags or {}
            flags[key] = "local"
        end
    end
    return flags
end

-- getMulti with values by key. own: the options of the call, checked.
local function read_all(self, keys, own, values, negatives)
    local list = keys
    local use_near = self._view
        and not (own and (own.fresh or own.near == false or own.reads == "replica"))
    if use_near then
        list = read_near(self, list, own, values, negatives)
        if list == nil then
            return values, {}, negatives
        end
    end
    local found = new_found(read_answer, values, negatives)
    local count
    list, count = many.distinct(self, list, found.failed, "read")
    if self._bloom then
        list, count = bloom.sift(self, list, count, own, function(key) negatives[key] = true end)
    end
    if count > 0 then
        local read = use_near and count <= KEPT_KEYS and read_kept or read_mget
        read(self, list, count, own, found, "read")
    end
    if found.doubtful then
        read_doubtful(self, own, found)
    end
    if found.tagged then
        read_tagged(self, own, found)
    end
    if self._offline and next(found.failed) then
        return found.values, found.failed, found.negatives, read_local(self, found)
    end
    return found.values, found.failed, found.negatives
end

---Reads many keys: those that are not near in one round trip. Never runs a loader. A value within
---its grace window counts as a value.
---@param keys string[] doubles are asked for once; an empty list sends nothing
---@param opts? table timeout, cancelTag, near, maxStale, fresh, copy, reads (as Cache:get); list
---(true: values by position), into (a table of the caller's that takes the values and is the first
---result; what it holds for other keys or positions stays)
---@return table<string, any> values by key; a miss has none. With list = true values[i] is that of
---keys[i], nil for a miss: go by #keys, not by #values
---@return table<string, redcache.Error> errors by key; empty when all went well
---@return table<string, boolean> negatives true for keys that are remembered as "no such thing"
---@return table<string, string>|nil flags with the option offline: "local" for keys that were
---written on this machine while Redis is away
function batch.getMulti(self, keys, opts)
    local is_list, into, own = many.form(opts)
    local fault
    if not is_list or into ~= nil or type(keys) ~= "table" then
        fault = many.list_fault(keys, "getMulti")
    end
    if not fault and own ~= nil then
        own, fault = options.read({}, own, "readMany", "getMulti")
    end
    fault = fault or many.into_fault(into, keys, "getMulti")
    if fault then
        error(fault, 2)
    end
    local values, negatives = many.answer(keys, is_list, into), {}
    local rest, left = near.take_l0(self, keys, own, self._settings, is_list, values, negatives)
    if left == 0 then
        return values, {}, negatives
    elseif not is_list then
        return read_all(self, rest, own, values, negatives)
    end
    -- Whether all keys of a list are strings is asked where not all are in L0: only strings are.
    fault = many.list_fault(keys, "getMulti")
    if fault then
        error(fault, 2)
    end
    local found, failed, _, flags = read_all(self, rest, own, many.new_map(left), negatives)
    many.spread(values, keys, found)
    return values, failed, negatives, flags
end

-- Reads whether a value stands under a key; its payload is not looked at.
local function read_presence(cache, slot, status, key, found)
    local result, settings = slot.result, cache._settings
    if status ~= 0 then
        found.failed[key] = core_slot.failure(slot, status, "look for", key)
    elseif result.outcome == HIT then
        if result.entry_flags ~= 0 and result.kind ~= KIND_NEGATIVE then
            local _, codec, flags, bytes = core_entry.read(slot)
            if tags.has(flags, bytes) and entry.is_known(settings, result.kind, codec, flags) then
                found.tagged = found.tagged or {}
                found.tagged[key] = { bytes = bytes, is_presence = true }
                return
            end
        end
        found.values[key] = result.kind ~= KIND_NEGATIVE
            and entry.is_known(settings, result.kind, result.codec, result.entry_flags) or nil
    else
        local bytes = entry.doubtful(settings, slot)
        if bytes then
            found.doubtful = found.doubtful or {}
            found.doubtful[key] = bytes
        end
    end
end

---Cache:exists of many keys, whose options are checked.
---@param keys string[]
---@param own table|nil
---@return integer|nil count nil: an error
---@return redcache.Error|nil err
function batch.count(self, keys, own)
    local found = new_found(read_presence, {}, {})
    local list, count = many.distinct(self, keys, found.failed, "look for")
    if count > 0 and next(found.failed) == nil then
        read_mget(self, list, count, own, found, "look for")
    end
    if found.tagged then
        read_tagged(self, own, found)
    end
    local _, err = next(found.failed)
    if err then
        return nil, err
    end
    for key, bytes in pairs(found.doubtful or {}) do
        local slot
        slot, err = calls.take(self._client, own, "look for", key)
        if slot == nil then
            return nil, err
        end
        found.values[key] = entry.is_plain(self, slot, self._prefix .. key, bytes) or nil
        give(slot)
    end
    local present = 0
    for _ in pairs(found.values) do
        present = present + 1
    end
    return present
end

-- The items that can be sent; the others get their errors here.
local function encode_all(cache, map, ttl, failed)
    local items, count = {}, 0
    local settings, client = cache._settings, cache._client
    local max = client.max_key - #cache._prefix
    for key, value in pairs(map) do
        local life, err = many.life(cache, key, ttl, value, "write", "setMulti")
        if not err and #key > max then
            err = errors.new("tooLarge", "write", key, "the key is over maxKey")
        end
        if not err then
            local ok, bytes = entry.encode(settings, value)
            if not ok then
                err = errors.new("encode", "write", key, bytes)
            elseif #bytes > client.max_value then
                err = errors.new("tooLarge", "write", key, "the value is over maxValue")
            else
                count = count + 1
                items[count] = { key = key, bytes = bytes, ttl = life }
            end
        end
        failed[key] = err
    end
    return items, count
end

local function keys_of(items, count)
    local keys = {}
    for i = 1, count do
        keys[i] = items[i].key
    end
    return keys
end

-- What setMulti gives where nothing can be stored.
local function refuse_all(items, count, err, failed)
    for i = 1, count do
        failed[items[i].key] = err
    end
    return nil, failed
end

local function write_sets(cache, slot, items, first, last, grace, tagged)
    local settings, prefix = cache._settings, cache._prefix
    local codec, plain = settings.codec.id, settings.plain
    local status = core_command.begin(slot, 0)
    for i = first, last do
        if status ~= 0 then
            break
        end
        local item = items[i]
        local bytes, flags, life = entry.form(settings, item.bytes, item.ttl, grace, 0, tagged)
        status = core_command.set(slot, prefix .. item.key, codec, bytes, life, grace, plain, nil,
            flags)
    end
    return status
end

-- Reads the answers to the SETs of items first..last; gives the number of those stored.
local function read_sets(slot, items, first, last, failed)
    local nodes, count = core_command.nodes(slot)
    local stored = 0
    for i = first, last do
        local at, key = i - first, items[i].key
        local type_byte = at < count and nodes[at].type or 0
        if type_byte == ERROR or type_byte == BULK_ERROR then
            failed[key] = core_command.node_failure(nodes[at], "write", key)
        elseif type_byte == 0 then
            failed[key] = errors.new("redis", "write", key, "the answer has an unexpected form")
        else
            stored = stored + 1
        end
    end
    return stored
end

-- Where Redis is away: keeps here what could not be sent. How many; "local" where there are some.
local function keep_local(cache, items, count, failed)
    local kept = 0
    for i = 1, count do
        local item = items[i]
        local err = failed[item.key]
        if err then
            local ok
            ok, failed[item.key] = cache._offline:write(item.key, item.bytes, item.ttl, err)
            kept = kept + (ok and 1 or 0)
        end
    end
    return kept, kept > 0 and "local" or nil
end

---Stores many values in one round trip (one per 8,192 keys).
---@param map table<string, any> values by key; an empty map sends nothing
---@param ttl? number|redcache.Forever|table<string, number|redcache.Forever>|fun(key: string,
---value: any): number|redcache.Forever|nil seconds for all, by key, or what tells them for a key;
---nil: the cache's ttl
---@param opts? table timeout, cancelTag, grace, tags
---@return boolean|nil ok true: all stored; false: some; nil: none
---@return table<string, redcache.Error> failed by key: badTtl, encode, tooLarge, redis,
---unavailable, outcomeUnknown, timeout, cancelled, overload, closed; empty when all went well
---@return string|nil flag "sent", as Cache:set; "local": Redis is away, and what has not failed was
---kept on this machine, at least some of it
function batch.setMulti(self, map, ttl, opts)
    if type(map) ~= "table" then
        error(errors.argument("map", "setMulti", "table of values by key", map), 2)
    end
    for key in pairs(map) do
        if type(key) ~= "string" then
            error(errors.argument("map", "setMulti", "string keys", key), 2)
        end
    end
    local own, fault = options.read({}, opts, "write", "setMulti")
    fault = fault or options.plain_fault(own, self._settings.plain, "setMulti")
        or many.ttl_fault(map, ttl, "setMulti")
    if fault then
        error(fault, 2)
    end
    local failed, stored = {}, 0
    local items, count = encode_all(self, map, ttl, failed)
    local grace, tagged = own.grace or self._settings.grace, nil
    local names = count > 0 and tags.names(self._settings, own)
    if names then
        local err
        local keys = keys_of(items, count)
        tagged, err = tags.begin(self, names, own, keys)
        if tagged == nil then
            return refuse_all(items, count, err, failed)
        end
    end
    if self._bloom and count > 0 then
        local err = bloom.add(self, keys_of(items, count), own)
        if err then
            return refuse_all(items, count, err, failed)
        end
    end
    local sent = many.in_writes(self, own, count, "write", failed, {
        write = function(slot, first, last)
            return write_sets(self, slot, items, first, last, grace, tagged)
        end,
        read = function(slot, first, last)
            stored = stored + read_sets(slot, items, first, last, failed)
        end,
        key = function(i) return items[i].key end,
    })
    if sent then
        return next(failed) == nil, failed, sent
    end
    local flag
    if self._offline and next(failed) and not tagged then
        local kept
        kept, flag = keep_local(self, items, count, failed)
        stored = stored + kept
    end
    if next(failed) == nil then
        return true, failed, flag
    end
    if stored > 0 then
        return false, failed, flag
    end
    return nil, failed
end

-- Where Redis is away.
local function delete_local(cache, list, count, err)
    for i = 1, count do
        local ok, fault = cache._offline:delete(list[i], err)
        if not ok then
            return nil, fault
        end
    end
    return count, nil, "local"
end

---Deletes many keys with one command; with soft = true as Cache:delete does, where some of them may
---be done although others have failed.
---@param keys string[] an empty list sends nothing
---@param opts? table soft, timeout, cancelTag
---@return integer|nil count of keys that were there
---@return redcache.Error|nil err tooLarge, unavailable, outcomeUnknown, timeout, cancelled,
---overload, closed, redis
function batch.deleteMulti(self, keys, opts)
    local fault = many.list_fault(keys, "deleteMulti")
    local own
    if not fault and opts ~= nil then
        own, fault = options.read({}, opts, "delete", "deleteMulti")
    end
    if fault then
        error(fault, 2)
    end
    local failed = {}
    local list, count = many.distinct(self, keys, failed, "delete")
    local _, err = next(failed)
    if err then
        return nil, err
    elseif count == 0 then
        return 0
    elseif own and own.soft then
        return soft.delete_many(self, list, count, own)
    end
    local slot
    slot, err = enter(self, own, "delete", list[1])
    if slot == nil then
        return nil, err
    end
    local status = calls.await(self, slot, many.unlink(slot, self._prefix, list, count))
    if status == NOT_WAITED then
        give(slot)
        return count, nil, "sent"
    elseif status ~= 0 then
        err = calls.fail(slot, status, "delete", list[1])
        if self._offline then
            return delete_local(self, list, count, err)
        end
        return nil, err
    end
    local deleted = core_entry.number(slot)
    give(slot)
    return deleted
end

return batch
