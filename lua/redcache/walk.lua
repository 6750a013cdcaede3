-- walk - all names in Redis that fit a pattern, master by master, a piece at a time.
--
-- What:   walk:next() is one SCAN. A cursor means something to the process that gave it, and to no
--         other: where another connection answers, the walk asks whether the same process is at
--         its end (run_id of INFO), and begins that master again if not. In a cluster slots.lua
--         says which masters are left; the scan of a master goes in stretches, each between two
--         looks at what the master has, and one that slots came back in is done again.
-- Memory: one piece; and in a cluster the slots. No slot of the pool is held between two pieces.
-- Errors: error objects. A walk that has failed is over.
-- Not:    a name may come more than once: as SCAN gives it, and from masters that begin again.

local calls = require("redcache.calls")
local constants = require("redcache.core.constants")
local core_client = require("redcache.core.client")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local errors = require("redcache.errors")
local literal = require("redcache.key").literal
local slots = require("redcache.slots")

local give = core_slot.give
local ERROR, BULK_ERROR = string.byte("-"), string.byte("!")

-- So often a master may begin again before its end, be looked for, or be scanned while all of its
-- slots move; and so often one stretch may be scanned.
local ATTEMPTS = 50
-- Pieces of a stretch: the first has as many. Behind one that counts the next is twice as long, up
-- to as many; behind one that does not, half as long, so that a scan ends while slots come all the
-- time. 64: a look costs less than the pieces, also of 100 nodes, and what a stretch that is
-- scanned again gives twice are 3,200 names, with the 50 of scan().
local FEW, MANY = 16, 64
-- Seconds between two looks for the master of a slot.
local PAUSE = 0.05

local walk = {}

---@class redcache.Walk
local Walk = {}
Walk.__index = Walk

---@param cache redcache.Cache
---@param pattern string of the keys, as Redis' SCAN has it
---@param own table options of the call: timeout, cancelTag, type
---@param count integer keys that a server looks at for one piece
---@param action string for errors
---@return redcache.Walk
function walk.new(cache, pattern, own, count, action)
    local self = setmetatable({
        cache = cache, own = own, action = action,
        _words = { "SCAN", "0", "MATCH", literal(cache._prefix) .. pattern, "COUNT", count },
        _attempts = 0, _length = FEW,
    }, Walk)
    if own.type then
        table.insert(self._words, "TYPE")
        table.insert(self._words, own.type)
    end
    if own.cancelTag then
        local client = cache._client
        client.walks = client.walks or setmetatable({}, { __mode = "k" })
        client.walks[self] = own.cancelTag
    end
    return self
end

---Ends the walks of this Lua state that carry the tag. The core ends the call that one waits for,
---unless its answer is just coming in.
---@param client redcache.Client
---@param tag integer
---@return integer count of those that wait for nothing now: the core has counted the others
function walk.cancel(client, tag)
    local count = 0
    for one, its in pairs(client.walks or {}) do
        if its == tag and not one.cancelled and not one.over then
            one.cancelled = true
            count = count + (one.waits and 0 or 1)
        end
    end
    return count
end

---Why the walk cannot go on; nil: it can.
---@return redcache.Error|nil err
function Walk:obstacle()
    local cache = self.cache
    if self.cancelled then
        return errors.new("cancelled", self.action, nil, "the operation was cancelled")
    elseif not cache._scheduler.can_wait() then
        return core_slot.failure(nil, constants.NOT_WAITED, self.action)
    end
    return core_client.closed(cache._client, self.action)
end

---Sends what `write` writes into a slot, and waits for the answers.
---@param flags integer
---@param write fun(slot: redcache.Slot): integer status
---@return redcache.Slot|nil slot holds the answers; the caller gives it back
---@return redcache.Error|nil err
function Walk:send(flags, write)
    local err = self:obstacle()
    if err then
        return nil, err
    end
    local slot
    slot, err = calls.enter(self.cache, self.own, self.action)
    if slot == nil then
        return nil, err
    end
    local status = core_command.begin(slot, flags)
    if status == 0 then
        status = write(slot)
    end
    self.waits = true
    status = calls.send(self.cache, slot, status)
    self.waits = false
    if status ~= 0 then
        return nil, calls.fail(slot, status, self.action)
    end
    return slot
end

---Waits without a call to Redis.
---@param seconds number
---@return redcache.Error|nil err
function Walk:pause(seconds)
    local err = self:obstacle()
    if err then
        return err
    end
    self.waits = true
    err = calls.pause(self.cache, self.own, self.action, seconds)
    self.waits = false
    return err
end

-- The answer to one SCAN that begins at node `at`: its cursor, and names.
local function read_scan(nodes, at)
    local count = nodes[at + 2].count
    local names = {}
    for i = 1, count do
        names[i] = core_command.node_text(nodes[at + 2 + i])
    end
    return core_command.node_text(nodes[at + 1]), names
end

-- What a master can be asked in one write, in this order.
local QUESTIONS = { "info", "before", "cursor", "after" }
local INFO, LOOK = { "INFO", "server" }, { "CLUSTER", "NODES" }

-- Asks the master of a hash slot for what `wants` says: info (run_id), cursor (one SCAN from
-- there), before and after that (its view of the cluster). The answers by those names, names, and
-- connection.
function Walk:_ask(at, wants)
    local words = { info = INFO, before = LOOK, cursor = self._words, after = LOOK }
    local slot, err = self:send(constants.RETRY, function(slot)
        local status = core_command.at_slot(slot, at)
        self._words[2] = wants.cursor or self._words[2]
        for _, what in ipairs(QUESTIONS) do
            if wants[what] and status == 0 then
                status = core_command.words(slot, words[what])
            end
        end
        return status
    end)
    if slot == nil then
        return nil, err
    end
    local nodes, count = core_command.nodes(slot)
    local answer, next_node = { connection = core_command.connection(slot) }, 0
    for _, what in ipairs(QUESTIONS) do
        local node = wants[what] and nodes[next_node]
        if node and what == "info" then
            -- Who may not ask is told nothing, and begins again with each connection.
            answer.info = string.match(core_command.node_text(node), "run_id:(%x+)")
            next_node = next_node + 1
        elseif node and (next_node >= count or node.type == ERROR or node.type == BULK_ERROR) then
            err = core_command.node_failure(node, self.action)
            give(slot)
            return nil, err
        elseif node and what == "cursor" then
            answer.cursor, answer.names = read_scan(nodes, next_node)
            next_node = next_node + 3 + #answer.names
        elseif node then
            answer[what] = slots.read(core_command.node_text(node))
            next_node = next_node + 1
        end
    end
    give(slot)
    return answer
end

-- Another attempt, or the error that there were too many.
function Walk:_try_again(cause)
    self._attempts = self._attempts + 1
    if self._attempts > ATTEMPTS then
        return errors.new("unavailable", self.action, nil, cause)
    end
    return self:pause(PAUSE)
end

-- A piece was scanned.
local function advance(master, answer)
    master.cursor, master.is_over = answer.cursor, answer.cursor == "0"
    if master.pass then
        master.left = master.left - 1
        master.look = master.look or answer.before
        master.behind = answer.after
        master.newest = answer.after or answer.before or master.newest
    end
end

-- Begins a master at its first key: names | nil, err. nil, nil: it is none, or was just asked.
function Walk:_begin(at)
    local in_cluster = self._slots ~= nil
    local wants = { info = true, cursor = "0", before = in_cluster,
        after = in_cluster and self._length == 1 }
    local answer, err = self:_ask(at, wants)
    if answer == nil then
        return nil, err
    end
    if self._slots == nil then
        if core_client.health(self.cache._client).mode == "cluster" then
            self._slots = slots.new()
            return {}
        end
    elseif not answer.before.has[at] then
        return self:_find(at)
    end
    local master = { at = at, connection = answer.connection, run_id = answer.info, failures = 0 }
    if answer.before then
        master.pass = slots.begin(answer.before)
        self:_stretch(master, "0", answer.before)
    end
    self._master = master
    advance(master, answer)
    return answer.names
end

-- A stretch of a master's scan begins at that cursor. Without a look the first piece brings it.
function Walk:_stretch(master, cursor, look)
    master.first, master.cursor, master.look = cursor, cursor, look
    master.left, master.behind, master.is_over = self._length, nil, false
end

-- The client's map is older than the slot's move: a key of the slot tells it.
function Walk:_find(at)
    local slot, err = self:send(constants.RETRY, function(slot)
        return core_command.words(slot, { "EXISTS", slots.key_of(at) })
    end)
    if slot == nil then
        return nil, err
    end
    local node = core_command.nodes(slot)[0]
    err = node.type == ERROR and core_command.node_failure(node, self.action)
    give(slot)
    err = err or self:_try_again("no master says that the slot " .. at .. " is its own")
    if err then
        return nil, err
    end
    return {}
end

-- Another connection has answered a SCAN. Whether it leads to the same process.
function Walk:_is_same(master, connection)
    if master.run_id == nil then
        return false
    end
    local answer, err = self:_ask(master.at, { info = true })
    if answer == nil then
        return nil, err
    end
    return answer.info == master.run_id and answer.connection == connection
end

-- The slot that the master was asked by may have left it: one that has not. true: there is one.
local function take_other_slot(master)
    local view = master.newest
    if view and view.last and view.last ~= master.at and not master.is_second then
        master.at, master.is_second = view.last, true
        return true
    end
    return false
end

-- The next piece of the master that is at work.
function Walk:_continue(master)
    local in_cluster = master.pass ~= nil
    local answer, err = self:_ask(master.at, { cursor = master.cursor,
        before = in_cluster and not master.look, after = in_cluster and master.left == 1 })
    if answer == nil then
        return nil, err
    end
    if answer.connection ~= master.connection then
        local same
        same, err = self:_is_same(master, answer.connection)
        if err then
            return nil, err
        elseif not same and take_other_slot(master) then
            return {}
        elseif not same then
            self._master = nil
            err = self:_try_again("the server behind the address changes again and again")
            return not err and {} or nil, err
        end
        master.connection = answer.connection
    end
    advance(master, answer)
    return answer.names
end

-- The look behind a stretch that is over. nil: it is not; or err
function Walk:_look_behind(master)
    if master.behind or not master.is_over then
        return master.behind
    end
    local answer, err = self:_ask(master.at, { after = true })
    if answer and answer.after.id ~= master.pass.id and take_other_slot(master) then
        answer, err = self:_ask(master.at, { after = true })
    end
    return answer and answer.after, err
end

-- What follows from the piece that was scanned last. err
function Walk:_judge(master)
    if master.pass == nil then
        self.over = master.is_over
        return
    end
    local look, err = self:_look_behind(master)
    if look == nil then
        return err
    end
    if not master.pass:keep(master.look, look) then
        self._length = math.max(math.floor(self._length / 2), 1)
        master.failures = master.failures + 1
        if master.failures > ATTEMPTS then
            return errors.new("unavailable", self.action, nil,
                "slots come to a master again and again")
        end
        self:_stretch(master, master.first)
        return
    end
    self._length = math.min(self._length * 2, MANY)
    master.failures, master.is_second = 0, false
    if not master.is_over then
        self:_stretch(master, master.cursor, look)
        return
    end
    self._master = nil
    if not self._slots:finish(master.pass) then
        return self:_try_again("slots move again and again")
    end
end

-- The next master. names | nil, err; nil: there is none left.
function Walk:_next_master()
    if self._slots == nil then
        return self:_begin(0)
    end
    local at, lost = self._slots:next()
    if at == nil then
        self.over = true
        return nil
    elseif lost then
        local err = self:_try_again("a slot is on its way to a node without slots, " .. lost)
        if err then
            return nil, err
        end
    end
    return self:_begin(at)
end

-- Of names that were done already nothing is told again.
local function without_done(self, names)
    local done = self._slots
    if done == nil then
        return names
    end
    local left = {}
    for _, name in ipairs(names) do
        if not done:has_done(name) then
            left[#left + 1] = name
        end
    end
    return left
end

-- A cache without a namespace finds what is redcache's own: locks, and what goes with keys.
local function without_own(names)
    local left = {}
    for _, name in ipairs(names) do
        local is_lock = string.find(name, "^[^:]*//lock:{.*}$")
        local is_tag = string.find(name, "^[^:]*//tag:")
            or string.find(name, "^[^:]*//index:%d+:")
        local is_helper = string.find(name, "^{.*[!~^]:%l+$")
        if not is_lock and not is_tag and not is_helper then
            left[#left + 1] = name
        end
    end
    return left
end

---The next names, with their prefix: possibly none of them.
---@return string[]|nil names nil without err: that was all
---@return redcache.Error|nil err
function Walk:next()
    if self.over then
        return nil
    end
    local master = self._master
    local names, err
    if master then
        names, err = self:_continue(master)
    else
        names, err = self:_next_master()
    end
    if names == nil then
        self.over = true
        return nil, err
    end
    names = without_done(self, names)
    err = self._master and self:_judge(self._master)
    if err then
        self.over = true
        return nil, err
    end
    return self.cache._prefix == "" and without_own(names) or names
end

return walk
