-- Cases (spec/support/api_cases.lua): writes through of many keys.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, nothing, within = group.never, group.nothing, group.within

local function codes(failed)
    local list = {}
    for key, err in pairs(failed) do
        assert.equal(key, err.key)
        list[key] = err.code
    end
    return list
end

case("putMulti writes by one run, and readers get the old values meanwhile", function(bed)
    local cache, meanwhile, asked = bed.cache, nil, nil
    cache:setMulti({ a = "old a", b = "old b", keep = "old" }, 60)
    local values, failed, negatives = cache:putMulti({ "b", "a", "n", "keep", "zero", "a" }, 60,
        function(keys)
            asked = table.concat(keys, " ")
            meanwhile = cache:getMulti({ "a", "b", "n" })
            return { a = 1, b = 2, zero = 3 }, { keep = "down" }, { zero = 0 }
        end)
    assert.equal("a b keep n zero", asked)
    assert.same({ a = "old a", b = "old b" }, meanwhile)
    assert.same({ a = 1, b = 2, zero = 3 }, values)
    assert.same({ { keep = "loaderFailed" }, { n = true } }, { codes(failed), negatives })
    assert.same({ { a = 1, b = 2, keep = "old" }, {}, { n = true } },
        { cache:getMulti({ "a", "b", "keep", "n", "zero" }) })
    assert.same({ {}, {}, {} }, { cache:putMulti({}, 60, never) })
end)

case("putMulti tells by key what went wrong, and those keys keep their values", function(bed)
    local cache = bed.cache
    cache:setMulti({ a = 1, b = 2, c = 3, d = 4 }, 60)
    local values, failed = cache:putMulti({ "a", "b", "c", "d" }, { d = -1 }, function(keys)
        assert.equal("a b c", table.concat(keys, " "))
        bed.redis:call("DEL", "app:b")
        return { a = "new", b = "new", c = print }
    end)
    assert.same({ a = "new" }, values)
    assert.same({ b = "lockLost", c = "encode", d = "badTtl" }, codes(failed))
    assert.same({ a = "new", c = 3, d = 4 }, (cache:getMulti({ "a", "b", "c", "d" })))
    values, failed = cache:putMulti({ "a", "c" }, 60, function() error("broken") end)
    assert.same({ {}, { a = "loaderFailed", c = "loaderFailed" } }, { values, codes(failed) })
    assert.same({ a = "new", c = 3 }, (cache:getMulti({ "a", "c" })))
    local inner
    cache:putMulti({ "a", "c" }, 60, function()
        inner = codes(select(2, cache:putMulti({ "c" }, 60, never)))
        return { a = 5, c = 6 }
    end)
    assert.same({ c = "recursive" }, inner)
end)

case("with serveOld = false readers of many keys wait for the new values", function(bed)
    local cache = bed.cache
    cache:setMulti({ a = "old", b = "old" }, 60)
    local values = cache:putMulti({ "a", "b" }, 60, function()
        assert.same({}, (cache:getMulti({ "a", "b" })))
        return { a = "new" }, { b = "down" }
    end, { serveOld = false })
    assert.same({ a = "new" }, values)
    assert.same({ a = "new", b = "old" }, (cache:getMulti({ "a", "b" })))
end)

case("putMulti waits for another writer, and writes the rest where that takes too long",
    function(bed)
        local other, cache = bed.other(), bed.cache
        local values, failed, second
        other:put("b", 60, function()
            within(2, function()
                values, failed = cache:putMulti({ "c", "b", "a" }, 60, function()
                    return { a = 1, b = 2, c = 3 }
                end, { waitTimeout = 0.1 })
                -- What it does not hold is free meanwhile.
                assert.equal("mine", (cache:put("c", 60, function() return "mine" end)))
            end)
            second = codes(select(2, cache:putMulti({ "a", "b" }, 60, function()
                return { a = 2, b = 2 }
            end, { waitTimeout = 0.1 })))
            return "other's"
        end)
        assert.same({ { a = 1, c = 3 }, { b = "timeout" } }, { values, codes(failed) })
        assert.same({ b = "timeout" }, second)
        assert.same({ a = 2, b = "other's", c = "mine" }, (cache:getMulti({ "a", "b", "c" })))
    end)

case("a cancelled putMulti writes nothing", function(bed)
    local cache = bed.cache
    cache:set("a", "old", 60)
    local values, failed = cache:putMulti({ "a", "b" }, 60, function()
        assert.is_true(cache:cancel(8) >= 2)
        return { a = 1, b = 2 }
    end, { cancelTag = 8 })
    assert.same({ {}, { a = "cancelled", b = "cancelled" } }, { values, codes(failed) })
    assert.same({ a = "old" }, (cache:getMulti({ "a", "b" })))
end)

case("without Redis putMulti runs nothing", function(bed)
    local cache = bed.open({ commandTimeout = 0.2 })
    cache:get("a")
    bed.silence(true)
    local _, failed = cache:putMulti({ "a", "b" }, 60, never)
    bed.silence(false)
    for _, key in ipairs({ "a", "b" }) do
        assert.is_not_nil(({ timeout = 1, unavailable = 1 })[failed[key].code], failed[key].code)
    end
end)

case("bad arguments of putMulti raise, and nothing is sent", function(bed)
    local cache = bed.cache
    cache:get("k")
    local before = cache:stats().requests
    local function raises(text, ...) group.raises(text, cache.putMulti, cache, ...) end
    raises("bad argument 'keys' to putMulti", "k", 60, nothing)
    raises("at 2", { "k", 5 }, 60, nothing)
    raises("bad argument 'fn' to putMulti", { "k" }, 60, "fn")
    raises("it holds 'timeout'", { "k" }, { timeout = 1 }, nothing)
    raises("bad argument 'opts' to putMulti", { "k" }, 60, nothing, 5)
    raises("unknown option 'prime'", { "k" }, 60, nothing, { prime = true })
    assert.equal(before, cache:stats().requests)
end)

light("light threads that write overlapping keys are each the only writer of them", function(bed)
    local cache, threads, inside, wrong = bed.cache, {}, {}, {}
    for i = 1, 12 do
        threads[i] = function()
            local keys = { "k" .. i % 4, "k" .. (i + 2) % 4, "k" .. (i + 1) % 4 }
            local _, failed = cache:putMulti(keys, 60, function(list)
                local values = {}
                for _, key in ipairs(list) do
                    if inside[key] then wrong[#wrong + 1] = key .. " has two writers" end
                    inside[key], values[key] = true, i
                end
                bed.pause(0.005)
                for _, key in ipairs(list) do inside[key] = nil end
                return values
            end, { waitTimeout = clock.scaled(20) })
            for key, err in pairs(failed) do wrong[#wrong + 1] = key .. err.message end
        end
    end
    bed.together(threads)
    assert.same({}, wrong)
end)

return cases
