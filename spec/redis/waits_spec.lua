-- A command that waits for long, beside callers that share connections: nobody is held up.
--
-- Env: REDCACHE_BLOCK_SECONDS: how long it waits (1; 30 in a note).

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local SECONDS = tonumber(os.getenv("REDCACHE_BLOCK_SECONDS")) or 1

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    cache = redcache.new({ url = redis:url(), near = false, scheduler = "coroutine",
        commandTimeout = clock.scaled(5) })
end)
after_each(function() cache:close() end)

local function summary(list)
    table.sort(list)
    return { count = #list, median = list[math.ceil(#list / 2)],
        p99 = list[math.ceil(#list * 0.99)], most = list[#list] }
end

-- Calls of every kind until it is over; how long each took.
local function work(is_over)
    local raw, list, i = cache:redis(), {}, 0
    while not is_over() do
        i = i + 1
        local key = "k" .. i % 10
        list[#list + 1] = clock.time(function()
            assert(cache:set(key, i))
            assert(cache:get(key) == i)
            assert(raw:command("INCR", "n"))
            assert(#raw:pipeline(function(p) p:command("GET", "n") end) == 1)
        end)
    end
    return summary(list)
end

describe("a BLPOP", function()
    it("of many seconds delays no other call", function()
        local alone, beside, waited
        redcache.run(function()
            local ends = clock.now() + SECONDS -- as long as BLPOP waits: not stretched
            alone = work(function() return clock.now() >= ends end)
        end)
        redcache.run(function()
            local over = false
            redcache.spawn(function()
                waited = clock.time(function()
                    assert(cache:redis():command("BLPOP", "queue", SECONDS) == nil)
                end)
                over = true
            end)
            beside = work(function() return over end)
        end)
        print(("waited %.2f s; 4 calls take, alone and beside it: median %.0f and %.0f us, p99 %.0f"
            .. " and %.0f us, at most %.1f and %.1f ms (%d and %d times)"):format(waited,
            alone.median * 1e6, beside.median * 1e6, alone.p99 * 1e6, beside.p99 * 1e6,
            alone.most * 1e3, beside.most * 1e3, alone.count, beside.count))
        assert.is_true(waited >= SECONDS - 0.1, waited)
        -- Were they held up, the first would take the whole wait, and be the only one. How many
        -- more there are is the machine's.
        assert.is_true(beside.count >= 3, beside.count)
    end)
end)
