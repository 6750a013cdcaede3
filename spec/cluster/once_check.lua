--- Was a key loaded once, and a lock held by one? The histories of all processes, and what happened
-- to the cluster meanwhile, held against each other.
--
-- What:   loads, locks.
-- Input:  events = {{kind =, from =, to =, lost = nil or function(slot)}, ...}: what happened when;
--         lost tells of which slots what was acknowledged may be lost. Loads and holds as
--         once_load.lua tells them.
-- Not:    what a pause of a process hides: a hold is known to be valid at the instants at which its
--         holder asked, and between them.

local cluster = require("spec.support.cluster")

local check = {}

local QUIET = "quiet"
local TOLD = 10
-- With so many holds before it each hold is compared: those of that many processes at a time.
local REACH = 64
local NEARBY = 5 -- seconds from an event to what it may be the cause of, in a story

-- The event at that instant, or the last one that ended up to `behind` before it.
local function event_at(events, instant, behind)
    local found
    for _, event in ipairs(events) do
        if event.from <= instant and instant <= event.to + (behind or 0) then found = event end
    end
    return found
end

-- Whether what was acknowledged in that slot may have been lost in an event that lasted until
-- `behind` before that instant, or later.
local function is_excused(events, instant, behind, slot)
    for _, event in ipairs(events) do
        if event.from <= instant and instant <= event.to + behind and event.lost
            and event.lost(slot) then
            return true
        end
    end
    return false
end

-- An event then, or up to RECOVERY before, in which masters changed. A client asks for
-- the map 0.75 s after its last question at the latest and waits for 0.2 s between two tries of a
-- call; an event's end is told 0.3 s late.
local RECOVERY = 0.7

local function change_at(events, instant, is_move)
    for _, event in ipairs(events) do
        local is_then = event.from <= instant and instant <= event.to + RECOVERY
        if is_then and not is_move(event.kind) then return event end
    end
end

local function count(counts, kind) counts[kind] = (counts[kind] or 0) + 1 end

local function group(list)
    local groups = {}
    for _, item in ipairs(list) do
        groups[item[1]] = groups[item[1]] or {}
        table.insert(groups[item[1]], item)
    end
    return groups
end

-- The last event that ended before that instant, and how long before, as a text.
local function since_event(events, instant)
    local last
    for _, event in ipairs(events) do
        if event.to <= instant then last = event end
    end
    return last and ("%.3f s after %s"):format(instant - last.to, last.kind) or "before any event"
end

-- The hold beside the events around it, for who looks for the cause.
local function story_of(events, hold)
    local slot, ends = cluster.slot(hold[1]), math.max(hold[4], hold[5])
    local parts = { ("slot %d, fence %.0f, held for %.3f s, known %.3f s later, %s"):format(slot,
        hold[2], hold[4] - hold[3], math.max(0, hold[5] - hold[4]), hold[6]) }
    for _, event in ipairs(events) do
        if event.to > hold[3] - NEARBY and event.from < ends + NEARBY then
            parts[#parts + 1] = ("%s%s from %.3f to %.3f"):format(event.kind,
                event.lost and event.lost(slot) and " (lost it)" or "", event.from - hold[3],
                event.to - hold[3])
        end
    end
    return table.concat(parts, "; ")
end

local function tell(sum, text, ...)
    if #sum.wrong < TOLD then sum.wrong[#sum.wrong + 1] = text:format(...) end
    sum.violations = sum.violations + 1
end

--- Returns {loads =, keys =, again = {kind = count}, degraded = {kind = count}, violations =,
-- wrong = {text, ...}}: by event, what was loaded once more under a lease, and what was loaded
-- without Redis. Either is wrong where no master changes; is_move(kind) tells where none does.
function check.loads(events, loads, is_move)
    local sum = { loads = #loads, keys = 0, again = {}, degraded = {}, violations = 0, wrong = {} }
    for key, list in pairs(group(loads)) do
        sum.keys = sum.keys + 1
        table.sort(list, function(a, b) return a[2] < b[2] end)
        local is_loaded = false
        for _, load in ipairs(list) do
            local change = change_at(events, load[2], is_move)
            local event = change or event_at(events, load[2])
            local kind, is_degraded = event and event.kind or QUIET, load[4] == "degraded"
            if is_degraded then
                count(sum.degraded, kind)
            elseif is_loaded then
                count(sum.again, kind)
            end
            if (is_degraded or is_loaded) and not change then
                tell(sum, "%s was loaded %s, during %s, %s", key,
                    is_degraded and "without Redis" or "again", kind,
                    since_event(events, load[2]))
            end
            is_loaded = is_loaded or not is_degraded
        end
    end
    return sum
end

-- Two hold it at the same time. The cluster may have lost the older one's; then that holder has to
-- learn it within ttl.
local function judge_overlap(sum, events, older, newer, ttl)
    local began, ended = math.max(older[3], newer[3]), math.min(older[4], newer[4])
    local event = event_at(events, began, ttl)
    local kind = event and event.kind or QUIET
    count(sum.overlaps, kind)
    sum.longest[kind] = math.max(sum.longest[kind] or 0, ended - began)
    if not is_excused(events, began, ttl, cluster.slot(older[1])) then
        tell(sum, "%s was held twice for %.3f s, during %s (%s)", older[1], ended - began, kind,
            story_of(events, older))
    elseif ended - began > ttl then
        tell(sum, "%s was lost, and its holder did not know for %.3f s (%s)", older[1],
            ended - began, story_of(events, older))
    elseif older[5] == 0 then
        sum.unaware = sum.unaware + 1
    end
end

-- Who learns the loss when the handle would not have called itself valid any more may have lost it
-- to the ttl: where a master is away, whatever its slots, the whole cluster refuses renewals and
-- releases.
local function judge_loss(sum, events, hold, ttl)
    local event = event_at(events, hold[5], ttl)
    local kind = event and event.kind or QUIET
    local may_have_ended = event and event.lost and hold[5] - hold[4] >= hold[7]
    count(sum.losses, kind)
    if not may_have_ended and not is_excused(events, hold[5], ttl, cluster.slot(hold[1])) then
        tell(sum, "%s was lost, during %s (%s)", hold[1], kind, story_of(events, hold))
    end
end

-- Both holds are of one lock, and `first` began first. One that never called itself valid has from
-- and to 0; one that did once, from behind to.
local function judge_pair(sum, events, first, second, ttl)
    if first[4] > second[3] and second[4] > second[3] then
        if first[2] < second[2] then
            judge_overlap(sum, events, first, second, ttl)
        else
            judge_overlap(sum, events, second, first, ttl)
        end
    elseif first[3] ~= 0 and first[4] < second[3] and first[2] >= second[2]
        and not is_excused(events, second[3], ttl, cluster.slot(first[1])) then
        tell(sum, "%s: fence %.0f behind %.0f (%s)", first[1], second[2], first[2],
            story_of(events, second))
    end
end

--- Returns {grants =, overlaps = {kind = count}, longest = {kind = seconds}, losses = {kind =
-- count}, unaware =, ends = {how = count}, violations =, wrong = {text, ...}}: by event, when two
-- held a lock, for how long at most, and what was lost as its holder knows; unaware: how many held
-- with another, and gave back before the loss could be known, as at a master that is cut off.
-- Wrong is a lock that two hold or that is lost where the cluster lost nothing of its slot; one
-- that is held beside another for longer than ttl; and a fence lower than that of an earlier hold.
function check.locks(events, holds, ttl)
    local sum = { grants = #holds, overlaps = {}, longest = {}, losses = {}, unaware = 0,
        ends = {}, violations = 0, wrong = {} }
    for _, list in pairs(group(holds)) do
        table.sort(list, function(a, b) return a[3] < b[3] end)
        for i, hold in ipairs(list) do
            count(sum.ends, hold[6])
            if hold[5] ~= 0 then judge_loss(sum, events, hold, ttl) end
            for before = math.max(1, i - REACH), i - 1 do
                judge_pair(sum, events, list[before], hold, ttl)
            end
        end
    end
    return sum
end

return check
