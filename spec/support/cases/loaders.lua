-- Cases (spec/support/api_cases.lua): many callers that each want one key.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case, light = cases.case, cases.light
local never, report, within = group.never, group.report, group.within

-- A function for a loader, which counts its runs and the keys of each.
local function counting(bed, seen, seconds)
    return function(keys)
        local values = {}
        seen[#seen + 1] = #keys
        if seconds then bed.pause(seconds) end
        for _, key in ipairs(keys) do values[key] = key .. "!" end
        return values
    end
end

case("a loader gives the value of a key, as remember does", function(bed)
    local cache, seen = bed.cache, {}
    local loader = cache:loader(counting(bed, seen), { ttl = 20 })
    assert.same({ "a!" }, { loader:get("a") })
    assert.same({ "a!" }, { loader:get("a") })
    assert.same({ 1 }, seen)
    assert.equal("a!", (cache:get("a")))
    local life = bed.redis:call("PTTL", "app:a")
    assert.is_true(life > 5000 and life <= 20000, life)
    cache:set("b", "there", 60)
    assert.same({ "there" }, { cache:loader(never):get("b") })
end)

case("a loader tells of a key what is wrong with it, and what is not there", function(bed)
    local loader = bed.cache:loader(function() return {}, { bad = "down" } end)
    assert.same({ code = "loaderFailed" }, report(loader:get("bad")))
    assert.same({}, report(loader:get("none")))
    assert.same({}, report(bed.cache:loader(never):get("none")))
    assert.equal("tooLarge", report(loader:get(("x"):rep(70000))).code)
    local broken = bed.cache:loader(function() error("broken") end)
    assert.equal("loaderFailed", report(broken:get("k")).code)
end)

case("the function of a loader may ask that loader for other keys, not for its own", function(bed)
    local inner = {}
    local loader
    loader = bed.cache:loader(function(keys)
        if keys[1] == "outer" then
            inner = { loader:get("inner"), report(loader:get("outer")).code }
        end
        return { [keys[1]] = keys[1] .. "!" }
    end)
    within(2, function() assert.equal("outer!", (loader:get("outer"))) end)
    assert.same({ "inner!", "recursive" }, inner)
end)

case("bad arguments of a loader raise", function(bed)
    local cache = bed.cache
    cache:get("k")
    local before = cache:stats().requests
    local raises = group.raises
    raises("bad argument 'fn' to loader", cache.loader, cache, {})
    raises("bad argument 'opts' to loader", cache.loader, cache, never, 5)
    raises("bad option 'maxBatch'", cache.loader, cache, never, { maxBatch = 0 })
    raises("bad option 'maxWait'", cache.loader, cache, never, { maxWait = -1 })
    raises("bad option 'ttl'", cache.loader, cache, never, { ttl = 0 })
    raises("unknown option 'batch'", cache.loader, cache, never, { batch = 10 })
    local loader = cache:loader(never)
    raises("bad argument 'key' to get", loader.get, loader, 5)
    raises("called with a dot", loader.get, "k")
    assert.equal(before, cache:stats().requests)
end)

light("200 light threads that want 30 keys are answered by one run", function(bed)
    local seen, threads, wrong = {}, {}, 0
    local loader = bed.cache:loader(counting(bed, seen, 0.02), { maxWait = 0.2 })
    for i = 1, 200 do
        threads[i] = function()
            local key = "k" .. i % 30
            if loader:get(key) ~= key .. "!" then wrong = wrong + 1 end
        end
    end
    bed.together(threads)
    assert.equal(0, wrong)
    assert.same({ 30 }, seen)
    assert.equal(30, bed.cache:stats().leases)
end)

light("a batch that is full does not wait for more", function(bed)
    local seen, threads, wrong = {}, {}, 0
    local loader = bed.cache:loader(counting(bed, seen), { maxWait = 30, maxBatch = 10 })
    for i = 1, 40 do
        threads[i] = function()
            local key = "k" .. i
            if loader:get(key) ~= key .. "!" then wrong = wrong + 1 end
        end
    end
    within(5, function() bed.together(threads) end)
    assert.equal(0, wrong)
    assert.same({ 10, 10, 10, 10 }, seen)
end)

light("a loader whose function throws tells all that have asked, and goes on", function(bed)
    local runs, codes, threads = 0, {}, {}
    local loader = bed.cache:loader(function(keys)
        runs = runs + 1
        if runs == 1 then error("broken") end
        return { [keys[1]] = 1 }
    end, { maxWait = 0.1 })
    for i = 1, 5 do
        threads[i] = function() codes[i] = report(loader:get("k" .. i)).code end
    end
    bed.together(threads)
    for i = 1, 5 do assert.equal("loaderFailed", codes[i]) end
    assert.equal(1, runs)
    assert.equal(1, (loader:get("k1")))
end)

return cases
