-- usage - how the public methods are called, told to a caller that calls them otherwise.
--
-- What:   the arguments of each method, for the texts of argument errors; guard(), which answers a
--         method called with a dot, and gives background work its turn; and what docs/api is
--         held to.
-- Errors: raised at the line of the caller.

local usage = {}

-- By class and method: what stands between the parentheses.
local ARGUMENTS = {
    cache = {
        get = "key, opts", exists = "key, opts", ttl = "key, opts", delete = "key, opts",
        set = "key, value, ttl, opts", remember = "key, ttl, fn, opts",
        rememberForever = "key, fn, opts", put = "key, ttl, fn, opts", getMulti = "keys, opts",
        setMulti = "map, ttl, opts", deleteMulti = "keys, opts", lock = "name, opts",
        rememberMulti = "keys, ttl, fn, opts",
        lockMulti = "names, opts",
        putMulti = "keys, ttl, fn, opts",
        warm = "iterator, opts",
        loader = "fn, opts",
        tryLock = "name, opts", withLock = "name, opts, fn", namespace = "name, opts",
        touch = "key, ttl, opts", expire = "key, ttl, opts", expireAt = "key, at, opts",
        persist = "key, opts",
        rename = "from, to, opts", copy = "from, to, opts",
        add = "key, value, ttl, opts", replace = "key, value, ttl, opts",
        cas = "key, version, value, ttl, opts", getSet = "key, value, ttl, opts",
        getDelete = "key, opts", update = "key, fn, ttl, opts",
        touchMulti = "keys, ttl, opts", expireMulti = "keys, ttl, opts",
        incr = "key, n, opts", decr = "key, n, opts", incrFloat = "key, n, opts",
        wrap = "name, fn, opts", session = "opts",
        limiter = "opts",
        semaphore = "name, n, opts",
        bloom = "",
        withSemaphore = "name, n, opts, fn",
        readWriteLock = "name",
        afterCommit = "fn, opts",
        invalidateTags = "tags, opts",
        tags = "key, opts",
        addTags = "key, tags, opts",
        keysByTag = "tag, opts",
        explain = "key, opts",
        scan = "pattern, opts", keys = "pattern, limit, opts",
        deleteByPattern = "pattern, opts", flush = "opts",
        cancel = "tag", authenticate = "user, password, ttl", close = "timeout", stats = "",
        health = "", metrics = "", request = "",
        redis = "opts",
        work = "seconds",
        onInvalidate = "fn",
        keepFresh = "key, every, fn, opts",
        setBehind = "key, value, ttl, opts",
        deadLetters = "opts", replayDeadLetters = "keys", dropDeadLetters = "keys",
        breaker = "state, address",
    },
    redis = { command = "name, ...", pipeline = "fn, opts", publish = "channel, message",
        key = "name", script = "source", transaction = "fn, opts",
        subscribe = "channels, opts", psubscribe = "patterns, opts",
    },
    subscription = { next = "seconds", close = "" },
    transaction = { command = "name, ...", read = "name, ...", run = "script, keys, args" },
    pipeline = { command = "name, ...", run = "script, keys, args" },
    script = { run = "keys, args, opts" },
    lock = {
        acquire = "wait", extend = "ttl", release = "", valid = "", held = "", lost = "", ttl = "",
        fenceText = "",
    },
    semaphore = {
        acquire = "wait", extend = "ttl", release = "", valid = "", held = "", lost = "", ttl = "",
        fenceText = "",
    },
    bloom = {
        fill = "iterator, opts", add = "keys, opts", has = "key, opts", state = "opts",
        clear = "opts",
    },
    readWriteLock = {
        read = "opts", write = "opts", withRead = "opts, fn", withWrite = "opts, fn",
    },
    loader = { get = "key" },
    locks = { release = "", extend = "ttl", valid = "", lost = "", ttl = "", fences = "" },
    near = { stats = "", hot = "n" },
    listener = { close = "" },
    keeper = { stop = "", stats = "" },
    session = {
        create = "value, opts", get = "id, opts", set = "id, value, opts",
        regenerate = "id, opts", destroy = "id, opts",
    },
    limiter = { take = "key, n, opts", peek = "key, opts", reset = "key, opts" },
    commit = {
        delete = "key, opts", deleteMulti = "keys, opts", invalidateTags = "tags, opts",
    },
    iterator = { close = "", error = "" },
    clock = { advance = "seconds", now = "" },
    task = { wait = "" },
    -- Functions of the module, without a colon.
    redcache = {
        new = "opts", init = "opts", slot = "key", clock = "", run = "fn, ...", spawn = "fn, ...",
    },
}
-- What a request remembers is asked for as the cache is.
ARGUMENTS.request = ARGUMENTS.cache

---Every public call: what documentation is held to.
---@return table<string, table<string, string>> arguments by class ("redcache": the module's own
---functions; "request" is "cache") and method
function usage.calls()
    return ARGUMENTS
end

---How a method of the cache is called, as the end of an error text.
---@param method string
---@return string text "" for what is no method of the cache
function usage.hint(method)
    local arguments = ARGUMENTS.cache[method]
    return arguments and "; it is called " .. method .. "(" .. arguments .. ")" or ""
end

---The text for a call of a method on something that is no object of its class, or nil.
---@param self any
---@param class string
---@param field string that every object of the class has
---@param method string
---@return string|nil message for error()
function usage.fault(self, class, field, method)
    if type(self) == "table" and self[field] ~= nil then
        return nil
    end
    local arguments = ARGUMENTS[class][method] or "..."
    return class .. "." .. method .. " was called with a dot: write " .. class .. ":" .. method
        .. "(" .. arguments .. ")"
end

local function guarded(class, field, method, fn)
    -- No method takes more. A tail call: what fn raises at its caller's line is raised there.
    return function(self, a, b, c, d, e)
        local message = usage.fault(self, class, field, method)
        if message then
            error(message, 2)
        end
        return fn(self, a, b, c, d, e)
    end
end

jit.off(true) -- this file's own loops run once: what compiling them costs does not come back

-- Methods, by class, that wait for Redis and are in no hurry: a caller in plain Lua runs a piece of
-- background work before one of them begins (background.lua). A lock is not held up for that.
local WAITS = { cache = {}, session = ARGUMENTS.session, lock = { acquire = true } }
WAITS.semaphore = WAITS.lock
for method in pairs(ARGUMENTS.cache) do
    WAITS.cache[method] = true
end
for _, method in ipairs({ "lock", "semaphore", "namespace", "wrap", "session", "limiter", "loader",
    "request", "redis", "cancel", "authenticate", "close", "stats", "health", "metrics", "work",
    "onInvalidate", "keepFresh", "deadLetters", "replayDeadLetters", "dropDeadLetters",
    "readWriteLock" }) do
    WAITS.cache[method] = nil
end

-- The same for these.
local function guarded_that_waits(class, field, method, fn)
    return function(self, a, b, c, d, e)
        local message = usage.fault(self, class, field, method)
        if message then
            error(message, 2)
        end
        local client = self._client
        if client.due then
            client.due(client)
        end
        return fn(self, a, b, c, d, e)
    end
end

---A method of a class that answers a call with a dot.
---@param class string
---@param field string that every object has
---@param method string
---@param fn function
---@return function
function usage.guarded(class, field, method, fn)
    local guard = WAITS[class] and WAITS[class][method] and guarded_that_waits or guarded
    return guard(class, field, method, fn)
end

---Makes every method of a class answer a call with a dot.
---@param class string
---@param methods table the class; its methods are replaced
---@param field string that every object has
---@param hot? table<string, true> methods that look for themselves, where they fail
function usage.guard(class, methods, field, hot)
    for method in pairs(ARGUMENTS[class]) do
        local fn = methods[method]
        if fn and not (hot and hot[method]) then
            methods[method] = usage.guarded(class, field, method, fn)
        end
    end
end
jit.off(usage.guard) -- its loop makes closures, for which LuaJIT gives up after a while

return usage
