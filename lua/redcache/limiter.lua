-- limiter - how often something may happen: fixed window, sliding window, GCRA.
--
-- What:   take(key, n), peek, reset. One script reads the state of a key, which is one string of
--         numbers, decides by the server's clock, and writes it back where it granted something.
--         Its twin for memory:// is core/store/limit_scripts.c.
-- Bounds: fixed and GCRA are exact. A sliding window counts its takes in CELLS parts of the window,
--         and each part until all of it is over: never above the limit in any window, and a take
--         makes room at most one part later than it could.
-- Budget: a limiter that takes `budget` units at once gives them to its callers without asking;
--         those that are older than the window are thrown away.
-- Errors: what Redis did not count is decided by onUnavailable. A take is never sent again on its
--         own.
-- Not:    no list of the takes: a state is at most 65 counts long, whatever the limit.

local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_clock = require("redcache.core.clock")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")
local errors = require("redcache.errors")
local namespace = require("redcache.namespace")
local options = require("redcache.options")
local usage = require("redcache.usage")

local limiter = {}

-- Parts of a sliding window: 1 / 64 is below the 2 % that its users are told.
local CELLS = 64
-- Whole numbers up to here are exact as Lua numbers, in Redis' scripts, too.
local EXACT = 2 ^ 53
-- So many keys hold a budget, and as many more those that were used before.
local BUDGETS = 4096

-- K; kind, the least and the most that is taken, the limit (GCRA: the burst), span, rate
-- -> {taken, room left, microseconds to a fresh state, microseconds until the least can be taken}.
-- "r" resets: K -> 1 there was a state | 0.
-- f: span is the window. State: its end, its count.
-- s: span is a part's length, rate how many there are. State: the newest part, span, counts from
--    the newest part on.
-- g: each microsecond pays `rate` of what is owed, and a unit costs span. State: when, what is
--    owed, span.
-- Times are microseconds of the server's clock. One that is set back frees nothing.
local TAKE = [[
if ARGV[1]=='r' then return redis.call('UNLINK',KEYS[1]) end
local t=redis.call('TIME')
local now=t[1]*1000000+t[2]
local a={}
for i=2,6 do a[i]=tonumber(ARGV[i]) end
local least,most,cap,span,rate=a[2],a[3],a[4],a[5],a[6]
local s,old={},redis.call('GET',KEYS[1])
if old and string.sub(old,1,1)==ARGV[1] then
for x in string.gmatch(old,'%d+') do s[#s+1]=tonumber(x) end
end
local room,took,reset,wait=0,0,0,0
local function grant()
if room>=least then took=math.min(most,room) room=room-took end
end
if ARGV[1]=='f' then
local ends,count=now+span,0
if #s==2 and now<s[1] then ends,count=math.min(ends,s[1]),s[2] end
room=cap-count
if room<least then wait=ends-now end
grant()
count=count+took
if count>0 then reset=ends-now end
s={ends,count}
elseif ARGV[1]=='s' then
local cell,n,sum=math.floor(now/span),{},0
for i=1,rate+1 do n[i]=0 end
for i=3,#s do
local to=s[2]==span and i-2+math.max(cell-s[1],0) or 1
if to<=rate+1 then n[to]=n[to]+s[i] sum=sum+s[i] end
end
room=cap-sum
local need=least-room
grant()
n[1]=n[1]+took
s={cell,span}
for i=rate+1,1,-1 do
if n[i]>0 then
reset=(cell-i+rate+2)*span-now
if need>0 then
need=need-n[i]
if need<=0 then wait=reset end
end
end
if reset>0 then s[i+2]=n[i] end
end
else
local owed=0
if #s==3 and s[3]>0 then
owed=s[2]
if s[3]~=span then owed=math.ceil(owed/s[3]*span) end
owed=math.max(owed-math.max(now-s[1],0)*rate,0)
end
room=math.floor((cap*span-owed)/span)
if room<least then wait=math.ceil((owed+least*span-cap*span)/rate) end
grant()
owed=owed+took*span
reset=math.ceil(owed/rate)
s={now,owed,span}
end
if took>0 then
for i=1,#s do s[i]=string.format('%.0f',s[i]) end
redis.call('SET',KEYS[1],ARGV[1]..' '..table.concat(s,' '),'PX',math.ceil(reset/1000)+1)
end
return {took,math.max(room,0),reset,wait}
]]

-- Defined at the first take: a script takes one of the process's 1,024 places.
local script

-- How Redis failed where nobody knows whether it would have granted.
local UNDECIDED = { unavailable = true, timeout = true, outcomeUnknown = true, overload = true,
    redis = true }

---@class redcache.LimitInfo
---@field remaining integer units that can be taken now; with a budget, as far as is known here
---@field resetAfter number seconds until nothing of what was taken counts any more
---@field retryAfter number seconds until so many units can be taken; 0 where they were

---@class redcache.Limiter
local Limiter = {}
Limiter.__index = Limiter

local function gcd(a, b)
    while b > 0 do
        a, b = b, a % b
    end
    return a
end

-- Span and rate of the script, for a kind.
local SPANS = {
    fixed = function(_, window) return window, 0 end,
    sliding = function(_, window) return math.ceil(window / CELLS), CELLS end,
    gcra = function(limit, window)
        local common = gcd(limit, window)
        return window / common, limit / common
    end,
}
local LETTERS = { fixed = "f", sliding = "s", gcra = "g" }

local function text(number)
    return ("%.0f"):format(number)
end

-- Checks what a caller gave, at the line of the user. own
local function door(self, key, n, opts, method)
    if type(key) ~= "string" then
        error(errors.argument("key", method, "string", key), 3)
    elseif type(n) ~= "number" or not (n >= 1 and n <= self._most and n % 1 == 0) then
        error(("bad argument 'n' to %s: whole number from 1 to %d expected, got %s"):format(method,
            self._most, type(n) == "number" and ("%.14g"):format(n) or type(n)), 3)
    elseif opts == nil then
        return nil
    end
    local own, message = options.read({}, opts, "call", method)
    if own == nil then
        error(message, 3)
    end
    return own
end

-- Runs the script. taken, info | nil, err, sent
local function ask(self, own, key, least, most, flags, action)
    script = script or core_command.define(TAKE)
    local slot, err, sent = calls.script(self._keys, own, script, flags, { key }, {
        self._letter, text(least), text(most), text(self._most), self._span, self._rate,
    }, action)
    if slot == nil then
        return nil, err, sent
    end
    local nodes, length = core_command.nodes(slot)
    if length ~= 5 then
        err = core_command.node_failure(nodes[0], action, key)
        core_slot.give(slot)
        return nil, err
    end
    local taken, info = tonumber(nodes[1].integer), {
        remaining = tonumber(nodes[2].integer),
        resetAfter = tonumber(nodes[3].integer) / 1e6,
        retryAfter = tonumber(nodes[4].integer) / 1e6,
    }
    core_slot.give(slot)
    return taken, info
end

-- The budget of a key: what is here and not too old. Two generations bound how many are kept.
local function budget_of(self, key, now)
    local held = self._young[key]
    if held == nil then
        held = self._old[key]
        if held == nil then
            held = { left = 0, ends = 0, remaining = 0, resets = 0, asks = 0 }
        end
        if self._count >= BUDGETS then
            self._old, self._young, self._count = self._young, {}, 0
        end
        self._young[key], self._count = held, self._count + 1
    end
    if now >= held.ends then
        held.left = 0
    end
    return held
end

-- Takes from the budget of a key: info, or nil where it holds too little.
local function take_here(held, n, now)
    if held.left < n then
        return nil
    end
    held.left = held.left - n
    return { remaining = held.remaining + held.left, resetAfter = math.max(held.resets - now, 0),
        retryAfter = 0 }
end

-- Keeps what was taken beyond what the caller wants.
local function keep(self, held, more, info)
    local now = core_clock.now(self._client)
    if now >= held.ends then
        held.left = 0 -- it became too old while Redis was asked
    end
    held.left, held.remaining, held.resets = held.left + more, info.remaining, now + info.resetAfter
    -- Units of a fixed window are those of this window.
    held.ends = now + (self._letter == "f" and info.resetAfter or self._window)
    info.remaining = info.remaining + held.left
end

-- Takes with a budget: as ask().
local function take_ahead(self, own, key, n)
    local closed = core_client.closed(self._client, "take", key)
    if closed then
        return nil, closed
    end
    local now = core_clock.now(self._client)
    local held = budget_of(self, key, now)
    local info = take_here(held, n, now)
    if info then
        return n, info
    end
    -- Other callers that ask meanwhile take for themselves alone, so at most one budget is held. An
    -- ask whose light thread has died is over by then.
    local is_first = now >= held.asks
    if is_first then
        held.asks = now + (own and own.timeout or self._client.command_timeout)
    end
    local taken, err, sent = ask(self, own, key, n, is_first and math.max(n, self._budget) or n, 0,
        "take")
    if is_first then
        held.asks = 0
    end
    if taken and taken > n then
        keep(self, held, taken - n, err)
    end
    return taken, err, sent
end

---Takes n units of a key's limit, all or none.
---@param key string whose limit it is: a user, an address
---@param n? integer from 1 to the limit (GCRA: the burst); 1
---@param opts? table timeout, cancelTag
---@return boolean|nil allowed where Redis did not count, what onUnavailable says; nil: err
---@return redcache.LimitInfo|redcache.Error info where Redis did not count, all its numbers are 0;
---err: tooLarge, cancelled, closed
---@return redcache.Error|string|nil cause why Redis did not count: unavailable, timeout,
---outcomeUnknown (it may have), overload, redis; "sent": this phase of nginx cannot wait, so it is
---counted, and onUnavailable says whether it is allowed
function Limiter:take(key, n, opts)
    n = n == nil and 1 or n
    local own = door(self, key, n, opts, "take")
    local taken, info, sent
    if self._budget then
        taken, info, sent = take_ahead(self, own, key, n)
    else
        taken, info, sent = ask(self, own, key, n, n, 0, "take")
    end
    if taken then
        return taken > 0, info
    elseif sent or UNDECIDED[info.code] then
        return self._opens, { remaining = 0, resetAfter = 0, retryAfter = 0 }, sent or info
    end
    return nil, info
end

---What take() would find, without taking anything. What is held here as a budget is no part of it.
---@param key string
---@param opts? table timeout, cancelTag
---@return redcache.LimitInfo|nil info retryAfter is that of one unit
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, overload, closed,
---redis, cannotWait
function Limiter:peek(key, opts)
    local own = door(self, key, 1, opts, "peek")
    if not self._cache._scheduler.can_wait() then
        return nil, core_slot.failure(nil, constants.NOT_WAITED, "peek", key)
    end
    local taken, info = ask(self, own, key, 1, 0, constants.RETRY, "peek")
    return taken and info or nil, not taken and info or nil
end

---Forgets what was taken of a key, here and in Redis. Budgets of other processes stay theirs.
---@param key string
---@param opts? table timeout, cancelTag
---@return boolean|nil reset false: nothing had been taken
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, outcomeUnknown,
---overload, closed, redis
---@return string|nil sent "sent": this phase of nginx cannot wait, so nobody knows how it ends
function Limiter:reset(key, opts)
    local own = door(self, key, 1, opts, "reset")
    if self._budget then
        self._young[key], self._old[key] = nil, nil
    end
    script = script or core_command.define(TAKE)
    local slot, err, sent = calls.script(self._keys, own, script, constants.RETRY, { key }, { "r" },
        "reset")
    if slot == nil then
        return sent and true or nil, err, sent
    end
    local node = core_command.nodes(slot)[0]
    local found = node.integer == 1
    if core_command.is_error(node) then
        found, err = nil, core_command.node_failure(node, "reset", key)
    end
    core_slot.give(slot)
    return found, err
end

usage.guard("limiter", Limiter, "_keys")

-- The settings, whole; or nil, the text of an argument error.
local function settings_of(opts)
    local settings, message = options.complete(opts, "limiter", "limiter")
    if settings == nil then
        return nil, message
    end
    for _, name in ipairs({ "limit", "window" }) do
        if settings[name] == nil then
            return nil, ("bad option '%s' to limiter: number expected, got nil"):format(name)
        end
    end
    local kind, limit = settings.kind, settings.limit
    if settings.burst and kind ~= "gcra" then
        return nil, "bad option 'burst' to limiter: it is for kind = \"gcra\""
    end
    local most = settings.burst or limit
    if settings.budget and settings.budget > most then
        return nil, "bad option 'budget' to limiter: it is above "
            .. (settings.burst and "burst" or "limit")
    end
    local window = math.floor(settings.window * 1e6 + 0.5)
    local span, rate = SPANS[kind](limit, window)
    if kind == "gcra" and span * (most + settings.limit) >= EXACT then
        return nil, "bad option 'limit' to limiter: with this window it is more than 53 bits can"
            .. " count exactly: let one be a multiple of the other"
    end
    return settings, nil, most, span, rate
end

---A limiter: how often something may happen, counted for all processes by Redis. It holds nothing
---by itself but its budget: those of one name and namespace share what they count.
---@param opts table kind ("gcra", "fixed", "sliding"), limit (units in a window), window (seconds),
---burst (GCRA: units at once; the limit), name (of what is counted; the kind), onUnavailable
---("allow" or "deny" where Redis does not answer), budget (units that are taken ahead; none)
---@return redcache.Limiter
function limiter.limiter(self, opts)
    local settings, message, most, span, rate = settings_of(opts)
    if settings == nil then
        error(message, 2)
    end
    local client = self._client
    return setmetatable({
        _cache = self, _client = client,
        _keys = calls.under(client,
            namespace.limit_prefix(self._prefix, settings.name or settings.kind), self),
        _letter = LETTERS[settings.kind], _most = most, _span = text(span), _rate = text(rate),
        _window = settings.window, _opens = settings.onUnavailable == "allow",
        _budget = settings.budget, _young = {}, _old = {}, _count = 0,
    }, Limiter)
end

---The script, for specs.
limiter.SOURCE = TAKE

return limiter
