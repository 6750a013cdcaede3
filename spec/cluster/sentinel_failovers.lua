--- Failovers of a set under load, each of them measured; a program, and a part of
-- sentinel_spec.lua.
--
--     script/lua spec/cluster/sentinel_failovers.lua [planned] [killed] [paused] [deaf]
--
-- What:   a set of real servers with a foreign writer, a reader of near copies, a client that
--         writes, one that takes locks and leases, and a watcher (sentinel_load.lua). Of each
--         failover: when the new master was promoted, as it says itself; when a majority of the
--         sentinels named it; when the client's first write that stays was acknowledged, and the
--         foreign writer's; by how much near hits and all reads were behind at most; what the
--         clients still did at the old master behind the majority's word.
-- Kinds:  planned (ordered at a sentinel), killed (kill -9 of the master), paused (it stands still,
--         and goes on), deaf (planned, and the clients may not hear of +switch-master: what they
--         know they have asked for).
-- Env:    REDCACHE_SERVER. REDCACHE_SENTINEL_FAILOVERS: of each kind (50; in the spec 1).
-- Answer: a line per failover; per kind the medians and the largest, and of those who were not back
--         in time whether the majority's word was; the status is 0 where all bounds hold.

local here = (arg and arg[0] or ""):match("^(.*)spec/cluster/sentinel_failovers%.lua$")
if here then package.path = here .. "?.lua;" .. package.path end

local clock = require("spec.support.clock")
local sentinel = require("spec.support.sentinel")
local worker = require("spec.support.worker")

local failovers = {}

local MAX_STALE = 1
local ROLES = { "writer", "reader", "setter", "holder", "watcher" }
-- Longer than maxStale: copies are read, and writes go through.
local CALM = 1.5

failovers.BACK = 1               -- seconds from the promotion to service
failovers.PERIOD = MAX_STALE / 4 -- how often sentinels are asked
-- What a clock that is read before a call, and scheduling, may add to a bound.
failovers.SLACK = 0.05

-- ---- The load.

local Load = {}
Load.__index = Load

local function ports_of(servers)
    local ports = {}
    for i, one in ipairs(servers) do ports[i] = one.port end
    return ports
end

--- Starts the processes of these roles (all) on the set of that url. login: {user =, password =},
-- of the clients at the sentinels (none). :stop() returns the processes' results by role.
function failovers.load(bed, url, roles, login)
    login = login or {}
    local load = setmetatable({ roles = roles or ROLES, workers = {} }, Load)
    for _, role in ipairs(load.roles) do
        load.workers[role] = worker.start({ file = "spec/cluster/sentinel_load.lua", params = {
            role = role, url = url, user = login.user, password = login.password,
            sentinels = ports_of(bed.sentinels),
            nodes = ports_of(bed.nodes), maxStale = MAX_STALE,
        } })
        load.workers[role]:event("working", 20)
    end
    return load
end

function Load:stop()
    local results = {}
    for _, role in ipairs(self.roles) do self.workers[role]:send({ stop = true }) end
    for _, role in ipairs(self.roles) do results[role] = self.workers[role]:join(60) end
    return results
end

-- ---- The failovers. Each returns the new master, and what puts things right again.

local KINDS = {
    planned = function(bed) return bed:failover() end,
    killed = function(bed, old)
        bed:kill(old)
        return bed:wait_other(old), function() bed:restart(old) end
    end,
    paused = function(bed, old)
        bed:pause(old)
        return bed:wait_other(old), function() bed:resume(old) end
    end,
}

KINDS.deaf = KINDS.planned

-- The login of one who may only ask.
local function add_deaf_user(bed)
    for _, one in ipairs(bed.sentinels) do
        one:call("ACL", "SETUSER", "deaf", "reset", "on", ">deaf", "+ping",
            "+sentinel|get-master-addr-by-name")
    end
    return { user = "deaf", password = "deaf" }
end

local function fail_over(bed, kind)
    local old = bed:wait_settled()
    clock.sleep(CALM)
    local event = { kind = kind, began = clock.now() }
    local new, restore = KINDS[kind](bed, old)
    event.port = new.port
    clock.sleep(CALM)
    if restore then restore() end
    event.changed = bed:wait_settled() ~= new
    return event
end

-- ---- What was seen.

-- Without what a new master did not have: {number, when} of each write that the set has kept.
local function kept_writes(written)
    local kept, at = {}, 1
    local changes = written.kept
    for _, ack in ipairs(written.acked) do
        while changes[at] and changes[at][2] <= ack[2] do
            while kept[#kept] and kept[#kept][1] > changes[at][1] do kept[#kept] = nil end
            at = at + 1
        end
        kept[#kept + 1] = ack
    end
    return kept
end

-- The first in a list ordered by list[i][field] with more than that.
local function first_above(list, field, number)
    local low, high = 1, #list + 1
    while low < high do
        local middle = math.floor((low + high) / 2)
        if list[middle][field] > number then high = middle else low = middle + 1 end
    end
    return list[low]
end

--- The largest time by which a read was behind a write that was acknowledged and kept. which: 2 all
-- reads, 3 near hits. from, to: of reads that began between (all).
function failovers.largest_lag(written, runs, which, from, to)
    local kept, lag = kept_writes(written), 0
    for _, run in ipairs(runs) do
        local newer = first_above(kept, 1, run[1])
        if newer and run[which] >= (from or 0) and run[which] < (to or math.huge) then
            lag = math.max(lag, run[which] - newer[2])
        end
    end
    return lag
end

-- The acknowledged keys that the set still has, in order, and how many it has lost.
local function split_by_fate(acked, master)
    local client, kept, lost = master:client(), {}, {}
    for first = 1, #acked, 500 do
        local commands = {}
        for i = first, math.min(first + 499, #acked) do
            commands[#commands + 1] = { "EXISTS", acked[i][1] }
        end
        for i, answer in ipairs(client:pipeline(commands)) do
            local ack = acked[first + i - 1]
            local list = answer == 1 and kept or lost
            list[#list + 1] = ack
        end
    end
    client:close()
    return kept, lost
end

local function seen_of(list, port, from)
    for _, one in ipairs(list) do
        if one[1] == port and one[2] >= from then return one end
    end
    error("the watcher has not seen it", 0)
end

local function back_after(list, when, at)
    local first = first_above(list, when, at)
    return first and first[when] - at or math.huge
end

-- Which acknowledgement of the old master was the last; `at` where it is behind all.
local function last_lost(lost, event, at)
    local last = at
    for _, ack in ipairs(lost) do
        if ack[3] >= event.began and ack[2] <= event.ends then last = math.max(last, ack[3]) end
    end
    return last
end

-- The longest time without a processor of a client that writes, between two instants.
local function longest_pause(results, from, to)
    local longest = 0
    for _, role in ipairs({ "setter", "holder" }) do
        for _, one in ipairs(results[role].pauses) do
            if one[1] >= from and one[1] - one[2] <= to then longest = math.max(longest, one[2]) end
        end
    end
    return longest
end

local function describe(event, results, kept, lost)
    local promoted = seen_of(results.watcher.promoted, event.port, event.began)[2]
    local named = seen_of(results.watcher.named, event.port, event.began)
    event.promotion = promoted - event.began
    event.named = named[2] - promoted
    local old = last_lost(lost, event, promoted)
    event.back = old - promoted + back_after(kept, 3, old)
    event.control = back_after(event.kept_writes, 2, promoted)
    event.after_word = back_after(kept, 3, named[2]) -- in any case one by the new master
    event.late_count = named[3]
    event.late = named[3] > 0 and named[4] - named[2] or 0
    event.gap = math.max(named[5], longest_pause(results, named[2], named[2] + event.late))
    local runs = results.reader.runs
    event.near_lag = failovers.largest_lag(results.writer, runs, 3, event.began, event.ends)
    event.lag = failovers.largest_lag(results.writer, runs, 2, event.began, event.ends)
end

-- Whether a write was sent before the word of one of that failover's majorities could be heard.
local function is_in_time(ack, event, results)
    if ack[3] < event.began or ack[2] >= event.ends then return false end
    for _, named in ipairs(results.watcher.named) do
        local by = named[2] + failovers.PERIOD + failovers.SLACK
        if named[2] >= event.began and named[2] < event.ends and (ack[2] <= by
            or ack[2] <= by + longest_pause(results, named[2], ack[2])) then return true end
    end
    return false
end

-- What the set has lost without an excuse; nil: nothing.
local function check_lost(lost, events, results)
    for _, ack in ipairs(lost) do
        local excused = false
        for _, event in ipairs(events) do
            excused = excused or is_in_time(ack, event, results)
        end
        if not excused then return ack[1] .. " is missing" end
    end
end

--- Runs `count` failovers of each of these kinds and returns {event, ...} and a table about all of
-- them: problem (a text, or nil), lost, writes, near, reads, locks, loads, errors. An event: kind,
-- changed (another one was chosen behind it), promotion (since it began); named, back, control
-- (since then); after_word (service since the majority's word); near_lag, lag, late (seconds),
-- late_count, gap (so long the watcher or a client had no processor). login: as of load().
function failovers.run(bed, kinds, count, login)
    local load, events, cut_short = failovers.load(bed, bed:url(), nil, login), {}, nil
    for _, kind in ipairs(kinds) do
        for _ = 1, count do
            local ok, event = pcall(fail_over, bed, kind)
            if not ok then
                cut_short = event
                break
            end
            events[#events + 1] = event
        end
    end
    clock.sleep(MAX_STALE + 0.2)
    local results = load:stop()
    local kept, lost = split_by_fate(results.setter.acked, bed:wait_settled())
    local writes = kept_writes(results.writer)
    for i, event in ipairs(events) do
        event.kept_writes = writes
        event.ends = events[i + 1] and events[i + 1].began or math.huge
        describe(event, results, kept, lost)
    end
    local errors = {}
    for _, role in ipairs({ "setter", "holder" }) do
        for code, number in pairs(results[role].errors) do
            errors[#errors + 1] = ("%s: %s %d"):format(role, code, number)
        end
    end
    return events, {
        problem = cut_short or check_lost(lost, events, results), lost = #lost, writes = #kept,
        near = results.reader.near, reads = results.reader.reads, locks = results.holder.locks,
        loads = results.holder.loads, errors = table.concat(errors, ", "),
    }
end

--- What is wrong with a failover; nil: nothing. The foreign writer asks all sentinels all the time,
-- and watcher and clients may have no processor (gap): what these suffer from the machine is not
-- the client's fault.
-- A master that stood still does late what it was sent in time. And where sentinels that are short
-- of processor time change their minds once more, service is not back for good.
function failovers.judge(event)
    local slack = clock.scaled(failovers.SLACK)
    local is_late = event.back > clock.scaled(failovers.BACK) and event.back > event.control + 0.3
    if is_late and not event.changed then
        return ("service is back %.3f s after the promotion"):format(event.back)
    elseif event.near_lag > MAX_STALE + slack then
        return ("a near hit was behind by %.3f s"):format(event.near_lag)
    elseif event.lag > MAX_STALE + slack then
        return ("a read was behind by %.3f s"):format(event.lag)
    elseif event.kind ~= "paused" and event.late > failovers.PERIOD + slack + event.gap then
        return ("a write reached the old master %.3f s after the word"):format(event.late)
    end
end

-- ---- The report.

local COLUMNS = {
    { "promotion", "promoted" }, { "named", "+named" }, { "back", "+back" },
    { "control", "+foreign" }, { "after_word", "of word" }, { "near_lag", "near lag" },
    { "lag", "read lag" }, { "late", "late" }, { "gap", "paused" },
}

local function line(title, value_of)
    local parts = { ("%-12s"):format(title) }
    for _, column in ipairs(COLUMNS) do
        parts[#parts + 1] = ("%9s"):format(value_of(column))
    end
    return table.concat(parts) .. "\n"
end

local function quantile(events, name, share)
    local values = {}
    for i, event in ipairs(events) do values[i] = event[name] end
    table.sort(values)
    return values[math.max(1, math.ceil(share * #values))]
end

-- Whose time it was that service was not back within failovers.BACK of the promotion: the
-- sentinels', as long as no majority names the new master, or who goes on from there.
local function share_of_time(chosen)
    local in_time, late_word, late_control, own = 0, 0, 0, 0
    for _, event in ipairs(chosen) do
        own = math.max(own, event.after_word)
        if event.back <= failovers.BACK then
            in_time = in_time + 1
        else
            late_word = late_word + (event.named > failovers.BACK and 1 or 0)
            late_control = late_control + (event.control > failovers.BACK and 1 or 0)
        end
    end
    return ("  %d of %d back within %g s of the promotion; of the other %d the word itself came "
        .. "later %d times, the foreign writer %d times; service at most %.3f s behind the word\n"
        ):format(in_time, #chosen, failovers.BACK, #chosen - in_time, late_word, late_control, own)
end

--- The figures in words, for people: of each failover of that kind, and of all but those in which
-- the sentinels chose twice.
function failovers.report(kind, events)
    local parts, chosen = { line(kind, function(column) return column[2] end) }, {}
    for i, event in ipairs(events) do
        if event.kind == kind then
            if not event.changed then chosen[#chosen + 1] = event end
            local title = ("  %d%s"):format(i, event.changed and " twice" or "")
            parts[#parts + 1] = line(title, function(column)
                return ("%.3f"):format(event[column[1]])
            end)
        end
    end
    for _, row in ipairs(#chosen > 0 and { { "  p50", 0.5 }, { "  max", 1 } } or {}) do
        parts[#parts + 1] = line(row[1], function(column)
            return ("%.3f"):format(quantile(chosen, column[1], row[2]))
        end)
    end
    if #chosen > 0 then parts[#parts + 1] = share_of_time(chosen) end
    return table.concat(parts)
end

function failovers.summary(all)
    return ("%d writes kept, %d lost by the set; %d reads, %d near; %d locks, %d loads; "
        .. "errors: %s\n"):format(all.writes, all.lost, all.reads, all.near, all.locks,
        all.loads, all.errors)
end

local function main()
    local count = tonumber(os.getenv("REDCACHE_SENTINEL_FAILOVERS")) or 50
    local status, bed = 0, sentinel.start()
    for _, kind in ipairs(#arg > 0 and arg or { "planned", "killed" }) do
        local login = kind == "deaf" and add_deaf_user(bed) or nil
        local events, all = failovers.run(bed, { kind }, count, login)
        local problems = { all.problem }
        for i, event in ipairs(events) do
            local problem = failovers.judge(event)
            if problem then problems[#problems + 1] = ("%s %d: %s"):format(kind, i, problem) end
        end
        io.write(failovers.report(kind, events), failovers.summary(all),
            ("%d failovers, %d problems\n"):format(#events, #problems))
        for _, problem in ipairs(problems) do io.write(problem, "\n") end
        io.flush()
        if #problems > 0 then status = 1 end
    end
    bed:stop()
    os.exit(status, true)
end

if here then main() end

return failovers
