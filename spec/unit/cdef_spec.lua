local cdef = require("redcache.core.cdef")

local here = string.match(debug.getinfo(1, "S").source, "^@(.*)[/\\][^/\\]*$") or "."

local function marked_part()
    local file = assert(io.open(here .. "/../../core/include/redcache.h", "rb"))
    local text = file:read("*a")
    file:close()
    local _, first = string.find(text, "/* FFI begin", 1, true)
    first = string.find(text, "\n", first, true) + 1
    local last = string.find(text, "/* FFI end */", first, true) - 1
    return string.sub(text, first, last), text
end

describe("cdef", function()
    it("is the marked part of redcache.h", function()
        assert.equal(marked_part(), cdef)
    end)

    it("is C that LuaJIT reads, with the layout the C compiler uses", function()
        local ffi = require("ffi")
        require("redcache.core.ffi")
        assert.equal(32, ffi.sizeof("rc_node"))
        assert.equal(80, ffi.sizeof("rc_result"))
        assert.equal(16, ffi.sizeof("rc_entry"))
        assert.equal(20, ffi.sizeof("rc_load_options"))
        assert.equal(16, ffi.sizeof("rc_lock_options"))
    end)

    it("has the version that core/ffi.lua wants", function()
        local _, header = marked_part()
        local abi = string.match(header, "#define RC_ABI (%d+)")
        local file = assert(io.open(here .. "/../../lua/redcache/core/ffi.lua", "rb"))
        local source = file:read("*a")
        file:close()
        assert.equal(abi, string.match(source, "local ABI = (%d+)"))
    end)
end)
