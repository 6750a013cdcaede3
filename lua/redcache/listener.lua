-- listener - who is told that keys have changed which this machine has read: onInvalidate.
--
-- What:   the core writes down what it hears, in the region of the near cache; a listener follows,
--         and its function is a job in the background (background.lua).
-- Memory: a listener is its client's until it is closed, or the client is.
-- Errors: what the function throws is counted, as of every job; the next change is told all the
--         same.
-- Not:    no promise that each change is told by itself: what was read once, and changed twice, may
--         be told once. Where changes were not heard, a gap is.

local core_client = require("redcache.core.client")
local core_near = require("redcache.core.near")
local background = require("redcache.background")
local errors = require("redcache.errors")
local usage = require("redcache.usage")

local listener = {}

-- So many are taken at a time before the function is called: of changes of one key among them the
-- first is told, for none was told yet when the last was heard.
local BATCH = 1000

---@class redcache.Listener
local Listener = {}
Listener.__index = Listener

-- What background.lua watches.
---@class redcache.ListenerWatch: redcache.Watch
local Watch = {}
Watch.__index = Watch

function Watch:is_due()
    return core_near.has_news(self.view, self.heard)
end

-- Takes what was heard: two lists, and how many.
local function take(self)
    local keys, causes, count, seen = {}, {}, 0, {}
    for _ = 1, BATCH do
        local cause, key = core_near.hear(self.view, self.heard)
        if cause == nil then
            break
        end
        local name = key and cause .. key or cause
        if not seen[name] then
            seen[name] = true
            count = count + 1
            keys[count], causes[count] = key or false, cause
        end
    end
    return keys, causes, count
end

function Watch:run()
    local fault
    repeat
        local keys, causes, count = take(self)
        for i = 1, count do
            if self.is_closed or self.client.handle == nil then
                return
            end
            local ok, cause = pcall(self.fn, keys[i] or nil, causes[i])
            fault = fault or (not ok and { cause })
        end
    until count == 0
    if fault then
        error(fault[1], 0)
    end
end

---Ends it: the function is not called any more. Twice is harmless.
---@return true
function Listener:close()
    local watch, client = self._watch, self._watch.client
    watch.is_closed = true
    if client.listeners then
        client.listeners[watch] = nil
    end
    background.unwatch(client, watch)
    return true
end

usage.guard("listener", Listener, "_watch")

---Has fn(key, cause) called, in the background, when a key of this namespace has changed that the
---near cache of this machine had read: cause "push" (Redis says so) or "write" (a process that
---shares the near cache has written it); and fn(nil, "flush") where Redis was emptied, or
---fn(nil, "gap") where changes may have been missed: any key may have changed then. See
---docs/api/background.md.
---@param fn fun(key: string|nil, cause: string) may wait as a job may
---@return redcache.Listener|nil listener close() ends it
---@return redcache.Error|nil err closed
function listener.onInvalidate(self, fn)
    if type(fn) ~= "function" then
        error(errors.argument("fn", "onInvalidate", "function", fn), 2)
    end
    local client = self._client
    local err = core_client.closed(client, "listen")
    if err then
        return nil, err
    elseif self._view == nil then
        error("could not listen: this cache keeps nothing near (options near, reads), so nobody"
            .. " tells it what has changed", 2)
    end
    local watch = setmetatable({
        client = client, view = self._view, heard = core_near.listen(self._view), fn = fn,
        is_closed = false,
    }, Watch)
    client.listeners = client.listeners or {}
    client.listeners[watch] = true
    background.watch(client, watch)
    return setmetatable({ _watch = watch }, Listener)
end

return listener
