-- Cases (spec/support/api_cases.lua): locks with fair = true.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, within = group.raises, group.report, group.within

local FAIR = { fair = true, wait = 0 }
local QUEUE = "{job}app//lock:{job}!:queue"

local function queue_of(bed)
    local queue = bed.redis:call("GET", QUEUE)
    return type(queue) == "string" and queue or ""
end

case("a fair lock is held by one, also beside handles that are not fair", function(bed)
    local one, two = bed.cache:lock("job", FAIR), bed.other():lock("job", FAIR)
    local plain = bed.other():lock("job")
    assert.is_true(one:acquire() and one:valid() and one:held() and one:ttl() > 2)
    assert.equal(one.token, bed.redis:call("GET", "app//lock:{job}"))
    assert.equal("recursive", report(one:acquire()).code)
    within(1, function() assert.equal("notAcquired", report(two:acquire()).code) end)
    assert.equal("notAcquired", report(plain:acquire(0)).code)
    within(2, function() assert.equal("notAcquired", report(two:acquire(0.3)).code) end)
    -- Nobody waits for the answer to what takes the ticket back.
    bed.wait_until(function() return queue_of(bed) == "" end, 2, "the end of the ticket")
    assert.is_true(one:extend(30) and one:ttl() > 20)
    local fence = one.fence
    assert.is_true(one:release() and plain:acquire(0) and plain.fence > fence)
    assert.equal("notAcquired", report(two:acquire()).code)
    assert.is_true(plain:release() and two:acquire() and two:release())
    assert.equal("notHeld", report(two:release()).code)
end)

case("a fair lock is renewed, and its loss is known and told", function(bed)
    local told
    local one = bed.cache:lock("job", { fair = true, ttl = 3,
        onLost = function(lost) told = lost end })
    assert.is_true(one:acquire())
    group.wait_for_renewals(bed, "app//lock:{job}")
    assert.is_true(one:valid() and one:held())
    bed.redis:call("DEL", "app//lock:{job}")
    bed.wait_until(function() return one:lost() end, 2, "the loss")
    assert.equal(one, told)
    assert.equal("notHeld", report(one:release()).code)
end)

case("a fair lock may be reentrant, and stand in withLock", function(bed)
    local options = { fair = true, reentrant = true, wait = 0 }
    assert.equal(7, (bed.cache:withLock("job", options, function()
        assert.equal("notAcquired", report(bed.other():tryLock("job", FAIR)).code)
        return (bed.cache:withLock("job", options, function(lock)
            return lock:valid() and 7
        end))
    end)))
    assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
end)

case("fair is a boolean, of single locks, and takes none from its holder", function(bed)
    local cache = bed.cache
    local before = cache:stats().requests
    for _, method in ipairs({ "lock", "tryLock", "withLock" }) do
        raises("bad option 'fair' to " .. method, cache[method], cache, "job", { fair = 1 },
            group.never)
        raises("bad option 'force' to " .. method, cache[method], cache, "job",
            { fair = true, force = true }, group.never)
    end
    raises("bad option 'fair' to lockMulti", cache.lockMulti, cache, { "a" }, FAIR)
    raises("bad option 'fair' to semaphore", cache.semaphore, cache, "s", 2, FAIR)
    assert.equal(0, cache:stats().requests - before)
end)

cases.light("those who wait for a fair lock are served in the order of coming", function(bed)
    local first, order, fns = bed.cache:lock("job", FAIR), {}, {}
    assert.is_true(first:acquire())
    for i = 1, 6 do
        fns[i] = function()
            bed.wait_until(function() return #queue_of(bed) == 47 * (i - 1) end, 10, "my turn")
            assert(bed.cache:withLock("job", { fair = true, wait = 30 }, function()
                order[#order + 1] = i
                return true
            end))
        end
    end
    fns[7] = function()
        bed.wait_until(function() return #queue_of(bed) == 47 * 6 end, 10, "the queue")
        assert.is_true(first:release())
    end
    bed.together(fns)
    assert.same({ 1, 2, 3, 4, 5, 6 }, order)
end)

return cases
