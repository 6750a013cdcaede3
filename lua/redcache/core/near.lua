-- near - the near cache: views of it, what they find, and handles to ask about that again.
--
-- What:   a view reads the near cache under one prefix. What was found is copied out of it by C.
-- Memory: one buffer per Lua state: what the last view_get found stays readable until the next one.
--         That may be a finalizer's, which runs wherever something is allocated: so each look has a
--         number, and what was read is good only if it is still the last one's (looks.last).
-- Not:    decoding, L0 (redcache.near).

local bit = require("bit")
local ffi = require("ffi")
local C = require("redcache.core.ffi")
local core_bytes = require("redcache.core.bytes")
local core_extra = require("redcache.core.extra")
local core_handle = require("redcache.core.handle")
local core_owned = require("redcache.core.owned")
local FOREVER = require("redcache.options").FOREVER

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift
local string_of = ffi.string
local tonumber = tonumber -- a global is looked up again behind every call into C
local handle_of = core_handle.of
local msgpack_string = core_bytes.msgpack_string

local core_near = {
    MAX_STALE_US = 2 ^ 31 - 1, -- half an hour, more than a view call ever takes
    GONE = C.RC_VIEW_GONE, SOUND = C.RC_VIEW_SOUND, TOLD = C.RC_VIEW_TOLD, -- of view_check
}

local near_value = ffi.new("rc_near_value")
local near_buffer -- kept alive here; near_value points to it
local handles_of = ffi.typeof("rc_near_handle[?]")
local slots_of = ffi.typeof("int32_t[?]")
local names_of = ffi.typeof("const char *[?]")
local bytes_of, new_places = ffi.typeof("char[?]"), ffi.typeof("rc_l0")
local handle_cell = ffi.typeof("rc_near_handle *[1]")
-- How full the places of L0 are at most: of fuller ones more keys are in their second bucket.
local MOST = 0.6
local HANDLE_BYTES = ffi.sizeof("rc_near_handle")

local function grow_near_buffer(bytes)
    near_buffer = ffi.new("char[?]", bytes)
    near_value.buffer, near_value.capacity = near_buffer, bytes
end
grow_near_buffer(4096)

---Microseconds, as the view calls want maxStale.
---@param seconds number
---@return integer
function core_near.stale_us(seconds)
    return math.floor(seconds * 1e6)
end

---A view of the client's near cache.
---@param client redcache.Client
---@param prefix string
---@param near table settings.near
---@return ffi.cdata*|nil view nil: no memory
function core_near.new_view(client, prefix, near)
    local group = near.group or ""
    local view = C.rc_view_new(handle_of(client), prefix, #prefix, group, #group, near.min,
        near.max, near.ttl and near.ttl * 1e6 or 0)
    if view == nil then
        return nil
    end
    C.rc_view_avoid(view, near.selective and 1 or 0)
    return core_owned.keep(view, C.rc_view_free)
end

-- Of the last view_get or view_get_at: its number. Whether it is still that of ours is for the
-- readers to compare: a call for it costs a hit as much as all else of this.
local looks = { last = 0 }
core_near.looks = looks

-- Apart from view_get, which stays without a loop: LuaJIT compiles it into the caller's.
local function view_get_grown(view, key, max_stale_us)
    local outcome = C.RC_NEAR_GROW
    while outcome == C.RC_NEAR_GROW do
        grow_near_buffer(tonumber(near_value.len) + 64)
        outcome = C.rc_view_get(view, key, #key, max_stale_us, near_value)
    end
    return outcome
end

---Looks a key up in this machine's memory. What was found stays readable until the next call.
---@param view ffi.cdata*
---@param key string
---@param max_stale_us integer
---@return integer outcome NEAR_MISS, NEAR_HIT, NEAR_STALE
---@return integer look its number
function core_near.view_get(view, key, max_stale_us)
    local look = looks.last + 1
    looks.last = look
    local outcome = C.rc_view_get(view, key, #key, max_stale_us, near_value)
    if outcome == C.RC_NEAR_GROW then
        return view_get_grown(view, key, max_stale_us), look
    end
    return outcome, look
end

---What view_get_at goes by.
---@return ffi.cdata* now_us int64_t
function core_near.view_now(view)
    return C.rc_view_now_us(view)
end

---view_get as of a moment of this call: for many keys the clock is read once.
---@param now_us ffi.cdata* of view_now
---@return integer outcome
---@return integer look
function core_near.view_get_at(view, key, now_us, max_stale_us)
    local look = looks.last + 1
    looks.last = look
    local outcome = C.rc_view_get_at(view, key, #key, now_us, max_stale_us, near_value)
    if outcome == C.RC_NEAR_GROW then
        return view_get_grown(view, key, max_stale_us), look
    end
    return outcome, look
end

---Looks a key up however long ago it was known coherent, and tells whether that is since `since`.
---No block is taken off: how coherent its tags must be is for the caller to say.
---@param since ffi.cdata* int64_t, a barrier's number
---@return integer outcome
---@return integer look
function core_near.view_get_since(view, key, since)
    local outcome, look = core_near.view_get(view, key, core_near.MAX_STALE_US)
    core_near.put_back()
    if outcome == C.RC_NEAR_HIT and near_value.asof_us < since then
        return C.RC_NEAR_STALE, look
    end
    return outcome, look
end

---How long ago a barrier was set, as the view calls want maxStale.
---@param since ffi.cdata* int64_t, a barrier's number
---@return integer
function core_near.age_us(view, since)
    return math.max(0, tonumber(C.rc_view_now_us(view) - since))
end

-- Listening ---------------------------------------------------------------------------------------

local TOLD = { [C.RC_TOLD_PUSH] = "push", [C.RC_TOLD_WRITE] = "write", [C.RC_TOLD_FLUSH] = "flush",
    [C.RC_TOLD_GAP] = "gap" }
local told_key, told_len = ffi.new("char[1024]"), ffi.new("size_t[1]")

---What changes from now on is heard.
---@return ffi.cdata* listener
function core_near.listen(view)
    local listener = ffi.new("rc_listener")
    C.rc_view_listen(view, listener)
    return listener
end

---@return boolean whether hear() may have something to tell
function core_near.has_news(view, listener)
    return C.rc_view_has_news(view, listener) ~= 0
end

---@return string|nil cause "push", "write", "flush", "gap"; nil: there is nothing to hear
---@return string|nil key with "push" and "write"
function core_near.hear(view, listener)
    local cause = TOLD[C.rc_view_hear(view, listener, told_key, told_len)]
    if cause == "push" or cause == "write" then
        return cause, string_of(told_key, told_len[0])
    end
    return cause
end

-- What was found ----------------------------------------------------------------------------------

---What the last view_get found.
---@return integer kind
---@return integer codec
---@return integer flags of the entry; 0 where its block was sound (judge_by) and was taken off
---@return integer len of the payload
function core_near.entry()
    return near_value.kind, near_value.codec, near_value.entry_flags, tonumber(near_value.len)
end

---Whether that is a value of this codec with nothing in front of it: what is left to do is to
---decode its payload.
---@param codec_id integer
---@return boolean
function core_near.holds(codec_id)
    return near_value.codec == codec_id and near_value.entry_flags == 0
        and near_value.kind == C.RC_KIND_VALUE
end

---Puts the block back that was taken off, if one was. For readers who look at more of it than
---whether it is sound.
function core_near.put_back()
    local size = near_value.block_len
    if size > 0 then
        near_value.data, near_value.len = near_value.data - size, near_value.len + size
        near_value.entry_flags, near_value.block_len = near_value.flags_taken, 0
    end
end

---What the block said that was taken off, as extra().
---@return integer|nil size nil: none was
function core_near.taken_off()
    local size = near_value.block_len
    if size > 0 then
        return core_extra.read(near_value.data - size, size)
    end
end

---The block that was taken off, or is the beginning of the payload.
---@param size integer
---@return string
function core_near.block(size)
    return string_of(near_value.data - near_value.block_len, size)
end

---@return integer flags of the entry, also where its block was taken off
function core_near.flags()
    return near_value.block_len > 0 and near_value.flags_taken or near_value.entry_flags
end

---Whether that is a value of so many raw bytes.
---@param len integer
---@return boolean
function core_near.is_raw(len)
    return near_value.kind == C.RC_KIND_VALUE and near_value.codec == C.RC_CODEC_RAW
        and near_value.entry_flags == 0 and near_value.len == len
end

---core_tags.check of what the last view_get found.
---@param tags ffi.cdata* of core_tags.new
---@param max_stale_us integer
---@return integer verdict
function core_near.check_tags(tags, max_stale_us)
    return C.rc_tags_check(tags, near_value.data, near_value.len, max_stale_us)
end

---Copies a part of the payload of what the last view_get found: from `first` (0: the beginning) to
---`last`, which is not copied.
---@return string
function core_near.part(first, last)
    return string_of(near_value.data + first, last - first)
end

---The string, where the payload of what the last view_get found is one string in MessagePack.
---@param skip integer bytes in front of it
---@return string|nil text nil: it is something else, or longer than 65,535 bytes
function core_near.msgpack_string_behind(skip)
    return msgpack_string(near_value.data + skip, tonumber(near_value.len) - skip)
end

---The same of a payload with nothing in front of it.
---@return string|nil text
function core_near.msgpack_string()
    return msgpack_string(near_value.data, tonumber(near_value.len))
end

---Whether the payload of what the last view_get found begins with that text.
---@param text string
---@return boolean
function core_near.begins_with(text)
    return near_value.len >= #text and near_value.entry_flags == 0
        and string_of(near_value.data, #text) == text
end

---Whether all these bits of that payload are set. A bit behind its end is not.
---@param places integer[] from 0 on; of each byte the lowest bit comes first
---@return boolean
function core_near.has_bits(places)
    local bytes, bits = ffi.cast("const uint8_t *", near_value.data), tonumber(near_value.len) * 8
    for i = 1, #places do
        local place = places[i]
        local low = band(place, 7)
        if place >= bits or band(bytes[rshift(place, 3)], lshift(1, low)) == 0 then
            return false
        end
    end
    return true
end

---Copies the payload of what the last view_get found.
---@return string
function core_near.bytes()
    return string_of(near_value.data, near_value.len)
end

---What the block at the beginning of that payload says, as core_extra.read.
---@return integer|nil size
function core_near.extra()
    return core_extra.read(near_value.data, tonumber(near_value.len))
end

---Seconds until what the last view_get found ends, as of that call, and what names its version, as
---core_entry.mark.
---@return number seconds
---@return integer mark
function core_near.end_of_last()
    return tonumber(near_value.left_us) / 1e6, near_value.handle.version
end

---The same of handles[index].
---@return number seconds
---@return integer mark
function core_near.end_of(view, handles, index)
    return tonumber(handles[index].deadline_us - C.rc_view_now_us(view)) / 1e6,
        handles[index].version
end

---Room for the handles of `count` entries, 0 to count - 1.
---@param old? ffi.cdata* the first of them are taken from there
---@param old_count? integer
function core_near.new_handles(count, old, old_count)
    local handles = handles_of(count)
    if old then
        ffi.copy(handles, old, old_count * HANDLE_BYTES)
    end
    return handles
end

---Keeps the handle of what the last view_get found.
---@param block? string of an entry that has one; the caller keeps it for as long as the handle is
---checked
---@param is_capped? boolean
function core_near.keep_handle(handles, index, block, is_capped)
    handles[index] = near_value.handle
    if block then
        handles[index].block, handles[index].is_capped = block, is_capped and 1 or 0
    end
end

---The block of that handle is not looked at any more: the caller is about to let go of it.
function core_near.drop_block(handles, index)
    handles[index].block = nil
end

---What checks of this view may go by: an entry with a block is SOUND that has not outlived its life
---and whose tags are valid. For readers who find such an entry fresh however old it is.
---@param tags ffi.cdata*|nil of core_tags.new; nil: entries with tags are never found sound
function core_near.judge_by(view, tags)
    C.rc_view_judge(view, tags)
end

---Whether what handles[index] stands for may still be served.
---@return integer outcome GONE (no), SOUND (yes), TOLD (yes, if the reader finds it good by its
---block)
function core_near.view_check(view, handles, index, max_stale_us)
    local outcome = C.rc_view_check(view, handles, index, max_stale_us)
    return outcome -- not as a tail call, which the interpreter makes slowly into C
end

---Where L0 tells its handles: for new_l0.
function core_near.new_cell(handles)
    local cell = handle_cell()
    cell[0] = handles
    return cell
end

-- Room for so many places, more than there are keys.
local function room_for(count)
    local room = 4
    while room < count do
        room = room * 2
    end
    return bytes_of(tonumber(C.rc_l0_bytes(room))), room
end

---Which slot of L0 a key of one cache has, known by the address of its string: in the order of a
---C table, which a check walks through in one call. The strings must be kept for as long as they
---stand in it.
---@param view ffi.cdata*
---@param cell ffi.cdata* of new_cell
---@return table l0 places (ffi.cdata*, for l0_find), and what the places are in
function core_near.new_l0(view, cell)
    local memory, room = room_for(4)
    local places = new_places()
    C.rc_l0_init(places, view, cell, memory, room)
    return { places = places, memory = memory, room = room, view = view, cell = cell }
end

---The slot of a key, if what stands there is SOUND.
---@param places ffi.cdata*
---@return integer slot 0: GONE, or not known here; below 0: -slot, of what is TOLD
function core_near.l0_find(places, key, max_stale_us)
    local slot = C.rc_l0_find(places, key, max_stale_us)
    return slot -- not as a tail call, as view_check
end

-- So many keys are looked up at once.
core_near.MANY = 128

---Room for up to MANY keys, and for what l0_find_many has found of them.
---@return table batch slots (ffi.cdata*, from 0)
function core_near.new_batch()
    return { names = names_of(core_near.MANY), slots = slots_of(core_near.MANY) }
end

---l0_find of keys[first] to keys[last], at one reading of the clock, for callers that count their
---hits themselves. What is no string is not known here.
---@param places ffi.cdata*
---@param batch table of new_batch
---@param keys any[]
---@param last integer less than first + MANY
---@return integer sound how many slots are above 0
function core_near.l0_find_many(places, batch, keys, first, last, max_stale_us)
    local names = batch.names
    for i = first, last do
        local key = keys[i]
        names[i - first] = type(key) == "string" and key or nil
    end
    local sound = C.rc_l0_find_many(places, names, batch.slots, last - first + 1, max_stale_us)
    return sound
end

---How many hits l0_find has found since this was asked last.
---@return number
function core_near.l0_hits(places)
    local hits = tonumber(places.hits)
    places.hits = 0
    return hits
end

---Makes room for one more key, so that l0_put allocates nothing.
function core_near.l0_grow(l0)
    if l0.places.count >= l0.room * MOST then
        local memory, room = room_for(l0.room * 2)
        C.rc_l0_move(l0.places, memory, room)
        l0.memory, l0.room = memory, room
    end
end

---The key stands for that slot from now on, whose handle was just kept.
function core_near.l0_put(l0, key, slot)
    C.rc_l0_put(l0.places, key, slot)
end

function core_near.l0_drop(l0, key)
    C.rc_l0_drop(l0.places, key)
end

---Whether l0_find has found the key since the last time this was asked.
function core_near.l0_was_used(l0, key)
    return C.rc_l0_was_used(l0.places, key) ~= 0
end

---Whether the handle was used since the last time this was asked.
function core_near.was_used(handles, index)
    local used = handles[index].used ~= 0
    handles[index].used = 0
    return used
end

---Starts reading a key, whose answer is kept near.
---@return integer status
function core_near.view_read(view, slot, key, flags)
    return C.rc_view_read(view, slot.op, key, #key, flags)
end

---Starts asking the tracked connection for a sign of life.
---@return integer status
function core_near.barrier(slot)
    return C.rc_barrier(slot.op)
end

---When the barrier in this slot was set.
---@return ffi.cdata* int64_t
function core_near.barrier_time(slot)
    return slot.result.number
end

local near_report = ffi.new("rc_near_report")

-- Why a key went, as the core says it.
local GONE = {
    [C.RC_GONE_CHANGED] = "invalidated", [C.RC_GONE_WRITTEN] = "written",
    [C.RC_GONE_EVICTED] = "evicted", [C.RC_GONE_EXPIRED] = "expired",
    [C.RC_GONE_REFUSED] = "refused", [C.RC_GONE_RACED] = "raced", [C.RC_GONE_MOVED] = "moved",
    [C.RC_GONE_DOUBTFUL] = "unconfirmed", [C.RC_GONE_AVOIDED] = "avoided",
}
local NO_END = ffi.new("int64_t", 2 ^ 62)

local function seconds_or_nil(us)
    us = tonumber(us)
    return us >= 0 and us / 1e6 or nil
end

---What the near cache knows of a key.
---@param view ffi.cdata*
---@param key string
---@return table report there (a copy, which may be over or not current), age (seconds since it was
---known current; nil: it is not), left (seconds, 0 or less: it is over; FOREVER), bytes; gone (why
---it went last; nil: not known), goneAge (seconds)
function core_near.explain(view, key)
    C.rc_view_explain(view, key, #key, near_report)
    local report = { there = near_report.is_there ~= 0, gone = GONE[near_report.cause],
        goneAge = seconds_or_nil(near_report.gone_us) }
    if report.there then
        local left_us = near_report.left_us
        report.age = seconds_or_nil(near_report.age_us)
        report.left = left_us > NO_END and FOREVER or tonumber(left_us) / 1e6
        report.bytes = tonumber(near_report.len)
    end
    return report
end

local hot_keys_of = ffi.typeof("rc_hot_key[?]")

---The keys of the view that are hit most.
---@param view ffi.cdata*
---@param max integer 1 to 100
---@return table[] keys key, hits
function core_near.hot(view, max)
    local found = hot_keys_of(max)
    local out = {}
    for i = 1, C.rc_view_hot(view, found, max) do
        local one = found[i - 1]
        out[i] = { key = ffi.string(one.key, one.key_len), hits = tonumber(one.hits) }
    end
    return out
end

local near_stats = ffi.new("rc_near_stats")
local NEAR_STATS = { "fills", "dooms", "invalidations", "writes", "evictions", "expirations",
    "ghosts", "refusals", "avoided", "revalidations", "repairs", "damaged", "entries", "bytes",
    "capacity" }

---@return table<string, number>
function core_near.stats(client)
    C.rc_get_near_stats(handle_of(client), near_stats)
    local out = {}
    for _, name in ipairs(NEAR_STATS) do
        out[name] = tonumber(near_stats[name])
    end
    local age_us = tonumber(near_stats.horizon_age_us)
    out.horizon = age_us >= 0 and age_us / 1e6 or nil
    return out
end

return core_near
