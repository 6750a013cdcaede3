-- The programs in README.md, run as they stand there; only the ports are those of this spec, and
-- redcache is that of this checkout.

local clock = require("spec.support.clock")
local http = require("spec.support.http")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

-- The n-th block of a language.
local function block(language, n)
    local text = temp.read(nginx.root .. "/README.md")
    local count = 0
    for found in text:gmatch("\n```" .. language .. "\n(.-\n)```\n") do
        count = count + 1
        if count == n then return found end
    end
    error("README.md has no block " .. n .. " in " .. language)
end

local function library()
    return os.getenv("REDCACHE_LIBRARY") or nginx.root .. "/build/libredcache.so"
end

local environment = {
    REDCACHE_LIBRARY = library(),
    LUA_PATH = ("%s/lua/?.lua;%s/lua/?/init.lua;;"):format(nginx.root, nginx.root),
}

describe("README.md", function()
    it("has a first program that says what it says it does", function()
        local dir = temp.dir()
        local result = process.run({
            "luajit", temp.write(dir .. "/hello.lua", block("lua", 1)), env = environment,
        })
        assert.equal("Ada\tloader\n", result.out)
        temp.remove(dir)
    end)

    local possible, reason = nginx.is_possible()
    local check = possible and it or pending
    check("has an nginx configuration that runs as it stands" .. (reason or ""), function()
        local dir, redis, port = temp.dir(), server.start(), socket.free_port()
        local text = block("nginx", 1)
        for from, to in pairs({
            ["listen 8080;"] = "listen 127.0.0.1:" .. port .. ";",
            ["127%.0%.0%.1:6379"] = "127.0.0.1:" .. redis.port,
            ["\nhttp {"] = ('%%0 lua_package_path "%s/lua/?.lua;;";'):format(nginx.root),
        }) do
            local count
            text, count = text:gsub(from, to)
            assert.equal(1, count, from)
        end
        local command = {
            os.getenv("REDCACHE_NGINX") or "nginx", "-c", temp.write(dir .. "/app.conf", text),
            -- Workers of root would be nobody's, who may not read this checkout.
            "-g", ("daemon off; pid %s/pid; error_log %s/log; env REDCACHE_LIBRARY=%s;")
                :format(dir, dir, environment.REDCACHE_LIBRARY)
                .. (process.run({ "id", "-u" }).out == "0\n" and " user root;" or ""),
            stderr = dir .. "/stderr",
        }
        local child = process.spawn(command)
        finally(function()
            child:stop(5)
            redis:stop()
            temp.remove(dir)
        end)
        local function get(path)
            local ok, status, body = pcall(http.get, { port = port }, path)
            return ok and status == 200 and body or nil
        end
        local function complain()
            return temp.read(dir .. "/stderr") .. temp.read(dir .. "/log")
        end
        local ok, first = pcall(clock.wait_until, function() return get("/user?id=7") end, 10)
        assert.is_true(ok, complain())
        assert.equal("Ada 7 from loader\n", first, complain())
        assert.matches("^Ada 7 from %a", get("/user?id=7"))
        assert.equal(1, redis:call("EXISTS", "app:user:7"))
        assert.matches("^Ada 1 from ", get("/user"))
        assert.is_nil(temp.read(dir .. "/log"):find("%[error%]"), complain())
    end)
end)
