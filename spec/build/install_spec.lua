-- What `cmake --install` gives a C program: header, library and a pkg-config file that is right
-- wherever they lie.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local build = os.getenv("REDCACHE_BUILD_DIR") or "build"

local PROGRAM = [[
#include <redcache.h>
#include <stdio.h>
int main(void)
{
    rc_client *client;
    rc_refusal refusal;
    rc_options good = {0}, bad = {.max_value_bytes = -1};
    int refused = rc_open(&bad, &client, &refusal);
    if (rc_open(&good, &client, NULL) != 0)
        return 1;
    rc_unref(client, 0);
    printf("%d %d %d", rc_abi() == RC_ABI, refused == RC_ERR_ARGUMENT,
           refusal.option == RC_OPTION_MAX_VALUE);
    return 0;
}
]]

local function run(env, ...)
    local spec = { ... }
    spec.env = env
    local result = process.run(spec)
    assert.equal(0, result.exit, table.concat(spec, " ") .. "\n" .. result.out .. result.err)
    return result.out
end

-- The directory below `root` that holds redcache.pc.
local function find_pc(root)
    local path = run({}, "find", root, "-name", "redcache.pc"):gsub("\n", "")
    assert.matches("/pkgconfig/redcache%.pc$", path)
    return (path:gsub("/redcache%.pc$", ""))
end

local function compile_and_run(root)
    local env = { PKG_CONFIG_PATH = find_pc(root) }
    local flags = run(env, "pkg-config", "--cflags", "--libs", "redcache")
    assert.is_truthy(flags:find("-I" .. root, 1, true), flags)
    assert.is_truthy(flags:find("-L" .. root, 1, true), flags)
    local source = temp.write(root .. "/program.c", PROGRAM)
    run({}, "sh", "-c", ("cc -o '%s/program' '%s' %s"):format(root, source,
        (flags:gsub("\n", " "))))
    local libdir = run(env, "pkg-config", "--variable=libdir", "redcache"):gsub("\n", "")
    assert.equal("1 1 1", run({ LD_LIBRARY_PATH = libdir }, root .. "/program"))
end

-- The instrumented library wants an instrumented program.
local check = (os.getenv("REDCACHE_SANITIZER") or "") == "" and it or pending

describe("redcache.pc", function()
    check("is right under any prefix", function()
        for _ = 1, 2 do
            local prefix = temp.dir()
            run({}, "cmake", "--install", build, "--prefix", prefix)
            compile_and_run(prefix)
            temp.remove(prefix)
        end
    end)

    check("is right under DESTDIR, and where the tree was moved to", function()
        local root = temp.dir()
        run({ DESTDIR = root .. "/stage" }, "cmake", "--install", build, "--prefix", "/opt/app")
        run({}, "mv", root .. "/stage/opt/app", root .. "/moved")
        compile_and_run(root .. "/moved")
        temp.remove(root)
    end)
end)

describe("an installed later.lua", function()
    check("has the digest of all Lua files, and lets its own release be loaded", function()
        local prefix = temp.dir()
        run({}, "cmake", "--install", build, "--prefix", prefix)
        local lua = prefix .. "/share/lua/5.1"
        local release = temp.read(lua .. "/redcache/later.lua"):match('local RELEASE = "([^"]+)"')
        assert.matches("^%d+%.%d+%.%d+ %x%x%x%x%x%x%x%x%x%x%x%x$", release)
        local version = release:match("%S+")
        assert.equal("1 " .. version, run({ LUA_PATH = lua .. "/?.lua" }, "luajit", "-e",
            'local redcache = require("redcache") io.write(redcache.new():incr("n"), " ",'
                .. " redcache._VERSION)"))
        assert.equal("refused", run({ LUA_PATH = lua .. "/?.lua" }, "luajit", "-e", ([[
            local cache = require("redcache").new()
            local file = assert(io.open("%s/redcache/later.lua", "r+"))
            assert(file:seek("set", file:read("*a"):find('local RELEASE = "', 1, true) + 16))
            assert(file:write("9") and file:close())
            local ok, message = pcall(cache.incr, cache, "n")
            assert(not ok and message:find("this process runs %s): restart it", 1, true), message)
            io.write("refused")]]):format(lua, release)))
        local copy = temp.dir()
        run({}, "cp", "-r", "lua/.", copy)
        run({}, "sh", "-c", "echo '-- another' >> '" .. copy .. "/redcache/lock.lua'")
        run({}, "cmake", "-DFROM=" .. copy, "-DTO=" .. prefix .. "/later.lua", "-P",
            "lua/stamp.cmake")
        local other = temp.read(prefix .. "/later.lua"):match('local RELEASE = "([^"]+)"')
        assert.equal(version, other:match("^(%S+) %x+$"))
        assert.not_equal(release, other)
        temp.remove(copy)
        temp.remove(prefix)
    end)
end)

describe("an installed compiled.ljbc", function()
    check("spares a start the Lua files, unless another LuaJIT or release has made it", function()
        local prefix = temp.dir()
        run({}, "cmake", "--install", build, "--prefix", prefix)
        local lua = prefix .. "/share/lua/5.1"
        local file = lua .. "/redcache/compiled.ljbc"
        local made = temp.read(file)
        local function source()
            return run({ LUA_PATH = lua .. "/?.lua" }, "luajit", "-e", [[
                local cache = require("redcache").new()
                assert(cache:set("key", { 1 }) and cache:get("key")[1] == 1)
                cache:close()
                io.write(debug.getinfo(require("redcache.near").find, "S").source)]])
        end
        assert.equal("@redcache/near.lua", source())
        local from_file = "@" .. lua .. "/redcache/near.lua"
        temp.write(file, (made:gsub("\nLuaJIT ", "\nOtherJIT ", 1)))
        assert.equal(from_file, source())
        temp.write(file, made:sub(1, 10))
        assert.equal(from_file, source())
        temp.write(file, made)
        assert.equal("@redcache/near.lua", source())
        local later = lua .. "/redcache/later.lua"
        temp.write(later, (temp.read(later):gsub('RELEASE = "', 'RELEASE = "1', 1)))
        assert.equal(from_file, source())
        os.remove(file)
        assert.equal(from_file, source())
        temp.remove(prefix)
    end)
end)
