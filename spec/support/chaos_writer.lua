-- The foreign writer of the chaos spec, on a line of its own: counts keys up, and changes the
-- source of others, whose copies it deletes. The board is told what Redis has acknowledged.
--
-- params: path (the server), board, truth (a path: the source of key i stands in cell i), names,
-- counters (so many of them are counted), seed

local BURST, PAUSE = 8, 0.004 -- writes without a pause; the longest pause between two bursts

local board_of = require("spec.near.board")
local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local resp = require("spec.support.resp")

-- Ways to bring a key to a version: each takes Redis, the key, and the version.
local COUNT = {
    function(client, key, version) client:call("SET", key, version) end,
    function(client, key, version) client:call("GETSET", key, version) end,
    function(client, key) client:call("INCR", key) end,
    function(client, key, version)
        client:pipeline({ { "DEL", key }, { "SET", key, version } })
    end,
}

return function(one)
    local params = one.params
    local names = params.names
    local board = board_of.map(params.board, #names)
    local truth = cells.map(params.truth, #names + 1)
    local client = resp.connect({ path = params.path }, { user = "bed", password = "bed" })
    math.randomseed(params.seed)
    local function write(i, way)
        local version = board.acked[i] + 1
        if i <= params.counters then
            way(client, names[i], version)
        else
            truth[i] = version
            client:call("DEL", names[i])
        end
        board:acknowledge(i, version)
    end
    for i = 1, #names do write(i, COUNT[1]) end
    one:emit("writing")
    local writes = 0
    while not board:is_stopped() do
        for _ = 1, math.random(BURST) do
            write(math.random(#names), COUNT[math.random(#COUNT)])
            writes = writes + 1
        end
        clock.sleep(math.random() * PAUSE)
    end
    return writes
end
