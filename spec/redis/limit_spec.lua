-- Rate limiters: what several processes take is never more than the limit, and the decisions are
-- those of a model that knows every take. What single calls promise: spec/support/cases/limits.lua.
--
-- Env: REDCACHE_LIMIT_STEPS: takes of each generated history (200).

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local limit_model = require("spec.support.limit_model")
local limiter = require("redcache.limiter")
local redcache = require("redcache")
local server = require("spec.support.server")

local PROCESSES, LIMIT = 8, 200
local STEPS = tonumber(os.getenv("REDCACHE_LIMIT_STEPS")) or 200
local KINDS = { "fixed", "sliding", "gcra" }

local function pick(list) return list[math.random(#list)] end

local function make_settings()
    local settings = { kind = pick(KINDS), limit = pick({ 1, 2, 5, 10, 64 }),
        window = pick({ 0.1, 1, 1.5, 60 }), name = "n" }
    if settings.kind == "gcra" and math.random() < 0.5 then
        settings.burst = pick({ 1, 3, 10, 100 })
    end
    return settings
end

-- A history of takes against the model; nil, or the first difference. bed: take(n), peek(), now(),
-- elapse(microseconds).
local function differs(settings, bed, steps)
    local known = limit_model.new(settings, bed.now())
    local most = settings.burst or settings.limit
    local interval = math.floor(settings.window * 1e6 / settings.limit)
    local seen = {}
    for step = 1, steps do
        if math.random() < 0.1 then bed.peek() end -- and nothing is changed
        local n = math.random() < 0.8 and 1 or math.random(most)
        local now = bed.now()
        local expected = known:take(now, n)
        local allowed, info = bed.take(n)
        seen[allowed] = (seen[allowed] or 0) + 1
        local room = math.max(known:room(now), 0)
        if allowed ~= expected or info.remaining ~= room then
            return ("%s of %d in %g s, step %d, n %d: %s, %d left; the model: %s, %d left"):format(
                settings.kind, settings.limit, settings.window, step, n, tostring(allowed),
                info.remaining, tostring(expected), room)
        elseif not allowed and info.retryAfter <= 0 or allowed and info.retryAfter ~= 0 then
            return ("%s, step %d: retryAfter %g"):format(settings.kind, step, info.retryAfter)
        elseif not allowed and math.random() < 0.3 then
            -- At the instant that it tells, and not a microsecond before.
            local wait = math.floor(info.retryAfter * 1e6 + 0.5)
            bed.elapse(wait - 1)
            if known:room(bed.now()) >= n or bed.peek().remaining >= n then
                return ("%s, step %d: there was room before retryAfter"):format(settings.kind, step)
            end
            bed.elapse(1)
            if known:room(bed.now()) < n or bed.peek().remaining < n then
                return ("%s, step %d: no room at retryAfter"):format(settings.kind, step)
            end
        end
        bed.elapse(math.random() < 0.5 and math.random(0, 2 * interval)
            or math.random() < 0.05 and math.random(0, settings.window * 3e6) or 0)
    end
    return nil, seen
end

-- The script itself, on a server of a few lines, with a clock that is moved.
local function scripted(source, settings, bed)
    local stored, ends, now = nil, 0, 1767225600123456
    local commands = {
        TIME = function()
            return { ("%d"):format(math.floor(now / 1e6)), ("%d"):format(now % 1e6) }
        end,
        GET = function()
            if stored and now >= ends then stored = nil end
            return stored or false
        end,
        SET = function(_, value, _, ms)
            stored, ends = value, (math.floor(now / 1000) + ms) * 1000
        end,
        UNLINK = function() stored = nil return 1 end,
    }
    -- What it needs of a limiter is made by the real one, on a cache that sends nothing.
    local made = bed.cache:limiter(settings)
    local function run(least, most)
        local words = { made._letter, ("%d"):format(least), ("%d"):format(most),
            ("%d"):format(made._most), made._span, made._rate }
        local script = assert(loadstring(source))
        setfenv(script, { KEYS = { "k" }, ARGV = words, math = math, string = string,
            table = table, tonumber = tonumber,
            redis = { call = function(name, ...) return commands[name](...) end } })
        local answer = script()
        return answer[1] > 0, { remaining = answer[2], retryAfter = answer[4] / 1e6 }
    end
    return {
        now = function() return now end,
        elapse = function(us) now = now + us end,
        take = function(n) return run(n, n) end,
        peek = function() return (select(2, run(1, 0))) end,
    }
end

local function seed(always)
    local number = always or tonumber(os.getenv("REDCACHE_SEED")) or os.time()
    math.randomseed(number)
    return number
end

describe("a limiter decides as the model does", function()
    it("on memory://, with a clock that is moved", function()
        local number, granted, refused = seed(), 0, 0
        for i = 1, 40 do
            local time, settings = redcache.clock(), make_settings()
            local cache = redcache.new({ url = "memory://limits" .. i, clock = time,
                namespace = "app", near = false })
            local one, at = cache:limiter(settings), 0
            local difference, seen = differs(settings, {
                now = function() return 1577836800000000 + at end,
                elapse = function(us)
                    at = at + us
                    time:advance(us / 1e6)
                end,
                take = function(n) return one:take("k", n) end,
                peek = function() return one:peek("k") end,
            }, STEPS)
            cache:close()
            assert.is_nil(difference, ("seed %d, history %d"):format(number, i))
            granted, refused = granted + (seen[true] or 0), refused + (seen[false] or 0)
        end
        -- 5,300 and 2,700 of 8,000 on the average; a setting alone may be all of one kind.
        assert.is_true(granted > 40 * STEPS / 20 and refused > 40 * STEPS / 20,
            granted .. " " .. refused)
    end)

    it("so that callers of a sliding window who take all they can get 98 % of it", function()
        local time, limit, windows = redcache.clock(), 100, 50
        local cache = redcache.new({ clock = time, near = false })
        finally(function() cache:close() end)
        local one, passed = cache:limiter({ kind = "sliding", limit = limit, window = 1 }), 0
        for _ = 1, windows * 500 do
            passed = passed + (one:take("k") and 1 or 0)
            time:advance(0.002)
        end
        assert.is_true(passed >= 0.98 * limit * windows and passed <= limit * windows, passed)
    end)

    -- Bugs that limiters have had: each is found by the same histories.
    local MUTANTS = {
        none = { "", "" },
        ["a window is counted until it is read again, not until its end"] =
            { "and now<s%[1%] then ends", "then ends" },
        ["a look begins a window"] = { "if took>0 then\nfor", "do\nfor" },
        ["a part of the window is let go as soon as it begins to be too old"] =
            { "for i=1,rate%+1 do n%[i%]=0 end", "rate=rate-1 for i=1,rate+1 do n[i]=0 end" },
        ["the counts do not move with the time"] =
            { "math.max%(cell%-s%[1%],0%)", "0" },
        ["debts are paid from the last take that was refused, too"] =
            { "s={now,owed,span}", "s={now,owed,span} took=math.max(took,0.5)" },
        ["a burst is one too many"] =
            { "room=(math.floor%(%(cap%*span%-owed%)/span%))", "room=1+%1" },
        ["n units count as one"] = { "count=count%+took", "count=count+math.min(took,1)" },
        ["part of n units is taken"] = { "if room>=least then took", "if room>0 then took" },
        ["the state ends before what it counts"] = { "reset/1000", "reset/4000" },
    }
    for name, change in pairs(MUTANTS) do
        it(name == "none" and "in the script that Redis runs" or "but where " .. name, function()
            -- One history of a hundred finds a window that a look begins: which ones are made up is
            -- not left to chance where a bug has to be found.
            local number = seed(name ~= "none" and 1 or nil)
            local cache = redcache.new({ url = "memory://" })
            finally(function() cache:close() end)
            local source, count = limiter.SOURCE, 1
            if name ~= "none" then source, count = source:gsub(change[1], change[2]) end
            assert.equal(1, count)
            local found
            for _ = 1, name == "none" and 40 or 1000 do
                local settings = make_settings()
                found = found or differs(settings, scripted(source, settings, { cache = cache }),
                    STEPS)
            end
            if name == "none" then
                assert.is_nil(found, "seed " .. number)
            else
                assert.is_string(found, "seed " .. number)
            end
        end)
    end
end)

describe("takes of several processes", function()
    local redis, caches

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function()
        redis:reset()
        caches = {}
    end)
    after_each(function()
        for _, cache in ipairs(caches) do cache:close() end
    end)

    -- How many of 10 * LIMIT takes pass. The last window is far: nothing is freed meanwhile.
    local function passed(settings)
        local takers = herd.start({
            count = PROCESSES, timeout = 120,
            params = function() return { url = redis:url(), settings = settings, limit = LIMIT,
                processes = PROCESSES } end,
            main = function(one)
                local params = one.params
                local cache = require("redcache").new({ url = params.url, near = false,
                    commandTimeout = 60 })
                local limit, count = cache:limiter(params.settings), 0
                one:ready()
                for _ = 1, params.limit * 10 / params.processes do
                    local allowed, _, cause = limit:take("k")
                    if cause then error(cause) end
                    count = count + (allowed and 1 or 0)
                end
                cache:close()
                return count
            end,
        })
        local total = 0
        for _, count in ipairs(takers:join().results) do total = total + count end
        return total
    end

    for _, kind in ipairs(KINDS) do
        it(kind .. ": exactly the limit passes", function()
            assert.equal(LIMIT, passed({ kind = kind, limit = LIMIT, window = 86400 * 10 }))
        end)
    end

    it("with a budget: no more than the limit and what processes held before", function()
        local settings = { kind = "fixed", limit = LIMIT, window = 86400, budget = 10 }
        local total = passed(settings)
        -- What stays in budgets is used by nobody else.
        assert.is_true(total <= LIMIT and total > LIMIT - PROCESSES * 10, total)
    end)

    it("units that are held from the window before are all that is above the limit", function()
        local window = clock.scaled(0.2)
        local most = 0
        for i = 1, 4 do
            -- A take that is not answered in time would be allowed, and not counted.
            caches[i] = redcache.new({ url = redis:url(), near = false, commandTimeout = 60 })
        end
        local limiters = {}
        for i, cache in ipairs(caches) do
            limiters[i] = cache:limiter({ kind = "sliding", limit = 40, window = window,
                budget = 5 })
        end
        -- Windows of what passed, by when it was asked for.
        local passes, ends = {}, clock.now() + 3 * window
        while clock.now() < ends do
            for _, one in ipairs(limiters) do
                local before = clock.now()
                if one:take("k") then passes[#passes + 1] = { before, clock.now() } end
            end
        end
        for i = 1, #passes do
            local count = 0
            -- Surely within one window: the last was answered before it ended.
            for j = i, #passes do
                if passes[j][2] - passes[i][1] < window then count = count + 1 end
            end
            most = math.max(most, count)
        end
        assert.is_true(most <= 40 + 4 * 5, most)
        assert.is_true(#passes >= 40, #passes)
    end)

    it("of a sliding window: never above the limit in any window", function()
        local cache = redcache.new({ url = redis:url(), near = false, commandTimeout = 60 })
        caches[1] = cache
        local window, limit = clock.scaled(0.2), 50
        local one = cache:limiter({ kind = "sliding", limit = limit, window = window })
        local passes, begin = {}, clock.now()
        while clock.now() < begin + 5 * window do
            local before = clock.now()
            if one:take("k") then passes[#passes + 1] = { before, clock.now() } end
        end
        for i = 1, #passes - limit do
            -- Limit and one more: from when the first was asked for to when the last was answered.
            local took = passes[i + limit][2] - passes[i][1]
            assert.is_true(took > window, took)
        end
        assert.is_true(#passes > limit, #passes)
    end)
end)
