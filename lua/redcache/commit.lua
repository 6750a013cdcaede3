-- commit - invalidations that wait for the end of a transaction: afterCommit.
--
-- What:   fn(commit) does the user's work elsewhere, and collects in `commit` what is to be
--         invalidated. Once fn has returned all of it is sent (unsent.lua); where fn throws, or
--         returns nil or false with a cause, nothing is.
-- Errors: what cannot be sent never changes what fn has returned: it is kept, tried again, counted
--         and told to onFailed.
-- Not:    no transaction of its own. A coroutine that vanishes inside of fn has sent nothing.

local core_client = require("redcache.core.client")
local errors = require("redcache.errors")
local many = require("redcache.many")
local namespace = require("redcache.namespace")
local options = require("redcache.options")
local tags = require("redcache.tags")
local unsent = require("redcache.unsent")
local usage = require("redcache.usage")

local getinfo, getlocal = debug.getinfo, debug.getlocal

-- An afterCommit further up than this is not looked for.
local MAX_LEVELS = 200

local commit = {}

---What a function collects. It belongs to one cache; what it has collected stands in `_collected`,
---which the calls within each other share. Errors: tooLarge, for nothing can stand there.
---@class redcache.Commit
---@field delete fun(self, key: string, opts?: { soft?: boolean }): true|nil, redcache.Error|nil
---@field deleteMulti fun(self, keys: string[], opts?: { soft?: boolean }): true|nil,
---redcache.Error|nil
---@field invalidateTags fun(self, tags: string[], opts?: { soft?: boolean }): true|nil,
---redcache.Error|nil
---@field package _cache redcache.Cache
---@field package _collected table clients: names by client, is_over, tells
local Commit = {}
Commit.__index = Commit

-- By method: the keys of its first argument, or an argument error; what stands in front of them in
-- Redis; how they are invalidated softly.
local METHODS = {
    delete = {
        read = function(key)
            return { key },
                type(key) ~= "string" and errors.argument("key", "delete", "string", key)
        end,
        prefix = function(cache) return cache._prefix end,
        soft = "soft",
    },
    deleteMulti = {
        read = function(keys) return keys, many.list_fault(keys, "deleteMulti") end,
        prefix = function(cache) return cache._prefix end,
        soft = "soft",
    },
    invalidateTags = {
        read = function(list) return list, tags.fault(list, "invalidateTags") end,
        prefix = function(cache) return namespace.tag_key(cache._prefix, "") end,
        soft = "softTag",
    },
}

-- Puts names down.
local function collect(self, keys, prefix, kind)
    local client, full = self._cache._client, {}
    local clients = self._collected.clients
    for i = 1, #keys do
        full[i] = prefix .. keys[i]
        local err = unsent.fault(client, full[i], keys[i])
        if err then
            return nil, err
        end
    end
    local names = clients[client]
    if names == nil then
        names = {}
        clients[client] = names
    end
    for i = 1, #full do
        names[full[i]] = unsent.both(names[full[i]], kind)
    end
    return true
end

for method, how in pairs(METHODS) do
    Commit[method] = function(self, what, opts)
        local keys, fault = how.read(what)
        local own
        if not fault then
            own, fault = options.read({}, opts, "collect", method)
        end
        if not fault and self._collected.is_over then
            fault = "could not " .. method .. ": the function of afterCommit has returned already"
        end
        if fault then
            error(fault, 2)
        end
        return collect(self, keys, how.prefix(self._cache), own.soft and how.soft or "delete")
    end
end

usage.guard("commit", Commit, "_cache")

-- Tells all who want to know. What they throw is dropped: the user's work is done.
local function tell(collected, err, names, dropped)
    for i = 1, #collected.tells do
        pcall(collected.tells[i], err, names, dropped)
    end
end

local function send_all(collected, own)
    for client, names in pairs(collected.clients) do
        local err, failed, dropped = unsent.send(client, names, own)
        if err then
            tell(collected, err, failed, dropped)
        end
    end
end

-- The end of the outermost call: fn has returned.
local function conclude(collected, own, ...)
    collected.is_over = true
    local value, cause = ...
    if value or cause == nil then
        pcall(send_all, collected, own)
    end
    return ...
end

-- This frame is the sign for calls within fn that there is one around them.
local function run(collected, own, fn, self)
    return conclude(collected, own, fn(self))
end

-- What the call around this one collects, or nil.
local function find_outer()
    for level = 3, MAX_LEVELS do
        local info = getinfo(level, "f")
        if not info then
            return nil
        elseif info.func == run then
            local _, collected = getlocal(level, 1)
            return collected
        end
    end
end

---Runs fn(commit), which does work elsewhere - a database transaction, say - and collects what is
---to be invalidated: commit:delete(key, { soft = }), commit:deleteMulti(keys, { soft = }),
---commit:invalidateTags(tags, { soft = }). All is sent once fn has returned, in one round trip
---to each server. Nothing is sent where fn throws, or returns nil or false with a second result: it
---was rolled back.
---
---What cannot be sent does not change what fn has returned. It is kept in this process, up to
---10,000 names for a day, and tried again before later calls of this client. Near copies of this
---machine are void at once; others may read the old value until a retry succeeds, and so may this
---machine, from Redis.
---
---Within fn, and in its coroutine, afterCommit of this or another cache collects for the outer
---call, whatever its own function returns: one delete too many costs a load, one too few an old
---value.
---@param fn fun(commit: redcache.Commit): ...
---@param opts? table timeout (of the sending), cancelTag, onFailed (function(err, names, dropped):
---names as they are in Redis, dropped: how many of them are not kept; what it throws is dropped)
---@return any ... what fn returns; or nil, err where the cache is closed: fn has not run then
function commit.afterCommit(self, fn, opts)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "afterCommit", "function", fn), 2)
    end
    local own, message = options.read({}, opts, "commit", "afterCommit")
    if own == nil then
        error(message, 2)
    end
    local closed = core_client.closed(self._client, "collect invalidations")
    if closed then
        return nil, closed
    end
    local outer = find_outer()
    local collected = outer or { clients = {}, tells = {}, is_over = false }
    if own.onFailed then
        collected.tells[#collected.tells + 1] = own.onFailed
    end
    local object = setmetatable({ _cache = self, _collected = collected }, Commit)
    if outer then
        return fn(object)
    end
    return run(collected, own, fn, object)
end

return commit
