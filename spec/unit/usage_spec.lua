-- What is told to whoever calls a public function in a way that it does not understand.

local process = require("spec.support.process")
local redcache = require("redcache")

local cache

before_each(function() cache = redcache.new() end)
after_each(function() cache:close() end)

local function fn() return 1 end

-- The text of an error that has to be raised at a line of this file.
local function told(call, ...)
    local ok, message = pcall(call, ...)
    assert.is_false(ok)
    assert.matches("usage_spec.lua:%d+: ", message)
    return (message:gsub("^.-:%d+: ", ""))
end

-- By class: an object, and how its methods are called by somebody who forgets the colon.
local function classes()
    local lock = cache:lock("l")
    local clock = redcache.clock()
    local task
    redcache.run(function() task = redcache.spawn(fn) end)
    local keyed = {
        get = { "k" }, delete = { "k" }, set = { "k", 1, 60 },
        remember = { "k", 60, fn }, rememberForever = { "k", fn }, put = { "k", 60, fn },
        getMulti = { { "k" } },
    }
    local whole = {
        exists = { "k" }, ttl = { "k" }, touch = { "k" }, expire = { "k", 60 },
        expireAt = { "k", 60 }, persist = { "k" },
        add = { "k", 1 }, replace = { "k", 1 }, cas = { "k", "12345678", 1 },
        getSet = { "k", 1 }, getDelete = { "k" }, update = { "k", fn },
        rename = { "k", "to" }, copy = { "k", "to" },
        rememberMulti = { { "k" }, 60, fn }, lockMulti = { { "l" } },
        putMulti = { { "k" }, 60, fn }, warm = { {} }, loader = { fn },
        touchMulti = { { "k" } }, expireMulti = { { k = 60 } },
        invalidateTags = { { "tag" } },
        tags = { "k" },
        addTags = { "k", { "tag" } },
        keysByTag = { "tag" },
        incr = { "n" }, decr = { "n" },
        incrFloat = { "n" },
        setMulti = { { k = 1 }, 60 }, deleteMulti = { { "k" } }, lock = { "l" },
        tryLock = { "l" }, withLock = { "l", {}, fn }, namespace = { "n" }, cancel = { 1 },
        authenticate = { "u", "p" },
        scan = { "*" }, keys = { "*" }, deleteByPattern = { "*" }, flush = { { all = true } },
        close = {}, stats = {}, health = {}, metrics = {}, request = {}, redis = {},
        wrap = { "w", fn }, session = {}, work = {}, onInvalidate = { fn }, afterCommit = { fn },
        limiter = { { limit = 1, window = 1 } },
        bloom = {},
        readWriteLock = { "l" },
        semaphore = { "s", 2 }, withSemaphore = { "s", 2, {}, fn },
        explain = { "k" }, keepFresh = { "k", 60, fn },
        setBehind = { "k", 1 }, deadLetters = {}, replayDeadLetters = {}, dropDeadLetters = {},
        breaker = { "auto" },
    }
    local locks = assert(cache:lockMulti({ "l" }))
    local raw, queue = cache:redis(), nil
    raw:pipeline(function(p) queue = p end)
    local transaction
    raw:transaction(function(tx) transaction = tx end)
    local script = raw:script("return 1")
    local commit
    cache:afterCommit(function(collected) commit = collected end)
    local filtered = cache:namespace("f", { bloom = { keys = 9 } })
    for name, arguments in pairs(keyed) do whole[name] = arguments end
    return {
        { name = "cache", object = cache, methods = whole },
        { name = "request", object = cache:request(), methods = keyed },
        { name = "lock", object = lock, methods = {
            acquire = {}, release = {}, extend = { 5 }, valid = {}, held = {}, lost = {}, ttl = {},
            fenceText = {},
        } },
        { name = "lock", object = cache:lock("l", { reentrant = true }), methods = {
            acquire = {}, release = {}, extend = { 5 }, valid = {}, held = {}, lost = {}, ttl = {},
            fenceText = {},
        } },
        { name = "readWriteLock", object = cache:readWriteLock("l"), methods = {
            read = {}, write = {}, withRead = { {}, fn }, withWrite = { {}, fn },
        } },
        { name = "semaphore", object = cache:semaphore("s", 2), methods = {
            acquire = {}, release = {}, extend = { 5 }, valid = {}, held = {}, lost = {}, ttl = {},
            fenceText = {},
        } },
        { name = "bloom", object = filtered:bloom(), methods = {
            fill = {}, add = { "k" }, has = { "k" }, state = {}, clear = {},
        } },
        { name = "loader", object = cache:loader(fn), methods = { get = { "k" } } },
        { name = "locks", object = locks, methods = {
            release = {}, extend = { 5 }, valid = {}, lost = {}, ttl = {}, fences = {},
        } },
        { name = "redis", object = raw, methods = {
            command = { "GET", "k" }, pipeline = { fn }, publish = { "c", "m" }, key = { "k" },
            script = { "return 1" }, transaction = { fn }, subscribe = { "c" },
            psubscribe = { "c" },
        } },
        { name = "pipeline", object = queue,
            methods = { command = { "GET", "k" }, run = { script, {}, {} } } },
        { name = "transaction", object = transaction, methods = {
            command = { "GET", "k" }, read = { "GET", "k" }, run = { script, {}, {} },
        } },
        { name = "subscription", object = assert(raw:subscribe("c")),
            methods = { next = { 0 }, close = {} } },
        { name = "script", object = script, methods = { run = { {} } } },
        { name = "session", object = cache:session(), methods = {
            create = { 1 }, get = { "id" }, set = { "id", 1 }, regenerate = { "id" },
            destroy = { "id" },
        } },
        { name = "limiter", object = cache:limiter({ limit = 1, window = 1 }),
            methods = { take = { "k" }, peek = { "k" }, reset = { "k" } } },
        { name = "keeper", object = cache:keepFresh("k", 60, fn),
            methods = { stop = {}, stats = {} } },
        { name = "commit", object = commit, methods = {
            delete = { "k" }, deleteMulti = { { "k" } }, invalidateTags = { { "t" } },
        } },
        { name = "listener", object = cache:onInvalidate(fn), methods = { close = {} } },
        { name = "near", object = cache.near, methods = { stats = {}, hot = {} } },
        { name = "iterator", object = cache:scan("*"), methods = { close = {}, error = {} } },
        { name = "clock", object = clock, methods = { advance = { 1 }, now = {} } },
        { name = "task", object = task, methods = { wait = {} } },
    }
end

describe("a method called with a dot", function()
    it("names the colon, for every public method", function()
        for _, class in ipairs(classes()) do
            for name, arguments in pairs(class.methods) do
                local method = class.object[name]
                local ok, message = pcall(function() -- a tail call would leave no line
                    method(unpack(arguments))
                    return 1
                end)
                assert.is_false(ok, class.name .. "." .. name)
                assert.matches("usage_spec.lua:%d+: ", message)
                assert.matches("called with a dot: write " .. class.name .. ":" .. name .. "(",
                    message, 1, true)
            end
        end
    end)

    it("is every method that there is", function()
        local known = { open = true, init = true }
        for _, class in ipairs(classes()) do
            local meta = getmetatable(class.object)
            for name, method in pairs(meta.__index) do
                if type(method) == "function" and not name:find("^_") and not known[name]
                    and name ~= "new" then
                    assert.is_truthy(class.methods[name], class.name .. "." .. name)
                end
            end
        end
    end)

    it("still works on an object that only inherits from a cache", function()
        local mine = setmetatable({}, { __index = cache })
        assert.is_true(mine:set("k", 1))
        assert.equal(1, (mine:get("k")))
    end)

    it("is what redcache.new wants", function()
        assert.equal("redcache:new was called with a colon: write redcache.new(opts)",
            told(function() local one = redcache:new({}) return one end))
    end)
end)

describe("arguments in the wrong place", function()
    it("are answered with how the method is called", function()
        local remember = "; it is called remember(key, ttl, fn, opts)"
        for _, case in ipairs({
            { remember, function() cache:remember("k", fn) end },
            { remember, function() cache:remember("k", 60, {}, fn) end },
            { "; it is called rememberForever(key, fn, opts)",
                function() cache:rememberForever("k", 60, fn) end },
            { "; it is called put(key, ttl, fn, opts)", function() cache:put("k", fn) end },
            { "; it is called set(key, value, ttl, opts)", function() cache:set("k") end },
            { "; it is called get(key, opts)", function() cache:get("k", 60) end },
            { "; it is called delete(key, opts)", function() cache:delete("a", "b") end },
            { "; it is called getMulti(keys, opts)", function() cache:getMulti("a", "b") end },
            { "; it is called withLock(name, opts, fn)", function() cache:withLock("l", fn) end },
            { "; it is called lock(name, opts)", function() cache:lock("l", 10) end },
            { "; it is called setMulti(map, ttl, opts)",
                function() cache:setMulti({ a = 1 }, { timeout = 1 }) end },
        }) do
            local message = told(case[2])
            assert.matches(case[1], message, 1, true)
        end
    end)

    it("come back as badTtl, with how the method is called, where a ttl is none", function()
        for _, ttl in ipairs({ "v", {} }) do
            local ok, err = cache:set("k", 60, ttl)
            assert.is_nil(ok)
            assert.equal("badTtl", err.code)
            assert.matches("it is called set(key, value, ttl, opts)", err.message, 1, true)
            assert.is_nil(err.message:find('"v"', 1, true))
        end
    end)
end)

describe("plain with grace", function()
    it("is refused wherever both are asked for", function()
        local text = "with plain = true there is no header"
        assert.matches(text, told(function() redcache.new({ plain = true, grace = 5 }) end), 1,
            true)
        assert.matches(text, told(function()
            cache:namespace("n", { plain = true, grace = 5 })
        end), 1, true)
        local plain = cache:namespace("p", { plain = true })
        assert.matches(text, told(function() plain:set("k", 1, 60, { grace = 5 }) end), 1, true)
        assert.matches(text, told(function() plain:setMulti({ k = 1 }, 60, { grace = 5 }) end),
            1, true)
        assert.matches(text, told(function() plain:remember("k", 60, fn, { grace = 5 }) end),
            1, true)
        assert.matches(text, told(function() plain:namespace("q", { grace = 5 }) end), 1, true)
        assert.is_true(plain:set("k", 1, 60, { grace = 0 }))
    end)

    it("leaves a grace that was only inherited out", function()
        local graced = cache:namespace("g", { grace = 5 })
        assert.is_true(graced:namespace("p", { plain = true }):set("k", 1))
    end)
end)

describe("require in a Lua that is not LuaJIT", function()
    for _, lua in ipairs({ "lua5.1", "lua5.2", "lua5.3", "lua5.4" }) do
        local found = os.execute("command -v " .. lua .. " >/dev/null") == 0
        local check = found and it or pending
        check("says that LuaJIT is needed, in one line: " .. lua, function()
            local result = process.run({
                lua, "-e", ("package.path = [[%s]]"):format(package.path), "-e",
                "io.write(select(2, pcall(require, 'redcache')))",
                env = { LUA_PATH = false, LUA_INIT = false },
            })
            assert.matches("^redcache needs LuaJIT with its FFI, and this is Lua 5%.%d$",
                result.out)
        end)
    end
end)
