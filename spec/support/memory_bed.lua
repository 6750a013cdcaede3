--- The bed of api_cases over a store in this process: its foreign client is another cache.
--
-- Not: a store in this process is never silent, and has one caller at a time.

local clock = require("spec.support.clock")
local redcache = require("redcache")

local memory_bed = {}

--- Caches that are opened are added to the list, whose owner closes them.
function memory_bed.new(name, caches)
    local bed = { pause = clock.sleep }
    function bed.open(options)
        local all = { url = "memory://" .. name, namespace = "app", near = false,
            commandTimeout = clock.scaled(2) }
        for option, value in pairs(options or {}) do all[option] = value end
        caches[#caches + 1] = redcache.new(all)
        return caches[#caches]
    end
    function bed.other(options)
        options = options or {}
        options.group = "another client"
        return bed.open(options)
    end
    local raw = bed.open({ group = "other" }):redis()
    bed.redis = { call = function(_, ...) return (raw:command(...)) end }
    function bed.silence() end
    function bed.wait_until(condition, seconds, what) clock.wait_until(condition, seconds, what) end
    bed.cache = bed.open()
    bed.redis:call("FLUSHALL")
    return bed
end

return memory_bed
