-- answer - what Redis answers as Lua values.
--
--     simple, bulk and verbatim strings  string (a verbatim one without its format)
--     integer                            number; from 2^53 on an int64 cdata: never rounded
--     double                             number, inf and nan included
--     boolean                            true, false
--     big number                         string of its digits
--     null                               redcache.NULL; nil where it is the whole answer
--     array, set, push                   list
--     map                                table by its keys
--     error                              error object at its place
--
-- Not:    attributes: the core takes no answer with one. Redis sends none.

local core_command = require("redcache.core.command")
local NULL = require("redcache.null")

local node_text = core_command.node_text

local answer = {}

local EXACT = 2 ^ 53

local read

local function read_integer(nodes, at)
    local integer = nodes[at].integer
    local number = tonumber(integer)
    return number > -EXACT and number < EXACT and number or integer, at + 1
end

local NUMBERS = { inf = math.huge, ["+inf"] = math.huge, ["-inf"] = -math.huge }

local function read_double(nodes, at)
    local text = node_text(nodes[at])
    return NUMBERS[text] or tonumber(text) or 0 / 0, at + 1
end

local function read_text(nodes, at)
    return node_text(nodes[at]), at + 1
end

local function read_list(nodes, at, action)
    local count, list = nodes[at].count, {}
    at = at + 1
    for i = 1, count do
        list[i], at = read(nodes, at, action)
    end
    return list, at
end

local function read_map(nodes, at, action)
    local pairs_left, map = nodes[at].count / 2, {}
    at = at + 1
    for _ = 1, pairs_left do
        local key, value
        key, at = read(nodes, at, action)
        value, at = read(nodes, at, action)
        if key ~= key then
            key = "nan" -- no table has such a key
        end
        map[key] = value
    end
    return map, at
end

local READERS = {
    [":"] = read_integer, [","] = read_double, ["+"] = read_text, ["$"] = read_text,
    ["="] = read_text, ["("] = read_text, ["*"] = read_list, ["~"] = read_list, [">"] = read_list,
    ["%"] = read_map,
    ["#"] = function(nodes, at) return nodes[at].integer ~= 0, at + 1 end,
    ["_"] = function(_, at) return NULL, at + 1 end,
    ["-"] = function(nodes, at, action)
        return core_command.node_failure(nodes[at], action), at + 1
    end,
}
local BY_BYTE = {}
for sign, reader in pairs(READERS) do
    BY_BYTE[string.byte(sign)] = reader
end

-- The core bounds the depth.
function read(nodes, at, action)
    return BY_BYTE[nodes[at].type](nodes, at, action)
end

---The answers in a slot, in order.
---@param slot redcache.Slot
---@param action_of fun(command: redcache.redis.Command|nil): string what one is called in its error
---@param commands? redcache.redis.Command[] that they answer
---@return any[] answers
function answer.all(slot, action_of, commands)
    local nodes, length = core_command.nodes(slot)
    local answers, count, at = {}, 0, 0
    while at < length do
        count = count + 1
        answers[count], at = read(nodes, at, action_of(commands and commands[count]))
    end
    return answers
end

return answer
