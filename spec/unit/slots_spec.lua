-- Which hash slots a scan of a cluster has done with, by what the masters say.

local slots = require("redcache.slots")

-- What node `id` says: the slots it has, and words about those that are open.
local function view(id, words, others)
    local lines = { id .. " 127.0.0.1:7000@17000 myself,master - 0 0 1 connected " .. words }
    for other, has in pairs(others or {}) do
        lines[#lines + 1] = other .. " 127.0.0.1:7001@17001 master - 0 0 2 connected " .. has
    end
    return slots.read(table.concat(lines, "\n") .. "\n")
end

local function scanned(all, before, after)
    all:finish(before, after or before)
    return (all:next())
end

describe("slots", function()
    it("reads what a master has, what leaves it and what comes", function()
        local one = view("aa", "0-5 7 [6->-bb] [9-<-cc]", { bb = "10-20 30", cc = "" })
        assert.equal("aa", one.id)
        assert.is_true(one.has[0] and one.has[5] and one.has[7] and not one.has[6])
        assert.equal(7, one.last)
        assert.same({ [6] = "bb" }, one.leaving)
        assert.same({ [9] = "cc" }, one.coming)
        assert.same({ aa = 0, bb = 10 }, one.homes)
    end)

    it("are done where one master had them from the beginning to the end", function()
        local all = slots.new()
        assert.equal(0, (all:next()))
        assert.equal(8192, scanned(all, view("aa", "0-8191")))
        assert.is_nil(scanned(all, view("bb", "8192-16383")))
    end)

    it("are not done where they have left or come meanwhile", function()
        local all = slots.new()
        assert.equal(100, scanned(all, view("aa", "0-8191"), view("aa", "0-99 200-8191")))
        assert.equal(100, scanned(all, view("bb", "8192-16383"), view("bb", "100-199 8192-16383")))
        assert.is_nil(scanned(all, view("bb", "100-199 8192-16383")))
    end)

    it("are not done where another node has answered in the end", function()
        local all = slots.new()
        assert.equal(0, scanned(all, view("aa", "0-16383"), view("bb", "0-16383")))
    end)

    it("on their way are done behind the one they leave and the one they go to", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        local bb = view("bb", "8192-16383 [5-<-aa]")
        -- The one they go to, before the other one: that proves nothing.
        scanned(all, bb)
        assert.equal(8192, scanned(all, view("aa", "0-8191 [5->-bb]", others)))
        assert.is_nil(scanned(all, bb))
    end)

    it("on their way that have gone on meanwhile begin anew", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        assert.equal(8192, scanned(all, view("aa", "0-8191 [5->-bb]", others)))
        assert.equal(5, scanned(all, view("bb", "8192-16383 [5-<-aa]"), view("bb", "8192-16383")))
    end)

    it("on their way to a node without slots wait", function()
        local all = slots.new()
        all:finish(view("aa", "0-16383 [5->-dd]"), view("aa", "0-16383 [5->-dd]"))
        local at, lost = all:next()
        assert.same({ 5, "dd" }, { at, lost })
    end)

    it("give a key of each", function()
        for _, slot in ipairs({ 0, 1, 16383 }) do
            assert.equal(slot, require("redcache").slot(slots.key_of(slot)))
        end
    end)
end)
