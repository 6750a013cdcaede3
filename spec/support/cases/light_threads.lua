-- Cases (spec/support/api_cases.lua): what needs light threads.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local light = cases.light
local never, report, within = group.never, group.report, group.within

light("50 light threads that miss at once have one loader", function(bed)
    local runs, results, threads = 0, {}, {}
    for i = 1, 50 do
        threads[i] = function()
            results[i] = report(bed.cache:remember("k", 60, function()
                runs = runs + 1
                bed.pause(0.1)
                return "v"
            end))
        end
    end
    bed.together(threads)
    assert.equal(1, runs)
    for i = 1, 50 do assert.same({ "v" }, { results[i].value, results[i].code }) end
end)

light("who waits for a loader that fails is told its error", function(bed)
    local codes, threads = {}, {}
    for i = 1, 5 do
        threads[i] = function()
            codes[i] = report(bed.cache:remember("k", 60, function()
                bed.pause(0.1)
                error("broken")
            end)).code
        end
    end
    bed.together(threads)
    local expected = {}
    for i = 1, 5 do expected[i] = "loaderFailed" end
    assert.same(expected, codes)
end)

light("500 light threads read and write at once, and each gets its own answer", function(bed)
    local wrong, threads = 0, {}
    for i = 1, 500 do
        threads[i] = function()
            if not bed.cache:set("k" .. i, i) or bed.cache:get("k" .. i) ~= i then
                wrong = wrong + 1
            end
        end
    end
    bed.together(threads)
    assert.equal(0, wrong)
end)

light("while one waits the others go on", function(bed)
    local other, ticks = bed.other(), 0
    local held = assert(other:tryLock("job", { ttl = 30 }))
    local lock, acquired = bed.cache:lock("job", { wait = 25 }), nil
    bed.together({
        function() acquired = lock:acquire() end,
        function()
            for _ = 1, 20 do
                bed.pause(0.005)
                ticks = ticks + (acquired == nil and 1 or 0)
            end
            held:release() -- what the other one waits for, and would not have without this one
        end,
    })
    assert.same({ 20, true }, { ticks, acquired })
    assert.is_true(lock:release())
end)

light("a lock is handed from one light thread to the next", function(bed)
    local inside, most, count, threads = 0, 0, 0, {}
    for i = 1, 20 do
        threads[i] = function()
            bed.cache:withLock("job", { wait = 20 }, function()
                inside = inside + 1
                most = math.max(most, inside)
                bed.pause(0.002)
                inside = inside - 1
                count = count + 1
            end)
        end
    end
    bed.together(threads)
    assert.same({ 1, 20 }, { most, count })
end)

light("cancel ends a call that waits", function(bed)
    local other, result = bed.other(), nil
    local held = assert(other:tryLock("job", { ttl = 30 }))
    within(5, function()
        bed.together({
            function()
                result = report(bed.cache:lock("job", { wait = 20, cancelTag = 7 }):acquire())
            end,
            function()
                bed.wait_until(function() return bed.cache:cancel(7) == 1 end, 5, "the waiter")
            end,
        })
    end)
    held:release()
    assert.same({ code = "cancelled" }, result)
end)

light("close ends what waits with closed, and gives leases and locks back", function(bed)
    local other = bed.other()
    local held = assert(bed.cache:tryLock("job", { ttl = 30 }))
    local waiting, loading, loads, is_closed
    within(10, function()
        bed.together({
            function() waiting = report(other:lock("job", { wait = 20 }):acquire()) end,
            function()
                loading = report(other:remember("k", 60, function()
                    loads = true
                    bed.wait_until(function() return is_closed end, 10, "the close")
                    return "v"
                end, { leaseTtl = 30 }))
            end,
            function()
                bed.wait_until(function() return loads end, 10, "the load")
                other:close()
                is_closed = true
            end,
        })
    end)
    held:release()
    assert.same({ code = "closed" }, waiting)
    assert.equal("v", loading.value)
    bed.wait_until(function() return bed.redis:call("EXISTS", "app:k") == 0 end, 2, "its end")
end)

light("a recursion is one of a light thread, not of the worker", function(bed)
    local second
    bed.together({
        function()
            bed.cache:remember("k", 60, function()
                bed.pause(0.1)
                return "v"
            end)
        end,
        function() second = report(bed.cache:remember("k", 60, never)) end,
    })
    assert.equal("v", second.value)
end)

return cases
