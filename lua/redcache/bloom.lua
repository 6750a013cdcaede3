-- bloom - a filter of the keys that there are: reads of a key that surely is none cost no command.
--
-- What:   a Bloom filter in Redis strings, the slices (namespace.bloom_prefix): a mark, which names
--         the generation, and bits. All bits of a key are in one slice, so that one small near copy
--         answers. "meta" tells the generation, its state and its size; all readers and writers go
--         by that, and the options count for the next fill() alone. A slice that is gone, or has
--         another mark, says nothing. Twins of the scripts: core/store/bloom_scripts.c.
-- States: "p" the slices are made, and nobody sets bits; "f" all writers set the bits of a key
--         before they store its value; "c" complete: only now a missing bit means "no".
-- Time:   fill() waits SETTLE seconds before it asks for the first key, for writers that still go
--         by what was before; and again before "c", for near copies from before its last bits. No
--         copy that is older than MAX_AGE is asked, and Lua holds nothing for longer than HELD:
--         both are shorter. A write that takes longer than SETTLE, from its bits to its value, may
--         be missed by a fill.
-- Not:    nothing is taken out but by another fill(). Who stores without this option, or makes new
--         things at the source without telling (add), is not known here. fill() and what else
--         users call is in filter.lua.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_digest = require("redcache.core.digest")
local core_entry = require("redcache.core.entry")
local core_near = require("redcache.core.near")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local many = require("redcache.many")
local namespace = require("redcache.namespace")

local NEAR_HIT = constants.NEAR_HIT
local sha1 = core_digest.sha1

---SETTLE: seconds that fill() waits. HELD: seconds that what Redis has said of the filter is held
---for, where it is not near. Specs have less time.
local bloom = { SETTLE = 2, HELD = 1 }

-- Seconds: how old what is known of the filter may be, for readers and writers.
local MAX_AGE = 1
-- Of a slice: bits, behind the mark.
local SLICE_BITS, MARK_BYTES = 32768, 17
-- Bits that one script sets: others wait meanwhile.
local BITS_AT_ONCE = 1024
-- Slices that one call fetches to ask them.
local FETCHES = 64
-- How often a writer looks again which generation it is.
local ATTEMPTS = 4
local META = "meta"
local ACTION = "add to the filter of keys"
-- Of the digits of one SHA-1: 8 tell the slice, the others the bits, 4 each.
local HASHES_OF_FIRST, HASHES_OF_SECOND = 8, 10

-- Slice; mark, places of bits... -> 0 it is gone, or another generation's | 1 all were set | 2.
local ADD = [[
if redis.call('GETRANGE',KEYS[1],0,16)~=ARGV[1] then return 0 end
local answer=1
for i=2,#ARGV do
local at=math.floor(ARGV[i]/8)
local old=string.byte(redis.call('GETRANGE',KEYS[1],at,at)) or 0
local new=bit.bor(old,2^(ARGV[i]%8))
if new~=old then
redis.call('SETRANGE',KEYS[1],at,string.char(new))
answer=2
end
end
return answer
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local add_script

-- What is known of the filter --------------------------------------------------------------------

---@class redcache.BloomMeta
---@field text string
---@field generation string
---@field state string "p", "f", "c"
---@field slices integer
---@field hashes integer
---@field mark string what the slices of this generation begin with

-- nil: it is none.
local function parse(text)
    local generation, state, slices, hashes =
        string.match(text, "^1 ([%w_-]+) ([pfc]) (%d+) (%d+)$")
    slices, hashes = tonumber(slices), tonumber(hashes)
    if generation == nil or #generation ~= MARK_BYTES - 1 or slices == 0 or hashes == 0
        or hashes > HASHES_OF_FIRST + HASHES_OF_SECOND then
        return nil
    end
    return { text = text, generation = generation, state = state, slices = slices,
        hashes = hashes, mark = "B" .. generation }
end

---What a cache object keeps of its filter.
---@param client redcache.Client
---@param prefix string of the cache
---@return table
function bloom.new(client, prefix)
    return {
        own = calls.under(client, namespace.bloom_prefix(prefix)),
        meta = nil, -- what was read last, to be parsed once
        held = nil, held_until = -1, -- what Redis has said: false, or meta
        quiet = {}, -- slices that are not fetched for now: until when
        quiet_until = -1, -- nothing is
    }
end

local function view_of(cache, filter)
    local own, client = filter.own, cache._client
    if own._view == nil and cache._view and client.handle ~= nil then
        own._view = core_near.new_view(client, own._prefix, { min = 0, max = 0 })
    end
    return client.handle ~= nil and own._view or nil
end

local function understand(filter, text)
    local meta = filter.meta
    if meta == nil or meta.text ~= text then
        meta = parse(text)
        filter.meta, filter.quiet = meta, {}
    end
    return meta or false
end

-- The meta near, false: what is near is none; nil: none is near.
local function near_meta(filter, view, max_stale_us)
    if view ~= nil and core_near.view_get(view, META, max_stale_us) == NEAR_HIT then
        return understand(filter, core_near.bytes())
    end
end

-- Reads it from Redis: meta | false, there is none | nil, err
local function read_meta(cache, filter, opts)
    local own, view = filter.own, view_of(cache, filter)
    local slot, err = calls.take(cache._client, opts, "read the filter of keys")
    if slot == nil then
        return nil, err
    end
    local status = view and core_near.view_read(view, slot, META, 0)
        or core_entry.get(slot, own._prefix, META, 0)
    status = calls.await(own, slot, status)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "read the filter of keys")
    end
    local meta = false
    if slot.result.outcome == constants.HIT then
        local _, _, _, bytes = core_entry.read(slot)
        meta = understand(filter, bytes)
    end
    core_slot.give(slot)
    filter.held, filter.held_until = meta, core_clock.now(cache._client) + bloom.HELD
    return meta
end

-- What a writer goes by: as read_meta, of at most MAX_AGE or HELD.
local function known_meta(cache, filter, opts)
    local age_us = math.min(cache._max_stale, core_near.stale_us(MAX_AGE))
    local meta = near_meta(filter, view_of(cache, filter), age_us)
    if meta == nil and core_clock.now(cache._client) < filter.held_until then
        meta = filter.held
    end
    if meta ~= nil then
        return meta
    end
    return read_meta(cache, filter, opts)
end

-- Where the bits of a key are: its slice, and their places in it, mark included.
local function places_of(meta, key)
    local digits, places = sha1(key), {}
    local slice = tonumber(string.sub(digits, 1, 8), 16) % meta.slices
    local at = 9
    for i = 1, meta.hashes do
        if i == HASHES_OF_FIRST + 1 then
            digits, at = sha1(digits), 1
        end
        places[i] = MARK_BYTES * 8 + tonumber(string.sub(digits, at, at + 3), 16) % SLICE_BITS
        at = at + 4
    end
    return slice, places
end

-- Whether a near slice has all these bits; nil: no slice of this generation is near.
local function look(view, meta, slice, places, age_us)
    if view == nil or core_near.view_get(view, tostring(slice), age_us) ~= NEAR_HIT
        or not core_near.begins_with(meta.mark) then
        return nil
    end
    return core_near.has_bits(places)
end

-- Writing ----------------------------------------------------------------------------------------

-- The bits of keys that are not known to be set, by slice, in parts that one script sets.
local function share_out(view, meta, keys, age_us)
    local parts, open = {}, {}
    for i = 1, #keys do
        local slice, places = places_of(meta, keys[i])
        if not look(view, meta, slice, places, age_us) then
            local part = open[slice]
            if part == nil or #part.arguments > BITS_AT_ONCE then
                part = { slice = tostring(slice), key = keys[i], arguments = { meta.mark } }
                open[slice], parts[#parts + 1] = part, part
            end
            for j = 1, #places do
                part.arguments[#part.arguments + 1] = ("%d"):format(places[j])
            end
        end
    end
    return parts
end

-- Sets the bits of all parts. Whether a slice was gone or another generation's | nil, err
local function send(filter, parts, opts)
    local own, failed, is_other = filter.own, {}, false
    add_script = add_script or core_command.define(ADD)
    local sent = many.in_writes(own, opts, #parts, ACTION, failed, {
        write = function(slot, first, last)
            local status = core_command.begin(slot, constants.RETRY)
            for i = first, last do
                status = status == 0 and core_command.script(slot, add_script,
                    { own._prefix .. parts[i].slice }, parts[i].arguments) or status
            end
            return status
        end,
        read = function(slot, first, last)
            local nodes, count = core_command.nodes(slot)
            for i = first, last do
                local node = i - first < count and nodes[i - first] or nil
                if node == nil or core_command.is_error(node) then
                    failed[parts[i].key] = node
                        and core_command.node_failure(node, ACTION, parts[i].key)
                        or errors.new("redis", ACTION, parts[i].key,
                            "the answer has an unexpected form")
                else
                    is_other = is_other or node.integer == 0
                end
            end
        end,
        key = function(i) return parts[i].key end,
    })
    local key, err = next(failed)
    if err == nil and sent then
        err = core_slot.failure(nil, constants.NOT_WAITED, ACTION, key)
    end
    if err then
        return nil, err
    end
    return is_other
end

---Puts keys into the filter, before values are stored under them. Where there is no filter yet,
---nothing is done.
---@param cache redcache.Cache with a filter
---@param keys string|string[]
---@param opts table|nil of the call: timeout, cancelTag
---@return redcache.Error|nil err nothing may be stored then
function bloom.add(cache, keys, opts)
    local filter, list = cache._bloom, type(keys) == "string" and { keys } or keys
    local age_us = math.min(cache._max_stale, core_near.stale_us(MAX_AGE))
    local can_wait = cache._scheduler.can_wait()
    local meta, err = known_meta(cache, filter, opts)
    for _ = 1, ATTEMPTS do
        if meta == nil then
            return err
        elseif not meta or meta.state == "p" then
            return nil
        end
        local parts = share_out(view_of(cache, filter), meta, list, age_us)
        if #parts == 0 then
            return nil
        elseif not can_wait then
            return core_slot.failure(nil, constants.NOT_WAITED, ACTION, list[1])
        end
        local is_other
        is_other, err = send(filter, parts, opts)
        if err then
            return err
        elseif not is_other then
            return nil
        end
        local before = meta
        meta, err = read_meta(cache, filter, opts)
        if meta and meta.generation == before.generation then
            return nil -- a slice that is gone says nothing until the next fill
        end
    end
    return errors.new("conflict", ACTION, list[1], "others begin new filters all the time")
end

-- Reading ----------------------------------------------------------------------------------------

-- Fetches slices, and the meta, so that they are near.
local function fetch(cache, filter, names, opts)
    local client, view, slots, held = cache._client, view_of(cache, filter), {}, {}
    -- Redis that does not answer must not cost a caller its time twice.
    local timeout = (opts and opts.timeout or client.command_timeout) / 4
    local own = { timeout = math.max(timeout, 0.001), cancelTag = opts and opts.cancelTag }
    local has_failed = false
    for i = 1, #names do
        local slot = calls.take(client, own, "read the filter of keys")
        if slot == nil then
            has_failed = true
            break
        end
        core_slot.hold(slot)
        local status = core_near.view_read(view, slot, names[i], 0)
        core_slot.join_held(slot, held, status == 0)
        if status == 0 then
            slots[#slots + 1] = slot
        else
            core_slot.give(slot)
            has_failed = true
        end
    end
    core_slot.start_held(held)
    for i = 1, #slots do
        has_failed = cache._wait(slots[i]) ~= 0 or has_failed
        core_slot.give(slots[i])
    end
    if has_failed then
        filter.quiet_until = core_clock.now(client) + bloom.HELD
    end
end

-- The complete meta, if that is what is known; else nil.
local function complete_meta(cache, filter, view, age_us, opts, may_fetch)
    local meta = near_meta(filter, view, age_us)
    if meta == nil and may_fetch and core_clock.now(cache._client) >= filter.held_until then
        fetch(cache, filter, { META }, opts)
        filter.held, filter.held_until = false, core_clock.now(cache._client) + bloom.HELD
        meta = near_meta(filter, view_of(cache, filter), age_us)
    end
    return meta and meta.state == "c" and meta or nil
end

-- Looks these keys up in the slices that are near: those that surely are none go into `absent`.
-- Gives those whose slice is not near.
local function look_up(view, meta, asked, age_us, absent)
    local rest = {}
    for i = 1, #asked do
        local one = asked[i]
        local has = look(view, meta, one.slice, one.places, age_us)
        if has == false then
            absent[one.key] = true
        elseif has == nil then
            rest[#rest + 1] = one
        end
    end
    return rest
end

-- The slices of these keys that may be fetched, by number; those that were not there a moment ago
-- are left alone.
local function slices_of(filter, asked, now)
    local names, seen = {}, {}
    for i = 1, #asked do
        local slice = asked[i].slice
        if not seen[slice] and #names < FETCHES and now >= (filter.quiet[slice] or 0) then
            seen[slice], names[#names + 1] = true, tostring(slice)
        end
    end
    return names, seen
end

-- Fetches what is not near, and looks again.
local function fetch_and_look(cache, filter, meta, asked, age_us, opts, absent)
    local now = core_clock.now(cache._client)
    local names, seen = slices_of(filter, asked, now)
    if #names == 0 then
        return
    end
    fetch(cache, filter, names, opts)
    for _, one in ipairs(look_up(view_of(cache, filter), meta, asked, age_us, absent)) do
        if seen[one.slice] then
            filter.quiet[one.slice] = now + bloom.HELD -- it is gone, or there is no room near
        end
    end
end

---Which of these keys surely are none. What is not near of the filter is fetched, at most FETCHES
---slices.
---@param cache redcache.Cache with a filter
---@param keys string[]
---@param count integer
---@param opts table|nil of the call: near, fresh, reads, maxStale, timeout, cancelTag
---@param is_look boolean|nil nothing is fetched
---@return table<string, true>|nil absent nil: none
function bloom.absent(cache, keys, count, opts, is_look)
    local filter = cache._bloom
    local view = view_of(cache, filter)
    if view == nil or opts and (opts.near == false or opts.fresh or opts.reads == "replica") then
        return nil
    end
    local age_us = math.min(calls.max_stale(cache, opts), core_near.stale_us(MAX_AGE))
    local may_fetch = not is_look and cache._scheduler.can_wait()
        and core_clock.now(cache._client) >= filter.quiet_until
    local meta = complete_meta(cache, filter, view, age_us, opts, may_fetch)
    if meta == nil then
        return nil
    end
    local asked, absent = {}, {}
    for i = 1, count do
        local slice, places = places_of(meta, keys[i])
        asked[i] = { key = keys[i], slice = slice, places = places }
    end
    asked = look_up(view_of(cache, filter), meta, asked, age_us, absent)
    if may_fetch and #asked > 0 then
        fetch_and_look(cache, filter, meta, asked, age_us, opts, absent)
    end
    return next(absent) and absent or nil
end

---Whether a key surely is none, for a read that has found nothing near; it is counted.
---@param cache redcache.Cache with a filter
---@param key string
---@param opts table|nil as absent
---@return boolean
function bloom.is_absent(cache, key, opts)
    if bloom.absent(cache, { key }, 1, opts) == nil then
        return false
    end
    cache._counters.filtered = cache._counters.filtered + 1
    return true
end

---The keys of a list that may be there; `tell` gets the others, which are counted.
---@param cache redcache.Cache with a filter
---@param list string[]
---@param count integer
---@param opts table|nil as absent
---@param tell fun(key: string)
---@return string[] rest
---@return integer count
function bloom.sift(cache, list, count, opts, tell)
    local absent = count > 0 and bloom.absent(cache, list, count, opts)
    if not absent then
        return list, count
    end
    local rest, left = {}, 0
    for i = 1, count do
        if absent[list[i]] then
            cache._counters.filtered = cache._counters.filtered + 1
            tell(list[i])
        else
            left = left + 1
            rest[left] = list[i]
        end
    end
    return rest, left
end

-- For filter.lua ---------------------------------------------------------------------------------

bloom.META, bloom.SLICE_BITS, bloom.ACTION = META, SLICE_BITS, ACTION
bloom.parse, bloom.read_meta = parse, read_meta

---What Redis has said of the filter is asked again.
---@param filter table of new()
function bloom.forget(filter)
    filter.held, filter.held_until = nil, -1
end

---Puts keys into the slices of a filter that is being filled.
---@param filter table of new()
---@param meta redcache.BloomMeta
---@param keys string[]
---@param opts table of the call
---@return boolean|nil is_lost a slice is gone, or another filter's
---@return redcache.Error|nil err
function bloom.put(filter, meta, keys, opts)
    local is_lost, err = send(filter, share_out(nil, meta, keys, 0), opts)
    return is_lost, err
end

---The script, for specs.
bloom.ADD = ADD

return bloom
