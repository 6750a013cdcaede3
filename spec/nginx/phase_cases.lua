--- What the public calls do in a phase of nginx, checked inside it: spec/nginx/phase_spec.lua.
--
-- What:   waits(phase) for phases that can wait; passes(phase) for those that cannot, while Redis
--         says nothing: they get what is near, and send what they write; begins() for
--         init_by_lua, where nothing is sent either. What failed, or "ok", is kept for
--         result(phase).
-- Not:    whether what was sent has arrived: only others can see that.

local assert = require("luassert")

local cases = { results = {} }

local function never() error("the loader ran") end
local function loader() return "loaded" end

--- Called in init_by_lua. The second cache has copies that are too old for it soon.
function cases.open(options)
    options.scheduler, options.namespace, options.maxStale = "resty", "p", 60
    -- Redis is silent for as long as nginx takes to start: what was sent has to live for longer.
    options.commandTimeout, options.connectTimeout = 20, 20
    cases.cache = require("redcache").new(options)
    cases.graced = cases.cache:namespace("g", { grace = 60, maxStale = 0.005 })
end

local function keep(phase, fn)
    local ok, err = xpcall(fn, function(cause)
        return debug.traceback(tostring(type(cause) == "table" and cause.message or cause), 2)
    end)
    cases.results[phase] = ok and "ok" or err
end

function cases.result(phase)
    return cases.results[phase] or "it did not run"
end

local function assert_code(code, value, err, source)
    assert.is_nil(value)
    assert.is_nil(source)
    assert.equal(code, err and err.code)
end

local function assert_near(value, err, source)
    assert.is_nil(err)
    assert.equal("v", value)
    assert.is_not_nil(({ near = 1, l0 = 1 })[source])
end

--- In a phase that can wait: makes the copies that passes() reads.
function cases.warm()
    for _, cache in ipairs({ cases.cache, cases.graced }) do
        assert(cache:set("near", "v", 300))
        assert(cache:get("near") == "v")
        assert(cache:get("near") == "v")
    end
end

function cases.waits(phase)
    keep(phase, function()
        local cache, key = cases.cache, "k:" .. phase
        assert.same({ true }, { cache:set(key, "v", 60) })
        assert.equal("v", (cache:get(key, { near = false })))
        assert.is_true((cache:exists(key)))
        assert.is_true((cache:delete(key)))
        assert.same({ "loaded", nil, "loader" }, { cache:remember(key, 60, function()
            ngx.sleep(0.005)
            return "loaded"
        end) })
        assert.same({ "put" }, { cache:put(key, 60, function() return "put" end) })
        assert.same({ 1 }, { cache:deleteMulti({ key }) })
        assert.equal("in", (cache:withLock("job:" .. phase, {}, function() return "in" end)))
    end)
end

-- What needs an answer, and what does not need one: both kinds of phases that cannot wait.
local function check_reads(phase)
    local cache, missing = cases.cache, "missing:" .. phase
    assert_code("cannotWait", cache:get(missing))
    assert_code("cannotWait", cache:exists(missing))
    assert_code("cannotWait", cache:exists({ missing }))
    assert_code("cannotWait", cache:ttl(missing))
    assert_code("cannotWait", cache:tags(missing))
    assert_code("cannotWait", cache:namespace("i", { tagIndex = true }):keysByTag("a"))
    local values, failed = cache:getMulti({ missing })
    assert.same({}, values)
    assert.equal("cannotWait", failed[missing].code)
    assert.same({ "loaded", nil, "loader", "unstored" }, { cache:remember(missing, 60, loader) })
    local report, reason = cache:explain(missing)
    assert.same({ nil, "cannotWait" }, { report.redis, reason.code })
    local raw = cache:redis()
    assert_code("cannotWait", raw:command("GET", missing))
    assert_code("cannotWait", raw:command("BLPOP", missing, 1))
    assert_code("cannotWait", raw:subscribe("c"))
    assert_code("cannotWait", raw:transaction(never, { watch = { missing } }))
    assert_code("cannotWait", cache:scan("*")())
    assert_code("cannotWait", cache:keys("*"))
    local deleted, why = cache:deleteByPattern("nothing*")
    assert_code("cannotWait", deleted, why)
    deleted, why = cache:namespace("empty"):flush()
    assert_code("cannotWait", deleted, why)
    assert_code("cannotWait", cache:put(missing, 60, never))
    assert_code("cannotWait", cache:set(missing, "v", 60, { tags = { "not near" } }))
    local filtered = cache:namespace("filtered", { bloom = { keys = 9 } })
    assert_code("cannotWait", filtered:set(missing, "v"))
    assert_code("cannotWait", filtered:incr(missing))
    assert_code("cannotWait", filtered:bloom():fill(never))
    assert_code("cannotWait", filtered:bloom():add(missing))
    assert_code("cannotWait", filtered:bloom():state())
    assert_code("cannotWait", filtered:bloom():clear())
    assert.is_true(filtered:bloom():has(missing))
    assert_code("cannotWait", cache:limiter({ limit = 9, window = 9 }):peek(missing))
    assert_code("cannotWait", cache:tryLock("job"))
    assert_code("cannotWait", cache:lock("job"):acquire())
    assert_code("cannotWait", cache:lock("job", { reentrant = true }):acquire())
    assert_code("cannotWait", cache:lock("job", { fair = true }):acquire())
    assert_code("cannotWait", cache:readWriteLock("job"):read():acquire())
    assert_code("cannotWait", cache:readWriteLock("job"):withWrite({}, never))
    assert_code("cannotWait", cache:semaphore("job", 2):acquire())
    assert_code("cannotWait", cache:withSemaphore("job", 2, {}, never))
    assert_code("cannotWait", cache:withLock("job", {}, never))
end

local function check_near()
    local cache, graced = cases.cache, cases.graced
    assert_near(cache:get("near"))
    assert_near(cache:remember("near", 60, never))
    assert.equal("v", cache:getMulti({ "near" }).near)
    assert.same({ "v", nil, "stale" }, { graced:remember("near", 60, never) })
    assert.same({ "v", nil, "stale" }, { graced:get("near") })
end

local function assert_sent(value, err, sent)
    assert.same({ true, nil, "sent" }, { value, err, sent })
end

-- The same of calls with many keys.
local function assert_all_sent(key, found, failed, sent)
    assert.same({ { [key] = true }, {}, "sent" }, { found, failed, sent })
end

-- Scripts of their own: counters and lives. A key each: one that Redis does not know yet is sent
-- again behind others.
local function check_sent(phase)
    local cache = cases.cache
    local function of(name, ttl)
        local key = name .. ":" .. phase
        assert_sent(cache:set(key, "v", ttl or 60))
        return key
    end
    local many, all = of("touchMulti"), of("expireMulti")
    assert_sent(cache:expire(of("expire"), 900))
    assert_sent(cache:touch(of("touch"), 900))
    assert_sent(cache:expireAt(of("expireAt"), ngx.time() + 900))
    assert_sent(cache:persist(of("persist")))
    assert_all_sent(many, cache:touchMulti({ many }, 900))
    assert_all_sent(all, cache:expireMulti({ [all] = 900 }))
    assert_sent(cache:delete(of("soft"), { soft = true }))
    local open = cache:limiter({ limit = 9, window = 600 })
    local closed = cache:limiter({ limit = 9, window = 600, onUnavailable = "deny" })
    local none = { remaining = 0, resetAfter = 0, retryAfter = 0 }
    assert.same({ true, none, "sent" }, { open:take("open:" .. phase) })
    assert.same({ false, none, "sent" }, { closed:take("closed:" .. phase) })
    assert_sent(open:reset("reset:" .. phase))
    assert.same({ 1, nil, "sent" }, { cache:deleteMulti({ of("softs") }, { soft = true }) })
    local committed = of("committed")
    assert_sent(cache:redis():command("SET", "p//tag:gone:" .. phase, "v"))
    assert.same({ "row" }, { cache:afterCommit(function(commit)
        commit:delete(committed)
        commit:invalidateTags({ "gone:" .. phase })
        return "row"
    end) })
    assert_sent(cache:add("add:" .. phase, "v", 60))
    assert_sent(cache:replace(of("replace"), "v", 900))
    assert_sent(cache:cas(of("cas", 900), ("x"):rep(8), "v", 60))
    assert.same({ nil, nil, "sent" }, { cache:getSet(of("getSet"), "v", 900) })
    assert.same({ nil, nil, "sent" }, { cache:getDelete(of("getDelete")) })
    assert_code("cannotWait", cache:update(of("update"), never))
    assert_code("cannotWait", cache:addTags(of("update"), { "a" }))
    assert_sent(cache:rename(of("rename"), "renamed:" .. phase))
    assert_sent(cache:copy(of("copy"), "copied:" .. phase))
    assert_sent(cache:incr("incr:" .. phase, 5))
    assert_sent(cache:decr("decr:" .. phase, 2))
    assert_sent(cache:incrFloat("incrFloat:" .. phase, 0.5))
end

-- Sessions: what is sent can be read later, by its id.
local function check_sessions()
    local sessions = cases.cache:session()
    local id, err, sent = sessions:create("v")
    assert.same({ 32, nil, "sent" }, { #id, err, sent })
    assert_code("cannotWait", sessions:get(id))
    assert.same({ true, nil, "sent" }, { sessions:set(id, "w") })
    id, err, sent = sessions:regenerate(id)
    assert.same({ 32, nil, "sent" }, { #id, err, sent })
    assert.same({ true, nil, "sent" }, { sessions:destroy(id) })
end

--- In a phase that cannot wait; without is_warm nothing is near yet.
function cases.passes(phase, is_warm)
    keep(phase, function()
        local cache = cases.cache
        if is_warm then check_near() end
        check_reads(phase)
        assert_sent(cache:set("set:" .. phase, "v", 60))
        assert.same({ true, {}, "sent" }, { cache:setMulti({ ["multi:" .. phase] = "v" }, 60) })
        assert_sent(cache:delete("old:" .. phase))
        assert.same({ 1, nil, "sent" }, { cache:deleteMulti({ "older:" .. phase }) })
        assert_sent(cache:redis():command("SET", "raw:" .. phase, "v"))
        check_sent(phase)
        check_sessions()
    end)
end

--- Batches that take more than one write, in a phase that cannot wait.
function cases.sends_many()
    keep("many", function()
        local map, keys = {}, {}
        for i = 1, 9000 do
            keys[i] = "big:" .. i
            map[keys[i]] = i
        end
        local ok, failed = cases.cache:setMulti(map, 60)
        assert.same({ true, {} }, { ok, failed })
        local found
        found, failed = cases.cache:touchMulti(keys, 900)
        assert.same({ true, {} }, { found["big:9000"], failed })
    end)
end

--- In init_by_lua: whatever would start something is refused.
function cases.begins()
    keep("init", function()
        check_reads("init")
        assert_code("cannotWait", cases.cache:set("set:init", "v", 60))
        assert_code("cannotWait", cases.cache:delete("old:init"))
        assert_code("cannotWait", cases.cache:deleteMulti({ "old:init" }))
        assert_code("cannotWait", cases.cache:redis():command("SET", "raw:init", "v"))
        assert_code("cannotWait", cases.cache:touch("old:init"))
        assert_code("cannotWait", cases.cache:incr("count:init"))
        assert_code("cannotWait", cases.cache:session():create("v"))
        assert_code("cannotWait", cases.cache:add("count:init", 1))
        assert_code("cannotWait", cases.cache:getSet("count:init", 1))
        local found, failed = cases.cache:touchMulti({ "old:init" })
        assert.same({ {}, "cannotWait" }, { found, failed["old:init"].code })
    end)
end

return cases
