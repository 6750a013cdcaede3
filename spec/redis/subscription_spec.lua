-- Subscriptions while their connection is lost: what comes is in order, and a gap is told once.
--
-- Env: REDCACHE_MESSAGES: how many (6,000; 100,000 in a note).

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local MESSAGES, RECONNECTS = tonumber(os.getenv("REDCACHE_MESSAGES")) or 6000, 2

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    cache = redcache.new({ url = redis:url(), near = false, commandTimeout = clock.scaled(2) })
end)
after_each(function() cache:close() end)

local function kill() redis:call("CLIENT", "KILL", "TYPE", "pubsub") end

describe("a subscription", function()
    it("tells messages in order through two reconnects, and each gap by one event", function()
        local sub = assert(cache:redis():subscribe("numbers"))
        redis:call("SET", "gaps", "0")
        local publisher = worker.start({
            params = { url = redis:url(), count = MESSAGES },
            main = function(one)
                local other = require("redcache").new({ url = one.params.url, near = false,
                    commandTimeout = 10 })
                local raw, count = other:redis(), one.params.count
                local wait_until = require("spec.support.clock").wait_until
                for first = 1, count, 50 do
                    -- Its last two quarters come behind a gap each.
                    local quarter = math.floor((first - 1) / (count / 4))
                    wait_until(function()
                        return tonumber(raw:command("GET", "gaps")) >= quarter - 1
                    end, 60, "the gap before quarter " .. quarter)
                    assert(raw:pipeline(function(p)
                        for i = first, math.min(first + 49, count) do
                            p:command("PUBLISH", "numbers", i)
                        end
                    end))
                end
                -- The last one comes through, whenever the subscriber is there again.
                while raw:publish("numbers", "end") == 0 do
                    require("spec.support.clock").sleep(0.01)
                end
                other:close()
            end,
        })
        local last, gaps, in_gap, seen, killed = 0, 0, false, 0, 0
        while true do
            local event = assert(sub:next(clock.scaled(20)))
            if event.gap then
                assert.is_false(in_gap) -- one event each
                gaps, in_gap = gaps + 1, true
                redis:call("SET", "gaps", tostring(gaps))
            elseif event.payload == "end" then
                break
            else
                local number = tonumber(event.payload)
                assert.is_true(number == last + 1 or (in_gap and number > last + 1),
                    number .. " behind " .. last)
                last, in_gap, seen = number, false, seen + 1
            end
            if killed < RECONNECTS and last > MESSAGES * (killed + 1) / 4 then
                killed = killed + 1
                kill()
            end
        end
        publisher:join()
        print(("%d of %d messages, %d gaps"):format(seen, MESSAGES, gaps))
        assert.equal(RECONNECTS, gaps)
        assert.is_true(seen >= MESSAGES / 4)
        sub:close()
    end)

    it("tells what came before its connection was lost, then the gap, then what comes", function()
        local raw = cache:redis()
        local sub = assert(raw:psubscribe("a*"))
        raw:publish("ab", 1)
        clock.wait_until(function() return cache:stats().pushes > 0 end, 10, "the message")
        -- In one go: nobody is connected again between the two.
        redis:client():pipeline({ { "CLIENT", "KILL", "TYPE", "pubsub" },
            { "PUBLISH", "ab", "lost" } })
        assert.equal("1", sub:next(10).payload)
        assert.is_true(sub:next(clock.scaled(10)).gap)
        raw:publish("ab", 2)
        assert.equal("2", sub:next(10).payload)
        sub:close()
    end)

    it("waits for a server that is away, within its time", function()
        local sub = assert(cache:redis():subscribe("a"))
        redis:kill()
        for _ = 1, 3 do
            local event, err
            local took = clock.time(function() event, err = sub:next(0.2) end)
            assert.is_nil(event)
            assert.is_true(err.code == "timeout" or err.code == "unavailable", err.code)
            assert.is_true(took < clock.scaled(2), took)
        end
        redis:restart()
        assert.is_true(sub:next(clock.scaled(20)).gap)
        cache:redis({ timeout = 20 }):publish("a", "again")
        assert.equal("again", sub:next(10).payload)
        sub:close()
    end)

    it("of more than anybody asks for keeps 8 MiB, and tells the gap behind them", function()
        local raw = cache:redis({ timeout = 10 })
        local sub = assert(raw:subscribe("a"))
        local text, COUNT = ("x"):rep(100000), 200
        for i = 1, COUNT do raw:publish("a", i .. text) end
        clock.wait_until(function() return cache:stats().pushes >= COUNT end, 10, "all of them")
        local seen = 0
        local event = sub:next(1)
        while not event.gap do
            seen = seen + 1
            assert.equal(seen, tonumber(event.payload:match("^%d+")))
            event = sub:next(1)
        end
        assert.is_true(seen > 75 and seen < 90, seen)
        raw:publish("a", "after")
        assert.equal("after", sub:next(10).payload)
        sub:close()
    end)
end)

-- In a process of its own, under a loop or coroutines: one waits for messages, one for an item, one
-- works, and none waits for another.
local function in_loop(one)
    local params, here = one.params, require("redcache")
    local is_plain = params.name == "coroutine"
    local loop = not is_plain and require("spec.support.event_loop").new(params.name)
    local opened = here.new({ url = params.url, scheduler = params.name, near = false,
        commandTimeout = 10 })
    local go = is_plain and here.spawn or loop.go
    local seen = { messages = {} }
    local function all()
        local raw = opened:redis()
        local sub = assert(raw:subscribe("a"))
        go(function()
            for i = 1, 3 do seen.messages[i] = assert(sub:next(20)).payload end
            seen.last = select(2, sub:next(0.05)).code
            go(function() sub:close() end)
            seen.closed = select(2, sub:next(20)).code
        end)
        go(function() seen.item = assert(raw:command("BLPOP", "q", 20))[2] end)
        go(function()
            for i = 1, 3 do
                assert(opened:set("k", i) and opened:get("k") == i)
                assert(raw:publish("a", i) == 1)
            end
            assert(raw:transaction(function(tx)
                assert(tx:read("GET", "none") == nil)
                tx:command("RPUSH", "q", "item")
            end, { watch = { "q" } }))
        end)
    end
    if is_plain then
        here.run(all)
    else
        loop.go(all)
        loop.run()
    end
    opened:close()
    if loop then loop.run() end
    return seen
end

describe("messages, items and transactions", function()
    for _, name in ipairs({ "coroutine", "luv", "cqueues", "copas" }) do
        local check = (name == "coroutine" or event_loop.has(name)) and it or pending
        check("hold nobody up, scheduler " .. name, function()
            local seen = worker.start({ main = in_loop,
                params = { name = name, url = redis:url() } }):join()
            assert.same({ messages = { "1", "2", "3" }, last = "timeout",
                closed = "closed", item = "item" }, seen)
        end)
    end
end)
