-- What a value that is there is good for: generated cases against spec/support/freshness_table.lua,
-- on memory:// with a clock that stands still (REDCACHE_FRESHNESS_CASES: how many), some on Redis
-- in real time; and what chance decides, by counting.

local clock = require("spec.support.clock")
local core_random = require("redcache.core.random")
local freshness = require("redcache.freshness")
local redcache = require("redcache")
local server = require("spec.support.server")
local freshness_table = require("spec.support.freshness_table")

local CASES = tonumber(os.getenv("REDCACHE_FRESHNESS_CASES") or 600)
local REDIS_CASES = 24

local function choose(list) return list[math.random(#list)] end

-- A case; times are multiples of `unit` seconds. Nothing happens within a tenth of one of an end:
-- Redis counts milliseconds, and near copies end one before.
local function make(unit)
    local case = {
        kind = choose({ "set", "load", "load", "load", "chosen", "many", "negative", "forever" }),
        read = choose({ "remember", "remember", "remember", "rememberMulti", "get", "getMulti" }),
        says = choose({ "value", "value", "same", "nothing", "error", "throws" }),
        near = choose({ false, true, { l0 = false } }),
        background = choose({ true, false }),
        refreshAfter = choose({ false, 2, 5, 15 }),
        grace = choose({ 0, 10, 10 }),
        softTimeout = choose({ 0, 0, 1 }),
        load_time = choose({ 0, 0.5, 2 }),
        jitter = choose({ 0, 0, 0.5 }),
        is_held = math.random() < 0.2,
        warm = math.random(0, 2),
    }
    case.age = math.random(0, 24) + 0.5
    if case.kind == "set" then case.load_time = 0 end
    if case.says == "same" and case.kind == "negative" then case.says = "value" end
    for _, name in ipairs({ "age", "grace", "softTimeout", "load_time" }) do
        case[name] = case[name] * unit
    end
    case.refreshAfter = case.refreshAfter and case.refreshAfter * unit or nil
    case.ttl = 10 * unit
    return case
end

local function tell(case)
    local names, parts = {}, {}
    for name in pairs(case) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
        local value = case[name]
        parts[i] = name .. "=" .. (type(value) == "table" and "{l0=false}" or tostring(value))
    end
    return table.concat(parts, " ")
end

-- What its loader will do, first to fill and then to load again. `elapse(seconds)` lets time pass.
local function loader_of(case, elapse, seen)
    return function(_, ctx)
        seen.runs = seen.runs + 1
        seen.age, seen.old = ctx.age, ctx.value
        if case.load_time > 0 then elapse(case.load_time) end
        if case.says == "throws" then error("planted") end
        if case.says == "error" then return nil, "down" end
        if case.says == "same" then
            return ctx.value ~= nil and ctx.notModified or "old"
        end
        return case.says == "value" and "new" or nil
    end
end

-- Stores what the case begins with. Its life in seconds; the machine may have taken `slack` of it.
local function fill(cache, case, elapse, slack)
    local ttl = case.kind == "forever" and redcache.FOREVER or case.ttl
    local function load()
        if case.load_time > 0 then elapse(case.load_time) end
        if case.kind == "negative" then return nil end
        if case.kind == "chosen" then return "old", case.ttl end
        return "old"
    end
    if case.kind == "set" then
        assert(cache:set("k", "old", ttl))
    elseif case.kind == "many" then
        assert.equal("old", cache:rememberMulti({ "k" }, ttl, function()
            return { k = load() }
        end).k)
    else
        local _, err = cache:remember("k", case.kind == "chosen" and 3 * case.ttl or ttl, load)
        assert.is_nil(err)
    end
    if case.kind == "negative" then return case.ttl end
    local life = cache:ttl("k")
    if case.kind == "forever" then
        assert.equal(redcache.FOREVER, life)
        return nil
    end
    assert.is_true(life <= case.ttl and life >= case.ttl * (1 - case.jitter) * 0.99 - slack, life)
    return life
end

local READS = {
    remember = function(cache, case, fn)
        local value, err, source, flag = cache:remember("k", case.ttl, fn)
        return { value = value, source = source, code = err and err.code, flag = flag }
    end,
    get = function(cache)
        local value, err, source = cache:get("k")
        return { value = value, source = source, code = err and err.code }
    end,
    getMulti = function(cache)
        local values, failed, negatives = cache:getMulti({ "k" })
        assert.same({}, failed)
        local is_here = values.k ~= nil or negatives.k
        return { value = values.k, source = is_here and "redis" or nil }
    end,
    rememberMulti = function(cache, case, fn)
        local before = case.seen.runs
        local values, failed, negatives, flags = cache:rememberMulti({ "k" }, case.ttl,
            function(keys, ctx)
                local old = ctx.stale.k or {}
                local value, err = fn(keys[1], { value = old.value, age = old.age,
                    notModified = ctx.notModified })
                return { k = value }, { k = err }
            end)
        local is_here = values.k ~= nil or negatives.k
        local source = is_here and (flags.k == "stale" and "stale" or "redis") or nil
        -- Which run a value comes from is not told: a run within this call that brought it.
        if source == "redis" and case.seen.runs > before
            and (case.says == "value" or case.says == "same" or case.says == "nothing") then
            source = "loader"
        end
        return { value = values.k, source = source, code = failed.k and failed.k.code,
            flag = flags.k ~= "stale" and flags.k or nil }
    end,
}

local HERE = { l0 = true, near = true, redis = true }

local function compare(case, which, wanted, got)
    local source = HERE[got.source] and "here" or got.source
    local is_same = wanted.value == got.value and wanted.source == source
        and wanted.code == got.code and got.flag == nil
    assert(is_same, ("%s: %s expected %s/%s/%s, got %s/%s/%s/%s"):format(tell(case), which,
        tostring(wanted.value), tostring(wanted.source), tostring(wanted.code),
        tostring(got.value), tostring(got.source), tostring(got.code), tostring(got.flag)))
end

-- For its last 0.25 s the lease of a refresh stands in a value's place.
local LAST = 0.3

-- Whether some end is so near that milliseconds decide, or comes while the loader runs.
-- `from`, `to`: its age before the read and behind it.
local function is_close(case, unit, from, to)
    for _, at in ipairs({ case.life or 0, (case.life or 0) + case.grace,
        case.refreshAfter or 0 }) do
        if at > from - unit / 10 - case.slack and at < to + LAST * unit + case.slack then
            return true
        end
    end
    return false
end

-- Runs a case; false: its ends are too close. bed: url, clock, elapse(seconds)
local function try(case, unit, bed)
    local seen = { runs = 0 }
    case.seen = seen
    local function open(options)
        return redcache.new({ url = options.url or bed.url, clock = bed.clock, near = options.near,
            background = options.background, refreshAfter = case.refreshAfter,
            grace = case.grace, softTimeout = case.softTimeout, jitter = case.jitter,
            negativeTtl = case.ttl, group = options.group, maxStale = 1800,
            connectTimeout = 60, commandTimeout = 60, -- how fast a machine is, is not asked
            leaseTtl = math.max(0.05, 50 * unit), waitTimeout = 100 * unit + 5 })
    end
    local cache = open(case)
    local other = open({ near = false, background = false, group = "other", url = bed.other_url })
    local begun = bed.now()
    case.life = fill(cache, case, bed.elapse, bed.clock and 0 or 1)
    local stored = bed.now()
    -- How well its age and life are known.
    case.slack = bed.clock and 0 or stored - begun - case.load_time
    for _ = 1, case.warm do READS.get(cache) end
    bed.elapse(case.age)
    case.age = bed.now() - stored
    if not bed.clock and case.kind ~= "set" then
        case.load_time = math.max(case.load_time, 0.001) -- no load takes no time
    end
    local wanted = case.read == "rememberMulti" and "remember" or case.read
    local asked = setmetatable({ read = wanted }, { __index = case })
    local first, second, runs, later = freshness_table.expected(asked)
    local state = freshness_table.state_of(asked)
    local good = true
    -- While somebody else loads what is absent, readers wait: another spec's.
    if asked.is_held and state ~= "early" and state ~= "stale" then asked.is_held = false end
    local fn = loader_of(case, bed.elapse, seen)
    local function look()
        local from = bed.now() - stored
        local got = READS[case.read](cache, case, fn)
        -- What a job in the background will take counts, too.
        good = not is_close(case, unit, from, math.max(bed.now() - stored, from + case.load_time))
        if not good then return end
        compare(case, "first read", first, got)
        assert(seen.runs == runs, tell(case) .. ": loader ran " .. seen.runs .. " times")
        if seen.runs == 1 and (state == "early" or state == "stale") then
            assert(seen.old == "old", tell(case))
            assert(math.abs(seen.age - case.age) < unit / 10 + (bed.clock and 0 or 1),
                tell(case) .. seen.age)
        end
        if not bed.clock then return end -- time has passed: the next one may be another state
        cache:work(1)
        got = READS[case.read](cache, case, fn)
        compare(case, "second read", second, got)
        assert(seen.runs == later, tell(case) .. ": loader ran " .. seen.runs .. " times in all")
    end
    if asked.is_held and case.read:find("remember") then
        -- The other one finds it due, too, and looks on from inside its loader. It has no near
        -- copies, so it asks for the lease.
        local was_inside = false
        other:remember("k", case.ttl, function()
            was_inside = true
            look()
            return "late"
        end)
        good = good and was_inside
    else
        asked.is_held = false
        first, second, runs, later = freshness_table.expected(asked)
        look()
    end
    cache:close()
    other:close()
    return good, state
end

describe("what a value is good for", function()
    it("is what docs/api/freshness.md says, on memory://, whatever the case", function()
        local seed = tonumber(os.getenv("REDCACHE_SEED")) or os.time()
        math.randomseed(seed)
        local count, states = 0, {}
        while count < CASES do
            local case, time = make(1), redcache.clock()
            local ok, good, state = xpcall(try, debug.traceback, case, 1, {
                url = "memory://", clock = time,
                elapse = function(seconds) time:advance(seconds) end,
                now = function() return time:now() end,
            })
            assert(ok, ("seed %d, case %d: %s"):format(seed, count, tostring(good)))
            if good then
                count = count + 1
                states[state] = (states[state] or 0) + 1
            end
        end
        -- One in twelve is early, the rarest of them: of 600 no fewer than ten, surely.
        for _, state in ipairs({ "fresh", "early", "stale", "absent" }) do
            assert.is_true((states[state] or 0) >= CASES / 60, state .. " " .. (states[state] or 0))
        end
    end)

    it("is the same on Redis", function()
        local redis = server.start()
        finally(function() redis:stop() end)
        local seed, count = os.time(), 0
        math.randomseed(seed)
        local unit = clock.scaled(0.02)
        while count < REDIS_CASES do
            redis:call("FLUSHALL")
            local case = make(unit)
            local ok, good = xpcall(try, debug.traceback, case, unit, {
                url = redis:url(), other_url = redis:unix_url(), elapse = clock.sleep,
                now = clock.now,
            })
            assert(ok, ("seed %d, case %d: %s"):format(seed, count, tostring(good)))
            count = count + (good and 1 or 0)
        end
    end)
end)

describe("jitter", function()
    it("shortens ttls by at most what it says, and spreads them", function()
        local cache = redcache.new({ near = false, jitter = 0.4, clock = redcache.clock() })
        local least, most, sum, count = math.huge, 0, 0, 2000
        for _ = 1, count do
            assert(cache:set("k", 1, 100))
            local life = cache:ttl("k")
            least, most, sum = math.min(least, life), math.max(most, life), sum + life
        end
        assert.is_true(least >= 59.99 and least < 61, least)
        assert.is_true(most <= 100 and most > 99, most)
        assert.is_true(math.abs(sum / count - 80) < 1.5, sum / count) -- 5.8 standard errors
        assert(cache:set("k", 1, redcache.FOREVER))
        assert.equal(redcache.FOREVER, cache:ttl("k"))
        cache:remember("none", 60, function() return nil end, { negativeTtl = 50 })
        cache:close()
    end)
end)

describe("xfetchBeta", function()
    -- How often a value is early of which `left` seconds are left.
    local function part(left, load_time, beta, draws)
        local count = 0
        for _ = 1, draws do
            local verdict = freshness.judge({ xfetchBeta = beta }, left, 1000, 0, load_time,
                "valid", core_random.dice())
            count = count + (verdict == "early" and 1 or 0)
        end
        return count / draws
    end

    it("draws as the paper says: exp(-left / (load time * beta))", function()
        local draws = 20000
        for _, one in ipairs({ { 1, 1, 1 }, { 2, 1, 1 }, { 1, 1, 2 }, { 0.5, 1, 1 },
            { 3, 2, 0.5 } }) do
            local left, load_time, beta = one[1], one[2], one[3]
            local p = math.exp(-left / (load_time * beta))
            local error_of = math.sqrt(p * (1 - p) / draws)
            local got = part(left, load_time, beta, draws)
            assert.is_true(math.abs(got - p) < 6.5 * error_of, p .. " " .. got)
        end
    end)

    it("is nearly always early near the end, rarely far from it, earlier with a larger beta",
        function()
            assert.is_true(part(0.01, 1, 1, 2000) > 0.97)
            assert.is_true(part(20, 1, 1, 2000) < 0.01)
            assert.is_true(part(5, 0.001, 1, 2000) == 0)
            assert.is_true(part(5, 1, 1, 20000) < part(5, 1, 5, 20000))
            assert.equal(0, part(1, 0, 1, 2000)) -- nobody has loaded it: set
            assert.equal(0, part(math.huge, 1, 1000, 2000))
        end)

    it("goes by the load time that the entry tells, near and in Redis", function()
        for _, near in ipairs({ true, false }) do
            local time, runs = redcache.clock(), 0
            local cache = redcache.new({ near = near, xfetchBeta = 1, clock = time,
                background = true })
            local function fn()
                runs = runs + 1
                time:advance(1)
                return runs
            end
            local early, tries = 0, 300
            for i = 1, tries do
                runs = 0
                local key = "k" .. i
                cache:remember(key, 10, fn)
                cache:get(key)
                time:advance(9) -- one is left: p = 1/e
                local value, _, source = cache:remember(key, 10, fn)
                assert.equal(1, value)
                assert.is_true(source ~= "stale" and source ~= "loader", source)
                cache:work(1)
                early = early + runs - 1
            end
            local p = math.exp(-1)
            assert.is_true(math.abs(early / tries - p) < 6.5 * math.sqrt(p * (1 - p) / tries),
                early)
            cache:close()
        end
    end)
end)
