--- Raw commands of a cache's client, over the shared connection or over a lent one, for specs: as
--- long as redcache has no calls of its own for them.
--
-- What:   lent.call(cache, { "INCR", "k" }) goes over the shared one; own = lent.borrow(cache),
--         then own:call(...), own:give(). Each waits as the cache's scheduler does. start() and
--         finish() are the two halves of a call. Answers: strings, numbers, false for null, lists;
--         nil, err.
-- Memory: give back, or the garbage collector does.

local core_command = require("redcache.core.command")
local core_lent = require("redcache.core.lent")
local core_slot = require("redcache.core.slot")
local calls = require("redcache.calls")

local lent = {}
local Own = {}
Own.__index = Own

local TEXT = { [("+"):byte()] = true, [("$"):byte()] = true, [("-"):byte()] = true,
    [("="):byte()] = true, [(","):byte()] = true, [("!"):byte()] = true }
local LIST = { [("*"):byte()] = true, [("~"):byte()] = true, [(">"):byte()] = true,
    [("%"):byte()] = true }
local INTEGER = (":"):byte()

-- The element at that place, and the place behind it.
local function read(nodes, at)
    local node = nodes[at]
    if LIST[node.type] then
        local list, count = {}, node.count -- of a map: keys and values
        at = at + 1
        for i = 1, count do list[i], at = read(nodes, at) end
        return list, at
    elseif TEXT[node.type] then
        return core_command.node_text(node), at + 1
    end
    return node.type == INTEGER and tonumber(node.integer) or false, at + 1
end

-- Keys that a command writes are named where a list follows it: { "SET", "k", "v", writes = 2 }.
local function write(slot, command)
    local status = core_command.command(slot, #command)
    for i, argument in ipairs(command) do
        if status ~= 0 then break end
        local add = i == command.writes and core_command.argument_written or core_command.argument
        status = add(slot, tostring(argument))
    end
    return status
end

local function start(cache, handle, list, timeout)
    local slot = assert(calls.take(cache._client, { timeout = timeout }, "call"))
    local status = handle and core_lent.begin(handle, slot) or core_command.begin(slot, 0)
    for _, command in ipairs(type(list[1]) == "table" and list or { list }) do
        if status == 0 then status = write(slot, command) end
    end
    if status == 0 then status = core_command.submit(slot) end
    return { cache = cache, slot = slot, status = status, is_list = type(list[1]) == "table" }
end

--- Waits for what was started. Of a list of commands: the list of their answers.
function lent.finish(call)
    local slot = call.slot
    local status = calls.await(call.cache, slot, call.status)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "call")
    end
    local nodes, count = core_command.nodes(slot)
    local answers, at = {}, 0
    while at < count do answers[#answers + 1], at = read(nodes, at) end
    core_slot.give(slot)
    if call.is_list then return answers end
    return answers[1]
end

--- Starts a command, or a list of them, over the shared connection.
function lent.start(cache, list, timeout)
    return start(cache, nil, list, timeout)
end

function lent.call(cache, list, timeout)
    return lent.finish(start(cache, nil, list, timeout))
end

--- A connection of one's own; nil, err.
function lent.borrow(cache, timeout)
    local handle = assert(core_lent.new(cache._client))
    local slot = assert(calls.take(cache._client, { timeout = timeout }, "borrow"))
    local status = calls.await(cache, slot, core_lent.borrow(handle, slot))
    if status ~= 0 then
        core_lent.free(handle)
        return nil, calls.fail(slot, status, "borrow")
    end
    core_slot.give(slot)
    return setmetatable({ cache = cache, handle = handle }, Own)
end

function Own:start(list, timeout)
    return start(self.cache, self.handle, list, timeout)
end

function Own:call(list, timeout)
    return lent.finish(self:start(list, timeout))
end

function Own:give()
    core_lent.give_back(self.handle)
end

return lent
