-- What the run of tags (tags.lua) goes by: the database that loaders read, what was invalidated
-- when, and whether what a reader got is too old. All processes see the same cells.
--
-- The database holds four numbers for each tag: how often it was invalidated by each of the two who
-- do that ("foreign": another machine's; "own": one that shares the region of its readers), hard,
-- and at all. Whoever invalidates counts up first (commit), and tells when it was acknowledged. A
-- value is a list of the numbers of its key's tags when it was loaded.
--
-- Wrong is a value
--   from near copies:           loaded before an invalidation that was acknowledged over maxStale
--                               before the read began; at all before it began where a process of
--                               the same region made it
--   from Redis alone:           ... before the read began
-- One that says that it is stale may be so by soft invalidations, and by no hard one.

local board_of = require("spec.near.board")
local cells = require("spec.near.cells")
local clock = require("spec.support.clock")

local TAGS, KEYS = 24, 200
local NAMESPACE = TAGS + 1 -- the tag of all entries
local SETTING = 0 -- cell: odd while somebody sets what was read from the database before
-- Longer than a processor keeps a store to itself.
local SEEN_SECONDS = 0.001
local TOLD = 10

local world = { TAGS = TAGS, KEYS = KEYS, NAMESPACE = NAMESPACE, FOREIGN = 0, OWN = 1 }
local World = {}
World.__index = World

local HARD, ANY = 0, 1
local COUNT = 4 * NAMESPACE

local function number_of(who, kind, tag) return (who * 2 + kind) * NAMESPACE + tag end

-- By key: the numbers of its tags, in the order of its value; and what is asked of it.
local function describe(i)
    local tags, numbers = { i % TAGS + 1, (i * 7 + 3) % TAGS + 1 }, {}
    if tags[1] == tags[2] then tags[2] = nil end
    local all = { tags[1], tags[2] }
    all[#all + 1] = NAMESPACE
    for _, tag in ipairs(all) do
        for who = world.FOREIGN, world.OWN do
            numbers[#numbers + 1] = number_of(who, HARD, tag)
            numbers[#numbers + 1] = number_of(who, ANY, tag)
        end
    end
    local names = {}
    for n, tag in ipairs(tags) do names[n] = world.name(tag) end
    return numbers, { tags = names }
end

--- The name of a tag; "" is the namespace's own.
function world.name(tag)
    return tag == NAMESPACE and "" or "t" .. tag
end

--- The key of Redis that holds a tag's generations.
function world.redis_key(tag)
    return "app//tag:" .. world.name(tag)
end

--- params: board, truth (paths); limits: { foreign =, own = } seconds by whom it was invalidated,
-- of reads that near copies may answer; exact: seconds, of reads that Redis alone answers.
function world.open(params)
    local self = setmetatable({
        board = board_of.map(params.board, COUNT), truth = cells.map(params.truth, COUNT + 1),
        limits = params.limits, exact = params.exact, names = {}, numbers = {}, opts = {},
        violations = 0, told = {},
    }, World)
    self.acked = self.board.acked
    for i = 1, KEYS do
        self.names[i] = "k" .. i
        self.numbers[i], self.opts[i] = describe(i)
    end
    return self
end

--- What the database says of key i.
function World:value(i)
    local value, numbers = {}, self.numbers[i]
    for n = 1, #numbers do value[n] = self.truth[numbers[n]] end
    return value
end

--- Whoever sets what it has read from the database says so, as the generations of a set are read
-- behind that.
function World:begin_set()
    self.truth[SETTING] = self.truth[SETTING] + 1
    clock.sleep(SEEN_SECONDS)
end

function World:end_set()
    self.truth[SETTING] = self.truth[SETTING] + 1
end

--- The database changes: from now on it says that these tags were invalidated once more. Returns
-- when nobody sets any more what was read before.
function World:commit(who, tags, is_soft)
    for _, tag in ipairs(tags) do
        for kind = is_soft and ANY or HARD, ANY do
            local number = number_of(who, kind, tag)
            self.truth[number] = self.truth[number] + 1
        end
    end
    clock.sleep(SEEN_SECONDS)
    local setting = self.truth[SETTING]
    while setting % 2 == 1 and self.truth[SETTING] == setting and not self.board:is_stopped() do
        clock.sleep(SEEN_SECONDS)
    end
end

--- What was committed has been invalidated; softly: hard ones before that may have failed.
function World:acknowledge(who, tags, is_soft)
    for _, tag in ipairs(tags) do
        for kind = is_soft and ANY or HARD, ANY do
            local number = number_of(who, kind, tag)
            if self.truth[number] > self.acked[number] then
                self.board:acknowledge(number, self.truth[number])
            end
        end
    end
end

-- Whether number n of a value may be older than what is acknowledged, and for how long.
local function limit_of(self, n, source, is_exact)
    if source == "stale" and n % 2 == 0 then return math.huge end
    if is_exact then return self.exact end
    return (n - 1) % 4 < 2 and self.limits.foreign or self.limits.own
end

local function tell(self, i, n, value, source, age)
    self.violations = self.violations + 1
    if #self.told < TOLD then
        local text = "%s from %s: %s by %s of %s, %.4f s after it was acknowledged"
        self.told[#self.told + 1] = text:format(self.names[i], source,
            n % 2 == 1 and "void" or "stale",
            (n - 1) % 4 < 2 and "a foreign invalidation" or "one of its own region",
            n > #value - 4 and "the namespace" or self.opts[i].tags[math.ceil(n / 4)], age)
    end
end

local function judge(self, i, value, source, began, is_exact)
    local numbers = self.numbers[i]
    for n = 1, #numbers do
        if value[n] < self.acked[numbers[n]] then
            local age = began - self.board:outdated_at(numbers[n], value[n])
            if age > limit_of(self, n, source, is_exact) then
                tell(self, i, n, value, source, age)
                return
            end
        end
    end
end

--- Holds what a read of key i gave, which began then, against the board. is_exact: no near copy may
-- have answered.
function World:check(i, value, source, began, is_exact)
    local acked, numbers = self.acked, self.numbers[i]
    for n = 1, #numbers do
        if value[n] < acked[numbers[n]] then
            return judge(self, i, value, source, began, is_exact)
        end
    end
end

return world
