-- unsent - invalidations that could not be sent: kept, and tried again.
--
-- What:   send() invalidates names in one round trip to each server. Names of a write that failed
--         stay here, each once, and go again, with growing pauses, before the next call of this
--         client that asks Redis: what is started then travels with that call, and nobody waits
--         for it. Its end is seen at a later call.
-- Memory: one queue per client and Lua state, of at most MAX names; each is kept for a day.
-- Not:    no timer of its own, but in nginx the keeper looks from time to time; what a process
--         keeps is gone with it. A retry must not wait: it begins while somebody takes a slot
--         (core_slot.take), where no other caller may run.

local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local errors = require("redcache.errors")
local invalidate = require("redcache.invalidate")
local many = require("redcache.many")
local soft = require("redcache.soft")

local NOT_WAITED = constants.NOT_WAITED
local give = core_slot.give

local unsent = {}

---Names that a queue holds. With them it takes some 3 MB.
unsent.MAX = 10000
-- Seconds before a name is tried again: twice as many each time, up to the longest.
local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5
-- Seconds that a name is kept: hardly a value lives for longer without being written again.
local KEPT = 86400
-- Behind the time of its command a write is given up that nobody has told the end of: its process
-- was forked, or the coroutine that waited has vanished.
local LATE = 1

local ACTION = "invalidate"

---@class redcache.Unsent
---@field bare table what stands for a cache, whose keys are names in Redis
---@field waiting table<string, table> by name: {kind, tries, due, since}
---@field count integer of them
---@field part table|nil the retry under way
---@field due number when the next one may begin
---@field sending table<table, number> what callers wait for, and until when
---@field counters table<string, integer>

-- Parts: names that are invalidated by one write --------------------------------------------------

-- How each kind is written into a slot, and started.
local START = {
    delete = function(bare, slot, names)
        return many.unlink(slot, bare._prefix, names, #names)
    end,
    soft = function(bare, slot, names)
        local status = soft.write(bare, slot, names, 1, #names)
        return status == 0 and core_command.submit(slot) or status
    end,
    -- Each try draws generations of its own: the same are never sent twice.
    softTag = function(bare, slot, names)
        local status = invalidate.write_soft(bare, slot, names, 1, #names)
        return status == 0 and core_command.submit(slot) or status
    end,
}

---What does all that two kinds of invalidation do.
---@param kind string|nil "delete", "soft" (of an entry) or "softTag"; nil: there was none
---@param other string
---@return string kind
function unsent.both(kind, other)
    return (kind == nil or kind == other) and other or "delete"
end
local both = unsent.both

-- Starts a part: its slot runs. An error where it does not.
local function start(queue, part, own)
    local slot, err = calls.take(queue.bare._client, own, ACTION, part.names[1])
    if slot == nil then
        return err
    end
    local status = START[part.kind](queue.bare, slot, part.names)
    if status ~= 0 then
        return calls.fail(slot, status, ACTION, part.names[1])
    end
    part.slot = slot
end

-- The end of a part that has run: gives its slot back. An error where it has failed.
local function finish(part, status)
    local slot, name = part.slot, part.names[1]
    part.slot = nil
    if status ~= 0 and status ~= NOT_WAITED then
        return calls.fail(slot, status, ACTION, name)
    end
    local err
    if status == 0 and part.kind ~= "delete" then
        local nodes, count = core_command.nodes(slot)
        for i = 0, count - 1 do
            if core_command.is_error(nodes[i]) then
                err = err or core_command.node_failure(nodes[i], ACTION, name)
            end
        end
    end
    give(slot)
    return err
end

-- The queue ---------------------------------------------------------------------------------------

local function pause_after(tries)
    return math.min(FIRST_PAUSE * 2 ^ tries, LONGEST_PAUSE)
end

-- Keeps a name. False where there is no room.
local function keep(queue, name, kind, tries, since, now)
    local waiting = queue.waiting
    local entry = waiting[name]
    if entry then
        entry.kind = both(entry.kind, kind)
    elseif queue.count >= unsent.MAX or now - since > KEPT then
        queue.counters.afterCommitDropped = queue.counters.afterCommitDropped + 1
        return false
    else
        entry = { kind = kind, tries = tries, since = since, due = now + pause_after(tries) }
        waiting[name], queue.count = entry, queue.count + 1
        queue.due = math.min(queue.due, entry.due)
    end
    return true
end

local function forget(queue, name)
    queue.waiting[name], queue.count = nil, queue.count - 1
end

-- The names of the next retry, out of the queue: those that are due, of one kind; in a cluster of
-- one hash slot, which are done or not done together.
local function pick(queue, now)
    local is_cluster = core_client.health(queue.bare._client).mode == "cluster"
    local names, entries, kind, hash_slot, due = {}, {}, nil, nil, math.huge
    for name, entry in pairs(queue.waiting) do
        local is_chosen = entry.due <= now and #names < many.COMMANDS
            and (kind == nil or kind == entry.kind)
        if is_chosen and is_cluster then
            entry.hash_slot = entry.hash_slot or core_command.key_slot(name)
            hash_slot = hash_slot or entry.hash_slot
            is_chosen = hash_slot == entry.hash_slot
        end
        if is_chosen then
            names[#names + 1], entries[name], kind = name, entry, entry.kind
        else
            due = math.min(due, entry.due)
        end
    end
    for i = 1, #names do
        forget(queue, names[i])
    end
    queue.due = due
    return names[1] and { names = names, entries = entries, kind = kind }
end

-- What a retry has come to.
local function settle(queue, part, err)
    local counters, now = queue.counters, core_clock.now(queue.bare._client)
    if not err then
        counters.afterCommitRetried = counters.afterCommitRetried + #part.names
        return
    end
    for i = 1, #part.names do
        local entry = part.entries[part.names[i]]
        keep(queue, part.names[i], part.kind, entry.tries + 1, entry.since, now)
    end
end

-- Those whose caller is gone.
local function collect_orphans(queue, now)
    for parts, latest in pairs(queue.sending) do
        if now > latest then
            queue.sending[parts] = nil
            for i = 1, #parts do
                for _, name in ipairs(parts[i].names) do
                    keep(queue, name, parts[i].kind, 0, now, now)
                end
            end
        end
    end
end

-- One step, without waiting: looks at the retry under way, and begins the next.
local function step(queue)
    local client, part = queue.bare._client, queue.part
    local now = core_clock.now(client)
    if part then
        if core_slot.is_done(part.slot) then
            queue.part = nil
            settle(queue, part, finish(part, part.slot.result.status))
        elseif now > part.latest then
            queue.part = nil
            core_slot.abandon(part.slot)
            settle(queue, part, true)
        else
            return
        end
    end
    if now >= queue.due then
        part = pick(queue, now)
        if part then
            local err = start(queue, part)
            if err then
                return settle(queue, part, err)
            end
            part.latest = now + client.command_timeout + LATE
            queue.part = part
        end
    end
end

-- What stands in the place of the client's enter() while there is something to try again.
local function hook(queue, client)
    if queue.hook then
        return
    end
    local enter = client.enter
    queue.hook = function(of)
        if enter and not enter(of) then
            return false
        elseif queue.is_stepping then
            return true
        end
        queue.is_stepping = true
        -- The call that came by is somebody else's: nothing that fails here is to fail it.
        if not pcall(step, queue) then
            queue.due = math.max(queue.due, core_clock.now(of) + LONGEST_PAUSE)
        end
        queue.is_stepping = false
        if queue.count == 0 and queue.part == nil then
            of.enter, queue.hook = enter, nil
        end
        return true
    end
    client.enter = queue.hook
    local tended = client.port and client.port.tended
    if tended then
        tended[client] = true
    end
end

local function new(client)
    return {
        bare = calls.under(client, ""),
        waiting = {}, count = 0, due = math.huge, sending = {},
        counters = { afterCommitFailed = 0, afterCommitRetried = 0, afterCommitDropped = 0 },
    }
end

-- The calls ---------------------------------------------------------------------------------------

local function parts_of(names)
    local parts, last = {}, {}
    for name, kind in pairs(names) do
        local part = last[kind]
        if part == nil or #part.names == many.COMMANDS then
            part = { names = {}, kind = kind }
            last[kind], parts[#parts + 1] = part, part
        end
        part.names[#part.names + 1] = name
    end
    return parts
end

-- Runs all parts at once. Those that failed, and an error of them.
local function run(queue, parts, own)
    local failed, first = {}, nil
    for i = 1, #parts do
        parts[i].err = start(queue, parts[i], own)
    end
    for i = 1, #parts do
        local part = parts[i]
        local err = part.err or finish(part, queue.bare._wait(part.slot))
        if err then
            failed[#failed + 1], first = part, first or err
        end
    end
    return failed, first
end

-- Names that were just invalidated need no retry.
local function satisfy(queue, parts)
    for i = 1, queue.count > 0 and #parts or 0 do
        for _, name in ipairs(parts[i].names) do
            local entry = queue.waiting[name]
            if entry and both(entry.kind, parts[i].kind) == parts[i].kind then
                forget(queue, name)
                queue.counters.afterCommitRetried = queue.counters.afterCommitRetried + 1
            end
        end
    end
end

-- Keeps the names of parts that have failed. All of them, and how many there was no room for.
local function keep_all(queue, parts)
    local list, dropped, client = {}, 0, queue.bare._client
    local is_open, now = client.handle ~= nil, core_clock.now(client)
    for i = 1, #parts do
        for _, name in ipairs(parts[i].names) do
            list[#list + 1] = name
            if not is_open or not keep(queue, name, parts[i].kind, 0, now, now) then
                dropped = dropped + 1
            end
        end
    end
    queue.counters.afterCommitFailed = queue.counters.afterCommitFailed + #list
    return list, dropped
end

---Invalidates names in Redis: UNLINK, or a soft script, in one round trip to each server (one per
---8,192 names). What fails is kept here, to be tried again.
---@param client redcache.Client
---@param names table<string, string> kinds by name, as those of both()
---@param own table|nil options: timeout, cancelTag
---@return redcache.Error|nil err why some of them could not be
---@return string[]|nil failed those, with err
---@return integer|nil dropped how many of those are not kept: there is no room, or the client is
---closed
function unsent.send(client, names, own)
    local queue = client.unsent or new(client)
    client.unsent = queue
    local parts = parts_of(names)
    collect_orphans(queue, core_clock.now(client))
    queue.sending[parts] = core_clock.deadline(client, own and own.timeout) + LATE
    local failed, err = run(queue, parts, own)
    queue.sending[parts] = nil
    local list, dropped
    if err then
        list, dropped = keep_all(queue, failed)
    else
        satisfy(queue, parts)
    end
    if queue.count > 0 and client.handle ~= nil then
        hook(queue, client)
    end
    return err, list, dropped
end

---From time to time, in nginx: what is due begins although nobody calls.
---@param client redcache.Client
---@return boolean again something is kept
---@return boolean has_begun a retry is under way
function unsent.tend(client)
    local queue = client.unsent
    if queue == nil or queue.hook == nil or client.handle == nil then
        return false, false
    end
    queue.hook(client)
    return queue.hook ~= nil, queue.part ~= nil
end

---One last try of all that is kept, before the client is closed.
---@param client redcache.Client
---@param timeout number seconds
function unsent.close(client, timeout)
    local queue = client.unsent
    if queue == nil or client.handle == nil or queue.count == 0 or timeout <= 0
        or not client.scheduler.can_wait() then
        return
    end
    local names = {}
    for name, entry in pairs(queue.waiting) do
        names[name] = entry.kind
    end
    run(queue, parts_of(names), { timeout = math.max(math.min(timeout, 60), 0.001) })
end

---The counters of a client, for stats().
---@param client redcache.Client
---@param stats table takes them
function unsent.count(client, stats)
    local queue = client.unsent
    local counters = queue and queue.counters
    stats.afterCommitFailed = counters and counters.afterCommitFailed or 0
    stats.afterCommitRetried = counters and counters.afterCommitRetried or 0
    stats.afterCommitDropped = counters and counters.afterCommitDropped or 0
    stats.afterCommitQueued = queue and queue.count + (queue.part and #queue.part.names or 0) or 0
end

---The error of names that are too long for a key, or nil.
---@param client redcache.Client
---@param name string
---@param key string as the caller gave it
---@return redcache.Error|nil
function unsent.fault(client, name, key)
    if #name > client.max_key then
        return errors.new("tooLarge", ACTION, key, "the key is over maxKey")
    end
end

return unsent
