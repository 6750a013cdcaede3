-- Requests that end in the middle: their clients leave, their light threads are killed, they exit.
-- No slot, lease or lock may outlive them, and whoever waits for one of those gets it soon.
--
-- Env: REDCACHE_ABORTS: how many requests the crowd has (400).

local clock = require("spec.support.clock")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local CASES = 'require("spec.nginx.abort_cases")'
local CROWD = tonumber(os.getenv("REDCACHE_ABORTS")) or 400
local WORKERS = 2
-- Leases and locks live for two minutes: what comes sooner comes from us. An idle worker looks at
-- itself twice a second, a busy machine is late.
local SOON = 5
local NOTHING = "slots=0 waiting=0 inFlight=0 leases=0 locks=0 holders=0"
local KINDS = { "load", "put", "hold", "hold_twice", "lock", "nest", "quick", "locked", "read",
    "write", "many", "block", "watch", "kill_block", "kill_watch", "load_many", "grab_many",
    "kill_load_many", "kill_many", "kill_load", "kill_hold", "kill_quick", "kill_at_once",
    "kill_grant", "exit", "exit_in_loader", "exit_in_lock", "exec_in_loader",
    "redirect_in_loader", "error_page_in_loader", "keep_load", "keep_hold" }
-- What is no part of the crowd. Where a client leaves while a coroutine waits that is no light
-- thread, lua-nginx-module (0.10.23) uses what it has freed.
local OTHERS = { "exit_within_loader", "exit_around_loader", "race_load", "race_hold", "recursive",
    "beside", "kill_leader", "kill_collector" }

local function start(redis, driver, workers, begun, ballast)
    local locations = {
        ["/reports"] = "content_by_lua_block { " .. CASES .. ".reports() }",
        ["/collect"] = "content_by_lua_block { " .. CASES .. ".collect(true) }",
        ["/let"] = "content_by_lua_block { " .. CASES .. ".collect(nil) }",
        ["/ended"] = 'content_by_lua_block { ngx.print("ended") }',
        ["/slow"] = "proxy_read_timeout 100ms; "
            .. "proxy_pass http://127.0.0.1:$server_port/load?$args;",
    }
    for _, kinds in ipairs({ KINDS, OTHERS }) do
        for _, kind in ipairs(kinds) do
            locations["/" .. kind] = ('content_by_lua_block { %s.serve("%s") }'):format(CASES, kind)
        end
    end
    return nginx.start({
        workers = workers, http = "lua_shared_dict reports 1m;",
        server = "lua_check_client_abort on; error_page 403 =203 /ended;",
        init = CASES .. (".open({ url = %q, driver = %q }, %q, %d)"):format(redis:url(), driver,
            begun, ballast or 0),
        init_worker = CASES .. ".report()", locations = locations,
    })
end

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("requests of nginx that end in the middle, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web, key, dir, begun
        local tests = 0
        -- Why it makes no sense to go on: what one spec has left, the next one finds for minutes.
        local broken

        setup(function()
            redis, dir = server.start(), temp.dir()
            begun = temp.write(dir .. "/begun", "")
            web = start(redis, driver, WORKERS, begun)
        end)
        teardown(function()
            web:stop()
            redis:stop()
            temp.remove(dir)
        end)
        before_each(function()
            assert(not broken, broken)
            redis:call("FLUSHALL")
            tests = tests + 1
            key = "k" .. tests -- nothing of it is near
        end)

        local function reports()
            local _, text = web:get("/reports")
            local list = {}
            for count, line in text:gmatch("(%d+) ([^\n]+)") do
                list[#list + 1] = { count = tonumber(count), line = line }
            end
            return list
        end

        -- Every worker says that it holds nothing, in a report that begins after now.
        local function wait_for_rest()
            local before, now = reports(), nil
            local ok = pcall(clock.wait_until, function()
                now = reports()
                for i = 1, WORKERS do
                    local seen = before[i] and before[i].count or 0
                    if not (now[i] and now[i].count > seen + 1 and now[i].line == NOTHING) then
                        return false
                    end
                end
                return true
            end, 2 * SOON)
            if not ok then
                broken = "an earlier spec has left something in the workers"
                for i = 1, WORKERS do assert.equal(NOTHING, now[i] and now[i].line) end
            end
            assert.is_true(ok)
        end

        -- A lease stands in its key, a lock in a//lock:{name}: what is neither a value nor one of
        -- the keys beside a lock, its fence and the sign of its release.
        local function leftovers()
            local list = {}
            for _, name in ipairs(redis:call("KEYS", "*")) do
                local kind = redis:call("GETRANGE", name, 0, 2)
                local is_value = kind:sub(1, 2) == "\251\1" and kind:byte(3) == 1
                local is_left = kind ~= "" and not is_value -- it may have expired by now
                if is_left and not name:find("}!:", 1, true) then list[#list + 1] = name end
            end
            return list
        end

        local function assert_nothing_left()
            wait_for_rest()
            local list
            pcall(clock.wait_until, function()
                list = leftovers()
                return #list == 0
            end, SOON)
            assert.same({}, list)
        end

        local function open(kind)
            local mark = kind:find("?", 1, true) and "&" or "?"
            return web:open("/" .. kind .. mark .. "key=" .. key)
        end

        local function get(kind)
            return web:get("/" .. kind .. "?key=" .. key)
        end

        local LEASE, LOCK = "a:%s", "a//lock:{%s}"

        local function until_taken(name)
            name = name:format(key)
            clock.wait_until(function() return redis:call("EXISTS", name) == 1 end, SOON, name)
        end

        for kind, name in pairs({ load = LEASE, put = LEASE, hold = LOCK, nest = LOCK,
            load_many = LEASE, hold_twice = LOCK }) do
            it("gives back what " .. kind .. " holds when its client leaves", function()
                local connection = open(kind)
                until_taken(name)
                connection:close()
                assert_nothing_left()
            end)
        end

        for kind, state in pairs({ block = "flags=b", watch = "cmd=watch" }) do
            it("gives back the connection of who has one (" .. kind .. ")", function()
                local connection = open(kind)
                clock.wait_until(function()
                    return redis:call("CLIENT", "LIST"):find(state, 1, true)
                end, SOON, "a connection of its own")
                connection:close()
                assert_nothing_left()
                clock.wait_until(function()
                    return not redis:call("CLIENT", "LIST"):find(state, 1, true)
                end, SOON, "its return")
            end)
        end

        it("gives a lock back whose handle is garbage with its request", function()
            -- So slowly that the keeper looks at who acquires: what it saw must not be kept by it.
            redis:call("CLIENT", "PAUSE", "300", "WRITE")
            local connection = open("lock")
            until_taken(LOCK)
            connection:close()
            web:get("/collect")
            assert_nothing_left()
            web:get("/let")
        end)

        for _, kind in ipairs({ "kill_load", "kill_hold", "kill_quick", "kill_at_once",
            "kill_grant", "kill_load_many", "kill_many", "kill_block", "kill_watch" }) do
            it("gives back what a killed light thread has (" .. kind .. ")", function()
                local status, body = get(kind)
                assert.same({ 200, "killed" }, { status, body })
                assert_nothing_left()
            end)
        end

        for kind, expected in pairs({
            exit = 204, exit_in_loader = 204, exit_in_lock = 204, exec_in_loader = 200,
            redirect_in_loader = 302, error_page_in_loader = 203, exit_within_loader = 204,
            exit_around_loader = 204,
        }) do
            it("gives back what a request has that ends itself (" .. kind .. ")", function()
                assert.equal(expected, (get(kind)))
                -- nginx uses the coroutine of that request again: nobody is taken for its loader.
                for _ = 1, 5 do
                    local status, body = get("quick")
                    assert.same({ 200, "v" }, { status, body })
                end
                assert_nothing_left()
            end)
        end

        for _, kind in ipairs({ "keep_load", "keep_hold" }) do
            it("gives back what a killed light thread has whose handle is kept (" .. kind .. ")",
                function()
                    local status, body = get(kind)
                    assert.same({ 200, "killed" }, { status, body })
                    assert_nothing_left()
                end)
        end

        for _, kind in ipairs({ "race_load", "race_hold" }) do
            it("gives that back within a tenth of a second (" .. kind .. ")", function()
                local status, body = get(kind)
                assert.same({ 200, "in time" }, { status, body })
            end)
        end

        it("tells a loader that asks for its key in a coroutine of its own", function()
            local status, body = get("recursive")
            assert.same({ 200, "recursive" }, { status, body })
        end)

        it("lets another light thread wait for a loader that is in a coroutine", function()
            local status, body = get("beside")
            assert.same({ 200, "v v v" }, { status, body })
        end)

        for _, kind in ipairs({ "kill_leader", "kill_collector" }) do
            it("answers those whose batch has lost its leader (" .. kind .. ")", function()
                local status, body = get(kind)
                assert.same({ 200, "v v v" }, { status, body })
                assert_nothing_left()
            end)
        end

        it("gives back what a request has that takes too long for its proxy", function()
            assert.equal(504, (get("slow")))
            assert_nothing_left()
        end)

        -- Who waits, in this worker or another, when the holder vanishes.
        local function assert_taken_over(holder, name, waiter)
            local connection, waiting = open(holder), {}
            until_taken(name)
            for i = 1, 4 do waiting[i] = open(waiter) end
            clock.wait_until(function()
                local sum = 0
                for _, report in ipairs(reports()) do
                    sum = sum + tonumber(report.line:match("slots=(%d+)"))
                end
                return sum >= 4
            end, SOON, "the waiters")
            connection:close()
            local took = clock.time(function()
                for i = 1, 4 do
                    local status, body = http.read(waiting[i], SOON)
                    assert.same({ 200, "v" }, { status, body })
                end
            end)
            assert.is_true(took < clock.scaled(SOON), "it took " .. took)
            assert_nothing_left()
        end

        it("lets a waiter load in place of a leader that is gone", function()
            assert_taken_over("load", LEASE, "quick")
        end)

        it("lets a waiter have the lock of a holder that is gone", function()
            assert_taken_over("hold", LOCK, "locked")
        end)

        it("forgets a waiter that is gone, and lets its leader end", function()
            local connection, waiting = open("hold"), {}
            until_taken(LOCK)
            for i = 1, 10 do waiting[i] = open("locked") end
            clock.sleep(0.02)
            for i = 1, 10 do waiting[i]:close() end
            connection:close()
            assert_nothing_left()
            assert.equal("v", select(2, get("locked")))
        end)

        for kind, name in pairs({ load = LEASE, hold = LOCK }) do
            it("gives back what comes to " .. kind .. " in the moment its client leaves", function()
                local large = start(redis, driver, 1, begun, 300000)
                local watcher = redis:client()
                for i = 1, 200 do
                    local connection = large:open("/" .. kind .. "?key=m" .. i)
                    local expected, deadline = name:format("m" .. i), clock.deadline(SOON)
                    -- No pause here: the answer is on its way to the worker.
                    while watcher:call("EXISTS", expected) == 0 do
                        assert(clock.now() < deadline, "it was not taken")
                    end
                    connection:close()
                end
                watcher:close()
                local line
                pcall(clock.wait_until, function()
                    line = select(2, large:get("/reports")):match("^%d+ (.*)$")
                    return line == NOTHING
                end, SOON)
                large:stop()
                assert.equal(NOTHING, line)
            end)
        end

        -- Whether a request was begun. A worker that is late finds a request and the end of its
        -- client in one look, and goes on with it to its end: nginx tells of a client that leaves
        -- once, and hears it only while the request runs.
        local function begun_reader()
            local file, seen, rest = assert(io.open(begun)), {}, ""
            file:seek("end")
            return function(id)
                file:seek("cur", 0) -- or it stays at the end that it has met
                rest = rest .. file:read("*a") -- its last line may still be on its way
                local whole = rest:match("^.*\n") or ""
                for line in whole:gmatch("[^\n]+") do seen[line] = true end
                rest = rest:sub(#whole + 1)
                return seen[id]
            end
        end

        -- Requests of every kind, up to 40 at once, that leave in the middle, or at their end.
        local function crowd(count, round)
            local connections, has_begun = {}, begun_reader()
            local function leave(i)
                local id = round .. ":" .. i
                clock.wait_until(function() return has_begun(id) end, 2 * SOON, "its begin")
                if i % 3 == 0 then connections[i]:reset() else connections[i]:close() end
                connections[i] = nil
            end
            for i = 1, count do
                local kind = KINDS[i % #KINDS + 1]
                -- Some of them meet at a key, others have one of their own.
                key = i % 2 == 0 and "k" .. i % 5 or "own" .. round .. ":" .. i
                connections[i] = open(kind .. "?id=" .. round .. ":" .. i)
                if i % 4 == 0 then clock.sleep(0.001 * (i % 7)) end
                if connections[i - 40] then leave(i - 40) end
            end
            for i = count - 39, count do
                if connections[i] then leave(i) end
            end
        end

        it("leaves nothing behind of " .. CROWD .. " that leave, and needs no memory for them",
            function()
                local function come_and_go(count, round)
                    crowd(count, round)
                    web:get("/collect") -- handles that were dropped
                    assert_nothing_left()
                    web:get("/let")
                end
                come_and_go(CROWD, 0) -- pools, slots and compiled code have their size now
                local before = web:rss()
                come_and_go(CROWD, 1)
                local grown = web:rss() - before
                assert.is_true(grown < 8192, ("%d KiB for %d requests"):format(grown, CROWD))
                assert.equal(WORKERS, #web:workers())
                assert.is_nil(web:log():find("exited on signal", 1, true))
            end)
    end)
end
