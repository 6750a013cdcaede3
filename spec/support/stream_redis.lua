--- What durable writing behind needs of Redis, in Lua: hashes, streams, scripts and locks, which
-- forget nothing. Each command can be made late, or lost before or behind its doing.
--
-- What:   redis(process) and lock(process, name) stand in for what the modules redis and lock give
--         a cache. Scripts are run as they stand. A lock is its owner's until it is lost, given
--         back, or `lock_ttl` after its process has died.

local errors = require("redcache.errors")

local stream_redis = {}
local World = {}
World.__index = World

--- hooks: now(), trouble() -> nil | "before" | "behind" (the answer is lost), wait(), added(value),
-- dropped(key, letter), spend() (time goes by: who asks again and again is not for ever at it).
function stream_redis.new(hooks, lock_ttl)
    return setmetatable({ hooks = hooks, lock_ttl = lock_ttl, hashes = {}, streams = {},
        last_id = 0, locks = {}, last_fence = 0 }, World)
end

local function number_of(id) return tonumber(id:match("^%d+")) end

local function count(map)
    local n = 0
    for _ in pairs(map) do n = n + 1 end
    return n
end

local function pairs_of(map)
    local list, keys = {}, {}
    for key in pairs(map) do keys[#keys + 1] = key end
    table.sort(keys)
    for _, key in ipairs(keys) do
        list[#list + 1], list[#list + 2] = key, map[key]
    end
    return list, keys
end

local COMMANDS = {}

function COMMANDS.HGET(world, key, field) return world:hash(key)[field] or false end
function COMMANDS.HSET(world, key, field, value) world:hash(key)[field] = value return 1 end
function COMMANDS.HLEN(world, key) return count(world:hash(key)) end
function COMMANDS.HKEYS(world, key) return (select(2, pairs_of(world:hash(key)))) end
function COMMANDS.HSCAN(world, key) return { "0", (pairs_of(world:hash(key))) } end

function COMMANDS.HDEL(world, key, field)
    local hash = world:hash(key)
    local found = hash[field] and 1 or 0
    hash[field] = nil
    return found
end

function COMMANDS.XLEN(world, key) return #world:stream(key) end

function COMMANDS.XADD(world, key, _, ...)
    world.hooks.added(select(4, ...))
    world.last_id = world.last_id + 1
    local id = world.last_id .. "-0"
    table.insert(world:stream(key), { id, { ... } })
    return id
end

function COMMANDS.XDEL(world, key, id)
    local stream = world:stream(key)
    for i, one in ipairs(stream) do
        if one[1] == id then
            table.remove(stream, i)
            return 1
        end
    end
    return 0
end

function COMMANDS.XRANGE(world, key, from, _, _, most)
    local list, first = {}, from == "-" and 0 or number_of(from:match("%d.*"))
    for _, one in ipairs(world:stream(key)) do
        if number_of(one[1]) > first and #list < most then list[#list + 1] = one end
    end
    return list
end

function World:hash(key)
    self.hashes[key] = self.hashes[key] or {}
    return self.hashes[key]
end

function World:stream(key)
    self.streams[key] = self.streams[key] or {}
    return self.streams[key]
end

-- Does something as a caller of Redis sees it.
local function ask(world, fn, ...)
    world.hooks.spend()
    world.hooks.wait()
    local trouble = world.hooks.trouble()
    if trouble == "before" then
        return nil, errors.new("unavailable", "ask", nil, "planned")
    end
    local result = fn(...)
    world.hooks.wait()
    if trouble then return nil, errors.new("outcomeUnknown", "ask", nil, "planned") end
    if result == false then result = nil end
    return result
end

local Raw = {}
Raw.__index = Raw

function Raw:command(name, key, field, ...)
    local world = self.world
    return ask(world, function(...)
        local letter = name == "HDEL" and world:hash(key)[field]
        if letter then world.hooks.dropped(field, letter) end
        return COMMANDS[name](world, key, field, ...)
    end, ...)
end

function Raw:script(source)
    local world, chunk = self.world, assert(loadstring(source))
    local function call(name, ...) return COMMANDS[name](world, ...) end
    local env = setmetatable({ redis = { call = call } }, { __index = _G })
    setfenv(chunk, env)
    return { run = function(_, keys, arguments)
        return ask(world, function()
            env.KEYS, env.ARGV = keys, {}
            for i, argument in ipairs(arguments) do env.ARGV[i] = tostring(argument) end
            return chunk()
        end)
    end }
end

function World:redis() return setmetatable({ world = self }, Raw) end

local Lock = {}
Lock.__index = Lock

function World:lock(process, name)
    return setmetatable({ world = self, process = process, name = name, _settings = {} }, Lock)
end

function Lock:valid()
    self.world.hooks.spend()
    return self.fence ~= nil and self.world.locks[self.name] == self
end

function Lock:acquire()
    local world = self.world
    local ok, err = ask(world, function()
        local owner = world.locks[self.name]
        local died_at = owner and owner.process.died_at
        if owner and not (died_at and world.hooks.now() >= died_at + world.lock_ttl) then
            return false
        end
        world.last_fence = world.last_fence + 1
        self.fence, world.locks[self.name] = world.last_fence, self
        return true
    end)
    if ok then return true end
    if self:valid() then world.locks[self.name] = nil end -- the core gives it back
    self.fence = nil
    return nil, err or errors.new("notAcquired", "lock", self.name, "another one has it")
end

function Lock:release()
    return ask(self.world, function()
        if self:valid() then self.world.locks[self.name] = nil end
        self.fence = nil
        return true
    end)
end

--- Somebody deletes a lock; its owner knows.
function World:lose(name) self.locks[name] = nil end

return stream_redis
