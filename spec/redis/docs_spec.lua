-- docs/api: every example runs, on Redis and on memory://; every public call has an entry, whose
-- heading has exactly its arguments, and there is none about a call that does not exist.

local bloom = require("redcache.bloom")
local clock = require("spec.support.clock")
local errors = require("redcache.errors")
local manual = require("spec.support.manual")
local options = require("redcache.options")
local redcache = require("redcache")
local server = require("spec.support.server")
local temp = require("spec.support.temp")
local usage = require("redcache.usage")

local FOLDER = "docs/api/"
-- Files about something else than calls.
local OTHERS = { README = true, options = true, errors = true, freshness = true,
    resilience = true }

local entries, names = {}, manual.files(FOLDER)
for _, name in ipairs(names) do
    if not OTHERS[name] then
        local path = FOLDER .. name .. ".md"
        for _, entry in ipairs(manual.entries(temp.read(path), path)) do
            entries[#entries + 1] = entry
        end
    end
end

-- An object of each class: a method that is documented can be called on it.
local function objects(cache)
    local task
    redcache.run(function() task = redcache.spawn(function() end) end)
    local redis, pipeline = cache:redis(), nil
    redis:pipeline(function(p) pipeline = p end)
    local transaction
    redis:transaction(function(tx) transaction = tx end)
    local commit
    cache:afterCommit(function(collected) commit = collected end)
    return {
        commit = commit,
        redcache = redcache, cache = cache, lock = cache:lock("l"), near = cache.near,
        locks = assert(cache:lockMulti({ "l" })), loader = cache:loader(function() return {} end),
        clock = redcache.clock(), task = task,
        redis = redis, pipeline = pipeline, transaction = transaction,
        subscription = assert(redis:subscribe("c")),
        script = redis:script("return 1"),
        listener = cache:onInvalidate(function() end),
        bloom = cache:namespace("filtered", { bloom = { keys = 9 } }):bloom(),
        semaphore = cache:semaphore("s", 2), readWriteLock = cache:readWriteLock("l"),
        session = cache:session(), limiter = cache:limiter({ limit = 1, window = 1 }),
        iterator = cache:scan("*"), keeper = cache:keepFresh("k", 60, function() end),
    }
end

-- What of the manual is not so, as texts.
local function complaints(found)
    local list = manual.faults(found, usage.calls())
    local cache = redcache.new()
    local by_class = objects(cache)
    for _, entry in ipairs(found) do
        local object = by_class[entry.class]
        if object == nil then
            list[#list + 1] = entry.where .. ": no object of class " .. tostring(entry.class)
                .. " in docs_spec.lua"
        elseif object[entry.method] == nil then
            list[#list + 1] = entry.where .. ": there is no " .. entry.title
        end
    end
    assert(redcache.NULL ~= nil and redcache.key) -- which stand there once they have been read
    for name, value in pairs(redcache) do
        if type(value) == "function" then
            if not usage.calls().redcache[name] then
                list[#list + 1] = "redcache." .. name .. " has no row in usage.lua"
            end
        elseif name ~= "_VERSION" and not manual.find(found, "redcache." .. name) then
            list[#list + 1] = "redcache." .. name .. " has no entry"
        end
    end
    cache:close()
    return list
end

describe("docs/api", function()
    it("has one entry per call, with its arguments, and no other", function()
        assert.same({}, complaints(entries))
    end)

    it("would not pass with an entry that is missing, wrong or about nothing", function()
        local text = temp.read(FOLDER .. "counters.md")
        local function told(from, to)
            local changed, count = text:gsub(from, to)
            assert.equal(1, count, from)
            return table.concat(manual.faults(manual.entries(changed, "x"), {
                cache = { incr = "key, n, opts", decr = "key, n, opts",
                    incrFloat = "key, n, opts" },
            }), "\n")
        end
        assert.equal("", told("# Counters", "# Numbers"))
        assert.matches("cache:incr has no entry", told("## cache:incr%(key, n, opts%)", "### no"))
        assert.matches("is called cache:decr%(key, n, opts%)",
            told("## cache:decr%(key, n, opts%)", "## cache:decr(key, n)"))
        assert.matches("there is no call cache:increase",
            told("## cache:incr%(key", "## cache:increase(key"))
        assert.matches("no row for the argument 'n'", told("\n| n | finite", "\n| m | finite"))
        assert.matches("no line begins with Returns",
            told("Returns the counter, a number", "The counter, a number"))
        assert.matches("no option 'minimum'", told("| opts%.min |", "| opts.minimum |"))
    end)

    it("lists every option with its default and range", function()
        local listed = manual.options(temp.read(FOLDER .. "options.md"))
        local expected = {}
        for section, rows in pairs({ ["redcache.new"] = options.rows("new"),
            namespaces = options.rows("namespace"), near = options.rows("near"),
            ["near.l0"] = options.rows("l0") }) do
            expected[section] = {}
            for name, row in pairs(rows) do
                if section ~= "redcache.new" or not options.rows("namespace")[name] then
                    expected[section][name] = manual.option_cells(row, listed[section][name])
                end
            end
        end
        -- What namespaces inherit has its default at redcache.new.
        expected.namespaces.near = { default = "true", range = "" }
        assert.same(expected, listed)
    end)

    it("lists every error code", function()
        local listed = {}
        for code in temp.read(FOLDER .. "errors.md"):gmatch("\n| `(%a+)` |") do
            listed[code] = code
        end
        assert.same(errors.CODES, listed)
    end)

    it("has every file in its list", function()
        local list = temp.read(FOLDER .. "README.md")
        for _, name in ipairs(names) do
            if name ~= "README" then
                assert.is_truthy(list:find("(" .. name .. ".md)", 1, true), name)
            end
        end
    end)
end)

describe("the examples of docs/api on", function()
    local redis
    local settle = bloom.SETTLE

    setup(function()
        redis = server.start()
        bloom.SETTLE = 0.05 -- nobody else writes
    end)
    teardown(function()
        redis:stop()
        bloom.SETTLE = settle
    end)

    for _, place in ipairs({ "Redis", "memory://" }) do
        for _, entry in ipairs(entries) do
            it(place .. ": " .. entry.title, function()
                if place == "Redis" then redis:reset() end
                local cache = redcache.new({
                    url = place == "Redis" and redis:url() or "memory://docs", namespace = "app",
                    connectTimeout = clock.scaled(5), commandTimeout = clock.scaled(5),
                })
                finally(function() cache:close() end)
                manual.run(entry, redcache, cache)
                local stats = cache:stats() or {} -- an example may close its cache
                assert.equal(0, stats.activeLocks or 0)
                assert.equal(0, stats.activeLeases or 0)
            end)
        end
    end

    it("fail where they are wrong, at their line", function()
        local entry = manual.entries("## cache:get(key)\n\n```lua\nlocal a = 1\n"
            .. "assert(cache:get('k') == a)\n```\n", "docs/api/x.md")[1]
        local cache = redcache.new()
        finally(function() cache:close() end)
        local ok, message = pcall(manual.run, entry, redcache, cache)
        assert.is_false(ok)
        assert.matches("docs/api/x.md:5", message, 1, true)
        entry.example = "leaked = 1"
        ok, message = pcall(manual.run, entry, redcache, cache)
        assert.is_false(ok)
        assert.matches("global 'leaked'", message, 1, true)
    end)
end)
