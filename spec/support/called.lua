--- Which public methods were called. To be required before redcache.
--
-- What:   called.take() gives those since it was asked last: a set of "class:method", and
--         "redcache.fn" of the module's functions.
-- Not:    a call within another public call counts as well.

local usage = require("redcache.usage")

assert(not package.loaded["redcache.cache"], "redcache is loaded, and its methods are not watched")

local called, seen = {}, {}

-- Tail calls: what they raise at their caller's line is raised there.
local function watch(owner, methods, name, text)
    local fn = methods[name]
    if type(fn) == "function" then
        methods[name] = function(...)
            owner[text] = true
            return fn(...)
        end
    end
end

local record = setmetatable({}, { __newindex = function(_, text) seen[text] = true end })

local guard, classes = usage.guard, {}
function usage.guard(class, methods, field, hot)
    guard(class, methods, field, hot)
    classes[methods] = class
end

local redcache = require("redcache.all")
usage.guard = guard
for methods, class in pairs(classes) do
    for name in pairs(usage.calls()[class]) do
        watch(record, methods, name, class .. ":" .. name)
    end
end
for name in pairs(usage.calls().redcache) do
    watch(record, redcache, name, "redcache." .. name)
end

function called.take()
    local taken = seen
    seen = {}
    return taken
end

return called
