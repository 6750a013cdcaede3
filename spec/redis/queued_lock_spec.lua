-- Fair and read-write locks of several processes, some of which are killed: an outside checker of
-- who was inside when. What single calls promise: spec/support/cases, fairs and reads_writes.
--
-- Env: REDCACHE_LOCK_ROUNDS: rounds of 8 processes, 4 of which are killed while they hold or wait
--      (1); REDCACHE_LOCK_TURNS: how often each of them takes the lock (40; 400 with more rounds).

local clock = require("spec.support.clock")
local contest = require("spec.support.contest")
local herd = require("spec.support.herd")
local monitor = require("spec.support.monitor")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local PROCESSES = 8
local ROUNDS = tonumber(os.getenv("REDCACHE_LOCK_ROUNDS")) or 1
local TURNS = tonumber(os.getenv("REDCACHE_LOCK_TURNS")) or (ROUNDS > 1 and 400 or 40)

-- How often somebody came in who should not have, how often anybody did, and the most readers.
local function check(steps)
    local inside, violations, turns, most = { r = 0, w = 0 }, 0, 0, 0
    for _, step in ipairs(steps) do
        local change, kind = step[2], step[3]
        inside[kind] = inside[kind] + change
        if change == 1 then
            turns = turns + 1
            most = math.max(most, inside.r)
            if inside.w > 1 or inside.w == 1 and inside.r > 0 then violations = violations + 1 end
        end
    end
    return violations, turns, most
end

-- By what the server has done: how often somebody got the lock although another, who asked before,
-- still waited; and how many got it. Whose ticket ended, for its process stood still, does not
-- count.
local function overtaken(commands, ttl)
    local asked, waiting, count, grants = {}, {}, 0, 0
    for i, command in ipairs(commands) do
        local words = command.words
        if command.name:find("^eval") and words[3] == "5" then
            local token = words[9]
            local last = asked[token]
            if not last then
                waiting[token] = { index = i }
            elseif command.at - last > ttl * 0.9 then
                waiting[token] = nil
            end
            asked[token] = command.at
        elseif command.script and command.name == "set" and words[2] == "//lock:{job}" then
            local token = words[3]
            local own = waiting[token] or { index = 0 }
            waiting[token], grants = nil, grants + 1
            for other, ticket in pairs(waiting) do
                local is_late = command.at - asked[other] > ttl * 0.9
                if ticket.index < own.index and not is_late then count = count + 1 end
            end
        end
    end
    return count, grants
end

-- One of the processes: takes the lock again and again, and logs when it was inside.
local function main(one)
    local params = one.params
    local now, pause = require("spec.support.clock").now, require("spec.support.clock").sleep
    local cache = require("redcache").new({ url = params.url, near = false,
        commandTimeout = params.timeout })
    local log = assert(io.open(params.path, "a"))
    log:setvbuf("no")
    local function stay(kind)
        return function(held)
            local came = now()
            log:write(("+%s%.9f\n"):format(kind, came))
            pause(0.002)
            -- Whoever lost it while the machine stood still counts for nothing.
            log:write(("-%s%.9f\n"):format(kind, held:valid() and now() or came))
            return true
        end
    end
    local options = { ttl = params.ttl, wait = 60 }
    local doc = cache:readWriteLock("doc")
    one:ready()
    one:emit("taking")
    for turn = 1, params.turns do
        local ok, err
        if params.kind then
            options.fair = true
            ok, err = cache:withLock("job", options, stay("w"))
        elseif (turn + one.index) % 4 == 0 then
            ok, err = doc:withWrite(options, stay("w"))
        else
            ok, err = doc:withRead(options, stay("r"))
        end
        if not ok and err.code ~= "lockLost" then error(err) end
    end
    cache:close()
    return true
end

describe("of several processes:", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function() redis:reset() end)

    local function open()
        local cache = redcache.new({ url = redis:url(), near = false, commandTimeout = 20 })
        finally(function() cache:close() end)
        return cache
    end

    -- Lets all of them take the lock, kills half.
    local function contend(kind)
        return check(contest.run(PROCESSES, { url = redis:url(), turns = TURNS, kind = kind,
            timeout = clock.patience(10), ttl = clock.scaled(1) }, main))
    end

    it("a read-write lock lets readers in together and a writer alone", function()
        local all = 0
        for _ = 1, ROUNDS do
            local violations, turns, most = contend()
            assert.equal(0, violations)
            assert.is_true(turns >= TURNS * PROCESSES / 2, turns)
            assert.is_true(most > 1, most)
            all = all + turns
        end
        if ROUNDS > 1 then print(("%d turns, 0 violations"):format(all)) end
    end)

    it("a fair lock lets in one at a time, in the order of coming", function()
        local all = 0
        -- Redis knows the script: an ask that it refused for that would be no ticket.
        assert.is_true(open():withLock("job", { fair = true }, function() return true end))
        for round = 1, ROUNDS do
            local watching = round == 1 and monitor.start(redis)
            local violations, turns = contend("fair")
            assert.equal(0, violations)
            assert.is_true(turns >= TURNS * PROCESSES / 2, turns)
            all = all + turns
            if watching then
                local count, grants = overtaken(watching:stop(), clock.scaled(1))
                assert.equal(0, count)
                assert.is_true(grants >= turns, grants)
            end
        end
        if ROUNDS > 1 then print(("%d turns, 0 violations"):format(all)) end
    end)

    it("a lock that serves out of turn is seen by the checker", function()
        local function ask(token, at)
            return { at = at, name = "evalsha",
                words = { "EVALSHA", "sha", "5", 1, 2, 3, 4, 5, token } }
        end
        local function grant(token, at)
            return { at = at, name = "set", script = true,
                words = { "SET", "//lock:{job}", token } }
        end
        local steps = { ask("a", 1), ask("b", 1.1), ask("b", 1.2), grant("b", 1.2), ask("a", 1.3),
            grant("a", 1.3) }
        assert.same({ 1, 2 }, { overtaken(steps, 1) })
        steps[2], steps[1] = steps[1], steps[2]
        assert.same({ 0, 2 }, { overtaken(steps, 1) })
    end)

    it("a lock that lets in two is seen by the checker", function()
        local paths, dir = {}, temp.dir()
        finally(function() temp.remove(dir) end)
        for i, text in ipairs({
            "+r1\n-r4\n+w7\n",
            "+w2\n-w3\n+w4\n-w5\n+w6\n-w6\n+w8\n-w8.5\n" }) do
            paths[i] = dir .. "/" .. i
            temp.write(paths[i], text)
        end
        assert.equal(1, (check(contest.read_steps(paths, { 7.5 }))))
        assert.equal(2, (check(contest.read_steps(paths, { 9 }))))
    end)

    -- A process that does this with its handle, and is killed then.
    local function kill_one(side, waits)
        local dying = herd.start({
            count = 1, tolerant = true,
            -- So much time there is to see that the key is still held.
            params = { url = redis:url(), side = side, waits = waits, ttl = clock.scaled(2) },
            main = function(one)
                local cache = require("redcache").new({ url = one.params.url, near = false,
                    commandTimeout = 20, connectTimeout = 20 })
                local doc = cache:readWriteLock("doc")
                local handle = doc[one.params.side](doc, { ttl = one.params.ttl, wait = 60 })
                if not one.params.waits then assert(handle:acquire(0)) end
                one:emit("there")
                if one.params.waits then handle:acquire() end
                require("spec.support.clock").sleep(60)
            end,
        })
        dying:wait_events("there", 1, 30)
        if waits then
            clock.wait_until(function()
                return redis:call("STRLEN", "{doc}//rwlock:{doc}!:queue") == waits * 47
            end, 30, "the ticket")
        end
        dying.workers[1]:kill()
        dying:join()
    end

    it("a killed holder is gone after its ttl", function()
        local doc = open():readWriteLock("doc")
        kill_one("read")
        local writer = doc:write()
        assert.equal("notAcquired", (select(2, writer:acquire(0))).code)
        assert.is_true(writer:acquire(clock.scaled(10)) and writer:release())
        kill_one("write")
        local reader = doc:read()
        assert.equal("notAcquired", (select(2, reader:acquire(0))).code)
        assert.is_true(reader:acquire(clock.scaled(10)) and reader:release())
    end)

    it("a killed waiter is in nobody's way after its ttl", function()
        local doc = open():readWriteLock("doc")
        local held, reader = doc:read(), doc:read()
        assert.is_true(held:acquire(0))
        kill_one("write", 2)
        assert.equal("notAcquired", (select(2, reader:acquire(0))).code)
        assert.is_true(reader:acquire(clock.scaled(10)))
        assert.is_true(held:release() and reader:release())
    end)

    it("a fair lock serves processes in the order in which their tickets came", function()
        local cache = open()
        local first, path = cache:lock("job"), temp.dir() .. "/order"
        assert.is_true(first:acquire(0))
        local waiters = herd.start({
            count = 5, timeout = 60,
            params = function(i) return { url = redis:url(), path = path, turn = i } end,
            main = function(one)
                local clocks = require("spec.support.clock")
                local own = require("redcache").new({ url = one.params.url, near = false,
                    commandTimeout = 20, connectTimeout = 20 })
                local raw = own:redis()
                clocks.wait_until(function()
                    return raw:command("STRLEN", "{job}//lock:{job}!:queue")
                        == 47 * (one.params.turn - 1)
                end, 30, "my turn to ask")
                assert(own:withLock("job", { fair = true, wait = 60 }, function()
                    local log = assert(io.open(one.params.path, "a"))
                    log:write(one.params.turn)
                    log:close()
                    return true
                end))
                own:close()
            end,
        })
        clock.wait_until(function()
            return redis:call("STRLEN", "{job}//lock:{job}!:queue") == 47 * 5
        end, 30, "the queue")
        assert.is_true(first:release())
        waiters:join()
        assert.equal("12345", temp.read(path))
    end)

    it("a writer is served though readers never leave it alone", function()
        local readers = herd.start({
            count = 8, timeout = 120,
            params = { url = redis:url() },
            main = function(one)
                local clocks = require("spec.support.clock")
                local cache = require("redcache").new({ url = one.params.url, near = false,
                    commandTimeout = 20, connectTimeout = 20 })
                local doc = cache:readWriteLock("doc")
                one:ready()
                one:emit("reading")
                local deadline = clocks.deadline(100)
                while not cache:exists("stop") and clocks.now() < deadline do
                    -- Each of the eight is inside for nearly all of the time.
                    local ok, err = doc:withRead({ wait = 60 }, function()
                        clocks.sleep(0.02)
                        return true
                    end)
                    -- Who gets no processor for its ttl has lost it: the machine's affair.
                    assert(ok or err.code == "lockLost", tostring(err))
                end
                cache:close()
            end,
        })
        readers:wait_events("reading", 8, 30)
        local cache = open()
        local doc = cache:readWriteLock("doc")
        for _ = 1, 10 do
            -- One that is never served waits for as long as this lets it.
            local ok, err = doc:withWrite({ wait = clock.scaled(20) }, function() return true end)
            assert.is_true(ok, tostring(err))
        end
        assert(cache:set("stop", true, 60))
        readers:join()
    end)
end)
