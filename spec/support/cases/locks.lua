-- Cases (spec/support/api_cases.lua): locks.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local report, within = group.report, group.within

case("tryLock takes a free lock and does not wait for one that is held", function(bed)
    local lock = assert(bed.cache:tryLock("job", { ttl = 5 }))
    assert.equal(lock.token, bed.redis:call("GET", "app//lock:{job}"))
    assert.is_true(lock:valid())
    assert.is_true(lock:held())
    assert.is_false(lock:lost())
    assert.is_true(lock:ttl() > 2 and lock:ttl() <= 5)
    local other = bed.other()
    within(1, function()
        assert.equal("notAcquired", report(other:tryLock("job")).code)
    end)
    assert.is_true(lock:release())
    assert.equal("notHeld", report(lock:release()).code)
    local second = assert(other:tryLock("job"))
    assert.is_true(second:release())
end)

case("a lock is renewed, extended, and grows its fence", function(bed)
    local lock = assert(bed.cache:tryLock("job", { ttl = 3 })) -- a renewal may be 2 s late
    local fence = lock.fence
    group.wait_for_renewals(bed, "app//lock:{job}")
    assert.is_true(lock:valid())
    assert.is_true(lock:extend(30))
    assert.is_true(lock:ttl() > 20)
    assert.equal("badTtl", report(lock:extend(0)).code)
    assert.equal("recursive", report(lock:acquire()).code)
    assert.is_true(lock:release())
    assert.is_true(lock:acquire())
    assert.is_true(lock.fence > fence)
    assert.is_true(lock:release())
end)

case("a lock that was deleted is known to be lost without asking", function(bed)
    local told = 0
    local lock = assert(bed.cache:tryLock("job", { onLost = function() told = told + 1 end }))
    bed.redis:call("DEL", "app//lock:{job}")
    bed.wait_until(function() return lock:lost() end, 2, "the loss")
    assert.is_false(lock:valid())
    assert.equal(1, told)
    assert.equal("notHeld", report(lock:release()).code)
end)

case("withLock hands on what the function returns or throws, and gives the lock back", function(bed)
    assert.same({ 1, nil, 3 }, { bed.cache:withLock("job", {}, function(lock)
        assert.is_true(lock:valid())
        bed.pause(0.01)
        return 1, nil, 3
    end) })
    local ok, message = pcall(bed.cache.withLock, bed.cache, "job", {}, function() error("up") end)
    assert.is_false(ok)
    assert.is_truthy(message:find("up", 1, true))
    assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
    assert.equal("lockLost", report(bed.cache:withLock("job", {}, function(lock)
        bed.redis:call("DEL", "app//lock:{job}")
        bed.wait_until(function() return lock:lost() end, 2, "the loss")
        return "done"
    end)).code)
end)

case("who waits for a lock gets it when it ends, or notAcquired in time", function(bed)
    local other = bed.other()
    local held = assert(other:tryLock("job", { ttl = 5, renew = false }))
    -- Who has no connection by then is told "unavailable": this one has.
    assert.equal("notAcquired", report(bed.cache:tryLock("job")).code)
    within(4, function()
        assert.equal("notAcquired", report(bed.cache:lock("job", { wait = 0.3 }):acquire()).code)
    end)
    assert.is_true(held:release())
    held = assert(other:tryLock("job", { ttl = 0.5, renew = false }))
    local lock = bed.cache:lock("job", { wait = 10 })
    within(6, function() assert.is_true(lock:acquire()) end)
    assert.is_true(held:lost())
    assert.is_true(lock:release())
end)

return cases
