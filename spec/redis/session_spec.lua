-- Sessions: the embedded store keeps them as Redis does. What single calls promise:
-- spec/support/cases/sessions.lua.

local redcache = require("redcache")
local server = require("spec.support.server")

local STEPS = 2000

describe("sessions", function()
    local redis, caches

    setup(function()
        redis = server.start()
        caches = {}
    end)
    teardown(function()
        for _, cache in ipairs(caches) do cache:close() end
        redis:stop()
    end)

    it("are in the embedded store what they are in Redis", function()
        local seed = os.time()
        math.randomseed(seed)
        local stores = {}
        for i, url in ipairs({ redis:url(), "memory://session-spec" }) do
            caches[i] = redcache.new({ url = url, namespace = "app" })
            stores[i] = caches[i]:session({ ttl = 100 })
        end
        -- Pairs of ids: of Redis and of the store. Some of sessions that have ended.
        local ids, count, done = {}, 0, {}
        local function two(method, pair, ...)
            local results = {}
            for i, store in ipairs(stores) do
                local value, err = store[method](store, pair[i], ...)
                assert.is_nil(err, ("seed %d: %s"):format(seed, tostring(err)))
                results[i] = value
            end
            local what = method .. " " .. tostring(type(results[1]) ~= "string" and results[1])
            done[what] = (done[what] or 0) + 1
            return results
        end
        for step = 1, STEPS do
            local pair = ids[math.random(math.max(count, 1))]
            local what = math.random(10)
            if what <= 2 or not pair then
                count = count % 50 + 1
                ids[count] = two("create", { step, step })
            elseif what <= 6 then
                local a, b = unpack(two("get", pair))
                assert.equal(a, b, "seed " .. seed)
            elseif what == 7 then
                local a, b = unpack(two("set", pair, step))
                assert.equal(a, b, "seed " .. seed)
            elseif what == 8 then
                local a, b = unpack(two("destroy", pair))
                assert.equal(a, b, "seed " .. seed)
            else
                local fresh = two("regenerate", pair)
                assert.equal(type(fresh[1]), type(fresh[2]), "seed " .. seed)
                if fresh[1] then ids[math.random(count)] = fresh end
            end
        end
        for _, what in ipairs({ "set true", "set false", "destroy true", "destroy false",
            "regenerate false", "get nil" }) do
            assert.is_true((done[what] or 0) > 10, what)
        end
    end)
end)
