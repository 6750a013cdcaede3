-- near - reads without a round trip: decoded values of this Lua state (L0), then the memory of this
-- machine.
--
-- What:   L0 is one store per client and Lua state: slots with a decoded value and the handle of
--         the near entry it was decoded from. Every hit asks the core whether that entry still
--         stands, so L0 cannot be older than the near cache. Each cache object finds its slots by
--         the user's key.
-- Memory: bounded by entries and by an estimate of bytes; what was used since the hand last came
--         by stays (CLOCK).
-- Not:    no round trip, but for `fresh`; what is not here is read by cache.lua or remember.lua.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_extra = require("redcache.core.extra")
local core_near = require("redcache.core.near")
local core_many = require("redcache.core.near_many")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local later = require("redcache.later")
local entry = require("redcache.entry")
local errors = require("redcache.errors")
local freshness = require("redcache.freshness")
local tags = later.module("redcache.tags")
local usage = require("redcache.usage")

local view_check, view_get = core_near.view_check, core_near.view_get
local l0_find = core_near.l0_find
local near_entry, near_extra, near_part = core_near.entry, core_near.extra, core_near.part
local near_holds, looks = core_near.holds, core_near.looks
local near_taken_off, put_back = core_near.taken_off, core_near.put_back
local GONE, SOUND, TOLD = core_near.GONE, core_near.SOUND, core_near.TOLD
local is_ageless = freshness.is_ageless
local near_bytes, near_msgpack_string = core_near.bytes, core_near.msgpack_string
local near_msgpack_string_behind = core_near.msgpack_string_behind
local end_of, end_of_last = core_near.end_of, core_near.end_of_last
local band, huge, draw = bit.band, math.huge, freshness.draw
local CAPPED = core_extra.CAPPED
local UNKNOWN = bit.bnot(bit.bor(core_extra.FLAG, CAPPED))
-- Seconds: a copy that ends behind that has no end.
local ENDLESS = 1e12
local view_now, view_get_at = core_near.view_now, core_near.view_get_at
local l0_find_many, MANY = core_near.l0_find_many, core_near.MANY
local many_look, many_what = core_many.look, core_many.what
local many_bytes, many_msgpack_string = core_many.bytes, core_many.msgpack_string
local NEAR_MISS, NEAR_HIT, NEAR_STALE, NEAR_LOCAL =
    constants.NEAR_MISS, constants.NEAR_HIT, constants.NEAR_STALE, constants.NEAR_LOCAL
local KIND_VALUE, KIND_NEGATIVE = constants.KIND_VALUE, constants.KIND_NEGATIVE

local near = {}

-- In place of a remembered nil.
local NOTHING = {}

-- Rough sizes in bytes. Of a slot: its handle (64), its place by address (32, which are 0.3 to 0.6
-- full), its part of tables (80), the heads of two strings (48). A table and its parts need several
-- times the room of their encoding.
local SLOT_COST, TABLE_FACTOR = 260, 5
local FIRST_SLOTS = 256

-- The store --------------------------------------------------------------------------------------

---@param l0 table entries, bytes
---@return table store
function near.new_store(l0)
    return {
        max_entries = l0.entries, max_bytes = l0.bytes,
        room = 0, handles = nil, -- of slots 1 to room
        cell = core_near.new_cell(nil), -- where the core finds them
        values = {}, keys = {}, costs = {}, prints = {},
        shelves = {}, -- of which cache each slot is: its index, and the same by address (l0)
        judged = {}, -- of slots of entries that tell of themselves: what judge() goes by
        free = {}, free_count = 0,
        top = 0, -- slots ever in use
        entries = 0, bytes = 0,
        hand = 0,
    }
end

local function drop(store, slot)
    local shelf, key = store.shelves[slot], store.keys[slot]
    if shelf then
        core_near.l0_drop(shelf.l0, key) -- first: while the key's string is kept
        if store.judged[slot] then
            core_near.drop_block(store.handles, slot)
            store.judged[slot] = nil
        end
        shelf.index[key] = nil
        store.bytes = store.bytes - store.costs[slot]
        store.entries = store.entries - 1
        store.values[slot], store.keys[slot], store.shelves[slot] = nil, nil, nil
        store.prints[slot] = nil
        store.free_count = store.free_count + 1
        store.free[store.free_count] = slot
    end
end

local function was_used(store, slot, shelf)
    local was_checked = core_near.was_used(store.handles, slot)
    return core_near.l0_was_used(shelf.l0, store.keys[slot]) or was_checked
end

-- Takes out the next entry that nobody has used since the hand last came by.
local function evict(store)
    for _ = 1, 2 * store.top do
        local slot = store.hand % store.top + 1
        store.hand = slot
        local shelf = store.shelves[slot]
        if shelf and not was_used(store, slot, shelf) then
            drop(store, slot)
            return
        end
    end
end

local function grow(store)
    local room = math.min(math.max(store.room * 4, FIRST_SLOTS), store.max_entries)
    store.handles = core_near.new_handles(room + 1, store.handles, store.room + 1)
    store.cell[0] = store.handles
    store.room = room
end

local function take_slot(store)
    if store.free_count == 0 and store.top == store.max_entries then
        evict(store)
    end
    if store.free_count > 0 then
        local slot = store.free[store.free_count]
        store.free_count = store.free_count - 1
        return slot
    end
    store.top = store.top + 1
    if store.top > store.room then
        grow(store)
    end
    return store.top
end

-- What tells a table that was changed: its contents as text, keys in order.
local function print_of(value, depth)
    if type(value) ~= "table" or depth > 32 then
        return type(value) .. ":" .. tostring(value)
    end
    local parts = {}
    for key, inner in next, value do
        parts[#parts + 1] = print_of(key, depth + 1) .. "=" .. print_of(inner, depth + 1)
    end
    table.sort(parts)
    return "{" .. table.concat(parts, "\0") .. "}"
end

-- Keeps a value that was just decoded from what the last view_get found. A codec may have closed
-- the cache: L0 stays empty then, for its hits ask nobody. judged: as read_block, nil: of an entry
-- that does not tell of itself.
-- look: of that view_get. A finalizer's read, which may run wherever this allocates, keeps nothing
-- meanwhile, and what came out of another look than ours is not kept.
local function keep(cache, key, value, bytes, judged, look)
    local store, index, shelf = cache._store, cache._index, cache._shelf
    if cache._client.handle == nil or store.is_keeping or looks.last ~= look then
        return
    end
    store.is_keeping = true
    core_near.l0_grow(shelf.l0)
    local cost = SLOT_COST + #key + (type(value) == "table" and TABLE_FACTOR or 1) * bytes
    local slot = index[key]
    if slot then
        store.bytes = store.bytes - store.costs[slot]
    elseif cost > store.max_bytes then
        store.is_keeping = false
        return
    else
        slot = take_slot(store)
        index[key], store.keys[slot], store.shelves[slot] = slot, key, shelf
        store.entries = store.entries + 1
    end
    store.values[slot], store.costs[slot] = value, cost
    store.bytes = store.bytes + cost
    store.prints[slot] = cache._guard and value ~= NOTHING and print_of(value, 0) or nil
    -- The handle points into the block: the old one goes when nothing points to it any more.
    core_near.keep_handle(store.handles, slot, judged and judged.block, judged and judged.capped)
    store.judged[slot] = judged
    if looks.last ~= look then -- the handle may be another entry's
        drop(store, slot)
    elseif store.keys[slot] == key and index[key] == slot then -- no finalizer has dropped it
        core_near.l0_put(shelf.l0, key, slot)
    end
    while store.bytes > store.max_bytes and store.entries > 0 do
        evict(store)
    end
    store.is_keeping = false
end

---Forgets everything: the client is closed.
function near.clear(store)
    for slot = 1, store.top do
        drop(store, slot)
    end
end

-- Reading ----------------------------------------------------------------------------------------

-- Decodes what the last view_get found, a value of this codec without flags: ok, value.
local function decode_own(codec)
    -- The most common case needs no copy of the encoding.
    local text = codec.name == "msgpack" and near_msgpack_string()
    if text then
        return true, text
    end
    local ok, value = codec.decode(near_bytes())
    return ok, value
end

-- Decodes what the last view_get found, which has no flags: ok, value. NOTHING stands for nil.
local function decode(settings, kind, codec_id)
    if kind == KIND_NEGATIVE then
        return true, NOTHING
    elseif kind == KIND_VALUE and codec_id == settings.codec.id then
        return decode_own(settings.codec)
    end
    return entry.decode(settings, kind, codec_id, 0, near_bytes())
end

-- The same of what has flags, behind a block of `skip` bytes.
local function decode_told(settings, kind, codec_id, flags, skip, len)
    local codec = settings.codec
    if kind == KIND_VALUE and codec_id == codec.id and skip > 0 then
        local text = codec.name == "msgpack" and near_msgpack_string_behind(skip)
        if text then
            return true, text
        end
        return codec.decode(near_part(skip, len))
    elseif kind == KIND_NEGATIVE then
        return true, NOTHING
    end
    return entry.decode(settings, kind, codec_id, flags, near_bytes())
end

-- What the reader of an entry goes by that tells of itself (extra.lua): what its block says, in
-- seconds, and the block itself.
local function read_block(skip, life_ms, stale_ms, load_ms, tag_count)
    return {
        life = life_ms / 1000, grace = stale_ms / 1000, load = load_ms / 1000,
        capped = band(core_near.flags(), CAPPED) ~= 0, has_tags = tag_count > 0,
        block = core_near.block(skip),
    }
end

-- The same of a block that was taken off; nil: none was.
local function read_taken_off()
    local skip, life_ms, stale_ms, load_ms, tag_count = near_taken_off()
    if skip then
        return read_block(skip, life_ms, stale_ms, load_ms, tag_count)
    end
end

-- What a copy is good for. `left`: seconds until it ends. standing: what its tags say, nil: they
-- are not near, so Redis is asked.
local function judge(settings, left, is_capped, life, grace, load_time, standing)
    if standing == nil then
        return "void"
    end
    left = not is_capped and (left > ENDLESS and huge or left - grace) or nil
    return freshness.judge(settings, left, life, grace, load_time, standing,
        draw(settings))
end

-- What that is good for which the last view_get has found, with these flags; "void", too, where
-- this version cannot read it. verdict, its mark, and what its block says: as near_extra.
local function judge_last(cache, settings, flags, max_stale_us)
    local skip, life_ms, stale_ms, load_ms, tag_count = near_extra()
    if skip == nil or band(flags, UNKNOWN) ~= 0 then
        return "void"
    end
    local standing = tag_count == 0 and "valid" or tags.check_last(cache, max_stale_us)
    local left, mark = end_of_last()
    return judge(settings, left, band(flags, CAPPED) ~= 0, life_ms / 1000, stale_ms / 1000,
        load_ms / 1000, standing), mark, skip, life_ms, stale_ms, load_ms, tag_count
end

-- take() of an entry that tells of itself.
local function take_told(cache, key, copy, settings, max_stale_us, look)
    local kind, codec_id, flags, len = near_entry()
    local verdict, mark, skip, life_ms, stale_ms, load_ms, tag_count =
        judge_last(cache, settings or cache._settings, flags, max_stale_us)
    if verdict == "void" then
        return false
    end
    local judged = cache._store and read_block(skip, life_ms, stale_ms, load_ms, tag_count)
    local ok, value = decode_told(cache._settings, kind, codec_id, flags, skip, len)
    if not ok then
        return false
    end
    if cache._store and not (copy and type(value) == "table") then
        keep(cache, key, value, len, judged, look)
    end
    if value == NOTHING then
        value = nil
    end
    if verdict == "early" or verdict == "stale" then
        return true, value, mark, verdict == "stale", load_ms / 1000
    end
    return true, value
end

-- take() for L0, too, of what needs no judging.
local function take_kept(cache, key, copy, kind, codec_id, len, look)
    local judged = read_taken_off()
    local ok, value = decode(cache._settings, kind, codec_id)
    if not ok then
        return false -- as take()
    elseif not (copy and type(value) == "table") then
        keep(cache, key, value, judged and len + #judged.block or len, judged, look)
    end
    if value == NOTHING then
        value = nil
    end
    return true, value
end

-- Takes what the last view_get found, for the caller and for L0. found, value, and, of what is to
-- be loaded again: its mark, true where it is stale, seconds that it took to load.
-- The caller asks behind it whether `look` was still the last one.
local function take(cache, key, copy, settings, max_stale_us, look)
    if settings ~= nil and not is_ageless(settings) then
        put_back()
    end
    -- What most hits are. Interpreted, each field of the entry that is read costs as much as a
    -- call.
    local codec = cache._settings.codec
    if cache._store == nil and near_holds(codec.id) then
        return decode_own(codec)
    end
    local kind, codec_id, flags, len = near_entry()
    if flags ~= 0 then
        return take_told(cache, key, copy, settings, max_stale_us, look)
    end
    if cache._store then
        return take_kept(cache, key, copy, kind, codec_id, len, look)
    end
    local ok, value = decode(cache._settings, kind, codec_id)
    if not ok then
        return false -- the next read from Redis mends it
    elseif value == NOTHING then
        value = nil
    end
    return true, value
end

-- The answer of a read that the last view_get has found. A process that finds all it wants in what
-- others have read must help to keep that coherent.
local function hit_near(cache, key, copy, settings, max_stale_us, look)
    local client = cache._client
    if client.awaken then
        client.awaken(client)
    end
    local found, value, due, is_stale, load_time =
        take(cache, key, copy, settings, max_stale_us, look)
    if not found or looks.last ~= look then
        return nil
    end
    local counters = cache._counters
    counters.nearHits = counters.nearHits + 1
    if is_stale then
        counters.stale = counters.stale + 1
        return "stale", value, due, load_time
    end
    return "near", value, due
end

local function check_guard(store, slot, key, value)
    if print_of(value, 0) ~= store.prints[slot] then
        drop(store, slot)
        error("the value of '" .. key .. "' was changed by one of its readers: values of the near "
            .. "cache are shared, change a copy (option copy)", 0)
    end
end

-- An L0 hit that is judged. source, value, due, load_time; nil: it is of no use.
local function hit_judged(cache, slot, key, max_stale_us, copy, settings)
    local store = cache._store
    local value, judged = store.values[slot], store.judged[slot]
    if copy and type(value) == "table" and value ~= NOTHING then
        return nil
    end
    local standing = not judged.has_tags and "valid"
        or tags.check(cache, judged.block, max_stale_us)
    local left, mark = end_of(cache._view, store.handles, slot)
    local verdict = judge(settings or cache._settings, left, judged.capped, judged.life,
        judged.grace, judged.load, standing)
    if verdict == "void" then
        return nil
    elseif value == NOTHING then
        value = nil
    elseif cache._guard then
        check_guard(store, slot, key, value)
    end
    local counters = cache._counters
    counters.l0Hits = counters.l0Hits + 1
    if verdict == "stale" then
        counters.stale = counters.stale + 1
        return "stale", value, mark, judged.load
    end
    return "l0", value, verdict == "early" and mark or nil
end

-- A look into L0 where l0_find is not all there is to it: slot is what that has told. As near.hit;
-- nil: it is of no use.
local function hit_l0(cache, slot, key, max_stale_us, copy, settings)
    local store, counters, outcome = cache._store, cache._counters, SOUND
    local hits = slot > 0 and 0 or 1 -- l0_find has counted its own
    if slot < 0 then
        slot, outcome = -slot, TOLD
    elseif slot == 0 then
        slot = cache._index[key]
        if slot == nil then
            return nil
        end
        outcome = view_check(cache._view, store.handles, slot, max_stale_us)
        if outcome == GONE then
            drop(store, slot)
            return nil
        end
    end
    if outcome == TOLD or settings ~= nil and not is_ageless(settings)
        and store.judged[slot] ~= nil then
        counters.l0Hits = counters.l0Hits + hits - 1 -- it counts by itself
        return hit_judged(cache, slot, key, max_stale_us, copy, settings)
    end
    local value = store.values[slot]
    if copy and type(value) == "table" and value ~= NOTHING then
        return nil
    end
    counters.l0Hits = counters.l0Hits + hits
    if value == NOTHING then
        return "l0", nil
    elseif cache._guard then
        check_guard(store, slot, key, value)
    end
    return "l0", value
end

-- Everything but a plain hit in L0.
local function hit_other(cache, slot, key, max_stale_us, copy, settings)
    if slot ~= 0 or cache._index[key] ~= nil then
        local source, value, due, load_time =
            hit_l0(cache, slot, key, max_stale_us, copy, settings)
        if source then
            return source, value, due, load_time
        end
    end
    local view = cache._view
    if view ~= nil and cache._client.handle ~= nil then
        local outcome, look = view_get(view, key, max_stale_us)
        if outcome == NEAR_HIT then
            return hit_near(cache, key, copy, settings, max_stale_us, look)
        end
    end
    return nil
end

---Looks into L0, then into this machine's memory.
---@param cache redcache.Cache
---@param key string
---@param max_stale_us integer
---@param copy boolean tables are decoded again
---@param settings? table of the call, nil: the cache's: what a judged entry is good for depends on
---them
---@return string|nil source "l0", "near", "stale"; nil: not here
---@return any value
---@return integer|nil due the mark of a value that is to be loaded again
---@return number|nil load_time seconds that a stale one took to load; 0: not known
function near.hit(cache, key, max_stale_us, copy, settings)
    local slot = 0
    if cache._places ~= nil and not copy then
        slot = l0_find(cache._places, key, max_stale_us)
    end
    return hit_other(cache, slot, key, max_stale_us, copy, settings)
end

---near.hit of a plain call, by the cache's own settings.
---@param cache redcache.Cache
---@param key string
---@return string|nil source
---@return any value
---@return integer|nil due
---@return number|nil load_time
function near.look(cache, key)
    local places = cache._places
    if places == nil then
        return near.hit(cache, key, cache._max_stale, cache._copy)
    end
    local slot = l0_find(places, key, cache._max_stale)
    if slot <= 0 then
        return hit_other(cache, slot, key, cache._max_stale, false)
    end
    local value = cache._values[slot]
    if value == NOTHING then
        return "l0", nil
    end
    return "l0", value
end

---Adds up what l0_find has counted: for who reads the counters.
function near.count(cache)
    local places, counters = cache._places, cache._counters
    if places ~= nil then
        counters.l0Hits = counters.l0Hits + core_near.l0_hits(places)
    end
end

-- Asks the tracked connection for a sign of life, so that all older news has arrived. When that
-- was, or nil.
local function barrier(cache, deadline, tag)
    local client = cache._client
    local slot = core_slot.take(client)
    if slot == nil then
        return nil
    end
    core_slot.customize(slot, core_clock.left(client, deadline), tag)
    local status = calls.await(cache, slot, core_near.barrier(slot))
    local time = status == 0 and core_near.barrier_time(slot) or nil
    core_slot.give(slot)
    return time
end

---near.hit under the options of a call.
---@param opts table near, maxStale, fresh, copy, reads, cancelTag; nil fields: the cache's
---@param deadline number|nil as core_clock.deadline: with fresh, until when the answer has to be
---there
---@param settings? table as near.hit
---@return string|nil source
---@return any value
---@return integer|nil due
---@return number|nil load_time
function near.find(cache, key, opts, deadline, settings)
    local view = cache._view
    if view == nil or opts.near == false or opts.reads == "replica"
        or cache._client.handle == nil then
        return nil
    end
    local copy = opts.copy
    if copy == nil then
        copy = cache._copy
    end
    if not opts.fresh then
        return near.hit(cache, key, calls.max_stale(cache, opts), copy, settings)
    elseif view_get(view, key, core_near.MAX_STALE_US) ~= NEAR_HIT then
        return nil -- one GET is cheaper than finding out
    end
    local since = barrier(cache, deadline, opts.cancelTag)
    if since and cache._client.handle ~= nil then
        local outcome, look = core_near.view_get_since(view, key, since)
        if outcome == NEAR_HIT then
            return hit_near(cache, key, copy, settings, core_near.age_us(view, since), look)
        end
    end
    return nil
end

-- Many keys ---------------------------------------------------------------------------------------

-- Where L0 has the keys of a call; nil while lent: a finalizer may read while somebody else does.
local idle_batch = core_near.new_batch()

-- Takes from L0 what may be served of keys first to last, which were looked up. How many are not
-- there. Nothing is allocated here but in the results: no finalizer runs that could give a slot to
-- another key. What has to be judged is left to read_view: its slot is below 0.
local function take_l0(cache, keys, first, last, slots, values, negatives)
    local kept, hits, misses = cache._store.values, 0, 0
    for i = first, last do
        local key, slot = keys[i], slots[i - first]
        if slot > 0 then
            local value = kept[slot]
            if value ~= NOTHING then
                if values[key] == nil then
                    values[key] = value
                    hits = hits + 1
                end
            elseif not negatives[key] then
                negatives[key] = true
                hits = hits + 1
            end
        else
            misses = misses + 1
        end
    end
    cache._counters.l0Hits = cache._counters.l0Hits + hits
    return misses
end

-- The same, where values are put at the place of their key. Doubles count each.
local function take_l0_list(cache, keys, first, last, slots, values, negatives)
    local kept, misses = cache._store.values, 0
    for i = first, last do
        local slot = slots[i - first]
        if slot <= 0 then
            misses = misses + 1
        else
            local value = kept[slot]
            if value == NOTHING then
                negatives[keys[i]] = true
            else
                values[i] = value
            end
        end
    end
    cache._counters.l0Hits = cache._counters.l0Hits + last - first + 1 - misses
    return misses
end

-- Asks the handles of those of keys first to last that L0 holds and did not find: few have no place
-- there. What may not be served any more goes.
local function ask_rest(cache, keys, first, last, slots, max_stale_us)
    local index, store = cache._index, cache._store
    for i = first, last do
        local slot = slots[i - first] == 0 and index[keys[i]] or nil
        if slot ~= nil then
            local outcome = view_check(cache._view, store.handles, slot, max_stale_us)
            if outcome == SOUND then
                slots[i - first] = slot
            elseif outcome == GONE then
                drop(store, slot)
            end
        end
    end
end

-- Looks keys up in L0; what is there is taken by one of the two. Those that are not there, and how
-- many.
local function read_l0(cache, keys, count, max_stale_us, values, negatives, take_these)
    local places, rest, left = cache._shelf.l0.places, nil, 0
    local batch = idle_batch or core_near.new_batch()
    idle_batch = nil
    for first = 1, count, MANY do
        local last = math.min(first + MANY - 1, count)
        local slots = batch.slots
        local sound = l0_find_many(places, batch, keys, first, last, max_stale_us)
        if sound <= last - first then
            ask_rest(cache, keys, first, last, slots, max_stale_us)
        end
        if take_these(cache, keys, first, last, slots, values, negatives) > 0 then
            rest = rest or {}
            for i = first, last do
                if slots[i - first] <= 0 then
                    left = left + 1
                    rest[left] = keys[i]
                end
            end
        end
    end
    idle_batch = batch
    return rest, left
end

-- Looks a key up in this machine's memory. found, value (nil: "no such thing").
local function look_up(cache, key, now_us, max_stale_us, copy)
    if cache._client.handle == nil then
        return false -- closed by a codec, or by a finalizer
    end
    local outcome, look = view_get_at(cache._view, key, now_us, max_stale_us)
    if outcome ~= NEAR_HIT then
        return false
    end
    local found, value = take(cache, key, copy, nil, max_stale_us, look)
    return found and looks.last == look, value
end

-- Looks keys first to last up in this machine's memory, one by one, and keeps what is found in L0.
-- Puts those that are not there into `rest`, which holds `left`; nil: they are the first.
local function read_view(cache, keys, first, last, max_stale_us, copy, values, negatives, rest,
                         left)
    local hits, now_us = 0, view_now(cache._view)
    for i = first, last do
        local key = keys[i]
        if values[key] == nil and not negatives[key] then
            local found, value = look_up(cache, key, now_us, max_stale_us, copy)
            if not found then
                rest = rest or {}
                left = left + 1
                rest[left] = key
            elseif value ~= nil then
                values[key] = value
                hits = hits + 1
            else
                negatives[key] = true
                hits = hits + 1
            end
        end
    end
    cache._counters.nearHits = cache._counters.nearHits + hits
    return rest, left
end

-- Of a batch, what is not a value of the cache's codec with nothing in front of it. found, value.
local function read_other(cache, what, key, max_stale_us, copy)
    if what == NEAR_MISS or what == NEAR_STALE or what == NEAR_LOCAL then
        return false
    elseif band(what, core_many.PLAIN) == core_many.NEGATIVE then
        return true, nil
    end
    return look_up(cache, key, view_now(cache._view), max_stale_us, copy)
end

-- The same as read_view by one call into C, without L0. What most entries need stands in locals:
-- a call into C makes LuaJIT load every field again.
local function read_batch(cache, keys, first, last, max_stale_us, copy, values, negatives, rest,
                          left)
    local codec, view, client, hits = cache._settings.codec, cache._view, cache._client, 0
    local wanted, decode_bytes, is_msgpack =
        core_many.value_of(codec.id), codec.decode, codec.name == "msgpack"
    local batch = core_many.take()
    local data, held, from, to = batch.data, batch.keys, 0, last - first + 1
    core_many.fill(batch, keys, first, last)
    while from < to do
        local done = to
        if client.handle ~= nil then
            done = many_look(view, data, from, to, max_stale_us)
        else
            core_many.forget(data, from, to)
        end
        for at = from, done - 1 do
            local key = held[at]
            if values[key] == nil and not negatives[key] then
                local what = many_what(data, at)
                local found, value
                if what ~= wanted then
                    found, value = read_other(cache, what, key, max_stale_us, copy)
                else
                    value = is_msgpack and many_msgpack_string(data, at) or nil
                    found = value ~= nil
                    if not found then
                        found, value = decode_bytes(many_bytes(data, at))
                    end
                end
                if not found then
                    rest = rest or {}
                    left = left + 1
                    rest[left] = key
                elseif value ~= nil then
                    values[key] = value
                    hits = hits + 1
                else
                    negatives[key] = true
                    hits = hits + 1
                end
            end
        end
        from = done
    end
    core_many.give(batch)
    cache._counters.nearHits = cache._counters.nearHits + hits
    return rest, left
end

-- near.hit for each of the keys. The rest of them and its length.
local function read_each(cache, keys, max_stale_us, copy, values, negatives)
    local rest, left = nil, 0
    for i = 1, #keys do
        local key = keys[i]
        local source, value = near.hit(cache, key, max_stale_us, copy)
        if source == nil then
            rest = rest or {}
            left = left + 1
            rest[left] = key
        elseif value == nil then
            negatives[key] = true
        else
            values[key] = value
        end
    end
    return rest, left
end

---near.hit for many keys, at one reading of the clock per 128 of them.
---@param cache redcache.Cache with a view
---@param keys string[] doubles count once
---@param max_stale_us integer
---@param copy boolean tables are decoded again
---@param values table<string, any> takes what is found
---@param negatives table<string, true> takes what is remembered as "no such thing"
---@return string[]|nil rest keys that are not here, doubles among them; nil: all are
---@return integer left how many
function near.hit_many(cache, keys, max_stale_us, copy, values, negatives)
    if cache._client.handle == nil then
        return keys, #keys -- closed: a finalizer may ask when its view is gone already
    elseif copy or cache._guard then
        return read_each(cache, keys, max_stale_us, copy, values, negatives)
    end
    local rest, left, hits = nil, 0, cache._counters.nearHits
    local read, count = cache._store and read_view or read_batch, #keys
    for first = 1, count, MANY do
        rest, left = read(cache, keys, first, math.min(first + MANY - 1, count), max_stale_us,
            copy, values, negatives, rest, left)
    end
    if cache._client.awaken and cache._counters.nearHits ~= hits then
        cache._client.awaken(cache._client)
    end
    return rest, left
end

---Takes from L0 what a reader of many keys may have without a closer look. A reader that finds
---entries due by options of its own (`settings`) gets nothing.
---@param cache redcache.Cache
---@param keys string[]
---@param own table|nil near, maxStale, fresh, copy, reads of the call; nil fields: the cache's
---@param settings table of the call, as near.hit
---@param is_list boolean values are put by position, else by key
---@param values table takes what is found
---@param negatives table<string, true> takes what is remembered as "no such thing"
---@return string[]|nil rest keys that were not taken, doubles among them; nil: all were
---@return integer left how many
function near.take_l0(cache, keys, own, settings, is_list, values, negatives)
    local copy = cache._copy
    if own ~= nil then
        if own.near == false or own.fresh or own.reads == "replica" then
            return keys, #keys
        elseif own.copy ~= nil then
            copy = own.copy
        end
    end
    if cache._store == nil or copy or cache._guard or cache._client.handle == nil
        or (settings ~= cache._settings and not is_ageless(settings)) then
        return keys, #keys
    end
    return read_l0(cache, keys, #keys, calls.max_stale(cache, own), values, negatives,
        is_list and take_l0_list or take_l0)
end

---Where Redis cannot be reached and the cache has a grace window: a copy that is not known
---coherent is better than nothing. Not for who reads from replicas.
---@param opts table|nil of the call: reads
---@return boolean found
---@return any value
function near.stale(cache, key, opts)
    if cache._view == nil or (opts and opts.reads == "replica")
        or cache._settings.grace <= 0 or cache._client.handle == nil then
        return false
    end
    local outcome, look = view_get(cache._view, key, cache._max_stale)
    if outcome == NEAR_MISS or outcome == NEAR_LOCAL then
        return false
    end
    put_back()
    local kind, codec_id, flags, len = near_entry()
    local skip = 0
    if flags ~= 0 then
        local verdict, _, size = judge_last(cache, cache._settings, flags, core_near.MAX_STALE_US)
        if verdict == "void" then
            return false
        end
        skip = size
    end
    local ok, value = decode_told(cache._settings, kind, codec_id, flags, skip, len)
    if looks.last ~= look then
        return false
    elseif value == NOTHING then
        value = nil
    end
    return ok, value
end

-- Figures ----------------------------------------------------------------------------------------

---@class redcache.Near
local Near = {}
Near.__index = Near

---How the near cache does. Of this cache object: hits (l0Hits and nearHits), misses. Of this Lua
---state: l0Entries, l0Bytes (an estimate). Of the region, by all who share it: fills, dooms
---(answers not kept because the key changed meanwhile), invalidations, writes (dropped by own
---writes), evictions, expirations, ghosts (fills of keys that were remembered), refusals (no
---room), avoided (answers left out, of keys that change more often than they are read),
---revalidations (kept over a reconnect), repairs (stripes emptied after a process died while
---writing in them), damaged (stripes emptied because their bytes contradicted each other, or nobody
---could write in them for a second), entries, bytes, capacity. horizon: seconds since this
---client's connection was last known coherent, nil: never.
---@return table<string, number>|nil stats nil: there is no near cache, or err
---@return redcache.Error|nil err closed
function Near:stats()
    local cache = self._cache
    local err = core_client.closed(cache._client, "read stats")
    if err or cache._view == nil then
        return nil, err
    end
    near.count(cache)
    local stats, counters, store = core_near.stats(cache._client), cache._counters, cache._store
    stats.l0Hits, stats.nearHits = counters.l0Hits, counters.nearHits
    stats.hits = counters.l0Hits + counters.nearHits
    stats.misses = counters.nearMisses
    stats.l0Entries, stats.l0Bytes = store and store.entries or 0, store and store.bytes or 0
    return stats
end

---The keys of this cache object that are hit most near, L0 included, by all who share the near
---cache: of those that are in it now, the hottest first. One hit of 128 is counted for a minute
---from each call on, one of 8,192 while nobody asks; what was counted is halved every minute.
---@param n? integer how many at most, 1 to 100; 10
---@return { key: string, hits: number }[]|nil keys hits are estimated: of the last minute or two;
---nil: there is no near cache, or err
---@return redcache.Error|nil err closed
function Near:hot(n)
    if n ~= nil and (type(n) ~= "number" or n < 1 or n > 100 or n % 1 ~= 0) then
        error(errors.argument("n", "hot", "integer from 1 to 100", n), 2)
    end
    local cache = self._cache
    local err = core_client.closed(cache._client, "tell hot keys")
    if err or cache._view == nil then
        return nil, err
    end
    return core_near.hot(cache._view, n or 10)
end

usage.guard("near", Near, "_cache")

---Prepares a cache object for near reads: its view, its index into the store, its settings.
function near.attach(cache, prefix, settings)
    local client, with = cache._client, settings.near
    cache._index = {} -- stays empty without L0
    cache._max_stale = core_near.stale_us(settings.maxStale)
    cache._copy, cache._guard = settings.copy, settings.guard
    cache.near = setmetatable({ _cache = cache }, Near)
    if not with or settings.reads == "replica" then
        return
    end
    cache._view = core_near.new_view(client, prefix, with)
    cache._is_near = cache._view ~= nil
    if cache._view and is_ageless(settings) then
        core_near.judge_by(cache._view, nil) -- tags.lua brings the tags
    end
    if with.l0 and cache._view then
        client.store = client.store or near.new_store(with.l0)
        cache._store = client.store
        cache._shelf = { index = cache._index,
            l0 = core_near.new_l0(cache._view, client.store.cell) }
        cache._values = cache._store.values
        if not (settings.copy or settings.guard) then
            cache._places = cache._shelf.l0.places -- a hit there is all there is to it
        end
    end
end

return near
