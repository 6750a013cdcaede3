-- A foreign writer of the clusters' as-of checker: writes growing versions at whoever owns the key,
-- and tells the board what was acknowledged.
--
-- What a master acknowledges that is about to be replaced against its will does not count
-- (board:victim): its heir may not have it.

local board_of = require("spec.near.board")
local clock = require("spec.support.clock")
local kept_of = require("spec.cluster.kept")
local resp = require("spec.support.resp")

local PATIENCE = 0.005   -- between two tries of a write

return function(one)
    local params = one.params
    local board = board_of.map(params.board, params.keys)
    local kept = kept_of.map(params.kept, params.keys)
    math.randomseed(params.seed)
    local lines, owner_of, versions = {}, {}, {}
    local told = { writes = 0, unsure = 0, moved = 0 }

    local function line(port)
        if not lines[port] then
            lines[port] = resp.connect({ port = port }, { user = "bed", password = "bed",
                timeout = 1 })
        end
        return lines[port]
    end

    local function drop(port)
        if lines[port] then pcall(lines[port].close, lines[port]) end
        lines[port] = nil
    end

    local function any_port()
        return params.ports[math.random(#params.ports)]
    end

    -- One try. True: acknowledged; else the port to try next.
    local function try(port, name, version)
        local words = { { "SET", name, tostring(version) } }
        local ok, answers = pcall(function() return line(port):pipeline(words) end)
        if not ok then
            drop(port)
            return false, any_port()
        end
        local set = answers[1]
        if set == "OK" then return port ~= board:victim(), port end
        local to = type(set) == "table" and set.error:match("^MOVED %d+ [^ ]*:(%d+)$")
        if to then told.moved = told.moved + 1 end
        return false, tonumber(to) or any_port()
    end

    local function write(i)
        local name = params.names[i]
        local ends = clock.now() + 2
        repeat
            local version = (versions[i] or 0) + 1
            versions[i] = version
            -- Often a node by chance says who the owner is: the one that we know may have an heir.
            local port = math.random() < 0.5 and owner_of[i] or any_port()
            local done, next_port = try(port, name, version)
            owner_of[i] = next_port
            told.writes = told.writes + 1
            if done then
                board:acknowledge(i, version)
                return
            end
            told.unsure = told.unsure + 1
            if next_port == port then
                owner_of[i] = any_port()
                clock.sleep(PATIENCE)
            end
        until clock.now() > ends or board:is_stopped()
    end

    for i = params.first, params.last do write(i) end
    one:emit("writing")
    kept:write_in_bursts(board, params, write)
    return told
end
