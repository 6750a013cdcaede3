-- Calls of commands and scripts, as redcache/core/command.lua makes them: answers in their places,
-- whatever scripts Redis has forgotten.

local calls = require("redcache.calls")
local core_command = require("redcache.core.command")
local core_slot = require("redcache.core.slot")
local redcache = require("redcache")
local server = require("spec.support.server")

-- Adds to a number, and answers with the sum and what stood there.
local ADD = core_command.define(
    "local old=redis.call('GET',KEYS[1]) "
    .. "return {redis.call('INCRBY',KEYS[1],ARGV[1]),old or ARGV[2]}")
local NAME = core_command.define("return ARGV[1]")

local redis, cache

setup(function() redis = server.start() end)
teardown(function() redis:stop() end)
before_each(function()
    redis:call("FLUSHALL")
    cache = redcache.new({ url = redis:url(), commandTimeout = 10 })
end)
after_each(function() cache:close() end)

-- One element of an answer as Lua, and the place of the next.
local function read(nodes, at)
    local node = nodes[at]
    local kind = string.char(node.type)
    if kind == "*" then
        local list = {}
        at = at + 1
        for i = 1, node.count do
            list[i], at = read(nodes, at)
        end
        return list, at
    elseif kind == ":" then
        return tonumber(node.integer), at + 1
    elseif kind == "_" then
        return "nil", at + 1
    elseif kind == "-" then
        return core_command.node_failure(node, "call", "k"), at + 1
    end
    return core_command.node_text(node), at + 1
end

-- Sends a batch: {"SET", "k", "v"}, or {script, {keys}, {arguments}}. The answers, or an error.
local function batch(commands, flags, own)
    local slot = assert(calls.take(cache._client, own, "call"))
    local status = core_command.begin(slot, flags or 0)
    for _, command in ipairs(commands) do
        if type(command[1]) == "number" then
            assert.equal(0, core_command.script(slot, command[1], command[2], command[3]))
        else
            core_command.command(slot, #command)
            core_command.argument(slot, command[1])
            for i = 2, #command do
                core_command.argument(slot, command[i])
            end
        end
    end
    status = calls.send(cache, slot, status)
    if status ~= 0 then
        return nil, calls.fail(slot, status, "call", "k")
    end
    local nodes, count = core_command.nodes(slot)
    local answers, at = {}, 0
    while at < count do
        answers[#answers + 1], at = read(nodes, at)
    end
    core_slot.give(slot)
    return answers
end

describe("a script", function()
    it("has a number, the same for the same source", function()
        assert.equal(NAME, core_command.define("return ARGV[1]"))
        assert.is_not.equal(NAME, ADD)
    end)

    it("is called with keys and arguments, as text or as integers", function()
        assert.same({ { 5, "none" } }, batch({ { ADD, { "n" }, { 5, "none" } } }))
        assert.same({ { 7, "5" } }, batch({ { ADD, { "n" }, { "2", "none" } } }))
        assert.same({ "a\0b\r\n" }, batch({ { NAME, {}, { "a\0b\r\n" } } }))
    end)

    it("is sent by its SHA, and with its source where Redis has forgotten it", function()
        batch({ { NAME, {}, { "x" } } })
        assert.same({ evalsha = 1 }, redis:count(function() batch({ { NAME, {}, { "x" } } }) end))
        redis:call("SCRIPT", "FLUSH")
        local before = cache:stats().noscript
        assert.same({ evalsha = 1, eval = 1 }, redis:count(function()
            assert.same({ "x" }, batch({ { NAME, {}, { "x" } } }))
        end))
        assert.equal(before + 1, cache:stats().noscript)
    end)

    it("that fails tells Redis' own error, and the others of its batch their answers", function()
        redis:call("SET", "text", "no number")
        local answers = batch({
            { "SET", "k", "v" }, { ADD, { "text" }, { 1, "none" } }, { "GET", "k" },
        })
        assert.same({ "OK", "v" }, { answers[1], answers[3] })
        assert.equal("redis", answers[2].code)
    end)

    it("takes older copies of its keys out of the near cache", function()
        local plain = redcache.new({ url = redis:url(), plain = true, codec = "raw",
            commandTimeout = 10 }) -- of the same client
        assert(plain:set("n", "1"))
        assert.equal("1", plain:get("n"))
        assert.equal("1", plain:get("n"))
        assert.same({ { 2, "1" } }, batch({ { ADD, { "n" }, { 1, "none" } } }))
        assert.equal("2", plain:get("n"))
        plain:close()
    end)

    it("that a store in memory was not taught is refused", function()
        local held = cache
        cache = redcache.new({ url = "memory://call_spec" })
        local answers = batch({ { "SET", "k", "v" }, { NAME, {}, { "x" } }, { "GET", "k" } })
        cache:close()
        cache = held
        assert.same({ "OK", "v" }, { answers[1], answers[3] })
        assert.equal("redis", answers[2].code)
        assert.matches("runs no scripts", answers[2].message)
    end)
end)

describe("a batch whose scripts Redis has forgotten", function()
    local commands = {
        { "SET", "a", "1" }, { ADD, { "n" }, { 1, "none" } }, { "GET", "n" },
        { NAME, {}, { "x" } }, { ADD, { "n" }, { 10, "none" } }, { "GET", "a" },
    }

    it("gives every answer in its place", function()
        redis:call("SCRIPT", "FLUSH")
        -- What stood behind the scripts has run before them; they have kept their order.
        assert.same({ "OK", { 1, "none" }, "nil", "x", { 11, "1" }, "1" }, batch(commands))
        assert.same({ "OK", { 12, "11" }, "12", "x", { 22, "12" }, "1" }, batch(commands))
    end)

    it("sends again nothing but the scripts", function()
        redis:call("SCRIPT", "FLUSH")
        local counts = redis:count(function() batch(commands) end)
        assert.equal(1, counts.set)
        assert.equal(3, counts.evalsha)
        assert.equal(3, counts.eval)
    end)

    it("sends again only those that are missing", function()
        redis:call("SCRIPT", "FLUSH")
        batch({ { NAME, {}, { "x" } } })
        local counts = redis:count(function() batch(commands) end)
        assert.equal(2, counts.eval)
    end)

    it("ends by its deadline where the second answer does not come", function()
        redis:call("SCRIPT", "FLUSH")
        local answers = batch({ { "SET", "a", "1" },
            { core_command.define("local t=redis.call('TIME') "
                .. "repeat local n=redis.call('TIME') "
                .. "until (n[1]-t[1])*1000000+n[2]-t[2]>2500000 return 1"), {}, {} },
        }, 0, { timeout = 1.5 }) -- for the first answer
        assert.equal("OK", answers[1])
        assert.equal("timeout", answers[2].code)
    end)

    it("is whole after a restart of the server, too", function()
        batch(commands)
        redis:restart()
        redis:call("FLUSHALL")
        local answers, err
        for _ = 1, 100 do -- the connection is made again
            answers, err = batch(commands)
            if answers then break end
            assert.is_true(err.code == "unavailable" or err.code == "outcomeUnknown", err.code)
        end
        assert.same({ "OK", { 1, "none" }, "nil", "x", { 11, "1" }, "1" }, answers)
    end)
end)
