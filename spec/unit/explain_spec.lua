-- The reason of a read, by what was known before Redis was asked and what it has answered.

local constants = require("redcache.core.constants")
local explain = require("redcache.explain")

describe("explain.after", function()
    it("tells of a miss what has happened to the copy that was here", function()
        for gone, reason in pairs({ written = "written", invalidated = "invalidated",
            expired = "expired", raced = "invalidated", evicted = "gone", refused = "gone",
            moved = "gone", unconfirmed = "gone" }) do
            assert.equal(reason, explain.after({ reason = gone, gone = gone }, nil, nil,
                constants.KIND_NONE), gone)
        end
        assert.equal("neverStored", explain.after({ reason = "notNear" }, nil, nil,
            constants.KIND_NONE))
    end)

    it("tells of a stale value that Redis was silent, or its time was over", function()
        local old, other = { reason = "tooOld" }, { reason = "notNear" }
        assert.equal("tooOld", explain.after(old, "stale"))
        assert.equal("expired", explain.after(old, "stale", nil, constants.KIND_VALUE))
        assert.equal("expired", explain.after(other, "stale"))
        assert.equal("tagInvalidated", explain.after(old, "stale", nil, "soft"))
    end)
end)
