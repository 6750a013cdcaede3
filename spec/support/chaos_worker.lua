-- A client of the chaos spec: lives on a bad line as it is used to (chaos_habits.lua) until the
-- board says stop; from then on the line is good, and it has to get well.
--
-- params: options (of redcache.new), board, truth, names, counters (chaos_writer.lua), seed,
-- started (the instant of the beginning), lies (the line stays what it is: no getting well)
-- Answer: calls; sources and errors, counted; wrong: in words; late: how far behind its deadline
-- the last call ended; recovered: seconds until all works; once, held (chaos_habits.lua)

local board_of = require("spec.near.board")
local cells = require("spec.near.cells")
local clock = require("spec.support.clock")
local habits = require("spec.support.chaos_habits")

-- The engine ends a call 100 ms after its deadline at most. The rest is the machine's: two cores,
-- and everybody wants them.
local PATIENCE = 1
local OWN_KEYS = 6
local TOLD = 10        -- what is wrong, in words; the rest is only counted
local GIVE_UP = 20     -- seconds; the spec asks for much less

local Client = {}
Client.__index = Client

function Client:wrong(text, ...)
    local wrong = self.tally.wrong
    self.tally.violations = self.tally.violations + 1
    if #wrong < TOLD then wrong[#wrong + 1] = text:format(...) end
end

function Client:count(source)
    local sources = self.tally.sources
    sources[source] = (sources[source] or 0) + 1
end

--- Counts an error or a flag; nil is none.
function Client:note(err)
    if err == nil then return end
    local name, errors = type(err) == "table" and err.code or err, self.tally.errors
    errors[name] = (errors[name] or 0) + 1
end

-- When a call has to be over: its commands, one after the other, and what it waits for others.
local function limit_of(options, what)
    local command = options.commandTimeout
    if what == "remember" then return 3 * command + options.waitTimeout end
    return what == "lock" and command + options.lockWait or command
end

--- Runs fn, which has to end in time.
function Client:time(what, fn, ...)
    local began = clock.now()
    local function check(...)
        local late = clock.now() - began - limit_of(self.options, what)
        self.tally.calls = self.tally.calls + 1
        self.tally.late = math.max(self.tally.late, late)
        if late > clock.scaled(PATIENCE) then
            self:wrong("%s ended %.3f s after its deadline", what, late)
        end
        return ...
    end
    return check(fn(...))
end

--- Calls a method of the cache likewise.
function Client:call(method, ...)
    return self:time(method, self.cache[method], self.cache, ...)
end

local function new_client(one)
    local params = one.params
    local cache = require("redcache").new(params.options)
    local self = setmetatable({
        index = one.index, options = params.options, started = params.started, cache = cache,
        names = params.names, counters = params.counters, loads = 0,
        board = board_of.map(params.board, #params.names),
        truth = cells.map(params.truth, #params.names + 1),
        lock = cache:lock("job"), last = {}, made = {}, own = {},
        tally = {
            calls = 0, violations = 0, wrong = {}, sources = {}, errors = {}, once = {}, held = {},
            late = -1,
        },
    }, Client)
    for i = 1, self.counters do self.last[i] = 0 end
    for i = 1, OWN_KEYS do self.own[i] = { newest = 0, unknown = {} } end
    return self
end

-- Whether everything works, the near cache included.
local function is_well(self)
    local cache, key = self.cache, "well:" .. self.index
    self.loads = self.loads + 1
    local value = self.index .. "." .. self.loads
    if not cache:set(key, value) or cache:get(key) ~= value then return false end
    local again, _, source = cache:get(key)
    if again ~= value or source ~= "l0" and source ~= "near" then return false end
    local _, err, from, flag = cache:remember("new:" .. value, 60, function() return value end)
    if err or from ~= "loader" or flag then return false end
    return self.lock:acquire() and self.lock:release()
end

local function get_well(self)
    local began = clock.now()
    clock.wait_until(function() return is_well(self) end, GIVE_UP, "that everything works")
    self.tally.recovered = clock.now() - began
    for i = 1, self.counters do
        clock.wait_until(function()
            return tonumber((self.cache:get(self.names[i]))) == self.board.acked[i]
        end, GIVE_UP, "the truth about " .. self.names[i])
    end
    clock.wait_until(function() return self.cache:stats().inFlight == 0 end, GIVE_UP,
        "the end of every request")
end

return function(one)
    math.randomseed(one.params.seed + one.index)
    local self = new_client(one)
    one:ready()
    one:emit("living")
    while not self.board:is_stopped() do habits[math.random(#habits)](self) end
    if not one.params.lies then get_well(self) end
    self.cache:close()
    return self.tally
end
