-- The checks of the lint step: each passes on this tree, and fails where its rule is broken.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/unit/check_spec%.lua$")
root = root == "" and "." or root

-- A copy of this tree's sources, to plant something in.
local function copy()
    local dir = temp.dir()
    process.run({ "cp", "-r", root .. "/core", root .. "/lua", root .. "/script", dir })
    return dir
end

local function check(script, dir)
    local result = process.run({ "sh", script, dir })
    return result.exit, result.out .. result.err
end

describe("script/check-layers", function()
    local function layers(dir) return check(dir .. "/script/check-layers", dir) end

    local function passes(files)
        local dir = copy()
        for path, text in pairs(files) do temp.write(dir .. "/" .. path, text) end
        local exit, text = layers(dir)
        assert.equal("", text)
        assert.equal(0, exit)
        temp.remove(dir)
    end

    local function fails(files, ...)
        local dir = copy()
        for path, text in pairs(files) do temp.write(dir .. "/" .. path, text) end
        local exit, text = layers(dir)
        assert.equal(1, exit)
        for _, line in ipairs({ ... }) do assert.is_truthy(text:find(line, 1, true), text) end
        temp.remove(dir)
    end

    it("finds nothing in this tree", function()
        passes({})
    end)

    it("finds modules that use each other in a circle", function()
        fails({
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
        fails({
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

    it("takes neither words nor types for a use", function()
        passes({
            ["core/base/ring_a.c"] = "/* rc_ring_b(1) */\nconst struct rc_ring_b *rc_ring_a(void)\n"
                .. "{\n    return text(\"rc_ring_b(1)\");\n}\n",
            ["core/base/ring_b.c"] = "int rc_ring_b(int n)\n{\n    return rc_ring_a() != 0;\n}\n",
        })
    end)

    it("fails as long as a circle is listed that is gone", function()
        local dir = copy()
        local path = dir .. "/script/check-layers"
        temp.write(path, (temp.read(path):gsub("circles='\n", "%0base/buf base/heap\n", 1)))
        local exit, text = layers(dir)
        assert.equal(1, exit)
        assert.is_truthy(text:find("take it out of the list: base/buf base/heap", 1, true), text)
        temp.remove(dir)
    end)
end)
