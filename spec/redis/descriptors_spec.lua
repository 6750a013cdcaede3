-- A process that may open no more descriptors.

local server = require("spec.support.server")
local worker = require("spec.support.worker")

-- Runs in a process of its own: takes all descriptors there are before a second client starts.
local function exhaust(one)
    local ffi = require("ffi")
    ffi.cdef([[
        struct limits { unsigned long now, most; };
        int setrlimit(int what, const struct limits *limits);
        int dup(int fd);
        int close(int fd);
    ]])
    local NOFILE = 7
    local redcache = require("redcache.all") -- a file needs a descriptor, too
    local first = redcache.new({ url = one.params.url })
    assert(first:set("k", "v"))
    assert(ffi.C.setrlimit(NOFILE, ffi.new("struct limits", 64, 64)) == 0)
    local taken = {}
    repeat
        local fd = ffi.C.dup(0)
        taken[#taken + 1] = fd >= 0 and fd or nil
    until fd < 0
    local second = redcache.new({ url = one.params.url, group = "second", near = false })
    local _, err = second:get("k")
    local value, load_err, source = second:remember("new", 60, function() return "loaded" end)
    local _, strict = second:remember("new", 60, error, { strict = true })
    local old = first:get("k", { near = false })
    for _, fd in ipairs(taken) do ffi.C.close(fd) end
    local after -- a second may be between two tries to connect
    require("spec.support.clock").wait_until(function()
        after = second:get("k")
        return after
    end, 10, "a connection")
    return {
        code = err.code, message = err.message, value = value, source = source, old = old,
        load_err = load_err and load_err.message, strict = strict.code, after = after,
    }
end

it("without a descriptor left calls say so, loaders run, and all is well afterwards", function()
    local redis = server.start()
    local result = worker.start({ main = exhaust, params = { url = redis:url() } }):join()
    assert.equal("unavailable", result.code)
    assert.matches("no descriptors are left in this process", result.message, 1, true)
    assert.same({ "loaded", "loader" }, { result.value, result.source })
    assert.is_nil(result.load_err)
    assert.equal("unavailable", result.strict)
    assert.equal("v", result.old)
    assert.equal("v", result.after)
    redis:stop()
end)
