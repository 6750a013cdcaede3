-- Semaphores of several processes, some of which are killed: never more than n hold a permit. What
-- single calls promise: spec/support/cases/semaphores.lua.
--
-- Env: REDCACHE_SEMAPHORE_TURNS: how often each of the 8 processes takes a permit (40).

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local PROCESSES, PERMITS = 8, 3
local TURNS = tonumber(os.getenv("REDCACHE_SEMAPHORE_TURNS")) or 40

-- The outside checker: the most that were inside at one time, by what they wrote when they had
-- come in, and before they went out. Who was killed inside was there until then.
local function most_inside(paths, killed)
    local steps, turns = {}, 0
    for i, path in ipairs(paths) do
        local is_inside = false
        for sign, at in temp.read(path):gmatch("([+-])(%S+)\n") do
            steps[#steps + 1] = { tonumber(at), sign == "+" and 1 or -1 }
            is_inside = sign == "+"
            turns = turns + (is_inside and 1 or 0)
        end
        if is_inside then steps[#steps + 1] = { killed[i], -1 } end
    end
    -- Of two at one instant the one that leaves was first: nobody has seen both.
    table.sort(steps, function(a, b)
        return a[1] < b[1] or a[1] == b[1] and a[2] < b[2]
    end)
    local inside, most = 0, 0
    for _, step in ipairs(steps) do
        inside = inside + step[2]
        most = math.max(most, inside)
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
        local dir, paths, killed = temp.dir(), {}, {}
        for i = 1, PROCESSES do
            paths[i] = dir .. "/" .. i
            temp.write(paths[i], "")
        end
        local takers = herd.start({
            count = PROCESSES, tolerant = true, timeout = 120,
            params = function(i)
                return { url = redis:url(), path = paths[i], turns = turns, permits = permits,
                    seconds = seconds, timeout = clock.scaled(2), ttl = clock.scaled(1) }
            end,
            main = function(one)
                local params, now = one.params, require("spec.support.clock").now
                local pause = require("spec.support.clock").sleep
                local cache = require("redcache").new({ url = params.url, near = false,
                    commandTimeout = params.timeout })
                local log = assert(io.open(params.path, "a"))
                log:setvbuf("no")
                one:ready()
                one:emit("taking")
                for _ = 1, params.turns do
                    local ok, err = cache:withSemaphore("s", params.permits,
                        { ttl = params.ttl, wait = 60 }, function(held)
                            local came = now()
                            log:write(("+%.9f\n"):format(came))
                            pause(params.seconds)
                            -- Whoever lost it while the machine stood still counts for nothing.
                            log:write(("-%.9f\n"):format(held:valid() and now() or came))
                            return true
                        end)
                    if not ok and err.code ~= "lockLost" then error(err) end
                end
                cache:close()
                return true
            end,
        })
        takers:wait_events("taking", PROCESSES, 60)
        for i = 1, PROCESSES, 2 do
            clock.sleep(0.03)
            takers.workers[i]:kill()
            killed[i] = clock.now()
        end
        takers:join()
        local survivors = 0
        for i = 2, PROCESSES, 2 do survivors = survivors + (takers.results[i] and 1 or 0) end
        assert.equal(PROCESSES / 2, survivors, takers.failures[2])
        return most_inside(paths, killed)
    end

    it("lets in n at once and no more, also where holders are killed", function()
        local most, turns = contend(PERMITS, 0.002, TURNS)
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
                local cache = require("redcache").new({ url = one.params.url, near = false })
                assert(cache:semaphore("s", 1, { ttl = 1 }):acquire(0))
                one:emit("held")
                require("spec.support.clock").sleep(60)
            end,
        })
        holder:wait_events("held", 1, 30)
        holder.workers[1]:kill()
        local cache = redcache.new({ url = redis:url(), near = false })
        finally(function() cache:close() end)
        local one = cache:semaphore("s", 1)
        assert.equal("notAcquired", (select(2, one:acquire(0))).code)
        assert.is_true(one:acquire(clock.scaled(10)))
        assert.is_true(one:release())
        holder:join()
    end)
end)
