-- Transactions of many processes: what they move between keys is never lost or made.
--
-- Env: REDCACHE_TRANSFERS: how many in all (400; 10,000 in a note).

local herd = require("spec.support.herd")
local server = require("spec.support.server")

local PROCESSES, KEYS = 8, 10
local TRANSFERS = tonumber(os.getenv("REDCACHE_TRANSFERS")) or 400

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

describe("transactions", function()
    it("of 8 processes that move between 10 keys leave the sum as it was", function()
        for i = 1, KEYS do redis:call("SET", "account" .. i, "1000") end
        local movers = herd.start({
            count = PROCESSES, timeout = 300,
            params = function(i)
                return { url = redis:url(), transfers = TRANSFERS / PROCESSES, keys = KEYS,
                    seed = os.time() + i }
            end,
            main = function(one)
                local params = one.params
                local cache = require("redcache").new({ url = params.url, near = false,
                    commandTimeout = 10 })
                local raw, runs = cache:redis(), 0
                math.randomseed(params.seed)
                one:ready()
                for _ = 1, params.transfers do
                    local from, to = math.random(params.keys), math.random(params.keys)
                    local a, b, amount = "account" .. from, "account" .. to, math.random(100)
                    assert(raw:transaction(function(tx)
                        runs = runs + 1
                        local left = assert(tonumber(tx:read("GET", a)))
                        local there = assert(tonumber(tx:read("GET", b)))
                        if from == to or left < amount then return end
                        tx:command("SET", a, left - amount)
                        tx:command("SET", b, there + amount)
                    end, { watch = { a, b }, retries = 10000 }))
                end
                cache:close()
                return runs
            end,
        })
        local runs, sum = 0, 0
        movers:join()
        for _, count in ipairs(movers.results) do runs = runs + count end
        for i = 1, KEYS do sum = sum + tonumber(redis:call("GET", "account" .. i)) end
        print(("%d transfers, %d runs"):format(TRANSFERS, runs))
        assert.equal(1000 * KEYS, sum)
        assert.is_true(runs > TRANSFERS) -- else nobody has met
    end)
end)
