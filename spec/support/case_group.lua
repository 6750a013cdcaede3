--- A group of cases of spec/support/api_cases.lua, and the words that cases have in common.
--
-- What:   local cases = group.new()
--         cases.case("name", function(bed) ... end)     runs under every scheduler
--         cases.light("name", function(bed) ... end)    needs light threads (bed.together)
--         return cases                                  .list, .light_list: { name, body } each

local assert = require("luassert")
local clock = require("spec.support.clock")

local group = {}

function group.new()
    local cases = { list = {}, light_list = {} }

    function cases.case(name, body) table.insert(cases.list, { name, body }) end

    function cases.light(name, body) table.insert(cases.light_list, { name, body }) end

    return cases
end

--- Loaders: one that nobody should call, and one of a record that does not exist.
function group.never() error("the loader ran") end
function group.nothing() return nil end

--- Up to four results by name, so that a table has no holes; an error by its code.
function group.report(value, err, source, flag)
    return { value = value, code = err and err.code, source = source, flag = flag }
end

--- fn(...) raises an error whose text holds `text`, which is no pattern.
function group.raises(text, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    assert.matches(text, tostring(message), 1, true)
end

--- Waits until what stands in Redis under a name is renewed twice: its life, which shrinks, has
-- grown. So no moment is asked about at which a renewal might be late.
function group.wait_for_renewals(bed, name)
    local last, count = bed.redis:call("PTTL", name), 0
    bed.wait_until(function()
        local left = bed.redis:call("PTTL", name)
        assert.is_true(left > 0, "it has ended")
        count, last = count + (left > last and 1 or 0), left
        return count == 2
    end, 20, "the second renewal")
end

--- Runs fn until it ends with at most `most` commands sent. A client that reads near copies asks
-- on its own account, too: a cluster's masters in rounds, of which the first one goes on for a
-- moment behind the first near copy. Rounds are seldom: what fn itself sends, it sends each time.
function group.sends_at_most(bed, cache, most, fn)
    bed.wait_until(function()
        local before = cache:stats().requests
        fn()
        return cache:stats().requests - before <= most
    end, 5, "a run with " .. most .. " commands")
end

--- Time is real: a bound is for machines that do something else as well.
function group.within(seconds, fn)
    local took = clock.time(fn)
    assert.is_true(took < clock.scaled(seconds), "it took " .. took)
end

return group
