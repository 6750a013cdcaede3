-- What the scripts promise about where packages come from.

local temp = require("spec.support.temp")

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/unit/script_spec%.lua$")
root = root == "" and "." or root

-- A program of that name that prints nothing and says that all is well.
local function silent(dir, name)
    os.execute(("mkdir -p '%s'"):format(dir))
    temp.write(dir .. "/" .. name, "#!/bin/sh\nexit 0\n")
    os.execute(("chmod +x '%s/%s'"):format(dir, name))
end

describe("the scripts", function()
    it("name no package server: the machine's own sources are used", function()
        local list = assert(io.popen(("ls -d '%s'/script/*"):format(root)))
        local count = 0
        for path in list:lines() do
            count = count + 1
            local text = temp.read(path)
            assert.is_nil(text:match("https?://[%w%.]+%.%a+"), path)
        end
        list:close()
        assert.is_true(count > 5)
    end)

    it("say so where the machine's sources name no archive", function()
        local dir = temp.dir()
        silent(dir .. "/bin", "apt-get")
        os.execute(("mkdir '%s/script' && cp '%s/script/servers' '%s/script/archive' '%s/script/'")
            :format(dir, root, root, dir))
        temp.write(dir .. "/bin/dpkg", "#!/bin/sh\necho amd64\n")
        os.execute(("chmod +x '%s/bin/dpkg'"):format(dir))
        -- A PATH without a server of the machine's own.
        os.execute(("for p in bash dirname mkdir rm cat awk tail grep cksum uname sed; do"
            .. " ln -s \"$(command -v $p)\" '%s/bin/'; done"):format(dir))
        local out = dir .. "/out"
        local code = os.execute(("PATH='%s/bin' bash '%s/script/servers' redis-8.0 >'%s' 2>&1")
            :format(dir, dir, out))
        assert.is_true(code ~= 0)
        assert.matches("name no Debian archive", temp.read(out), 1, true)
        temp.remove(dir)
    end)

    it("know their servers, and say so of a name that is none", function()
        local list = assert(io.popen(("'%s/script/servers' --list"):format(root)))
        local text = list:read("*a")
        list:close()
        for _, name in ipairs({ "redis%-7.0", "redis%-8.0", "valkey%-9.1", "haproxy" }) do
            assert.matches("%f[%w]" .. name .. " +%d[%d.]+ +%a", text)
        end
        local out = temp.dir() .. "/out"
        local code = os.execute(("'%s/script/servers' redis-1.0 >'%s' 2>&1"):format(root, out))
        assert.is_true(code ~= 0)
        assert.matches("there is no 'redis-1.0' here; these are known: redis-6.2", temp.read(out),
            1, true)
    end)
end)
