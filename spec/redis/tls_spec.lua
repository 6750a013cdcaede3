local certificates = require("spec.support.certificates")
local clock = require("spec.support.clock")
local process = require("spec.support.process")
local redcache = require("redcache")
local server = require("spec.support.server")
local socket = require("spec.support.socket")
local temp = require("spec.support.temp")

local function start(names, wants_ours)
    local files, port = certificates.make(names), socket.free_port()
    local redis = server.start({ config = {
        "tls-port " .. port, "tls-cert-file " .. files.cert, "tls-key-file " .. files.key,
        "tls-ca-cert-file " .. files.ca, "tls-auth-clients " .. (wants_ours or "no"),
    } })
    return redis, ("rediss://127.0.0.1:%d"):format(port), files
end

describe("a rediss:// url", function()
    local redis, url, files

    setup(function()
        redis, url, files = start("IP:127.0.0.1,DNS:localhost")
    end)

    teardown(function()
        redis:stop()
    end)

    it("is a connection like any other, with values of any size", function()
        local cache = redcache.new({ url = url, tlsCa = files.ca, codec = "raw" })
        local large = ("redcache"):rep(300000)
        assert.is_true(cache:set("small", "v"))
        assert.is_true(cache:set("large", large))
        assert.equal("v", (cache:get("small")))
        assert.is_true((cache:get("large")) == large)
        local loads = 0
        for _ = 1, 3 do
            assert.equal("loaded", (cache:remember("key", 60, function()
                loads = loads + 1
                return "loaded"
            end)))
        end
        assert.equal(1, loads)
        assert.equal(42, (cache:withLock("job", {}, function() return 42 end)))
        cache:close()
    end)

    it("takes a host name that the certificate carries", function()
        local cache = redcache.new({ url = url:gsub("127.0.0.1", "localhost"), tlsCa = files.ca })
        assert.is_true(cache:set("named", 1))
        cache:close()
    end)

    it("of a port that speaks no TLS is told so, and the reverse", function()
        for _, case in ipairs({
            { (url:gsub("rediss", "redis")), "instead of an answer to HELLO: .*%(rediss://%)" },
            { (redis:url():gsub("redis", "rediss")), "the port may be one without .*%(redis://%)" },
        }) do
            local cache = redcache.new({ url = case[1], tlsCa = files.ca, commandTimeout = 3,
                connectTimeout = 0.3 })
            local value, err = cache:get("small")
            assert.is_nil(value)
            assert.equal("unavailable", err.code)
            assert.matches(case[2], err.message)
            clock.wait_until(function()
                cache:get("small", { timeout = 0.1 })
                return cache:health().cause:match(case[2])
            end, 5)
            assert.is_false(cache:health().ready)
            cache:close()
        end
    end)

    it("refuses a server whose certificate nobody we trust has signed", function()
        local cache = redcache.new({ url = url, commandTimeout = clock.scaled(1) })
        local value, err = cache:get("small")
        assert.is_nil(value)
        assert.equal("unavailable", err.code)
        assert.matches("TLS: .*certificate", err.message)
        cache:close(0)
    end)

    -- An address and a name are looked up in the certificate in two different ways.
    local function assert_mismatch(names, host)
        local other, other_url, other_files = start(names)
        local cache = redcache.new({ url = other_url:gsub("127.0.0.1", host),
            tlsCa = other_files.ca, commandTimeout = 1 })
        local value, err = cache:set("small", "secret")
        cache:close(0)
        local commands = other:commandstats()
        other:stop()
        assert.is_nil(value)
        assert.equal("unavailable", err.code)
        assert.matches("TLS: .*mismatch$", err.message)
        assert.is_nil(commands["client|tracking"]) -- it did not even get our handshake
        assert.is_nil(commands.set)
    end

    it("refuses a certificate that is for another address", function()
        assert_mismatch("DNS:example.test,IP:127.0.0.2", "127.0.0.1")
    end)

    it("refuses a certificate that is for another name", function()
        assert_mismatch("DNS:example.test,DNS:localhost.example.test,IP:127.0.0.1", "localhost")
    end)

    it("never sends a word in the clear to a server that speaks no TLS", function()
        local cache = redcache.new({
            url = ("rediss://:secret@127.0.0.1:%d"):format(redis.port), tlsCa = files.ca,
            commandTimeout = 0.3, connectTimeout = 0.3,
        })
        local _, err = cache:get("small")
        assert.equal("unavailable", err.code)
        cache:close(0)
    end)

    it("is verified for tlsServerName where that is given", function()
        local other, other_url, other_files = start("DNS:cache.example")
        local cache = redcache.new({ url = other_url, tlsCa = other_files.ca,
            tlsServerName = "cache.example" })
        assert.is_true(cache:set("named", 1))
        cache:close()
        cache = redcache.new({ url = other_url, tlsCa = other_files.ca, commandTimeout = 1,
            tlsServerName = "other.example" })
        local _, err = cache:get("named")
        assert.matches("TLS: .*mismatch", err.message)
        cache:close(0)
        other:stop()
    end)

    it("shows our certificate to a server that wants one", function()
        local strict, strict_url, own = start("IP:127.0.0.1", "yes")
        local cache = redcache.new({ url = strict_url, tlsCa = own.ca, commandTimeout = 1 })
        local _, err = cache:set("key", 1)
        assert.equal("unavailable", err.code)
        cache:close(0)
        cache = redcache.new({ url = strict_url, tlsCa = own.ca, tlsCert = own.cert,
            tlsKey = own.key })
        assert.is_true(cache:set("key", 1))
        assert.equal(1, (cache:get("key")))
        cache:close()
        strict:stop()
    end)

    it("says which of the certificate's files is wrong", function()
        local function message_of(opts)
            opts.url, opts.tlsCa = url, files.ca
            local ok, message = pcall(redcache.new, opts)
            assert.is_false(ok)
            return message
        end
        assert.matches("'tlsCert' to new: it needs the file with its key",
            message_of({ tlsCert = files.cert }), 1, true)
        assert.matches("'tlsKey' to new: it needs the file with its certificate",
            message_of({ tlsKey = files.key }), 1, true)
        assert.matches("'tlsCert' to new: the file holds no certificate",
            message_of({ tlsCert = "/nowhere/cert.pem", tlsKey = files.key }), 1, true)
        assert.matches("'tlsKey' to new: the file holds no key",
            message_of({ tlsCert = files.cert, tlsKey = files.other_key }), 1, true)
        local ok, message = pcall(redcache.new, { url = redis:url(), tlsServerName = "h" })
        assert.is_false(ok)
        assert.matches("'tlsServerName' to new: it is for TLS", message, 1, true)
    end)

    it("names the option when the CA file cannot be read", function()
        assert.has_error(function()
            redcache.new({ url = url, tlsCa = "/nowhere/ca.pem" })
        end, "bad option 'tlsCa' to new: the file with the CA certificates cannot be read")
    end)
end)

describe("OpenSSL", function()
    local redis, url, files

    setup(function()
        redis, url, files = start("IP:127.0.0.1")
    end)

    teardown(function()
        redis:stop()
    end)

    -- What another process prints that writes and reads a key, and then says what is mapped in it.
    local function mapped_with(address)
        local child = process.run({ "luajit", "-e", [[
            local cache = require("redcache").new({
                url = os.getenv("TEST_URL"), tlsCa = os.getenv("TEST_CA"),
            })
            assert(cache:set("mapped", 1))
            assert(cache:get("mapped") == 1)
            cache:close()
            for line in io.lines("/proc/self/maps") do
                print(line)
            end
        ]], env = { TEST_URL = address, TEST_CA = files.ca } })
        assert.equal(0, child.exit, child.err)
        assert.matches("libredcache", child.out) -- so this is how a library would be seen
        return child.out
    end

    it("is not even mapped in a process that has no rediss:// url", function()
        local maps = mapped_with(redis:url())
        assert.is_nil(maps:match("libssl"))
        assert.is_nil(maps:match("libcrypto"))
    end)

    it("is loaded by the first rediss:// url", function()
        local maps = mapped_with(url)
        assert.matches("libssl", maps)
        assert.matches("libcrypto", maps)
    end)

    it("that cannot be loaded is asked for by name, and needed by rediss:// only", function()
        local dir = temp.dir()
        for _, version in ipairs({ "3", "1.1" }) do
            temp.write(dir .. "/libssl.so." .. version, "no library")
        end
        local child = process.run({ "luajit", "-e", [[
            local redcache = require("redcache")
            for _ = 1, 2 do
                print(select(2, pcall(redcache.new, { url = os.getenv("TEST_URL") })))
            end
            local cache = redcache.new({ url = os.getenv("TEST_PLAIN") })
            assert(cache:set("plain", 1))
            cache:close()
        ]], env = { TEST_URL = url, TEST_PLAIN = redis:url(), LD_LIBRARY_PATH = dir } })
        temp.remove(dir)
        assert.equal(0, child.exit, child.err)
        local text = "bad option 'url' to new: rediss:// needs OpenSSL [%d.]+, and libssl.so.[%d.]+"
            .. " cannot be loaded: install it %(Debian: libssl[%d.]+%)[^\n]*\n"
        assert.matches(text .. ".*" .. text, child.out)
    end)
end)
