-- by_tag - the keys that hang on a tag: cache:keysByTag.
--
-- What:   reads the tag's index (tag_index.lua), then looks at the beginning of each entry that it
--         names: at its tags, and whether they still stand (tags.lua).

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local core_extra = require("redcache.core.extra")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local options = require("redcache.options")
local tag_index = require("redcache.tag_index")
local tags = require("redcache.tags")

local ACTION = "find the keys of the tag"
-- Entries that are looked at in one write; of each the header, and the longest block there is: 17
-- tags of 200 bytes are 3,705.
local LOOKS, HEAD = 1024, 4000

local by_tag = {}

-- Sends one command for each of keys first to last: look(node, key, slot, at) for each answer.
local function ask(own, opts, keys, first, last, words_of, look)
    local slot, err = calls.take(own._client, opts, ACTION)
    if slot == nil then
        return err
    end
    local status = core_command.begin(slot, constants.RETRY)
    for i = first, last do
        status = status == 0 and core_command.words(slot, words_of(own._prefix .. keys[i]))
            or status
    end
    status = calls.send(own, slot, status)
    if status ~= 0 then
        return calls.fail(slot, status, ACTION)
    end
    local nodes, count = core_command.nodes(slot)
    for i = first, last do
        local at = i - first
        if err or at >= count then
            break
        elseif core_command.is_error(nodes[at]) then
            err = core_command.node_failure(nodes[at], ACTION)
        else
            err = look(nodes[at], keys[i], slot, at)
        end
    end
    core_slot.give(slot)
    return err
end

-- The keys in the index, and whether there may be others | nil, err
local function read_index(cache, name, opts)
    local own, buckets = tag_index.keys(cache, { name })
    local list, was_full, err = {}, false, tag_index.fault(cache, name, ACTION)
    err = err or ask(own, opts, buckets, 1, #buckets, function(key)
        return { "GET", key }
    end, function(node)
        was_full = tag_index.read(core_command.node_text(node), list) or was_full
    end)
    if err then
        return nil, err
    end
    return list, was_full
end

-- Whether a block names the tag.
local function names_tag(block, name)
    for _, tag in ipairs(core_extra.tags(block) or {}) do
        if tag.name == name then
            return true
        end
    end
    return false
end

-- By key: the blocks of values that have the tag.
local function read_blocks(cache, list, name, opts)
    local blocks = {}
    for first = 1, #list, LOOKS do
        local err = ask(cache, opts, list, first, math.min(first + LOOKS - 1, #list), function(key)
            return { "GETRANGE", key, "0", ("%d"):format(HEAD - 1) }
        end, function(_, key, slot, at)
            local status = core_command.node_entry(slot, at)
            if status ~= 0 then
                return core_slot.failure(slot, status, ACTION, name)
            elseif slot.result.kind == constants.KIND_VALUE then
                local _, _, flags, bytes = core_entry.read(slot)
                if tags.has(flags, bytes) and names_tag(bytes, name) then
                    blocks[key] = bytes
                end
            end
        end)
        if err then
            return nil, err
        end
    end
    return blocks
end

---The keys of what was stored with a tag, and has a value still. For tools and tests: it looks at
---each of them. Of a namespace with tagIndex = true.
---@param name string of the tag
---@param opts? table cancelTag, timeout (of each of its round trips: one, one for each 1,024 keys,
---one for generations that are not near)
---@return string[]|nil keys sorted by their bytes
---@return redcache.Error|nil err tooLarge, timeout, cancelled, unavailable, overload, closed,
---redis, cannotWait
---@return string|nil partial "partial": the index was full once, and there may be others
function by_tag.keysByTag(self, name, opts)
    if not options.is_tag(name) then
        error(errors.argument("tag", "keysByTag", options.TAG, name), 2)
    end
    local own, message = options.read({}, opts, "call", "keysByTag")
    if own == nil then
        error(message, 2)
    elseif not self._settings.tagIndex then
        error("keysByTag needs a namespace with tagIndex = true: no other one keeps an index", 2)
    end
    local list, second = read_index(self, name, own)
    if list == nil then
        return nil, second
    end
    local blocks, err = read_blocks(self, list, name, own)
    if blocks == nil then
        return nil, err
    end
    local verdicts
    verdicts, err = tags.judge_many(self, blocks, own)
    if err then
        return nil, err
    end
    local keys = {}
    for key, block in pairs(blocks) do
        if tags.outcome(verdicts[key], block) ~= "void" then
            keys[#keys + 1] = key
        end
    end
    table.sort(keys)
    return keys, nil, second and "partial" or nil
end

return by_tag
