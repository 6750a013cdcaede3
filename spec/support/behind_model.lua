--- What writing behind has to do, as docs/api/write_behind.md tells it: which values wait, which
-- are being written, which are dead letters, and what room is left. Of each key it knows the newest
-- value that was ever taken: none that is older may come behind it.

local behind_model = {}
local Model = {}
Model.__index = Model

local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30
local HEAL_SECONDS = 1 -- rooms of callers that are gone are looked for no more often
local EPSILON = 1e-6 -- times are sums

--- settings: entries, bytes, attempts, batch, delay, writers.
function behind_model.new(settings)
    return setmetatable({
        settings = settings, keys = {}, newest = {}, letters = {}, untold = {},
        numbers = 0, calls = 0, telling = 0,
        written = 0, failed = 0, coalesced = 0, refused = 0, dropped = 0,
    }, Model)
end

local function in_order(numbered)
    table.sort(numbered, function(a, b) return a.number < b.number end)
    return numbered
end

--- What is held: keys, bytes, and the keys that wait or are being written.
function Model:held()
    local keys, bytes, queued = 0, 0, 0
    for _, one in pairs(self.keys) do
        keys = keys + 1
        queued = queued + ((one.waits or one.runs) and 1 or 0)
        bytes = bytes + (one.waits and one.waits.size or 0) + (one.runs and one.runs.size or 0)
        for place in pairs(one.places) do bytes = bytes + place.size end
    end
    return keys, bytes, queued
end

local function settle(self, key)
    local one = self.keys[key]
    if not one.waits and not one.runs and next(one.places) == nil then self.keys[key] = nil end
end

local function has_room(self, key, size)
    local keys, bytes = self:held()
    return (self.keys[key] or keys < self.settings.entries)
        and bytes + size <= self.settings.bytes
end

-- Callers that are gone hold no room any more.
local function heal(self, now)
    if self.healed_at and now < self.healed_at + HEAL_SECONDS then return end
    self.healed_at = now
    for key, one in pairs(self.keys) do
        for place in pairs(one.places) do
            if place.is_gone then one.places[place] = nil end
        end
        settle(self, key)
    end
end

--- A call begins: its place among those of the key; nil: overload.
function Model:reserve(key, size, now, number)
    if not has_room(self, key, size) then heal(self, now) end
    if not has_room(self, key, size) then
        self.refused = self.refused + 1
        return nil
    end
    local one = self.keys[key] or { places = {} }
    self.numbers = self.numbers + 1
    local place = { key = key, size = size, number = number or self.numbers }
    self.keys[key], one.places[place] = one, true
    return place
end

--- It is not to be written.
function Model:refuse(place)
    self.keys[place.key].places[place] = nil
    settle(self, place.key)
end

local function take_letter(self, key)
    for i, letter in ipairs(self.letters) do
        if letter.key == key then return table.remove(self.letters, i) end
    end
end

--- It is to be written, where it is the newest.
function Model:accept(place, value, now)
    local key, settings = place.key, self.settings
    local one = self.keys[key]
    one.places[place] = nil
    if place.number < (self.newest[key] or 0) then
        self.coalesced = self.coalesced + 1
        return settle(self, key)
    end
    self.newest[key] = place.number
    take_letter(self, key)
    local older = one.waits
    self.coalesced = self.coalesced + (older and 1 or 0)
    one.waits = { key = key, value = value, size = place.size, number = place.number,
        failures = 0, due = older and older.due or not one.runs and now + settings.delay or nil }
end

--- The times at which what waits is due, and not being written.
function Model:dues()
    local list = {}
    for _, one in pairs(self.keys) do
        if one.waits and not one.runs then list[#list + 1] = one.waits.due end
    end
    table.sort(list)
    return list
end

--- All of it is due now.
function Model:hurry(now)
    for _, one in pairs(self.keys) do
        if one.waits and one.waits.due then one.waits.due = math.min(one.waits.due, now) end
    end
end

--- Whether something is due that could be written. Who is being told of letters writes nothing.
function Model:is_late(now)
    local due = self:dues()[1]
    return due ~= nil and due < now - EPSILON
        and self.calls + self.telling < self.settings.writers
end

--- A call of the user's function begins. What is wrong with it, or nil.
function Model:begin(items, now)
    local settings, seen = self.settings, {}
    self.calls = self.calls + 1
    if #items == 0 or #items > settings.batch then return #items .. " values in a call" end
    if self.calls > settings.writers + (self.is_closing and 1 or 0) then
        return self.calls .. " calls at a time"
    end
    for _, item in ipairs(items) do
        local key = item.key
        local one = self.keys[key]
        local waits = one and one.waits
        if seen[key] then return key .. " is there twice" end
        if one and one.runs then return key .. " is being written already" end
        if not waits then return key .. " does not wait" end
        if waits.value ~= item.value then return key .. ": not its newest value" end
        if waits.due > now + EPSILON then return key .. " is too early" end
        if waits.failures + 1 ~= item.attempt then
            return ("%s: attempt %d, not %d"):format(key, item.attempt, waits.failures + 1)
        end
        seen[key], one.runs, one.waits = true, waits, nil
    end
    local due = self:dues()[1]
    if #items < settings.batch and due and due < now - EPSILON and not self.is_closing then
        return "there is room for one that is due"
    end
end

local function add_letter(self, letter)
    local settings, bytes = self.settings, 0
    take_letter(self, letter.key)
    table.insert(self.letters, letter)
    for _, one in ipairs(self.letters) do bytes = bytes + one.size end
    while #self.letters > settings.entries or bytes > settings.bytes do
        bytes = bytes - table.remove(self.letters, 1).size
        self.dropped = self.dropped + 1
    end
end

local function fail(self, one, value, reason, now)
    local settings = self.settings
    self.failed, value.failures = self.failed + 1, value.failures + 1
    if one.waits then
        self.coalesced = self.coalesced + 1
        one.waits.due = now + FIRST_PAUSE
    elseif value.failures >= settings.attempts then
        local letter = { key = value.key, value = value.value, size = value.size,
            number = value.number, reason = reason, attempts = value.failures }
        add_letter(self, letter)
        table.insert(self.untold, letter)
    else
        value.due = now + math.min(FIRST_PAUSE * 2 ^ (value.failures - 1), LONGEST_PAUSE)
        one.waits = value
    end
end

--- It has ended. reasons: by key, of those that are not written.
function Model:finish(items, reasons, now)
    self.calls = self.calls - 1
    for _, item in ipairs(items) do
        local one = self.keys[item.key]
        local value = one.runs
        one.runs = nil
        if reasons[item.key] then
            fail(self, one, value, reasons[item.key], now)
        else
            self.written = self.written + 1
            if one.waits then one.waits.due = now + self.settings.delay end
        end
        settle(self, item.key)
    end
end

--- The keys of the letters, the oldest first.
function Model:letter_keys()
    local keys = {}
    for i, letter in ipairs(self.letters) do keys[i] = letter.key end
    return keys
end

--- How many of them are to be written again, and whether there is no room for others.
function Model:replay(keys, now)
    local count, is_short = 0, false
    for _, key in ipairs(keys) do
        local letter
        for _, one in ipairs(self.letters) do letter = one.key == key and one or letter end
        local place = letter and self:reserve(key, letter.size, now, letter.number)
        if place then
            count = count + 1
            self:accept(place, letter.value, now)
        elseif letter then
            is_short = true
        end
    end
    return count, is_short
end

function Model:drop(keys)
    local count = 0
    for _, key in ipairs(keys) do count = count + (take_letter(self, key) and 1 or 0) end
    return count
end

--- All that is left is given up: the newest of each key. Whether any of it could have been written.
function Model:abandon(reason)
    local list, could = {}, false
    for key, one in pairs(self.keys) do
        local value = one.waits or one.runs
        could = could or not one.runs and one.waits ~= nil
        if value then
            list[#list + 1] = { key = key, value = value.value, number = value.number,
                reason = reason }
        end
    end
    for _, letter in ipairs(in_order(list)) do table.insert(self.untold, letter) end
    self.keys, self.is_over = {}, true
    return #list, could
end

--- How a call of the user's function ends, by dice: the reasons by key, and its results, of which
-- the first may be error: it is to throw "thrown".
function behind_model.answer(items, trouble)
    local all, dice = {}, math.random()
    if dice > trouble then return all, true end
    local function everything(reason)
        for _, item in ipairs(items) do all[item.key] = reason end
        return all
    end
    dice = math.random(5)
    if dice == 1 then return everything("no database"), nil, "no database" end
    if dice == 2 then return everything("thrown"), error end
    if dice == 3 then return everything("the function did not return true"), false end
    if dice == 4 then
        return everything("the function did not return true"), nil, nil
    end
    for _, item in ipairs(items) do
        all[item.key] = math.random() < 0.5 and "of " .. item.key or nil
    end
    all[items[1].key] = "of " .. items[1].key
    local told = { nothing = "of another one" }
    for key, reason in pairs(all) do told[key] = reason end
    return all, nil, told
end

return behind_model
