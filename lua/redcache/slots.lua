-- slots - which hash slots of a cluster were scanned, and who has those that were not.
--
-- What:   a master that is scanned is looked at (CLUSTER NODES) before its first key, behind its
--         last, and in between. From one look to the next it had all the time what it had at both,
--         if its epoch is the same at both: a slot that comes to a master, or back to it, brings it
--         a greater one. Such a slot is done where it was not on its way, either: a key that was
--         there all the time was there then. Of a slot on its way from A to B keys go to B one by
--         one: it is done where all of A was scanned, and behind that all of B, and A has not taken
--         a slot meanwhile. A slot that has left is scanned again at its new master.
-- Memory: one table per scan, one per look; nodes as CLUSTER NODES names them.
-- Source: the Redis Cluster specification, "Configuration epoch"; held against Redis 7.0, 8.0, 8.6
--         and Valkey 9.1, slots moved key by key and atomically. A master that has not heard yet
--         whom it lost the slot to keeps its epoch, but then it does not keep the slot.
-- Not:    asks nobody. A move that is begun and given up between two looks, its keys brought back
--         without a change of owner, is not seen.

local core_command = require("redcache.core.command")

local COUNT = 16384

local slots = {}

---@class redcache.Slots
local Slots = {}
Slots.__index = Slots

---@return redcache.Slots
function slots.new()
    return setmetatable({ _done = {}, _next = 0, _half = {} }, Slots)
end

local function read_slot_word(view, word)
    local first, last = string.match(word, "^(%d+)%-?(%d*)$")
    if first then
        for slot = tonumber(first), tonumber(last) or tonumber(first) do
            view.has[slot] = true
            view.last = slot
        end
        return
    end
    local slot, way, node = string.match(word, "^%[(%d+)%-([<>])%-(%w+)%]$")
    if slot then
        view[way == ">" and "leaving" or "coming"][tonumber(slot)] = node
    end
end

---What a master says of itself in its answer to CLUSTER NODES.
---@param text string
---@return table view id, has (by slot), last (slot of those), leaving and coming (other node, by
---slot), homes (a slot of each node that has some, by id), epochs (of each node, by id)
function slots.read(text)
    local view = { id = "", has = {}, leaving = {}, coming = {}, homes = {}, epochs = {} }
    for line in string.gmatch(text, "[^\r\n]+") do
        local id, flags, epoch, rest =
            string.match(line, "^(%S+) %S+ (%S+) %S+ %S+ %S+ (%S+) %S+ ?(.*)$")
        if id then
            view.homes[id] = tonumber(string.match(rest, "^%d+"))
            view.epochs[id] = epoch
        end
        if id and string.find(flags, "myself", 1, true) then
            view.id = id
            for word in string.gmatch(rest, "%S+") do
                read_slot_word(view, word)
            end
        end
    end
    return view
end

---Whether the slot of that name was done before.
---@param name string
---@return boolean
function Slots:has_done(name)
    return self._done[core_command.key_slot(name)] == true
end

---The next slot to go to.
---@return integer|nil slot one of the master that is to be scanned; nil: all are done
---@return string|nil lost a node without slots that one is on its way to: nobody can ask it
function Slots:next()
    while self._done[self._next] do
        self._next = self._next + 1
    end
    if self._next == COUNT then
        return nil
    end
    local half = self._half[self._next]
    if half and half.home == nil then
        self._half[self._next] = nil
        return self._next, half.to
    end
    return half and half.home or self._next
end

-- ---- The scan of one master.

-- Stands for "that node, and it has taken no slot since". nil: the view does not know it.
local function tag_of(view, id)
    return id and view.epochs[id] and id .. " " .. view.epochs[id]
end

-- From look to look these only lose slots: whole (the master had them), going (it had them, and
-- from some look on they were on their way to that node), coming (from that node, with that tag,
-- or already here).
---@class redcache.SlotsPass
local Pass = {}
Pass.__index = Pass

---@param view table what the master says before its first key
---@return redcache.SlotsPass pass
function slots.begin(view)
    local pass = { id = view.id, tag = tag_of(view, view.id), whole = {}, going = {}, coming = {} }
    for slot in pairs(view.has) do
        pass.whole[slot] = true
    end
    for slot, from in pairs(view.coming) do
        pass.coming[slot] = tag_of(view, from)
    end
    return setmetatable(pass, Pass)
end

-- Drops what the master does not have in this view.
local function narrow(pass, view)
    local whole, going, coming = pass.whole, pass.going, pass.coming
    for slot, to in pairs(going) do
        if not view.has[slot] or view.leaving[slot] ~= to then
            going[slot] = nil
        end
    end
    for slot, tag in pairs(coming) do
        local is_here = view.has[slot] and not view.leaving[slot]
        if not is_here and tag_of(view, view.coming[slot]) ~= tag then
            coming[slot] = nil
        end
    end
    for slot in pairs(whole) do
        local to = view.leaving[slot]
        if to or not view.has[slot] then
            whole[slot] = nil
            going[slot] = view.has[slot] and to
        end
    end
end

---A stretch of the scan was done between two looks.
---@param before table view
---@param after table view
---@return boolean counts false: nobody knows what the master had meanwhile, or another node has
---answered: the stretch is to be done again, behind another look
function Pass:keep(before, after)
    local tag = tag_of(before, self.id)
    if before.id ~= self.id or after.id ~= self.id or tag_of(after, self.id) ~= tag then
        return false
    end
    if tag ~= self.tag then
        self.tag, self.going = tag, {} -- they may have been back
    end
    narrow(self, before)
    narrow(self, after)
    self.homes = after.homes
    return true
end

---A master was scanned from its first key to its last, all stretches of it kept.
---@param pass redcache.SlotsPass
---@return boolean helped slots are done now, or half done, and were not
function Slots:finish(pass)
    local done, half, helped = self._done, self._half, false
    local function mark(slot)
        helped = helped or not done[slot]
        done[slot], half[slot] = true, nil
    end
    for slot, one in pairs(half) do
        if one.to == pass.id then
            half[slot] = nil -- if it is not done now, all begins again
            if pass.coming[slot] == one.tag then
                mark(slot)
            end
        end
    end
    for slot in pairs(pass.whole) do
        mark(slot)
    end
    for slot, to in pairs(pass.going) do
        if not done[slot] then
            helped = helped or half[slot] == nil
            half[slot] = { to = to, home = pass.homes[to], tag = pass.tag }
        end
    end
    return helped
end

---A key of that slot.
---@param slot integer
---@return string
function slots.key_of(slot)
    local number = 0
    while core_command.key_slot(tostring(number)) ~= slot do
        number = number + 1
    end
    return tostring(number)
end

return slots
