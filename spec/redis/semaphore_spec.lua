-- Semaphores of several processes, some of which are killed: never more than n hold a permit. What
-- single calls promise: spec/support/cases/semaphores.lua.
--
-- Env: REDCACHE_SEMAPHORE_TURNS: how often each of the 8 processes takes a permit (40).

local clock = require("spec.support.clock")
local contest = require("spec.support.contest")
local herd = require("spec.support.herd")
local redcache = require("redcache")
local server = require("spec.support.server")

local PROCESSES, PERMITS = 8, 3
local TURNS = tonumber(os.getenv("REDCACHE_SEMAPHORE_TURNS")) or 40

-- The outside checker: the most that were inside at one time, and how often somebody came in.
local function most_inside(steps)
    local inside, most, turns = 0, 0, 0
    for _, step in ipairs(steps) do
        inside = inside + step[2]
        most = math.max(most, inside)
        turns = turns + (step[2] == 1 and 1 or 0)
    end
    return most, turns
end

describe("a semaphore of several processes", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)
    before_each(function() redis:reset() end)

    -- Lets all of them take permits, each for so many seconds, and kills half; the most that were
    -- inside, and how often.
    local function contend(permits, seconds, turns)
        local params = { url = redis:url(), turns = turns, permits = permits, seconds = seconds,
            timeout = clock.patience(10), ttl = clock.scaled(1) }
        return most_inside(contest.run(PROCESSES, params, function(one)
            local options, now = one.params, require("spec.support.clock").now
            local pause = require("spec.support.clock").sleep
            local cache = require("redcache").new({ url = options.url, near = false,
                commandTimeout = options.timeout })
            local log = assert(io.open(options.path, "a"))
            log:setvbuf("no")
            one:ready()
            one:emit("taking")
            for _ = 1, options.turns do
                local ok, err = cache:withSemaphore("s", options.permits,
                    { ttl = options.ttl, wait = 60 }, function(held)
                        local came = now()
                        log:write(("+s%.9f\n"):format(came))
                        pause(options.seconds)
                        -- Whoever lost it while the machine stood still counts for nothing.
                        log:write(("-s%.9f\n"):format(held:valid() and now() or came))
                        return true
                    end)
                if not ok and err.code ~= "lockLost" then error(err) end
            end
            cache:close()
            return true
        end))
    end

    it("lets in n at once and no more, also where holders are killed", function()
        -- Long enough inside that as many meet as may.
        local most, turns = contend(PERMITS, 0.02, TURNS)
        assert.equal(PERMITS, most)
        assert.is_true(turns >= TURNS * PROCESSES / 2, turns)
    end)

    it("lets in one more where it has one more: the checker sees it", function()
        -- Long enough inside that those that are left meet, however few processors there are.
        assert.equal(PERMITS + 1, (contend(PERMITS + 1, 0.1, 10)))
    end)

    it("a permit of a killed holder is free again after its ttl", function()
        local holder = herd.start({
            count = 1, tolerant = true, params = { url = redis:url() },
            main = function(one)
                local cache = require("redcache").new({ url = one.params.url, near = false,
                    commandTimeout = 20, connectTimeout = 20 })
                -- So much time there is to see that the permit is still held.
                assert(cache:semaphore("s", 1, { ttl = 2.5 }):acquire(0))
                one:emit("held")
                require("spec.support.clock").sleep(60)
            end,
        })
        holder:wait_events("held", 1, 30)
        holder.workers[1]:kill()
        local cache = redcache.new({ url = redis:url(), near = false, commandTimeout = 20 })
        finally(function() cache:close() end)
        local one = cache:semaphore("s", 1)
        assert.equal("notAcquired", (select(2, one:acquire(0))).code)
        assert.is_true(one:acquire(clock.scaled(10)))
        assert.is_true(one:release())
        holder:join()
    end)
end)
