-- A reader of the clusters' as-of checker: reads through near caches of three bounds and holds what
-- it gets against the board.
--
-- Wrong is, from l0 or near: a newer version was acknowledged over maxStale and MEASURING before
-- the read began. What Redis itself answers is counted where it is older than that, and is wrong
-- where nothing but slots moves (params.strict): a master that was replaced and does not know it
-- answers with what it has. Of what a client of this machine writes through the same region (keys
-- from params.own on) anything older than was acknowledged before the read is wrong, wherever it
-- comes from, unless the cluster may have lost that. While nobody writes (kept.lua), and maxStale
-- is over, anything but what the owners have is wrong. And so is a read that ends LATE behind its
-- deadline, less what this process waited for a processor.

local bit = require("bit")
local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local kept_of = require("spec.cluster.kept")
local posix = require("spec.support.posix")
local waited = require("spec.near.waited")

local BATCH = 64
local ORDER = 8192
local MEASURING = 0.05
local TIMEOUT = 0.1 -- who waits for a node reads nothing meanwhile
local LATE = 0.1
local TOLD = 10

local function open_caches(params)
    local redcache = require("redcache")
    local kinds = {
        { name = "shared", near = params.near, max_stale = 0.1, is_shared = true },
        { name = "shared, without l0", near = params.near_raw, max_stale = 1, is_shared = true },
        { name = "own", near = { bytes = 1048576, l0 = false }, max_stale = 0.25 },
    }
    for _, kind in ipairs(kinds) do
        kind.cache = redcache.new({
            url = params.url, group = kind.name, near = kind.near, maxStale = kind.max_stale,
            commandTimeout = TIMEOUT,
        })
    end
    return kinds
end

return function(one)
    local params = one.params
    local board = board_of.map(params.board, params.keys)
    local kept = kept_of.map(params.kept, params.keys)
    local acked, names = board.acked, params.names
    math.randomseed(params.seed)
    local order = {}
    for n = 0, ORDER - 1 do order[n] = math.random(#names) end
    local kinds = open_caches(params)
    local tally = {
        checks = 0, violations = 0, near = 0, redis = 0, missing = 0, errors = {}, told = {},
        worst = {}, outdated = 0, old_in_redis = 0, slowest = 0, overrun = -TIMEOUT,
        own = 0, kept = 0,
    }

    local function violate(text, ...)
        tally.violations = tally.violations + 1
        if #tally.told < TOLD then tally.told[#tally.told + 1] = text:format(...) end
    end

    local function happening() return params.events[board:event()] or "quiet" end

    local function judge(kind, i, version, source, began)
        local age = began - board:outdated_at(i, version)
        local bound = kind.max_stale + MEASURING
        if kept:is_excused(i, acked[i]) then return end
        local is_near = source == "l0" or source == "near"
        if age > bound then
            clock.sleep(0.001) -- until the board says the same to everybody
            age = began - board:outdated_at(i, version)
        end
        if is_near then
            local event = happening()
            tally.outdated = tally.outdated + 1
            tally.worst[event] = math.max(tally.worst[event] or 0, age)
        elseif age > 0.002 then
            tally.old_in_redis = tally.old_in_redis + 1
        end
        if age > bound and (is_near or params.strict) then
            violate("%s: %s is %d from %s, outdated for %.3f s, during %s", kind.name, names[i],
                version, source, age, happening())
        end
    end

    -- A key that this machine writes: acknowledged, it is read at once.
    local function judge_own(kind, i, version, source, before)
        if kept:is_excused(i, before) then return end
        clock.sleep(0.001) -- what is given up is told before it is lost
        if kept:is_excused(i, before) then return end
        violate("%s: %s is %s from %s, and %d was written on this machine, during %s", kind.name,
            names[i], version or "nothing", source or "redis", before, happening())
    end

    -- Nobody has written for longer than maxStale: what the owner has is what is read.
    local function judge_kept(kind, i, version, source, since)
        local wanted = kept:version(i)
        if kept:since() ~= since then return end
        tally.kept = tally.kept + 1
        if (version or kept_of.NOTHING) ~= wanted then
            violate("%s: %s is %s from %s, its owner has %d, behind %s", kind.name, names[i],
                version or "nothing", source or "redis", wanted, happening())
        end
    end

    local function read(kind, i, began)
        local before, since = acked[i], kept:since()
        local value, err, source, flag = kind.cache:get(names[i])
        local version = tonumber(value)
        if not err and not flag then
            if since > 0 and began > since + kind.max_stale + MEASURING then
                judge_kept(kind, i, version, source, since)
            end
            if kind.is_shared and i >= params.own then
                tally.own = tally.own + 1
                if (version or 0) < before then judge_own(kind, i, version, source, before) end
            end
        end
        if version and (source == "l0" or source == "near") then
            tally.near = tally.near + 1
            if version >= before then return false end
        elseif version then
            tally.redis = tally.redis + 1
        end
        if not value then
            local code = err and (err.code or tostring(err))
            if code then
                tally.errors[code] = (tally.errors[code] or 0) + 1
            else
                tally.missing = tally.missing + 1
            end
        elseif not version then
            violate("%s: %s holds no version", kind.name, names[i])
        elseif version < before and not flag then
            judge(kind, i, version, source, began)
        end
        return true
    end

    for _, kind in ipairs(kinds) do kind.cache:get(names[1]) end -- now all threads run
    local watch = waited.watch({ posix.C.getpid() }, true)
    one:emit("reading")
    local started, batch = clock.now(), 0
    while not board:is_stopped() do
        batch = batch + 1
        local kind = kinds[batch % #kinds + 1]
        local stolen, began = watch:seconds(), clock.now()
        for n = batch * BATCH, batch * BATCH + BATCH - 1 do
            tally.checks = tally.checks + 1
            if read(kind, order[bit.band(n, ORDER - 1)], began) then
                local now = clock.now()
                tally.slowest = math.max(tally.slowest, now - began)
                if now - began > TIMEOUT then
                    local late = now - began - TIMEOUT - (watch:seconds() - stolen)
                    tally.overrun = math.max(tally.overrun, late)
                    if late > clock.scaled(LATE) then
                        violate("%s: a read ended %.3f s late, during %s", kind.name, late,
                            happening())
                    end
                end
                began = now
            end
        end
        board:count_checks(params.number, tally.checks)
        if clock.now() - started >= params.limit then break end
    end
    tally.seconds = clock.now() - started
    tally.refreshes, tally.connects = 0, 0
    for _, kind in ipairs(kinds) do
        local stats = kind.cache:stats()
        tally.refreshes = math.max(tally.refreshes, stats.mapRefreshes)
        kind.cache:close()
    end
    return tally
end
