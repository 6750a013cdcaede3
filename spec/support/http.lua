--- A small HTTP/1.1 client: one request per connection, every call with a deadline.
--
-- What:   get, open.
-- Errors: get returns nil, "timeout" | "closed" | text of errno, and what had come until then.
-- Not:    TLS, keep-alive, anything after the first answer.

local clock = require("spec.support.clock")
local socket = require("spec.support.socket")

local http = {}

local TIMEOUT = 10

local function request_text(path, options)
    local body = options.body
    local lines = {
        (options.method or (body and "POST" or "GET")) .. " " .. path .. " HTTP/1.1",
    }
    local headers = { Host = "localhost", Connection = "close" }
    if body then headers["Content-Length"] = #body end
    for name, value in pairs(options.headers or {}) do headers[name] = value end
    for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

local function read_headers(text)
    local headers = {}
    for name, value in text:gmatch("\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
        headers[name:lower()] = value
    end
    return headers
end

-- The bytes of the chunks that are there, and whether the last one is among them.
local function join_chunks(bytes)
    local parts, at = {}, 1
    while true do
        local size, after = bytes:match("^(%x+)[^\r\n]*\r\n()", at)
        size = size and tonumber(size, 16)
        if size == 0 then return table.concat(parts), true end
        if not size or #bytes < after + size + 1 then return table.concat(parts), false end
        parts[#parts + 1] = bytes:sub(after, after + size - 1)
        at = after + size + 2
    end
end

-- body, is_complete
local function read_body(bytes, headers, is_closed)
    if (headers["transfer-encoding"] or ""):lower() == "chunked" then return join_chunks(bytes) end
    local len = tonumber(headers["content-length"])
    if not len then return bytes, is_closed end
    return bytes:sub(1, len), #bytes >= len
end

--- Connects to {port=} or {path=} and sends the request: a connection of socket.lua, for a caller
-- that does not want the whole answer. nil, err.
function http.open(where, path, options)
    options = options or {}
    local timeout = clock.scaled(options.timeout or TIMEOUT)
    local connection, err = socket.connect(where, timeout)
    if not connection then return nil, err end
    local ok
    ok, err = connection:send(request_text(path, options), timeout)
    if ok then return connection end
    connection:close()
    return nil, err
end

--- The answer to what open() has sent: status, body, headers (names in lower case); or nil, err and
-- the bytes that came. Closes the connection.
function http.read(connection, timeout)
    local deadline, text = clock.deadline(timeout or TIMEOUT), ""
    while true do
        local bytes, err = connection:receive(clock.left(deadline))
        text = text .. (bytes or "")
        local status, after = text:match("^HTTP/1%.[01] (%d%d%d)[^\n]*\n.-\r\n\r\n()")
        if status and status ~= "100" then
            local headers = read_headers(text:sub(1, after - 3))
            local body, is_complete = read_body(text:sub(after), headers, err == "closed")
            if is_complete then
                connection:close()
                return tonumber(status), body, headers
            end
        end
        if not bytes then
            connection:close()
            return nil, err, text
        end
    end
end

--- One request. Options: timeout (10), headers, method (GET; POST with a body), body.
function http.get(where, path, options)
    local timeout = options and options.timeout or TIMEOUT
    local deadline = clock.now() + timeout
    local connection, err = http.open(where, path, options)
    if not connection then return nil, err end
    return http.read(connection, clock.left(deadline))
end

return http
