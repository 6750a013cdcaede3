--- What a client of the chaos spec does with its cache, one thing at a time, and what it holds
-- against the answers.
--
-- What:   a list of functions; each gets the client (chaos_worker.lua) and calls the cache once or
--         twice.
-- Wrong:  counters, loads:  a version nobody wrote; one that was outdated before the read began, by
--                           more than maxStale for near reads, for longer than degradedTtl behind
--                           its load for a value made while Redis was away, at all for others; a
--                           counter that goes back
--         own keys:         a value that is neither the last one stored nor one whose outcome was
--                           never known (such a write may arrive late, and then it stands)
--         once, lock:       what only all clients together can know is told to the spec: who loaded
--                           and read what, who held the lock when
-- Not:    a miss or an error is never wrong here: keys are deleted, again after a reconnect, too.

local clock = require("spec.support.clock")

local SLOTS_PER_SECOND = 20 -- of `once`: a new key for all clients
local LOAD_SECONDS = 0.008  -- a slow loader, at most

local habits = {}

local function is_near(source) return source == "l0" or source == "near" end

local function allowance(client, source, flag)
    if is_near(source) then return client.options.maxStale end
    return flag == "degraded" and client.options.degradedTtl or 0
end

-- Holds a version of names[i] against the board. `acked` is what it said when the read began.
local function judge(client, i, value, source, flag, acked, began)
    local name, board, version = client.names[i], client.board, tonumber(value)
    client:count(source)
    if not version or version > board.acked[i] + 1 then
        return client:wrong("%s is %s from %s: nobody wrote that", name, tostring(value), source)
    end
    if version >= acked then return end
    local since = board:outdated_at(i, version)
    -- What was loaded without Redis is kept by its own process, from the end of the load on: what
    -- the loader has read may be outdated before that.
    local made = client.made[i]
    if flag == "degraded" and made and made.version == version then
        since = math.max(since, made.at)
    end
    local age = began - since
    if age > allowance(client, source, flag) then
        client:wrong("%s is %d from %s (%s), outdated for %.3f s", name, version, source,
            flag or "no flag", age)
    end
end

local function counter(client)
    local i = math.random(client.counters)
    local acked, began = client.board.acked[i], clock.now()
    local value, err, source = client:call("get", client.names[i])
    client:note(err)
    if value == nil then return end
    judge(client, i, value, source, nil, acked, began)
    local version = tonumber(value) or 0
    if version < client.last[i] then
        client:wrong("%s goes back from %d to %d, by %s", client.names[i], client.last[i], version,
            source)
    end
    client.last[i] = version
end

local function load(client)
    local i = math.random(client.counters + 1, #client.names)
    local acked, began = client.board.acked[i], clock.now()
    local version
    local value, err, source, flag = client:call("remember", client.names[i], 60, function()
        version = client.truth[i]
        -- This is when a stale value gets its chance.
        if math.random(4) == 1 then clock.sleep(math.random() * LOAD_SECONDS) end
        return version
    end)
    client:note(err or flag)
    if version then client.made[i] = { version = version, at = clock.now() } end
    if value ~= nil then judge(client, i, value, source, flag, acked, began) end
end

local function made(key, version)
    return ("%s=%d;"):format(key, version) .. (key .. version):rep(version * 7919 % 60)
end

local function read_own(client, key, own)
    local value, err, source = client:call("get", key)
    client:note(err)
    if value == nil then return end
    client:count(source)
    local version = tonumber(tostring(value):match("=(%d+);"))
    if not version or value ~= made(key, version) then
        client:wrong("%s is %q from %s: nobody wrote that", key, tostring(value):sub(1, 40), source)
    elseif version ~= own.stored and not own.unknown[version] then
        client:wrong("%s is %d from %s, %s was stored", key, version, source,
            tostring(own.stored))
    end
end

local function write_own(client, key, own)
    local is_set = math.random(3) > 1
    local version = own.newest + 1
    own.newest = version
    local ok, err
    if is_set then
        ok, err = client:call("set", key, made(key, version), 60)
    else
        ok, err = client:call("delete", key)
    end
    client:note(err)
    if ok ~= nil then
        own.stored = is_set and version or nil
    elseif err.code ~= "unavailable" and err.code ~= "redis" then
        own.unknown[is_set and version or 0] = true
    end
end

-- Keys that nobody else writes.
local function own_key(client)
    local key = ("own:%d:%d"):format(client.index, math.random(#client.own))
    local own = client.own[tonumber(key:match("%d+$"))]
    if math.random(3) == 1 then
        write_own(client, key, own)
    else
        read_own(client, key, own)
    end
end

-- Keys that are never deleted, and all clients ask for at the same time: there is one load.
local function once(client)
    local key = ("once:%d"):format((clock.now() - client.started) * SLOTS_PER_SECOND)
    client.loads = client.loads + 1
    local mine = client.index .. "." .. client.loads
    local value, err, source, flag = client:call("remember", key, 60, function()
        clock.sleep(math.random() * LOAD_SECONDS)
        return mine
    end)
    client:note(err or flag)
    if value == nil then return end
    local answers = client.tally.once
    answers[key] = answers[key] or {}
    table.insert(answers[key], { value = value, source = source, flag = flag })
end

-- How long the lock was surely held: from the grant to the last time that it was still valid.
local function lock(client)
    local handle = client.lock
    local ok, err = client:time("lock", handle.acquire, handle)
    client:note(err)
    if not ok then return end
    local from, valid_at = clock.now(), nil
    for _ = 1, 3 do
        clock.sleep(math.random() * 0.002)
        local at = clock.now()
        if handle:valid() then valid_at = at end
    end
    if valid_at then
        table.insert(client.tally.held, { from = from, to = valid_at, fence = handle.fence })
    end
    client:note(select(2, client:time("release", handle.release, handle)))
end

for _, habit in ipairs({
    counter, counter, counter, load, load, own_key, own_key, own_key, once, lock,
}) do
    table.insert(habits, habit)
end

return habits
