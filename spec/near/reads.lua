--- Reads through a near cache, as its specs need them over and over.

local clock = require("spec.support.clock")

local reads = {}

function reads.is_near(source)
    return source == "l0" or source == "near"
end

--- Where a value comes from; throws where the read fails.
function reads.source(cache, key, opts)
    local _, err, source = cache:get(key, opts)
    if err then error(err, 2) end
    return source
end

--- Reads until memory answers, and returns the value. It may take some reads, and each of them long
-- on a busy machine.
function reads.warm(cache, key, opts)
    local value, err, source
    clock.wait_until(function()
        value, err, source = cache:get(key, opts)
        return err or reads.is_near(source)
    end, 10, "an answer from memory")
    if err then error(err, 2) end
    return value
end

--- Reads until the value is `wanted` (nil: nothing there); returns how long that took. Throws after
-- `seconds` (stretched).
function reads.until_value(cache, key, wanted, seconds)
    local started, value, err, source = clock.now(), nil, nil, nil
    local ok = pcall(clock.wait_until, function()
        value, err, source = cache:get(key)
        return value == wanted
    end, seconds)
    local took = clock.now() - started
    if ok then return took end
    error(("after %g s '%s' is %s from %s (%s), not %s"):format(took, key, tostring(value),
        tostring(source), tostring(err), tostring(wanted)), 2)
end

return reads
