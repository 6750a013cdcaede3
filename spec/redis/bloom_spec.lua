-- Filters of keys: how often they are wrong about keys that are none, and that they never are about
-- others, through evictions, flushes, restarts and fills while somebody writes. What single calls
-- promise: spec/support/cases/filters.lua.
--
-- Env: REDCACHE_BLOOM_KEYS: keys of the filter whose errors are counted (20,000; 1,000,000 in a
-- note), REDCACHE_BLOOM_HISTORIES: histories of what may happen to a filter (3).

local bloom = require("redcache.bloom")
local clock = require("spec.support.clock")
local filter = require("redcache.filter")
local redcache = require("redcache")
local server = require("spec.support.server")

local KEYS = tonumber(os.getenv("REDCACHE_BLOOM_KEYS")) or 20000
local HISTORIES = tonumber(os.getenv("REDCACHE_BLOOM_HISTORIES")) or 3
local ROUNDS = 8
local ASKED = 20000

describe("a filter of keys", function()
    local redis, caches
    local settle, held = bloom.SETTLE, bloom.HELD

    setup(function()
        redis = server.start()
        bloom.SETTLE, bloom.HELD = 0.1, 0.02
    end)
    teardown(function()
        redis:stop()
        bloom.SETTLE, bloom.HELD = settle, held
    end)
    before_each(function()
        redis:reset()
        caches = {}
    end)
    after_each(function()
        for _, cache in ipairs(caches) do cache:close() end
    end)

    local function open(options)
        caches[#caches + 1] = redcache.new(options)
        return caches[#caches]
    end

    local function numbered(name, count)
        local at = 0
        return function()
            at = at + 1
            return at <= count and name .. at or nil
        end
    end

    -- Of keys that are none: the part that the filter takes for keys.
    local function false_rate(cache, rate)
        cache = cache:namespace("rate" .. rate, { bloom = { keys = KEYS, falseRate = rate } })
        assert.equal(KEYS, cache:bloom():fill(numbered("key", KEYS)))
        local list, wrong = {}, 0
        for i = 1, ASKED do list[i] = "none" .. i end
        -- In parts, for a call fetches no more than 64 slices.
        for first = 1, ASKED, 64 do
            local part = { unpack(list, first, math.min(first + 63, ASKED)) }
            local _, failed, negatives = cache:getMulti(part)
            assert.is_nil((next(failed)))
            for _, key in ipairs(part) do wrong = wrong + (negatives[key] and 0 or 1) end
        end
        for i = 1, KEYS, 97 do assert.is_true(cache:bloom():has("key" .. i)) end
        return wrong / ASKED
    end

    it("is wrong about keys that are none as often as it was told to be", function()
        local cache = open({ url = redis:url(), namespace = "app",
            commandTimeout = clock.scaled(5) })
        for _, rate in ipairs({ 0.1, 0.01, 0.001 }) do
            local found = false_rate(cache, rate)
            -- What was asked is a sample: three of its standard deviations are allowed.
            local most = 1.2 * rate + 3 * math.sqrt(rate / ASKED)
            print(("%g: %g of %d"):format(rate, found, ASKED))
            assert.is_true(found <= most, found)
            assert.is_true(found >= 0.5 * rate, found) -- and wastes no memory
        end
    end)

    it("does in the embedded store what it does in Redis", function()
        local there = open({ url = redis:url() }):redis()
        local here = open({ url = "memory://bloom-spec" }):redis()
        local seed = os.time()
        math.randomseed(seed)
        local add, turn = bloom.ADD, filter.TURN
        local MARKS = { "B123456789abcdefg", "Bgfedcba987654321" }
        local TEXTS, ODD = { "one", "two", "" }, { "-1", "-9", "0", "99999999999999" }

        -- Servers tell of an error in their own words.
        local function told(value, err) return err and err.code or tostring(value) end

        local function both(source, key, ...)
            local a = told(there:script(source):run({ key }, { ... }))
            local b = told(here:script(source):run({ key }, { ... }))
            assert.equal(a, b, ("seed %d: %s"):format(seed, key))
            a = told(there:command("GET", key))
            assert.equal(a, told(here:command("GET", key)), ("seed %d: %s"):format(seed, key))
            return a
        end

        local seen = {}
        for _ = 1, 300 do
            local key, mark = "slice" .. math.random(3), MARKS[math.random(2)]
            if math.random(10) == 1 then
                for _, one in ipairs({ there, here }) do assert(one:command("SET", key, mark)) end
            elseif math.random(20) == 1 then
                for _, one in ipairs({ there, here }) do assert(one:command("DEL", key)) end
            end
            local places = {}
            for i = 1, math.random(0, 9) do
                places[i] = ("%d"):format(17 * 8 + math.random(0, math.random(2) == 1 and 40
                    or 32767))
                if math.random(50) == 1 then places[i] = ODD[math.random(#ODD)] end
            end
            both(add, key, mark, unpack(places))
            seen[both(turn, "meta", TEXTS[math.random(3)], TEXTS[math.random(3)])] = true
            if math.random(10) == 1 then
                local text = TEXTS[math.random(3)]
                for _, one in ipairs({ there, here }) do
                    assert(one:command("SET", "meta", text))
                end
            end
        end
        assert.is_true(seen.one and seen.two)
    end)

    -- A history of writes and of what may happen to a filter, by a writer of another client. The
    -- model is all that was ever stored: none of it may the reader be told to be none. Nil, or what
    -- is wrong.
    local function history(seed)
        math.randomseed(seed)
        local opts = { url = redis:url(), namespace = "app", bloom = { keys = 2000 } }
        local reader = open(opts)
        local writer = open({ url = redis:unix_url(), namespace = "app", near = false,
            bloom = { keys = 2000 } })
        local stored, wrong, seen = {}, nil, { told = 0, complete = 0 }

        -- A restart breaks connections: nobody counts on a write that has failed.
        local function write()
            local key = "key" .. #stored + 1
            local ok = math.random(2) == 1 and writer:set(key, 1) or writer:incr(key)
            if ok then stored[#stored + 1] = key end
        end

        -- What was written before this moment is known everywhere soon.
        local function check(event)
            local deadline = clock.now() + 1.1 -- maxStale is a second
            for i = 1, #stored do
                while true do
                    local asked = clock.now() -- what counts: an answer may be late
                    if reader:bloom():has(stored[i]) ~= false then break end
                    if asked > deadline then
                        wrong = wrong or ("seed %d, %s: %s"):format(seed, event, stored[i])
                        return
                    end
                    clock.sleep(0.01)
                end
            end
            local has = reader:bloom():has("none" .. math.random(1e6))
            seen.told = seen.told + (has == false and 1 or 0)
        end

        local function source()
            local at = 0
            return function()
                -- Who writes meanwhile is not in the list that was begun before.
                at = at + 1
                if math.random(20) == 1 then write() end
                return stored[at]
            end
        end

        local EVENTS = {
            write = function() for _ = 1, 10 do write() end end,
            fill = function()
                local before, listed = {}, 0
                for i = 1, #stored do before[i] = stored[i] end
                local each = source()
                if reader:bloom():fill(function()
                    each()
                    listed = listed + 1
                    return before[listed]
                end) then
                    seen.complete = seen.complete + 1
                end
            end,
            ["a slice is evicted"] = function() redis:call("DEL", "app//bloom:0") end,
            ["the meta is evicted"] = function() redis:call("DEL", "app//bloom:meta") end,
            flush = function() redis:call("FLUSHALL") end,
            restart = function() redis:restart() end,
            clear = function() writer:bloom():clear() end,
        }
        local names = { "write", "write", "fill", "fill", "a slice is evicted",
            "the meta is evicted", "flush", "restart", "clear" }
        for round = 1, ROUNDS do
            local name = names[round <= 2 and 4 - round or math.random(#names)]
            EVENTS[name]()
            write()
            check(name)
            if name ~= "write" and name ~= "fill" and math.random(3) > 1 then
                EVENTS.fill()
                write()
                check("fill after " .. name)
            end
            if wrong then break end
        end
        for _, cache in ipairs({ reader, writer }) do cache:close() end
        return wrong, seen
    end

    it("is never wrong about a key that was stored", function()
        local seed, told, complete = os.time(), 0, 0
        for i = 1, HISTORIES do
            local wrong, seen = history(seed + i)
            assert.is_nil(wrong)
            told, complete = told + seen.told, complete + seen.complete
        end
        print(("complete %d times, %d keys were told to be none"):format(complete, told))
        assert.is_true(complete >= HISTORIES / 2 and told >= HISTORIES / 2, told)
    end)

    local function finds_a_bug()
        local wrong
        for i = 1, 10 do wrong = wrong or history(i) end
        assert.is_string(wrong)
    end

    it("is wrong where writers do not put their keys in: the history sees it", function()
        local add = bloom.add
        finally(function() bloom.add = add end)
        bloom.add = function() end
        finds_a_bug()
    end)

    it("is wrong where a fill does not wait for its writers: the history sees it", function()
        finally(function() bloom.SETTLE, bloom.HELD = 0.1, 0.02 end)
        bloom.SETTLE, bloom.HELD = 0, 1
        finds_a_bug()
    end)
end)
