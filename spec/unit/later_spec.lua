local process = require("spec.support.process")
local temp = require("spec.support.temp")

-- What a process of its own prints: in this one others have used much already.
local function printed_by(program)
    local child = process.run({ "luajit", "-e", program })
    assert.equal(0, child.exit, child.err)
    return child.out
end

describe("a module that is loaded later", function()
    it("is none of those that a first read and write need", function()
        local out = printed_by([[
            local cache = require("redcache").new()
            assert(cache:set("key", 1))
            assert(cache:get("key") == 1)
            cache:close()
            for name in pairs(package.loaded) do
                print(name)
            end
        ]])
        assert.matches("\nredcache.near\n", out) -- so this is how one would be seen
        for _, name in ipairs({ "all", "batch", "behind_stream", "bloom", "explain", "hints",
            "key", "load", "lock", "many", "null", "offline", "redis",
            "remember", "run", "session", "tags", "unsent", "walk", "write_behind" }) do
            assert.is_nil(out:find("\nredcache." .. name .. "\n", 1, true), name)
        end
    end)

    it("brings each public method, and is asked for it once", function()
        printed_by([[
            local cache = require("redcache").new()
            local class, before, brought = getmetatable(cache), {}, 0
            local calls = require("redcache.usage").calls().cache
            for method in pairs(calls) do
                before[method] = class[method]
                assert(type(before[method]) == "function", method)
            end
            assert(cache:incr("n") == 1)
            assert(class.incr ~= before.incr and class.decr ~= before.decr)
            assert(before.incr(cache, "n") == 2) -- of somebody who has kept it
            local own = class.incr
            require("redcache.later").all()
            assert(class.incr == own)
            for method in pairs(calls) do
                brought = brought + (class[method] ~= before[method] and 1 or 0)
                before[method] = class[method]
            end
            assert(brought > 40, brought)
            require("redcache.later").all()
            for method in pairs(calls) do
                assert(class[method] == before[method], method)
            end
        ]])
    end)

    it("raises the errors of a first call at its caller's line", function()
        assert.equal([[
call:4: cache.incr was called with a dot: write cache:incr(key, n, opts)
call:5: bad argument 'key' to persist: string expected, got nil
call:6: bad argument 'fn' to remember: function expected, got nil; ]]
            .. "it is called remember(key, ttl, fn, opts)\n", printed_by([[
            assert(loadstring(
                "local cache = require('redcache').new()\n"
                .. "local calls = {}\n"
                .. "\n"
                .. "calls[1] = function() cache.incr('n') end\n"
                .. "calls[2] = function() cache:persist() end\n"
                .. "calls[3] = function() cache:remember('key', 1) end\n"
                .. "for i = 1, 3 do print(select(2, pcall(calls[i]))) end", "=call"))()
        ]]))
    end)

    it("that cannot be found is told so, and found when it is there again", function()
        printed_by([[
            local cache = require("redcache").new()
            local path = package.path
            package.path = ""
            for _ = 1, 2 do
                local ok, message = pcall(cache.incr, cache, "n")
                assert(not ok and message:find("module 'redcache.count' not found", 1, true))
                ok, message = pcall(require("redcache").run, function() end)
                assert(not ok and message:find("module 'redcache.run' not found", 1, true))
            end
            package.path = path
            assert(cache:incr("n") == 1)
            assert(require("redcache").run(function() return 7 end) == 7)
        ]])
    end)

    it("is tried again after something has thrown while it was loaded", function()
        printed_by([[
            local cache = require("redcache").new()
            local function fn() return 1 end
            local throws, count = 0, 0
            repeat
                count = count + 1
                local left = count * 7
                debug.sethook(function()
                    left = left - 1
                    if left == 0 then
                        debug.sethook()
                        error("a hook has thrown")
                    end
                end, "", 10)
                local ok, value = pcall(cache.remember, cache, "key", 60, fn)
                debug.sethook()
                assert(ok or tostring(value):find("a hook has thrown", 1, true), value)
                throws = throws + (ok and 0 or 1)
            until ok and left > 0
            assert(throws > 5, throws)
            assert(cache:remember("other", 60, fn) == 1)
            assert(cache:getMulti({ "other" }).other == 1)
        ]])
    end)

    it("is loaded by a call once the process has lived for a second", function()
        printed_by([[
            local redcache = require("redcache")
            local clock = redcache.clock()
            local cache = redcache.new({ url = "memory://", clock = clock })
            local function is_loaded()
                return package.loaded["redcache.lock"] ~= nil
            end
            assert(cache:get("key") == nil)
            clock:advance(0.99)
            assert(cache:get("key") == nil and not is_loaded())
            clock:advance(0.02)
            assert(cache:namespace("any") and not is_loaded()) -- it waits for nothing
            assert(cache:get("key") == nil and is_loaded())
            package.path, package.cpath = "", ""
            assert(cache:incr("n") == 1)
            assert(redcache.key("user", 7) == "user:7" and redcache.NULL ~= nil)
            assert(cache:withLock("job", { reentrant = true }, function() return 2 end) == 2)
            assert(cache:session():create({}))
            local text = redcache.new({ url = "memory://", clock = clock, codec = "number" })
            assert(text:set("number", 1))
            assert(not cache._client.due and not cache._client.rest)
        ]])
    end)

    it("is loaded so under work in the background, and in pieces", function()
        printed_by([[
            require("redcache.later").SECONDS = 0
            local cache = require("redcache").new()
            local client, calls, ran = cache._client, 0, false
            assert(cache:work(0))
            require("redcache.background").push(client, "id", function() ran = true end)
            while client.due do
                cache:get("key")
                calls = calls + 1
                assert(calls < 1000)
            end
            assert(ran)
            package.path, package.cpath = "", ""
            assert(cache:incr("n") == 1)
        ]])
    end)

    it("is left alone by a call where it cannot be found", function()
        printed_by([[
            require("redcache.later").SECONDS = 0
            local cache = require("redcache").new()
            local path = package.path
            package.path = ""
            assert(select("#", cache:get("key")) == 1)
            assert(not cache._client.due)
            package.path = path
            assert(cache:incr("n") == 1)
        ]])
    end)

    it("is refused where another release was installed meanwhile", function()
        local dir = temp.dir()
        process.run({ "cp", "-r", "lua/.", dir })
        local file = dir .. "/redcache/later.lua"
        local child = process.run({ "luajit", "-e", ([[
            package.path = "%s/?.lua"
            local function release(was, is)
                local file = assert(io.open("%s"))
                local text, count = file:read("*a"):gsub('RELEASE = "' .. was, 'RELEASE = "' .. is)
                assert(count == 1 and file:close())
                file = assert(io.open("%s", "w"))
                assert(file:write(text) and file:close())
            end
            require("redcache.later").SECONDS = 0
            local cache = require("redcache").new()
            release("0.1.0", "9.9.9")
            assert(select("#", cache:get("key")) == 1) -- all that it needs is there
            for _ = 1, 2 do
                local ok, message = pcall(cache.incr, cache, "n")
                assert(not ok and message:find("could not load 'redcache.count'", 1, true), message)
                assert(message:find("9.9.9, this process runs 0.1.0", 1, true), message)
                assert(message:find("restart it", 1, true), message)
                ok, message = pcall(require("redcache").new, { codec = "json" })
                assert(not ok and message:find("restart it", 1, true), message)
            end
            release("9.9.9", "0.1.0")
            assert(cache:incr("n") == 1)
        ]]):format(dir, file, file) })
        temp.remove(dir)
        assert.equal(0, child.exit, child.err)
    end)

    it("is there with redcache.all", function()
        printed_by([[
            local redcache = require("redcache.all")
            assert(redcache == require("redcache"))
            -- What is chosen by its name, and is no part of every program.
            require("redcache.scheduler.blocking")
            require("redcache.serializer.msgpack")
            package.path, package.cpath = "", ""
            local cache = redcache.new({ grace = 1, bloom = { keys = 9 } })
            assert(cache:remember("key", 60, function() return 1 end) == 1)
            assert(cache:getMulti({ "key" }).key == 1)
            assert(cache:incr("n") == 1)
            assert(cache:set("tagged", 1, 60, { tags = { "tag" } }))
            assert(cache:invalidateTags({ "tag" }))
            assert(cache:get("tagged", { why = true }) == nil)
            assert(cache:withLock("job", { reentrant = true }, function() return 2 end) == 2)
            assert(cache:explain("key"))
            assert(cache:session():create({}))
            assert(cache:redis():command("PING") == "PONG")
            assert(cache:keys("*", 10))
            assert(cache:delete("key", { soft = true }) ~= nil)
            assert(not pcall(cache.set, cache, "key", 1, 1, { tll = 1 }))
            assert(redcache.run(function() return 7 end) == 7)
            assert(cache:stats().hits)
            assert(cache:cancel(1) == 0)
            cache:close()
        ]])
    end)
end)
