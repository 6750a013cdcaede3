-- The test bed against a real server: what the other specs build on is shown here, piece by piece.

local bit = require("bit")

local clock = require("spec.support.clock")
local fake = require("spec.support.fake")
local frame = require("spec.support.frame")
local herd = require("spec.support.herd")
local monitor = require("spec.support.monitor")
local posix = require("spec.support.posix")
local process = require("spec.support.process")
local proxy = require("spec.support.proxy")
local resp = require("spec.support.resp")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")
local threads = require("spec.support.threads")
local worker = require("spec.support.worker")

local ANY_BYTES = "a\0b\r\n$3\r\n\\x\"\255[lua]"

local function is_refused(where)
    local connection, err = socket.connect(where, 1)
    if connection then connection:close() end
    return not connection and err == "Connection refused"
end

describe("process", function()
    it("tells what a command printed and how it ended", function()
        local ended = process.run({
            "sh", "-c", "echo $WORD; echo no >&2; exit 3", env = { WORD = "yes" },
        })
        assert.same({ exit = 3, out = "yes\n", err = "no\n" }, ended)
    end)

    it("kills a command that takes too long and says so", function()
        local took, ok, err = clock.time(pcall, process.run, { "sleep", "60" }, 0.05)
        assert.is_false(ok)
        assert.matches("'sleep' did not end in time", err, 1, true)
        assert.is_true(took < clock.scaled(5))
    end)

    it("says when there is no such command", function()
        local ended = process.run({ "rcbed-no-such-command" })
        assert.equal(127, ended.exit)
        assert.matches("could not start 'rcbed-no-such-command'", ended.err, 1, true)
    end)

    it("kills a stopped child", function()
        local child = process.spawn({ "sleep", "60" })
        child:signal(posix.SIGSTOP)
        assert.same({ signal = 9 }, child:kill())
    end)

    it("keeps its sockets from children and gives them SIGPIPE's default", function()
        local function look()
            local command = "ls /proc/self/fd; grep SigIgn /proc/self/status"
            return process.run({ "sh", "-c", command }).out
        end
        local handler = posix.C.signal(posix.SIGPIPE, posix.SIG_IGN)
        local before = look()
        posix.C.signal(posix.SIGPIPE, handler)
        local open = assert(socket.listen({ port = 0 }))
        assert.equal(before, look())
        open:close()
        local ignored = tonumber(before:match("SigIgn:%s*(%x+)"):sub(-8), 16)
        assert.equal(0, bit.band(ignored, bit.lshift(1, posix.SIGPIPE - 1)))
    end)
end)

describe("socket", function()
    it("carries bytes over TCP and unix sockets and tells an end from a reset", function()
        local path = temp.dir() .. "/s"
        for _, where in ipairs({ { port = socket.free_port() }, { path = path } }) do
            local listener = assert(socket.listen(where))
            local near = assert(socket.connect(where, 1))
            local far = assert(listener:accept(1))
            assert.is_true(near:send(ANY_BYTES))
            assert.equal(ANY_BYTES, far:receive(1))
            assert.same({ nil, "timeout" }, { far:receive(0.01) })
            near:close()
            assert.same({ nil, "closed" }, { far:receive(1) })
            far:close()
            listener:close()
        end
    end)

    it("resets a connection", function()
        local listener = assert(socket.listen({ port = 0 }))
        local near = assert(socket.connect({ port = listener.port }, 1))
        local far = assert(listener:accept(1))
        near:reset()
        assert.equal("Connection reset by peer", select(2, far:receive(1)))
        far:close()
        listener:close()
    end)

    it("finds ports that outgoing connections do not use", function()
        local low = tonumber(temp.read("/proc/sys/net/ipv4/ip_local_port_range"):match("%d+"))
        local port = socket.free_port()
        assert.is_true(port < low)
        assert.is_true(is_refused({ port = port }))
    end)
end)

describe("socket.free_port", function()
    it("gives no port that another process was given", function()
        local port = socket.free_port()
        local other = worker.start({ params = { from = port - 1 }, main = function(one)
            return { port = require("spec.support.socket").free_port(one.params.from) }
        end })
        local its = other:join().port
        assert.is_not.equal(port, its)
    end)

    it("does not even try a port that another process was given", function()
        local port = socket.free_port()
        local other = worker.start({ params = { from = port - 1 }, main = function(one)
            local its = require("spec.support.socket")
            local listen, tried = its.listen, {}
            its.listen = function(where)
                tried[#tried + 1] = where.port
                return listen(where)
            end
            its.free_port(one.params.from)
            return { tried = tried }
        end })
        local tried = other:join().tried
        assert.is_true(#tried > 0)
        assert.is_not.equal(port, tried[1])
    end)
end)

describe("clock", function()
    it("waits for a condition and throws when it does not come", function()
        local calls = 0
        assert.equal(3, clock.wait_until(function()
            calls = calls + 1
            return calls == 3 and calls
        end, 1))
        assert.has_error(function()
            clock.wait_until(function() return false end, 0.01 / clock.scale, "rain")
        end, "rain did not come true within 0.01 s")
    end)
end)

describe("server", function()
    local redis

    before_each(function() redis = server.start() end)
    after_each(function() redis:stop() end)

    it("answers on TCP and on its unix socket, on loopback only, without saving", function()
        assert.equal("PONG", resp.connect({ port = redis.port }):call("PING"))
        assert.equal("PONG", resp.connect({ path = redis.path }):call("PING"))
        assert.same({ bind = "127.0.0.1" }, redis:call("CONFIG", "GET", "bind"))
        assert.same({ save = "" }, redis:call("CONFIG", "GET", "save"))
        assert.same({ appendonly = "no" }, redis:call("CONFIG", "GET", "appendonly"))
        assert.equal(redis.pid, redis:info("server").process_id)
    end)

    it("takes passwords, users and further lines of configuration", function()
        local closed = server.start({
            password = "secret", users = { "ann on >pw ~a:* +get" }, config = { "maxmemory 7mb" },
        })
        assert.is_false((pcall(function() resp.connect(closed):call("GET", "x") end)))
        assert.equal("PONG", resp.connect(closed, { password = "secret" }):call("PING"))
        local ann = resp.connect(closed, { user = "ann", password = "pw", resp = 2 })
        assert.is_nil(ann:call("GET", "a:1"))
        assert.matches("^NOPERM", select(2, ann:try("GET", "b:1")))
        assert.equal(7 * 1024 * 1024, closed:info("memory").maxmemory)
        assert.equal("redis://ann:pw@127.0.0.1:" .. closed.port, closed:url("ann:pw"))
        assert.matches("requirepass secret", temp.read(closed.dir .. "/redis.conf"), 1, true)
        closed:stop()
        assert.is_true(is_refused(closed))
        assert.equal("", temp.read(closed.dir .. "/redis.conf"))
    end)

    it("stops answering while paused and goes on where it was", function()
        redis:call("SET", "k", "v")
        local client = redis:client()
        redis:pause()
        client:send({ { "GET", "k" } })
        assert.is_false((pcall(client.read, client, 0.05)))
        redis:resume()
        assert.equal("v", client:read(5))
    end)

    it("comes back empty on the same port after kill -9", function()
        local client, pid = redis:client(), redis.pid
        redis:call("SET", "k", "v")
        redis:kill()
        assert.is_false((pcall(client.call, client, "PING")))
        assert.is_true(is_refused(redis))
        redis:restart()
        assert.not_equal(pid, redis.pid)
        assert.is_nil(redis:client():call("GET", "k"))
    end)

    it("counts commands", function()
        local client = redis:client()
        local calls, result = redis:count(function()
            client:pipeline({ { "GET", "a" }, { "PTTL", "a" }, { "GET", "b" } })
            return "result"
        end)
        assert.same({ get = 2, pttl = 1 }, calls)
        assert.equal("result", result)
        redis:reset()
        assert.is_nil(redis:commandstats().get)
    end)

    it("refuses replicas, and grants none of them a SYNC that has been refused a PSYNC", function()
        local anybody, replica = resp.connect(redis, {}), nil
        finally(function()
            anybody:close()
            if replica then replica:stop() end
        end)
        redis:refuse_replicas()
        assert.matches("^NOPERM", select(2, anybody:try("PSYNC", "?", -1)))
        redis:accept_replicas()
        assert.matches("^NOPERM", select(2, anybody:try("SYNC")))
        replica = server.start({ config = { "replicaof 127.0.0.1 " .. redis.port } })
        clock.wait_until(function() return redis:call("ROLE")[3][1] end, 10, "a replica")
    end)

    it("dies with the process that started it, even at kill -9", function()
        local parent = worker.start({
            main = function(one)
                local started = require("spec.support.server").start()
                one:emit("started", { port = started.port })
                one:receive()
            end,
        })
        local where = { port = parent:event("started").port }
        assert.is_false(is_refused(where))
        parent:kill()
        clock.wait_until(function() return is_refused(where) end, 5, "the death of the server")
    end)
end)

describe("resp", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)

    it("carries any bytes, also many of them", function()
        local client, large = redis:client(), (ANY_BYTES):rep(200000)
        client:call("SET", ANY_BYTES, large)
        assert.is_true(large == client:call("GET", ANY_BYTES))
    end)

    it("pipelines and keeps errors in their place", function()
        local answers = redis:client():pipeline({
            { "SET", "n", 1 }, { "LPUSH", "n", 1 }, { "GET", "nix" },
        })
        assert.equal("OK", answers[1])
        assert.matches("^WRONGTYPE", answers[2].error)
        assert.equal(resp.NULL, answers[3])
    end)

    it("reads maps, doubles, booleans, nested arrays and, in RESP2, their old forms", function()
        local new, old = redis:client(), redis:client({ resp = 2 })
        new:pipeline({ { "HSET", "h", "f", "v" }, { "ZADD", "z", "1.5", "m" } })
        assert.same({ f = "v" }, new:call("HGETALL", "h"))
        assert.same({ "f", "v" }, old:call("HGETALL", "h"))
        assert.equal(1.5, new:call("ZSCORE", "z", "m"))
        assert.equal("1.5", old:call("ZSCORE", "z", "m"))
        assert.is_true(new:call("EVAL", "redis.setresp(3) return true", 0))
        assert.same({ 1, { "a", { 2 } } }, new:call("EVAL", "return {1, {'a', {2}}}", 0))
    end)

    it("keeps pushes apart from answers", function()
        local client = redis:client()
        client:call("CLIENT", "TRACKING", "ON")
        client:call("GET", "watched")
        redis:call("SET", "watched", 1)
        assert.equal("PONG", client:call("PING"))
        assert.same({ "invalidate", { "watched" } }, client:push(1))
        assert.is_nil(client:push(0.01))
    end)
end)

describe("monitor", function()
    it("counts what went over the wire, and scripts as one", function()
        local redis = server.start()
        local client = redis:client()
        local counts, list, result = monitor.wire(redis, function()
            client:call("SET", ANY_BYTES, 1)
            return client:call("EVAL", "return redis.call('GET', KEYS[1])", 1, ANY_BYTES)
        end)
        assert.same({ set = 1, eval = 1, total = 2 }, counts)
        assert.equal(ANY_BYTES, list[1].words[2])
        assert.equal("1", result)
        redis:stop()
    end)
end)

describe("herd", function()
    local redis

    setup(function() redis = server.start() end)
    teardown(function() redis:stop() end)

    it("runs 8 real processes that start together, round after round", function()
        local done = herd.run({
            count = 8,
            params = function(i) return { path = redis.path, bytes = "\0\255" .. i } end,
            main = function(one)
                local client = require("spec.support.resp").connect(one.params)
                for round = 1, 3 do
                    one:emit("started", { go = one:ready(), round = round })
                    client:call("INCR", "round" .. round)
                end
                return { bytes = one.params.bytes, count = one.count }
            end,
        })
        assert.equal("8", redis:call("GET", "round3"))
        assert.same({ bytes = "\0\2558", count = 8 }, done.results[8])
        local started = done:named("started")
        assert.equal(24, #started)
        -- Nobody is in a round before everybody has left the one before.
        for i, event in ipairs(started) do
            assert.equal(math.ceil(i / 8), event.round)
            assert.equal(started[(event.round - 1) * 8 + 1].go, event.go)
            assert.is_true(event.at >= event.go)
        end
        local pids = {}
        for _, one in ipairs(done.workers) do pids[one.pid] = true end
        pids[process.spawn({ "true" }).pid] = nil
        local different = 0
        for _ in pairs(pids) do different = different + 1 end
        assert.equal(8, different)
    end)

    it("fails at once with the cause when a worker throws", function()
        local took, ok, err = clock.time(pcall, herd.run, {
            count = 3, timeout = 60,
            main = function(one)
                if one.index == 2 then error("the well is dry") end
                one:receive()
            end,
        })
        assert.is_false(ok)
        assert.matches("the well is dry", err, 1, true)
        assert.is_true(took < clock.scaled(5))
    end)

    it("ends by its deadline and leaves no process behind", function()
        local pack = herd.start({
            count = 2, timeout = 0.1 / clock.scale, main = function(one) one:receive() end,
        })
        assert.has_error(function() pack:join() end, "2 of 2 workers did not end in time")
        for _, one in ipairs(pack.workers) do assert.is_false(one.process:is_alive()) end
    end)

    it("lets a spec kill one worker and hear the others", function()
        local pack = herd.start({
            count = 3, tolerant = true,
            main = function(one)
                one:emit("holding")
                if one.index == 1 then one:receive() end
                one:ready()
                return one.index
            end,
        })
        pack:wait_events("holding", 3)
        pack.workers[1]:kill()
        pack:join()
        assert.same({ nil, 2, 3 }, pack.results)
        assert.matches("signal 9", pack.failures[1])
    end)

    it("sees a process that crashes after its work", function()
        local ok, err = pcall(herd.run, {
            count = 1,
            main = function()
                local guard = newproxy(true)
                local C = require("spec.support.posix").C
                getmetatable(guard).__gc = function() C.kill(C.getpid(), 9) end
                _G.guard = guard -- luacheck: ignore
            end,
        })
        assert.is_false(ok)
        assert.matches("failed after its work.*ended by signal 9", err)
    end)

    it("refuses a function with upvalues", function()
        local outside = 1
        assert.has_error(function()
            herd.run({ count = 1, main = function() return outside end })
        end)
    end)
end)

describe("threads", function()
    it("runs a chunk in several threads with a barrier and shared tallies", function()
        local results = threads.run({
            count = 6, params = { rounds = 5 },
            main = function(thread)
                local seen = {}
                for round = 1, thread.params.rounds do
                    thread.tally(1)
                    thread.barrier()
                    seen[round] = thread.tally(1, 0)
                    thread.barrier()
                end
                return { index = thread.index, seen = seen, late = thread.now() > 0 }
            end,
        })
        for i = 1, 6 do
            assert.same({ index = i, seen = { 6, 12, 18, 24, 30 }, late = true }, results[i])
        end
    end)

    it("ends with the cause when one thread throws while others are in the barrier", function()
        local ok, err = pcall(threads.run, {
            count = 3,
            main = function(thread)
                if thread.index == 2 then error("thread two is tired") end
                thread.barrier()
            end,
        })
        assert.is_false(ok)
        assert.matches("thread two is tired", err, 1, true)
        assert.matches("the barrier is broken", err, 1, true)
    end)
end)

describe("proxy", function()
    local redis, line

    before_each(function()
        redis = redis or server.start()
        redis:reset()
        line = proxy.start(redis)
    end)
    after_each(function() line:stop() end)
    teardown(function() redis:stop() end)

    local function connect(options)
        return resp.connect(line, options)
    end

    it("forwards everything and counts commands, turns and bytes", function()
        local client = connect()
        local first = { { "SET", ANY_BYTES, ANY_BYTES }, { "GET", ANY_BYTES } }
        local second = { "CLIENT", "ID" }
        local counts = line:measure(function()
            client:pipeline(first)
            client:call(unpack(second))
        end)
        assert.same({ set = 1, get = 1, ["client|id"] = 1 }, counts.commands)
        assert.equal(3, counts.total)
        assert.equal(3, counts.replies)
        assert.equal(2, counts.turns)
        assert.equal(
            #frame.command(first[1]) + #frame.command(first[2]) + #frame.command(second),
            counts.bytes_up)
        assert.equal(1, counts.open)
        -- A command that arrives in two pieces is still one turn.
        local bytes = frame.command(second)
        counts = line:measure(function()
            client:send_raw(bytes:sub(1, 9))
            clock.wait_until(function() return line:counts().bytes_up == 9 end, 5)
            client:send_raw(bytes:sub(10))
            client:read()
        end)
        assert.equal(1, counts.turns)
        local large = (ANY_BYTES):rep(100000)
        client:call("SET", "large", large)
        assert.is_true(large == client:call("GET", "large"))
    end)

    it("leaves a connection half-open and lets it flow again", function()
        local client = connect()
        for _, direction in ipairs({ "up", "down", "both" }) do
            line:stall(direction)
            client:send({ { "INCR", direction } })
            assert.is_false((pcall(client.read, client, 0.05)))
            local executed = redis:call("EXISTS", direction)
            assert.equal(direction == "down" and 1 or 0, executed)
            line:flow()
            assert.equal(1, client:read(5))
        end
    end)

    it("cuts connections with a reset or an end, and refuses new ones", function()
        for how, text in pairs({ reset = "Connection reset by peer", close = "closed" }) do
            local client = connect()
            assert.equal(1, line:cut(how))
            local ok, err = pcall(client.read, client)
            assert.is_false(ok)
            assert.matches(text, err, 1, true)
        end
        line:refuse()
        assert.is_true(is_refused(line))
        line:flow()
        assert.equal("PONG", connect():call("PING"))
    end)

    it("cuts the tracked connection and leaves the other", function()
        local tracked, plain = connect(), connect()
        tracked:call("CLIENT", "TRACKING", "ON")
        assert.equal(1, line:cut("reset", "tracking"))
        assert.is_false((pcall(tracked.call, tracked, "PING")))
        assert.equal("PONG", plain:call("PING"))
    end)

    it("delays what it forwards", function()
        local client = connect()
        line:delay(0.1)
        assert.is_true(clock.time(client.call, client, "PING") >= 0.2)
        line:delay(0)
        clock.wait_until(function()
            return clock.time(client.call, client, "PING") < 0.2
        end, 10, "an answer without delay")
    end)

    it("injects bytes into what the server says", function()
        local client = connect()
        assert.equal(1, line:inject(">1\r\n+news\r\n"))
        assert.same({ "news" }, client:push(1))
        line:inject("\0garbage\r\n")
        local ok, err = pcall(client.read, client)
        assert.is_false(ok)
        assert.matches("no RESP", err, 1, true)
    end)

    it("answers commands in the server's place, in order, as often as told", function()
        local client = connect()
        local rule = line:rule({
            command = "SET", argument = "victim", skip = 1, times = 2, reply = "-OOM no memory\r\n",
        })
        local commands = {}
        for i = 1, 5 do commands[i] = { "SET", "victim", i } end
        table.insert(commands, 3, { "SET", "other", 6 })
        local refused = { error = "OOM no memory" }
        assert.same({ "OK", refused, "OK", refused, "OK", "OK" }, client:pipeline(commands))
        assert.equal(2, line:counts().rules[rule])
        assert.equal(4, redis:commandstats().set.calls)
        line:rule({ command = "set", reply = "-READONLY no\r\n" })
        assert.same({ nil, "READONLY no" }, { client:try("SET", "other", 7) })
        line:clear()
        assert.equal("OK", client:call("SET", "other", 8))
    end)

    it("replaces the answer of a command the server has executed", function()
        line:rule({ command = "*", argument = "k", reply = ":99\r\n", execute = true })
        assert.equal(99, connect():call("INCR", "k"))
        assert.equal("1", redis:call("GET", "k"))
    end)

    it("matches one subcommand", function()
        line:rule({ command = "client|tracking", reply = "-NOPERM no\r\n" })
        local client = connect()
        assert.is_number(client:call("CLIENT", "ID"))
        assert.same({ nil, "NOPERM no" }, { client:try("CLIENT", "TRACKING", "ON") })
    end)

    it("breaks the connection before or after a command was executed", function()
        for when, value in pairs({ before = 0, after = 1 }) do
            local client = connect()
            line:rule({ command = "SET", cut = when, times = 1 })
            assert.is_false((pcall(client.call, client, "SET", when, 1)))
            assert.equal(value, redis:call("EXISTS", when))
        end
    end)

    it("swallows an answer, and brings one late", function()
        local client = connect()
        line:rule({ command = "INCR", swallow = true, times = 1 })
        line:rule({ command = "INCR", late = clock.scaled(0.2), times = 1 })
        client:send({ { "INCR", "n" }, { "PING" } })
        assert.equal("PONG", client:read())
        client:send({ { "INCR", "n" } })
        assert.is_false((pcall(client.read, client, 0.05)))
        assert.equal(2, client:read(5))
    end)
end)

describe("fake", function()
    local liar

    after_each(function() liar:stop() end)

    it("greets like Redis and records what came", function()
        liar = fake.start()
        local client = resp.connect(liar)
        assert.equal("OK", client:call("CLIENT", "TRACKING", "ON"))
        assert.equal("PONG", client:call("PING"))
        assert.equal("here", client:call("PING", "here"))
        assert.same({ nil, "ERR unknown command" }, { client:try("GET", "k") })
        assert.same({ "GET", "k" }, liar:requests()[5])
    end)

    it("answers by script, one after the other, byte by byte", function()
        liar = fake.start({ replies = { GET = { "$1\r\na\r\n", ":2\r\n" } }, dribble = 1 })
        local client = resp.connect(liar)
        assert.equal("a", client:call("GET", "k"))
        assert.equal(2, client:call("GET", "k"))
        assert.equal(2, client:call("GET", "k"))
        liar:script({ ["*"] = "+any\r\n", ping = "-LOADING wait\r\n" })
        assert.equal("any", client:call("TYPE", "k"))
        assert.same({ nil, "LOADING wait" }, { client:try("PING") })
    end)

    it("sends deep nests, garbage and pushes, says nothing, or hangs up", function()
        liar = fake.start({
            replies = { GET = fake.nested(100000), TTL = "\255\0", TYPE = false, DEL = fake.CUT },
        })
        local client = resp.connect(liar)
        client:send({ { "GET", "k" } })
        local received = ""
        while #received < #fake.nested(100000) do
            received = received .. assert(client.connection:receive(clock.scaled(5)))
        end
        assert.is_true(received == fake.nested(100000))
        client:send({ { "TYPE", "k" } })
        assert.is_false((pcall(client.read, client, 0.05)))
        assert.equal(1, liar:push(">1\r\n+news\r\n"))
        assert.same({ "news" }, client:push(1))
        client:send({ { "TTL", "k" } })
        assert.equal("\255\0", client.connection:receive(clock.scaled(5)))
        client:send({ { "DEL", "k" } })
        assert.is_nil((client.connection:receive(clock.scaled(5))))
    end)
end)
