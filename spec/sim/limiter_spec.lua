-- Rate limiters of several processes in generated histories: takes, looks and resets of random
-- sizes, budgets, requests and answers that are late or lost, callers that come in between, all
-- under a clock that the history moves. The server's decisions are held to a model that knows every
-- take (limit_model.lua), the processes' to an account of what they were given. Then the same with
-- planted bugs, each of which must be found.
--
-- Env: REDCACHE_LIMIT_SEEDS: how many histories (150; 20000 take five minutes).

local calls = require("redcache.calls")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local limit_model = require("spec.support.limit_model")
local limiter = require("redcache.limiter")
local planted = require("spec.support.planted")
local redcache = require("redcache")

local SEEDS = tonumber(os.getenv("REDCACHE_LIMIT_SEEDS") or 150)
-- A planted bug is found within so many; the seldomest took 45.
local MUTANT_SEEDS = 400
local STEPS = 120
local KEYS = { "a", "b" }
local TIMEOUT = 5 -- longer than anything here is late

local function pick(list) return list[math.random(#list)] end
local function chance(of) return math.random() < of end

local History = {}
History.__index = History

local function new_settings()
    local settings = { kind = pick({ "fixed", "sliding", "gcra" }), limit = pick({ 2, 5, 10, 64 }),
        window = pick({ 0.1, 1, 1.5, 60 }), onUnavailable = pick({ "allow", "deny" }) }
    if settings.kind == "gcra" and chance(0.5) then settings.burst = pick({ 3, 10, 100 }) end
    local most = settings.burst or settings.limit
    if chance(0.6) then settings.budget = math.random(2, most) end
    return settings
end

local function new_history(module, seed)
    math.randomseed(seed)
    local self = setmetatable({
        time = redcache.clock(), at = 0, settings = new_settings(), processes = {}, models = {},
        passes = {}, depth = 0, taken = 0, refused = 0, lost = 0, kept = 0,
        trouble = pick({ 0, 0.1, 0.3 }),
    }, History)
    for i = 1, math.random(1, 4) do
        local cache = redcache.new({ url = "memory://limits" .. seed, clock = self.time,
            group = "p" .. i, near = false, namespace = "app", commandTimeout = TIMEOUT })
        local one = { cache = cache, limiter = module.limiter(cache, self.settings), held = {} }
        for _, key in ipairs(KEYS) do
            -- What it was given and has not used: so much, until then; surely known until then.
            one.held[key] = { left = 0, ends = 0, surely = 0, asks = 0 }
        end
        self.processes[i] = one
    end
    for _, key in ipairs(KEYS) do
        self.models[key] = limit_model.new(self.settings, self:now())
        self.passes[key] = {}
    end
    return self
end

function History:now() return 1577836800000000 + self.at end

function History:elapse(us)
    self.at = self.at + us
    self.time:advance(us / 1e6)
end

function History:complain(format, ...)
    self.fault = self.fault or format:format(...)
end

function History:expect(what, expected, got)
    if expected ~= got then
        self:complain("%s: %s is expected, %s is what came", what, tostring(expected),
            tostring(got))
    end
end

-- What the server answers, by the model.
function History:decide(key, least, most)
    local model, now = self.models[key], self:now()
    local room = model:room(now)
    local took = room >= least and math.min(most, room) or 0
    local wait = room >= least and 0 or model:when(now, least) - now
    if took > 0 then model:take(now, took) end
    return { took, math.max(room - took, 0), model:when(now, model.most) - now, wait }
end

-- calls.script of the limiters: late, lost, with others in between.
function History:script(real, one, ...)
    local words, key = select(6, ...), select(5, ...)[1]
    local call, held = self.call, one.held[key]
    local is_calm = self.is_calm
    local function be_late()
        if not is_calm and chance(0.2) then
            local us = math.random(1, 50000)
            call.late = call.late + us
            self:elapse(us)
        end
        if not is_calm and self.depth < 2 and chance(0.15) then
            self:step()
            call.is_mixed = true
        end
    end
    if not is_calm and chance(self.trouble) then
        self.lost, call.is_lost = self.lost + 1, true
        return nil, errors.new("unavailable", "take", key, "planned")
    end
    local is_take = words[1] ~= "r" and words[3] ~= "0"
    if is_take then
        self:expect("so many are asked for", (held.asks > 0 or not self.settings.budget)
            and tonumber(words[2]) or math.max(tonumber(words[2]), self.settings.budget),
            tonumber(words[3]))
    end
    held.asks = held.asks + (is_take and 1 or 0)
    be_late()
    local slot, err, sent = real(...)
    local nodes = slot and core_command.nodes(slot)
    if words[1] == "r" then
        self.models[key].takes, self.passes[key] = {}, { reset_at = self:now() }
    elseif slot then
        local answer = self:decide(key, tonumber(words[2]), tonumber(words[3]))
        for i = 1, 4 do
            self:expect("answer " .. i, answer[i], tonumber(nodes[i].integer))
        end
        call.answer, call.done_at = answer, self:now()
    end
    be_late()
    held.asks = held.asks - (is_take and 1 or 0)
    if not is_calm and chance(self.trouble) and slot then
        core_slot.give(slot)
        self.lost, call.is_lost, call.answer = self.lost + 1, true, nil
        return nil, errors.new("outcomeUnknown", "take", key, "planned")
    end
    return slot, err, sent
end

-- n units of a key were used: never too many within any window.
function History:pass(key, n, at)
    local settings, passes, sum = self.settings, self.passes[key], 0
    self.taken = self.taken + n
    if passes.reset_at and at <= passes.reset_at then return end
    passes[#passes + 1] = { at = at, n = n }
    local ahead = (settings.budget or 0) * #self.processes
    local window = settings.window * 1e6
    -- In the order of their answers: those that are late were counted before others.
    local first, last = at, at
    for i = #passes, 1, -1 do
        first, last = math.min(first, passes[i].at), math.max(last, passes[i].at)
        local t = last - first
        if settings.kind == "sliding" and t >= window or t > 5 * window then break end
        sum = sum + passes[i].n
        local most = settings.limit
        if settings.kind == "gcra" then
            most = (settings.burst or settings.limit) + settings.limit * t / window
        elseif settings.kind == "fixed" then
            most = settings.limit * (2 + math.floor(t / window))
        end
        if sum > most + ahead then
            return self:complain("%d units within %d us", sum, t)
        end
    end
end

-- What Redis has decided for a caller of its own.
function History:check_answer(one, key, n, allowed, info)
    local call, held = self.call, one.held[key]
    local answer = call.answer
    self:expect("whether it is allowed", answer[1] > 0, allowed)
    self:expect("retryAfter", answer[4] / 1e6, info.retryAfter)
    self:expect("resetAfter", answer[3] / 1e6, info.resetAfter)
    if allowed then
        self:pass(key, n, call.done_at)
    else
        self.refused = self.refused + 1
    end
    local more = answer[1] - n
    local now = self.time:now()
    if now >= held.ends then held.left = 0 end
    if more > 0 then
        local lives = self.settings.kind == "fixed" and answer[3] / 1e6 or self.settings.window
        held.left, held.ends = held.left + more, now + lives
        held.surely = held.ends - (self:now() - call.done_at) / 1e6
    end
    if self.settings.budget and held.left >= self.settings.budget then
        self:complain("%d units are held, of a budget of %d", held.left, self.settings.budget)
    end
    if not call.is_mixed then
        self:expect("remaining", answer[2] + (more > 0 and held.left or 0), info.remaining)
    end
end

function History:take(one, key, n)
    local outer, held = self.call, one.held[key]
    local is_held = held.left >= n and self.time:now() < held.ends
    local is_surely_held = is_held and self.time:now() < held.surely
    local call = { late = 0 }
    self.call, self.depth = call, self.depth + 1
    local allowed, info, cause = one.limiter:take(key, n)
    self.call = call
    if call.is_lost then
        self:expect("what onUnavailable says", self.settings.onUnavailable == "allow", allowed)
        self:expect("numbers", 0, info.remaining + info.retryAfter + info.resetAfter)
        self:expect("that there is a cause", true, errors.is(cause))
    elseif call.answer then
        self:check_answer(one, key, n, allowed, info)
    else
        self:expect("that it is held here", true, is_held)
        self:expect("that it is allowed", true, allowed)
        held.left, self.kept = held.left - n, self.kept + n
        self:pass(key, n, self:now())
    end
    if is_surely_held and (call.answer or call.is_lost) then
        self:complain("Redis is asked for %d, and %d are held", n, held.left)
    end
    self.call, self.depth = outer, self.depth - 1
    return allowed, info, call
end

-- At the instant that retryAfter tells, and not a microsecond before.
function History:retry(one, key, n, wait)
    self.is_calm = true
    self:elapse(wait - 1)
    self:expect("before retryAfter", false, (self:take(one, key, n)))
    self:elapse(1)
    self:expect("at retryAfter", true, (self:take(one, key, n)))
    self.is_calm = false
end

function History:step()
    local one, key, dice = pick(self.processes), pick(KEYS), math.random()
    local settings = self.settings
    local most = settings.burst or settings.limit
    if dice < 0.05 then
        local outer = self.call
        self.call = { late = 0 }
        one.limiter:peek(key)
        self.call = outer
    elseif dice < 0.06 then
        local outer, held = self.call, one.held[key]
        self.call = { late = 0 }
        -- One that is asking keeps what comes: who resets then has it all the same.
        if held.asks == 0 then
            held.left = 0
            one.limiter:reset(key)
        end
        self.call = outer
    else
        local n = chance(0.7) and 1 or math.random(most)
        local allowed, info, call = self:take(one, key, n)
        if allowed == false and not self.call and call.answer and call.late == 0
            and not call.is_mixed and chance(0.3) then
            self:retry(one, key, n, math.floor(info.retryAfter * 1e6 + 0.5))
        end
    end
    if self.depth > 0 or self.call then
        return self:elapse(math.random(0, 50000)) -- who asks meanwhile still waits
    end
    local interval = math.floor(settings.window * 1e6 / settings.limit)
    self:elapse(chance(0.5) and math.random(0, 2 * interval)
        or chance(0.05) and math.random(0, settings.window * 3e6) or 0)
end

-- The history, whole; its first fault is in `fault`.
local function run(module, seed)
    local self, real = new_history(module, seed), calls.script
    local owners = {}
    for _, one in ipairs(self.processes) do owners[one.limiter._keys] = one end
    calls.script = function(keys, ...)
        local one = owners[keys]
        if one then return self:script(real, one, keys, ...) end
        return real(keys, ...)
    end
    local ok, err = pcall(function()
        for _ = 1, STEPS do
            if not self.fault then self:step() end
        end
    end)
    calls.script = real
    for _, one in ipairs(self.processes) do one.cache:close() end
    if not ok then self:complain("%s", tostring(err)) end
    return self
end

describe("limiters of several processes", function()
    it("decide as a model does, and give out no unit twice", function()
        local sums = { taken = 0, refused = 0, lost = 0, kept = 0 }
        for seed = 1, SEEDS do
            local history = run(limiter, seed)
            assert.is_nil(history.fault, ("seed %d: %s"):format(seed, tostring(history.fault)))
            for name in pairs(sums) do sums[name] = sums[name] + history[name] end
        end
        for name, sum in pairs(sums) do
            assert.is_true(sum > SEEDS, "histories in which nothing happens: " .. name)
        end
        if SEEDS > 150 then
            print(("%d seeds: %d units taken, %d of them without asking; %d takes refused, %d lost")
                :format(SEEDS, sums.taken, sums.kept, sums.refused, sums.lost))
        end
    end)

    -- What stands in limiter.lua, and what somebody could have written.
    local MUTANTS = {
        ["units that are held are given out however old they are"] =
            { "if now >= held.ends then\n        held.left = 0\n", "if false then\n" },
        ["what became too old while Redis was asked is kept with the new"] =
            { "held.left = 0 -- it became", "-- it became" },
        ["units of a fixed window are held beyond its end"] =
            { 'self._letter == "f" and info.resetAfter or self._window', "self._window" },
        ["each caller that asks meanwhile takes a budget as well"] =
            { "local is_first = now >= held.asks", "local is_first = true" },
        ["a budget is taken no more behind a failure"] =
            { "if is_first then\n        held.asks = 0", "if taken then\n        held.asks = 0" },
        ["n units of a budget count as one"] =
            { "held.left = held.left - n\n", "held.left = held.left - 1\n" },
        ["all of a budget is kept, that of the caller among it"] =
            { "keep(self, held, taken - n, err)", "keep(self, held, taken, err)" },
        ["a failure lets everybody in"] = { "return self._opens, {", "return true, {" },
        ["a failure counts as a refusal"] =
            { "elseif sent or UNDECIDED[info.code] then", "elseif sent then" },
        ["a reset leaves what is held"] =
            { "self._young[key], self._old[key] = nil, nil", "local _ = key" },
    }
    for name, change in pairs(MUTANTS) do
        it("are found out where " .. name, function()
            local found = planted.find("redcache.limiter", change[1], change[2], MUTANT_SEEDS,
                function(seed, module) return run(module, seed).fault end)
            if SEEDS > 150 then print(("seed %d: %s"):format(found, name)) end
        end)
    end
end)
