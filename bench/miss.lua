-- miss - what remember() costs on a miss, in PINGs through the same client.
-- The loader does nothing, and the namespace is warm: it has missed before, so every load asks for
-- value or lease at once.

local redcache = require("redcache")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local bench = require("bench.support.bench")

local CALLS = bench.sized(1500, 50) -- per side and round
local KEY_BYTES = 16
local VALUE_BYTES = 100
local TTL = 60

local function ping(cache)
    local client = cache._client
    local slot = assert(core_slot.take(client))
    local status = core_command.begin(slot, constants.RETRY)
    status = status == 0 and core_command.command(slot, 1) or status
    status = status == 0 and core_command.argument(slot, "PING") or status
    status = status == 0 and core_command.submit(slot) or status
    status = status == 0 and core_slot.wait(slot) or status
    core_slot.give(slot)
    return status == 0 or error("the PING failed")
end

local function measure(redis, rounds)
    local cache = redcache.new({ url = redis:url(), codec = "raw", namespace = "bench" })
    local values = bench.texts(100, VALUE_BYTES)
    local next_value = 0
    local function loader()
        next_value = next_value % #values + 1
        return values[next_value]
    end
    local function miss(key)
        local _, _, source, flag = cache:remember(key, TTL, loader)
        return source == "loader" and flag == nil or error("a stored load was expected")
    end
    local samples = bench.side_by_side({
        { "miss", function()
            return bench.latency(miss, bench.texts(CALLS, KEY_BYTES), CALLS)
        end },
        { "ping", function()
            return bench.latency(function() return ping(cache) end, values, CALLS)
        end },
    }, rounds)
    cache:close()
    return samples
end

bench.run({
    name = "miss",
    measure = measure,
    figures = { { name = "p50", unit = "us" }, { name = "p99", unit = "us" } },
    ratios = {
        { of = "miss", to = "ping", figure = "p50", at_most = { idle = 2.5, busy = 2.5 } },
        { of = "miss", to = "ping", figure = "p99" },
    },
})
