-- Cases (spec/support/api_cases.lua): setBehind, whoever writes what is due.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local raises = group.raises

-- A cache whose writer answers as fn(items) does, and puts down what was written, in its order.
local function open(bed, fn, fields)
    local log = {}
    local all = {
        write = function(items)
            local done, failed = true, nil
            if fn then done, failed = fn(items) end
            if done then
                for _, item in ipairs(items) do
                    log[#log + 1] = item.key .. "=" .. tostring(item.value)
                end
            end
            return done, failed
        end,
    }
    for name, value in pairs(fields or {}) do all[name] = value end
    return bed.open({ writeBehind = all }), log
end

-- Waits until it holds; meanwhile callers of the cache come by, as plain Lua needs them.
local function wait_for(bed, cache, condition, what)
    bed.wait_until(function()
        cache:exists("nothing")
        return condition()
    end, 30, what)
end

local function figures(cache)
    local stats, out = cache:stats(), {}
    for _, name in ipairs({ "Queued", "Bytes", "Written", "Failed", "Coalesced", "Refused" }) do
        local count = stats["behind" .. name]
        out[name:lower()] = count > 0 and count or nil
    end
    return out
end

case("setBehind stores at once, and has the value written", function(bed)
    local cache, log = open(bed)
    assert.same({ true }, { cache:setBehind("k", "v", 60) })
    assert.same({ "v", nil, "redis" }, { cache:get("k") })
    wait_for(bed, cache, function() return #log > 0 end, "the write")
    wait_for(bed, cache, function() return figures(cache).written end, "its end")
    assert.same({ "k=v" }, log)
    assert.same({ written = 1 }, figures(cache))
    local left = cache:ttl("k")
    assert.is_true(left > 1 and left <= 60)
end)

case("setBehind writes each type, in a batch, with the number of the attempt", function(bed)
    local given
    local cache = bed.open({ writeBehind = { delay = 600, write = function(items)
        given = items
        return true
    end } })
    local value = { a = { 1, 2 } }
    assert(cache:setBehind("table", value))
    value.a = "changed since"
    assert(cache:setBehind("false", false))
    assert(cache:setBehind("text", "\0\255", nil, { timeout = 5 }))
    assert.same({ true }, { cache:close(60) })
    assert.same({
        { key = "table", value = { a = { 1, 2 } }, attempt = 1 },
        { key = "false", value = false, attempt = 1 },
        { key = "text", value = "\0\255", attempt = 1 },
    }, given)
end)

case("setBehind writes the last of values that came before the write began", function(bed)
    local cache, log = open(bed, nil, { delay = 600 })
    for i = 1, 5 do assert(cache:setBehind("k", i)) end
    assert(cache:setBehind("other", 1))
    assert.same({ queued = 2, bytes = 8, coalesced = 4 }, figures(cache))
    assert.same({ true }, { cache:close(60) })
    assert.same({ "k=5", "other=1" }, log)
end)

case("setBehind tries again what has failed, and keeps the order of each key", function(bed)
    local count = 0
    local cache, log = open(bed, function(items)
        count = count + 1
        if count % 3 == 1 then return nil, "busy" end
        if count % 3 == 2 then error("thrown") end
        for _, item in ipairs(items) do assert(item.attempt >= 1) end
        return true
    end, { batch = 4 })
    for i = 1, 30 do assert(cache:setBehind("k" .. i % 5, i)) end
    wait_for(bed, cache, function() return not figures(cache).queued end, "all writes")
    local last = {}
    for _, line in ipairs(log) do
        local key, i = line:match("^(k%d)=(%d+)$")
        assert.is_true(tonumber(i) > (last[key] or 0))
        last[key] = tonumber(i)
    end
    assert.same({ k0 = 30, k1 = 26, k2 = 27, k3 = 28, k4 = 29 }, last)
    local found = figures(cache)
    assert.is_true(found.failed >= 2)
    assert.equal(30, found.written + (found.coalesced or 0))
end)

case("setBehind takes the keys that a writer names for the ones that failed", function(bed)
    local failing = true
    local cache, log = open(bed, function(items)
        for _, item in ipairs(items) do
            if failing and item.key == "b" then return nil, { b = "of b alone" } end
        end
        return true
    end, { delay = 0.1, attempts = 2 })
    for _, key in ipairs({ "a", "b", "c" }) do assert(cache:setBehind(key, false)) end
    wait_for(bed, cache, function() return cache:stats().deadLetters == 1 end, "a dead letter")
    assert.same({ failed = 2, written = 2 }, figures(cache))
    assert.same({ { key = "b", value = false, reason = "of b alone", attempts = 2 } },
        cache:deadLetters())
    failing = false
    assert.equal(1, cache:replayDeadLetters())
    wait_for(bed, cache, function() return figures(cache).written == 3 end, "the replay")
    assert.equal("b=false", log[#log])
    assert.same({}, cache:deadLetters())
end)

case("setBehind takes a table that names no key of its for a reason of all", function(bed)
    local cache = open(bed, function() return nil, { code = 5 } end, { attempts = 1 })
    assert(cache:setBehind("k", 1))
    wait_for(bed, cache, function() return cache:stats().deadLetters == 1 end, "a dead letter")
end)

case("setBehind gives up after its attempts, and tells", function(bed)
    local told, tries = {}, 0
    local cache, log = open(bed, function()
        tries = tries + 1
        return tries > 6 or nil, "no database"
    end, { attempts = 3, batch = 1, onFailed = function(key, value, reason)
        told[#told + 1] = { key, value, reason }
        error("thrown by onFailed")
    end })
    assert(cache:setBehind("a", "x"))
    assert(cache:setBehind("b", "y"))
    wait_for(bed, cache, function() return #told == 2 end, "two dead letters")
    assert.same({ { "a", "x", "no database" }, { "b", "y", "no database" } }, told)
    assert.equal("x", (cache:get("a")))
    assert.equal(2, cache:stats().deadLetters)
    assert.same({ { key = "a", value = "x", reason = "no database", attempts = 3 } },
        cache:deadLetters({ limit = 1 }))
    assert.equal(1, cache:replayDeadLetters({ "b", "unknown" }))
    assert.equal(1, cache:dropDeadLetters({ "a", "b" }))
    wait_for(bed, cache, function() return #log == 1 end, "the replay")
    assert.same({ "b=y" }, log)
    assert.same({}, cache:deadLetters())
    assert.same({ 0, 0 }, { cache:replayDeadLetters(), cache:dropDeadLetters() })
end)

case("setBehind of a key voids its dead letter", function(bed)
    local works = false
    local cache, log = open(bed, function() return works, "not yet" end, { attempts = 1 })
    assert(cache:setBehind("k", 1))
    wait_for(bed, cache, function() return cache:stats().deadLetters == 1 end, "a dead letter")
    works = true
    assert(cache:setBehind("k", 2))
    assert.equal(0, cache:replayDeadLetters())
    wait_for(bed, cache, function() return #log > 0 and not figures(cache).queued end, "the write")
    assert.same({ "k=2" }, log)
end)

case("setBehind refuses what there is no room for, before anything is stored", function(bed)
    local works = false
    local cache, log = open(bed, function() return works, "not yet" end,
        { entries = 2, bytes = 1024, attempts = 100 })
    assert(cache:setBehind("a", 1))
    assert(cache:setBehind("b", 1))
    local ok, err = cache:setBehind("c", 1)
    assert.same({ nil, "overload", "c" }, { ok, err.code, err.key })
    assert.is_nil(cache:get("c"))
    assert(cache:setBehind("a", 2)) -- takes the place of the one before
    ok, err = cache:setBehind("b", ("x"):rep(1018))
    assert.same({ nil, "overload" }, { ok, err.code })
    assert.equal(1, (cache:get("b")))
    ok, err = cache:setBehind("b", ("x"):rep(1024))
    assert.same({ nil, "tooLarge" }, { ok, err.code })
    assert.equal(2, figures(cache).refused)
    works = true
    wait_for(bed, cache, function() return not figures(cache).queued end, "the writes")
    table.sort(log)
    assert.same({ "a=2", "b=1" }, log)
    assert(cache:setBehind("c", 1))
end)

case("setBehind writes nothing behind where it stored nothing", function(bed)
    local cache, log = open(bed)
    local ok, err = cache:setBehind("k", 1, -1)
    assert.same({ nil, "badTtl" }, { ok, err.code })
    ok, err = cache:setBehind("k", print)
    assert.same({ nil, "encode" }, { ok, err.code })
    ok, err = cache:setBehind(("k"):rep(70000), 1)
    assert.same({ nil, "tooLarge" }, { ok, err.code })
    assert(cache:exists("k") == false)
    bed.silence(true)
    ok, err = cache:setBehind("k", 1, 60, { timeout = 0.05 })
    bed.silence(false)
    assert.is_nil(ok)
    assert.is_true(err.code == "timeout" or err.code == "outcomeUnknown", err.code)
    bed.pause(0.05)
    cache:exists("nothing")
    assert.same({ {}, {} }, { log, figures(cache) })
end)

case("close writes what waits to be written behind", function(bed)
    local cache, log = open(bed, nil, { delay = 60, batch = 2 })
    for i = 1, 5 do assert(cache:setBehind("k" .. i, i)) end
    assert.same({}, log)
    assert.same({ true }, { cache:close(10) })
    assert.same({ "k1=1", "k2=2", "k3=3", "k4=4", "k5=5" }, log)
    local ok, err = cache:setBehind("k", 1)
    assert.same({ nil, "closed" }, { ok, err.code })
end)

case("close tells what it could not write, and returns in time", function(bed)
    local told = {}
    local cache = open(bed, function() return nil, "no database" end, {
        onFailed = function(key, value, reason) told[#told + 1] = { key, value, reason } end,
    })
    assert(cache:setBehind("a", 1))
    assert(cache:setBehind("b", 2))
    group.within(5, function() assert.same({ true, 2 }, { cache:close(0.25) }) end)
    assert.same({ { "a", 1, "the cache was closed" }, { "b", 2, "the cache was closed" } }, told)
end)

case("a namespace writes its own values behind, by the names it knows", function(bed)
    local cache, log = open(bed)
    local below, below_log = cache:namespace("below"), {}
    raises("without the option writeBehind", below.setBehind, below, "k", 1)
    below = cache:namespace("below", { writeBehind = { write = function(items)
        below_log[#below_log + 1] = items[1].key
        return true
    end } })
    assert(below:setBehind("k", 2))
    wait_for(bed, cache, function() return #below_log > 0 end, "the write")
    assert.same({ { "k" }, {} }, { below_log, log })
end)

case("a writer may call the cache, and write behind", function(bed)
    local cache, log
    cache, log = open(bed, function(items)
        for _, item in ipairs(items) do
            assert.equal(item.value, (cache:get(item.key)))
            if item.value < 3 then assert(cache:setBehind(item.key, item.value + 1)) end
        end
        return true
    end)
    assert(cache:setBehind("k", 1))
    wait_for(bed, cache, function() return #log == 3 end, "three writes")
    assert.same({ "k=1", "k=2", "k=3" }, log)
end)

case("setBehind and its dead letters refuse bad arguments", function(bed)
    local cache, log = open(bed)
    local plain = bed.cache
    raises("bad argument 'key' to setBehind", cache.setBehind, cache, 1, 1)
    raises("bad argument 'value' to setBehind", cache.setBehind, cache, "k", nil)
    raises("unknown option 'delay' to setBehind", cache.setBehind, cache, "k", 1, 60, { delay = 1 })
    raises("bad argument 'opts' to setBehind", cache.setBehind, cache, "k", 1, 60, 5)
    raises("without the option writeBehind", plain.setBehind, plain, "k", 1)
    for _, method in ipairs({ "deadLetters", "replayDeadLetters", "dropDeadLetters" }) do
        raises("without the option writeBehind", plain[method], plain)
    end
    raises("bad option 'limit' to deadLetters", cache.deadLetters, cache, { limit = 0 })
    raises("bad argument 'keys' to replayDeadLetters", cache.replayDeadLetters, cache, "k")
    raises("bad argument 'keys' to dropDeadLetters", cache.dropDeadLetters, cache, { 1 })
    local write = function() return true end
    for option, value in pairs({ write = 1, entries = 0, bytes = 1023, attempts = 0, onFailed = 1,
        batch = 0, delay = -1, writers = 65, colour = 1 }) do
        local fields = { write = write }
        fields[option] = value
        raises("bad option 'writeBehind' to namespace: ", cache.namespace, cache, "n",
            { writeBehind = fields })
    end
    raises("'write': function(items) expected", cache.namespace, cache, "n", { writeBehind = {} })
    raises("table expected", cache.namespace, cache, "n", { writeBehind = true })
    assert.same({ {}, {} }, { log, figures(cache) })
    assert.is_false(cache:exists("k"))
end)

light("writers side by side keep the order of each key, whatever they take", function(bed)
    local busy, begun, overlaps = {}, {}, 0
    local cache, log
    cache, log = open(bed, function(items)
        for _, item in ipairs(items) do
            if busy[item.key] then error("two writes of a key at once") end
            busy[item.key] = true
            begun[item.key] = (begun[item.key] or 0) + 1
        end
        overlaps = overlaps + (next(busy, next(busy)) and 1 or 0)
        bed.pause(math.random() * 0.01)
        for _, item in ipairs(items) do busy[item.key] = nil end
        -- Bad luck that lasts would be waited for longer each time, and so for longer than here.
        return items[1].attempt > 3 or math.random() > 0.3, "bad luck"
    end, { writers = 2, batch = 1, attempts = 100 })
    local callers = {}
    for k = 1, 4 do
        callers[k] = function()
            for i = 1, 20 do
                assert(cache:setBehind("k" .. k, i))
                bed.pause(math.random() * 0.01)
            end
        end
    end
    bed.together(callers)
    wait_for(bed, cache, function() return not figures(cache).queued end, "all writes")
    local last = {}
    for _, line in ipairs(log) do
        local key, i = line:match("^(k%d)=(%d+)$")
        assert.is_true(tonumber(i) > (last[key] or 0), line)
        last[key] = tonumber(i)
    end
    assert.same({ k1 = 20, k2 = 20, k3 = 20, k4 = 20 }, last)
    assert.is_true(overlaps > 0)
end)

return cases
