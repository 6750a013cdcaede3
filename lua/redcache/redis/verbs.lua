-- verbs - what is to be known of a command before it is sent: the keys it changes, whether it only
-- reads, how long it may wait.
--
-- What:   of a command that stands in no table here the first argument is taken for a key that it
--         changes: at worst a near copy goes that was still good.
-- Not:    no check of arguments: Redis does that. Keys behind STORE (SORT, GEORADIUS) are not seen;
--         their near copies go as those of other clients' writes do.

local verbs = {}

local function set_of(text)
    local set = {}
    for word in string.gmatch(text, "%S+") do
        set[word] = true
    end
    return set
end

-- They change nothing, and may be asked twice.
local READS = set_of([[
GET MGET STRLEN GETRANGE SUBSTR LCS EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME TOUCH DUMP OBJECT
MEMORY GETBIT BITCOUNT BITPOS BITFIELD_RO KEYS SCAN RANDOMKEY DBSIZE SORT_RO
HGET HMGET HGETALL HKEYS HVALS HLEN HSTRLEN HEXISTS HRANDFIELD HSCAN HTTL HPTTL HEXPIRETIME
HPEXPIRETIME LLEN LINDEX LRANGE LPOS SCARD SISMEMBER SMISMEMBER SMEMBERS SRANDMEMBER SSCAN SINTER
SUNION SDIFF SINTERCARD ZCARD ZCOUNT ZLEXCOUNT ZSCORE ZMSCORE ZRANK ZREVRANK ZRANGE ZRANGEBYSCORE
ZRANGEBYLEX ZREVRANGE ZREVRANGEBYSCORE ZREVRANGEBYLEX ZRANDMEMBER ZSCAN ZINTER ZUNION ZDIFF
ZINTERCARD XLEN XRANGE XREVRANGE XREAD XINFO XPENDING PFCOUNT GEODIST GEOHASH GEOPOS GEOSEARCH
GEORADIUS_RO GEORADIUSBYMEMBER_RO EVAL_RO EVALSHA_RO FCALL_RO
PING ECHO TIME INFO LASTSAVE ROLE
]])

-- They have no keys, or none that could be kept near.
local KEYLESS = set_of([[
ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DEBUG DISCARD EXEC FAILOVER
FLUSHALL FLUSHDB FUNCTION HELLO LATENCY LOLWUT MODULE MONITOR MULTI PUBLISH PUBSUB QUIT READONLY
READWRITE REPLICAOF RESET SAVE SCRIPT SELECT SHUTDOWN SLAVEOF SLOWLOG SPUBLISH SWAPDB UNWATCH WAIT
WAITAOF WATCH XREADGROUP XACK XCLAIM XAUTOCLAIM XGROUP XADD XTRIM XDEL XSETID
]])

local function all(command) return 1, command.count, 1 end
local function all_but_last(command) return 1, command.count - 1, 1 end
local function first_two() return 1, 2, 1 end
local function second() return 2, 2, 1 end

-- So many keys as the argument at `place` says follow it.
local function counted(place)
    return function(command)
        return place + 1, place + (tonumber(command[place]) or 0), 1
    end
end

-- Which arguments are keys that change: first, last, step.
local WRITES = {
    DEL = all, UNLINK = all, PFMERGE = all,
    MSET = function(command) return 1, command.count, 2 end,
    RENAME = first_two, RENAMENX = first_two, RPOPLPUSH = first_two, BRPOPLPUSH = first_two,
    LMOVE = first_two, BLMOVE = first_two, SMOVE = first_two,
    COPY = second, BITOP = second,
    BLPOP = all_but_last, BRPOP = all_but_last, BZPOPMIN = all_but_last, BZPOPMAX = all_but_last,
    LMPOP = counted(1), ZMPOP = counted(1), BLMPOP = counted(2), BZMPOP = counted(2),
    EVAL = counted(2), EVALSHA = counted(2), FCALL = counted(2),
}
WRITES.MSETNX = WRITES.MSET

local function last_in(unit)
    return function(command) return command[command.count], unit end
end
local function first_in(unit)
    return function(command) return command[1], unit end
end

-- XREAD and XREADGROUP: [GROUP group consumer] [COUNT n] [BLOCK ms] [NOACK] STREAMS key ... What
-- stands behind a word; a group may be called BLOCK.
local function behind(command, word)
    local i = 1
    while i < command.count do
        local option = string.upper(command[i])
        if option == word then
            return command[i + 1]
        elseif option == "STREAMS" then
            return nil
        end
        i = i + (option == "GROUP" and 3 or (option == "COUNT" or option == "BLOCK") and 2 or 1)
    end
end
local function block_of(command) return behind(command, "BLOCK"), 0.001 end

-- How long a command waits: its argument, in which unit. They go over a connection of their own.
local WAITS = {
    BLPOP = last_in(1), BRPOP = last_in(1), BRPOPLPUSH = last_in(1), BLMOVE = last_in(1),
    BZPOPMIN = last_in(1), BZPOPMAX = last_in(1), BLMPOP = first_in(1), BZMPOP = first_in(1),
    WAIT = last_in(0.001), WAITAOF = last_in(0.001), XREAD = block_of, XREADGROUP = block_of,
}
-- In place of for ever.
local DAY = 86400

---@class redcache.redis.Command a command that was checked: its arguments in order
---@field name string in upper case
---@field count integer
---@field script? redcache.RedisScript in place of a name; the keys are its
---@field keys? string[]

---Whether it changes nothing.
---@param command redcache.redis.Command
---@return boolean
function verbs.reads(command)
    return READS[command.name] == true
end

---How long it may wait. 0 in the command is for ever, which is a day here.
---@param command redcache.redis.Command
---@return number|nil seconds nil: it does not wait
function verbs.wait(command)
    local wait = WAITS[command.name]
    if wait == nil then
        return nil
    end
    local argument, unit = wait(command)
    if argument == nil and wait == block_of then
        return nil
    end
    local seconds = (tonumber(argument) or unit) * unit -- Redis refuses what is no number
    return seconds > 0 and math.min(seconds, DAY) or DAY
end

---A key that says where in a cluster it belongs; nil: none is known.
---@param command redcache.redis.Command
---@return string|nil
function verbs.key(command)
    if command.keys then
        return command.keys[1]
    elseif command.name == "XREAD" or command.name == "XREADGROUP" then
        return behind(command, "STREAMS")
    elseif KEYLESS[command.name] then
        return nil
    end
    local first, last = verbs.written(command)
    return command[first <= last and first or 1]
end

---Which arguments are keys that change; a loop over them runs no further than count.
---@param command redcache.redis.Command
---@return integer first
---@return integer last
---@return integer step
function verbs.written(command)
    local name = command.name
    if READS[name] or KEYLESS[name] then
        return 1, 0, 1
    end
    local write = WRITES[name]
    if write == nil then
        return 1, 1, 1
    end
    local first, last, step = write(command)
    return first, math.min(last, command.count), step
end

return verbs
