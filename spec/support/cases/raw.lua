-- Cases (spec/support/api_cases.lua): cache:redis(): commands, pipelines. The commands are those
-- that memory:// knows, where they run, too.

local assert = require("luassert")
local group = require("spec.support.case_group")
local redcache = require("redcache")

local cases = group.new()
local case = cases.case
local report = group.report

local NULL = redcache.NULL

case("a raw command is answered as Lua likes it, by the whole names of its keys", function(bed)
    local raw = bed.cache:redis()
    assert.equal("OK", raw:command("SET", "k", "v"))
    assert.equal("v", raw:command("get", "k"))
    assert.equal("v", bed.redis:call("GET", "k"))
    assert.same({}, report(raw:command("GET", "absent")))
    assert.equal("app:k", raw:key("k"))
    assert.is_true(bed.cache:set("k", 7))
    assert.equal(1, raw:command("DEL", raw:key("k")))
    assert.is_false(bed.cache:exists("k"))
    assert.equal("a\0b\r\n", raw:command("ECHO", "a\0b\r\n"))
    assert.equal("", raw:command("ECHO", ""))
    assert.equal("0.1", raw:command("ECHO", 0.1):sub(1, 3))
end)

case("a raw integer is exact, in both directions", function(bed)
    local raw = bed.cache:redis()
    assert.equal(2 ^ 53 - 1, raw:command("INCRBY", "n", 2 ^ 53 - 1))
    local value = raw:command("INCRBY", "n", 2LL)
    assert.equal("cdata", type(value))
    assert.is_true(value == 9007199254740993LL)
    assert.equal("9007199254740993", raw:command("GET", "n"))
    assert.equal("OK", raw:command("SET", "n", value))
    assert.is_true(raw:command("DECRBY", "n", 2) == 2 ^ 53 - 1)
    assert.equal("OK", raw:command("SET", "n", 9223372036854775807LL))
    assert.equal("9223372036854775807", raw:command("GET", "n"))
end)

case("a raw command that fails says so, and nothing of its arguments", function(bed)
    local raw = bed.cache:redis()
    assert(raw:command("SET", "secret", "hunter2"))
    local value, err = raw:command("INCR", "secret")
    assert.same({ code = "redis" }, report(value, err))
    assert.matches("^could not run INCR: ERR value is not an integer", err.message)
    for _, command in ipairs({ { "INCR", "secret" }, { "NOSUCH", "hunter2" },
        { "AUTH", "hunter2" }, { "WATCH", "hunter2" }, { "SET", "hunter2" },
        { "ECHO", ("hunter2"):rep(2 ^ 21) } }) do
        value, err = raw:command(unpack(command))
        assert.is_nil(value)
        assert.not_matches("hunter2", err.message)
    end
    assert.equal("tooLarge", err.code)
    value, err = raw:command("WATCH", "k")
    assert.same({ code = "refused" }, report(value, err))
    assert.matches("see transaction()", err.message, 1, true)
    value, err = raw:command("SUBSCRIBE", "k")
    assert.same({ code = "refused" }, report(value, err))
    assert.matches("see subscribe()", err.message, 1, true)
end)

case("a pipeline is answered in order, an error at its place is a value", function(bed)
    local raw, places = bed.cache:redis(), {}
    local answers = assert(raw:pipeline(function(p)
        places[1] = p:command("SET", "a", "text")
        places[2] = p:command("GET", "none")
        places[3] = p:command("INCR", "a")
        places[4] = p:command("INCR", "n")
        places[5] = p:command("MGET", "a", "none", "n")
    end))
    assert.same({ 1, 2, 3, 4, 5 }, places)
    assert.same({ 5, "OK", 1 }, { #answers, answers[1], answers[4] })
    assert.equal(NULL, answers[2])
    assert.equal("redis", answers[3].code)
    assert.matches("^could not run INCR: ", answers[3].message)
    assert.same({ "text", "1" }, { answers[5][1], answers[5][3] })
    assert.equal(NULL, answers[5][2])
    assert.same({}, raw:pipeline(function() end))
end)

case("a pipeline of many keys goes to all of their nodes", function(bed)
    local raw = bed.cache:redis({ timeout = 10 })
    for _, answer in ipairs(assert(raw:pipeline(function(p)
        for i = 1, 300 do p:command("SET", "key" .. i, i) end
    end))) do
        assert.equal("OK", answer)
    end
    local answers = assert(raw:pipeline(function(p)
        for i = 1, 300 do p:command("GET", "key" .. i) end
    end))
    for i = 1, 300 do assert.equal(tostring(i), answers[i]) end
end)

case("what a pipeline's function throws is thrown on, and nothing is sent", function(bed)
    local raw, kept = bed.cache:redis()
    local ok, message = pcall(raw.pipeline, raw, function(p)
        p:command("SET", "k", 1)
        error("no", 0)
    end)
    assert.same({ false, "no" }, { ok, message })
    raw:pipeline(function(p) kept = p end)
    ok, message = pcall(kept.command, kept, "SET", "k", 1)
    assert.is_false(ok)
    assert.matches("the pipeline was sent", message)
    assert.is_nil(bed.redis:call("GET", "k") or nil)
end)

-- memory:// runs no scripts of the caller's own, and says so.
local function is_memory(bed) return bed.cache:redis():command("EVAL", "return 1", 0) ~= 1 end

case("a raw command goes to the node of its key, wherever that stands", function(bed)
    if is_memory(bed) then return end
    local raw = bed.cache:redis({ timeout = 10 })
    for i = 1, 30 do raw:command("SET", "warm" .. i, 1) end
    local before = bed.cache:stats().redirections
    for i = 1, 10 do
        local key = "s" .. i
        assert(raw:command("XADD", key, "*", "field", i))
        assert.equal("stream", raw:command("OBJECT", "ENCODING", key))
        assert.equal(1, raw:command("XINFO", "STREAM", key).length)
        local read = assert(raw:command("XREAD", "COUNT", 1, "STREAMS", key, 0))
        assert.is_table(read[key])
        assert.equal(0, raw:command("BITOP", "AND", "{" .. key .. "}c", "{" .. key .. "}none"))
        assert.equal(0, raw:command("SINTERCARD", 1, "none" .. i))
        assert.equal(key, raw:command("EVAL_RO", "return KEYS[1]", 1, key))
    end
    assert.equal(before, bed.cache:stats().redirections)
end)

case("a script of one's own runs by its SHA, alone and in a pipeline", function(bed)
    local raw = bed.cache:redis()
    local add = raw:script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    if is_memory(bed) then
        local value, err = add:run({ "n" }, { 1 })
        assert.same({ code = "redis" }, report(value, err))
        assert.matches("runs no scripts", err.message)
        return
    end
    assert.equal(5, add:run({ "n" }, { 5 }))
    assert.equal(7, (add({ "n" }, { "2" })))
    assert.equal("none", raw:script("return ARGV[1] or 'none'"):run())
    local value, err = add:run({ "n" }, { "x" })
    assert.same({ code = "redis" }, report(value, err))
    for _ = 1, 2 do
        local answers = assert(raw:pipeline(function(p)
            for i = 1, 20 do
                p:command("SET", "k" .. i, i)
                p:run(add, { "m" .. i }, { i })
            end
            p:run(add, { "n" }, { "x" })
        end))
        assert.same({ 41, "OK" }, { #answers, answers[1] })
        assert.equal("redis", answers[41].code)
        assert.is_true(answers[40] == 20 or answers[40] == 40)
        bed.redis:call("SCRIPT", "FLUSH")
    end
    assert.equal("40", raw:command("GET", "m20"))
end)

case("a script with FENCED lets no older holder write", function(bed)
    if is_memory(bed) then return end
    local raw = bed.cache:redis()
    local write = raw:script(redcache.FENCED .. [[
        if not fenced(KEYS[2], ARGV[1]) then return false end
        redis.call('SET', KEYS[1], ARGV[2])
        return true]])
    local old = assert(bed.cache:tryLock("job", { ttl = 600 }))
    local old_fence = old:fenceText()
    assert(old:release())
    local new = assert(bed.cache:tryLock("job", { ttl = 600 }))
    local keys = { "{job}value", "{job}fence" }
    assert.equal(1, write:run(keys, { new:fenceText(), "new" }))
    assert.is_nil((write:run(keys, { old_fence, "old" })))
    assert.same({ 1, NULL }, raw:pipeline(function(p)
        p:run(write, keys, { new:fenceText(), "newer" })
        p:run(write, keys, { old_fence, "old" })
    end))
    assert.equal("newer", raw:command("GET", keys[1]))
    assert(new:release())
end)

case("raw calls with bad arguments raise at the caller, and send nothing", function(bed)
    local raw = bed.cache:redis()
    local function refuses(text, method, ...) group.raises(text, raw[method], raw, ...) end
    for _, name in ipairs({ 1, {}, true, "" }) do
        refuses("bad argument 'name' to command", "command", name)
    end
    refuses("bad argument 'name' to command", "command")
    refuses("bad argument #2 to command: string or number expected, got nil", "command", "SET",
        nil, "v")
    refuses("bad argument #3 to command: string or number expected, got table", "command", "SET",
        "k", {})
    refuses("bad argument #3 to command: string or number expected, got boolean", "command", "SET",
        "k", true)
    refuses("bad argument #3 to command: string or number expected, got NaN", "command", "SET",
        "k", 0 / 0)
    refuses("bad argument 'fn' to pipeline", "pipeline", {})
    refuses("bad argument 'opts' to pipeline", "pipeline", function() end, 1)
    refuses("bad option 'timeout' to pipeline", "pipeline", function() end, { timeout = 0 })
    refuses("unknown option 'ttl' to pipeline", "pipeline", function() end, { ttl = 1 })
    refuses("bad argument #2 to publish", "publish", nil, "m")
    refuses("bad argument #3 to publish", "publish", "c", {})
    refuses("bad argument 'name' to key", "key", 1)
    refuses("bad argument #3 to command", "pipeline", function(p) p:command("SET", "k", {}) end)
    refuses("bad argument 'source' to script", "script", "")
    refuses("bad argument 'source' to script", "script", {})
    refuses("bad argument 'script' to run", "pipeline", function(p) p:run({}) end)
    local script = raw:script("return 1")
    for text, arguments in pairs({
        ["bad argument 'keys' to run: list"] = { "k" },
        ["bad argument 'keys' to run: string or number expected, got table"] = { { {} } },
        ["bad argument 'args' to run: list"] = { {}, 1 },
        ["bad argument 'args' to run: string or number expected, got boolean"] = { {}, { true } },
        ["bad option 'timeout' to run"] = { {}, {}, { timeout = -1 } },
    }) do
        group.raises(text, script.run, script, unpack(arguments))
    end
    local ok, message = pcall(bed.cache.redis, bed.cache, { retry = 1 })
    assert.is_false(ok)
    assert.matches("bad option 'retry' to redis", message)
    assert.is_nil(bed.redis:call("GET", "k") or nil)
end)

case("a raw write takes this machine's older copies of its keys away", function(bed)
    local cache = bed.open({ near = true, plain = true, codec = "raw", namespace = "" })
    local raw = cache:redis()
    local function kept(key)
        assert(cache:set(key, "old"))
        cache:get(key)
        return select(3, cache:get(key))
    end
    for _, write in ipairs({ { "SET", "k", "new" }, { "APPEND", "k", "er" }, { "DEL", "k" },
        { "UNLINK", "other", "k" }, { "MSET", "k", "1" }, { "GETDEL", "k" } }) do
        kept("k")
        if write[2] == "k" then
            raw:command(unpack(write))
        else
            raw:pipeline(function(p) p:command(unpack(write)) end)
        end
        local value = bed.redis:call("GET", "k") or nil
        assert.equal(value, (cache:get("k")))
    end
end)

case("a raw call ends at its time, and leaves nothing behind", function(bed)
    local raw = bed.cache:redis({ timeout = 0.05 })
    bed.silence(true)
    local value, err = raw:command("GET", "k")
    bed.silence(false)
    assert.is_nil(value)
    assert.is_true(err.code == "timeout" or err.code == "unavailable", err.code)
end)

return cases
