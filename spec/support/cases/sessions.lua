-- Cases (spec/support/api_cases.lua): sessions.

local assert = require("luassert")
local group = require("spec.support.case_group")

local cases = group.new()
local case = cases.case
local report = group.report

-- The name in Redis of a session's key.
local function key_of(id, name)
    return ("app/%s:{%s}%s"):format(name or "session", id:sub(1, 4), id:sub(5))
end

case("a session lives as long as it is used", function(bed)
    local sessions, redis = bed.cache:session({ ttl = 20 }), bed.redis
    local id = assert(sessions:create({ user = 7 }))
    assert.is_truthy(id:match("^[%w_-]+$") and #id == 32)
    local left = redis:call("PTTL", key_of(id))
    assert.is_true(left > 10000 and left <= 20000, left)
    for _, use in ipairs({
        function() assert.same({ value = { user = 7 } }, report(sessions:get(id))) end,
        function() assert.is_true((sessions:set(id, { user = 8 }))) end,
    }) do
        redis:call("PEXPIRE", key_of(id), 5000)
        use()
        left = redis:call("PTTL", key_of(id))
        assert.is_true(left > 10000 and left <= 20000, left)
    end
    assert.same({ value = { user = 8 } }, report(bed.other():session():get(id)))
    redis:call("PEXPIRE", key_of(id), 1)
    bed.wait_until(function() return redis:call("EXISTS", key_of(id)) == 0 end, 2, "its end")
    assert.same({}, report(sessions:get(id)))
    assert.is_false((sessions:set(id, 1)))
end)

case("a session is read and lengthened in one command", function(bed)
    local sessions = bed.cache:session()
    local id = assert(sessions:create("v"))
    local before = bed.cache:stats().requests
    assert.equal("v", (sessions:get(id)))
    assert.equal(1, bed.cache:stats().requests - before)
end)

case("a session that has ended does not come back", function(bed)
    local sessions = bed.cache:session()
    local id = assert(sessions:create("v"))
    assert.is_true((bed.other():session():destroy(id)))
    assert.is_false((sessions:destroy(id)))
    assert.same({}, report(sessions:get(id)))
    assert.is_false((sessions:set(id, "w")))
    assert.is_false((sessions:regenerate(id)))
    assert.equal(0, bed.redis:call("EXISTS", key_of(id)))
end)

case("a new id of a session ends the old one", function(bed)
    local sessions = bed.cache:session({ name = "login", ttl = 20 })
    local old = assert(sessions:create({ user = 7 }))
    bed.redis:call("PEXPIRE", key_of(old, "login"), 5000)
    local id = assert(sessions:regenerate(old))
    assert.equal(old:sub(1, 4), id:sub(1, 4))
    assert.is_true(old:sub(5) ~= id:sub(5))
    assert.same({}, report(sessions:get(old)))
    assert.is_true(bed.redis:call("PTTL", key_of(id, "login")) > 10000)
    assert.same({ value = { user = 7 } }, report(sessions:get(id)))
    local forever = bed.cache:session({ ttl = require("redcache").FOREVER })
    id = assert(forever:create("v"))
    assert.equal("v", (forever:get(id)))
    id = forever:regenerate(id)
    assert.is_true((forever:set(id, "w")))
    assert.equal(-1, bed.redis:call("PTTL", key_of(id)))
    assert.equal("w", (forever:get(id)))
end)

case("what is no id is no session, and nothing is sent for it", function(bed)
    local sessions = bed.cache:session()
    local id = assert(sessions:create("v"))
    local before = bed.cache:stats().requests
    for _, none in ipairs({ false, "", "x", id .. "x", id:sub(2), "*" .. id:sub(2),
        id:sub(1, 31) .. "\n", "{a}" .. id:sub(4), ("%"):rep(32) }) do
        none = none or nil
        assert.same({}, report(sessions:get(none)))
        assert.is_false((sessions:set(none, 1)))
        assert.is_false((sessions:regenerate(none)))
        assert.is_false((sessions:destroy(none)))
    end
    assert.equal(before, bed.cache:stats().requests)
end)

case("ids do not repeat themselves, and errors do not show them", function(bed)
    local sessions, seen = bed.cache:session(), {}
    for _ = 1, 200 do
        local id = assert(sessions:create(1))
        assert.is_nil(seen[id])
        seen[id] = true
    end
    local id = next(seen)
    if not bed.is_memory then
        bed.redis:call("DEL", key_of(id))
        bed.redis:call("LPUSH", key_of(id), "x")
        local _, err = sessions:get(id)
        assert.equal("redis", err.code)
        assert.is_nil(err.key)
        assert.is_nil(err.message:find(id, 1, true) or err.message:find(id:sub(5), 1, true))
        bed.redis:call("DEL", key_of(id))
    end
    bed.redis:call("SET", key_of(id), "\251\1\1\3\0\0\0\0" .. ("\0"):rep(16) .. "\193")
    assert.equal("decode", report(sessions:get(id)).code)
end)

case("wrong calls of sessions are errors that name the argument, and send nothing", function(bed)
    local cache, sessions = bed.cache, bed.cache:session()
    local id = assert(sessions:create("v"))
    local before = cache:stats().requests
    for text, fn in pairs({
        ["unknown option 'tll' to session"] = function() cache:session({ tll = 1 }) end,
        ["bad option 'ttl' to session"] = function() cache:session({ ttl = 0 }) end,
        ["bad option 'name' to session"] = function() cache:session({ name = "" }) end,
        ["bad argument 'value' to create"] = function() sessions:create() end,
        ["bad argument 'id' to get"] = function() sessions:get(7) end,
        ["bad argument 'id' to set"] = function() sessions:set({}, 1) end,
        ["bad argument 'value' to set"] = function() sessions:set(id, nil) end,
        ["bad argument 'id' to regenerate"] = function() sessions:regenerate(7) end,
        ["bad argument 'id' to destroy"] = function() sessions:destroy(true) end,
        ["unknown option 'ttl' to get"] = function() sessions:get(id, { ttl = 1 }) end,
        ["bad option 'timeout' to create"] = function() sessions:create(1, { timeout = 0 }) end,
    }) do
        group.raises(text, fn)
    end
    assert.equal("encode", report(sessions:create(print)).code)
    assert.equal("encode", report(sessions:set(id, print)).code)
    assert.equal(before, cache:stats().requests)
end)

return cases
