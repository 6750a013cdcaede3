-- Cases (spec/support/api_cases.lua): readWriteLock.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report, within = group.raises, group.report, group.within

local KEY, QUEUE = "app//rwlock:{doc}", "{doc}app//rwlock:{doc}!:queue"

local function queue_of(bed)
    local queue = bed.redis:call("GET", QUEUE)
    return type(queue) == "string" and queue or ""
end

case("readers hold a read-write lock together, a writer alone", function(bed)
    local one, two = bed.cache:readWriteLock("doc"), bed.other():readWriteLock("doc")
    local first, second, writer = one:read({ ttl = 5 }), two:read({ ttl = 5 }), two:write()
    assert.equal("notHeld", report(first:release()).code)
    assert.is_true(first:acquire(0) and second:acquire(0))
    assert.is_true(first.token ~= second.token)
    assert.is_nil(first.fence or first:fenceText())
    for _, held in ipairs({ first, second }) do
        assert.is_true(held:valid() and held:held() and held:ttl() > 2)
        assert.is_false(held:lost())
    end
    assert.equal("recursive", report(first:acquire(0)).code)
    -- One that waited would do so until a ttl of 5 s is over.
    within(3, function() assert.equal("notAcquired", report(writer:acquire(0)).code) end)
    within(3, function() assert.equal("notAcquired", report(writer:acquire(0.3)).code) end)
    assert.is_true(first:release() and second:extend(30) and second:ttl() > 20)
    assert.equal("notAcquired", report(writer:acquire(0)).code)
    assert.is_true(second:release())
    assert.equal("", queue_of(bed))
    assert.is_true(writer:acquire(0) and writer:held())
    assert.equal(writer.token, bed.redis:call("GET", KEY))
    assert.is_true(writer:fenceText() == ("%.0f"):format(writer.fence))
    assert.equal("notAcquired", report(first:acquire(0)).code)
    assert.equal("notAcquired", report(one:write():acquire(0)).code)
    local fence = writer.fence
    assert.is_true(writer:release() and writer:acquire(0) and writer.fence > fence)
    assert.is_true(writer:release() and first:acquire(0) and first:release())
end)

case("both holds are renewed, and their loss is known and told", function(bed)
    for _, side in ipairs({ "read", "write" }) do
        local told
        local doc = bed.cache:readWriteLock("doc")
        local held = doc[side](doc, { ttl = 1.5, onLost = function(lost) told = lost end })
        assert.is_true(held:acquire())
        group.wait_for_renewals(bed, held._key)
        assert.is_true(held:valid() and held:held())
        local rival = bed.other():readWriteLock("doc"):write()
        assert.equal("notAcquired", report(rival:acquire(0)).code)
        assert.equal(1, bed.redis:call("DEL", held._key))
        bed.wait_until(function() return held:lost() end, 5, "the loss")
        assert.equal(held, told)
        assert.equal("notHeld", report(held:release()).code)
        -- What a lost reader has left in the queue ends with its ttl.
        assert.is_true(rival:acquire(20) and rival:release())
    end
end)

case("a reader that finds the queue gone knows that it is lost", function(bed)
    local held = bed.cache:readWriteLock("doc"):read({ ttl = 0.6 })
    assert.is_true(held:acquire())
    bed.redis:call("FLUSHALL")
    bed.wait_until(function() return held:lost() end, 2, "the loss")
end)

case("a hold that is not renewed ends with its ttl", function(bed)
    local options = { ttl = 0.5, renew = false }
    local one, two = bed.cache:readWriteLock("doc"), bed.other():readWriteLock("doc")
    local reader, writer = one:read(options), two:write(options)
    assert.is_true(reader:acquire())
    within(4, function() assert.is_true(writer:acquire(20)) end)
    assert.is_true(reader:lost())
    local last = one:read()
    within(4, function() assert.is_true(last:acquire(20)) end)
    assert.is_true(writer:lost())
    assert.is_true(last:release())
end)

case("withRead and withWrite give the lock back however the function ends", function(bed)
    local doc = bed.cache:readWriteLock("doc")
    assert.same({ 1, nil, 3 }, { doc:withRead({}, function(lock)
        assert.is_true(lock:valid())
        local _, err = bed.other():readWriteLock("doc"):withWrite({ wait = 0 }, group.never)
        assert.equal("notAcquired", err.code)
        return 1, nil, 3
    end) })
    for _, method in ipairs({ "withRead", "withWrite" }) do
        local ok, message = pcall(doc[method], doc, {}, function() error("up") end)
        assert.is_false(ok)
        assert.is_truthy(message:find("up", 1, true))
        local value, err = doc[method](doc, {}, function(lock)
            bed.redis:call("DEL", lock._key)
            bed.wait_until(function() return lock:lost() end, 2, "the loss")
            return "done"
        end)
        assert.same({ code = "lockLost" }, report(value, err))
        bed.redis:call("FLUSHALL")
    end
    assert.equal(2, (doc:withWrite(nil, function() return 2 end)))
    assert.equal("", queue_of(bed))
end)

case("a read-write lock tells what is wrong with its arguments", function(bed)
    local cache = bed.cache
    local before = cache:stats().requests
    raises("bad argument 'name' to readWriteLock: string expected", cache.readWriteLock, cache)
    for _, name in ipairs({ "", "}", "}x{" }) do
        raises("bad argument 'name' to readWriteLock", cache.readWriteLock, cache, name)
    end
    local doc = cache:readWriteLock("doc")
    for _, method in ipairs({ "read", "write", "withRead", "withWrite" }) do
        local call = doc[method]
        for _, option in ipairs({ "force", "reentrant", "fair" }) do
            raises(("bad option '%s' to %s"):format(option, method), call, doc,
                { [option] = true }, group.never)
        end
        raises("bad option 'ttl' to " .. method, call, doc, { ttl = 0 }, group.never)
        raises("unknown option 'x' to " .. method, call, doc, { x = 1 }, group.never)
        raises("bad argument 'opts' to " .. method, call, doc, 3, group.never)
    end
    raises("bad argument 'fn' to withRead", doc.withRead, doc, {})
    raises("bad argument 'fn' to withWrite", doc.withWrite, doc, {})
    for _, wait in ipairs({ -1, "1", 0 / 0, 1e6 }) do
        raises("bad argument 'wait' to acquire", doc:read().acquire, doc:read(), wait)
    end
    assert.equal("badTtl", report(doc:read():extend(0)).code)
    assert.equal(0, cache:stats().requests - before)
end)

cases.light("a writer that waits is served before readers that come later", function(bed)
    local doc, order = bed.cache:readWriteLock("doc"), {}
    local first = doc:read()
    assert.is_true(first:acquire())
    local function enter(name)
        return function()
            order[#order + 1] = name
            return true
        end
    end
    local function records(count)
        bed.wait_until(function() return #queue_of(bed) == 47 * count end, 5, "the queue")
    end
    bed.together({
        function()
            assert(doc:withWrite({ wait = 30 }, enter("writer")))
        end,
        function()
            records(2)
            assert(doc:withRead({ wait = 30 }, enter("reader")))
        end,
        function()
            records(3)
            assert.equal("notAcquired", report(doc:read():acquire(0)).code)
            first:release()
        end,
    })
    assert.same({ "writer", "reader" }, order)
end)

cases.light("a writer that gives up lets the readers behind it in", function(bed)
    local doc = bed.cache:readWriteLock("doc")
    local first = doc:read()
    assert.is_true(first:acquire())
    local seen = false
    bed.together({
        function()
            repeat -- until the reader has come while its ticket stood there
                assert.equal("notAcquired", report(doc:write():acquire(0.4)).code)
            until seen
        end,
        function()
            bed.wait_until(function() return #queue_of(bed) == 94 end, 10, "the writer's ticket")
            seen = true
            within(3, function()
                assert.equal(1, (doc:withRead({ wait = 30 }, function() return 1 end)))
            end)
        end,
    })
    assert.is_true(first:valid() and first:release())
end)

return cases
