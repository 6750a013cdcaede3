-- Cases (spec/support/api_cases.lua): redis:transaction(). All keys of one have one hash tag, for
-- clusters.

local assert = require("luassert")
local group = require("spec.support.case_group")
local redcache = require("redcache")

local cases = group.new()
local case = cases.case
local report = group.report

local NULL = redcache.NULL

case("a transaction runs together what it has queued", function(bed)
    local raw = bed.cache:redis()
    for _, opts in ipairs({ {}, { watch = { "{t}n", "{t}other" } } }) do
        raw:command("SET", "{t}n", 41)
        local places, seen = {}, nil
        local answers = assert(raw:transaction(function(tx)
            seen = tx:read("GET", "{t}n")
            places[1] = tx:command("INCR", "{t}n")
            places[2] = tx:command("GET", "{t}none")
            places[3] = tx:command("GET", "{t}n")
            assert.equal("41", tx:read("GET", "{t}n"))
        end, opts))
        assert.same({ 1, 2, 3 }, places)
        assert.equal("41", seen)
        assert.same({ 42, "42", 3 }, { answers[1], answers[3], #answers })
        assert.equal(NULL, answers[2])
        assert.equal("42", bed.redis:call("GET", "{t}n"))
        assert.same({}, (raw:transaction(function() end, opts)))
    end
end)

case("a transaction runs again where a watched key was changed, up to its bound", function(bed)
    local raw, runs = bed.cache:redis(), 0
    local function add(rivals, retries)
        runs = 0
        return raw:transaction(function(tx)
            runs = runs + 1
            local value = tonumber(tx:read("GET", "{t}n")) or 0
            if runs <= rivals then bed.redis:call("SET", "{t}n", tostring(value + 100)) end
            tx:command("SET", "{t}n", value + 1)
        end, { watch = { "{t}n" }, retries = retries })
    end
    assert.same({ "OK" }, (add(3)))
    assert.equal(4, runs)
    assert.equal("301", bed.redis:call("GET", "{t}n"))
    assert.same({ "OK" }, (add(0, 0)))
    local value, err = add(9, 2)
    assert.same({ code = "conflict" }, report(value, err))
    assert.equal("could not run the transaction: a watched key was changed in each of 3 tries",
        err.message)
    assert.equal(3, runs)
    assert.equal("602", bed.redis:call("GET", "{t}n"))
end)

case("a transaction is not done where its function gives up or throws", function(bed)
    local raw = bed.cache:redis()
    for _, opts in ipairs({ {}, { watch = { "{t}k" } } }) do
        local value, why = raw:transaction(function(tx)
            tx:command("SET", "{t}k", 1)
            return false, "no need"
        end, opts)
        assert.same({ false, "no need" }, { value, why })
        local kept
        local ok, message = pcall(raw.transaction, raw, function(tx)
            kept = tx
            tx:command("SET", "{t}k", 1)
            error({ mine = true })
        end, opts)
        assert.is_false(ok)
        assert.same({ mine = true }, message)
        ok, message = pcall(kept.command, kept, "SET", "{t}k", 1)
        assert.is_false(ok)
        assert.matches("the transaction is over", message)
        assert.is_false((pcall(kept.read, kept, "GET", "{t}k")))
        assert.is_nil(bed.redis:call("GET", "{t}k") or nil)
    end
end)

case("a transaction with a command that is refused does nothing, and says which", function(bed)
    local raw = bed.cache:redis()
    for _, opts in ipairs({ {}, { watch = { "{t}k" } } }) do
        local value, err = raw:transaction(function(tx)
            tx:command("SET", "{t}k", 1)
            tx:command("INCR", "{t}k", "hunter2", "too many")
        end, opts)
        assert.same({ code = "redis" }, report(value, err))
        assert.matches("^could not run INCR: ERR wrong number of arguments", err.message)
        assert.is_nil(bed.redis:call("GET", "{t}k") or nil)
        local answers = assert(raw:transaction(function(tx)
            tx:command("SET", "{t}k", "text")
            tx:command("INCR", "{t}k")
            tx:command("APPEND", "{t}k", "s")
        end, opts))
        assert.same({ "OK", 5 }, { answers[1], answers[3] })
        assert.equal("redis", answers[2].code)
        bed.redis:call("DEL", "{t}k")
    end
end)

case("a transaction of several slots is refused in a cluster, in words", function(bed)
    local raw = bed.cache:redis()
    raw:command("PING")
    local is_cluster = bed.cache:health().mode == "cluster"
    for _, watch in ipairs({ {}, { "a" }, { "a", "b" } }) do
        local answers, err = raw:transaction(function(tx)
            tx:command("SET", "a", 1)
            tx:command("SET", "b", 1)
            tx:command("SET", "c", 1)
        end, { watch = watch })
        if is_cluster then
            assert.same({ code = "redis" }, report(answers, err))
            assert.matches("several slots of the cluster", err.message)
            assert.is_nil(bed.redis:call("GET", "b") or nil)
        else
            assert.same({ "OK", "OK", "OK" }, answers)
        end
    end
end)

case("a transaction takes this machine's older copies of its keys away", function(bed)
    local cache = bed.open({ near = true, plain = true, codec = "raw", namespace = "" })
    for _, opts in ipairs({ {}, { watch = { "{t}k" } } }) do
        assert(cache:set("{t}k", "old"))
        cache:get("{t}k")
        assert.equal("old", (cache:get("{t}k")))
        assert(cache:redis():transaction(function(tx) tx:command("SET", "{t}k", "new") end, opts))
        assert.equal("new", (cache:get("{t}k")))
    end
end)

case("a transaction runs scripts, also those that Redis does not know", function(bed)
    local raw = bed.cache:redis()
    if raw:command("EVAL", "return 1", 0) ~= 1 then return end -- memory://
    local add = raw:script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for _, opts in ipairs({ {}, { watch = { "{t}s" } } }) do
        bed.redis:call("SCRIPT", "FLUSH")
        raw:command("DEL", "{t}s")
        assert.same({ "OK", 7, 9 }, (raw:transaction(function(tx)
            tx:command("SET", "{t}s", 5)
            tx:run(add, { "{t}s" }, { 2 })
            tx:run(add, { "{t}s" }, { 2 })
        end, opts)))
    end
end)

case("a transaction with bad arguments raises at the caller, and sends nothing", function(bed)
    local raw = bed.cache:redis()
    local function nothing() end
    for _, row in ipairs({
        { "bad argument 'fn' to transaction", {} },
        { "bad argument 'opts' to transaction", nothing, 1 },
        { "bad option 'watch' to transaction", nothing, { watch = "k" } },
        { "bad argument 'watch' to transaction", nothing, { watch = { {} } } },
        { "bad option 'retries' to transaction", nothing, { retries = -1 } },
        { "unknown option 'retry' to transaction", nothing, { retry = true } },
        { "bad argument #3 to command", function(tx) tx:command("SET", "{t}k", {}) end },
        { "bad argument #2 to read", function(tx) tx:read("GET", {}) end },
        { "bad argument 'script' to run", function(tx) tx:run("return 1") end },
    }) do
        group.raises(row[1], raw.transaction, raw, unpack(row, 2))
    end
    assert.is_nil(bed.redis:call("GET", "{t}k") or nil)
end)

return cases
