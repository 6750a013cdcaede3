-- Connections lent to one caller each: WATCH, MULTI, commands that wait; what is refused elsewhere.

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local lent = require("spec.support.lent")
local lent_cases = require("spec.support.lent_cases")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

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
    options = options or {}
    options.url = redis:url()
    options.plain, options.codec = true, "raw"
    options.commandTimeout = options.commandTimeout or 10
    if options.near == nil then options.near = false end
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

local function connections()
    return select(2, redis:call("CLIENT", "LIST"):gsub("name=redcache%-X", ""))
end

-- Pushes a value once so many clients wait for it: another process, for this one waits.
local function push_later(key, waiters)
    return worker.start({
        params = { path = redis.path, key = key, waiters = waiters },
        main = function(one)
            local wait_until = require("spec.support.clock").wait_until
            local raw = require("spec.support.resp").connect({ path = one.params.path },
                { user = "bed", password = "bed" })
            wait_until(function()
                local count = raw:call("INFO", "clients"):match("blocked_clients:(%d+)")
                return tonumber(count) == one.params.waiters
            end, 10, "those who wait")
            raw:call("LPUSH", one.params.key, "item")
        end,
    })
end

describe("a connection of one's own", function()
    it("sees that a watched key was changed by somebody else", function()
        local cache = open()
        local own = assert(lent.borrow(cache))
        assert.equal("OK", own:call({ "WATCH", "k" }))
        assert.is_true(cache:set("k", "theirs"))
        assert.same({ "OK", "QUEUED", false },
            own:call({ { "MULTI" }, { "SET", "k", "mine", writes = 2 }, { "EXEC" } }))
        assert.equal("theirs", cache:get("k"))
        assert.same({ "OK", "QUEUED", { "OK" } },
            own:call({ { "MULTI" }, { "SET", "k", "mine", writes = 2 }, { "EXEC" } }))
        assert.equal("mine", cache:get("k"))
        own:give()
    end)

    it("waits for as long as its caller likes, and is woken", function()
        local cache = open({ commandTimeout = 0.1 })
        local pusher = push_later("queue", 1)
        local own = assert(lent.borrow(cache, 10))
        assert.same({ "queue", "item" }, own:call({ "BLPOP", "queue", 0 }, 20))
        own:give()
        pusher:join()
    end)

    it("outlasts what a silent connection is given up for", function()
        local cache = open({ commandTimeout = 0.1 })
        local own = assert(lent.borrow(cache, 10))
        assert.is_false(own:call({ "BLPOP", "queue", 2.5 }, 20))
        own:give()
    end)

    it("keeps no state of its last caller", function()
        local cache = open()
        local first = assert(lent.borrow(cache))
        local id = first:call({ "CLIENT", "ID" })
        assert.equal("OK", first:call({ "SELECT", 3 }))
        assert.equal("OK", first:call({ "CLIENT", "SETNAME", "mine" }))
        assert.same({ "OK", "QUEUED" }, first:call({ { "MULTI" }, { "SET", "k", "half" } }))
        first:give()
        local second = assert(lent.borrow(cache))
        assert.equal(id, second:call({ "CLIENT", "ID" }))
        assert.equal("redcache-X", second:call({ "CLIENT", "GETNAME" }))
        assert.matches(" db=0 .* resp=3%s", second:call({ "CLIENT", "INFO" }))
        -- Not by CLIENT INFO: Valkey says multi=0 of each that has ever been inside.
        assert.matches("^ERR ", second:call({ "EXEC" })) -- without MULTI
        assert.is_false(second:call({ "GET", "k" }))
        second:give()
    end)

    it("drops near copies of what it changes", function()
        local cache = open({ near = true })
        assert.is_true(cache:set("k", "old"))
        assert.equal("old", cache:get("k"))
        local own = assert(lent.borrow(cache))
        own:call({ { "MULTI" }, { "SET", "k", "new", writes = 2 } })
        assert.equal("old", cache:get("k"))
        own:call({ "EXEC" })
        assert.equal("new", cache:get("k"))
        own:give()
    end)

    it("is closed where an answer may still come", function()
        assert.equal("as it should be", lent_cases.late(open()))
    end)

    it("is lost with what ran over it, and never another one instead", function()
        local cache = open()
        local own = assert(lent.borrow(cache))
        local id = own:call({ "CLIENT", "ID" })
        assert.equal("OK", own:call({ "WATCH", "k" }))
        local wait = own:start({ "BLPOP", "queue", 0 }, 20)
        cache:get("k")
        redis:call("CLIENT", "KILL", "ID", tostring(id))
        local answer, err = lent.finish(wait)
        assert.is_nil(answer)
        assert.equal("outcomeUnknown", err.code)
        answer, err = own:call({ "PING" })
        assert.is_nil(answer)
        assert.matches("the server closed the connection", err.message)
        own:give()
        assert.equal("PONG", assert(lent.borrow(cache)):call({ "PING" }))
    end)

    it("is one of sixteen; a caller beyond them waits in vain", function()
        local cache, owns = open(), {}
        for i = 1, 16 do owns[i] = assert(lent.borrow(cache)) end
        assert.equal(16, connections())
        local own, err = lent.borrow(cache, 0.1)
        assert.is_nil(own)
        assert.equal("overload", err.code)
        assert.equal("could not borrow: all 16 lent connections are in use", err.message)
        owns[3]:give()
        assert.equal("PONG", assert(lent.borrow(cache, 10)):call({ "PING" }))
        assert.equal(16, connections())
    end)

    it("costs those nothing who share one", function()
        local cache, owns, waits = open(), {}, {}
        cache:set("k", "v")
        local function median()
            local list = {}
            for i = 1, 1000 do
                local began = clock.now()
                cache:get("k")
                list[i] = clock.now() - began
            end
            table.sort(list)
            return list[500]
        end
        local best = math.huge
        for i = 1, 16 do owns[i] = assert(lent.borrow(cache)) end
        for round = 1, 7 do
            local alone = median()
            for i, own in ipairs(owns) do waits[i] = own:start({ "BLPOP", "queue" .. i, 0 }, 60) end
            clock.wait_until(function()
                cache:get("k")
                return redis:call("INFO", "clients"):find("blocked_clients:16", 1, true)
            end, 10, "those who wait")
            best = math.min(best, median() / alone)
            for i in ipairs(owns) do redis:call("LPUSH", "queue" .. i, "item" .. round) end
            for _, wait in ipairs(waits) do
                assert.equal("item" .. round, assert(lent.finish(wait))[2])
            end
        end
        assert.is_true(best < 1.15, best .. " x of alone")
    end)
end)

describe("the shared connection", function()
    local function refusal(command)
        local answer, err = lent.call(open(), command)
        assert.is_nil(answer)
        assert.equal("refused", err.code)
        return err.message
    end

    it("refuses what waits, or changes it for others, and names the way", function()
        assert.equal("could not call: BLPOP waits, and would hold up all who share the connection: "
            .. "it goes over a lent one (rc_lent_begin)", refusal({ "blpop", "queue", 0 }))
        for _, command in ipairs({ { "WATCH", "k" }, { "SELECT", 1 }, { "AUTH", "secret" },
            { "CLIENT", "SETNAME", "x" }, { "XREAD", "BLOCK", 0, "STREAMS", "s", "$" },
            { "WAIT", 1, 0 }, { { "SET", "k", 1 }, { "MULTI" }, { "SET", "k", 2 } } }) do
            assert.matches("it goes over a lent one", refusal(command))
        end
        assert.equal(0, redis:call("EXISTS", "k"))
        assert.not_matches("secret", refusal({ "AUTH", "secret" }))
    end)

    it("refuses what is not answered as others are", function()
        for _, command in ipairs({ { "SSUBSCRIBE", "k" }, { "MONITOR" }, { "RESET" }, { "QUIT" },
            { "HELLO", 2 }, { "CLIENT", "REPLY", "OFF" }, { "CLIENT", "TRACKING", "ON" } }) do
            refusal(command)
            local answer, err = assert(lent.borrow(open())):call(command)
            assert.is_nil(answer)
            assert.equal("refused", err.code)
        end
    end)

    it("takes a transaction that is whole", function()
        local cache = open()
        assert.same({ "OK", "QUEUED", "QUEUED", { 1, 2 } },
            lent.call(cache, { { "MULTI" }, { "INCR", "k" }, { "INCR", "k" }, { "EXEC" } }))
        assert.same({ 3 }, { lent.call(cache, { "INCR", "k" }) })
    end)
end)

-- In a process of its own, for event loops; the same in coroutines of redcache.run.
local function in_loop(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({ url = one.params.url, scheduler = one.params.name,
        near = false, commandTimeout = 10 })
    local result
    loop.go(function()
        result = require("spec.support.lent_cases")[one.params.case](cache, loop.go, loop.sleep)
    end)
    loop.run()
    cache:close()
    loop.run()
    return result
end

local function run_case(scheduler, case)
    if scheduler ~= "coroutine" then
        return worker.start({ main = in_loop,
            params = { name = scheduler, case = case, url = redis:url() } }):join()
    end
    local cache = open({ scheduler = "coroutine", commandTimeout = 10 })
    return redcache.run(function()
        return lent_cases[case](cache, redcache.spawn, function() coroutine.yield() end)
    end)
end

for _, scheduler in ipairs({ "coroutine", "luv", "cqueues", "copas" }) do
    describe("callers with connections of their own, scheduler " .. scheduler .. ",", function()
        local check = (scheduler == "coroutine" or event_loop.has(scheduler)) and it or pending

        check("wait and write beside 64 others", function()
            local seen = run_case(scheduler, "together")
            assert.equal(seen.expected, seen.counter)
            assert.is_true(seen.overtaken > 0)
        end)

        check("are never more than sixteen", function()
            assert.same({ most = 16, connections = 16 }, run_case(scheduler, "bounded"))
        end)

        check("never get an answer that was not for them", function()
            assert.equal("as it should be", run_case(scheduler, "late"))
        end)

        check("hear at once that the cache is closed", function()
            local codes = run_case(scheduler, "closed")
            assert.equal(17, #codes)
            for _, code in ipairs(codes) do assert.equal("closed", code) end
            clock.wait_until(function() return connections() == 0 end, 10, "the connections' end")
        end)
    end)
end

it("a child of fork() borrows for itself, and leaves its parent's connections alone", function()
    local result = worker.start({ params = { url = redis:url() }, main = function(one)
        local ffi, posix = require("ffi"), require("spec.support.posix")
        local lent_there = require("spec.support.lent")
        local fork = require("spec.support.fork")
        local cache = require("redcache").new({ url = one.params.url, near = false })
        local own = assert(lent_there.borrow(cache))
        local id = own:call({ "CLIENT", "ID" })
        own:call({ "WATCH", "k" })
        local pid = fork()
        if pid == 0 then
            local ok = pcall(function()
                local answer = own:call({ "PING" })
                assert(answer == nil)
                local mine = assert(lent_there.borrow(cache))
                assert(mine:call({ "CLIENT", "ID" }) ~= id)
                own:give() -- is the parent's: nothing happens
                mine:give()
            end)
            ffi.C._exit(ok and 0 or 1)
        end
        local status = ffi.new("int[1]")
        require("spec.support.clock").wait_until(function()
            return posix.C.waitpid(pid, status, 1) == pid
        end, 30, "the child's end")
        return { status = status[0], same = own:call({ "CLIENT", "ID" }) == id,
            exec = own:call({ { "MULTI" }, { "EXEC" } })[2] ~= false }
    end }):join()
    assert.same({ status = 0, same = true, exec = true }, result)
end)
