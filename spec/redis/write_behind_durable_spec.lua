-- setBehind with durable = true: processes that set and write are killed (kill -9) and stopped for
-- longer than their locks live, and so is Redis, with appendfsync always. The store outside is a
-- server of its own, which writes down what it is given. Nothing that was acknowledged is lost, and
-- no key goes back. REDCACHE_BEHIND_WRITES makes the run longer than 400 acknowledged writes.

local clock = require("spec.support.clock")
local posix = require("spec.support.posix")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local WRITES = tonumber(os.getenv("REDCACHE_BEHIND_WRITES") or 400)
local WORKERS, VALUES = 3, 4

-- Sets values of its own keys, until it is told to stop, and writes those of all. What was
-- acknowledged is a line of its file.
local function live(one)
    local params = one.params
    local clock_there, resp = require("spec.support.clock"), require("spec.support.resp")
    local posix_there = require("spec.support.posix")
    local store = resp.connect({ port = params.store })
    local file = assert(io.open(params.file, "a"))
    math.randomseed(params.seed)
    local cache = require("redcache").new({
        url = params.url, namespace = "app", near = false, lockTtl = params.lockTtl,
        connectTimeout = 5, commandTimeout = 5,
        writeBehind = { durable = true, partitions = 2, attempts = 100, batch = 20, entries = 400,
            write = function(items)
                if math.random() < 0.03 then return nil, "bad luck" end
                if math.random() < 0.03 then error("thrown") end
                store:call("SET", "writer", posix_there.C.getpid())
                clock_there.sleep(0.005) -- time to be killed in
                for _, item in ipairs(items) do
                    -- A store that knows fences.
                    store:call("EVAL", [[
                        local seen=tonumber(redis.call('HGET','fences',KEYS[1]) or 0)
                        if tonumber(ARGV[2])<seen then return 0 end
                        redis.call('HSET','fences',KEYS[1],ARGV[2])
                        return redis.call('RPUSH','log',KEYS[1]..'='..ARGV[1])
                    ]], 1, item.key, ("%.0f"):format(item.value), ("%.0f"):format(item.fence))
                end
                return true
            end },
    })
    one:emit("begun", { pid = posix_there.C.getpid() })
    local stopped, n = false, 0
    while true do
        local message = one:receive(stopped and 0.005 or 0)
        stopped = stopped or message and message.what == "stop"
        if message and message.what == "close" then
            cache:close()
            return
        end
        if stopped then
            cache:work(0)
        else
            n = n + 1
            -- Few values a key: what is lost is not hidden by a later one.
            local key = ("w%d:%d:%d"):format(one.index, params.seed, n / params.values)
            local value = params.seed * 1e6 + n
            if cache:setBehind(key, value, 600) then
                file:write(key, " ", ("%.0f"):format(value), "\n")
                file:flush()
            else
                clock_there.sleep(0.01)
            end
        end
    end
end

describe("what a durable setBehind has acknowledged", function()
    local redis, store, dir, workers, seed

    setup(function()
        redis = server.start({ config = { "appendonly yes", "appendfsync always",
            "auto-aof-rewrite-min-size 4mb" } })
        store = server.start()
        dir = temp.dir()
    end)
    teardown(function()
        redis:stop()
        store:stop()
        temp.remove(dir)
    end)
    before_each(function() workers, seed = {}, 0 end)
    after_each(function()
        for _, one in pairs(workers) do
            posix.C.kill(one.pid, posix.SIGCONT)
            one:kill()
        end
    end)

    local function begin(i)
        seed = seed + 1
        workers[i] = worker.start({ main = live, index = i, params = {
            url = redis:url(), store = store.port, file = dir .. "/" .. i, seed = seed,
            values = VALUES, lockTtl = clock.scaled(0.5),
        } })
        workers[i]:event("begun")
    end

    -- The last value of each key that was acknowledged, and how many values that were.
    local function acknowledged()
        local last, count = {}, 0
        for i = 1, WORKERS do
            local file = io.open(dir .. "/" .. i)
            for line in file and file:lines() or function() end do
                local key, value = line:match("^(%S+) (%d+)$")
                if key then last[key], count = tonumber(value), count + 1 end
            end
            if file then file:close() end
        end
        return last, count
    end

    -- Who is writing, as far as it is known: who is killed there loses most.
    local function writer()
        local pid = tonumber(store:call("GET", "writer"))
        for i, one in ipairs(workers) do
            if one.pid == pid then return i end
        end
        return math.random(WORKERS)
    end

    local function waiting()
        return redis:call("XLEN", "app//behind:{0}") + redis:call("XLEN", "app//behind:{1}")
    end

    it("is written, in the order of each key, whoever is killed", function()
        for i = 1, WORKERS do begin(i) end
        local faults, deadline = 0, clock.deadline(math.max(60, WRITES / 100))
        repeat
            clock.sleep(0.1 + math.random() * 0.2)
            local i = writer()
            faults = faults + 1
            if faults % 5 == 3 then
                redis:restart()
            elseif faults % 5 == 1 then
                posix.C.kill(workers[i].pid, posix.SIGSTOP)
                clock.sleep(clock.scaled(0.6))
                posix.C.kill(workers[i].pid, posix.SIGCONT)
            else
                workers[i]:kill()
                begin(i)
            end
            local _, count = acknowledged()
        until count >= WRITES and faults >= math.max(6, WRITES / 1000) or clock.now() > deadline
        for i = 1, WORKERS do workers[i]:send({ what = "stop" }) end
        clock.wait_until(function() return waiting() == 0 end, 60, "the writes")
        for i = 1, WORKERS do workers[i]:send({ what = "close" }) end
        for i = 1, WORKERS do workers[i]:join() end

        local last, written = {}, store:call("LRANGE", "log", 0, -1)
        for _, line in ipairs(written) do
            local key, value = line:match("^(.-)=(%d+)$")
            value = tonumber(value)
            assert.is_true(value >= (last[key] or 0), line .. " behind " .. tostring(last[key]))
            last[key] = value
        end
        local expected, count = acknowledged()
        assert.is_true(count >= WRITES, count)
        for key, value in pairs(expected) do
            assert.is_true((last[key] or 0) >= value, key .. ": " .. tostring(last[key]))
        end
        if WRITES > 400 then
            print(("%d acknowledged, %d written, %d faults"):format(count, #written, faults))
        end
    end)
end)

it("durable = true is refused for memory://, when the cache is made", function()
    local fields = { durable = true, write = function() return true end }
    assert.error_matches(function() redcache.new({ writeBehind = fields }) end,
        "bad option 'writeBehind' to new: 'durable': memory:// has no streams", 1, true)
    local cache = redcache.new()
    assert.error_matches(function() cache:namespace("n", { writeBehind = fields }) end,
        "bad option 'writeBehind' to namespace: 'durable': memory:// has no streams", 1, true)
    cache:close()
end)
