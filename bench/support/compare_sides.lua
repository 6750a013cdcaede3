-- compare_sides - the two builds: where they are, and their processes.
--
-- What:   find(path, name) looks whether that is a build; process(side, redis, spin) starts one
--         that answers questions; nginx_of(side, redis) an nginx with that build in it.
-- Errors: throw, and say what to do.

local cjson = require("cjson")
local nginx = require("spec.support.nginx")
local process = require("spec.support.process")
local temp = require("spec.support.temp")
local worker = require("spec.support.worker")

local compare_sides = {}

local ANSWER_SECONDS = 120
local NGINX_KEYS = 1000

local function exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

---A build is a checkout with build/ in it.
function compare_sides.find(path, name)
    local root = process.run({ "realpath", path }).out:match("[^\n]+")
    local side = { name = name, path = path, root = root }
    if not root or not exists(root .. "/lua/redcache.lua") then
        error(("%s: '%s' is no checkout of redcache: there is no lua/redcache.lua in it")
            :format(name, path), 0)
    end
    side.library = root .. "/build/libredcache.so"
    if not exists(side.library) then
        error(("%s: '%s' is not built yet: run script/setup there first"):format(name, path), 0)
    end
    side.options = temp.read(root .. "/build/CMakeCache.txt"):match("RC_LTO:BOOL=(%w+)")
    side.lua_path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s"):format(root, root, nginx.root,
        os.getenv("LUA_PATH") or ";")
    return side
end

---What a process of that build has in its environment.
function compare_sides.environment(side)
    return { REDCACHE_LIBRARY = side.library, LUA_PATH = side.lua_path }
end

local Process = {}
Process.__index = Process

---Starts a process of that build. Both have a prefix of the same length.
function compare_sides.process(side, redis, spin)
    local env = compare_sides.environment(side)
    env.RCBED_PATH = side.lua_path
    local self = setmetatable({}, Process)
    self.worker = worker.start({
        source = "require('bench.support.compare_questions').serve(...)", env = env,
        params = { url = redis:url(), namespace = "bench" .. side.name, spin = spin },
    })
    self.worker:event("open", ANSWER_SECONDS)
    return self
end

---seconds per call, and processor: those of a processor; or, with `lua`, bytes that Lua allocated.
function Process:ask(name, calls, lua)
    self.worker:send({ name = name, calls = calls, lua = lua })
    return self.worker:event("answer", ANSWER_SECONDS)
end

function Process:stop()
    self.worker:send({ ends = true })
    self.worker:join(ANSWER_SECONDS)
end

-- nginx -------------------------------------------------------------------------------------------

local Web = {}
Web.__index = Web

local QUERIES = {
    nginx_wire = "ask=wire&kind=ours&threads=50&calls=%d",
    nginx_near = "ask=hit&kind=near&calls=%d",
    nginx_l0 = "ask=hit&kind=l0&calls=%d",
}

---An nginx with one worker and that build in it.
function compare_sides.nginx_of(side, redis)
    local self = setmetatable({}, Web)
    self.server = nginx.start({
        build = side.root,
        http = "lua_shared_dict bench 8m; lua_socket_log_errors off;\n",
        init = ("side = require('bench.support.nginx_side') side.init(%d, %d)"):format(redis.port,
            NGINX_KEYS),
        locations = { ["/ask"] = "content_by_lua_block { side.serve() }" },
    })
    self:query("ask=fill")
    return self
end

function Web:query(text)
    local status, body = self.server:get("/ask?" .. text, { timeout = ANSWER_SECONDS })
    if status ~= 200 then
        error("nginx could not answer '" .. text .. "': " .. tostring(body), 0)
    end
    return cjson.decode(body)
end

---As of Process.
function Web:ask(name, calls)
    local figures = self:query(QUERIES[name]:format(calls))
    return { seconds = figures.ns and figures.ns * 1e-9 or figures.cost * 1e-6,
        processor = figures.processor * 1e-6 }
end

function Web:stop()
    self.server:stop()
end

return compare_sides
