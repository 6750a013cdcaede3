-- The readers of the run of tags (spec/cluster/tags.lua) in each worker of an nginx: light threads
-- that read and load, in a region of the workers' own. What is stale is loaded behind them
-- (background).
--
-- params: cache, tally (path), seed, and those of spec/cluster/tags_world.lua.

local clock = require("spec.support.clock")
local tally = require("spec.nginx.tally")
local tags_world = require("spec.cluster.tags_world")

local THREADS = 4 -- of each kind, in each worker
local BATCH = 64 -- reads between two pauses
local PAUSE = 0.001
local SLOW_LOADS, LONGEST_LOAD = 20, 0.004
local TTL = 600

local reader = {
    COUNTS = { "checks", "violations", "l0", "near", "redis", "stale", "loader", "flagged",
        "missing", "errors", "exact" },
}

local EXACT = { { near = false }, { fresh = true } }

local function look(self, i, read, opts)
    local began, before = clock.now(), self.world.violations
    local value, err, source, flag = read(self, i, opts)
    if err then
        self.tally:add("errors")
    elseif value == nil then
        self.tally:add("missing")
    elseif flag then
        self.tally:add("flagged")
    else
        self.tally:add(source)
        if source == "loader" then return end
        self.tally:add("checks")
        self.world:check(i, value, source, began, opts ~= nil)
        if self.world.violations > before then
            ngx.log(ngx.ERR, "wrong: ", self.world.told[#self.world.told])
            self.tally:add("violations")
        end
    end
end

local function get(self, i, opts)
    return self.cache:get(self.world.names[i], opts)
end

local function remember(self, i)
    return self.cache:remember(self.world.names[i], TTL, function()
        local value = self.world:value(i)
        if math.random(SLOW_LOADS) == 1 then ngx.sleep(math.random() * LONGEST_LOAD) end
        return value
    end, self.world.opts[i])
end

local function run(is_exiting, self, read)
    if is_exiting then return end
    while not self.world.board:is_stopped() and not ngx.worker.exiting() do
        for _ = 1, BATCH do look(self, math.random(tags_world.KEYS), read) end
        if read == get then
            self.tally:add("exact")
            look(self, math.random(tags_world.KEYS), get, EXACT[math.random(2)])
        end
        ngx.sleep(PAUSE)
    end
end

--- Called in init_worker.
function reader.start(params)
    local self = {
        cache = params.cache, world = tags_world.open(params),
        tally = tally.open(params.tally, reader.COUNTS),
    }
    math.randomseed(params.seed + ngx.worker.id())
    for _ = 1, THREADS do
        assert(ngx.timer.at(0, run, self, get))
        assert(ngx.timer.at(0, run, self, remember))
    end
end

return reader
