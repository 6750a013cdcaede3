-- A writer of the clusters' as-of checker that is a client of ours, on the readers' machine: writes
-- growing versions of its keys through the region that readers share, and tells the board what was
-- acknowledged. What it has written it has to read at once.
--
-- params, beside those of asof_writer: near (the readers'), timeout.

local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local kept_of = require("spec.cluster.kept")

local STORM, PAUSE, TOLD = 16, 0.003, 10

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
    local ends = clock.now() + params.limit
    while not board:is_stopped() and clock.now() < ends do
        kept:set_idle(params.number, board:is_held())
        for _ = 1, math.random(STORM) do
            if board:is_held() then break end
            write(math.random(params.first, params.last))
        end
        clock.sleep(math.random() * PAUSE)
    end
    cache:close()
    return told
end
