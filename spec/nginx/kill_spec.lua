-- A worker that is killed while it writes the region it shares with the others: what they read is
-- whole, and they go on.
--
-- Env: REDCACHE_NGINX_KILLS: how many workers are killed (20).
--      REDCACHE_NGINX_DRIVER: "loop" (the default) or "thread".

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")
local tally = require("spec.nginx.tally")
local temp = require("spec.support.temp")
local writer = require("spec.nginx.region_writer")

local KILLS = tonumber(os.getenv("REDCACHE_NGINX_KILLS")) or 20
local DRIVER = os.getenv("REDCACHE_NGINX_DRIVER") or "loop"
local WORKERS = 2
local REGION_BYTES = 4 * 1024 * 1024
-- Of each worker, between two kills.
local LIVELY, LIFE_SECONDS = 200, 10
-- A worker is killed at some instant of this long a while.
local SPREAD_SECONDS = 0.03

local possible, reason = nginx.is_possible()
if not possible then
    pending("workers of nginx that are killed: " .. reason)
    return
end

describe("a region of the workers of nginx", function()
    local redis, bed, path

    -- One reads decoded values, one the bytes of the region, each time.
    local INIT = [[
        cache = require("redcache").new({
            url = "%s", scheduler = "resty", driver = "%s", near = { bytes = %d },
            commandTimeout = 20, connectTimeout = 20, -- a busy machine is no error
        })
        decoded = cache:namespace("app")
        bytes = cache:namespace("app", { near = { l0 = false } })
        writer = require("spec.nginx.region_writer")
    ]]

    local function counts() return tally.read(path, writer.COUNTS, WORKERS) end

    -- Every worker writes, fills the region and is answered by it.
    local function expect_life()
        local _, before = counts()
        clock.wait_until(function()
            local _, now = counts()
            for id = 0, WORKERS - 1 do
                for _, name in ipairs({ "hits", "redis", "sets" }) do
                    local least = name == "sets" and LIVELY / 10 or LIVELY
                    if now[id][name] - before[id][name] < least then return false end
                end
            end
            return true
        end, LIFE_SECONDS, "that all workers read and write")
    end

    local function near_stats()
        local _, body = bed:get("/stats")
        local stats = {}
        for name, value in body:gmatch("(%w+)=(%S+)") do stats[name] = tonumber(value) end
        return stats
    end

    before_each(function()
        redis = server.start()
        path = temp.dir() .. "/tally"
        bed = nginx.start({
            workers = WORKERS, init = INIT:format(redis:url(), DRIVER, REGION_BYTES),
            init_worker = ([[writer.start("%s", { decoded, bytes })]]):format(path),
            locations = { ["/stats"] = [[
                content_by_lua_block {
                    for name, value in pairs(cache.near:stats()) do
                        ngx.say(name, "=", value)
                    end
                }
            ]] },
        })
        expect_life()
    end)
    after_each(function()
        if bed then bed:stop() end
        redis:stop()
    end)

    it("goes on, and holds whole values, when workers are killed over and over", function()
        local started = clock.now()
        for _ = 1, KILLS do
            local workers = bed:workers()
            local killed = workers[math.random(#workers)]
            clock.sleep(math.random() * SPREAD_SECONDS)
            bed:kill_worker(killed)
            clock.wait_until(function()
                return not tally.has_pid(path, killed, WORKERS)
            end, 10, "a new worker")
            expect_life()
        end
        local sum, stats = counts(), near_stats()
        local text = ("%d kills in %.1f s: %d sets, %d near hits, %d from l0, %d from redis, "
            .. "%d errors, %d wrong; %d evictions, %d repairs, %d entries"):format(KILLS,
            clock.now() - started, sum.sets, sum.hits, sum.l0, sum.redis, sum.errors, sum.wrong,
            stats.evictions, stats.repairs, stats.entries)
        print(text)
        assert.equal(0, sum.wrong, text .. "\n" .. bed:log())
        assert.equal(0, sum.errors, text)
        -- The room was fought for, and is still used.
        assert.is_true(stats.evictions > 100, text)
        assert.is_true(stats.bytes > REGION_BYTES / 4 and stats.entries > 50, text)
        for _, line in ipairs(bed:complaints()) do
            assert.is_truthy(line:find("exited on signal 9", 1, true), line)
        end
    end)

    it("would be seen to hold a value that is torn, or another key's", function()
        for _, value in ipairs({
            "k1:0123456789abcdef0123456789abcdeX", "k1:0123456789abcdef012", "k1:",
            "k2:0123456789abcdef",
        }) do
            local before = (counts()).wrong
            clock.wait_until(function()
                redis:call("SET", "app:k1", value)
                return (counts()).wrong > before
            end, 10, "a wrong value")
        end
    end)
end)
