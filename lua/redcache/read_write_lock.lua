-- read_write_lock - readers together, a writer alone: readWriteLock.
--
-- What:   both sides give handles of lock.lua whose core handle has a queue (lock_queue.h of the
--         engine): who waits is served in the order of coming, so neither side is starved. A
--         reader's hold is a key of its own, which the core renews; it ends with the reader.
-- Not:    no upgrade and no downgrade: a reader that asks to write waits for itself.

local core_random = require("redcache.core.random")
local errors = require("redcache.errors")
local lock = require("redcache.lock")
local namespace = require("redcache.namespace")
local usage = require("redcache.usage")

local steps = lock.steps

local read_write_lock = {}

---@class redcache.ReadWriteLock
---@field name string as given
local ReadWriteLock = {}
ReadWriteLock.__index = ReadWriteLock

local ID_BYTES = 12 -- that tell readers' keys apart: never two the same

-- A handle of one side, at the line of the user.
local function make(self, opts, method, is_shared)
    local settings, message = steps.settings(self._cache, self.name, opts, method)
    for _, option in ipairs({ "force", "reentrant", "fair" }) do
        if settings and settings[option] then
            message = ("bad option '%s' to %s: it is of plain locks"):format(option, method)
        end
    end
    if message then
        error(message, 3)
    end
    local key, own = self._key, nil
    if is_shared then
        own = key .. "reader:" .. assert(core_random.text(ID_BYTES))
    end
    return steps.make_queued(self._cache, self.name, settings, key, own)
end

---A handle for reading, which is not acquired yet: others may read at the same time.
---@param opts? table as Cache:lock, but for force, reentrant and fair
---@return redcache.Lock lock it has no fence
function ReadWriteLock:read(opts)
    local handle = make(self, opts, "read", true)
    return handle
end

---A handle for writing, which is not acquired yet: nobody else reads or writes meanwhile.
---@param opts? table as read
---@return redcache.Lock
function ReadWriteLock:write(opts)
    local handle = make(self, opts, "write", false)
    return handle
end

local function check_fn(fn, method)
    if type(fn) ~= "function" then
        error(errors.argument("fn", method, "function", fn), 3)
    end
end

---Runs `fn(lock)` while reading, and releases the lock however fn ends; as Cache:withLock.
---@param opts? table as read
---@param fn fun(lock: redcache.Lock): ...
---@return any ... what fn returns; or nil, err: as Cache:withLock
function ReadWriteLock:withRead(opts, fn)
    check_fn(fn, "withRead")
    local handle = make(self, opts, "withRead", true)
    return steps.with(handle, fn)
end

---Runs `fn(lock)` while writing, and releases the lock however fn ends; as Cache:withLock.
---@param opts? table as read
---@param fn fun(lock: redcache.Lock): ...
---@return any ... what fn returns; or nil, err: as Cache:withLock
function ReadWriteLock:withWrite(opts, fn)
    check_fn(fn, "withWrite")
    local handle = make(self, opts, "withWrite", false)
    return steps.with(handle, fn)
end

usage.guard("readWriteLock", ReadWriteLock, "_cache")

---The read-write lock of a name; its two sides give handles.
---@param name string not empty, and not beginning with "}": the keys of one lock share a slot
---@return redcache.ReadWriteLock
function read_write_lock.readWriteLock(self, name)
    if type(name) ~= "string" then
        error(errors.argument("name", "readWriteLock", "string", name), 2)
    elseif name == "" or string.byte(name) == 125 then
        error("bad argument 'name' to readWriteLock: string that is not empty and does not begin "
            .. "with '}' expected, got '" .. name .. "'", 2)
    end
    return setmetatable({
        name = name, _cache = self, _key = namespace.read_write_key(self._prefix, name),
    }, ReadWriteLock)
end

return read_write_lock
