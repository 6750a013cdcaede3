-- The writer of the monotonic counters: a program that is no redcache. Each key's versions grow; a
-- version is in the truth before it is in Redis, and on the board once Redis has acknowledged it.
--
-- params: path (of the server), board, truth, names

local board_of = require("spec.near.board")
local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local resp = require("spec.support.resp")

local STORM, PAUSE = 8, 0.004 -- writes without a pause; the longest pause between two storms
local RETRY_SECONDS = 0.01

local function connect(path)
    local ok, client = pcall(resp.connect, { path = path }, { user = "bed", password = "bed" })
    return ok and client or nil
end

-- Ways to bring a version. A key that is gone for a while has loaders run.
local WAYS = {
    function(key, version) return { { "SET", key, version } } end,
    function(key, version) return { { "SET", key, version } } end,
    function(key, version) return { { "SET", key, version, "PX", "8" } } end,
    function(key, version) return { { "DEL", key }, { "SET", key, version } } end,
    function(key, version) return { { "SET", key, version }, { "PEXPIRE", key, "5" } } end,
}

-- Whether all of it was done for sure. A connection may end at any time.
local function write(client, commands)
    local ok, answers = pcall(client.pipeline, client, commands)
    if not ok then return false end
    for _, answer in ipairs(answers) do
        if type(answer) == "table" and answer.error then error(answer.error) end
    end
    return true
end

return function(one)
    local names = one.params.names
    local board = board_of.map(one.params.board, #names)
    local truth = cells.map(one.params.truth, #names + 1)
    local told = { writes = 0, reconnects = 0 }
    local client, lost
    math.randomseed(one.index)
    one:emit("writing")
    while not board:is_stopped() do
        if not client or lost then
            told.reconnects = told.reconnects + (client and 1 or 0)
            if client then client:close() end
            client = connect(one.params.path)
            lost = not client
            if lost then clock.sleep(RETRY_SECONDS) end
        end
        for _ = 1, (lost or board:is_held()) and 0 or math.random(STORM) do
            local i = math.random(#names)
            local version = truth[i] + 1
            truth[i] = version
            lost = not write(client, WAYS[math.random(#WAYS)](names[i], version))
            if lost then break end
            board:acknowledge(i, version)
            told.writes = told.writes + 1
        end
        clock.sleep(math.random() * PAUSE)
    end
    return told
end
