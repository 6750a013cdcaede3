--- Certificates for specs, made by openssl in a directory that goes with the Lua state.

local process = require("spec.support.process")
local temp = require("spec.support.temp")

local certificates = {}

local function openssl(...)
    local result = process.run({ "openssl", ... }, 30)
    assert(result.exit == 0, result.err)
end

--- A CA of its own, and a certificate of that CA for the given names
-- ("IP:127.0.0.1,DNS:localhost"): {ca =, cert =, key =, other_key =}, paths.
function certificates.make(names)
    local dir = temp.dir()
    local key, request = dir .. "/key.pem", dir .. "/request.pem"
    local ca, ca_key, cert = dir .. "/ca.pem", dir .. "/ca-key.pem", dir .. "/cert.pem"
    local curve = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes" }
    openssl("req", "-x509", "-subj", "/CN=test CA", "-days", "2", "-keyout", ca_key, "-out", ca,
        unpack(curve))
    openssl("req", "-subj", "/CN=redis", "-keyout", key, "-out", request, unpack(curve))
    temp.write(dir .. "/names", "subjectAltName=" .. names)
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
        "-days", "2", "-extfile", dir .. "/names", "-out", cert)
    return { ca = ca, cert = cert, key = key, other_key = ca_key }
end

return certificates
