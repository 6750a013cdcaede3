-- afterCommit in nginx: what a worker could not invalidate is tried again, although nobody calls.
-- What the call promises: spec/support/cases/commits.lua.

local clock = require("spec.support.clock")
local nginx = require("spec.support.nginx")
local server = require("spec.support.server")

local LOCATIONS = {
    ["/save"] = [[
        content_by_lua_block {
            ngx.print(cache:afterCommit(function(commit)
                ngx.sleep(0.001)
                commit:deleteMulti({ "a", "b" })
                return "saved"
            end))
        }
    ]],
    ["/stats"] = [[
        content_by_lua_block {
            local stats = cache:stats()
            ngx.print(stats.afterCommitFailed, " ", stats.afterCommitRetried, " ",
                stats.afterCommitQueued)
        }
    ]],
}

local possible, reason = nginx.is_possible()

for _, driver in ipairs({ "loop", "thread" }) do
    describe("afterCommit, driver " .. driver .. ",", function()
        if not possible then
            pending(reason)
            return
        end
        local redis, web

        setup(function()
            redis = server.start()
            web = nginx.start({ locations = LOCATIONS, init = ([[
                cache = require("redcache").init({ url = "%s", driver = "%s", near = false,
                    commandTimeout = 20 })
            ]]):format(redis:url(), driver) })
        end)
        teardown(function()
            web:stop()
            redis:stop()
        end)

        it("tries again what has failed, although nobody calls", function()
            redis:call("MSET", "a", "1", "b", "2")
            redis:call("ACL", "SETUSER", "default", "-unlink")
            assert.equal("saved", select(2, web:get("/save")))
            assert.equal(2, redis:call("EXISTS", "a", "b"))
            assert.equal("2 0 2", select(2, web:get("/stats")))
            redis:call("ACL", "SETUSER", "default", "+unlink")
            clock.wait_until(function() return redis:call("EXISTS", "a", "b") == 0 end, 20,
                "the retry")
            clock.wait_until(function() return select(2, web:get("/stats")) == "2 2 0" end, 20,
                "its end")
        end)
    end)
end
