-- Which hash slots a scan of a cluster has done with, by what the masters say.

local slots = require("redcache.slots")

-- What node `id` says: the slots it has, and words about those that are open; the slots of others,
-- by id. Epochs, by id: 1, if they are not told.
local function view(id, words, others, epochs)
    epochs = epochs or {}
    local lines = { ("%s 127.0.0.1:7000@17000 myself,master - 0 0 %d connected %s"):format(id,
        epochs[id] or 1, words) }
    for other, has in pairs(others or {}) do
        lines[#lines + 1] = ("%s 127.0.0.1:7001@17001 master - 0 7 %d connected %s"):format(other,
            epochs[other] or 1, has)
    end
    return slots.read(table.concat(lines, "\n") .. "\n")
end

-- A master was scanned, and looked at in between: where it goes on then.
local function scanned(all, ...)
    local looks = { ... }
    local pass = slots.begin(looks[1])
    for i = 1, math.max(#looks - 1, 1) do
        assert.is_true(pass:keep(looks[i], looks[i + 1] or looks[i]))
    end
    all:finish(pass)
    return (all:next())
end

describe("slots", function()
    it("reads what a master has, what leaves it and what comes", function()
        local one = view("aa", "0-5 7 [6->-bb] [9-<-cc]", { bb = "10-20 30", cc = "" }, { bb = 12 })
        assert.equal("aa", one.id)
        assert.is_true(one.has[0] and one.has[5] and one.has[7] and not one.has[6])
        assert.equal(7, one.last)
        assert.same({ [6] = "bb" }, one.leaving)
        assert.same({ [9] = "cc" }, one.coming)
        assert.same({ aa = 0, bb = 10 }, one.homes)
        assert.same({ aa = "1", bb = "12", cc = "1" }, one.epochs)
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

    it("are not done where a look in between does not find them, or on their way", function()
        local all, whole = slots.new(), view("aa", "0-16383")
        assert.equal(7, scanned(all, whole, view("aa", "0-6 8-16383 [9->-bb]"), whole))
        assert.equal(9, scanned(all, whole, view("aa", "0-7 9-16383 [9->-bb]"), whole))
        assert.is_nil(scanned(all, whole))
    end)

    it("of a stretch in which slots came back are scanned again", function()
        local one, two = view("aa", "0-16383"), view("aa", "0-16383", nil, { aa = 2 })
        local all, pass = slots.new(), slots.begin(one)
        assert.is_true(pass:keep(one, one))
        assert.is_false(pass:keep(one, two))
        assert.is_true(pass:keep(two, two))
        assert.is_true(all:finish(pass))
        assert.is_nil((all:next()))
    end)

    it("are left alone by a stretch that does not count", function()
        local one, pass = view("aa", "0-16383"), slots.begin(view("aa", "0-16383"))
        assert.is_false(pass:keep(one, view("aa", "0-6", nil, { aa = 2 })))
        assert.is_true(pass:keep(one, one))
        local all = slots.new()
        all:finish(pass)
        assert.is_nil((all:next()))
    end)

    it("are not told by another node that has answered in the end", function()
        local pass = slots.begin(view("aa", "0-16383"))
        assert.is_false(pass:keep(view("aa", "0-16383"), view("bb", "0-16383", { aa = "" })))
        assert.is_false(pass:keep(view("bb", "0-16383", { aa = "" }), view("aa", "0-16383")))
    end)

    it("tell whether a scan has helped: more are done, or half done", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        for _, one in ipairs({
            { "0-8191", true }, { "0-8191", false }, { "0-8192 [8192->-bb]", true },
            { "0-8192 [8192->-bb]", false }, { "0-8192", true },
        }) do
            local look = view("aa", one[1], others)
            local pass = slots.begin(look)
            assert.is_true(pass:keep(look, look))
            assert.equal(one[2], all:finish(pass))
        end
    end)

    it("on their way are done behind the one they leave and the one they go to", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        local bb = view("bb", "8192-16383 [5-<-aa]", { aa = "0-8191" })
        -- The one they go to, before the other one: that proves nothing.
        scanned(all, bb)
        assert.equal(8192, scanned(all, view("aa", "0-8191 [5->-bb]", others)))
        assert.is_nil(scanned(all, bb))
    end)

    it("on their way are done where they arrive while the second one is scanned", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        scanned(all, view("aa", "0-8191"), view("aa", "0-8191 [5->-bb]", others))
        assert.is_nil(scanned(all, view("bb", "8192-16383 [5-<-aa]", { aa = "0-8191" }),
            view("bb", "5 8192-16383", { aa = "0-4 6-8191" })))
    end)

    it("on their way that have gone on meanwhile begin anew", function()
        local all, others = slots.new(), { bb = "8192-16383" }
        assert.equal(8192, scanned(all, view("aa", "0-8191 [5->-bb]", others)))
        assert.equal(5, scanned(all, view("bb", "8192-16383 [5-<-aa]"), view("bb", "8192-16383")))
    end)

    -- What A, then B say of slot 5, and that of it keys may have gone back from B to A.
    local A = function(words, epoch)
        return view("aa", words, { bb = "8192-16383" }, { aa = epoch })
    end
    local B = function(words, epoch, of_b)
        return view("bb", words, { aa = "0-8191", cc = "" }, { aa = epoch, bb = of_b })
    end
    local way, comes = "0-8191 [5->-bb]", "8192-16383 [5-<-aa]"
    for name, looks in pairs({
        ["were on their way to another node before"] =
            { { A("0-8191 [5->-cc]"), A(way) }, { B(comes) } },
        ["go to another node than they did at first"] =
            { { A(way), A("0-8191 [5->-cc]") }, { B(comes) } },
        ["were not on their way at a look in between"] =
            { { A(way), A("0-8191"), A(way) }, { B(comes) } },
        ["were away at a look in between"] =
            { { A(way), A("0-4 6-8191"), A(way) }, { B(comes) } },
        ["leave a master that has taken slots since it was scanned"] =
            { { A(way, 1) }, { B(comes, 2) } },
        ["leave a master that takes slots while the other one is scanned"] =
            { { A(way, 1) }, { B(comes, 1), B(comes, 2) } },
        ["come from another node than they left"] =
            { { A(way) }, { B("8192-16383 [5-<-cc]") } },
        ["leave the node again that they came to"] =
            { { A(way) }, { B(comes), B("5 8192-16383 [5->-aa]") } },
        ["are in between not where they go to"] =
            { { A(way) }, { B(comes), B("8192-16383"), B(comes) } },
    }) do
        it("begin anew that " .. name, function()
            local all = slots.new()
            scanned(all, unpack(looks[1]))
            assert.equal(5, scanned(all, unpack(looks[2])))
        end)
    end

    it("on their way begin anew where one stretch of the first master did not count", function()
        local all, pass = slots.new(), slots.begin(A(way, 1))
        assert.is_true(pass:keep(A(way, 1), A(way, 1)))
        assert.is_false(pass:keep(A(way, 1), A(way, 2)))
        assert.is_true(pass:keep(A(way, 2), A(way, 2)))
        assert.is_true(all:finish(pass))
        assert.equal(5, scanned(all, B(comes, 2)))
    end)

    it("on their way to a node without slots wait", function()
        local all = slots.new()
        local one = view("aa", "0-16383 [5->-dd]")
        local pass = slots.begin(one)
        assert.is_true(pass:keep(one, one))
        all:finish(pass)
        local at, lost = all:next()
        assert.same({ 5, "dd" }, { at, lost })
    end)

    it("give a key of each", function()
        for _, slot in ipairs({ 0, 1, 16383 }) do
            assert.equal(slot, require("redcache").slot(slots.key_of(slot)))
        end
    end)
end)
