-- Cases (spec/support/api_cases.lua): semaphore, withSemaphore.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, within = group.raises, group.report, group.within

case("a semaphore has n permits, and no more", function(bed)
    local held, other = {}, bed.other()
    for i = 1, 5 do
        held[i] = (i % 2 == 0 and other or bed.cache):semaphore("jobs", 5, { ttl = 5 })
        assert.is_true(held[i]:acquire(0))
        assert.equal(held[i].token,
            bed.redis:call("GET", "app//semaphore:{jobs}" .. held[i].permit))
        assert.is_true(held[i]:valid() and held[i]:held() and held[i]:ttl() > 2)
        assert.is_false(held[i]:lost())
    end
    local late = bed.cache:semaphore("jobs", 5)
    -- One that waited would do so until a ttl of 5 s is over.
    within(3, function() assert.equal("notAcquired", report(late:acquire(0)).code) end)
    assert.same({ false, false, 0 }, { late:valid(), late:held(), late:ttl() })
    assert.equal("notHeld", report(late:release()).code)
    assert.equal("recursive", report(held[1]:acquire(0)).code)
    local permit, fence = held[3].permit, held[3].fence
    assert.is_true(held[3]:release())
    assert.is_nil(held[3].permit or held[3].token or held[3].fence or held[3]:fenceText())
    assert.is_true(late:acquire(0))
    assert.equal(permit, late.permit)
    assert.is_true(late.fence > fence and late:fenceText() == ("%.0f"):format(late.fence))
    assert.is_true(late:extend(30))
    assert.is_true(late:ttl() > 20)
    held[3] = late
    for _, one in ipairs(held) do assert.is_true(one:release()) end
end)

case("a permit is renewed, and its loss is known and told", function(bed)
    local told
    local one = bed.cache:semaphore("jobs", 2, { ttl = 1.5,
        onLost = function(lost) told = lost end })
    assert.is_true(one:acquire())
    group.wait_for_renewals(bed, "app//semaphore:{jobs}" .. one.permit)
    assert.is_true(one:valid())
    bed.redis:call("DEL", "app//semaphore:{jobs}" .. one.permit)
    bed.wait_until(function() return one:lost() end, 5, "the loss")
    assert.equal(one, told)
    assert.equal("notHeld", report(one:release()).code)
    assert.is_true(one:acquire(0) and one:release())
end)

case("withSemaphore gives back its permit however the function ends", function(bed)
    assert.same({ 1, nil, 3 }, { bed.cache:withSemaphore("jobs", 1, nil, function(held)
        assert.is_true(held:valid())
        assert.equal(1, held.permit)
        local _, err = bed.other():withSemaphore("jobs", 1, { wait = 0 }, group.never)
        assert.equal("notAcquired", err.code)
        return 1, nil, 3
    end) })
    local ok, message = pcall(bed.cache.withSemaphore, bed.cache, "jobs", 1, {}, function()
        error("up")
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("up", 1, true))
    local value, err = bed.cache:withSemaphore("jobs", 1, {}, function(held)
        bed.redis:call("DEL", "app//semaphore:{jobs}1")
        bed.wait_until(function() return held:lost() end, 2, "the loss")
        return "done"
    end)
    assert.same({ code = "lockLost" }, report(value, err))
    assert.equal(0, bed.redis:call("EXISTS", "app//semaphore:{jobs}1"))
end)

case("a semaphore tells what is wrong with its arguments, and sends nothing", function(bed)
    local cache = bed.cache
    local before = cache:stats().requests
    for _, method in ipairs({ "semaphore", "withSemaphore" }) do
        local call = cache[method]
        raises("bad argument 'name' to " .. method, call, cache, nil, 2, {}, group.never)
        for _, n in ipairs({ 0, -1, 1.5, 1001, 0 / 0, "2", false }) do
            raises("bad argument 'n' to " .. method .. ": whole number from 1 to 1000 expected",
                call, cache, "s", n, {}, group.never)
        end
        raises("bad option 'force' to " .. method, call, cache, "s", 2, { force = true },
            group.never)
        raises("bad option 'ttl' to " .. method, call, cache, "s", 2, { ttl = 0 }, group.never)
        raises("unknown option 'x' to " .. method, call, cache, "s", 2, { x = 1 }, group.never)
        raises("bad argument 'opts' to " .. method, call, cache, "s", 2, 3, group.never)
    end
    raises("bad argument 'fn' to withSemaphore", cache.withSemaphore, cache, "s", 2, {})
    local one = cache:semaphore("s", 2)
    for _, wait in ipairs({ -1, "1", 0 / 0, 1e6 }) do
        raises("bad argument 'wait' to acquire", one.acquire, one, wait)
    end
    assert.equal("badTtl", report(one:extend(0)).code)
    assert.equal(0, cache:stats().requests - before)
end)

cases.light("those who wait for a permit get one when it is given back", function(bed)
    local inside, most, done = 0, 0, 0
    local fns = {}
    for i = 1, 12 do
        fns[i] = function()
            local ok, err = bed.cache:withSemaphore("jobs", 3, { wait = 30 }, function()
                inside = inside + 1
                most = math.max(most, inside)
                -- The first ones go out when all permits are held, however late the answers come.
                bed.wait_until(function() return most >= 3 end, 20, "three holders")
                bed.pause(0.02)
                inside = inside - 1
                return true
            end)
            assert(ok, err)
            done = done + 1
        end
    end
    bed.together(fns)
    assert.same({ 12, 3 }, { done, most })
end)

return cases
