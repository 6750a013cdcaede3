-- After close every public method says `closed`, under every scheduler, and none crashes.

local closed_calls = require("spec.support.closed_calls")
local event_loop = require("spec.support.event_loop")
local redcache = require("redcache")

local function opener(options)
    return function()
        local all = { url = "memory://closed" }
        for name, value in pairs(options) do all[name] = value end
        return redcache.new(all)
    end
end

describe("after close", function()
    for name, options in pairs({
        ["with a near cache"] = {}, ["without"] = { near = false },
        ["without L0"] = { near = { l0 = false } }, ["with a grace window"] = { grace = 60 },
        ["guarded"] = { guard = true },
    }) do
        it("every method says closed, " .. name, function()
            assert.same({}, closed_calls.check(opener(options)))
        end)
    end

    it("of a namespace, so does the cache it was made from", function()
        assert.same({}, closed_calls.check(opener({}), function(cache)
            cache:namespace("other"):close()
        end))
    end)

    it("so do the calls of coroutines", function()
        local complaints
        redcache.run(function()
            complaints = closed_calls.check(opener({ scheduler = "coroutine" }))
        end)
        assert.same({}, complaints)
        assert.same({}, closed_calls.check(opener({ scheduler = "coroutine" })))
    end)

    for _, name in ipairs(event_loop.names) do
        it("so do those of " .. name, function()
            if not event_loop.has(name) then return pending("there is no " .. name) end
            local loop, complaints = event_loop.new(name), nil
            loop.go(function()
                complaints = closed_calls.check(opener({ scheduler = name }))
            end)
            loop.run()
            assert.same({}, complaints)
        end)
    end

    it("a clock goes on, and so do other caches with it", function()
        local clock = redcache.clock()
        local options = { clock = clock, group = "one" }
        local other = opener({ clock = clock, group = "two" })()
        assert.same({}, closed_calls.check(opener(options)))
        assert(other:set("k", 1, 5))
        clock:advance(4)
        assert.equal(4, clock:now())
        assert.equal(1, other:get("k"))
        clock:advance(2)
        assert.is_nil(other:get("k"))
        other:close()
        clock:advance(1)
        assert.equal(7, clock:now())
    end)

    it("nothing stays in L0 of what a codec decoded that closed the cache", function()
        local cache, ends
        cache = opener({
            codec = {
                id = 200, name = "closer", encode = tostring,
                decode = function(bytes)
                    if ends then cache:close() end
                    return bytes
                end,
            },
        })()
        assert(cache:set("k", "v", 60))
        assert.equal("v", cache:get("k"))
        ends = true
        local value, _, source = cache:get("k")
        assert.same({ "v", "near" }, { value, source })
        assert.equal("closed", select(2, cache:get("k")).code)
    end)
end)
