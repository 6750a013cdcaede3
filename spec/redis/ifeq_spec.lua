-- The end of a lease by one command, where the server compares by itself (engine/ifeq.h): the same
-- outcomes as by scripts, and scripts where the server only says that it can.
--
-- Env: REDCACHE_SERVER: which server (Redis 7.0 has no such commands, Valkey 9.1 has all).

local clock = require("spec.support.clock")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local server = require("spec.support.server")

local LEASE_TTL = 30
local redis, line, cache, can

-- Whether the server knows these words: asked by sending them.
local function knows(...)
    return (pcall(redis.call, redis, ...))
end

setup(function()
    redis = server.start()
    can = {
        set = knows("SET", "probe", "v", "IFEQ", "other"),
        delete = knows("DELIFEQ", "probe", "other") or knows("DELEX", "probe", "IFEQ", "other"),
    }
end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    line = proxy.start(redis)
end)
after_each(function()
    if cache then cache:close() end
    cache = nil
    line:stop()
end)

local function hello(name, version)
    local words = { "%7\r\n" }
    for _, word in ipairs({ "server", name, "version", version }) do
        words[#words + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
    end
    return table.concat(words) .. "$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n"
        .. "$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        .. "$7\r\nmodules\r\n*0\r\n"
end

-- A cache of that server, or of one that says it is another; with its misses likely.
local function open(name, version, opts)
    if name then
        line:rule({ command = "hello", reply = hello(name, version), execute = true })
    end
    local all = { url = line:url(), near = false, leaseTtl = LEASE_TTL, commandTimeout = 10 }
    for option, value in pairs(opts or {}) do all[option] = value end
    cache = redcache.new(all)
    for i = 1, 30 do cache:remember("warm" .. i, 60, function() return i end) end
    return cache
end

local function calls(...)
    local stats, sum = redis:commandstats(), 0
    for _, name in ipairs({ ... }) do sum = sum + (stats[name] and stats[name].calls or 0) end
    return sum
end

-- What fn has cost the server in scripts.
local function scripts_of(fn)
    local before = calls("eval", "evalsha")
    fn()
    return calls("eval", "evalsha") - before
end

local function report(value, err, source, flag)
    return { value = value, err = err and err.code, source = source, flag = flag }
end

-- Every end of a lease, and what is told and left behind.
local function outcomes()
    local out = {}
    local function note(name, key, ...)
        local left = redis:call("PTTL", key)
        out[name] = { told = report(...), stands = redis:call("EXISTS", key),
            lives = type(left) == "number" and math.ceil(left / 10000) or "unknown" }
    end
    local function remember(key, ttl, loader)
        return cache:remember(key, ttl, loader)
    end
    note("stored", "stored", remember("stored", 50, function() return { 1, "two" } end))
    note("again", "stored", remember("stored", 50, function() return "other" end))
    note("for ever", "ever", remember("ever", redcache.FOREVER, function() return "v" end))
    note("empty", "empty", remember("empty", 50, function() return nil end))
    note("binary", "binary", remember("binary", 50, function() return "\0\r\n$1\r\n\255" end))
    note("large", "large", remember("large", 50, function() return ("v"):rep(300000) end))
    note("deleted meanwhile", "deleted", remember("deleted", 50, function()
        redis:call("DEL", "deleted")
        return "mine"
    end))
    note("written meanwhile", "written", remember("written", 50, function()
        redis:call("SET", "written", "theirs", "PX", 45000)
        return "mine"
    end))
    note("of another type", "typed", remember("typed", 50, function()
        redis:call("DEL", "typed")
        redis:call("RPUSH", "typed", "theirs")
        return "mine"
    end))
    note("failed", "failed", remember("failed", 50, function() error("no data") end))
    note("not to be stored", "not", remember("not", 50, function() return "mine", 0 end))
    return out
end

describe("the end of a lease", function()
    it("has the same outcomes by commands as by scripts", function()
        open()
        local straight = outcomes()
        cache:close()
        line:clear()
        redis:call("FLUSHALL")
        open("redis", "7.0.15")
        assert.same(straight, outcomes())
        assert.same({ value = "theirs", source = "redis" }, straight["written meanwhile"].told)
        assert.equal("unstored", straight["deleted meanwhile"].told.flag)
        assert.equal(0, straight["deleted meanwhile"].stands)
    end)

    it("takes no script where the server compares by itself, and one where it does not", function()
        open()
        local function miss(i) return function()
            local _, _, source, flag = cache:remember("key" .. i, 60, function() return "v" end)
            assert.same({ "loader" }, { source, flag })
        end end
        assert.equal(can.set and 0 or 10, scripts_of(function()
            for i = 1, 10 do miss(i)() end
        end))
        local function drop(i)
            cache:remember("gone" .. i, 60, function() return i, 0 end)
            assert.equal(0, redis:call("EXISTS", "gone" .. i))
        end
        assert.equal(can.delete and 0 or 10, scripts_of(function()
            for i = 1, 10 do drop(i) end
        end))
    end)

    it("is renewed by the same means, for as long as the loader runs", function()
        open(nil, nil, { leaseTtl = 1 })
        local beats = cache:stats().heartbeats
        local scripts = scripts_of(function()
            cache:remember("long", 60, function()
                clock.wait_until(function() return cache:stats().heartbeats >= beats + 3 end, 20)
                assert.is_true(redis:call("PTTL", "long") > 0)
                return "v"
            end)
        end)
        assert.equal("v", (cache:get("long")))
        if can.set then assert.equal(0, scripts) else assert.is_true(scripts > 3) end
    end)

    it("takes scripts behind one try where a server says of itself what is not so", function()
        line:rule({ command = "delifeq", reply = "-ERR unknown command\r\n" })
        line:rule({ command = "set", argument = "IFEQ", reply = "-ERR syntax error\r\n" })
        open("valkey", "9.1.0")
        local lied = outcomes()
        local counts = line:measure(function()
            for i = 1, 5 do
                local _, _, source, flag =
                    cache:remember("key" .. i, 60, function() return "v" end)
                assert.same({ "loader" }, { source, flag })
                cache:remember("gone" .. i, 60, function() return i, 0 end)
            end
        end)
        assert.is_nil(counts.commands.delifeq)
        assert.equal(10, counts.commands.evalsha)
        cache:close()
        line:clear()
        redis:call("FLUSHALL")
        open()
        assert.same(outcomes(), lied)
    end)

    it("survives a proxy that closes the connection for a command it does not know", function()
        line:rule({ command = "set", argument = "IFEQ", cut = "before" })
        open("valkey", "9.1.0")
        local value, err, source, flag = cache:remember("k", 60, function() return "v" end)
        assert.same({ value = "v", source = "loader" }, report(value, err, source, flag))
        assert.equal("v", (cache:get("k")))
    end)

    it("is known although the answer was lost: the value stands, or another one does", function()
        open()
        for _, cut in ipairs({ "before", "after" }) do
            line:rule({ command = "set", argument = "IFEQ", cut = cut, times = 1 })
            line:rule({ command = "evalsha", cut = cut, times = 1 })
            local value, err, source, flag =
                cache:remember(cut, 60, function() return "v" end)
            assert.same({ value = "v", source = "loader" }, report(value, err, source, flag))
            assert.equal("v", (cache:get(cut)))
            line:clear()
        end
    end)

    it("takes scripts for a user who may not run the command", function()
        if not can.delete then return pending("this server has no such command") end
        local words = { "ACL", "SETUSER", "ann", "reset", "on", ">one", "~*", "+@all", "-delifeq" }
        if not knows("DELIFEQ", "probe", "other") then words[#words] = "-delex" end
        assert.equal("OK", redis:call(unpack(words)))
        open(nil, nil, { url = line:url("ann:one") })
        cache:remember("gone", 60, function() return "v", 0 end)
        assert.equal(0, redis:call("EXISTS", "gone"))
        assert.equal(3, scripts_of(function()
            for i = 1, 3 do
                cache:remember("gone" .. i, 60, function() return i, 0 end)
                assert.equal(0, redis:call("EXISTS", "gone" .. i))
            end
        end))
    end)
end)
