-- behind_queue - the values that wait until they are written to the user's store: one chain a key.
--
-- What:   reserve() holds room for a value before anything is stored; accept() queues it, or
--         refuse() lets the room go; take() hands out what is due, done() and failed() say how its
--         write has ended. A later value takes the place of one that has not begun, and a key is
--         never handed out twice at a time.
-- Memory: at most so many keys, and bytes of keys and encoded values. The place of a caller whose
--         coroutine vanishes is the garbage collector's; it is missed where room is short.
-- Not:    no clock, nobody who waits, no user's function: write_behind.lua has these.

local behind_queue = {}
local Queue = {}
Queue.__index = Queue

-- The pause behind the first failure; twice as long behind each further one, up to the longest.
local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30
-- How often at most the places of callers that are gone are looked for.
local HEAL_SECONDS = 1

-- What is known of a key.
---@class redcache.BehindChain
---@field key string
---@field value string|nil encoded, that is to be written; size: with its key
---@field running string|nil encoded, that is being written; running_size
---@field failures integer of the value that is to be written, or is being written
---@field due number when it is to be written, where is_queued
---@field sending integer callers that hold a place
---@field last integer the number of the newest value that was accepted
---@field is_left boolean|nil it was given up by clear()

---@param keys integer how many there may be
---@param bytes integer
---@param delay number seconds until a value that is accepted is due
---@return table queue
function behind_queue.new(keys, bytes, delay)
    return setmetatable({
        max_keys = keys, max_bytes = bytes, delay = delay,
        chains = {}, keys = 0, bytes = 0, queued = 0, running = 0, seq = 0,
        -- By failures of what stands in it, from 0: each is in the order of `due` by itself.
        lines = {}, highest = 0,
        places = setmetatable({}, { __mode = "k" }), healed_at = nil,
        accepted = 0, written = 0, failures = 0, coalesced = 0, refused = 0,
    }, Queue)
end

local function pause_behind(failures)
    return math.min(FIRST_PAUSE * 2 ^ math.min(failures - 1, 20), LONGEST_PAUSE)
end

-- Puts a chain behind those that have failed as often.
local function enqueue(self, chain, failures, due)
    local line = self.lines[failures]
    if line == nil then
        line = { first = 1, last = 0 }
        self.lines[failures] = line
        self.highest = math.max(self.highest, failures)
    end
    line.last = line.last + 1
    line[line.last] = chain
    chain.due, chain.is_queued = due, true
    self.queued = self.queued + 1
end

-- The line whose head is due first, or nil.
local function next_line(self)
    local found
    for failures = 0, self.highest do
        local line = self.lines[failures]
        local head = line and line[line.first]
        if head and not (found and found[found.first].due <= head.due) then
            found = line
        end
    end
    return found
end

---When the next value is due, or nil: none waits.
---@return number|nil due
function Queue:due()
    local line = next_line(self)
    return line and line[line.first].due
end

---All that waits is due now: pauses and the delay are over.
function Queue:hurry(now)
    for failures = 0, self.highest do
        local line = self.lines[failures] or { first = 1, last = 0 }
        for i = line.first, line.last do
            line[i].due = math.min(line[i].due, now)
        end
    end
end

-- A chain that holds nothing any more goes.
local function settle(self, chain)
    if chain.value == nil and chain.running == nil and chain.sending == 0 then
        self.chains[chain.key] = nil
        self.keys = self.keys - 1
    end
end

-- Finds the places of callers that have vanished.
local function heal(self, now)
    if self.healed_at and now < self.healed_at + HEAL_SECONDS then
        return
    end
    self.healed_at = now
    local sending, bytes = {}, 0
    for place in pairs(self.places) do
        sending[place.chain] = (sending[place.chain] or 0) + 1
        bytes = bytes + place.size
    end
    for _, chain in pairs(self.chains) do
        chain.sending = sending[chain] or 0
        bytes = bytes + (chain.value and chain.size or 0)
            + (chain.running and chain.running_size or 0)
        settle(self, chain)
    end
    self.bytes = bytes
end

local function has_room(self, key, size)
    return (self.chains[key] or self.keys < self.max_keys) and self.bytes + size <= self.max_bytes
end

---Holds room for a value, and its turn among those of the key.
---@param key string
---@param size integer bytes of key and value
---@param now number
---@return table|nil place for accept() or refuse(); nil: there is no room
function Queue:reserve(key, size, now)
    if not has_room(self, key, size) then
        heal(self, now)
        if not has_room(self, key, size) then
            self.refused = self.refused + 1
            return nil
        end
    end
    local chain = self.chains[key]
    if chain == nil then
        chain = { key = key, failures = 0, sending = 0, last = 0 }
        self.chains[key], self.keys = chain, self.keys + 1
    end
    chain.sending, self.bytes, self.seq = chain.sending + 1, self.bytes + size, self.seq + 1
    local place = { chain = chain, size = size, number = self.seq }
    self.places[place] = true
    return place
end

-- Ends a place; what it held of the bytes is the caller's.
local function leave(self, place)
    self.places[place] = nil
    place.chain.sending = place.chain.sending - 1
end

---The value is not to be written.
function Queue:refuse(place)
    if place.chain.is_left then
        return
    end
    leave(self, place)
    self.bytes = self.bytes - place.size
    settle(self, place.chain)
end

-- A value that no one will write: a later one took its place.
local function pass_over(self, size)
    self.bytes, self.coalesced = self.bytes - size, self.coalesced + 1
end

---The value is to be written, unless one that was reserved later was accepted before.
---@param place table
---@param value string encoded
---@param now number
---@return boolean|nil newest false: that one is to be written; nil: all was given up meanwhile
function Queue:accept(place, value, now)
    local chain = place.chain
    if chain.is_left then
        return nil
    end
    leave(self, place)
    self.accepted = self.accepted + 1
    if place.number < chain.last then
        pass_over(self, place.size)
        settle(self, chain)
        return false
    elseif chain.value then
        pass_over(self, chain.size)
    end
    chain.last, chain.value, chain.size, chain.failures = place.number, value, place.size, 0
    if not chain.is_queued and not chain.running then
        enqueue(self, chain, 0, now + self.delay)
    end
    return true
end

---Takes what is due: each key stays taken until done() or failed().
---@param most integer
---@param now number
---@return redcache.BehindChain[] batch
function Queue:take(most, now)
    local batch = {}
    while #batch < most do
        local line = next_line(self)
        local chain = line and line[line.first]
        if not chain or chain.due > now then
            break
        end
        line[line.first] = nil
        line.first = line.first + 1
        if line.first > line.last then
            line.first, line.last = 1, 0
        end
        self.queued, self.running, chain.is_queued = self.queued - 1, self.running + 1, false
        chain.running, chain.running_size, chain.value = chain.value, chain.size, nil
        batch[#batch + 1] = chain
    end
    return batch
end

local function end_run(self, chain)
    chain.running, self.running = nil, self.running - 1
end

---A value that was taken is written.
function Queue:done(chain, now)
    if chain.is_left then
        return
    end
    end_run(self, chain)
    self.bytes, self.written = self.bytes - chain.running_size, self.written + 1
    if chain.value then
        chain.failures = 0
        enqueue(self, chain, 0, now + self.delay)
    end
    settle(self, chain)
end

---A value that was taken is not written, or nobody knows. It is tried again; a later one, where
---there is one, in its place.
---@param chain redcache.BehindChain
---@param attempts integer how often a value is tried at most
---@param now number
---@return string|nil value that is given up: it is not held any more
---@return integer|nil size
function Queue:failed(chain, attempts, now)
    if chain.is_left then
        return nil
    end
    local value, size = chain.running, chain.running_size
    end_run(self, chain)
    self.failures = self.failures + 1
    if chain.value then -- a new write, but the store is as it is
        pass_over(self, size)
        chain.failures = 0
        enqueue(self, chain, 1, now + pause_behind(1))
        return nil
    end
    chain.failures = chain.failures + 1
    if chain.failures >= attempts then
        self.bytes = self.bytes - size
        settle(self, chain)
        return value, size
    end
    chain.value, chain.size = value, size
    enqueue(self, chain, chain.failures, now + pause_behind(chain.failures))
    return nil
end

---Gives up all that waits or runs, in the order of its acceptance.
---@return redcache.BehindChain[] chains with `value`, the newest of the key
function Queue:clear()
    local left = {}
    for _, chain in pairs(self.chains) do
        chain.is_left, chain.value = true, chain.value or chain.running
        if chain.value then
            left[#left + 1] = chain
        end
    end
    table.sort(left, function(a, b)
        return a.last < b.last
    end)
    self.chains, self.lines, self.highest = {}, {}, 0
    self.places = setmetatable({}, { __mode = "k" })
    self.keys, self.bytes, self.queued, self.running = 0, 0, 0, 0
    return left
end

return behind_queue
