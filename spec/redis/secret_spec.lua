-- What was sent is never told: no error, and nothing of health, repeats a value, token or password,
-- whatever a server puts into its errors.

local fake = require("spec.support.fake")
local redcache = require("redcache")
local server = require("spec.support.server")

local VALUE, PASSWORD = "v4lue-that-is-secret", "p4ssword-that-is-secret"

-- Errors of real servers that repeat arguments, and some that only a spec has.
local TEXTS = {
    "-ERR unknown command 'X', with args beginning with: $ARGS\r\n",
    "-ERR Error running script (call to f_1): @user_script:1: $ARGS\r\n",
    "-ERR user_script:1: $ARGS script: 0123456789012345678901234567890123456789, "
        .. "on @user_script:1.\r\n",
    "-WRONGTYPE Operation against a key holding the wrong kind of value $ARGS\r\n",
    "-NOPERM User $ARGS has no permissions to run the '$ARGS' command\r\n",
    "-OOM $ARGS\r\n", "-LOADING $ARGS\r\n", "-NOAUTH $ARGS\r\n", "-READONLY $ARGS\r\n",
    "-ERR $ARGS\r\n", "-$ARGS\r\n",
}

local function made() return VALUE end

local CALLS = {
    get = function(cache) return cache:get("k") end,
    getMulti = function(cache) return select(2, cache:getMulti({ "k", "l" })) end,
    set = function(cache) return cache:set("k", VALUE, 60) end,
    setMulti = function(cache) return cache:setMulti({ k = VALUE, l = VALUE }, 60) end,
    delete = function(cache) return cache:delete("k") end,
    deleteMulti = function(cache) return cache:deleteMulti({ "k", "l" }) end,
    exists = function(cache) return cache:exists("k") end,
    ttl = function(cache) return cache:ttl("k") end,
    remember = function(cache)
        return cache:remember("k", 60, made, { strict = true, timeout = 1, waitTimeout = 1 })
    end,
    put = function(cache) return cache:put("k", 60, made) end,
    tryLock = function(cache) return cache:tryLock("job") end,
}

-- Everything that can be read in what a call gave back.
local function text_of(value, seen)
    if type(value) ~= "table" then return tostring(value) end
    seen = seen or {}
    if seen[value] then return "" end
    seen[value] = true
    local parts = { tostring(value) }
    for key, inner in pairs(value) do
        parts[#parts + 1] = tostring(key) .. "=" .. text_of(inner, seen)
    end
    return table.concat(parts, " ")
end

-- The words of what was sent that say something: no keys, no command names, no numbers.
local function secrets_of(requests)
    local list = { VALUE, PASSWORD }
    for _, words in ipairs(requests) do
        for i = 2, #words do
            local word = words[i]
            if #word >= 16 and not word:find("[kl]$") and not word:find("job", 1, true) then
                list[#list + 1] = word:gsub("%c", "?")
            end
        end
    end
    return list
end

local function assert_tells_nothing(told, secrets)
    for _, secret in ipairs(secrets) do
        assert.is_nil(told:find(secret, 1, true), told)
    end
end

describe("a server that repeats what it was sent in each error", function()
    it("does not bring it into an error or into health", function()
        local liar = fake.start()
        local failures = 0
        for _, text in ipairs(TEXTS) do
            liar:script({ ["*"] = text })
            for name, call in pairs(CALLS) do
                local cache = redcache.new({
                    url = liar:url(), near = false, codec = "raw", namespace = "s",
                    commandTimeout = 1, group = name,
                })
                local value, err = call(cache)
                if type(err) == "table" or type(value) == "table" then failures = failures + 1 end
                local told = text_of(value) .. text_of(err) .. text_of(cache:health())
                assert_tells_nothing(told, secrets_of(liar:requests()))
                cache:close()
            end
        end
        assert.is_true(failures > #TEXTS * 8, failures .. " calls have failed")
        liar:stop()
    end)

    it("does not bring the password into an error or into health", function()
        local liar = fake.start()
        for _, text in ipairs(TEXTS) do
            liar:script({ hello = text })
            local cache = redcache.new({
                url = liar:url(":" .. PASSWORD), near = false, commandTimeout = 0.5,
                connectTimeout = 0.5,
            })
            local value, err = cache:get("k")
            assert.is_nil(value)
            assert_tells_nothing(text_of(err) .. text_of(cache:health()), { PASSWORD })
            cache:close()
        end
        liar:stop()
    end)
end)

describe("Redis itself", function()
    it("without the commands that we send: the command is told, the value is not", function()
        local redis = server.start({ config = {
            'rename-command SET ""', 'rename-command EVALSHA ""', 'rename-command EVAL ""',
        } })
        local cache = redcache.new({ url = redis:url(), near = false, codec = "raw" })
        local ok, err = cache:set("k", VALUE, 60)
        assert.is_nil(ok)
        assert.equal("redis", err.code)
        assert.matches("unknown command 'set'", err.message)
        assert_tells_nothing(text_of(err) .. text_of(cache:health()), { VALUE })
        local _, failed = cache:setMulti({ k = VALUE }, 60)
        assert.matches("unknown command 'set'", failed.k.message)
        assert_tells_nothing(text_of(failed), { VALUE })
        local _, locked = cache:tryLock("job")
        assert.matches("unknown command 'eval", locked.message)
        assert.is_nil(locked.message:find("%x%x%x%x%x%x%x%x"), locked.message)
        cache:close()
        redis:stop()
    end)

    it("for want of permissions, for a wrong type, for a wrong password", function()
        local redis = server.start({
            password = "right", users = { "ann on >pw ~s:* ~lock:* +@all -set -pexpire" },
        })
        local ann = redcache.new({
            url = redis:url("ann:pw"), near = false, codec = "raw", namespace = "s",
        })
        local _, err = ann:set("k", VALUE, 60)
        assert.matches("NOPERM", err.message)
        assert.matches("'set'", err.message)
        assert_tells_nothing(text_of(err), { VALUE })
        _, err = ann:tryLock("job")
        assert.equal("redis", err.code)
        assert.is_nil(err.message:find("%x%x%x%x%x%x%x%x"), err.message)
        redis:call("RPUSH", "s:list", VALUE)
        _, err = ann:get("list")
        assert.matches("WRONGTYPE", err.message)
        assert_tells_nothing(text_of(err), { VALUE })
        ann:close()
        local wrong = redcache.new({ url = redis:url(":" .. PASSWORD), near = false })
        _, err = wrong:get("k")
        assert.matches("WRONGPASS", err.message)
        assert_tells_nothing(text_of(err) .. text_of(wrong:health()), { PASSWORD })
        wrong:close()
        redis:stop()
    end)
end)
