-- Waves of requests in nginx: which part of one goes by itself. No nginx: a port is a table here.

local parts = require("redcache.scheduler.resty.parts")

-- What host.lua and sleepers.lua keep of a port: callers that were woken and have not run, that
-- wait for an answer, and those of them whose requests no turn has sent.
local function new_port()
    local port = { woken = 0, count = 0 }
    parts.begin(port)
    return port
end

local function turn(port)
    port.unsent, port.is_undecided = 0, true
end

-- One of the woken callers runs, or a new one, and starts something. Whether it went at once.
local function start(port, is_new)
    port.woken = port.woken - (is_new and 0 or 1)
    port.count, port.unsent = port.count + 1, port.unsent + 1
    local goes = parts.is_one(port)
    if goes then
        turn(port)
    end
    return goes
end

-- The answers to so many requests have come.
local function answer(port, told)
    turn(port)
    port.count, port.woken = port.count - told, port.woken + told
    if port.parted then
        parts.judge(port, told)
    end
end

-- All that were woken start the next request; then the writer has its turn. The sizes of the parts
-- that went before that.
local function run(port)
    local sizes, since = {}, 0
    while port.woken > 0 do
        since = since + 1
        if start(port) then
            sizes[#sizes + 1], since = since, 0
        end
    end
    turn(port)
    return sizes
end

-- A port on which so many callers have been answered in one piece.
local function wave_of(callers)
    local port = new_port()
    port.count = callers
    answer(port, callers)
    return port
end

describe("resty/parts", function()
    it("lets the request of a caller that is alone go at once, and none of a few", function()
        assert.is_true(start(new_port(), true))
        local port = wave_of(2)
        assert.same({}, run(port))
        answer(port, 2)
        port.part_credits = 10
        assert.same({}, run(port))
        assert.same({}, run(wave_of(8)))
    end)

    it("lets the first half of a wave go while the other half runs", function()
        assert.same({ 25 }, run(wave_of(50)))
        assert.same({ 250 }, run(wave_of(500)))
        local port = wave_of(50)
        port.count = 10 -- they wait for long
        assert.same({ 25 }, run(port))
    end)

    it("lets half of the rest go, too, where parts have paid", function()
        local port = wave_of(50)
        port.part_credits = 10
        assert.same({ 25, 13 }, run(port))
    end)

    it("lets none of those go that begin together: who comes next is not known", function()
        local port = new_port()
        port.count = 3
        for _ = 1, 50 do
            assert.is_false(start(port, true))
        end
    end)

    it("keeps parts whole while the server has enough to do", function()
        local port = wave_of(51)
        assert.same({ 26 }, run(port))
        answer(port, 17) -- 34 are on their way
        assert.same({}, run(port))
    end)

    it("sends waves whole where parts are answered together, but for a try now and then", function()
        local port, parted = wave_of(50), {}
        for wave = 1, 130 do
            parted[#parted + 1] = #run(port) > 0 and wave or nil
            answer(port, 50)
        end
        assert.same({ 1, 64, 127 }, parted) -- the rest of one that was parted counts, too
    end)

    it("goes on with parts while the server answers each by itself", function()
        local port = wave_of(50)
        run(port)
        for _ = 1, 100 do
            answer(port, 25)
            answer(port, 25)
            assert.same({ 25, 13 }, run(port))
        end
        assert.equal(64, port.part_credits)
        for _ = 1, 15 do -- a part that did not pay costs four
            answer(port, 50)
            assert.equal(25, run(port)[1])
        end
        answer(port, 50)
        assert.same({}, run(port))
    end)
end)
