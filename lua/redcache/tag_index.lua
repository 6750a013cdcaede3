-- tag_index - which keys were stored with a tag: an index, where a namespace has tagIndex = true.
--
-- What:   a tag has BUCKETS strings (namespace.index_key), between which its keys are shared out. A
--         string is a byte that tells whether it was ever full, a zero, and names, each with a zero
--         behind it. add() puts names in before what they name is stored, and behind the reading of
--         the generations (tags.begin): what is valid is in the index, unless it was full.
-- Why:    strings, because the embedded store has no sets, and memory:// answers as Redis does.
-- Not:    nothing is taken out but by an invalidation (invalidate.lua) and at the end of its life,
--         so it names keys that no longer hang on the tag: by_tag.lua looks.

local bit = require("bit")
local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_command = require("redcache.core.command")
local core_entry = require("redcache.core.entry")
local errors = require("redcache.errors")
local many = require("redcache.many")
local namespace = require("redcache.namespace")

local tag_index = {}

-- Of a tag. Redis looks through one of them for each write, so it must not be long.
local BUCKETS, BUCKET_BYTES = 16, 65536
tag_index.BUCKET_BYTES = BUCKET_BYTES
-- Names for which one script looks: others wait meanwhile.
local NAMES_AT_ONCE = 64

local ACTION = "add to the index of the tag"

-- K; milliseconds, most bytes, names... -> for how many there was no room. SETRANGE fills up with
-- zeros what it finds shorter.
local ADD = [[
local v=redis.call('GET',KEYS[1]) or ''
local more,left='\0',0
for i=3,#ARGV do
local one='\0'..ARGV[i]..'\0'
if not string.find(v,one,1,true) and not string.find(more,one,1,true) then
if #v+#more+#one>tonumber(ARGV[2]) then left=left+1
else more=more..string.sub(one,2) end
end
end
if #more>1 then redis.call('SETRANGE',KEYS[1],math.max(#v,2),string.sub(more,2)) end
if left>0 then redis.call('SETRANGE',KEYS[1],0,'\1\0') end
redis.call('PEXPIRE',KEYS[1],ARGV[1])
return left
]]

-- Defined at the first call: a script takes one of the process's 1,024 places.
local script

-- A key as it stands in the index: without zeros, and never empty.
local ESCAPED, ESCAPES = "[%z\1]", { ["\0"] = "\1\1", ["\1"] = "\1\2" }
local NAMED = { ["\1"] = "\0", ["\2"] = "\1" }

local function escape(key)
    return "=" .. string.gsub(key, ESCAPED, ESCAPES)
end

local function bucket_of(key)
    local hash = #key
    for i = 1, #key do
        hash = bit.tobit(hash * 31 + string.byte(key, i))
    end
    return bit.band(bit.bxor(hash, bit.rshift(hash, 16)), BUCKETS - 1)
end

-- What the functions of many.lua ask of a cache, for the keys of an index.
local function of(cache)
    return calls.under(cache._client, namespace.index_key(cache._prefix, "", ""))
end

---The keys of the index of some tags, behind the prefix of the cache that comes with them.
---@param cache redcache.Cache
---@param names string[] of tags
---@return table own cache of them
---@return string[] keys
function tag_index.keys(cache, names)
    local keys = {}
    for _, name in ipairs(names) do
        for bucket = 0, BUCKETS - 1 do
            keys[#keys + 1] = bucket .. ":" .. name
        end
    end
    return of(cache), keys
end

---The error of a tag whose index would have longer keys than maxKey, or nil.
---@param cache redcache.Cache
---@param name string
---@param action string
---@return redcache.Error|nil
function tag_index.fault(cache, name, action)
    if #namespace.index_key(cache._prefix, BUCKETS - 1, name) > cache._client.max_key then
        return errors.new("tooLarge", action, name, "the key of its index is over maxKey")
    end
end

-- By bucket: the names of keys, in parts that one script looks for.
local function share_out(keys)
    local parts, open = {}, {}
    for i = 1, #keys do
        local bucket = bucket_of(keys[i])
        local part = open[bucket]
        if part == nil or #part.names == NAMES_AT_ONCE then
            part = { bucket = bucket, names = {} }
            open[bucket], parts[#parts + 1] = part, part
        end
        part.names[#part.names + 1] = escape(keys[i])
    end
    return parts
end

-- Writes one part of one tag.
local function write(own, slot, part, name, ms)
    local arguments = { ("%.0f"):format(ms), ("%d"):format(BUCKET_BYTES) }
    for i = 1, #part.names do
        arguments[i + 2] = part.names[i]
    end
    return core_command.script(slot, script, { own._prefix .. part.bucket .. ":" .. name },
        arguments)
end

---Puts keys into the index of each of these tags, before anything is stored with them.
---@param cache redcache.Cache with tagIndex
---@param names string[] of tags; that of a namespace ("") has no index
---@param keys string|string[]
---@param opts table|nil of the call: timeout, cancelTag
---@return redcache.Error|nil err of any of them
function tag_index.add(cache, names, keys, opts)
    local own, writes = of(cache), {}
    local parts = share_out(type(keys) == "string" and { keys } or keys)
    for _, name in ipairs(names) do
        local fault = tag_index.fault(cache, name, ACTION)
        if fault then
            return fault
        end
        for i = 1, name ~= "" and #parts or 0 do
            writes[#writes + 1] = { part = parts[i], name = name }
        end
    end
    script = script or core_command.define(ADD)
    local failed, ms = {}, core_entry.life_ms(cache._settings.tagTtl, 0)
    many.in_writes(own, opts, #writes, ACTION, failed, {
        write = function(slot, first, last)
            local status = core_command.begin(slot, constants.RETRY)
            for i = first, last do
                status = status == 0 and write(own, slot, writes[i].part, writes[i].name, ms)
                    or status
            end
            return status
        end,
        read = function(slot, first, last)
            local nodes, count = core_command.nodes(slot)
            for i = first, last do
                local at, name = i - first, writes[i].name
                if at < count and core_command.is_error(nodes[at]) then
                    failed[name] = core_command.node_failure(nodes[at], ACTION, name)
                end
            end
        end,
        key = function(i) return writes[i].name end,
    })
    return (select(2, next(failed)))
end

---The keys in one string of an index.
---@param text string
---@param list string[] takes them
---@return boolean was_full there may be others
function tag_index.read(text, list)
    for name in string.gmatch(string.sub(text, 3), "=([^%z]*)%z") do
        list[#list + 1] = string.gsub(name, "\1([\1\2])", NAMED)
    end
    return string.byte(text, 1) == 1
end

return tag_index
