-- afterCommit: what it costs, and how what has failed is tried again. What the call promises:
-- spec/support/cases/commits.lua.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")
local unsent = require("redcache.unsent")

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches = {}
end)
after_each(function()
    redis:call("ACL", "SETUSER", "default", "+unlink")
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { url = redis:url(), near = false, commandTimeout = clock.scaled(2) }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

-- While not allowed, each UNLINK fails, and all other commands work.
local function allow_unlink(is_allowed)
    redis:call("ACL", "SETUSER", "default", (is_allowed and "+" or "-") .. "unlink")
end

local function delete(cache, ...)
    local keys, errors = { ... }, {}
    cache:afterCommit(function(commit) commit:deleteMulti(keys) end, {
        onFailed = function(err, names, dropped)
            errors[#errors + 1] = { code = err.code, names = #names, dropped = dropped }
        end,
    })
    return errors[1]
end

local function counters(cache)
    local stats = cache:stats()
    return { failed = stats.afterCommitFailed, retried = stats.afterCommitRetried,
        dropped = stats.afterCommitDropped, queued = stats.afterCommitQueued }
end

local function drain(cache)
    clock.wait_until(function()
        cache:get("anything")
        return cache:stats().afterCommitQueued == 0
    end, 20, "the retry")
end

describe("afterCommit", function()
    it("sends deletes as one UNLINK, of all caches within, and with soft ones in one go", function()
        local cache = open({ grace = 10 })
        local below = cache:namespace("below")
        cache:delete("none", { soft = true }) -- the script is known
        local calls = redis:count(function()
            cache:afterCommit(function(commit)
                for i = 1, 50 do commit:delete("k" .. i) end
                commit:deleteMulti({ "k1", "k51" })
                below:afterCommit(function(inner) inner:delete("k1") end)
            end)
        end)
        assert.same({ unlink = 1 }, calls)
        calls = redis:count(function()
            cache:afterCommit(function(commit)
                commit:delete("hard")
                commit:deleteMulti({ "a", "b" }, { soft = true })
            end)
        end)
        assert.same({ 1, 2 }, { calls.unlink, calls.evalsha })
        assert.same({}, (redis:count(function()
            cache:afterCommit(function() end)
            cache:afterCommit(function(commit)
                commit:delete("k")
                return nil, "rolled back"
            end)
        end)))
    end)

    it("tries again with growing pauses, each name once, and fails no read", function()
        local cache = open()
        cache:setMulti({ a = 1, b = 2 }, 60)
        allow_unlink(false)
        assert.same({ code = "redis", names = 2, dropped = 0 }, delete(cache, "a", "b"))
        delete(cache, "a")
        local function tries()
            return redis:commandstats().unlink.rejected_calls
        end
        local before, started = tries(), clock.now()
        repeat assert.equal(1, (cache:get("a"))) until clock.now() - started > 1
        local took, more = clock.now() - started, tries() - before
        -- After 0.1, 0.3, 0.7, 1.5 seconds and so on.
        local most = 0
        while 0.1 * (2 ^ (most + 1) - 1) < took do most = most + 1 end
        assert.is_true(more >= 1 and more <= most, more .. " tries in " .. took)
        assert.same({ failed = 3, retried = 0, dropped = 0, queued = 2 }, counters(cache))
        allow_unlink(true)
        drain(cache)
        assert.same({ failed = 3, retried = 2, dropped = 0, queued = 0 }, counters(cache))
        assert.same({}, (cache:getMulti({ "a", "b" })))
        -- Nothing is looked for any more.
        assert.is_nil(cache._client.enter)
    end)

    it("keeps so many names and no more, and says so", function()
        local cache, max = open(), unsent.MAX
        finally(function() unsent.MAX = max end)
        unsent.MAX = 3
        allow_unlink(false)
        assert.same({ code = "redis", names = 2, dropped = 0 }, delete(cache, "a", "b"))
        assert.same({ code = "redis", names = 3, dropped = 1 }, delete(cache, "b", "c", "d"))
        assert.same({ failed = 5, retried = 0, dropped = 1, queued = 3 }, counters(cache))
        allow_unlink(true)
        drain(cache)
        assert.same({ failed = 5, retried = 3, dropped = 1, queued = 0 }, counters(cache))
    end)

    it("tries what is left once more before the cache is closed", function()
        local cache = open()
        cache:set("k", 1, 60)
        allow_unlink(false)
        delete(cache, "k")
        allow_unlink(true)
        cache:close()
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("survives a server that is killed, and one that is not there", function()
        local cache = open({ near = true })
        cache:set("k", 1, 60)
        assert.equal(1, (cache:get("k")))
        redis:kill()
        local failed = delete(cache, "k")
        assert.same({ 1, 0 }, { failed.names, failed.dropped })
        assert.is_nil((cache:get("k")))
        redis:restart()
        redis:call("SET", "k", "old")
        drain(cache)
        assert.equal(0, redis:call("EXISTS", "k"))
    end)

    it("does again what a coroutine has left that vanished while it sent", function()
        local time = redcache.clock()
        local cache = open({ url = "memory://", clock = time, commandTimeout = 2 })
        cache:setMulti({ left = 1, other = 2 }, 60)
        delete(cache, "none")
        local bare = cache._client.unsent.bare
        local wait = bare._wait
        local co = coroutine.create(function() delete(cache, "left") end)
        bare._wait = function(slot)
            coroutine.yield()
            return wait(slot)
        end
        coroutine.resume(co)
        bare._wait = wait
        cache:set("left", "again", 60)
        time:advance(1)
        delete(cache, "none")
        assert.same("again", (cache:get("left")))
        time:advance(10)
        delete(cache, "other")
        time:advance(1)
        for _ = 1, 3 do cache:get("anything") end
        assert.same({}, (cache:getMulti({ "left", "other" })))
        assert.same({ failed = 0, retried = 1, dropped = 0, queued = 0 }, counters(cache))
    end)
end)
