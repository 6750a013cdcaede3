-- hints - what was probably meant by an option that does not exist, or a number that does not fit.
--
-- What:   names that other clients and caches have for things, and where those things are here.
-- Not:    no option is taken under another name: a hint is the end of an error text.

local hints = {}

local URL = 'the server stands in the url, as in url = "redis://127.0.0.1:6379"'
local LOGIN = "the options are user and password, or the url has them, as in"
    .. ' url = "redis://user:password@127.0.0.1:6379"'
local DATABASE = 'it stands in the url, as in url = "redis://127.0.0.1:6379/3"'
local TLS = 'TLS is asked for by the url, as in url = "rediss://redis.example:6379"'
local VERIFY = "the server's certificate is always verified: name the one to trust, as in"
    .. ' tlsCa = "/etc/redis/ca.pem", and where it has another name than the host of the url'
    .. " tlsServerName"
-- Of the option tls, which knows no other word.
hints.TLS = TLS .. ', and verification is never switched off (see tlsCa); "off" allows credentials'
    .. " that change in the clear"
local SOCKET = 'it stands in the url, as in url = "unix:///run/redis/redis.sock"'
local SENTINELS = 'they stand in the url, as in url = "redis+sentinel://s1:26379,s2,s3/mymaster"'
local CLUSTER = 'its nodes stand in the url, as in url = "redis://h1:7000,h2:7000"; one is enough'
local TIMEOUT = "for all calls of a cache it is commandTimeout, for connecting connectTimeout"
local POOL = "there is no pool: all callers share two connections"
local TTL = "the option is ttl, in seconds"
local POSITION = "the ttl is an argument of its own, before the options"
local PREFIX = 'it is namespace here: namespace = "app" puts "app:" before every key'

-- Without "_", "redis" before them, and capitals.
local MEANT = {
    host = URL, hostname = URL, port = URL, server = URL, servers = URL, address = URL, addr = URL,
    uri = URL, ip = URL, [""] = URL, endpoint = URL,
    pass = LOGIN, login = LOGIN, username = LOGIN, credentials = LOGIN,
    db = DATABASE, database = DATABASE, dbindex = DATABASE,
    ssl = TLS, verify = VERIFY, sslverify = VERIFY, tlsverify = VERIFY,
    insecure = VERIFY, skipverify = VERIFY, tlsskipverify = VERIFY, tlsinsecure = VERIFY,
    insecureskipverify = VERIFY, rejectunauthorized = VERIFY, sslcertreqs = VERIFY,
    verifypeer = VERIFY, checkhostname = VERIFY, sslcheckhostname = VERIFY,
    servername = "the option is tlsServerName", sni = "the option is tlsServerName",
    ca = "the option is tlsCa", cafile = "the option is tlsCa", sslca = "the option is tlsCa",
    cert = "the option is tlsCert", certfile = "the option is tlsCert",
    sslcert = "the option is tlsCert", sslcertfile = "the option is tlsCert",
    key = "the option is tlsKey", keyfile = "the option is tlsKey",
    sslkey = "the option is tlsKey", sslkeyfile = "the option is tlsKey",
    socket = SOCKET, path = SOCKET, unixsocket = SOCKET, unix = SOCKET,
    prefix = PREFIX, keyprefix = PREFIX,
    timeout = TIMEOUT, readtimeout = TIMEOUT, sendtimeout = TIMEOUT,
    pool = POOL, poolsize = POOL, keepalive = POOL, maxconnections = POOL,
    expire = TTL, expiry = TTL, expiration = TTL, expires = TTL, ex = TTL, px = TTL,
    serializer = "the option is codec", encoding = "the option is codec",
    localcache = "the option is near", nearcache = "the option is near", l1 = "the option is near",
    size = "the option is maxBytes, or near = { bytes = ... }",
    sentinel = SENTINELS, sentinels = SENTINELS, mastername = SENTINELS, master = SENTINELS,
    sentinelusername = "the option is sentinelUser",
    sentinelpass = "the option is sentinelPassword",
    cluster = CLUSTER, nodes = CLUSTER, seeds = CLUSTER, startupnodes = CLUSTER,
}

local function plain(name)
    return (string.lower((string.gsub(name, "_", ""))))
end

-- A place other than `place` that knows the option, in words.
local PLACES = {
    { "new", "it is an option of redcache.new" },
    { "namespace", "it is an option of redcache.new and namespace" },
    { "call", "it is an option of single calls" },
    { "read", "it is an option of reads" },
    { "put", "it is an option of remember and put" },
    { "load", "it is an option of remember" },
    { "readMany", "it is an option of getMulti and rememberMulti" },
    { "loadMany", "it is an option of rememberMulti" },
    { "write", "it is an option of writes" },
    { "get", "it is an option of get" },
    { "delete", "it is an option of delete and deleteMulti" },
    { "move", "it is an option of rename and copy" },
    { "count", "it is an option of counters" },
    { "update", "it is an option of update" },
    { "lock", "it is an option of locks" },
}

---The end of an error text about an option that does not exist.
---@param name any
---@param place string where it stood: new, load, ...
---@param places table<string, table<string, table>> rows by place and name
---@return string text ""; or ": did you mean 'x'?" and the like
function hints.unknown(name, place, places)
    if type(name) ~= "string" then
        return ""
    end
    local wanted = plain(name)
    for known in pairs(places[place]) do
        if plain(known) == wanted then
            return ": did you mean '" .. known .. "'?"
        end
    end
    if place ~= "new" and place ~= "namespace" and place ~= "lock"
        and (wanted == "ttl" or MEANT[wanted] == TTL) then
        return ": " .. POSITION
    end
    local meant = (place == "new" or MEANT[wanted] ~= TIMEOUT)
        and (MEANT[wanted] or MEANT[string.match(wanted, "^redis(.*)$")])
    if meant then
        return ": " .. meant
    end
    for _, other in ipairs(PLACES) do
        if places[other[1]][name] then
            return ": " .. other[2]
        end
    end
    return ""
end

---The end of an error text about a number of seconds out of its range.
---@param row table
---@param value any
---@return string text
function hints.range(row, value)
    if row.kind == "number" and type(value) == "number" and value > row.max
        and value / 1000 >= row.min and value / 1000 <= row.max then
        return string.format(": times are seconds, %.14g ms are %.14g", value, value / 1000)
    end
    return ""
end

return hints
