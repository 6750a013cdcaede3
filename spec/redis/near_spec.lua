-- The near cache: what it answers and says about it, how it is left out, what it costs on the wire.

local clock = require("spec.support.clock")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local proxy = require("spec.support.proxy")
local reads = require("spec.near.reads")
local redcache = require("redcache")
local server = require("spec.support.server")

local redis, line, cache

local is_near, source, warm = reads.is_near, reads.source, reads.warm

setup(function()
    redis = server.start()
    line = proxy.start(redis)
end)
teardown(function()
    line:stop()
    redis:stop()
end)

-- Coherent for a minute: no PING of the near cache comes into the pictures of the wire.
local function open(options)
    options = options or {}
    options.url, options.maxStale = line:url(), options.maxStale or 60
    return redcache.new(options)
end

before_each(function()
    redis:call("FLUSHALL")
    cache = open()
    -- What is only needed once is not part of the pictures below: both connections' handshakes.
    cache:get("connect")
    clock.wait_until(function() return cache:health().ready end, 10, "both connections")
end)
after_each(function() cache:close() end)

-- The commands a call sends, in order, and its round trips.
local function cost(fn)
    local names = {}
    local counts, commands = line:measure(function()
        return (select(2, monitor.wire(redis, fn)))
    end)
    for i, command in ipairs(commands) do names[i] = command.name end
    return table.concat(names, " "), counts.turns
end

local function assert_cost(commands, turns, fn)
    local sent, turned = cost(fn)
    assert.equal(commands, sent)
    assert.equal(turns, turned, sent)
end

describe("get with a near cache", function()
    it("asks Redis once, and says where each value comes from", function()
        cache:set("k", "v")
        assert.same({ "v", nil, "redis" }, { cache:get("k") })
        local value, err, from = cache:get("k")
        assert.same({ "v" }, { value, err })
        assert.is_true(is_near(from), from)
        for _ = 1, 100 do assert.same({ "v", nil, "l0" }, { cache:get("k") }) end
    end)

    it("answers from the machine's memory where l0 is off", function()
        for i, plain in ipairs({
            open({ group = "no l0", near = { l0 = false } }),
            cache:namespace("sub", { near = { l0 = false } }),
        }) do
            plain:set("k", i)
            assert.equal("redis", source(plain, "k"))
            for _ = 1, 100 do assert.same({ i, nil, "near" }, { plain:get("k") }) end
        end
    end)

    it("gives the same value from everywhere (X17)", function()
        local bytes = {}
        for b = 0, 255 do bytes[b + 1] = string.char(b) end
        local values = {
            false, true, 0, -1.5, 2 ^ 53, "", "text", table.concat(bytes), ("x"):rep(100000),
            {}, { 1, 2, { a = "b" } }, { name = "n", age = 7, tags = { "x" } },
        }
        local raw = cache:namespace("raw", { codec = "raw", near = { l0 = false } })
        for i, value in ipairs(values) do
            local key = "k" .. i
            assert(cache:set(key, value))
            for _ = 1, 4 do assert.same({ value }, { (cache:get(key)) }) end
            assert.equal("l0", source(cache, key))
            if type(value) == "string" then
                assert(raw:set(key, value))
                for _ = 1, 3 do assert.equal(value, (raw:get(key))) end
                assert.equal("near", source(raw, key))
            end
        end
    end)

    it("knows any key by all of its bytes", function()
        local keys = { "", "\0", "\0\0", "a\0b", "a\0c", "a\r\nb", "\255\254", ("k"):rep(900),
            ("k"):rep(899) .. "l" }
        for i, key in ipairs(keys) do cache:set(key, i) end
        for _ = 1, 3 do
            for i, key in ipairs(keys) do assert.equal(i, (cache:get(key))) end
        end
        for _, key in ipairs(keys) do assert.is_true(is_near(source(cache, key)), key) end
    end)

    it("reads what is too large for it from Redis each time", function()
        local small = open({ group = "small", near = { bytes = 65536 } })
        local long, large = ("k"):rep(5000), ("v"):rep(100000)
        small:set(long, "v")
        small:set("large", large)
        for _ = 1, 3 do
            assert.same({ "v", nil, "redis" }, { small:get(long) })
            assert.same({ large, nil, "redis" }, { small:get("large") })
        end
        assert.is_true(small.near:stats().refusals > 0)
        small:close()
    end)

    it("keeps what other programs wrote", function()
        redis:call("SET", "k", "plain \0 bytes")
        assert.same({ "plain \0 bytes", nil, "redis" }, { cache:get("k") })
        assert.equal("plain \0 bytes", warm(cache, "k"))
        local json = cache:namespace("j", { codec = "json", plain = true })
        redis:call("SET", "j:k", '{"a":[1,2]}')
        for _ = 1, 3 do assert.same({ a = { 1, 2 } }, (json:get("k"))) end
        assert.is_true(is_near(source(json, "k")))
    end)

    it("remembers that there is no such thing", function()
        local runs = 0
        local function nothing()
            runs = runs + 1
            return nil
        end
        cache:remember("k", 60, nothing)
        assert.same({ nil, nil, "redis" }, { cache:get("k") })
        for _ = 1, 3 do
            local value, err, from = cache:get("k")
            assert.same({}, { value, err })
            assert.is_true(is_near(from), from)
            value, err, from = cache:remember("k", 60, nothing)
            assert.same({}, { value, err })
            assert.is_true(is_near(from), from)
        end
        assert.equal(1, runs)
        local values, failed, negatives = cache:getMulti({ "k" })
        assert.same({ {}, {}, { k = true } }, { values, failed, negatives })
        cache:delete("k")
        assert.equal("v", (cache:remember("k", 60, function() return "v" end)))
    end)

    it("keeps no absence: a missing key is asked for each time, and seen at once", function()
        assert_cost("get pttl get pttl get pttl", 3, function()
            for _ = 1, 3 do assert.same({}, { cache:get("missing") }) end
        end)
        for i = 1, 50 do
            assert.is_nil((cache:get("k" .. i)))
            redis:call("SET", "k" .. i, "v")
            assert.equal("v", (cache:get("k" .. i)))
        end
    end)

    it("keeps no running load (G1)", function()
        local other = peer.start({ url = redis:url() })
        other:begin(peer.held, { value = "v" })
        other:event("loading")
        for _ = 1, 3 do assert.same({}, { cache:get("k") }) end
        other:go():finish()
        assert.equal("v", warm(cache, "k"))
        other:stop()
    end)
end)

describe("near = false", function()
    -- Three reads of a key that is warm for everybody else.
    local function expect_gets(reader, opts)
        local counts = monitor.wire(redis, function()
            for _ = 1, 3 do
                assert.same({ "v", nil, "redis" }, { reader:get("k", opts) })
                assert.same({ "v", nil, "redis" }, { reader:remember("k", 60, error, opts) })
            end
        end)
        assert.equal(6, counts.get)
    end

    it("reads from Redis each time: a cache, a namespace, a call", function()
        cache:set("k", "v")
        warm(cache, "k")
        local off = open({ group = "off", near = false })
        expect_gets(off)
        off:close()
        expect_gets(cache, { near = false })
        assert.is_true(is_near(source(cache, "k")))
        local sub = cache:namespace("sub", { near = false })
        sub:set("k", "v")
        expect_gets(sub)
        assert.equal("v", warm(cache, "sub:k"))
        expect_gets(sub)
        assert.is_true(is_near(source(cache, "sub:k")))
    end)

    it("can be undone for a namespace, not where there is no region", function()
        local sub = cache:namespace("off", { near = false }):namespace("on", { near = true })
        sub:set("k", "v")
        assert.equal("v", warm(sub, "k"))
        local off = open({ group = "off", near = false })
        local ok, err = pcall(off.namespace, off, "on", { near = true })
        assert.is_false(ok)
        assert.matches("bad option 'near' to namespace", err, 1, true)
        off:close()
    end)

    it("reads a batch from Redis", function()
        cache:setMulti({ a = 1, b = 2 })
        warm(cache, "a")
        warm(cache, "b")
        assert_cost("mget", 1, function()
            assert.same({ a = 1, b = 2 }, (cache:getMulti({ "a", "b" }, { near = false })))
        end)
    end)
end)

describe("the wire cost with a near cache", function()
    it("of a miss is GET and PTTL in one write, of a hit nothing", function()
        cache:set("k", "v")
        assert_cost("get pttl", 1, function() cache:get("k") end)
        assert_cost("", 0, function()
            for _ = 1, 1000 do cache:get("k") end
            for _ = 1, 1000 do cache:remember("k", 60, error) end
            for _ = 1, 1000 do cache:rememberForever("k", error) end
        end)
    end)

    it("of remember on a cold key that is there is that of a miss", function()
        cache:set("k", "v")
        assert_cost("get pttl", 1, function() cache:remember("k", 60, error) end)
        assert_cost("", 0, function() cache:remember("k", 60, error) end)
    end)

    it("of the first read after a load is one read, then nothing (75)", function()
        cache:remember("k", 60, function() return "v" end)
        local first, turns = cost(function() assert.equal("v", (cache:get("k"))) end)
        assert.is_true(first == "" or first == "get pttl", first)
        assert.is_true(turns <= 1)
        assert_cost("", 0, function()
            for _ = 1, 100 do assert.equal("v", (cache:remember("k", 60, error))) end
        end)
    end)

    it("of a batch is that of the keys that are not near", function()
        cache:setMulti({ a = 1, b = 2, c = 3 })
        warm(cache, "a")
        warm(cache, "c")
        local words
        local counts = monitor.wire(redis, function()
            assert.same({ a = 1, b = 2, c = 3 }, (cache:getMulti({ "a", "b", "c" })))
        end, function(command)
            for _, word in ipairs(command.words) do
                if word == "a" or word == "c" then words = command.words end
            end
            return true
        end)
        assert.is_nil(words)
        assert.is_true(counts.total >= 1 and counts.total <= 2)
        assert_cost("", 0, function()
            assert.same({ a = 1, c = 3 }, (cache:getMulti({ "a", "c" })))
        end)
    end)

    it("of fresh is one round trip that moves no value", function()
        cache:set("k", "v")
        warm(cache, "k")
        assert_cost("ping", 1, function()
            local value, _, from = cache:get("k", { fresh = true })
            assert.equal("v", value)
            assert.is_true(is_near(from), from)
        end)
    end)
end)

describe("a table from L0", function()
    before_each(function() cache:set("user:7", { name = "n", tags = { "x" } }) end)

    local function at_l0(reader)
        for _ = 1, 3 do reader:get("user:7") end
        return reader:get("user:7")
    end

    it("is handed out as it is", function()
        local one, _, from = at_l0(cache)
        assert.equal("l0", from)
        assert.is_true(rawequal(one, (cache:get("user:7"))))
        assert.is_true(rawequal(one, (cache:remember("user:7", 60, error))))
    end)

    it("is everybody's own with copy = true", function()
        local copies = open({ group = "copies", copy = true })
        for _, read in ipairs({
            function() return copies:get("user:7") end,
            function() return copies:remember("user:7", 60, error) end,
            function() return cache:get("user:7", { copy = true }) end,
            function() return cache:remember("user:7", 60, error, { copy = true }) end,
            function() return (cache:getMulti({ "user:7" }, { copy = true }))["user:7"] end,
        }) do
            for _ = 1, 5 do
                local value = read()
                assert.same({ name = "n", tags = { "x" } }, value)
                value.name, value.tags[1] = "changed", "changed"
            end
        end
        assert.same({ name = "n", tags = { "x" } }, (at_l0(cache)))
        copies:close()
    end)

    local function expect_guard(mutate)
        local guarded = open({ group = "guarded", guard = true })
        mutate(at_l0(guarded))
        local ok, err = pcall(guarded.get, guarded, "user:7")
        assert.is_false(ok)
        assert.matches("user:7", tostring(err), 1, true)
        guarded:close()
    end

    it("that was changed is noticed with guard = true, and its key named", function()
        expect_guard(function(value) value.name = "changed" end)
        expect_guard(function(value) value.more = 1 end)
        expect_guard(function(value) value.name = nil end)
        expect_guard(function(value) value.tags[2] = "y" end)
    end)

    it("that was not changed passes guard = true", function()
        local guarded = open({ group = "guarded", guard = true })
        for _ = 1, 100 do
            local value = guarded:get("user:7")
            assert.equal("x", value.tags[1])
        end
        assert.equal("l0", source(guarded, "user:7"))
        guarded:close()
    end)
end)

describe("a closed cache", function()
    it("answers 'closed', whatever it had in memory", function()
        local mine = open({ group = "mine" })
        local sub = mine:namespace("sub")
        for _, reader in ipairs({ mine, sub }) do
            reader:set("k", "v")
            warm(reader, "k")
            assert.equal("l0", source(reader, "k"))
        end
        mine:close()
        for _, reader in ipairs({ mine, sub }) do
            local value, err = reader:get("k")
            assert.is_nil(value)
            assert.equal("closed", err.code)
            value, err = reader:remember("k", 60, error)
            assert.is_nil(value)
            assert.equal("closed", err.code)
            local values, failed = reader:getMulti({ "k" })
            assert.same({}, values)
            assert.equal("closed", failed.k.code)
        end
    end)
end)

describe("an option of the near cache that is bad", function()
    local here = "near_spec%.lua:%d+: "

    local function expect_error(name, fn)
        local ok, err = pcall(fn)
        assert.is_false(ok, name)
        assert.matches("^[^\n]*" .. here, err)
        assert.matches(name, err, 1, true)
    end

    it("is an error at the caller's line that names it", function()
        for _, case in ipairs({
            { "near", { near = 1 } }, { "near", { near = "yes" } },
            { "bytes", { near = { bytes = 1000 } } }, { "bytes", { near = { bytes = "1" } } },
            { "bytes", { near = { bytes = 1e30 } } }, { "bytes", { near = { bytes = 0 / 0 } } },
            { "shared", { near = { shared = 1 } } }, { "shared", { near = { shared = "" } } },
            { "shared", { near = { shared = "a/b" } } },
            { "shared", { near = { shared = ("x"):rep(300) } } },
            { "ttl", { near = { ttl = 0 } } }, { "ttl", { near = { ttl = -1 } } },
            { "min", { near = { min = -1 } } }, { "max", { near = { max = "x" } } },
            { "l0", { near = { l0 = 1 } } },
            { "entries", { near = { l0 = { entries = 0 } } } },
            { "bytes", { near = { l0 = { bytes = -1 } } } },
            { "unknown", { near = { unknown = 1 } } },
            { "unknown", { near = { l0 = { unknown = 1 } } } },
            { "maxStale", { maxStale = 0.001 } }, { "maxStale", { maxStale = 1801 } },
            { "maxStale", { maxStale = "1" } },
            { "copy", { copy = 1 } }, { "guard", { guard = 1 } },
        }) do
            expect_error(case[1], function() redcache.new(case[2]) end)
        end
    end)

    it("is one in a namespace, too, and there the region is no option", function()
        for _, case in ipairs({
            { "near", { near = 1 } }, { "ttl", { near = { ttl = 0 } } },
            { "bytes", { near = { bytes = 2 ^ 20 } } }, { "shared", { near = { shared = "x" } } },
            { "maxStale", { maxStale = 0 } },
        }) do
            expect_error(case[1], function() cache:namespace("sub", case[2]) end)
        end
    end)

    it("is one in a call, too", function()
        local function load() return 1 end
        for _, case in ipairs({
            { "near", { near = 1 } }, { "near", { near = { ttl = 1 } } },
            { "fresh", { fresh = 1 } }, { "maxStale", { maxStale = 0 } },
            { "copy", { copy = "x" } }, { "guard", { guard = true } },
        }) do
            expect_error(case[1], function() cache:get("k", case[2]) end)
            expect_error(case[1], function() cache:remember("k", 60, load, case[2]) end)
            expect_error(case[1], function() cache:rememberForever("k", load, case[2]) end)
            expect_error(case[1], function() cache:getMulti({ "k" }, case[2]) end)
        end
        -- Writes have no use for them.
        for _, name in ipairs({ "near", "fresh", "maxStale" }) do
            expect_error(name, function() cache:set("k", 1, 60, { [name] = true }) end)
            expect_error(name, function() cache:delete("k", { [name] = true }) end)
        end
    end)
end)
