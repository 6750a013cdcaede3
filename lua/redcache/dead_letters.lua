-- dead_letters - writes that were given up: one a key, the newest, with the reason.
--
-- Memory: at most so many, and so many bytes; beyond it the oldest ones are dropped and counted.
-- Not:    nobody is told here (write_behind.lua does that).

local dead_letters = {}
local Letters = {}
Letters.__index = Letters

---@class redcache.DeadLetter
---@field key string
---@field value string encoded
---@field size integer bytes of key and value
---@field reason string
---@field attempts integer

---@param keys integer
---@param bytes integer
---@return table letters
function dead_letters.new(keys, bytes)
    local ends = {}
    ends.next, ends.previous = ends, ends
    return setmetatable({
        max_keys = keys, max_bytes = bytes, by_key = {}, ends = ends, count = 0, bytes = 0,
        dropped = 0,
    }, Letters)
end

---Takes a letter out.
---@param key string
---@return redcache.DeadLetter|nil letter
function Letters:take(key)
    local letter = self.by_key[key]
    if letter then
        self.by_key[key] = nil
        letter.previous.next, letter.next.previous = letter.next, letter.previous
        self.count, self.bytes = self.count - 1, self.bytes - letter.size
    end
    return letter
end

---Adds a letter, in place of an older one of the key.
---@param letter redcache.DeadLetter
function Letters:add(letter)
    self:take(letter.key)
    local ends = self.ends
    letter.next, letter.previous = ends, ends.previous
    ends.previous.next, ends.previous = letter, letter
    self.by_key[letter.key] = letter
    self.count, self.bytes = self.count + 1, self.bytes + letter.size
    while self.count > self.max_keys or self.bytes > self.max_bytes do
        self:take(ends.next.key)
        self.dropped = self.dropped + 1
    end
end

---@param limit number
---@return redcache.DeadLetter[] letters the oldest first
function Letters:list(limit)
    local list, letter = {}, self.ends.next
    while letter ~= self.ends and #list < limit do
        list[#list + 1] = letter
        letter = letter.next
    end
    return list
end

return dead_letters
