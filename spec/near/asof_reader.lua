-- A reader of the as-of checker: reads through three near caches and holds what it gets against the
-- board.
--
-- A value is as of some instant: the one at which a newer one was acknowledged has not come then.
-- Wrong is
--   from l0 or near:            a newer version was acknowledged over maxStale before the read
--                               began
--   from redis, or with fresh:  one was acknowledged before the read began
--   one cache, one key:         a version older than one that was seen before
-- "Nothing there" is never wrong: keys are deleted, flushed, and expire.

local bit = require("bit")
local board_of = require("spec.near.board")
local clock = require("spec.support.clock")

local BATCH = 64               -- reads between two looks at the clock
local ORDER = 8192             -- length of the random order of keys; a power of two
local SPECIAL_EVERY = 61       -- batches; then one read with fresh, one with near = false
local BUCKETS = 40             -- histogram of staleness: bucket b holds 2^(b-1) to 2^b us
local TOLD = 10                -- violations told in words
local SETTLE_SECONDS = 0.001   -- until the board says the same to everybody

-- What the near caches must not be: a table that nobody invalidates.
local function plain_table(cache)
    local seen = {}
    return {
        get = function(_, key, opts)
            local value = seen[key]
            if value ~= nil and not opts then return value, nil, "l0" end
            local err, source
            value, err, source = cache:get(key, opts)
            seen[key] = value
            return value, err, source
        end,
        close = function() cache:close() end,
    }
end

local function open_caches(params)
    local redcache = require("redcache")
    local kinds = {
        { name = "shared", near = params.near, max_stale = 0.1 },
        { name = "shared, without l0", near = params.near_raw, max_stale = 1 },
        { name = "own", near = { bytes = 65536 }, max_stale = 0.25 },
    }
    for _, kind in ipairs(kinds) do
        local near = kind.near
        if params.mutant == "table" then near = false end
        kind.cache = redcache.new({
            url = params.url, group = kind.name, near = near, maxStale = kind.max_stale,
            commandTimeout = 20,
        })
        if params.mutant == "table" then kind.cache = plain_table(kind.cache) end
        kind.last = {}
        for i = 1, #params.names do kind.last[i] = 0 end
    end
    return kinds
end

local function random_order(keys)
    local order = {}
    for n = 0, ORDER - 1 do order[n] = math.random(keys) end
    return order
end

local function new_tally()
    local tally = {
        checks = 0, violations = 0, told = {}, missing = 0, errors = {}, histogram = {}, worst = 0,
        l0 = 0, near = 0, redis = 0, fresh = 0, other = 0,
    }
    for b = 0, BUCKETS do tally.histogram[b] = 0 end
    return tally
end

local function violate(tally, text, ...)
    tally.violations = tally.violations + 1
    if #tally.told < TOLD then tally.told[#tally.told + 1] = text:format(...) end
end

local function note_staleness(tally, seconds)
    local micros = math.max(seconds * 1e6, 1)
    local b = math.min(math.floor(math.log(micros) / math.log(2)) + 1, BUCKETS)
    tally.histogram[b] = tally.histogram[b] + 1
    tally.worst = math.max(tally.worst, seconds)
end

-- A newer version was acknowledged before the read began, at `began` or a little later.
local function outdated(self, kind, i, version, source, began)
    local tally, name = self.tally, self.names[i]
    local function age() return began - self.board:outdated_at(i, version) end
    if source ~= "l0" and source ~= "near" then
        violate(tally, "%s: %s is %d from %s, %d was acknowledged", kind.name, name, version,
            source, self.board.acked[i])
        return
    end
    local seconds = age()
    if seconds > kind.max_stale then
        clock.sleep(SETTLE_SECONDS)
        seconds = age()
    end
    note_staleness(tally, math.max(seconds, 0))
    if seconds > kind.max_stale then
        violate(tally, "%s: %s is %d from %s, outdated for %.3f s", kind.name, name, version,
            source, seconds)
    end
end

-- Everything but a good value of l0 or near; the next read wants a new look at the clock.
local function judge(self, kind, i, value, err, source, acked, began)
    local tally = self.tally
    if value == nil then
        if err then
            local code = err.code or tostring(err)
            tally.errors[code] = (tally.errors[code] or 0) + 1
        else
            tally.missing = tally.missing + 1
        end
        return
    end
    tally.checks = tally.checks + 1
    tally[source] = (tally[source] or 0) + 1
    local version = tonumber(value)
    if not version or version < 1 then
        violate(tally, "%s: %s holds no version", kind.name, self.names[i])
        return
    end
    if version < acked then outdated(self, kind, i, version, source, began) end
    if version < kind.last[i] then
        violate(tally, "%s: %s goes back from %d to %d, by %s", kind.name, self.names[i],
            kind.last[i], version, source)
    end
    kind.last[i] = version
end

local function read_batch(self, kind, at)
    local acked, order, names, last = self.acked, self.order, self.names, kind.last
    local cache, good_l0, good_near = kind.cache, 0, 0
    local began = clock.now()
    for n = at, at + BATCH - 1 do
        local i = order[bit.band(n, ORDER - 1)]
        local before = acked[i]
        local value, err, source = cache:get(names[i])
        local version = tonumber(value)
        if version and version >= before and version >= last[i] and source == "l0" then
            good_l0 = good_l0 + 1
            last[i] = version
        elseif version and version >= before and version >= last[i] and source == "near" then
            good_near = good_near + 1
            last[i] = version
        else
            judge(self, kind, i, value, err, source, before, began)
            began = clock.now()
        end
    end
    local tally = self.tally
    tally.l0, tally.near = tally.l0 + good_l0, tally.near + good_near
    tally.checks = tally.checks + good_l0 + good_near
end

local FRESH, NOT_NEAR = { fresh = true }, { near = false }

local function read_specially(self, kind, at)
    local i = self.order[bit.band(at * 7, ORDER - 1)]
    local before, began = self.acked[i], clock.now()
    local value, err, source = kind.cache:get(self.names[i], FRESH)
    if value ~= nil then
        self.tally.fresh = self.tally.fresh + 1
        local version = tonumber(value)
        if version < before then
            violate(self.tally, "%s: %s is %d with fresh, from %s; %d was acknowledged", kind.name,
                self.names[i], version, source, before)
        end
    end
    judge(self, kind, i, value, err, source, before, began)
    before, began = self.acked[i], clock.now()
    value, err, source = kind.cache:get(self.names[i], NOT_NEAR)
    -- It may be ahead of what the near cache has been told so far, so it says nothing about `last`.
    local last = kind.last[i]
    judge(self, kind, i, value, err, source, before, began)
    kind.last[i] = last
    if value ~= nil and source ~= "redis" then
        violate(self.tally, "%s: %s comes from %s with near = false", kind.name, self.names[i],
            source)
    end
end

return function(one)
    local params = one.params
    local board = board_of.map(params.board, #params.names)
    math.randomseed(params.seed)
    local self = {
        names = params.names, board = board, acked = board.acked, tally = new_tally(),
        order = random_order(#params.names),
    }
    local kinds, tally = open_caches(params), self.tally
    one:ready()
    local started = clock.now()
    local batch = 0
    while not board:is_stopped() do
        batch = batch + 1
        local kind = kinds[batch % #kinds + 1]
        read_batch(self, kind, batch * BATCH)
        if batch % SPECIAL_EVERY == 0 then read_specially(self, kind, batch) end
        if params.mutant and tally.violations > 0 then board:stop() end
        local spent = clock.now() - started
        if spent >= params.limit or tally.checks >= params.checks and spent >= params.seconds then
            break
        end
    end
    tally.seconds = clock.now() - started
    for _, kind in ipairs(kinds) do kind.cache:close() end
    return tally
end
