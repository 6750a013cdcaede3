-- A client of a real set that sentinels watch: it finds the master from any of them, follows it,
-- and serves nothing near that a majority does not vouch for.
--
-- Env: REDCACHE_SERVER, as everywhere. REDCACHE_SENTINEL_FAILOVERS: of each kind under load (1).
-- REDCACHE_VERBOSE: prints what was measured.

local clock = require("spec.support.clock")
local failovers = require("spec.cluster.sentinel_failovers")
local nginx = require("spec.support.nginx")
local proxy = require("spec.support.proxy")
local redcache = require("redcache")
local sentinel = require("spec.support.sentinel")
local server = require("spec.support.server")

local FAILOVERS = tonumber(os.getenv("REDCACHE_SENTINEL_FAILOVERS")) or 1
local SLACK = failovers.SLACK

local bed, caches

setup(function() bed = sentinel.start() end)
teardown(function() bed:stop() end)
before_each(function() caches = {} end)
after_each(function()
    for _, cache in ipairs(caches) do cache:close() end
end)

local function open(options)
    options = options or {}
    options.url = options.url or bed:url()
    options.codec, options.plain, options.commandTimeout = "raw", true, 2
    caches[#caches + 1] = redcache.new(options)
    return caches[#caches]
end

-- Whichever is the master once all are of one mind: on a busy machine sentinels choose again at
-- times.
local function settled() return bed:wait_settled() end

local function say(...)
    if os.getenv("REDCACHE_VERBOSE") then io.stderr:write(string.format(...), "\n") end
end

local function url_of(sentinels)
    local hosts = {}
    for i, one in ipairs(sentinels) do hosts[i] = "127.0.0.1:" .. one.port end
    return ("redis+sentinel://%s/%s"):format(table.concat(hosts, ","), sentinel.NAME)
end

describe("a client of a set", function()
    it("finds the master through any one sentinel, and through all", function()
        local master = settled()
        for i = 1, #bed.sentinels do
            local cache = open({ url = url_of({ bed.sentinels[i] }), group = "one" .. i })
            assert(cache:set("found", "by" .. i, 60))
            assert.equal("by" .. i, master:call("GET", "found"))
        end
        local cache = open()
        assert(cache:set("found", "by all", 60))
        local health = cache:health()
        assert.is_true(health.ready, health.cause)
        assert.equal(("127.0.0.1:%d/0"):format(master.port), health.address)
    end)

    it("is told what is wrong with a name, a login, and a server that is no sentinel", function()
        local master = settled()
        local cache = open({ url = (bed:url():gsub("/mymaster", "/another")) })
        local _, err = cache:get("k")
        assert.equal(redcache.errors.redis, err.code)
        assert.matches("the sentinels know no master 'another'", err.message)
        cache = open({ sentinelUser = "nobody", sentinelPassword = "secret" })
        clock.wait_until(function()
            _, err = cache:get("k")
            return err.code == redcache.errors.redis
        end, 5, "the refusal")
        assert.matches("3 of 3 sentinels refuse us, as '127.0.0.1:%d+': WRONGPASS", err.message)
        assert.is_nil(err.message:find("secret", 1, true))
        assert.is_nil(cache:health().cause:find("secret", 1, true))
        cache = open({ url = url_of({ master }) })
        clock.wait_until(function()
            _, err = cache:get("k")
            return err.code == redcache.errors.redis
        end, 5, "the refusal")
        assert.matches("this is no sentinel", err.message)
    end)

    it("needs few rights at the sentinels, and goes without news where it may not hear", function()
        local RIGHTS = { "on", ">secret", "-@all", "+sentinel|get-master-addr-by-name", "+ping" }
        for i, one in ipairs(bed.sentinels) do
            one:call("ACL", "SETUSER", "watcher", unpack(RIGHTS))
            if i > 1 then
                one:call("ACL", "SETUSER", "watcher", "+subscribe", "resetchannels",
                    "&+switch-master")
            end
        end
        local cache = open({ sentinelUser = "watcher", sentinelPassword = "secret" })
        assert(cache:set("k", "v", 60))
        clock.wait_until(function()
            local answers = 0
            for _, one in ipairs(bed.sentinels) do
                for line in one:call("CLIENT", "LIST"):gmatch("[^\n]+") do
                    if line:find("name=redcache-S", 1, true) and line:find("user=watcher", 1, true)
                    then answers = answers + 1 end
                end
            end
            return answers == #bed.sentinels
        end, 5, "all three")
    end)
end)

describe("readers and writers of a set", function()
    it("live through failovers, and the master's death and standstill", function()
        local KINDS = { "planned", "killed", "paused" }
        local events, all = failovers.run(bed, KINDS, FAILOVERS)
        for _, kind in ipairs(KINDS) do say("%s", failovers.report(kind, events)) end
        say("%s", failovers.summary(all))
        assert.is_nil(all.problem)
        for _, event in ipairs(events) do
            assert.is_nil(failovers.judge(event), event.kind)
        end
        assert.is_true(all.near > 1000, "near copies were read")
        assert.is_true(all.locks > 10 and all.loads > 10, "locks and leases were taken")
    end)
end)

describe("near copies of a set", function()
    local cache

    -- The old master goes on for seconds, and the reader's connections to it stand.
    it("rest where a failover is kept from their reader", function()
        local proxies = {}
        for i, one in ipairs(bed.sentinels) do proxies[i] = proxy.start({ port = one.port }) end
        settled()
        local load = failovers.load(bed, url_of(proxies), { "writer", "reader" })
        clock.sleep(0.5)
        for i = 1, 2 do proxies[i]:stall("both") end
        bed:failover()
        clock.sleep(1.8)
        for i = 1, 2 do proxies[i]:flow() end
        clock.sleep(1)
        local results = load:stop()
        for _, one in ipairs(proxies) do one:stop() end
        local near = failovers.largest_lag(results.writer, results.reader.runs, 3)
        local all = failovers.largest_lag(results.writer, results.reader.runs, 2)
        say("kept from the reader: near hits behind by %.3f s at most, reads of Redis by %.3f s",
            near, all)
        assert.is_true(near <= 1 + clock.scaled(SLACK), ("near, behind by %.3f s"):format(near))
        settled()
    end)

    -- Reads the key for so long; how many reads were near hits since `from` seconds.
    local function read_for(seconds, from)
        local began, near, other = clock.now(), 0, 0
        repeat
            local value, err, source = cache:get("near")
            assert.equal("v", value, err and err.message)
            if clock.now() - began >= from then
                if source == "redis" then other = other + 1 else near = near + 1 end
            end
            clock.sleep(0.001)
        until clock.now() - began >= seconds
        return near, other
    end

    it("stay with one sentinel of three down, and rest where two are", function()
        local master = settled()
        master:call("SET", "near", "v")
        cache = open({ maxStale = 1 })
        read_for(0.3, 0)
        bed:kill(bed.sentinels[1])
        local near, other = read_for(1.5, 0)
        assert.is_true(near > 0 and other <= 5, near .. " near, " .. other .. " others")
        local lock = cache:lock("job", { ttl = 2 })
        assert(lock:acquire())
        bed:kill(bed.sentinels[2])
        near = read_for(1.5, 1 + SLACK)
        assert.equal(0, near)
        local health = cache:health()
        assert.is_true(health.ready)
        assert.is_false(health.tracking)
        assert.matches("1 of 3 sentinels answer, and 2 have to", health.cause)
        assert(cache:set("other", "v", 60))
        -- Nobody else says that this is the master: nothing is granted, and what was is lost.
        local _, err = cache:withLock("another", { wait = 0 }, function() return 1 end)
        assert.equal(redcache.errors.unavailable, err.code)
        assert.matches("1 of 3 sentinels answer", err.message)
        _, err = cache:remember("loaded", 60, function() return "v" end, { strict = true })
        assert.equal(redcache.errors.unavailable, err.code)
        clock.wait_until(function() return not lock:valid() end, 2, "the loss of the lock")
        bed:restart(bed.sentinels[1])
        bed:restart(bed.sentinels[2])
        clock.wait_until(function() return cache:health().tracking end, 10, "the sentinels' word")
        -- How many reads there are is the machine's affair.
        near, other = read_for(0.5, 0.3)
        assert.is_true(near > 0 and other <= 5, near .. " near, " .. other .. " others")
        assert.equal(1, (cache:withLock("job", { wait = 0 }, function() return 1 end)))
        settled()
    end)
end)

describe("a delete that the master's death has lost", function()
    it("is done again at the next one", function()
        local master = settled()
        local cache = redcache.new({ url = bed:url(), near = false, commandTimeout = 10 })
        caches[#caches + 1] = cache
        for _, key in ipairs({ "read", "late", "foreign" }) do assert(cache:set(key, "old", 60)) end
        clock.wait_until(function()
            return master:call("WAIT", #bed.nodes - 1, 1000) == #bed.nodes - 1
        end, 10, "the replicas")
        master:refuse_replicas(server.USER)
        master:call("CLIENT", "KILL", "TYPE", "replica")
        assert.is_true((cache:delete("read")))
        assert.equal(1, master:call("DEL", "foreign")) -- nobody does this one again
        bed:kill(master)
        assert.is_true((cache:delete("late"))) -- what nobody can have done yet goes there itself
        local new = bed:master()
        assert.are_not.equal(master, new)
        clock.wait_until(function() return new:call("EXISTS", "read", "late") == 0 end, 5,
            "the deletes at the new master")
        assert.equal(1, new:call("EXISTS", "foreign"))
        assert.equal(0, cache:stats().deletesLost)
        bed:restart(master)
        settled()
    end)
end)

describe("workers of nginx", function()
    local possible, reason = nginx.is_possible()
    local check = possible and it or pending

    check("follow the master, and end with a reload" .. (reason or ""), function()
        settled()
        local one = nginx.start({
            workers = 2,
            init = ([[cache = require("redcache").init({ url = "%s", codec = "raw" })]])
                :format(bed:url()),
            locations = {
                ["/set"] = [[content_by_lua_block {
                    local ok, err = cache:set("n", ngx.var.arg_v, 60)
                    ngx.say(ok and "stored" or err.code)
                }]],
                ["/get"] = [[content_by_lua_block {
                    local value, err = cache:get("n")
                    ngx.say(value or err and tostring(err) or "none")
                }]],
            },
        })
        finally(function() one:stop() end)
        local _, body = one:get("/set?v=before")
        assert.equal("stored\n", body)
        _, body = one:get("/get")
        assert.equal("before\n", body)
        local new = bed:failover()
        -- What the old master takes before a majority's word is heard is lost with it.
        clock.wait_until(function()
            local _, said = one:get("/set?v=after")
            return said == "stored\n" and tostring(new:call("GET", "n")):find("after$")
        end, 10, "a write at the new master")
        for _ = 1, 20 do
            _, body = one:get("/get")
            assert.equal("after\n", body)
        end
        one:reload()
        clock.wait_until(function() return #one:old_workers() == 0 end, 10, "the old workers' end")
        _, body = one:get("/get")
        assert.equal("after\n", body)
        assert.same({}, one:complaints())
        settled()
    end)
end)
