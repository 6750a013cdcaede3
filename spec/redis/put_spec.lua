-- put: the only writer of a key, everywhere; where it fails, nothing has happened.

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")
local threads = require("spec.support.threads")

local redis, cache, one, two

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ near = false, url = redis:url(), commandTimeout = 10 })
    one, two = peer.start({ url = redis:url() }), peer.start({ url = redis:url() })
end)
after_each(function()
    cache:close()
    one:stop()
    two:stop()
end)

-- Another client's write begins at once: no lease is left.
local function assert_free(key)
    local result = two:run(function(mine, params)
        return mine:put(params.key, 60, function() return "free" end)
    end, { key = key or "k" })
    assert.equal("free", result.value)
    -- A lease that is left lives for 5 s from its last renewal.
    assert.is_true(result.took < clock.scaled(2.5), "it waited for " .. result.took)
end

describe("put", function()
    it("stores what its function returns, for the ttl given or chosen", function()
        local key
        assert.same({ value = "v" }, peer.report(cache:put("k", 60, function(name)
            key = name
            return "v"
        end)))
        assert.equal("k", key)
        assert.equal("v", (cache:get("k")))
        assert.is_true(cache:ttl("k") > 50 and cache:ttl("k") <= 60)
        cache:put("k", 60, function() return "w", 1000 end)
        assert.is_true(cache:ttl("k") > 900)
        cache:put("k", redcache.FOREVER, function() return "x" end)
        assert.equal(redcache.FOREVER, cache:ttl("k"))
        assert.equal(1, redis:call("DBSIZE"))
    end)

    it("waits for another client's load and is final (27)", function()
        one:begin(peer.held, { value = "loaded" }):event("loading")
        peer.until_busy(redis, 1, function() two:begin(peer.held_put, { value = "put" }) end)
        one:go()
        local loaded = one:finish()
        two:event("loading", 2)
        assert.equal("loaded", loaded.value)
        assert.equal("loaded", (cache:get("k")))
        assert.equal("put", two:go():finish().value)
        assert.equal("put", (cache:get("k")))
    end)

    it("runs one writer at a time for 5 processes (28)", function()
        local all = herd.run({
            count = 5, params = { url = redis:url() },
            main = function(worker)
                local clock_here = require("spec.support.clock")
                local mine = require("redcache").new({
                    near = false,
                    url = worker.params.url, connectTimeout = 10, commandTimeout = 10,
                })
                mine:exists("connected")
                worker:ready()
                local from, to
                local value, err = mine:put("k", 60, function()
                    from = clock_here.now()
                    clock_here.sleep(0.1)
                    to = clock_here.now()
                    return worker.index
                end)
                mine:close()
                return { value = value, err = tostring(err), from = from, to = to }
            end,
        })
        local runs = all.results
        table.sort(runs, function(a, b) return a.from < b.from end)
        for i, run in ipairs(runs) do
            assert.equal("nil", run.err)
            assert.is_true(i == 1 or run.from >= runs[i - 1].to, "two writers at once")
        end
        assert.equal(5, #runs)
        assert.equal(runs[5].value, (cache:get("k")))
    end)

    it("does not hold up a set, which wins (29)", function()
        for _, held in ipairs({ peer.held, peer.held_put }) do
            redis:call("FLUSHALL")
            one:begin(held, { value = "slow" }):event("loading")
            assert.is_true(cache:set("k", "forced")) -- while the holder still waits for go()
            one:go():finish()
            assert.equal("forced", (cache:get("k")))
        end
    end)

    it("returns lockLost when the key is deleted meanwhile, which stays deleted (30)", function()
        for _, old in ipairs({ false, "old" }) do
            if old then cache:set("k", old) end
            one:begin(peer.held_put, { value = "put" }):event("loading")
            redis:call("DEL", "k")
            local result = one:go():finish()
            assert.is_nil(result.value)
            assert.equal("lockLost", result.code)
            assert.equal(0, redis:call("DBSIZE"))
        end
    end)

    it("returns lockLost when a set takes the key, whose value stays (31)", function()
        for _, old in ipairs({ false, "old" }) do
            redis:call("FLUSHALL")
            if old then cache:set("k", old) end
            one:begin(peer.held_put, { value = "put" }):event("loading")
            cache:set("k", "forced")
            assert.equal("lockLost", one:go():finish().code)
            assert.equal("forced", (cache:get("k")))
            redis:call("SET", "k", "plain")
            two:begin(peer.held_put, { value = "put" }):event("loading")
            redis:call("SET", "k", "other")
            assert.equal("lockLost", two:go():finish().code)
            assert.equal("other", redis:call("GET", "k"))
        end
    end)

    it("lets everybody read the old value while it runs", function()
        cache:set("k", "old")
        one:begin(peer.held_put, { value = "new" }):event("loading")
        assert.same({ value = "old", source = "redis" }, peer.report(cache:get("k")))
        assert.equal("old", two:run(peer.remember, { value = "unused" }).value)
        one:go():finish()
        assert.equal("new", two:run(peer.remember, { value = "unused" }).value)
    end)

    it("lets readers of a missing key wait for its value", function()
        one:begin(peer.held_put, { value = "new" }):event("loading")
        peer.until_busy(redis, 1, function() two:begin(peer.remember, { value = "unused" }) end)
        one:go()
        local result = two:finish()
        assert.same({ "new", "redis" }, { result.value, result.source })
        one:finish()
    end)

    local FAILURES = {
        ["gives an error"] = function(mine)
            return mine:put("k", 60, function() return nil, "no" end)
        end,
        throws = function(mine)
            return mine:put("k", 60, function() error("no") end)
        end,
        ["gives what cannot be stored"] = function(mine)
            return mine:put("k", 60, function() return print end)
        end,
        ["gives a bad ttl"] = function(mine)
            return mine:put("k", 60, function() return 1, -1 end)
        end,
        ["gives what is too large"] = function(mine)
            return mine:put("k", 60, function() return ("x"):rep(9 * 1024 * 1024) end)
        end,
        ["is cancelled"] = function(mine)
            return mine:put("k", 60, function()
                mine:cancel(5)
                return "never"
            end, { cancelTag = 5 })
        end,
    }
    local CODES = {
        ["gives an error"] = "loaderFailed", throws = "loaderFailed",
        ["gives what cannot be stored"] = "encode", ["gives a bad ttl"] = "badTtl",
        ["gives what is too large"] = "tooLarge", ["is cancelled"] = "cancelled",
    }
    for name, fail in pairs(FAILURES) do
        it("keeps the old value and its life when its function " .. name .. " (33, X6)", function()
            for _, old in ipairs({ "old", "" }) do
                cache:set("k", old, 1000)
                local before = redis:call("PTTL", "k")
                local result = one:run(fail)
                assert.is_nil(result.value)
                assert.equal(CODES[name], result.code)
                assert.same({ value = old, source = "redis" }, peer.report(cache:get("k")))
                local after = redis:call("PTTL", "k")
                assert.is_true(after <= before and after > before - 10000 * clock.scale)
            end
            assert_free()
        end)

        it("leaves a missing key missing when its function " .. name, function()
            assert.equal(CODES[name], one:run(fail).code)
            clock.wait_until(function() return redis:call("DBSIZE") == 0 end, 1)
            assert_free()
        end)
    end

    it("is renewed for a function longer than its lease (34)", function()
        assert.equal("v", (cache:put("k", 60, function()
            clock.sleep(1.7) -- a renewal each half a second, of which two may be late
            return "v"
        end, { leaseTtl = 1.5 })))
        assert.equal("v", (cache:get("k")))
    end)

    it("returns leaseLost without renewal, and nothing is stored (34)", function()
        for _, old in ipairs({ false, "old" }) do
            if old then cache:set("k", old) end
            local value, err = cache:put("k", 60, function()
                clock.sleep(0.2)
                return "v"
            end, { leaseTtl = 0.1, renew = false })
            assert.is_nil(value)
            assert.equal("leaseLost", err.code)
            assert.equal(old or nil, (cache:get("k")))
        end
    end)

    it("is waited for by push, not by polling (40)", function()
        -- The fastest of some rounds: the machine is busy with other things as well.
        local read, wrote = math.huge, math.huge
        for round = 1, 8 do
            local params = { key = "k" .. round }
            one:begin(function(mine, given, it)
                return mine:put(given.key, 60, function()
                    it.hold()
                    it.sleep(0.02)
                    return "v"
                end)
            end, params):event("loading")
            peer.until_busy(redis, 1, function() two:begin(peer.remember, params) end)
            local went = clock.now()
            one:go()
            read = math.min(read, two:finish().at - went)
            one:finish()
            redis:call("DEL", params.key)
            one:begin(function(mine, given, it)
                return mine:remember(given.key, 60, function()
                    it.hold()
                    it.sleep(0.025)
                    return "v"
                end)
            end, params):event("loading")
            peer.until_busy(redis, 1, function()
                two:begin(function(mine, given)
                    return mine:put(given.key, 60, function() return "w" end)
                end, params)
            end)
            went = clock.now()
            one:go()
            wrote = math.min(wrote, two:finish().at - went)
            one:finish()
            if read < clock.scaled(0.05) and wrote < clock.scaled(0.045) then break end
        end
        assert.is_true(read < clock.scaled(0.05), "the reader took " .. read)
        assert.is_true(wrote < clock.scaled(0.045), "the writer took " .. wrote)
    end)

    it("returns cancelled while it waits, and nothing is locked afterwards (41)", function()
        redis:call("SET", "k", peer.lease(), "PX", 30000)
        local results = threads.run({
            count = 2, params = { url = redis:url() },
            main = function(thread)
                local mine = require("redcache").new({
                    near = false,
                    url = thread.params.url, connectTimeout = 10, commandTimeout = 10,
                    waitTimeout = 20,
                })
                local clock_here = require("spec.support.clock")
                if thread.index == 2 then
                    clock_here.wait_until(function() return mine:stats().leaseWaits > 0 end, 5)
                    return { count = mine:cancel(4) }
                end
                local _, err = mine:put("k", 60, error, { cancelTag = 4 })
                return { code = err.code }
            end,
        })
        assert.same({ { code = "cancelled" }, { count = 1 } }, results)
        redis:call("DEL", "k")
        assert.equal(0, redis:call("DBSIZE"))
        assert_free()
    end)

    it("times out behind a foreign lock without running its function", function()
        redis:call("SET", "k", peer.lease(), "PX", 30000)
        local took, result = clock.time(function()
            return peer.report(cache:put("k", 60, error, { waitTimeout = 0.1 }))
        end)
        assert.equal("timeout", result.code)
        assert.is_true(took > 0.09 and took < clock.scaled(4), "it took " .. took)
    end)
end)

describe("put over a value that ends meanwhile", function()
    it("stores, for it still holds the key", function()
        for _, options in ipairs({ {}, { renew = false }, { serveOld = false } }) do
            redis:call("FLUSHALL")
            cache:set("k", "old", 0.4)
            local value, err = cache:put("k", 60, function()
                clock.wait_until(function() return redis:call("PTTL", "k") > 500 end, 5)
                -- By now the lease stands there: others wait.
                return "new"
            end, options)
            assert.equal("new", value, tostring(err))
            assert.equal("new", (cache:get("k")))
            assert.equal(1, redis:call("DBSIZE"))
        end
    end)

    it("keeps others from loading the key", function()
        cache:set("k", "old", 0.4)
        one:begin(peer.held_put, { value = "put" }):event("loading")
        clock.wait_until(function() return redis:call("PTTL", "k") > 500 end, 5)
        peer.until_busy(redis, 1, function()
            two:begin(peer.remember, { value = "second load" })
        end)
        assert.equal("put", one:go():finish().value)
        assert.same("put", two:finish().value)
    end)

    it("is lockLost where it was deleted before its end", function()
        cache:set("k", "old", 0.6)
        one:begin(peer.held_put, { value = "put" }):event("loading")
        redis:call("DEL", "k")
        redis:call("SET", "later", "", "PX", "700") -- until it would have expired
        clock.wait_until(function() return redis:call("EXISTS", "later") == 0 end, 5)
        assert.equal("lockLost", one:go():finish().code)
        assert.equal(0, redis:call("DBSIZE"))
    end)

    it("whose function fails leaves the key free", function()
        cache:set("k", "old", 0.4)
        local _, err = cache:put("k", 60, function()
            clock.wait_until(function() return redis:call("PTTL", "k") > 500 end, 5)
            return nil, "down"
        end)
        assert.equal("loaderFailed", err.code)
        assert_free()
    end)
end)
