-- Cases (spec/support/api_cases.lua): several locks at once.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local report, within = group.report, group.within

local function exists(bed, name)
    return bed.redis:call("EXISTS", "app//lock:{" .. name .. "}") == 1
end

case("lockMulti takes all locks, or none", function(bed)
    local locks = assert(bed.cache:lockMulti({ "c", "a", "b", "a" }, { ttl = 5 }))
    assert.same({ "a", "b", "c" }, locks.names)
    assert.is_true(locks:valid())
    assert.is_false(locks:lost())
    assert.is_true(locks:ttl() > 2 and locks:ttl() <= 5)
    local fences = locks:fences()
    assert.is_true(fences.a > 0 and fences.b > 0 and fences.c > 0)
    local other = bed.other()
    within(1, function()
        local none, err = other:lockMulti({ "x", "b", "y" }, { wait = 0 })
        assert.is_nil(none)
        assert.same({ "notAcquired", "b" }, { err.code, err.key })
    end)
    assert.is_false(exists(bed, "x"))
    assert.is_false(exists(bed, "y"))
    assert.is_true(locks:release())
    assert.same({}, locks:fences())
    local _, err, failed = locks:release()
    assert.same({ "notHeld", "notHeld" }, { err.code, failed.c.code })
    local second = assert(other:lockMulti({ "x", "b", "y" }, { wait = 0 }))
    assert.is_true(second:fences().b > fences.b)
    assert.is_true(second:release())
end)

case("several locks are renewed and extended together, and know of a loss", function(bed)
    local told = {}
    local locks = assert(bed.cache:lockMulti({ "a", "b" }, {
        ttl = 3, onLost = function(lost) told[#told + 1] = lost end,
    }))
    group.wait_for_renewals(bed, "app//lock:{a}")
    -- Without a renewal the other one would have one second left, or less.
    bed.wait_until(function() return bed.redis:call("PTTL", "app//lock:{b}") > 1500 end, 5, "b's")
    assert.is_true(locks:valid())
    assert.is_true(locks:extend(30))
    assert.is_true(locks:ttl() > 20)
    assert.equal("badTtl", report(locks:extend(0)).code)
    bed.redis:call("DEL", "app//lock:{b}")
    local name
    bed.wait_until(function()
        local is_lost
        is_lost, name = locks:lost()
        return is_lost
    end, 2, "the loss")
    assert.equal("b", name)
    assert.is_false(locks:valid())
    assert.same({ locks }, told)
    local _, err, failed = locks:release()
    assert.same({ "notHeld", "b" }, { err.code, err.key })
    assert.is_nil(failed.a)
    assert.is_false(exists(bed, "a"))
end)

case("lockMulti waits for a lock that is held, and holds none that comes behind it", function(bed)
    local other, seen = bed.other(), {}
    local took, locks, err = bed.time(function() -- from before that lock began
        assert(other:tryLock("b", { ttl = 0.6, renew = false }))
        return bed.cache:lockMulti({ "a", "b", "c" }, { wait = clock.scaled(5) })
    end)
    assert.is_nil(err)
    assert.is_true(took > 0.59, "it took " .. took)
    assert.is_true(locks:release())
    local held = assert(other:tryLock("b"))
    within(5, function()
        seen = report(bed.cache:lockMulti({ "a", "b", "c" }, { wait = 0.2 }))
    end)
    assert.equal("notAcquired", seen.code)
    for _, name in ipairs({ "a", "c" }) do assert.is_false(exists(bed, name)) end
    assert.is_true(held:release())
end)

case("bad arguments of lockMulti raise, and nothing is sent", function(bed)
    local cache = bed.cache
    cache:get("k")
    local before = cache:stats().requests
    local function raises(text, ...) group.raises(text, cache.lockMulti, cache, ...) end
    raises("bad argument 'names' to lockMulti", "a")
    raises("at 2", { "a", 5 })
    raises("at least one name", {})
    raises("bad argument 'opts' to lockMulti", { "a" }, 5)
    raises("unknown option 'waits'", { "a" }, { waits = 1 })
    raises("bad option 'ttl'", { "a" }, { ttl = 0 })
    assert.equal(before, cache:stats().requests)
end)

light("light threads whose locks overlap never wait for each other in a circle", function(bed)
    local cache, threads, inside, wrong = bed.cache, {}, {}, {}
    for i = 1, 12 do
        threads[i] = function()
            local names = { "n" .. i % 4, "n" .. (i + 1) % 4, "n" .. (i + 2) % 4 }
            for _ = 1, 3 do
                local locks, err = cache:lockMulti(names, { ttl = 30, wait = clock.scaled(20) })
                if not locks then
                    wrong[#wrong + 1] = err.message
                    return
                end
                for _, name in ipairs(names) do
                    if inside[name] then wrong[#wrong + 1] = name .. " has two holders" end
                    inside[name] = true
                end
                bed.pause(0.002)
                for _, name in ipairs(names) do inside[name] = nil end
                locks:release()
            end
        end
    end
    bed.together(threads)
    assert.same({}, wrong)
end)

return cases
