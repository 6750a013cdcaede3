-- tags - the tags of entries: their generations before a load or write, and what a hit is good for.
--
-- What:   a tag is a key of its own (namespace.tag_key), and holds two random numbers, its hard and
--         its soft generation. An entry carries those that its tags had before its load or write
--         began (extra.lua). A reader compares them with those of now: near copies say so without
--         a command, and what is not near costs one GET for each tag, all in one round trip. A tag
--         that is gone voids its entries, for the next load gives it new random generations.
-- Memory: one table of generations per cache object with a near cache, made at the first use.
-- Errors: a reader that cannot learn a generation has no verdict; a writer then stores nothing.
-- Not:    how tags are invalidated (invalidate.lua); what follows from a verdict (freshness.lua).

local bit = require("bit")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_near = require("redcache.core.near")
local core_slot = require("redcache.core.slot")
local core_tags = require("redcache.core.tags")
local errors = require("redcache.errors")
local freshness = require("redcache.freshness")
local namespace = require("redcache.namespace")
local options = require("redcache.options")
local tag_index = require("redcache.tag_index")

local give, take = core_slot.give, calls.take
local NEAR_HIT = constants.NEAR_HIT
local UNKNOWN = core_tags.UNKNOWN
local band, EXTRA = bit.band, core_extra.FLAG
local BULK, NULL = string.byte("$"), string.byte("_")

-- Generations that are asked for at once: each takes a slot meanwhile.
local AT_ONCE = 1024

-- The name of a namespace's own tag: no user's has it.
local NAMESPACE = ""

local tags = { NAMESPACE = NAMESPACE }

-- What freshness.lua calls them. Anything else is no block: nobody can tell, so it is void.
local VERDICTS = setmetatable({ [core_tags.VALID] = "valid", [core_tags.SOFT] = "soft" }, {
    __index = function()
        return "void"
    end,
})

---The cache of a cache's tags: what calls.lua and many.lua ask of a cache, for the keys of tags.
---@param cache redcache.Cache
---@return table
function tags.of(cache)
    local own = cache._tags
    if own == nil then
        local client, prefix = cache._client, namespace.tag_key(cache._prefix, "")
        own = calls.under(client, prefix)
        own._settings = cache._settings
        if cache._view and client.handle ~= nil then
            own._view = core_near.new_view(client, prefix, { min = 0, max = 0 })
            own._near = own._view and core_tags.new(client, prefix)
            if own._near and freshness.is_ageless(cache._settings) then
                core_near.judge_by(cache._view, own._near)
            end
        end
        cache._tags = own
    end
    return own
end
local of = tags.of

-- Whether near copies of generations may answer for a call.
local function asks_near(own, opts)
    return own._near ~= nil
        and not (opts and (opts.near == false or opts.fresh or opts.reads == "replica"))
end

-- Reading generations ----------------------------------------------------------------------------

-- Starts reading one of them.
local function begin_read(own, slot, name, opts)
    if own._view and not (opts and (opts.near == false or opts.reads == "replica")) then
        return core_near.view_read(own._view, slot, name,
            opts and opts.fresh and constants.FRESH or 0)
    end
    return core_entry.get(slot, own._prefix, name, constants.WANT_TTL)
end

-- Reads those of names first to last: puts them into `found` (false: there are none), and how long
-- they live into `lives`. An error is that of any of them.
local function read_part(own, names, first, last, opts, found, lives)
    local slots, held, err = {}, {}, nil
    for i = first, last do
        local slot, status
        slot, err = take(own._client, opts, "read", names[i])
        if slot == nil then
            break
        end
        core_slot.hold(slot)
        status = begin_read(own, slot, names[i], opts)
        core_slot.join_held(slot, held, status == 0)
        if status ~= 0 then
            err = calls.fail(slot, status, "read the generation of the tag", names[i])
            break
        end
        slots[i] = slot
    end
    core_slot.start_held(held)
    for i = first, last do
        local slot = slots[i]
        if slot then
            local status = own._wait(slot)
            if status == 0 then
                found[names[i]] = core_tags.generations(slot) or false
                lives[names[i]] = core_entry.life(slot)
                give(slot)
            else
                err = calls.fail(slot, status, "read the generation of the tag", names[i])
            end
        end
    end
    return err
end

local function read(own, names, opts, found, lives)
    local err
    for first = 1, #names, AT_ONCE do
        err = read_part(own, names, first, math.min(first + AT_ONCE - 1, #names), opts, found,
            lives) or err
    end
    return err
end

-- Before a load or write -------------------------------------------------------------------------

-- Takes what is near. The names of the others.
local function look_near(cache, own, names, found, lives)
    local rest, view = {}, own._view
    for i = 1, #names do
        local name, outcome, look = names[i], nil, nil
        if view ~= nil then
            outcome, look = core_near.view_get(view, name, cache._max_stale)
        end
        if outcome == NEAR_HIT and core_near.is_raw(core_tags.GENERATIONS) then
            found[name] = core_near.part(0, core_tags.GENERATIONS)
            lives[name] = core_near.end_of_last()
        end
        if found[name] == nil or core_near.looks.last ~= look then
            found[name], lives[name] = nil, nil
            rest[#rest + 1] = name
        end
    end
    return rest
end

-- Reads the answers to SET NX GET: nothing stood there, and what was drawn does now, or what does.
local function read_made(slot, names, drawn, found)
    local nodes, count = core_command.nodes(slot)
    for i = 1, #names do
        local name, node = names[i], i <= count and nodes[i - 1] or nil
        local made = nil
        if node and core_command.is_error(node) then
            return core_command.node_failure(node, "begin the tag", name)
        elseif node and node.type == NULL then
            made = drawn[i]
        elseif node and node.type == BULK and core_command.node_entry(slot, i - 1) == 0 then
            made = core_tags.generations(slot)
        end
        if made == nil then
            return errors.new("redis", "begin the tag", name,
                "something else stands under its key")
        end
        found[name] = made
    end
end

local function make_once(cache, own, names, opts, found)
    local ms = core_entry.life_ms(cache._settings.tagTtl, 0)
    local slot, err = take(own._client, opts, "begin the tag", names[1])
    if slot == nil then
        return err
    end
    local drawn, status = {}, core_command.begin(slot, 0)
    for i = 1, #names do
        drawn[i] = core_tags.draw()
        if drawn[i] == nil then
            give(slot)
            return errors.new("redis", "begin the tag", names[i], "no random bytes can be had")
        elseif status == 0 then
            status = core_command.set_new(slot, own._prefix .. names[i], drawn[i], ms)
        end
    end
    status = calls.send(own, slot, status)
    if status ~= 0 then
        return calls.fail(slot, status, "begin the tag", names[1])
    end
    err = read_made(slot, names, drawn, found)
    give(slot)
    return err
end

-- Gives new generations to tags that have none. Where a connection broke over them others are
-- drawn: the same are never sent twice, for other callers may have stored entries with them by
-- then, and they may have been invalidated.
local function make(cache, own, names, opts, found)
    local err = make_once(cache, own, names, opts, found)
    if err and err.code == "outcomeUnknown" then
        err = make_once(cache, own, names, opts, found)
    end
    return err
end

-- Lets tags live on that have less than half of their life left. Where that fails, they may end
-- sooner: what hangs on them is a miss then.
local function renew(cache, own, names, lives, opts)
    local ttl, due = cache._settings.tagTtl, {}
    for i = 1, #names do
        local left = lives[names[i]]
        if type(left) == "number" and left < ttl / 2 then
            due[#due + 1] = names[i]
        end
    end
    local slot = #due > 0 and take(own._client, opts, "renew the tag", due[1])
    if not slot then
        return
    end
    local status = core_command.begin(slot, constants.RETRY)
    for i = 1, #due do
        status = status == 0 and core_command.command(slot, 3) or status
        status = status == 0 and core_command.argument(slot, "PEXPIRE") or status
        status = status == 0 and core_command.argument_written(slot, own._prefix .. due[i])
            or status
        status = status == 0 and core_command.argument(slot,
            ("%.0f"):format(core_entry.life_ms(ttl, 0))) or status
    end
    calls.send(own, slot, status)
    give(slot)
end

-- As tags stand in a block.
local function write(names, found)
    local parts = {}
    for i = 1, #names do
        parts[i] = found[names[i]] .. string.char(#names[i]) .. names[i]
    end
    return table.concat(parts)
end

---The generations of tags, to be stored with what is loaded or made from now on.
---@param cache redcache.Cache
---@param names string[] at most 16
---@param opts table|nil of the call: timeout, cancelTag, near
---@param keys string|string[] what is to be stored with them
---@return table|nil tagged bytes, count: for entry.form
---@return redcache.Error|nil err
function tags.begin(cache, names, opts, keys)
    local own, found, lives, rest, err = of(cache), {}, {}, names, nil
    for i = 1, #names do
        if #own._prefix + #names[i] > own._client.max_key then
            return nil, errors.new("tooLarge", "begin the tag", names[i],
                "its key is over maxKey")
        end
    end
    if not (opts and opts.near == false) then
        rest = look_near(cache, own, names, found, lives)
    end
    if #rest > 0 then
        err = read(own, rest, opts, found, lives)
    end
    local missing = {}
    for i = 1, #rest do
        if not found[rest[i]] then
            missing[#missing + 1] = rest[i]
        end
    end
    if not err and #missing > 0 then
        err = make(cache, own, missing, opts, found)
    end
    if err then
        return nil, err
    end
    renew(cache, own, names, lives, opts)
    -- Behind the reading: an invalidation between the two that clears the index voids, too.
    err = cache._settings.tagIndex and tag_index.add(cache, names, keys, opts)
    if err then
        return nil, err
    end
    return { names = names, bytes = write(names, found), count = #names }
end

---Tags that a loader adds while it runs.
---@param tagged table|nil of begin()
---@param names string[] new ones
---@param keys string|string[] as begin
---@return table|nil tagged both together
---@return redcache.Error|nil err
function tags.add(cache, tagged, names, opts, keys)
    local more, err = tags.begin(cache, names, opts, keys)
    if more == nil or tagged == nil then
        return more, err
    end
    local all = {}
    for _, list in ipairs({ tagged.names, names }) do
        for i = 1, #list do
            all[#all + 1] = list[i]
        end
    end
    return { names = all, bytes = tagged.bytes .. more.bytes, count = #all }
end

-- On a hit ---------------------------------------------------------------------------------------

---What near copies say of the payload that the last view_get has found.
---@param max_stale_us integer
---@return string|nil verdict "valid", "soft" or "void"; nil: Redis knows
function tags.check_last(cache, max_stale_us)
    local near = of(cache)._near
    local verdict = near and core_near.check_tags(near, max_stale_us) or UNKNOWN
    if verdict ~= UNKNOWN then
        return VERDICTS[verdict]
    end
end

---The same of a block.
---@param block string
---@param max_stale_us integer
---@return string|nil verdict
function tags.check(cache, block, max_stale_us)
    local near = of(cache)._near
    local verdict = near and core_tags.check(near, block, max_stale_us) or UNKNOWN
    if verdict ~= UNKNOWN then
        return VERDICTS[verdict]
    end
end

local function compare(list, found)
    local verdict = "valid"
    for i = 1, #list do
        local tag = list[i]
        local now = found[tag.name]
        if not now or string.sub(now, 1, 8) ~= string.sub(tag.generations, 1, 8) then
            return "void"
        elseif now ~= tag.generations then
            verdict = "soft"
        end
    end
    return verdict
end

-- Whether all names of the list were found out.
local function is_told(list, found)
    for i = 1, #list do
        if found[list[i].name] == nil then
            return false
        end
    end
    return true
end

---What entries are good for, as their tags say. Generations that are not near are read, in one
---round trip for all.
---@param blocks table<string, string> by key: the beginnings of payloads
---@param opts table|nil of the call: near, fresh, maxStale, reads, timeout, cancelTag
---@return table<string, string> verdicts by key: "valid", "soft", "void"; none: see err
---@return redcache.Error|nil err
function tags.judge_many(cache, blocks, opts)
    local own, verdicts, unknown, names, wanted = of(cache), {}, {}, {}, {}
    local max_stale = calls.max_stale(cache, opts)
    local by_near = asks_near(own, opts)
    for key, block in pairs(blocks) do
        local verdict = by_near and core_tags.check(own._near, block, max_stale) or UNKNOWN
        local list = verdict == UNKNOWN and core_extra.tags(block)
        if not list then
            verdicts[key] = VERDICTS[verdict]
        else
            unknown[key] = list
            for i = 1, #list do
                local name = list[i].name
                if not wanted[name] then
                    wanted[name], names[#names + 1] = true, name
                end
            end
        end
    end
    local found, err = {}, nil
    if #names > 0 then
        err = read(own, names, opts, found, {})
    end
    for key, list in pairs(unknown) do
        verdicts[key] = is_told(list, found) and compare(list, found) or nil
    end
    return verdicts, err
end

---Whether an entry has tags.
---@param flags integer of the entry
---@param bytes string payload
---@return boolean
function tags.has(flags, bytes)
    if band(flags, EXTRA) == 0 then
        return false
    end
    local size, _, _, _, count = core_extra.read(bytes, #bytes)
    return size ~= nil and count > 0
end

---What an entry is good for, as its tags say.
---@param flags integer of the entry
---@param bytes string payload
---@param opts table|nil as judge_many
---@return string|nil verdict "valid" (also without tags), "stale" (softly invalidated, within its
---grace window) or "void"; nil: see err
---@return redcache.Error|nil err
function tags.judge(cache, flags, bytes, opts)
    if not tags.has(flags, bytes) then
        return "valid"
    end
    local verdicts, err = tags.judge_many(cache, { bytes }, opts)
    return tags.outcome(verdicts[1], bytes), err
end

---judge of what was read into a slot.
---@param slot redcache.Slot
---@param opts table|nil as judge_many
---@return string|nil verdict
---@return redcache.Error|nil err
function tags.judge_slot(cache, slot, opts)
    local _, _, flags, bytes = core_entry.read(slot)
    return tags.judge(cache, flags, bytes, opts)
end

---What a verdict means to a reader without a loader.
---@param verdict string|nil of judge_many
---@param bytes string payload
---@return string|nil outcome "valid", "stale", "void"
function tags.outcome(verdict, bytes)
    if verdict ~= "soft" then
        return verdict
    end
    local _, _, grace_ms = core_extra.read(bytes, #bytes)
    return grace_ms > 0 and "stale" or "void"
end

-- The names --------------------------------------------------------------------------------------

---The tags of what a call stores: the one of its namespace, with `generation`, and its own.
---@param settings table of the cache
---@param opts table|nil of the call
---@return string[]|nil names nil: none
function tags.names(settings, opts)
    local given = opts and opts.tags
    if not settings.generation then
        return given and #given > 0 and given or nil
    end
    local names = { NAMESPACE }
    for i = 1, given and #given or 0 do
        names[i + 1] = given[i]
    end
    return names
end

---Voids all that was stored in a namespace with `generation`.
---@param cache redcache.Cache
---@return table own cache of its tags
---@return string name of its own one
function tags.namespace(cache)
    return of(cache), NAMESPACE
end

---What is wrong with a list of tags, as an argument error, or nil.
---@param list any
---@param method string
---@return string|nil message for error()
function tags.fault(list, method)
    if type(list) ~= "table" then
        return errors.argument("tags", method, "list of names", list)
    end
    for i = 1, #list do
        if not options.is_tag(list[i]) then
            return ("bad argument 'tags' to %s: list of names expected, each a %s, got %s at %d")
                :format(method, options.TAG, type(list[i]), i)
        end
    end
    if list[1] == nil and next(list) ~= nil then
        return "bad argument 'tags' to " .. method .. ": list of names expected, got a map"
    end
end

---Adds what a loader names to what is there already: the new ones | nil, message.
---@param tagged table|nil of begin()
---@param names any[]
---@return string[]|nil list
---@return string|nil message for error()
function tags.new_names(tagged, names)
    local list, seen = {}, {}
    for _, name in ipairs(tagged and tagged.names or list) do
        seen[name] = true
    end
    for i = 1, #names do
        local name = names[i]
        if not options.is_tag(name) then
            return nil, "bad argument 'name' to tag: " .. options.TAG .. " expected"
        elseif not seen[name] then
            seen[name], list[#list + 1] = true, name
        end
    end
    local count = #list + (tagged and tagged.count or 0) - (seen[NAMESPACE] and 1 or 0)
    if count > options.MAX_TAGS then
        return nil, "bad argument 'name' to tag: an entry has at most " .. options.MAX_TAGS
            .. " tags"
    end
    return list
end

return tags
