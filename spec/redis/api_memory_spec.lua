-- The public calls on memory://: the bodies that spec/redis/api_spec.lua runs on Redis. Blocking,
-- by a clock that the spec moves; some of them by the machine's, too; and those that need light
-- threads, as coroutines of redcache.run. Every public method has a case here, or a line that says
-- why not.
--
-- Env: REDCACHE_API_MEMORY=long: all of them by the machine's clock, too (30 s).

local called = require("spec.support.called") -- first: it watches redcache
local api_cases = require("spec.support.api_cases")
local calls = require("redcache.calls")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local usage = require("redcache.usage")

local URL = "memory://api-spec"
local IS_LONG = os.getenv("REDCACHE_API_MEMORY") == "long"

-- Groups without a wait to speak of.
local BY_THE_MACHINE = {
    entries = true, many = true, counters = true, moves = true, swaps = true, raw = true,
    transactions = true, subscriptions = true,
    reentrants = true, sessions = true, limits = true, ends = true, wraps = true,
}

-- Methods that were called in a case that ran to its end; the cases that did not, by what memory://
-- lacks for them.
local covered, lacking = {}, {}

local function run(case, settings)
    settings.url, settings.other_url, settings.is_memory = URL, URL, true
    called.take()
    local lacks = api_cases.run(case, settings)
    local seen = called.take()
    if lacks then
        lacking[lacks] = lacking[lacks] or {}
        lacking[lacks][case[1]] = true
    else
        for method in pairs(seen) do covered[method] = true end
    end
end

describe("on memory://, with a clock:", function()
    for _, case in ipairs(api_cases) do
        it(case[1], function()
            local time = redcache.clock()
            run(case, { scheduler = "blocking", clock = time,
                pause = function(seconds) time:advance(seconds) end })
        end)
    end
end)

describe("on memory://:", function()
    for _, case in ipairs(api_cases) do
        if IS_LONG or BY_THE_MACHINE[case.group] then
            it(case[1], function() run(case, { scheduler = "blocking", pause = clock.sleep }) end)
        end
    end
end)

describe("on memory://, as coroutines:", function()
    local function together(functions)
        local tasks, first = {}, nil
        for i, fn in ipairs(functions) do
            tasks[i] = redcache.spawn(function()
                fn()
                return true
            end)
        end
        for _, task in ipairs(tasks) do
            local ok, err = task:wait()
            first = first or (not ok and err or nil)
        end
        if first then error(first, 0) end
    end

    for _, case in ipairs(api_cases.light) do
        it(case[1], function()
            redcache.run(function()
                local waiter = redcache.new({ url = URL, scheduler = "coroutine", group = "waiter",
                    near = false })
                local function pause(seconds) calls.pause(waiter, nil, "pause", seconds) end
                run(case, { scheduler = "coroutine", pause = pause, together = together })
                waiter:close()
            end)
        end)
    end
end)

-- What memory:// lacks, by the word that a case says it needs.
local LACKS = { lists = 5, silence = 15, HSET = 1, streams = 8 }

-- Public methods without a case that runs on memory://, and where they are tried instead.
local ELSEWHERE = {
    ["cache:authenticate"] = "a server that asks who we are: auth_spec",
    ["cache:metrics"] = "no call: metrics_spec",
    ["cache:request"] = "a request of nginx: nginx/request_spec",
    ["redcache.init"] = "nginx: nginx/readme_spec", ["redcache.slot"] = "no call: cluster/*",
    ["redcache.clock"] = "the bed makes them", ["redcache.run"] = "the bed is in it",
}

-- The public methods that have neither, and the lines that nothing needs.
local function uncovered(calls_of, seen, elsewhere)
    local list, known = {}, {}
    for class, methods in pairs(calls_of) do
        for method in pairs(methods) do
            local text = class .. (class == "redcache" and "." or ":") .. method
            known[text] = true
            local is_meant = elsewhere[text] ~= nil or class == "request" -- as cache:request
            if not seen[text] and not is_meant then list[#list + 1] = text end
        end
    end
    for text in pairs(elsewhere) do
        if seen[text] or not known[text] then list[#list + 1] = text .. " is not elsewhere" end
    end
    table.sort(list)
    return list
end

-- Behind the cases above: busted runs a file in its order.
describe("every public method", function()
    it("has a case that ran to its end on memory://, or a reason", function()
        assert.same({}, uncovered(usage.calls(), covered, ELSEWHERE))
        local counts = {}
        for what, names in pairs(lacking) do
            counts[what] = 0
            for _ in pairs(names) do counts[what] = counts[what] + 1 end
        end
        assert.same(LACKS, counts)
    end)

    it("would be told if it had none", function()
        local all = { cache = { get = "", set = "" }, redcache = { new = "" } }
        assert.same({ "cache:set", "redcache.new" },
            uncovered(all, { ["cache:get"] = true }, {}))
        assert.same({ "cache:get is not elsewhere", "cache:old is not elsewhere" },
            uncovered(all, { ["cache:get"] = true, ["redcache.new"] = true },
                { ["cache:get"] = "", ["cache:set"] = "", ["cache:old"] = "" }))
    end)
end)

describe("what memory:// cannot do", function()
    local HAS_NONE = "ERR memory:// has no such command: give redcache.new the url of a server"
    local RUNS_NONE = "ERR memory:// runs no scripts but redcache's own: give redcache.new the url"
        .. " of a server"
    local cache, raw

    before_each(function()
        cache = redcache.new({ url = URL, namespace = "app", near = false })
        raw = cache:redis()
    end)
    after_each(function() cache:close() end)

    local function refused(text, value, err)
        assert.is_nil(value)
        assert.same({ "redis", text }, { err.code, err.message })
    end

    it("is refused with what to do, whichever type it is of, and whether it waits or not",
        function()
            for _, words in ipairs({
                { "BLPOP", "q", 30 }, { "BRPOPLPUSH", "q", "p", 0 },
                { "BLMPOP", 0, 1, "q", "LEFT" }, { "XREAD", "BLOCK", 0, "STREAMS", "s", "$" },
                { "LPUSH", "q", "x" }, { "HSET", "h", "f", "v" }, { "SADD", "s", "m" },
                { "ZADD", "z", 1, "m" }, { "SPUBLISH", "c", "m" }, { "FCALL", "f", 0 },
            }) do
                refused("could not run " .. words[1] .. ": " .. HAS_NONE,
                    raw:command(unpack(words)))
            end
            local stats = cache:stats()
            assert.same({ 0, 0 }, { stats.inFlight, stats.waiting })
            assert.equal("PONG", raw:command("PING"))
        end)

    it("is refused at its place in a pipeline, and the rest is done", function()
        local own = raw:script("return 1")
        local answers = assert(raw:pipeline(function(p)
            p:command("SET", "app:k", "1")
            p:command("LPUSH", "q", "x")
            p:run(own, { "k" }, {})
            p:command("INCR", "app:k")
        end))
        assert.same({ "OK", 2 }, { answers[1], answers[4] })
        assert.equal("could not run LPUSH: " .. HAS_NONE, answers[2].message)
        assert.equal("could not run the script: " .. RUNS_NONE, answers[3].message)
    end)

    it("ends a transaction with nothing done", function()
        raw:command("SET", "app:k", "1")
        refused("could not run LPUSH: " .. HAS_NONE, raw:transaction(function(tx)
            tx:command("SET", "app:k", "2")
            tx:command("LPUSH", "q", "x")
        end))
        assert.equal("1", raw:command("GET", "app:k"))
    end)

    it("is a script in a transaction, too: an error at its place, as of one that fails", function()
        local answers = assert(raw:transaction(function(tx)
            tx:command("SET", "app:k", "2")
            tx:run(raw:script("return 1"), { "app:k" }, {})
        end))
        assert.same({ "OK", "could not run EXEC: " .. RUNS_NONE },
            { answers[1], answers[2].message })
    end)

    it("is a script of one's own, however it is run", function()
        local own = raw:script("return redis.call('SET', KEYS[1], 1)")
        refused("could not run the script: " .. RUNS_NONE, own:run({ "app:k" }, {}))
        refused("could not run EVAL: " .. RUNS_NONE, raw:command("EVAL", "return 1", 0))
        refused("could not run SCRIPT: " .. RUNS_NONE, raw:command("SCRIPT", "LOAD", "return 1"))
        assert.is_nil(raw:command("GET", "app:k"))
    end)
end)
