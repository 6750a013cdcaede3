-- A tag of many keys: what its invalidation costs depends on none of them.
--
-- Env: REDCACHE_TAGS_KEYS: how many keys (2000); 1000000 takes a quarter of a minute and 200 MB of
--      Redis' memory. With more than 2000 the figures are printed.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local KEYS = tonumber(os.getenv("REDCACHE_TAGS_KEYS") or 2000)
local BATCH, READS = 8000, 500

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    cache = redcache.new({ url = redis:url(), commandTimeout = 60 })
end)
after_each(function() cache:close() end)

-- Keys 1 to KEYS, each with a tag of its batch, too, which is not invalidated.
local function store_all()
    for first = 1, KEYS, BATCH do
        local values = {}
        for i = first, math.min(first + BATCH - 1, KEYS) do values["k" .. i] = i end
        assert.is_true((cache:setMulti(values, 3600, { tags = { "all", "from" .. first } })))
    end
end

-- How many of READS keys, spread over all, are found.
local function count_found()
    local found = 0
    for i = 1, READS do
        local key = math.ceil(i * KEYS / READS)
        local value = cache:get("k" .. key)
        if value ~= nil then
            assert.equal(key, value)
            found = found + 1
        end
    end
    return found
end

describe("invalidateTags of a tag that many keys have", function()
    it("is one command, after which none of them is a hit", function()
        local began = clock.now()
        store_all()
        local stored = clock.now() - began
        assert.is_true(redis:call("DBSIZE") > KEYS)
        assert.equal(READS, count_found())
        assert.equal(READS, count_found()) -- some of them near
        local took
        local calls = redis:count(function()
            began = clock.now()
            assert.equal(1, (cache:invalidateTags({ "all" })))
            took = clock.now() - began
        end)
        calls.ping = nil -- of the near cache
        assert.same({ unlink = 1 }, calls)
        assert.equal(0, count_found())
        if KEYS > 2000 then
            print(("%d keys of one tag, stored in %.1f s: invalidated by one command in %.3f ms")
                :format(KEYS, stored, took * 1e3))
        end
    end)
end)
