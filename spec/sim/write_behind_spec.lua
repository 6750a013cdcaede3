-- Writing behind in generated histories: callers that pass each other half way, writers that are
-- slow, fail in every way or vanish, bounds that are reached, dead letters that are written again
-- or dropped, and closes in the midst of it, all under a clock that the history moves. What is
-- seen from outside is held to a model (behind_model.lua) after every step, and to a list of all
-- values that were ever taken. Then the same with planted bugs, each of which must be found.
--
-- Not: durable = true (write_behind_durable_spec.lua).
-- Env: REDCACHE_BEHIND_SEEDS: how many histories (150; 20000 take two minutes).

local background = require("redcache.background")
local behind_model = require("spec.support.behind_model")
local callers = require("spec.support.callers")
local errors = require("redcache.errors")
local planted = require("spec.support.planted")
local redcache = require("redcache")
local write_behind = require("redcache.write_behind")

local SEEDS = tonumber(os.getenv("REDCACHE_BEHIND_SEEDS") or 150)
-- A planted bug is found within so many.
local MUTANT_SEEDS = 400
local STEPS = 150
local KEYS = { "a", "b", "c", "d" }
local CALLS = { "setBehind", "deadLetters", "replayDeadLetters", "dropDeadLetters" }
local CLOSED = "the cache was closed"
local PLANNED = errors.new("outcomeUnknown", "write", "k", "planned")
local VANISHED = "the coroutine that wrote it has vanished"

local function pick(list) return list[math.random(#list)] end
local function chance(of) return math.random() < of end

local History = {}
History.__index = History

-- A cache with the option, and all that is known of it.
local Store = {}
Store.__index = Store

function History:complain(format, ...)
    self.callers.fault = self.callers.fault or format:format(...)
end

function History:expect(what, expected, got)
    if expected ~= got then
        self:complain("%s: %s is expected, %s is what came", what, tostring(expected),
            tostring(got))
    end
end

-- Calls fn as a caller of its own, which has so many places among those that wait.
function History:go(fn) return self.callers:go(fn, { places = {} }) end

-- A caller is gone, wherever it stood: what it had been writing has failed, its places are lost.
function History:vanish()
    local actor, store = self.callers:pick(), self.store
    self.vanished = self.vanished + 1
    for place in pairs(actor.places) do
        place.is_gone = true
        store.places[place] = nil
    end
    actor.co = nil
    collectgarbage()
    collectgarbage()
    if actor.tells then actor.tells.telling = actor.tells.telling - 1 end
    if actor.batch then
        local reasons = {}
        for _, item in ipairs(actor.batch) do reasons[item.key] = VANISHED end
        store.model:finish(actor.batch, reasons, self.time:now())
    end
    self:go(function() self.store.cache:exists("nothing") end) -- somebody comes by
end

-- A cache, its writer, and what becomes of its values --------------------------------------------

-- The user's function.
function Store:write(items)
    local history, actor = self.history, self.history.callers.current
    local time, model = history.time, self.model
    local fault = not model.is_over and model:begin(items, time:now())
    if fault then history:complain("a write: %s", fault) end
    if model.is_over then history:complain("a write behind the end") end
    actor.batch = items
    if chance(0.3) then time:advance(math.random(0, 300) / 1000) end
    history.callers:wait(0.4)
    if not history.callers.is_calm and chance(0.1) then history:set(pick(KEYS)) end
    history.callers:wait(0.1)
    actor.batch = nil
    local trouble = history.callers.is_calm and 0 or history.trouble
    local reasons, done, failed = behind_model.answer(items, trouble)
    for _, item in ipairs(items) do
        if not reasons[item.key] then self:wrote(item.key, tonumber(item.value:match("^%d+"))) end
    end
    if not model.is_over then model:finish(items, reasons, time:now()) end
    if done == error then error("thrown", 0) end
    return done, failed
end

-- The user's store has a value: never one that is older than what it had.
function Store:wrote(key, number)
    self.history.written = self.history.written + 1
    if number <= (self.values[key] or 0) then
        self.history:complain("%s goes back to value %d", key, number)
    end
    self.values[key] = number
    self.fates[number] = "written"
end

-- onFailed.
function Store:tell(key, value, reason)
    local history, model = self.history, self.model
    if reason == CLOSED then self:abandon() end
    local letter = table.remove(model.untold, 1)
    history.told = history.told + 1
    if not letter then return history:complain("%s is told, and has not failed", key) end
    history:expect("the key that is told", letter.key, key)
    history:expect("the value that is told", letter.value, value)
    history:expect("the reason that is told", letter.reason, reason)
    self.fates[tonumber(value:match("^%d+"))] = "told"
    model.telling = model.telling + 1
    history.callers.current.tells = model
    history.callers:wait(0.2)
    if not history.callers.is_calm and chance(0.1) then history:set(pick(KEYS)) end
    model.telling = model.telling - 1
    history.callers.current.tells = nil
    if chance(0.1) then error("thrown by onFailed") end
end

-- A close gives up what is left.
function Store:abandon()
    local history, model = self.history, self.model
    if model.is_over then return end
    local count, could = model:abandon(CLOSED)
    history.left = history.left + count
    if could and history.time:now() < history.deadline - 1e-6 then
        history:complain("a close gives up what it had the time to write")
    end
end

-- What stands in for cache:set(): late, or lost before or behind its doing.
function Store:set_in_cache(cache, key, value, ...)
    local history = self.history
    self.sets = self.sets + 1
    history.callers:wait(0.3)
    if not history.callers.is_calm and chance(0.05) then
        return nil, PLANNED
    end
    local ok, err, sent = cache._set(cache, key, value, ...)
    if ok then self.cached[key] = value end
    history.callers:wait(0.2)
    if not history.callers.is_calm and chance(0.05) then
        return nil, PLANNED
    end
    return ok, err, sent
end

local function new_store(history, module)
    local settings = { entries = pick({ 1, 2, 3, 4, 10 }), bytes = pick({ 1024, 1500, 4000 }),
        attempts = pick({ 1, 1, 2, 3, 4 }), batch = math.random(1, 3), writers = math.random(1, 3),
        delay = pick({ 0, 0, 0.3, 2 }) }
    local self = setmetatable({
        history = history, settings = settings, model = behind_model.new(settings), places = {},
        cached = {}, values = {}, taken = {}, fates = {}, sets = 0,
    }, Store)
    local option = { write = function(items) return self:write(items) end,
        onFailed = function(...) return self:tell(...) end }
    for field, value in pairs(settings) do option[field] = value end
    local opts = { writeBehind = option, codec = "raw" }
    self.cache = history.root:namespace("behind", opts)
    self.reader = history.other:namespace("behind", { codec = "raw" })
    for _, call in ipairs(CALLS) do self.cache[call] = module[call] end
    local real = self.cache._set
    self.cache._set = function(cache, ...)
        return self:set_in_cache({ _set = function(_, ...) return real(cache, ...) end }, ...)
    end
    return self
end

-- Steps ------------------------------------------------------------------------------------------

-- setBehind, by the caller that runs.
function History:set(key)
    local store, actor, time = self.store, self.callers.current, self.time
    local model = store.model
    self.numbers = self.numbers + 1
    local number = self.numbers
    local value = number .. ":" .. ("v"):rep(pick({ 1, 100, 300, 500 }))
    if chance(0.02) then value = value .. ("v"):rep(store.settings.bytes) end
    local size, sets = #key + #value, store.sets
    local is_large = size > store.settings.bytes
    local place = not self.is_over and not is_large and not model.is_over
        and model:reserve(key, size, time:now())
    local had = store.cached[key]
    if place then
        store.places[place], actor.places[place] = true, true
    end
    local ok, err = store.cache:setBehind(key, value, 3600)
    self.sets = self.sets + 1
    if place then
        store.places[place], actor.places[place] = nil, nil
    end
    if place and model.is_over then
        return self:expect("of a cache that is closed", nil, ok)
    elseif place and ok then
        store.taken[#store.taken + 1] = { key = key, number = number }
        return model:accept(place, value, time:now())
    elseif not ok and model.is_closing and err.code == "closed" then
        return store:abandon() -- that is over, and the close is not yet
    elseif place then
        self:expect("the error", PLANNED, err)
        return model:refuse(place)
    end
    self:expect("without a place", nil, ok)
    self:expect("the error", (self.is_over or model.is_over) and "closed"
        or is_large and "tooLarge" or "overload", err and err.code)
    self:expect("what was stored meanwhile", sets, store.sets)
    self:expect("what stands in the cache", had, (store.reader:get(key)))
    self.refused = self.refused + 1
end

-- What is due is written by who has a moment.
function History:work()
    local actor = self:go(function() self.store.cache:work(5) end)
    if actor.has_waited or self.callers.fault then return end
    if self.store.model:is_late(self.time:now()) then
        self:complain("a value is due, and nobody writes it")
    end
end

function History:elapse(seconds) self.time:advance(seconds) end

-- To just before the instant at which a value is due, and just behind it.
function History:elapse_to_due()
    local store = self.store
    local now = self.time:now()
    for _, due in ipairs(store.model:dues()) do
        if due > now + 0.001 then
            self:elapse(due - now - 0.0005)
            self:work()
            local left = due - self.time:now()
            if left > 0 then self:elapse(left + 0.0005) end
            return self:work()
        end
    end
end

function History:replay()
    local store = self.store
    local keys = nil
    if chance(0.5) then
        keys = { pick(KEYS), "nothing" }
    end
    local model, now = store.model, self.time:now()
    local expected, is_short = model:replay(keys or model:letter_keys(), now)
    self.replayed = self.replayed + expected
    local count, err = store.cache:replayDeadLetters(keys)
    self:expect("how many are written again", expected, count)
    self:expect("the error of the others", is_short and "overload" or nil, err and err.code)
end

function History:drop()
    local store = self.store
    local keys = chance(0.7) and { pick(KEYS) } or nil
    for _, letter in ipairs(store.model.letters) do
        if not keys or keys[1] == letter.key then
            store.fates[tonumber(letter.value:match("^%d+"))] = "dropped"
        end
    end
    self:expect("how many are dropped", store.model:drop(keys or store.model:letter_keys()),
        store.cache:dropDeadLetters(keys))
end

function History:delete(key)
    local store = self.store
    self:go(function()
        if store.cache:delete(key) then store.cached[key] = nil end
    end)
end

function History:step()
    local dice = math.random()
    if dice < 0.32 then
        local key = pick(KEYS)
        self:go(function() self:set(key) end)
    elseif dice < 0.52 then
        self.callers:resume_one()
    elseif dice < 0.66 then
        self:work()
    elseif dice < 0.75 then
        self:elapse(chance(0.1) and 40 or math.random(0, 400) / 1000)
    elseif dice < 0.85 then
        self:elapse_to_due()
    elseif dice < 0.88 then
        self:delete(pick(KEYS))
    elseif dice < 0.95 then
        self:go(function() self:replay() end)
    elseif dice < 0.96 then
        self:drop()
    elseif self.vanishes and #self.callers.suspended > 0 then
        self:vanish()
    end
end

-- What can be seen of a cache, and what the model knows.
function History:check()
    local store = self.store
    local model, settings, stats = store.model, store.settings, store.cache:stats()
    local keys, bytes, queued = model:held()
    if keys > settings.entries or bytes > settings.bytes then
        self:complain("%d keys and %d bytes are held", keys, bytes)
    end
    self:expect("behindQueued", queued, stats.behindQueued)
    self:expect("behindBytes", bytes, stats.behindBytes)
    self:expect("behindWritten", model.written, stats.behindWritten)
    self:expect("behindFailed", model.failed, stats.behindFailed)
    self:expect("behindCoalesced", model.coalesced, stats.behindCoalesced)
    self:expect("behindRefused", model.refused, stats.behindRefused)
    self:expect("deadLettersDropped", model.dropped, stats.deadLettersDropped)
    local letters = store.cache:deadLetters()
    self:expect("how many letters", #model.letters, #letters)
    for i, letter in ipairs(model.letters) do
        for _, field in ipairs({ "key", "value", "reason", "attempts" }) do
            self:expect("a letter's " .. field, letter[field], letters[i] and letters[i][field])
        end
    end
end

-- Each value that was taken was written or given up with a reason, or a later one was taken.
function History:account()
    local store = self.store
    local newest = {}
    for _, one in ipairs(store.taken) do
        newest[one.key] = math.max(newest[one.key] or 0, one.number)
    end
    for _, one in ipairs(store.taken) do
        if one.number == newest[one.key] and not store.fates[one.number] then
            self:complain("value %d of %s is lost", one.number, one.key)
        end
    end
    if #store.model.untold > 0 then self:complain("%s is not told", store.model.untold[1].key) end
end

-- In the midst of it, or when all callers have ended; a job in the background comes late.
function History:close()
    if chance(0.6) then
        while #self.callers.suspended > 0 and not self.callers.fault do
            self.callers:resume_one()
        end
    end
    local timeout = pick({ 0, 0.2, 3600, 3600 })
    if chance(0.3) then
        background.push(self.root._client, {}, function() self:set("a") end)
    end
    local model = self.store.model
    model:hurry(self.time:now())
    model.is_closing = true
    self.deadline = self.time:now() + timeout
    local closing = self:go(function()
        self:expect("what a close returns", true, (self.root:close(timeout)))
        self.is_over = true
        self.store:abandon()
    end)
    while #self.callers.suspended > 0 and not self.callers.fault do
        self.callers:resume_one()
    end
    self:expect("that the close has ended", "dead", coroutine.status(closing.co))
    self:go(function() self:set("a") end)
    self:expect("letters of a closed cache", "closed",
        select(2, self.store.cache:deadLetters()).code)
end

local runs = 0

local function new_history(module, seed)
    math.randomseed(seed)
    runs = runs + 1 -- each has a Redis of its own
    local time, url = redcache.clock(), "memory://behind" .. runs
    local self = setmetatable({
        time = time, callers = callers.new(), numbers = 0, trouble = pick({ 0, 0.3, 0.6, 0.9 }),
        vanishes = chance(0.25), sets = 0, refused = 0, written = 0, told = 0, replayed = 0,
        vanished = 0, left = 0,
        root = redcache.new({ url = url, clock = time, near = false, namespace = "app" }),
        other = redcache.new({ url = url, clock = time, near = false, namespace = "app" }),
    }, History)
    self.store = new_store(self, module)
    return self
end

-- The history, whole; its first fault is in `fault`.
local function run(module, seed)
    local self = new_history(module, seed)
    local ok, err = pcall(function()
        for _ = 1, STEPS do
            if self.callers.fault then break end
            self:step()
            self:check()
        end
        if not self.callers.fault then self:close() end
        if not self.callers.fault then self:account() end
    end)
    if not ok then self:complain("%s", tostring(err)) end
    self.callers.is_calm, self.fault = true, self.callers.fault
    self.root:close(0)
    self.other:close(0)
    return self
end

describe("writing behind", function()
    it("does as a model does, and loses nothing that it took", function()
        local sums = { sets = 0, refused = 0, written = 0, told = 0, replayed = 0, vanished = 0,
            left = 0 }
        for seed = 1, SEEDS do
            local history = run(write_behind, seed)
            assert.is_nil(history.fault, ("seed %d: %s"):format(seed, tostring(history.fault)))
            for name in pairs(sums) do sums[name] = sums[name] + history[name] end
        end
        for name, sum in pairs(sums) do
            assert.is_true(sum >= SEEDS / 3, "histories in which nothing happens: " .. name)
        end
        if SEEDS > 150 then
            print(("%d seeds: %d calls, %d of them refused; %d values written, %d told, %d written"
                .. " again; %d coroutines vanished, %d values left at a close"):format(SEEDS,
                sums.sets, sums.refused, sums.written, sums.told, sums.replayed, sums.vanished,
                sums.left))
        end
    end)

    -- What stands in the modules, and what somebody could have written.
    local MUTANTS = {
        ["a value that waits is kept where a later one comes"] = { "behind_queue",
            "= place.number, value, place.size, 0",
            "= place.number, chain.value or value, place.size, 0" },
        ["a call that was passed by another takes its place"] = { "behind_queue",
            "if place.number < chain.last then", "if false then" },
        ["a later value has the attempts that the one before it had left"] = { "behind_queue",
            "= place.number, value, place.size, 0",
            "= place.number, value, place.size, chain.failures" },
        ["a key is written twice at a time"] = { "behind_queue",
            "if not chain.is_queued and not chain.running then", "if not chain.is_queued then" },
        ["the bytes of a value that is passed over are not given back"] = { "behind_queue",
            "pass_over(self, chain.size)", "self.coalesced = self.coalesced + 1" },
        ["there is room up to the last byte, whatever comes"] = { "behind_queue",
            "self.bytes + size <= self.max_bytes", "self.bytes < self.max_bytes" },
        ["a key more than there may be has room"] = { "behind_queue",
            "self.keys < self.max_keys)", "self.keys <= self.max_keys)" },
        ["the last attempt does not count"] = { "behind_queue",
            "chain.failures >= attempts", "chain.failures > attempts" },
        ["all pauses are as long as the first"] = { "behind_queue",
            "2 ^ math.min(failures - 1, 20)", "1" },
        ["a later value waits no pause behind a failure"] = { "behind_queue",
            "enqueue(self, chain, 1, now + pause_behind(1))", "enqueue(self, chain, 1, now)" },
        ["the place of a caller that has vanished is never missed"] = { "behind_queue",
            "chain.sending = sending[chain] or 0", "local _ = sending" },
        ["a failed write is dropped, and is no dead letter"] = { "write_behind",
            "self.dead:add(letter)", "local _ = letter" },
        ["what has failed is told before all of the batch is settled"] = { "write_behind",
            "fail(self, chain, reason)\n            fault",
            "fail(self, chain, reason)\n            tell(self)\n            fault" },
        ["what a vanished coroutine had told is tried again"] = { "write_behind",
            "self.jobs[job] = NOTHING", "local _ = NOTHING" },
        ["a later value leaves the dead letter"] = { "write_behind",
            "elseif is_newest then", "elseif false then" },
        ["a dead letter passes a value that is on its way"] = { "write_behind",
            "place.number = letter.number", "local _ = letter.number" },
        ["a value is written that the cache has not got"] = { "write_behind",
            "queue:refuse(place)\n        return nil, err",
            "queue:accept(place, bytes, 0)\n        return nil, err" },
        ["the place of a call that failed is kept"] = { "write_behind",
            "queue:refuse(place)\n        return nil, err", "return nil, err" },
        ["the cache has the value before there is room"] = { "write_behind",
            "local place = queue:reserve(",
            "self:_set(key, value, ttl, opts) local place = queue:reserve(" },
        ["a close ends before the last is written"] = { "write_behind",
            "queue.queued + queue.running > 0 do", "queue.queued + queue.running > 1 do" },
        ["a close does not wait for pauses"] = { "write_behind",
            "queue:hurry(now(client))", "queue:hurry(now(client)) deadline = now(client)" },
        ["calls are taken when the writing has ended"] = { "write_behind",
            "(behind.is_closed or client.behinds_ended)", "false" },
        ["calls are taken where a close found nothing to write"] = { "write_behind",
            "(behind.is_closed or client.behinds_ended)", "behind.is_closed" },
        ["a writer that names what failed has written nothing"] = { "behind_writer",
            "if not is_named then", "if true then" },
        ["false is taken for a success"] = { "behind_writer",
            "if ran and done then", "if ran and done ~= nil then" },
        ["letters are kept beyond their bounds"] = { "dead_letters",
            "self.count > self.max_keys or", "self.count > self.max_keys + 1 or" },
    }
    for name, change in pairs(MUTANTS) do
        it("is found out where " .. name, function()
            local found = planted.find("redcache." .. change[1], change[2], change[3], MUTANT_SEEDS,
                function(seed, module)
                    return run(change[1] == "write_behind" and module or write_behind, seed).fault
                end)
            if SEEDS > 150 then print(("seed %d: %s"):format(found, name)) end
        end)
    end
end)
