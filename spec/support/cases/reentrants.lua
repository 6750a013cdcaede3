-- Cases (spec/support/api_cases.lua): locks with reentrant = true.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report = group.raises, group.report

local OPTIONS = { reentrant = true, wait = 0 }

case("its owner acquires a reentrant lock again, and the last release ends it", function(bed)
    local one, two = bed.cache:lock("job", OPTIONS), bed.cache:lock("job", OPTIONS)
    local other = bed.other()
    assert.equal("notHeld", report(one:release()).code)
    assert.is_true(one:acquire() and one:acquire() and two:acquire())
    assert.same({ one.token, one.fence }, { two.token, two.fence })
    assert.equal(one.token, bed.redis:call("GET", "app//lock:{job}"))
    assert.is_true(two:valid() and two:held() and two:ttl() > 2)
    assert.equal("notAcquired", report(other:tryLock("job", { reentrant = true })).code)
    assert.is_true(one:release() and one:valid())
    assert.is_true(one:release())
    assert.is_nil(one.token or one.fence or one:fenceText())
    assert.same({ false, false, 0 }, { one:valid(), one:held(), one:ttl() })
    assert.equal("notHeld", report(one:release()).code)
    assert.is_true(two:valid() and two:extend(30) and two:ttl() > 20)
    assert.equal("notAcquired", report(other:tryLock("job")).code)
    local fence = two.fence
    assert.is_true(two:release())
    assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
    assert.is_true(one:acquire() and one.fence > fence)
    assert.is_true(one:release())
end)

case("withLock of a reentrant lock may stand in itself", function(bed)
    local cache, depth = bed.cache, 0
    local function nest(lock)
        depth = depth + 1
        assert.is_true(lock:valid())
        if depth < 3 then
            assert.equal(depth + 1, cache:withLock("job", OPTIONS, nest))
        elseif depth == 3 then
            local ok, message = pcall(cache.withLock, cache, "job", OPTIONS, function()
                error("up")
            end)
            assert.is_false(ok)
            assert.is_truthy(message:find("up", 1, true))
        end
        assert.is_true(lock:valid() and lock:held())
        depth = depth - 1
        return depth + 1
    end
    assert.equal(1, cache:withLock("job", OPTIONS, nest))
    assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
    assert.equal("recursive", report(cache:withLock("job", { wait = 0 }, function(lock)
        return lock:acquire()
    end)).code)
end)

case("another coroutine does not own a reentrant lock", function(bed)
    local one = bed.cache:lock("job", OPTIONS)
    assert.is_true(one:acquire())
    assert.is_true(bed.cache:withLock("other", OPTIONS, function(lock)
        return lock.token ~= one.token
    end))
    local again
    coroutine.wrap(function() again = report(one:acquire()).code end)()
    assert.equal("recursive", again)
    if bed.is_light then
        local codes = {}
        bed.together({ function()
            codes[1] = report(bed.cache:tryLock("job", OPTIONS)).code
            codes[2] = report(one:acquire()).code
            codes[3] = one:valid()
        end })
        assert.same({ "notAcquired", "recursive", true }, codes)
        bed.together({ function() assert.is_true(one:release()) end })
        assert.is_false(one:valid())
    else
        assert.is_true(one:release())
    end
end)

case("the loss of a reentrant lock is told to each handle, and ends all its acquires", function(bed)
    local told = {}
    local function handle(i)
        return bed.cache:lock("job", { reentrant = true, wait = 0, ttl = 5,
            onLost = function(lock) told[i] = lock end })
    end
    local plain, one, two = bed.cache:lock("job", OPTIONS), handle(1), handle(2)
    assert.is_true(plain:acquire() and one:acquire() and one:acquire() and two:acquire())
    bed.redis:call("DEL", "app//lock:{job}")
    bed.wait_until(function() return plain:lost() end, 2, "the loss")
    assert.same({ one, two }, told)
    assert.is_false(one:valid() or two:valid())
    assert.is_true(two:acquire()) -- anew
    assert.equal("notHeld", report(one:release()).code)
    assert.equal("notHeld", report(plain:release()).code)
    assert.is_true(two:valid() and two:release())
    assert.equal(0, bed.redis:call("EXISTS", "app//lock:{job}"))
end)

case("reentrant is a boolean, and of single locks", function(bed)
    local cache = bed.cache
    local before = cache:stats().requests
    for _, method in ipairs({ "lock", "tryLock", "withLock" }) do
        raises("bad option 'reentrant' to " .. method .. ": true or false expected",
            cache[method], cache, "job", { reentrant = 1 }, group.never)
    end
    raises("bad option 'reentrant' to lockMulti", cache.lockMulti, cache, { "a" }, OPTIONS)
    raises("bad option 'reentrant' to semaphore", cache.semaphore, cache, "s", 2, OPTIONS)
    local one = cache:lock("job", OPTIONS)
    for _, wait in ipairs({ -1, "1", 0 / 0, 1e6 }) do
        raises("bad argument 'wait' to acquire", one.acquire, one, wait)
    end
    assert.equal("badTtl", report(one:extend(0)).code)
    assert.equal(0, cache:stats().requests - before)
end)

cases.light("a reentrant lock lets in one light thread at a time", function(bed)
    local inside, done, fns = nil, 0, {}
    for i = 1, 8 do
        fns[i] = function()
            assert(bed.cache:withLock("job", { reentrant = true, wait = 30 }, function()
                assert.is_nil(inside)
                inside = i
                assert(bed.cache:withLock("job", OPTIONS, function()
                    bed.pause(0.01)
                    return true
                end))
                assert.equal(i, inside)
                inside = nil
                return true
            end))
            done = done + 1
        end
    end
    bed.together(fns)
    assert.equal(8, done)
end)

return cases
