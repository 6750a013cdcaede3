-- Cases (spec/support/api_cases.lua): wrap.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local never, report = group.never, group.report

case("wrap runs the function once per arguments, and hands all of them on", function(bed)
    local seen = {}
    local add = bed.cache:wrap("add", function(...)
        seen[#seen + 1] = { select("#", ...), ... }
        local a, b = ...
        return (a or 0) + (b or 0)
    end, { ttl = 60 })
    assert.same({ value = 3, source = "loader" }, report(add(1, 2)))
    assert.same({ value = 3, source = "redis" }, report(add(1, 2)))
    assert.same({ value = 2, source = "loader" }, report(add(nil, 2)))
    assert.same({ value = 1, source = "loader" }, report(add(1, nil)))
    assert.same({ value = 1, source = "redis" }, report(add(1)))
    assert.same({ { 2, 1, 2 }, { 2, nil, 2 }, { 2, 1, nil } }, seen)
    assert.same({ value = 3, source = "redis" },
        report(bed.other():wrap("add", never)(1, 2)))
    local left = bed.redis:call("PTTL", "app:add:1,2")
    assert.is_true(left > 50000 and left <= 60000, left)
end)

case("wrap remembers nothing as remember does, and errors not at all", function(bed)
    local runs, answer = 0, { nil, nil }
    local find, key_of = bed.cache:wrap("find", function()
        runs = runs + 1
        return answer[1], answer[2]
    end)
    assert.same({ source = "loader" }, report(find("nobody")))
    assert.same({ source = "redis" }, report(find("nobody")))
    assert.equal(1, runs)
    answer = { nil, "down" }
    local value, err = find("broken")
    assert.same({ code = "loaderFailed" }, report(value, err))
    assert.equal("down", err.cause)
    assert.equal('find:"broken"', err.key)
    answer = { "back" }
    assert.same({ value = "back", source = "loader" }, report(find("broken")))
    assert.is_true((bed.cache:delete(key_of("nobody"))))
    assert.same({ value = "back", source = "loader" }, report(find("nobody")))
    local thrown = {}
    err = select(2, bed.cache:wrap("throw", function() error(thrown) end)())
    assert.equal(thrown, err.cause)
end)

case("wrap takes the options of remember, and lets a result choose its ttl", function(bed)
    local short = bed.cache:wrap("short", function(n) return n, 5 end, { negativeTtl = 0 })
    assert.equal(7, (short(7)))
    assert.is_true(bed.redis:call("PTTL", "app:short:7") <= 5000)
    assert.same({ source = "loader", flag = "unstored" },
        report(bed.cache:wrap("none", function() end, { negativeTtl = 0 })()))
    assert.equal(0, bed.redis:call("EXISTS", "app:none:"))
    local named = bed.cache:wrap("named", function(user) return user.name end,
        { key = function(user) return user.id end, ttl = require("redcache").FOREVER })
    assert.equal("Ada", (named(setmetatable({ id = "7", name = "Ada" }, {}))))
    assert.equal(-1, bed.redis:call("PTTL", "app:named:7"))
end)

case("wrong wraps are errors that name the argument, and send nothing", function(bed)
    local cache = bed.cache
    local sent, wrapped = cache:stats().requests, cache:wrap("w", never)
    local deep = {}
    for _ = 1, 40 do deep = { deep } end
    for text, fn in pairs({
        ["bad argument 'name' to wrap"] = function() cache:wrap("", never) end,
        ["bad argument 'fn' to wrap"] = function() cache:wrap("w", 1) end,
        ["unknown option 'tll' to wrap"] = function() cache:wrap("w", never, { tll = 1 }) end,
        ["bad option 'ttl' to wrap"] = function() cache:wrap("w", never, { ttl = 0 }) end,
        ["bad option 'key' to wrap"] = function() cache:wrap("w", never, { key = "k" }) end,
        ["bad argument #2 to w: nil, boolean, number, string, int64 or a table of them expected,"
            .. " got a function"] = function() wrapped(1, print) end,
        ["got a table with a metatable"] = function() wrapped(setmetatable({}, {})) end,
        ["got a table as the key of a table"] = function() wrapped({ [{}] = 1 }) end,
        ["got tables more than 32 levels deep"] = function() wrapped(deep) end,
        ["the option key of w must return a string, and gave a nil"] = function()
            cache:wrap("w", never, { key = function() end })(1)
        end,
    }) do
        group.raises(text, fn)
    end
    assert.equal(sent, cache:stats().requests)
end)

cases.light("light threads that call a wrapped function at once share its run", function(bed)
    local runs, results = 0, {}
    local slow = bed.cache:wrap("slow", function(n)
        runs = runs + 1
        bed.pause(0.05)
        return n * 2
    end)
    local threads = {}
    for i = 1, 10 do threads[i] = function() results[i] = slow(21) end end
    bed.together(threads)
    assert.equal(1, runs)
    for i = 1, 10 do assert.equal(42, results[i]) end
end)

return cases
