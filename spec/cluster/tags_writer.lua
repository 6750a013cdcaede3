-- The two of the run of tags (tags.lua) that read nothing: one sets entries, the other invalidates
-- their tags, and does to the servers what happens to servers.
--
-- params: kind ("sets", "invalidates"), url, ports (of the masters), owners (by tag: the number of
-- its master), pause (seconds between two invalidations), as tags_reader.lua.

local clock = require("spec.support.clock")
local resp = require("spec.support.resp")
local tags_world = require("spec.cluster.tags_world")

local TTL = 600
local AT_ONCE = 10 -- entries that are set, at most
local SET_PAUSE = 0.005

local function open(params)
    return require("redcache").new({
        url = params.url, namespace = "app", generation = true, grace = 100, background = false,
        maxStale = params.max_stale, commandTimeout = 2, near = { bytes = 1024 * 1024 },
    })
end

-- ---- Sets.

local function set_one(cache, world, i)
    return cache:set(world.names[i], world:value(i), TTL, world.opts[i])
end

-- Entries with the same tags, in one call.
local function set_many(cache, world, i)
    local values = {}
    for n = i, math.min(i + AT_ONCE * tags_world.TAGS, tags_world.KEYS), tags_world.TAGS do
        values[world.names[n]] = world:value(n)
    end
    local _, failed = cache:setMulti(values, TTL, world.opts[i])
    return failed == nil or next(failed) == nil
end

local function put(cache, world, i)
    local value = cache:put(world.names[i], TTL, function() return world:value(i) end,
        world.opts[i])
    return value ~= nil
end

local function sets(world, cache, told)
    local way, i = math.random(3), math.random(tags_world.KEYS)
    local is_set
    if way == 3 then
        is_set = put(cache, world, i) -- reads the generations first, as a load does
    else
        world:begin_set()
        is_set = (way == 1 and set_one or set_many)(cache, world, i)
        world:end_set()
    end
    told.sets = told.sets + 1
    told.failed = told.failed + (is_set and 0 or 1)
    clock.sleep(SET_PAUSE * math.random())
end

-- ---- Invalidates.

local function kill_one(masters, told)
    local ids, master = {}, masters[math.random(#masters)]
    for id in master:call("CLIENT", "LIST"):gmatch("id=(%d+)[^\n]- name=redcache") do
        ids[#ids + 1] = id
    end
    if #ids > 0 and master:try("CLIENT", "KILL", "ID", ids[math.random(#ids)]) == 1 then
        told.kills = told.kills + 1
    end
end

-- Generations go as an eviction, or an operator, takes them.
local function evict(world, masters, owners, told)
    local tag = math.random(tags_world.NAMESPACE)
    world:commit(tags_world.FOREIGN, { tag })
    masters[owners[tag]]:call("DEL", tags_world.redis_key(tag))
    world:acknowledge(tags_world.FOREIGN, { tag })
    told.evicted = told.evicted + 1
end

local function flush_master(world, masters, owners, told)
    local number, list = math.random(#masters), {}
    for tag = 1, tags_world.NAMESPACE do
        if owners[tag] == number then list[#list + 1] = tag end
    end
    world:commit(tags_world.FOREIGN, list)
    masters[number]:call("FLUSHALL")
    world:acknowledge(tags_world.FOREIGN, list)
    told.flushed = told.flushed + 1
end

local function invalidate(world, cache, told)
    local list, names, is_soft = {}, {}, math.random(3) == 1
    local first = math.random(tags_world.TAGS)
    for n = 1, math.random(3) do
        list[n] = (first + 5 * n) % tags_world.TAGS + 1
        names[n] = tags_world.name(list[n])
    end
    world:commit(tags_world.FOREIGN, list, is_soft)
    local _, err = cache:invalidateTags(names, { soft = is_soft })
    if err then return false end
    world:acknowledge(tags_world.FOREIGN, list, is_soft)
    told[is_soft and "soft" or "hard"] = told[is_soft and "soft" or "hard"] + 1
    return true
end

local function flush_namespace(world, cache, told)
    local list = { tags_world.NAMESPACE }
    world:commit(tags_world.FOREIGN, list)
    local _, err = cache:flush({ instant = true })
    if err then return false end
    world:acknowledge(tags_world.FOREIGN, list)
    told.instant = told.instant + 1
    return true
end

local function invalidates(world, cache, told, masters, params)
    local dice, is_sure = math.random(100), true
    if dice <= 8 then
        evict(world, masters, params.owners, told)
    elseif dice <= 10 then
        flush_master(world, masters, params.owners, told)
    elseif dice <= 12 then
        is_sure = flush_namespace(world, cache, told)
    elseif dice <= 20 then
        kill_one(masters, told)
    else
        is_sure = invalidate(world, cache, told)
    end
    told.unsure = told.unsure + (is_sure and 0 or 1)
    clock.sleep(math.random() * 2 * params.pause)
end

return function(one)
    local params = one.params
    math.randomseed(params.seed)
    local world, cache = tags_world.open(params), open(params)
    local masters = {}
    for n, port in ipairs(params.ports) do
        masters[n] = resp.connect({ port = port }, { user = "bed", password = "bed" })
    end
    local told = { sets = 0, failed = 0, hard = 0, soft = 0, instant = 0, evicted = 0, flushed = 0,
        kills = 0, unsure = 0 }
    one:emit("writing")
    while not world.board:is_stopped() do
        if params.kind == "sets" then
            sets(world, cache, told)
        else
            invalidates(world, cache, told, masters, params)
        end
    end
    cache:close()
    return told
end
