-- A writer of the clusters' as-of checker that is a client of ours, on the readers' machine: writes
-- growing versions of its keys through the region that readers share, and tells the board what was
-- acknowledged. What it has written it has to read at once.
--
-- params, beside those of asof_writer: near (the readers'), timeout.

local board_of = require("spec.near.board")
local kept_of = require("spec.cluster.kept")

local TOLD = 10

return function(one)
    local redcache = require("redcache")
    local params = one.params
    local board = board_of.map(params.board, params.keys)
    local kept = kept_of.map(params.kept, params.keys)
    math.randomseed(params.seed)
    local cache = redcache.new({
        url = params.url, near = params.near, maxStale = 1, commandTimeout = params.timeout,
        codec = "raw", plain = true, ttl = redcache.FOREVER,
    })
    local versions = {}
    local told = { writes = 0, unsure = 0, moved = 0, violations = 0, told = {} }

    local function write(i)
        local name, version = params.names[i], (versions[i] or 0) + 1
        versions[i] = version
        told.writes = told.writes + 1
        if not cache:set(name, tostring(version)) then
            told.unsure = told.unsure + 1
            return
        end
        board:acknowledge(i, version)
        local value, _, source, flag = cache:get(name)
        if value and not flag and tonumber(value) < version
            and not kept:is_excused(i, version) then
            told.violations = told.violations + 1
            if #told.told < TOLD then
                told.told[#told.told + 1] = ("the writer itself: %s is %s from %s after %d, during"
                    .. " %s"):format(name, value, source, version, params.events[board:event()]
                    or "quiet")
            end
        end
    end

    for i = params.first, params.last do write(i) end
    one:emit("writing")
    kept:write_in_bursts(board, params, write)
    cache:close()
    return told
end
