-- refresh - what readers feel of a value that is loaded again while they go on: many processes over
-- the moment when it is due, with a loader of 300 ms, and the same load without that.
--
-- In turns, by the same processes: nothing happens ("calm"); somebody sets a new value ("set"),
-- which wakes readers as often as a refresh does; the value is due, and one process loads it
-- ("refresh"). p99 is that of all reads from half a second before the moment to 1.5 s behind it;
-- "p99 behind" that of the 0.8 s that begin with it, of which the load takes the first 0.3. Each
-- process begins one question and decodes one value anew: of 160 reads of these 0.8 s more than one
-- in a hundred, so only a set is fair to compare it with.

local bench = require("bench.support.bench")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local worker = require("spec.support.worker")

local PROCESSES, READS, READERS = bench.sized(16, 2), 200, 4 -- of a process: a second; coroutines
local DUE, LOAD = bench.sized(1.5, 0.15), bench.sized(0.3, 0.05) -- seconds
local FIRST, LAST, BEHIND = DUE - bench.sized(0.5, 0.1), DUE + bench.sized(1.5, 0.2),
    bench.sized(0.8, 0.2)

-- Reads the keys that it is told, each from its own beginning.
local function main(one)
    local params = one.params
    local support, lib = require("spec.support.clock"), require("redcache")
    local calls = require("redcache.calls")
    local caches = {}
    for _, name in ipairs({ "due", "calm" }) do
        caches[name] = lib.new({
            url = params.url, scheduler = "coroutine", background = true, waitTimeout = 60,
            commandTimeout = 30, near = params.near and { shared = params.near } or false,
            refreshAfter = name == "due" and params.due or 50,
        })
    end
    local function read_all(cache, key, stored)
        local all, behind, loads = {}, {}, 0
        local function load()
            loads = loads + 1
            calls.pause(cache, nil, "load", params.load)
            return key .. " again"
        end
        local function reader(index)
            local gap = params.readers / params.reads
            local due = support.now() + gap * index / params.readers
            while support.now() - stored < params.last do
                local left = due - support.now()
                if left > 0 then calls.pause(cache, nil, "read", left) end
                due = due + gap
                local began = support.now()
                assert(cache:remember(key, 60, load))
                local took, at = (support.now() - began) * 1e6, began - stored
                if at >= params.first and at < params.last then
                    all[#all + 1] = took
                end
                if at >= params.due and at < params.due + params.behind then
                    behind[#behind + 1] = took
                end
            end
        end
        lib.run(function()
            for i = 1, params.readers do lib.spawn(reader, i) end
        end)
        return { all = all, behind = behind, loads = loads }
    end
    while true do
        local told = one:receive(600)
        if told.key == nil then break end
        one:emit("read", read_all(caches[told.cache], told.key, told.stored))
    end
    caches.due:close()
    caches.calm:close()
end

local function percentile(list, part)
    table.sort(list)
    return list[math.max(1, math.ceil(#list * part))] or 0 -- nothing was read in a quick run
end

local key_count = 0

-- One key, read by all workers. kind: "calm", "set", "refresh"
local function play(workers, cache, kind)
    key_count = key_count + 1
    local key = "k" .. key_count
    assert(cache:set(key, key, 60))
    local stored = clock.now()
    for _, one in ipairs(workers) do
        one:send({ key = key, stored = stored, cache = kind == "refresh" and "due" or "calm" })
    end
    if kind == "set" then
        clock.sleep(stored + DUE + LOAD - clock.now())
        assert(cache:set(key, key .. " again", 60))
    end
    local all, behind, loads = {}, {}, 0
    for _, one in ipairs(workers) do
        local read = one:event("read", 60)
        for _, took in ipairs(read.all) do all[#all + 1] = took end
        for _, took in ipairs(read.behind) do behind[#behind + 1] = took end
        loads = loads + read.loads
    end
    -- In a quick run a busy machine may not come to it before the end.
    assert(bench.quick or loads == (kind == "refresh" and 1 or 0), loads .. " loads")
    return { p50 = percentile(all, 0.5), p99 = percentile(all, 0.99),
        ["p99 behind"] = percentile(behind, 0.99), most = percentile(all, 1) }
end

local function measure(redis, rounds)
    local cache = redcache.new({ url = redis:url(), near = false, background = true,
        refreshAfter = 50 })
    local sides, beds = {}, {}
    for _, where in ipairs({ "near", "redis" }) do
        local workers = {}
        for i = 1, PROCESSES do
            workers[i] = worker.start({ index = i, count = PROCESSES, main = main, params = {
                url = redis:url(), near = where == "near" and redis.port .. ".bench" or nil,
                due = DUE, load = LOAD, first = FIRST, last = LAST, behind = BEHIND,
                reads = READS, readers = READERS,
            } })
        end
        beds[#beds + 1] = workers
        for _, kind in ipairs({ "calm", "set", "refresh" }) do
            sides[#sides + 1] = { where .. ", " .. kind, function()
                return play(workers, cache, kind)
            end }
        end
    end
    local samples = bench.side_by_side(sides, rounds)
    for _, workers in ipairs(beds) do
        for _, one in ipairs(workers) do one:send({}) end
        for _, one in ipairs(workers) do one:join(60) end
    end
    cache:close()
    return samples
end

bench.run({
    name = "refresh",
    rounds = 5,
    measure = measure,
    figures = {
        { name = "p50", unit = "us" }, { name = "p99", unit = "us" },
        { name = "p99 behind", unit = "us" }, { name = "most", unit = "us" },
    },
    ratios = {
        { of = "near, refresh", to = "near, calm", figure = "p99",
            at_most = { idle = 1.5, busy = 1.5 } },
        { of = "near, refresh", to = "near, set", figure = "p99 behind",
            at_most = { idle = 1.5, busy = 1.5 } },
        { of = "near, set", to = "near, calm", figure = "p99 behind" },
        { of = "redis, refresh", to = "redis, calm", figure = "p99",
            at_most = { idle = 1.5, busy = 1.5 } },
        { of = "redis, refresh", to = "redis, set", figure = "p99 behind",
            at_most = { idle = 1.5, busy = 1.5 } },
    },
})
