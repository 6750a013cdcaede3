-- Cases (spec/support/api_cases.lua): afterCommit.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local raises, report = group.raises, group.report

local function exists(bed, key)
    return bed.redis:call("EXISTS", "app:" .. key) == 1
end

case("afterCommit sends what was collected once fn has returned, and not before", function(bed)
    local cache = bed.cache
    cache:setMulti({ a = 1, b = 2, c = 3, stays = 4 }, 60)
    local count = select("#", cache:afterCommit(function(commit)
        assert.is_true(commit:delete("a"))
        assert.is_true(commit:deleteMulti({ "b", "c", "b", "none" }))
        assert.is_true(commit:deleteMulti({}))
        bed.pause(0.01)
        assert.same({ a = 1, b = 2, c = 3 }, (cache:getMulti({ "a", "b", "c" })))
        return 1, nil, 3, nil
    end))
    assert.equal(4, count)
    assert.same({ stays = 4 }, (cache:getMulti({ "a", "b", "c", "stays" })))
    assert.same({ 1, nil, 3 }, { cache:afterCommit(function() return 1, nil, 3 end) })
end)

case("afterCommit sends nothing where the work was rolled back", function(bed)
    local cache = bed.cache
    cache:set("k", 1, 60)
    local thrown = {}
    local ok, err = pcall(cache.afterCommit, cache, function(commit)
        commit:delete("k")
        error(thrown)
    end)
    assert.is_false(ok)
    assert.equal(thrown, err)
    for _, results in ipairs({ { n = 2, nil, "duplicate key" }, { n = 2, false, "full" } }) do
        local value, cause = cache:afterCommit(function(commit)
            commit:delete("k")
            return unpack(results, 1, 2)
        end)
        assert.equal(results[1], value)
        assert.equal(results[2], cause)
    end
    assert.equal(1, (cache:get("k")))
    -- A lone nil or false is no cause: one delete too many costs a load.
    for _, result in ipairs({ { false }, {} }) do
        cache:set("k", 1, 60)
        cache:afterCommit(function(commit)
            commit:delete("k")
            return unpack(result)
        end)
        assert.is_false(exists(bed, "k"))
    end
end)

case("afterCommit makes stale softly what has a grace window; a delete covers it", function(bed)
    local cache = bed.open({ grace = 100 })
    cache:setMulti({ a = 1, b = 2, c = 3 }, 60)
    cache:afterCommit(function(commit)
        commit:delete("a", { soft = true })
        commit:deleteMulti({ "b", "c" }, { soft = true })
        commit:delete("b")
        commit:delete("c", { soft = false })
        commit:delete("c", { soft = true })
    end)
    assert.same({ value = 1, source = "stale" }, report(cache:get("a")))
    assert.is_false(exists(bed, "b"))
    assert.is_false(exists(bed, "c"))
end)

case("afterCommit within afterCommit collects for the outer one", function(bed)
    local cache, below, other = bed.cache, bed.cache:namespace("below"), bed.other()
    local function fill()
        cache:setMulti({ a = 1, b = 1 }, 60)
        below:set("a", 1, 60)
    end
    fill()
    assert.equal("outer", (cache:afterCommit(function(commit)
        assert.equal("inner", (below:afterCommit(function(inner)
            inner:delete("a")
            return "inner"
        end)))
        -- Whatever comes of it.
        assert.is_nil((other:afterCommit(function(inner)
            inner:delete("b")
            return nil, "no"
        end)))
        assert.is_false(pcall(cache.afterCommit, cache, error))
        assert.equal(1, (below:get("a")))
        assert.equal(1, (cache:get("b")))
        commit:delete("a")
        return "outer"
    end)))
    assert.is_nil((cache:get("a")))
    assert.is_nil((cache:get("b")))
    assert.is_nil((below:get("a")))
    fill()
    cache:afterCommit(function()
        below:afterCommit(function(inner) inner:delete("a") end)
        return nil, "rolled back"
    end)
    assert.equal(1, (below:get("a")))
end)

case("a coroutine that is left within afterCommit sends nothing, is no outer one", function(bed)
    local cache, left = bed.cache, nil
    cache:setMulti({ a = 1, b = 1 }, 60)
    local co = coroutine.create(function()
        cache:afterCommit(function(commit)
            commit:delete("a")
            left = commit
            coroutine.yield("left")
        end)
    end)
    coroutine.resume(co)
    assert.is_table(left)
    co = nil -- luacheck: ignore
    collectgarbage()
    cache:afterCommit(function(commit) commit:delete("b") end)
    assert.is_true(exists(bed, "a"))
    assert.is_false(exists(bed, "b"))
end)

case("near copies go with afterCommit, everywhere", function(bed)
    local cache, other = bed.open({ near = true }), bed.other({ near = true })
    for _, reader in ipairs({ cache, other }) do
        cache:set("k", "v", 60)
        bed.wait_until(function()
            local _, _, source = reader:get("k")
            return source == "near" or source == "l0"
        end, 5, "a near copy")
        cache:afterCommit(function(commit) commit:delete("k") end)
        assert.is_nil((cache:get("k")))
        bed.wait_until(function() return reader:get("k") == nil end, 5, "the news")
    end
end)

-- Reads until the queue is empty: each call tries again what is due.
local function drain(bed, cache)
    bed.wait_until(function()
        cache:get("anything")
        return cache:stats().afterCommitQueued == 0
    end, 20, "the retry")
end

case("an invalidation that fails is told, kept and tried again by later calls", function(bed)
    local cache, soft = bed.open({ near = true, grace = 50 }), { soft = true }
    local told
    cache:setMulti({ a = 1, b = 2, c = 3 }, 60)
    for _ = 1, 3 do assert.equal(1, (cache:get("a"))) end
    bed.silence(true)
    assert.same({ "row", nil, 3 }, { cache:afterCommit(function(commit)
        commit:deleteMulti({ "a", "b" })
        commit:delete("c", soft)
        return "row", nil, 3
    end, { timeout = 0.05, onFailed = function(err, names, dropped)
        table.sort(names)
        told = { code = err.code, names = names, dropped = dropped }
        error("nobody hears this")
    end }) })
    -- What this machine has kept near is void at once.
    local value, err = cache:get("a", { timeout = 0.02 })
    assert.is_nil(value)
    assert.is_not_nil(err)
    local stats = cache:stats()
    assert.same({ 3, 0, 0, 3 }, { stats.afterCommitFailed, stats.afterCommitRetried,
        stats.afterCommitDropped, stats.afterCommitQueued })
    assert.equal(0, told.dropped)
    assert.same({ "app:a", "app:b", "app:c" }, told.names)
    assert.is_truthy(({ timeout = 1, outcomeUnknown = 1, unavailable = 1 })[told.code], told.code)
    bed.silence(false)
    drain(bed, cache)
    stats = cache:stats()
    assert.same({ 3, 3, 0 }, { stats.afterCommitFailed, stats.afterCommitRetried,
        stats.afterCommitDropped })
    assert.is_nil((cache:get("a")))
    assert.is_nil((cache:get("b")))
    assert.same({ value = 3, source = "stale" }, report(cache:get("c")))
end)

case("afterCommit invalidates by tags, softly too, once fn has returned", function(bed)
    local cache, other = bed.open({ near = true, grace = 100 }), bed.other({ near = true })
    local below = cache:namespace("below")
    local function fill()
        for _, one in ipairs({ cache, below }) do
            one:set("ab", 1, 60, { tags = { "a", "b" } })
            one:set("c", 1, 60, { tags = { "c" } })
        end
    end
    fill()
    assert.equal("row", (cache:afterCommit(function(commit)
        assert.is_true(commit:invalidateTags({ "a", "none", "a" }))
        assert.is_true(commit:invalidateTags({}))
        assert.is_true(commit:invalidateTags({ "c" }, { soft = true }))
        assert.same({ 1, 1 }, { cache:get("ab"), (cache:get("c")) })
        return "row"
    end)))
    assert.same({}, report(cache:get("ab")))
    assert.same({ value = 1, source = "stale" }, report(cache:get("c")))
    bed.wait_until(function() return other:get("ab") == nil end, 5, "the news")
    -- Only of the namespace whose afterCommit it was; where both are asked for, hard counts.
    assert.same({ ab = 1, c = 1 }, (below:getMulti({ "ab", "c" })))
    fill()
    cache:afterCommit(function(commit)
        below:afterCommit(function(inner) inner:invalidateTags({ "b", "c" }) end)
        commit:invalidateTags({ "c" })
        commit:invalidateTags({ "c" }, { soft = true })
    end)
    assert.same({ ab = 1 }, (cache:getMulti({ "ab", "c" })))
    assert.same({}, (below:getMulti({ "ab", "c" })))
    fill()
    cache:afterCommit(function(commit)
        commit:invalidateTags({ "a", "c" })
        return nil, "rolled back"
    end)
    assert.same({ ab = 1, c = 1 }, (cache:getMulti({ "ab", "c" })))
    -- A load under way, whose tag goes with the commit, is void.
    cache:remember("load", 60, function()
        other:afterCommit(function(commit) commit:invalidateTags({ "l" }) end)
        return "old"
    end, { tags = { "l" } })
    assert.same({}, report(cache:get("load")))
end)

case("invalidations of tags that fail are kept and tried again, each of its kind", function(bed)
    local cache, names = bed.open({ grace = 100 }), nil
    cache:set("hard", 1, 60, { tags = { "a" } })
    cache:set("soft", 2, 60, { tags = { "b" } })
    cache:set("stays", 3, 60, { tags = { "c" } })
    -- Servers know the script: what fails is the connection.
    cache:invalidateTags({ "none" }, { soft = true })
    bed.silence(true)
    cache:afterCommit(function(commit)
        commit:invalidateTags({ "a" })
        commit:invalidateTags({ "b" }, { soft = true })
    end, { timeout = 0.05, onFailed = function(_, failed) names = failed end })
    table.sort(names)
    assert.same({ "app//tag:a", "app//tag:b" }, names)
    assert.equal(2, cache:stats().afterCommitQueued)
    bed.silence(false)
    drain(bed, cache)
    assert.same({ 2, 2, 0 }, { cache:stats().afterCommitFailed, cache:stats().afterCommitRetried,
        cache:stats().afterCommitDropped })
    assert.same({}, report(cache:get("hard")))
    assert.same({ value = 2, source = "stale" }, report(cache:get("soft")))
    assert.same({ value = 3, source = "redis" }, report(cache:get("stays")))
end)

case("what a later afterCommit has invalidated is not tried again", function(bed)
    local cache = bed.cache
    local function delete() cache:afterCommit(function(commit) commit:delete("k") end) end
    cache:set("k", 1, 60)
    bed.silence(true)
    cache:afterCommit(function(commit) commit:delete("k") end, { timeout = 0.05 })
    assert.equal(1, cache:stats().afterCommitQueued)
    bed.silence(false)
    bed.wait_until(function()
        delete()
        return cache:stats().afterCommitQueued == 0
    end, 20, "the delete")
    assert.equal(0, cache:stats().afterCommitDropped)
end)

case("afterCommit of a cache that is closed does nothing; one that closes is told", function(bed)
    local cache, told = bed.open({ namespace = "app/x" }), nil
    assert.equal("row", (cache:afterCommit(function(commit)
        commit:delete("k")
        cache:close()
        return "row"
    end, { onFailed = function(err, names, dropped) told = { err.code, #names, dropped } end })))
    assert.same({ "closed", 1, 1 }, told)
    local value, err = cache:afterCommit(function() error("it ran") end)
    assert.is_nil(value)
    assert.equal("closed", err.code)
end)

case("wrong arguments of afterCommit are errors that name them; nothing is sent", function(bed)
    local cache, long, over = bed.cache, ("x"):rep(70000), nil
    cache:set("k", 1, 60)
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'fn' to afterCommit: function expected, got nil; it is called"
            .. " afterCommit(fn, opts)"] = function() cache:afterCommit() end,
        ["bad argument 'opts' to afterCommit"] = function() cache:afterCommit(error, 1) end,
        ["bad option 'onFailed' to afterCommit: function expected"] = function()
            cache:afterCommit(error, { onFailed = 1 })
        end,
        ["unknown option 'soft' to afterCommit"] = function()
            cache:afterCommit(error, { soft = true })
        end,
        ["bad argument 'key' to delete"] = function()
            cache:afterCommit(function(commit) commit:delete(1) end)
        end,
        ["unknown option 'timeout' to delete"] = function()
            cache:afterCommit(function(commit) commit:delete("k", { timeout = 1 }) end)
        end,
        ["bad option 'soft' to deleteMulti"] = function()
            cache:afterCommit(function(commit) commit:deleteMulti({ "k" }, { soft = 1 }) end)
        end,
        ["bad argument 'keys' to deleteMulti: list of strings expected, got number"] = function()
            cache:afterCommit(function(commit) commit:deleteMulti({ "k", 2 }) end)
        end,
        ["bad argument 'tags' to invalidateTags: list of names expected, got string"] = function()
            cache:afterCommit(function(commit) commit:invalidateTags("a") end)
        end,
        ["expected, each a string of 1 to 200 bytes, got string at 2"] = function()
            cache:afterCommit(function(commit) commit:invalidateTags({ "a", "" }) end)
        end,
        ["unknown option 'timeout' to invalidateTags"] = function()
            cache:afterCommit(function(commit) commit:invalidateTags({ "a" }, { timeout = 1 }) end)
        end,
        ["bad option 'soft' to invalidateTags"] = function()
            cache:afterCommit(function(commit) commit:invalidateTags({ "a" }, { soft = 1 }) end)
        end,
        ["was called with a dot"] = function()
            cache:afterCommit(function(commit) commit.delete("k") end)
        end,
    }) do
        raises(text, fn)
    end
    cache:afterCommit(function(commit)
        over = commit
        local done, err = commit:deleteMulti({ "k", long })
        assert.is_nil(done)
        assert.equal("tooLarge", err.code)
        assert.equal(long, err.key)
    end)
    raises("could not delete: the function of afterCommit has returned already", function()
        over:delete("k")
    end)
    assert.equal(sent, cache:stats().requests)
    assert.equal(1, (cache:get("k")))
end)

cases.light("afterCommit of light threads: each sends its own", function(bed)
    local cache, fns, map, keys = bed.cache, {}, {}, {}
    for i = 1, 50 do
        map["k" .. i], keys[i] = i, "k" .. i
        fns[i] = function()
            local failed = i % 5 == 0 and "no" or nil
            cache:afterCommit(function(commit)
                commit:delete("k" .. i)
                bed.pause(0.001)
                return not failed, failed
            end)
        end
    end
    cache:setMulti(map, 60)
    bed.together(fns)
    local left = cache:getMulti(keys)
    for i = 1, 50 do assert.equal(i % 5 == 0 and i or nil, left["k" .. i]) end
end)

return cases
