-- load_settings - the settings of a cache, or of a call, in the form that loads want them.

local bit = require("bit")
local constants = require("redcache.core.constants")
local core_load = require("redcache.core.load")
local freshness = require("redcache.freshness")

local bor = bit.bor

local load_settings = {}

-- The flags of every rc_load under these settings.
local function load_flags(settings)
    local is_told = freshness.is_told(settings, settings.grace)
    return bor((settings.grace > 0 or is_told) and constants.WANT_TTL or 0,
        settings.background ~= false and constants.SERVE or 0,
        settings.strict and constants.STRICT or 0,
        settings.renew and 0 or constants.NO_RENEW,
        settings.reads == "replica" and not settings.fresh and constants.REPLICA or 0)
end

---Prepares settings for loads: once per cache, and per call where a call brings options.
---@param settings table
---@return table settings
function load_settings.prepare(settings)
    settings.numbers = core_load.numbers(settings)
    settings.flags = load_flags(settings)
    return settings
end

return load_settings
