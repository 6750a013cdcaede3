--- The truth of the as-of checker: for each key, which version was acknowledged when, seen by all
-- processes at once.
--
-- Owner: one writer per key, whose versions grow. A version may be left out: it was never there.

local cells = require("spec.near.cells")
local clock = require("spec.support.clock")

-- So many versions of a key remember when they were acknowledged. Who is further behind is told the
-- time of the oldest of them: later than the truth, so nobody is blamed for nothing.
local RING = 4096
local STOP, HOLD, EVENT, VICTIM, CHECKS, ACKED = 0, 1, 2, 3, 3, 8

local board = {}
local Board = {}
Board.__index = Board

--- `keys` keys, numbered from 1.
function board.map(path, keys)
    local all = cells.map(path, ACKED + (keys + 1) * (RING + 1))
    return setmetatable({
        keys = keys,
        all = all,
        -- acked[i]: the newest acknowledged version of key i; 0: none.
        acked = all + ACKED,
        times = all + ACKED + keys + 1,
    }, Board)
end

--- The server has just answered that `version` of key i stands there.
function Board:acknowledge(i, version)
    local now = clock.now()
    for left_out = math.max(self.acked[i] + 1, version - RING + 1), version do
        self.times[i * RING + left_out % RING] = now
    end
    self.acked[i] = version
end

--- When the first version after `version` was acknowledged; there is one. Seconds, monotonic.
function Board:outdated_at(i, version)
    while true do
        local newest = self.acked[i]
        local first = math.max(version + 1, newest - RING + 2)
        local at = self.times[i * RING + first % RING]
        -- Nobody has gone once around the ring meanwhile.
        if self.acked[i] - first < RING - 1 then return at end
    end
end

function Board:stop()
    self.all[STOP] = 1
end

--- The writer pauses until release(). What it has begun it ends first.
function Board:hold()
    self.all[HOLD] = 1
end

function Board:release()
    self.all[HOLD] = 0
end

function Board:is_held()
    return self.all[HOLD] == 1
end

--- What happens to the servers, by number; 0: nothing.
function Board:set_event(number)
    self.all[EVENT] = number
end

function Board:event()
    return self.all[EVENT]
end

--- The port of a server whose word does not count, for it will lose what it acknowledges; 0: none.
function Board:set_victim(port)
    self.all[VICTIM] = port
end

function Board:victim()
    return self.all[VICTIM]
end

--- A reader, one of 4, says how many checks it has made.
function Board:count_checks(reader, checks)
    self.all[CHECKS + reader] = checks
end

--- What the readers, at most 4, have said together.
function Board:checks(readers)
    local sum = 0
    for reader = 1, readers do sum = sum + self.all[CHECKS + reader] end
    return sum
end

function Board:is_stopped()
    return self.all[STOP] == 1
end

return board
