-- http_cache - answers of an upstream, kept by redcache: in Redis for all machines, in shared
-- memory for this machine's workers, decoded in each of them.
--
-- What:   open() in init_by_lua, serve() as content handler. GET and HEAD without cookie and
--         authorization; PURGE, of a URL or of tags.
-- Same:   the upstream sees the Host and the URL of a cached request and no other header of the
--         client, so what is kept depends on its key alone.
-- Not:    no range requests to the upstream (nginx cuts ranges itself), no revalidation by ETag.

local redcache = require("redcache")

local http_cache = {}

-- Seconds: where the upstream does not say; how long after that a page may be served stale; of
-- pages that are not there; how long nobody waits for what turned out to be one client's own.
local FRESH, GRACE, NOT_FOUND, PASS = 60, 300, 5, 10
local MAX_BODY = 1024 * 1024
-- A refresh that takes longer is taken for lost, and begun again.
local REFRESH_SECONDS = 60
-- What redcache takes.
local MAX_TAGS, MAX_TAG_BYTES = 16, 200

-- Of this hop, or made for each answer.
local NOT_KEPT = {
    ["age"] = true, ["cache-tag"] = true, ["connection"] = true, ["content-length"] = true,
    ["date"] = true, ["keep-alive"] = true, ["server"] = true, ["te"] = true, ["trailer"] = true,
    ["transfer-encoding"] = true, ["upgrade"] = true, ["x-cache"] = true,
}
local HIT = { l0 = "HIT l0", near = "HIT near", redis = "HIT redis" }
local TO_UPSTREAM = { pass = true }
-- Where nginx.conf listens for nobody but this file. nginx takes it from its working directory.
local REFRESH_SOCKET = "unix:refresh.sock"

local cache -- pages, by host and URL
local marks -- of the last purge
local refreshing = {} -- URLs this worker refreshes: until when

---In init_by_lua: nothing is connected before the first request.
---@param url string of Redis
---@return redcache.Cache cache for metrics and health
function http_cache.open(url)
    cache = redcache.init({
        -- The loader makes a subrequest, which redcache's own refreshes, in a timer, cannot.
        background = false,
        url = url, namespace = "http", ttl = FRESH, grace = GRACE,
        waitTimeout = 15,
    })
    -- Strict: a mark that was made up while Redis is away would tell of a purge that was none.
    marks = cache:namespace("mark", { grace = 0, strict = true })
    return cache
end

local function random_id()
    local file = assert(io.open("/dev/urandom", "rb"))
    local bytes = file:read(8)
    file:close()
    return (bytes:gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

-- Tags --------------------------------------------------------------------------------------------

-- Tags are redcache's: a purge of one voids all pages that were stored with it, on all machines.
-- The names in a header; nil: redcache takes no such ones.
local function tags_of(text)
    local list, seen = {}, {}
    for tag in text:gmatch("[^,%s]+") do
        if #tag > MAX_TAG_BYTES then
            return nil
        elseif not seen[tag] then
            seen[tag], list[#list + 1] = true, tag
        end
    end
    return list
end

-- A page's tags are known when the upstream has answered, and a purge may have come between: then
-- the page is older than what redcache reads of them. So a purge first says here that there was
-- one, and a request that loads looks before and after.
local function last_purge(opts)
    return marks:rememberForever("purge", random_id, opts)
end

-- Tags the page that a loader is about to return. false: it may be older than a purge.
local function tag_page(ctx, list, purge_before)
    return purge_before ~= nil and ctx:tag(unpack(list))
        and last_purge({ fresh = true }) == purge_before
end

-- The upstream ------------------------------------------------------------------------------------

local function header_of(headers, wanted)
    for name, value in pairs(headers) do
        if name:lower() == wanted then
            return type(value) == "table" and table.concat(value, ", ") or value
        end
    end
    return nil
end

-- In the content phase: subrequests work there and in no timer. What it gives belongs to the one
-- light thread that holds the lease; other requests wait for it, or have something older.
local function fetch(ctx)
    local purge_before = last_purge()
    local answer = ngx.location.capture("/_fetch", { method = ngx.HTTP_GET })
    local age = tonumber(header_of(answer.header, "age")) or 0
    local page = {
        status = answer.status, body = answer.body, headers = {}, at = ngx.now() - age,
    }
    for name, value in pairs(answer.header) do
        if not NOT_KEPT[name:lower()] then
            page.headers[name] = value
        end
    end
    local list = tags_of(header_of(answer.header, "cache-tag") or "")
    local has_too_many = list == nil or #list > MAX_TAGS
    local is_unsure = not has_too_many and #list > 0 and not tag_page(ctx, list, purge_before)
    return page, answer.truncated, is_unsure, has_too_many
end

-- How long a page may be kept, in seconds; nil: it is nobody else's.
local function life_of(page)
    local vary = header_of(page.headers, "vary")
    local control = (header_of(page.headers, "cache-control") or ""):lower()
    if header_of(page.headers, "set-cookie") or #page.body > MAX_BODY
        or (vary and vary:lower() ~= "accept-encoding") -- which the upstream never sees
        or control:find("private", 1, true) or control:find("no%-store")
        or control:find("no%-cache") then
        return nil
    elseif page.status == 404 or page.status == 410 then
        return NOT_FOUND
    elseif page.status ~= 200 then
        return nil
    end
    local told = tonumber(control:match("s%-maxage=(%d+)") or control:match("max%-age=(%d+)"))
    local life = told and told - (ngx.now() - page.at) or FRESH
    return life > 0 and life or nil
end

-- The page of a key, made by one request for all. page | nil, err; then the source, and what the
-- upstream has said to this very request, whether it can be kept or not.
local function load(key)
    local made
    local page, err, source = cache:remember(key, nil, function(_, ctx)
        local answer, is_truncated, is_unsure, has_too_many = fetch(ctx)
        if is_truncated then
            return nil, "the upstream's answer was cut off"
        end
        made = answer
        if answer.status >= 500 then
            return nil, "the upstream answered " .. answer.status -- within grace the old one stays
        end
        local life = life_of(answer)
        if life == nil or has_too_many then
            return TO_UPSTREAM, PASS -- all who wait, and come soon, ask for themselves
        end
        return answer, is_unsure and 0 or life
    end)
    return page, err, source, made
end

-- The cache ---------------------------------------------------------------------------------------

local function find(key)
    local page, err, source, made = cache:get(key)
    if page == nil or (source == "stale" and page.status ~= 200) then
        page, err, source, made = load(key)
    end
    return page, err, source, made
end

local function answer(page, verdict)
    local header = ngx.header
    ngx.status = page.status
    for name, value in pairs(page.headers) do
        header[name] = value
    end
    header["Content-Length"] = #page.body
    header["Age"] = math.max(0, math.floor(ngx.now() - page.at))
    header["X-Cache"] = verdict
    ngx.print(page.body)
end

-- A timer's light thread can make no subrequest, so it sends a request to this very nginx.
local function ask_ourselves(is_exiting, key, host, uri)
    local sock, ok, err = ngx.socket.tcp(), nil, nil
    sock:settimeouts(1000, 1000, REFRESH_SECONDS * 1000)
    if not is_exiting then
        ok, err = sock:connect(REFRESH_SOCKET)
        ok, err = ok and sock:send(("GET %s HTTP/1.0\r\nHost: %s\r\n\r\n"):format(uri, host)), err
        ok, err = ok and sock:receive("*l"), err
        sock:close()
    end
    if not ok and not is_exiting then
        ngx.log(ngx.WARN, "could not refresh '", key, "': ", err)
    end
    refreshing[key] = nil
end

-- In the background, and not for each of the many who see the old page. Only one in the whole
-- cluster loads it: the lease says who.
local function begin_refresh(key)
    local now, var = ngx.now(), ngx.var
    if (refreshing[key] or 0) > now then
        return
    end
    refreshing[key] = now + REFRESH_SECONDS
    local ok, err = ngx.timer.at(0, ask_ourselves, key, var.host, var.request_uri)
    if not ok then
        refreshing[key] = nil
        ngx.log(ngx.WARN, "could not refresh '", key, "': ", err)
    end
end

local function say(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.say(text)
end

local function purge(key)
    if ngx.var.may_purge ~= "1" then
        return say(403, "not from there")
    end
    local done, err
    local text = ngx.var.http_cache_tag
    local list = text and tags_of(text)
    if list then
        done, err = marks:set("purge", random_id(), redcache.FOREVER)
        if done then
            done, err = cache:invalidateTags(list)
        end
    elseif text then
        return say(400, "no page has such a tag")
    else
        done, err = cache:delete(key)
    end
    if done == nil then
        return say(503, tostring(err)) -- it may have been done: repeat it
    end
    return say(done and 200 or 404, done and "purged" or "not in the cache")
end

---The content handler.
function http_cache.serve()
    local var, method = ngx.var, ngx.req.get_method()
    local key = var.host .. var.request_uri
    if var.remote_addr == "unix:" then -- nobody else comes by the socket
        load(key)
        return ngx.exit(204)
    elseif method == "PURGE" then
        return purge(key)
    elseif (method ~= "GET" and method ~= "HEAD")
        or var.http_cookie or var.http_authorization then
        return ngx.exec("@upstream")
    end
    local page, err, source, made = find(key)
    if made and (page == nil or page.pass) then
        return answer(made, "MISS")
    elseif page == nil then
        ngx.log(ngx.WARN, tostring(err))
        ngx.header["X-Cache"] = "ERROR"
        return say(502, "the upstream does not answer")
    elseif page.pass then
        return ngx.exec("@upstream")
    elseif source == "stale" then
        begin_refresh(key)
        return answer(page, "STALE")
    end
    return answer(page, HIT[source] or "MISS")
end

return http_cache
