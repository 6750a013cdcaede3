-- Deletes and writes by anybody: they void the loads that run, and wake those who wait.

local clock = require("spec.support.clock")
local peer = require("spec.support.peer")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, foreign, cache, one, two, three

setup(function()
    redis = server.start({ config = { "enable-debug-command yes" } })
    foreign = redis:client()
end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ near = false, url = redis:url() })
    one, two, three = peer.start({ url = redis:url() }), peer.start({ url = redis:url() }),
        peer.start({ url = redis:url() })
end)
after_each(function()
    cache:close()
    one:stop()
    two:stop()
    three:stop()
end)

-- Everybody who may delete a key: this cache, another process, any program.
local DELETES = {
    ["cache:delete"] = function() return cache:delete("k") end,
    ["cache:deleteMulti"] = function() return cache:deleteMulti({ "x", "k" }) end,
    ["another process"] = function()
        return two:run(function(mine) return mine:delete("k") end).value
    end,
    ["a foreign DEL"] = function() return foreign:call("DEL", "k") end,
    ["a foreign UNLINK"] = function() return foreign:call("UNLINK", "k") end,
    ["a foreign FLUSHALL"] = function() return foreign:call("FLUSHALL") end,
}

describe("delete", function()
    it("makes every client's next remember load again (4)", function()
        assert.equal("v1", one:run(peer.remember, { value = "v1" }).value)
        for _, reader in ipairs({ one, two }) do
            assert.equal("redis", reader:run(peer.remember, { value = "unused" }).source)
        end
        -- The best of some: what takes longer is the machine's.
        local best = math.huge
        for round = 2, 6 do
            local value = "v" .. round
            best = math.min(best, (clock.time(function()
                assert.is_true(cache:delete("k"))
                local result = two:run(peer.remember, { value = value })
                assert.same({ value, "loader" }, { result.value, result.source })
            end)))
            assert.equal(value, one:run(peer.remember, { value = "unused" }).value)
        end
        assert.is_true(best < clock.scaled(0.1), "it took " .. best)
    end)

    it("says whether there was something; a missing key is no error (47)", function()
        cache:set("k", 1)
        assert.same({ true }, { cache:delete("k") })
        assert.same({ false }, { cache:delete("k") })
        assert.same({ 0 }, { cache:deleteMulti({ "k", "x" }) })
    end)

    for name, delete in pairs(DELETES) do
        it("voids a running load: " .. name .. " (21)", function()
            one:begin(peer.held, { value = "old" }):event("loading")
            delete()
            local result = one:go():finish()
            assert.same({ "old", "loader", "unstored" },
                { result.value, result.source, result.flag })
            assert.equal(0, redis:call("EXISTS", "k"))
            assert.equal("new", one:run(peer.remember, { value = "new" }).value)
            assert.equal("new", (cache:get("k")))
        end)
    end

    it("keeps a voided load from storing over the load that came after it", function()
        one:begin(peer.held, { value = "old" }):event("loading")
        foreign:call("DEL", "k")
        two:begin(peer.held, { value = "new" }):event("loading")
        local lease = redis:call("GET", "k")
        local late = one:go():finish()
        assert.same({ "old", "unstored" }, { late.value, late.flag })
        assert.equal(lease, redis:call("GET", "k"))
        assert.equal("new", two:go():finish().value)
        assert.equal("new", (cache:get("k")))
    end)

    it("runs the loader again as often as `reloads` allows", function()
        local runs = 0
        local function loader()
            runs = runs + 1
            if runs <= 2 then foreign:call("DEL", "k") end
            return runs
        end
        assert.same({ value = 1, source = "loader", flag = "unstored" },
            peer.report(cache:remember("k", 60, loader)))
        assert.equal(1, runs)
        assert.same({ value = 3, source = "loader" },
            peer.report(cache:remember("k", 60, loader, { reloads = 5 })))
        assert.equal(3, (cache:get("k")))
    end)
end)

describe("set during a load", function()
    it("wins: the loading caller gets the forced value (23)", function()
        one:begin(peer.held, { value = "loaded" }):event("loading")
        assert.is_true(cache:set("k", "forced"))
        local result = one:go():finish()
        assert.same({ "forced", "redis" }, { result.value, result.source })
        assert.equal("forced", (cache:get("k")))
    end)

    it("wins for a foreign plain SET as well (23)", function()
        one:begin(peer.held, { value = "loaded" }):event("loading")
        foreign:call("SET", "k", "forced")
        assert.equal("forced", one:go():finish().value)
        assert.equal("forced", redis:call("GET", "k"))
    end)

    it("wins for setMulti as well", function()
        one:begin(peer.held, { value = "loaded" }):event("loading")
        assert.is_true(cache:setMulti({ k = "forced", x = 1 }))
        assert.equal("forced", one:go():finish().value)
        assert.equal("forced", (cache:get("k")))
    end)

    it("gives the caller its own value where a 'no such thing' was its result", function()
        one:begin(function(mine, _, it)
            return mine:remember("k", 60, function()
                it.hold()
                return nil
            end)
        end):event("loading")
        cache:set("k", "forced")
        assert.equal("forced", one:go():finish().value)
    end)

    it("wakes all who wait for a foreign lock, at once (26)", function()
        -- The fastest of some rounds: the machine is busy with other things as well.
        local best = math.huge
        for _ = 1, 3 do
            foreign:call("SET", "k", peer.lease(), "PX", 5000)
            peer.until_busy(redis, 3, function()
                for _, waiter in ipairs({ one, two, three }) do
                    waiter:begin(peer.remember, { value = "own" })
                end
            end)
            local set_at = clock.now()
            assert.is_true(cache:set("k", "given"))
            local last = 0
            for _, waiter in ipairs({ one, two, three }) do
                local result = waiter:finish()
                assert.same({ "given", "redis" }, { result.value, result.source })
                last = math.max(last, result.at)
            end
            best = math.min(best, last - set_at)
        end
        assert.is_true(best < clock.scaled(0.05), "the last one came after " .. best)
    end)

    it("wakes them when the foreign lock is deleted, and one of them loads", function()
        foreign:call("SET", "k", peer.lease(), "PX", 30000)
        peer.until_busy(redis, 3, function()
            for i, waiter in ipairs({ one, two, three }) do
                waiter:begin(peer.remember, { value = "by " .. i })
            end
        end)
        foreign:call("DEL", "k")
        local values, loaders = {}, 0
        for i, waiter in ipairs({ one, two, three }) do
            local result = waiter:finish()
            assert.is_true(result.took < clock.scaled(5))
            values[i] = result.value
            if result.source == "loader" then loaders = loaders + 1 end
        end
        assert.same({ values[1], values[1], values[1] }, values)
        assert.equal(1, loaders)
    end)

    it("wakes them when the foreign lock expires, by a timer of their own", function()
        -- Redis tells of an expired key when it comes across it: now never.
        foreign:call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        local best = math.huge
        for _ = 1, 5 do
            foreign:call("SET", "k", peer.lease(), "PX", 300)
            local result = one:run(peer.remember, { value = "own" })
            assert.equal("own", result.value)
            best = math.min(best, result.took)
            if best < 0.4 then break end
        end
        foreign:call("DEBUG", "SET-ACTIVE-EXPIRE", 1)
        assert.is_true(best < clock.scaled(0.4), "it took " .. best)
    end)
end)
