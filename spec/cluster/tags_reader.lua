-- A reader of the run of tags (tags.lua), which loads what is not there; with params.invalidates it
-- invalidates, too: what it has invalidated no process of its region reads from then on.
--
-- params: url, near, max_stale, number, board, truth, limits, exact, seed, pause (seconds between
-- two invalidations), mutant.
-- Mutants: "unchecked": no hit is compared with its tags' generations. "late": a load's generations
-- are read behind its data.

local clock = require("spec.support.clock")
local tags_world = require("spec.cluster.tags_world")

local TTL = 600
local BATCH = 64 -- reads between two looks at the board
local SLOW_LOADS, LONGEST_LOAD = 20, 0.004 -- one of so many takes up to so long
local LATE_SECONDS = 0.03
local SPECIAL_EVERY = 5 -- batches

local function plant_unchecked()
    local core_near = require("redcache.core.near")
    local core_tags = require("redcache.core.tags")
    local judge_by = core_near.judge_by
    core_near.judge_by = function(view) return judge_by(view, nil) end
    core_near.check_tags = function() return core_tags.VALID end
    core_tags.check = core_near.check_tags
end

local function open(params)
    if params.mutant == "unchecked" then plant_unchecked() end
    return require("redcache").new({
        url = params.url, near = params.near, namespace = "app", maxStale = params.max_stale,
        generation = true, grace = 100, background = false, commandTimeout = 2,
        leaseTtl = 2, waitTimeout = 5,
    })
end

local function new_tally()
    return { checks = 0, l0 = 0, near = 0, redis = 0, stale = 0, loads = 0, missing = 0, many = 0,
        invalidated = 0, unsure = 0, flagged = 0, errors = {} }
end

local function count_error(tally, err)
    local code = err.code or tostring(err)
    tally.errors[code] = (tally.errors[code] or 0) + 1
end

local function count(self, i, value, source, began, is_exact)
    self.tally.checks = self.tally.checks + 1
    self.tally[source] = self.tally[source] + 1
    self.world:check(i, value, source, began, is_exact)
end

-- The value of a load that began now; where it is a slow one, tags may be invalidated meanwhile.
local function load(self, i)
    local value = self.world:value(i)
    if math.random(SLOW_LOADS) == 1 then clock.sleep(math.random() * LONGEST_LOAD) end
    self.tally.loads = self.tally.loads + 1
    return value
end

local function remember(self, i)
    local early = self.mutant == "late" and load(self, i)
    if early then clock.sleep(LATE_SECONDS) end
    local began = clock.now()
    local value, err, source, flag = self.cache:remember(self.world.names[i], TTL, function()
        return early or load(self, i)
    end, self.world.opts[i])
    if err then
        count_error(self.tally, err)
    elseif flag then
        self.tally.flagged = self.tally.flagged + 1
    elseif value ~= nil and source ~= "loader" then
        count(self, i, value, source, began)
    end
end

local function get(self, i, opts)
    local began = clock.now()
    local value, err, source = self.cache:get(self.world.names[i], opts)
    if value ~= nil then
        count(self, i, value, source, began, opts ~= nil)
    elseif err then
        count_error(self.tally, err)
    else
        self.tally.missing = self.tally.missing + 1
    end
    return value ~= nil
end

-- A batch does not tell which of its values are stale.
local function get_many(self, opts)
    local places, names = {}, {}
    for n = 1, 8 do
        places[n] = math.random(tags_world.KEYS)
        names[n] = self.world.names[places[n]]
    end
    local began = clock.now()
    local values, failed = self.cache:getMulti(names, opts)
    for n, i in ipairs(places) do
        local value, err = values[names[n]], failed[names[n]]
        if value ~= nil then
            self.tally.checks, self.tally.many = self.tally.checks + 1, self.tally.many + 1
            self.world:check(i, value, "stale", began, opts ~= nil)
        elseif err then
            count_error(self.tally, err)
        end
    end
end

local FRESH, NOT_NEAR = { fresh = true }, { near = false }

local function read_specially(self)
    local way, i = math.random(6), math.random(tags_world.KEYS)
    if way == 1 then
        get(self, i, FRESH)
    elseif way == 2 then
        get(self, i, NOT_NEAR)
    elseif way == 3 then
        get_many(self, NOT_NEAR)
    elseif way == 4 then
        get_many(self)
    else
        remember(self, i)
    end
end

local function invalidate(self)
    local tag, is_soft = math.random(tags_world.TAGS), math.random(3) == 1
    local list = { tag, tag % tags_world.TAGS + 1 }
    self.world:commit(tags_world.OWN, list, is_soft)
    local _, err = self.cache:invalidateTags({ tags_world.name(list[1]),
        tags_world.name(list[2]) }, { soft = is_soft })
    if err then
        self.tally.unsure = self.tally.unsure + 1
    else
        self.world:acknowledge(tags_world.OWN, list, is_soft)
        self.tally.invalidated = self.tally.invalidated + 1
    end
end

return function(one)
    local params = one.params
    math.randomseed(params.seed)
    local self = {
        world = tags_world.open(params), tally = new_tally(), cache = open(params),
        mutant = params.mutant,
    }
    local board, batch, due = self.world.board, 0, 0
    one:emit("reading")
    while not board:is_stopped() do
        batch = batch + 1
        for _ = 1, BATCH do
            local i = math.random(tags_world.KEYS)
            if not get(self, i) and math.random(2) == 1 then remember(self, i) end
        end
        if batch % SPECIAL_EVERY == 0 then read_specially(self) end
        if params.invalidates and clock.now() >= due then
            invalidate(self)
            due = clock.now() + math.random() * 2 * params.pause
        end
        board:count_checks(params.number, self.tally.checks)
        if self.world.violations > 0 and params.mutant then board:stop() end
    end
    self.cache:close()
    self.tally.violations, self.tally.told = self.world.violations, self.world.told
    return self.tally
end
