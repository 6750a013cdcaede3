-- peer - rivals written in Go (bench/peers/go), asked in turns with ours: one process, a line of
-- JSON for each question and answer.
--
-- What:   open(args, redis) builds the program into build/peers and starts it; the object has
--         side(name, ask, params) for bench.side_by_side, ask(ask, params) -> figures, can(ask)
--         and program(folder) for one that runs by itself. missing says why there is none.
-- Args:   --rivals off leaves all of them out; --peer-go DIR, or REDCACHE_PEER_GO: a checkout of
--         dcbickfo/redcache, which has no published module.
-- Asks:   rueidis.get   GETs one after the other: calls, keys, bytes -> p50, p99 (us)
--                .hit   DoCache of keys that it holds: keys, bytes, seconds -> ns
--                .callers   goroutines that GET random ones of the keys "key:%012d", 0 to keys - 1,
--                       which are there with at least `bytes` bytes: goroutines, calls of each,
--                       keys, bytes -> rate (1000/s), cpu (us of a processor of each)
--                .lock  lock and unlock: calls -> p50, p99
--         goredis.get, .hit (client-side cache), .callers (automatic pipelining)
--         goredcache.hit
--                .hitMany   GetMulti of lists of keys that it holds: keys, list, bytes, seconds
--                       -> ns per key
--                .miss  calls, bytes -> p50, p99
--                .missMany   GetMulti of new keys: calls, list, bytes -> ns per key
--                .callersMiss   goroutines, calls of each, bytes -> rate, cpu
-- Errors: a question that fails throws. What cannot be built is no error: it is missing.

local channel = require("spec.support.channel")
local process = require("spec.support.process")
local socket = require("spec.support.socket")

local peer = {}
local Peer = {}
Peer.__index = Peer

local ANSWER_SECONDS, BUILD_SECONDS = 120, 300
local SOURCE = "bench/peers/go" -- benches run in the project's root

local function run_in(folder, env, ...)
    return process.run({ "sh", "-c", 'cd "$0" && exec "$@"', folder, env = env, ... },
        BUILD_SECONDS)
end

local function real_path(path)
    return process.run({ "realpath", path }).out:match("[^\n]+")
end

-- What a command said, on one line.
local function said(ended)
    local text = (ended.err .. ended.out):gsub("%s+", " "):gsub(" $", "")
    return #text > 200 and text:sub(1, 100) .. " ... " .. text:sub(-100) or text
end

-- A workspace of the program and the checkout, so that go.mod names published modules only.
local function join_checkout(target, checkout)
    local folder = checkout and real_path(checkout)
    if not folder then
        return nil, checkout and ("there is no folder '%s'"):format(checkout)
            or "no folder of dcbickfo/redcache was given (--peer-go DIR or REDCACHE_PEER_GO)"
    end
    os.remove(target .. "/go.work")
    local ended = run_in(target, {}, "go", "work", "init", real_path(SOURCE), folder)
    if ended.exit ~= 0 then return nil, said(ended) end
    return target .. "/go.work"
end

local function build(self, folder, name)
    local words = { "go", "build", "-o", self.target .. "/" .. name }
    if self.workspace then
        words[#words + 1] = "-tags"
        words[#words + 1] = "goredcache"
    end
    words[#words + 1] = folder
    local ended = run_in(SOURCE, { GOWORK = self.workspace or "off" }, unpack(words))
    return ended.exit == 0, "could not be built: " .. said(ended)
end

local function start(self, redis)
    local ours, theirs = assert(socket.pair())
    self.process = process.spawn({ self.target .. "/peers", redis.port,
        stdin = theirs.fd, stdout = theirs.fd })
    theirs:close()
    self.channel = channel.new(ours)
    local hello = assert(self.channel:receive(ANSWER_SECONDS))
    self.asks, self.versions = hello.asks, hello.versions
end

local function open(self, args, redis)
    if args.rivals == "off" then return "--rivals off" end
    if process.run({ "sh", "-c", "command -v go" }).exit ~= 0 then return "go is not installed" end
    os.execute("mkdir -p '" .. self.target .. "'")
    self.target = real_path(self.target)
    self.workspace, self.no_checkout = join_checkout(self.target,
        args["peer-go"] or os.getenv("REDCACHE_PEER_GO"))
    local ok, why = build(self, ".", "peers")
    if not ok then return why end
    start(self, redis)
end

function Peer:report()
    local names = {}
    for name, version in pairs(self.versions or {}) do
        names[#names + 1] = name .. " " .. (version == "(devel)" and "as in the folder given"
            or version)
    end
    table.sort(names)
    if names[1] then print("rivals: " .. table.concat(names, ", ")) end
end

---@param args table of bench.run
---@param redis table the server under test
---@return table peer also where nothing of it can be asked: missing says why
function peer.open(args, redis)
    local self = setmetatable({
        target = (os.getenv("REDCACHE_BUILD_DIR") or "build") .. "/peers", asks = {},
    }, Peer)
    self.missing = open(self, args, redis)
    self:report()
    return self
end

---Whether that question is answered here; if not, why.
function Peer:can(ask)
    if self.asks[ask] then return true end
    local is_goredcache = ask:find("^goredcache%.") ~= nil
    return false, self.missing or is_goredcache and self.no_checkout or "it cannot be asked that"
end

---One answer: figures by name.
---@param ask string "rival.question", see above
---@param params table calls, keys, bytes, list, goroutines, seconds: what the question uses
function Peer:ask(ask, params)
    assert(self:can(ask))
    local question = { ask = ask }
    for name, value in pairs(params) do question[name] = value end
    self.channel:send(question)
    local answer, err = self.channel:receive(ANSWER_SECONDS)
    if not answer or answer.error then
        error(("%s: %s"):format(ask, answer and answer.error or err), 0)
    end
    return answer.figures
end

---A side for bench.side_by_side; where it cannot be asked, one that says why.
function Peer:side(name, ask, params)
    local ok, why = self:can(ask)
    return { name, ok and function() return self:ask(ask, params) end or nil, missing = why }
end

---Builds a program of a folder of bench/peers/go; its path, or nil and why not.
function Peer:program(folder)
    if self.missing then return nil, self.missing end
    local ok, why = build(self, "./" .. folder, folder)
    return ok and self.target .. "/" .. folder or nil, why
end

function Peer:close()
    if self.channel then
        self.channel:close()
        self.process:wait(1)
        self.process:stop()
    end
end

return peer
