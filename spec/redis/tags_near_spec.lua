-- Near hits of entries that tell of themselves: those the core finds sound are served at once, and
-- all others, or those of a call that looks at their age, are judged.

local clock = require("spec.support.clock")
local redcache = require("redcache")

local SOUND = { near = { l0 = false }, l0 = true } -- by the source of a hit: option near
local TAGGED = { tags = { "a", "b" } }

local function open(source, more)
    local given = { url = "memory://", near = SOUND[source] }
    for name, value in pairs(more or {}) do given[name] = value end
    local cache = assert(redcache.new(given))
    finally(function() cache:close() end)
    return cache
end

local function warm(cache, key, source)
    local from
    for _ = 1, 20 do
        from = select(3, cache:get(key))
        if from == source then return end
    end
    assert.equal(source, from)
end

local function never() error("a hit was expected") end

for source in pairs(SOUND) do
    describe("a tagged " .. source .. " hit", function()
        it("ends with its tags, also in a call for many", function()
            local cache = open(source)
            for i = 1, 3 do
                assert(cache:set("k" .. i, "v" .. i, 60, i < 3 and TAGGED or nil))
                warm(cache, "k" .. i, source)
            end
            local hits = cache.near:stats()[source == "l0" and "l0Hits" or "nearHits"]
            assert.same({ k1 = "v1", k2 = "v2", k3 = "v3" },
                cache:getMulti({ "k1", "k2", "k3" }))
            local name = source == "l0" and "l0Hits" or "nearHits"
            assert.equal(hits + 3, cache.near:stats()[name])
            assert(cache:invalidateTags({ "b" }))
            assert.same({ k3 = "v3" }, cache:getMulti({ "k1", "k2", "k3" }))
            assert.is_nil(cache:get("k1"))
            assert.equal(source, select(3, cache:get("k3")))
        end)

        it("is judged by its age where the call says so", function()
            local cache = open(source, { background = true })
            assert(cache:set("k", "old", 60, TAGGED))
            warm(cache, "k", source)
            clock.sleep(0.01)
            local value, err, from = cache:remember("k", 60, never)
            assert.same({ "old", source }, { value, from, err })
            local function load() return "new" end
            value, err, from = cache:remember("k", 60, load,
                { refreshAfter = 0.001, tags = TAGGED.tags })
            assert.same({ "old", source }, { value, from, err })
            assert.equal(1, cache:stats().backgroundQueued + cache:stats().backgroundDone)
        end)

        it("keeps tables, nil and copies apart", function()
            local cache = open(source)
            assert(cache:set("table", { 1 }, 60, TAGGED))
            assert(cache:remember("nil", 60, function() return nil end, TAGGED) == nil)
            warm(cache, "table", source)
            warm(cache, "nil", source)
            local value, _, from = cache:get("nil")
            assert.same({ nil, source }, { value, from })
            local copy, _, copied = cache:get("table", { copy = true })
            assert.same({ 1 }, copy)
            assert.equal("near", copied)
            assert.are_not.equal(copy, (cache:get("table")))
        end)
    end)
end
