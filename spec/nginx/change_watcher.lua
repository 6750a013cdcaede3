-- In each worker of an nginx: reads one key all the time, and tells when it changed.
--
-- Cells: per worker, what the last read gave (0: nothing), when the last read began that gave what
-- was there before, and what memory has given last.

local cells = require("spec.near.cells")
local clock = require("spec.support.clock")

local watcher = { VALUE = 0, UNTIL = 1, NEAR = 2, ROOM = 4 }

local WORKERS = 8
-- As short as a timer of nginx can be. Without a pause the watchers would keep the cores from those
-- who have something to tell.
local PAUSE = 0.001

function watcher.map(path)
    return cells.map(path, WORKERS * watcher.ROOM)
end

local function run(is_exiting, all, cache, key)
    if is_exiting then return end
    local base, last, at = ngx.worker.id() * watcher.ROOM, 0, 0
    while not ngx.worker.exiting() do
        local began = clock.now()
        local value, err, source = cache:get(key)
        value = tonumber(value) or 0
        if not err and value ~= last then
            all[base + watcher.UNTIL] = at
            all[base + watcher.VALUE] = value
        end
        if not err then last, at = value, began end
        if source == "l0" or source == "near" then all[base + watcher.NEAR] = value end
        ngx.sleep(PAUSE)
    end
end

--- Called in init_worker.
function watcher.start(path, cache, key)
    assert(ngx.timer.at(0, run, watcher.map(path), cache, key))
end

return watcher
