-- tls - who a worker's cosockets are in a TLS handshake, and whom they expect.
--
-- What:   the certificate and key of the options tlsCert and tlsKey, read once, where the cache is
--         opened: in init_by_lua that is the master, which may read files that workers may not.
-- Not:    certificates to trust: those are nginx' directives.

local tls = {}

local function read_file(path)
    local file, reason = io.open(path, "rb")
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text, reason
end

---@param settings table complete settings of redcache.new
---@return table|nil identity name, cert, key: each may be nil
---@return string|nil message why it cannot be used
function tls.identity(settings)
    local identity = { name = settings.tlsServerName ~= "" and settings.tlsServerName or nil }
    if settings.tlsCert == "" or settings.tlsKey == "" then
        return identity
    end
    local ssl, parsed = require("ngx.ssl"), nil
    for name, path in pairs({ cert = settings.tlsCert, key = settings.tlsKey }) do
        local parse = name == "cert" and ssl.parse_pem_cert or ssl.parse_pem_priv_key
        local text, reason = read_file(path)
        if text then
            parsed, reason = parse(text)
        end
        if not text or not parsed then
            return nil, "the file of " .. (name == "cert" and "tlsCert" or "tlsKey")
                .. " cannot be read: " .. tostring(reason)
        end
        identity[name] = parsed
    end
    return identity
end

---The handshake of a cosocket that is connected.
---@param identity table
---@param sock table
---@param host string of the url
---@return boolean|nil ok
---@return string|nil err
function tls.shake(identity, sock, host)
    if identity.cert then
        if not sock.setclientcert then
            return nil, "this nginx has no client certificates for cosockets:"
                .. ' choose driver = "thread"'
        end
        local ok, err = sock:setclientcert(identity.cert, identity.key)
        if not ok then
            return nil, err
        end
    end
    local ok, err = sock:sslhandshake(false, identity.name or host, true)
    -- ngx_lua 0.10.23: where the handshake ends within the call, a certificate of another host
    -- closes the connection, and the answer is true all the same.
    if ok and not sock:getreusedtimes() then
        return nil, "certificate host mismatch, or what else nginx' error log says"
    end
    return ok, err
end

return tls
