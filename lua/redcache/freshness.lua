-- freshness - what a value that was found is good for: the one decision of every read.
--
-- What:   two questions, each with a few answers, and a table that joins them.
--
--         How old is it?  young  none of the following
--                         due    refreshAfter has passed since it was stored, or XFetch has drawn
--                                it: -load time * xfetchBeta * ln(random) >= what is left
--                         over   past its ttl, within its grace window
--         Do its tags still stand?  valid, soft (one was softly invalidated), void
--
--                  valid   soft     void
--         young    fresh   stale*   void
--         due      early   stale*   void
--         over     stale   stale    void        * void where the entry has no grace window
--
--         fresh    is served
--         early    is served, and one caller of all processes loads it again in the background
--         stale    as early, and its source is "stale"; without `background` the caller that gets
--                  the lease loads at once, and a reader without a loader (get) takes it
--         void     is a miss
--
--         docs/api/freshness.md tells users so; its table "Who wins" is run by a spec.
-- Not:    who loads then, and who waits for it (remember.lua, refresh.lua).
-- Source: XFetch: Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
--         Prevention, VLDB 2015.

local dice = require("redcache.core.random").dice

local log, huge = math.log, math.huge

local freshness = {}

local VERDICTS = {
    young = { valid = "fresh", soft = "stale", void = "void" },
    due = { valid = "early", soft = "stale", void = "void" },
    over = { valid = "stale", soft = "stale", void = "void" },
}

-- young, due or over.
local function age_of(settings, left, life, load_time, random)
    if left == nil then
        return "young" -- nothing is known of its age but that it has not ended
    elseif left <= 0 then
        return "over"
    end
    local after, beta = settings.refreshAfter, settings.xfetchBeta
    if after ~= nil and life > 0 and left < huge and life - left >= after then
        return "due"
    elseif beta > 0 and load_time > 0 and -load_time * beta * log(random) >= left then
        return "due"
    end
    return "young"
end

---Whether judge() says "fresh" of whatever has valid tags and is not past its ttl, at any age: the
---core finds that out for the readers of near copies, and judge() is asked about the others.
---@param settings table
---@return boolean
function freshness.is_ageless(settings)
    return settings.refreshAfter == nil and settings.xfetchBeta == 0
end

---@param settings table
---@return number random for judge(): drawn where it matters
function freshness.draw(settings)
    return settings.xfetchBeta > 0 and dice() or 1
end

---@param settings table refreshAfter (seconds, nil: never), xfetchBeta (0: never)
---@param left number|nil seconds until its ttl is over (math.huge: never; nil: not known)
---@param life number seconds of its ttl when it was stored; 0: not known, or without an end
---@param grace number seconds of its grace window
---@param load_time number seconds that it took to load; 0: not known
---@param tags string "valid" (also of an entry without tags), "soft" or "void"
---@param random number drawn from above 0 to 1; any where xfetchBeta is 0
---@return string verdict "fresh", "early", "stale" or "void"
function freshness.judge(settings, left, life, grace, load_time, tags, random)
    if tags == "soft" and grace <= 0 then
        return "void"
    end
    return VERDICTS[age_of(settings, left, life, load_time, random)][tags]
end

---Whether an entry of these settings tells its readers what judge() goes by; one with a grace
---window and a ttl that chance has shortened tells it, for a loader asks how old the value is.
---@param settings table
---@param grace number seconds
---@return boolean
function freshness.is_told(settings, grace)
    return settings.refreshAfter ~= nil or settings.xfetchBeta > 0
        or (grace > 0 and (settings.background ~= false or settings.jitter > 0))
end

---The ttl that is stored: shortened by up to `jitter` of it.
---@param settings table
---@param ttl number seconds
---@param random number from 0 to 1
---@return number seconds
function freshness.jitter(settings, ttl, random)
    return ttl * (1 - settings.jitter * random)
end

return freshness
