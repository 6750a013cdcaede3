-- The embedded store answers as Redis 7.0 does, byte for byte: every command with its options and
-- errors in both protocols, tracking, the engine's scripts, and commands made up from a seed.
--
-- A case is a list of lines, a command each, for connection 1 or the one the line begins with
-- ("2: GET k"); "MULTI | EXEC" are sent in one write; '' is an empty word, and "wait 30" lets 30 ms
-- pass.
-- Env: REDCACHE_STORE_SEED: the seed of the first run (random); REDCACHE_STORE_COMMANDS: how many
--      commands are made up, of either kind (10000).

local clock = require("spec.support.clock")
local commands = require("spec.support.store_commands")
local frame = require("spec.support.frame")
local posix = require("spec.support.posix")
local resp = require("spec.support.resp")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local store_server = require("spec.support.store_server")
local twins = require("spec.support.twins")

local SEED = tonumber(os.getenv("REDCACHE_STORE_SEED")) or (os.time() + posix.C.getpid()) % 1000000
local COMMANDS = tonumber(os.getenv("REDCACHE_STORE_COMMANDS")) or 10000
local CONNECTIONS = 3

-- Commands of the store that have a second word.
local HAS_WORDS = { client = true, command = true, config = true, script = true }

local redis, store, pair, scripts

setup(function()
    redis = server.start({ config = { "enable-debug-command yes" } })
    -- Redis would else expire keys whenever it has time to: what is over goes when it is met.
    redis:call("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    store = store_server.start()
    scripts = { sources = store_server.scripts(), shas = {} }
    for i, source in ipairs(scripts.sources) do
        scripts.shas[i] = redis:call("SCRIPT", "LOAD", source)
    end
end)

teardown(function()
    redis:stop()
    store:stop()
end)

before_each(function()
    pair = twins.new(redis.port, store.port, CONNECTIONS)
    pair:reset()
end)
after_each(function() pair:close() end)

-- Error texts and details differ between versions.
local function is_comparable()
    local version = redis:info("server").redis_version
    if version:match("^7%.0%.") then return true end
    pending("the store answers as Redis 7.0; this is " .. version)
    return false
end

local function it_compares(sentence, fn)
    it(sentence, function()
        if is_comparable() then fn() end
    end)
end

local function parse(line)
    local number, rest = line:match("^(%d): (.*)$")
    local step = { tonumber(number) or 1 }
    for command in (rest or line):gmatch("[^|]+") do
        local words = {}
        for word in command:gmatch("%S+") do words[#words + 1] = word == "''" and "" or word end
        step[#step + 1] = words
    end
    return step
end

-- Runs the lines on both; throws where they differ, with the lines up to there.
local function run_lines(lines)
    local done = {}
    for line in lines:gmatch("[^\n;]+") do
        local wait = line:match("^%s*wait (%d+)")
        done[#done + 1] = line
        if wait then
            clock.sleep(wait / 1000)
        else
            local difference = pair:step(parse((line:gsub("^%s+", ""))))
            if difference then error(difference .. "\nafter\n" .. table.concat(done, "\n"), 2) end
        end
    end
end

-- In both protocols.
local function case(sentence, lines)
    it_compares(sentence, function()
        run_lines(lines)
        pair:reset()
        run_lines("HELLO 3;2: HELLO 3;3: HELLO 3")
        run_lines(lines)
    end)
end

-- With tracking on connections 1 and 2; 3 writes.
local function tracking(sentence, lines)
    it_compares(sentence, function()
        run_lines("HELLO 3;CLIENT TRACKING ON;2: HELLO 3;2: CLIENT TRACKING ON")
        run_lines(lines)
    end)
end

describe("the embedded store", function()
    case("answers to GET, MGET, STRLEN, GETDEL and GETSET", [[
        GET k; SET k v; GET k; GET; GET k k; get k; gEt k; MGET; MGET k; MGET k x k; STRLEN k
        STRLEN x; STRLEN; GETDEL x; GETDEL k; GETDEL k; GETDEL; GETSET k a; GETSET k b; GETSET k
        SET k v PX 100000; GETSET k w; PTTL k]])

    case("answers to MULTI, EXEC and DISCARD", [[
        EXEC; DISCARD; MULTI | MULTI | EXEC; MULTI | SET k 1 | INCR k | GET k | EXEC; MULTI | EXEC
        EXEC; MULTI | SET k v | DISCARD; GET k; DISCARD; MULTI | SET k | EXEC
        MULTI | SET k v | SET k | EXEC; GET k; MULTI | INCR k k | GET k | DISCARD
        MULTI | SET k text | INCR k | GET k | EXEC | EXEC k; MULTI | EXEC k | EXEC; MULTI x
        MULTI | PING | ECHO x | SELECT 1 | SET k one | SELECT 0 | GET k | EXEC; MULTI | RESET
        EXEC]])

    case("answers to WATCH and UNWATCH", [[
        WATCH; WATCH k; 2: SET k a; MULTI | SET k b | EXEC; GET k; MULTI | SET k b | EXEC; GET k
        WATCH k; 2: SET x a; MULTI | GET k | EXEC; WATCH k; 2: DEL k; MULTI | GET k | EXEC
        WATCH k; 2: DEL k; MULTI | GET k | EXEC
        WATCH k x; 2: SET x b; UNWATCH; MULTI | GET k | EXEC
        WATCH k; SET k own; MULTI | GET k | EXEC
        WATCH k; 2: SET k b; MULTI | DISCARD | MULTI | GET k | EXEC; MULTI | WATCH k | EXEC
        WATCH k; 2: SELECT 1; 2: SET k c; 2: SELECT 0; MULTI | GET k | EXEC
        WATCH k; 2: FLUSHDB; MULTI | GET k | EXEC; WATCH k; 2: FLUSHDB; MULTI | GET k | EXEC
        SET k v PX 20; WATCH k; wait 40; MULTI | GET k | EXEC
        SET k v PX 20; wait 40; WATCH k; MULTI | GET k | EXEC
        SET k v; WATCH k; 2: RENAME k x; MULTI | GET k | EXEC; WATCH k; 2: RENAME x k
        MULTI | GET k | EXEC; WATCH k; 2: EXPIRE k 100; MULTI | GET k | EXEC; UNWATCH x
        WATCH k; 2: SET k v; MULTI | UNWATCH | EXEC; MULTI | GET k | EXEC
        WATCH k; 2: SET k v; RESET; MULTI | GET k | EXEC]])

    it_compares("answers to PUBLISH, SUBSCRIBE and PSUBSCRIBE", function()
        run_lines("HELLO 3; 2: HELLO 3; 3: HELLO 3")
        run_lines([[
        PUBLISH; PUBLISH c; PUBLISH c m; SUBSCRIBE; 2: SUBSCRIBE c; PUBLISH c m; PUBLISH d m
        2: SUBSCRIBE c d; PUBLISH d ''; 2: PSUBSCRIBE c* d; PUBLISH c m; PUBLISH cc m; PUBLISH d m
        3: PSUBSCRIBE ?; PUBLISH c m; 2: UNSUBSCRIBE c; PUBLISH c m; 2: UNSUBSCRIBE x
        2: PUNSUBSCRIBE d; PUBLISH d m; 2: PUBLISH d own; 2: PUNSUBSCRIBE c*; PUBLISH d m
        2: UNSUBSCRIBE; 2: UNSUBSCRIBE; 2: PUNSUBSCRIBE; PUBLISH d m; 3: PUNSUBSCRIBE ? x
        PUBLISH c m; 2: SUBSCRIBE c; 2: RESET; PUBLISH c m]])
    end)

    case("answers to SET with all its options", [[
        SET; SET k; SET k v; SET k ''; GET k; SET k v NX; SET k v XX; SET x v XX; SET x v NX
        SET k v NX XX; SET k v NX NX; SET k a GET; SET y a GET; SET k b NX GET; SET z b NX GET
        SET k c XX GET; SET w c XX GET; GET w; SET k v EX 100; TTL k; SET k v PX 100000; PTTL k
        SET k v EXAT 4000000000; EXPIRETIME k; SET k v PXAT 4000000000123; PEXPIRETIME k
        SET k w KEEPTTL; PEXPIRETIME k; SET k w; PTTL k; SET k v EX 0; SET k v EX -1; SET k v EX x
        SET k v EX; SET k v PX 0; SET k v EXAT 0; SET k v PXAT -5; SET k v EX 9223372036854775807
        SET k v PX 9223372036854775807; SET k v EX 10 PX 10; SET k v EX 10 EX 200; TTL k
        SET k v KEEPTTL EX 10; SET k v EX 10 KEEPTTL; SET k v FOO; SET k v PERSIST; SET k v NX FOO
        SET k v get nx; SET k v ex 100 nx get xx; SET gone v PXAT 1; GET gone; EXISTS gone]])

    case("answers to SETNX, SETEX, PSETEX, MSET, MSETNX and GETEX", [[
        SETNX k v; SETNX k w; SETNX k; SETEX k 100 v; TTL k; SETEX k 0 v; SETEX k x v; SETEX k v
        PSETEX k 100000 w; PTTL k; PSETEX k -1 w; MSET a 1 b 2; MGET a b; MSET a; MSET a 1 b
        MSETNX a 5 c 6; MGET a c; MSETNX c 6 d 7; MGET c d; MSETNX a; MSETNX a 1 b; MSET a 1 a 2
        GET a; GETEX a; GETEX a EX 100; TTL a; GETEX a PERSIST; TTL a; GETEX a PX 100000; PTTL a
        GETEX a EXAT 4000000000; EXPIRETIME a; GETEX a PXAT 1; GET a; GETEX x EX 0; GETEX b EX 0
        GETEX b EX 10 PERSIST; GETEX b PERSIST EX 10; GETEX b FOO; GETEX; GETEX b KEEPTTL]])

    case("answers to APPEND, GETRANGE, SUBSTR and SETRANGE", [[
        APPEND k abc; APPEND k ''; APPEND k def; GET k; APPEND k; GETRANGE k 0 5; GETRANGE k 0 6
        GETRANGE k 5 5; GETRANGE k 6 6; GETRANGE k 0 -1; GETRANGE k 1 2; GETRANGE k -3 -1
        GETRANGE k -1 -3; GETRANGE k 4 100; GETRANGE k 100 200; GETRANGE k -100 0; GETRANGE x 0 -1
        GETRANGE k a 1; GETRANGE k 1 a; GETRANGE k 1; SUBSTR k 0 2; SUBSTR k 0; SETRANGE k 1 XX
        GET k; SETRANGE k 10 end; GET k; SETRANGE new 3 v; GET new; SETRANGE k 0 ''
        SETRANGE none 5 ''; EXISTS none; SETRANGE k -1 v; SETRANGE k x v; SETRANGE k 536870912 v
        SETRANGE k 9223372036854775807 v; SETRANGE k 1; SET t v PX 100000; APPEND t w; PTTL t]])

    case("counts as INCR and its kin do", [[
        INCR n; INCR n; DECR n; INCRBY n 10; DECRBY n 3; GET n; INCRBY n x; INCRBY n; INCRBY n 1.5
        SET n 9223372036854775807; INCR n; DECR n; INCRBY n 9223372036854775807
        SET n -9223372036854775808; DECR n; DECRBY n 1; DECRBY n -9223372036854775808; SET n 01
        INCR n; SET n +1; INCR n; SET n ''; INCR n; SET n x; INCR n; DECR; INCR n 1
        SET n 5 PX 100000; INCR n; PTTL n; INCRBYFLOAT f 1.5; INCRBYFLOAT f 0.1; INCRBYFLOAT f -1.6
        GET f; INCRBYFLOAT f 1e3; INCRBYFLOAT f 3.0e-5; INCRBYFLOAT f x; INCRBYFLOAT f ''
        INCRBYFLOAT f nan; INCRBYFLOAT f inf; INCRBYFLOAT f -inf; INCRBYFLOAT f 0x10
        INCRBYFLOAT f 1e400; SET f x; INCRBYFLOAT f 1; SET f 1e17; INCRBYFLOAT f 0.5; INCRBYFLOAT f
        SET f 10; INCRBYFLOAT f 5]])

    case("expires as EXPIRE and its kin say", [[
        EXPIRE x 10; SET k v; TTL k; PTTL k; EXPIRETIME k; PEXPIRETIME k; TTL x; PTTL x
        EXPIRETIME x; PEXPIRETIME x; EXPIRE k 100; TTL k; PEXPIRE k 200000; PTTL k
        EXPIREAT k 4000000000; EXPIRETIME k; PEXPIREAT k 4000000000500; PEXPIRETIME k; EXPIRETIME k
        PERSIST k; PERSIST k; PERSIST x; TTL k; EXPIRE k 100 XX; EXPIRE k 100 GT; EXPIRE k 100 NX
        EXPIRE k 200 NX; EXPIRE k 50 GT; EXPIRE k 500 GT; TTL k; EXPIRE k 1000 LT; EXPIRE k 50 LT
        TTL k; PERSIST k; EXPIRE k 70 LT; TTL k; EXPIRE k 10 NX XX; EXPIRE k 10 NX GT
        EXPIRE k 10 GT LT; EXPIRE k 10 FOO; EXPIRE k x; EXPIRE k; EXPIRE k 9223372036854775807
        EXPIRE k -9223372036854775808; EXPIRE k 9223372036854775; PEXPIRE k 9223372036854775807
        PEXPIREAT k 9223372036854775807; EXPIRE k -1; EXISTS k; SET k v; EXPIREAT k 1; GET k
        SET k v; PEXPIRE k 0; GET k; EXPIRE x x; PERSIST; TTL; PTTL k k]])

    case("expires keys when their time is over", [[
        SET k v PX 500; GET k; SET k1 v PX 30; SET k2 v PX 30; SET k3 v PX 30; SET k4 v PX 30
        SET k5 v PX 30; SET k6 v PX 30; SET k7 v PX 30; SET k8 5 PX 30; SET k9 v PX 30
        wait 600
        DBSIZE; GET k; DBSIZE; KEYS *; DBSIZE; SET k1 w NX; GET k1; EXISTS k2; DEL k3; APPEND k4 w
        RENAME k5 x; RENAME k1 k6; TYPE k7; INCR k8; DBSIZE; SCAN 0 COUNT 1000; DBSIZE; FLUSHALL
        SET k v PX 30
        wait 60
        RANDOMKEY; DBSIZE; SET k v PX 30; SELECT 1; SET k v PX 30
        wait 60
        PTTL k; DBSIZE; SELECT 0; DBSIZE]])

    case("answers to EXISTS, DEL, UNLINK, TOUCH, TYPE, RENAME and COPY", [[
        EXISTS k; SET k v; EXISTS k; EXISTS k k x; EXISTS; TOUCH k x; TOUCH; TYPE k; TYPE x; TYPE
        DEL x; DEL k k; DEL; SET k v; UNLINK k x; UNLINK; RENAME k x; SET k v PX 100000; SET x w
        RENAME k x; GET x; PTTL x; RENAME x x; RENAME k k; RENAMENX x k; SET x v; RENAMENX x k
        RENAMENX x x; RENAMENX no x; RENAME x; COPY k c; GET c; PTTL c; COPY k c; COPY k c REPLACE
        COPY no c; COPY k k; COPY k k DB 1; SELECT 1; GET k; SELECT 0; COPY k k DB 0; COPY k d DB 16
        COPY k d DB x; COPY k d FOO; COPY k d DB; COPY k d DB 1 REPLACE; COPY k]])

    case("lists with SCAN, KEYS and DBSIZE, and knows 16 databases", [[
        DBSIZE; KEYS *; SCAN 0; MSET k1 v k2 v k3 v other v; KEYS *; KEYS k*; KEYS k[12]; KEYS k[^1]
        KEYS k?; KEYS ?ther; KEYS [; KEYS k\*; KEYS *[1-2]; KEYS k[1; KEYS ''; KEYS; DBSIZE
        SCAN 0 COUNT 1000; SCAN 0 COUNT 1000 MATCH k*; SCAN 0 MATCH k1 COUNT 1000; SCAN 0 COUNT 0
        SCAN 0 COUNT x; SCAN 0 TYPE string COUNT 1000; SCAN 0 TYPE list COUNT 1000; SCAN 0 FOO
        SCAN x; SCAN 0 MATCH; SCAN; SCAN ''; SELECT 15; DBSIZE; SET k v; KEYS *; SELECT 16
        SELECT -1; SELECT x; SELECT; FLUSHDB; DBSIZE; SELECT 0; DBSIZE; FLUSHALL ASYNC; DBSIZE
        FLUSHDB SYNC; FLUSHALL x; FLUSHALL SYNC ASYNC; FLUSHDB x; DBSIZE x]])

    case("answers about the connection", [[
        PING; PING x; PING x y; ECHO x; ECHO; HELLO 2; HELLO 3; HELLO 4; HELLO x; HELLO
        HELLO 3 AUTH a; HELLO 2 AUTH default x; HELLO 3 AUTH u x; HELLO 3 SETNAME n; CLIENT GETNAME
        HELLO 3 SETNAME; HELLO 3 FOO; AUTH; AUTH p; AUTH default p; AUTH u p; AUTH a b c
        CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME ''; CLIENT GETNAME; CLIENT SETNAME ü
        CLIENT; CLIENT FOO; CLIENT ID; CLIENT ID x; CLIENT GETREDIR; CLIENT TRACKINGINFO
        CLIENT TRACKING ON; CLIENT GETREDIR; CLIENT TRACKINGINFO; CLIENT CACHING YES
        CLIENT CACHING NO; CLIENT CACHING x; CLIENT TRACKING OFF; CLIENT CACHING YES
        CLIENT TRACKING x; CLIENT TRACKING; CLIENT TRACKING ON x; CLIENT NO-EVICT ON
        CLIENT NO-EVICT x; CLIENT KILL ID 0; CLIENT KILL ID x; CLIENT KILL x
        CLIENT KILL ID 123456789; CLIENT INFO x; RESET; CLIENT GETNAME; RESET x; SELECT 3; RESET
        SET k v; SELECT 3; GET k]])

    case("answers about the server", [[
        TIME; TIME x; WAIT 0 0; WAIT x 0; WAIT 0 x; WAIT 0 -1; WAIT; CONFIG; CONFIG FOO; CONFIG GET
        CONFIG GET nothing; CONFIG SET nothing 1; CONFIG SET maxmemory; CONFIG SET maxmemory x
        CONFIG GET maxmemory; CONFIG RESETSTAT; CONFIG RESETSTAT x; COMMAND FOO; COMMAND COUNT x
        INFO nothing; SCRIPT; SCRIPT FOO; SCRIPT LOAD; SCRIPT EXISTS; SCRIPT EXISTS a b
        SCRIPT FLUSH x; SCRIPT FLUSH SYNC; SCRIPT FLUSH ASYNC x]])

    case("knows a wrong name and what an EVALSHA needs", [[
        NOSUCH; NOSUCH a b; nosuch ''; ''; EVALSHA; EVALSHA a; EVALSHA a 0; EVALSHA a x
        EVALSHA 0123456789012345678901234567890123456789 0; EVAL; EVAL x; EVAL x y; EVAL x 1
        EVAL x -1; EVALSHA 0123456789012345678901234567890123456789 x
        EVALSHA 0123456789012345678901234567890123456789 2 k
        EVALSHA 0123456789012345678901234567890123456789 -1]])

    it_compares("cuts what it repeats of an unknown command as Redis does", function()
        local long = ("x"):rep(200)
        for _, words in ipairs({
            { long, "a" }, { "n", long, "b" }, { "n", ("x"):rep(126), "b", "c" },
            { "n\r\nm", "a\r\nb" }, { "n\0m", "a\0b", "c" },
        }) do
            assert.is_nil(pair:step({ 1, words }))
        end
    end)

    it_compares("ends a connection as Redis does", function()
        for _, bytes in ipairs({
            "*x\r\n", "*1\r\n$x\r\n", "*1\r\n$-1\r\n", "*1\r\nx1\r\n", "*2147483648\r\n", "*01\r\n",
            "*1\r\n$536870913\r\n", "*1" .. ("1"):rep(70000), "*1\r\n$" .. ("1"):rep(70000),
            frame.command({ "QUIT" }), frame.command({ "QUIT", "x" }) .. frame.command({ "PING" }),
            "*0\r\n*-1\r\n*1\r\n$4\r\nPINGxx" .. frame.command({ "quit" }),
        }) do
            local heard = {}
            for i, port in ipairs({ redis.port, store.port }) do
                local line = assert(socket.connect({ port = port }, clock.scaled(5)))
                line:send(bytes)
                heard[i] = ""
                while true do
                    local more, err = line:receive(clock.scaled(5))
                    if err == "timeout" then error("not closed after " .. bytes:sub(1, 40)) end
                    if not more then break end
                    heard[i] = heard[i] .. more
                end
                line:close()
            end
            assert.equal(heard[1], heard[2], bytes:sub(1, 40))
        end
    end)

    describe("tracks", function()
        tracking("what is read, also when it is missing, until it changes", [[
            GET k; 3: SET k v; 3: SET k w; GET k; 3: DEL k; MGET a b; 3: MSET a 1 b 2; EXISTS a b
            3: DEL a b; PTTL k; 3: SET k v; TTL k; 3: APPEND k v; STRLEN k; 3: SETRANGE k 0 x
            GETRANGE k 0 1; 3: INCR n; 3: GETSET k v; TYPE k; 3: GETDEL k; TOUCH k; 3: SETNX k v
            EXPIRETIME k; 3: RENAME k l; GET l; 3: COPY l k; GET k; 3: COPY l k REPLACE]])

        tracking("commands that fail, but not when they are refused", [[
            GETRANGE k x y; 3: SET k v; GETRANGE k x; 3: SET k w; GET k k; 3: SET k x; SUBSTR k 0 z
            3: DEL k]])

        tracking("not what SET GET, GETEX and GETDEL read", [[
            SET k v NX GET; 3: SET k w; GETEX k; 3: SET k x; GETDEL k; 3: SET k y; SET k z GET
            3: DEL k]])

        tracking("changes of a ttl alone, but no command that changes nothing", [[
            SET k v; GET k; 3: PEXPIRE k 100000; GET k; 3: PERSIST k; GET k; 3: PERSIST k; 3: DEL x
            3: EXPIRE k 10 XX; 3: SETNX k w; 3: SET k w NX; 3: MSETNX k v; 3: RENAMENX k k
            3: RENAME k k; 3: SETRANGE k 0 ''; 3: GETEX k; 3: GETEX k PERSIST; 3: GETEX k EX 100
            GET k; 3: GETEX k PERSIST; GET k; 3: APPEND k ''; GET k; 3: EXPIRE k -1; GET k
            3: SET k v; 3: DEL x k]])

        tracking("own writes, behind their answer, and then no more", [[
            GET k; SET k v; SET k w; GET k; 2: GET k; INCRBY k 1; DEL k; GET k; MSET k a k b
            MGET k a; MSET a 1 k 2; GET k; GET k; RENAME k a; GET k; GET a; RENAME a k]])

        tracking("expiry, when somebody looks", [[
            SET k1 v PX 500; SET k2 v PX 500; SET k3 v PX 500; SET k4 v PX 500; SET k5 v PX 500
            MGET k1 k2 k3 k4 k5; 2: MGET k1 k2 k3 k4 k5
            wait 600
            3: PING; 3: GET k1; GET k2; 3: SET k3 w; 3: DEL k4; 3: SCAN 0 COUNT 1000; 3: GET k5
            SET k v PXAT 1; GET k; 3: GET k; 3: SET k v PXAT 1; SELECT 1; GET k; 3: GET k]])

        tracking("a flush of any database, once and for all", [[
            GET k; 2: PING; 3: SELECT 5; 3: FLUSHDB; 3: SELECT 0; 3: SET k v; GET k; FLUSHALL; GET k
            FLUSHDB; 2: SET k v; CLIENT TRACKING OFF; 3: FLUSHALL]])

        tracking("one name for all databases", [[
            GET k; 3: SELECT 1; 3: SET k v; GET k; SELECT 1; GET k; 3: DEL k; 3: DEL k; SELECT 0
            GET k; 3: SET k v]])

        tracking("while it is on, and remembers what was read before it was off", [[
            GET k; CLIENT TRACKING OFF; 3: SET k v; CLIENT TRACKING ON; 3: SET k w; GET k
            CLIENT TRACKING OFF; GET l; CLIENT TRACKING ON; 3: SET k x; 3: SET l v; GET k; RESET
            3: SET k y; HELLO 3; CLIENT TRACKING ON; 3: SET k z; GET k; 3: SET k y
            CLIENT TRACKINGINFO]])

        tracking("in silence where the protocol has no pushes", [[
            GET k; HELLO 2; 3: SET k v; GET k; 3: SET k w; GET k; HELLO 3; 3: SET k x
            3: FLUSHALL]])
    end)

    describe("runs the engine's scripts", function()
        it_compares("once it has seen them, by either name", function()
            local sha, source = scripts.shas[1], scripts.sources[1]
            local function both(...) assert.is_nil(pair:step({ 1, { ... } })) end
            both("EVALSHA", sha, "1", "k", "token", "100000", "no")
            both("SCRIPT", "EXISTS", sha, scripts.shas[2])
            both("SCRIPT", "LOAD", source)
            both("SCRIPT", "EXISTS", sha, sha:upper())
            both("EVALSHA", sha:upper(), "1", "k", "token", "100000", "no")
            both("SCRIPT", "FLUSH")
            both("EVALSHA", sha, "1", "k", "token", "100000", "no")
            both("EVAL", source, "1", "k", "token", "100000", "no")
            both("EVALSHA", sha, "1", "k", "other", "100000", "no")
        end)

        it_compares("with errors where Redis has them", function()
            pair:step({ 1, { "HELLO", "3" }, { "CLIENT", "TRACKING", "ON" } })
            for i, source in ipairs(scripts.sources) do
                assert.is_nil(pair:step({ 1, { "SCRIPT", "LOAD", source } }))
                for keys = 0, 3 do
                    for arguments = 0, 5 do
                        local words = { "EVALSHA", scripts.shas[i], tostring(keys) }
                        for k = 1, keys do words[#words + 1] = "k" .. k end
                        for a = 1, arguments do words[#words + 1] = "word" .. a end
                        local difference = pair:step({
                            1, words, { "SET", "k1", "word1" }, { "SET", "k2", "word2" }, words,
                            { "GET", "k1" }, { "DEL", "k1", "k2", "k3" },
                        })
                        assert.is_nil(difference, difference and table.concat(words, " "))
                    end
                end
            end
        end)

        it_compares("and a fence that is no number or near the end of doubles", function()
            local lock = scripts.sources[13]
            for _, fence in ipairs({ "x", "9007199254740993", "9223372036854775807", "" }) do
                assert.is_nil(pair:step({ 1, { "SET", "fence", fence },
                    { "EVAL", lock, "3", "lock", "fence", "mark", "token", "60000", "0", "60000" },
                    { "GET", "lock" }, { "DEL", "lock" } }))
            end
        end)
    end)

    describe("for commands that are made up", function()
        it_compares(("is no other than Redis (seed %d)"):format(SEED), function()
            local made = commands.new(SEED, scripts)
            pair:run(made:steps(COMMANDS, CONNECTIONS, made.command))
            assert.is_true(pair.commands >= COMMANDS)
        end)

        it_compares(("in scripts is no other than Redis (seed %d)"):format(SEED), function()
            local made = commands.new(SEED, scripts)
            pair:run(made:steps(COMMANDS, CONNECTIONS, made.script_or_command))
            assert.is_true(pair.commands >= COMMANDS)
        end)
    end)

    describe("where answers are different by nature", function()
        local client

        before_each(function() client = resp.connect(store) end)
        after_each(function() client:close() end)

        it("tells the time", function()
            local time = client:call("TIME")
            assert.is_true(math.abs(time[1] - os.time()) <= 2)
            assert.is_true(tonumber(time[2]) < 1000000)
        end)

        it("tells what it is in INFO", function()
            client:call("SET", "k", "v", "PX", "100000")
            local info = client:call("INFO")
            for _, line in ipairs({
                "# Server\r\n", "redis_version:7%.0%.%d+\r\n", "# Memory\r\n",
                "used_memory:%d+\r\n", "maxmemory:0\r\n", "# Stats\r\n", "evicted_keys:0\r\n",
                "role:master\r\n",
                "# Keyspace\r\ndb0:keys=1,expires=1,avg_ttl=0\r\n",
            }) do
                assert.truthy(info:find(line), line)
            end
            assert.truthy(client:call("INFO", "keyspace"):find("^# Keyspace\r\n"))
            assert.truthy(client:call("CLIENT", "LIST"):find("id=%d+ .* db=0 "))
        end)

        it("bounds what it keeps, and tells how in CONFIG", function()
            client:call("CONFIG", "SET", "maxmemory", "10000")
            assert.equal("10000", client:call("CONFIG", "GET", "maxmemory").maxmemory)
            for i = 1, 100 do client:call("SET", "k" .. i, ("v"):rep(100)) end
            assert.is_true(client:call("DBSIZE") < 80)
            assert.equal("v", client:call("SET", "k100", "w", "GET"):sub(1, 1))
            local _, err = client:try("SET", "k", ("v"):rep(20000))
            assert.equal("OOM command not allowed when used memory > 'maxmemory'.", err)
            client:call("CONFIG", "SET", "maxmemory", "0")
        end)
    end)

    describe("says so clearly when it has no such", function()
        local client

        before_each(function() client = resp.connect(store) end)
        after_each(function() client:close() end)

        -- It ends the connection; its answer is a push; it has others wait for EXEC.
        local LEFT_OUT = { quit = true, unsubscribe = true, punsubscribe = true, multi = true }

        it_compares("command of Redis", function()
            local missing = 0
            for _, name in ipairs(redis:call("COMMAND", "LIST")) do
                if not name:find("|", 1, true) and not LEFT_OUT[name] then
                    local _, err = client:try(name)
                    assert.is_nil(err and err:match("^ERR unknown command"), err)
                    if err and err:find("memory://", 1, true) then
                        assert.equal("ERR memory:// has no such command: give redcache.new the url"
                            .. " of a server", err)
                        missing = missing + 1
                    end
                end
            end
            assert.is_true(missing > 150)
        end)

        it_compares("second word of a command", function()
            for _, name in ipairs(redis:call("COMMAND", "LIST")) do
                local first, second = name:match("^(%w+)|(.*)$")
                if HAS_WORDS[first] then
                    local _, err = client:try(first, second)
                    assert.is_nil(err and err:match("^ERR unknown subcommand"), err)
                end
            end
        end)

        it("mode of tracking, and runs no foreign script", function()
            for _, mode in ipairs({ "BCAST", "NOLOOP", "OPTIN", "OPTOUT", "PREFIX", "REDIRECT" }) do
                local _, err = client:try("CLIENT", "TRACKING", "ON", mode)
                assert.equal(
                    "ERR the embedded store tracks in default mode only, without " .. mode, err)
            end
            local text = "ERR memory:// runs no scripts but redcache's own: give redcache.new the"
                .. " url of a server"
            local _, err = client:try("EVAL", "return 1", 0)
            assert.equal(text, err)
            _, err = client:try("SCRIPT", "LOAD", "return 1")
            assert.equal(text, err)
        end)
    end)
end)
