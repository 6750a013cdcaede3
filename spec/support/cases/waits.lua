-- Cases (spec/support/api_cases.lua): raw commands that wait, over connections of their own.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local report = group.report

case("a command that waits does so for as long as it says, beyond the timeout", function(bed)
    bed.needs("lists")
    -- Its answer may be late by the timeout.
    local raw = bed.cache:redis({ timeout = clock.scaled(1) })
    local took = clock.time(function()
        assert.same({}, report(raw:command("BLPOP", "{q}one", "{q}two", clock.scaled(1) + 0.3)))
    end)
    assert.is_true(took >= clock.scaled(1) + 0.2, took)
    assert.same({}, report(raw:command("XREAD", "COUNT", 1, "BLOCK", 50, "STREAMS", "s", "$")))
    raw:command("RPUSH", "{q}two", "a", "b")
    assert.same({ "{q}two", "a" }, raw:command("blpop", "{q}one", "{q}two", 0))
    assert.equal("b", raw:command("BRPOPLPUSH", "{q}two", "{q}one", 0))
    assert.same({ "{q}one", { "b" } }, raw:command("BLMPOP", 0, 1, "{q}one", "LEFT"))
    assert.equal("redis", report(raw:command("BLPOP", "{q}one", "soon")).code)
end)

case("WAIT in a pipeline waits for the writes before it", function(bed)
    local answers = assert(bed.cache:redis():pipeline(function(p)
        p:command("SET", "k", "v")
        p:command("WAIT", 0, 100)
        p:command("GET", "k")
    end))
    assert.same({ "OK", "v" }, { answers[1], answers[3] })
    assert.equal("number", type(answers[2]))
end)

light("a command that waits for long delays no other call", function(bed)
    bed.needs("lists")
    local raw = bed.cache:redis({ timeout = 20 })
    local got, longest, over = nil, 0, false
    bed.together({
        function()
            got = raw:command("BLPOP", "q", 30)
            over = true
        end,
        function()
            for i = 1, 200 do
                local took = clock.time(function()
                    assert(bed.cache:set("k" .. i % 7, i))
                    assert(bed.cache:get("k" .. i % 7) == i)
                    assert(raw:command("GET", "none") == nil)
                end)
                longest = math.max(longest, took)
            end
            assert.is_false(over)
            assert(raw:command("RPUSH", "q", "item"))
        end,
    })
    assert.same({ "q", "item" }, got)
    assert.is_true(longest < clock.scaled(2), longest)
end)

light("more callers wait at once than maxLent in vain, and the others are served", function(bed)
    bed.needs("lists")
    local cache = bed.open({ maxLent = 2, group = "few" })
    local raw, hasty = cache:redis({ timeout = 20 }), cache:redis({ timeout = 0.05 })
    local got, err = {}, nil
    -- A hasty call that was given up may still have one of the two.
    local function wait(i)
        return function()
            local fault
            repeat
                got[i], fault = raw:command("BLPOP", "q" .. i, 30)
            until not (fault and fault.code == "overload")
        end
    end
    bed.together({
        wait(1), wait(2),
        function()
            local refused
            repeat -- until both are lent, and not to a hasty call
                local value
                value, err = hasty:command("BLPOP", "q3", 0.01)
                assert(value == nil)
                assert(err == nil or err.code == "overload" or err.code == "timeout", err)
                refused = select(2, hasty:transaction(function() end, { watch = { "q3" } }))
            until err and err.code == "overload" and refused and refused.code == "overload"
            assert.matches("all 2 lent connections are in use", err.message)
            raw:command("RPUSH", "q1", "a")
            raw:command("RPUSH", "q2", "b")
        end,
    })
    assert.same({ { "q1", "a" }, { "q2", "b" } }, got)
end)

light("a command that waits can be cancelled", function(bed)
    bed.needs("lists")
    local raw = bed.cache:redis({ cancelTag = 77 })
    local value, err
    bed.together({
        function() value, err = raw:command("BLPOP", "never", 0) end,
        function()
            bed.wait_until(function() return bed.cache:cancel(77) > 0 end, 10, "its start")
        end,
    })
    assert.same({ code = "cancelled" }, report(value, err))
end)

return cases
