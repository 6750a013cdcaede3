--- What a server can do, found by asking it: a row of docs/servers.md each.
--
-- What:   a list of {name, question}. A question gets a running server of server.lua, a client of
--         it, and one of the same program as a cluster's node; it answers true, false or a text.
-- Errors: a question that throws counts as "no": the server does not know the command.
-- Env:    the program is REDCACHE_SERVER's, as everywhere.

local clock = require("spec.support.clock")
local process = require("spec.support.process")
local resp = require("spec.support.resp")

local function has_command(client, name)
    return client:call("COMMAND", "INFO", name)[1] ~= resp.NULL
end

local function has_setting(client, name)
    return next(client:call("CONFIG", "GET", name)) ~= nil
end

-- A client that tracks, with these further words; what it hears when fn has run.
local function pushes(bed, words, fn)
    local client = bed:client()
    client:call("CLIENT", "TRACKING", "ON", unpack(words))
    fn(client)
    local push = client:push(clock.scaled(0.2))
    client:close()
    return push ~= nil
end

local function one_command(name)
    return { name:upper():gsub("|", " "), function(_, client) return has_command(client, name) end }
end

return {
    { "HELLO: server, mode", function(_, client)
        local hello = client:call("HELLO", 3)
        return hello.server .. ", " .. hello.mode
    end },
    { "HELLO: mode of a cluster's node", function(_, _, node)
        return node:call("HELLO", 3).mode
    end },
    { "HELLO: further fields", function(_, client)
        local known, more = " server version proto id mode role modules ", {}
        for name in pairs(client:call("HELLO", 3)) do
            if not known:find(" " .. name .. " ", 1, true) then more[#more + 1] = name end
        end
        return #more > 0 and table.concat(more, ", ")
    end },
    { "tracking: an own read is tracked", function(bed, client)
        return pushes(bed, {}, function(reader)
            reader:call("GET", "k")
            client:call("SET", "k", 1)
        end)
    end },
    { "tracking: NOLOOP keeps tracking after an own write", function(bed, client)
        return pushes(bed, { "NOLOOP" }, function(reader)
            reader:call("GET", "k")
            reader:call("SET", "k", 1)
            client:call("SET", "k", 2)
        end)
    end },
    { "tracking: BCAST with a prefix", function(bed, client)
        return pushes(bed, { "BCAST", "PREFIX", "b:" }, function() client:call("SET", "b:1", 1) end)
    end },
    { "tracking: a push is for that name in all databases", function(bed, client)
        local pushed = pushes(bed, {}, function(reader)
            reader:call("GET", "k")
            client:call("SELECT", 1)
            client:call("SET", "k", 1)
        end)
        client:call("SELECT", 0)
        return pushed
    end },
    { "tracking: a script tracks keys", function(bed, client)
        local declared = pushes(bed, {}, function(reader)
            reader:call("EVAL", "return redis.call('GET', KEYS[1])", 2, "s1", "s2")
            client:call("SET", "s2", 1)
        end)
        return declared and "all it declares" or "those it reads"
    end },
    { "EVAL's scripts are forgotten after 500 others", function(_, client)
        client:call("EVAL", "return 'first'", 0)
        local sha = client:call("EVAL", "return redis.sha1hex(\"return 'first'\")", 0)
        for i = 1, 600 do client:call("EVAL", "return " .. i, 0) end
        return client:call("SCRIPT", "EXISTS", sha)[1] == 0
    end },
    { "CLIENT NO-EVICT, NO-TOUCH", function(_, client)
        local evict = has_command(client, "client|no-evict")
        local touch = has_command(client, "client|no-touch")
        return evict and touch or evict and "NO-EVICT" or touch and "NO-TOUCH"
    end },
    one_command("client|setinfo"),
    { "CLIENT CAPA redirect", function(_, client)
        return client:call("CLIENT", "CAPA", "redirect") == "OK"
    end },
    { "SET NX GET", function(_, client)
        client:call("SET", "ng", 1)
        return client:call("SET", "ng", 2, "NX", "GET") == "1"
    end },
    { "SET IFEQ", function(_, client)
        client:call("SET", "eq", "a")
        return client:call("SET", "eq", "b", "IFEQ", "a") == "OK"
    end },
    { "delete if equal", function(_, client)
        return has_command(client, "delifeq") and "DELIFEQ"
            or has_command(client, "delex") and "DELEX"
    end },
    { "MSETEX", function(_, client) return has_command(client, "msetex") end },
    { "HEXPIRE", function(_, client) return has_command(client, "hexpire") end },
    { "FUNCTION", function(_, client) return has_command(client, "fcall") end },
    { "ACL selectors, DRYRUN", function(_, client) return has_command(client, "acl|dryrun") end },
    { "FAILOVER", function(_, client) return has_command(client, "failover") end },
    { "WAITAOF", function(_, client) return has_command(client, "waitaof") end },
    { "CLUSTER SHARDS", function(_, client) return has_command(client, "cluster|shards") end },
    { "CLUSTER SLOTS: endpoint types", function(_, client)
        return has_setting(client, "cluster-preferred-endpoint-type")
    end },
    { "CLUSTER SLOT-STATS", function(_, client)
        return has_command(client, "cluster|slot-stats")
    end },
    { "slots move in one piece", function(_, client)
        return has_command(client, "cluster|migrateslots") and "MIGRATESLOTS"
            or has_command(client, "cluster|migration") and "MIGRATION IMPORT"
    end },
    { "databases in a cluster", function(_, client)
        return has_setting(client, "cluster-databases")
    end },
    { "databases in a cluster by default", function(_, _, node)
        local _, err = node:try("SELECT", 1)
        return err == nil
    end },
    { "this program has TLS", function(bed)
        -- It ends at once: for want of a certificate, or of TLS.
        local ended = process.run({ bed.program, "--port", "0", "--tls-port", "1" }, 10)
        return ended.out:find("Failed to configure TLS", 1, true) ~= nil
    end },
}
