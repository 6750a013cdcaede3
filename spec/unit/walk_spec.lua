-- The walk over a cluster, against a model of one: three masters in Lua, between which slots move
-- before any command, in every way a cluster has. Each key that is there throughout is given.
--
-- Env: REDCACHE_WALK_SEEDS: "first-last" (1-25), histories.
-- Not: the order of commands on the wire, and which process answers: spec/cluster/scan_spec.lua.

local slots = require("redcache.slots")
local walk = require("redcache.walk")

local FIRST, LAST = (os.getenv("REDCACHE_WALK_SEEDS") or "1-25"):match("^(%d+)-(%d+)$")
local NODES = { "aa", "bb", "cc" }
local SLOTS, KEYS_OF_SLOT = 16384, 6
-- Of so many slots each is apart from the others; no more of them move.
local MOVING = 9
local BUCKETS = 64

local Model = {}
Model.__index = Model

local function new_model(seed)
    local self = setmetatable({
        seed = seed, owner = {}, way = {}, keys = {}, epoch = {}, seen = {}, asked = 0,
    }, Model)
    -- One whose results are the same everywhere.
    self.random = function(n)
        self.seed = (self.seed * 16807) % 2147483647
        return self.seed % n + 1
    end
    for i = 1, 10 do self.random(i) end
    for i, id in ipairs(NODES) do
        self.epoch[id], self.seen[id] = i, {}
        for j, other in ipairs(NODES) do self.seen[id][other] = j end
    end
    self.moves = 10 + self.random(60)
    self.rate = self.random(30) -- one of so many commands has an event before it,
    self.few = self.random(3) == 1 and 1 or self.random(MOVING) -- of so many slots
    for i = 1, MOVING do
        local slot = i * 1000
        self.owner[slot] = NODES[math.floor(slot * 3 / SLOTS) + 1]
        local tag = "{" .. slots.key_of(slot) .. "}"
        for k = 1, KEYS_OF_SLOT do
            table.insert(self.keys, { name = tag .. k, slot = slot, at = self.owner[slot],
                bucket = self.random(BUCKETS) - 1 })
        end
    end
    return self
end

-- ---- What happens.

-- As CLUSTER SETSLOT NODE and the end of an atomic migration do at the new owner.
function Model:take(slot, id)
    local from, greatest = self.owner[slot], 0
    for _, epoch in pairs(self.seen[id]) do greatest = math.max(greatest, epoch) end
    if self.epoch[id] < greatest then self.epoch[id] = greatest + 1 end
    self.owner[slot], self.way[slot] = id, nil
    self:hear(id, id)
    self:hear(from, id) -- else it does not keep it
    self:hear(id, from)
end

function Model:hear(id, of)
    self.seen[id][of] = self.epoch[of]
end

function Model:move_keys(slot, limit)
    for _, key in ipairs(self.keys) do
        if limit > 0 and key.slot == slot and key.at ~= self.way[slot] then
            key.at, limit = self.way[slot], limit - 1
        end
    end
end

function Model:event()
    local slot, other = self.random(self.few) * 1000, NODES[self.random(#NODES)]
    local what = self.random(6)
    if self.way[slot] then
        self:move_keys(slot, what <= 2 and 2 or math.huge)
        if what > 3 then self:take(slot, self.way[slot]) end
    elseif other ~= self.owner[slot] and what <= 4 then
        self.way[slot] = other
    elseif other ~= self.owner[slot] then
        self.way[slot] = other
        self:move_keys(slot, math.huge)
        self:take(slot, other)
    end
end

-- The masters also hear of each other's epochs, some time later.
function Model:events()
    self:hear(NODES[self.random(#NODES)], NODES[self.random(#NODES)])
    while self.moves > 0 and self.random(self.rate) == 1 do
        self.moves = self.moves - 1
        self:event()
    end
end

-- ---- What a master answers.

function Model:look(id)
    local lines, words = {}, {}
    for i, other in ipairs(NODES) do
        local first, last = math.ceil((i - 1) * SLOTS / 3), math.ceil(i * SLOTS / 3) - 1
        words[other] = {}
        for slot = math.ceil(first / 1000) * 1000, last, 1000 do
            if self.owner[slot] then
                table.insert(words[other], first .. "-" .. slot - 1)
                first = slot + 1
            end
        end
        table.insert(words[other], first .. "-" .. last)
    end
    for slot, owner in pairs(self.owner) do
        table.insert(words[owner], slot)
        if self.way[slot] then
            local is_here = owner == id
            if is_here or self.way[slot] == id then
                table.insert(words[id], ("[%d-%s-%s]"):format(slot, is_here and ">" or "<",
                    is_here and self.way[slot] or owner))
            end
        end
    end
    for i, other in ipairs(NODES) do
        lines[i] = ("%s 127.0.0.1:1@2 %smaster - 0 0 %d connected %s"):format(other,
            other == id and "myself," or "", self.seen[id][other],
            table.concat(words[other], " "))
    end
    return slots.read(table.concat(lines, "\n") .. "\n")
end

function Model:scan(id, cursor, count)
    local names = {}
    for _, key in ipairs(self.keys) do
        if key.at == id and key.bucket >= cursor and key.bucket < cursor + count then
            names[#names + 1] = key.name
        end
    end
    return cursor + count < BUCKETS and tostring(cursor + count) or "0", names
end

-- In the place of Walk:_ask.
function Model:ask(at, wants)
    self.asked = self.asked + 1
    self:events()
    local id = self.owner[at] or NODES[math.floor(at * 3 / SLOTS) + 1]
    local answer = { connection = id, info = wants.info and id }
    if wants.before then
        answer.before = self:look(id)
        self:events()
    end
    if wants.cursor then
        answer.cursor, answer.names = self:scan(id, tonumber(wants.cursor), 1)
        self:events()
    end
    answer.after = wants.after and self:look(id) or nil
    return answer
end

-- The names that were not given, and the error.
local function missing(seed)
    local model = new_model(seed)
    local one = walk.new({ _prefix = "", _client = {} }, "*", {}, 1, "scan")
    one._slots = slots.new()
    one._ask = function(_, at, wants) return model:ask(at, wants) end
    one._find = function() return {} end
    one.pause = function() model:events() end
    local given, list = {}, {}
    local names, err
    repeat
        names, err = one:next()
        for _, name in ipairs(names or {}) do given[name] = true end
        model:events()
    until not names
    for _, key in ipairs(model.keys) do
        if not given[key.name] then list[#list + 1] = key.name end
    end
    return list, model, err
end

describe("a walk", function()
    it("gives each name that is there throughout, however slots move", function()
        local asked = 0
        for seed = tonumber(FIRST), tonumber(LAST) do
            local list, model, err = missing(seed)
            assert.is_nil(err, "seed " .. seed)
            assert.same({}, list, "seed " .. seed)
            asked = math.max(asked, model.asked)
        end
        assert.is_true(asked < 20000, asked)
    end)
end)
