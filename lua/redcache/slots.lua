-- slots - which hash slots of a cluster were scanned, and who has those that were not.
--
-- What:   a slot is done where its master had it when that master's scan began and when it ended,
--         and it was not on its way: a key that was there all the time was there then. Of a slot
--         on its way from A to B keys go to B one by one: it is done where all of A was scanned,
--         and behind that all of B. A slot that has left meanwhile is scanned again at its new
--         master.
-- Memory: one table per scan; nodes as CLUSTER NODES names them.
-- Not:    asks nobody. A move that was begun and taken back between two looks is not seen.

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
---@return table view id, has (by slot), leaving and coming (other node, by slot), homes (a slot of
---each node that has some, by id)
function slots.read(text)
    local view = { id = "", has = {}, leaving = {}, coming = {}, homes = {} }
    for line in string.gmatch(text, "[^\r\n]+") do
        local id, flags, rest =
            string.match(line, "^(%S+) %S+ (%S+) %S+ %S+ %S+ %S+ %S+ ?(.*)$")
        if id then
            view.homes[id] = tonumber(string.match(rest, "^%d+"))
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

---A master was scanned from its first key to its last.
---@param before table view of it when the scan began
---@param after table view of it when it had ended; of another node: nothing is done
function Slots:finish(before, after)
    local done, half = self._done, self._half
    if before.id ~= after.id then
        return
    end
    for slot, one in pairs(half) do
        local was = before.has[slot] or before.coming[slot]
        local is = after.has[slot] or after.coming[slot]
        if one.to == before.id then
            half[slot] = nil -- if it is not done now, all begins again
            done[slot] = done[slot] or (was and is and not before.leaving[slot]
                and not after.leaving[slot]) or nil
        end
    end
    for slot in pairs(before.has) do
        local to = after.leaving[slot]
        if after.has[slot] and not to and not before.leaving[slot] then
            done[slot], half[slot] = true, nil
        elseif after.has[slot] and to and not done[slot] then
            half[slot] = { to = to, home = after.homes[to] }
        end
    end
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
