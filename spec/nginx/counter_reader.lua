-- The readers of the monotonic counters, in each worker of an nginx: they hold what get and
-- remember give against the board (counter_writer.lua).
--
-- Wrong is
--   going back:                 older than what this worker had seen before the read began
--   from l0 or near:            a newer version was acknowledged over maxStale before the read
--   from redis or the loader:   a newer version was acknowledged before the read; or, as reads of
--                               one key share an answer, shortly before it
-- "Stale", and what was loaded while Redis was away, says itself that it may be old. "Nothing
-- there" is never wrong: keys are deleted, and expire.
--
-- params: cache, max_stale (what they are held to), board, truth, tally, names, mutant
--   mutants: "table": a table that nobody invalidates. "trusting": memory is believed for longer
--   than it is held to.

local board_of = require("spec.near.board")
local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local tally = require("spec.nginx.tally")

local THREADS = 6            -- of each kind, in each worker
local BATCH = 16             -- reads between two pauses
local PAUSE = 0.001
-- So long after its request a read may be joined by others (core/engine/fetch.c), and a moment.
local JOIN_SECONDS = 0.005 + 0.001
local TRUST_SECONDS = 5
local TOLD = 10              -- violations told in words, in the error log

local reader = {
    COUNTS = {
        "checks", "violations", "l0", "near", "redis", "loader", "stale", "flagged", "missing",
        "errors",
    },
}

-- It stands in the log before it counts: who has seen the count looks there.
local function violate(self, text, ...)
    self.told = self.told + 1
    if self.told <= TOLD then ngx.log(ngx.ERR, "wrong: ", text:format(...)) end
    self.tally:add("violations")
end

local function judge(self, i, version, source, floor, acked, began)
    self.tally:add("checks")
    self.tally:add(source)
    if version < floor then
        violate(self, "%s goes back from %d to %d, by %s", self.names[i], floor, version, source)
    end
    if version < acked then
        local age = began - self.board:outdated_at(i, version)
        local is_memory = source == "l0" or source == "near"
        if age > (is_memory and self.max_stale or JOIN_SECONDS) then
            violate(self, "%s is %d from %s, outdated for %.4f s by %d", self.names[i], version,
                source, age, acked)
        end
    end
    self.last[i] = math.max(self.last[i], version)
end

local function look(self, i, read)
    local floor, acked, began = self.last[i], self.board.acked[i], clock.now()
    local value, err, source, flag = read(self, i)
    if err then
        self.tally:add("errors")
    elseif value == nil then
        self.tally:add("missing")
    elseif flag or source == "stale" then
        self.tally:add(flag and "flagged" or "stale")
    else
        judge(self, i, tonumber(value), source, floor, acked, began)
    end
end

local function get(self, i)
    return self.cache:get(self.names[i], self.opts)
end

local function remember(self, i)
    return self.cache:remember(self.names[i], 60, function()
        local version = self.truth[i]
        ngx.sleep(0.002)
        return version > 0 and version or nil
    end, self.opts)
end

local function get_table(self, i)
    local value = self.seen[i]
    if value ~= nil then return value, nil, "l0" end
    local err, source
    value, err, source = get(self, i)
    self.seen[i] = value
    return value, err, source
end

local function run(is_exiting, self, read)
    if is_exiting then return end
    while not self.board:is_stopped() and not ngx.worker.exiting() do
        for _ = 1, BATCH do look(self, math.random(#self.names), read) end
        ngx.sleep(PAUSE)
    end
end

--- Called in init_worker.
function reader.start(params)
    local names = params.names
    local self = {
        cache = params.cache, max_stale = params.max_stale, names = names,
        board = board_of.map(params.board, #names), truth = cells.map(params.truth, #names + 1),
        tally = tally.open(params.tally, reader.COUNTS),
        last = {}, seen = {}, told = 0,
        opts = params.mutant == "trusting" and { maxStale = TRUST_SECONDS } or nil,
    }
    for i = 1, #names do self.last[i] = 0 end
    for _ = 1, THREADS do
        assert(ngx.timer.at(0, run, self, params.mutant == "table" and get_table or get))
        assert(ngx.timer.at(0, run, self, remember))
    end
end

return reader
