--- What a read of one key gives, as docs/api/freshness.md tells it: written from there, not from
-- the code, so that the two are held to each other.
--
-- What:   of a case (what was stored, how long ago, under which options, what its loader will say)
--         expected() gives what the first read returns, whether it runs the loader, and the same of
--         a second read behind the work in the background.
-- Not:    chance: xfetchBeta is looked at by itself.

local freshness_table = {}

-- Which of the four a value is. `age` and all times are seconds.
local function state_of(case)
    if case.kind == "negative" then
        return case.age < case.life and "fresh" or "absent"
    elseif case.kind == "forever" then
        return "fresh" -- a value without an end does not tell its age
    elseif case.age >= case.life + case.grace then
        return "absent"
    elseif case.age >= case.life then
        return "stale"
    elseif case.refreshAfter and case.age >= case.refreshAfter then
        return "early"
    end
    return "fresh"
end
freshness_table.state_of = state_of

-- What a caller gets that loads: its own value, or what there was.
local LOADED = {
    value = { value = "new", source = "loader" },
    nothing = { source = "loader" },
    same = { value = "old", source = "loader" },
}

local function here(case, state)
    local value = case.kind ~= "negative" and "old" or nil
    return { value = value, source = state == "stale" and "stale" or "here" }
end

-- Whether the reader itself loads what is early or stale.
local function is_readers(case, state)
    if not case.background then return true end
    return state == "stale" and case.load_time > 0 and case.load_time <= case.softTimeout
end

--- What the first and the second read give: { value, source ("here": l0, near or redis; "loader",
-- "stale"), code } each, and how often the loader has run by then.
function freshness_table.expected(case)
    local state, says = state_of(case), case.says
    local runs, first, second = 0
    if case.read ~= "remember" then -- nobody is there who could load
        first = state == "absent" and {} or here(case, state)
        if case.read ~= "get" and first.source then first.source = "here" end
        return first, first, 0, 0
    elseif state == "fresh" then
        first, second = here(case, state), here(case, state)
    elseif state == "absent" then
        first, runs = LOADED[says] or { code = "loaderFailed" }, 1
        second = LOADED[says] or { code = "loaderFailed" }
    elseif case.is_held then -- somebody else has the refresh lease
        first, second = here(case, state), here(case, state)
    elseif is_readers(case, state) then
        first, runs = LOADED[says] or here(case, state), 1
        second = first
    else
        first = here(case, state)
        second = LOADED[says] or first
    end
    local later = runs
    if second.source == "loader" then
        second = { value = second.value, source = "here" }
        later = 1
    elseif state == "absent" then
        later = 2 -- an error is not remembered
    elseif state ~= "fresh" and not case.is_held then
        later = 1
    end
    return first, second, runs, later
end

return freshness_table
