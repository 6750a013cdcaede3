--- Commands made up from a seed, for the spec that compares the embedded store with Redis.
--
-- What:   few keys, so that the commands meet; every option; wrong numbers, wrong options and wrong
--         counts of words among them. The engine's scripts with leases, values and markers.
-- Not:    no life that ends while the commands run: what is over was over when it was written. No
--         command that answers by chance (RANDOMKEY, INFO). Nothing of hundreds of megabytes.

local commands = {}
local Maker = {}
Maker.__index = Maker

local KEYS = { "k1", "k2", "k3", "k4", "k5" }
local WORDS = {
    "", "a", "value", "10", "-5", "3.14", "9223372036854775807", "Straße\r\n\0x", "1e3",
}
local NUMBERS = {
    "0", "1", "-1", "10", "2", "5", "-3", "x", "", "1.5", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", " 1", "+1", "01", "1 ", "-0",
}
local FLOATS = {
    "0", "1", "-1.5", "0.1", "1e3", "-2.5e-3", "x", "", "nan", "inf", " 1", "0x10", "1.",
}
-- Past the limits, or far from where memory would matter.
local OFFSETS = { "0", "1", "3", "20", "-1", "x", "536870912", "9223372036854775807", "" }
local PATTERNS = {
    "*", "k*", "k?", "k[1-3]", "k[^1]", "[k]1", "\\k1", "k[", "*1", "k1", "", "?", "k[3-1]",
}
local SET_WORDS = { "NX", "XX", "GET", "KEEPTTL", "get", "nx", "PERSIST" }
local PAST = { "1", "1000", "1600000000" }
local ON_OFF = { "ON", "on", "ON", "OFF", "x" }
local YES_NO = { "YES", "NO", "x" }
local SECOND_WORDS = { "ID", "GETNAME", "GETREDIR", "TRACKINGINFO", "FOO", "CACHING" }

-- Park and Miller's generator: exact in doubles.
local function random(self, n)
    self.state = self.state * 16807 % 2147483647
    return math.floor(self.state / 2147483647 * n) + 1
end

local function pick(self, list)
    return list[random(self, #list)]
end

local function chance(self, percent)
    return random(self, 100) <= percent
end

-- Long lives that are hardly ever the same twice: GT and LT compare them.
local function life(self)
    if chance(self, 25) then return pick(self, { "0", "-1", "x", "", "9223372036854775807",
        "-9223372036854775808", "9223372036854775", "01" }) end
    return tostring(2000000 + random(self, 30000) * 1000 + random(self, 1000))
end

local function moment(self, unit)
    if chance(self, 40) then return pick(self, PAST) end
    if chance(self, 15) then return life(self) end
    return tostring((4000000000 + random(self, 30000) * 50) * (unit == "ms" and 1000 or 1))
end

local function key(self) return pick(self, KEYS) end
local function word(self) return pick(self, WORDS) end
local function number(self) return pick(self, NUMBERS) end

local function expiry(self, into)
    local unit = pick(self, { "EX", "PX", "EXAT", "PXAT", "px", "Exat" })
    into[#into + 1] = unit
    if not chance(self, 3) then
        unit = unit:upper()
        into[#into + 1] = unit == "EXAT" and moment(self) or unit == "PXAT" and moment(self, "ms")
            or life(self)
    end
end

local function set(self)
    local words = { "SET", key(self), word(self) }
    for _ = 1, random(self, 4) - 1 do
        local what = random(self, 8)
        if what <= 3 then expiry(self, words) else words[#words + 1] = pick(self, SET_WORDS) end
    end
    return words
end

local function getex(self)
    local words = { "GETEX", key(self) }
    if chance(self, 70) then
        if chance(self, 70) then expiry(self, words) else words[3] = "PERSIST" end
        if chance(self, 10) then words[#words + 1] = "PERSIST" end
    end
    return words
end

local function expire(self)
    local name = pick(self, { "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT" })
    local words = { name, key(self), name:find("AT") and moment(self, name:find("P") == 1 and "ms")
        or life(self) }
    for _ = 1, random(self, 3) - 1 do
        words[#words + 1] = pick(self, { "NX", "XX", "GT", "LT", "gt", "FOO" })
    end
    return words
end

local function list(name, element, least)
    return function(self)
        local words = { name }
        for _ = 1, random(self, 4) - 1 + (least or 1) do words[#words + 1] = element(self) end
        return words
    end
end

local function pairs_of(name)
    return function(self)
        local words = { name }
        for _ = 1, random(self, 3) do
            words[#words + 1] = key(self)
            words[#words + 1] = word(self)
        end
        if chance(self, 10) then words[#words + 1] = key(self) end
        return words
    end
end

local function with(name, ...)
    local elements = { ... }
    return function(self)
        local words = { name }
        for _, element in ipairs(elements) do words[#words + 1] = element(self) end
        return words
    end
end

local function copy(self)
    local words = { "COPY", key(self), key(self) }
    for _ = 1, random(self, 3) - 1 do
        if chance(self, 50) then words[#words + 1] = "REPLACE" else
            words[#words + 1] = "DB"
            words[#words + 1] = pick(self, { "0", "1", "16", "-1", "x", "01" })
        end
    end
    return words
end

local function scan(self)
    local words = { "SCAN", pick(self, { "0", "0", "0", "x", "", " 0" }), "COUNT", "1000" }
    if chance(self, 50) then
        words[#words + 1] = "MATCH"
        words[#words + 1] = pick(self, PATTERNS)
    end
    if chance(self, 20) then
        words[#words + 1] = "type"
        words[#words + 1] = pick(self, { "string", "STRING", "list" })
    end
    if chance(self, 5) then words[#words + 1] = "COUNT" end
    if chance(self, 5) then words[4] = pick(self, { "0", "-1", "x" }) end
    return words
end

local function connection(self)
    local what = random(self, 10)
    if what <= 5 then return { "CLIENT", "TRACKING", pick(self, ON_OFF) } end
    if what == 6 then return { "HELLO", pick(self, { "2", "3", "3", "3", "4", "x" }) } end
    if what == 7 then return { "SELECT", pick(self, { "0", "0", "1", "16", "x" }) } end
    if what == 8 then return { "PING", chance(self, 50) and word(self) or nil } end
    if what == 9 then
        local second = pick(self, SECOND_WORDS)
        return { "CLIENT", second, second == "CACHING" and pick(self, YES_NO) or nil }
    end
    local name = pick(self, { "FLUSHDB", "FLUSHALL", "NOSUCH", "RESET" })
    return { name, chance(self, 20) and "SYNC" or nil }
end

-- How often, and what.
local CHOICES = {
    { 12, set }, { 6, getex }, { 8, expire }, { 3, copy }, { 3, scan }, { 7, connection },
    { 14, with("GET", key) }, { 6, list("MGET", key) }, { 5, list("EXISTS", key) },
    { 4, list("DEL", key) }, { 4, list("UNLINK", key) }, { 2, list("TOUCH", key) },
    { 2, with("TYPE", key) }, { 4, with("PTTL", key) }, { 2, with("TTL", key) },
    { 2, with("EXPIRETIME", key) }, { 2, with("PEXPIRETIME", key) }, { 3, with("PERSIST", key) },
    { 3, with("STRLEN", key) }, { 3, with("GETRANGE", key, number, number) },
    { 1, with("SUBSTR", key, number, number) }, { 3, with("APPEND", key, word) },
    { 3, with("SETRANGE", key, function(self) return pick(self, OFFSETS) end, word) },
    { 2, with("SETNX", key, word) }, { 2, with("SETEX", key, life, word) },
    { 2, with("PSETEX", key, life, word) }, { 2, with("GETSET", key, word) },
    { 2, with("GETDEL", key) }, { 3, pairs_of("MSET") }, { 2, pairs_of("MSETNX") },
    { 3, with("INCR", key) }, { 2, with("DECR", key) }, { 2, with("INCRBY", key, number) },
    { 2, with("DECRBY", key, number) },
    { 3, with("INCRBYFLOAT", key, function(self) return pick(self, FLOATS) end) },
    { 3, with("RENAME", key, key) }, { 2, with("RENAMENX", key, key) },
    { 1, with("KEYS", function(self) return pick(self, PATTERNS) end) }, { 1, with("DBSIZE") },
    { 1, with("ECHO", word) },
}

-- A word too few or too many.
local function miscount(self, words)
    if chance(self, 50) then words[#words + 1] = word(self)
    elseif #words > 1 then words[#words] = nil end
    return words
end

local function choose(self, choices)
    local total = 0
    for _, choice in ipairs(choices) do total = total + choice[1] end
    local at = random(self, total)
    for _, choice in ipairs(choices) do
        at = at - choice[1]
        if at <= 0 then return choice[2](self) end
    end
end

--- One command, any of the written ones.
function Maker:command()
    local words = choose(self, CHOICES)
    if chance(self, 3) then words = miscount(self, words) end
    if chance(self, 10) then words[1] = words[1]:lower() end
    return words
end

-- ---- Scripts ------------------------------------------------------------------------------------

-- As core/engine/entry.h lays an entry out.
local function entry(kind, flags, nonce, payload)
    return "\251\1" .. string.char(kind, 0, flags, 0, 0, 0) .. nonce .. ("\0"):rep(8) .. payload
end

local VALUE, NEGATIVE, ERROR, LEASE = 1, 2, 3, 4
local NONCES = { "aaaaaaaa", "bbbbbbbb", "cccc\0\r\nc" }

local function lease(self) return entry(LEASE, 0, pick(self, NONCES), "") end

local function stored(self)
    local nonce, what = pick(self, NONCES), random(self, 12)
    if what <= 5 then return lease(self) end
    if what <= 7 then return entry(VALUE, 0, nonce, "payload") end
    if what == 8 then return entry(NEGATIVE, 0, nonce, "") end
    if what == 9 then return entry(ERROR, 0, nonce, "failed") end
    if what == 10 then return entry(ERROR, 128, nonce, "for all") end
    if what == 11 then
        -- What merely looks like a lease or a marker is none.
        local odd = entry(pick(self, { LEASE, ERROR }), 0, nonce, ""):gsub("%z", "\1", 1)
        return pick(self, { "plain", "", "short12", entry(LEASE, 0, nonce, "long"), odd,
            entry(LEASE, 1, nonce, "") })
    end
    return entry(9, 0, nonce, "unknown")
end

local function nonce(self) return pick(self, NONCES) end
local function script_life(self) return chance(self, 20) and "-1" or life(self) end
local function identity(self) return chance(self, 70) and nonce(self) or stored(self) end
local function force(self) return pick(self, { "0", "0", "1" }) end

-- By enum rc_script, or number: keys, and what each argument may be.
local SCRIPTS = {
    { 1, { lease, life, nonce, identity } },             -- ACQUIRE
    { 1, { lease, stored, script_life } },               -- PUBLISH
    { 3, { lease } },                                    -- RELEASE
    { 3, { lease, life } },                              -- HEARTBEAT
    { 2, { nonce, lease, life, life } },                 -- REFRESH
    { 2, { nonce, lease, stored, script_life } },        -- REFRESH_PUBLISH
    { 3, { lease, life, life } },                        -- PUT
    { 3, { lease, stored, script_life, identity } },     -- PUT_PUBLISH
    { 3, { lease } },                                    -- PUT_RESTORE
    { 1, { nonce } },                                    -- UNLINK_VERSION
    { 2, { lease, life, identity, life, force } },       -- COVER
    { 2, { lease, stored, life, life } },                -- REFRESH_FAIL
    { 3, { stored, life, force, life }, fence = true },  -- LOCK
    { 1, { stored, life } },                             -- LOCK_RENEW
    { 2, { stored } },                                   -- LOCK_RELEASE
    { 3, { lease, stored, script_life, lease, stored, script_life, lease, stored, script_life },
        number = 19 },                                   -- PUBLISH_MANY
}
-- The fence goes by the server's clock: nothing else looks at it.
local FENCE = "fence"

--- One call of an engine script, by EVALSHA or EVAL.
function Maker:script()
    local which = random(self, #SCRIPTS)
    local shape = SCRIPTS[which]
    which = shape.number or which
    local keys = shape[1]
    if chance(self, 20) then keys = random(self, 4) - 1 end
    local words = { "EVALSHA", self.shas[which], tostring(keys) }
    if chance(self, 10) then words[1], words[2] = "EVAL", self.sources[which] end
    for i = 1, keys do words[#words + 1] = i == 2 and shape.fence and FENCE or key(self) end
    for i, argument in ipairs(shape[2]) do
        if chance(self, 3) and not shape.fence then break end
        words[3 + keys + i] = argument(self)
    end
    return words
end

--- A script, or a command that prepares or looks at what scripts work on.
function Maker:script_or_command()
    if chance(self, 60) then return self:script() end
    return choose(self, {
        { 4, with("SET", key, stored) },
        { 3, function() return { "SET", key(self), stored(self), "PX", life(self) } end },
        { 1, function() return { "SET", key(self), stored(self), "PXAT", pick(self, PAST) } end },
        { 3, function()
            return { "SET", key(self), lease(self), "NX", "GET", "PX", life(self) }
        end },
        { 4, with("GET", key) }, { 3, with("PTTL", key) }, { 2, list("DEL", key) },
        { 2, list("MGET", key) }, { 1, connection }, { 1, with("PERSIST", key) },
        { 1, function()
            return { "SCRIPT", "EXISTS", pick(self, self.shas), pick(self, self.shas) }
        end },
        { 3, function() return { "SCRIPT", "LOAD", pick(self, self.sources) } end },
        { 1, function()
            if chance(self, 85) then return { "SCRIPT", "LOAD", pick(self, self.sources) } end
            return { "SCRIPT", "FLUSH", chance(self, 30) and "x" or nil }
        end },
    })
end

--- Steps of twins.lua: `count` commands over `connections`, 1 to 4 of them in one write.
function Maker:steps(count, connections, make)
    local steps = {}
    while count > 0 do
        local step = { random(self, connections) }
        for i = 1, math.min(random(self, 4), count) do
            step[i + 1] = make(self)
            count = count - 1
        end
        steps[#steps + 1] = step
    end
    return steps
end

--- A maker; `scripts` = {shas = , sources = } where it is to make calls of scripts.
function commands.new(seed, scripts)
    local self = setmetatable({ state = seed % 2147483646 + 1 }, Maker)
    if scripts then self.shas, self.sources = scripts.shas, scripts.sources end
    for _ = 1, 5 do random(self, 2) end -- the first ones of neighbouring seeds are alike
    return self
end

return commands
