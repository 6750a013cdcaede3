-- explain - why a read was not answered from nearer by, or not at all.
--
-- What:   cache:explain(key), and the fifth result of get and remember with why = true. What is
--         known comes from the near cache's journal of keys that went (core/near/journal.h), from
--         the copy that is there, and from what stands in Redis.
-- Memory: nothing is kept here. A look changes nothing: no copy is made, dropped, or used.
-- Not:    Redis never tells why a key is not there. What is told of a miss is what this machine has
--         seen of the key.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_near = require("redcache.core.near")
local core_slot = require("redcache.core.slot")
local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local options = require("redcache.options")
local serializer = require("redcache.serializer")
local tags = require("redcache.tags")

local KIND_VALUE, KIND_NEGATIVE = constants.KIND_VALUE, constants.KIND_NEGATIVE

local explain = {}

-- Every reason, as the end of "'key' comes from Redis: ..." or "'key' is nowhere: ...".
local REASONS = {
    notNear = "no copy of it is near, and nothing is known of an earlier one",
    written = "this machine has written or deleted it",
    invalidated = "Redis said that it changed: it was written or deleted elsewhere, or expired or"
        .. " was evicted there",
    evicted = "its near copy had to make room",
    expired = "its time was over",
    refused = "it was not kept: it is too large, or there was no room",
    avoided = "it is left out near for a while: it changed more often than its copies were read",
    raced = "the answer was not kept near, because the key changed while it was read",
    moved = "its slot has left the master that its near copy was read from",
    unconfirmed = "the connection was lost, and its near copy could not be confirmed behind that",
    tooOld = "its near copy is not known to be current, as far as maxStale asks for that",
    tagInvalidated = "one of its tags was invalidated",
    tagNotNear = "its near copy waits for what Redis says of its tags",
    undecodable = "what stands there cannot be read",
    away = "Redis is away, and this machine keeps what it writes",
    filtered = "the filter of keys says that it surely is none",
    loading = "somebody is loading it",
    loadFailed = "its last load has failed",
    neverStored = "Redis has nothing under it, and nothing is known of it here",
    gone = "a copy was here once; why Redis has nothing under it now, nobody has told",
}
explain.REASONS = REASONS

local KINDS = {
    [constants.KIND_NONE] = "none", [KIND_VALUE] = "value", [KIND_NEGATIVE] = "negative",
    [constants.KIND_PLAIN] = "plain", [constants.KIND_LEASE] = "load",
    [constants.KIND_ERROR] = "failedLoad",
}

-- What a miss in Redis is put down to, by what happened to the key near: the rest is "gone".
local OF_MISS = { written = "written", invalidated = "invalidated", expired = "expired",
    raced = "invalidated" }

-- What near copies say of the tags of the copy that is there: a verdict of tags.check_last, or
-- "unknown"; nil: it has none, or is not current. And its grace window.
local function near_standing(cache, key, max_stale_us)
    if cache._client.handle == nil
        or core_near.view_get(cache._view, key, max_stale_us) ~= constants.NEAR_HIT then
        return nil
    end
    local _, _, flags = core_near.entry()
    if bit.band(flags, core_extra.FLAG) == 0 then
        return nil
    end
    local size, _, grace_ms, _, count = core_near.extra()
    if size == nil or count == 0 then
        return nil
    end
    return tags.check_last(cache, max_stale_us) or "unknown", grace_ms
end

local OF_STANDING = { soft = "tagInvalidated", void = "tagInvalidated", unknown = "tagNotNear" }

-- Why a read that found nothing near did not, and what has happened to the key before.
-- standing: of near_standing. reason, gone (nil: not known)
local function near_reason(report, max_stale_us, own, standing)
    local gone = report and report.gone
    if report == nil or (own and (own.near == false or own.reads == "replica")) then
        return "notNear", gone
    elseif not report.there then
        return gone or "notNear", gone
    elseif report.left and report.left ~= options.FOREVER and report.left <= 0 then
        return "expired", "expired"
    elseif report.age == nil or report.age * 1e6 > max_stale_us or (own and own.fresh) then
        return "tooOld", gone
    end
    return OF_STANDING[standing] or "notNear", gone
end

local function miss_reason(kind, gone)
    if kind == constants.KIND_LEASE then
        return "loading"
    elseif kind == constants.KIND_ERROR then
        return "loadFailed"
    elseif kind == constants.KIND_UNKNOWN or kind == false then
        return "undecodable"
    end
    return OF_MISS[gone] or (gone and "gone") or "neverStored"
end

-- For get and remember ----------------------------------------------------------------------------

---What is known before Redis is asked, of a key that was not found near.
---@param own table options of the call
---@return table before for after()
function explain.before(cache, key, own)
    local report = cache._view and cache._client.handle
        and core_near.explain(cache._view, key) or nil
    local max_stale = calls.max_stale(cache, own)
    local standing = report and report.there and near_standing(cache, key, max_stale)
    local reason, gone = near_reason(report, max_stale, own, standing)
    return { reason = reason, gone = gone }
end

---Why the answer of a read was not found near, or why there is none.
---@param before table
---@param source string|nil of the answer
---@param flag string|nil of remember
---@param seen integer|boolean|string|nil RC_KIND_* of what stood in Redis, false: it could not be
---decoded, "soft" or "void": what its tags said; nil: Redis has not answered, or nobody has looked
---@return string reason
function explain.after(before, source, flag, seen)
    if source == "local" then
        return "away"
    elseif flag == "unstored" then
        return "refused"
    elseif seen == "void" or seen == "soft" then
        return "tagInvalidated"
    elseif source == "redis" then
        return before.reason
    elseif source == "stale" then
        return (seen == nil and before.reason == "tooOld") and "tooOld" or "expired"
    end
    return miss_reason(seen, before.gone)
end

---What is seen of an entry in Redis whose tags are not valid, for after().
---@param standing string|boolean|nil of tags.judge
---@param seen integer what is seen of it otherwise
---@return integer|string seen
function explain.of_tags(standing, seen)
    return standing == "void" and "void" or standing == "stale" and "soft" or seen
end

---Why a copy that was found near is stale.
---@param own table options of the call
---@return string reason
function explain.near_stale(cache, key, own)
    return near_standing(cache, key, calls.max_stale(cache, own)) == "soft" and "tagInvalidated"
        or "expired"
end

---The results of a read that has found a copy near, with the reason as the fifth.
---@param reason string of near_stale
---@return any value, err, source, flag, why
function explain.of_near(reason, value, err, source, flag)
    return value, err, source, flag, source == "stale" and not err and reason or nil
end

-- cache:explain -----------------------------------------------------------------------------------

local function hex(bytes)
    return (string.gsub(bytes, ".", function(char)
        return string.format("%02x", string.byte(char))
    end))
end

local function is_decodable(cache, slot)
    local ok, is_good = pcall(entry.decode, cache._settings, core_entry.read(slot))
    return ok and is_good
end

-- What GET and PTTL have answered. redis, whether its value can be decoded | nil, err
local function read_answer(cache, slot, key)
    local nodes, count = core_command.nodes(slot)
    for i = 0, count - 1 do
        if core_command.is_error(nodes[i]) then
            return nil, core_command.node_failure(nodes[i], "explain", key)
        end
    end
    local left = count == 2 and tonumber(nodes[1].integer) or -2
    local status = core_command.node_entry(slot, 0)
    if status ~= 0 then
        return nil, core_slot.failure(slot, status, "explain", key)
    end
    local result = slot.result
    local redis = { kind = KINDS[result.kind] or "unknown" }
    if result.kind == constants.KIND_NONE then
        return redis, true
    end
    local grace = result.stale_ms / 1000
    local life = left >= 0 and left / 1000
    redis.ttl = left == -1 and options.FOREVER or life and math.max(life - grace, 0) or nil
    redis.grace = life and math.min(grace, life) or 0
    redis.bytes = tonumber(result.len)
    if result.kind == KIND_VALUE or result.kind == KIND_NEGATIVE then
        redis.version = hex(core_entry.version(slot))
        redis.loadTime = result.load_ms / 1000
    end
    if result.kind == KIND_VALUE then
        local codec = serializer.by_id(result.codec, cache._settings.codec)
        redis.codec = codec and codec.name or result.codec
    end
    local is_read = result.kind == KIND_VALUE or result.kind == constants.KIND_PLAIN
    return redis, not is_read or is_decodable(cache, slot)
end

-- What Redis says of the tags of what read_answer has read, past what keeps copies: "valid",
-- "stale" or "void"; nil: it has none. Or nil and err.
local function ask_tags(cache, slot, own, deadline)
    local result = slot.result
    if result.kind ~= KIND_VALUE and result.kind ~= KIND_NEGATIVE then
        return nil
    end
    local _, _, flags, bytes = core_entry.read(slot)
    if not tags.has(flags, bytes) then
        return nil
    end
    local opts = { near = false, cancelTag = own.cancelTag,
        timeout = core_clock.left(cache._client, deadline) }
    return tags.judge(cache, flags, bytes, opts)
end

-- Asks Redis, past what keeps copies: GET and PTTL in one write, and then for the generations of
-- its tags, if it has any. As read_answer.
local function ask(cache, key, own)
    local full = cache._prefix .. key
    if #full > cache._client.max_key then
        return nil, errors.new("tooLarge", "explain", key, "the key is over maxKey")
    end
    local deadline = core_clock.deadline(cache._client, own.timeout)
    local slot, err = calls.enter(cache, own, "explain", key)
    if slot == nil then
        return nil, err
    end
    local status = core_command.begin(slot, constants.RETRY)
    for _, name in ipairs({ "GET", "PTTL" }) do
        status = status == 0 and core_command.words(slot, { name, full }) or status
    end
    status = calls.send(cache, slot, status)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "explain", key)
    end
    local redis, second = read_answer(cache, slot, key)
    if redis then
        redis.tags, err = ask_tags(cache, slot, own, deadline)
        if err then
            redis, second = nil, err
        end
    end
    core_slot.give(slot)
    return redis, second
end

-- Whether a decoded copy of this Lua state may be served.
local function is_in_l0(cache, key)
    local place = cache._index[key]
    return place ~= nil and core_near.view_check(cache._view, cache._store.handles, place,
        cache._max_stale) ~= core_near.GONE
end

local KIND_OF_MISS = { load = constants.KIND_LEASE, failedLoad = constants.KIND_ERROR,
    unknown = constants.KIND_UNKNOWN, none = constants.KIND_NONE }

-- Where get would find the key, and why not nearer by. source, why
local function judge(cache, key, report, is_good)
    local near, redis = report.near, report.redis
    local is_current = near and near.there and near.age and near.age * 1e6 <= cache._max_stale
        and (near.left == options.FOREVER or near.left > 0)
    local standing, grace_ms
    if report.l0 or is_current then
        standing, grace_ms = near_standing(cache, key, cache._max_stale)
    end
    if standing == "soft" and grace_ms > 0 then
        return "stale", "tagInvalidated"
    elseif (report.l0 or is_current) and (standing == nil or standing == "valid") then
        if redis and redis.ttl == 0 and redis.grace > 0 then
            return "stale", "expired" -- such a copy is kept for its grace window, too
        end
        return report.l0 and "l0" or "near"
    end
    if cache._bloom and bloom.absent(cache, { key }, 1, nil, true) then
        return "bloom", "filtered"
    end
    local reason, gone = near_reason(near, cache._max_stale, nil, standing)
    if redis == nil and cache._offline and cache._offline:look(key) then
        return "local", "away"
    elseif redis == nil then
        return nil, reason
    elseif not is_good then
        return nil, miss_reason(false)
    elseif KIND_OF_MISS[redis.kind] then
        return nil, miss_reason(KIND_OF_MISS[redis.kind], gone)
    elseif redis.tags == "void" or redis.tags == "stale" then
        return redis.tags == "stale" and "stale" or nil, "tagInvalidated"
    elseif redis.grace > 0 and redis.ttl == 0 then
        return "stale", "expired"
    end
    return "redis", reason
end

local PLACES = {
    l0 = "is decoded in this Lua state", near = "is in this machine's memory",
    bloom = "has no value", ["local"] = "was written on this machine",
    redis = "comes from Redis", stale = "comes from Redis, stale",
}

-- Why Redis has not answered: what the error says behind the key.
local function cause_of(err)
    local named = "'" .. errors.printable(err.key or "") .. "': "
    local _, last = string.find(err.message, named, 1, true)
    return " (" .. string.sub(err.message, (last or 0) + 1) .. ")"
end

local function sentence(key, report, err)
    local name = "'" .. errors.printable(key) .. "' "
    local where = PLACES[report.source] or (report.redis and "has no value"
        or "is not near, and Redis has not answered" .. (err and cause_of(err) or ""))
    local near, why = report.near, report.why
    local when = ""
    if why and near and near.goneAge and near.gone == why then
        when = string.format(", %.1f seconds ago", near.goneAge)
    end
    return name .. where .. (why and ": " .. REASONS[why] .. when or "")
end

---Tells what is known of a key, near and in Redis, and why a read of it is not answered from nearer
---by. For people: it shows no values, changes nothing, and takes one round trip, and one more for
---an entry that has tags.
---@param key string
---@param opts? table timeout, cancelTag
---@return table|nil report source (where get would find it: "l0", "near", "redis", "stale";
---"bloom": nowhere, and Redis is not asked; nil: nowhere), why (a reason; nil from "l0", "near"),
---text (one sentence), l0 (boolean), near (nil without a near cache: there, age, left, bytes, gone,
---goneAge), redis (nil with err: kind, ttl, grace, codec, bytes, version, loadTime, tags). Times
---are seconds
---@return redcache.Error|nil err closed; with a report: why Redis could not be asked (timeout,
---cancelled, unavailable, overload, redis, tooLarge, cannotWait)
function explain.explain(self, key, opts)
    if type(key) ~= "string" then
        error(errors.argument("key", "explain", "string", key), 2)
    end
    local own, message = options.read({}, opts, "call", "explain")
    if own == nil then
        error(message, 2)
    end
    local closed = core_client.closed(self._client, "explain", key)
    if closed then
        return nil, closed
    end
    local report = { l0 = false }
    if self._view then
        report.l0, report.near = is_in_l0(self, key), core_near.explain(self._view, key)
    end
    local redis, second = ask(self, key, own)
    report.redis = redis
    report.source, report.why = judge(self, key, report, second)
    local err = redis == nil and second or nil
    report.text = sentence(key, report, err)
    return report, err
end

return explain
