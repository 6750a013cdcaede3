-- Each row of the table "Who wins" in docs/api/freshness.md is what remember gives, on Redis and,
-- where Redis answers, on memory://.

local calls = require("redcache.calls")
local clock = require("spec.support.clock")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

-- The rows: { redis, value, loader, options (Lua text), gives, source, where }
local function read_rows()
    local text, rows = temp.read("docs/api/freshness.md"), {}
    local part = text:match("\n### Who wins\n(.*)")
    for line in part:gmatch("[^\n]+") do
        local cells = {}
        for cell in line:gmatch("|([^|]*)") do cells[#cells + 1] = cell:match("^%s*(.-)%s*$") end
        if #cells >= 6 and cells[1]:find("^%l+ ?%l*$") and cells[1] ~= "Redis"
            and not cells[1]:find("-", 1, true) then
            rows[#rows + 1] = { redis = cells[1], value = cells[2], loader = cells[3],
                options = cells[4]:match("`(.*)`") or "", gives = cells[5], source = cells[6],
                where = line }
        end
    end
    return rows
end

local rows = read_rows()
local TTL, EARLY = 0.15, 0.1

-- What stands there before the call that a row is about.
local VALUES = {
    fresh = function(cache) assert(cache:set("k", "old", 60)) end,
    early = function(cache)
        assert(cache:set("k", "old", 60))
        clock.sleep(EARLY + 0.02)
    end,
    stale = function(cache)
        assert(cache:set("k", "old", TTL))
        clock.sleep(TTL + 0.02)
    end,
    near = function(cache)
        assert(cache:set("k", "old", 60))
        assert.equal("old", (cache:get("k")))
    end,
    ["near, stale"] = function(cache)
        assert(cache:set("k", "old", TTL))
        assert.equal("old", (cache:get("k")))
        clock.sleep(TTL + 0.02)
    end,
    absent = function() end,
}

local LOADERS = {
    succeeds = function() return "new" end,
    fails = function() return nil, "down" end,
    failed = function() error("nobody should ask it") end,
    ["another's"] = function() return "new" end,
}

local function options_of(row, url, extra)
    local own = assert(loadstring("return { " .. row.options .. " }"))()
    local all = {
        url = url, scheduler = "coroutine", refreshAfter = row.value == "early" and EARLY or nil,
        near = row.value:find("near", 1, true) ~= nil and { l0 = false } or false,
        grace = row.value:find("stale", 1, true) and 60 or 0, leaseTtl = 60,
        waitTimeout = row.loader == "another's" and 0.3 or 60,
        commandTimeout = clock.scaled(3), connectTimeout = clock.scaled(3),
    }
    for name, value in pairs(own) do all[name] = value end
    for name, value in pairs(extra or {}) do all[name] = value end
    return all
end

local function check(row, url, redis)
    local cache = redcache.new(options_of(row, url))
    -- By the server's other address it is somebody else.
    local other = redcache.new(options_of(row, redis and redis:unix_url() or url,
        { group = "other", near = false, background = false }))
    local value, err, source, flag
    redcache.run(function()
        VALUES[row.value](cache)
        local function ask()
            local loader = LOADERS[row.loader] or function() -- it is slow
                assert.is_nil(calls.pause(cache, nil, "load", 0.2))
                return "new"
            end
            value, err, source, flag = cache:remember("k", 60, loader,
                row.redis ~= "answers" and { timeout = 0.2 } or nil)
        end
        if row.loader == "failed" then
            cache:remember("k", 60, function() return nil, "down" end)
        end
        if row.redis == "is silent" then redis:pause() end
        if row.redis == "is away" then redis:stop() end
        if row.loader == "another's" then
            local was_inside = false
            other:remember("k", 60, function()
                was_inside = true
                ask()
                return "late"
            end)
            assert.is_true(was_inside)
        else
            ask()
        end
        if row.redis == "is silent" then redis:resume() end
    end)
    cache:close(0)
    other:close(0)
    local got = { err and err.code or value, (source or "") .. (flag and ", " .. flag or "") }
    assert.same({ row.gives, row.source }, got, row.where)
end

describe("who wins, as docs/api/freshness.md says:", function()
    it("the table has rows", function() assert.is_true(#rows > 30, #rows) end)

    for _, row in ipairs(rows) do
        local name = ("Redis %s, value %s, loader %s, %s"):format(row.redis, row.value,
            row.loader, row.options ~= "" and row.options or "defaults")
        it(name, function()
            if row.redis == "answers" and row.loader ~= "another's" then
                check(row, "memory://")
            end
            local redis = server.start()
            local ok, message = pcall(check, row, redis:url(), redis)
            pcall(redis.stop, redis)
            assert(ok, message)
        end)
    end
end)
