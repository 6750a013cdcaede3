-- Cases (spec/support/api_cases.lua): scan, keys, deleteByPattern, flush.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local report = group.report

local function fill(cache, count, prefix)
    local map = {}
    for i = 1, count do map[(prefix or "k") .. i] = i end
    assert.is_true(cache:setMulti(map))
    return map
end

-- The keys as a set, each counted.
local function gather(iterator)
    local found = {}
    for key in iterator do found[key] = (found[key] or 0) + 1 end
    return found
end

local function size(set)
    local count = 0
    for _ in pairs(set) do count = count + 1 end
    return count
end

case("scan gives every value of the namespace once, and nothing else", function(bed)
    local cache = bed.cache
    fill(cache, 500)
    bed.other({ namespace = "appx" }):set("k1", 1)
    cache:namespace("below"):set("k1", 1)
    cache:remember("nothing", 60, function() return nil end)
    local lock = assert(cache:tryLock("job"))
    local during
    cache:remember("loaded", 60, function()
        during = gather(cache:scan("*", { dedup = true }))
        return "v"
    end)
    assert.equal(500, size(during))
    local found = gather(cache:scan("*", { dedup = true, count = 7 }))
    assert.equal(501, size(found))
    for _, count in pairs(found) do assert.equal(1, count) end
    assert.equal(1, found.k500)
    assert.equal(1, found.loaded)
    assert.is_true(lock:release())
end)

case("patterns are Redis', and names are no patterns", function(bed)
    local cache = bed.cache:namespace("a*b?[c]\\")
    fill(cache, 20, "user:")
    cache:set("a*b", 1)
    cache:set("acb", 1)
    bed.cache:namespace("axb?[c]\\"):set("user:1", 1)
    local function sorted(pattern)
        local keys = cache:keys(pattern)
        table.sort(keys)
        return keys
    end
    assert.same({ "user:1", "user:2" }, sorted("user:[12]"))
    assert.same({ "a*b", "acb" }, sorted("a*b"))
    assert.same({ "a*b" }, sorted("a\\*b"))
    assert.equal(20, #sorted("user:*"))
    assert.equal(11, #sorted("user:1*"))
end)

case("keys tells that there are more, and scan stops at its limit", function(bed)
    fill(bed.cache, 30)
    local keys, err, more = bed.cache:keys("*", 10)
    assert.equal(10, #keys)
    assert.is_nil(err)
    assert.is_true(more)
    keys, err, more = bed.cache:keys("*", 31)
    assert.equal(30, #keys)
    assert.is_nil(err or more)
    assert.equal(3, size(gather(bed.cache:scan("*", { limit = 3, dedup = true }))))
end)

case("a scan can be closed, and left", function(bed)
    fill(bed.cache, 300)
    local iterator = bed.cache:scan("*")
    assert.is_string(iterator())
    assert.is_true(iterator:close())
    assert.is_true(iterator:close())
    assert.is_nil((iterator()))
    assert.is_nil(iterator:error())
    assert.is_string(bed.cache:scan("*")())
end)

case("a scan ends at an error, which it tells", function(bed)
    fill(bed.cache, 300)
    local iterator
    bed.wait_until(function() -- a server that is late once ends a scan as one that is silent
        iterator = bed.cache:scan("*", { timeout = 0.2, count = 10 })
        return iterator()
    end, 10, "a first key")
    bed.silence(true)
    for _ in iterator do end
    assert.equal("timeout", iterator:error().code)
    assert.equal("timeout", report(iterator()).code)
    assert.equal("timeout", report(bed.cache:keys("*", 10, { timeout = 0.1 })).code)
    assert.equal("timeout", report(bed.cache:flush({ timeout = 0.1 })).code)
    bed.silence(false)
    bed.wait_until(function() return bed.cache:get("k1") == 1 end, 10, "Redis' answer")
end)

case("a scan can be cancelled between two keys", function(bed)
    fill(bed.cache, 300)
    local iterator = bed.cache:scan("*", { cancelTag = 9 })
    assert.is_string(iterator())
    assert.equal(1, bed.cache:cancel(9))
    assert.equal("cancelled", report(iterator()).code)
    assert.equal(0, bed.cache:cancel(9))
end)

case("keys of other types are found by their type", function(bed)
    bed.redis:call("HSET", "app:h", "f", "v")
    bed.cache:set("s", 1)
    assert.same({ "h" }, (bed.cache:keys("*", 10, { type = "hash" })))
    assert.same({ "s" }, (bed.cache:keys("*", 10, { type = "string" })))
    assert.equal(2, #bed.cache:keys("*"))
    assert.equal(2, bed.cache:deleteByPattern("*"))
    assert.equal(0, bed.redis:call("EXISTS", "app:h"))
end)

case("deleteByPattern counts what it deletes, and touches nothing else", function(bed)
    local cache = bed.cache
    fill(cache, 400, "user:")
    fill(cache, 50, "page:")
    local other = bed.other({ namespace = "other" })
    fill(other, 20, "user:")
    local lock = assert(cache:tryLock("user:1"))
    assert.equal(400, cache:deleteByPattern("user:*", { dryRun = true }))
    assert.equal(450, #cache:keys("*"))
    local told = 0
    assert.equal(400, cache:deleteByPattern("user:*", { batch = 30,
        progress = function(deleted, seen)
            assert.is_true(deleted <= seen and deleted >= told)
            told = deleted
        end }))
    assert.equal(400, told)
    assert.equal(50, #cache:keys("*"))
    assert.equal(20, #other:keys("*"))
    assert.is_true(lock:held())
    assert.is_true(lock:release())
    assert.equal(0, (cache:deleteByPattern("user:*")))
end)

case("a load that is under way stores nothing behind a flush", function(bed)
    local cache = bed.cache
    cache:set("stays", 1)
    cache:remember("nothing", 60, function() return nil end)
    local result = report(cache:remember("k", 60, function()
        assert.equal(1, cache:flush()) -- the lease and the negative entry are not counted
        return "old"
    end))
    assert.equal("old", result.value)
    assert.is_false((cache:exists("k")))
    assert.equal(0, #cache:keys("*"))
end)

case("progress can end it, and a rate holds it back", function(bed)
    local cache = bed.cache
    fill(cache, 200)
    local function stop() return false end
    local deleted = cache:deleteByPattern("*", { batch = 10, progress = stop })
    assert.is_true(deleted >= 1 and deleted < 200, deleted)
    local left = 200 - deleted
    assert.equal(left, #cache:keys("*"))
    local calls = 0
    assert.equal(left, cache:deleteByPattern("*", { batch = 10, rate = 1000,
        progress = function() calls = calls + 1 end }))
    assert.is_true(calls > 3)
end)

case("flush deletes one namespace, and not those in it", function(bed)
    local cache = bed.cache
    local inner = cache:namespace("inner")
    fill(cache, 10)
    fill(inner, 5)
    assert.equal(10, cache:flush())
    assert.equal(5, #inner:keys("*"))
    assert.equal(5, inner:flush({ dryRun = true }))
    local root = bed.other({ namespace = "" })
    group.raises("all = true", root.flush, root)
    assert.equal(5, #inner:keys("*"))
    local lock = assert(cache:tryLock("job"))
    assert.equal(5, root:flush({ all = true }))
    assert.is_true(lock:held())
    assert.is_true(lock:release())
end)

case("near copies of what is deleted are gone at once", function(bed)
    local cache = bed.open({ near = true })
    fill(cache, 20)
    for round = 1, 2 do
        for i = 1, 20 do assert.equal(i, (cache:get("k" .. i)), round) end
    end
    assert.equal(20, cache:deleteByPattern("k*"))
    for i = 1, 20 do assert.is_nil((cache:get("k" .. i))) end
end)

case("bad arguments of scans are told, and nothing is sent", function(bed)
    local cache = bed.cache
    fill(cache, 3)
    local before = cache:stats().requests
    for _, one in ipairs({
        { "pattern", "scan", 1 }, { "pattern", "scan" }, { "count", "scan", "*", { count = 0 } },
        { "limit", "scan", "*", { limit = 0.5 } }, { "dedup", "scan", "*", { dedup = 1 } },
        { "type", "scan", "*", { type = "" } }, { "batch", "scan", "*", { batch = 1 } },
        { "pattern", "keys", {} }, { "limit", "keys", "*", 0 }, { "limit", "keys", "*", "1" },
        { "limit", "keys", "*", 1, { limit = 1 } }, { "opts", "keys", "*", 1, 1 },
        { "pattern", "deleteByPattern" }, { "opts", "deleteByPattern", "*", 5 },
        { "batch", "deleteByPattern", "*", { batch = 0 } },
        { "rate", "deleteByPattern", "*", { rate = 0 } },
        { "progress", "deleteByPattern", "*", { progress = true } },
        { "dryRun", "deleteByPattern", "*", { dryRun = "yes" } },
        { "all", "deleteByPattern", "*", { all = true } },
        { "opts", "flush", "*" }, { "all", "flush", { all = 1 } },
    }) do
        local ok, message = pcall(cache[one[2]], cache, unpack(one, 3))
        assert.is_false(ok, one[2] .. " " .. one[1])
        assert.matches("'" .. one[1] .. "'", message, 1, true)
        assert.matches("to " .. one[2], message, 1, true)
    end
    assert.equal(before, cache:stats().requests)
    assert.equal(3, #cache:keys("*"))
end)

return cases
