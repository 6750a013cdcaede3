--- What a cluster has kept of what was written, as its owners say it while nobody writes; seen by
-- all processes of the as-of checker at once.
--
-- What:   map; the program's side: ask, tell, clear, give_up, settle, are_idle; the writers' side:
--         write_in_bursts; the readers' side: since, version, is_excused.
-- Keys:   numbered from 1, as on the board (spec/near/board.lua).

local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local resp = require("spec.support.resp")

local SINCE, IDLE, FIRST = 0, 0, 8
local BURST, PAUSE = 16, 0.003

local kept = { NOTHING = -1 }
local Kept = {}
Kept.__index = Kept

--- `keys` keys, and at most 7 writers.
function kept.map(path, keys)
    local all = cells.map(path, FIRST + 2 * (keys + 1))
    return setmetatable({
        keys = keys, all = all, versions = all + FIRST, excused = all + FIRST + keys + 1,
    }, Kept)
end

--- The versions that the owners of these names have.
function kept.ask(bed, names)
    local versions, map, wanted = {}, bed:map(), {}
    for i, name in ipairs(names) do
        local slot = cluster.slot(name)
        for _, range in ipairs(map) do
            if slot >= range.first and slot <= range.last then
                wanted[range.id] = wanted[range.id] or {}
                table.insert(wanted[range.id], i)
            end
        end
    end
    for id, numbers in pairs(wanted) do
        local commands, client = {}, bed:node(id):client()
        for n, i in ipairs(numbers) do commands[n] = { "GET", names[i] } end
        for n, answer in ipairs(client:pipeline(commands)) do
            versions[numbers[n]] = answer == resp.NULL and kept.NOTHING
                or assert(tonumber(answer), "no version")
        end
        client:close()
    end
    return versions
end

--- From now on all readers are held to these: versions[i] of key i; NOTHING: it is not there.
function Kept:tell(versions)
    for i = 1, self.keys do self.versions[i] = versions[i] end
    self.all[SINCE] = clock.now()
end

function Kept:clear() self.all[SINCE] = 0 end

--- When tell() was called; 0: somebody may write.
function Kept:since() return self.all[SINCE] end

function Kept:version(i) return self.versions[i] end

--- What is acknowledged of this key from now on, until settle(), may be lost.
function Kept:give_up(i) self.excused[i] = math.huge end

--- True where the cluster may have lost this acknowledged version.
function Kept:is_excused(i, version) return version <= self.excused[i] end

--- What is acknowledged of this key from now on has to stay. `lost`: the newest version that the
-- cluster has lost; 0: none.
function Kept:settle(i, lost) self.excused[i] = lost end

--- Writer params.number, which calls write(i) for its keys params.first to params.last, until the
-- board ends it or params.limit seconds are over; while the board holds it, it is idle.
function Kept:write_in_bursts(board, params, write)
    local ends = clock.now() + params.limit
    while not board:is_stopped() and clock.now() < ends do
        self.all[IDLE + params.number] = board:is_held() and 1 or 0
        for _ = 1, math.random(BURST) do
            if board:is_held() then break end
            write(math.random(params.first, params.last))
        end
        clock.sleep(math.random() * PAUSE)
    end
end

function Kept:are_idle(writers)
    for number = 1, writers do
        if self.all[IDLE + number] == 0 then return false end
    end
    return true
end

return kept
