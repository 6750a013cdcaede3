-- close at every step of what light threads do, some of which are killed: no worker dies, nothing
-- hangs, each call has its answer or says closed, and no lease, lock, slot or port stays.
--
-- REDCACHE_CLOSE_SECONDS: how long each driver goes on with more seeds (2).

local nginx = require("spec.support.nginx")
local server = require("spec.support.server")
local temp = require("spec.support.temp")

local SECONDS = tonumber(os.getenv("REDCACHE_CLOSE_SECONDS") or "") or 2
local possible, reason = nginx.is_possible()

-- What the worker does: the parameters stand in the query.
local CONTENT = [[content_by_lua_block {
    local arg, params = ngx.req.get_uri_args(), {}
    for name, text in pairs(arg) do params[name] = tonumber(text) or text end
    local result = require("spec.support.closing").work(params)
    ngx.print(result.plays, " plays\n", table.concat(result.complaints, "\n"))
}]]

for _, driver in ipairs({ "loop", "thread" }) do
    describe("close at every step in nginx, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web, workers
        local note = temp.dir() .. "/note"

        setup(function()
            redis = server.start()
            web = nginx.start({ locations = { ["/play"] = CONTENT } })
            workers = web:workers()
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)

        local function play(options)
            local query = { "bed=resty", "driver=" .. driver, "note=" .. note, "first=1" }
            for name, value in pairs(options) do query[#query + 1] = name .. "=" .. value end
            local status, body = web:get("/play?" .. table.concat(query, "&"),
                { timeout = 60 + SECONDS })
            redis:resume()
            assert.equal(200, status, "the worker was gone at " .. temp.read(note))
            local plays, complaints = body:match("^(%d+) plays\n(.*)$")
            assert.equal("", complaints, body)
            assert.is_true(tonumber(plays) > 3, body)
            assert.same(workers, web:workers())
            assert.same({}, web:complaints())
        end

        it("of a Redis", function()
            play({ url = redis:url(), last = 1000000, seconds = SECONDS, patience = 5, frozen = 0 })
        end)

        it("of a store in memory", function()
            play({ url = "memory://steps", last = 1000000, seconds = SECONDS / 2, patience = 5,
                frozen = 0 })
        end)

        it("of a Redis that stands still", function()
            play({ url = redis:url(), last = 1, seconds = 0, patience = 0.1, frozen = 8,
                pid = redis.pid })
        end)
    end)
end
