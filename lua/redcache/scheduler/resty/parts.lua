-- parts - when requests go at once, and when they wait for those of the callers that run next.
--
-- What:   answers come together, and wake their callers together: a wave, whose next requests go in
--         one write. A part of it that goes earlier gives the server something to do while the
--         other callers run; it costs a write, and a wake-up when its answers come. That pays where
--         the server has a processor meanwhile. It has if it answers a part by itself; answers that
--         come with those of the next part say it had none, and that waves go whole for a while.
-- Memory: fields of the port, from begin() on; each turn sets unsent and is_undecided again.
-- Not:    sends nothing (host.lua).

local parts = {}

-- Fewer requests are not worth a write of their own: callers need some 10 us for so many, a write
-- and what its answers cost take as long.
local FEWEST = 8
-- As with the spinning of a blocking caller (core/driver/inline.c): a part that did not pay costs
-- as much as some that did; without credit one wave in so many tries again.
local CREDITS_MAX, CREDITS_FOR_MISS, PROBE_EVERY = 64, 4, 64

---A port begins in this process.
function parts.begin(port)
    port.unsent = 0 -- what was started since the last turn, about
    port.is_undecided = true -- whether a part goes before the next turn
    port.part_credits, port.part_probes = 0, 0
    port.parted = nil -- a part has gone alone; so many waited then
end

local function may_part(port)
    if not port.is_undecided then
        return false
    end
    port.is_undecided = false
    if port.part_credits <= 0 then
        port.part_probes = port.part_probes + 1
        if port.part_probes % PROBE_EVERY ~= 1 then
            return false
        end
    end
    port.parted = port.count
    return true
end

---A caller has started something: whether it goes at once. It does where its caller is alone: there
---is nobody whose requests could go with it. Of a wave it does with those before it, when half of
---the callers that were woken have run since the last part, and unless the server has enough to do:
---two thirds of all that waits.
---@return boolean
function parts.is_one(port)
    local unsent, count, woken = port.unsent, port.count, port.woken
    if woken == 0 then
        return count == 1
    end
    return unsent >= FEWEST and unsent >= woken and 3 * unsent > count and may_part(port)
end

---Answers have come, of which `told` callers were told. Where that is more than waited when the
---part went, the next part was answered, too.
---@param told integer
function parts.judge(port, told)
    local credits = port.part_credits + (told <= port.parted and 1 or -CREDITS_FOR_MISS)
    port.parted = nil
    port.part_credits = math.min(math.max(credits, 0), CREDITS_MAX)
end

return parts
