-- setBehind beyond spec/support/cases/behinds.lua: generated runs against what a log outside knows,
-- writers side by side, far more than the writer can take, coroutines that vanish, loops in which
-- nobody calls. REDCACHE_BEHIND_RUNS makes the generated runs more than 30.

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local RUNS = tonumber(os.getenv("REDCACHE_BEHIND_RUNS") or 30)

local redis
setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- A store that keeps what it was given, and what must never be seen. Values of a key are numbers
-- that grow.
local function new_store()
    local store = { values = {}, busy = {}, faults = {}, writes = 0 }

    function store.begin(items)
        for _, item in ipairs(items) do
            if store.busy[item.key] then
                table.insert(store.faults, item.key .. " is written twice at once")
            end
            store.busy[item.key] = true
        end
    end

    -- `failed`: the keys that are not written.
    function store.finish(items, failed)
        for _, item in ipairs(items) do
            store.busy[item.key] = nil
            if not failed[item.key] then
                if item.value <= (store.values[item.key] or 0) then
                    table.insert(store.faults, item.key .. " goes back to " .. item.value)
                end
                store.values[item.key], store.writes = item.value, store.writes + 1
            end
        end
    end

    return store
end

-- What a writer answers, by a die: it has written all, some, nothing, or throws.
local function answer(store, items, rate)
    local dice, failed = math.random(), {}
    if dice > rate then
        store.finish(items, failed)
        return true
    end
    local one = items[math.random(#items)].key
    for _, item in ipairs(items) do
        if dice > rate / 3 or item.key == one then failed[item.key] = "bad luck" end
    end
    store.finish(items, failed)
    if dice > rate * 2 / 3 then error("thrown") end
    if dice > rate / 3 then return nil, "nothing is written" end
    return nil, failed
end

local function within(cache, entries, bytes)
    local stats, queue = cache:stats(), cache._behind.queue
    assert.is_true(stats.behindQueued <= entries and stats.behindBytes <= bytes)
    assert.is_true(queue.keys <= entries and queue.bytes >= 0)
    local count = 0
    for _ in pairs(queue.chains) do count = count + 1 end
    assert.equal(queue.keys, count)
end

-- The last value of each key that was accepted is written, or is a dead letter.
local function check_none_is_lost(cache, store, accepted)
    local dead = {}
    for _, letter in ipairs(cache:deadLetters({ limit = 1000 })) do
        dead[letter.key] = letter.value
    end
    for key, value in pairs(accepted) do
        assert.equal(value, dead[key] or store.values[key], key)
        assert.is_true(not dead[key] or (store.values[key] or 0) < value)
    end
end

-- One generated run in plain Lua, under a clock that the run moves.
local function generate(seed)
    math.randomseed(seed)
    local store, accepted, refused, time = new_store(), {}, 0, redcache.clock()
    local entries, bytes = math.random(2, 6), math.random(1024, 1100)
    local rate, value, setting, cache = math.random(), 0, nil, nil

    local function set(key)
        value, setting = value + 1, key
        local mine = value -- a writer that runs before may call this
        local ok, err = cache:setBehind(key, mine)
        if ok then
            accepted[key] = mine
        else
            assert.equal("overload", err.code)
            refused = refused + 1
        end
        setting = nil
    end

    cache = redcache.new({ url = "memory://behind" .. seed, clock = time, writeBehind = {
        entries = entries, bytes = bytes, attempts = math.random(1, 4), batch = math.random(1, 4),
        delay = math.random(0, 1) * 0.3,
        write = function(items)
            store.begin(items)
            time:advance(math.random() * 0.2)
            -- A call of the key that has begun would store its older value behind this one.
            if math.random() < 0.2 and items[1].key ~= setting then set(items[1].key) end
            return answer(store, items, rate)
        end,
    } })
    for _ = 1, 200 do
        local dice = math.random()
        if dice < 0.6 then
            set(("k"):rep(math.random(1, 8) * 40))
        elseif dice < 0.8 then
            time:advance(math.random() * 0.5)
        elseif dice < 0.9 then
            cache:work(0.1)
        elseif dice < 0.95 then
            cache:replayDeadLetters()
        else
            for _, letter in ipairs(cache:deadLetters({ limit = 1 })) do
                cache:dropDeadLetters({ letter.key })
                accepted[letter.key] = nil
            end
        end
        within(cache, entries, bytes)
    end
    assert.same({}, store.faults)
    rate = 0
    for _ = 1, 100 do
        time:advance(30)
        cache:work(10)
    end
    assert.equal(0, cache:stats().behindQueued)
    assert.equal(0, cache:stats().behindBytes)
    if cache:stats().deadLettersDropped == 0 then check_none_is_lost(cache, store, accepted) end
    assert.same({}, store.faults)
    cache:close()
    return refused, store.writes
end

describe("setBehind in generated runs", function()
    it("keeps bounds and the order of each key, and loses nothing that it took", function()
        local refused, writes = 0, 0
        for seed = 1, RUNS do
            local more_refused, more_writes = generate(seed)
            refused, writes = refused + more_refused, writes + more_writes
        end
        assert.is_true(refused > RUNS and writes > RUNS * 10)
    end)

    it("does so with writers side by side, too", function()
        local cache, store, accepted = nil, new_store(), {}
        local most, running = 0, 0
        math.randomseed(1)
        cache = redcache.new({ url = redis:url(), near = false, scheduler = "coroutine",
            background = { workers = 4 }, commandTimeout = clock.scaled(5),
            writeBehind = { writers = 4, batch = 2, attempts = 100, write = function(items)
                store.begin(items)
                running = running + 1
                most = math.max(most, running)
                for _ = 1, math.random(0, 20) do cache:exists("nothing") end
                running = running - 1
                return answer(store, items, 0.1)
            end } })
        redcache.run(function()
            local tasks = {}
            for k = 1, 8 do
                tasks[k] = redcache.spawn(function()
                    for i = 1, 100 do
                        assert(cache:setBehind("k" .. k, i))
                        accepted["k" .. k] = i
                        for _ = 1, math.random(0, 3) do cache:exists("nothing") end
                    end
                end)
            end
            for _, task in ipairs(tasks) do task:wait() end
            local deadline = clock.deadline(20)
            while cache:stats().behindQueued > 0 and clock.now() < deadline do
                cache:exists("nothing")
            end
        end)
        assert.same({}, store.faults)
        check_none_is_lost(cache, store, accepted)
        assert.is_true(most > 1)
        cache:close()
    end)

    it("stays within its bounds at many times what the writer can take", function()
        local cache, written = nil, {}
        cache = redcache.new({ url = redis:url(), near = false, scheduler = "coroutine",
            commandTimeout = clock.scaled(5),
            writeBehind = { entries = 100, bytes = 4000, batch = 10, write = function(items)
                for _ = 1, 100 do cache:exists("nothing") end -- ten calls a value
                for _, item in ipairs(items) do written[item.key] = true end
                return true
            end } })
        local taken, refused, kept = {}, 0, 0
        redcache.run(function()
            for i = 1, 2000 do
                local key = ("%05d"):format(i)
                local ok, err = cache:setBehind(key, ("x"):rep(20))
                if ok then
                    taken[key] = true
                else
                    assert.equal("overload", err.code)
                    refused = refused + 1
                    kept = kept + (cache:exists(key) and 1 or 0)
                end
                within(cache, 100, 4000)
            end
        end)
        assert.is_true(refused > 500, refused)
        assert.equal(0, kept)
        assert.same({ true }, { cache:close(20) })
        assert.same(taken, written)
    end)
end)

describe("setBehind and a coroutine that vanishes", function()
    it("tries again what that has been writing", function()
        local vanishes, given, time = true, nil, redcache.clock()
        local cache = redcache.new({ clock = time, writeBehind = { write = function(items)
            if vanishes then coroutine.yield() end
            given = items
            return true
        end } })
        assert(cache:setBehind("k", 1))
        local co = coroutine.create(function() cache:work(0) end)
        assert(coroutine.resume(co))
        assert.equal(1, cache:stats().behindQueued)
        vanishes, co = false, nil -- luacheck: ignore 311
        collectgarbage()
        collectgarbage()
        cache:exists("nothing")
        time:advance(0.2)
        cache:exists("nothing")
        cache:exists("nothing")
        assert.same({ { key = "k", value = 1, attempt = 2 } }, given)
        assert.same({ 0, 0 }, { cache:stats().behindQueued, cache:stats().behindBytes })
        cache:close()
    end)

    it("finds the room that its callers had held", function()
        local time = redcache.clock()
        local cache = redcache.new({ clock = time, writeBehind = { entries = 1,
            write = function() return true end } })
        cache._set = function() coroutine.yield() end
        local co = coroutine.create(function() cache:setBehind("gone", 1) end)
        assert(coroutine.resume(co))
        cache._set, co = nil, nil -- luacheck: ignore 311
        assert.equal("overload", select(2, cache:setBehind("k", 1)).code)
        collectgarbage()
        collectgarbage()
        time:advance(2)
        assert(cache:setBehind("k", 1))
        within(cache, 1, 100)
        cache:close()
    end)
end)

describe("setBehind of callers that pass each other", function()
    local cache, log, works

    -- A caller that is held up before its value is stored: called again, it goes on.
    local function held_up(key, value)
        local call = coroutine.wrap(function()
            cache._set = function() coroutine.yield() return true end
            return cache:setBehind(key, value)
        end)
        call()
        cache._set = nil
        return call
    end

    before_each(function()
        log, works = {}, true
        cache = redcache.new({ writeBehind = { attempts = 1, write = function(items)
            log[#log + 1] = items[1].value
            return works, "not yet"
        end } })
    end)
    after_each(function() cache:close() end)

    it("writes the value whose call began last", function()
        local first = held_up("k", "first")
        local second = held_up("k", "second")
        assert.is_true(second())
        assert.is_true(first())
        cache:work(0)
        cache:work(0)
        assert.same({ "second" }, log)
        assert.equal(0, cache:stats().behindBytes)
    end)

    it("lets a dead letter give way to a value that is on its way", function()
        works = false
        assert(cache:setBehind("k", "old"))
        cache:work(0)
        works = true
        local newer = held_up("k", "new")
        assert.equal(1, cache:replayDeadLetters())
        assert.is_true(newer())
        cache:work(0)
        cache:work(0)
        assert.same({ "old", "new" }, log)
        assert.equal(0, cache:stats().behindBytes)
    end)
end)

it("setBehind answers the same on memory://, and keeps nothing of a client that rests", function()
    local log = {}
    local cache = redcache.new({ namespace = "app", writeBehind = { write = function(items)
        log[#log + 1] = items[1].key
        return true
    end } })
    assert.same({ true }, { cache:setBehind("k", 1) })
    assert.is_truthy(cache._client.due)
    assert.equal(1, (cache:get("k")))
    cache:work(0)
    assert.same({ "k" }, log)
    assert.is_false(cache._client.due)
    assert.is_nil(next(cache._client.behinds))
    cache:close()
end)

it("setBehind that was stored, and came back to a closed cache, says so", function()
    local cache = redcache.new({ writeBehind = { write = function() return true end } })
    local set = cache._set
    cache._set = function(...)
        set(...)
        cache:close()
        return true
    end
    local ok, err = cache:setBehind("k", 1)
    assert.same({ nil, "closed" }, { ok, err.code })
end)

local function in_loop(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local clock_there, log = require("spec.support.clock"), {}
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, namespace = "app",
        writeBehind = { delay = 0.1, durable = one.params.durable, write = function(items)
            log[#log + 1] = items[1].value .. "." .. items[1].attempt
            return #log > 2, "not yet"
        end },
    })
    loop.go(function()
        local function wait_for(count)
            local deadline = clock_there.deadline(20)
            while #log < count and clock_there.now() < deadline do loop.sleep(0.05) end
        end
        assert(cache:setBehind("k", 1))
        wait_for(3)
        assert(cache:setBehind("k", 2))
        if one.params.durable then wait_for(4) end
        cache:close(clock_there.scaled(5))
    end)
    loop.run()
    return table.concat(log, " ")
end

-- Nothing else is there to do: the loop ends, whatever is to be written.
local function lonely(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, namespace = "app",
        writeBehind = {
            delay = 600, durable = one.params.durable, write = function() return true end,
        },
    })
    loop.go(function() assert(cache:setBehind("k", 1)) end)
    loop.run()
    return true
end

for _, name in ipairs(event_loop.names) do
    local check = event_loop.has(name) and it or pending
    for what, durable in pairs({ ["setBehind"] = false, ["a durable setBehind"] = true }) do
        local params = { name = name, durable = durable }
        check(what .. " in a loop of " .. name .. " goes on while nobody calls", function()
            params.url = redis:url()
            assert.equal("1.1 1.2 1.3 2.1",
                worker.start({ main = in_loop, params = params }):join())
        end)
        check(what .. " does not keep a loop of " .. name .. " going", function()
            params.url = redis:url()
            assert.is_true(worker.start({ main = lonely, params = params }):join())
        end)
    end
end
