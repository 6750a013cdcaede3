-- The public calls on a cluster, blocking and inside requests of nginx: the bodies that
-- spec/redis/api_spec.lua runs on one server.

local api_cases = require("spec.support.api_cases")
local clock = require("spec.support.clock")
local cluster = require("spec.support.cluster")
local nginx = require("spec.support.nginx")
local redcache = require("redcache")

local RUN = [[content_by_lua_block { require("spec.nginx.api_run")() }]]

local bed, ports, pids

setup(function()
    bed, ports, pids = cluster.start({ replicas = 0 }), {}, {}
    for i, node in ipairs(bed.nodes) do ports[i], pids[i] = node.port, node.pid end
end)
teardown(function() bed:stop() end)

describe("on a cluster, blocking:", function()
    for _, case in ipairs(api_cases) do
        it(case[1], function()
            api_cases.run(case, {
                url = bed.nodes[1]:url(), other_url = bed.nodes[2]:url(), ports = ports,
                pids = pids, scheduler = "blocking", pause = clock.sleep,
            })
        end)
    end
end)

describe("on a cluster", function()
    it("rename and copy of keys of different slots fail, and name hash tags", function()
        local cache = redcache.new({ url = bed.nodes[1]:url(), namespace = "app", near = false,
            commandTimeout = 20 })
        finally(function() cache:close() end)
        for i = 1, 10 do
            local from, to = "a" .. i, "b" .. i
            assert.is_true(cache:set(from, i))
            for _, method in ipairs({ "rename", "copy" }) do
                local moved, err = cache[method](cache, from, to)
                assert.is_nil(moved)
                assert.equal("redis", err.code)
                assert.equal(("could not %s '%s': '%s' is of another slot of the cluster: give both"
                    .. " keys the same hash tag, as in '{user:7}:a' and '{user:7}:b'")
                    :format(method, from, to), err.message)
            end
            assert.same({ i, nil }, { (cache:get(from)), (cache:get(to)) })
        end
    end)
end)

describe("on a cluster of which one master refuses it", function()
    it("what afterCommit could not delete is tried again, and nothing else", function()
        local cache = redcache.new({ url = bed.nodes[1]:url(), namespace = "app", near = false,
            commandTimeout = 20 })
        local refuses = bed.nodes[2]
        finally(function()
            refuses:call("ACL", "SETUSER", "default", "+unlink")
            cache:close()
        end)
        local old, keys, theirs = {}, {}, {}
        for i = 1, 60 do
            keys[i], old["k" .. i] = "k" .. i, i
            theirs["k" .. i] = bed:owner(redcache.slot("app:k" .. i)) == refuses and i or nil
        end
        assert.is_true((cache:setMulti(old, 60)))
        refuses:call("ACL", "SETUSER", "default", "-unlink")
        cache:afterCommit(function(commit) commit:deleteMulti(keys) end)
        assert.same(theirs, (cache:getMulti(keys)))
        -- Those that are gone are found out, slot by slot.
        local count = 0
        for _ in pairs(theirs) do count = count + 1 end
        clock.wait_until(function()
            cache:get("anything")
            return cache:stats().afterCommitQueued == count
        end, 20, "the others")
        assert.is_true((cache:setMulti(old, 60)))
        local stop = clock.now() + 0.5
        while clock.now() < stop do cache:get("anything") end
        assert.same(old, (cache:getMulti(keys)))
        refuses:call("ACL", "SETUSER", "default", "+unlink")
        clock.wait_until(function()
            cache:get("anything")
            return cache:stats().afterCommitQueued == 0
        end, 20, "the retry")
        for key in pairs(theirs) do old[key] = nil end
        assert.same(old, (cache:getMulti(keys)))
        assert.equal(60, cache:stats().afterCommitRetried)
    end)
end)

describe("on a cluster whose slot is half moved", function()
    it("rename and copy do nothing before its keys are together again", function()
        local cache = redcache.new({ url = bed.nodes[1]:url(), namespace = "app", near = false,
            commandTimeout = 20 })
        finally(function() cache:close() end)
        local a, b, c = "{half}:a", "{half}:b", "{half}:c"
        assert.is_true((cache:setMulti({ [a] = 1, [b] = 2 })))
        assert.is_true((cache:copy(a, a)) and (cache:rename(b, b))) -- the script is known
        local slot = redcache.slot("app:" .. a)
        local from = bed:owner(slot)
        local to = from == bed.nodes[1] and bed.nodes[2] or bed.nodes[1]
        bed:open_slot(slot, from, to)
        local function finish()
            bed:move_keys(slot, from, to)
            bed:close_slot(slot, from, to)
        end
        finally(function()
            finish()
            bed:move(slot, slot, to, from)
            cache:close()
        end)
        assert.equal(1, bed:move_keys(slot, from, to, 1))
        -- A key is here, the other one there: nothing is done, however long it is tried.
        local err
        clock.wait_until(function() -- its time may end while an answer is on its way
            local moved
            moved, err = cache:rename(a, b, { timeout = 0.2 })
            assert.is_nil(moved)
            return err.code ~= "timeout" and err.code ~= "outcomeUnknown"
        end, 10, "a try that ends between two answers")
        assert.equal("unavailable", err.code)
        assert.matches("TRYAGAIN", err.message)
        assert.same({ 1, 2 }, { (cache:get(a)), (cache:get(b)) })
        finish()
        assert.is_true((cache:copy(a, c)))
        assert.is_true((cache:rename(a, b)))
        assert.same({ 1, 1 }, { (cache:get(b)), (cache:get(c)) })
    end)
end)

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("on a cluster, inside nginx, driver " .. driver .. ":", function()
        if not possible then
            pending(reason)
            return
        end
        local web

        setup(function() web = nginx.start({ locations = { ["/run"] = RUN } }) end)
        teardown(function() web:stop() end)

        local function run(query)
            local place = ("driver=%s&url=%s&other_url=%s&ports=%s&pids=%s"):format(
                driver, bed.nodes[1]:url(), bed.nodes[2]:url(), table.concat(ports, ","),
                table.concat(pids, ","))
            local status, message = web:get("/run?" .. place .. "&" .. query, { timeout = 60 })
            assert.equal("", message)
            assert.equal(200, status)
        end

        for i, case in ipairs(api_cases) do
            it(case[1], function() run("case=" .. i) end)
        end
        for i, case in ipairs(api_cases.light) do
            it(case[1], function() run("light=1&case=" .. i) end)
        end

        it("nothing of all this was worth a complaint in the error log", function()
            -- Cases have jobs that fail, and that is told there: background_spec.
            assert.same({}, web:complaints("redcache: background work failed: "))
        end)
    end)
end
