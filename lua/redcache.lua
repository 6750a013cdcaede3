-- redcache - a cache engine on Redis, or on a store in this process: one loader per key, honest
-- locks, no stale values.
--
-- Tables that get and remember return may be shared by all readers of this Lua state (source "l0"):
-- treat them as read-only, or ask for a copy (option copy).
--
--     local redcache = require("redcache")
--     local cache = redcache.new({ namespace = "app" }) -- url = "redis://127.0.0.1:6379"
--     local user, err = cache:remember("user:7", 60, function(key)
--         return load_user(7)
--     end)

if not pcall(require, "ffi") then
    error("redcache needs LuaJIT with its FFI, and this is " .. _VERSION, 0)
end

require("redcache.compiled").use()
local later = require("redcache.later")
local cache = require("redcache.cache")
local clock = require("redcache.clock")
local core_command = require("redcache.core.command")
local errors = require("redcache.errors")
local fence = require("redcache.fence")
local options = require("redcache.options")
local run = later.module("redcache.run")

local redcache = {
    _VERSION = later.VERSION,

    ---Time to live of what shall never expire by itself.
    FOREVER = options.FOREVER,

    ---Text to put in front of a Redis script that writes what a lock protects: there
    ---`if not fenced(KEYS[2], ARGV[1]) then return false end` refuses a holder that lost the lock.
    ---Pass ("%.0f"):format(lock.fence), and a key of its own for what the lock protects.
    FENCED = fence,

    ---The codes of error objects: err.code == redcache.errors.timeout.
    errors = errors.CODES,
}

-- Fields that few programs read, and the modules that they are: null looks for cjson.
---@class redcache
---@field NULL redcache.Null what stands for Redis' null in the answers of cache:redis(), inside of
---lists and maps; as the whole answer it is nil. It is cjson.null (in nginx ngx.null) where cjson
---is there
---@field key function keys made of parts, and read back: redcache.key("user", 7) is "user:7".
---lua/redcache/key.lua
local FIELDS = { NULL = "redcache.null", key = "redcache.key" }
for _, module in pairs(FIELDS) do
    later.choice(module)
end
setmetatable(redcache, { __index = function(_, name)
    local module = FIELDS[name]
    if module then
        redcache[name] = later.load(module)
        return rawget(redcache, name)
    end
end })

---Opens a cache. Nothing is connected before the first call. Times are seconds, fractions allowed.
---Caches of one process with equal url, group and connection numbers share one client.
---
---Connection: url ("memory://": a store in this process, see below; or
---redis://[user:password@]host[:port][/db], the same with rediss:// for TLS; with several
---host[:port] and commas between them up to 15 nodes of one cluster; or
---unix://[user:password@]/path[?db=n], or
---redis+sentinel://[user:password@]host[:26379],host,.../master[/db], the same with
---rediss+sentinel:// for TLS: the master of that name, as a majority of these 1 to 15 sentinels
---tells), sentinelUser, sentinelPassword (""; who we are to the sentinels), tlsCa ("": the
---system's; else a file with the CA certificates to trust; the server's must be valid for the host
---of the url), tlsServerName (""; a name that it must be valid for, and is asked for (SNI), in
---place of that host), tlsCert, tlsKey (""; files with our certificate and its key, PEM, for
---servers that want one), user, password ("": those of the url, if it has any), auth
---(function() return user, password, ttl end, or nil, why: credentials that change: asked before
---the first connection, when 7 of 10 parts of ttl (seconds; nil: for ever) are over, and when the
---server refuses what it has; by a call that waits or by the loop that serves it, in nginx by a
---timer. It may wait as a call of that scheduler may. All its users must have the same rights;
---caches with equal options share a client, and ask the function of any of them; sentinels keep
---theirs), tls (nil; "off": auth may send passwords to another machine without TLS),
---namespace ("" no prefix; else keys begin with it and ":": docs/keys.md), group (""),
---connectTimeout (1), commandTimeout (0.5),
---maxValue (8 MiB), maxKey (65536 bytes), maxQueue (65536 requests), maxLent (16: connections
---that are lent to one caller each, for raw commands that wait, WATCH and subscriptions),
---degradedTtl (1: how long a value loaded while Redis is away is shared in the process), spin
---(true: poll for a moment before sleeping), scheduler (outside of nginx "blocking": a call that
---waits stops its Lua state; in nginx "resty"; "coroutine" under redcache.run, "luv", "cqueues",
---"copas": there, as with "resty", a call that waits stops its coroutine only), driver ("loop";
---for "resty" also "thread": a thread renews leases while a loader blocks the worker).
---
---Without a server: memory://, or memory://NAME for a store of that name (letters, digits and ._-),
---is shared by all threads and Lua states of the process, and gone when the last cache on it is
---closed. maxBytes (64 MiB, or what the store was opened with; another number is an error): then
---what was used longest ago is evicted. A child of fork() begins with an empty store, and a cache
---that was opened before the fork has no near cache there. clock (of redcache.clock(), for specs):
---the cache goes by it alone, in a store that only caches with that clock share.
---
---Entries: ttl (300), codec ("msgpack"; "json", "raw", "number" or a codec table; "number" is what
---counters are read with, and implies plain), plain (false; true stores values without a header,
---for other programs; but one whose first byte is 251, as that of a header, gets one, so that any
---bytes come back as they went in), grace (0: how long after its ttl a value may be served when the
---loader or Redis fails), decodeErrors ("miss": what this version cannot read - broken bytes, an
---unknown codec, flag, kind or newer header - is a miss for get and getMulti, counted in
---stats().decodeErrors and left alone; remember loads it again, and only it, set and put replace
---it; "error": get, getMulti and remember return the error decode, and it stays).
---Both codecs hold tables up to 32 levels deep; msgpack, so that foreign bytes cannot unfold
---without end, up to 65,536 tables in a value and one more per 4 bytes of it.
---
---Near cache: near (true; false: none; or a table: bytes (64 MiB, everything included), shared (a
---name of letters, digits and ._-: one region for all processes of this user that open it, for one
---server, database and user of Redis; without, processes forked after this call share it), ttl
---(how long a copy is kept at most), min and max (bytes kept for this namespace, and its bound),
---l0 (true; false; or { entries = 8192, bytes = 16 MiB }: decoded values of this Lua state)),
---maxStale (1: no near value is served that was not known coherent within this time), copy (false;
---true: every reader gets tables of its own), guard (false; true: a table from L0 that a reader
---has changed raises an error; for tests).
---
---Loads: leaseTtl (5), maxLoadTime (60), waitTimeout (5), onTimeout ("error"; "load", "stale"),
---negativeTtl (5; 0 off), errorTtl (0), strict (false; true: an error where Redis is away), renew
---(true), serveOld (true: readers get the old value while put runs), reloads (0: how often a load
---runs again whose value could not be stored).
---
---Locks: lockTtl (10), lockWait (5).
---@param opts? table unknown or bad options are an error that names the option and its range
---@return redcache.Cache
redcache.new = cache.open

---Opens a cache in nginx, in init_by_lua: as new; outside of nginx it is an error. Its near cache
---is mapped before nginx forks, so all workers share it, also those of a later reload, and each Lua
---state that opens it with the same connection options. Nothing is started in the master; a worker
---connects when it first needs to.
---@param opts? table
---@return redcache.Cache
redcache.init = cache.init

---The hash slot of a Redis key, 0 to 16383: keys of one slot are on one node of a cluster. Of a key
---with a hash tag, "{user:7}:name", the slot is that of the tag. The key is the whole name in
---Redis, namespace and all.
---@param key string|number
---@return integer slot
function redcache.slot(key)
    if type(key) ~= "string" and type(key) ~= "number" then
        error("bad argument 'key' to slot: string expected, got " .. type(key), 2)
    end
    return core_command.key_slot(tostring(key))
end

---Makes a clock for specs: it stands still at 0 until clock:advance(seconds); clock:now() tells it.
---A cache of redcache.new({ url = "memory://", clock = clock }) takes no real time and has no
---thread; what is due while the clock is advanced happens in the same order each time. A call that
---waits for what only time can bring (a lease or lock of another cache, a time-out) moves the clock
---itself, to the next time that something is due. As in Redis, a value lives through the last
---millisecond of its ttl. A clock and its caches stay in one Lua state.
---@return redcache.Clock
redcache.clock = clock.new

---Runs fn(...) as a coroutine, and everything that it spawns, until all of them have ended: many
---calls at once for programs without an event loop. See redcache.run (lua/redcache/run.lua).
---
---    local cache = redcache.new({ url = "redis://127.0.0.1:6379", scheduler = "coroutine" })
---    redcache.run(function()
---        for i = 1, 1000 do
---            redcache.spawn(function() print(cache:get("user:" .. i)) end)
---        end
---    end)
---@type fun(fn: function, ...: any): ...
function redcache.run(...)
    return run.run(...)
end

---Starts fn(...) as another coroutine of the run() that is at work. handle:wait() returns what fn
---returned, or nil, err where it failed.
---@type fun(fn: function, ...: any): redcache.Task
function redcache.spawn(...)
    return run.spawn(...)
end

return redcache
