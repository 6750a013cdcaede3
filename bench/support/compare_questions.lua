-- compare_questions - what bench/compare.lua asks each build, in a process of the build's own.
--
-- What:   open(params) opens the caches; the object has ask(name, calls) -> seconds per call, and
--         prepare(name). serve(worker) answers the judge; on memory:// count.lua asks instead.
-- Not:    which builds, in which order, what comes of it (bench/compare.lua). Only calls that every
--         build has since the first issue: an older build is asked the same questions.

local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local hot_loop = require("bench.support.hot_loop")
local redcache = require("redcache")
local warm = require("bench.support.warm")

local compare_questions = {}
local Questions = {}
Questions.__index = Questions

local KEYS, KEY_BYTES, VALUE_BYTES = 1000, 16, 100
local BATCH, COROUTINES = 100, 500
local TTL = 600
local MAX_STALE = 10 -- a hit is a hit, too, where the other build has just been measured

local GET = "value = subject:get(key)"
local REMEMBER = "value = subject:remember(key, 600, extra)"

local function never()
    error("a hit was expected")
end

-- Hits in this process: one compiled loop each. A call is one turn of it; processor time of this
-- thread: what never waits is not slower because others run, too.
local function hot(source, body)
    return function(self)
        local cache = self.caches[source]
        local run = hot_loop.new(source, body, hot_loop.shuffled(self.keys, 4), cache, never)
        return function(calls)
            warm.warm(cache, self.keys, source)
            collectgarbage()
            local before = bench.processor("thread")
            local turns = run(math.ceil(calls / (4 * KEYS)))
            return (bench.processor("thread") - before) / turns
        end
    end
end

-- For counting: the keys of all runs are as many, and nobody looks at a clock.
local function counted(fn, keys)
    return function(calls)
        for i = 1, calls do
            fn(keys[i % #keys + 1])
        end
        return 0
    end
end

-- One call after the other: the median of what a call takes.
local function sequential(make)
    return function(self)
        local fn, keys_of = make(self)
        if self.capacity then
            return counted(fn, keys_of and keys_of(self.capacity) or self.keys)
        end
        return function(calls)
            local keys = keys_of and keys_of(calls) or self.keys
            return bench.latency(fn, keys, calls).p50 * 1e-6
        end
    end
end

local function return_true()
    return true
end

local function new_keys(calls)
    return bench.texts(calls, KEY_BYTES)
end

-- Lists of BATCH keys, or of BATCH new keys.
local function lists(source)
    return function(calls)
        local all = {}
        for i = 1, calls do
            local list = source and {} or new_keys(BATCH)
            for j = 1, source and BATCH or 0 do
                list[j] = source[(i * 617 + j) % #source + 1]
            end
            all[i] = list
        end
        return all
    end
end

-- COROUTINES of one runner share `calls` calls; what one takes on average.
local function concurrent(make)
    return function(self)
        local fn, keys_of = make(self)
        local kept = self.capacity and keys_of and keys_of(self.capacity)
        return function(calls)
            local each = math.ceil(calls / COROUTINES)
            local keys = kept or keys_of and keys_of(each * COROUTINES) or self.keys
            local count = #keys
            local function work(first)
                for i = first, first + each - 1 do
                    fn(keys[i % count + 1])
                end
            end
            collectgarbage()
            local before = clock.now()
            redcache.run(function()
                for i = 0, COROUTINES - 1 do
                    redcache.spawn(work, i * each)
                end
            end)
            return (clock.now() - before) / (each * COROUTINES)
        end
    end
end

local function loader_of(self)
    local made = 0
    return function()
        made = made + 1
        return self.values[made % #self.values + 1]
    end
end

local function reader(cache)
    return function(key)
        return cache:get(key) or never()
    end
end

local function misser(self, cache)
    local load = loader_of(self)
    return function(key)
        local _, _, source, flag = cache:remember(key, TTL, load)
        return source == "loader" and flag == nil or error("a stored load was expected")
    end
end

local function setter(self, cache)
    local load = loader_of(self)
    return function(key)
        return assert(cache:set(key, load(), TTL))
    end
end

local QUESTIONS = {
    l0 = hot("l0", GET),
    l0_remember = hot("l0", REMEMBER),
    near = hot("near", GET),
    near_remember = hot("near", REMEMBER),
    hit = sequential(function(self)
        return reader(self.caches.wire)
    end),
    miss = sequential(function(self)
        return misser(self, self.caches.wire), new_keys
    end),
    set = sequential(function(self)
        return setter(self, self.caches.wire)
    end),
    multi_hit = sequential(function(self)
        local cache = self.caches.wire
        return function(list)
            local values = cache:getMulti(list)
            return values[list[1]] or never()
        end, lists(self.keys)
    end),
    multi_miss = sequential(function(self)
        local cache = self.caches.wire
        return function(list)
            return next((cache:getMulti(list))) == nil or error("a miss was expected")
        end, lists(nil)
    end),
    lock = sequential(function(self)
        local cache = self.caches.wire
        return function(key)
            return assert(cache:withLock(key, nil, return_true))
        end
    end),
    coroutines_hit = concurrent(function(self)
        return reader(self.caches.coroutine)
    end),
    coroutines_miss = concurrent(function(self)
        return misser(self, self.caches.coroutine), new_keys
    end),
}

---Opens what the questions are asked of. params: url, namespace, spin (true), and capacity: only
---counts are wanted, of at most so many calls.
function compare_questions.open(params)
    local function open(options)
        options.url, options.namespace, options.codec = params.url, params.namespace, "raw"
        options.maxStale = MAX_STALE
        if params.spin == false then options.spin = false end
        return redcache.new(options)
    end
    local self = setmetatable({
        caches = {
            wire = open({ near = false }),
            near = open({ near = { l0 = false } }),
            l0 = open({}),
            coroutine = open({ near = false, scheduler = "coroutine" }),
        },
        keys = bench.texts(KEYS, KEY_BYTES),
        values = bench.texts(100, VALUE_BYTES),
        runs = {},
        capacity = params.capacity,
    }, Questions)
    local map = {}
    for i, key in ipairs(self.keys) do map[key] = self.values[i % 100 + 1] end
    assert(self.caches.wire:setMulti(map, TTL))
    return self
end

---Asks: seconds per call, of at least `calls` calls.
function Questions:ask(name, calls)
    self.runs[name] = self.runs[name] or assert(QUESTIONS[name], name)(self)
    return self.runs[name](calls)
end

-- The same, and the seconds of a processor that all threads of this process had meanwhile.
local function measured(self, name, calls)
    local before = bench.processor()
    local seconds = self:ask(name, calls)
    return { seconds = seconds, processor = (bench.processor() - before) / calls }
end

function Questions:close()
    for _, cache in pairs(self.caches) do cache:close() end
end

---Answers {name, calls, lua}, until told to end.
function compare_questions.serve(worker)
    local questions = compare_questions.open(worker.params)
    worker:emit("open")
    while true do
        local asked = assert(worker:receive())
        if asked.ends then break end
        if asked.lua then
            worker:emit("answer", { bytes = bench.allocated(function()
                questions:ask(asked.name, asked.calls)
            end) })
        else
            worker:emit("answer", measured(questions, asked.name, asked.calls))
        end
    end
    questions:close()
end

return compare_questions
