--- What the public calls do in a phase of nginx, checked inside it: spec/nginx/phase_spec.lua.
--
-- What:   waits(phase) for phases that can wait; passes(phase) for those that cannot: they get
--         what is near, and send what they write; begins() for init_by_lua, where nothing is sent
--         either. What failed, or "ok", is kept for result(phase).
-- Not:    whether what was sent has arrived: only others can see that.

local assert = require("luassert")

local cases = { results = {} }

local function never() error("the loader ran") end
local function loader() return "loaded" end

--- Called in init_by_lua. The second cache has copies that are too old for it soon.
function cases.open(options)
    options.scheduler, options.namespace, options.maxStale = "resty", "p", 60
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
    assert_code("cannotWait", cache:ttl(missing))
    local values, failed = cache:getMulti({ missing })
    assert.same({}, values)
    assert.equal("cannotWait", failed[missing].code)
    assert.same({ "loaded", nil, "loader", "unstored" }, { cache:remember(missing, 60, loader) })
    assert_code("cannotWait", cache:redis():command("GET", missing))
    assert_code("cannotWait", cache:put(missing, 60, never))
    assert_code("cannotWait", cache:tryLock("job"))
    assert_code("cannotWait", cache:lock("job"):acquire())
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

--- In a phase that cannot wait; without is_warm nothing is near yet.
function cases.passes(phase, is_warm)
    keep(phase, function()
        local cache = cases.cache
        if is_warm then check_near() end
        check_reads(phase)
        assert.same({ true, nil, "sent" }, { cache:set("set:" .. phase, "v", 60) })
        assert.same({ true, {}, "sent" }, { cache:setMulti({ ["multi:" .. phase] = "v" }, 60) })
        assert.same({ true, nil, "sent" }, { cache:delete("old:" .. phase) })
        assert.same({ 1, nil, "sent" }, { cache:deleteMulti({ "older:" .. phase }) })
        assert.same({ true, nil, "sent" }, { cache:redis():command("SET", "raw:" .. phase, "v") })
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
    end)
end

return cases
