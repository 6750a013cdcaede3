-- In each worker of an nginx: writes and reads values that describe themselves, all the time, in a
-- region so small that entries are evicted all the time.
--
-- A value is "KEY:" and a random word, again and again: one that is torn, or another key's, is not.
-- Most of the time is spent in copying: there a worker is to be killed.

local tally = require("spec.nginx.tally")

local THREADS = 4
local KEYS = 600
local MAX_WORDS = 2000    -- of 16 bytes
local BATCH = 200         -- calls between two pauses, as long as memory answers
local WRITE_EVERY = 12    -- of so many calls, one is a set; others are gets, and some remember
local PAUSE = 0.001
local TOLD = 10

local writer = {
    COUNTS = { "sets", "hits", "l0", "misses", "redis", "errors", "wrong" },
}

function writer.value_of(key)
    local word = ("%08x%08x"):format(math.random(0, 0x7fffffff), math.random(0, 0x7fffffff))
    return key .. ":" .. word:rep(math.random(MAX_WORDS))
end

local function is_right(key, value)
    local start = #key + 2
    if type(value) ~= "string" or value:sub(1, start - 1) ~= key .. ":" then return false end
    local word = value:sub(start, start + 15)
    local count = (#value - start + 1) / 16
    return count >= 1 and count % 1 == 0 and value == key .. ":" .. word:rep(count)
end

local function check(self, key, value, err, source)
    local counts = self.tally
    if err then
        counts:add("errors")
    elseif value == nil then
        counts:add("misses")
    elseif not is_right(key, value) then
        counts:add("wrong")
        self.told = self.told + 1
        if self.told <= TOLD then
            ngx.log(ngx.ERR, "wrong: ", key, " from ", source, " is ", tostring(value):sub(1, 80))
        end
    else
        counts:add(source == "near" and "hits" or source == "l0" and "l0" or "redis")
    end
end

local function live(self)
    local cache = self.caches[math.random(#self.caches)]
    local key = "k" .. math.random(KEYS)
    local dice = math.random(WRITE_EVERY)
    if dice == 1 then
        local ok = cache:set(key, writer.value_of(key), 60)
        self.tally:add(ok and "sets" or "errors")
    elseif dice == 2 then
        check(self, key, cache:remember(key, 60, writer.value_of))
    else
        check(self, key, cache:get(key))
    end
end

local function run(is_exiting, self)
    if is_exiting then return end
    while not ngx.worker.exiting() do
        for _ = 1, BATCH do live(self) end
        ngx.sleep(PAUSE)
    end
end

--- Called in init_worker. caches: they read the same keys, each in its own way.
function writer.start(path, caches)
    math.randomseed(ngx.worker.pid())
    local self = { tally = tally.open(path, writer.COUNTS), caches = caches, told = 0 }
    for _ = 1, THREADS do assert(ngx.timer.at(0, run, self)) end
end

return writer
