-- namespace - how the keys of a cache are named, and caches below a cache.
--
-- What:   prefixes joined by ":", the keys of locks, cache:namespace().
-- Not:    no tenant barrier by itself: the key "b:c" of namespace "a" is the key "c" of "a:b".

local core_client = require("redcache.core.client")
local options = require("redcache.options")

local namespace = {}

---The prefix of a namespace's keys.
---@param outer string the prefix it stands in, "" for none
---@param name string "" adds nothing
---@return string prefix
function namespace.prefix(outer, name)
    if name == "" then
        return outer
    end
    return outer .. name .. ":"
end

---The key of a lock. The braces are a hash tag: the lock's helper keys share its slot.
---@param prefix string
---@param name string
---@return string key
function namespace.lock_key(prefix, name)
    return prefix .. "lock:{" .. name .. "}"
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
    settings.near = nil
    local ok, message = options.read(settings, opts, "namespace", "namespace")
    if ok and settings.near and not self._client.near then
        ok, message = false, "bad option 'near' to namespace: the cache was opened without one"
    end
    if ok then
        message = options.complete_plain(settings, opts, outer, "namespace")
            or options.grace_fault(opts and opts.grace, settings.plain, "namespace")
        ok = message == nil
        settings.grace = settings.plain and 0 or settings.grace
    end
    if not ok then
        error(message, 2)
    end
    local err = core_client.closed(self._client, "open the namespace", name)
    if err then
        return nil, err
    end
    local prefix = namespace.prefix(self._prefix, name)
    options.complete_near(settings, outer.near, prefix)
    return self._make(self._client, prefix, settings)
end

return namespace
