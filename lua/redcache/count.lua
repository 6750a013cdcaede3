-- count - counters: plain Redis numbers, changed in one step that also begins them.
--
-- What:   incr, decr, incrFloat. One script looks at the bounds, begins a counter with its ttl and
--         adds; its twin for memory:// is core/store/count_scripts.c.
-- Errors: an addition is never sent again on its own: where the connection breaks behind it, the
--         caller is told outcomeUnknown.
-- Not:    entries with a header are no numbers: Redis refuses them, and they stay. A running load
--         or a remembered "no such thing" counts as absent: the counter takes its place.

local bloom = require("redcache.bloom")
local calls = require("redcache.calls")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_number = require("redcache.core.number")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")
local present = require("redcache.present")

local give = core_slot.give

local count = {}

-- Whole numbers up to here are exact as Lua numbers, in Redis' scripts, too.
local EXACT = 2 ^ 53

-- K; "INCRBY" or "INCRBYFLOAT", what is added, what a new counter begins with, its ttl or -1, min,
-- max ("": none) -> {1, number} | {0, number or ""} out of bounds, nothing has changed.
-- Integers from 2^53 on are not exact here, and Lua and Redis do not agree about every text (" 1",
-- "0x10"): then Redis adds first, and the result, which the bounds are told from exactly, is taken
-- back where it lies outside.
local ADD = present.NOTHING .. [[
local v=redis.call('GET',KEYS[1])
local fresh=nothing(KEYS[1],v)
local function out(x)
return ARGV[5]~='' and x<tonumber(ARGV[5]) or ARGV[6]~='' and x>tonumber(ARGV[6])
end
local base,by=fresh and ARGV[3] or v,tonumber(ARGV[2])
base=string.find(base,'^-?[%d.][%de.+-]*$') and tonumber(base)
local exact=base and (ARGV[1]~='INCRBY' or math.abs(base)<2^53 and math.abs(by)<2^53)
if exact and out(base+by) then return {0,fresh and '' or v} end
if fresh and ARGV[4]=='-1' then redis.call('SET',KEYS[1],ARGV[3])
elseif fresh then redis.call('SET',KEYS[1],ARGV[3],'PX',ARGV[4]) end
redis.call(ARGV[1],KEYS[1],ARGV[2])
local sum=redis.call('GET',KEYS[1])
if exact or not out(tonumber(sum)) then return {1,sum} end
if fresh then redis.call('UNLINK',KEYS[1]) return {0,''} end
redis.call('SET',KEYS[1],v,'KEEPTTL')
return {0,v}
]]

-- Defined at the first count: a script takes one of the process's 1,024 places.
local script

local function is_exact(value)
    return type(value) == "number" and value > -EXACT and value < EXACT and value % 1 == 0
end

-- The kinds of number a counter can have: how Redis adds, which numbers it takes.
local WHOLE = {
    command = "INCRBY",
    expected = "whole number between -2^53 and 2^53 or int64",
    takes = function(value) return is_exact(value) or core_number.is_int64(value) end,
    bounds = is_exact,
    sum = core_number.sum,
    parse = core_number.parse,
}
local FLOAT = {
    command = "INCRBYFLOAT",
    expected = "finite number",
    takes = function(value)
        return type(value) == "number" and value - value == 0
    end,
    bounds = function() return true end, -- options have checked them
    sum = function(a, b) return a + b end,
    parse = tonumber,
}

-- Checks what a caller gave. own | nil, message
local function check(kind, key, by, opts, method)
    if type(key) ~= "string" then
        return nil, errors.argument("key", method, "string", key)
    elseif not kind.takes(by) then
        return nil, errors.argument("n", method, kind.expected, by)
    end
    local own, message = options.read({}, opts, "count", method)
    if own == nil then
        return nil, message
    end
    for _, name in ipairs({ "init", "min", "max" }) do
        if own[name] ~= nil and not kind.bounds(own[name]) then
            return nil, ("bad option '%s' to %s: whole number expected, got a fraction")
                :format(name, method)
        end
    end
    if own.min and own.max and own.min > own.max then
        return nil, ("bad option 'min' to %s: it is above max"):format(method)
    end
    own.init = own.init or 0
    if kind.sum(own.init, by) == nil then
        return nil, ("bad argument 'n' to %s: with init it is beyond 64 bits"):format(method)
    end
    return own
end

local function text_of(value)
    return value ~= nil and core_number.format(value) or ""
end

-- The answer of the script: value | nil, err
local function read(slot, kind, action, key)
    local nodes, length = core_command.nodes(slot)
    if length ~= 3 then
        return nil, core_command.node_failure(nodes[0], action, key)
    end
    local text = core_command.node_text(nodes[2])
    local value = kind.parse(text)
    if nodes[1].integer == 1 then
        return value
    end
    local err = errors.new("bound", action, key, "it would leave its bounds")
    err.value = value
    return nil, err
end

local function add(self, kind, key, by, opts, method)
    by = by == nil and 1 or by
    local own, message = check(kind, key, by, opts, method)
    if own == nil then
        error(message, 3)
    end
    local unfit = self._bloom and bloom.add(self, key, own)
    if unfit then
        return nil, unfit
    end
    script = script or core_command.define(ADD)
    local ms = core_entry.life_ms(own.ttl or self._settings.ttl, 0)
    local slot, err, sent = calls.script(self, own, script, 0, { key }, {
        kind.command, core_number.format(by), core_number.format(own.init),
        ("%.0f"):format(ms > 0 and ms or -1), text_of(own.min), text_of(own.max),
    }, "count")
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local value
    value, err = read(slot, kind, "count", key)
    give(slot)
    return value, err
end

---Adds to a counter, a plain Redis number, in one step. Where there is none it begins with `init`
---and its ttl, and then n is added; a counter that is there keeps its ttl.
---@param key string
---@param n? integer whole number between -2^53 and 2^53, or an int64 cdata; 1
---@param opts? table ttl (seconds or FOREVER, for a counter that begins; the cache's ttl), init
---(0), min, max (whole numbers between -2^53 and 2^53), timeout, cancelTag
---@return integer|ffi.cdata*|true|nil value a number; from 2^53 on an int64 cdata: never rounded
---@return redcache.Error|nil err bound (it would leave min or max: nothing has changed; err.value
---is the counter, nil where there is none), redis (what stands there is no whole number, or the sum
---is beyond 64 bits), outcomeUnknown (it may have been added), tooLarge, timeout, cancelled,
---unavailable, overload, closed
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function count.incr(self, key, n, opts)
    local value, err, sent = add(self, WHOLE, key, n, opts, "incr")
    return value, err, sent
end

---Subtracts from a counter; as incr in everything else.
---@param key string
---@param n? integer as incr's, but -2^63; 1
---@param opts? table as incr
---@return integer|ffi.cdata*|true|nil value
---@return redcache.Error|nil err as incr
---@return string|nil sent as incr
function count.decr(self, key, n, opts)
    n = n == nil and 1 or n
    if not WHOLE.takes(n) or n == core_number.LEAST then
        error(type(key) == "string" and errors.argument("n", "decr", WHOLE.expected, n)
            or errors.argument("key", "decr", "string", key), 2)
    end
    local value, err, sent = add(self, WHOLE, key, -n, opts, "decr")
    return value, err, sent
end

---Adds to a counter that need not be whole. Redis adds in its widest float and keeps 17 digits; min
---and max are compared before, in 64-bit floats.
---@param key string
---@param n? number finite; 1
---@param opts? table as incr; init, min and max need not be whole
---@return number|true|nil value
---@return redcache.Error|nil err as incr
---@return string|nil sent as incr
function count.incrFloat(self, key, n, opts)
    local value, err, sent = add(self, FLOAT, key, n, opts, "incrFloat")
    return value, err, sent
end

return count
