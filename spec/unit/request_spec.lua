-- cache:request() where there is no request: a memo for whoever holds it. nginx has it in ngx.ctx:
-- spec/nginx/request_spec.lua.

local redcache = require("redcache")

local cache, other, memo

before_each(function()
    cache = redcache.new({ near = false })
    other = redcache.new({ near = false, group = "other" })
    memo = cache:request()
end)
after_each(function()
    cache:close()
    other:close()
end)

local function never()
    error("the loader ran")
end

local function requests()
    return cache:stats().requests
end

-- fn's results in a table, after making sure that it has asked for nothing.
local function without_asking(fn)
    local before = requests()
    local results = { fn() }
    assert.equal(before, requests())
    return results
end

describe("request", function()
    it("gives an empty memo per call where there is no request", function()
        cache:set("k", 1)
        memo:get("k")
        assert.equal("redis", select(3, cache:request():get("k")))
        assert.equal("request", select(3, memo:get("k")))
    end)

    it("is per cache object", function()
        cache:namespace("sub"):request():set("k", "of sub")
        assert.is_nil(memo:get("k"))
    end)
end)

describe("get of a request", function()
    it("asks for a key once", function()
        cache:set("k", { 1 })
        assert.same({ { 1 }, nil, "redis" }, { memo:get("k") })
        assert.same({ { 1 }, nil, "request" }, without_asking(function()
            return memo:get("k")
        end))
    end)

    it("sees one value, whatever others write", function()
        cache:set("k", "first")
        memo:get("k")
        other:set("k", "second")
        assert.equal("first", memo:get("k"))
        assert.equal("first", (memo:remember("k", 60, never)))
        assert.same({ k = "first" }, (memo:getMulti({ "k" })))
        assert.equal("second", cache:request():get("k"))
    end)

    it("keeps a miss as a miss, and remember loads in its place", function()
        assert.same({}, { memo:get("k") })
        assert.same({}, without_asking(function() return memo:get("k") end))
        other:set("k", "late")
        assert.is_nil(memo:get("k"))
        assert.equal("late", (memo:remember("k", 60, never)))
        assert.equal("late", memo:get("k"))
    end)

    it("keeps 'no such thing'", function()
        cache:remember("k", 60, function() return nil end)
        assert.same({ nil, nil, "redis" }, { memo:get("k") })
        assert.same({ nil, nil, "request" }, without_asking(function()
            return memo:get("k")
        end))
        assert.same({ nil, nil, "request" }, { memo:remember("k", 60, never) })
    end)

    it("keeps false", function()
        cache:set("k", false)
        memo:get("k")
        assert.same({ false, nil, "request" }, { memo:get("k") })
    end)

    it("keeps no errors", function()
        cache:set("k", "v")
        other:close()
        local closed = redcache.new({ near = false, group = "closed" })
        local its = closed:request()
        closed:close()
        assert.equal("closed", select(2, its:get("k")).code)
        its._cache = cache -- the same memo over a cache that answers
        assert.equal("v", its:get("k"))
    end)

    it("asks again with fresh, and keeps that", function()
        cache:set("k", 1)
        memo:get("k")
        other:set("k", 2)
        assert.same({ 2, nil, "redis" }, { memo:get("k", { fresh = true }) })
        assert.same({ 2, nil, "request" }, { memo:get("k") })
        other:delete("k")
        assert.is_nil(memo:get("k", { fresh = true }))
        assert.is_nil(memo:get("k"))
    end)

    it("shares a table, or copies it where that is asked for", function()
        cache:set("k", { inner = { 1 } })
        local mine = memo:get("k", { copy = true })
        mine.inner[1] = "changed"
        local shared = memo:get("k")
        assert.same({ inner = { 1 } }, shared)
        assert.equal(shared, memo:get("k"))
        local copy = memo:get("k", { copy = true })
        assert.same(shared, copy)
        assert.are_not.equal(shared, copy)
        assert.are_not.equal(shared.inner, copy.inner)
    end)

    it("copies for every reader of a cache that copies", function()
        local copying = redcache.new({ near = false, copy = true })
        local its = copying:request()
        local value = { 1 }
        its:set("k", value)
        value[1] = "changed"
        assert.same({ 1 }, its:get("k"))
        its:get("k")[1] = "changed"
        assert.same({ 1 }, its:get("k"))
        copying:close()
    end)
end)

describe("remember of a request", function()
    it("runs the loader once", function()
        local runs = 0
        local function loader()
            runs = runs + 1
            return "v" .. runs
        end
        assert.same({ "v1", nil, "loader" }, { memo:remember("k", 60, loader) })
        other:delete("k")
        assert.same({ "v1", nil, "request" }, { memo:remember("k", 60, loader) })
        assert.same({ "v1", nil, "request" }, { memo:rememberForever("k", loader) })
    end)

    it("keeps what cannot be stored, with its flag", function()
        local function loader()
            return "mine", 0
        end
        assert.same({ "mine", nil, "loader", "unstored" }, { memo:remember("k", 60, loader) })
        assert.same({ "mine", nil, "request", "unstored" }, { memo:remember("k", 60, never) })
        assert.same({ "mine", nil, "request" }, { memo:get("k") })
    end)

    it("keeps no errors", function()
        local _, err = memo:remember("k", 60, function() return nil, "down" end)
        assert.equal("loaderFailed", err.code)
        assert.equal("up", (memo:remember("k", 60, function() return "up" end)))
    end)

    it("says badTtl for a ttl that cannot be used, of a known key, too", function()
        memo:set("k", 1)
        assert.equal("badTtl", select(2, memo:remember("k", 0, never)).code)
    end)

    it("tells a loader that asks for its own key", function()
        local _, err = memo:remember("k", 60, function()
            return memo:remember("k", 60, never)
        end)
        assert.equal("loaderFailed", err.code)
        assert.equal("recursive", err.cause.code)
    end)
end)

describe("a write of a request", function()
    it("is what it reads from then on", function()
        memo:get("k")
        assert.is_true(memo:set("k", "v", 60))
        assert.same({ "v", nil, "request" }, { memo:get("k") })
        assert.equal("v", other:get("k"))
        assert.is_true(memo:delete("k"))
        assert.same({}, without_asking(function() return memo:get("k") end))
        assert.is_false(other:exists("k"))
        assert.equal("put", memo:put("k", 60, function() return "put" end))
        assert.same({ "put", nil, "request" }, { memo:get("k") })
        assert.is_nil((memo:put("k", 60, function() return nil end)))
        assert.same({ nil, nil, "request" }, { memo:get("k") })
    end)

    it("changes nothing where it was refused", function()
        memo:set("k", "v")
        assert.equal("badTtl", select(2, memo:set("k", "w", -1)).code)
        assert.equal("encode", select(2, memo:set("k", print)).code)
        assert.same({ "v", nil, "request" }, { memo:get("k") })
    end)

    it("makes the next read ask where nobody knows how it ended", function()
        memo:set("k", "v")
        local failing = setmetatable({ set = function()
            return nil, { code = "outcomeUnknown" }
        end }, { __index = cache })
        memo._cache = failing
        assert.equal("outcomeUnknown", select(2, memo:set("k", "w")).code)
        assert.equal("redis", select(3, memo:get("k")))
    end)

    it("of put with a ttl of 0 leaves the old value", function()
        memo:set("k", "old")
        assert.equal("new", memo:put("k", 60, function() return "new", 0 end))
        assert.equal("old", memo:get("k"))
    end)

    it("is newer than a read that had begun before it", function()
        local slow = setmetatable({ get = function()
            memo:set("k", "new") -- as another light thread would
            return "old", nil, "redis"
        end }, { __index = cache })
        memo._cache = slow
        assert.equal("old", memo:get("k"))
        assert.same({ "new", nil, "request" }, { memo:get("k") })
    end)
end)

describe("two reads of a request at once", function()
    it("see what came first", function()
        local slow = setmetatable({ get = function()
            memo:remember("k", 60, function() return "first" end)
            return "second", nil, "redis"
        end }, { __index = cache })
        memo._cache = slow
        assert.same({ "first", nil, "request" }, { memo:get("k") })
    end)
end)

describe("getMulti of a request", function()
    it("gives values in the form that is wanted", function()
        cache:setMulti({ a = 1, b = 2 }, 60)
        local into = { z = 0, b = "old" }
        assert.equal(1, memo:get("a"))
        for _ = 1, 2 do
            assert.same({ 1, nil, 2 }, (memo:getMulti({ "a", "m", "b" }, { list = true })))
            assert.equal(into, (memo:getMulti({ "a", "b", "m" }, { into = into, timeout = 5 })))
            assert.same({ a = 1, b = 2, z = 0 }, into)
        end
    end)

    it("asks for what it has not read yet", function()
        cache:setMulti({ a = 1, b = 2, c = 3 })
        cache:remember("none", 60, function() return nil end)
        memo:get("a")
        other:setMulti({ a = "new", b = "new" })
        local values, failed, negatives = memo:getMulti({ "a", "b", "none", "absent", "b" })
        assert.same({ a = 1, b = "new" }, values)
        assert.same({}, failed)
        assert.same({ none = true }, negatives)
        other:setMulti({ b = "newer", absent = "there", none = "there" })
        assert.same({ values, {}, negatives }, without_asking(function()
            return memo:getMulti({ "a", "b", "none", "absent" })
        end))
        assert.same({ b = "newer", absent = "there" },
            (memo:getMulti({ "b", "absent" }, { fresh = true })))
        assert.same({ nil, nil, "request" }, { memo:get("none") })
    end)

    it("keeps no errors", function()
        local long = string.rep("k", 70000)
        local values, failed = memo:getMulti({ long, "a" })
        assert.same({}, values)
        assert.equal("tooLarge", failed[long].code)
        assert.equal("tooLarge", select(2, memo:getMulti({ long }))[long].code)
    end)
end)

describe("arguments of a request's calls", function()
    -- The message with this file's name in front of it: the user's line is to blame.
    local function refusal(fn)
        local ok, message = pcall(fn)
        assert.is_false(ok)
        return message
    end

    it("are checked at the user's line", function()
        for expected, fn in pairs({
            ["bad argument 'key' to get: string expected, got nil"] = function()
                memo:get(nil)
            end,
            ["unknown option 'ttl' to get"] = function()
                memo:get("k", { ttl = 1 })
            end,
            ["bad argument 'fn' to remember: function expected, got nil"] = function()
                memo:remember("k", 60)
            end,
            ["bad argument 'fn' to rememberForever: function expected, got nil"] = function()
                memo:rememberForever("k")
            end,
            ["bad argument 'value' to set: any value but nil expected, got nil"] = function()
                memo:set("k")
            end,
            ["bad argument 'key' to delete: string expected, got number"] = function()
                memo:delete(1)
            end,
            ["bad argument 'fn' to put: function expected, got nil"] = function()
                memo:put("k", 60)
            end,
            ["bad argument 'keys' to getMulti: list of strings expected, got string"] = function()
                memo:getMulti("k")
            end,
            ["bad argument 'keys' to getMulti: list of strings expected, got number at 2"] =
                function()
                    memo:getMulti({ "k", 2 })
                end,
            ["unknown option 'grace' to getMulti"] = function()
                memo:getMulti({}, { grace = 1 })
            end,
            ["bad option 'list' to getMulti: true or false expected, got 1"] = function()
                memo:getMulti({}, { list = 1 })
            end,
            ["bad option 'into' to getMulti: it is the list of keys"] = function()
                local keys = { "k" }
                memo:getMulti(keys, { into = keys })
            end,
        }) do
            local message = refusal(fn)
            assert.is_truthy(message:find("request_spec.lua:", 1, true), message)
            assert.is_truthy(message:find(expected, 1, true), message)
        end
    end)
end)
