-- cache:redis() beyond what its cases (spec/support/cases: raw, transactions, subscriptions)
-- promise everywhere: every type of RESP3, and what is sent.

local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")

local NULL = redcache.NULL

local redis, caches

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:reset()
    caches = {}
end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    local all = { url = redis:url(), near = false, commandTimeout = clock.scaled(2) }
    for name, value in pairs(options or {}) do all[name] = value end
    caches[#caches + 1] = redcache.new(all)
    return caches[#caches]
end

describe("the answers' types", function()
    it("are those of the table in docs/api/redis.md", function()
        local raw = open():redis()
        local function eval(source) return raw:command("EVAL", source, 0) end
        assert(raw:command("HSET", "h", "a", 1, "b", 2))
        assert(raw:command("SADD", "s", "one"))
        assert(raw:command("ZADD", "z", "1.5", "m", "inf", "n", "-inf", "o"))
        assert.same({ a = "1", b = "2" }, raw:command("HGETALL", "h"))
        assert.same({ "one" }, raw:command("SMEMBERS", "s"))
        assert.equal(1.5, raw:command("ZSCORE", "z", "m"))
        assert.equal(math.huge, raw:command("ZSCORE", "z", "n"))
        assert.equal(-math.huge, raw:command("ZSCORE", "z", "o"))
        assert.equal("OK", raw:command("SET", "k", ""))
        assert.equal("", raw:command("GET", "k"))
        assert.matches("^# Server", raw:command("INFO", "server")) -- verbatim
        assert.is_true(eval("redis.setresp(3) return true"))
        assert.is_false(eval("redis.setresp(3) return false"))
        assert.equal("12345678901234567890123",
            eval("return {big_number='12345678901234567890123'}"))
        local list = eval("return {1, false, {'a', {2}}, 9007199254740991}")
        assert.equal(NULL, list[2])
        assert.same({ 1, { "a", { 2 } }, 2 ^ 53 - 1 }, { list[1], list[3], list[4] })
        assert.same({ x = true }, eval("redis.setresp(3) return {map={x=true}}"))
        assert.same({ {}, {} }, { eval("return {}"), raw:command("HGETALL", "none") })
        local value, err = eval("return redis.error_reply('MYERR the secret')")
        assert.is_nil(value)
        assert.equal("redis", err.code)
        assert.not_matches("secret", err.message)
    end)

    it("go back as they came", function()
        assert.equal("userdata", type(NULL))
        assert.equal(NULL, require("cjson").null)
    end)
end)

describe("a pipeline", function()
    it("is one write, and one read by its server", function()
        local cache = open()
        local raw = cache:redis()
        raw:command("PING")
        local counts = redis:count(function()
            raw:pipeline(function(p)
                for i = 1, 50 do p:command("SET", "k" .. i, i) end
            end)
        end)
        assert.same({ set = 50 }, counts)
    end)

    it("of commands that only read is sent again where its connection breaks", function()
        local cache = open()
        local raw = cache:redis({ timeout = clock.scaled(5) })
        raw:command("SET", "k", "v")
        local before = cache:stats().retries
        redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert.same({ "v", "v" }, (raw:pipeline(function(p)
            p:command("GET", "k")
            p:command("GET", "k")
        end)))
        assert.is_true(cache:stats().retries >= before)
    end)
end)
