--- What a bad line does to a stream of messages, decided by a seed.
--
-- What:   stream(settings, number, direction) is one direction of connection `number`;
--         stream:pass(message) tells how that message goes on.
-- Same:   a decision depends on the seed, the connection's number, the direction and the messages
--         before it, never on time or on how the bytes came in: the same bytes meet the same fate.
-- Fields: settings.seed, and settings.up (to the server) and settings.down, each with any of
--   delay = { chance = c, seconds = s }   the line stands still for up to s
--   split = { chance = c, pieces = n, seconds = s }   the message comes in up to n pieces, cut
--                                         anywhere, each up to s after the one before
--   throttle = n                          n bytes per second, as they trickle
--   swallow = c                           half-open: nothing goes this way from now on
--   reset = c, truncate = c               the line breaks in the middle of the message, with a
--                                         reset or an orderly end
--   finish = c                            half-close: this direction ends behind the message
--   garbage = c                           bytes of the message are replaced
--         A chance is from 0 to 1, per message. The last five exclude each other.
-- Not:    garbage that is a good answer, only another one: nobody could tell. So what is spoilt is
--         where a message says what it is, and every reader has to refuse it.

local bit = require("bit")

local bxor, lshift, rshift = bit.bxor, bit.lshift, bit.rshift

-- The first draws of seeds that are close together would be close together, too.
local WARM_UP = 32
-- A throttled line brings so many pieces per second.
local TICKS = 100
local ENDS = { "swallow", "reset", "truncate", "finish", "garbage" }

local chaos = {}
local Stream = {}
Stream.__index = Stream

-- A number from 0 to 1, 1 excluded (xorshift, 32 bits).
local function draw(self)
    local word = self.word
    word = bxor(word, lshift(word, 13))
    word = bxor(word, rshift(word, 17))
    word = bxor(word, lshift(word, 5))
    self.word = word
    return word % 2 ^ 32 / 2 ^ 32
end

local function draw_from(self, first, last)
    return first + math.floor(draw(self) * (last - first + 1))
end

--- One direction ("up" or "down") of the connection with that number. `seen` counts what happens,
-- by name.
function chaos.stream(settings, number, direction, seen)
    local word = bit.tobit(settings.seed * 65599 + number * 257 + (direction == "up" and 1 or 2))
    local self = setmetatable({
        word = word == 0 and 1 or word, direction = direction, seen = seen,
        settings = settings[direction] or {}, over = false,
    }, Stream)
    for _ = 1, WARM_UP do draw(self) end
    return self
end

local function note(self, what)
    self.seen[what] = (self.seen[what] or 0) + 1
end

-- Which of the faults that exclude each other befalls this message; nil: none.
local function choose(self)
    local left = draw(self)
    for _, what in ipairs(ENDS) do
        left = left - (self.settings[what] or 0)
        if left < 0 then
            note(self, what)
            return what
        end
    end
end

local function happens(self, what)
    local setting = self.settings[what]
    if not setting or draw(self) >= setting.chance then return nil end
    note(self, what)
    return setting
end

local function replace(message, at, byte)
    return message:sub(1, at - 1) .. byte .. message:sub(at + 1)
end

-- An answer begins with its type: it gets one that there is not. A command has a digit behind it,
-- else the server would take it for an inline command; its count becomes none.
local function spoil(self, message)
    local at = self.direction == "up" and 2 or 1
    message = replace(message, at, "x")
    for _ = 1, draw_from(self, 0, 4) do
        local byte = string.char(draw_from(self, 0, 255))
        message = replace(message, draw_from(self, at + 1, #message), byte)
    end
    return message
end

-- Cuts the message; each piece waits up to `seconds`.
local function split(self, message, setting)
    local pieces, from = {}, 1
    for left = draw_from(self, 1, setting.pieces) - 1, 0, -1 do
        local to = left == 0 and #message or draw_from(self, from, #message)
        pieces[#pieces + 1] = { bytes = message:sub(from, to), wait = draw(self) * setting.seconds }
        from = to + 1
        if from > #message then break end
    end
    return pieces
end

-- The same pieces, none of them larger than what passes in a tick.
local function trickle(pieces, rate)
    local drops, most = {}, math.max(math.floor(rate / TICKS), 1)
    for _, piece in ipairs(pieces) do
        for from = 1, #piece.bytes, most do
            local bytes = piece.bytes:sub(from, from + most - 1)
            drops[#drops + 1] = {
                bytes = bytes, wait = #bytes / rate + (from == 1 and piece.wait or 0),
            }
        end
    end
    return drops
end

--- How a message goes on: pieces {bytes, wait}, to be sent so many seconds after the one before;
-- then how the line ends: "reset" or "close", both directions, "finish", this one, or nil.
function Stream:pass(message)
    if self.over then return {} end
    local fate = choose(self)
    self.over = fate ~= nil and fate ~= "garbage"
    if fate == "swallow" then return {} end
    if fate == "garbage" then
        message = spoil(self, message)
    elseif fate == "reset" or fate == "truncate" then
        message = message:sub(1, draw_from(self, 1, #message - 1))
    end
    local delay, cut = happens(self, "delay"), happens(self, "split")
    local pieces = cut and split(self, message, cut) or { { bytes = message, wait = 0 } }
    if delay then pieces[1].wait = pieces[1].wait + draw(self) * delay.seconds end
    if self.settings.throttle then pieces = trickle(pieces, self.settings.throttle) end
    return pieces, fate == "truncate" and "close" or self.over and fate or nil
end

return chaos
