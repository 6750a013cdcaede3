-- Cases (spec/support/api_cases.lua): setBehind with durable = true, whoever writes.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case, raises = cases.case, group.raises

local function open(bed, fn, fields, how)
    bed.needs("streams")
    local log = {}
    local all = { durable = true, partitions = 2, write = function(items)
        local done, failed = true, nil
        if fn then done, failed = fn(items) end
        for _, item in ipairs(done and items or {}) do
            log[#log + 1] = item.key .. "=" .. item.value
        end
        return done, failed
    end }
    for name, value in pairs(fields or {}) do all[name] = value end
    return (how or bed.open)({ writeBehind = all }), log
end

local function wait_for(bed, caches, condition, what)
    bed.wait_until(function()
        for _, cache in ipairs(caches) do cache:exists("nothing") end
        return condition()
    end, 20, what)
end

-- How many values wait in Redis.
local function waiting(bed, partitions)
    local count = 0
    for n = 0, (partitions or 2) - 1 do
        count = count + bed.redis:call("XLEN", "app//behind:{" .. n .. "}")
        assert.is_true(bed.redis:call("HLEN", "app//newest:{" .. n .. "}") <= 100)
    end
    return count
end

case("a durable setBehind stores, writes with a fence, and leaves nothing", function(bed)
    local fences = {}
    local cache, log = open(bed, function(items)
        for _, item in ipairs(items) do
            fences[#fences + 1] = item.fence
            assert.equal(1, item.attempt)
        end
        return true
    end)
    assert.same({ true }, { cache:setBehind("a", 1, 60) })
    assert.same({ true }, { cache:setBehind("b", "x", nil, { timeout = 5 }) })
    assert.equal(1, (cache:get("a")))
    wait_for(bed, { cache }, function() return #log == 2 and waiting(bed) == 0 end, "the writes")
    table.sort(log)
    assert.same({ "a=1", "b=x" }, log)
    assert.is_true(fences[1] > 0 and fences[2] > 0)
    assert.equal(2, cache:stats().behindWritten)
    for n = 0, 1 do assert.equal(0, bed.redis:call("HLEN", "app//newest:{" .. n .. "}")) end
    cache:close()
end)

case("a durable value is written by another process, the last one of the key alone", function(bed)
    local one = open(bed, function() return nil, "cannot" end, { attempts = 100 })
    for i = 1, 5 do assert(one:setBehind("k", i)) end
    assert.equal(1, waiting(bed))
    one:close()
    local other, log = open(bed, nil, nil, bed.other)
    wait_for(bed, { other }, function() return #log > 0 and waiting(bed) == 0 end, "the write")
    assert.same({ "k=5" }, log)
    other:close()
end)

case("a durable stream has a bound", function(bed)
    local cache = open(bed, function() return nil, "cannot" end,
        { entries = 2, partitions = 1, attempts = 100 })
    assert(cache:setBehind("a", 1))
    assert(cache:setBehind("b", 1))
    local ok, err = cache:setBehind("c", 1)
    assert.same({ nil, "overload", "c" }, { ok, err.code, err.key })
    assert.is_nil(cache:get("c"))
    assert(cache:setBehind("a", 2))
    assert.same({ 2, 1 }, { waiting(bed, 1), cache:stats().behindRefused })
    cache:close()
end)

case("durable dead letters are told, replayed, dropped, and voided", function(bed)
    local works, told = false, {}
    local cache, log = open(bed, function() return works, "no database" end, { attempts = 2,
        onFailed = function(key, value, reason)
            told[#told + 1] = key .. tostring(value) .. reason
        end })
    for i = 1, 3 do assert(cache:setBehind("k" .. i, i > 1 and i)) end
    wait_for(bed, { cache }, function() return #told == 3 end, "three dead letters")
    table.sort(told)
    assert.same({ "k1falseno database", "k22no database", "k33no database" }, told)
    local letters = cache:deadLetters()
    table.sort(letters, function(a, b) return a.key < b.key end)
    assert.same({ key = "k1", value = false, reason = "no database", attempts = 2 }, letters[1])
    assert.same({ 3, 1 }, { #letters, #cache:deadLetters({ limit = 1 }) })
    works = true
    assert(cache:setBehind("k1", 9))
    assert.equal(0, cache:replayDeadLetters({ "k1" }))
    assert.equal(1, cache:replayDeadLetters({ "k2", "unknown" }))
    assert.equal(1, cache:dropDeadLetters())
    assert.equal(0, cache:replayDeadLetters())
    wait_for(bed, { cache }, function() return #log == 2 and waiting(bed) == 0 end, "the writes")
    table.sort(log)
    assert.same({ "k1=9", "k2=2" }, log)
    assert.same({}, cache:deadLetters())
    cache:close()
end)

case("a durable value that has a later one is no dead letter", function(bed)
    local cache, log
    cache, log = open(bed, function(items)
        if items[1].value == 1 then
            assert(cache:setBehind("k", 2))
            return nil, "too old"
        end
        return true
    end, { attempts = 1 })
    assert(cache:setBehind("k", 1))
    wait_for(bed, { cache }, function() return #log > 0 and waiting(bed) == 0 end, "the write")
    assert.same({ "k=2" }, log)
    assert.same({}, cache:deadLetters())
    cache:close()
end)

case("an owner whose lock was lost begins at the beginning of its stream", function(bed)
    bed.needs("streams")
    local works, fences = false, {}
    local cache = bed.open({ lockTtl = 0.5, writeBehind = { durable = true, partitions = 1,
        attempts = 100, write = function(items)
            fences[#fences + 1] = items[1].fence
            return works, "not yet"
        end } })
    assert(cache:setBehind("k", 1))
    wait_for(bed, { cache }, function() return #fences > 0 end, "a try")
    bed.redis:call("DEL", "app//lock:{behind:0}")
    wait_for(bed, { cache }, function() return fences[#fences] > fences[1] end, "a later owner's")
    works = true
    wait_for(bed, { cache }, function() return waiting(bed, 1) == 0 end, "the write")
    cache:close()
end)

case("durable values stay where too many dead letters are", function(bed)
    local works = false
    local cache, log = open(bed, function() return works, "no database" end,
        { attempts = 1, entries = 1, partitions = 1 })
    assert(cache:setBehind("a", 1))
    wait_for(bed, { cache }, function() return #cache:deadLetters() == 1 end, "a dead letter")
    assert(cache:setBehind("b", 1))
    local from = cache:stats().behindFailed
    wait_for(bed, { cache }, function() return cache:stats().behindFailed > from end, "a try")
    assert.same({ 1, 1 }, { #cache:deadLetters(), waiting(bed, 1) })
    works = true
    wait_for(bed, { cache }, function() return #log == 1 and waiting(bed, 1) == 0 end, "the write")
    assert.same({ "b=1" }, log)
    cache:close()
end)

case("a durable setBehind tells where it stored nothing", function(bed)
    local cache = open(bed)
    local ok, err = cache:setBehind("k", 1, -1)
    assert.same({ nil, "badTtl" }, { ok, err.code })
    ok, err = cache:setBehind("k", print)
    assert.same({ nil, "encode" }, { ok, err.code })
    raises("bad argument 'key' to setBehind", cache.setBehind, cache, 1, 1)
    assert.equal(0, waiting(bed))
    bed.silence(true)
    ok, err = cache:setBehind("k", 1, 60, { timeout = 0.05 })
    bed.silence(false)
    assert.is_nil(ok)
    assert.matches(err.code, "timeout outcomeUnknown unavailable", 1, true)
    cache:close()
end)

return cases
