-- Cases (spec/support/api_cases.lua): explain, and why = true of get and remember.

local assert = require("luassert")
local group = require("spec.support.case_group")
local redcache = require("redcache")

local cases = group.new()
local case = cases.case
local raises = group.raises

local WHY = { why = true }

-- What explain says in a few words.
local function told(cache, key)
    local report, err = cache:explain(key)
    assert.is_nil(err)
    assert.is_truthy(report.text:find("'" .. key .. "'", 1, true), report.text)
    return { report.source or false, report.why or false, report.redis.kind }
end

local function why(cache, key)
    local _, err, source, version, reason = cache:get(key, WHY)
    assert.is_nil(err)
    assert.is_nil(version)
    return { source or false, reason or false }
end

local function load(cache, key, value)
    local _, _, source, _, reason = cache:remember(key, 60, function() return value end, WHY)
    return { source or false, reason or false }
end

case("explain tells what nobody has stored, what this machine has, and where it is", function(bed)
    local cache = bed.open({ near = true })
    assert.same({ false, "neverStored", "none" }, told(cache, "k"))
    assert.same({ false, "neverStored" }, why(cache, "k"))
    assert.same({ "loader", "neverStored" }, load(cache, "k", "a"))
    assert.same({ "redis", "written", "value" }, told(cache, "k"))
    assert.same({ "redis", "written" }, why(cache, "k"))
    -- The first answers are not kept: the masters are asked before whether they agree.
    bed.wait_until(function()
        if cache:explain("k").source == "near" then return true end
        cache:get("k")
        return cache:explain("k").source == "l0"
    end, 5, "a near copy")
    assert.is_false(why(cache, "k")[2])
    assert.same({ "l0", false }, why(cache, "k"))
    assert.same({ "l0", false }, load(cache, "k"))
    assert.same({ "l0", false, "value" }, told(cache, "k"))
    cache:delete("k")
    assert.same({ false, "written", "none" }, told(cache, "k"))
    assert.same({ "loader", "written" }, load(cache, "k", nil))
    assert.same({ "redis", "written", "negative" }, told(cache, "k"))
end)

case("explain reports what it has seen, without the value", function(bed)
    local cache = bed.open({ near = true, grace = 30 })
    cache:set("k", "the secret", 60)
    local function near() return cache:explain("k").near end
    bed.wait_until(function() return cache:get("k") and near().there end, 5, "a near copy")
    local report = cache:explain("k")
    local redis, copy = report.redis, report.near
    assert.is_true(redis.ttl > 30 and redis.ttl <= 60, redis.ttl)
    -- Where refreshes go to the background a copy is kept for its grace window, too.
    assert.is_true(copy.left > 30 and copy.left <= 90, copy.left)
    assert.is_true(copy.age >= 0 and copy.goneAge >= 0)
    assert.same({ "value", "msgpack", 30, 0, 16 }, { redis.kind, redis.codec, redis.grace,
        redis.loadTime, #redis.version })
    assert.is_true(redis.bytes >= 11 and redis.bytes < 50, redis.bytes)
    assert.equal(redis.bytes, copy.bytes)
    for _, part in ipairs({ report, redis, copy }) do
        for name, value in pairs(part) do
            assert.is_nil(tostring(value):find("secret", 1, true), name)
        end
    end
    cache:set("k", 1, redcache.FOREVER)
    assert.equal(redcache.FOREVER, cache:explain("k").redis.ttl)
    bed.redis:call("SET", "app:plain", "text")
    redis = cache:explain("plain").redis
    assert.same({ "plain", 4, 0, redcache.FOREVER },
        { redis.kind, redis.bytes, redis.grace, redis.ttl })
    assert.is_nil(redis.version)
end)

case("what another one has written or deleted is told as invalidated", function(bed)
    local cache = bed.open({ near = true })
    for _, write in ipairs({ "SET", "DEL" }) do
        cache:set("k", 1, 60)
        bed.wait_until(function()
            return cache:get("k") and cache:explain("k").near.there
        end, 5, "a near copy")
        bed.redis:call(write, "app:k", write == "SET" and "2" or nil)
        bed.wait_until(function() return not cache:explain("k").near.there end, 5, "the news")
        local source = write == "SET" and "redis" or false
        assert.same({ source, "invalidated", write == "SET" and "plain" or "none" },
            told(cache, "k"))
        assert.same({ source, "invalidated" }, why(cache, "k"))
    end
    assert.same({ "loader", "invalidated" }, load(cache, "k", 1))
end)

case("what has expired is told so, near, in its grace window and in Redis", function(bed)
    local cache, graced = bed.open({ near = true }), bed.open({ near = true, grace = 60 })
    bed.wait_until(function()
        -- It may be over before it comes near: of such a one is known that it was written.
        if cache:get("k") == nil then cache:set("k", 1, 0.4) end
        return cache:explain("k").near.there
    end, 10, "a near copy")
    bed.wait_until(function() return cache:explain("k").redis.kind == "none" end, 5, "the end")
    assert.same({ false, "expired", "none" }, told(cache, "k"))
    assert.same({ false, "expired" }, why(cache, "k"))
    assert.same({ "loader", "expired" }, load(cache, "k", 1))
    graced:set("g", 1, 0.01)
    bed.pause(0.05)
    assert.same({ "stale", "expired", "value" }, told(graced, "g"))
    assert.same({ "stale", "expired" }, why(graced, "g"))
    local redis = graced:explain("g").redis
    assert.equal(0, redis.ttl)
    assert.is_true(redis.grace > 30 and redis.grace < 60)
end)

case("a load, one that has failed, and what cannot be read are told", function(bed)
    local cache, other = bed.cache, bed.other()
    local seen -- what a loader throws nobody hears
    cache:remember("k", 60, function()
        seen = { told(other, "k"), why(other, "k") }
        return 1
    end)
    assert.same({ { false, "loading", "load" }, { false, "loading" } }, seen)
    cache:remember("failed", 60, function() return nil, "no" end, { errorTtl = 60 })
    assert.same({ false, "loadFailed", "failedLoad" }, told(cache, "failed"))
    assert.same({ false, "loadFailed" }, why(cache, "failed"))
    bed.redis:call("SET", "app:broken", "\251\1\1\3" .. ("\0"):rep(4) .. ("x"):rep(8)
        .. ("\0"):rep(8) .. "\193")
    bed.redis:call("SET", "app:newer", "\251\2\1\3" .. ("\0"):rep(20))
    for key, kind in pairs({ broken = "value", newer = "unknown" }) do
        assert.same({ false, "undecodable", kind }, told(cache, key))
        assert.same({ false, "undecodable" }, why(cache, key))
        assert.same({ "loader", "undecodable" }, load(cache, key, 1))
    end
end)

-- Stores "k" with the tag "a", and waits until reads of both clients find it near.
local function keep_tagged(bed, caches, opts)
    caches[1]:set("k", "v", 60, opts)
    for _, cache in ipairs(caches) do
        if cache:explain("k").near then
            bed.wait_until(function()
                local source = select(3, cache:get("k"))
                return source == "near" or source == "l0"
            end, 5, "a near copy")
        else
            assert.equal("v", (cache:get("k")))
        end
    end
end

case("what a tag voids is told so, to every reader", function(bed)
    local cache, far = bed.open({ near = true }), bed.other()
    local opts = { tags = { "a", "b" } }
    for _, is_soft in ipairs({ false, true }) do
        keep_tagged(bed, { cache, far }, opts)
        assert.same({ "l0", false, "value" }, told(cache, "k"))
        assert.same({ "valid", "valid" }, { cache:explain("k").redis.tags,
            far:explain("k").redis.tags })
        cache:invalidateTags({ "a" }, { soft = is_soft })
        for _, one in ipairs({ cache, far }) do
            assert.same({ false, "tagInvalidated", "value" }, told(one, "k"))
            assert.equal("void", one:explain("k").redis.tags)
            assert.equal("'k' has no value: one of its tags was invalidated",
                one:explain("k").text)
            assert.same({ false, "tagInvalidated" }, why(one, "k"))
            local _, _, _, _, reason = one:get("k", { version = true, why = true })
            assert.equal("tagInvalidated", reason)
        end
        assert.same({ "loader", "tagInvalidated" }, load(far, "k", "v"))
        far:set("k", "v", 60, opts)
        far:invalidateTags({ "b" }, { soft = is_soft })
        bed.wait_until(function() return cache:explain("k").why == "tagInvalidated" end, 5,
            "the news")
        assert.same({ "loader", "tagInvalidated" }, load(cache, "k", "v"))
    end
    cache:set("bare", 1, 60)
    assert.is_nil(cache:explain("bare").redis.tags)
end)

case("what a tag makes stale is told so, near and in Redis", function(bed)
    local cache, far = bed.open({ near = true, grace = 60 }), bed.other({ grace = 60 })
    keep_tagged(bed, { cache, far }, { tags = { "a" } })
    cache:invalidateTags({ "a" }, { soft = true })
    for _, one in ipairs({ cache, far }) do
        for _ = 1, 3 do
            assert.same({ "stale", "tagInvalidated" }, why(one, "k"))
            assert.same({ "stale", "tagInvalidated", "value" }, told(one, "k"))
        end
        assert.equal("stale", one:explain("k").redis.tags)
        assert.equal("'k' comes from Redis, stale: one of its tags was invalidated",
            one:explain("k").text)
        local _, _, _, _, reason = one:get("k", { version = true, why = true })
        assert.equal("tagInvalidated", reason)
    end
    -- Whoever loads it, or takes it meanwhile.
    for _, one in ipairs({ cache, far }) do
        keep_tagged(bed, { cache, far }, { tags = { "a" } })
        far:invalidateTags({ "a" }, { soft = true })
        bed.wait_until(function() return cache:explain("k").source == "stale" end, 5, "the news")
        local _, _, source, _, reason = one:remember("k", 60, function() return "v" end, WHY)
        assert.is_truthy(source == "stale" or source == "loader")
        assert.equal("tagInvalidated", reason)
    end
end)

case("a copy whose tag is not near is told so, and comes from Redis", function(bed)
    local cache = bed.open({ near = true })
    keep_tagged(bed, { cache }, { tags = { "a" } })
    -- What stands there stays the same: only its near copy goes.
    local bytes = bed.redis:call("GET", "app//tag:a")
    bed.redis:call("SET", "app//tag:a", bytes)
    bed.wait_until(function() return cache:explain("k").why == "tagNotNear" end, 5, "the news")
    assert.same({ "redis", "tagNotNear", "value" }, told(cache, "k"))
    assert.same({ "redis", "tagNotNear" }, why(cache, "k"))
end)

case("a near copy that is too old, and what is not to be kept, are told", function(bed)
    local cache = bed.open({ near = true })
    cache:set("k", 1, 60)
    bed.wait_until(function()
        return cache:get("k") and cache:explain("k").near.there
    end, 5, "a near copy")
    assert.same({ "redis", "notNear" }, {
        select(3, cache:get("k", { near = false, why = true })),
        (select(5, cache:get("k", { near = false, why = true }))),
    })
    -- Another one that nobody has told is there.
    local plain = bed.open()
    assert.same({ "redis", "notNear", "value" }, told(plain, "k"))
    assert.is_nil(plain:explain("k").near)
    local _, _, source, flag, reason = cache:remember("zero", 60, function() return 1, 0 end, WHY)
    assert.same({ "loader", "unstored", "refused" }, { source, flag, reason })
    local _, _, from, version, because = cache:get("k", { version = true, why = true })
    assert.is_string(version)
    assert.is_string(because)
    assert.equal("redis", from)
end)

case("explain asks once, makes no copy and drops none", function(bed)
    local cache = bed.open({ near = true })
    cache:set("k", 1, 60)
    group.sends_at_most(bed, cache, 2, function()
        assert.equal("redis", cache:explain("k").source)
    end)
    assert.is_false(cache:explain("k").near.there)
    bed.wait_until(function()
        return cache:get("k") and cache:explain("k").near.there
    end, 5, "a near copy")
    cache:explain("k")
    assert.is_true(cache:explain("k").near.there)
end)

case("explain tells what is near where Redis is silent", function(bed)
    local cache = bed.open({ near = true })
    cache:set("k", 1, 60)
    bed.wait_until(function()
        return cache:get("k") and cache:explain("k").near.there
    end, 5, "a near copy")
    bed.silence(true)
    local report, err = cache:explain("k", { timeout = 0.05 })
    assert.is_truthy(({ timeout = 1, unavailable = 1 })[err.code], err.code)
    assert.is_true(report.near.there)
    assert.is_nil(report.redis)
    report = cache:explain("unknown", { timeout = 0.05 })
    assert.is_nil(report.source)
    assert.equal("'unknown' is not near, and Redis has not answered (CAUSE): no copy of it is near,"
        .. " and nothing is known of an earlier one", (report.text:gsub("%(.-%)", "(CAUSE)")))
    bed.silence(false)
end)

case("wrong arguments of explain, and a wrong why, are errors; nothing is sent", function(bed)
    local cache = bed.cache
    local sent = cache:stats().requests
    for text, fn in pairs({
        ["bad argument 'key' to explain: string expected, got nil"] = function()
            cache:explain()
        end,
        ["bad argument 'opts' to explain"] = function() cache:explain("k", 1) end,
        ["unknown option 'near' to explain"] = function() cache:explain("k", { near = true }) end,
        ["bad option 'why' to get: true or false"] = function() cache:get("k", { why = 1 }) end,
        ["bad option 'why' to remember"] = function()
            cache:remember("k", 1, group.never, { why = "no" })
        end,
        ["unknown option 'why' to getMulti"] = function() cache:getMulti({ "k" }, WHY) end,
        ["unknown option 'why' to put"] = function() cache:put("k", 1, group.never, WHY) end,
    }) do
        raises(text, fn)
    end
    local report, err = cache:explain(("x"):rep(70000))
    assert.equal("tooLarge", err.code)
    assert.is_nil(report.redis)
    assert.equal(sent, cache:stats().requests)
end)

return cases
