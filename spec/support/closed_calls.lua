--- Every public method, called on what belongs to a closed cache.
--
-- What:   closed_calls.check(open) opens a cache, makes one of each object that can be had from it,
--         closes it, and calls all of their methods. It returns a list of texts: what did not say
--         `closed`, and methods that have no row here. Empty: all is well.
-- Not:    for a caller that cannot wait.

local closed_calls = {}

local function unused()
    error("a loader ran for a closed cache", 0)
end

local function errors_of(values, failed)
    return next(values or {}), select(2, next(failed))
end

-- How a method is called so that it returns nil, err; a method with `false` has another way to say
-- that nothing is there, below.
local CACHE = {
    get = function(o) return o:get("k") end,
    set = function(o) return o:set("k", 1) end,
    delete = function(o) return o:delete("k") end,
    exists = function(o) return o:exists("k") end,
    ttl = function(o) return o:ttl("k") end,
    remember = function(o) return o:remember("k", 60, unused) end,
    rememberForever = function(o) return o:rememberForever("k", unused) end,
    rememberMulti = function(o) return errors_of(o:rememberMulti({ "k", "x" }, 60, unused)) end,
    warm = function(o) return nil, (select(3, o:warm({ k = 1 }))) end,
    putMulti = function(o) return errors_of(o:putMulti({ "k", "x" }, 60, unused)) end,
    put = function(o) return o:put("k", 60, unused) end,
    getMulti = function(o) return errors_of(o:getMulti({ "k", "absent" })) end,
    setMulti = function(o)
        local ok, failed = o:setMulti({ k = 1 })
        return ok, failed.k
    end,
    deleteMulti = function(o) return o:deleteMulti({ "k" }) end,
    touch = function(o) return o:touch("k") end,
    expire = function(o) return o:expire("k", 60) end,
    expireAt = function(o) return o:expireAt("k", os.time() + 60) end,
    persist = function(o) return o:persist("k") end,
    touchMulti = function(o) return errors_of(o:touchMulti({ "k" })) end,
    expireMulti = function(o) return errors_of(o:expireMulti({ k = 60 })) end,
    add = function(o) return o:add("k", 1) end,
    replace = function(o) return o:replace("k", 1) end,
    cas = function(o) return o:cas("k", "12345678", 1) end,
    getSet = function(o) return o:getSet("k", 1) end,
    getDelete = function(o) return o:getDelete("k") end,
    update = function(o) return o:update("k", unused) end,
    rename = function(o) return o:rename("k", "to") end,
    copy = function(o) return o:copy("k", "to") end,
    incr = function(o) return o:incr("n") end,
    decr = function(o) return o:decr("n") end,
    incrFloat = function(o) return o:incrFloat("n", 0.5) end,
    wrap = function(o) return o:wrap("other", unused)(1) end,
    session = function(o) return o:session() end,
    invalidateTags = function(o) return o:invalidateTags({ "tag" }) end,
    addTags = function(o) return o:addTags("k", { "tag" }) end,
    tags = function(o) return o:tags("k") end,
    explain = function(o) return o:explain("k") end,
    afterCommit = function(o) return o:afterCommit(unused) end,
    scan = function(o) return o:scan("*")() end,
    keys = function(o) return o:keys("*") end,
    deleteByPattern = function(o) return o:deleteByPattern("*") end,
    flush = function(o) return o:flush({ all = true }) end,
    lockMulti = function(o) return o:lockMulti({ "other", "two" }) end,
    tryLock = function(o) return o:tryLock("other") end,
    withSemaphore = function(o) return o:withSemaphore("other", 2, nil, unused) end,
    semaphore = false, readWriteLock = false,
    withLock = function(o) return o:withLock("other", nil, unused) end,
    namespace = function(o) return o:namespace("below") end,
    cancel = function(o) return o:cancel(1) end,
    authenticate = function(o) return o:authenticate("user", "password") end,
    stats = function(o) return o:stats() end,
    health = function(o) return o:health() end,
    breaker = function(o) return o:breaker("auto") end,
    metrics = function(o) return o:metrics() end,
    redis = function(o) return o:redis() end,
    work = function(o) return o:work(1) end,
    onInvalidate = function(o) return o:onInvalidate(unused) end,
    keepFresh = function(o) return o:keepFresh("k", 1, unused) end,
    setBehind = false, deadLetters = false, replayDeadLetters = false, dropDeadLetters = false,
    lock = false, request = false, loader = false, limiter = false, close = false,
    keysByTag = false, bloom = false,
    -- Made by others.
    open = false, init = false,
}
local LOCK = {
    acquire = function(o) return o:acquire(0) end,
    release = function(o) return o:release() end,
    extend = function(o) return o:extend(5) end,
    held = function(o) return o:held() end,
    valid = false, lost = false, ttl = false, fenceText = false,
}
local READ_WRITE_LOCK = {
    withRead = function(o) return o:withRead(nil, unused) end,
    withWrite = function(o) return o:withWrite(nil, unused) end,
    read = false, write = false,
}
local REDIS = {
    command = function(o) return o:command("GET", "k") end,
    pipeline = function(o) return o:pipeline(function(p) p:command("GET", "k") end) end,
    publish = function(o) return o:publish("c", "m") end,
    transaction = function(o) return o:transaction(unused, { watch = { "k" } }) end,
    subscribe = function(o) return o:subscribe("c") end,
    psubscribe = function(o) return o:psubscribe("c*") end,
    key = false, script = false,
}
local SUBSCRIPTION = { next = function(o) return o:next(1) end, close = false }
local SCRIPT = { run = function(o) return o:run({ "k" }) end }
local SESSION = {
    create = function(o) return o:create(1) end,
    get = function(o) return o:get() end,
    set = function(o) return o:set(nil, 1) end,
    regenerate = function(o) return o:regenerate(("x"):rep(32)) end,
    destroy = function(o) return o:destroy() end,
}
local BLOOM = {
    fill = function(o) return o:fill(unused) end,
    add = function(o) return o:add("k") end,
    has = function(o) return o:has("k") end,
    state = function(o) return o:state() end,
    clear = function(o) return o:clear() end,
}
local LIMITER = {
    take = function(o) return o:take("k") end,
    peek = function(o) return o:peek("k") end,
    reset = function(o) return o:reset("k") end,
}
local ITERATOR = { close = false, error = false }
local LOADER = { get = function(o) return o:get("k") end }
local LOCKS = {
    release = function(o) return o:release() end,
    extend = function(o) return o:extend(5) end,
    valid = false, lost = false, ttl = false, fences = false,
}
local BEHIND = {
    setBehind = function(o) return o:setBehind("k", 1) end,
    deadLetters = function(o) return o:deadLetters() end,
    replayDeadLetters = function(o) return o:replayDeadLetters() end,
    dropDeadLetters = function(o) return o:dropDeadLetters() end,
}
local LISTENER = { close = false }
local NEAR = {
    stats = function(o) return o:stats() end,
    hot = function(o) return o:hot() end,
}

-- With the options that go other ways.
local OTHERS = {
    ["get, fresh"] = function(o) return o:get("k", { fresh = true }) end,
    ["get, near = false"] = function(o) return o:get("k", { near = false }) end,
    ["get, copy"] = function(o) return o:get("k", { copy = true }) end,
    ["get, why"] = function(o) return o:get("k", { why = true }) end,
    ["remember, why"] = function(o) return o:remember("k", 60, unused, { why = true }) end,
    ["get of what is not there"] = function(o) return o:get("absent") end,
    ["get of what was negative"] = function(o) return o:get("nothing") end,
    ["remember, onTimeout = load"] = function(o)
        return o:remember("k", 60, unused, { onTimeout = "load" })
    end,
    ["remember, fresh"] = function(o) return o:remember("k", 60, unused, { fresh = true }) end,
    ["put, hiding the old"] = function(o)
        return o:put("k", 60, unused, { serveOld = false, strict = true })
    end,
    ["getMulti of many"] = function(o)
        local keys = {}
        for i = 1, 200 do keys[i] = "k" .. i end
        return errors_of(o:getMulti(keys))
    end,
    ["get, version"] = function(o) return o:get("k", { version = true }) end,
    ["delete, soft"] = function(o) return o:delete("k", { soft = true }) end,
    ["deleteMulti, soft"] = function(o) return o:deleteMulti({ "k" }, { soft = true }) end,
    ["exists of many"] = function(o) return o:exists({ "k", "absent" }) end,
    ["getMulti, fresh"] = function(o) return errors_of(o:getMulti({ "k" }, { fresh = true })) end,
}

local function list_methods(object)
    local list, class = {}, getmetatable(object).__index
    for name, fn in pairs(class) do
        if type(fn) == "function" and name:sub(1, 1) ~= "_" then list[#list + 1] = name end
    end
    table.sort(list)
    return list
end

local function try(complaints, what, call, object)
    local ran, value, err = pcall(call, object)
    if not ran then
        complaints[#complaints + 1] = what .. " raised " .. tostring(value)
    elseif value ~= nil or type(err) ~= "table" or err.code ~= "closed" then
        complaints[#complaints + 1] = what .. " gave " .. tostring(value) .. ", " .. tostring(err)
    elseif not err.message:find("^could not ") then
        complaints[#complaints + 1] = what .. " says " .. err.message
    end
end

local function try_all(complaints, name, object, rows)
    for _, method in ipairs(list_methods(object)) do
        local call = rows[method]
        if call then
            try(complaints, name .. ":" .. method, call, object)
        elseif call == nil then
            complaints[#complaints + 1] = name .. ":" .. method .. " has no row in closed_calls"
        end
    end
end

local function expect(complaints, what, is_right)
    if not is_right then complaints[#complaints + 1] = what end
end

--- @param open function makes a cache
--- @param close? function closes it; cache:close()
--- @return string[] complaints
function closed_calls.check(open, close)
    local complaints, cache = {}, open()
    local below, memo = cache:namespace("below"), cache:request()
    local sessions, indexed = cache:session(), cache:namespace("indexed", { tagIndex = true })
    local filter = cache:namespace("filtered", { bloom = { keys = 9 } }):bloom()
    local raw, scan = cache:redis(), cache:scan("*")
    local behind = cache:namespace("behind", { writeBehind = { write = unused } })
    local script, subscription = raw:script("return 1"), assert(raw:subscribe("c"))
    local held = assert(cache:tryLock("held", { ttl = 600 }))
    local free = cache:lock("free")
    local loader = cache:loader(unused)
    local nested = assert(cache:tryLock("nested", { ttl = 600, reentrant = true }))
    assert(nested:acquire())
    local reader = cache:readWriteLock("held"):read({ ttl = 600 })
    assert(reader:acquire(0))
    local permit = cache:semaphore("held", 2, { ttl = 600 })
    assert(permit:acquire(0))
    local limiters = { cache:limiter({ limit = 9, window = 9 }),
        cache:limiter({ kind = "fixed", limit = 9, window = 90, budget = 5 }) }
    assert(limiters[2]:take("k"))
    local listener = cache.near:stats() and cache:onInvalidate(function() end)
    local several = assert(cache:lockMulti({ "held 1", "held 2" }, { ttl = 600 }))
    for _, one in ipairs({ cache, below }) do
        assert(one:set("k", { 1 }, 60))
        assert(one:get("k") and one:get("k") and one:get("absent") == nil) -- into L0
        assert(one:remember("nothing", 60, function() return nil end) == nil)
        assert(one:get("nothing") == nil)
    end
    assert(scan())
    assert(memo:get("k") and memo:get("absent") == nil)
    if close then close(cache) else cache:close() end
    for name, one in pairs({ cache = cache, namespace = below }) do
        try_all(complaints, name, one, CACHE)
        try_all(complaints, name .. ".near", one.near, NEAR)
        for what, call in pairs(OTHERS) do try(complaints, name .. ":" .. what, call, one) end
        try_all(complaints, name .. ":lock", one:lock("late"), LOCK)
        try_all(complaints, name .. ":request", one:request(), CACHE)
    end
    try(complaints, "keysByTag", function(o) return o:keysByTag("tag") end, indexed)
    for method, call in pairs(BEHIND) do try(complaints, method, call, behind) end
    try_all(complaints, "request", memo, CACHE)
    try_all(complaints, "filter", filter, BLOOM)
    try_all(complaints, "redis", raw, REDIS)
    try_all(complaints, "script", script, SCRIPT)
    try(complaints, "iterator", function(o) return o() end, scan)
    expect(complaints, "an iterator tells no error", scan:error().code == "closed")
    try_all(complaints, "iterator", scan, ITERATOR)
    try_all(complaints, "subscription", subscription, SUBSCRIPTION)
    try_all(complaints, "lock that was held", held, LOCK)
    try_all(complaints, "lock", free, LOCK)
    try_all(complaints, "reentrant lock that was held", nested, LOCK)
    try_all(complaints, "reentrant lock", cache:lock("late", { reentrant = true }), LOCK)
    try_all(complaints, "fair lock", cache:lock("late", { fair = true }), LOCK)
    try_all(complaints, "reader that was in", reader, LOCK)
    try_all(complaints, "reader", cache:readWriteLock("late"):read(), LOCK)
    try_all(complaints, "read-write lock", cache:readWriteLock("late"), READ_WRITE_LOCK)
    try_all(complaints, "permit that was held", permit, LOCK)
    try_all(complaints, "semaphore", cache:semaphore("late", 2), LOCK)
    expect(complaints, "a permit is valid", permit:valid() == false and permit:ttl() == 0)
    try_all(complaints, "session", sessions, SESSION)
    try_all(complaints, "locks", several, LOCKS)
    try_all(complaints, "loader", loader, LOADER)
    for _, one in ipairs(limiters) do try_all(complaints, "limiter", one, LIMITER) end
    if listener then
        try_all(complaints, "listener", listener, LISTENER)
        expect(complaints, "a listener is closed", listener:close() == true)
    end
    expect(complaints, "locks are valid", several:valid() == false and several:ttl() == 0)
    for _, lock in ipairs({ held, free }) do
        expect(complaints, "a lock is valid", lock:valid() == false and lock:ttl() == 0)
        expect(complaints, "lost is no boolean", type(lock:lost()) == "boolean")
    end
    expect(complaints, "close again", cache:close() == true and below:close(0) == true)
    return complaints
end

return closed_calls
