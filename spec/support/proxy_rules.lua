--- Which commands the proxy meddles with: an ordered list, the first rule that fits a command wins.

local proxy_rules = {}

function proxy_rules.new()
    return { list = {} }
end

--- Adds a rule (proxy.lua describes its fields); returns its number.
function proxy_rules.add(rules, rule)
    assert(rule.command, "a rule wants a command ('*' for any)")
    local place = #rules.list + 1
    rules.list[place] = {
        rule = rule, command = rule.command:lower(), skip = rule.skip or 0, hits = 0,
    }
    return place
end

local function has_argument(words, text)
    for i = 2, #words do
        if words[i]:find(text, 1, true) then return true end
    end
    return false
end

local function fits(entry, name, words, is_chosen)
    local rule, command = entry.rule, entry.command
    if command ~= "*" and command ~= name and command ~= name:match("^[^|]*") then return false end
    if rule.times and entry.hits >= rule.times then return false end
    if rule.argument and not has_argument(words, rule.argument) then return false end
    return is_chosen(rule.which)
end

--- The rule for this command, or nil.
function proxy_rules.find(rules, name, words, is_chosen)
    for _, entry in ipairs(rules.list) do
        if fits(entry, name, words, is_chosen) then
            if entry.skip == 0 then
                entry.hits = entry.hits + 1
                return entry.rule
            end
            entry.skip = entry.skip - 1
        end
    end
end

--- How often each rule has fitted.
function proxy_rules.hits(rules)
    local hits = {}
    for i, entry in ipairs(rules.list) do hits[i] = entry.hits end
    return hits
end

return proxy_rules
