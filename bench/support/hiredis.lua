-- hiredis - the rival: hiredis called directly through the FFI, with as little Lua as can be.

local ffi = require("ffi")

if not pcall(ffi.typeof, "rcbench_reply") then
    ffi.cdef([[
        typedef struct rcbench_reply { /* redisReply of hiredis 1.x */
            int type;
            long long integer;
            double dval;
            size_t len;
            char *str;
            char vtype[4];
            size_t elements;
            void **element;
        } rcbench_reply;
        typedef struct rcbench_context { /* how redisContext begins */
            const void *funcs;
            int err;
            char errstr[128];
        } rcbench_context;
        rcbench_context *redisConnect(const char *ip, int port);
        rcbench_context *redisConnectUnix(const char *path);
        void redisFree(rcbench_context *context);
        rcbench_reply *redisCommandArgv(rcbench_context *context, int count, const char **arguments,
                                        const size_t *lengths);
        void freeReplyObject(rcbench_reply *reply);
    ]])
end

-- The one script/setup built, else the system's.
local function load_library()
    local ok, library = pcall(ffi.load, (os.getenv("REDCACHE_BUILD_DIR") or "build")
        .. "/deps/lib/libhiredis.so")
    if not ok then
        ok, library = pcall(ffi.load, "hiredis")
    end
    return ok and library or error("could not load libhiredis.so, neither ours nor the system's", 0)
end

local H = load_library()
local STRING = 1

local hiredis = {}

---A connection to {port = n} of this machine or {path = "..."}.
---@return ffi.cdata* context closed by the garbage collector
function hiredis.connect(where)
    local context
    if where.path then
        context = H.redisConnectUnix(where.path)
    else
        context = H.redisConnect("127.0.0.1", where.port)
    end
    if context == nil or context.err ~= 0 then
        error("hiredis could not connect: "
            .. (context ~= nil and ffi.string(context.errstr) or "no memory"))
    end
    return ffi.gc(context, H.redisFree)
end

local arguments = ffi.new("const char *[2]")
local lengths = ffi.new("size_t[2]", 3)
local GET = "GET"

---The string under a key; nil where there is none.
function hiredis.get(context, key)
    arguments[0] = GET -- here, so that the string stays alive
    arguments[1], lengths[1] = key, #key
    local reply = H.redisCommandArgv(context, 2, arguments, lengths)
    if reply == nil then
        error("hiredis: " .. ffi.string(context.errstr))
    end
    local value = reply.type == STRING and ffi.string(reply.str, reply.len) or nil
    H.freeReplyObject(reply)
    return value
end

return hiredis
