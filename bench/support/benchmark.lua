-- benchmark - redis-benchmark and valkey-benchmark as rivals: GETs of random keys
-- "key:000000000000" and so on, by one thread and many pipelines, of answers that nobody keeps.

local process = require("spec.support.process")

local benchmark = {}

---The keys that both ask for.
---@param count integer
---@return string[]
function benchmark.keys(count)
    local keys = {}
    for i = 1, count do
        keys[i] = ("key:%012d"):format(i - 1)
    end
    return keys
end

-- In PATH, or in the packages of a server that script/servers has brought.
local function find(name)
    return process.run({ "sh", "-c", 'command -v "$0" || ls "$1"/servers/*/root/usr/bin/"$0"',
        name, os.getenv("REDCACHE_BUILD_DIR") or "build" }).out:match("[^\n]+")
end

---Thousands of GETs per second. params: clients, pipeline, keys, bytes, requests
local function rate(path, redis, params)
    local ended = process.run({ path, "-h", "127.0.0.1", "-p", redis.port, "-c", params.clients,
        "-P", params.pipeline, "-t", "get", "-r", params.keys, "-d", params.bytes, "--csv", "-n",
        params.requests })
    local found = ended.out:match('"GET","([%d.]+)"')
    if found == nil then
        error(path .. " failed: " .. ended.out .. ended.err, 0)
    end
    return { rate = tonumber(found) / 1000 }
end

---A side for bench.side_by_side.
---@param name string "redis-benchmark" or "valkey-benchmark"
---@param params table clients, pipeline, keys, bytes, requests
function benchmark.side(name, redis, params)
    local path = find(name)
    return { name, path and function() return rate(path, redis, params) end or nil,
        missing = name .. " is not installed" }
end

return benchmark
