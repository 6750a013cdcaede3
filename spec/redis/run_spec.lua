-- redcache.run and redcache.spawn: many calls at once in a program without an event loop.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local run, spawn = redcache.run, redcache.spawn
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
    options.url = options.url or redis:url()
    options.scheduler = options.scheduler or "coroutine"
    options.commandTimeout = options.commandTimeout or clock.scaled(5)
    if options.near == nil then options.near = false end
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

-- A busy loader: the other coroutines stand still.
local function work(seconds)
    local deadline = clock.now() + seconds
    while clock.now() < deadline do end
end

local function connections()
    local count = 0
    for _ in redis:call("CLIENT", "LIST"):gmatch("name=redcache%-") do count = count + 1 end
    return count
end

describe("run", function()
    it("returns what its function returned, with all that it was given", function()
        local function give(...) return select("#", ...), ... end
        assert.same({ 3, 1, nil, 3, n = 4 }, { n = 4, run(give, 1, nil, 3) })
        assert.equal(0, select("#", run(function() end)))
    end)

    it("does not end before all has ended that it has started", function()
        local ended = {}
        run(function()
            spawn(function()
                coroutine.yield()
                spawn(function() ended[#ended + 1] = "grandchild" end)
                ended[#ended + 1] = "child"
            end)
            ended[#ended + 1] = "main"
        end)
        assert.same({ "main", "child", "grandchild" }, ended)
    end)

    it("is a part of another run where a coroutine of that one calls it", function()
        local order = {}
        run(function()
            spawn(function() order[#order + 1] = "other" end)
            local word = run(function(word)
                spawn(function()
                    coroutine.yield()
                    order[#order + 1] = "inner"
                end)
                return word
            end, "after")
            order[#order + 1] = word
        end)
        assert.same({ "other", "inner", "after" }, order)
    end)

    it("refuses what cannot work", function()
        assert.error_matches(function() run(1) end, "function expected, got number")
        assert.error_matches(function() spawn(function() end) end, "nobody is in redcache.run")
        run(function()
            assert.error_matches(function() spawn() end, "function expected, got nil")
            assert.error_matches(coroutine.wrap(function() run(function() end) end),
                "not one of the runner")
            local handle = spawn(function() end)
            assert.error_matches(coroutine.wrap(function() handle:wait() end),
                "no coroutine of redcache.run")
        end)
    end)
end)

describe("an error", function()
    it("of the function is raised again, with where it was, when the others have ended", function()
        local ended = false
        local ok, err = pcall(run, function()
            spawn(function()
                coroutine.yield()
                ended = true
            end)
            error("no luck")
        end)
        assert.is_false(ok)
        assert.matches("run_spec.lua:%d+: no luck\nstack traceback:\n", err)
        assert.is_true(ended)
    end)

    it("that is no text is raised as it is", function()
        local cause = { code = 7 }
        local _, err = pcall(run, error, cause)
        assert.equal(cause, err)
    end)

    it("of a coroutine that somebody waits for is theirs alone", function()
        local function fail() error("no luck", 0) end
        assert.same({ "nil", "no luck" }, run(function()
            local value, err = spawn(fail):wait()
            return { tostring(value), err }
        end))
    end)

    it("of a coroutine nobody waits for does not vanish", function()
        local ok, err = pcall(run, function()
            for _ = 1, 3 do spawn(error, "no luck", 0) end
            return "well"
        end)
        assert.is_false(ok)
        assert.matches("^no luck\nstack traceback", err)
        assert.matches("and 2 more coroutines failed", err)
    end)

    it("inside of spawn leaves nothing behind that the run would wait for", function()
        local error, pcall, sethook, running = error, pcall, debug.sethook, coroutine.running
        local function noted(list) list[#list + 1] = "spawned" end
        for n = 1, 20 do
            local count, is_planted, mine = 0, false, nil
            local ran = {}
            run(function()
                mine = running()
                jit.off()
                pcall(function()
                    sethook(function()
                        if running() ~= mine then return end
                        count = count + 1
                        if count == n then
                            sethook()
                            is_planted = true
                            error("planted", 0)
                        end
                    end, "c")
                    spawn(noted, ran)
                    sethook()
                end)
                jit.on()
                ran[#ran + 1] = "main"
            end)
            assert.equal("main", ran[1])
            assert.is_true(is_planted or #ran == 2)
        end
    end)

    it("where all wait for each other ends the run, and the next one works", function()
        local ok, err = pcall(run, function()
            local first
            first = spawn(function()
                spawn(function() first:wait() end):wait()
            end)
        end)
        assert.is_false(ok)
        assert.matches("2 coroutines wait for each other", err)
        assert.equal(1, run(function() return spawn(function() return 1 end):wait() end))
    end)
end)

for name, url in pairs({ ["a server"] = false, ["memory://"] = "memory://" }) do
    describe("with " .. name, function()
        local cache
        before_each(function() cache = open({ url = url or nil }) end)

        it("1,000 coroutines call at once", function()
            local sum = 0
            run(function()
                for i = 1, 1000 do
                    spawn(function()
                        assert(cache:set("k" .. i, i))
                        local value = assert(cache:get("k" .. i))
                        sum = sum + value
                        assert.equal(i % 2 == 0, cache:delete("k" .. i - i % 2))
                    end)
                end
            end)
            assert.equal(500500, sum)
        end)

        it("400 coroutines that want one cold key run one loader", function()
            local runs, sources = 0, {}
            run(function()
                for _ = 1, 400 do
                    spawn(function()
                        local value, err, source = cache:remember("cold", 60, function()
                            runs = runs + 1
                            for _ = 1, 20 do assert.is_nil(cache:get("other")) end
                            return "made"
                        end)
                        assert.equal("made", value, tostring(err))
                        sources[source] = (sources[source] or 0) + 1
                    end)
                end
            end)
            assert.equal(1, runs)
            assert.equal(1, sources.loader)
        end)

        it("a batch, a write-through and locks work as they do anywhere", function()
            local inside, most = 0, 0
            run(function()
                assert(cache:setMulti({ a = 1, b = 2 }))
                assert.same({ a = 1, b = 2 }, (cache:getMulti({ "a", "b", "c" })))
                assert.equal(3, (cache:put("a", 60, function() return 3 end)))
                for _ = 1, 10 do
                    spawn(function()
                        assert(cache:withLock("job", { wait = 10 }, function()
                            inside = inside + 1
                            most = math.max(most, inside)
                            assert.equal(3, (cache:get("a")))
                            inside = inside - 1
                            return true
                        end))
                    end)
                end
            end)
            assert.equal(1, most)
        end)

        it("a loader that asks for its own key is told so", function()
            local _, err = run(function()
                return cache:remember("k", 60, function()
                    return cache:remember("k", 60, function() return 1 end)
                end)
            end)
            assert.equal("recursive", err.cause.code)
        end)

        it("a loader is told so although another caller loads the key alone meanwhile", function()
            -- Both orders of their ends: the inner mark goes first, or the outer one does.
            for _, order in ipairs({ "alone ends first", "alone ends last" }) do
                local codes, alone_loads, outer_ended = {}, false, false
                local function until_true(fn)
                    local deadline = clock.now() + clock.scaled(5)
                    while not fn() and clock.now() < deadline do coroutine.yield() end
                    assert.is_true(fn(), order)
                end
                local function ask()
                    local _, err = cache:remember("k", 60, error, { waitTimeout = 5 })
                    codes[#codes + 1] = err and err.code
                end
                run(function()
                    local alone
                    local outer = spawn(function()
                        return cache:remember("k", 60, function()
                            until_true(function() return alone_loads end)
                            ask()
                            if order == "alone ends first" then
                                alone:wait()
                                ask()
                            end
                            outer_ended = true
                            return "outer"
                        end)
                    end)
                    alone = spawn(function()
                        local options = { waitTimeout = 0.05, onTimeout = "load" }
                        return cache:remember("k", 60, function()
                            alone_loads = true
                            if order == "alone ends last" then
                                until_true(function() return outer_ended end)
                                outer:wait()
                                ask()
                            end
                            return "alone"
                        end, options)
                    end)
                    assert.equal("alone", (alone:wait()))
                    assert.equal("outer", (outer:wait()))
                    -- No mark is left: the same coroutine may load the key again.
                    cache:delete("k")
                    assert.equal("again", (cache:remember("k", 60, function() return "again" end)))
                end)
                assert.same({ "recursive", "recursive" }, codes, order)
                assert.is_nil(next(cache._client.loading), order)
                cache:delete("k")
            end
        end)

        it("a coroutine of somebody else's making blocks, and comes to no harm", function()
            local order = {}
            assert(cache:set("k", "v"))
            run(function()
                spawn(function()
                    assert(cache:get("k"))
                    order[#order + 1] = "other"
                end)
                local generate = coroutine.wrap(function()
                    for _ = 1, 3 do coroutine.yield((cache:get("k"))) end
                end)
                for _ = 1, 3 do assert.equal("v", generate()) end
                order[#order + 1] = "generator"
            end)
            assert.same({ "generator", "other" }, order)
            assert.equal("v", (cache:get("k"))) -- as does the program outside
        end)

        it("calls before, in and after a run use the same slots", function()
            for round = 1, 50 do
                assert(cache:set("k", round))
                run(function()
                    for _ = 1, 3 do
                        spawn(function() assert.equal(round, (cache:get("k"))) end)
                    end
                end)
                assert.equal(round, (cache:get("k")))
            end
        end)

        it("what waits is told when the cache is closed", function()
            local waiting
            local answer = run(function()
                cache:remember("slow", 60, function()
                    waiting = spawn(function()
                        local _, err = cache:remember("slow", 60, function() end)
                        return err and err.code
                    end)
                    coroutine.yield()
                    coroutine.yield()
                    cache:close()
                    return 1
                end)
                return waiting:wait()
            end)
            assert.equal("closed", answer)
        end)
    end)
end

describe("with a server", function()
    it("1,000 coroutines share two connections", function()
        local cache = open({ commandTimeout = 10 })
        local most = 0
        run(function()
            for i = 1, 1000 do
                spawn(function()
                    cache:remember("k" .. i, 60, function() return i end)
                    if i % 250 == 0 then most = math.max(most, connections()) end
                    assert.equal(i, (cache:get("k" .. i)))
                end)
            end
        end)
        assert.equal(2, most)
    end)

    it("a lease is renewed while its loader keeps Lua busy", function()
        local cache, foreign = open({ leaseTtl = 1.5 }), redis:client()
        local _, err, source, flag = run(function()
            return cache:remember("k", 60, function()
                work(2)
                assert.equal(1, foreign:call("EXISTS", "k"))
                return "made"
            end)
        end)
        assert.equal("loader", source, tostring(err))
        assert.is_nil(flag)
        assert.is_true(cache:stats().heartbeats > 0)
    end)

    it("an operation ends by its time while nobody answers", function()
        local cache = open({ commandTimeout = clock.scaled(0.2) })
        assert(cache:set("k", 1))
        redis:pause()
        local codes = run(function()
            local handles, list = {}, {}
            for i = 1, 20 do
                handles[i] = spawn(function()
                    local _, err = cache:get("k")
                    return err and err.code
                end)
            end
            for i = 1, 20 do list[i] = handles[i]:wait() end
            return table.concat(list, " ")
        end)
        redis:resume()
        assert.equal(("timeout "):rep(20), codes .. " ")
    end)
end)

describe("with several clients", function()
    it("each may be what another one waits for", function()
        local near, far, store = open(), open({ group = "far" }), open({ url = "memory://" })
        local order = {}
        local function wait_for_it()
            far:withLock("job", { wait = 10 }, function()
                assert.equal(20, (near:get("k")))
                order[#order + 1] = "second"
                return true
            end)
        end
        run(function()
            spawn(function()
                near:withLock("job", {}, function()
                    spawn(wait_for_it)
                    for i = 1, 20 do
                        assert(far:set("k", i))
                        assert(store:set("k", i))
                        assert.equal(i, (store:get("k")))
                    end
                    order[#order + 1] = "first"
                    return true
                end)
            end)
        end)
        assert.same({ "first", "second" }, order)
    end)

    it("a wait on one does not hold up the others", function()
        local near, far = open(), open({ group = "far" })
        assert(far:set("k", 1))
        local holder = near:lock("held")
        assert(holder:acquire())
        local read, waited
        run(function()
            spawn(function()
                waited = near:lock("held", { wait = 20 }):acquire()
                assert.is_true(read)
            end)
            spawn(function()
                for _ = 1, 20 do assert.equal(1, (far:get("k"))) end
                read = true
                assert.is_nil(waited)
                assert(holder:release())
            end)
        end)
        assert.is_true(waited)
    end)

    it("of one clock wait in the order of its time", function()
        local time = redcache.clock()
        local first = open({ url = "memory://", clock = time, group = "a" })
        local second = open({ url = "memory://", clock = time, group = "b" })
        local order, held = {}, first:lock("held", { ttl = 60 })
        run(function()
            assert(held:acquire())
            spawn(function()
                second:lock("held", { wait = 5 }):acquire()
                order[#order + 1] = ("second %.2f"):format(time:now())
            end)
            spawn(function()
                first:lock("held", { wait = 2 }):acquire()
                order[#order + 1] = ("first %.2f"):format(time:now())
            end)
        end)
        assert.same({ "first 2.00", "second 5.00" }, order)
        assert.is_true(held:valid())
    end)
end)
