-- What idle slots keep: a burst of large values leaves no memory behind.

local server = require("spec.support.server")
local worker = require("spec.support.worker")

local redis

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- Resident MiB that `count` calls of one kind at once add for good, over `one` call of that kind.
local function growth(kind, count)
    return worker.start({
        params = { url = redis:url(), kind = kind, count = count },
        main = function(one)
            local redcache = require("redcache")
            local cache = redcache.new({
                url = one.params.url, scheduler = "coroutine", near = false, commandTimeout = 60,
                waitTimeout = 60, codec = "raw",
            })
            local bytes = string.rep("x", 4 * 1024 * 1024)
            local kinds = {}
            function kinds.get() assert(#cache:get("big") == #bytes) end
            function kinds.getMulti() assert(#cache:getMulti({ "big" }).big == #bytes) end
            function kinds.remember()
                assert(cache:remember("big", 100, function() error("it is there") end))
            end
            local function resident()
                collectgarbage() collectgarbage()
                for line in io.lines("/proc/self/status") do
                    local kib = line:match("VmRSS:%s*(%d+)")
                    if kib then return tonumber(kib) / 1024 end
                end
            end
            local function at_once(calls)
                redcache.run(function()
                    for _ = 1, calls do redcache.spawn(kinds[one.params.kind]) end
                end)
            end
            assert(cache:set("big", bytes, 100))
            at_once(1)
            local before = resident()
            at_once(one.params.count)
            local added = resident() - before
            cache:close()
            return added
        end,
    }):join(120)
end

-- Without the trim the burst leaves 4 MiB for each call; malloc's own rest is some 20 MiB.
describe("after a burst of 64 large calls their slots have given back", function()
    for _, kind in ipairs({ "get", "remember", "getMulti" }) do
        it(kind, function()
            if os.getenv("REDCACHE_SANITIZER") then pending("freed memory stays") return end
            local alone, burst = growth(kind, 1), growth(kind, 64)
            assert.is_true(burst < alone + 56, ("%.0f MiB, %.0f alone"):format(burst, alone))
        end)
    end
end)

describe("an idle slot", function()
    it("keeps room for large answers only where it is used again soon", function()
        local seen = worker.start({
            params = { url = redis:url() },
            main = function(one)
                local core_slot = require("redcache.core.slot")
                local give, client = core_slot.give, nil
                core_slot.give = function(slot)
                    client = slot.client
                    return give(slot)
                end
                local redcache = require("redcache")
                local cache = redcache.new({
                    url = one.params.url, scheduler = "coroutine", near = false, codec = "raw",
                    commandTimeout = 30,
                })
                assert(cache:set("k", string.rep("x", 100000), 60))
                redcache.run(function()
                    for _ = 1, 12 do redcache.spawn(function() assert(cache:get("k")) end) end
                end)
                local function rooms()
                    local bits = {}
                    for i = 1, client.count do bits[i] = client.slots[i].result.room_bits end
                    return bits
                end
                local burst = rooms()
                for _ = 1, 3 do cache:get("k") end
                return { burst = burst, later = rooms() }
            end,
        }):join()
        -- At most 2^17 bytes, or 2^14: the size of a buffer that has read 100,000 is between.
        local WARM = 4
        assert.is_true(#seen.burst > 2 * WARM)
        for _, bits in pairs({ seen.burst, seen.later }) do
            for i = 1, #bits do
                local is_warm = i > #bits - WARM
                assert.equal(is_warm, bits[i] > 14, i .. " of " .. #bits .. ": " .. bits[i])
                assert.is_true(bits[i] <= 18)
            end
        end
    end)
end)
