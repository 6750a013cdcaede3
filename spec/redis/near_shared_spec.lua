-- One region, several processes: by name, or inherited by fork().

local clock = require("spec.support.clock")
local herd = require("spec.support.herd")
local monitor = require("spec.support.monitor")
local peer = require("spec.support.peer")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local proxy = require("spec.support.proxy")
local reads = require("spec.near.reads")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local is_near, source, warm = reads.is_near, reads.source, reads.warm

local BYTES = 1024 * 1024
-- maxStale where the question is another: a busy machine must not make a copy too old.
local CALM = 60
-- And so long it may take to answer.
local PATIENCE = 10
-- Where Linux keeps shared memory that has a name.
local SHARED_MEMORY = "/dev/shm/redcache-"

local redis, region
local regions, opened = 0, nil

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)

before_each(function()
    redis:call("FLUSHALL")
    regions = regions + 1
    region = ("spec-%d.%d"):format(posix.C.getpid(), regions)
    opened = {}
end)
after_each(function()
    for _, cache in ipairs(opened) do cache:close() end
    os.remove(SHARED_MEMORY .. region)
end)

local function near(more)
    local options = { shared = region, bytes = BYTES }
    for name, value in pairs(more or {}) do options[name] = value end
    return options
end

local function open(options)
    options = options or {}
    options.url, options.near = options.url or redis:url(), options.near or near()
    options.maxStale = options.maxStale or CALM
    options.commandTimeout = options.commandTimeout or PATIENCE
    opened[#opened + 1] = redcache.new(options)
    return opened[#opened]
end

local function start_peer(more)
    return peer.start({ url = redis:url(), near = near(more), maxStale = CALM })
end

local function get(mine, params) return mine:get(params.key or "k") end
local function set(mine, params) return mine:set(params.key or "k", params.value) end

describe("a region with a name", function()
    it("is filled by one process and read by the others", function()
        local cache, other = open(), start_peer()
        other:run(get, { key = "connect" })
        cache:set("k", "v")
        warm(cache, "k")
        local counts = monitor.wire(redis, function()
            local result = other:run(get)
            assert.same({ "v", "near" }, { result.value, result.source })
            assert.equal("l0", other:run(get).source)
        end)
        assert.is_nil(counts.get)
        cache:close()
        other:stop()
    end)

    it("shows a write of one process to all when it returns (71, G4)", function()
        local cache, one, two = open(), start_peer(), start_peer({ l0 = false })
        for i = 1, 60 do
            one:run(set, { value = i })
            for _ = 1, 2 do
                assert.same({ i, i, i },
                    { (cache:get("k")), one:run(get).value, two:run(get).value })
            end
            two:run(function(mine) return mine:delete("k") end)
            assert.is_nil((cache:get("k")))
            assert.is_nil(one:run(get).value)
            cache:setMulti({ k = -i })
            assert.same({ -i, -i }, { one:run(get).value, two:run(get).value })
        end
        cache:close()
        one:stop()
        two:stop()
    end)

    it("keeps no answer that was under way when another process wrote", function()
        -- No push would put it right later: the server does not know that it should tell anybody.
        local line = proxy.start(redis)
        line:rule({ command = "client|tracking", reply = "+OK\r\n" })
        local cache = open({ url = line:url() })
        local reader = peer.start({
            url = line:url(), near = near(), maxStale = CALM, namespace = "n",
        })
        local sub = cache:namespace("n")
        source(sub, "connect")
        for _, write in ipairs({
            function() return sub:set("k", "new") end,
            function() return (sub:setMulti({ k = "new" })) end,
            function() return cache:set("n:k", "new") end,
        }) do
            sub:set("k", "old")
            reader:run(get, { key = "connect" })
            local before = redis:commandstats().get.calls
            line:stall("down", "tracking")
            reader:begin(get)
            clock.wait_until(function() return redis:commandstats().get.calls > before end, 5)
            assert(write())
            line:flow()
            assert.equal("old", reader:finish().value)
            for _ = 1, 2 do
                assert.equal("new", reader:run(get).value)
                assert.equal("new", (sub:get("k")))
            end
        end
        reader:stop()
        line:stop()
    end)

    it("is of mode 0600 and goes on without the process that made it", function()
        local maker = start_peer()
        maker:run(set, { value = "v" })
        maker:run(get)
        local listing = process.run({ "stat", "-c", "%a %s", SHARED_MEMORY .. region })
        assert.equal(0, listing.exit, listing.err)
        local mode, size = listing.out:match("^(%d+) (%d+)")
        assert.equal("600", mode)
        assert.is_true(tonumber(size) <= BYTES)
        local cache = open({ maxStale = 1 })
        warm(cache, "k")
        maker:kill()
        -- What it has read is as good as it was for a second; then it is read again.
        local ends = clock.now() + 2.5
        repeat assert.equal("v", (cache:get("k"))) until clock.now() > ends
        assert.equal("v", warm(cache, "k"))
        redis:call("SET", "k", "w")
        reads.until_value(cache, "k", "w", 1)
        local after = start_peer()
        assert.equal("w", after:run(get).value)
        assert.is_true(is_near(after:run(get).source))
        after:stop()
        cache:close()
    end)

    it("serves what a process read that is gone only as long as it is known right", function()
        local gone, cache = start_peer(), open({ maxStale = 0.3 })
        source(cache, "connect")
        for round = 1, 5 do
            if round > 1 then gone = start_peer() end
            gone:run(set, { value = "old" })
            gone:run(get)
            assert.equal("old", (cache:get("k")))
            gone:kill()
            -- The process that was told of changes is no more.
            redis:call("SET", "k", "new")
            local changed = clock.now()
            local began
            repeat
                began = clock.now()
                local value = cache:get("k")
                assert.is_true(value == "new" or began - changed < 0.3 + clock.scaled(0.05),
                    ("old after %g s"):format(began - changed))
            until began - changed > 0.5
            assert.equal("new", (cache:get("k")))
        end
        cache:close()
    end)

    local function expect_refused(options, word)
        local ok, err = pcall(open, options)
        assert.is_false(ok)
        assert.matches("near", tostring(err), 1, true)
        assert.matches(word, tostring(err), 1, true)
    end

    it("is refused when it is of another size, or another server's", function()
        local cache = open()
        assert(cache:set("k", "v"))
        warm(cache, "k")
        expect_refused({ group = "size", near = near({ bytes = 2 * BYTES }) }, "size")
        expect_refused({ group = "size", near = near({ bytes = 65536 }) }, "size")
        expect_refused({ group = "db", url = redis:url() .. "/1" }, "server")
        expect_refused({ group = "port", url = "redis://127.0.0.1:1" }, "server")
        -- Nobody was harmed.
        assert.is_true(is_near(source(cache, "k")))
        local again = open({ group = "again" })
        assert.equal("v", (again:get("k")))
        again:close()
        cache:close()
        os.remove(SHARED_MEMORY .. region)
        open({ url = redis:unix_url() }):close()
        expect_refused({ url = redis:unix_url() .. "?db=1" }, "server")
    end)

    it("has a slot per owner alive over the pid namespaces of containers (G2)", function()
        local apart = { "unshare", "--pid", "--fork", "--kill-child", "--mount-proc" }
        local probe = { unpack(apart) }
        probe[#probe + 1] = "true"
        if process.run(probe).exit ~= 0 then
            pending("this process may make no pid namespaces (unshare)")
            return
        end
        local options = { url = redis:url(), near = near({ l0 = false }), maxStale = 1 }
        redis:call("SET", "k", "old")
        redis:call("SET", "other", "x")
        local outside = peer.start(options)
        local function warm_by(one)
            clock.wait_until(function() return one:run(get).source == "near" end, 5)
        end
        warm_by(outside)
        local inside = peer.start(options, apart)
        inside:run(get, { key = "other" })
        warm_by(outside)
        warm_by(inside) -- what the other one has read
        outside.worker:signal(posix.SIGSTOP)
        redis:call("SET", "k", "new")
        -- The one that goes on vouches for its own copies only.
        clock.wait_until(function()
            inside:run(get, { key = "other" })
            return inside:run(get).value == "new"
        end, 4, "a copy older than maxStale to go")
        outside.worker:signal(posix.SIGCONT)
        warm_by(inside)
        inside:kill() -- and its slot goes to the next one, who does not know its number
        local third = peer.start(options)
        third:run(get, { key = "other" })
        redis:call("SET", "k", "newest")
        clock.wait_until(function()
            third:run(get, { key = "other" })
            return third:run(get).value == "newest"
        end, 4, "a copy older than maxStale to go")
        third:stop()
        outside:stop()
    end)

    it("is refused to another user of Redis, whatever the way it is reached by", function()
        local acl = server.start({ users = {
            "alice on >a ~* &* +@all", "bob on >b ~pub:* &* +@all",
        } })
        local alice = open({ url = acl:url("alice:a") })
        alice:set("k", "secret")
        warm(alice, "k")
        expect_refused({ url = acl:url("bob:b") }, "another user of Redis")
        expect_refused({ url = acl:url() }, "a name of its own")
        -- With a region of their own they are told by Redis.
        local bob = open({ url = acl:url("bob:b"), near = {} })
        local value, err = bob:get("k")
        assert.is_nil(value)
        assert.matches("NOPERM", tostring(err), 1, true)
        bob:close()
        alice:close()
        os.remove(SHARED_MEMORY .. region)
        -- Who says no name is the user called default.
        local unnamed = open({ url = acl:url() })
        local default = open({ url = acl:url("default:any"), group = "default" })
        unnamed:close()
        default:close()
        acl:stop()
    end)

    it("is refused when it is something else, and that is left alone", function()
        for _, bytes in ipairs({ "", "something else", ("x"):rep(BYTES) }) do
            temp.write(SHARED_MEMORY .. region, bytes)
            local ok, err = pcall(open, { group = "other" .. #bytes })
            -- An empty one may be one that its maker has just begun, and died.
            if bytes ~= "" then
                assert.is_false(ok)
                assert.matches("near", tostring(err), 1, true)
                assert.equal(bytes, temp.read(SHARED_MEMORY .. region))
            elseif ok then
                err:close()
            end
            os.remove(SHARED_MEMORY .. region)
        end
    end)

    it("is made once when many processes begin at the same time", function()
        local done = herd.run({
            count = 12, params = { url = redis:url(), near = near() }, timeout = 60,
            main = function(one)
                one:ready()
                local cache = require("redcache").new({
                    url = one.params.url, near = one.params.near, connectTimeout = 20,
                    commandTimeout = 20, maxStale = 60, -- nobody reads until all of them are there
                })
                assert(cache:set("k" .. one.index, one.index))
                assert(cache:get("k" .. one.index) == one.index)
                one:ready()
                local near_ones = 0
                for i = 1, one.count do
                    local value, err, from = cache:get("k" .. i)
                    assert(value == i, tostring(err))
                    if from == "near" or from == "l0" then near_ones = near_ones + 1 end
                end
                one:ready()
                return near_ones
            end,
        })
        local total = 0
        for i = 1, 12 do total = total + done.results[i] end
        -- Far more than each process' own.
        assert.is_true(total >= 100, tostring(total))
    end)
end)

describe("processes that are killed while they use a region", function()
    it("leave no torn value and no dead lock behind", function()
        local seconds = 6
        local function start_writer(index)
            return worker.start({
                index = index, params = { url = redis:url(), near = near() },
                main = function(one)
                    local cache = require("redcache").new({
                        url = one.params.url, near = one.params.near, commandTimeout = 10,
                    })
                    one:emit("writing")
                    while true do
                        -- Long ones take long to copy, and the room of old ones is soon used anew.
                        local key = "k" .. math.random(20)
                        local text = tostring(math.random(1e9))
                        cache:set(key, key .. ":" .. text:rep(math.random(3000)) .. ":" .. text)
                        for _ = 1, 5 do cache:get("k" .. math.random(20)) end
                    end
                end,
            })
        end
        local cache = open({ commandTimeout = 10 })
        local checker = open({ commandTimeout = 10, group = "no l0", near = near({ l0 = false }) })
        local writers, kills, hits = {}, 0, 0
        for i = 1, 2 do writers[i] = start_writer(i) end
        for i = 1, 2 do writers[i]:event("writing") end
        local ends, next_kill = clock.now() + seconds, clock.now() + 0.05
        local deadline = clock.deadline(60)
        repeat
            for _, reader in ipairs({ cache, checker }) do
                local key = "k" .. math.random(20)
                local value, err, from = reader:get(key)
                assert(not err, tostring(err))
                if value then
                    local owner, body, text = value:match("^(k%d+):(%d+):(%d+)$")
                    assert(owner == key and body == text:rep(#body / #text), "a torn value")
                end
                if is_near(from) then hits = hits + 1 end
            end
            if clock.now() > next_kill then
                local i = kills % 2 + 1
                writers[i]:kill()
                kills = kills + 1
                writers[i] = start_writer(i)
                writers[i]:event("writing")
                next_kill = clock.now() + 0.02 + math.random() * 0.02
            end
            -- How much fits into that time is the machine's.
            local is_enough = kills > 20 / clock.scale and hits > 1000
        until clock.now() > ends and (is_enough or clock.now() > deadline)
        for i = 1, 2 do writers[i]:kill() end
        assert.is_true(kills > 20 / clock.scale, kills .. " kills")
        assert.is_true(hits > 1000, hits .. " hits")
        -- All of it can be written and read as before.
        for i = 1, 20 do
            cache:set("k" .. i, i)
            assert.equal(i, warm(cache, "k" .. i))
            assert.equal(i, warm(checker, "k" .. i))
        end
        cache:close()
        checker:close()
    end)
end)

describe("two processes that write in turns", function()
    local function run(...)
        local result = process.run({ "luajit", "spec/near/alternate.lua", ... }, 120)
        local count, violations = result.out:match("(%d+) alternations, (%d+) violations\n$")
        assert.is_truthy(count, result.out .. result.err)
        return tonumber(count), tonumber(violations), result
    end

    local function expect_none(least, ...)
        local count, violations, result = run(...)
        assert.equal(0, violations, result.out)
        assert.equal(0, result.exit, result.out)
        -- How many fit into the time only measures the machine: enough to mean something.
        assert.is_true(count > least / clock.scale / clock.scale, result.out)
        -- Memory answered most of the time.
        local l0, memory, server_side =
            result.out:match("l0: (%d+)\n.-near: (%d+)\n.-redis: (%d+)")
        assert.is_true(l0 + memory > tonumber(server_side), result.out)
        print(("\n%d alternations"):format(count))
    end

    it("always read what the other has just written (71, G4)", function()
        expect_none(2000, "--seconds", 20)
    end)

    it("do so without any push", function()
        expect_none(2000, "--seconds", 10, "--pushes", "off")
    end)

    it("would not if each had a region of its own", function()
        local _, violations = run("--seconds", 30, "--mutant", "apart")
        assert.is_true(violations > 0)
    end)
end)

describe("a region that is inherited by fork()", function()
    -- A child of a process with threads that starts threads itself is beyond ThreadSanitizer.
    local tsan = (os.getenv("REDCACHE_SANITIZER") or ""):match("^t")
    local it = tsan and pending or it -- luacheck: ignore

    -- Runs parent(cache, "before"), then in two processes with one region parent(cache, "after",
    -- turn, raw) and child(cache, turn). turn(n) waits until n turns are over, turn() ends one.
    local function run_family(parent, child, max_stale)
        local one = worker.start({
            params = {
                url = redis:url(), redis = redis.path, path = temp.dir() .. "/family",
                parent = string.dump(parent), child = string.dump(child), maxStale = max_stale,
            },
            main = function(one)
                local ffi = require("ffi")
                local cells = require("spec.near.cells")
                local channel = require("spec.support.channel")
                local support = require("spec.support.clock")
                local posix_there = require("spec.support.posix")
                local files = require("spec.support.temp")
                local fork = require("spec.support.fork")
                local path = one.params.path
                local shared = cells.map(path .. ".cells", 1)
                local function turn(count)
                    if not count then
                        shared[0] = shared[0] + 1
                        return
                    end
                    support.wait_until(function() return shared[0] >= count end, 20, "turn")
                end
                local function raw()
                    return require("spec.support.resp").connect({ path = one.params.redis }, {
                        user = "bed", password = "bed",
                    })
                end
                local cache = require("redcache").new({
                    url = one.params.url, commandTimeout = 10, maxStale = one.params.maxStale,
                })
                local main = assert(loadstring(one.params.parent))
                local before = main(cache, "before", turn, raw)
                local pid = fork()
                assert(pid >= 0, "fork failed")
                if pid == 0 then
                    local ok, result = xpcall(function()
                        return assert(loadstring(one.params.child))(cache, turn)
                    end, debug.traceback)
                    files.write(path, channel.encode({ ok = ok, result = result }))
                    ffi.C._exit(0)
                end
                local ok, after = pcall(main, cache, "after", turn, raw)
                local status = ffi.new("int[1]")
                support.wait_until(function()
                    return posix_there.C.waitpid(pid, status, 1) == pid
                end, 30, "the child's end")
                assert(status[0] == 0, "the child ended with status " .. status[0])
                local told = channel.decode(files.read(path))
                assert(told.ok, told.result)
                assert(ok, after)
                cache:close()
                return { before = before, after = after, child = told.result }
            end,
        })
        return one:join(60)
    end

    it("is one memory for parent and child", function()
        local seen = run_family(function(cache, when, turn)
            if when == "before" then
                cache:set("k", "parent's")
                cache:get("k")
                return select(3, cache:get("k"))
            end
            local result = {}
            turn(1)
            -- The child has written and read.
            result[1] = (cache:get("k"))
            cache:set("k", "parent's again")
            cache:get("k")
            turn()
            turn(3)
            result[4] = (cache:get("k")) == nil
            return result
        end, function(cache, turn)
            local result = {}
            result.first = { cache:get("k") }
            cache:set("k", "child's")
            result.second = { cache:get("k") }
            turn()
            turn(2)
            result.third = { cache:get("k") }
            cache:delete("k")
            turn()
            return result
        end, CALM) -- a fork may take long
        assert.is_true(is_near(seen.before), seen.before)
        local first = seen.child.first
        assert.equal("parent's", first[1])
        assert.is_true(is_near(first[3]), first[3])
        assert.equal("child's", seen.child.second[1])
        -- A push that is late may have dropped the copy meanwhile.
        assert.equal("child's", seen.after[1])
        assert.equal("parent's again", seen.child.third[1])
        assert.is_true(seen.after[4])
    end)

    it("follows foreign writes in both, also after either has ended", function()
        local seen = run_family(function(cache, when, turn, connect)
            local raw = connect()
            if when == "before" then
                raw:call("SET", "k", "0")
                cache:get("k")
                return cache:get("k")
            end
            local there = require("spec.near.reads")
            for i = 1, 50 do
                turn(2 * i - 1)
                raw:call("SET", "k", tostring(i))
                there.until_value(cache, "k", tostring(i), 1)
                turn()
            end
            turn(101)
            -- The child ends now.
            for i = 51, 100 do
                raw:call("SET", "k", tostring(i))
                there.until_value(cache, "k", tostring(i), 2)
                there.warm(cache, "k")
            end
            return cache:get("k")
        end, function(cache, turn)
            local there = require("spec.near.reads")
            for i = 1, 50 do
                assert(there.warm(cache, "k") == tostring(i - 1))
                turn()
                turn(2 * i)
                there.until_value(cache, "k", tostring(i), 1)
            end
            turn()
            return cache:get("k")
        end)
        assert.same({ "0", "50", "100" }, { seen.before, seen.child, seen.after })
    end)

    it("goes on when the child is the one that goes on", function()
        local seen = run_family(function(cache, when)
            if when == "before" then
                cache:set("k", "v")
                cache:get("k")
                return cache:get("k")
            end
            cache:close()
            return true
        end, function(cache)
            local there = require("spec.near.reads")
            local clock_there = require("spec.support.clock")
            local ends = clock_there.now() + 3
            repeat
                local value, err = cache:get("k")
                assert(value == "v", tostring(err))
            until clock_there.now() > ends
            there.warm(cache, "k")
            return there.source(cache, "k")
        end)
        assert.is_true(is_near(seen.child), tostring(seen.child))
    end)
end)
