-- Near cache, leases and locks on a line that breaks in every way there is: several processes live
-- on it while another program writes directly. What may never happen does not, and when the line
-- is good again everything works within a moment.
--
-- Env: REDCACHE_CHAOS_SEED: the seed of the first run; every failure tells its own (else random).
--      REDCACHE_CHAOS_SECONDS: how long each kind of line is bad (5; 3 under sanitizers).

local board_of = require("spec.near.board")
local chaos = require("spec.support.chaos")
local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local posix = require("spec.support.posix")
local proxy = require("spec.support.proxy")
local resp = require("spec.support.resp")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local SECONDS = tonumber(os.getenv("REDCACHE_CHAOS_SECONDS")) or clock.scale == 1 and 5 or 3
local SEED = tonumber(os.getenv("REDCACHE_CHAOS_SEED")) or (os.time() + posix.C.getpid()) % 1000000
local CLIENTS, COUNTERS, LOADED = 3, 10, 10
-- A half-open connection is given up after a second without an answer; then a new one is made.
local WELL_SECONDS = 3

local OPTIONS = {
    maxStale = 0.2, commandTimeout = 0.3, connectTimeout = 0.3, waitTimeout = 1, leaseTtl = 1,
    degradedTtl = 0.2, lockTtl = 0.8, lockWait = 0.2,
}

local redis, line

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    line = proxy.start(redis)
end)
after_each(function() line:stop() end)

describe("the proxy's chaos", function()
    local function fates(settings, number, direction)
        local stream, list = chaos.stream(settings, number, direction, {}), {}
        for i = 1, 200 do list[i] = { stream:pass(("+%d\r\n"):format(i):rep(20)) } end
        return list
    end

    local function connect() return resp.connect(line, { resp = 2 }) end

    local COMES = 10

    -- What comes back for a PING, until the line ends or nothing comes any more; and how it ends.
    -- first: how long to wait where something comes, rest: where the line ends, too (0.1 s each).
    local function hear(client, first, rest)
        client:send({ { "PING" } })
        local heard = {}
        while true do
            local bytes, err = client.connection:receive(#heard == 0 and first or rest or 0.1)
            if not bytes then return table.concat(heard), err end
            heard[#heard + 1] = bytes
        end
    end

    local function always(direction, what)
        line:chaos({ seed = SEED, [direction] = what })
    end

    it("makes the same decisions for the same seed, connection and bytes", function()
        local much = {
            delay = { chance = 0.5, seconds = 1 }, garbage = 0.3, truncate = 0.001,
            split = { chance = 0.5, pieces = 4, seconds = 1 },
        }
        local settings = { seed = SEED, up = much, down = much }
        local first = fates(settings, 1, "up")
        assert.same(first, fates(settings, 1, "up"))
        assert.are_not.same(first, fates(settings, 2, "up"))
        assert.are_not.same(first, fates(settings, 1, "down"))
        settings.seed = SEED + 1
        assert.are_not.same(first, fates(settings, 1, "up"))
    end)

    it("delays, splits and throttles without losing a byte", function()
        local large = ("0123456789"):rep(500)
        for _, what in ipairs({
            { delay = { chance = 1, seconds = 0.02 } },
            { split = { chance = 1, pieces = 9, seconds = 0.002 } },
            { throttle = 100000 },
        }) do
            line:chaos({ seed = SEED, up = what, down = what })
            local client = connect()
            local took = clock.time(function()
                client:call("SET", "large", large)
                assert.equal(large, client:call("GET", "large"))
            end)
            -- Twice 5000 bytes at 100 kB/s.
            assert.is_true(took > (what.throttle and 0.1 or 0.001), took)
        end
    end)

    it("swallows one direction for good: the other goes on", function()
        local client = connect()
        always("down", { swallow = 1 })
        client:send({ { "SET", "k", "v" } })
        assert.same({ "", "timeout" }, { hear(client) })
        assert.equal("v", redis:call("GET", "k"))
        line:calm()
        assert.same({ "", "timeout" }, { hear(client) })
        assert.equal("PONG", connect():call("PING"))
    end)

    it("breaks the line in the middle of an answer, or of a command", function()
        for what, ending in pairs({ truncate = "closed", reset = "Connection reset by peer" }) do
            for _, direction in ipairs({ "down", "up" }) do
                line:calm()
                local client = connect()
                always(direction, { [what] = 1 })
                local heard, err = hear(client, COMES, COMES)
                assert.equal(ending, err)
                assert.is_true(#heard < #"+PONG\r\n" and ("+PONG\r\n"):find(heard, 1, true) == 1)
            end
        end
        assert.equal(1, line:counts().chaos.reset or line:counts().chaos.truncate)
    end)

    it("closes one half: what was said before still arrives", function()
        local client = connect()
        always("down", { finish = 1 })
        assert.same({ "+PONG\r\n", "closed" }, { hear(client, COMES, COMES) })
    end)

    it("replaces bytes so that nobody takes them for an answer or a command", function()
        for _ = 1, 20 do
            line:calm()
            local client = connect()
            always("down", { garbage = 1 })
            assert.equal("x", hear(client, COMES):sub(1, 1))
            line:calm()
            client = connect()
            always("up", { garbage = 1 })
            client:send({ { "SET", "spoilt", "v" } })
            assert.matches("^%-ERR Protocol error", (hear(client, COMES, COMES)))
            client.connection:close()
        end
        assert.equal(0, redis:call("EXISTS", "spoilt"))
    end)
end)

local function key_names()
    local names = {}
    for i = 1, COUNTERS do names[i] = "count:" .. i end
    for i = 1, LOADED do names[COUNTERS + i] = "load:" .. i end
    return names
end

local function with_region(region)
    local options = { url = line:url(), near = { shared = region, bytes = 1024 * 1024 } }
    for name, value in pairs(OPTIONS) do options[name] = value end
    return options
end

-- Several clients on the line, while it is bad in this way and afterwards: what each tells.
-- `lies`: the line is not to be trusted afterwards, either.
local function live(settings, seconds, lies)
    local dir = temp.dir()
    local region = ("chaos-%d-%d"):format(posix.C.getpid(), line.port)
    local params = {
        options = with_region(region), path = redis.path, board = dir .. "/board",
        truth = dir .. "/truth", names = key_names(), counters = COUNTERS, seed = settings.seed,
        started = clock.now(), lies = lies,
    }
    local writer = worker.start({
        main = function(one) return require("spec.support.chaos_writer")(one) end, params = params,
    })
    writer:event("writing")
    local clients = herd.start({
        count = CLIENTS, params = params, timeout = seconds + 60,
        main = function(one) return require("spec.support.chaos_worker")(one) end,
    })
    clients:wait_events("living", CLIENTS, 30)
    line:chaos(settings)
    clock.sleep(seconds)
    line:calm()
    board_of.map(params.board, #params.names):stop()
    local ok, err = pcall(clients.join, clients)
    -- Linux keeps shared memory there; nobody else knows this name.
    os.remove("/dev/shm/redcache-" .. region)
    if not ok then error(err, 0) end
    writer:join()
    return clients.results
end

-- One load per lease: of a key that is never deleted at most one load is stored, and that is what
-- everybody reads.
local function check_loads(results, wrong)
    local answers = {}
    for _, result in ipairs(results) do
        for key, list in pairs(result.once) do
            answers[key] = answers[key] or {}
            for _, answer in ipairs(list) do table.insert(answers[key], answer) end
        end
    end
    local shared = 0
    for key, list in pairs(answers) do
        local stored
        for _, answer in ipairs(list) do
            if answer.flag == nil then
                shared = shared + (answer.value == stored and 1 or 0)
                stored = stored or answer.value
                if answer.value ~= stored then
                    table.insert(wrong, ("%s was loaded as %s and as %s (%s)"):format(key, stored,
                        answer.value, answer.source))
                end
            end
        end
    end
    return shared
end

-- A lock is held by one at a time, and later ones have higher fences.
local function check_locks(results, wrong)
    local held = {}
    for _, result in ipairs(results) do
        for _, one in ipairs(result.held) do held[#held + 1] = one end
    end
    table.sort(held, function(a, b) return a.from < b.from end)
    for i = 2, #held do
        local before, after = held[i - 1], held[i]
        if after.from <= before.to or after.fence <= before.fence then
            table.insert(wrong, ("the lock was granted with fence %.0f, %.6f s after it was held "
                .. "with fence %.0f"):format(after.fence, after.from - before.to, before.fence))
        end
    end
    return #held
end

-- Adds up the numbers of all clients.
local function add_up(results)
    local sum = { calls = 0, violations = 0, sources = {}, errors = {}, wrong = {}, recovered = 0 }
    for _, result in ipairs(results) do
        sum.calls, sum.violations =
            sum.calls + result.calls, sum.violations + result.violations
        sum.recovered = math.max(sum.recovered, result.recovered or 0)
        for _, text in ipairs(result.wrong) do table.insert(sum.wrong, text) end
        for _, name in ipairs({ "sources", "errors" }) do
            for key, count in pairs(result[name]) do
                sum[name][key] = (sum[name][key] or 0) + count
            end
        end
    end
    sum.shared, sum.held = check_loads(results, sum.wrong), check_locks(results, sum.wrong)
    return sum
end

local function list(counts)
    local words = {}
    for name, count in pairs(counts) do words[#words + 1] = name .. " " .. count end
    table.sort(words)
    return table.concat(words, ", ")
end

-- What stands behind every assertion: the seed, and what happened.
local function history(settings, sum)
    return ("seed %d: %d calls; sources: %s; errors and flags: %s; the line: %s; "
        .. "well after %.3f s; wrong: %s"):format(settings.seed, sum.calls, list(sum.sources),
        list(sum.errors), list(line:counts().chaos), sum.recovered, table.concat(sum.wrong, "\n"))
end

describe("clients on a line that", function()
    local slow = {
        delay = { chance = 0.02, seconds = 0.03 }, throttle = 200000,
        split = { chance = 0.3, pieces = 5, seconds = 0.002 },
    }
    -- As a rule a millisecond passes between two messages: each of these happens every second or
    -- so, on each connection.
    local breaks = { reset = 0.0015, truncate = 0.0015, finish = 0.0015 }
    local silence, garbage = { swallow = 0.0007 }, { garbage = 0.003 }
    local everything = {
        delay = slow.delay, split = slow.split, swallow = 0.0003, garbage = 0.0007,
        reset = 0.0007, truncate = 0.0007, finish = 0.0007,
    }
    local LINES = {
        { "stutters", slow, { "delay", "split" } },
        { "breaks", breaks, { "reset", "truncate", "finish" } },
        { "goes silent", silence, { "swallow" } },
        { "brings garbage", garbage, { "garbage" } },
        { "does all of that", everything, { "delay", "split" } },
    }

    for i, kind in ipairs(LINES) do
        it(kind[1] .. " get right values or none, in time, and get well", function()
            local settings = { seed = SEED + i - 1, up = kind[2], down = kind[2] }
            local sum = add_up(live(settings, SECONDS))
            local told = history(settings, sum)
            assert.equal(0, sum.violations + #sum.wrong, told)
            assert.is_true(sum.recovered < clock.scaled(WELL_SECONDS), told)
            -- It was as bad as it was meant to be, and there was life all the same.
            for _, what in ipairs(kind[3]) do
                assert.is_true((line:counts().chaos[what] or 0) > 0, told)
            end
            for _, source in ipairs({ "redis", "near", "l0" }) do
                assert.is_true((sum.sources[source] or 0) > 0, told)
            end
            assert.is_true(sum.shared > 0 and sum.held > 0, told)
        end)
    end

    -- What the checks are for: each rule plants one lie.
    local LIES = {
        ["is deaf to changes"] = {
            { command = "client|tracking", reply = "+OK\r\n" }, "outdated for",
        },
        ["answers for others"] = {
            { command = "get", argument = "own:", reply = "$8\r\nstranger\r\n" }, "nobody wrote",
        },
        ["grants every lease"] = {
            { command = "evalsha", argument = "once:", reply = "*1\r\n:1\r\n" }, "was loaded as",
        },
        ["grants every lock"] = {
            { command = "evalsha", argument = "{job}", reply = "*2\r\n:1\r\n:1\r\n" },
            "the lock was granted",
        },
    }
    for name, lie in pairs(LIES) do
        it(name .. " are seen to be wrong", function()
            line:rule(lie[1])
            local sum = add_up(live({ seed = SEED }, 1, true))
            assert.matches(lie[2], table.concat(sum.wrong, "\n"), 1, true)
        end)
    end
end)
