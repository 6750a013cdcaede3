-- keepFresh beyond spec/support/cases/keeps_fresh.lua: four processes of which one owns a key, that
-- are killed, stop and close; and loops in which nobody calls.

local clock = require("spec.support.clock")
local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")
local server = require("spec.support.server")
local worker = require("spec.support.worker")

local redis
setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function() redis:reset() end)

-- Keeps a key fresh until told otherwise; each run puts its process at the end of a list.
local function keep(one)
    local cache = require("redcache").new({
        url = one.params.url, namespace = "app", leaseTtl = 600, commandTimeout = 30,
    })
    local raw = cache:redis()
    local keeper = assert(cache:keepFresh("k", 0.1, function()
        assert(raw:command("RPUSH", "runs", tostring(one.index)))
        if one.params.stays then one:receive(60) end
        return one.index
    end, { lockTtl = one.params.lockTtl }))
    one:emit("begun")
    while true do
        cache:work(0)
        local message = one:receive(0.01)
        if message and message.what == "stop" then
            assert(keeper:stop())
        elseif message and message.what == "close" then
            cache:close()
            return
        end
    end
end

describe("keepFresh of four processes", function()
    local workers, client

    before_each(function() client, workers = redis:client(), {} end)
    after_each(function()
        for _, one in pairs(workers) do one:kill() end
    end)

    local function begin(lock_ttl, stays)
        for i = 1, 4 do
            workers[i] = worker.start({
                main = keep, index = i,
                params = { url = redis:url(), lockTtl = lock_ttl, stays = stays },
            })
        end
        for i = 1, 4 do workers[i]:event("begun") end
    end

    local function runs() return client:call("LRANGE", "runs", 0, -1) end

    -- Waits for three more runs of one that is not `before`: who that is.
    local function next_owner(before, seconds)
        local from, all = #runs(), nil
        clock.wait_until(function()
            all = runs()
            return #all >= from + 3 and all[#all] ~= before and all[#all - 2] == all[#all]
        end, seconds, "another owner")
        return all[#all]
    end

    -- Who has owned it, in turn.
    local function owners()
        local list = {}
        for _, index in ipairs(runs()) do
            if list[#list] ~= index then list[#list + 1] = index end
        end
        return list
    end

    it("has one owner; where it is killed another one begins within the lock's ttl", function()
        begin(clock.scaled(2))
        local first = next_owner(nil, 10)
        local begun = clock.now()
        workers[tonumber(first)]:kill()
        local second = next_owner(first, 10)
        assert.is_true(clock.now() - begun < clock.scaled(2) + clock.scaled(3))
        begun = clock.now()
        workers[tonumber(second)]:kill()
        local third = next_owner(second, 10)
        assert.is_true(clock.now() - begun < clock.scaled(2) + clock.scaled(3))
        assert.same({ first, second, third }, owners())
    end)

    it("begins again so soon, too, where the owner is killed within fn", function()
        begin(clock.scaled(2), true)
        clock.wait_until(function() return #runs() == 1 end, 10, "a run")
        local begun = clock.now()
        workers[tonumber(runs()[1])]:kill()
        clock.wait_until(function() return #runs() == 2 end, 20, "another one's run")
        assert.is_true(clock.now() - begun < clock.scaled(2) + clock.scaled(3))
        assert.equal(2, #owners())
    end)

    it("is handed over at once by one that stops or closes", function()
        begin(clock.scaled(600)) -- what is not given back is not had in this spec's time
        local first = next_owner(nil, 10)
        workers[tonumber(first)]:send({ what = "stop" })
        local second = next_owner(first, 10)
        workers[tonumber(second)]:send({ what = "close" })
        local third = next_owner(second, 10)
        assert.same({ first, second, third }, owners())
    end)
end)

it("keepFresh is handed over by a close, though another cache goes on with the client", function()
    local one = redcache.new({ url = redis:url(), namespace = "app" })
    local other = redcache.new({ url = redis:url(), namespace = "app" })
    local keeper = assert(one:keepFresh("k", 60, function() return 1 end, { lockTtl = 600 }))
    one:work(0)
    assert.is_true(keeper:stats().owner)
    one:close()
    assert(other:tryLock("fresh:k")):release()
    other:close()
end)

local function in_loop(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local clock_there = require("spec.support.clock")
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, namespace = "app",
    })
    local count = 0
    loop.go(function()
        assert(cache:keepFresh("k", 0.3, function()
            count = count + 1
            return count
        end))
        clock_there.sleep(0.05) -- the loop stands still before its first worker has begun
        local deadline = clock_there.deadline(10)
        while count < 3 and clock_there.now() < deadline do loop.sleep(0.05) end
        cache:close()
    end)
    loop.run()
    return count
end

-- Nothing else is there to do: the loop ends, whatever is to be kept fresh.
local function lonely(one)
    local loop = require("spec.support.event_loop").new(one.params.name)
    local cache = require("redcache").new({
        url = one.params.url, scheduler = one.params.name, namespace = "app",
    })
    loop.go(function() assert(cache:keepFresh("k", 0.1, function() return 1 end)) end)
    loop.run()
    return true
end

for _, name in ipairs(event_loop.names) do
    local check = event_loop.has(name) and it or pending
    check("keepFresh in a loop of " .. name .. " goes on while nobody calls", function()
        assert.is_true(3 <= worker.start({
            main = in_loop, params = { name = name, url = redis:url() },
        }):join())
    end)
    check("keepFresh does not keep a loop of " .. name .. " going", function()
        assert.is_true(worker.start({
            main = lonely, params = { name = name, url = redis:url() },
        }):join())
    end)
end

it("keepFresh goes on in redcache.run while nobody calls, and lets it end", function()
    local cache = redcache.new({ url = redis:url(), namespace = "app", scheduler = "coroutine" })
    local other = redcache.new({ url = redis:url(), namespace = "other",
        scheduler = "coroutine", group = "other" })
    local count = 0
    redcache.run(function()
        assert(cache:keepFresh("k", 0.3, function()
            count = count + 1
            return count
        end))
        local deadline = clock.deadline(10)
        while count < 3 and clock.now() < deadline do
            assert(other:exists("k") ~= nil)
        end
    end)
    assert.is_true(count >= 3)
    cache:close()
    other:close()
end)
