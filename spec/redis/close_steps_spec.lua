-- close at every step of what a program does, under every scheduler: nothing crashes, nothing
-- hangs, each call has its answer or says closed, and no lease, lock or slot stays.
--
-- REDCACHE_CLOSE_SECONDS: how long each of them goes on with more seeds (0.7).

local event_loop = require("spec.support.event_loop")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local SECONDS = tonumber(os.getenv("REDCACHE_CLOSE_SECONDS") or "") or 0.7

-- In a process of its own, which a fault may take down.
local function work(one)
    return require("spec.support.closing").work(one.params)
end

local function play(bed, url, options)
    options = options or {}
    local note = temp.dir() .. "/note"
    local one = worker.start({
        main = work,
        params = {
            bed = bed, url = url, note = note, pid = options.pid, frozen = options.frozen or 0,
            first = options.first or 1, last = options.last or 1000000,
            seconds = options.seconds or SECONDS, patience = options.patience or 5,
        },
    })
    local ok, result = pcall(one.join, one, 60 + SECONDS)
    assert.is_true(ok, ("it ended at %s%s"):format(temp.read(note), tostring(result)))
    assert.same({}, result.complaints)
    assert.is_true(result.plays > 3, result.plays .. " plays")
end

for _, bed in ipairs({ "blocking", "coroutine", "luv", "cqueues", "copas", "manual_clock" }) do
    describe("close at every step, " .. bed .. ",", function()
        local needs_loop = event_loop.names[1] == bed or event_loop.names[2] == bed
            or event_loop.names[3] == bed
        if needs_loop and not event_loop.has(bed) then
            pending("there is no " .. bed)
            return
        end

        it("of a store in memory", function()
            play(bed, "memory://steps")
        end)

        if bed == "manual_clock" then return end
        local redis
        setup(function() redis = server.start() end)
        teardown(function() redis:stop() end)

        it("of a Redis", function()
            play(bed, redis:url())
        end)

        it("of a Redis that stands still", function()
            local done, err = pcall(play, bed, redis:url(), {
                pid = redis.pid, frozen = 8, seconds = 0, last = 1, patience = 0.1,
            })
            redis:resume()
            assert.is_true(done, tostring(err))
        end)
    end)
end
