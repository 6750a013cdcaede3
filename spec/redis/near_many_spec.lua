-- getMulti of what is near: it gives what single gets would, from wherever each key comes; under
-- every option, in L0s that are too small, with doubles, and with what others change meanwhile.

local redcache = require("redcache")

local clock, writer, reader

before_each(function() clock = redcache.clock() end)
after_each(function()
    writer:close()
    reader:close()
end)

local function open(options)
    local all = { url = "memory://", clock = clock, namespace = "app", maxStale = 0.5 }
    writer = redcache.new({ url = "memory://", clock = clock, namespace = "app", near = false,
        group = "writer" })
    for name, value in pairs(options) do all[name] = value end
    reader = redcache.new(all)
end

local NOTHING = function() return nil end

-- Changes some keys as others do, and tells what is then there: values by key, false for "no such
-- thing".
local function change(truth, pick)
    for _ = 1, math.random(0, 6) do
        local key, what = pick(), math.random(10)
        if what <= 5 then
            truth[key] = { math.random(1e6) }
            assert(writer:set(key, truth[key], 100))
        elseif what <= 7 then
            truth[key] = ("text"):rep(math.random(3))
            assert(writer:set(key, truth[key], 100))
        elseif what == 8 then
            assert(writer:delete(key) ~= nil)
            truth[key] = false
            writer:remember(key, 100, NOTHING, { negativeTtl = 100 })
        else
            writer:delete(key)
            truth[key] = nil
        end
    end
    clock:advance(0.001) -- the news comes
end

-- The options of a call that wants its values by position, or in a table of its own, now and then:
-- opts, expected: what that table holds by now.
local function choose_form(list, opts)
    local form, held = {}, {}
    for name, value in pairs(opts) do form[name] = value end
    form.list = math.random(3) == 1 or nil
    if math.random(3) == 1 then
        form.into = { other = "stays" }
        for i, key in ipairs(list) do form.into[form.list and i or key] = "of a call before" end
        held.other = "stays"
    end
    return form, held
end

local function never_there()
    return {}, "there is none"
end

local function compare(truth, list, opts, seed)
    local form, expected = choose_form(list, opts)
    local values, failed, negatives
    if math.random(3) == 1 then
        values, failed, negatives = reader:rememberMulti(list, 100, never_there, form)
        for key, err in pairs(failed) do
            assert.same({ "loaderFailed", nil }, { err.code, truth[key] }, "seed " .. seed)
        end
    else
        values, failed, negatives = reader:getMulti(list, form)
        assert.same({}, failed)
    end
    if form.into then assert.equal(form.into, values) end
    local none = {}
    for i, key in ipairs(list) do
        if truth[key] then
            expected[form.list and i or key] = truth[key]
        elseif truth[key] == false then
            none[key] = true
        end
    end
    assert.same({ expected, none }, { values, negatives }, "seed " .. seed)
end

local CALLS = {
    {}, {}, {}, { maxStale = 0.01 }, { near = false }, { fresh = true }, { copy = true },
    { copy = false },
}

for name, options in pairs({
    ["by default"] = {},
    ["without L0"] = { near = { l0 = false } },
    ["in an L0 of ten entries"] = { near = { l0 = { entries = 10 } } },
    ["in an L0 and a region that are too small"] = {
        near = { bytes = 65536, l0 = { bytes = 4096 } },
    },
    ["with copies"] = { copy = true },
    ["guarded"] = { guard = true },
    ["without a near cache"] = { near = false },
}) do
    it("getMulti gives what is there " .. name, function()
        open(options)
        local seed, truth = os.time(), {}
        math.randomseed(seed)
        local function pick() return "k" .. math.random(300) end
        for _ = 1, 150 do change(truth, pick) end
        for round = 1, 150 do
            change(truth, pick)
            local list = {}
            -- More than one reading of the clock, now and then; doubles come by themselves.
            for i = 1, math.random(10) == 1 and 300 or math.random(0, 40) do list[i] = pick() end
            compare(truth, list, CALLS[math.random(#CALLS)], seed)
            if round % 10 == 0 then clock:advance(math.random() * 2) end
            if round % 25 == 0 then
                for _, key in ipairs(list) do
                    assert.same(truth[key] or nil, (reader:get(key)), "seed " .. seed)
                end
            end
        end
    end)
end

-- Entries that tell of themselves: with tags, which somebody invalidates, hard or soft, and with a
-- grace window. Single gets are asked at the same time of the clock.
local function change_told(pick)
    local what = math.random(8)
    if what <= 4 then
        local tags = { "a" .. math.random(4), "b" .. math.random(4), "all" }
        local value = ("v"):rep(math.random(40)) .. math.random(1e6)
        assert(writer:set(pick(), value, math.random() * 3 + 0.1, {
            tags = math.random(3) > 1 and tags or nil, grace = math.random(2) == 1 and 2 or nil,
        }))
    elseif what == 5 then
        local tag = (math.random(2) == 1 and "a" or "b") .. math.random(4)
        assert(writer:invalidateTags({ tag }, { soft = math.random(2) == 1 }))
    elseif what == 6 then
        writer:delete(pick(), { soft = math.random(2) == 1 })
    elseif what == 7 then
        local key = pick()
        writer:delete(key)
        writer:remember(key, 100, NOTHING, { negativeTtl = 1 })
    else
        clock:advance(math.random())
    end
end

for name, options in pairs({
    ["by default"] = {},
    ["without L0"] = { near = { l0 = false } },
    ["without L0, of raw strings"] = { near = { l0 = false }, codec = "raw" },
    ["of raw strings"] = { codec = "raw" },
    ["in an L0 of ten entries"] = { near = { l0 = { entries = 10 } } },
}) do
    it("getMulti gives what single gets do of entries with tags and grace " .. name, function()
        open(options)
        writer:close()
        writer = redcache.new({ url = "memory://", clock = clock, namespace = "app", near = false,
            group = "writer", codec = options.codec })
        local seed, near_hits = os.time(), 0
        math.randomseed(seed)
        local function pick() return "k" .. math.random(60) end
        for _ = 1, 200 do change_told(pick) end
        for _ = 1, 200 do
            for _ = 1, math.random(0, 4) do change_told(pick) end
            clock:advance(0.001) -- the news comes
            local list, opts = {}, math.random(4) == 1 and { maxStale = 0.01 } or nil
            for i = 1, math.random(0, 40) do list[i] = pick() end
            -- Who comes first finds what is near; it may be read anew for who comes second.
            local singles = {}
            local function read_singles()
                for _, key in ipairs(list) do
                    local value, err = reader:get(key, opts)
                    assert.is_nil(err)
                    singles[key] = value
                end
            end
            local is_first = math.random(2) == 1
            if is_first then read_singles() end
            local before = reader:stats()
            local values, failed, negatives = reader:getMulti(list, opts)
            local after = reader:stats()
            near_hits = near_hits + after.nearHits + after.l0Hits - before.nearHits - before.l0Hits
            if not is_first then read_singles() end
            assert.same({}, failed)
            assert.same(singles, values, "seed " .. seed)
            for key in pairs(negatives) do assert.is_nil(singles[key]) end
        end
        assert.is_true(near_hits > 100, "hits: " .. near_hits)
    end)
end

-- Of sizes that fill the room of one call into C, and some that have none there.
for _, codec in ipairs({ "raw", "msgpack", "json" }) do
    it("getMulti gives large and small values as they are, by " .. codec, function()
        open({ near = { l0 = false }, codec = codec })
        writer:close()
        writer = redcache.new({ url = "memory://", clock = clock, namespace = "app", near = false,
            group = "writer", codec = codec })
        local seed, map, list = os.time(), {}, {}
        math.randomseed(seed)
        for i = 1, 200 do
            local size = ({ 10, 300, 5000, 40000 })[math.random(10) == 1 and 4 or math.random(3)]
            map["k" .. i] = string.char(96 + math.random(26)):rep(math.random(0, size))
        end
        assert(writer:setMulti(map, 100))
        for _ = 1, 300 do list[#list + 1] = "k" .. math.random(220) end
        local expected = {}
        for _, key in ipairs(list) do expected[key] = map[key] end
        for _ = 1, 4 do -- in blocks, for a call for more keeps nothing near
            for first = 1, #list, 100 do
                reader:getMulti({ unpack(list, first, first + 99) })
            end
        end
        local before = reader:stats().nearHits
        assert.same(expected, (reader:getMulti(list)), "seed " .. seed)
        assert.is_true(reader:stats().nearHits - before > 100)
    end)
end

describe("getMulti of what is near", function()
    it("leaves to Redis what was not read yet when a codec closes the cache", function()
        local closing, calls = nil, 0
        local codec = {
            name = "closing", id = 77,
            encode = function(value) return value end,
            decode = function(bytes)
                calls = calls + 1
                if closing and calls == 3 then closing:close() end
                return bytes
            end,
        }
        open({ near = { l0 = false }, codec = codec })
        local keys = {}
        for i = 1, 200 do
            keys[i] = "k" .. i
            assert(reader:set(keys[i], ("v"):rep(1000) .. i))
        end
        for first = 1, 200, 50 do reader:getMulti({ unpack(keys, first, first + 49) }) end
        reader:getMulti({ unpack(keys, 101, 200) }) -- what was found then is no answer later
        closing, calls = reader, 0
        local values, failed = reader:getMulti(keys)
        assert.equal("closed", failed.k200.code)
        for i, key in ipairs(keys) do
            if failed[key] == nil then assert.equal(("v"):rep(1000) .. i, values[key]) end
            assert.is_true((values[key] == nil) ~= (failed[key] == nil))
        end
    end)

    it("is not confused by a codec that reads", function()
        local keys, depth = {}, 0
        local codec = {
            name = "reading", id = 78,
            encode = function(value) return value end,
            decode = function(bytes)
                if depth == 0 then
                    depth = 1
                    for first = 1, 100, 50 do
                        reader:getMulti({ unpack(keys, first, first + 49) })
                        reader:get(keys[first])
                    end
                    depth = 0
                end
                return bytes
            end,
        }
        open({ near = { l0 = false }, codec = codec })
        depth = 1
        for i = 1, 100 do
            keys[i] = "k" .. i
            assert(reader:set(keys[i], "v" .. i))
        end
        reader:getMulti(keys)
        depth = 0
        local values = reader:getMulti(keys)
        for i, key in ipairs(keys) do assert.equal("v" .. i, values[key]) end
    end)

    it("counts its hits as single gets do, and doubles once", function()
        open({})
        writer:setMulti({ a = 1, b = 2, c = 3 })
        writer:remember("n", 60, NOTHING, { negativeTtl = 60 })
        local list = { "a", "b", "n", "a", "c" }
        reader:getMulti(list)
        local function counted(fn)
            local before = reader:stats()
            fn()
            local after, more = reader:stats(), {}
            for _, field in ipairs({ "l0Hits", "nearHits", "nearMisses", "requests" }) do
                more[field] = after[field] - before[field]
            end
            return more
        end
        assert.same({ l0Hits = 0, nearHits = 4, nearMisses = 0, requests = 0 },
            counted(function() reader:getMulti(list) end))
        assert.same({ l0Hits = 4, nearHits = 0, nearMisses = 0, requests = 0 },
            counted(function() reader:getMulti(list) end))
        assert.equal(4, counted(function()
            for _, key in ipairs({ "a", "b", "n", "c" }) do reader:get(key) end
        end).l0Hits)
    end)

    it("serves nothing whose time is over, and gives tables that are shared", function()
        open({})
        writer:set("k", { 1 }, 10)
        reader:getMulti({ "k" })
        reader:getMulti({ "k" })
        local values = reader:getMulti({ "k" })
        assert.equal(values.k, (reader:get("k")))
        assert.is_true(values.k ~= reader:getMulti({ "k" }, { copy = true }).k)
        clock:advance(11)
        assert.same({}, (reader:getMulti({ "k" })))
    end)

    it("refuses a list that holds something else before anything is looked up", function()
        open({})
        writer:setMulti({ a = 1 })
        reader:getMulti({ "a" })
        reader:getMulti({ "a" })
        local before = reader:stats().l0Hits
        for _, list in ipairs({ { "a", 1 }, { "a", {} }, { false, "a" } }) do
            local ok, message = pcall(reader.getMulti, reader, list)
            assert.is_false(ok)
            assert.matches("list of strings expected", message)
        end
        assert.equal(before, reader:stats().l0Hits)
    end)

    it("takes from L0 what has no place by its address there, too", function()
        open({ near = { l0 = { entries = 20000, bytes = 2 ^ 25 } } })
        local lists, map = {}, {}
        for i = 1, 98 do -- as full as the places of L0 become: some 30 keys have none
            lists[i] = {}
            for j = 1, 100 do
                lists[i][j] = "key " .. i .. " " .. j
                map[lists[i][j]] = i
            end
        end
        writer:setMulti(map)
        local function l0_hits()
            local before = reader:stats().l0Hits
            for i, list in ipairs(lists) do
                local values = reader:getMulti(list, { list = true })
                for j = 1, 100 do assert.equal(i, values[j]) end
            end
            return reader:stats().l0Hits - before
        end
        for _ = 1, 20 do -- the near cache lets go of some before L0 has them
            if l0_hits() == 9800 then return end
        end
        error("some keys are never found in L0")
    end)

    -- Interpreted code gives finalizers a chance behind each look at what C has found.
    it("lets no finalizer that reads confuse a single get", function()
        jit.off()
        finally(function()
            jit.on()
            collectgarbage("setpause", 200)
            collectgarbage("setstepmul", 200)
        end)
        open({ near = { l0 = false } })
        local own = reader -- the last finalizers run in the next test
        local keys, map, is_reading = {}, {}, false
        for i = 1, 200 do
            keys[i] = "k" .. i
            map[keys[i]] = "v" .. i
        end
        writer:setMulti(map)
        own:getMulti(keys)
        collectgarbage("setpause", 1)
        collectgarbage("setstepmul", 5000)
        for _ = 1, 4000 do
            getmetatable(newproxy(true)).__gc = function()
                if not is_reading then -- once the cache is closed that is an error
                    is_reading = true
                    for _ = 1, 3 do own:get(keys[math.random(200)]) end
                    is_reading = false
                end
            end
            local key = keys[math.random(200)]
            assert.equal(map[key], (own:get(key)))
        end
    end)

    for name, l0 in pairs({ ["with a small L0"] = { entries = 8 }, ["without L0"] = false }) do
        it("is not confused by a finalizer that reads, " .. name, function()
            open({ near = { l0 = l0 } })
            local own = reader -- the last finalizers run in the next test
            local keys, map = {}, {}
            for i = 1, 200 do
                keys[i] = "k" .. i
                map[keys[i]] = "v" .. i
            end
            writer:setMulti(map)
            collectgarbage("setpause", 1)
            for round = 1, 200 do
                for _ = 1, 3 do
                    getmetatable(newproxy(true)).__gc = function()
                        -- Some of them run when the cache is closed, or the Lua state.
                        local values, failed = own:getMulti(keys)
                        assert(values.k7 == "v7" or failed.k7.code == "closed")
                    end
                end
                local key = keys[round]
                local values = own:getMulti({ key, "k1", "k2", "none", "k3", key })
                assert.same({ [key] = "v" .. round, k1 = "v1", k2 = "v2", k3 = "v3" }, values)
            end
            collectgarbage("setpause", 200)
        end)
    end
end)
