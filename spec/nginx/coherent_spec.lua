-- What every worker of an nginx reads is what Redis has: foreign writes are seen at once, and no
-- fault makes a worker serve, unmarked, what was replaced longer ago than it may.
--
-- Env: REDCACHE_NGINX_WRITES: measured writes of each kind (100).
--      REDCACHE_NGINX_SECONDS: how long each kind of fault goes on (2).
--      REDCACHE_NGINX_DRIVER: "loop" (the default) or "thread".

local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local proxy = require("spec.support.proxy")
local reader = require("spec.nginx.counter_reader")
local server = require("spec.support.server")
local tally = require("spec.nginx.tally")
local temp = require("spec.support.temp")
local waited = require("spec.near.waited")
local watcher = require("spec.nginx.change_watcher")
local worker = require("spec.support.worker")

local WRITES = tonumber(os.getenv("REDCACHE_NGINX_WRITES")) or 100
local SECONDS = tonumber(os.getenv("REDCACHE_NGINX_SECONDS")) or 2
local DRIVER = os.getenv("REDCACHE_NGINX_DRIVER") or "loop"
local WORKERS = 2
local MAX_STALE = 0.2

local possible, reason = nginx.is_possible()
if not possible then
    pending("coherence in nginx: " .. reason)
    return
end

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

describe("a foreign write", function()
    -- Where nobody disturbs. The time in which Redis or a worker was ready and had no processor
    -- does not count.
    local UNDISTURBED = 0.005

    -- What ends the old value, and how long after its answer that is due.
    local KINDS = {
        { "SET", function(foreign, version) foreign:call("SET", "k", version + 1) end, 0 },
        { "DEL", function(foreign) foreign:call("DEL", "k") end, 0 },
        { "PEXPIRE", function(foreign) foreign:call("PEXPIRE", "k", 1) end, 0.001 },
        { "FLUSHALL", function(foreign) foreign:call("FLUSHALL") end, 0 },
    }

    local bed, cells, foreign, watch, version

    local function cell(id, field) return cells[id * watcher.ROOM + field] end

    local function until_all(what, condition)
        clock.wait_until(function()
            for id = 0, WORKERS - 1 do
                if not condition(id) then return false end
            end
            return true
        end, 10, what)
    end

    -- From the answer to the beginning of each worker's last read that got the old value: a worker
    -- that has no processor reads nothing old.
    local function measure(write, due, into)
        version = version + 2
        foreign:call("SET", "k", version)
        until_all("the value in memory", function(id)
            return cell(id, watcher.NEAR) == version and cell(id, watcher.VALUE) == version
        end)
        local before = watch:seconds()
        write(foreign, version)
        local from = clock.now() + due
        until_all("the change", function(id) return cell(id, watcher.VALUE) ~= version end)
        local disturbed = watch:seconds() - before
        for id = 0, WORKERS - 1 do
            into[#into + 1] = math.max(cell(id, watcher.UNTIL) - from - disturbed, 0)
        end
    end

    local function run(name, write, due)
        local took = {}
        for _ = 1, WRITES do measure(write, due, took) end
        table.sort(took)
        local most = took[math.ceil(#took * 0.99)]
        print(("%s: old for %.2f ms (p99), %.2f ms (max)"):format(name, most * 1000,
            took[#took] * 1000))
        return most
    end

    setup(function()
        local path = temp.dir() .. "/cells"
        cells, version = watcher.map(path), 0
        bed = nginx.start({
            workers = WORKERS,
            init = ([[
                cache = require("redcache").new({
                    url = "%s", scheduler = "resty", driver = "%s",
                })
                watcher = require("spec.nginx.change_watcher")
            ]]):format(redis:url(), DRIVER),
            init_worker = ([[watcher.start("%s", cache, "k")]]):format(path),
        })
        foreign, watch = redis:client(), waited.watch({ redis.pid, unpack(bed:workers()) })
    end)
    teardown(function() bed:stop() end)

    for _, kind in ipairs(KINDS) do
        local name, write, due = unpack(kind)
        it(("(%s) is seen by every worker in 5 ms (p99)"):format(name), function()
            local most = run(name, write, due)
            assert.is_true(most <= clock.scaled(UNDISTURBED), ("p99 %g ms"):format(most * 1000))
            assert.same({}, bed:complaints())
        end)
    end
end)

describe("a counter that only grows", function()
    local NAMES = { "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8" }
    local PROGRESS_SECONDS, LIVELY = 30, 1000

    local line, bed, board, writer, dir

    before_each(function()
        line = proxy.start(redis)
        dir = temp.dir()
        board = board_of.map(dir .. "/board", #NAMES)
    end)
    after_each(function()
        board:stop()
        if bed then bed:stop() end
        line:stop()
        if writer then writer:join(10) end
    end)

    local function start(options)
        options = options or {}
        bed = nginx.start({
            workers = WORKERS,
            init = ([[
                cache = require("redcache").new({
                    url = "%s", scheduler = "resty", driver = "%s",
                    maxStale = %g, commandTimeout = 0.05,
                    leaseTtl = 1, waitTimeout = 0.5, degradedTtl = 0.1,
                })
                reader = require("spec.nginx.counter_reader")
            ]]):format(line:url(), DRIVER, MAX_STALE),
            init_worker = ([[
                reader.start({
                    cache = cache, max_stale = %g, board = "%s/board", truth = "%s/truth",
                    tally = "%s/tally", names = { "%s" }, mutant = "%s",
                })
            ]]):format(MAX_STALE, dir, dir, dir, table.concat(NAMES, '", "'),
                options.mutant or ""),
        })
        writer = worker.start({
            main = function(one) return require("spec.nginx.counter_writer")(one) end,
            params = {
                path = redis.path, board = dir .. "/board", truth = dir .. "/truth", names = NAMES,
            },
        })
        writer:event("writing")
    end

    local function counts() return tally.read(dir .. "/tally", reader.COUNTS, WORKERS) end

    -- Every worker reads from memory and from Redis for a while.
    local function expect_life()
        local _, before = counts()
        clock.wait_until(function()
            local _, now = counts()
            for id = 0, WORKERS - 1 do
                local more = {}
                for name, count in pairs(now[id]) do more[name] = count - before[id][name] end
                if more.l0 + more.near < LIVELY or more.redis < LIVELY / 20 then return false end
            end
            return true
        end, PROGRESS_SECONDS, "that all workers read")
    end

    local function expect_nothing_wrong(name)
        local sum = counts()
        local text = ("%s: %d checks (l0 %d, near %d, redis %d, loader %d), %d stale, %d degraded, "
            .. "%d errors, %d violations"):format(name, sum.checks, sum.l0, sum.near, sum.redis,
            sum.loader, sum.stale, sum.flagged, sum.errors, sum.violations)
        print(text)
        assert.equal(0, sum.violations, text .. "\n" .. table.concat(bed:complaints(), "\n"))
        assert.is_true(sum.loader > 0, text)
    end

    -- Faults that come again and again, each followed by a while in which all is well.
    local FAULTS = {
        ["when a worker is killed"] = function()
            local workers = bed:workers()
            local killed = workers[math.random(#workers)]
            bed:kill_worker(killed)
            clock.wait_until(function()
                return not tally.has_pid(dir .. "/tally", killed, WORKERS)
            end, 10, "a new worker")
        end,
        ["when connections are killed"] = function()
            redis:call("CLIENT", "KILL", "TYPE", "normal")
        end,
        ["when Redis is stopped for a while"] = function()
            redis:pause()
            clock.sleep(2 * MAX_STALE)
            redis:resume()
        end,
        ["behind a line that swallows what Redis tells"] = function()
            line:stall("down", "tracking")
            clock.sleep(2 * MAX_STALE)
            line:flow()
        end,
        ["behind a line that swallows everything"] = function()
            line:stall("both")
            clock.sleep(2 * MAX_STALE)
            line:flow()
        end,
        ["behind a line that swallows a connection for good"] = function()
            line:chaos({ seed = math.random(1000000), down = { swallow = 0.05 } })
            clock.sleep(MAX_STALE)
            line:calm()
        end,
    }

    for name, fault in pairs(FAULTS) do
        it("is never seen going back, nor older than maxStale, " .. name, function()
            start()
            expect_life()
            local ends = clock.now() + SECONDS
            repeat
                fault()
                expect_life()
            until clock.now() > ends
            expect_nothing_wrong(name)
        end)
    end

    -- Whatever is read stands in memory, in all workers.
    local function expect_memory_alone()
        local _, before = counts()
        clock.wait_until(function()
            local _, now = counts()
            local is_enough = true
            for id = 0, WORKERS - 1 do
                local from, to = before[id], now[id]
                if to.redis + to.loader + to.missing > from.redis + from.loader + from.missing then
                    before = now
                    return false
                end
                is_enough = is_enough and to.l0 + to.near - from.l0 - from.near > LIVELY / 4
            end
            return is_enough
        end, PROGRESS_SECONDS, "that all keys stand in memory")
    end

    -- The writer holds until every key stands in memory, and the line still tells: only then do
    -- copies outlive what the line swallows. A moment of its own choosing may find each key on its
    -- way, and a second later the line is given up, with all copies.
    for _, mutant in ipairs({ "table", "trusting" }) do
        it(("would be seen to be wrong in a cache that is not told ('%s')"):format(mutant),
            function()
                start({ mutant = mutant })
                clock.wait_until(function() return (counts()).redis > 100 end, 10, "some reads")
                board:hold()
                expect_memory_alone()
                line:stall("down", "tracking")
                board:release()
                clock.wait_until(function() return (counts()).violations > 0 end, 10, "a violation")
                assert.is_truthy(bed:log():find("wrong: "))
                line:flow()
            end)
    end
end)
