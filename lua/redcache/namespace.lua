-- namespace - how the keys of a cache are named, and caches below a cache.
--
-- What:   the name in Redis is "<path>:<key>". The path is the namespace's name, behind those of
--         the namespaces around it and "/". The first ":" ends it, for names hold none: so no key
--         of one namespace is a key of another one. A key stands there as it is, and its hash tag
--         counts. "<path>//" begins what is redcache's own: the keys of locks, limits,
--         tags and their index.
--         docs/keys.md says it for users.
-- Not:    a cache without a namespace is no namespace: its keys are all names in Redis.

local core_client = require("redcache.core.client")
local options = require("redcache.options")

local namespace = {}

local function escaped(byte)
    return string.format("%%%02X", string.byte(byte))
end

-- Braces of a name are a hash tag of all its keys if they enclose something, and would hide the
-- keys' own tags if they do not. And "{" begins the names of helper keys (core/base/slot.c): of
-- these "{tag}:" and "{tag}/" are none.
local function keeps_braces(name)
    if string.byte(name) == 123 then
        return string.find(name, "^{[^{}]+}$") ~= nil
    end
    return string.find(name, "^[^{]*{[^}]+}") ~= nil
end

---A namespace's name as it stands in the names of its keys: what would make two namespaces meet is
---"%" and two hex digits.
---@param name string not empty
---@return string
function namespace.escape(name)
    name = string.gsub(name, "[%%:/]", escaped)
    if string.find(name, "{", 1, true) and not keeps_braces(name) then
        name = string.gsub(name, "{", escaped)
    end
    return name
end

-- Of the prefix of a namespace's keys.
local function path_of(prefix)
    return string.sub(prefix, 1, -2)
end

---The prefix of a namespace's keys.
---@param outer string the prefix of the namespace it stands in, "" for none
---@param name string "" adds nothing
---@return string prefix
function namespace.prefix(outer, name)
    if name == "" then
        return outer
    elseif outer ~= "" then
        outer = path_of(outer) .. "/"
    end
    return outer .. namespace.escape(name) .. ":"
end

---The key of a lock. The braces are a hash tag: the lock's helper keys share its slot.
---@param prefix string
---@param name string
---@return string key
function namespace.lock_key(prefix, name)
    return path_of(prefix) .. "//lock:{" .. name .. "}"
end

---The key of a permit of a semaphore. All of one semaphore share a slot.
---@param prefix string
---@param name string
---@param permit integer
---@return string key
function namespace.permit_key(prefix, name, permit)
    return path_of(prefix) .. "//semaphore:{" .. name .. "}" .. permit
end

---The key of a read-write lock. Those of its readers begin with it, and share its slot.
---@param prefix string
---@param name string
---@return string key
function namespace.read_write_key(prefix, name)
    return path_of(prefix) .. "//rwlock:{" .. name .. "}"
end

---The prefix of the keys of a limiter.
---@param prefix string
---@param name string
---@return string prefix
function namespace.limit_prefix(prefix, name)
    return path_of(prefix) .. "//limit:" .. namespace.escape(name) .. ":"
end

---The prefix of the keys of a filter of keys.
---@param prefix string
---@return string prefix
function namespace.bloom_prefix(prefix)
    return path_of(prefix) .. "//bloom:"
end

---The key of a tag.
---@param prefix string
---@param name string
---@return string key
function namespace.tag_key(prefix, name)
    return path_of(prefix) .. "//tag:" .. name
end

---A key of the index of a tag (tag_index.lua).
---@param prefix string
---@param bucket string|integer "": the beginning of all of them
---@param name string
---@return string key
function namespace.index_key(prefix, bucket, name)
    local beginning = path_of(prefix) .. "//index:"
    return bucket == "" and beginning or beginning .. bucket .. ":" .. name
end

---A cache below this one: keys get one more prefix, options are inherited, the client is shared.
---@param name string not empty
---@param opts? table every option of redcache.new that is not about the connection
---@return redcache.Cache|nil cache
---@return redcache.Error|nil err closed
function namespace.namespace(self, name, opts)
    if type(name) ~= "string" or name == "" then
        error("bad argument 'name' to namespace: string that is not empty expected, got "
            .. (name == "" and "an empty one" or type(name)), 2)
    end
    local settings, outer = {}, self._settings
    for option in pairs(options.rows("namespace")) do
        settings[option] = outer[option]
    end
    settings.near, settings.bloom, settings.writeBehind = nil, nil, nil
    settings.maxInFlight, settings.maxRate, settings.maxWaiting = nil, nil, 0
    local ok, message = options.read(settings, opts, "namespace", "namespace")
    if ok and settings.near and not self._client.near then
        ok, message = false, "bad option 'near' to namespace: the cache was opened without one"
    end
    if ok then
        message = options.complete_plain(settings, opts, outer, "namespace")
            or options.plain_fault(opts, settings.plain, "namespace")
            or options.durable_fault(settings, self._client.is_memory, "namespace")
            or options.waiting_fault(settings, "namespace")
        ok = message == nil
        settings.background = outer.background
        if settings.plain then
            settings.grace, settings.refreshAfter, settings.xfetchBeta = 0, nil, 0
            settings.generation, settings.tagIndex = false, false
        end
    end
    local prefix = namespace.prefix(self._prefix, name)
    if ok then
        options.complete_near(settings, outer.near, prefix)
        if not (opts and opts.offline) and options.offline_fault(settings, "namespace") then
            settings.offline = false -- inherited, by one that has no near cache
        end
        message = options.offline_fault(settings, "namespace")
        ok = message == nil
    end
    if not ok then
        error(message, 2)
    end
    local err = core_client.closed(self._client, "open the namespace", name)
    if err then
        return nil, err
    end
    return self._make(self._client, prefix, settings)
end

return namespace
