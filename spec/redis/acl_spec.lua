local bloom = require("redcache.bloom")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

-- The least rights of each feature: the table in docs/acl.md.
local SCRIPTS = "+evalsha +eval"
local LOADS = "+get +set +unlink +pttl +pexpire +psetex +exists +rename +getrange " .. SCRIPTS
local LOCKS = "+get +set +unlink +pttl +pexpire +exists +incr +time " .. SCRIPTS
local KEYS = "~app:*"
local HELPERS = "~{app:*"
local LOCK_KEYS = "~app//* ~{*}app//*"

describe("a user with the least rights", function()
    local redis, admin, cache

    setup(function()
        redis = server.start()
        admin = redis:client()
    end)
    teardown(function()
        admin:close()
        redis:stop()
    end)
    after_each(function()
        if cache then cache:close(0) end
        cache = nil
    end)

    local function open(rights, opts)
        local words = { "ACL", "SETUSER", "ann", "reset", "on", ">one" }
        for word in rights:gmatch("%S+") do words[#words + 1] = word end
        admin:call("FLUSHALL")
        admin:call("SCRIPT", "FLUSH")
        assert.equal("OK", admin:call(unpack(words)))
        local all = { url = redis:url("ann:one"), namespace = "app", near = false,
            commandTimeout = 2 }
        for name, value in pairs(opts or {}) do all[name] = value end
        cache = redcache.new(all)
        return cache
    end

    -- It may be late by two thirds of the life.
    local function wait_for_renewal(name)
        local last = admin:call("PTTL", name)
        clock.wait_until(function()
            local before = last
            last = admin:call("PTTL", name)
            return last > before
        end, 10, "a renewal")
    end

    local function entries()
        assert.is_true(cache:set("k", 1, 60))
        assert.equal(1, (cache:get("k")))
        assert.is_true(cache:exists("k"))
        assert.is_true(cache:ttl("k") > 50)
        assert.equal("value", assert(cache:explain("k")).redis.kind)
        assert.is_true(cache:setMulti({ a = 1, b = 2 }, 60))
        assert.same({ a = 1, b = 2 }, (cache:getMulti({ "a", "b" })))
        assert.equal(2, (cache:exists({ "a", "b", "none" })))
        assert.is_true(cache:delete("k"))
        assert.equal(2, (cache:deleteMulti({ "a", "b" })))
        cache:afterCommit(function(commit) commit:delete("a") end, { onFailed = error })
        assert.equal(0, cache:stats().afterCommitFailed)
        assert.equal("", cache:health().cause)
    end

    it("reads, writes and deletes, alone and in batches", function()
        open(KEYS .. " +ping +get +mget +set +unlink +pttl")
        entries()
    end)

    it("keeps near what it reads", function()
        open(KEYS .. " +ping +get +mget +set +unlink +pttl +client|tracking", { near = true })
        entries()
        assert.is_true(cache:set("k", 1, 60))
        clock.wait_until(function()
            local _, err, source = cache:get("k")
            assert.is_nil(err)
            return source ~= "redis"
        end, 5, "a near hit")
        assert.is_true(cache:health().tracking)
        admin:call("SET", "app:k", "foreign")
        clock.wait_until(function() return cache:get("k") == "foreign" end, 5)
    end)

    it("changes lives", function()
        open(KEYS .. " +set +ping +evalsha +eval +getrange +exists +pttl +pexpire +persist"
            .. " +pexpireat")
        assert.is_true(cache:set("k", 1, 60))
        for _, method in ipairs({ "touch", "expire", "expireAt", "persist" }) do
            local at = method ~= "persist" and 2e9 or nil
            assert.is_true(cache[method](cache, "k", at))
            assert.is_false((cache[method](cache, "none", at)))
        end
        assert.same({ k = true, none = false }, (cache:touchMulti({ "k", "none" }, 60)))
        assert.same({ k = true }, (cache:expireMulti({ k = 60 })))
    end)

    it("renames and copies", function()
        open(KEYS .. " +set +ping +evalsha +eval +getrange +exists +pttl +rename +copy")
        assert.is_true(cache:set("k", 1, 60))
        assert.is_true(cache:copy("k", "other"))
        assert.is_true(cache:rename("k", "third", { nx = true }))
        assert.is_false((cache:rename("k", "third")))
    end)

    it("deletes softly", function()
        open(KEYS .. " +set +ping +evalsha +eval +getrange +exists +pttl +pexpire +unlink"
            .. " +setrange", { grace = 10 })
        assert.is_true(cache:setMulti({ a = 1, b = 2 }, 60))
        assert.is_true(cache:delete("a", { soft = true }))
        assert.is_true(cache:set("a", 1, redcache.FOREVER))
        assert.equal(2, (cache:deleteMulti({ "a", "b" }, { soft = true })))
        assert.is_false((cache:delete("none", { soft = true })))
        cache:afterCommit(function(commit) commit:delete("a", { soft = true }) end)
        assert.equal(0, cache:stats().afterCommitFailed)
    end)

    it("stores with tags, and invalidates by them", function()
        open(KEYS .. " ~app//tag:* +ping +get +pttl +set +pexpire +unlink")
        local opts = { tags = { "a", "b" } }
        assert.is_true(cache:set("k", 1, 60, opts))
        admin:call("PEXPIRE", "app//tag:b", 1000)
        assert.is_true(cache:set("k", 1, 60, opts))
        assert.is_true(admin:call("PTTL", "app//tag:b") > 1000)
        assert.equal(1, (cache:get("k")))
        assert.same({ "a", "b" }, (cache:tags("k")))
        assert.equal(2, (cache:invalidateTags({ "a", "b" })))
        assert.is_nil((cache:get("k")))
        assert.is_true(cache:set("k", 1, 60, opts))
        cache:afterCommit(function(commit) commit:invalidateTags({ "a" }) end)
        assert.is_nil((cache:get("k")))
        cache:close()
        open(KEYS .. " ~app//tag:* +ping +get +pttl +set +pexpire +evalsha +eval")
        assert.is_true(cache:set("k", 1, 60))
        assert.is_true((cache:addTags("k", { "a", "b" })))
        cache:close()
        open(KEYS .. " ~app//tag:* +ping +get +pttl +set +evalsha +eval +getrange +setrange")
        assert.is_true(cache:set("k", 1, 60, opts))
        assert.equal(2, (cache:invalidateTags({ "a", "b" }, { soft = true })))
        assert.is_nil((cache:get("k")))
        assert.is_true(cache:set("k", 1, 60, opts))
        cache:afterCommit(function(commit) commit:invalidateTags({ "a" }, { soft = true }) end)
        assert.is_nil((cache:get("k")))
        cache:close()
        open(KEYS .. " ~app//tag:* ~app//index:* +ping +get +pttl +set +pexpire +evalsha +eval"
            .. " +setrange +unlink +getrange", { tagIndex = true })
        assert.is_true(cache:set("k", 1, 60, opts))
        assert.same({ "k" }, (cache:keysByTag("a")))
        assert.is_not_nil((cache:invalidateTags({ "a" })))
        assert.same({}, (cache:keysByTag("a")))
        cache:close()
        open(KEYS .. " +ping +get +pttl +set")
        assert.equal("redis", (select(2, cache:set("k", 1, 60, opts))).code)
    end)

    it("writes by what stands there", function()
        open(KEYS .. " +ping +evalsha +eval +get +set +pttl +unlink")
        assert.is_true((cache:add("k", 1, 60)))
        local _, _, _, version = cache:get("k", { version = true })
        assert.is_true((cache:cas("k", version, 2)))
        assert.is_true((cache:replace("k", 3, redcache.FOREVER)))
        assert.equal(3, (cache:getSet("k", 4)))
        assert.equal(5, (cache:update("k", function(value) return value + 1 end)))
        assert.equal(5, (cache:getDelete("k")))
        cache:remember("none", 60, function() return nil end)
        assert.is_false((cache:replace("none", 1)))
    end)

    it("publishes, and subscribes to its channels", function()
        open("resetchannels &news +ping +publish +subscribe +reset")
        local raw = cache:redis()
        local sub = assert(raw:subscribe("news"))
        assert.equal(1, raw:publish("news", "hello"))
        assert.equal("hello", sub:next(5).payload)
        sub:close()
        for _, method in ipairs({ "subscribe", "publish" }) do
            local value, err = raw[method](raw, "secret", method == "publish" and "m" or nil)
            assert.is_nil(value)
            assert.equal("redis", err.code)
            assert.matches("NOPERM", err.message)
            assert.not_matches("secret", err.message)
        end
        assert.equal("redis", select(2, raw:psubscribe("news")).code)
    end)

    it("counts", function()
        open(KEYS .. " +ping +evalsha +eval +get +set +pttl +unlink +incrby +incrbyfloat")
        assert.equal(2, (cache:incr("n", 1, { init = 1, max = 5 })))
        assert.equal("bound", select(2, cache:incr("n", 4, { max = 5 })).code)
        assert.equal(2.5, (cache:incrFloat("n", 0.5)))
        local huge = 2LL ^ 62
        assert.equal("bound", select(2, cache:incr("new", huge, { max = 5 })).code)
        admin:call("SET", "app:n", "4611686018427387904")
        assert.equal("bound", select(2, cache:incr("n", 1, { max = 5 })).code)
        assert.equal("4611686018427387904", admin:call("GET", "app:n"))
    end)

    it("filters keys", function()
        open("~app:* ~app//bloom:* +ping +client|tracking +get +pttl +set +evalsha +eval +getrange"
            .. " +setrange +unlink", { bloom = { keys = 100 }, near = true })
        local settle = bloom.SETTLE
        finally(function() bloom.SETTLE = settle end)
        bloom.SETTLE = 0.1
        assert.equal(0, cache:bloom():fill(function() return nil end))
        assert.equal("bloom", (select(3, cache:get("none"))))
        assert.is_true(cache:set("k", 1))
        assert.equal(1, (cache:get("k")))
        assert.is_true(cache:bloom():clear())
    end)

    it("limits", function()
        open("~app//limit:* +ping +evalsha +eval +get +set +time +unlink")
        for _, kind in ipairs({ "fixed", "sliding", "gcra" }) do
            local limiter = cache:limiter({ kind = kind, limit = 1, window = 600 })
            assert.same({ true, false }, { (limiter:take("k")), (limiter:take("k")) })
            assert.equal(0, (limiter:peek("k")).remaining)
            assert.is_true(limiter:reset("k"))
        end
    end)

    it("keeps fresh", function()
        open("~app:* ~{app:* ~app//* ~{*}app//* +ping +evalsha +eval +get +set +unlink +pttl"
            .. " +pexpire +psetex +exists +rename +getrange +incr +time")
        local keeper = assert(cache:keepFresh("k", 60, function() return 1 end))
        cache:work(0)
        assert.same({ 1, 0 }, { keeper:stats().runs, keeper:stats().failed })
        assert(keeper:stop())
    end)

    it("writes behind, and has it last", function()
        local log = {}
        open("~app:* ~app//* ~{*}app//* +ping +evalsha +eval +get +set +unlink +pttl +pexpire"
            .. " +exists +incr +time +xadd +xdel +xlen +xrange +hget +hset +hdel +hlen +hscan"
            .. " +hkeys", { writeBehind = { durable = true, attempts = 1, partitions = 1,
                write = function(items)
                    log[#log + 1] = items[1].key
                    return #log > 1, "not yet"
                end } })
        for _, key in ipairs({ "a", "b" }) do
            assert.same({ true }, { cache:setBehind(key, 1) })
            clock.wait_until(function()
                cache:work(0)
                return log[#log] == key and admin:call("XLEN", "app//behind:{0}") == 0
            end, 10, "the write")
        end
        assert.equal("a", assert(cache:deadLetters())[1].key)
        assert.equal(1, cache:replayDeadLetters())
        assert.equal(0, cache:dropDeadLetters())
    end)

    it("keeps sessions", function()
        open("~app/session:* +ping +set +getex +unlink +evalsha +eval +exists +rename +pexpire")
        local sessions = cache:session()
        local id = assert(sessions:create(1))
        assert.equal(1, (sessions:get(id)))
        assert.is_true(sessions:set(id, 2))
        id = assert(sessions:regenerate(id))
        assert.equal(2, (sessions:get(id)))
        assert.is_true(sessions:destroy(id))
    end)

    it("scans and deletes by a pattern", function()
        open(KEYS .. " +ping +set +scan +getrange +pttl +evalsha +eval +unlink")
        assert.is_true(cache:set("k", 1, 60))
        assert.same({ "k" }, (cache:keys("*")))
        assert.equal(1, (cache:deleteByPattern("*")))
    end)

    it("remembers, refreshes, renews leases, fails and puts", function()
        open(KEYS .. " " .. HELPERS .. " +ping +client|tracking " .. LOADS, { near = true,
            leaseTtl = 3, errorTtl = 1, negativeTtl = 1 })
        assert.equal(7, (cache:remember("k", 60, function() return 7 end, { strict = true })))
        assert.equal(8, (cache:remember("slow", 60, function()
            wait_for_renewal("app:slow")
            return 8
        end, { strict = true })))
        assert.equal("8", tostring((cache:get("slow", { near = false }))))
        assert.is_nil((cache:remember("none", 60, function() return nil end)))
        local _, err = cache:remember("bad", 60, function() error("no", 0) end)
        assert.equal("loaderFailed", err.code)
        local stored, why = cache:put("k", 60, function() return 9 end)
        assert.is_nil(why)
        assert.equal(9, stored)
        assert.equal(10, (cache:put("k", 60, function() return 10 end, { serveOld = false })))
        cache:put("k", 60, function() error("no", 0) end, { serveOld = false })
        assert.equal(10, (cache:get("k", { near = false })))
        assert.equal("", cache:health().cause)
        assert.equal(0, cache:stats().leasesLost)
    end)

    it("puts keys with a hash tag, or with a brace", function()
        open(KEYS .. " ~{*}app:* +ping +client|tracking " .. LOADS)
        for _, key in ipairs({ "{u}:k", "k}" }) do
            local stored, why = cache:put(key, 60, function() return 9 end)
            assert.is_nil(why)
            assert.equal(9, stored)
        end
    end)

    it("reaches the namespaces below it", function()
        open("~app[:/]* ~{app[:/]* ~{*}app[:/]* +ping +client|tracking +incr +time " .. LOADS)
        cache = cache:namespace("users")
        for _, key in ipairs({ "k", "{u}:k", "k}" }) do
            assert.equal(9, (cache:put(key, 60, function() return 9 end)))
            assert.equal(3, (cache:withLock(key, {}, function() return 3 end)))
        end
    end)

    it("locks, renews, extends and releases", function()
        open(LOCK_KEYS .. " +ping +client|tracking " .. LOCKS)
        local lock = cache:lock("job", { ttl = 3 })
        assert.is_true(lock:acquire())
        wait_for_renewal("app//lock:{job}")
        assert.is_true(lock:held())
        assert.is_true(lock:extend(5))
        local other = cache:lock("job", { wait = 0.2 })
        assert.is_nil((other:acquire()))
        assert.is_true(lock:release())
        assert.equal(3, (cache:withLock("job", {}, function() return 3 end)))
    end)

    it("locks for reading and for writing", function()
        open(LOCK_KEYS .. " +ping +client|tracking " .. LOCKS)
        local doc = cache:readWriteLock("doc")
        local reader, writer = doc:read({ ttl = 1.5 }), doc:write({ ttl = 3 })
        assert.is_true(reader:acquire())
        clock.sleep(1.8)
        assert.is_true(reader:held() and reader:extend(5))
        assert.equal("notAcquired", (select(2, writer:acquire(0.2))).code)
        assert.is_true(reader:release() and writer:acquire())
        wait_for_renewal("app//rwlock:{doc}")
        assert.is_true(writer:held() and writer:release())
    end)

    local function load_strictly()
        local value, err = cache:remember("k", 60, function() return 7 end, { strict = true })
        return value == nil and err or nil
    end
    local function with_lock()
        return select(2, cache:withLock("job", {}, function() return 1 end))
    end
    local function of_value(method, ...)
        local arguments = { "k", ... }
        return function()
            assert.is_true(cache:set("k", 1, 60))
            return select(2, cache[method](cache, unpack(arguments)))
        end
    end
    local function call(method, ...)
        local arguments = { ... }
        return function()
            return select(2, cache[method](cache, unpack(arguments)))
        end
    end
    local function first_of(method, ...)
        local arguments = { ... }
        return function()
            local _, errors = cache[method](cache, unpack(arguments))
            return select(2, next(errors))
        end
    end
    local function ttl_of_value()
        assert.is_true(cache:set("k", 1, 60))
        return select(2, cache:ttl("k"))
    end
    local function tracking_cause()
        cache:get("k")
        clock.wait_until(function() return cache:health().cause ~= "" end, 5)
        return { message = cache:health().cause }
    end
    local ALL = table.concat({ KEYS, HELPERS, LOCK_KEYS, "+ping +client|tracking +mget +incr +time",
        "+incrby +incrbyfloat +persist +pexpireat +copy +setrange +scan", LOADS },
        " ")

    -- One right missing each, what is done without it, and how the error names it.
    for _, case in ipairs({
        { "+ping", call("get", "k"), "'ping'" },
        { "+get", call("get", "k"), "'get'" },
        { "+get", call("exists", "k"), "'get'" },
        { "+mget", first_of("getMulti", { "k" }), "'mget'" },
        { "+pttl", ttl_of_value, "'pttl'" },
        { "+set", call("set", "k", 1), "'set'" },
        { "+set", first_of("setMulti", { k = 1 }), "'set'" },
        { "+unlink", call("delete", "k"), "'unlink'" },
        { "+client|tracking", tracking_cause, "'client|tracking'", near = true },
        { "+get", load_strictly, "get" },
        { "+set", load_strictly, "set" },
        { "+evalsha", load_strictly, "'evalsha'" },
        { "+eval", load_strictly, "'eval'" },
        { "+mget", call("exists", { "k" }), "'mget'" },
        { "+evalsha", first_of("touchMulti", { "k" }), "'evalsha'" },
        { "+persist", of_value("persist"), "persist" },
        { "+pexpireat", of_value("expireAt", 2e9), "pexpireat" },
        { "+setrange", function()
            assert.is_true(cache:set("k", 1, 60, { grace = 10 }))
            return select(2, cache:delete("k", { soft = true }))
        end, "setrange" },
        { "+copy", of_value("copy", "to"), "copy" },
        { "+rename", of_value("rename", "to"), "rename" },
        { "+incrby", call("incr", "n"), "incrby" },
        { "+incrbyfloat", call("incrFloat", "n"), "incrbyfloat" },
        { "+evalsha", call("decr", "n"), "'evalsha'" },
        { "+get", with_lock, "get" },
        { "+set", with_lock, "set" },
        { "+scan", call("keys", "*"), "'scan'" },
        { "+getrange", of_value("keys"), "'getrange'" },
        { "+evalsha", of_value("deleteByPattern"), "'evalsha'" },
        { "+incr", with_lock, "incr" },
        { "+time", with_lock, "time" },
        { "+evalsha", with_lock, "'evalsha'" },
        { "+eval", with_lock, "'eval'" },
        { HELPERS, call("put", "k", 60, function() return 1 end), " key" },
        { KEYS, call("get", "k"), " key" },
        { KEYS, call("set", "k", 1), " key" },
        { KEYS, load_strictly, " key" },
        { "~app//*", with_lock, " key" },
        { "~{*}app//*", with_lock, " key" },
    }) do
        local missing, act, named, near = case[1], case[2], case[3], case.near
        it(("is told that %s is missing (%s)"):format(missing, named), function()
            local rights = (" " .. ALL .. " "):gsub(" " .. missing:gsub("%p", "%%%0") .. " ", " ")
            open(rights, { near = near or false })
            local err = act()
            assert.is_truthy(err)
            assert.matches(named, err.message, 1, true)
            assert.is_nil(err.message:find("ann", 1, true))
        end)
    end
end)
