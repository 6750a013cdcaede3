-- The checks of the lint step: each passes on this tree, and fails where its rule is broken.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/unit/check_spec%.lua$")
root = root == "" and "." or root

-- A copy of this tree's sources, to plant something in.
local tree

-- The exit status and the text of the check, with these files added.
local function check(script, files)
    if not tree then
        tree = temp.dir()
        process.run({ "cp", "-r", root .. "/core", root .. "/lua", root .. "/script", tree })
    end
    local before = {}
    for path, text in pairs(files) do
        before[path] = temp.read(tree .. "/" .. path)
        temp.write(tree .. "/" .. path, text)
    end
    local result = process.run({ "sh", tree .. "/script/" .. script, tree })
    for path, text in pairs(before) do
        if text == "" then
            os.remove(tree .. "/" .. path)
        else
            temp.write(tree .. "/" .. path, text)
        end
    end
    return result.exit, result.out .. result.err
end

local function passes(script, files)
    local exit, text = check(script, files)
    assert.equal("", text)
    assert.equal(0, exit)
end

local function fails(script, files, ...)
    local exit, text = check(script, files)
    assert.equal(1, exit)
    for _, line in ipairs({ ... }) do assert.is_truthy(text:find(line, 1, true), text) end
end

local CARD = "/*\n * ring - a ring.\n *\n * What:    a.\n * Threads: b.\n * Memory:  c.\n"
    .. " * Errors:  d.\n * Not:     e.\n */\n"

describe("script/check-layers", function()
    it("finds nothing in this tree", function()
        passes("check-layers", {})
    end)

    it("finds modules that use each other in a circle", function()
        fails("check-layers", {
            ["core/base/ring_a.h"] = "int rc_ring_a(int n);\n",
            ["core/base/ring_a.c"] = "#include \"base/ring_a.h\"\n#include \"base/ring_b.h\"\n"
                .. "int rc_ring_a(int n)\n{\n    return n == 0 ? 0 : rc_ring_b(n - 1);\n}\n",
            ["core/base/ring_b.h"] = "int rc_ring_b(int n);\n",
            -- Not by way of a header: the function is declared where it is used.
            ["core/base/ring_b.c"] = "int rc_ring_a(int n);\n"
                .. "int rc_ring_b(int n)\n{\n    return rc_ring_a(n);\n}\n",
        }, "a circle of modules: base/ring_a base/ring_b\n",
            "base/ring_a uses rc_ring_b of base/ring_b")
    end)

    it("finds a longer one, through a table and a function that is inline in a header", function()
        fails("check-layers", {
            ["core/near/ring_a.c"] = "int rc_ring_a(int n)\n{\n"
                .. "    return rc_ring_table.run(n);\n}\n",
            ["core/near/ring_b.c"] = "const struct rc_table rc_ring_table = {\n"
                .. "    rc_ring_c,\n};\n",
            ["core/near/ring_c.h"] = "static inline int rc_ring_d(int n)\n{\n"
                .. "    return rc_ring_a(n);\n}\n",
            ["core/near/ring_c.c"] = "int rc_ring_c(int n)\n{\n    return rc_ring_d(n);\n}\n",
        }, "a circle of modules: near/ring_a near/ring_b near/ring_c\n",
            "near/ring_b uses rc_ring_c of near/ring_c")
    end)

    it("finds one of functions that are inline in headers alone", function()
        local function one(mine, other)
            return ("#include \"base/ring_%s.h\"\nint rc_ring_%s%s(int n)\n{\n"
                .. "    return rc_ring_%s(n);\n}\n"):format(other, mine, mine, other)
        end
        local INLINE = CARD .. "static inline int rc_ring_%s(int n)\n{\n    return n;\n}\n"
        fails("check-layers", {
            ["core/base/ring_a.h"] = INLINE:format("a"), ["core/base/ring_a.c"] = one("a", "b"),
            ["core/base/ring_b.h"] = INLINE:format("b"), ["core/base/ring_b.c"] = one("b", "a"),
        }, "a circle of modules: base/ring_a base/ring_b\n")
    end)

    it("takes neither words nor types for a use", function()
        passes("check-layers", {
            ["core/base/ring_a.c"] = "/* rc_ring_b(1) */\nconst struct rc_ring_b *rc_ring_a(void)\n"
                .. "{\n    return text(\"rc_ring_b(1)\");\n}\n",
            ["core/base/ring_b.c"] = "int rc_ring_b(int n)\n{\n    return rc_ring_a() != 0;\n}\n",
        })
    end)

    it("finds Lua files outside of lua/redcache/core that touch the FFI", function()
        local breaches = { "require(\"ffi\")", "require 'ffi'", "require [[ffi]]",
            "require(\"redcache.core.ffi\")", "later.module(\"redcache.core.ffi\")" }
        local inside, outside, lines = {}, {}, {}
        for i, breach in ipairs(breaches) do
            local name = "ring_" .. i .. ".lua"
            inside["lua/redcache/core/" .. name] = "return " .. breach .. "\n"
            outside["lua/redcache/" .. name] = "return " .. breach .. "\n"
            lines[i] = "lua/redcache/" .. name
                .. ":1: touches the FFI: only lua/redcache/core may\n"
        end
        inside["lua/redcache/ring.lua"] = "return require(\"redcache.core.slot\")\n"
        passes("check-layers", inside)
        fails("check-layers", outside, unpack(lines))
    end)

    it("fails as long as a circle is listed that is gone", function()
        local text = temp.read(root .. "/script/check-layers")
        fails("check-layers", {
            ["script/check-layers"] = text:gsub("circles='\n", "%0base/buf base/heap\n", 1),
        }, "take it out of the list: base/buf base/heap")
    end)
end)

describe("script/check-text", function()
    it("finds nothing in this tree", function()
        passes("check-text", { ["core/base/ring.h"] = CARD, ["script/ring"] = "#!/bin/sh\n" })
    end)

    it("finds a line over 100 columns, comments and scripts included", function()
        fails("check-text", {
            ["core/base/ring.h"] = CARD .. "/* " .. ("x"):rep(95) .. " */\n",
            ["core/base/ring.c"] = "/* " .. ("x"):rep(94) .. " */\n",
            ["script/ring"] = "#!/bin/sh\n# " .. ("x"):rep(99) .. "\n",
            ["lua/ring.lua"] = "\n\n-- " .. ("x"):rep(98) .. "\n",
        }, "core/base/ring.h:10: 101 columns", "script/ring:2: 101 columns",
            "lua/ring.lua:3: 101 columns")
    end)

    it("finds a header whose card lacks a word", function()
        for _, word in ipairs({ "What", "Threads", "Memory", "Errors", "Not" }) do
            fails("check-text", {
                ["core/near/ring.h"] = CARD:gsub(" %* " .. word .. ":[^\n]*\n", ""),
            }, ("core/near/ring.h: its card does not say %q"):format(word .. ":"))
        end
    end)

    it("finds a 'can" .. " not' and a machine that is called like a man", function()
        fails("check-text", {
            ["core/base/ring.c"] = "/* It can" .. " not. */\n",
            ["lua/ring.lua"] = "-- The loop, which has " .. "his turn.\n",
        }, "core/base/ring.c:1:", "lua/ring.lua:1:")
    end)

    it("finds words that name nobody, in core and lua", function()
        fails("check-text", {
            ["core/base/ring.c"] = "/* For who" .. "ever owns it. */\n",
            ["lua/ring.lua"] = "-- It waits in" .. " vain.\n",
        }, "core/base/ring.c:1:", "lua/ring.lua:1:")
    end)
end)
