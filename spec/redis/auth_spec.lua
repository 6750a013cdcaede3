local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local waited = require("spec.near.waited")
local worker = require("spec.support.worker")

local RIGHTS = "~* &* +@all"

-- What users and passwords the connections of redcache have now.
local function users_of(redis)
    local users = {}
    for line in redis:client():call("CLIENT", "LIST"):gmatch("[^\n]+") do
        if line:find("name=redcache-", 1, true) then
            users[#users + 1] = line:match("user=(%S+)")
        end
    end
    return users
end

describe("the option auth", function()
    local redis, admin, cache

    before_each(function()
        redis = server.start({ users = {
            "ann on >one " .. RIGHTS, "bob on >two " .. RIGHTS, "default off",
        } })
        admin = redis:client()
    end)

    after_each(function()
        if cache then cache:close(0) end
        cache = nil
        admin:close()
        redis:stop()
    end)

    local function open(auth, more)
        local opts = { url = redis:url(), auth = auth, commandTimeout = 2 }
        for name, value in pairs(more or {}) do opts[name] = value end
        cache = redcache.new(opts)
        return cache
    end

    it("is asked before anything is sent, and once for all calls", function()
        local asked = 0
        open(function()
            asked = asked + 1
            return "ann", "one"
        end)
        assert.equal(0, asked)
        assert.is_true(cache:set("key", 1))
        assert.equal(1, (cache:get("key")))
        assert.equal(1, (cache:get("key", { near = false })))
        assert.equal(1, asked)
        assert.equal(0, tonumber(admin:call("INFO", "errorstats"):match("NOAUTH:count=(%d+)") or 0))
    end)

    it("is asked before the old ones end; open connections say so, and stay tracked", function()
        local names = { { "ann", "one", 0.6 }, { "bob", "two", 60 } }
        local asked = 0
        open(function()
            asked = asked + 1
            return unpack(names[math.min(asked, 2)])
        end, { maxStale = 600 })
        assert.is_true(cache:set("key", "old"))
        assert.equal("old", (cache:get("key")))
        local connects = cache:stats().connects
        clock.wait_until(function()
            cache:get("other", { near = false })
            local users = users_of(redis)
            return #users == 2 and users[1] == "bob" and users[2] == "bob"
        end, 5)
        assert.equal(2, asked)
        assert.equal(connects, cache:stats().connects)
        assert.not_equal("redis", (select(3, cache:get("key")))) -- its copy is still good
        admin:call("SET", "key", "foreign")
        clock.wait_until(function() return cache:get("key") == "foreign" end, 5)
        assert.equal(0, cache:stats().retries)
    end)

    it("is asked again when a server refuses them, and nobody's call fails for it", function()
        local asked = 0
        open(function()
            asked = asked + 1
            return "ann", asked < 3 and "wrong" or "one"
        end)
        assert.is_true(cache:set("key", 1))
        assert.equal(3, asked)
        -- A user that is made again has the connections closed; the new ones need the new password.
        admin:call("ACL", "DELUSER", "ann")
        admin:call("ACL", "SETUSER", "ann", "on", ">three", "~*", "&*", "+@all")
        local function later() return "ann", "three" end
        cache._client.auth = later
        clock.wait_until(function() return cache:get("key", { near = false }) == 1 end, 5)
    end)

    it("that fails is asked with a pace; calls end in time and say why", function()
        local asked = 0
        open(function()
            asked = asked + 1
            error("the vault is away", 0)
        end, { commandTimeout = 0.5 })
        local took, _, err = waited.time({ redis.pid }, cache.get, cache, "key")
        assert.equal("unavailable", err.code)
        assert.matches("the function auth has failed: the vault is away", err.message, 1, true)
        assert.is_true(took < clock.scaled(1), took)
        assert.is_true(asked >= 1 and asked <= 4, asked .. " times")
        clock.wait_until(function() -- it is asked again
            cache:get("key")
            return asked >= 2
        end, 10, "another question")
        assert.matches("the vault is away", cache:health().cause, 1, true)
        assert.equal(7, (cache:remember("key", 60, function() return 7 end)))
    end)

    it("shows nothing of what it returns", function()
        open(function() return "secret-user", { "secret-password" } end, { commandTimeout = 0.2 })
        local _, err = cache:get("key")
        assert.matches("it must return user and password, two strings", err.message, 1, true)
        cache:close(0)
        open(function() return "secret-user", "secret-password" end, { commandTimeout = 0.2 })
        local told = ""
        clock.wait_until(function()
            _, err = cache:get("key")
            told = told .. err.message .. cache:health().cause .. cache:metrics()
            return told:find("the server refuses the credentials", 1, true)
        end, 10, "the refusal")
        assert.is_nil(told:find("secret", 1, true))
    end)

    it("and authenticate want TLS to another machine, or tls = \"off\"", function()
        local function message_of(opts)
            opts.auth = function() return "ann", "one" end
            local ok, result = pcall(redcache.new, opts)
            if ok then result:close(0) end
            return ok or result
        end
        local wanted = "use rediss://, or say tls = \"off\""
        assert.matches(wanted, message_of({ url = "redis://192.0.2.1" }), 1, true)
        assert.matches(wanted, message_of({ url = "redis://redis.example" }), 1, true)
        for _, url in ipairs({ "redis://localhost", "redis://127.1.2.3", "redis://[::1]",
            "unix:///run/redis.sock", "rediss://redis.example" }) do
            assert.is_true(message_of({ url = url }))
        end
        assert.is_true(message_of({ url = "redis://192.0.2.1", tls = "off" }))
        assert.matches("the url asks for TLS",
            message_of({ url = "rediss://redis.example", tls = "off" }), 1, true)
        assert.matches("leave them out", message_of({ url = "redis://a:b@localhost" }), 1, true)
        assert.matches("no users", message_of({ url = "memory://" }), 1, true)
        -- A password in the url that never changes goes where it always went.
        cache = redcache.new({ url = "redis://ann:one@192.0.2.1" })
        local done, err = cache:authenticate("ann", "two")
        assert.is_nil(done)
        assert.equal("refused", err.code)
        assert.matches(wanted, err.message, 1, true)
    end)

    it("refuses other words for tls, and says where the certificate to trust goes", function()
        for _, value in ipairs({ true, "verify", { verify = false } }) do
            local ok, message = pcall(redcache.new, { url = "rediss://h", tls = value })
            assert.is_false(ok)
            assert.matches("verification is never switched off (see tlsCa)", message, 1, true)
        end
    end)
end)

describe("cache:authenticate", function()
    it("changes the password of a url's user on open connections", function()
        local redis = server.start({ users = { "ann on >one " .. RIGHTS } })
        local admin = redis:client()
        local cache = redcache.new({ url = redis:url("ann:one"), near = false })
        assert.is_true(cache:set("key", 1))
        admin:call("ACL", "SETUSER", "ann", "resetpass", ">two")
        assert.is_true(cache:authenticate("ann", "two"))
        assert.equal(1, (cache:get("key")))
        assert.equal(1, cache:stats().connects)
        admin:call("CLIENT", "KILL", "USER", "ann") -- the next connection says the new one
        assert.equal(1, (cache:get("key")))
        assert.has_error(function() cache:authenticate("bob", "two") end)
        assert.has_error(function() cache:authenticate("ann", "") end)
        assert.has_error(function() cache:authenticate("ann", "two", 0) end)
        cache:close(0)
        assert.equal("closed", select(2, cache:authenticate("ann", "two")).code)
        admin:close()
        redis:stop()
    end)

    it("lets a client in that was refused", function()
        local redis = server.start({ users = { "ann on >one " .. RIGHTS } })
        local cache = redcache.new({ url = redis:url("ann:old"), commandTimeout = 10 })
        local _, err = cache:get("key")
        assert.matches("WRONGPASS", err.message, 1, true)
        assert.is_true(cache:authenticate("ann", "one"))
        assert.is_true(cache:set("key", 1))
        cache:close(0)
        redis:stop()
    end)
end)

-- REDCACHE_AUTH_SECONDS=60 makes it longer.
describe("credentials that change every 3 seconds", function()
    local SECONDS = tonumber(os.getenv("REDCACHE_AUTH_SECONDS")) or 12
    local EVERY, OVERLAP, IDLE, SLACK = 3, 2, 10, 60
    local USE = [[
        content_by_lua_block {
            local cache = package.loaded.auth_cache
            if not cache then
                cache = require("redcache").new({ url = "%s", driver = "%s", commandTimeout = 5,
                    group = "%s", auth = function()
                        ngx.sleep(0.01) -- as one that asks a vault
                        local file = assert(io.open("%s"))
                        local user, password, ends = file:read("*l", "*l", "*n")
                        file:close()
                        return user, password, ends - require("spec.support.clock").now()
                    end })
                package.loaded.auth_cache = cache
            end
            local value, err = cache:get("key1", { near = false })
            ngx.print(value or err.message)
        }
    ]]

    local function is_any_alive(workers)
        for _, each in ipairs(workers) do
            if each.process:is_alive() then return true end
        end
        return false
    end

    it("fail no call, under any scheduler, also where nobody calls for 10 s", function()
        local redis = server.start({ users = { "default off" } })
        local admin = redis:client()
        for i = 0, 6 do
            admin:call("SET", "key" .. i, "v")
        end
        admin:call("ACL", "SETUSER", "vault", "on", ">vault", "+acl", "+client")
        local file = temp.dir() .. "/credentials"
        local vault = worker.start({ file = "spec/support/auth_vault.lua", params = {
            path = redis.path, user = "vault", password = "vault", file = file, every = EVERY,
            overlap = OVERLAP, kill = 2,
        } })
        vault:event("changed")
        local begins = clock.now()
        local workers, webs, asked_nginx, failures = {}, {}, 0, {}
        for _, scheduler in ipairs({ "blocking", "coroutine", "luv", "cqueues", "copas" }) do
            for _, idle in ipairs({ false, IDLE }) do
                workers[#workers + 1] = worker.start({ file = "spec/support/auth_worker.lua",
                    params = { file = file, seconds = SECONDS, idle = idle or nil,
                        options = { url = redis:url(), scheduler = scheduler,
                            commandTimeout = 5 } } })
            end
        end
        local locations = {}
        if nginx.is_possible() then
            for _, driver in ipairs({ "loop", "thread" }) do
                locations["/" .. driver] = USE:format(redis:url(), driver, driver, file)
                    :gsub("auth_cache", "auth_" .. driver)
            end
            webs[1] = nginx.start({ locations = locations })
        end

        repeat
            for path in pairs(locations) do
                local _, body = webs[1]:get(path)
                asked_nginx = asked_nginx + 1
                if body ~= "v" then failures[#failures + 1] = path .. ": " .. tostring(body) end
            end
            clock.sleep(0.02)
        until not is_any_alive(workers) or clock.now() - begins > SECONDS + SLACK

        local calls = 0
        for _, each in ipairs(workers) do
            local tally = each:join(SLACK)
            calls = calls + tally.calls
            assert.is_true(tally.asked >= 2, tally.asked .. " times")
            for _, failure in ipairs(tally.failures) do failures[#failures + 1] = failure end
        end
        if webs[1] then webs[1]:stop() end
        vault:send({ stop = true })
        local told = vault:join(SLACK)
        admin:close()
        redis:stop()
        local figures = ("%d changes, %d calls, %d in nginx, a change came %.1f s too late")
            :format(told.changes, calls, asked_nginx, told.late)
        assert.equal(0, #failures, figures .. "; " .. table.concat(failures, "\n", 1,
            math.min(#failures, 5)))
        assert.is_true(told.changes >= SECONDS / EVERY and calls > 1000, figures)
    end)
end)
