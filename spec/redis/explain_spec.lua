-- explain: reasons that take a near cache of a certain size, age or past. What the call promises:
-- spec/support/cases/reasons.lua; how the near cache notes them: core/test/near_test.c.

local clock = require("spec.support.clock")
local explain = require("redcache.explain")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches = {}
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { url = redis:url(), commandTimeout = clock.scaled(2) }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

local function keep(cache, key)
    clock.wait_until(function()
        cache:get(key)
        return cache:explain(key).near.there
    end, 20, "a near copy")
end

local function told(cache, key)
    local report = assert(cache:explain(key))
    return { report.source or false, report.why or false }
end

-- get's source and reason.
local function why(cache, key)
    local _, err, source, _, reason = cache:get(key, { why = true })
    assert.is_nil(err)
    return { source or false, reason or false }
end

describe("explain", function()
    it("tells what had to make room, and what is gone from Redis since", function()
        local cache, key = open({ near = { bytes = 65536, l0 = false } }), nil
        redis:call("SET", "first", "1")
        keep(cache, "first")
        for i = 1, 2000 do redis:call("SET", "k" .. i, ("x"):rep(100)) end
        for i = 1, 2000 do cache:get("k" .. i) end
        for i = 1, 2000 do
            local near = cache:explain("k" .. i).near
            if not near.there and near.gone == "evicted" then key = "k" .. i end
        end
        assert.is_string(key)
        assert.same({ "redis", "evicted" }, told(cache, key))
        redis:call("DEL", key) -- nobody is told of what is not near
        assert.same({ false, "gone" }, told(cache, key))
        assert.same({ false, "gone" }, why(cache, key))
    end)

    it("tells what is too large to be kept near", function()
        local cache = open({ near = { bytes = 65536 } })
        redis:call("SET", "large", ("x"):rep(30000))
        redis:call("SET", "small", "1")
        keep(cache, "small")
        cache:get("large")
        assert.same({ "redis", "refused" }, told(cache, "large"))
        assert.same({ "redis", "refused" }, why(cache, "large"))
        local long = ("k"):rep(1500)
        redis:call("SET", long, "1")
        assert.same({ "redis", "refused" }, told(cache, long))
    end)

    it("tells what is older than maxStale", function()
        local cache = open({ maxStale = 0.005, near = { l0 = false } })
        redis:call("SET", "k", "1")
        keep(cache, "k")
        -- A server that stands still vouches for nothing.
        redis:pause()
        finally(function() redis:resume() end)
        clock.sleep(0.05)
        local report, err = cache:explain("k", { timeout = 0.1 })
        assert.equal("timeout", err.code)
        assert.equal("tooOld", report.why)
        assert.is_true(report.near.age > 0.005)
    end)

    -- What near copies alone say: a server that stands still answers nothing.
    local function told_alone(cache, key)
        redis:pause()
        local report, err = cache:explain(key, { timeout = 0.1 })
        redis:resume()
        assert.equal("timeout", err.code)
        return report.why
    end

    it("tells of tags where Redis is silent", function()
        local cache, opts = open({ maxStale = 60 }), { tags = { "a" } }
        for _, is_soft in ipairs({ false, true }) do
            cache:set("k", 1, 60, opts)
            keep(cache, "k")
            cache:invalidateTags({ "a" }, { soft = is_soft })
            assert.equal("tagNotNear", told_alone(cache, "k"))
            cache:set("other", 1, 60, opts)
            clock.wait_until(function() -- then the new generations are near
                local source = select(3, cache:get("other"))
                return source == "near" or source == "l0"
            end, 20, "a near hit")
            assert.equal("tagInvalidated", told_alone(cache, "k"))
        end
    end)

    it("tells that the time of a copy is over where Redis is silent", function()
        local cache = open({ maxStale = 60, near = { l0 = false } })
        local life = clock.scaled(0.5)
        local began
        clock.wait_until(function() -- again where it ended before it was near
            began = clock.now()
            cache:set("k", 1, life)
            cache:get("k")
            return cache:explain("k").near.there and clock.now() - began < life
        end, 20, "a near copy")
        redis:pause()
        finally(function() redis:resume() end)
        -- Nothing is asked meanwhile: a connection that answers nothing for a second is given up,
        -- and the copy is too old behind that.
        clock.sleep(life + 0.2)
        local report = cache:explain("k", { timeout = 0.02 })
        assert.is_nil(report.source)
        assert.same({ true, "expired" }, { report.near.there, report.why })
    end)

    it("tells of a fresh read that a near copy was too old for it", function()
        local cache = open({ maxStale = 60 })
        cache:set("k", 1, 60)
        keep(cache, "k")
        assert.equal("tooOld", explain.before(cache, "k", { fresh = true }).reason)
        assert.equal("notNear", explain.before(cache, "k", {}).reason)
    end)

    it("tells what could not be confirmed behind a lost connection", function()
        local cache = open()
        redis:call("SET", "k", "plain") -- nothing tells whether such a value has changed
        keep(cache, "k")
        redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        clock.wait_until(function()
            cache:get("other", { timeout = 0.2 })
            return cache:explain("k").near.gone == "unconfirmed"
        end, 20, "the look behind the reconnect")
        assert.same({ "redis", "unconfirmed" }, told(cache, "k"))
    end)

    it("tells what another process of this machine has done", function()
        local shared = "explain-" .. posix.C.getpid()
        local cache = open({ near = { shared = shared } })
        local other = open({ group = "other", near = { shared = shared } })
        finally(function() os.remove("/dev/shm/redcache-" .. shared) end)
        cache:set("k", 1)
        assert.same({ "redis", "written" }, told(other, "k"))
        keep(cache, "k")
        other:delete("k")
        assert.same({ false, "written" }, told(cache, "k"))
    end)
end)
