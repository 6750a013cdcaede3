-- A writer of the as-of checker. Each key has one writer, which tells the board what Redis has
-- acknowledged, after the answer has come.
--
--   "foreign"   plain numbers, by every command another program may use; now and then a FLUSHALL,
--               and the end of somebody's tracked connection
--   "redcache"  entries, by another process's cache, in the readers' region or without a near cache

local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local resp = require("spec.support.resp")

local STORM, PAUSE = 32, 0.003 -- writes without a pause; the longest pause between two storms
local FLUSH_EVERY, KILL_EVERY = 1500, 2300

-- Ways to bring version `v` of key `k`: a command or several, sent in one write. INCR wants the
-- version before to be there, and for sure: no ttl.
local FOREIGN = {
    { { "INCR" }, counts = true }, { { "INCR" }, counts = true }, { { "INCR" }, counts = true },
    { { "SET", "k", "v" } }, { { "SET", "k", "v" } }, { { "SET", "k", "v", "EX", "60" } },
    { { "GETSET", "k", "v" } }, { { "MSET", "k", "v", "other", "1" } },
    { { "DEL", "k" }, { "SET", "k", "v" } },
    { { "SET", "k", "v" }, { "PEXPIRE", "k", "12" } }, { { "SET", "k", "v", "PX", "30" } },
    { { "MULTI" }, { "SET", "k", "v" }, { "EXPIRE", "k", "60" }, { "EXEC" } },
    { { "SET", "new", "v" }, { "RENAME", "new", "k" } },
    { { "EVAL", "return redis.call('SET',KEYS[1],ARGV[1])", "1", "k", "v" } },
    { { "SET", "k", "" }, { "APPEND", "k", "v" } },
}
local SHORT_LIVED = { PX = true, EX = true, PEXPIRE = true, EXPIRE = true }

local function commands_of(way, name, version)
    local commands = {}
    for i, words in ipairs(way) do
        commands[i] = {}
        for j, word in ipairs(words) do
            commands[i][j] = word == "k" and name or word == "v" and tostring(version) or word
        end
    end
    if way.counts then commands[1][2] = name end
    return commands
end

local function is_short_lived(way)
    for _, words in ipairs(way) do
        for _, word in ipairs(words) do
            if SHORT_LIVED[word] then return true end
        end
    end
    return false
end

local function check_answers(answers)
    for _, answer in ipairs(answers) do
        if type(answer) == "table" and answer.error then error(answer.error) end
    end
end

-- Ends one of the connections that are tracked, any of them.
local function kill_tracked(client)
    local ids = {}
    for id in client:call("CLIENT", "LIST"):gmatch("id=(%d+)[^\n]- name=redcache%-T") do
        ids[#ids + 1] = id
    end
    return #ids > 0 and client:call("CLIENT", "KILL", "ID", ids[math.random(#ids)]) or 0
end

local function foreign(one, board)
    local client = resp.connect({ path = one.params.path }, { user = "bed", password = "bed" })
    local versions, lasting, flushes, kills = {}, {}, 0, 0
    local function write(i, way)
        local version = (versions[i] or 0) + 1
        if way.counts and not lasting[i] then way = FOREIGN[4] end
        local answers = client:pipeline(commands_of(way, one.params.names[i], version))
        check_answers(answers)
        assert(not way.counts or answers[1] == version, "somebody else writes this key")
        board:acknowledge(i, version)
        versions[i], lasting[i] = version, not is_short_lived(way)
    end
    for i = one.params.first, one.params.last do write(i, FOREIGN[4]) end
    return function(count)
        write(math.random(one.params.first, one.params.last), FOREIGN[math.random(#FOREIGN)])
        if count % FLUSH_EVERY == 0 then
            client:call(math.random(2) == 1 and "FLUSHALL" or "FLUSHDB")
            lasting, flushes = {}, flushes + 1
            -- The readers see that there is nothing, then the keys come back.
            clock.sleep(0.002)
            for i = one.params.first, one.params.last do write(i, FOREIGN[4]) end
        end
        if count % KILL_EVERY == 0 then kills = kills + kill_tracked(client) end
    end, function() return { flushes = flushes, kills = kills } end
end

local function redcache(one, board)
    local module = require("redcache")
    local function open(group, near)
        return module.new({
            url = one.params.url, group = group, near = near, commandTimeout = 20,
        })
    end
    local caches = { open("writes apart", false), open("writes here", one.params.near) }
    local versions, lost = {}, 0
    -- Each tells whether the version is there for sure.
    local ways = {
        function(cache, key, version) return cache:set(key, version, 60) end,
        function(cache, key, version) return cache:set(key, version, 60) end,
        function(cache, key, version) return cache:set(key, version, 0.03) end,
        function(cache, key, version) return cache:setMulti({ [key] = version }, 60) end,
        function(cache, key, version)
            cache:delete(key)
            return cache:set(key, version)
        end,
        function(cache, key, version)
            return cache:put(key, 60, function() return version end) == version
        end,
        function(cache, key, version)
            cache:deleteMulti({ key })
            local _, err, source, flag = cache:remember(key, 60, function() return version end)
            return not err and source == "loader" and flag == nil
        end,
    }
    local function write(i, way)
        local version = (versions[i] or 0) + 1
        versions[i] = version
        if way(caches[math.random(2)], one.params.names[i], version) then
            board:acknowledge(i, version)
        else
            lost = lost + 1 -- A FLUSHALL came between.
        end
    end
    for i = one.params.first, one.params.last do write(i, ways[1]) end
    return function()
        write(math.random(one.params.first, one.params.last), ways[math.random(#ways)])
    end, function() return { lost = lost } end
end

return function(one)
    local params = one.params
    local board = board_of.map(params.board, #params.names)
    math.randomseed(params.seed)
    local write, extra = (params.kind == "foreign" and foreign or redcache)(one, board)
    one:emit("writing")
    local ends, writes = clock.now() + params.limit, 0
    while not board:is_stopped() and clock.now() < ends do
        for _ = 1, math.random(STORM) do
            writes = writes + 1
            write(writes)
        end
        clock.sleep(math.random() * PAUSE)
    end
    local told = extra()
    told.writes = writes
    return told
end
