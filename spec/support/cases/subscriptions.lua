-- Cases (spec/support/api_cases.lua): redis:subscribe(), psubscribe(), and what they tell.

local assert = require("luassert")
local clock = require("spec.support.clock")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local report = group.report

local PATIENCE = 20

-- The next event, as text.
local function told(sub, seconds)
    local event, err = sub:next(seconds or PATIENCE)
    if event == nil then return "nil " .. err.code end
    return event.gap and "gap" or (event.pattern or "") .. " " .. event.channel .. " "
        .. event.payload
end

case("a subscription tells the messages of its channels, in order", function(bed)
    local raw = bed.cache:redis()
    local sub = assert(raw:subscribe({ "a", "b\0\r\n" }))
    assert.equal("nil timeout", told(sub, 0))
    for i = 1, 50 do
        raw:publish("a", i)
        raw:publish("c", "not for us")
    end
    for i = 1, 50 do assert.equal(" a " .. i, told(sub)) end
    raw:publish("b\0\r\n", "")
    assert.equal(" b\0\r\n ", told(sub))
    assert.equal("nil timeout", told(sub, 0.01))
    assert.is_true(sub:close())
    assert.is_true(sub:close())
    assert.equal("nil closed", told(sub))
end)

case("a subscription may be of patterns", function(bed)
    local raw = bed.cache:redis()
    local sub, one = assert(raw:psubscribe({ "n*", "w?re" })), assert(raw:subscribe("news"))
    raw:publish("news", "first")
    raw:publish("else", "no")
    raw:publish("were", "second")
    assert.equal("n* news first", told(sub))
    assert.equal("w?re were second", told(sub))
    assert.equal(" news first", told(one))
    sub:close()
    one:close()
end)

case("a subscription waits no longer than it is told to", function(bed)
    local sub = assert(bed.cache:redis():subscribe("silent"))
    group.within(3, function() -- a command's time is 5 s
        local took = bed.time(function() assert.equal("nil timeout", told(sub, 0.05)) end)
        assert.is_true(took >= 0.049, took)
    end)
    sub:close()
end)

case("a subscription takes one of maxLent connections, until it is closed", function(bed)
    local raw = bed.open({ maxLent = 1, group = "one" }):redis({ timeout = clock.scaled(2) })
    local sub = assert(raw:subscribe("a"))
    local none, err = raw:subscribe("b", { timeout = 0.05 })
    assert.same({ code = "overload" }, report(none, err))
    sub:close()
    sub = assert(raw:subscribe("b"))
    raw:publish("a", 1)
    raw:publish("b", 2)
    assert.equal(" b 2", told(sub)) -- what its last caller has subscribed to is undone
    sub:close()
end)

case("subscribing with bad arguments raises at the caller", function(bed)
    local raw = bed.cache:redis()
    for _, row in ipairs({
        { "bad argument 'channels' to subscribe", "subscribe" },
        { "bad argument 'channels' to subscribe", "subscribe", {} },
        { "bad argument 'channels' to subscribe", "subscribe", { {} } },
        { "bad argument 'patterns' to psubscribe", "psubscribe", true },
        { "bad option 'timeout' to subscribe", "subscribe", "a", { timeout = 0 } },
        { "unknown option 'retry' to psubscribe", "psubscribe", "a", { retry = true } },
    }) do
        group.raises(row[1], raw[row[2]], raw, row[3], row[4])
    end
    local sub = assert(raw:subscribe("a"))
    for _, seconds in ipairs({ -1, "1", 0 / 0 }) do
        local ok, message = pcall(sub.next, sub, seconds)
        assert.is_false(ok)
        assert.matches("bad argument 'seconds' to next", message)
    end
    sub:close()
end)

light("a subscription waits while others work, and is ended by its cache's end", function(bed)
    local cache = bed.open({ group = "ends" })
    local raw = cache:redis()
    local sub, seen, last = assert(raw:subscribe("a")), {}, nil
    bed.together({
        function()
            for i = 1, 3 do seen[i] = told(sub) end
            last = told(sub)
        end,
        function()
            for i = 1, 3 do
                bed.pause(0.01)
                assert(bed.cache:set("k", i) and bed.cache:get("k") == i)
                bed.cache:redis():publish("a", i)
            end
            bed.wait_until(function() return seen[3] end, PATIENCE, "the messages")
            cache:close()
        end,
    })
    assert.same({ " a 1", " a 2", " a 3" }, seen)
    assert.equal("nil closed", last)
end)

light("closing a subscription ends who waits for its messages", function(bed)
    local sub, last, waits = assert(bed.cache:redis():subscribe("a")), nil, false
    bed.together({
        function()
            waits = true
            last = told(sub)
        end,
        function()
            bed.wait_until(function() return waits end, PATIENCE, "its start")
            bed.pause(0.02)
            sub:close()
        end,
    })
    assert.equal("nil closed", last)
end)

light("waiting for a message can be cancelled", function(bed)
    local raw = bed.cache:redis({ cancelTag = 78 })
    local sub, last = assert(raw:subscribe("a")), nil
    bed.together({
        function() last = told(sub) end,
        function()
            bed.wait_until(function() return bed.cache:cancel(78) > 0 end, PATIENCE, "its start")
        end,
    })
    assert.equal("nil cancelled", last)
    sub:close()
end)

return cases
