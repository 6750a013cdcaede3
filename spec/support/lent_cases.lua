--- What callers with connections of their own do beside others, in whatever runs them: a loop,
--- coroutines, nginx.
--
-- What:   each case takes a cache, go(fn), which starts a coroutine, and sleep(seconds), which lets
--         others run; it runs in a coroutine itself and returns figures when all of its own have
--         ended, or throws what went wrong.

local clock = require("spec.support.clock")
local lent = require("spec.support.lent")

local cases = {}

local OTHERS, CALLS, WAITERS, WRITERS, ADDS, BORROWERS = 64, 25, 4, 4, 10, 24
local PATIENCE = 30

-- Starts coroutines, and waits for the ends of all.
local function crowd(go, sleep)
    local self = { started = 0, ended = 0 }
    function self.go(fn)
        self.started = self.started + 1
        go(function()
            local ok, err = xpcall(fn, debug.traceback)
            self.fault = self.fault or not ok and err
            self.ended = self.ended + 1
        end)
    end
    function self.join()
        local deadline = clock.deadline(PATIENCE)
        while self.ended < self.started do
            assert(not self.fault, self.fault)
            assert(clock.left(deadline) > 0, self.started - self.ended .. " have not ended")
            sleep(0.002)
        end
        assert(not self.fault, self.fault)
    end
    return self
end

-- Adds 1 to a counter as who may be overtaken between reading and writing. Returns how often that
-- happened.
local function add(own, key, sleep)
    for overtaken = 0, 10000 do
        assert(own:call({ "WATCH", key }))
        local value = tonumber(own:call({ "GET", key }) or 0)
        sleep(0)
        local answers = assert(own:call({ { "MULTI" }, { "SET", key, value + 1, writes = 2 } }))
        assert(answers[1] == "OK" and answers[2] == "QUEUED")
        if assert(own:call({ { "EXEC" } }))[1] then return overtaken end
    end
    error("overtaken for ever")
end

-- WATCH, MULTI and EXEC of some, BLPOP of others, all at once, beside 64 who read and write.
function cases.together(cache, go, sleep)
    local all = crowd(go, sleep)
    local ended, woken, overtaken = 0, 0, 0
    for i = 1, WAITERS do
        all.go(function()
            local own = assert(lent.borrow(cache, 10))
            local got = assert(own:call({ "BLPOP", "queue" .. i, 0 }, PATIENCE))
            assert(got[1] == "queue" .. i and got[2] == "item" .. i)
            woken = woken + 1
            own:give()
        end)
    end
    for _ = 1, WRITERS do
        all.go(function()
            local own = assert(lent.borrow(cache, 10))
            for _ = 1, ADDS do overtaken = overtaken + add(own, "counter", sleep) end
            own:give()
        end)
    end
    for i = 1, OTHERS do
        all.go(function()
            for n = 1, CALLS do
                assert(cache:set("k" .. i, "v" .. n))
                assert(cache:get("k" .. i) == "v" .. n)
            end
            ended = ended + 1
        end)
    end
    all.go(function()
        while ended < OTHERS and not all.fault do sleep(0.002) end
        assert(woken == 0) -- nobody else was held up by who waits
        for i = 1, WAITERS do
            assert(lent.call(cache, { "LPUSH", "queue" .. i, "item" .. i, writes = 2 }))
        end
    end)
    all.join()
    assert(woken == WAITERS)
    return { counter = tonumber(lent.call(cache, { "GET", "counter" })),
        expected = WRITERS * ADDS, overtaken = overtaken }
end

-- More borrowers than there are connections. Returns how many had one, and how many there were, at
-- the most.
function cases.bounded(cache, go, sleep)
    local all = crowd(go, sleep)
    local inside, most, connections = 0, 0, 0
    local full = false -- the first ones wait for each other: else a slow machine never has so many
    for _ = 1, BORROWERS do
        all.go(function()
            local own = assert(lent.borrow(cache, PATIENCE))
            inside = inside + 1
            most = math.max(most, inside)
            local _, count = assert(own:call({ "CLIENT", "LIST" })):gsub("name=redcache%-X", "")
            connections = math.max(connections, count)
            full = full or inside == 16
            -- By the clock: among coroutines sleep() may come back at once.
            local deadline = clock.deadline(PATIENCE / 2)
            while not full and clock.left(deadline) > 0 do sleep(0.01) end
            sleep(0.01)
            inside = inside - 1
            own:give()
        end)
    end
    all.join()
    return { most = most, connections = connections }
end

-- A command is given up; its answer comes all the same, but not to the next one.
function cases.late(cache)
    local first = assert(lent.borrow(cache))
    local answer, err = first:call({ "BLPOP", "late", 0 }, 0.05)
    assert(answer == nil and err.code == "timeout", tostring(err))
    answer, err = first:call({ "PING" })
    assert(answer == nil and string.find(err.message, "a command on it has timed out", 1, true))
    assert(lent.call(cache, { "LPUSH", "late", "item", writes = 2 }))
    local second = assert(lent.borrow(cache))
    for i = 1, 20 do assert(second:call({ "ECHO", "mine" .. i }) == "mine" .. i) end
    second:give()
    return "as it should be"
end

-- The cache is closed while one waits over a connection of its own, and others wait for one.
function cases.closed(cache, go, sleep)
    local all = crowd(go, sleep)
    local codes, begun = {}, 0
    for _ = 1, 17 do
        all.go(function()
            local own, err = lent.borrow(cache, PATIENCE)
            if own then
                begun = begun + 1
                _, err = own:call({ "BLPOP", "never", 0 }, PATIENCE)
                own:give()
            end
            codes[#codes + 1] = err.code
        end)
    end
    while begun < 16 and not all.fault do sleep(0.002) end
    cache:close()
    all.join()
    return codes
end

return cases
