-- Benches still run: each in its quick form, a few calls in one round, without the rivals that this
-- machine may not have. What they measure then says nothing.

local channel = require("spec.support.channel")
local clock = require("spec.support.clock")
local process = require("spec.support.process")
local temp = require("spec.support.temp")

local SECONDS = 120
local ROOT = debug.getinfo(1, "S").source:match("^@(.*)spec/redis/[^/]*$")
ROOT = ROOT == "" and "." or ROOT

-- Two builds, and drawing: other arguments, and specs of their own.
local OTHERS = { compare = true, charts = true }

local function in_root(...)
    return process.run({ "sh", "-c", 'cd "$0" && exec "$@"', ROOT, ... }, clock.scaled(SECONDS))
end

local function said(ended)
    return ended.out .. ended.err
end

describe("bench", function()
    local dir = temp.dir()
    local count = 0
    for path in process.run({ "sh", "-c", 'ls "$0"/bench/*.lua', ROOT }).out:gmatch("[^\n]+") do
        local name = path:match("([^/]+)%.lua$")
        if not OTHERS[name] then
            count = count + 1
            it(name .. " runs, and says what it measured", function()
                local out = dir .. "/" .. name .. ".json"
                local ended = in_root("luajit", "bench/" .. name .. ".lua", "--quick", "--out", out)
                assert.equal(0, ended.exit, said(ended))
                if name ~= "codecs" then -- a table and no question
                    local results = channel.decode(temp.read(out))
                    assert.equal(name, results.name)
                    assert.is_true(#results.idle.sides > 0)
                end
            end)
        end
    end

    it("has at least those that were there when this was written", function()
        assert.is_true(count >= 17, count .. " benches were found")
    end)

    it("refuses arguments it does not know", function()
        local ended = in_root("luajit", "bench/locks.lua", "--quick", "--round", "1")
        assert.not_equal(0, ended.exit)
        assert.truthy(ended.err:find("usage: locks", 1, true), said(ended))
    end)
end)
